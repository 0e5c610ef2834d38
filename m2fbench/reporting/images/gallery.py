"""Pictures of a run's best, worst and most confidently wrong images, and of those that differ most between two runs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from m2fbench.analysis.findings import ImageChange
from m2fbench.analysis.image_evidence import MAIN_FIGURE, image_reader, main_head
from m2fbench.analysis.ranking import RankedImage, Ranking, in_words, rank
from m2fbench.analysis.runs import Evidence, MetricStatistics, Run, Tell, silent, statistics_of
from m2fbench.errors import ImageError, M2FBenchError, shown
from m2fbench.reporting.images.picture import Picture, safe_name
from m2fbench.reporting.images.sheets import Look, compared, side_by_side, to_png
from m2fbench.suite import figure_name
from m2fbench.types import Example, Head, ImageId

LOOK = Look(longest=400)
COMPARED = Look(longest=340)


@dataclass(frozen=True)
class Section:
    """kind: "best", "worst", "confidently-wrong", "lost" or "gained". title, description: plain text. pictures: the first first."""

    kind: str
    title: str
    description: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Gallery:
    """head, figure: what images are ranked by; None where there is nothing to look at. notes: what is not here, and why."""

    head: Head | None
    figure: str | None
    sections: tuple[Section, ...]
    notes: tuple[str, ...]


def gallery(
    run: Run,
    count: int = 6,
    *,
    head: Head | None = None,
    statistics: Sequence[MetricStatistics] | None = None,
    look: Look = LOOK,
    tell: Tell = silent,
) -> Gallery:
    """``count`` pictures of each section; of a head, or of the task's own. statistics: as ``statistics_of`` gives them, where they are
    computed already.

    A run without evidence gives an empty gallery that says why; so does an image that cannot be read, for itself alone.
    """
    evidence = run.evidence
    if evidence is None:
        return Gallery(None, None, (), (f"no pictures: {run.problem}",))
    chosen = head or main_head(evidence)
    known = statistics_of(evidence, tell=tell) if statistics is None else statistics
    ranking = rank(evidence, known, chosen, count, look.threshold, tell)
    draw = _drawer(run, evidence, ranking, look)
    notes = list(ranking.notes)
    sections = []
    for kind, title, description, images in _kinds(ranking):
        tell(f"drawing the {title.lower()} images of the {chosen} head")
        pictures = [draw(kind, number, image) for number, image in enumerate(images, 1)]
        notes += [picture for picture in pictures if isinstance(picture, str)]
        if there := tuple(picture for picture in pictures if isinstance(picture, Picture)):
            sections.append(Section(kind, title, description, there))
    return Gallery(chosen, ranking.figure, tuple(sections), tuple(notes))


def _kinds(ranking: Ranking) -> tuple[tuple[str, str, str, tuple[RankedImage, ...]], ...]:
    by = f"by the {ranking.figure} of each image alone"
    return (
        ("best", "Best", f"The best images {by}.", ranking.best),
        ("worst", "Worst", f"The worst images {by}.", ranking.worst),
        (
            "confidently-wrong",
            "Most confidently wrong",
            f"By {ranking.criterion}, one an image; a frame is around it.",
            ranking.confidently_wrong,
        ),
    )


def _drawer(run: Run, evidence: Evidence, ranking: Ranking, look: Look) -> Callable[[str, int, RankedImage], Picture | str]:
    """A function that draws one ranked image, or says why it cannot."""
    read = image_reader(evidence, ranking.head)
    examples = {example.image_id: example for example in evidence.examples}

    def draw(kind: str, number: int, image: RankedImage) -> Picture | str:
        example = examples[image.image_id]
        try:
            photo = evidence.dataset.image(example)
        except ImageError as error:
            return f"image {shown(repr(image.image_id))} cannot be shown: {error}"
        sheet = side_by_side(photo, read(example), look, mark=image.pixels)
        title = f"Image {shown(image.image_id)}"
        caption = f"{_value(ranking.figure, image.value)}{image.why}."
        return Picture(
            name=safe_name(run.label, ranking.head, kind, number),
            title=title,
            caption=caption,
            alt=f"{title}: photo, truth, prediction and what differs. {caption}",
            png=to_png(sheet),
            width=sheet.width,
            height=sheet.height,
        )

    return draw


def _value(figure: str, value: float) -> str:
    return "" if math.isnan(value) else f"{figure} of this image {value:.1f}; "


def compared_pictures(
    a: Run,
    b: Run,
    changes: Sequence[ImageChange],
    count: int = 4,
    *,
    head: Head | None = None,
    look: Look = COMPARED,
    tell: Tell = silent,
) -> tuple[Section, ...]:
    """The ``count`` images that lost most from A to B, and those that gained most: truth, both predictions, and what each has wrong.

    changes: of one figure, the largest loss first; only those that are losses and gains are shown. head: whose figure that is, by default
    read off its name. Sections without pictures are left out; so are images that cannot be read, whose message ``tell`` is given.
    """
    if a.evidence is None or b.evidence is None or not changes:
        return ()
    figure = changes[0].figure
    chosen = head or head_of(figure, a.evidence)
    losses = [c for c in changes if c.b < c.a][:count]
    gains = [c for c in reversed(changes) if c.b > c.a][:count]
    draw = _comparer(a, b, chosen, look)
    sections = []
    for kind, title, some in (("lost", "Lost most", losses), ("gained", "Gained most", gains)):
        pictures = []
        for number, change in enumerate(some, 1):
            tell(f"drawing image {shown(change.image_id)}")
            picture = draw(kind, number, change)
            if isinstance(picture, Picture):
                pictures.append(picture)
            else:
                tell(picture)
        if pictures:
            description = f"The images whose own {figure} {'fell' if kind == 'lost' else 'rose'} most from {a.label} to {b.label}."
            sections.append(Section(kind, title, description, tuple(pictures)))
    return tuple(sections)


def head_of(figure: str, evidence: Evidence) -> Head:
    """The head whose main figure has this name in the run's results."""
    for head in evidence.predictions.heads:
        if figure in (figure_name(MAIN_FIGURE[head], head, evidence.suite.task), MAIN_FIGURE[head]):
            return head
    raise M2FBenchError(f"{figure}: expected the main figure of {' or '.join(evidence.predictions.heads)} predictions")


def _comparer(a: Run, b: Run, head: Head, look: Look) -> Callable[[str, int, ImageChange], Picture | str]:
    assert a.evidence is not None
    assert b.evidence is not None
    evidence, first, second = a.evidence, image_reader(a.evidence, head), image_reader(b.evidence, head)
    examples: tuple[dict[ImageId, Example], dict[ImageId, Example]] = (
        {e.image_id: e for e in evidence.examples},
        {e.image_id: e for e in b.evidence.examples},
    )

    def draw(kind: str, number: int, change: ImageChange) -> Picture | str:
        try:
            photo = evidence.dataset.image(examples[0][change.image_id])
        except ImageError as error:
            return f"image {shown(repr(change.image_id))} cannot be shown: {error}"
        one, other = first(examples[0][change.image_id]), second(examples[1][change.image_id])
        sheet = compared(photo, one, other, (a.label, b.label), look)
        title = f"Image {shown(change.image_id)}"
        words = [
            f"{label} {value:.1f} ({in_words(image.confident(look.threshold))})"
            for label, value, image in ((a.label, change.a, one), (b.label, change.b, other))
        ]
        caption = f"{change.figure} of this image: {words[0]}, {words[1]}; {change.b - change.a:+.1f}."
        return Picture(
            name=safe_name("compared", a.label, b.label, head, kind, number),
            title=title,
            caption=caption,
            alt=f"{title}: truth, both predictions, and what each has right and wrong. {caption}",
            png=to_png(sheet),
            width=sheet.width,
            height=sheet.height,
        )

    return draw
