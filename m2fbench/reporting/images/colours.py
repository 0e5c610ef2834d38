"""Colours of classes, of the objects of one class, and of what is right and wrong, told apart by people who see few colours too.

Colours are chosen and varied in OKLab (Björn Ottosson, "A perceptual color space for image processing", 2020), in which equal distances
look about equally large. Those of right and wrong are Okabe and Ito's ("Color Universal Design", 2008), each with a pattern besides.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.verdicts import Verdict

Rgb = tuple[int, int, int]
Floats = NDArray[np.float64]

INK: Rgb = (24, 27, 31)
QUIET: Rgb = (92, 99, 107)
PAPER: Rgb = (255, 255, 255)

_TO_LMS = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_TO_LAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


def to_oklab(rgb: NDArray[np.generic]) -> Floats:
    """sRGB 0..255 [..., 3] to lightness 0..1, a and b."""
    share = np.asarray(rgb, np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    lab: Floats = np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T
    return lab


def from_oklab(lab: Floats) -> Floats:
    """The reverse, sRGB 0..255 float64 [..., 3]; outside of 0..255 where a screen cannot show the colour."""
    linear = ((lab @ np.linalg.inv(_TO_LAB).T) ** 3) @ np.linalg.inv(_TO_LMS).T
    bent = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.abs(linear) ** (1 / 2.4) - 0.055)
    return 255 * bent


@cache
def _candidates() -> Floats:
    """Colours that are neither pale nor grey, dark nor glaring, in OKLab [N, 3]."""
    light, chroma, hue = np.meshgrid(
        np.linspace(0.48, 0.86, 9), np.linspace(0.07, 0.165, 5), np.arange(0, 360, 6) * math.pi / 180, indexing="ij"
    )
    lab = np.stack([light, chroma * np.cos(hue), chroma * np.sin(hue)], -1).reshape(-1, 3)
    rgb = from_oklab(lab)
    return lab[((rgb >= 0) & (rgb <= 255)).all(1)]


_FIRST = 0.64, 0.15, 250.0  # lightness, chroma, hue of the first class's: a blue


@cache
def _class_labs(count: int) -> Floats:
    """OKLab [count, 3]: each the candidate that is farthest from all before, so that the first ones differ most, and a class's colour
    does not depend on how many follow."""
    lab = _candidates()
    start = np.array([_FIRST[0], *(_FIRST[1] * f(math.radians(_FIRST[2])) for f in (math.cos, math.sin))])
    chosen = [int(((lab - start) ** 2).sum(1).argmin())]
    weighted = lab * (0.7, 1.0, 1.0)  # hue tells classes apart better than lightness, which photographs have of their own
    nearest = np.full(len(lab), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((weighted - weighted[chosen[-1]]) ** 2).sum(1))
        chosen.append(int(nearest.argmax()))
    return lab[chosen[:count]]


_VARIATIONS = ((0.0, 0.0), (0.08, 8.0), (-0.08, -8.0), (0.04, -15.0), (-0.04, 15.0), (0.11, -6.0), (-0.11, 6.0))


@cache
def class_colour(category: int, number: int = 0) -> Rgb:
    """The colour of a class by its index; ``number`` counts the objects of that class in an image, whose colours vary around it: the
    first has the class's own."""
    lightness, a, b = _class_labs(64 * (category // 64 + 1))[category]
    up, turn = _VARIATIONS[number % len(_VARIATIONS)]
    hue, chroma = math.atan2(b, a) + math.radians(turn), math.hypot(a, b)
    while True:
        lab = np.array([min(max(lightness + up, 0.35), 0.92), chroma * math.cos(hue), chroma * math.sin(hue)])
        rgb = from_oklab(lab)
        if ((rgb >= 0) & (rgb <= 255)).all() or chroma < 0.02:
            red, green, blue = np.clip(np.rint(rgb), 0, 255).astype(int).tolist()
            return red, green, blue
        chroma *= 0.9


def mixed(first: Rgb, second: Rgb, share: float) -> Rgb:
    """``share`` of the second colour in the first."""
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(first, second, strict=True))
    return red, green, blue


Pattern = Literal["none", "stripes", "dots", "cross", "hatch"]


@dataclass(frozen=True)
class VerdictStyle:
    """fill covers ``strength`` of what lies beneath, and so does the pattern's colour ``ink``. name, meaning: for the legend."""

    name: str
    meaning: str
    fill: Rgb
    ink: Rgb
    strength: float
    pattern: Pattern


VERDICT_STYLES: Mapping[Verdict, VerdictStyle] = {
    Verdict.RIGHT: VerdictStyle("right", "found", (150, 190, 175), (150, 190, 175), 0.7, "none"),
    Verdict.MISSED: VerdictStyle("missed", "in the truth, not found", (0, 114, 178), (120, 185, 225), 0.9, "stripes"),
    Verdict.FALSE: VerdictStyle("false", "predicted, without a true one", (213, 94, 0), (255, 205, 165), 0.9, "dots"),
    Verdict.WRONG_CLASS: VerdictStyle("wrong class", "found as another class", (240, 228, 66), (70, 62, 0), 0.9, "cross"),
    Verdict.IGNORED: VerdictStyle("ignored", "the truth does not say", (205, 208, 212), (120, 125, 131), 0.6, "hatch"),
}


def pattern_mask(pattern: Pattern, height: int, width: int) -> NDArray[np.bool_]:
    """Where a pattern has its ink, bool [height, width]; it repeats every eight pixels."""
    y, x = np.ogrid[0:height, 0:width]
    ink: NDArray[np.bool_] = np.zeros((height, width), bool)
    if pattern == "stripes":
        ink = (x + y) % 8 < 3
    elif pattern == "hatch":
        ink = (x - y) % 8 < 2
    elif pattern == "dots":
        ink = ((x + 4 * (y // 4 % 2)) % 8 < 2) & (y % 4 < 2)
    elif pattern == "cross":
        ink = ((x + y) % 8 == 0) | ((x - y) % 8 == 0)
    return ink
