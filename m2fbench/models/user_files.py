"""What a user points to: paths, and files of class names."""

import json
import re
from pathlib import Path

from m2fbench.errors import CheckpointError, shown
from m2fbench.labels import label_set, label_sets
from m2fbench.registry import near

MAX_LABELS_BYTES = 1 << 20


def user_path(text: str, what: str) -> Path:
    """The path that a user wrote, ``~`` expanded. Raises CheckpointError where there cannot be one, or it may not be looked at."""
    try:
        path = Path(text).expanduser()
        path.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(f"{what} {shown(text)}: cannot be looked at ({reason}); check the path and its permissions") from None
    return path


def given_labels(labels: str) -> tuple[str, ...]:
    """Class names from a label set's name or from a file: a JSON list, a mapping (id2label too), or one name a line.

    Raises CheckpointError.
    """
    if labels in label_sets():
        return label_set(labels).names
    path = user_path(labels, "labels")
    try:
        if not path.is_file() or path.stat().st_size > MAX_LABELS_BYTES:
            raise ValueError("there is none" if not path.exists() else "it is none")
        text = path.read_text(encoding="utf-8")
        content = json.loads(text) if text.lstrip()[:1] in ("[", "{") else text.split("\n")
    except (OSError, ValueError, RecursionError) as error:
        sets = label_sets()
        raise CheckpointError(
            f"labels {shown(labels)}: expected one of {', '.join(sets)}{near(labels, sets)}, or a file of class names ({shown(error)})"
        ) from error
    if isinstance(content, dict):
        content = content.get("id2label", content)
    if isinstance(content, dict):
        numbered = [(int(key), name) for key, name in content.items() if re.fullmatch(r"\d{1,6}", str(key))]
        if sorted(number for number, _ in numbered) != list(range(len(content))):
            raise CheckpointError(f"labels {labels}: expected a mapping from 0, 1, 2, ... to names, or a list")
        content = [name for _, name in sorted(numbered, key=lambda pair: pair[0])]
    found = [name.strip() if isinstance(name, str) else name for name in content] if isinstance(content, list) else []
    names = [name for name in found if name != ""]
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"labels {labels}: expected class names, in the order of the checkpoint's classes")
    return tuple(names)
