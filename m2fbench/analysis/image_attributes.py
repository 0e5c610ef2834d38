"""What can be told of whole images, by which they are divided: how much is in them, how bright they are, how large.

Luma is ITU-R BT.601's, 0.299 R + 0.587 G + 0.114 B of the values as stored, 0 to 255; brightness is its mean over the image, contrast its
standard deviation (root mean square contrast).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from m2fbench.analysis.runs import Evidence, Tell, silent
from m2fbench.analysis.words import span_in_words
from m2fbench.errors import ImageError
from m2fbench.files import map_over
from m2fbench.types import Example, Floats

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SQUARE = 0.9, 1 / 0.9
"""Width over height of images whose sides differ by a tenth at most."""


@dataclass(frozen=True)
class ImageGroup:
    """Some of N images. images: their indices, int64 [n]. definition: in words and numbers."""

    attribute: str
    subset: str
    definition: str
    images: np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True)
class Luma:
    """brightness, contrast: float64 [N]; problem: why there are none, where an image cannot be read."""

    brightness: Floats
    contrast: Floats
    problem: str | None = None


def luma(evidence: Evidence, tell: Tell = silent) -> Luma:
    """Of every image, each read once."""
    tell(f"reading {len(evidence.examples)} images for their brightness")

    def measured(example: Example) -> tuple[float, float]:
        values = evidence.dataset.image(example).astype(np.float32) @ LUMA
        return float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))

    try:
        found = np.array(list(map_over(measured, evidence.examples)), np.float64).reshape(-1, 2)
    except ImageError as error:
        return Luma(np.zeros(0), np.zeros(0), f"an image cannot be read: {error}")
    return Luma(found[:, 0], found[:, 1])


def thirds(attribute: str, names: tuple[str, str, str], values: Floats, what: str) -> list[ImageGroup]:
    """The lowest, middle and highest third of the images by ``values`` [N], equal values together; fewer groups where there are not so many
    values, one where there is one. what: of which the numbers are, for the definition."""
    bins = split_in_thirds(values)
    return [
        ImageGroup(attribute, name, f"{what} {span_in_words(values[chosen].min(), values[chosen].max())}", chosen)
        for name, chosen in zip(_some(names, bins), bins, strict=True)
    ]


def split_in_thirds(values: Floats) -> list[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Indices of the lowest, middle and highest third of ``values`` [N], equal ones together; those that are not empty."""
    if not len(values):
        return []
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    bins = (values <= low, (values > low) & (values <= high), values > high)
    return [np.flatnonzero(chosen) for chosen in bins if chosen.any()]


def _some(names: tuple[str, str, str], bins: Sequence[object]) -> tuple[str, ...]:
    return {3: names, 2: (names[0], names[2])}.get(len(bins), names[: len(bins)])


def shapes(examples: Sequence[Example]) -> list[ImageGroup]:
    """By size in thirds, and by which side is longer."""
    sizes = np.array([e.size for e in examples], np.float64).reshape(-1, 2)
    ratio = sizes[:, 1] / sizes[:, 0]
    low, high = SQUARE
    parts = {
        "portrait": (f"width under {low:.1f} of the height", ratio < low),
        "square": ("sides that differ by a tenth at most", (ratio >= low) & (ratio <= high)),
        "landscape": (f"height under {low:.1f} of the width", ratio > high),
    }
    aspect = [ImageGroup("aspect", name, text, np.flatnonzero(chosen)) for name, (text, chosen) in parts.items() if chosen.any()]
    return [*thirds("image size", ("small", "medium", "large"), sizes.prod(1), "pixels:"), *aspect]
