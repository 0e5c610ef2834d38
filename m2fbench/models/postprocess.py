"""From the model's logits to predictions, as the original code does it, in bounded memory and without needless work.

Convention: ``MaskFormer`` of the original code, test-time inference. The mask logits are brought to the padded size, cropped
to the resized image and brought to the image's own size (two bilinear steps, ``align_corners=False``), then read. The original
does this for all queries at once. Every query is independent of the others in those steps, so here only the queries that can
show in the output are upsampled, a block at a time: the same floats from a fraction of the work and of the memory.

Logits come as float32 (variants in other precisions are cast first), one image at a time: class_logits [Q, C + 1], the last
class being "no object"; mask_logits [Q, h, w] at the model's own resolution.
"""

from collections.abc import Iterator, Sequence

import hotcoco.mask
import numpy as np
import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry
from m2fbench.types import InstanceSet, PanopticMap, Rle, Segment

# float32 logits at the larger of the two sizes, per block: on a CPU what fits its cache, which is twice as fast as all at once
BLOCK_BYTES = {"cpu": 8 << 20, "cuda": 1 << 30}


def upsample(mask_logits: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """float32 [n, height, width] at the image's own size from [n, h, w]: padded size, crop, own size."""
    logits = F.interpolate(mask_logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    logits = logits[..., : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(logits, size=geometry.original, mode="bilinear", align_corners=False)[0]


def _blocks(queries: torch.Tensor, geometry: Geometry, device: torch.device) -> Iterator[torch.Tensor]:
    """``queries`` int64 [n] in pieces whose upsampled logits stay within BLOCK_BYTES, one query at least."""
    height, width = (max(a, b) for a, b in zip(geometry.padded, geometry.original, strict=True))
    if len(queries):  # an empty tensor splits into one empty piece
        yield from queries.split(max(1, BLOCK_BYTES[device.type] // (4 * height * width)))


def encode_masks(masks: torch.Tensor) -> list[Rle]:
    """COCO run-length encodings of bool [n, height, width]."""
    columns = masks.transpose(1, 2).contiguous().cpu().numpy()  # [n, width, height]: transposed it is Fortran order
    encoded = hotcoco.mask.encode(columns.transpose(2, 1, 0))
    return [{"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")} for rle in encoded]


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
    """
    classes = class_logits.shape[1] - 1
    probabilities = class_logits.softmax(-1)[:, :-1].flatten()
    top, pairs = probabilities.topk(min(detections, len(probabilities)), sorted=False)
    query, category = pairs // classes, pairs % classes
    if things is not None:
        keep = torch.isin(category, torch.as_tensor(list(things), device=category.device))
        top, query, category = top[keep], query[keep], category[keep]
    distinct, mask_of = query.unique(return_inverse=True)
    rles: list[Rle] = []
    inside = [torch.zeros(0, device=top.device)]
    for block in _blocks(distinct, geometry, mask_logits.device):
        logits = upsample(mask_logits[block], geometry)
        inside.append(_probability_inside(logits))
        rles += encode_masks(logits > 0)
    area = torch.from_numpy(hotcoco.mask.area(rles).astype(np.float32)) if rles else torch.zeros(0)
    quality = torch.cat(inside).cpu() / (area + 1e-6)
    scores = (top.cpu() * quality[mask_of.cpu()]).double().numpy()
    order = np.argsort(-scores, kind="stable")
    masks_in_order = mask_of.cpu().numpy()[order]
    return InstanceSet(
        rles=tuple(rles[k] for k in masks_in_order),
        categories=category.cpu().numpy()[order],
        scores=scores[order],
        is_crowd=np.zeros(len(order), bool),
    )


def _probability_inside(logits: torch.Tensor) -> torch.Tensor:
    """float32 [n]: the sum of sigmoid over each mask's own pixels (logit > 0); logits [n, height, width]."""
    inside = F.threshold(logits, 0.0, -torch.inf).sigmoid_().flatten(1)  # sigmoid(-inf) is exactly 0
    if len(inside) == 1:  # torch adds up a single row in another order than one row of several
        return inside.expand(2, -1).sum(1)[:1]
    return inside.sum(1)


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
    probability, label = class_logits.softmax(-1).max(-1)
    keep = (label.ne(class_logits.shape[1] - 1) & (probability > object_threshold)).nonzero()[:, 0]
    won = torch.full(geometry.original, -1, dtype=torch.int64, device=mask_logits.device)
    best = torch.full(geometry.original, -1.0, device=mask_logits.device)
    solid = torch.zeros(geometry.original, dtype=torch.bool, device=mask_logits.device)
    areas: list[int] = []
    for block in _blocks(keep, geometry, mask_logits.device):
        masks = upsample(mask_logits[block], geometry).sigmoid_()
        for query, mask in zip(block, masks, strict=True):
            is_solid = mask >= 0.5
            value = probability[query] * mask
            better = value > best  # strictly: of equals the first wins, as argmax has it
            best = torch.where(better, value, best)
            won = torch.where(better, len(areas), won)
            solid = torch.where(better, is_solid, solid)
            areas.append(int(is_solid.sum()))
    panoptic = torch.zeros(geometry.original, dtype=torch.int32, device=mask_logits.device)
    segments: list[Segment] = []
    stuff_ids: dict[int, int] = {}
    thing_set = set(things)
    won_areas = torch.bincount(won.flatten() + 1, minlength=len(areas) + 1)[1:].tolist()
    for number, category in enumerate(label[keep].tolist()):
        region = (won == number) & solid
        if not won_areas[number] or not areas[number] or not bool(region.any()):
            continue
        if won_areas[number] / areas[number] < overlap_threshold:
            continue
        if category in stuff_ids:
            panoptic[region] = stuff_ids[category]
            continue
        segments.append(Segment(len(segments) + 1, category))
        panoptic[region] = segments[-1].id
        if category not in thing_set:
            stuff_ids[category] = segments[-1].id
    return PanopticMap(panoptic.cpu().numpy(), tuple(segments))
