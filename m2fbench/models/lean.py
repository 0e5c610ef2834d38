"""The same Mask2Former with less work: transformers' decoders compute, for every layer, what only training or nothing at all looks at.

Left out or done more cheaply, with outputs equal to rounding:
- mask logits of every decoder layer at a quarter of the image's size, of which the next layer's attention mask takes a bilinear reduction:
  the pixel embeddings are reduced once for each of the three sizes instead (a product with the mask embeddings and a reduction, both
  linear, commute), and only the last layer's masks are computed in full;
- attention masks repeated for each head as float32 before they are compared with 0.5;
- the cross-attention's weights averaged over the heads, which nobody reads;
- deformable attention's samples of all levels stacked into one array (245 MB at 800x1216) and multiplied and summed from there: they are
  summed up level by level.

Parts are replaced on the module given, not in transformers; hooks on them go on working.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch.nn import functional

from m2fbench.errors import UnsupportedError


@contextlib.contextmanager
def every_layer(module: Any) -> Iterator[None]:
    """Inside, a module made lean predicts from all of its layers, so that it has auxiliary outputs; any other does so anyway. The last
    layer's are the same."""
    forward = module.model.transformer_module.decoder.forward
    if not isinstance(forward, _Decoder):
        yield
        return
    forward.every_layer = True
    try:
        yield
    finally:
        forward.every_layer = False


def make_lean(module: Any, *, sdpa: bool) -> None:
    """Change transformers' Mask2FormerForUniversalSegmentation in place. sdpa: let torch's fused kernels do the masked cross-attention, which
    transformers always does step by step. Raises UnsupportedError for any other model."""
    if type(module).__name__ != "Mask2FormerForUniversalSegmentation":
        raise UnsupportedError(f"lean: knows Mask2Former only, this is a {type(module).__name__}")
    for layer in module.model.pixel_level_module.decoder.encoder.layers:
        layer.self_attn.forward = _DeformableAttention(layer.self_attn)
    decoder = module.model.transformer_module.decoder
    for layer in decoder.layers:
        layer.cross_attn.forward = _CrossAttention(layer.cross_attn, sdpa)
    decoder.forward = _Decoder(decoder)


class _DeformableAttention:
    """Multi-scale deformable attention, summed up level by level."""

    def __init__(self, attention: Any) -> None:
        self.attention = attention

    def __call__(
        self,
        *,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        position_embeddings: torch.Tensor,
        reference_points: torch.Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        **_: Any,
    ) -> tuple[torch.Tensor, None]:
        """hidden_states, encoder_hidden_states: [B, S, D], S positions of all levels. reference_points: (x, y) in 0..1, [B, S, levels, 2].
        The mask of padding, all False for a batch of one, and the attention weights returned for reading are left out."""
        its = self.attention
        heads, levels, points = its.n_heads, its.n_levels, its.n_points
        batch, count, width = hidden_states.shape
        queries = hidden_states + position_embeddings
        values = its.value_proj(encoder_hidden_states).transpose(1, 2).reshape(batch * heads, width // heads, -1)
        offsets = its.sampling_offsets(queries).view(batch, count, heads, levels, points, 2).permute(3, 5, 0, 2, 4, 1)
        weights = its.attention_weights(queries).view(batch, count, heads, levels * points).softmax(-1)
        weights = weights.view(batch, count, heads, levels, points).permute(3, 0, 2, 4, 1).flatten(1, 2)  # [levels, BH, points, S]
        total, start = None, 0
        for level, (h, w) in enumerate(spatial_shapes_list):
            reference = reference_points[:, :, level, :].permute(2, 0, 1)[:, :, None, None, :]  # (x, y), B, heads, points, S
            x, y = reference[0] + offsets[level, 0] / w, reference[1] + offsets[level, 1] / h
            grid = 2 * torch.stack((x, y), -1).flatten(0, 1) - 1
            plane = values[:, :, start : start + h * w].reshape(batch * heads, width // heads, h, w)
            sampled = functional.grid_sample(plane, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            part = (sampled * weights[level][:, None]).sum(2)  # [BH, D / heads, S]
            total = part if total is None else total + part
            start += h * w
        assert total is not None
        return its.output_proj(total.reshape(batch, width, count).transpose(1, 2)), None


class _CrossAttention:
    """torch.nn.MultiheadAttention without the weights averaged over the heads. sdpa: by the fused kernel."""

    def __init__(self, attention: torch.nn.MultiheadAttention, sdpa: bool) -> None:
        self.plain: Any = attention.forward  # bound before it is replaced
        self.options: dict[str, bool] = {"need_weights": False} if sdpa else {"average_attn_weights": False}

    def __call__(self, **given: Any) -> Any:
        return self.plain(**given, **self.options)


class _Decoder:
    """The masked-attention decoder: attention masks from reduced pixel embeddings, full mask logits from the last layer only."""

    def __init__(self, decoder: Any) -> None:
        self.decoder = decoder
        self.every_layer = False  # whether to predict from every layer all the same

    def __call__(
        self,
        *,
        inputs_embeds: torch.Tensor,
        pixel_embeddings: torch.Tensor,
        feature_size_list: list[tuple[int, int]],
        multi_stage_positional_embeddings: list[torch.Tensor],
        encoder_hidden_states: list[torch.Tensor],
        query_position_embeddings: torch.Tensor,
        **_: Any,
    ) -> Any:
        """inputs_embeds: [Q, B, C]. pixel_embeddings: [B, C, H / 4, W / 4]. The states and masks of one layer, the last; with ``every_layer``
        of all, as transformers has them."""
        from transformers.models.mask2former import modeling_mask2former as transformers_mask2former

        decoder, hidden = self.decoder, inputs_embeds
        reduced = [
            functional.interpolate(pixel_embeddings, size=size, mode="bilinear", align_corners=False).flatten(2)
            for size in feature_size_list
        ]
        states = []
        for index, layer in enumerate(decoder.layers):
            states.append(hidden)
            level = index % decoder.num_feature_levels
            blocked = self._mask_logits(decoder.layernorm(hidden), reduced[level]).sigmoid() < 0.5
            blocked = blocked & ~blocked.all(-1, keepdim=True)  # a query that may look nowhere looks everywhere
            heads = layer.cross_attn.num_heads
            hidden = layer(
                hidden, level, None, multi_stage_positional_embeddings, query_position_embeddings, encoder_hidden_states,
                encoder_attention_mask=blocked[:, None].expand(-1, heads, -1, -1).flatten(0, 1),
            )[0]  # fmt: skip
        read = tuple(decoder.layernorm(state) for state in ((*states, hidden) if self.every_layer else (hidden,)))
        size = pixel_embeddings.shape[2:]
        masks = tuple(self._mask_logits(state, pixel_embeddings.flatten(2)).unflatten(2, size) for state in read)
        return transformers_mask2former.Mask2FormerMaskedAttentionDecoderOutput(
            last_hidden_state=hidden.transpose(1, 0), intermediate_hidden_states=read, masks_queries_logits=masks
        )

    def _mask_logits(self, states: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        """states [Q, B, C], pixels [B, C, S] -> [B, Q, S]."""
        embeddings: torch.Tensor = self.decoder.mask_predictor.mask_embedder(states.transpose(0, 1))
        return embeddings @ pixels
