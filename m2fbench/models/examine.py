"""What a Mask2Former predicts after every decoder layer, and where its queries look meanwhile, from one forward pass.

After each masked-attention layer, and before the first, the queries are read by one and the same head: class logits, and mask logits at a
quarter of the image's size. Reduced to the size of the next layer's feature map, and cut at a probability of 0.5, the masks are the
attention mask of that layer (arXiv 2112.01527, section 3.2.1): a query sees nothing outside its own mask; one whose mask is empty there sees
everything. The layers take the three feature maps of the pixel decoder in turn, the smallest first.

The model computes what it always does: hooks read what its cross-attentions take and return, and the logits of the last layer are those of a
run, to the last bit. Where a kernel gives no attention weights (a lean model's), they are computed once more beside it.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from m2fbench.errors import UnsupportedError
from m2fbench.models.lean import every_layer
from m2fbench.models.load import LoadedModel
from m2fbench.models.shaping import masked_layers
from m2fbench.types import Size


@dataclass(frozen=True)
class Attention:
    """Of one layer's queries over its feature map; all on the model's device.

    level: which map, 0 the smallest. size: its (height, width), of the padded input. allowed: bool [Q, h, w], what the attention mask lets a query
    see. everywhere: bool [Q], whether its mask was empty at this size, so that it sees everything. weights: float32 [Q, h, w], the mean
    over the heads, 1 in sum over the map and 0 where not allowed; None where they were not asked for.
    """

    level: int
    size: Size
    allowed: torch.Tensor
    everywhere: torch.Tensor
    weights: torch.Tensor | None


@dataclass(frozen=True)
class Layers:
    """One image, layer by layer. class_logits: float32 [Q, C + 1] each, mask_logits: float32 [Q, h, w] each; of L layers there are L + 1, the
    first before any of them. attention: of each of the L layers."""

    class_logits: tuple[torch.Tensor, ...]
    mask_logits: tuple[torch.Tensor, ...]
    attention: tuple[Attention, ...]


def refuse_other(model: LoadedModel) -> None:
    """Raises UnsupportedError for a model without masked-attention layers."""
    layers = None if model.module is None else masked_layers(model.module)
    if layers is None or model.outputs is None:
        raise UnsupportedError(
            f"examine: expected a Mask2Former, whose masked-attention layers can be looked at, this is a {type(model.module).__name__}"
        )
    if layers == 0:
        raise UnsupportedError(
            "examine: this model was stopped before its first layer (decoder_layers: 0); examine a run that has some"
        )


def examine(model: LoadedModel, pixels: torch.Tensor, *, weights: bool = False) -> Layers:
    """One forward pass over pixels float32 [1, 3, H, W]. weights: also the attention weights, [Q, h, w] for each layer."""
    assert model.outputs is not None
    with torch.inference_mode(), every_layer(model.module), _listening(model.module, weights) as heard:
        output = model.outputs(pixels, output_auxiliary_logits=True)
        logits = [(one["class_queries_logits"], one["masks_queries_logits"]) for one in output.auxiliary_logits]
        logits.append((output.class_queries_logits, output.masks_queries_logits))
        classes, masks = (tuple(one[0].float() for one in kind) for kind in zip(*logits, strict=True))
        levels = model.module.model.transformer_module.decoder.num_feature_levels  # type: ignore[union-attr]
        attention = []
        for index, call in enumerate(heard.calls):
            level = index % levels
            attention.append(_attention(call, level, heard.sizes[level], masks[index]))
    return Layers(classes, masks, tuple(attention))


@dataclass(frozen=True)
class _Call:
    """Of one cross-attention. blocked: bool [Q, S], the same for every head. weights: float32 [Q, S], None where not asked for."""

    blocked: torch.Tensor
    weights: torch.Tensor | None


@dataclass
class _Heard:
    """sizes: of the feature maps. calls: of each layer's cross-attention."""

    sizes: list[Size]
    calls: list[_Call]


@contextlib.contextmanager
def _listening(module: Any, weights: bool) -> Iterator[_Heard]:
    decoder = module.model.transformer_module.decoder
    heard = _Heard([], [])

    def sizes(_: Any, __: Any, given: dict[str, Any]) -> None:
        heard.sizes = [(int(height), int(width)) for height, width in given["feature_size_list"]]

    def looked(attention: Any, _: Any, given: dict[str, Any], made: Any) -> None:
        blocked = given["attn_mask"].unflatten(0, (-1, attention.num_heads))[0, 0]
        heard.calls.append(_Call(blocked, _weights(attention, given, made[1]) if weights else None))

    hooks = [decoder.register_forward_pre_hook(sizes, with_kwargs=True)]
    hooks += [layer.cross_attn.register_forward_hook(looked, with_kwargs=True) for layer in decoder.layers]
    try:
        yield heard
    finally:
        for hook in hooks:
            hook.remove()


def _attention(call: _Call, level: int, size: Size, masks: torch.Tensor) -> Attention:
    """masks: float32 [Q, h, w], the mask logits before this layer, of which its attention mask was made."""
    # a row with nothing blocked is a mask that is empty here or one that is full; rounding does not make one of the other
    probability = F.interpolate(masks[None], size=size, mode="bilinear", align_corners=False)[0].sigmoid()
    everywhere = ~call.blocked.any(-1) & (probability.flatten(1).mean(-1) < 0.5)
    weights = None if call.weights is None else call.weights.unflatten(1, size)
    return Attention(level, size, ~call.blocked.unflatten(1, size), everywhere, weights)


def _weights(attention: Any, given: dict[str, Any], returned: torch.Tensor | None) -> torch.Tensor:
    """float32 [Q, S]: the weights that the attention returned, or else those that it would have, the mean over the heads."""
    if returned is None:
        plain = torch.nn.MultiheadAttention.forward  # the module's own has been replaced by one that returns none
        returned = plain(attention, **given, need_weights=True, average_attn_weights=True)[1]
    assert returned is not None
    found = returned[0].float()
    return found.mean(0) if found.dim() == 3 else found  # [heads, Q, S] where they were not averaged
