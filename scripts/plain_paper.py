"""The paper's instance post-processing in its own order of operations, written plainly: every query upsampled, then read.

For tests and the benchmark to hold m2fbench's faster order against; nothing in the package uses it.
"""

import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry


def plain_instances(
    class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry, things: list[int] | None, detections: int = 100
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """scores float32 [N], classes int64 [N], masks bool [N, height, width], in no order."""
    upsampled = F.interpolate(mask_logits[None], size=geometry.padded, mode="bilinear", align_corners=False)
    cropped = upsampled[:, :, : geometry.resized[0], : geometry.resized[1]]
    logits = F.interpolate(cropped, size=geometry.original, mode="bilinear", align_corners=False)[0]
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
