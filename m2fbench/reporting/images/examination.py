"""Pictures of an examination: for a few queries of an image, the mask after every decoder layer and where the layer has looked."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.analysis.layer_examples import NO_OBJECT, ExampleMaps, read_example
from m2fbench.analysis.layers import Examination, read_examination
from m2fbench.analysis.runs import Run
from m2fbench.errors import ImageError
from m2fbench.reporting.images.colours import INK, PAPER, QUIET, Rgb, class_colour
from m2fbench.reporting.images.drawing import cover, display_size, grey, inner_edge, resized_photo
from m2fbench.reporting.images.lettering import line_height, shortened, text_width, write
from m2fbench.reporting.images.picture import Picture, safe_name
from m2fbench.reporting.images.sheets import to_png
from m2fbench.types import Size

_MARGIN, _GAP, _GUTTER = 12, 6, 96
_HEADING, _TITLE, _TEXT = 16, 13, 12
_WIDE = 1400  # pixels that the columns of a strip have together, about
_CELL = 120, 190  # the smallest and the largest cell's longest edge
_SEEN: Rgb = (86, 180, 233)
_HEAT = np.array([(120, 20, 60), (213, 94, 0), (255, 190, 60), (255, 250, 200)], np.float32)

Value = TypeVar("Value", np.uint8, np.bool_)

CAPTION = (
    "One query after another, two rows each. Upper row: its mask and its best class as predicted after so many decoder layers, before any on the "
    "left. Lower row: the attention that it paid in that layer (bright is much, relative to the strongest place, mean over the heads), on the "
    "layer's feature map. Inside the blue line is what the masked attention lets it see, its mask of the layer before reduced to the map's size; "
    "where that mask is empty there, it sees all of the map."
)


def layer_findings(run: Run) -> Examination | None:
    """What ``m2fbench examine`` stored for a run; None where it was not examined. Raises StoreError where that cannot be read."""
    return read_examination(run.folder)


def layer_pictures(run: Run, examination: Examination) -> Iterator[Picture]:
    """One strip for each example whose image is at hand."""
    if run.evidence is None:
        return
    by_id = {example.image_id: example for example in run.evidence.examples}
    for number, kept in enumerate(examination.examples, 1):
        maps = read_example(run.folder / kept.file)
        try:
            photo = run.evidence.dataset.image(by_id[kept.image_id]) if kept.image_id in by_id else None
        except ImageError:
            photo = None
        if photo is None:
            continue
        image = strip(photo, maps, f"{run.label}: image {kept.image_id}")
        yield Picture(
            name=safe_name("layers", number, examination.row, examination.variant, kept.image_id),
            title=f"{run.label}: image {kept.image_id}, layer by layer",
            caption=CAPTION,
            alt=_in_words(maps),
            png=to_png(image),
            width=image.width,
            height=image.height,
        )


def strip(photo: NDArray[np.uint8], maps: ExampleMaps, heading: str) -> Image.Image:
    """photo: uint8 [H, W, 3]. One pair of rows for each query, one column for each number of layers."""
    columns, queries = maps.masks.shape[:2]
    longest = min(max(_WIDE // columns, _CELL[0]), _CELL[1])
    size = display_size(photo.shape[:2], longest)
    small = resized_photo(photo, size)
    height, width = size
    line, title = line_height(_TEXT) + 3, line_height(_TITLE) + 4
    pair = 2 * height + 2 * line + _GAP
    top = _MARGIN + line_height(_HEADING) + 8 + 2 * title
    content = _GUTTER + columns * (width + _GAP)
    sheet = Image.new("RGB", (content + 2 * _MARGIN, top + queries * (pair + _GAP) + _MARGIN), PAPER)
    write(sheet, (_MARGIN, _MARGIN), shortened(heading, _HEADING, content), _HEADING, INK)
    for column in range(columns):
        x = _MARGIN + _GUTTER + column * (width + _GAP)
        over, under = _column_titles(maps, column)
        _centred(sheet, x, top - 2 * title, width, over, _TITLE, INK)
        _centred(sheet, x, top - title, width, under, _TEXT, QUIET)
        for query in range(queries):
            y = top + query * (pair + _GAP)
            masked = _masked(small, maps.masks[column, query], _colour(maps, query))
            sheet.paste(masked, (x, y))
            _centred(sheet, x, y + height + 1, width, *_label(maps, column, query))
            if column:
                sheet.paste(_looked(small, maps, column - 1, query), (x, y + height + line))
                _centred(sheet, x, y + 2 * height + line + 1, width, _seen(maps, column - 1, query), _TEXT, QUIET)
    for query in range(queries):
        _gutter(sheet, maps, query, top + query * (pair + _GAP), height, line)
    return sheet


def _column_titles(maps: ExampleMaps, column: int) -> tuple[str, str]:
    if column == 0:
        return "before any layer", ""
    height, width = maps.attention[column - 1].shape[1:]
    return f"layer {column}", f"map 1/{round(maps.padded[0] / height)}, {width} × {height}"


def _gutter(sheet: Image.Image, maps: ExampleMaps, query: int, y: int, height: int, line: int) -> None:
    """What is said of a query on the left of its rows."""
    room = _GUTTER - 6
    write(sheet, (_MARGIN, y), shortened(f"query {int(maps.queries[query])}", _TITLE, room), _TITLE, INK)
    write(sheet, (_MARGIN, y + line_height(_TITLE) + 2), shortened(maps.name(-1, query), _TEXT, room), _TEXT, INK)
    below = y + height + line
    for number, words in enumerate(("attention",) if height < 40 else ("attention", "of the layer")):
        write(sheet, (_MARGIN, below + number * line), shortened(words, _TEXT, room), _TEXT, QUIET)


def _centred(sheet: Image.Image, x: int, y: int, width: int, text: str, size: int, colour: Rgb) -> None:
    shown = shortened(text, size, width)
    write(sheet, (x + (width - text_width(shown, size)) // 2, y), shown, size, colour)


def _label(maps: ExampleMaps, column: int, query: int) -> tuple[str, int, Rgb]:
    """The class after so many layers, with its probability; quieter where it is not the one that it ends as."""
    last = maps.classes[-1, query] == maps.classes[column, query]
    return f"{maps.name(column, query)} {maps.probabilities[column, query]:.2f}", _TEXT, INK if last else QUIET


def _seen(maps: ExampleMaps, layer: int, query: int) -> str:
    share = float(maps.visible[layer][query].mean())
    return "sees all" if maps.everywhere[layer, query] else f"sees {share:.0%}"


def _colour(maps: ExampleMaps, query: int) -> Rgb:
    return class_colour(int(maps.classes[-1, query]))


def _masked(photo: NDArray[np.uint8], mask: NDArray[np.uint8], colour: Rgb) -> Image.Image:
    """The photo with the mask (probability x 255) filled and outlined."""
    height, width = photo.shape[:2]
    inside = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.BILINEAR)) > 127
    canvas = grey(photo)
    cover(canvas, inside, colour, 0.5)
    cover(canvas, inner_edge(inside, 2), (0, 0, 0), 0.85)
    return _image(canvas)


def _looked(photo: NDArray[np.uint8], maps: ExampleMaps, layer: int, query: int) -> Image.Image:
    """Attention as heat over the darkened photo; what the query cannot see is darker, and outlined where the two meet."""
    size: Size = photo.shape[0], photo.shape[1]
    share = _over_image(maps.attention[layer][query], maps, size).astype(np.float32) / 255
    seen = _over_image(maps.visible[layer][query], maps, size)
    canvas = grey(photo) * np.where(seen, 0.5, 0.3)[..., None].astype(np.float32)
    heat = share**0.6  # so that weak attention shows
    place = np.clip(heat * (len(_HEAT) - 1), 0, len(_HEAT) - 1.001)
    low, part = place.astype(int), (place % 1)[..., None]
    colour = _HEAT[low] * (1 - part) + _HEAT[low + 1] * part
    opacity = np.clip(1.4 * heat, 0, 0.95)[..., None] * seen[..., None]
    canvas = canvas * (1 - opacity) + colour * opacity
    cover(canvas, inner_edge(seen, 1), _SEEN, 1)
    return _image(canvas)


def _over_image(values: NDArray[Value], maps: ExampleMaps, size: Size) -> NDArray[Value]:
    """A map over the padded input as it lies on the image shown at ``size``, cell by cell."""
    index = [
        np.minimum(((np.arange(shown) + 0.5) * resized / shown * cells / padded).astype(int), cells - 1)
        for shown, resized, padded, cells in zip(size, maps.resized, maps.padded, values.shape, strict=True)
    ]
    return values[np.ix_(*index)]


def _image(canvas: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def _in_words(maps: ExampleMaps) -> str:
    """What the strip shows, for those who do not see it."""
    return "; ".join(_course(maps, query) for query in range(len(maps.queries)))


def _course(maps: ExampleMaps, query: int) -> str:
    columns = range(len(maps.masks))
    names: Sequence[str] = [maps.name(column, query) for column in columns]
    covered = [float((maps.masks[column, query] > 127).mean()) for column in columns]
    last = names[-1] if names[-1] != NO_OBJECT else "nothing"
    settled = next(column for column in columns if all(name == names[-1] for name in names[column:]))
    return (
        f"query {int(maps.queries[query])} ends as {last}, its best class from layer {settled} on, with a mask over {covered[-1]:.0%} of the image "
        f"({covered[0]:.0%} before any layer)"
    )
