"""Any checkpoint as a transformers folder that evaluates by the paper's sizes."""

import json
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.load import load_module
from m2fbench.models.preprocess import PIXEL_MEAN, PIXEL_STD, SIZE_DIVISIBILITY
from m2fbench.models.published import TASKS, paper_size, processor_size
from m2fbench.registry import near
from m2fbench.types import JsonObject

PROCESSOR = "preprocessor_config.json"
_WRITTEN = re.compile(
    r"config\.json|preprocessor_config\.json|model(-\d{5}-of-\d{5})?\.safetensors|model\.safetensors\.index\.json"
)


@dataclass(frozen=True)
class Request:
    """What is to be written, checked before anything is loaded. size: in place of the paper's; task: where that decides the size."""

    target: Path
    task: str | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Conversion:
    """What was written, of so many bytes. size: (shortest edge, cap on the longest) in the processor's config, in pixels; origin: who says
    so."""

    folder: Path
    bytes: int
    size: tuple[int, int]
    origin: str


def request(target: Path, *, task: str | None = None, size: str | None = None, force: bool = False) -> Request:
    """Check what a conversion is asked for. force: replace a checkpoint that is there, and nothing else.

    Raises CheckpointError.
    """
    if task not in (None, *TASKS):
        raise CheckpointError(f"--task {task}: expected one of {', '.join(TASKS)}{near(str(task), TASKS)}")
    try:
        target = target.expanduser().resolve()
        found = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
        there = target.exists() and (found or not target.is_dir())
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{target}: cannot be written ({error}); choose another folder") from error
    if there and not target.is_dir():
        raise CheckpointError(f"{target}: is there and no folder; choose another")
    foreign = [name for name in found if not _WRITTEN.fullmatch(name)]
    if foreign:
        raise CheckpointError(
            f"{target}: is there and holds more than a checkpoint ({', '.join(foreign[:3])}); choose another folder"
        )
    if there and not force:
        raise CheckpointError(f"{target}: is there already; choose another folder, or replace it with --force")
    if Path.cwd().resolve().is_relative_to(target):
        raise CheckpointError(f"{target}: is the folder you are in; choose another")
    return Request(target, task, _parse_size(size))


def _parse_size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})[/x,](\d{1,5})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise CheckpointError(f"--size {text}: expected SHORTEST/LONGEST edge in pixels, as in 800/1333")
    return int(match[1]), int(match[2])


def convert(checkpoint: Checkpoint, wanted: Request) -> Conversion:
    """Write ``checkpoint`` as a folder: safetensors (float32), config with class names, processor with the paper's sizes.

    The folder appears whole, or what was there stays. Raises CheckpointError.
    """
    target = wanted.target
    if checkpoint.config["model_type"] != "mask2former":
        kind = checkpoint.config["model_type"]
        raise CheckpointError(
            f"{checkpoint.reference}: expected a Mask2Former, got a {kind}, which is a transformers folder already"
        )
    if checkpoint.folder.resolve().is_relative_to(target):
        raise CheckpointError(f"{target}: holds the checkpoint that is to be converted; choose another folder")
    size, origin = (wanted.size, "as given") if wanted.size else _size(checkpoint, wanted.task)
    model = load_module(checkpoint)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as aside:
            folder = Path(aside) / "new"
            model.config.id2label = dict(enumerate(checkpoint.labels))
            model.config.label2id = {name: index for index, name in enumerate(checkpoint.labels)}
            model.save_pretrained(folder)
            (folder / PROCESSOR).write_text(json.dumps(_processor(checkpoint, size), indent=2) + "\n")
            for path in folder.iterdir():  # safetensors writes for its user alone; the umask shall say
                path.chmod((folder / PROCESSOR).stat().st_mode)
            _replace(folder, target, Path(aside) / "old")
    except OSError as error:
        raise CheckpointError(
            f"{target}: cannot be written: {error.strerror or error}; choose another folder, or free space"
        ) from error
    return Conversion(target, sum(path.stat().st_size for path in target.iterdir()), size, origin)


def _size(checkpoint: Checkpoint, task: str | None) -> tuple[tuple[int, int], str]:
    """The paper's size; where nothing says which that is, the one that the checkpoint's own processor has."""
    try:
        return paper_size(checkpoint, task)
    except CheckpointError:
        own = processor_size(checkpoint)
        if own is None or task is not None or "height" in own or not own.get("longest_edge"):
            raise
        return (int(own["shortest_edge"]), int(own["longest_edge"])), "as its own processor"


def _replace(folder: Path, target: Path, old: Path) -> None:
    """``folder`` in ``target``'s place; where that fails, what was there comes back."""
    if not target.exists():
        folder.rename(target)
        return
    target.rename(old)
    try:
        folder.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _processor(checkpoint: Checkpoint, size: tuple[int, int]) -> JsonObject:
    return {
        "image_processor_type": "Mask2FormerImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": size[0], "longest_edge": size[1]},
        "size_divisor": SIZE_DIVISIBILITY,
        "resample": 2,  # bilinear
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [round(value / 255, 6) for value in PIXEL_MEAN],
        "image_std": [round(value / 255, 6) for value in PIXEL_STD],
        "ignore_index": 255,
        "num_labels": len(checkpoint.labels),
    }
