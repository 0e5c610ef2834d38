"""From the model's logits to predictions, as the original code does it, in bounded memory and without needless work.

Convention: ``MaskFormer`` of the original code, test-time inference. The mask logits are brought to the padded size, cropped
to the resized image and brought to the image's own size (two bilinear steps, ``align_corners=False``), then read. The original
does this for all queries at once. Every query is independent of the others in those steps, so here only the queries that can
show in the output are upsampled, a block at a time: the same floats from a fraction of the work and of the memory.

Each head comes in two halves. The first (``instance_masks``, ``panoptic_segments``) stays on the device of the logits and asks it one thing:
how many queries were selected (``select_detections``, ``select_segments``), without which there is no selecting before upsampling. After
that nothing waits for the device. The second half (``encode_instances``, ``panoptic_map``) copies the result and makes of it what is kept.

Logits come as float32 (variants in other precisions are cast first), one image at a time: class_logits [Q, C + 1], the last
class being "no object"; mask_logits [Q, h, w] at the model's own resolution.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import hotcoco.mask
import numpy as np
import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry
from m2fbench.types import InstanceSet, PanopticMap, Rle, Segment

# float32 logits at the larger of the two sizes, per block: on a CPU what fits its cache, which is twice as fast as all at once; on CUDA tens of
# queries, which fill any device, and leave room on a small one
BLOCK_BYTES = {"cpu": 8 << 20, "cuda": 256 << 20}


def upsample(mask_logits: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """float32 [n, height, width] at the image's own size from [n, h, w]: padded size, crop, own size; a new tensor."""
    logits = F.interpolate(mask_logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    logits = logits[..., : geometry.resized[0], : geometry.resized[1]]
    if geometry.resized == geometry.original:  # as always in Cityscapes; the second step would give the same floats again
        return logits[0]
    return F.interpolate(logits, size=geometry.original, mode="bilinear", align_corners=False)[0]


def _blocks(queries: torch.Tensor, geometry: Geometry, device: torch.device) -> Iterator[torch.Tensor]:
    """``queries`` int64 [n] in pieces whose upsampled logits stay within BLOCK_BYTES, one query at least."""
    height, width = (max(a, b) for a, b in zip(geometry.padded, geometry.original, strict=True))
    if len(queries):  # an empty tensor splits into one empty piece
        yield from queries.split(max(1, BLOCK_BYTES[device.type] // (4 * height * width)))


@dataclass(frozen=True)
class Detections:
    """The queries of an instance prediction, chosen by their classes alone; all on the device.

    queries: int64 [m], distinct, ascending. mask_of: int64 [n], of each detection its place in ``queries``. categories: int64 [n].
    probabilities: float32 [n], of the class.
    """

    queries: torch.Tensor
    mask_of: torch.Tensor
    categories: torch.Tensor
    probabilities: torch.Tensor


@dataclass(frozen=True)
class InstanceMasks:
    """The instances of one image on the device, in no order. masks: bool [m, height, width], each once. mask_of, categories: int64 [n].
    scores: float32 [n]."""

    masks: torch.Tensor
    mask_of: torch.Tensor
    categories: torch.Tensor
    scores: torch.Tensor


def select_detections(class_logits: torch.Tensor, things: Sequence[int] | None, detections: int) -> Detections:
    """The top ``detections`` (query, class) pairs; of these, where the model is panoptic, the ones whose class is in ``things`` (None:
    an instance model, all classes are). Waits for the device once, for two counts."""
    queries, classes = class_logits.shape[0], class_logits.shape[1] - 1
    probabilities = class_logits.softmax(-1)[:, :-1].flatten()
    top, pairs = probabilities.topk(min(detections, len(probabilities)), sorted=False)
    query, category = pairs // classes, pairs % classes
    table = _members(classes, None if things is None else tuple(things), class_logits.device)
    wanted = table[category]
    selected = torch.zeros(queries, dtype=torch.int64, device=query.device).scatter_add_(0, query, wanted.long()) > 0
    counted, distinct = torch.stack((wanted.sum(), selected.sum())).tolist()  # the one question to the device
    kept = _first(wanted, counted)
    return Detections(_first(selected, distinct), (selected.cumsum(0) - 1)[query[kept]], category[kept], top[kept])


def _first(flags: torch.Tensor, count: int) -> torch.Tensor:
    """int64 [count]: where bool [n] is True, ascending. ``nonzero`` would have to ask the device how many that are."""
    return flags.byte().argsort(descending=True, stable=True)[:count]


@lru_cache(maxsize=16)
def _members(classes: int, members: tuple[int, ...] | None, device: torch.device) -> torch.Tensor:
    """bool [classes]: which are ``members`` (None: all); kept, so that the device gets it once and not for every image."""
    return torch.tensor([members is None or index in members for index in range(classes)], dtype=torch.bool, device=device)


def _mask_blocks(found: Detections, mask_logits: torch.Tensor, geometry: Geometry) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """masks bool [b, height, width] and mean probability inside each, float32 [b]: block by block, in the order of ``found.queries``."""
    for block in _blocks(found.queries, geometry, mask_logits.device):
        logits = upsample(mask_logits[block], geometry)
        masks = _compare("greater", logits, 0.0)
        yield masks, _probability_inside(logits) / (_areas(masks).float() + 1e-6)


def instance_masks(found: Detections, mask_logits: torch.Tensor, geometry: Geometry) -> InstanceMasks:
    """The masks and scores of ``found``: see ``instance_inference``. Asks the device nothing."""
    masks = torch.empty((len(found.queries), *geometry.original), dtype=torch.bool, device=mask_logits.device)
    quality = torch.empty(len(found.queries), device=mask_logits.device)
    done = 0
    for block, inside in _mask_blocks(found, mask_logits, geometry):
        masks[done : done + len(block)], quality[done : done + len(block)] = block, inside
        done += len(block)
    return InstanceMasks(masks, found.mask_of, found.categories, found.probabilities * quality[found.mask_of])


def encode_instances(found: InstanceMasks) -> InstanceSet:
    """The instances copied to the host, their masks encoded, by descending score."""
    height, width = found.masks.shape[1:]
    rles: list[Rle] = []
    if len(found.masks):
        for masks in found.masks.split(max(1, BLOCK_BYTES[found.masks.device.type] // max(1, height * width))):
            rles += encode_masks(masks)
    return _instance_set(rles, found.mask_of, found.categories, found.scores)


def encode_masks(masks: torch.Tensor) -> list[Rle]:
    """COCO run-length encodings of bool [n, height, width]."""
    columns = masks.transpose(1, 2).contiguous().cpu().numpy()  # [n, width, height]: transposed it is Fortran order
    encoded = hotcoco.mask.encode(columns.transpose(2, 1, 0))
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in encoded]


def _instance_set(rles: Sequence[Rle], mask_of: torch.Tensor, categories: torch.Tensor, scores: torch.Tensor) -> InstanceSet:
    """Detections whose masks are ``rles[mask_of]``, by descending score."""
    values = scores.cpu().double().numpy()
    order = np.argsort(-values, kind="stable")
    return InstanceSet(
        rles=tuple(rles[k] for k in mask_of.cpu().numpy()[order]),
        categories=categories.cpu().numpy()[order],
        scores=values[order],
        is_crowd=np.zeros(len(order), bool),
    )


def instance_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    geometry: Geometry,
    *,
    things: Sequence[int] | None,
    detections: int = 100,
) -> InstanceSet:
    """The paper's instance segmentation of one image, by descending score.

    The top ``detections`` (query, class) pairs by class probability; of these, where the model is panoptic, the ones whose
    class is in ``things`` (None: an instance model, all classes are). Mask: logit > 0 at the image's size. Score: class
    probability x mean sigmoid of the mask's pixels (its area + 1e-6 below). Nothing is dropped: no score threshold, and an
    empty mask stays with score 0. Fewer pairs than ``detections`` are all taken.

    What ``encode_instances(instance_masks(...))`` gives, but each block of masks is encoded and let go before the next is made: 100 masks of
    12 megapixels are 1.2 GB.
    """
    found = select_detections(class_logits, things, detections)
    rles: list[Rle] = []
    quality = [torch.zeros(0, device=mask_logits.device)]
    for masks, inside in _mask_blocks(found, mask_logits, geometry):
        rles += encode_masks(masks)
        quality.append(inside)
    return _instance_set(rles, found.mask_of, found.categories, found.probabilities * torch.cat(quality)[found.mask_of])


def _probability_inside(logits: torch.Tensor) -> torch.Tensor:
    """float32 [n]: the sum of sigmoid over each mask's own pixels (logit > 0); logits [n, height, width]."""
    inside = F.threshold(logits, 0.0, -torch.inf).sigmoid_().flatten(1)  # sigmoid(-inf) is exactly 0
    if len(inside) == 1:  # torch adds up a single row in another order than one row of several
        return inside.expand(2, -1).sum(1)[:1]
    return inside.sum(1)


def _in_numpy(values: torch.Tensor) -> bool:
    """Whether numpy compares and counts, on a CPU several times faster than torch, and ``bincount`` asks no device."""
    return values.device.type == "cpu"


def _compare(relation: Literal["greater", "greater_equal"], values: torch.Tensor, other: torch.Tensor | float) -> torch.Tensor:
    """bool, of the shape of ``values``."""
    if not _in_numpy(values):
        return torch.gt(values, other) if relation == "greater" else torch.ge(values, other)
    right = other.numpy() if isinstance(other, torch.Tensor) else other
    return torch.from_numpy(np.greater(values.numpy(), right) if relation == "greater" else np.greater_equal(values.numpy(), right))


def _areas(masks: torch.Tensor) -> torch.Tensor:
    """int64 [n]: the True pixels of each of bool [n, height, width], exactly."""
    if not _in_numpy(masks):
        return masks.flatten(1).sum(1)
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()], dtype=torch.int64)


@dataclass(frozen=True)
class SegmentQueries:
    """The queries that compete for a panoptic map, chosen by their classes alone; all on the device.

    queries: int64 [k], ascending. categories: int64 [k], their best class. probabilities: float32 [k], of that class. things: bool [C],
    which classes are.
    """

    queries: torch.Tensor
    categories: torch.Tensor
    probabilities: torch.Tensor
    things: torch.Tensor


@dataclass(frozen=True)
class PanopticSegments:
    """The panoptic map of one image on the device. ids: int32 [height, width], 0 = void. categories: int64 [k], the class of each query
    that competed. opened: int64 [k], the id of the segment that it opened; 0 where it was dropped or became part of another's."""

    ids: torch.Tensor
    categories: torch.Tensor
    opened: torch.Tensor


def select_segments(class_logits: torch.Tensor, things: Sequence[int], object_threshold: float) -> SegmentQueries:
    """Queries whose best class is an object with a probability over ``object_threshold``. Waits for the device once, for their number."""
    classes = class_logits.shape[1] - 1
    probability, label = class_logits.softmax(-1).max(-1)
    queries = (label.ne(classes) & (probability > object_threshold)).nonzero()[:, 0]  # the one question to the device
    return SegmentQueries(queries, label[queries], probability[queries], _members(classes, tuple(things), class_logits.device))


def panoptic_segments(
    found: SegmentQueries, mask_logits: torch.Tensor, geometry: Geometry, *, overlap_threshold: float
) -> PanopticSegments:
    """The map and its segments of ``found``: see ``panoptic_inference``. Asks the device nothing."""
    count, device = len(found.queries), mask_logits.device
    if not count:
        return PanopticSegments(torch.zeros(geometry.original, dtype=torch.int32, device=device), found.categories, found.queries)
    # number: 1 + the place in ``found`` of the query that a pixel goes to, 0 for none
    number = torch.zeros(geometry.original, dtype=torch.uint8 if count < 256 else torch.int16, device=device)
    best = torch.full(geometry.original, -1.0, device=device)
    areas = []
    done = 0
    for block in _blocks(found.queries, geometry, device):
        masks = upsample(mask_logits[block], geometry).sigmoid_()
        areas.append(_areas(_compare("greater_equal", masks, 0.5)))
        for mask in masks:
            value = mask.mul_(found.probabilities[done])
            better = _compare("greater", value, best)  # strictly: of equals the first wins, as argmax has it
            torch.maximum(best, value, out=best)
            done += 1
            # the largest number is the latest winner: as products of bytes that is 50 times faster on a CPU than writing through a mask
            torch.maximum(number, better.to(number.dtype).mul_(done), out=number)
    # a winner's own sigmoid is at least 0.5 exactly where its probability x sigmoid is at least half its probability: multiplying rounds
    # no float under 0.5 up to the product with 0.5, which is exact
    half = torch.cat((best.new_full((1,), torch.inf), found.probabilities / 2))
    solid = number * _compare("greater_equal", best, _look_up(half, number))
    opened, segment = _decide(found, _histogram(number, count), _histogram(solid, count), torch.cat(areas), overlap_threshold)
    ids = _look_up(torch.cat((segment.new_zeros(1), segment)).int(), solid)
    return PanopticSegments(ids, found.categories, opened)


def _decide(
    found: SegmentQueries, won: torch.Tensor, solid: torch.Tensor, areas: torch.Tensor, overlap_threshold: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """For each query the id of the segment that it opens, and of the one that it belongs to; 0 for none. int64 [k] all.

    won: the pixels it won; solid: those of them where its sigmoid is at least 0.5; areas: all pixels where it is. The shares are in double
    precision, as Python divides counts.
    """
    kept = (won > 0) & (areas > 0) & (solid > 0) & (won.double() / areas.clamp(min=1).double() >= overlap_threshold)
    same = found.categories[:, None] == found.categories
    stuff = ~found.things[found.categories]
    hosts = (same & stuff & kept) | torch.eye(len(kept), dtype=torch.bool, device=kept.device)  # [k, k]: those it can belong to
    host = hosts.byte().argmax(1)  # the first
    opens = kept & (host == torch.arange(len(kept), device=kept.device))
    opened = opens.cumsum(0) * opens
    return opened, opened[host] * kept


def _histogram(numbers: torch.Tensor, count: int) -> torch.Tensor:
    """int64 [count]: the pixels that have the number 1, 2, ... ``count``; on CUDA ``bincount`` would ask the device for the largest."""
    flat = numbers.flatten()
    if _in_numpy(flat):
        return torch.bincount(flat, minlength=count + 1)[1:]
    bins = torch.zeros(count + 1, dtype=torch.int64, device=flat.device)
    return bins.scatter_add_(0, flat.long(), torch.ones((), dtype=torch.int64, device=flat.device).expand(len(flat)))[1:]


def _look_up(table: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """table[numbers], of the shape of ``numbers``; on a CPU this is the fastest form."""
    return table.index_select(0, numbers.flatten().int()).view(numbers.shape)


def panoptic_map(found: PanopticSegments) -> PanopticMap:
    """The map and its segments copied to the host."""
    opened, categories = torch.stack((found.opened, found.categories)).tolist()
    segments = tuple(Segment(number, category) for number, category in zip(opened, categories, strict=True) if number)
    return PanopticMap(found.ids.cpu().numpy(), segments)


def panoptic_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    geometry: Geometry,
    *,
    things: Sequence[int],
    object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> PanopticMap:
    """The paper's panoptic map of one image; its segment ids count up from 1.

    Queries whose best class is an object with a probability over ``object_threshold`` compete: each pixel goes to the largest
    probability x sigmoid. A segment is what a query won where its own sigmoid is at least 0.5; a query that won less than
    ``overlap_threshold`` of its own area is dropped; the segments of one stuff class become one.
    """
    found = select_segments(class_logits, things, object_threshold)
    return panoptic_map(panoptic_segments(found, mask_logits, geometry, overlap_threshold=overlap_threshold))
