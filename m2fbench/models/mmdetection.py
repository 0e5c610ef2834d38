"""mmdetection's Mask2Former under the original's names.

The mapping was checked against mmdetection 3.3: logits equal to a few units in the last place for ResNet and Swin, at tiny and real
sizes. Patch merging lists its four neighbours channel by channel there and block by block in the original, so those weights are
permuted. What shapes cannot say is looked up in the config text that the checkpoint carries, which is read and never run.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from m2fbench.errors import CheckpointError
from m2fbench.models.weights import StateDict

_H, _P, _R = r"(?:panoptic|decode)_head", "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
_DECODER = rf"{_H}\.transformer_decoder\.layers\.(\d+)"
_ENCODER = rf"{_H}\.pixel_decoder\.encoder\.layers\.(\d+)"
_FFN = r"ffns?(?:\.0)?\.layers"

# mmdetection 3 -> original; the names of mmdetection 2 beside them, whose attentions are numbered in the order of execution
_RENAMED = [
    (re.compile(pattern), target)
    for pattern, target in (
        (r"backbone\.conv1\.(.+)", r"backbone.stem.conv1.\1"),
        (r"backbone\.bn1\.(.+)", r"backbone.stem.conv1.norm.\1"),
        (r"backbone\.patch_embed\.projection\.(.+)", r"backbone.patch_embed.proj.\1"),
        (r"backbone\.(patch_embed\.norm|norm\d)\.(.+)", r"backbone.\1.\2"),
        (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.(norm[12])\.(.+)", r"backbone.layers.\1.blocks.\2.\3.\4"),
        (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.attn\.w_msa\.(.+)", r"backbone.layers.\1.blocks.\2.attn.\3"),
        (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.0\.0\.(.+)", r"backbone.layers.\1.blocks.\2.mlp.fc1.\3"),
        (r"backbone\.stages\.(\d+)\.blocks\.(\d+)\.ffn\.layers\.1\.(.+)", r"backbone.layers.\1.blocks.\2.mlp.fc2.\3"),
        (rf"{_H}\.pixel_decoder\.input_convs\.(\d+)\.conv\.(.+)", rf"{_P}.input_proj.\1.0.\2"),
        (rf"{_H}\.pixel_decoder\.input_convs\.(\d+)\.gn\.(.+)", rf"{_P}.input_proj.\1.1.\2"),
        (rf"{_H}\.pixel_decoder\.level_encoding\.weight", rf"{_P}.transformer.level_embed"),
        (rf"{_ENCODER}\.(?:self_attn|attentions\.0)\.(.+)", rf"{_P}.transformer.encoder.layers.\1.self_attn.\2"),
        (rf"{_ENCODER}\.norms\.0\.(.+)", rf"{_P}.transformer.encoder.layers.\1.norm1.\2"),
        (rf"{_ENCODER}\.norms\.1\.(.+)", rf"{_P}.transformer.encoder.layers.\1.norm2.\2"),
        (rf"{_ENCODER}\.{_FFN}\.0\.0\.(.+)", rf"{_P}.transformer.encoder.layers.\1.linear1.\2"),
        (rf"{_ENCODER}\.{_FFN}\.1\.(.+)", rf"{_P}.transformer.encoder.layers.\1.linear2.\2"),
        (rf"{_H}\.pixel_decoder\.lateral_convs\.0\.conv\.(.+)", rf"{_P}.adapter_1.\1"),
        (rf"{_H}\.pixel_decoder\.lateral_convs\.0\.gn\.(.+)", rf"{_P}.adapter_1.norm.\1"),
        (rf"{_H}\.pixel_decoder\.output_convs\.0\.conv\.(.+)", rf"{_P}.layer_1.\1"),
        (rf"{_H}\.pixel_decoder\.output_convs\.0\.gn\.(.+)", rf"{_P}.layer_1.norm.\1"),
        (rf"{_H}\.pixel_decoder\.mask_feature\.(.+)", rf"{_P}.mask_features.\1"),
        (rf"{_H}\.(query_feat|query_embed|level_embed)\.weight", rf"{_R}.\1.weight"),
        (rf"{_H}\.decoder_input_projs\.(\d+)\.(.+)", rf"{_R}.input_proj.\1.\2"),
        (rf"{_H}\.transformer_decoder\.post_norm\.(.+)", rf"{_R}.decoder_norm.\1"),
        (
            rf"{_DECODER}\.(?:cross_attn|attentions\.0)\.attn\.(.+)",
            rf"{_R}.transformer_cross_attention_layers.\1.multihead_attn.\2",
        ),
        (rf"{_DECODER}\.(?:self_attn|attentions\.1)\.attn\.(.+)", rf"{_R}.transformer_self_attention_layers.\1.self_attn.\2"),
        (rf"{_DECODER}\.norms\.0\.(.+)", rf"{_R}.transformer_cross_attention_layers.\1.norm.\2"),
        (rf"{_DECODER}\.norms\.1\.(.+)", rf"{_R}.transformer_self_attention_layers.\1.norm.\2"),
        (rf"{_DECODER}\.norms\.2\.(.+)", rf"{_R}.transformer_ffn_layers.\1.norm.\2"),
        (rf"{_DECODER}\.{_FFN}\.0\.0\.(.+)", rf"{_R}.transformer_ffn_layers.\1.linear1.\2"),
        (rf"{_DECODER}\.{_FFN}\.1\.(.+)", rf"{_R}.transformer_ffn_layers.\1.linear2.\2"),
        (rf"{_H}\.cls_embed\.(.+)", rf"{_R}.class_embed.\1"),
    )
]
_RESNET = re.compile(r"backbone\.layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([01]))\.(.+)")
_MASK_EMBED = re.compile(rf"{_H}\.mask_embed\.([024])\.(.+)")
_MERGING = re.compile(r"backbone\.stages\.(\d+)\.downsample\.(norm|reduction)\.(weight|bias)")

# what other settings look like in the config text, with weights of the same shapes
_UNSUPPORTED = {
    r"type='MaskFormer'": "a MaskFormer (the first one)",
    r"style='caffe'": "a ResNet of style='caffe'",
    r"qk_scale=(?!None)\S": "a Swin with qk_scale",
    r"num_levels=\d+,\s*num_points=(?!4\b)\d+": "a deformable attention of other than 4 points",
}


def is_mmdetection(names: Iterable[str]) -> bool:
    return any(re.match(rf"{_H}\.(pixel_decoder|transformer_decoder|query_feat)\.", name) for name in names)


def to_original(state: StateDict, meta: Mapping[str, Any] | None, reference: str) -> StateDict:
    """The same weights under the original's names. Raises CheckpointError naming a weight, or a setting, that has no counterpart."""
    text = str((meta or {}).get("cfg") or (meta or {}).get("config") or "")
    for pattern, what in _UNSUPPORTED.items():
        if re.search(pattern, text):
            raise CheckpointError(
                f"{reference}: an mmdetection checkpoint of {what}, which has no counterpart in transformers' Mask2Former"
            )
    made: StateDict = {}
    unknown = []
    for name, value in state.items():
        if match := _MERGING.fullmatch(name):
            made[f"backbone.layers.{match[1]}.downsample.{match[2]}.{match[3]}"] = _by_block(name, value, reference)
        elif target := _target(name):
            made[target] = value
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{reference}: an mmdetection checkpoint with a weight that Mask2Former has not: {unknown[0][:120]}{more}"
        )
    return made


def class_names(meta: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The classes that the checkpoint itself names, in order; empty where it names none."""
    facts = meta or {}
    inside = facts.get("dataset_meta")
    names = (inside.get("classes") if isinstance(inside, Mapping) else None) or facts.get("CLASSES") or ()
    return tuple(map(str, names)) if isinstance(names, list | tuple) else ()


def _target(name: str) -> str | None:
    for pattern, target in _RENAMED:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    if match := _RESNET.fullmatch(name):
        part = f"conv{match[4]}" if match[3] else "shortcut"
        norm = ".norm" if match[3] == "bn" or match[5] == "1" else ""
        return f"backbone.res{int(match[1]) + 1}.{match[2]}.{part}{norm}.{match[6]}"
    if match := _MASK_EMBED.fullmatch(name):
        return f"{_R}.mask_embed.layers.{int(match[1]) // 2}.{match[2]}"
    return None


def _by_block(name: str, value: torch.Tensor, reference: str) -> torch.Tensor:
    """Patch merging's last dimension, from [channel, row, column] to the original's [column, row, channel]."""
    last = value.shape[-1] if value.dim() in (1, 2) else 0
    if last < 4 or last % 4:
        raise CheckpointError(f"{reference}: {name} is {list(value.shape)}, expected a last dimension of four neighbours")
    permuted: torch.Tensor = value.unflatten(-1, (last // 4, 2, 2)).movedim(-3, -1).transpose(-3, -2).flatten(-3)
    return permuted
