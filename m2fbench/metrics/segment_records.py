"""Every segment of a run's panoptic maps as a row: its class, its attributes, and what it was matched with.

Attributes (``ObjectAttribute``) are of the map, not of the annotation: area in pixels; border, whether a pixel lies on the map's edge;
occlusion, the share of the box around a true thing's pixels that other true things and crowd regions cover; crowd, whether a crowd
region has a pixel in that box. The last two are NaN for stuff, which is what lies behind objects, and for a segment without pixels; no
subset has those.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.formats.panoptic import areas_and_boxes, segment_index
from m2fbench.metrics.kept import Kept
from m2fbench.metrics.panoptic_matching import Matching, entries_of, examples_of, match, read_pair
from m2fbench.types import Dataset, Example, ImageId, ObjectAttribute, ObjectSubset, PanopticMap, Predictions

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

Attributes = dict[ObjectAttribute, Floats]
"""Each attribute of S segments, float64 [S], NaN where undefined."""

SEEN: tuple[ObjectAttribute, ...] = ("area", "border")
"""Attributes of true and predicted segments."""

TRUTH_ONLY: tuple[ObjectAttribute, ...] = ("occlusion", "crowd")
"""Attributes that a prediction does not have."""


@dataclass(frozen=True)
class Segments:
    """S segments of N images. image: which, int64 [S]; category: int64 [S]."""

    image: Ints
    category: Ints
    attributes: Attributes

    def inside(self, subset: ObjectSubset | None) -> Bools:
        """[S]: whether each is in the subset; NaN is in none. All of them without one."""
        if subset is None:
            return np.ones(len(self.image), bool)
        values = self.attributes[subset.attribute]
        return (subset.low <= values) & (values <= subset.high)


@dataclass(frozen=True)
class SegmentRecords:
    """All segments of N images and their pairs.

    crowd: bool [T]. excused: bool [P], no false positives. true, found: int64 [M], rows of the pairs with an IoU above 0.5 whatever their
    classes; iou: float64 [M]; same: bool [M], whether the classes are one, which makes a pair a match.
    """

    images: int
    truth: Segments
    crowd: Bools
    prediction: Segments
    excused: Bools
    true: Ints
    found: Ints
    iou: Floats
    same: Bools

    @property
    def missed(self) -> Bools:
        """[T]: true segments that no prediction of their class matches."""
        missed = ~self.crowd
        missed[self.true[self.same]] = False
        return missed

    @property
    def false(self) -> Bools:
        """[P]: predictions that match no true segment of their class and are not excused."""
        false = ~self.excused
        false[self.found[self.same]] = False
        return false


_kept: Kept[SegmentRecords] = Kept()


def segment_records(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId]) -> SegmentRecords:
    """Of the images, in their order. Raises PredictionsError as ``PanopticQuality.score`` does."""
    things = np.array([c.is_thing for c in dataset.categories], bool)

    def read() -> tuple[SegmentRecords, list[Path]]:
        assert predictions.panoptic is not None
        entries = entries_of(dataset, predictions, image_ids)

        def record(example: Example) -> _OfImage:
            truth, found, table = read_pair(dataset, entries[example.image_id], example)
            matching = match(table, truth.segments, found.segments)
            return _OfImage(matching, true_attributes(truth, things), _seen_attributes(found, table[:, 1:-1].sum(0)))

        records = _joined(list(map_over(record, examples_of(dataset, image_ids))))
        return records, [predictions.panoptic, *(entries[i][0] for i in image_ids)]

    return _kept.get(dataset, (predictions.panoptic, predictions.panoptic_folder, tuple(image_ids)), read)


@dataclass(frozen=True)
class _OfImage:
    matching: Matching
    true: Attributes
    found: Attributes


def true_attributes(truth: PanopticMap, things: Bools) -> Attributes:
    """All four of each true segment, float64 [T]. things: bool [C], which classes are things."""
    areas, boxes = areas_and_boxes(truth)
    thing = np.array([things[s.category] for s in truth.segments], bool)
    crowd = np.array([s.is_crowd for s in truth.segments], bool)
    occlusion, near_crowd = np.full(len(areas), np.nan), np.full(len(areas), np.nan)
    objects = np.flatnonzero(thing & (areas > 0))
    if len(objects):
        drawn = _drawn(truth, thing | crowd, crowd)
        for k in objects.tolist():
            left, top, width, height = boxes[k].tolist()
            covered, of_crowd = (layer[top : top + height, left : left + width] for layer in drawn)
            occlusion[k] = (np.count_nonzero(covered) - int(areas[k])) / (width * height)
            near_crowd[k] = of_crowd.any()
    return {"area": areas.astype(float), "border": _on_border(truth), "occlusion": occlusion, "crowd": near_crowd}


def _drawn(panoptic: PanopticMap, *chosen: Bools) -> list[Bools]:
    """For each choice of segments [S] where their pixels are, bool [H, W]."""
    flat = panoptic.ids.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    index, lengths = segment_index(flat[starts], panoptic.segments), np.diff(starts, append=flat.size)
    return [np.repeat(np.pad(choice, 1)[index], lengths).reshape(panoptic.ids.shape) for choice in chosen]


def _on_border(panoptic: PanopticMap) -> Floats:
    """1 for each segment [S] that has a pixel on the map's edge, else 0."""
    ids = panoptic.ids
    edge = (
        set(np.unique(np.concatenate([ids[:1].ravel(), ids[-1:].ravel(), ids[:, 0], ids[:, -1]])).tolist()) if ids.size else set()
    )
    return np.array([s.id in edge for s in panoptic.segments], np.float64)


def _seen_attributes(found: PanopticMap, areas: Ints) -> Attributes:
    """Those of each predicted segment, float64 [P]."""
    return {"area": areas.astype(float), "border": _on_border(found)}


def _joined(parts: Sequence[_OfImage]) -> SegmentRecords:
    """The images' records one after another."""

    def rows(of: Callable[[_OfImage], NDArray[np.generic]]) -> tuple[Ints, Ints]:
        """The image of each row; the first row of each image."""
        lengths = np.array([len(of(part)) for part in parts], np.int64)
        return np.repeat(np.arange(len(parts)), lengths), np.cumsum(lengths) - lengths

    true_image, true_start = rows(lambda p: p.matching.true_class)
    found_image, found_start = rows(lambda p: p.matching.found_class)
    matchings = [p.matching for p in parts]
    numbered = list(zip(matchings, true_start.tolist(), found_start.tolist(), strict=True))
    truth = Segments(
        true_image, _ints([m.true_class for m in matchings]), _attributes([p.true for p in parts], (*SEEN, *TRUTH_ONLY))
    )
    prediction = Segments(found_image, _ints([m.found_class for m in matchings]), _attributes([p.found for p in parts], SEEN))
    return SegmentRecords(
        images=len(parts),
        truth=truth,
        crowd=_bools([m.crowd for m in matchings]),
        prediction=prediction,
        excused=_bools([m.excused for m in matchings]),
        true=_ints([m.true + first for m, first, _ in numbered]),
        found=_ints([m.found + first for m, _, first in numbered]),
        iou=np.concatenate([np.zeros(0), *(m.iou for m in matchings)]),
        same=_bools([m.same for m in matchings]),
    )


def _attributes(parts: Sequence[Attributes], names: Sequence[ObjectAttribute]) -> Attributes:
    return {name: np.concatenate([np.zeros(0), *(part[name] for part in parts)]) for name in names}


def _ints(arrays: Sequence[Ints]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *arrays])


def _bools(arrays: Sequence[Bools]) -> Bools:
    return np.concatenate([np.zeros(0, bool), *arrays])
