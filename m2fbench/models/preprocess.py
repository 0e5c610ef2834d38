"""From an RGB image to the model's input, as the original code does it at test time.

Convention: detectron2's ``ResizeShortestEdge`` (PIL bilinear on uint8, sizes rounded with ``int(x + 0.5)``) followed by
Mask2Former's own normalisation and zero-padding (``ImageList.from_tensors`` with ``size_divisibility=32``). What a plain
transformers processor does instead is described in :mod:`m2fbench.models.protocols`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from m2fbench.errors import ImageError
from m2fbench.types import Size

PIXEL_MEAN = (123.675, 116.280, 103.530)  # ImageNet, RGB, on 0..255
PIXEL_STD = (58.395, 57.120, 57.375)
SIZE_DIVISIBILITY = 32


@dataclass(frozen=True)
class Geometry:
    """The three sizes, (height, width) in pixels, that one image passes through on its way to the model.

    original: as decoded. resized: after the resize. padded: of the tensor the model sees, the image in its upper left.
    """

    original: Size
    resized: Size
    padded: Size


@dataclass(frozen=True)
class ModelInput:
    """A batch of one. pixels: float32 [1, 3, H, W], normalised, (H, W) = ``geometry.padded``. flipped: the image was mirrored."""

    pixels: torch.Tensor
    geometry: Geometry
    flipped: bool = False


def resized_size(size: Size, shortest: int, longest: int) -> Size:
    """(H, W) after resizing the shortest edge to ``shortest``, the longest capped at ``longest``, all in pixels."""
    height, width = size
    scale = shortest / min(height, width)
    new_height, new_width = (shortest, scale * width) if height < width else (scale * height, shortest)
    if max(new_height, new_width) > longest:
        scale = longest / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return int(new_height + 0.5), int(new_width + 0.5)


def padded_size(size: Size) -> Size:
    """(H, W) rounded up to multiples of 32."""
    height, width = (-(-edge // SIZE_DIVISIBILITY) * SIZE_DIVISIBILITY for edge in size)
    return height, width


def resize(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """``image`` uint8 [H, W, 3] brought to ``size`` (H, W) by PIL's bilinear filter, which rounds to uint8."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def normalise(image: NDArray[np.uint8], padded: Size) -> torch.Tensor:
    """float32 [1, 3, *padded]: ``image`` uint8 [h, w, 3] normalised, zeros right and below (zero AFTER normalisation)."""
    mean, std = torch.tensor(PIXEL_MEAN).view(3, 1, 1), torch.tensor(PIXEL_STD).view(3, 1, 1)
    pixels = torch.zeros(1, 3, *padded)
    height, width = image.shape[:2]
    # a fresh C-ordered copy: arrays from PIL are read-only
    channels = torch.from_numpy(image.transpose(2, 0, 1).astype(np.float32))
    pixels[0, :, :height, :width] = (channels - mean) / std
    return pixels


def preprocess(image: NDArray[np.uint8], shortest: int, longest: int) -> ModelInput:
    """The paper's test-time input for ``image`` uint8 [H, W, 3], RGB."""
    return _input(_resized(image, shortest, longest), _size(image), flipped=False)


def augment(
    image: NDArray[np.uint8], shortest: int, longest: int, *, min_sizes: Sequence[int], max_size: int, flip: bool
) -> tuple[ModelInput, ...]:
    """The looks at ``image`` uint8 [H, W, 3] of the paper's test-time augmentation: each of ``min_sizes`` as it is and, with ``flip``, mirrored.

    As in the original code, these sizes are made of the uint8 image that the test setting ``shortest``/``longest`` has resized already.
    """
    first = _resized(image, shortest, longest)
    looks = []
    for min_size in min_sizes:
        again = _resized(first, min_size, max_size)
        looks.append(_input(again, _size(image), flipped=False))
        if flip:
            looks.append(_input(again[:, ::-1], _size(image), flipped=True))
    return tuple(looks)


def _size(image: NDArray[np.uint8]) -> Size:
    return image.shape[0], image.shape[1]


def _resized(image: NDArray[np.uint8], shortest: int, longest: int) -> NDArray[np.uint8]:
    size = resized_size(_size(image), shortest, longest)
    if min(size) < 1:
        height, width = _size(image)
        raise ImageError(f"{width}x{height} pixels are too long and thin for {shortest}/{longest}: a side would vanish")
    return resize(image, size)


def _input(resized: NDArray[np.uint8], original: Size, *, flipped: bool) -> ModelInput:
    padded = padded_size(_size(resized))
    return ModelInput(normalise(resized, padded), Geometry(original, _size(resized), padded), flipped)
