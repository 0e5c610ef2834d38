"""Where semantic maps are wrong: at the boundaries between classes or inside of regions, and which classes are taken for which.

The boundary band is what lies within ``class_boundaries.BAND`` of the image's diagonal of a boundary between two classes of the truth, on
both sides of it; the rest is inside. Only pixels whose truth is a class count, and figures of either part are those of its pixels alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.class_boundaries import BAND, PROFILE, band_width, profile_distances, within
from m2fbench.analysis.findings import Confusion, Curve, ErrorFindings, ErrorShare
from m2fbench.analysis.runs import Evidence
from m2fbench.files import map_over
from m2fbench.metrics.kept import Kept
from m2fbench.metrics.semantic_iou import CHUNK, Summary, confusion, label_maps, summarise
from m2fbench.suite import figure_name
from m2fbench.types import Example, LabelMap, MeanRule

Ints = NDArray[np.int64]

DEFINITIONS = {
    "boundary band": f"wrong pixels within {100 * BAND:g} % of the image's diagonal (at least 1 pixel, chessboard distance) of a boundary "
    "between two classes of the truth; mended: right",
    "inside": "wrong pixels further from any boundary between classes; mended: right",
}
CONVENTION = (
    "pixels of the truth by their distance to the nearest boundary between two of its classes; next to ignored pixels there is none"
)
NOTE = "mIoU is no sum over pixels: the costs need not add up to what is missing from 100"


@dataclass(frozen=True)
class Tally:
    """Of some images. band, inside: confusion matrices of the two parts, int64 [C, C + 1], the last column predictions of no class.
    profile: pixels and right ones among them by distance, int64 [K + 1, 2], up to each distance of ``PROFILE`` from the one before, and
    beyond the last."""

    band: Ints
    inside: Ints
    profile: Ints

    @classmethod
    def none(cls, classes: int) -> "Tally":
        table = np.zeros((classes, classes + 1), np.int64)
        return cls(table, table, np.zeros((len(PROFILE) + 1, 2), np.int64))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.band + other.band, self.inside + other.inside, self.profile + other.profile)


def tally_of(truth: LabelMap, prediction: LabelMap, classes: int) -> Tally:
    """One image's; both maps of contiguous indices, [H, W]."""
    nothing = truth.dtype.type(np.iinfo(truth.dtype).max)
    labelled = truth != nothing
    right = labelled & (truth == prediction)
    size = truth.shape[0], truth.shape[1]
    width, distances = band_width(size), profile_distances(size)
    reached = within(truth, [width, *distances])
    nearer = [reached[far] for far in distances]
    near = [[np.count_nonzero(mask & of) for of in (labelled, right)] for mask in nearer]
    near.append([np.count_nonzero(of) for of in (labelled, right)])
    profile = np.array(near, np.int64)
    profile[1:] -= profile[:-1].copy()
    whole, band = (confusion(of, prediction, classes) for of in (truth, np.where(reached[width], truth, nothing)))
    return Tally(band, whole - band, profile)


_kept: Kept[Tally] = Kept()


def tally(evidence: Evidence) -> Tally:
    """Of all images, in threads; a matrix an image would not fit into memory, so each thread sums some."""
    dataset, predictions, classes = evidence.dataset, evidence.predictions, len(evidence.dataset.categories)
    assert predictions.semantic is not None
    files = tuple(predictions.semantic[image_id] for image_id in evidence.image_ids)

    def some(part: Sequence[Example]) -> Tally:
        return sum((tally_of(*label_maps(dataset, predictions, e), classes) for e in part), Tally.none(classes))

    def read() -> tuple[Tally, tuple[Path, ...]]:
        chunks = [evidence.examples[k : k + CHUNK] for k in range(0, len(evidence.examples), CHUNK)]
        return sum(map_over(some, chunks), Tally.none(classes)), files

    return _kept.get(dataset, (files, evidence.image_ids), read)


def semantic_errors(evidence: Evidence) -> ErrorFindings:
    """Costs in points of mIoU; by class in points of the class's IoU, NaN where nothing of it is left once mended; by group the two parts'
    own figures, their shares of all pixels and of all wrong ones, and mIoU if the part were mended, in percent."""
    found, rule = tally(evidence), evidence.suite.rules.mean_iou
    figure = figure_name("mIoU", "semantic", evidence.suite.task)
    parts = dict(zip(DEFINITIONS, (found.band, found.inside), strict=True))
    whole = summarise(found.band + found.inside, rule)
    mended = {name: summarise(found.band + found.inside - part + _all_right(part), rule) for name, part in parts.items()}
    value = whole.figures["mIoU"]
    return ErrorFindings(
        head="semantic",
        figure=figure,
        value=value,
        convention=CONVENTION,
        shares=tuple(
            ErrorShare(name, definition, float(_wrong(parts[name])), mended[name].figures["mIoU"] - value)
            for name, definition in DEFINITIONS.items()
        ),
        by_class={
            category.name: {name: float(mended[name].iou[k] - whole.iou[k]) for name in parts}
            for k, category in enumerate(evidence.dataset.categories)
            if not math.isnan(whole.iou[k])
        },
        by_class_unit="points of the class's IoU",
        notes=(NOTE,),
        by_group={name: _of_part(name, parts, rule, mended[name]) for name in parts},
        by_group_unit="percent",
    )


def _all_right(counts: Ints) -> Ints:
    right = np.zeros_like(counts)
    np.fill_diagonal(right, counts.sum(1))
    return right


def _wrong(counts: Ints) -> int:
    return int(counts.sum() - np.trace(counts))


def _of_part(name: str, parts: dict[str, Ints], rule: MeanRule, mended: Summary) -> dict[str, float]:
    own = summarise(parts[name], rule).figures
    pixels, wrong = sum(int(p.sum()) for p in parts.values()), sum(_wrong(p) for p in parts.values())
    return {
        "mIoU": own["mIoU"],
        "pixel_accuracy": own["pixel_accuracy"],
        "mean_accuracy": own["mean_accuracy"],
        "share of pixels": 100 * int(parts[name].sum()) / pixels if pixels else math.nan,
        "share of wrong pixels": 100 * _wrong(parts[name]) / wrong if wrong else math.nan,
        "mIoU if mended": mended.figures["mIoU"],
    }


def semantic_confusion(evidence: Evidence) -> Confusion:
    """Of pixels; ignored ones count nowhere, so the last row is zeros."""
    found = tally(evidence)
    table = np.pad((found.band + found.inside).astype(float), ((0, 1), (0, 0)))
    names = tuple(c.name for c in evidence.dataset.categories)
    definition = "each pixel whose truth is a class, by its class in truth and in the prediction"
    return Confusion("semantic", names, tuple(map(tuple, table.tolist())), "pixels", definition)


def boundary_profile(evidence: Evidence) -> tuple[Curve, ...]:
    """Over the distance to the nearest boundary between classes, as a share of the image's diagonal: the accuracy of the pixels up to it
    and further than the point before; and the share of all wrong pixels that are no further."""
    pixels, right = tally(evidence).profile.T
    wrong = pixels - right
    accuracy = [(x, hits / there) for x, hits, there in zip(PROFILE, right.tolist(), pixels.tolist(), strict=False) if there]
    reached = list(zip(PROFILE, (np.cumsum(wrong) / wrong.sum()).tolist(), strict=False)) if wrong.any() else []
    return (
        Curve("pixel accuracy", tuple(x for x, _ in accuracy), tuple(y for _, y in accuracy)),
        Curve("share of wrong pixels within", tuple(x for x, _ in reached), tuple(y for _, y in reached)),
    )
