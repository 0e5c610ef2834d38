"""The paper's post-processing in its own order of operations, written plainly: every query upsampled, then read.

For tests and the benchmark to hold m2fbench's faster order against; nothing in the package uses it.
"""

import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry


def _upsampled(mask_logits: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    upsampled = F.interpolate(mask_logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    cropped = upsampled[:, :, : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(cropped, size=geometry.original, mode="bilinear", align_corners=False)[0]


def plain_instances(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, things: list[int] | None, detections: int = 100
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """scores float32 [N], classes int64 [N], masks bool [N, height, width], in no order."""
    logits = _upsampled(mask_logits, geometry)
    probabilities = F.softmax(class_logits, dim=1)[:, :-1]
    classes = torch.arange(probabilities.shape[1]).repeat(len(probabilities))
    scores, chosen = probabilities.reshape(-1).topk(min(detections, probabilities.numel()), sorted=False)
    labels, logits = classes[chosen], logits[chosen // probabilities.shape[1]]
    if things is not None:
        is_thing = torch.tensor([int(label) in things for label in labels], dtype=torch.bool)
        scores, labels, logits = scores[is_thing], labels[is_thing], logits[is_thing]
    masks = (logits > 0).float()
    inside = (logits.sigmoid() * masks).flatten(1).sum(1)
    return scores * (inside / (masks.flatten(1).sum(1) + 1e-6)), labels, masks > 0


def plain_panoptic(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, things: list[int], object_threshold: float = 0.8,
    overlap_threshold: float = 0.8,
) -> tuple[torch.Tensor, list[tuple[int, int]]]:  # fmt: skip
    """ids int32 [height, width], 0 = void, and the segments as (id, class)."""
    masks = _upsampled(mask_logits, geometry).sigmoid()
    probability, label = class_logits.softmax(-1).max(-1)
    sure = (label < class_logits.shape[1] - 1) & (probability > object_threshold)
    probability, label, masks = probability[sure], label[sure], masks[sure]
    ids = torch.zeros(geometry.original, dtype=torch.int32, device=masks.device)
    segments: list[tuple[int, int]] = []
    if len(label) == 0:
        return ids, segments
    winner = (probability[:, None, None] * masks).argmax(0)
    stuff: dict[int, int] = {}
    for query, category in enumerate(label.tolist()):
        won, solid = winner == query, masks[query] >= 0.5
        won_area, solid_area, region = won.sum().item(), solid.sum().item(), won & solid
        if won_area == 0 or solid_area == 0 or region.sum().item() == 0 or won_area / solid_area < overlap_threshold:
            continue
        if category not in stuff:
            segments.append((len(segments) + 1, category))
        ids[region] = stuff.get(category, len(segments))
        if category not in things:
            stuff.setdefault(category, len(segments))
    return ids, segments


def plain_semantic(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, resize: str) -> torch.Tensor:
    """Class scores float32 [C, H, W] at the image's size, all queries upsampled at once."""
    classes = class_logits.softmax(-1)[:, :-1]
    if resize == "before":
        return torch.einsum("qc,qhw->chw", classes, _upsampled(mask_logits, geometry).sigmoid_())
    padded = F.interpolate(mask_logits[None], size=geometry.padded, mode="bilinear", align_corners=False)[0].sigmoid_()
    scores = torch.einsum("qc,qhw->chw", classes, padded)[:, : geometry.resized[0], : geometry.resized[1]]
    return F.interpolate(scores[None], size=geometry.original, mode="bilinear", align_corners=False)[0]
