"""Cityscapes' instance AP accumulated anew for any weighting of the images.

Convention: ``cityscapes_ap``. The step-wise integral of the official script is that of the trapezoids between neighbouring scores, the last
one to precision 1 at recall 0, so a score counts only where a true positive has it: by the precision with and without all predictions of that
score. An image of weight w is w copies of it, of the same scores; of weight 0 it changes neither precision.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from m2fbench.files import map_over
from m2fbench.types import Floats, ImageId, Summary

BLOCK = 1 << 20  # weighted predictions worked on at once by a thread, which bounds the memory

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class _Ranking:
    """Predictions of one class that count at one threshold, best first. images: of each, [E]. right: images of the true positives, [P].
    above, upto: how many predictions have a better score than each true positive, and no worse a score; right_above, right_upto: how many true
    positives; [P]."""

    images: Ints
    right: Ints
    above: Ints
    upto: Ints
    right_above: Ints
    right_upto: Ints


@dataclass(frozen=True)
class CityscapesAPStatistics:
    """``ImageStatistics`` of AP and AP50. image, category: of each prediction, int64 [P]; score: float64 [P]; right, counted: whether it is a
    true positive, and whether it counts at all, bool [P, T]."""

    image_ids: tuple[ImageId, ...]
    figures: tuple[str, ...]
    class_figures: tuple[str, ...]
    categories: tuple[str, ...]
    truth_count: Ints
    found_count: Ints
    image: Ints
    category: Ints
    score: Floats
    right: NDArray[np.bool_]
    counted: NDArray[np.bool_]

    def summarise(self, weights: Floats) -> Summary:
        """See ``ImageStatistics``."""
        whole = np.asarray(weights, np.int32).reshape(len(weights), len(self.image_ids))
        if (whole != weights).any() or (whole < 0).any():
            raise ValueError("expected weights that are whole numbers, none negative")
        truths = whole @ self.truth_count
        by_class = np.full((len(whole), len(self.categories)), np.nan), np.full((len(whole), len(self.categories)), np.nan)
        rankings = self._rankings  # worked out before there are threads

        def of_class(k: int) -> None:
            table = np.stack([_average_precision(ranking, whole, truths[:, k]) for ranking in rankings[k]], 1)
            by_class[0][:, k], by_class[1][:, k] = table.mean(1), table[:, 0]

        for _ in map_over(of_class, np.argsort(-self.found_count.sum(0), kind="stable").tolist()):
            pass
        planes = 100 * np.stack(by_class, 1)
        return Summary(_mean(planes), planes)

    def per_image(self) -> Floats:
        """See ``ImageStatistics``."""
        order = np.argsort(self.image, kind="stable")
        parts = np.split(order, np.searchsorted(self.image[order], np.arange(1, len(self.image_ids))))
        alone = [self._alone(n, part).summarise(np.ones((1, 1))).overall for n, part in enumerate(parts[: len(self.image_ids)])]
        return np.concatenate([np.zeros((0, len(self.figures))), *alone])

    def _alone(self, number: int, part: Ints) -> "CityscapesAPStatistics":
        """Of one image: its predictions ``part``, and the classes of which it has truth."""
        classes = np.flatnonzero(self.truth_count[number])
        part = part[np.isin(self.category[part], classes)]
        return replace(
            self, image_ids=self.image_ids[number : number + 1], categories=tuple(self.categories[k] for k in classes),
            truth_count=self.truth_count[number : number + 1, classes], found_count=self.found_count[number : number + 1, classes],
            image=np.zeros(len(part), np.int64), category=np.searchsorted(classes, self.category[part]), score=self.score[part],
            right=self.right[part], counted=self.counted[part],
        )  # fmt: skip

    @cached_property
    def _rankings(self) -> list[list[_Ranking]]:
        """By class and threshold."""
        best_first = np.argsort(-self.score, kind="stable")
        of_class = [best_first[self.category[best_first] == k] for k in range(len(self.categories))]
        return [[self._ranking(chosen[self.counted[chosen, t]], t) for t in range(self.right.shape[1])] for chosen in of_class]

    def _ranking(self, chosen: Ints, t: int) -> _Ranking:
        falling, right = -self.score[chosen], self.right[chosen, t]
        above, upto = (np.searchsorted(falling, falling[right], side) for side in ("left", "right"))
        number = np.append(0, np.cumsum(right))
        return _Ranking(self.image[chosen], self.image[chosen[right]], above, upto, number[above], number[upto])


def _average_precision(ranking: _Ranking, weights: NDArray[np.int32], truths: Ints) -> Floats:
    """AP of each weighting, 0..1, [B]; NaN without truth."""
    found = np.full(len(weights), np.nan)
    rows = max(1, BLOCK // (len(ranking.images) + len(ranking.right) + 1))
    for begin in range(0, len(weights), rows):
        block = np.s_[begin : begin + rows]
        each = weights[block].take(ranking.right, 1)
        right, total = _sums(each), _sums(weights[block].take(ranking.images, 1))
        heights = _precision(right, total, ranking.right_above, ranking.above)
        heights += _precision(right, total, ranking.right_upto, ranking.upto)
        np.divide((each * heights).sum(1) / 2, truths[block], out=found[block], where=truths[block] > 0)
    return found


def _sums(weights: NDArray[np.int32]) -> NDArray[np.int32]:
    """Running sums along the rows, beginning with 0."""
    sums = np.zeros((weights.shape[0], weights.shape[1] + 1), np.int32)
    np.cumsum(weights, 1, out=sums[:, 1:])
    return sums


def _precision(right: NDArray[np.int32], total: NDArray[np.int32], true: Ints, all_of_them: Ints) -> Floats:
    """Of the first ``true`` true positives among the first ``all_of_them`` predictions; 1 of none."""
    number = total.take(all_of_them, 1)
    precision = np.ones(number.shape)
    np.divide(right.take(true, 1), number, out=precision, where=number > 0)
    return precision


def _mean(planes: Floats) -> Floats:
    """Over the classes that are defined, [B, P, K] -> [B, P]; NaN where none is."""
    defined = ~np.isnan(planes)
    count = defined.sum(2)
    mean = np.full(count.shape, np.nan)
    np.divide(np.where(defined, planes, 0).sum(2), count, out=mean, where=count > 0)
    return mean
