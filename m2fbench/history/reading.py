"""From the bytes of a file to a result, or to the one line that says why it is none: pure, and strict, since files come from anywhere."""

import datetime
import hashlib
import json
import math
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args

from m2fbench.errors import StoreError, shown
from m2fbench.history.entries import entry_of
from m2fbench.history.records import Entry
from m2fbench.results import READ, SCHEMA_VERSION, Kind, RunResult, Status
from m2fbench.types import JsonObject

Trouble = Literal["damaged", "newer", "older", "unreadable"]
LARGEST = 1 << 26  # bytes; a result of a thousand classes is less than one MB


class NoResultError(Exception):
    """``kind`` as in ``Problem``; the text says what is wrong, and not where."""

    def __init__(self, kind: Trouble, message: str) -> None:
        super().__init__(message)
        self.kind: Trouble = kind


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def result_of(content: bytes) -> RunResult:
    """The result that a file's bytes are, all that an index needs of it of the right type. Raises NoResultError."""
    document = _document(content)
    version = document.get("schema_version")
    if type(version) is not int:
        _damaged(f"it has no schema version, but {shown(json.dumps(version), 40)}")
    if version > SCHEMA_VERSION:
        raise NoResultError(
            "newer", f"of result schema {version}, this m2fbench reads {READ[0]} to {SCHEMA_VERSION}; update m2fbench to see it"
        )
    if version not in READ:
        raise NoResultError(
            "older", f"of result schema {version}, this m2fbench reads {READ[0]} to {SCHEMA_VERSION}; run the suite again"
        )
    try:
        result = RunResult.from_json(document, Path())
    except (KeyError, TypeError, AttributeError, ValueError, StoreError) as error:
        _damaged(shown(f"{type(error).__name__}: {error}"))
    _check(result)
    return result


def entry_from(content: bytes, sha256: str) -> Entry:
    """What the history knows of the result that a file's bytes are. Raises NoResultError."""
    result = result_of(content)
    try:
        return entry_of(result, sha256)
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError) as error:  # of what lies deep in it
        _damaged(shown(f"{type(error).__name__}: {error}"))


def _damaged(what: str) -> NoReturn:
    raise NoResultError("damaged", f"no whole result file ({what}); run the suite again, or restore the file, and add it again")


def _document(content: bytes) -> JsonObject:
    if not content.strip():
        _damaged("it is empty")
    if len(content) > LARGEST:
        _damaged(f"it has {len(content):,} bytes")
    try:
        document = json_of(content)
    except (ValueError, RecursionError) as error:
        _damaged(shown(str(error) or type(error).__name__))
    if not isinstance(document, dict):
        _damaged(f"a JSON {type(document).__name__}, expected an object")
    return document


def json_of(content: bytes) -> Any:
    """What can be written again as JSON, and into a database: UTF-8, no half characters, no NaN or infinity. Raises ValueError and RecursionError."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("its text is no UTF-8") from error
    document = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    if b"\\ud" in content.lower():  # the escape of half a character
        json.dumps(document, ensure_ascii=False).encode()
    return document


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{shown(digits, 40)} is no number that a float holds")
    return value


def _check(result: RunResult) -> None:
    objects = ("checkpoint", "dataset", "protocol", "device", "environment", "rules", "details")
    wrong = [name for name in objects if not isinstance(getattr(result, name), dict | None)]
    wrong += [name for name in ("suite", "variant") if not _named(getattr(result, name))]
    wrong += [name for name in ("reason", "started", "finished") if not isinstance(getattr(result, name), str | None)]
    wrong += [name for name, kinds in (("kind", Kind), ("status", Status)) if getattr(result, name) not in get_args(kinds)]
    if not isinstance(result.row, str) or not result.row:
        wrong.append("row")
    if not (result.limit is None or (type(result.limit) is int and 0 <= result.limit < 1 << 53)):
        wrong.append("limit")
    if not all(isinstance(warning, str) for warning in result.warnings):
        wrong.append("warnings")
    if wrong:
        _damaged(f"{', '.join(map(repr, wrong))} of another type than a result has")
    if not all(_is_time(text) for text in (result.started, result.finished) if text is not None):
        _damaged("'started' and 'finished' should be ISO 8601 times")
    for m in result.measurements:
        texts = isinstance(m.name, str) and isinstance(m.unit, str) and isinstance(m.category, str | None)
        if not texts or not isinstance(m.subset, str | None) or type(m.higher_is_better) is not bool or not _is_figure(m.value):
            _damaged(f"its measurement {shown(m.name, 40)!r} is {shown(m.value, 40)!r}, expected a number or null with its unit")
    scopes = (result.details or {}).get("scopes")
    machine = (result.details or {}).get("machine")
    if not isinstance(scopes, dict | None) or not isinstance(machine, dict | None):
        _damaged("'details' of another type than a result has")


def _named(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str) and bool(value["name"])


def _is_figure(value: object) -> bool:
    if type(value) is int:
        return abs(value) < 1 << 1000  # a float can hold it
    return type(value) is float and not math.isinf(value)


def _is_time(text: str) -> bool:
    try:
        datetime.datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
