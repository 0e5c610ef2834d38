"""One image of one run, or of two beside one another, as ``m2fbench show`` draws it and says it."""

import io
import math
from dataclasses import dataclass, replace

from PIL import Image

from m2fbench.analysis.image_evidence import MAIN_FIGURE, ImageEvidence, find_example, image_reader, main_head
from m2fbench.analysis.ranking import in_words
from m2fbench.analysis.runs import Evidence, Run, statistics_of
from m2fbench.errors import DatasetError, PredictionsError, StoreError, shown
from m2fbench.reporting.images.sheets import Look, compared, side_by_side, to_png
from m2fbench.types import Example, Head

SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_FIGURES: dict[Head, tuple[str, ...]] = {
    "instance": ("AP", "AP50", "AP75"),
    "panoptic": ("PQ", "SQ", "RQ"),
    "semantic": ("mIoU", "pixel_accuracy"),
}


@dataclass(frozen=True)
class Shown:
    """The picture, and one line on what is to be seen in it."""

    image: Image.Image
    words: str


def show_run(run: Run, wanted: str, head: Head | None, look: Look, against: Run | None = None) -> Shown:
    """The image ``wanted`` (see ``find_example``) of a run; with ``against``, truth and both runs' predictions.

    Raises M2FBenchError where the run has no such image, no such head, or nothing to look at.
    """
    evidence = _evidence(run)
    chosen = _head(run, evidence, head) if against is None or head is not None else _head_of_both(run, against)
    example = find_example(evidence, wanted)
    photo = evidence.dataset.image(example)
    image = image_reader(evidence, chosen)(example)
    title = f"Image {shown(example.image_id)}"
    if against is None:
        figures = _figures(evidence, image)
        seen = "photo, truth, prediction and difference" if image.truth is not None else f"photo and prediction ({image.problem})"
        sheet = side_by_side(photo, image, look, heading=" · ".join([title, run.label, *figures]))
        return Shown(sheet, f"{title} of {run.label}, {chosen}: {seen}; {_words(figures, image, look)}")
    if image.truth is None:
        raise DatasetError(f"{title}: two runs are shown beside the truth, of which there is none: {image.problem}")
    other, there = _other(against, example, chosen)
    labels = run.label, against.label
    sheet = compared(photo, image, other, labels, look, heading=f"{title} · {labels[0]} and {labels[1]}")
    both = [
        f"{label}: {_words(_figures(owner, one), one, look)}"
        for label, owner, one in ((labels[0], evidence, image), (labels[1], there, other))
    ]
    return Shown(sheet, f"{title}, {chosen}: truth, {labels[0]} and {labels[1]}, and what each has wrong; {'; '.join(both)}")


def _evidence(run: Run) -> Evidence:
    if run.evidence is None:
        raise StoreError(f"{run.folder}: nothing to show: {run.problem}")
    return run.evidence


def _head(run: Run, evidence: Evidence, head: Head | None) -> Head:
    if head is not None and head not in evidence.predictions.heads:
        raise PredictionsError(f"{run.folder}: --head: expected {' or '.join(evidence.predictions.heads)}, got {head}")
    return head or main_head(evidence)


def _head_of_both(a: Run, b: Run) -> Head:
    """The task's own head of the first run if the second has it, else the second's own, else the first that both have."""
    first, second = _evidence(a), _evidence(b)
    both = [head for head in first.predictions.heads if head in second.predictions.heads]
    if not both:
        raise PredictionsError(
            f"{b.folder}: expected predictions of {' or '.join(first.predictions.heads)}, as {a.folder} has, got "
            f"{' and '.join(second.predictions.heads)}; show each run by itself"
        )
    return next((head for head in (main_head(first), main_head(second)) if head in both), both[0])


def _other(run: Run, example: Example, head: Head) -> tuple[ImageEvidence, Evidence]:
    """The same image in another run, and that run's evidence."""
    evidence = _evidence(run)
    _head(run, evidence, head)
    found = {one.image_id: one for one in evidence.examples}.get(example.image_id)
    if found is None or found.size != example.size:
        raise StoreError(
            f"{run.folder}: expected a run over the same images, got one that has no image {shown(repr(example.image_id))}"
            f"{' of that size' if found is not None else ''}"
        )
    return image_reader(evidence, head)(found), evidence


def _words(figures: list[str], image: ImageEvidence, look: Look) -> str:
    """The image's own figures and counts."""
    counts = in_words(image.confident(look.threshold))
    return f"{', '.join(figures)}; {counts}" if figures else counts


def _figures(evidence: Evidence, image: ImageEvidence) -> list[str]:
    """The head's main figures of this image alone ("PQ 39.1"), by their names in results; those that are undefined are left out."""
    if image.truth is None:
        return []
    for one in statistics_of(replace(evidence, examples=(image.example,))):
        if one.head == image.head and MAIN_FIGURE[image.head] in one.statistics.figures:
            values = dict(zip(one.statistics.figures, one.statistics.per_image()[0].tolist(), strict=True))
            wanted = [name for name in _FIGURES[image.head] if name in values and not math.isnan(values[name])]
            return [f"{one.names[name]} {values[name]:.1f}" for name in wanted]
    return []


def encoded(image: Image.Image, suffix: str) -> bytes:
    """The content of an image file with this suffix, one of ``SUFFIXES``."""
    kind = SUFFIXES[suffix.lower()]
    if kind == "PNG":
        return to_png(image)
    content = io.BytesIO()
    image.save(content, kind, quality=92)
    return content.getvalue()
