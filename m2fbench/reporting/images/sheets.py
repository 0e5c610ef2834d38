"""Several drawings of one image beside one another, with titles and a legend that says what the colours mean."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from m2fbench.analysis.image_evidence import Content, ImageEvidence
from m2fbench.analysis.verdicts import ERRORS, Judgement, Verdict, judge
from m2fbench.reporting.images.colours import INK, PAPER, QUIET, VERDICT_STYLES, Pattern, Rgb, class_colour, pattern_mask
from m2fbench.reporting.images.drawing import (
    Drawing,
    Mask,
    Named,
    Pixels,
    brief,
    display_size,
    draw,
    draw_difference,
    object_colours,
    resized_photo,
)
from m2fbench.reporting.images.lettering import line_height, shortened, text_width, write
from m2fbench.types import InstanceSet, PanopticMap, Rle

LONGEST = 480
THRESHOLD = 0.5
_MARGIN, _GAP = 12, 12
_TITLE, _TEXT, _HEADING = 15, 13, 17
_SWATCH = 26, 14  # width, height
_CLASSES = 24  # in the legend
_LEAST_PANEL = 130  # pixels, for its title
_LEAST_WIDTH = 420  # of a sheet: legends need it
_SHAPE = 1.2  # width to height that a sheet comes nearest to


@dataclass(frozen=True)
class Panel:
    title: str
    note: str
    image: Image.Image


@dataclass(frozen=True)
class Key:
    """One entry of a legend: text beside a swatch; without a fill, text alone."""

    text: str
    fill: Rgb | None = None
    ink: Rgb = PAPER
    pattern: Pattern = "none"


@dataclass(frozen=True)
class Look:
    """How pictures are made. longest: edge of each panel in pixels. threshold: score from which instances are shown."""

    longest: int = LONGEST
    threshold: float = THRESHOLD


def to_png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", compress_level=6)  # 9 takes six times as long for a twentieth
    return content.getvalue()


def side_by_side(photo: Pixels, image: ImageEvidence, look: Look, heading: str = "", mark: Mask | None = None) -> Image.Image:
    """Photo, truth, prediction and their difference; without truth, photo and prediction. mark: what to put a frame around."""
    image = image.confident(look.threshold)
    size = display_size(image.example.size, look.longest)
    judgement = None if image.truth is None else judge(image)
    true, found = object_colours(image.truth, image.prediction, _partner(judgement))
    shown = draw(photo, image.prediction, image.categories, size, found, scores=True, mark=mark)
    drawings = [shown]
    panels = [
        Panel("Photo", _pixels(image), Image.fromarray(resized_photo(photo, size))),
        Panel("Prediction", _amount(image, image.prediction, look), shown.image),
    ]
    keys: list[Key] = _empty_keys(shown)
    if image.truth is not None and judgement is not None:
        truth = draw(photo, image.truth, image.categories, size, true, scores=False)
        difference = draw_difference(photo, judgement, size, _named(image, judgement), mark)
        panels.insert(1, Panel("Truth", _amount(image, image.truth), truth.image))
        panels.append(Panel("Difference", "", difference.image))
        drawings += [truth, difference]
        keys = [*verdict_keys(judgement, image.head == "semantic"), *keys]
    return compose(
        panels, heading, (keys, class_keys(image, image.truth, image.prediction)), _notes(image, drawings, look, judgement)
    )


def compared(
    photo: Pixels, a: ImageEvidence, b: ImageEvidence, labels: tuple[str, str], look: Look, heading: str = ""
) -> Image.Image:
    """Truth and the two predictions, and below them the photo and what each has right and wrong. a, b: of one image with truth."""
    a, b = a.confident(look.threshold), b.confident(look.threshold)
    size = display_size(a.example.size, look.longest)
    first = Image.fromarray(resized_photo(photo, size))
    upper: list[Panel] = []
    lower = [Panel("Photo", _pixels(a), first)]
    drawings: list[Drawing] = []
    predictions: list[Drawing] = []
    judgements = []
    for label, image in zip(labels, (a, b), strict=True):
        assert image.truth is not None
        judgement = judge(image)
        true, found = object_colours(image.truth, image.prediction, judgement.partner)
        if not upper:
            truth = draw(photo, image.truth, image.categories, size, true, scores=False)
            upper.append(Panel("Truth", _amount(image, image.truth), truth.image))
            drawings.append(truth)
        shown = draw(photo, image.prediction, image.categories, size, found, scores=True)
        difference = draw_difference(photo, judgement, size, _named(image, judgement))
        upper.append(Panel(label, _amount(image, image.prediction, look), shown.image))
        lower.append(Panel(label, _tally(judgement, image.head == "semantic"), difference.image))
        drawings += [shown, difference]
        predictions.append(shown)
        judgements.append(judgement)
    wide = size[1] > 2 * size[0]
    panels = [panel for pair in zip(upper, lower, strict=True) for panel in pair] if wide else upper + lower
    both = np.unique(np.concatenate([np.unique(j.pixels) for j in judgements])).tolist()
    keys = [*(_verdict_key(v) for v in VERDICT_STYLES if v in both), *_empty_keys(*predictions)]
    legends = (keys, class_keys(a, a.truth, a.prediction, b.prediction))
    return compose(panels, heading, legends, _notes(a, drawings, look, *judgements), columns=2 if wide else 3)


def compose(
    panels: Sequence[Panel], heading: str, legends: Sequence[Sequence[Key]], notes: Sequence[str], columns: int | None = None
) -> Image.Image:
    """One image of panels of one size, in as many columns as bring it nearest to a page's shape where that is not given."""
    width, height = max(panels[0].image.width, _LEAST_PANEL), panels[0].image.height
    title = line_height(_TITLE) + 6
    columns = columns or _columns(len(panels), width, height + title)
    rows = math.ceil(len(panels) / columns)
    content = max(columns * width + (columns - 1) * _GAP, _LEAST_WIDTH)
    lines = [line for keys in legends for line in _lines(keys, content)]
    lines += [line for note in notes for line in _lines([Key(word) for word in note.split(" ")], content, 4)]
    top = _MARGIN + (line_height(_HEADING) + 8 if heading else 0)
    line = line_height(_TEXT) + 6
    bottom = top + rows * (height + title) + (rows - 1) * _GAP + _GAP
    image = Image.new("RGB", (content + 2 * _MARGIN, bottom + len(lines) * line + (_MARGIN if lines else 0)), PAPER)
    if heading:
        write(image, (_MARGIN, _MARGIN), shortened(heading, _HEADING, content), _HEADING, INK)
    for number, panel in enumerate(panels):
        x = _MARGIN + number % columns * (width + _GAP)
        y = top + number // columns * (height + title + _GAP)
        _titled(image, panel, x, y, width)
        image.paste(panel.image, (x, y + title))
    for number, keys in enumerate(lines):
        for x, key in keys:
            _key(image, _MARGIN + x, bottom + number * line, key)
    return image


def _columns(count: int, width: int, height: int) -> int:
    choices = [c for c in range(1, count + 1) if count % c == 0]
    return min(choices, key=lambda c: abs(math.log(c * width / (math.ceil(count / c) * height) / _SHAPE)))


def _titled(image: Image.Image, panel: Panel, x: int, y: int, width: int) -> None:
    title = shortened(panel.title, _TITLE, width)
    write(image, (x, y), title, _TITLE, INK)
    after = text_width(title, _TITLE) + 8
    note = shortened(panel.note, _TEXT, width - after)
    write(image, (x + after, y + line_height(_TITLE) - line_height(_TEXT)), note, _TEXT, QUIET)


def _lines(keys: Sequence[Key], width: int, gap: int = 16) -> list[list[tuple[int, Key]]]:
    """The keys, each with its x, broken into lines of at most ``width`` pixels."""
    lines: list[list[tuple[int, Key]]] = []
    x = width
    for key in keys:
        before = 0 if key.fill is None else _SWATCH[0] + 6
        key = replace(key, text=shortened(key.text, _TEXT, width - before))
        needed = before + text_width(key.text, _TEXT)
        if x + needed > width:
            lines.append([])
            x = 0
        lines[-1].append((x, key))
        x += needed + gap
    return lines


def _key(image: Image.Image, x: int, y: int, key: Key) -> None:
    if key.fill is not None:
        width, height = _SWATCH
        ink = pattern_mask(key.pattern, height, width)[..., None]
        swatch = np.where(ink, np.array(key.ink, np.uint8), np.array(key.fill, np.uint8))
        image.paste(Image.fromarray(swatch), (x, y + 2))
        ImageDraw.Draw(image).rectangle((x, y + 2, x + width - 1, y + 1 + height), outline=QUIET)
        x += width + 6
    write(image, (x, y), key.text, _TEXT, INK if key.fill is not None else QUIET)


def _verdict_key(verdict: Verdict, amount: str = "") -> Key:
    style = VERDICT_STYLES[verdict]
    return Key(f"{style.name}{amount}: {style.meaning}", style.fill, style.ink, style.pattern)


def _empty_keys(*predictions: Drawing) -> list[Key]:
    """What the hatching in predicted maps means, where there is any."""
    style = VERDICT_STYLES[Verdict.IGNORED]
    return (
        [Key("in a prediction: nothing predicted", style.fill, style.ink, style.pattern)]
        if any(p.empty for p in predictions)
        else []
    )


def verdict_keys(judgement: Judgement, semantic: bool) -> list[Key]:
    """Of what there is in a difference, with how many objects, or which share of the judged pixels."""
    pixels = judgement.pixel_counts
    judged = sum(pixels[v] for v in (Verdict.RIGHT, *ERRORS))
    keys = []
    for verdict in VERDICT_STYLES:
        count = judgement.counts.get(verdict, 0)
        if not pixels[verdict] and not count:
            continue
        share = f" {100 * pixels[verdict] / judged:.1f} %" if semantic and verdict is not Verdict.IGNORED else ""
        keys.append(_verdict_key(verdict, f" ({count})" if count else share))
    return keys


def class_keys(image: ImageEvidence, *contents: Content | None) -> list[Key]:
    """The classes of maps in their colours, the first ones of many; none for instances, which have their names on them."""
    if image.head == "instance":
        return []
    there: set[int] = set()
    for content in contents:
        if isinstance(content, PanopticMap):
            there |= {segment.category for segment in content.segments}
        elif isinstance(content, np.ndarray):
            there |= {c for c in np.unique(content).tolist() if c < len(image.categories)}
    ordered = sorted(there)
    keys = [Key(shortened(image.categories[c].name, _TEXT, 160), class_colour(c)) for c in ordered[:_CLASSES]]
    return keys + ([Key(f"and {len(ordered) - _CLASSES} more classes")] if len(ordered) > _CLASSES else [])


def _partner(judgement: Judgement | None) -> NDArray[np.int64]:
    return np.zeros(0, np.int64) if judgement is None else judgement.partner


def _amount(image: ImageEvidence, content: Content, look: Look | None = None) -> str:
    """How much there is of truth or, with ``look``, of a prediction."""
    if isinstance(content, InstanceSet):
        crowds = int(content.is_crowd.sum())
        return (
            _plural(len(content) - crowds, "object")
            + (f" and {_plural(crowds, 'crowd')}" if crowds else "")
            + (f", score from {look.threshold:.2f}" if look is not None else "")
        )
    if isinstance(content, PanopticMap):
        return _plural(len(content.segments), "segment")
    return _plural(sum(1 for c in np.unique(content).tolist() if c < len(image.categories)), "class", "classes")


def _plural(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _tally(judgement: Judgement, semantic: bool) -> str:
    """What a difference comes to: objects, or the share of the judged pixels that is right."""
    if semantic:
        pixels = judgement.pixel_counts
        judged = sum(pixels[v] for v in (Verdict.RIGHT, *ERRORS))
        return f"{100 * pixels[Verdict.RIGHT] / judged:.1f} % right" if judged else ""
    return ", ".join(f"{judgement.counts[v]} {VERDICT_STYLES[v].name}" for v in VERDICT_STYLES if judgement.counts.get(v))


def _named(image: ImageEvidence, judgement: Judgement) -> list[Named]:
    """The objects that are not right, by their class, with the score, and for a wrong class the right one."""
    truth, prediction = image.truth, image.prediction
    if isinstance(truth, np.ndarray) or isinstance(prediction, np.ndarray) or truth is None:
        return []
    names = [brief(category.name) for category in image.categories]
    true, predicted = _classes_of(truth), _classes_of(prediction)
    found = []
    for number, verdict in enumerate(judgement.truth.tolist()):
        if verdict == Verdict.MISSED:
            found.append(Named(Verdict.MISSED, f"missed: {names[true[number]]}", _mask(truth, number)))
    for number, verdict in enumerate(judgement.prediction.tolist()):
        score = f" {prediction.scores[number]:.2f}" if isinstance(prediction, InstanceSet) else ""
        said = f"{names[predicted[number]]}{score}"
        if verdict == Verdict.FALSE:
            found.append(Named(Verdict.FALSE, f"false: {said}", _mask(prediction, number)))
        elif verdict == Verdict.WRONG_CLASS:
            right = names[true[int(judgement.partner[number])]]
            found.append(Named(Verdict.WRONG_CLASS, f"{said}, is {right}", _mask(prediction, number)))
    return found


def _classes_of(content: InstanceSet | PanopticMap) -> list[int]:
    return content.categories.tolist() if isinstance(content, InstanceSet) else [segment.category for segment in content.segments]


def _mask(content: InstanceSet | PanopticMap, number: int) -> Rle | Mask:
    return content.rles[number] if isinstance(content, InstanceSet) else content.ids == content.segments[number].id


def _notes(image: ImageEvidence, drawings: Sequence[Drawing], look: Look, *judgements: Judgement | None) -> list[str]:
    """How objects were matched, what thin lines in differences are, and what there was no room for."""
    notes = []
    if image.head == "instance":
        notes.append(f"Instances of score {look.threshold:.2f} and above, matched with the truth at IoU 0.5.")
    elif image.head == "panoptic":
        notes.append("Segments matched with the truth at IoU above 0.5.")
    if any(judgement is not None and np.isin(judgement.pixels, ERRORS).any() for judgement in judgements):
        notes.append("Thin lines in a difference are outlines that differ by pixels.")
    if left_out := sum(drawing.left_out for drawing in drawings):
        notes.append(f"There was no room for {_plural(left_out, 'name')}.")
    return [" ".join(notes)] if notes else []


def _pixels(image: ImageEvidence) -> str:
    return f"{image.example.size[1]}x{image.example.size[0]} pixels"
