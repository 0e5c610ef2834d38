"""Any checkpoint as a transformers folder that evaluates by the paper's sizes."""

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import CheckpointError, ClassesError
from m2fbench.labels import label_set, label_sets
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.classes import match_classes
from m2fbench.models.load import load_module
from m2fbench.models.zoo import zoo_entries
from m2fbench.registry import near
from m2fbench.types import JsonObject

PROCESSOR = "preprocessor_config.json"
TASKS = ("instance", "panoptic", "semantic")


@dataclass(frozen=True)
class Conversion:
    """What was written. size: (shortest edge, cap on the longest) in the processor's config, in pixels; origin: who says so."""

    folder: Path
    size: tuple[int, int]
    origin: str


def convert(
    checkpoint: Checkpoint, target: Path, *, task: str | None = None, size: tuple[int, int] | None = None, force: bool = False
) -> Conversion:
    """Write ``checkpoint`` to the folder ``target``: safetensors, config with class names, processor with the paper's sizes.

    task: what it is to be tested on where that decides the size and the checkpoint does not say. size: in place of the paper's.
    force: replace a folder that is there. Weights become float32. The folder appears whole or not at all. Raises CheckpointError.
    """
    if checkpoint.config["model_type"] != "mask2former":
        raise CheckpointError(
            f"{checkpoint.reference}: expected a Mask2Former, got a {checkpoint.config['model_type']}, which is a folder already"
        )
    if task not in (None, *TASKS):
        raise CheckpointError(f"--task {task}: expected one of {', '.join(TASKS)}{near(str(task), TASKS)}")
    size, origin = (size, "as given") if size else paper_size(checkpoint, task)
    if target.exists() and not force:
        raise CheckpointError(f"{target}: is there already; choose another folder, or replace it with --force")
    if target.exists() and not (target / "config.json").is_file():
        raise CheckpointError(f"{target}: is there and no checkpoint; choose another folder")
    model = load_module(checkpoint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            folder = Path(aside) / "checkpoint"
            model.config.id2label = dict(enumerate(checkpoint.labels))
            model.config.label2id = {name: index for index, name in enumerate(checkpoint.labels)}
            model.save_pretrained(folder)
            (folder / PROCESSOR).write_text(json.dumps(_processor(checkpoint, size), indent=2) + "\n")
            if target.exists():
                shutil.rmtree(target)
            folder.rename(target)
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot be written: {error.strerror or error}; choose another folder, or free space"
        ) from error
    return Conversion(target, size, origin)


def parse_size(text: str | None) -> tuple[int, int] | None:
    """``800/1333`` -> (800, 1333). Raises CheckpointError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[/x,](\d{1,5})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise CheckpointError(f"--size {text}: expected SHORTEST/LONGEST edge in pixels, as in 800/1333")
    return int(match[1]), int(match[2])


def paper_size(checkpoint: Checkpoint, task: str | None) -> tuple[tuple[int, int], str]:
    """The size at which the paper tests such a checkpoint, and who says so. Raises CheckpointError where that is not decided."""
    if checkpoint.test_size and (task is None or task == checkpoint.task):
        return checkpoint.test_size, checkpoint.detectron_config or f"the model zoo, {checkpoint.published}"
    known = published_labels(checkpoint.labels)
    wanted = task or checkpoint.task
    entries = [
        e for e in zoo_entries().values() if e.labels == known and wanted in (None, e.task) and _same_backbone(e.name, checkpoint)
    ]
    sizes = {(entry.min_size, entry.max_size): entry for entry in entries}
    if len(sizes) == 1:
        ((size, entry),) = sizes.items()
        return size, f"the published settings of {entry.name.rsplit('/', 1)[0]}"
    if not sizes:
        raise CheckpointError(
            f"{checkpoint.reference}: its {len(checkpoint.labels)} classes are not known to be a published dataset's"
            f"{f' for {wanted}' if wanted and known else ''}; say at what size it is tested, as in --size 800/1333"
        )
    choices = " or ".join(f"--task {entry.task} ({size[0]}/{size[1]})" for size, entry in sizes.items())
    raise CheckpointError(f"{checkpoint.reference}: {label_set(known or '').title} is tested in more than one way; say {choices}")


def published_labels(labels: Sequence[str]) -> str | None:
    """The label set that class names are, spelling aside; None for those of no published dataset."""
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return None
    for name in label_sets():
        with contextlib.suppress(ClassesError):
            if len(label_set(name).classes) == len(labels) and match_classes(labels, label_set(name).classes):
                return name
    return None


def _same_backbone(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a zoo row's backbone is tested as the checkpoint's: Swin-B and -L have sizes of their own on ADE20K."""
    backbone = checkpoint.config.get("backbone_config") or {}
    large = backbone.get("model_type", "swin") == "swin" and backbone.get("embed_dim", 96) >= 128
    return large == any(part in name for part in ("Swin-B", "Swin-L")) or not name.startswith("ade20k/semantic")


def _processor(checkpoint: Checkpoint, size: tuple[int, int]) -> JsonObject:
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size[0], "longest_edge": size[1]},
        "size_divisor": 32,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "ignore_index": 255,
        "num_labels": len(checkpoint.labels),
    }
