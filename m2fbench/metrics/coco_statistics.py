"""COCO's average precision and recall accumulated anew for any weighting of the images: resampled, a subset of them, each alone.

Convention: pycocotools' ``COCOeval.accumulate``. An image of weight w is w copies of it, one after the other. Precision enters only where a
true positive is: elsewhere it is lower than at the one before, so the envelope (the greatest precision from there on) does not see it, nor one
of weight zero. A threshold of recall is passed at the first true positive that reaches it, and takes the envelope there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.metrics.coco_files import Figure
from m2fbench.metrics.instance_matching import EXCUSED, IOU_THRESHOLDS, RIGHT, InstancePairs
from m2fbench.types import Floats, ImageId, ObjectSubset, Summary

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)  # as pycocotools makes them, to the last bit
AREA_RANGES = ((0, 1e10), (0, 32**2), (32**2, 96**2), (96**2, 1e10))
DETECTIONS = (1, 10, 100)
BLOCK = 1 << 20  # weighted predictions worked on at once by a thread, which bounds the memory

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Weights = NDArray[np.int32]


@dataclass(frozen=True)
class CountedObjects:
    """One choice of the objects that count. truths: such true ones of each image and class, int64 [N, K]. inside: predictions that count
    unless they meet ignored truth; others count only where they meet truth that counts, bool [D]. outcomes: int8 [T, C], see
    ``InstancePairs.match``."""

    truths: Ints
    inside: Bools
    outcomes: NDArray[np.int8]


@dataclass(frozen=True)
class _Curves:
    """The points of one class and range, the T thresholds one after the other; P true positives, Q corrections. All columns are of the
    weights.

    counted: columns of the predictions that are inside, [E]. right: of the true positives, [P]. before: how many of ``counted`` there are up to
    each, [P]. starts: where each threshold begins, [T + 1]. corrections, signs: what has to be added to the count of predictions (outside, but
    right) or taken away (inside, but excused), [Q]; corrected_from, corrected_to: which of them concern each true positive, [P].
    """

    counted: Ints
    right: Ints
    before: Ints
    starts: Ints
    corrections: Ints
    signs: NDArray[np.int32]
    corrected_from: Ints
    corrected_to: Ints


@dataclass(frozen=True)
class CocoStatistics:
    """``ImageStatistics`` of AP and AR. parts: what each figure is the mean of. ranges: by the area index of that."""

    image_ids: tuple[ImageId, ...]
    figures: tuple[str, ...]
    class_figures: tuple[str, ...]
    categories: tuple[str, ...]
    truth_count: Ints
    found_count: Ints
    parts: Mapping[str, Figure]
    ranges: tuple[CountedObjects, ...]
    pairs: InstancePairs

    def summarise(self, weights: Floats) -> Summary:
        """See ``ImageStatistics``. Memory: some tens of megabytes a thread, whatever the number of weightings."""
        whole = np.asarray(weights, np.int32).reshape(len(weights), len(self.image_ids))
        if (whole != weights).any() or (whole < 0).any():
            raise ValueError("expected weights that are whole numbers, none negative")
        plain = whole.astype(np.float64)  # products of whole numbers are quick as floats only
        truths = [(plain @ r.truths).astype(np.int64) for r in self.ranges]
        planes = {name: np.full((len(whole), len(self.categories)), np.nan) for name in (*self.figures, *self.class_figures)}
        with_precision = {a: [n for n in planes if self.parts[n][::2] == ("precision", a)] for a in range(len(self.ranges))}

        _ = self._plain, self._in_order  # worked out before there are threads

        def of_class(k: int) -> None:
            for a in (a for a, names in with_precision.items() if names):
                averages = self._average_precisions(k, a, whole, truths[a][:, k])
                for name in with_precision[a]:
                    threshold = self.parts[name][1]
                    planes[name][:, k] = averages.mean(1) if threshold is None else averages[:, threshold]

        for _ in map_over(of_class, np.argsort(-self.truth_count.sum(0), kind="stable").tolist()):
            pass  # the largest first, so that threads end together
        for name in (n for n in planes if self.parts[n][0] == "recall"):
            _, _, a, most = self.parts[name]
            hits = plain @ self._hits(a, DETECTIONS[most])
            np.divide(hits, len(IOU_THRESHOLDS) * truths[a], out=planes[name], where=truths[a] > 0)
        overall = np.stack([_mean(planes[name], 1) for name in self.figures], 1)
        return Summary(100 * overall, 100 * np.stack([planes[name] for name in self.class_figures], 1))

    def _hits(self, a: int, most: int) -> Ints:
        """True positives of each image and class among its ``most`` best predictions, all thresholds together, int64 [N, K]."""
        found, chosen = self.pairs.found, self.pairs.candidates
        right = np.where(self.pairs.place[chosen] < most, (self.ranges[a].outcomes == RIGHT).sum(0), 0)
        cells = found.image[chosen] * len(self.categories) + found.category[chosen]
        hits = np.bincount(cells, right, len(self.image_ids) * len(self.categories))
        return hits.astype(np.int64).reshape(-1, len(self.categories))

    def _average_precisions(self, k: int, a: int, weights: Weights, truths: Ints) -> Floats:
        """AP of class ``k`` over range ``a``, 0..1, float64 [B, T]; NaN without truth. truths: [B]."""
        averages = np.zeros((len(weights), len(IOU_THRESHOLDS)))
        images = self._in_order[k]  # of which further columns say whether there is a first copy, a second, ...
        copies = int(weights[:, images].max(initial=1))
        curves = self._curves(k, a, copies) if copies > 1 else self._plain[k][a]
        rows = max(1, BLOCK // (len(curves.counted) + len(curves.right) + len(images) * copies + 1))
        for begin in range(0, len(weights) if len(curves.right) else 0, rows):
            block = np.s_[begin : begin + rows]
            columns = weights[block]
            if copies > 1:
                some = columns[:, images]
                columns = np.concatenate([columns, *(some >= c for c in range(1, copies + 1))], 1, dtype=np.int32)
            averages[block] = _average_precisions(curves, columns, truths[block])
        averages[truths == 0] = np.nan
        return averages

    def _slice(self, k: int) -> slice:
        """The predictions of class ``k``, which stand together."""
        return slice(*np.searchsorted(self.pairs.found.category, (k, k + 1)).tolist())

    @cached_property
    def _candidate(self) -> Ints:
        """Index of each prediction among the candidates, -1 for none, [D]."""
        index = np.full(len(self.pairs.found), -1)
        index[self.pairs.candidates] = np.arange(len(self.pairs.candidates))
        return index

    @cached_property
    def _group(self) -> Ints:
        """Number of the group that each prediction is of: those of one class, image and score, [D]."""
        found, score = self.pairs.found, self.pairs.score
        keys = (found.category, found.image, score)
        return np.cumsum(np.any([np.diff(key, prepend=np.nan) != 0 for key in keys], 0)) - 1

    @cached_property
    def _mixed(self) -> Bools:
        """Which predictions are of such a group and not all alike in what becomes of them, [D]: their order matters, and two copies of the
        image are not each of them twice but both twice, one after the other."""
        first = np.flatnonzero(np.diff(self._group, prepend=-1))
        tied = np.flatnonzero(np.bincount(self._group, minlength=1)[self._group] > 1)
        if not len(tied):
            return np.zeros(len(self._group), bool)
        fates = np.zeros((sum(1 + len(r.outcomes) for r in self.ranges), len(tied)), np.int8)
        met = self._candidate[tied] >= 0
        row = 0
        for r in self.ranges:
            fates[row] = r.inside[tied]
            fates[row + 1 : row + 1 + len(r.outcomes), met] = r.outcomes[:, self._candidate[tied[met]]]
            row += 1 + len(r.outcomes)
        leader = np.searchsorted(tied, first[self._group[tied]])
        differs = (fates != fates[:, leader]).any(0)
        return np.isin(self._group, self._group[tied[differs]])

    @cached_property
    def _in_order(self) -> list[Ints]:
        """By class the images with predictions that are mixed, ascending."""
        parts = [self._slice(k) for k in range(len(self.categories))]
        return [np.unique(self.pairs.found.image[part][self._mixed[part]]) for part in parts]

    @cached_property
    def _plain(self) -> list[list[_Curves]]:
        """By class and range, where no order of copies matters."""
        return [[self._curves(k, a, 1) for a in range(len(self.ranges))] for k in range(len(self.categories))]

    def _curves(self, k: int, a: int, copies: int) -> _Curves:
        part = self._slice(k)
        entries, copy = np.arange(part.start, part.stop), np.zeros(part.stop - part.start, np.int64)
        if copies > 1:
            repeats = np.where(self._mixed[part], copies, 1)
            copy = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
            entries = np.repeat(entries, repeats)
            order = np.lexsort((entries, copy, self._group[entries]))
            entries, copy = entries[order], copy[order]
        columns = self.pairs.found.image[entries]
        if copies > 1:
            further = len(self.image_ids) + copy * len(self._in_order[k]) + np.searchsorted(self._in_order[k], columns)
            columns = np.where(self._mixed[entries], further, columns)
        met = np.flatnonzero(self._candidate[entries] >= 0)
        inside = self.ranges[a].inside[entries]
        outcomes = self.ranges[a].outcomes[:, self._candidate[entries[met]]]
        threshold, at = np.nonzero(outcomes == RIGHT)
        at = met[at]
        starts = np.searchsorted(threshold, np.arange(len(outcomes) + 1))
        wrong = (outcomes == RIGHT) & ~inside[met] | (outcomes == EXCUSED) & inside[met]
        of, corrected = np.nonzero(wrong)
        corrected = met[corrected]
        where = of * len(entries) + corrected
        return _Curves(
            columns[inside], columns[at], np.cumsum(inside, dtype=np.int64)[at], starts,
            columns[corrected], np.where(inside[corrected], -1, 1).astype(np.int32),
            np.searchsorted(where, threshold * len(entries)), np.searchsorted(where, threshold * len(entries) + at, "right"),
        )  # fmt: skip

    def per_image(self) -> Floats:
        """See ``ImageStatistics``; only what each image has is looked at."""
        values = {a: self._alone(a) for a in range(len(self.ranges)) if ("precision", a) in {p[::2] for p in self.parts.values()}}
        columns = []
        for name in self.figures:
            kind, threshold, a, most = self.parts[name]
            truths = self.ranges[a].truths
            image, category = np.nonzero(truths)
            if kind == "recall":
                each = self._hits(a, DETECTIONS[most])[image, category] / (len(IOU_THRESHOLDS) * truths[image, category])
            else:
                each = values[a].mean(1) if threshold is None else values[a][:, threshold]
            count = np.bincount(image, minlength=len(truths))
            column = np.full(len(truths), np.nan)
            np.divide(np.bincount(image, each, len(truths)), count, out=column, where=count > 0)
            columns.append(100 * column)
        return np.stack(columns, 1)

    def _alone(self, a: int) -> Floats:
        """AP over range ``a`` of each image and class that has truth there, in the order of ``np.nonzero(truths)``, [cells, T]."""
        chosen, found = self.ranges[a], self.pairs.found
        truths, classes = chosen.truths.ravel(), len(self.categories)
        there = np.flatnonzero(truths)
        cell = found.image * classes + found.category
        order = np.lexsort((self.pairs.place, cell))
        cell, candidate = cell[order], self._candidate[order]
        averages = np.zeros((len(there), len(chosen.outcomes)))
        for t, outcomes in enumerate(chosen.outcomes):
            outcome = np.where(candidate >= 0, outcomes[candidate], 0) if len(outcomes) else np.zeros(len(cell), np.int8)
            right = outcome == RIGHT
            total = np.cumsum(right | chosen.inside[order] & (outcome != EXCUSED))
            at = np.flatnonzero(right)
            begin = np.searchsorted(cell, cell[at])
            count = np.arange(1, len(at) + 1) - np.searchsorted(cell[at], cell[at])
            precision = count / (total[at] - np.where(begin > 0, total[begin - 1], 0))
            passed = np.searchsorted(RECALL_THRESHOLDS, count / truths[cell[at]], "right")
            passed[1:] -= np.where(count[1:] > 1, passed[:-1], 0)
            sums = np.bincount(cell[at], _envelope(precision, cell[at]) * passed, len(truths))
            averages[:, t] = sums[there] / len(RECALL_THRESHOLDS)
        return averages


def coco_statistics(
    pairs: InstancePairs, parts: Mapping[str, Figure], per_class: Sequence[str], subset: ObjectSubset | None = None
) -> CocoStatistics | None:
    """Statistics for the figures ``parts``; of the objects in ``subset`` those figures that are over objects of any area, and where no
    prediction can be told to be inside only recall. None where there is no such figure."""
    if subset is None:
        areas = [ObjectSubset("area", low, high) for low, high in AREA_RANGES]
        choices = [pairs.inside(area) for area in areas]
        names = list(parts)
    else:
        choices = [pairs.inside(subset)]
        of_any_area = {n for n, part in parts.items() if part[2] == 0}
        told = choices[0][1] is not None
        names = [n for n in parts if n in of_any_area and (told or parts[n][::3] == ("recall", DETECTIONS.index(100)))]
    if not names:
        return None
    outcomes, _ = pairs.match(np.stack([~truth | pairs.crowd for truth, _ in choices]))
    size = (len(pairs.image_ids), len(pairs.categories))
    everything = np.ones(len(pairs.found), bool)
    ranges = [
        CountedObjects(pairs.truth.counts(*size, truth & ~pairs.crowd), everything if found is None else found, outcomes[a])
        for a, (truth, found) in enumerate(choices)
    ]
    return CocoStatistics(
        pairs.image_ids, tuple(names), tuple(n for n in per_class if n in names), pairs.categories,
        ranges[0].truths, pairs.found.counts(*size, ranges[0].inside), {n: parts[n] for n in names}, tuple(ranges), pairs,
    )  # fmt: skip


def _average_precisions(curves: _Curves, weights: Weights, truths: Ints) -> Floats:
    """AP at each threshold, [B, T]. weights: [B, columns]. truths: that count, [B]."""
    right = weights.take(curves.right, 1)
    parts = [np.s_[:, begin:end] for begin, end in pairwise(curves.starts.tolist())]
    for part in parts:
        np.cumsum(right[part], 1, out=right[part])
    total = np.cumsum(weights.take(curves.counted, 1), 1, dtype=np.int32)
    total = np.concatenate([np.zeros((len(total), 1), np.int32), total], 1).take(curves.before, 1)
    if len(curves.corrections):
        more = np.zeros((len(weights), len(curves.corrections) + 1), np.int32)
        np.cumsum(weights.take(curves.corrections, 1) * curves.signs, 1, out=more[:, 1:])
        total += more.take(curves.corrected_to, 1) - more.take(curves.corrected_from, 1)
    precision = right / np.maximum(total, 1)
    for part in parts:
        backwards = precision[part][:, ::-1]
        np.maximum.accumulate(backwards, 1, out=backwards)
    passed = _passed(right, truths)
    steps = passed.copy()
    steps[:, 1:] -= passed[:, :-1]
    first = curves.starts[curves.starts < len(curves.right)]
    steps[:, first] = passed[:, first]
    precision *= steps
    return np.stack([precision[part].sum(1) for part in parts], 1) / len(RECALL_THRESHOLDS)


def _passed(right: NDArray[np.int32], truths: Ints) -> NDArray[np.int16]:
    """How many recall thresholds are reached with ``right`` [B, P] true positives of ``truths`` [B]; 0 is reached without one."""
    different, row = np.unique(truths, return_inverse=True)
    width = int(right.max()) + 1
    reached = np.arange(width) / np.maximum(different, 1)[:, None]
    table = np.searchsorted(RECALL_THRESHOLDS, reached, "right").astype(np.int16)
    return table.ravel().take(right + (row * width).astype(np.int32)[:, None])


def _envelope(values: Floats, groups: Ints) -> Floats:
    """The greatest of ``values`` from each place to the end of its group, [P]; ``groups`` ascending."""
    different, rank = np.unique(values, return_inverse=True)
    keys = (groups.max(initial=0) - groups) * len(different) + rank
    envelope: Floats = different[np.maximum.accumulate(keys[::-1])[::-1] % max(len(different), 1)]
    return envelope


def _mean(values: Floats, axis: int) -> Floats:
    """Mean of what is defined; NaN where nothing is."""
    defined = ~np.isnan(values)
    count = defined.sum(axis)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(defined, values, 0).sum(axis), count, out=mean, where=count > 0)
    return mean
