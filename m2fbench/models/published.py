"""What is published of a checkpoint's kind: which label set its classes are, and at what size the paper tests it."""

import contextlib
import re
from collections.abc import Sequence

from m2fbench.errors import CheckpointError, ClassesError
from m2fbench.labels import label_set, label_sets
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.classes import match_classes
from m2fbench.models.zoo import zoo_entries

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
    known, wanted = published_labels(checkpoint.labels), task or checkpoint.task
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


def _same_backbone(name: str, checkpoint: Checkpoint) -> bool:
    """Whether a zoo row's backbone is tested as the checkpoint's: Swin-B and -L have sizes of their own for ADE20K semantic."""
    backbone = checkpoint.config.get("backbone_config") or {}
    large = backbone.get("model_type", "swin") == "swin" and backbone.get("embed_dim", 96) >= 128
    return large == any(part in name for part in ("Swin-B", "Swin-L")) or not name.startswith("ade20k/semantic")
