"""Truth, predictions and what is right of them, drawn over the grey photo at the size at which they are shown.

Masks and maps are brought to that size first: enlarged pixel by pixel, reduced by the share that each label has of a pixel, the largest
winning; so what is drawn on them, outlines and patterns, is as crisp in a small picture as in a large one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m2fbench.analysis.image_evidence import Content
from m2fbench.analysis.verdicts import ERRORS, Judgement, Verdict, decode
from m2fbench.errors import shown
from m2fbench.formats.panoptic import segment_index
from m2fbench.reporting.images.colours import VERDICT_STYLES, Rgb, class_colour, mixed, pattern_mask
from m2fbench.reporting.images.tags import Tag, put, tag_of
from m2fbench.types import Category, InstanceSet, LabelMap, PanopticMap, Rle, Size

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Canvas = NDArray[np.float32]
Labels = NDArray[np.integer[Any]]
Scalar = TypeVar("Scalar", bound=np.generic)

Layers = tuple[Canvas, list[Tag | None]]
MapLayers = tuple[Canvas, list[Tag | None], bool]
"""With whether anything is left empty."""

FILL = 0.62
"""Share of an object's colour over the grey photo."""
GREY_STEP = 8
LONGEST_NAME = 28  # characters
LEAST_REGION = 0.004
"""Share of a picture from which a region of a semantic map has its name on it."""


@dataclass(frozen=True)
class Drawing:
    """left_out: objects whose names there was no room for. empty: whether pixels of a map are of nothing, which are hatched."""

    image: Image.Image
    left_out: int = 0
    empty: bool = False


@dataclass(frozen=True)
class Named:
    """An object of a difference, what is wrong with it, and what to write on it."""

    verdict: Verdict
    text: str
    mask: Rle | Mask


def display_size(size: Size, longest: int) -> Size:
    """The size at which an image is shown: its longest edge ``longest`` where it is larger, else by the whole factor that brings it nearest
    to that."""
    edge = max(size)
    if edge > longest:
        height, width = (max(1, round(side * longest / edge)) for side in size)
        return height, width
    factor = max(1, int(longest / edge + 0.5))
    return size[0] * factor, size[1] * factor


def resized_photo(photo: Pixels, size: Size) -> Pixels:
    """uint8 [H, W, 3] at ``size``."""
    if photo.shape[:2] == size:
        return photo
    if photo.shape[0] <= size[0] and photo.shape[1] <= size[1]:
        return _enlarged(photo, size)
    return np.asarray(Image.fromarray(photo).resize((size[1], size[0]), Image.Resampling.BOX))


def resized_mask(mask: Mask, size: Size) -> Mask:
    """bool at ``size``; of a mask that is nowhere half of a pixel, the pixels that it has most of."""
    if mask.shape[0] <= size[0] and mask.shape[1] <= size[1]:
        return _enlarged(mask, size)
    share = _shares(mask, size)
    return share >= min(128, max(1, int(share.max(initial=0))))


def resized_labels(labels: Labels, size: Size) -> Labels:
    """Labels [H, W] at ``size``; ties go to the smaller label."""
    if labels.shape[0] <= size[0] and labels.shape[1] <= size[1]:
        return _enlarged(labels, size)
    best = np.zeros(size, np.uint8)
    chosen = np.full(size, labels.min(initial=0), labels.dtype)
    for label in np.unique(labels).tolist():
        share = _shares(labels == label, size)
        chosen[share > best] = label
        best = np.maximum(best, share)
    return chosen


def _enlarged(values: NDArray[Scalar], size: Size) -> NDArray[Scalar]:
    factor = size[0] // values.shape[0] if values.shape[0] else 1
    return values if factor == 1 else values.repeat(factor, 0).repeat(factor, 1)


def _shares(mask: Mask, size: Size) -> Pixels:
    return np.asarray(Image.fromarray(mask.view(np.uint8) * np.uint8(255)).resize((size[1], size[0]), Image.Resampling.BOX))


def grey(photo: Pixels) -> Canvas:
    """The photo as the ground of a drawing, float32 [H, W, 3]: without colour and somewhat lighter, so that only what is drawn has colour; in
    few steps, which makes files a third as large."""
    light = np.asarray(Image.fromarray(photo).convert("L")) // GREY_STEP * GREY_STEP
    return np.repeat((0.8 * light.astype(np.float32) + 45)[..., None], 3, 2)


def cover(canvas: Canvas, where: Mask, colour: Rgb, share: float) -> None:
    """Mix ``share`` of a colour in, in place."""
    canvas[where] += share * (np.asarray(colour, np.float32) - canvas[where])


def brief(name: str) -> str:
    """A class's name as it stands before a score: on one line, and not so long that nothing else has room."""
    return shown(name, LONGEST_NAME)


def letter_size(size: Size) -> int:
    """Of the names on objects, in pixels."""
    return int(min(14, max(11, round(max(size) / 40))))


def object_colours(truth: Content | None, prediction: Content, partner: NDArray[np.int64]) -> tuple[list[Rgb], list[Rgb]]:
    """Colours of true and of predicted objects: the class's, varied from object to object. One that is matched with a true one of its class
    has the colour of that; others have those that come next. Empty for semantic maps."""
    true, found = _classes(truth), _classes(prediction)
    count: dict[int, int] = {}

    def following(category: int) -> Rgb:
        count[category] = count.get(category, -1) + 1
        return class_colour(category, count[category])

    colours = [following(category) for category in true]
    partners = partner.tolist() if len(partner) else [-1] * len(found)
    return colours, [
        colours[other] if other >= 0 and true[other] == category else following(category)
        for category, other in zip(found, partners, strict=True)
    ]


def _classes(content: Content | None) -> list[int]:
    if isinstance(content, InstanceSet):
        return [int(c) for c in content.categories.tolist()]
    return [segment.category for segment in content.segments] if isinstance(content, PanopticMap) else []


def draw(
    photo: Pixels,
    content: Content,
    categories: Sequence[Category],
    size: Size,
    colours: Sequence[Rgb],
    *,
    scores: bool,
    mark: Mask | None = None,
) -> Drawing:
    """Truth or prediction over the grey photo. photo: uint8 [H, W, 3] at its own size. colours: of each object, as ``object_colours`` says.
    scores: whether names have the score behind them. mark: what to put a frame around."""
    if isinstance(content, InstanceSet):
        (canvas, tags), empty = _instances(photo, content, categories, size, colours, scores=scores), False
    elif isinstance(content, PanopticMap):
        canvas, tags, empty = _panoptic(photo, content, categories, size, colours)
    else:
        canvas, tags, empty = _semantic(photo, content, categories, size)
    return replace(_finished(canvas, tags, mark), empty=empty)


def _finished(canvas: Canvas, tags: Sequence[Tag | None], mark: Mask | None) -> Drawing:
    image = Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))
    if mark is not None:
        _frame(image, mark)
    return Drawing(image, put(image, filter(None, tags), letter_size((image.height, image.width))))


def _instances(
    photo: Pixels, instances: InstanceSet, categories: Sequence[Category], size: Size, colours: Sequence[Rgb], *, scores: bool
) -> Layers:
    """Filled masks with an outline, the largest at the bottom; a crowd is hatched."""
    canvas = grey(resized_photo(photo, size))
    masks = [resized_mask(decode(rle), size) for rle in instances.rles]
    crowds = instances.is_crowd.tolist() if len(instances.is_crowd) else [False] * len(instances)
    hatched = pattern_mask("hatch", *size)
    tags: list[Tag | None] = []
    for number in sorted(range(len(masks)), key=lambda k: -int(masks[k].sum())):
        mask, colour, name = masks[number], colours[number], brief(categories[instances.categories[number]].name)
        cover(canvas, mask & hatched if crowds[number] else mask, colour, FILL)
        cover(canvas, inner_edge(mask, _thickness(size)), mixed(colour, (0, 0, 0), 0.25), 1)
        text = f"{name} (crowd)" if crowds[number] else f"{name} {instances.scores[number]:.2f}" if scores else name
        tags.append(tag_of(text, colour, mask))
    return canvas, tags


def _panoptic(
    photo: Pixels, panoptic: PanopticMap, categories: Sequence[Category], size: Size, colours: Sequence[Rgb]
) -> MapLayers:
    """Segments with white outlines; what is in none is hatched, crowd regions in their colour."""
    canvas = grey(resized_photo(photo, size))
    places = segment_index(panoptic.ids.ravel(), panoptic.segments).reshape(panoptic.ids.shape)
    labels = resized_labels(places, size)
    nothing = (labels < 1) | (labels > len(panoptic.segments))
    hatched = pattern_mask("hatch", *size)
    tags: list[Tag | None] = []
    for number, (segment, colour) in enumerate(zip(panoptic.segments, colours, strict=True), 1):
        mask = labels == number
        cover(canvas, mask & hatched if segment.is_crowd else mask, colour, FILL)
        name = brief(categories[segment.category].name)
        tags.append(tag_of(f"{name} (crowd)" if segment.is_crowd else name, colour, mask))
    _style(canvas, nothing, Verdict.IGNORED)
    cover(canvas, between(labels, _thickness(size)), (255, 255, 255), 1)
    return canvas, tags, bool(nothing.any())


def _semantic(photo: Pixels, labels: LabelMap, categories: Sequence[Category], size: Size) -> MapLayers:
    """Classes in their colours, the largest region of each with its name; no class is hatched."""
    from scipy import ndimage

    canvas = grey(resized_photo(photo, size))
    shown = resized_labels(labels, size)
    tags: list[Tag | None] = []
    for category in np.unique(shown).tolist():
        if category >= len(categories):
            _style(canvas, shown == category, Verdict.IGNORED)
            continue
        colour = class_colour(category)
        cover(canvas, shown == category, colour, FILL)
        regions, _ = ndimage.label(shown == category)
        sizes = np.bincount(regions.ravel())[1:]
        if sizes.max() >= LEAST_REGION * shown.size:
            tags.append(tag_of(brief(categories[category].name), colour, regions == 1 + int(sizes.argmax())))
    cover(canvas, between(shown, 1), (255, 255, 255), 0.7)
    return canvas, tags, bool((shown >= len(categories)).any())


def draw_difference(photo: Pixels, judgement: Judgement, size: Size, named: Sequence[Named], mark: Mask | None = None) -> Drawing:
    """What is right, missed, false, of a wrong class and ignored, each in its colour and pattern; objects in ``named`` have their outline
    and words too, so that one that lies on what is right is seen."""
    canvas = grey(resized_photo(photo, size))
    verdicts = resized_labels(judgement.pixels, size)
    for verdict in VERDICT_STYLES:
        _style(canvas, verdicts == verdict, verdict)
    wrong = np.where(np.isin(verdicts, ERRORS), verdicts, 0)
    cover(canvas, between(wrong, 1) & (wrong > 0), (0, 0, 0), 0.6)
    tags: list[Tag | None] = []
    for one in named:
        mask = resized_mask(one.mask if isinstance(one.mask, np.ndarray) else decode(one.mask), size)
        colour = VERDICT_STYLES[one.verdict].fill
        cover(canvas, inner_edge(mask, _thickness(size)), mixed(colour, (0, 0, 0), 0.3), 1)
        tags.append(tag_of(one.text, colour, mask))
    return _finished(canvas, tags, mark)


def _frame(image: Image.Image, mask: Mask) -> None:
    """A frame around what ``mask`` covers, at the image's size: black in white, which shows on any ground."""
    shown = resized_mask(mask, (image.height, image.width))
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not len(rows):
        return
    left, top, right, bottom = columns[0] - 5, rows[0] - 5, columns[-1] + 5, rows[-1] + 5
    box = max(int(left), 0), max(int(top), 0), min(int(right), image.width - 1), min(int(bottom), image.height - 1)
    pen = ImageDraw.Draw(image)
    pen.rectangle(box, outline=(255, 255, 255), width=3)
    pen.rectangle((box[0] + 1, box[1] + 1, max(box[2] - 1, box[0] + 1), max(box[3] - 1, box[1] + 1)), outline=(0, 0, 0), width=1)


def _style(canvas: Canvas, where: Mask, verdict: Verdict) -> None:
    style = VERDICT_STYLES[verdict]
    ink = where & pattern_mask(style.pattern, *where.shape)
    cover(canvas, where & ~ink, style.fill, style.strength)
    cover(canvas, ink, style.ink, style.strength)


def _thickness(size: Size) -> int:
    return 2 if max(size) >= 400 else 1


def inner_edge(mask: Mask, thickness: int) -> Mask:
    """The mask's own pixels within ``thickness`` of what is not in it; the picture's border is no edge."""
    core = mask
    for _ in range(thickness):
        smaller = core.copy()
        smaller[1:] &= core[:-1]
        smaller[:-1] &= core[1:]
        smaller[:, 1:] &= core[:, :-1]
        smaller[:, :-1] &= core[:, 1:]
        core = smaller
    return mask & ~core


def between(labels: Labels, thickness: int) -> Mask:
    """The pixels at which another label begins, to the right and below, and as many on the other side as make ``thickness``."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[1:] |= down
    if thickness > 1:
        edge[:, :-1] |= across
        edge[:-1] |= down
    return edge
