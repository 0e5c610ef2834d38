"""The procedural scenes behind the ``shapes`` dataset: seeded, no files, no download.

A scene is a landscape of one to three *stuff* regions (grass, sky, sand, water) on which up to nine *things* lie over one
another. Every pixel belongs to exactly one segment, so instance, panoptic and semantic truth all come from one map. A class
shows in its outline, its hue family and its fill texture together, and all three vary within the class.

``SCENES_VERSION`` is part of the dataset's fingerprint: raise it with any change that moves a pixel.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.types import Category

SCENES_VERSION = 1

THINGS = ("disc", "square", "triangle", "star", "ring", "cross")
STUFF = ("grass", "sky", "sand", "water")
CATEGORIES = tuple(Category(n, True) for n in THINGS) + tuple(Category(n, False) for n in STUFF)

SIZES = ((144, 192), (192, 192), (192, 144), (192, 256))  # (H, W) in pixels; one is drawn per scene
THING_HUE = (0.00, 0.11, 0.30, 0.50, 0.66, 0.84)  # centre of each thing's hue family, in turns
STUFF_HSV = ((0.27, 0.42, 0.50), (0.58, 0.28, 0.80), (0.11, 0.32, 0.74), (0.53, 0.45, 0.45))
MIN_VISIBLE = 60  # pixels of a thing that must show, or it is left out
MIN_VISIBLE_SHARE = 0.2  # and the share of its own outline

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One generated image with its truth.

    image: uint8 [H, W, 3], RGB. ids: int32 [H, W], segment ids 1..N, every pixel labelled.
    classes: category index of segment id i + 1; things first, then stuff, both in the order drawn.
    """

    image: NDArray[np.uint8]
    ids: NDArray[np.int32]
    classes: tuple[int, ...]


def generate(seed: int, index: int) -> Scene:
    """The scene number ``index`` of the stream ``seed``; the same two numbers always give the same scene."""
    rng = np.random.default_rng((SCENES_VERSION, seed, index))
    height, width = SIZES[rng.integers(len(SIZES))]
    stuff = _stuff_map(rng, height, width)
    ground = _paint_stuff(rng, stuff)
    image = ground.copy()
    things = np.zeros((height, width), np.int32)
    drawn: list[tuple[int, int]] = []  # (category, pixels of the whole outline inside the image)
    for number in range(1, int(rng.integers(2, 10)) + 1):
        drawn.append(_draw_thing(rng, number, image, things))
    ids, classes = _label(things, drawn, stuff, image, ground)
    return Scene(_finish(rng, image), ids, classes)


def _stuff_map(rng: np.random.Generator, height: int, width: int) -> NDArray[np.int64]:
    """Index into STUFF for every pixel: one region, cut by zero to two wavy lines."""
    y, x = _grid(height, width)
    chosen = rng.permutation(len(STUFF))[: rng.integers(1, 4)]
    region = np.full((height, width), chosen[0])
    for stuff in chosen[1:]:
        angle, wave, phase = rng.uniform(-0.9, 0.9), rng.uniform(0, 0.06), rng.uniform(0, 2 * np.pi)
        across = (y / height - 0.5) * np.cos(angle) + (x / width - 0.5) * np.sin(angle)
        along = (x / width) * np.cos(angle) - (y / height) * np.sin(angle)
        region[across > rng.uniform(-0.3, 0.3) + wave * np.sin(9 * along + phase)] = stuff
    return region


def _paint_stuff(rng: np.random.Generator, stuff: NDArray[np.int64]) -> FloatArray:
    """RGB float [H, W, 3] in 0..1, each region in the colours and the grain of its kind."""
    height, width = stuff.shape
    y, _ = _grid(height, width)
    image = np.zeros((height, width, 3), np.float32)
    for index in np.unique(stuff):
        hue, saturation, value = STUFF_HSV[index] + rng.normal(0, (0.02, 0.05, 0.06))
        soft = _smooth_noise(rng, height, width, 24)
        if index == 0:  # grass: upright blades
            grain = 0.22 * _smooth_noise(rng, height, width, 6, 2) + 0.10 * soft
        elif index == 1:  # sky: a gradient and clouds
            grain = 0.12 * (y / height - 0.5) + 0.20 * soft
        elif index == 2:  # sand: speckle
            grain = 0.16 * _smooth_noise(rng, height, width, 2) + 0.08 * soft
        else:  # water: level waves
            grain = 0.16 * np.sin(y * rng.uniform(0.5, 0.9) + 4 * soft) + 0.06 * soft
        region = stuff == index
        image[region] = _rgb(hue + 0.03 * soft, saturation, value + grain)[region]
    return image


def _draw_thing(rng: np.random.Generator, number: int, image: FloatArray, things: NDArray[np.int32]) -> tuple[int, int]:
    """Paint one thing over what is there; returns its category and the area of its whole outline in pixels."""
    height, width = things.shape
    category = int(rng.integers(len(THINGS)))
    radius = float(np.exp(rng.uniform(np.log(10), np.log(95))))
    cy, cx = rng.uniform(0, height), rng.uniform(0, width)
    top, bottom = max(0, int(cy - 1.5 * radius)), min(height, int(cy + 1.5 * radius) + 1)
    left, right = max(0, int(cx - 1.5 * radius)), min(width, int(cx + 1.5 * radius) + 1)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    angle, stretch = rng.uniform(0, 2 * np.pi), rng.uniform(0.75, 1.3)
    v = ((y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)) / radius * stretch
    u = ((y - cy) * np.sin(angle) + (x - cx) * np.cos(angle)) / radius / stretch
    inside = _outline(category, u, v)
    hue = THING_HUE[category] + rng.uniform(-0.05, 0.05)
    saturation, value = rng.uniform(0.45, 0.95), rng.uniform(0.45, 0.9)
    shade = _texture(category, u, v, rng.uniform(0.8, 1.25)) * rng.uniform(0.10, 0.22) + 0.12 * u * rng.uniform(-1, 1)
    patch = image[top:bottom, left:right]
    patch[inside] = _rgb(np.full_like(u, hue), saturation, value + shade)[inside]
    things[top:bottom, left:right][inside] = number
    return category, int(inside.sum())


def _outline(category: int, u: FloatArray, v: FloatArray) -> NDArray[np.bool_]:
    """Which points of the unit square [-1, 1]² (and a little beyond) lie in the shape."""
    radius = np.hypot(u, v)
    if category == 0:  # disc
        return radius < 1
    if category == 1:  # square
        return np.maximum(abs(u), abs(v)) < 0.88
    if category == 2:  # triangle
        return (v < 0.6) & (v > 1.8 * abs(u) - 1.1)
    if category == 3:  # five-pointed star
        return radius < 0.76 + 0.25 * np.cos(5 * np.arctan2(v, u))
    if category == 4:  # ring
        return (radius < 1) & (radius > 0.55)
    return ((abs(u) < 0.34) & (abs(v) < 1)) | ((abs(v) < 0.34) & (abs(u) < 1))  # cross


def _texture(category: int, u: FloatArray, v: FloatArray, frequency: float) -> FloatArray:
    """The class's fill, -1..1, in the thing's own coordinates."""
    k = 7 * frequency
    if category == 0:  # light from the middle
        return 1 - 2 * np.hypot(u, v)
    if category == 1:  # stripes
        return np.sin(1.5 * k * u)
    if category == 2:  # dots
        return np.sin(k * u) * np.sin(k * v) * 1.3
    if category == 3:  # plain
        return np.zeros_like(u)
    if category == 4:  # chequers
        return np.sign(np.sin(k * u) * np.sin(k * v))
    return np.sin(1.5 * k * np.hypot(u, v))  # circles


def _label(
    things: NDArray[np.int32],
    drawn: list[tuple[int, int]],
    stuff: NDArray[np.int64],
    image: FloatArray,
    ground: FloatArray,
) -> tuple[NDArray[np.int32], tuple[int, ...]]:
    """Segment ids 1..N; a thing of which too little shows is painted over with the ground it lies on."""
    counts = np.bincount(things.ravel(), minlength=len(drawn) + 1)
    ids = np.zeros_like(things)
    classes: list[int] = []
    hidden = things == 0
    for number, (category, area) in enumerate(drawn, 1):
        mine = things == number
        if counts[number] < max(MIN_VISIBLE, MIN_VISIBLE_SHARE * area):
            image[mine] = ground[mine]
            hidden |= mine
        else:
            classes.append(category)
            ids[mine] = len(classes)
    for index in np.unique(stuff[hidden]):
        classes.append(len(THINGS) + int(index))
        ids[hidden & (stuff == index)] = len(classes)
    return ids, tuple(classes)


def _finish(rng: np.random.Generator, image: FloatArray) -> NDArray[np.uint8]:
    """Uneven light, a little blur as of a lens, and sensor noise."""
    height, width, _ = image.shape
    light = 1 + 0.25 * _smooth_noise(rng, height, width, 64)
    image = image * light[..., None]
    image[1:-1, 1:-1] = 0.5 * image[1:-1, 1:-1] + 0.125 * (image[:-2, 1:-1] + image[2:, 1:-1] + image[1:-1, :-2] + image[1:-1, 2:])
    image += rng.normal(0, rng.uniform(0.02, 0.06), image.shape).astype(np.float32)
    return (image.clip(0, 1) * 255 + 0.5).astype(np.uint8)


def _smooth_noise(rng: np.random.Generator, height: int, width: int, rows: int, columns: int | None = None) -> FloatArray:
    """Noise of about -1..1 whose grain is ``rows`` x ``columns`` pixels (``columns`` = ``rows`` where not given)."""
    columns = columns or rows
    coarse = rng.uniform(-1, 1, (height // rows + 2, width // columns + 2)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BILINEAR))


def _rgb(hue: FloatArray, saturation: float, value: FloatArray) -> FloatArray:
    """HSV to RGB, float [H, W, 3]; hue in turns, saturation and value clipped to 0..1."""
    saturation = float(np.clip(saturation, 0, 1))
    value = value.clip(0, 1)[..., None]
    offsets = np.array([5, 3, 1], np.float32)
    k = (offsets + 6 * np.asarray(hue)[..., None]) % 6
    return (value - value * saturation * np.minimum(k, 4 - k).clip(0, 1)).astype(np.float32)


@cache
def _grid(height: int, width: int) -> tuple[FloatArray, FloatArray]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return y, x
