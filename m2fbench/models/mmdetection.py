"""mmdetection's Mask2Former under the original's names.

The mapping was checked against mmdetection 3.3: logits equal to a few units in the last place for ResNet and Swin, at tiny and real
sizes. Patch merging lists its four neighbours channel by channel there and block by block in the original, so those weights are
permuted. What shapes cannot say is looked up in the config text that the checkpoint carries, which is parsed and never run.
"""

import ast
import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from m2fbench.errors import CheckpointError, shown
from m2fbench.models.original import SAMPLING_POINTS, put_once
from m2fbench.models.weights import StateDict
from m2fbench.types import JsonObject

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

# settings that leave names and shapes as they are and change the output -> the values that transformers' Mask2Former has
_SETTINGS: dict[str, tuple[Any, ...]] = {
    "style": ("pytorch",),
    "avg_down": (False,),
    "deep_stem": (False,),
    "qk_scale": (None,),
    "mean": ([123.675, 116.28, 103.53],),
    "std": ([58.395, 57.12, 57.375],),
    "bgr_to_rgb": (True,),
    "to_rgb": (True,),
    "dilations": ([1, 1, 1, 1],),
    "strides": ([1, 2, 2, 2], [4, 2, 2, 2]),  # of a ResNet, of a Swin
}


def is_mmdetection(names: Iterable[str]) -> bool:
    return any(re.match(rf"{_H}\.(pixel_decoder|transformer_decoder|query_feat)\.", name) for name in names)


def to_original(state: StateDict, reference: str) -> StateDict:
    """The same weights under the original's names. Raises CheckpointError naming a weight that has no counterpart."""
    made: dict[str, tuple[str, torch.Tensor]] = {}
    unknown = []
    for name, value in state.items():
        if match := _MERGING.fullmatch(name):
            target = f"backbone.layers.{match[1]}.downsample.{match[2]}.{match[3]}"
            put_once(made, target, name, _by_block(name, value, reference), reference)
        elif renamed := _target(name):
            put_once(made, renamed, name, value, reference)
        else:
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{reference}: an mmdetection checkpoint with a weight that Mask2Former has not: {shown(unknown[0])}{more}"
        )
    return {name: value for name, (_, value) in made.items()}


def check_settings(meta: Mapping[str, Any] | None, config: JsonObject, reference: str) -> tuple[str, ...]:
    """What is taken for granted: nothing, where the config text that the checkpoint carries says it all.

    config: as read from the weights. Raises CheckpointError where the text asks for what transformers' Mask2Former does not do.
    """
    text = (meta or {}).get("cfg") or (meta or {}).get("config")
    try:
        tree = ast.parse(text) if isinstance(text, str) and len(text) < 1 << 20 else None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        tree = None
    if tree is None:
        return (
            "it carries no config: what weights cannot say (heads, activations, strides) is taken to be as in mmdetection's published ones",
        )
    for where, key, value in _settings(tree):
        allowed = _allowed(where, key, config)
        if allowed is not None and value not in allowed:
            raise CheckpointError(
                f"{reference}: an mmdetection checkpoint whose config has {key}={reprlib.repr(value)}, which has no counterpart in "
                f"transformers' Mask2Former (only {' or '.join(map(repr, allowed))})"
            )
    return ()


def _allowed(where: tuple[str, ...], key: str, config: JsonObject) -> tuple[Any, ...] | None:
    """The values that a setting may have; None for one that does not matter. where: the keys it lies under."""
    head = any(part in where for part in ("panoptic_head", "decode_head"))
    if "train_cfg" in where or "test_cfg" in where or "model" not in where:
        return None
    if key == "type" and not where[where.index("model") + 1 :]:
        return ("Mask2Former", "EncoderDecoder")
    if head and key == "num_heads":
        return (config["num_attention_heads"],)
    if key == "num_points" and any("attn" in part for part in where):
        return (SAMPLING_POINTS,)
    if head and key == "type" and where[-1] == "act_cfg":
        return ("ReLU", None)
    if not head and key == "type" and where[-1] == "act_cfg":
        return ("ReLU",) if config["backbone_config"]["model_type"] == "resnet" else ("GELU",)
    if head and key in ("style", "strides"):
        return None
    return _SETTINGS.get(key)


def _settings(tree: ast.AST) -> Iterator[tuple[tuple[str, ...], str, Any]]:
    """(keys it lies under, key, value) of every literal in a config text of ``dict(...)`` and ``{...}``; nothing is evaluated."""
    waiting: list[tuple[tuple[str, ...], str, ast.AST]] = []
    for statement in ast.iter_child_nodes(tree):
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            waiting.append(((), statement.targets[0].id, statement.value))
    while waiting:
        where, key, node = waiting.pop()
        inside = (*where, key)
        if isinstance(node, ast.Call):
            waiting += [(inside, word.arg, word.value) for word in node.keywords if word.arg]
        elif isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
            waiting += [(inside, k.value, v) for k, v in pairs if isinstance(k, ast.Constant) and isinstance(k.value, str)]
        elif isinstance(node, ast.List | ast.Tuple) and any(isinstance(e, ast.Call | ast.Dict) for e in node.elts):
            waiting += [(where, key, element) for element in node.elts]
        else:
            try:
                value = ast.literal_eval(node)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue
            yield where, key, list(value) if isinstance(value, tuple) else value


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
