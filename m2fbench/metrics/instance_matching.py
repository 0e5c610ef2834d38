"""Predicted instances beside true ones, as COCO's evaluator puts them together, for any choice of the objects that count.

Convention: pycocotools' ``COCOeval.evaluateImg``. Of each image and class the 100 best scored predictions take part, best first; each
takes, of the truth that is free and overlaps enough, the one with the greatest IoU, and one that is ignored only where there is no other;
crowd regions stay free.

What does not depend on that choice (IoU, areas) is worked out once and kept.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError
from m2fbench.files import map_over
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.rle import compressed
from m2fbench.metrics import coco_files
from m2fbench.metrics.kept import Kept
from m2fbench.types import Dataset, ImageId, JsonObject, ObjectSubset, Predictions, Rle

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)  # as pycocotools makes them, to the last bit
MOST_FOUND = 100
"""Predictions of one image and class that take part."""

MISSED, RIGHT, EXCUSED = 0, 1, 2
"""What a prediction met: nothing, truth that counts, truth that is ignored."""

IouOf = Callable[[Sequence[Rle], Sequence[Rle], NDArray[np.bool_]], NDArray[np.float64]]
"""IoU [D, G] of predicted masks with true ones, which are crowd regions where the third says so; exact from 0.5 on, below that anything
below."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Objects:
    """Instances of many images, M of them. image: index of the image; category: of the class; int64 [M]. area: in pixels, for truth as
    annotated, float64 [M]. border: whether the mask touches the image's border, bool [M]."""

    image: Ints
    category: Ints
    area: Floats
    border: Bools

    def __len__(self) -> int:
        return len(self.image)

    def counts(self, images: int, categories: int, chosen: Bools) -> Ints:
        """How many of each image and class are ``chosen``, int64 [images, categories]."""
        cells = (self.image * categories + self.category)[chosen]
        return np.bincount(cells, minlength=images * categories).reshape(images, categories)


@dataclass(frozen=True)
class InstancePairs:
    """Truth and predictions of the N images, and which overlap enough to meet at all.

    found: predictions that take part, in the order in which the evaluator accumulates them: by class, best score first, ties by image and
    then as in the file. score: float64 [D]. place: 0 for the best of its image and class, int64 [D]. crowd: of truth, bool [G].
    edge_found, edge_truth, edge_iou: the pairs of one image and class with an IoU from the lowest threshold on, [E].
    masks: of truth.
    """

    image_ids: tuple[ImageId, ...]
    categories: tuple[str, ...]
    truth: Objects
    crowd: Bools
    masks: tuple[Rle, ...]
    found: Objects
    score: Floats
    place: Ints
    edge_found: Ints
    edge_truth: Ints
    edge_iou: Floats

    @cached_property
    def surroundings(self) -> tuple[Floats, Bools]:
        """Of each true object the share of its box that other true objects cover, NaN for an empty mask, float64 [G]; and whether its box
        meets a crowd region, bool [G]."""
        shares, meets = np.full(len(self.truth), np.nan), np.zeros(len(self.truth), bool)
        order = np.argsort(self.truth.image, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.truth.image[order])) + 1)

        def one(group: Ints) -> tuple[list[float], list[bool]]:
            return _surroundings([self.masks[k] for k in group], self.crowd[group])

        for group, (share, meet) in zip(groups, map_over(one, groups), strict=True):
            shares[group], meets[group] = share, meet
        return shares, meets

    def inside(self, subset: ObjectSubset) -> tuple[Bools, Bools | None]:
        """Which true objects are in ``subset``, bool [G], and which predictions, bool [D]; None where that means nothing for them."""

        def within(values: NDArray[Any]) -> Bools:
            chosen: Bools = (subset.low <= values) & (values <= subset.high)
            return chosen

        if subset.attribute == "area":
            return within(self.truth.area), within(self.found.area)
        if subset.attribute == "border":
            return within(self.truth.border), within(self.found.border)
        return within(self.surroundings[subset.attribute == "crowd"]), None

    @cached_property
    def candidates(self) -> Ints:
        """The predictions that overlap any truth enough, ascending, int64 [C]."""
        return np.unique(self.edge_found)

    def match(self, ignored: Bools) -> tuple[NDArray[np.int8], Bools]:
        """What each of the ``candidates`` meets at each IoU threshold, int8 [A, T, C]; and which truth is met, [A, T, G]. ignored: which truth
        is, bool [A, G], in each of A choices; crowd regions are in all."""
        shape = (len(ignored), len(IOU_THRESHOLDS))
        outcomes = np.zeros((*shape, len(self.candidates)), np.int8)
        free = np.ones((*shape, len(self.truth)), bool)
        # The greatest IoU wins, of equals the last; any truth that counts wins over all that is ignored.
        by_preference = np.lexsort((self.edge_truth, self.edge_iou))
        preference = np.empty(len(by_preference), np.int64)
        preference[by_preference] = np.arange(1, len(by_preference) + 1)
        candidate = np.searchsorted(self.candidates, self.edge_found)
        turn = self._turns()[candidate]
        order = np.lexsort((candidate, turn))
        for edges in np.split(order, np.flatnonzero(np.diff(turn[order])) + 1) if len(order) else []:
            truth = self.edge_truth[edges]
            enough = self.edge_iou[edges] >= IOU_THRESHOLDS[:, None]
            counts = np.where(ignored[:, truth], 0, len(by_preference)) + preference[edges]
            offers = np.where(enough & (free[..., truth] | self.crowd[truth]), counts[:, None], 0)
            first = np.flatnonzero(np.diff(candidate[edges], prepend=-1))
            best = np.maximum.reduceat(offers, first, axis=-1)
            outcomes[..., candidate[edges[first]]] = np.where(
                best == 0, MISSED, np.where(best > len(by_preference), RIGHT, EXCUSED)
            )
            taken = np.nonzero(best)
            free[taken[0], taken[1], self.edge_truth[by_preference[(best[taken] - 1) % len(by_preference)]]] = False
        return outcomes, ~free

    def _turns(self) -> Ints:
        """For each of the candidates how many others of its image and class choose before it, [C]."""
        image, category = self.found.image[self.candidates], self.found.category[self.candidates]
        return _places(image * len(self.categories) + category)


def _places(cells: Ints) -> Ints:
    """For each entry how many of the same value stand before it."""
    order = np.argsort(cells, kind="stable")
    begins = np.flatnonzero(np.diff(cells[order], prepend=-1))
    places = np.empty(len(cells), np.int64)
    places[order] = np.arange(len(cells)) - np.repeat(begins, np.diff(begins, append=len(cells)))
    return places


def mask_iou(found: Sequence[Rle], truth: Sequence[Rle], crowd: Bools) -> Floats:
    """IoU of masks; with a crowd region, the share of the prediction that lies in it."""
    import hotcoco.mask

    return np.asarray(hotcoco.mask.iou(list(found), list(truth), crowd.tolist()), np.float64).reshape(len(found), len(truth))


_KEPT: defaultdict[IouOf, Kept[InstancePairs]] = defaultdict(Kept)


def pairs_of(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], iou_of: IouOf = mask_iou) -> InstancePairs:
    """Those of the images ``image_ids``; kept for the next question about the same."""
    results, images = predictions.instances, tuple(image_ids)
    assert results is not None

    def make() -> tuple[InstancePairs, list[Path]]:
        with paused_collector():
            return _pairs(dataset, results, images, iou_of), [results]

    return _KEPT[iou_of].get(dataset, (results, images), make)


def _pairs(dataset: Dataset, results: Path, image_ids: tuple[ImageId, ...], iou_of: IouOf) -> InstancePairs:
    truth, crowd, true_masks, found, score, place, masks = _instances(dataset, results, image_ids)

    def cells(objects: Objects) -> Ints:
        return objects.image * len(dataset.categories) + objects.category

    edges = _edges(cells(found), masks, cells(truth), true_masks, crowd, iou_of, IOU_THRESHOLDS[0])
    names = tuple(category.name for category in coco_files.things(dataset))
    return InstancePairs(image_ids, names, truth, crowd, tuple(true_masks), found, score, place, *edges)


def overlaps(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], lowest: float) -> tuple[Ints, Ints, Floats]:
    """Prediction, truth and mask IoU of all pairs in one image, whatever their classes, with an IoU of ``lowest`` or more, [E]; crowd regions
    are left out. Indices as in ``pairs_of``."""
    assert predictions.instances is not None
    with paused_collector():
        truth, crowd, true_masks, found, _, _, masks = _instances(dataset, predictions.instances, tuple(image_ids))
    single = np.flatnonzero(~crowd)
    ours, theirs, iou = _edges(
        found.image, masks, truth.image[single], [true_masks[k] for k in single], crowd[single], mask_iou, lowest
    )
    return ours, single[theirs], iou


def _instances(
    dataset: Dataset, results: Path, image_ids: tuple[ImageId, ...]
) -> tuple[Objects, Bools, list[Rle], Objects, Floats, Ints, list[Rle]]:
    """Truth: its objects, which are crowds, masks. Predictions that take part, in order: objects, scores, places, masks."""
    document = coco_files.load_truth(dataset.coco_truth())
    sizes = {image["id"]: (image["height"], image["width"]) for image in document["images"]}
    images = {image_id: k for k, image_id in enumerate(image_ids)}
    pairs = zip(dataset.category_ids, dataset.categories, strict=True)
    places = {category_id: k for k, category_id in enumerate(i for i, category in pairs if category.is_thing)}

    def objects(entries: Sequence[JsonObject]) -> tuple[list[JsonObject], Objects, list[Rle]]:
        chosen = [e for e in entries if e["image_id"] in images and e["category_id"] in places]
        masks = [_mask(entry, sizes[entry["image_id"]], results) for entry in chosen]
        image = np.array([images[e["image_id"]] for e in chosen], np.int64)
        category = np.array([places[e["category_id"]] for e in chosen], np.int64)
        return chosen, Objects(image, category, *_shapes(masks)), masks

    annotations, truth, true_masks = objects(document["annotations"])
    annotated = np.array([np.nan if a.get("area") is None else a["area"] for a in annotations], np.float64)
    truth = Objects(truth.image, truth.category, np.where(np.isnan(annotated), truth.area, annotated), truth.border)
    crowd = np.array([bool(a.get("iscrowd")) for a in annotations], bool)
    entries, found, masks = objects(coco_files.read_entries(results))
    score = np.array([e["score"] for e in entries], np.float64)
    kept, place = _order(found, score, _evaluators_order(dataset, image_ids))
    found = Objects(found.image[kept], found.category[kept], found.area[kept], found.border[kept])
    return truth, crowd, true_masks, found, score[kept], place, [masks[k] for k in kept]


def _evaluators_order(dataset: Dataset, image_ids: Sequence[ImageId]) -> Ints:
    """The place of each image among the others: by id, or as the dataset has them where ids are no numbers (``coco_files.integer_ids``)."""
    known = [example.image_id for example in dataset.examples()]
    numbers: dict[ImageId, int] = {i: n for n, i in enumerate(known)}
    if all(isinstance(image_id, int) for image_id in known):
        numbers = {i: int(i) for i in known}
    return np.array([numbers[image_id] for image_id in image_ids], np.int64)


def _mask(entry: JsonObject, size: tuple[int, int], path: Path) -> Rle:
    try:
        return {"size": list(size), "counts": compressed(entry["segmentation"], size)}
    except ValueError as error:
        raise PredictionsError(f"{path}: image {entry['image_id']}: {error}") from error


def _shapes(masks: Sequence[Rle]) -> tuple[Floats, Bools]:
    """Pixels of each mask, and whether it touches the image's border."""
    import hotcoco.mask

    if not masks:
        return np.zeros(0), np.zeros(0, bool)
    area = np.asarray(hotcoco.mask.area(list(masks)), np.float64)
    left, top, width, height = np.asarray(hotcoco.mask.to_bbox(list(masks)), np.float64).reshape(-1, 4).T
    rows, columns = np.array([mask["size"] for mask in masks]).T
    return area, (area > 0) & ((left == 0) | (top == 0) | (left + width == columns) | (top + height == rows))


def _order(found: Objects, score: Floats, image_order: Ints) -> tuple[Ints, Ints]:
    """The predictions that take part, in order, and the place of each within its image and class."""
    order = np.lexsort((image_order[found.image], -score, found.category))
    place = _places((found.category * (len(image_order) + 1) + found.image)[order])
    kept = place < MOST_FOUND
    return order[kept], place[kept]


def _edges(
    ours: Ints, masks: Sequence[Rle], theirs: Ints, true_masks: Sequence[Rle], crowd: Bools, iou_of: IouOf, lowest: float
) -> tuple[Ints, Ints, Floats]:
    """Prediction, truth and IoU of the pairs of one cell with an IoU of ``lowest`` or more. ours, theirs: the cell of each prediction and of
    each true object."""
    found, truth = _by_cell(ours), _by_cell(theirs)
    cells = [(found[cell], truth[cell]) for cell in truth if cell in found]

    def one(cell: tuple[Ints, Ints]) -> tuple[Ints, Ints, Floats]:
        mine, other = cell
        iou = iou_of([masks[k] for k in mine], [true_masks[k] for k in other], crowd[other])
        rows, columns = np.nonzero(iou >= lowest)
        return mine[rows], other[columns], iou[rows, columns]

    edges = list(map_over(one, cells))
    empty = np.zeros(0, np.int64)
    return (
        np.concatenate([empty, *(e[0] for e in edges)]),
        np.concatenate([empty, *(e[1] for e in edges)]),
        np.concatenate([np.zeros(0), *(e[2] for e in edges)]),
    )


def _by_cell(cells: Ints) -> dict[int, Ints]:
    """The indices of each value that is there, ascending."""
    order = np.argsort(cells, kind="stable")
    begins = np.flatnonzero(np.diff(cells[order], prepend=-1))
    return dict(zip(cells[order][begins].tolist(), np.split(order, begins[1:]), strict=True)) if len(order) else {}


def _surroundings(masks: Sequence[Rle], crowd: Bools) -> tuple[list[float], list[bool]]:
    """``InstancePairs.surroundings`` of the true objects of one image."""
    import hotcoco.mask

    if not masks:
        return [], []
    corners = np.asarray(hotcoco.mask.to_bbox(list(masks)), np.int64).reshape(-1, 4).tolist()
    boxes = [np.s_[top : top + height, left : left + width] for left, top, width, height in corners]
    covering = np.zeros(masks[0]["size"], np.uint16)
    crowds = np.zeros(masks[0]["size"] if crowd.any() else (0, 0), bool)
    parts = []
    for mask, box, is_crowd in zip(masks, boxes, crowd.tolist(), strict=True):
        parts.append(np.ascontiguousarray(hotcoco.mask.decode(mask)[box]))  # nothing of the mask lies outside its box
        covering[box] += parts[-1]
        if is_crowd:
            crowds[box] |= parts[-1] > 0
    shares = [float((covering[box] > part).mean()) if part.size else float("nan") for part, box in zip(parts, boxes, strict=True)]
    return shares, [bool(crowds[box].any()) for box in boxes]
