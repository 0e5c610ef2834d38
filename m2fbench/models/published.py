"""What is published of a checkpoint's kind: which label set its classes are, and at what size the paper tests it."""

import contextlib
import json
import re
from collections.abc import Sequence
from typing import Protocol

from m2fbench.errors import CheckpointError, ClassesError
from m2fbench.labels import label_set, label_sets
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.classes import match_classes
from m2fbench.models.zoo import ZooEntry, zoo_entries
from m2fbench.sections import ProtocolSection, Row
from m2fbench.suite import Suite
from m2fbench.types import Head, JsonObject

TASKS = ("instance", "panoptic", "semantic")


class Described(Protocol):
    """What is asked of a checkpoint, or of an architecture without its weights."""

    @property
    def reference(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def config(self) -> JsonObject: ...
    @property
    def task(self) -> str | None: ...
    @property
    def test_size(self) -> tuple[int, int] | None: ...
    @property
    def test_size_origin(self) -> str | None: ...


def published_labels(labels: Sequence[str]) -> str | None:
    """The label set that class names are, spelling aside; None for those of no published dataset."""
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return None
    for name in label_sets():
        with contextlib.suppress(ClassesError):
            if len(label_set(name).classes) == len(labels) and match_classes(labels, label_set(name).classes):
                return name
    return None


def paper_size(checkpoint: Described, task: str | None) -> tuple[tuple[int, int], str]:
    """The size at which such a checkpoint is tested, and who says so. Raises CheckpointError where that is not decided.

    The checkpoint's own config or row in the zoo comes first (another ``task`` than its own asks for another size), then the published
    settings of its label set, by task and backbone where they differ.
    """
    if checkpoint.test_size and task in (None, checkpoint.task):
        return checkpoint.test_size, checkpoint.test_size_origin or ""
    if checkpoint.test_size:
        raise CheckpointError(
            f"{checkpoint.reference}: {checkpoint.test_size_origin} says {checkpoint.task}, tested at {checkpoint.test_size[0]}/"
            f"{checkpoint.test_size[1]}; leave --task {task} out, or say at what size it is tested with --size"
        )
    known, wanted = published_labels(checkpoint.labels), task or checkpoint.task
    sizes = published_sizes(checkpoint, wanted)
    if len(sizes) == 1:
        ((size, entry),) = sizes.items()
        return size, f"the published settings of {entry.name.rsplit('/', 1)[0]}"
    if not sizes and known and wanted:
        tasks = sorted({e.task for e in zoo_entries().values() if e.labels == known})
        raise CheckpointError(
            f"{checkpoint.reference}: its classes are {label_set(known).title}'s, published for {' and '.join(tasks)}, not {wanted}; leave --task "
            f"out, or say at what size it is tested with --size"
        )
    if not sizes:
        raise CheckpointError(
            f"{checkpoint.reference}: its {len(checkpoint.labels)} classes are not known to be a published dataset's; say at what size it is "
            f"tested with --size SHORTEST/LONGEST (COCO: 800/1333)"
        )
    choices = " or ".join(f"--task {entry.task} ({size[0]}/{size[1]})" for size, entry in sizes.items())
    raise CheckpointError(f"{checkpoint.reference}: {label_set(known or '').title} is tested in more than one way; say {choices}")


def published_sizes(checkpoint: Described, task: str | None) -> dict[tuple[int, int], ZooEntry]:
    """The sizes at which checkpoints of these classes, this task (None: any) and a like backbone are tested, with one that is."""
    known = published_labels(checkpoint.labels)
    entries = [
        e for e in zoo_entries().values() if e.labels == known and task in (None, e.task) and _same_backbone(e.name, checkpoint)
    ]
    return {(entry.min_size, entry.max_size): entry for entry in entries}


def like_row(checkpoint: Described, suite: Suite) -> Row | None:
    """The row of a suite that has settings of its own and is tested as checkpoints of these classes, task and backbone are; for one
    that is put in the rows' place. None where the suite's own settings are theirs, or nothing is published."""
    sizes = published_sizes(checkpoint, suite.task)
    if len(sizes) != 1 or checkpoint.config.get("model_type") != "mask2former":
        return None
    for row in suite.checkpoints:
        protocol = suite.protocol_of(row)
        if row.protocol is not None and (protocol.min_size, protocol.max_size) in sizes:
            return row
    return None


def size_note(checkpoint: Described, protocol: ProtocolSection, task: Head) -> tuple[str, ...]:
    """A warning where a run of a suite of ``task`` tests at another size than the checkpoint's own config or row in the zoo says; where it
    has neither, than the published settings of its classes, task and backbone. protocol: the run's own."""
    if protocol.name != "paper":
        return ()
    size, said = _said_size(checkpoint, task)
    if size in (None, (protocol.min_size, protocol.max_size)):
        return ()
    return (f"tested at {protocol.min_size}/{protocol.max_size}, where {said}",)


def _said_size(checkpoint: Described, task: Head) -> tuple[tuple[int, int] | None, str]:
    if size := checkpoint.test_size:
        return size, f"{checkpoint.test_size_origin} says {size[0]}/{size[1]}"
    if checkpoint.config.get("model_type") != "mask2former":  # its sisters' settings are their own
        return None, ""
    for wanted in (checkpoint.task or task, "panoptic"):  # a panoptic checkpoint on its things is tested as a panoptic one
        with contextlib.suppress(CheckpointError):
            size, said = paper_size(checkpoint, wanted)
            return size, f"{said} are {size[0]}/{size[1]}"
    return None, ""


def task_note(checkpoint: Described, task: Head) -> tuple[str, ...]:
    """A warning where a suite asks of a checkpoint what its own config or row in the zoo says it was not trained for."""
    if checkpoint.task is None or gives(checkpoint.task, task):
        return ()
    return (f"trained for {checkpoint.task} segmentation, scored on {task} segmentation",)


def gives(trained: str, task: Head) -> bool:
    """Whether a model trained for one task gives another's predictions: a panoptic one gives all."""
    return trained in (task, "panoptic")


def processor_size(checkpoint: Checkpoint) -> JsonObject | None:
    """What preprocessor_config.json says of the input size: {"shortest_edge", "longest_edge"} or {"height", "width"}; None where nothing."""
    if checkpoint.form != "transformers":
        return None
    try:
        config = json.loads((checkpoint.folder / "preprocessor_config.json").read_bytes())
        size = config["size"]
        if isinstance(size, int):
            size = {"shortest_edge": size, "longest_edge": config.get("max_size")}
        kept = {key: size[key] for key in ("shortest_edge", "longest_edge", "height", "width") if isinstance(size.get(key), int)}
        return kept if "shortest_edge" in kept or {"height", "width"} <= set(kept) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _same_backbone(name: str, checkpoint: Described) -> bool:
    """Whether a zoo row's backbone is tested as the checkpoint's: Swin-B and -L have sizes of their own for ADE20K semantic."""
    backbone = checkpoint.config.get("backbone_config") or {}
    large = backbone.get("model_type", "swin") == "swin" and backbone.get("embed_dim", 96) >= 128
    return large == any(part in name for part in ("Swin-B", "Swin-L")) or not name.startswith("ade20k/semantic")
