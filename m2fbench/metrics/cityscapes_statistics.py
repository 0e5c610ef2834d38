"""What each image contributes to the official Cityscapes means, so that they can be accumulated anew for any choice of the images.

By class only iIoU is given, as in the metric's own table: IoU by class is a figure of ``semantic_iou``, which may be asked for a part of
the classes, and would then be another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.types import ImageId, Summary

FIGURES = ("IoU_class", "IoU_category", "iIoU_class", "iIoU_category")

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class CityscapesStatistics:
    """parts: float64 [N, R, 3], hits, misses and false positives of each score, those of a kind in succession: IoU of classes, iIoU of
    the classes with instances, IoU of categories, iIoU of categories. starts: where the second to fourth kind begin.

    categories: the classes with instances. truth_count, found_count: their pixels in the truth, and predicted where that is evaluated.
    """

    image_ids: tuple[ImageId, ...]
    figures: tuple[str, ...]
    class_figures: tuple[str, ...]
    categories: tuple[str, ...]
    truth_count: NDArray[np.int64]
    found_count: NDArray[np.int64]
    parts: Floats
    starts: tuple[int, int, int]

    def summarise(self, weights: Floats) -> Summary:
        """One matrix product: [B, N] by [N, 3 R]."""
        images, rows, three = self.parts.shape
        return self._accumulated((weights @ self.parts.reshape(images, rows * three)).reshape(len(weights), rows, three))

    def per_image(self) -> Floats:
        return self._accumulated(self.parts).overall

    def _accumulated(self, parts: Floats) -> Summary:
        whole = parts.sum(2)
        scores = 100 * parts[..., 0] / np.where(whole > 0, whole, np.nan)
        classes, instances, categories, instance_categories = np.split(scores, self.starts, 1)
        overall = np.stack([_mean(kind) for kind in (classes, categories, instances, instance_categories)], 1)
        return Summary(overall, instances[:, None])


def _mean(scores: Floats) -> Floats:
    """Over what is defined of [B, K], [B]."""
    defined = ~np.isnan(scores)
    number = defined.sum(1, dtype=np.float64)
    means: Floats = np.where(defined, scores, 0).sum(1) / np.where(number > 0, number, np.nan)
    return means


def cityscapes_statistics(
    image_ids: Sequence[ImageId], parts: Floats, starts: tuple[int, int, int], instance_classes: dict[str, int]
) -> CityscapesStatistics:
    """instance_classes: name -> row of its IoU, in the order of the second kind."""
    of_class = parts[:, list(instance_classes.values())]
    pixels = [of_class[..., [0, k]].sum(2).astype(np.int64) for k in (1, 2)]
    names = tuple(instance_classes)
    return CityscapesStatistics(tuple(image_ids), FIGURES, ("iIoU",), names, pixels[0], pixels[1], parts, starts)
