"""The paper's post-processing in the original's order of operations: every query upsampled, then read.

It is here to be counted, on the meta device: what m2fbench predicts by (:mod:`m2fbench.models.postprocess` and
:mod:`m2fbench.models.semantic`) gives the same with less work, and the published FLOPs are of this order. Nothing here depends on values, only
on shapes; so the panoptic head ends before the queries that pass its threshold compete, and what follows is neither product nor upsampling.
"""

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry
from m2fbench.types import Head, Size


def plain_inference(
    class_logits: torch.Tensor,
    mask_logits: torch.Tensor,
    geometry: Geometry,
    heads: Collection[Head],
    *,
    resize: Literal["before", "after"],
    detections: int,
) -> tuple[torch.Tensor, ...]:
    """What the heads give for one image: semantic, class scores [C, H, W]; instance, scores [N] and masks [N, H, W] by no order, of all classes;
    panoptic, probabilities and classes [Q] and masks' probabilities [Q, H, W]. class_logits: [Q, C + 1]; mask_logits: [Q, h, w]."""
    masks = _resized(mask_logits, geometry.padded)
    if resize == "before":
        masks = _to_image(masks, geometry)
    probabilities = class_logits.softmax(-1)
    made: list[torch.Tensor] = []
    if "semantic" in heads:
        scores = torch.einsum("qc,qhw->chw", probabilities[:, :-1], masks.sigmoid())
        made.append(_to_image(scores, geometry) if resize == "after" else scores)
    if "panoptic" in heads:
        made += [*probabilities.max(-1), masks.sigmoid()]
    if "instance" in heads:
        classes = probabilities.shape[1] - 1
        scores, pairs = probabilities[:, :-1].flatten().topk(min(detections, len(probabilities) * classes), sorted=False)
        chosen = masks[pairs // classes]
        inside = (chosen > 0).float()
        quality = (chosen.sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
        made += [scores * quality, inside]
    return tuple(made)


def on_shapes(
    shapes: tuple[tuple[int, ...], tuple[int, ...]],
    geometry: Geometry,
    heads: Collection[Head],
    *,
    resize: Literal["before", "after"],
    detections: int,
) -> tuple[torch.Tensor, ...]:
    """The same on the meta device. shapes: of class and mask logits, without the batch."""
    class_logits, mask_logits = (torch.empty(shape, device="meta") for shape in shapes)
    return plain_inference(class_logits, mask_logits, geometry, heads, resize=resize, detections=detections)


def _resized(masks: torch.Tensor, size: Size) -> torch.Tensor:
    return F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0]


def _to_image(masks: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    return _resized(masks[:, : geometry.resized[0], : geometry.resized[1]], geometry.original)
