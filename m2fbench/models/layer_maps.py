"""What changes from one decoder layer to the next, counted over queries, and small maps of a few queries to be looked at.

Masks are compared where the model predicts them, at a quarter of its input's size, the padding left out.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from m2fbench.models.examine import Attention, Layers
from m2fbench.models.preprocess import Geometry
from m2fbench.types import Size

LONGEST = 160  # pixels of the longest edge of a stored mask

Counts = NDArray[np.float64]


@dataclass(frozen=True)
class LayerCounts:
    """Sums over the queries of one image, or of several, for each of L + 1 predictions; float64 [L + 1, 2] each. The columns: all queries, and
    those whose best class after the last layer is an object. The first row, with nothing before it, is 0.

    overlap, compared: of the IoUs with the layer before, and of how many masks (two empty ones are not compared). changed: queries whose best
    class is another than after the layer before. queries: their number. everywhere: queries whose mask was empty for the layer's attention
    mask. visible: shares (0..1) of the feature map that the layer's attention mask lets a query see.
    """

    overlap: Counts
    compared: Counts
    changed: Counts
    queries: Counts
    everywhere: Counts
    visible: Counts

    def __add__(self, other: "LayerCounts") -> "LayerCounts":
        return LayerCounts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


def count_changes(layers: Layers, geometry: Geometry) -> LayerCounts:
    """Of one image."""
    best = [logits.argmax(-1) for logits in layers.class_logits]
    objects = best[-1] != layers.class_logits[-1].shape[1] - 1
    groups = torch.stack((torch.ones_like(objects), objects)).double()  # [2, Q]
    masks = [_without_padding(logits, geometry).flatten(1) > 0 for logits in layers.mask_logits]
    none = torch.zeros(2, dtype=torch.float64, device=objects.device)
    rows = [[none, none, none, groups.sum(1), none, none]]
    for index, look in enumerate(layers.attention):
        before, after = masks[index : index + 2]
        union = (before | after).sum(1)
        overlap = (before & after).sum(1).double() / union.clamp(min=1)
        changed, visible = best[index] != best[index + 1], look.allowed.flatten(1).double().mean(1)
        counted = [overlap, (union > 0).double(), changed.double(), groups[0], look.everywhere.double(), visible]
        rows.append([groups @ values for values in counted])
    found = torch.stack([torch.stack(row) for row in rows]).cpu().numpy()  # [L + 1, 6, 2]
    return LayerCounts(*np.moveaxis(found, 1, 0))


def _without_padding(logits: torch.Tensor, geometry: Geometry) -> torch.Tensor:
    """[Q, h, w] cut to what the resized image covers."""
    height, width = (
        math.ceil(edge * own / padded)
        for edge, own, padded in zip(logits.shape[1:], geometry.resized, geometry.padded, strict=True)
    )
    return logits[:, :height, :width]


def best_queries(layers: Layers, classes: Sequence[int], count: int) -> list[int]:
    """The ``count`` queries of the highest score after the last layer: the probability of the best class among ``classes``, times the mean
    probability inside its mask. Those whose best class is "no object" come last."""
    probabilities = layers.class_logits[-1].softmax(-1)
    masks = layers.mask_logits[-1].sigmoid().flatten(1)
    inside = masks >= 0.5
    quality = (masks * inside).sum(1) / inside.sum(1).clamp(min=1)
    score = probabilities[:, list(classes)].amax(-1) * quality - (probabilities.argmax(-1) == probabilities.shape[1] - 1).float()
    return [int(query) for query in score.argsort(descending=True, stable=True)[:count]]


def maps_of(layers: Layers, geometry: Geometry, queries: Sequence[int]) -> dict[str, NDArray[Any]]:
    """What is kept of an example; of L layers and K queries:

    queries: int32 [K]. classes: int32 [L + 1, K], the best class after each layer, C for "no object"; probabilities: float32, of that class.
    masks: uint8 [L + 1, K, h, w], probability x 255, the padding left out, LONGEST pixels at most. levels: int32 [L], the feature map of each
    layer. everywhere: bool [L, K]. peaks: float32 [L, K], the largest attention weight. attention_N (N from 1): uint8 [K, h, w] of layer N,
    weight / peak x 255, over the padded input; visible_N: bool of the same shape, what the attention mask lets the query see.
    """
    chosen = list(queries)
    scores, classes = torch.stack([logits[chosen].softmax(-1) for logits in layers.class_logits]).max(-1)
    masks = torch.stack([_small(_without_padding(logits[chosen], geometry)) for logits in layers.mask_logits])
    weights = [_weights(look)[chosen] for look in layers.attention]
    peaks = torch.stack([each.flatten(1).amax(1) for each in weights])
    found = {
        "queries": torch.tensor(chosen, dtype=torch.int32),
        "classes": classes.int(),
        "probabilities": scores,
        "masks": masks,
        "levels": torch.tensor([look.level for look in layers.attention], dtype=torch.int32),
        "everywhere": torch.stack([look.everywhere[chosen] for look in layers.attention]),
        "peaks": peaks,
    }
    for number, (look, each, peak) in enumerate(zip(layers.attention, weights, peaks, strict=True), 1):
        found[f"attention_{number}"] = _bytes(each / peak[:, None, None])
        found[f"visible_{number}"] = look.allowed[chosen]
    return {name: values.cpu().numpy() for name, values in found.items()}


def _weights(look: Attention) -> torch.Tensor:
    assert look.weights is not None
    return look.weights


def _small(logits: torch.Tensor) -> torch.Tensor:
    """uint8 [K, h, w]: probabilities, reduced to LONGEST pixels where they are larger."""
    probabilities = logits.sigmoid()
    height, width = logits.shape[1:]
    scale = LONGEST / max(height, width)
    if scale < 1:
        size: Size = max(1, round(height * scale)), max(1, round(width * scale))
        probabilities = F.interpolate(probabilities[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return _bytes(probabilities)


def _bytes(shares: torch.Tensor) -> torch.Tensor:
    return (shares * 255).round().clamp(0, 255).to(torch.uint8)
