"""PNG pixels both ways, quickly: nearly all the time of scoring maps goes into reading and writing them.

Reading: imagecodecs (libpng with zlib-ng) where it is installed, which takes half of Pillow's time; for every file that it is not
made for or does not like, and where it is not installed, Pillow has the say, so that the values are the same with it and without.
Writing: every row as its difference to the row above (PNG filter 2), of which label maps leave few bytes other than 0, and the
lightest compression. Pillow chooses a filter for each row by trying all, and takes up to four times as long to write such a map and
three times to read it again.
"""

import io
import logging
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB = 0, 2  # colour types
_UP = 2  # filter type
_HEADER = 33  # bytes: the signature and the chunk IHDR
_HARMLESS = {b"tEXt": None, b"bKGD": None, b"pHYs": 9, b"tIME": 7, b"gAMA": 4, b"cHRM": 32, b"sRGB": 1}  # with their lengths
_EXIF_TEXTS = (b"Raw profile type exif\0", b"XML:com.adobe.xmp\0")  # of which Pillow reads the orientation; the longest first

Pixels = NDArray[np.unsignedinteger[Any]]


def decode(path: Path) -> Pixels | None:
    """uint8 or uint16 [H, W] of a grey PNG, uint8 [H, W, 3] of an RGB one, 8 bits a sample (grey: or 16), without transparency.

    None where the file is missing, anything else, damaged or too large to be meant, or imagecodecs is not installed: read it with
    Pillow, which says what is wrong with it.
    """
    read = _decoder()
    if read is None:
        return None
    try:
        content = path.read_bytes()
        shape = _shape(content)
        plain = None if shape is None else _without_extras(content)
        pixels = None if plain is None else read(plain)
    except MemoryError:
        raise
    except Exception:  # decoders raise whatever damaged bytes lead them to
        return None
    return pixels if pixels is not None and pixels.shape == shape else None


def chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(name, place of the content, its length) of every chunk, from the front, by seeking; as far as there are whole ones."""
    size, at = file.seek(0, os.SEEK_END), len(SIGNATURE)
    while at + 12 <= size:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        if at + 12 + length > size:
            return
        yield name, at + 8, length
        if name == b"IEND":
            return
        at += length + 12


def orientation_last(path: Path) -> bool:
    """Whether a PNG says after its pixels how it is to be turned, where only reading it whole finds it."""
    with path.open("rb") as file:
        late = False
        for name, at, length in chunks(file):
            late = late or name == b"IDAT"
            if late and name in (b"tEXt", b"zTXt", b"iTXt"):
                file.seek(at)
                if file.read(min(length, len(_EXIF_TEXTS[0]))).startswith(_EXIF_TEXTS):
                    return True
            elif late and name == b"eXIf":
                return True
    return False


@cache
def _decoder() -> Callable[[bytes], Pixels] | None:
    try:
        from imagecodecs import png_decode
    except ImportError:
        return None
    logging.getLogger("imagecodecs").addHandler(logging.NullHandler())  # libpng's warnings; without one they go to the terminal
    decoder: Callable[[bytes], Pixels] = png_decode
    return decoder


def _shape(content: bytes) -> tuple[int, ...] | None:
    """The shape of the pixels as the header has it; None for kinds that are left to Pillow, interlaced ones among them."""
    if len(content) < _HEADER or content[:8] != SIGNATURE or content[12:16] != b"IHDR" or content[28]:
        return None
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        return None
    if colour == GREY and depth in (8, 16):
        return height, width
    return (height, width, 3) if colour == RGB and depth == 8 else None


def _without_extras(content: bytes) -> bytes | None:
    """The file without the chunks before the pixels that do not change them, on which libpng would have its say.

    None where there are others (a palette, transparency, text that Pillow unpacks), or damaged ones, which Pillow refuses.
    """
    at = _HEADER
    while content[at + 4 : at + 8] != b"IDAT":
        length, name = struct.unpack(">I4s", content[at : at + 8])
        if _HARMLESS.get(name, -1) not in (None, length):
            return None
        end = at + 8 + length
        if zlib.crc32(content[at + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            return None
        at = end + 4
    return content if at == _HEADER else content[:_HEADER] + content[at:]


def opened(path: Path, formats: tuple[str, ...] | None = None) -> Image.Image:
    """As ``Image.open``, with its limit to the pixels, but without its warning for a PNG of more than half of them."""
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) != SIGNATURE:
            return Image.open(path, formats=formats)
    image = PngImagePlugin.PngImageFile(path)
    if Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > 2 * Image.MAX_IMAGE_PIXELS:
        image.close()
        raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels are too many to be meant")
    return image


def decode_sparse(path: Path) -> tuple[tuple[int, int], int, NDArray[np.uint8]] | None:
    """(height, width) of a PNG of 8 bits of grey, a row number, and from that row on the rows that are not all 0, uint8 [R, W].

    For masks of one object: rows of zeros under zeros are passed over, whatever their filters, and only the rest is decoded. None
    for other kinds, for damaged files, and where that does not come out: read it another way.
    """
    try:
        content = path.read_bytes()
        shape = _shape(content)
        if shape is None or len(shape) != 2 or content[24] != 8:
            return None
        height, width = shape
        samples = np.frombuffer(_inflate(_image_data(content), height * (width + 1)), np.uint8).reshape(height, width + 1)
        used = np.flatnonzero(samples[:, 1:].max(1))
        if samples[:, 0].max() > 4 or not len(used):
            return None if len(used) else ((height, width), 0, np.zeros((0, width), np.uint8))
        first, stop = int(used[0]), int(used[-1]) + 1
        for end in (stop, stop + int(np.append(samples[stop:, 0], 0).argmin())):  # to a row of filter 0, if it has to be
            rows = _decoded(_file(width, end - first, 8, GREY, zlib.compress(samples[first:end].tobytes(), 0)))
            if end == height or samples[end, 0] <= 1 or not rows[-1].any():  # filters 0 and 1 do not look at the row above
                return (height, width), first, rows
    except MemoryError:
        raise
    except Exception:  # as in ``decode``
        return None
    return None


def _decoded(content: bytes) -> NDArray[np.uint8]:
    read = _decoder()
    return np.array(Image.open(io.BytesIO(content)) if read is None else read(content), np.uint8)


def _image_data(content: bytes) -> bytes:
    """What all IDAT chunks hold. Raises ValueError for damaged chunks, and where there is transparency."""
    at, found = len(SIGNATURE), []
    while at < len(content):
        length, name = struct.unpack(">I4s", content[at : at + 8])
        chunk = content[at + 8 : at + 8 + length]
        (checksum,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        if name == b"tRNS" or checksum != zlib.crc32(name + chunk):
            raise ValueError(name)
        if name == b"IDAT":
            found.append(chunk)
        at += length + 12
    return b"".join(found)


def _inflate(content: bytes, size: int) -> bytes:
    """Exactly ``size`` bytes."""
    try:
        from imagecodecs import zlibng_decode
    except ImportError:
        found = zlib.decompressobj().decompress(content, size + 1)
    else:
        found = bytes(zlibng_decode(content, out=size))
    if len(found) != size:
        raise ValueError(len(found))
    return found


def encode(pixels: Pixels) -> bytes:
    """PNG bytes of uint8 or uint16 [H, W] as grey, of uint8 [H, W, 3] as RGB; the same bytes for the same pixels, given one zlib."""
    height, width = pixels.shape[:2]
    samples = pixels.astype(pixels.dtype.newbyteorder(">"), order="C", copy=False).view(np.uint8).reshape(height, -1)
    rows = np.empty((height, samples.shape[1] + 1), np.uint8)
    rows[:, 0] = _UP
    rows[:1, 1:] = samples[:1]
    np.subtract(samples[1:], samples[:-1], out=rows[1:, 1:])  # modulo 256, as the format has it
    return _file(width, height, 8 * pixels.dtype.itemsize, RGB if pixels.ndim == 3 else GREY, zlib.compress(rows.data, 1))


def _file(width: int, height: int, depth: int, colour: int, data: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return SIGNATURE + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
