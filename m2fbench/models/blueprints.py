"""transformers' configuration of an original Mask2Former without its weights: from a row of the model zoo, or from a detectron2 config.

What is fixed here is what the original fixes (1024 channels inside the pixel decoder's layers) or what every published config says. That the
result is what the weights' own shapes give is held by a test over the whole zoo.
"""

from typing import Any

from m2fbench.errors import CheckpointError, shown
from m2fbench.labels import label_set
from m2fbench.models.detectron_config import DetectronConfig, apply_config
from m2fbench.models.zoo import ZooEntry
from m2fbench.types import JsonObject

STAGES = ["stage1", "stage2", "stage3", "stage4"]
ENCODER_FEEDFORWARD = 1024  # of the deformable encoder; no config of the original can change it
MAX_UNITS, MAX_BLOCKS = 100_000, 1000  # beyond these a config is damaged, or means to exhaust the machine

# name -> (channels, blocks of each stage, heads of each stage, window)
_SWINS = {
    "Swin-T": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "Swin-S": (96, [2, 2, 18, 2], [3, 6, 12, 24], 7),
    "Swin-B": (128, [2, 2, 18, 2], [4, 8, 16, 32], 12),
    "Swin-L": (192, [2, 2, 18, 2], [6, 12, 24, 48], 12),
}
# depth -> (blocks of each stage, bottleneck blocks)
_RESNETS = {
    18: ([2, 2, 2, 2], False),
    34: ([3, 4, 6, 3], False),
    50: ([3, 4, 6, 3], True),
    101: ([3, 4, 23, 3], True),
    152: ([3, 8, 36, 3], True),
}


def zoo_config(entry: ZooEntry) -> JsonObject:
    """Of a checkpoint of the original model zoo, class names included."""
    backbone = entry.name.rsplit("/", 1)[1].removesuffix("-IN21k")
    made = _resnet(int(backbone[1:]), 64, 256) if backbone.startswith("R") else _swin(*_SWINS[backbone])
    return _mask2former(made, queries=entry.queries) | _named(label_set(entry.labels).names)


def detectron_config(config: DetectronConfig, reference: str) -> JsonObject:
    """Of a whole detectron2 config of Mask2Former, class names included where its test dataset is a published one.

    Where it is silent the original's own defaults hold. Raises CheckpointError: not a Mask2Former's, or an architecture that is not supported.
    """
    if not config.whole:
        raise CheckpointError(
            f"{reference}: expected a whole config of detectron2, got one without MODEL.META_ARCHITECTURE; is its _BASE_ missing?"
        )
    swin = config.get("MODEL.BACKBONE.NAME", "build_resnet_backbone") == "D2SwinTransformer"
    backbone = _detectron_swin(config, reference) if swin else _detectron_resnet(config, reference)
    head, former = "MODEL.SEM_SEG_HEAD", "MODEL.MASK_FORMER"
    made = _mask2former(
        backbone,
        queries=_number(config, f"{former}.NUM_OBJECT_QUERIES", 100, reference),
        feature_size=_number(config, f"{head}.CONVS_DIM", 256, reference),
        mask_feature_size=_number(config, f"{head}.MASK_DIM", 256, reference),
        hidden_dim=_number(config, f"{former}.HIDDEN_DIM", 256, reference),
        encoder_layers=_number(config, f"{head}.TRANSFORMER_ENC_LAYERS", None, reference, MAX_BLOCKS),
        decoder_layers=_number(config, f"{former}.DEC_LAYERS", None, reference, MAX_BLOCKS),
        dim_feedforward=_number(config, f"{former}.DIM_FEEDFORWARD", 2048, reference),
        num_attention_heads=_number(config, f"{former}.NHEADS", 8, reference),
        enforce_input_projection=config.flag(f"{former}.ENFORCE_INPUT_PROJ"),
    )
    classes = _number(config, f"{head}.NUM_CLASSES", None, reference)
    known = config.dataset[0]
    names = label_set(known).names if known else ()
    made |= _named(names if len(names) == classes else tuple(f"LABEL_{index}" for index in range(classes)))
    return apply_config(made, config, reference)


def _mask2former(backbone: JsonObject, *, queries: int, **other: Any) -> JsonObject:
    return {
        "model_type": "mask2former",
        "architectures": ["Mask2FormerForUniversalSegmentation"],
        "backbone_config": backbone,
        "feature_size": 256,
        "mask_feature_size": 256,
        "hidden_dim": 256,
        "encoder_layers": 6,
        "encoder_feedforward_dim": ENCODER_FEEDFORWARD,
        "decoder_layers": 10,
        "dim_feedforward": 2048,
        "num_attention_heads": 8,
        "num_queries": queries,
        "pre_norm": False,
        "enforce_input_projection": False,
    } | other


def _named(names: tuple[str, ...]) -> JsonObject:
    return {"id2label": {str(index): name for index, name in enumerate(names)}}


def _swin(width: int, depths: list[int], heads: list[int], window: int) -> JsonObject:
    return {
        "model_type": "swin",
        "embed_dim": width,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "mlp_ratio": 4.0,
        "patch_size": 4,
        "qkv_bias": True,
        "drop_path_rate": 0.3,
        "image_size": 384 if window == 12 else 224,  # of the ImageNet training; the model takes any
        "out_features": STAGES,
    }


def _resnet(depth: int, stem: int, first: int) -> JsonObject:
    blocks, bottleneck = _RESNETS[depth]
    return {
        "model_type": "resnet",
        "embedding_size": stem,
        "hidden_sizes": [first << stage for stage in range(4)],
        "depths": blocks,
        "layer_type": "bottleneck" if bottleneck else "basic",
        "downsample_in_bottleneck": False,
        "out_features": STAGES,
    }


def _detectron_swin(config: DetectronConfig, reference: str) -> JsonObject:
    width, depths, heads, window = _SWINS["Swin-T"]  # the original's defaults
    made = _swin(
        _number(config, "MODEL.SWIN.EMBED_DIM", width, reference),
        _numbers(config, "MODEL.SWIN.DEPTHS", depths, reference, MAX_BLOCKS),
        _numbers(config, "MODEL.SWIN.NUM_HEADS", heads, reference),
        _number(config, "MODEL.SWIN.WINDOW_SIZE", window, reference, 64),
    )
    ratio = config.get("MODEL.SWIN.MLP_RATIO", 4.0)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio <= 100:
        raise CheckpointError(f"{reference}: MODEL.SWIN.MLP_RATIO: expected a number over 0, got {shown(ratio, 40)}")
    return made | {"mlp_ratio": float(ratio), "qkv_bias": config.get("MODEL.SWIN.QKV_BIAS", True) is not False}


def _detectron_resnet(config: DetectronConfig, reference: str) -> JsonObject:
    depth = config.get("MODEL.RESNETS.DEPTH", 50)
    if depth not in _RESNETS:
        known = ", ".join(map(str, _RESNETS))
        raise CheckpointError(f"{reference}: MODEL.RESNETS.DEPTH: expected one of {known}, got {shown(depth, 40)}")
    stem = _number(config, "MODEL.RESNETS.STEM_OUT_CHANNELS", 64, reference)
    return _resnet(depth, stem, _number(config, "MODEL.RESNETS.RES2_OUT_CHANNELS", 256, reference))


def _number(config: DetectronConfig, key: str, default: int | None, reference: str, limit: int = MAX_UNITS) -> int:
    value = config.get(key, default)
    if value is None:
        raise CheckpointError(f"{reference}: expected {key}, got none; is this a whole config of Mask2Former, with its _BASE_?")
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= limit:
        raise CheckpointError(f"{reference}: {key}: expected a whole number from 1 to {limit:,}, got {shown(value, 40)}")
    return value


def _numbers(config: DetectronConfig, key: str, default: list[int], reference: str, limit: int = MAX_UNITS) -> list[int]:
    """Four of them, one a stage."""
    values = config.get(key, default)
    numbers = list(values) if isinstance(values, list | tuple) else []
    if len(numbers) != 4 or any(isinstance(n, bool) or not isinstance(n, int) or not 0 < n <= limit for n in numbers):
        raise CheckpointError(f"{reference}: {key}: expected four whole numbers from 1 to {limit:,}, got {shown(values, 40)}")
    return numbers
