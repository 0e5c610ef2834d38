"""detectron2's config.yaml as inert text: read as data, ``_BASE_`` resolved, tags of Python never evaluated.

What decides how a checkpoint is evaluated and is not in its weights stands there; what is in its weights must agree.
"""

import ast
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from m2fbench.errors import CheckpointError, shown
from m2fbench.models.preprocess import PIXEL_MEAN, PIXEL_STD
from m2fbench.types import JsonObject
from m2fbench.yaml_lines import BoundedLoader

MAX_BYTES, MAX_BASES, MAX_KEYS = 1 << 20, 20, 10_000
_PIXELS = {"PIXEL_MEAN": list(PIXEL_MEAN), "PIXEL_STD": list(PIXEL_STD)}

# what weights cannot say
UNSAID = ("MODEL.MASK_FORMER.PRE_NORM", "MODEL.RESNETS.STRIDE_IN_1X1")

# DATASETS.TEST -> (label set, task)
DATASETS = {
    "coco_2017_val": ("coco_instance", "instance"),
    "coco_2017_val_panoptic": ("coco_panoptic", "panoptic"),
    "coco_2017_val_panoptic_with_sem_seg": ("coco_panoptic", "panoptic"),
    "ade20k_sem_seg_val": ("ade20k", "semantic"),
    "ade20k_panoptic_val": ("ade20k", "panoptic"),
    "ade20k_instance_val": ("ade20k_instance", "instance"),
    "cityscapes_fine_sem_seg_val": ("cityscapes", "semantic"),
    "cityscapes_fine_panoptic_val": ("cityscapes", "panoptic"),
    "cityscapes_fine_instance_seg_val": ("cityscapes_instance", "instance"),
    "mapillary_vistas_sem_seg_val": ("mapillary_vistas", "semantic"),
    "mapillary_vistas_panoptic_val": ("mapillary_vistas", "panoptic"),
}

# what the published architecture has, and the only thing that is read
_FIXED: dict[str, tuple[Any, ...]] = {
    "MODEL.META_ARCHITECTURE": ("MaskFormer",),
    "MODEL.SEM_SEG_HEAD.NAME": ("MaskFormerHead",),
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": ("MSDeformAttnPixelDecoder",),
    "MODEL.SEM_SEG_HEAD.NORM": ("GN",),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (4,),
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": ("MultiScaleMaskedTransformerDecoder",),
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": ("multi_scale_pixel_decoder",),
    "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": (32,),
    "INPUT.FORMAT": ("RGB",),
}
_FIXED_RESNET: dict[str, tuple[Any, ...]] = {
    "MODEL.RESNETS.RES4_DILATION": (1,),
    "MODEL.RESNETS.RES5_DILATION": (1,),
    "MODEL.RESNETS.NORM": ("FrozenBN", "BN", "SyncBN", "naiveSyncBN", "nnSyncBN"),
}
_FIXED_SWIN: dict[str, tuple[Any, ...]] = {
    "MODEL.SWIN.APE": (False,),
    "MODEL.SWIN.PATCH_NORM": (True,),
    "MODEL.SWIN.QK_SCALE": (None,),
}


@dataclass(frozen=True)
class DetectronConfig:
    """A config with its bases resolved. values: dotted key -> plain value, only what the files say."""

    path: Path
    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def flag(self, key: str) -> bool:
        """A yes or no; no where the files are silent, as in all published checkpoints."""
        value = self.get(key, False)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.path}: {key}: expected true or false, got {reprlib.repr(value)}")
        return value

    @property
    def dataset(self) -> tuple[str | None, str | None]:
        """(label set, task) of the test dataset; None for one that is not published."""
        names = self.get("DATASETS.TEST") or ()
        known = (
            [DATASETS[name] for name in names if isinstance(name, str) and name in DATASETS]
            if isinstance(names, list | tuple)
            else []
        )
        return known[0] if known else (None, self._task())

    def _task(self) -> str | None:
        for task in ("panoptic", "instance", "semantic"):
            if self.get(f"MODEL.MASK_FORMER.TEST.{task.upper()}_ON") is True:
                return task
        return None

    @property
    def whole(self) -> bool:
        """Whether it is a config of detectron2 at all, in full: then its silence means detectron2's own defaults."""
        return isinstance(self.get("MODEL.META_ARCHITECTURE"), str)

    @property
    def unsaid(self) -> tuple[str, ...]:
        """What weights cannot say and these files do not say either."""
        return tuple(
            key for key in ("MODEL.MASK_FORMER.PRE_NORM", "MODEL.RESNETS.STRIDE_IN_1X1", "INPUT.FORMAT") if key not in self.values
        )

    @property
    def sizes(self) -> tuple[int, int] | None:
        """(shortest edge, cap on the longest) at test time, in pixels; detectron2's own defaults where a whole config is silent, None
        where a part of one is."""
        if not self.whole and not {"INPUT.MIN_SIZE_TEST", "INPUT.MAX_SIZE_TEST"} <= set(self.values):
            return None
        sizes = self.get("INPUT.MIN_SIZE_TEST", 800), self.get("INPUT.MAX_SIZE_TEST", 1333)
        if not all(isinstance(size, int) and 0 < size < 1 << 16 for size in sizes):
            raise CheckpointError(
                f"{self.path}: INPUT.MIN_SIZE_TEST and MAX_SIZE_TEST: expected sizes in pixels, got {reprlib.repr(sizes)}"
            )
        return sizes


def read_detectron_config(path: Path) -> DetectronConfig:
    """Raises CheckpointError with one line where it, or a base of it, is not there or not what it should be."""
    chain = [path]
    layers: list[Mapping[str, Any]] = []
    while True:
        document = _read(chain[-1])
        base = document.pop("_BASE_", None)
        layers.append(document)
        if base is None:
            break
        chain.append(_base(chain[-1], base))
        if chain[-1].resolve() in [p.resolve() for p in chain[:-1]] or len(chain) > MAX_BASES:
            raise CheckpointError(f"{path}: _BASE_ leads in a circle over {chain[-1]}; mend the chain")
    values: JsonObject = {}
    for layer in reversed(layers):
        values |= _flat(path, layer)
    return DetectronConfig(path, values)


def _base(path: Path, base: Any) -> Path:
    if not isinstance(base, str) or "://" in base or Path(base).suffix not in (".yaml", ".yml"):
        raise CheckpointError(f"{path}: _BASE_: expected the path of a YAML file, got {reprlib.repr(base)}")
    found = path.parent / base
    try:
        there = found.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        raise CheckpointError(
            f"{path}: its _BASE_ {shown(base)} is not there; put it there, or take this config away to go by the weights alone"
        )
    return found


class _Inert:
    """In place of what a Python tag would have made."""


class _Loader(BoundedLoader):
    """Reads what tags of Python stand before as nothing."""


def _inert(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    if suffix in ("tuple", "list") and isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node)
    return _Inert()


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", _inert)
_Loader.add_multi_constructor("!", _inert)


def _read(path: Path) -> dict[str, Any]:
    try:
        if not path.is_file():
            raise CheckpointError(f"{path}: expected a config of detectron2, got no file; check the path")
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path}: expected a config of detectron2, got a file of {path.stat().st_size:,} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); check the file and its permissions") from error
    try:
        document = yaml.load(text, _Loader)
    except Exception as error:  # a tag on a value that is none of its kind makes yaml raise whatever it runs into
        raise CheckpointError(f"{path}: not valid YAML: {(str(error).splitlines() or [type(error).__name__])[0][:120]}") from error
    if not isinstance(document, dict):
        raise CheckpointError(f"{path}: expected a config of detectron2, got {type(document).__name__}")
    return document


def _flat(path: Path, document: Mapping[Any, Any]) -> JsonObject:
    """Dotted key -> value. Aliases can make it unfold without end, so what is visited is counted."""
    found: JsonObject = {}
    waiting: list[tuple[str, Mapping[Any, Any]]] = [("", document)]
    visited = 0
    while waiting:
        prefix, mapping = waiting.pop()
        for key, value in mapping.items():
            visited += 1
            if visited > MAX_KEYS or len(prefix) > 500:
                raise CheckpointError(f"{path}: more than {MAX_KEYS} keys, or nested too deep; is this a config of detectron2?")
            name = f"{prefix}{str(key)[:100]}"
            if isinstance(value, dict):
                waiting.append((f"{name}.", value))
            elif not isinstance(value, _Inert):
                found[name] = _literal(value)
    return found


def _literal(value: Any) -> Any:
    """detectron2 decodes texts that are literals (``("coco_2017_val",)``, ``"False"``); a literal is read, nothing is evaluated."""
    if isinstance(value, str) and len(value) < 1000:
        try:
            return ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return value
    return value


def apply_config(config: JsonObject, detectron: DetectronConfig, reference: str) -> JsonObject:
    """``config``, read from the weights, completed by what only a config says.

    Raises CheckpointError where the two disagree, or the config asks for what is not supported.
    """
    backbone = config["backbone_config"]
    resnet = backbone["model_type"] == "resnet"
    for key, ours in _from_weights(config).items():
        theirs = detectron.get(key, ours)
        if (list(theirs) if isinstance(theirs, tuple) else theirs) != ours:
            raise CheckpointError(
                f"{reference}: the weights have {ours} where {detectron.path} says {key}: {reprlib.repr(theirs)}; use the config.yaml that "
                f"belongs to them, or take it away to go by the weights alone"
            )
    for key, allowed in {**_FIXED, **(_FIXED_RESNET if resnet else _FIXED_SWIN)}.items():
        if key in detectron.values and detectron.get(key) not in allowed:
            raise CheckpointError(
                f"{detectron.path}: {key}: only {' or '.join(map(str, allowed))} is supported, got {reprlib.repr(detectron.get(key))}"
            )
    for key, expected in _PIXELS.items():
        found = detectron.get(f"MODEL.{key}", expected)
        if not isinstance(found, list | tuple) or [round(v, 3) for v in found if isinstance(v, int | float)] != expected:
            raise CheckpointError(
                f"{detectron.path}: MODEL.{key}: only ImageNet's {expected} is supported, got {reprlib.repr(found)}"
            )
    stride = {"downsample_in_bottleneck": detectron.flag("MODEL.RESNETS.STRIDE_IN_1X1")} if resnet else {}
    return config | {
        "pre_norm": detectron.flag("MODEL.MASK_FORMER.PRE_NORM"),
        "backbone_config": backbone | stride,
    }


def _from_weights(config: JsonObject) -> JsonObject:
    """detectron2's keys -> what the weights say they must be."""
    backbone = config["backbone_config"]
    common = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone" if backbone["model_type"] == "resnet" else "D2SwinTransformer",
        "MODEL.SEM_SEG_HEAD.NUM_CLASSES": len(config["id2label"]),
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": config["feature_size"],
        "MODEL.SEM_SEG_HEAD.MASK_DIM": config["mask_feature_size"],
        "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": config["encoder_layers"],
        "MODEL.MASK_FORMER.HIDDEN_DIM": config["hidden_dim"],
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": config["num_queries"],
        "MODEL.MASK_FORMER.DEC_LAYERS": config["decoder_layers"],
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": config["dim_feedforward"],
        "MODEL.MASK_FORMER.NHEADS": config["num_attention_heads"],
    }
    if backbone["model_type"] == "swin":
        keys = {"EMBED_DIM": "embed_dim", "DEPTHS": "depths", "NUM_HEADS": "num_heads", "WINDOW_SIZE": "window_size"}
        more = {"MLP_RATIO": "mlp_ratio", "QKV_BIAS": "qkv_bias", "PATCH_SIZE": "patch_size"}
        return common | {f"MODEL.SWIN.{key}": backbone[name] for key, name in (keys | more).items()}
    depths = {50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3], 18: [2, 2, 2, 2], 34: [3, 4, 6, 3]}
    matching = [
        depth
        for depth, blocks in depths.items()
        if blocks == backbone["depths"] and (depth > 34) == (backbone["layer_type"] == "bottleneck")
    ]
    named = {"MODEL.RESNETS.DEPTH": matching[0]} if matching else {}
    widths = {"STEM_OUT_CHANNELS": backbone["embedding_size"], "RES2_OUT_CHANNELS": backbone["hidden_sizes"][0]}
    return common | named | {f"MODEL.RESNETS.{key}": value for key, value in widths.items()}
