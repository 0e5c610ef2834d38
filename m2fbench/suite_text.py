"""A suite's document before it is a suite: overrides, environment variables, and what is wrong with it, by file, line and key."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from m2fbench.errors import SuiteError
from m2fbench.registry import near
from m2fbench.yaml_lines import KeyPath, Lines, dotted

FROM_COMMAND_LINE = 0  # in place of a line number


def problems_of(model: type[BaseModel], document: Any, prefix: KeyPath, path: Path, lines: Lines) -> list[str]:
    """What ``model`` finds wrong with a part of the document, one line each in the order of the file's; prefix: where in the document that
    part is. A key that is only misspelt is not missing too."""
    try:
        model.model_validate(document)
    except ValidationError as failure:
        errors = [(error, _explain(error, model, error["loc"])) for error in failure.errors()]
        meant = {
            (*error["loc"][:-1], suggested[1])
            for error, said in errors
            if error["type"] == "extra_forbidden" and (suggested := _SUGGESTED.search(said))
        }
        found = [
            (_line_of(lines, (*prefix, *error["loc"])), f"{place(path, lines, (*prefix, *error['loc']))}: {said}")
            for error, said in errors
            if error["type"] != "missing" or error["loc"] not in meant
        ]
        return [said for _, said in sorted(found, key=lambda one: one[0])]
    return []


def place(path: Path, lines: Lines, where: KeyPath) -> str:
    """``file:line: key``, the line of the innermost part that the file has; ``--set key`` where it came from the command line."""
    given = [key for key, line in lines.items() if line == FROM_COMMAND_LINE]
    if any(where[: len(key)] == key or (key[: len(where)] == where and where not in lines) for key in given):
        return f"--set {dotted(where)}"
    line = _line_of(lines, where)
    return f"{path}:{line}: {dotted(where)}" if where else f"{path}:{line}"


def _line_of(lines: Lines, where: KeyPath) -> int:
    """Of the innermost part that the file has."""
    known = where
    while known and known not in lines:
        known = known[:-1]
    return lines.get(known, 1)


_SUGGESTED = re.compile(r"\(did you mean '([^']+)'\?\)")

_EXPECTED = {
    "string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "dict_type": "a mapping", "list_type": "a list", "model_type": "a mapping", "model_attributes_type": "a mapping",
}  # fmt: skip


def _explain(error: Any, model: type[BaseModel], location: KeyPath) -> str:
    """pydantic's error in the house's words: expected ..., got ..."""
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "expected this key, got none"
    if kind == "extra_forbidden":
        known = list(_fields(model, location[:-1]))
        return f"unknown key{near(str(location[-1]), known)}; expected one of {', '.join(known)}"
    if kind == "value_error":
        return f"expected {context['error']}" + ("" if isinstance(given, dict) else f", got {described(given)}")
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", context["expected"])
        return f"expected {context['expected']}, got {described(given)}{near(str(given), choices)}"
    if kind == "too_short":
        return f"expected at least one, got {described(given)}"
    if kind == "string_pattern_mismatch":
        return f"expected letters, digits, '.', '_' and '-', beginning with a letter or digit, got {described(given)}"
    expected = _EXPECTED.get(kind) or error["msg"].removeprefix("Input should be ").removeprefix("String should ")
    return f"expected {expected}, got {described(given)}"


def _fields(model: type[BaseModel], location: KeyPath) -> Mapping[str, Any]:
    """The fields of the model that sits at ``location`` inside ``model``."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return {}
        model = inner[0]
    return model.model_fields


def described(value: Any) -> str:
    """A value as it may stand in a message."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def expand(value: Any, here: KeyPath, path: Path, lines: Lines) -> Any:
    """``value`` with ``${NAME}`` in its texts replaced from the environment."""
    if isinstance(value, dict):
        return {key: expand(inner, (*here, key), path, lines) for key, inner in value.items()}
    if isinstance(value, list):
        return [expand(inner, (*here, index), path, lines) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise SuiteError(
                f"{place(path, lines, here)}: the environment variable {match[1]} is not set; set it, or write the path out"
            )
        return os.environ[match[1]]

    return _VARIABLE.sub(replace, value)


def apply_override(document: dict[str, Any], override: str) -> KeyPath:
    """Set one dotted key of the raw document and return its path; lists are indexed by number or, where their items have names, by name."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise SuiteError(f"--set {override}: expected dotted.key=value, as in --set protocol.min_size=640")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise SuiteError(f"--set {override}: expected a value in YAML, got {text!r}") from error
    target: Any = document
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        so_far = ".".join(parts[: depth + 1])
        if isinstance(target, list):
            path.append(_index(target, part, override, so_far))
        elif isinstance(target, dict):
            path.append(part)
            if depth < len(parts) - 1:
                target.setdefault(part, {})
        else:
            raise SuiteError(f"--set {override}: {so_far} does not exist in this suite")
        if depth < len(parts) - 1:
            target = target[path[-1]]
    target[path[-1]] = value
    return tuple(path)


def _index(items: list[Any], part: str, override: str, so_far: str) -> int:
    names = [str(item.get("name")) if isinstance(item, dict) else str(item) for item in items]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise SuiteError(f"--set {override}: {so_far}: expected a number under {len(items)} or one of {', '.join(names)}")
