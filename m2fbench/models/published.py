"""What is published of a checkpoint's kind: which label set its classes are, and at what size the paper tests it."""

import contextlib
import json
import re
from collections.abc import Sequence

from m2fbench.errors import CheckpointError, ClassesError
from m2fbench.labels import label_set, label_sets
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.classes import match_classes
from m2fbench.models.zoo import zoo_entries
from m2fbench.suite import ProtocolSection
from m2fbench.types import JsonObject

TASKS = ("instance", "panoptic", "semantic")


def published_labels(labels: Sequence[str]) -> str | None:
    """The label set that class names are, spelling aside; None for those of no published dataset."""
    if all(re.fullmatch(r"LABEL_\d+", label) for label in labels):
        return None
    for name in label_sets():
        with contextlib.suppress(ClassesError):
            if len(label_set(name).classes) == len(labels) and match_classes(labels, label_set(name).classes):
                return name
    return None


def paper_size(checkpoint: Checkpoint, task: str | None) -> tuple[tuple[int, int], str]:
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
    entries = [
        e for e in zoo_entries().values() if e.labels == known and wanted in (None, e.task) and _same_backbone(e.name, checkpoint)
    ]
    sizes = {(entry.min_size, entry.max_size): entry for entry in entries}
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


def size_note(checkpoint: Checkpoint, protocol: ProtocolSection) -> tuple[str, ...]:
    """A warning where a suite tests at another size than the checkpoint's own config or row in the zoo says."""
    size = checkpoint.test_size
    if size is None or protocol.name != "paper" or size == (protocol.min_size, protocol.max_size):
        return ()
    return (f"tested at {protocol.min_size}/{protocol.max_size}, where {checkpoint.test_size_origin} says {size[0]}/{size[1]}",)


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


def _same_backbone(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a zoo row's backbone is tested as the checkpoint's: Swin-B and -L have sizes of their own for ADE20K semantic."""
    backbone = checkpoint.config.get("backbone_config") or {}
    large = backbone.get("model_type", "swin") == "swin" and backbone.get("embed_dim", 96) >= 128
    return large == any(part in name for part in ("Swin-B", "Swin-L")) or not name.startswith("ade20k/semantic")
