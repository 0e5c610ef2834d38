"""Image files, whatever their mode, as upright 8-bit RGB."""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from m2fbench.errors import ImageError


def read_image(path: Path, *, exif_rotation: bool = True) -> NDArray[np.uint8]:
    """uint8 [height, width, 3], RGB, of the first frame in ``path``.

    Turned upright by its EXIF orientation unless ``exif_rotation`` is False. Palette, grayscale, CMYK and the like go through
    PIL's own conversion, transparency is dropped, and 16-bit grayscale is scaled by 255/65535 (PIL's conversion would clip it).
    Raises ImageError, naming the file, where it is missing, cut off, corrupt, or of a depth that has no RGB meaning.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            upright = ImageOps.exif_transpose(image) if exif_rotation else image
            if upright.mode.startswith(("I", "F")):
                return _deep_gray(upright, path)
            return np.array(upright.convert("RGB"))
    except FileNotFoundError:
        raise ImageError(f"{path}: no such image; the annotations name it") from None
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise whatever damaged bytes lead them to, struct.error and IndexError included
        raise ImageError(
            f"{path}: not a readable image ({error}); replace it, or set 'on_error: skip' to leave such images out"
        ) from error


def _deep_gray(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    values = np.array(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{path}: expected at most 16 bits a channel, got mode {image.mode}; convert it to 8-bit RGB")
    gray = (values.astype(np.float64) / 257 + 0.5).astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2)
