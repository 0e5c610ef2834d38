"""What a model is without its weights: enough to count its parameters and its arithmetic, and nothing that has to be downloaded for it.

A reference is what :func:`m2fbench.models.checkpoint.resolve` takes, and also a config alone: a config.json, a detectron2 config.yaml,
or a folder with nothing else in it. ``zoo:NAME`` is built from the zoo's row, a hub id from its config.json.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import FAMILIES, Checkpoint, config_facts, locate, read_config, resolve, weight_files
from m2fbench.models.detectron_config import read_detectron_config
from m2fbench.models.download import Progress, is_url
from m2fbench.models.user_files import user_path
from m2fbench.models.zoo import is_zoo, zoo_entry
from m2fbench.types import JsonObject, Size

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class Architecture:
    """reference: as the user wrote it. family: "Mask2Former" or a sister's name. config: transformers' configuration as JSON. labels: class names.
    backbone: its kind. task, test_size (shortest edge, cap on the longest), test_size_origin: where the reference says them.

    weight_bytes: of the weight files, None where none are at hand, and ``without_weights`` says why. mask_probabilities: of an EoMT, how often
    each of its last blocks attends within masks only; above 0 it predicts them first, so this decides what is computed. Empty for all others.
    """

    reference: str
    family: str
    config: JsonObject
    labels: tuple[str, ...]
    queries: int
    backbone: str
    revision: str | None = None
    task: str | None = None
    test_size: tuple[int, int] | None = None
    test_size_origin: str | None = None
    weight_bytes: int | None = None
    without_weights: str | None = None
    mask_probabilities: tuple[float, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return backbone_title(self.backbone, self.config)

    @property
    def input_size(self) -> Size | None:
        """(height, width) in pixels of the only input it takes; None where it takes any."""
        if not self.config["model_type"].startswith("eomt"):
            return None
        edge = int(self.config.get("image_size", 640))
        return edge, edge


def architecture_of(
    reference: str, *, config: str | None = None, labels: str | None = None, progress: Progress | None = None
) -> Architecture:
    """Find out what a reference is, downloading no weights. Raises CheckpointError with one line that says what to do.

    config: a detectron2 config for a single file. labels: a label set or a file of class names, in place of its own. A single file (.pkl, .pth,
    an address) is read: what it is stands in its weights alone.
    """
    if is_zoo(reference):
        _refuse_config(config, reference)
        return _of_zoo(reference, labels)
    path = None if is_url(reference) else user_path(reference, "checkpoint")
    if path is not None and path.suffix in (".yaml", ".yml") and path.is_file():
        _refuse_config(config, reference)
        return _of_detectron(path, reference, labels)
    if path is not None and path.name == "config.json" and path.is_file():
        _refuse_config(config, reference)
        return _of_folder(path.parent, None, reference, labels)
    if path is not None and _is_config_alone(path):
        _refuse_config(config, reference)
        return _of_detectron(path / "config.yaml", reference, labels)
    if is_url(reference) or (path is not None and _is_single(path)):
        return _of_checkpoint(resolve(reference, config=config, labels=labels, progress=progress))
    _refuse_config(config, reference)
    return _of_folder(*locate(reference, weights=False), reference, labels)


def _is_single(path: Path) -> bool:
    """Whether it is, or was meant to be, a file with weights, or the folder that detectron2 trained in."""
    trained = path.is_dir() and not (path / "config.json").exists()
    return trained or path.is_file() or path.suffix in (".pkl", ".pth", ".pt", ".bin", ".safetensors")


def _is_config_alone(path: Path) -> bool:
    """Whether it is a folder that detectron2 trained in, or will, with its config and no weights."""
    if not path.is_dir() or (path / "config.json").exists() or not (path / "config.yaml").is_file():
        return False
    return not any(file.suffix in (".pth", ".pkl") for file in path.iterdir())


def _refuse_config(config: str | None, reference: str) -> None:
    if config:
        raise CheckpointError(
            f"{reference}: a config is for checkpoints of a single file; this is described by a config of its own"
        )


def _of_zoo(reference: str, labels: str | None) -> Architecture:
    from m2fbench.models.blueprints import zoo_config

    entry = zoo_entry(reference)
    size, origin = (entry.min_size, entry.max_size), f"the model zoo, {entry.name}"
    why = "described by the model zoo's table; its weights were not downloaded"
    return _described(reference, zoo_config(entry), labels, entry.task, size, origin, why)


def _of_detectron(path: Path, reference: str, labels: str | None) -> Architecture:
    from m2fbench.models.blueprints import detectron_config

    detectron = read_detectron_config(path)
    made, why = detectron_config(detectron, reference), "a detectron2 config has no weights"
    return _described(reference, made, labels, detectron.dataset[1], detectron.sizes, str(path), why)


def _described(
    reference: str, made: JsonObject, labels: str | None, task: str | None, size: tuple[int, int] | None, origin: str, why: str
) -> Architecture:
    """Of a configuration that was made, not found. origin: of the test size; why: there are no weights."""
    names, queries, backbone = config_facts(made, reference, labels)
    return Architecture(
        reference=reference,
        family=FAMILIES[made["model_type"]],
        config=made,
        labels=names,
        queries=queries,
        backbone=backbone,
        task=task,
        test_size=size,
        test_size_origin=origin,
        without_weights=why,
    )


def _of_folder(folder: Path, revision: str | None, reference: str, labels: str | None) -> Architecture:
    config = read_config(folder, reference)
    names, queries, backbone = config_facts(config, reference, labels)
    size, missing = None, None
    try:
        size = sum((folder / name).stat().st_size for name in weight_files(folder, reference))
    except CheckpointError as error:
        missing = "only its config.json was downloaded" if revision else str(error).removeprefix(f"{reference}: ").partition(";")[0]
    probabilities, warnings = _mask_probabilities(folder, config) if config["model_type"].startswith("eomt") else ((), ())
    return Architecture(
        reference=reference,
        family=FAMILIES[config["model_type"]],
        config=config,
        labels=names,
        queries=queries,
        backbone=backbone,
        revision=revision,
        weight_bytes=size,
        without_weights=missing,
        mask_probabilities=probabilities,
        warnings=warnings,
    )


def _mask_probabilities(folder: Path, config: JsonObject) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Those of an EoMT, and a warning where its weights are not here to say them."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("model*.safetensors")):
        with contextlib.suppress(SafetensorError, OSError), safe_open(path, "np") as weights:
            if "attn_mask_probs" in weights.keys():  # noqa: SIM118  (it is no mapping)
                return tuple(map(float, weights.get_tensor("attn_mask_probs"))), ()
    note = "its weights would say which blocks attend within masks; counted with none, as EoMT is when its training has ended"
    return (0.0,) * int(config.get("num_blocks", 4)), (note,)


def _of_checkpoint(checkpoint: Checkpoint) -> Architecture:
    return Architecture(
        reference=checkpoint.reference,
        family=FAMILIES[checkpoint.config["model_type"]],
        config=checkpoint.config,
        labels=checkpoint.labels,
        queries=checkpoint.queries,
        backbone=checkpoint.backbone,
        revision=checkpoint.revision,
        task=checkpoint.task,
        test_size=checkpoint.test_size,
        test_size_origin=checkpoint.test_size_origin,
        weight_bytes=sum((checkpoint.folder / name).stat().st_size for name in checkpoint.weight_files),
        warnings=checkpoint.warnings,
    )


def backbone_title(kind: str, config: JsonObject) -> str:
    """A backbone as its authors name it, with its blocks and widths where these are not all alike. config: of the whole model."""
    settings = config.get("backbone_config") or {}
    depths = "-".join(map(str, settings.get("depths", ())))
    if kind == "resnet":
        names = {"3-4-6-3": "ResNet-50", "3-4-23-3": "ResNet-101"} if settings.get("layer_type") != "basic" else {}
        return f"{names.get(depths, 'ResNet')}, blocks {depths}, widths {'-'.join(map(str, settings.get('hidden_sizes', ())))}"
    if kind in ("swin", "swinv2"):
        sizes = {"2-2-6-2 96": "Swin-T", "2-2-18-2 96": "Swin-S", "2-2-18-2 128": "Swin-B", "2-2-18-2 192": "Swin-L"}
        width, window = settings.get("embed_dim", 96), settings.get("window_size", 7)
        name = sizes.get(f"{depths} {width}", "Swin") if kind == "swin" else "Swin V2"
        return f"{name}, blocks {depths}, width {width}, window {window}"
    names = {
        "vit": "ViT",
        "dinov2": "DINOv2",
        "convnext": "ConvNeXt",
        "convnextv2": "ConvNeXt V2",
        "hiera": "Hiera",
        "pvt_v2": "PVT v2",
    }
    return names.get(kind, kind)


def build_module(architecture: Architecture) -> "nn.Module":
    """transformers' module on the meta device (shapes, no memory), in eval mode, with eager attention in model and backbone: other kernels are
    one operator that hides its products. Raises CheckpointError where transformers can make no model of the config."""
    import torch
    import transformers
    from transformers.utils import logging

    from m2fbench.models.load import MODEL_CLASSES, unusable_config

    logging.set_verbosity_error()
    family = getattr(transformers, MODEL_CLASSES[architecture.config["model_type"]])
    try:
        config = family.config_class.from_dict(dict(architecture.config))
        config._attn_implementation = "eager"
        with torch.device("meta"):
            module = family(config)
    except unusable_config() as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{architecture.reference}: no model can be made of its config: {reason}; mend the config") from error
    kinds = {m.config._attn_implementation for m in module.modules() if getattr(m, "config", None) is not None}
    if kinds != {"eager"}:
        raise RuntimeError(f"attention is {', '.join(map(str, kinds))}, expected eager")
    made: nn.Module = module.to("meta").eval()  # torch.Tensor(n) in a constructor is on the CPU whatever device is asked for
    if architecture.mask_probabilities:
        made.attn_mask_probs = torch.nn.Buffer(torch.tensor(architecture.mask_probabilities))  # the one value that is looked at
    return made
