"""The small files of a history besides results: origins, comparisons, acceptances, releases, and problems seen at a source. All JSON, with a version.

Those under the hash of their content (origins, comparisons, acceptances) are the same from whichever machine, and written once.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from m2fbench.analysis.findings import Estimate
from m2fbench.errors import shown
from m2fbench.history.reading import NoResultError, json_of, sha256_of
from m2fbench.history.records import PairedFigure, PairedRecord, Problem
from m2fbench.types import JsonObject

VERSION = 1
_VERSION = "m2fbench_history"


def written(fields: Mapping[str, object]) -> bytes:
    """NaN as null."""
    document = {_VERSION: VERSION, **{key: _without_nan(value) for key, value in fields.items()}}
    return (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read(content: bytes) -> JsonObject:
    """Raises NoResultError."""
    try:
        document = json_of(content)
        version = document.pop(_VERSION)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(error) from error
    if version != VERSION:
        newer = type(version) is int and version > VERSION
        remedy = "update m2fbench to see it" if newer else "restore it, or delete it"
        raise NoResultError("newer" if newer else "damaged", f"of version {shown(version, 20)}, expected {VERSION}; {remedy}")
    return dict(document)


def damaged(error: Exception) -> NoResultError:
    return NoResultError(
        "damaged", f"no whole file of a history ({shown(error, 80) or type(error).__name__}); restore it, or delete it"
    )


def name_of(folder: str, content: bytes) -> str:
    """``FOLDER/AB/SHA256.json``"""
    sha256 = sha256_of(content)
    return f"{folder}/{sha256[:2]}/{sha256}.json"


def comparison_text(record: PairedRecord) -> bytes:
    return written(asdict(record))


def comparison_of(fields: JsonObject) -> PairedRecord:
    """Raises KeyError, TypeError and ValueError for fields of another kind."""
    figures = tuple(
        PairedFigure(str(f["name"]), _estimate(f["a"]), _estimate(f["b"]), _estimate(f["difference"]), _number(f["p_value"]))
        for f in fields["figures"]
    )
    a, b, repeated = fields["a"], fields["b"], fields["repeated"]
    if not isinstance(a, str) or not isinstance(b, str) or not isinstance(repeated, bool | None):
        raise TypeError("fields of another kind")
    images, resamples, seed = (int(fields[key]) for key in ("images", "resamples", "seed"))
    return PairedRecord(a, b, images, resamples, seed, figures, bool(fields["identical"]), repeated)


def comparison_weight(record: PairedRecord, file: str) -> tuple[bool, int, int, str]:
    """Of several comparisons of the same two results, that with the greatest counts: one with a repeated run, then that of more resamples."""
    return (record.repeated is not None, record.resamples, record.images, file)


@dataclass(frozen=True)
class Seen:
    """A problem seen at a source. host: where, "" for an address."""

    problem: Problem
    host: str

    @property
    def file(self) -> str:
        return f"problems/{sha256_of(f'{self.host} {self.problem.location}'.encode())}.json"

    def written(self, time: str) -> bytes:
        return written(asdict(self.problem) | {"host": self.host, "time": time})


def seen_of(fields: JsonObject) -> Seen:
    if fields["kind"] not in ("damaged", "newer", "older", "unreadable"):
        raise ValueError("problem of another kind")
    return Seen(Problem(str(fields["location"]), fields["kind"], str(fields["message"])), str(fields["host"]))


def _estimate(fields: JsonObject) -> Estimate:
    return Estimate(*(_number(fields[key]) for key in ("value", "low", "high")))


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
