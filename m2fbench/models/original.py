"""Checkpoints of the original code (detectron2 names): the architecture read from the weights, every weight mapped or named.

The mapping and the shapes were checked against the original code's own state dicts at all sizes of its model zoo. What shapes
cannot say is what the original fixes (four sampling points, ImageNet's normalisation) or a config says (``PRE_NORM``,
``STRIDE_IN_1X1``; see :mod:`m2fbench.models.detectron_config`).
"""

import math
import re
from collections.abc import Iterable, Mapping

import torch

from m2fbench.errors import CheckpointError, shown
from m2fbench.models.weights import StateDict
from m2fbench.types import JsonObject

Shapes = Mapping[str, tuple[int, ...]]

SAMPLING_POINTS = 4  # of the deformable attention, per level and head; fixed in the original
MAX_WINDOW, MAX_UNITS = 64, 100_000  # beyond these a file is damaged, or means to exhaust the memory

_E, _D = "model.pixel_level_module.encoder", "model.pixel_level_module.decoder"
_T = "model.transformer_module"
_PIXEL, _PREDICTOR = r"sem_seg_head\.pixel_decoder", r"sem_seg_head\.predictor"
_NORM = "(weight|bias|running_mean|running_var|num_batches_tracked)"
_WB = "(weight|bias)"

# original name -> transformers name
_RENAMED = [
    (re.compile(pattern), target)
    for pattern, target in (
        (rf"backbone\.patch_embed\.proj\.{_WB}", rf"{_E}.swin.embeddings.patch_embeddings.projection.\1"),
        (rf"backbone\.patch_embed\.norm\.{_WB}", rf"{_E}.swin.embeddings.norm.\1"),
        (rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.norm1\.{_WB}", rf"{_E}.swin.encoder.layers.\1.blocks.\2.layernorm_before.\3"),
        (rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.norm2\.{_WB}", rf"{_E}.swin.encoder.layers.\1.blocks.\2.layernorm_after.\3"),
        (
            r"backbone\.layers\.(\d+)\.blocks\.(\d+)\.attn\.relative_position_bias_table",
            rf"{_E}.swin.encoder.layers.\1.blocks.\2.attention.relative_position_bias.relative_position_bias_table",
        ),
        (rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.attn\.proj\.{_WB}", rf"{_E}.swin.encoder.layers.\1.blocks.\2.attention.o_proj.\3"),
        (rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.mlp\.(fc[12])\.{_WB}", rf"{_E}.swin.encoder.layers.\1.blocks.\2.mlp.\3.\4"),
        (rf"backbone\.layers\.(\d+)\.downsample\.(reduction|norm)\.{_WB}", rf"{_E}.swin.encoder.layers.\1.downsample.\2.\3"),
        (r"backbone\.stem\.conv1\.weight", rf"{_E}.embedder.embedder.convolution.weight"),
        (rf"backbone\.stem\.conv1\.norm\.{_NORM}", rf"{_E}.embedder.embedder.normalization.\1"),
        (rf"{_PIXEL}\.input_proj\.(\d+)\.([01])\.{_WB}", rf"{_D}.input_projections.\1.\2.\3"),
        (rf"{_PIXEL}\.transformer\.level_embed", rf"{_D}.level_embed"),
        (
            rf"{_PIXEL}\.transformer\.encoder\.layers\.(\d+)\.self_attn\.(sampling_offsets|attention_weights|value_proj|output_proj)\.{_WB}",
            rf"{_D}.encoder.layers.\1.self_attn.\2.\3",
        ),
        (rf"{_PIXEL}\.transformer\.encoder\.layers\.(\d+)\.norm1\.{_WB}", rf"{_D}.encoder.layers.\1.self_attn_layer_norm.\2"),
        (rf"{_PIXEL}\.transformer\.encoder\.layers\.(\d+)\.linear([12])\.{_WB}", rf"{_D}.encoder.layers.\1.fc\2.\3"),
        (rf"{_PIXEL}\.transformer\.encoder\.layers\.(\d+)\.norm2\.{_WB}", rf"{_D}.encoder.layers.\1.final_layer_norm.\2"),
        (rf"{_PIXEL}\.mask_features\.{_WB}", rf"{_D}.mask_projection.\1"),
        (rf"{_PIXEL}\.(adapter|layer)_1\.weight", rf"{_D}.\1_1.0.weight"),
        (rf"{_PIXEL}\.(adapter|layer)_1\.norm\.{_WB}", rf"{_D}.\1_1.1.\2"),
        (rf"{_PREDICTOR}\.(?:query_feat|static_query)\.weight", rf"{_T}.queries_features.weight"),
        (rf"{_PREDICTOR}\.query_embed\.weight", rf"{_T}.queries_embedder.weight"),
        (rf"{_PREDICTOR}\.level_embed\.weight", rf"{_T}.level_embed.weight"),
        (rf"{_PREDICTOR}\.input_proj\.(\d+)\.{_WB}", rf"{_T}.input_projections.\1.\2"),
        (rf"{_PREDICTOR}\.decoder_norm\.{_WB}", rf"{_T}.decoder.layernorm.\1"),
        (
            rf"{_PREDICTOR}\.transformer_self_attention_layers\.(\d+)\.self_attn\.out_proj\.{_WB}",
            rf"{_T}.decoder.layers.\1.self_attn.out_proj.\2",
        ),
        (rf"{_PREDICTOR}\.transformer_self_attention_layers\.(\d+)\.norm\.{_WB}", rf"{_T}.decoder.layers.\1.self_attn_layer_norm.\2"),
        (
            rf"{_PREDICTOR}\.transformer_cross_attention_layers\.(\d+)\.multihead_attn\.(in_proj_|out_proj\.){_WB}",
            rf"{_T}.decoder.layers.\1.cross_attn.\2\3",
        ),
        (rf"{_PREDICTOR}\.transformer_cross_attention_layers\.(\d+)\.norm\.{_WB}", rf"{_T}.decoder.layers.\1.cross_attn_layer_norm.\2"),
        (rf"{_PREDICTOR}\.transformer_ffn_layers\.(\d+)\.linear([12])\.{_WB}", rf"{_T}.decoder.layers.\1.fc\2.\3"),
        (rf"{_PREDICTOR}\.transformer_ffn_layers\.(\d+)\.norm\.{_WB}", rf"{_T}.decoder.layers.\1.final_layer_norm.\2"),
        (rf"{_PREDICTOR}\.mask_embed\.layers\.(\d+)\.{_WB}", rf"{_T}.decoder.mask_predictor.mask_embedder.\1.0.\2"),
        (rf"{_PREDICTOR}\.class_embed\.{_WB}", r"class_predictor.\1"),
        (r"criterion\.empty_weight", "criterion.empty_weight"),
    )
]  # fmt: skip
# numbers that count from elsewhere
_NUMBERED = [
    (re.compile(rf"backbone\.norm(\d+)\.{_WB}"), lambda m: f"{_E}.hidden_states_norms.stage{int(m[1]) + 1}.{m[2]}"),
    (
        re.compile(rf"backbone\.res(\d)\.(\d+)\.(?:conv(\d)|(shortcut))(?:\.(norm))?\.{_NORM}"),
        lambda m: (
            f"{_E}.encoder.stages.{int(m[1]) - 2}.layers.{m[2]}.{'shortcut' if m[4] else f'layer.{int(m[3]) - 1}'}."
            f"{'normalization' if m[5] else 'convolution'}.{m[6]}"
        ),
    ),
]
# one weight of query, key and value together -> three
_SPLIT = [
    (re.compile(rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.attn\.qkv\.{_WB}"), rf"{_E}.swin.encoder.layers.\1.blocks.\2.attention.{{}}_proj.\3"),
    (
        re.compile(rf"{_PREDICTOR}\.transformer_self_attention_layers\.(\d+)\.self_attn\.in_proj_{_WB}"),
        rf"{_T}.decoder.layers.\1.self_attn.{{}}_proj.\2",
    ),
]  # fmt: skip
_DERIVED = re.compile(r"backbone\.layers\.\d+\.blocks\.\d+\.attn\.relative_position_index")  # a function of the window alone

# what names give away -> what the checkpoint is
_OTHERS = {
    "roi_heads.": "a detectron2 R-CNN",
    "proposal_generator.": "a detectron2 R-CNN",
    "task_mlp.": "an original OneFormer",
    "text_encoder.": "an original OneFormer",
    "sem_seg_head.predictor.transformer.": "an original MaskFormer (the first one)",
    "panoptic_head.": "an mmdetection model",
    "decode_head.": "an mmsegmentation model",
    "model.pixel_level_module.": "weights in transformers' layout without their config.json",
    "network.encoder.": "an original EoMT",
    "detr.": "a DETR",
    "layers.0.blocks.0.": "an ImageNet backbone alone",
    "patch_embed.": "an ImageNet backbone alone",
    "layer1.0.": "an ImageNet backbone alone",
    "stem.conv1.": "an ImageNet backbone alone",
}


def is_original(names: Iterable[str]) -> bool:
    """Whether a state dict has the original Mask2Former's names."""
    return any(re.match(rf"{_PREDICTOR}\.transformer_cross_attention_layers\.", name) for name in names)


def describe_other(names: Iterable[str]) -> str:
    """What a state dict that is no original Mask2Former's seems to be."""
    names = list(names)
    for prefix, what in _OTHERS.items():
        if any(name.startswith(prefix) for name in names):
            return what
    return f"something else, with weights named {shown(', '.join(names[:3]))}"


def modern_names(state: StateDict, reference: str) -> StateDict:
    """The state dict under the names of the original code's last version: its first lacked ``pixel_decoder.``. Raises CheckpointError."""
    renamed: dict[str, tuple[str, torch.Tensor]] = {}
    for name, value in state.items():
        inside = re.match(r"sem_seg_head\.(?!pixel_decoder\.|predictor\.)(.+)", name)
        put_once(renamed, f"sem_seg_head.pixel_decoder.{inside[1]}" if inside else name, name, value, reference)
    return {name: value for name, (_, value) in renamed.items()}


def put_once(made: dict[str, tuple[str, torch.Tensor]], target: str, source: str, value: torch.Tensor, reference: str) -> None:
    """``made[target] = source, value``. Raises CheckpointError where another weight is there: one of them would silently go."""
    if target in made:
        raise CheckpointError(
            f"{reference}: {shown(made[target][0])} and {shown(source)} are the same weight under two names; delete the one that is not meant"
        )
    made[target] = (source, value)


def to_transformers(state: StateDict, reference: str) -> StateDict:
    """The same weights under transformers' names.

    Filled in is only what no output depends on: Swin's last norm, which Mask2Former leaves out, the batch counters of batch norms,
    and the loss's class weights. Raises CheckpointError naming a weight that is unknown.
    """
    made: dict[str, tuple[str, torch.Tensor]] = {}
    unknown = []
    for name, value in state.items():
        targets = _targets(name)
        if len(targets) == 1:
            put_once(made, targets[0], name, value, reference)
        elif targets:
            if value.dim() == 0 or value.shape[0] % len(targets):
                raise CheckpointError(
                    f"{reference}: {name} is {list(value.shape)}, expected query, key and value one after the other"
                )
            for target, part in zip(targets, value.chunk(len(targets)), strict=True):
                put_once(made, target, name, part.clone(), reference)
        elif not _DERIVED.fullmatch(name):
            unknown.append(name)
    if unknown:
        more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise CheckpointError(
            f"{reference}: a weight is unknown to Mask2Former: {shown(unknown[0])}{more}; only the published architecture "
            f"(ResNet or Swin, MSDeformAttnPixelDecoder, MultiScaleMaskedTransformerDecoder) is read"
        )
    mapped = {name: value for name, (_, value) in made.items()}
    return mapped | _unused(mapped)


def _targets(name: str) -> list[str]:
    for pattern, target in _RENAMED:
        if match := pattern.fullmatch(name):
            return [match.expand(target)]
    for pattern, make in _NUMBERED:
        if match := pattern.fullmatch(name):
            return [make(match)]
    for pattern, target in _SPLIT:
        if match := pattern.fullmatch(name):
            return [match.expand(target).format(part) for part in "qkv"]
    return []


def _unused(made: StateDict) -> StateDict:
    extra: StateDict = {}
    if (width := made.get(f"{_E}.hidden_states_norms.stage4.weight")) is not None:
        extra[f"{_E}.swin.layernorm.weight"] = torch.ones_like(width)
        extra[f"{_E}.swin.layernorm.bias"] = torch.zeros_like(width)
    for name, value in made.items():
        counter = name.removesuffix("running_mean") + "num_batches_tracked"
        if name.endswith("running_mean") and counter not in made:
            extra[counter] = torch.zeros((), dtype=torch.int64, device=value.device)
    if "criterion.empty_weight" not in made and "class_predictor.bias" in made:
        extra["criterion.empty_weight"] = torch.ones_like(made["class_predictor.bias"])
        extra["criterion.empty_weight"][-1] = 0.1  # the original's NO_OBJECT_WEIGHT
    return extra


def architecture(shapes: Shapes, reference: str) -> JsonObject:
    """transformers' Mask2FormerConfig, as JSON, of the model that weights of these shapes belong to.

    Raises CheckpointError where a weight that every Mask2Former has is missing, or is of a shape that fits none.
    """
    try:
        config = _architecture(shapes)
    except KeyError as error:
        raise CheckpointError(
            f"{reference}: a weight is missing: {error.args[0]}; is this a whole Mask2Former checkpoint?"
        ) from None
    except ValueError as error:
        raise CheckpointError(f"{reference}: {error}") from None
    return config


def _architecture(shapes: Shapes) -> JsonObject:
    pixel, predictor = "sem_seg_head.pixel_decoder", "sem_seg_head.predictor"
    encoder = f"{pixel}.transformer.encoder.layers"
    levels, feature_size = _dimensions(shapes, f"{pixel}.transformer.level_embed", 2)
    if levels != 3:
        raise ValueError(f"the pixel decoder works on {levels} levels, expected 3")
    encoder_layers = _count(shapes, encoder)
    offsets = _dimensions(shapes, f"{encoder}.0.self_attn.sampling_offsets.weight", 2)[0]
    heads = offsets // (levels * SAMPLING_POINTS * 2)
    if heads < 1 or heads * levels * SAMPLING_POINTS * 2 != offsets or feature_size % heads:
        raise ValueError(f"{encoder}.0.self_attn.sampling_offsets.weight has {offsets} rows, which fit no number of heads")
    classes, hidden = _dimensions(shapes, f"{predictor}.class_embed.weight", 2)
    queries = _dimensions(shapes, f"{predictor}.query_embed.weight", 2)[0]
    backbone = _swin(shapes) if "backbone.patch_embed.proj.weight" in shapes else _resnet(shapes)
    config: JsonObject = {
        "model_type": "mask2former",
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "backbone_config": backbone,
        "feature_size": feature_size,
        "mask_feature_size": _dimensions(shapes, f"{pixel}.mask_features.weight", 4)[0],
        "hidden_dim": hidden,
        "encoder_layers": encoder_layers,
        "encoder_feedforward_dim": _dimensions(shapes, f"{encoder}.0.linear1.weight", 2)[0],
        "decoder_layers": _count(shapes, f"{predictor}.transformer_ffn_layers") + 1,  # the queries' own prediction counts as one
        "dim_feedforward": _dimensions(shapes, f"{predictor}.transformer_ffn_layers.0.linear1.weight", 2)[0],
        "num_attention_heads": heads,
        "num_queries": queries,
        "pre_norm": False,
        "enforce_input_projection": f"{predictor}.input_proj.0.weight" in shapes,
    }
    if classes < 2 or hidden % heads or max(classes, queries, hidden, feature_size, config["mask_feature_size"]) > MAX_UNITS:
        raise ValueError(f"{classes} classes, {queries} queries and {hidden} channels in {heads} heads are no Mask2Former")
    return config | {"id2label": {str(index): f"LABEL_{index}" for index in range(classes - 1)}}


def _swin(shapes: Shapes) -> JsonObject:
    """transformers' SwinConfig. The window is read from the table of relative position biases, of (2 window - 1)^2 rows."""
    stages = _count(shapes, "backbone.layers")
    depths = [_count(shapes, f"backbone.layers.{stage}.blocks") for stage in range(stages)]
    tables = [
        _dimensions(shapes, f"backbone.layers.{stage}.blocks.0.attn.relative_position_bias_table", 2) for stage in range(stages)
    ]
    rows = tables[0][0]
    window = (math.isqrt(rows) + 1) // 2
    if (2 * window - 1) ** 2 != rows or window > MAX_WINDOW or any(table[0] != rows for table in tables):
        raise ValueError(f"tables of {', '.join(str(t[0]) for t in tables)} relative position biases fit no window")
    width, channels, patch, _ = _dimensions(shapes, "backbone.patch_embed.proj.weight", 4)
    hidden = _dimensions(shapes, "backbone.layers.0.blocks.0.mlp.fc1.weight", 2)[0]
    heads = [table[1] for table in tables]
    if stages != 4 or channels != 3 or patch != 4 or any((width << s) % h for s, h in enumerate(heads)) or width > MAX_UNITS:
        raise ValueError(f"a Swin of {stages} stages, {width} channels, {heads} heads and patches of {patch} is not supported")
    return {
        "model_type": "swin",
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "mlp_ratio": hidden / width,
        "patch_size": patch,
        "qkv_bias": "backbone.layers.0.blocks.0.attn.qkv.bias" in shapes,
        "drop_path_rate": 0.3,
        "image_size": 384 if window == 12 else 224,  # of the ImageNet training; the model takes any
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }


def _resnet(shapes: Shapes) -> JsonObject:
    """transformers' ResNetConfig."""
    if any(name.startswith("backbone.stem.conv1_") for name in shapes):
        raise ValueError("a ResNet with a deep stem (STEM_TYPE deeplab) is not supported, only the published BasicStem")
    stem = _dimensions(shapes, "backbone.stem.conv1.weight", 4)[0]
    stages = [f"backbone.res{number}" for number in range(2, 6)]
    bottleneck = "backbone.res2.0.conv3.weight" in shapes
    last = "conv3" if bottleneck else "conv2"
    widths = [_dimensions(shapes, f"{stage}.0.{last}.weight", 4)[0] for stage in stages]
    middle = _dimensions(shapes, "backbone.res2.0.conv2.weight", 4)
    if bottleneck and (middle[0] != middle[1] or middle[0] * 4 != widths[0]):
        raise ValueError(f"a ResNet whose bottlenecks have {middle[1]} of {middle[0]} channels (grouped or wide) is not supported")
    return {
        "model_type": "resnet",
        "embedding_size": stem,
        "hidden_sizes": widths,
        "depths": [_count(shapes, stage) for stage in stages],
        "layer_type": "bottleneck" if bottleneck else "basic",
        "downsample_in_bottleneck": False,
        "out_features": ["stage1", "stage2", "stage3", "stage4"],
    }


def _dimensions(shapes: Shapes, name: str, count: int) -> tuple[int, ...]:
    shape = shapes[name]
    if len(shape) != count or min(shape) < 1:
        raise ValueError(f"{name} is {list(shape)}, expected {count} dimensions")
    return shape


def _count(shapes: Shapes, prefix: str) -> int:
    """How many numbered parts ``prefix.0.``, ``prefix.1.``, ... there are; the last in a row with none left out."""
    pattern = re.compile(rf"{re.escape(prefix)}\.(\d{{1,4}})\.")
    numbers = {int(match[1]) for name in shapes if (match := pattern.match(name))}
    missing = next((n for n in range(max(numbers, default=0) + 1) if n not in numbers), None)
    if missing is not None:
        raise KeyError(f"{prefix}.{missing}")
    return len(numbers)
