"""Names on objects in a picture: small dark plates that are legible on any ground and do not lie over one another."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m2fbench.reporting.images.colours import PAPER, Rgb
from m2fbench.reporting.images.lettering import line_height, shortened, text_width, write

_PLATE = (20, 22, 26, 205)
_BAR = 4  # pixels of the object's colour at the left of its plate
_PAD = 4

Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels, the latter two outside."""


@dataclass(frozen=True)
class Tag:
    """text: on the plate. colour: of its bar. box: what it is to stand at. heart: (x, y), where that is thickest. weight: which goes first
    where there is not room for all."""

    text: str
    colour: Rgb
    box: Box
    heart: tuple[int, int]
    weight: float


def tag_of(text: str, colour: Rgb, mask: NDArray[np.bool_]) -> Tag | None:
    """The tag of what ``mask`` [H, W] covers; None where that is nothing."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    from scipy import ndimage

    inside = np.pad(mask[top:bottom, left:right], 1)
    depth = ndimage.distance_transform_edt(inside)
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return Tag(text, colour, (left, top, right, bottom), (left + int(x) - 1, top + int(y) - 1), float(inside.sum()))


def put(image: Image.Image, tags: Iterable[Tag], size: int) -> int:
    """Draw what there is room for, the largest first; how many were left out. size: of the letters, in pixels."""
    taken: list[Box] = []
    left_out = 0
    height = line_height(size) + 2
    longest = max(int(0.6 * image.width), min(image.width, 8 * size)) - 2 * _PAD - _BAR
    plates = Image.new("RGBA", image.size)
    draw = ImageDraw.Draw(plates)
    texts: list[tuple[tuple[int, int], str]] = []
    for tag in sorted(tags, key=lambda tag: -tag.weight):
        text = shortened(tag.text, size, longest)
        width = text_width(text, size) + 2 * _PAD + _BAR
        place = next((p for p in _places(tag, width, height, image.size) if _free(p, width, height, taken)), None)
        if place is None or not text:
            left_out += 1
            continue
        x, y = place
        taken.append((x - 1, y - 1, x + width + 1, y + height + 1))
        draw.rounded_rectangle((x, y, x + width - 1, y + height - 1), 3, fill=_PLATE)
        draw.rounded_rectangle((x, y, x + _BAR, y + height - 1), 3, fill=(*tag.colour, 255), corners=(True, False, False, True))
        texts.append(((x + _BAR + _PAD, y + 1), text))
    image.paste(plates, (0, 0), plates)
    for at, text in texts:
        write(image, at, text, size, PAPER)
    return left_out


def _places(tag: Tag, width: int, height: int, size: tuple[int, int]) -> list[tuple[int, int]]:
    """Where a plate could stand, the best first: in the middle of what is large enough, else above, below or beside it."""
    if width > size[0] or height > size[1]:
        return []
    left, top, right, bottom = tag.box
    middle = tag.heart[0] - width // 2, tag.heart[1] - height // 2
    corner = left + 2, top + 2
    outside = [
        (left, top - height - 1),
        (left, bottom + 1),
        (right + 1, top),
        (left - width - 1, top),
        (right - width, top - height - 1),
    ]
    large = width <= right - left and 2 * height <= bottom - top
    wanted = [middle, corner, *outside] if large else [*outside, middle, corner]
    return [(min(max(x, 0), size[0] - width), min(max(y, 0), size[1] - height)) for x, y in wanted]


def _free(place: tuple[int, int], width: int, height: int, taken: list[Box]) -> bool:
    x, y = place
    return not any(x < right and left < x + width and y < bottom and top < y + height for left, top, right, bottom in taken)
