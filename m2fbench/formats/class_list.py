"""Class lists: the names of a dataset's classes in their order, and the value of each in label PNGs."""

import json
from pathlib import Path
from typing import NamedTuple

from m2fbench.errors import DatasetError, shown


class ClassList(NamedTuple):
    """names and values of the same length, in contiguous order."""

    names: tuple[str, ...]
    values: tuple[int, ...]


def read_class_list(path: Path, first_value: int = 0) -> ClassList:
    """A JSON list of names or of {"name", "value"}, or a text file with one name a line (empty lines do not count).

    Names alone have the values first_value, first_value + 1, ... Raises DatasetError naming the file and the entry.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: not a readable class list ({error}); expected JSON or text in UTF-8") from error
    if text.lstrip().startswith(("[", "{")):
        try:
            entries = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DatasetError(f"{path}: not valid JSON ({error}); expected a list of names or of {{name, value}}") from error
        if not isinstance(entries, list):
            raise DatasetError(f"{path}: expected a JSON list of names or of {{name, value}}, got an object")
    else:
        entries = [line.strip() for line in text.splitlines() if line.strip()]
    if not entries:
        raise DatasetError(f"{path}: expected the names of the classes, got none")
    given = [_entry(entry, first_value + k, f"{path}: class {k}") for k, entry in enumerate(entries)]
    names, values = tuple(name for name, _ in given), tuple(value for _, value in given)
    for what, items in (("names", names), ("values", values)):
        twice = next((item for item in items if items.count(item) > 1), None)
        if twice is not None:
            raise DatasetError(f"{path}: expected classes of different {what}, got {shown(repr(twice))} twice")
    return ClassList(names, values)


def _entry(entry: object, value: int, where: str) -> tuple[str, int]:
    name: object = entry
    number: object = value
    if isinstance(entry, dict):
        name, number = entry.get("name"), entry.get("value")
        if len(entry) != 2 or "value" not in entry:
            raise DatasetError(f"{where}: expected the keys name and value, got {shown(', '.join(map(str, entry)))}")
    if not isinstance(name, str) or not name.strip():
        raise DatasetError(f"{where}: expected a name, got {shown(repr(name), 40)}")
    if type(number) is not int or not 0 <= number <= 65535:
        raise DatasetError(f"{where}: expected a value from 0 to 65535, got {shown(repr(number), 40)}")
    return name.strip(), number
