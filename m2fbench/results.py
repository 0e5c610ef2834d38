"""The result of one run as a typed record, and as the versioned JSON on disk."""

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from m2fbench.errors import StoreError
from m2fbench.types import JsonObject, Measurement, Published

SCHEMA_VERSION = 2  # 2: kind and details; files of version 1 have neither and are read all the same
READ = (1, 2)

Kind = Literal["accuracy", "speed", "flops"]
Status = Literal["complete", "partial", "predicted", "unavailable", "unsupported"]


@dataclass(frozen=True)
class Comparison:
    """A measured figure beside the published one; difference = measured - published, NaN where not measured.

    comparable: both follow the same protocol on the same images. within: whether the suite's tolerance holds, None unasked.
    """

    metric: str
    measured: float
    published: float
    source: str
    comparable: bool
    within: bool | None

    @property
    def difference(self) -> float:
        return self.measured - self.published


@dataclass(frozen=True)
class RunResult:
    """One run of one checkpoint under one variant.

    kind: what was measured: "accuracy", "speed" (with the accuracy on the same images beside it) or "flops". details: of the latter two, all
    that stands behind the figures.
    status: "complete", "partial" (a limit, or images left out), "predicted" (not scored), "unavailable" (a row that
    cannot be run) or "unsupported" (a variant that this device or model cannot do).
    reason: why it is partial, unavailable or unsupported, or why a complete run is not comparable with published numbers (another protocol,
    say); None where it is.
    departure: what keeps the figures from being comparable whichever images are scored (another protocol, say); part of the reason of a
    complete run. rules: how they were averaged where a suite may choose.
    prediction_key, result_key: SHA-256 over everything that can change the predictions, and the figures.
    timings: seconds, summed over the images. path: of the result file, None where nothing was stored.
    """

    suite: JsonObject
    row: str
    variant: JsonObject
    status: Status
    reason: str | None = None
    checkpoint: JsonObject | None = None
    dataset: JsonObject | None = None
    protocol: JsonObject | None = None
    device: JsonObject | None = None
    environment: JsonObject | None = None
    prediction_key: str | None = None
    result_key: str | None = None
    limit: int | None = None
    started: str | None = None
    finished: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    measurements: tuple[Measurement, ...] = ()
    published: tuple[Published, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    skipped: tuple[JsonObject, ...] = ()
    warnings: tuple[str, ...] = ()
    verified: JsonObject | None = None
    departure: str | None = None
    rules: JsonObject | None = None
    kind: Kind = "accuracy"
    details: JsonObject | None = None
    path: Path | None = None

    def value(self, name: str, *, category: str | None = None) -> float:
        """The figure of that name, over all classes or for one; NaN where it was not measured."""
        for measurement in self.measurements:
            if (measurement.name, measurement.category) == (name, category):
                return measurement.value
        return math.nan

    @property
    def within_tolerance(self) -> bool:
        """False only where the suite asks for a check and a figure fails it."""
        return all(c.within is not False for c in self.comparisons)

    def to_json(self) -> JsonObject:
        document = {"schema_version": SCHEMA_VERSION} | asdict(self)
        del document["path"]
        document["measurements"] = [_without_nan(m) for m in document["measurements"]]
        document["comparisons"] = [_without_nan(asdict(c) | {"difference": c.difference}) for c in self.comparisons]
        return document

    @classmethod
    def from_json(cls, document: JsonObject, path: Path) -> "RunResult":
        """The record that ``to_json`` wrote. Raises StoreError for another schema version, with what to do."""
        version = document.get("schema_version")
        if version not in READ:
            newer = isinstance(version, int) and version > SCHEMA_VERSION
            remedy = "update m2fbench" if newer else "run the suite again with --fresh"
            raise StoreError(f"{path}: expected result schema version {SCHEMA_VERSION}, got {version}; {remedy}")
        values = {k: v for k, v in document.items() if k != "schema_version"}
        values["measurements"] = tuple(Measurement(**(m | {"value": _number(m["value"])})) for m in values["measurements"])
        values["published"] = tuple(Published(**p) for p in values["published"])
        values["comparisons"] = tuple(
            Comparison(**({k: v for k, v in c.items() if k != "difference"} | {"measured": _number(c["measured"])}))
            for c in values["comparisons"]
        )
        values["skipped"], values["warnings"] = tuple(values["skipped"]), tuple(values["warnings"])
        return cls(**values, path=path)


def read_result(path: Path) -> RunResult:
    """The result stored at ``path``."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StoreError(f"{path}: not a result file ({error})") from error
    try:
        return RunResult.from_json(document, path)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StoreError(f"{path}: not a result file ({error!r}); run the suite again with --fresh") from error


def compare(
    measurements: Iterable[Measurement], published: Iterable[Published], *, comparable: bool, tolerance: dict[str, float]
) -> tuple[Comparison, ...]:
    """Each published figure beside the measured one. tolerance: by metric, in its unit; metrics not in it are not checked."""
    measured = {m.name: m.value for m in measurements if m.category is None}
    rows = []
    for entry in published:
        value = measured.get(entry.metric, math.nan)
        within = None
        if comparable and entry.metric in tolerance:
            within = abs(value - entry.value) <= tolerance[entry.metric]  # False for NaN
        rows.append(Comparison(entry.metric, value, entry.value, entry.source, comparable, within))
    return tuple(rows)


def _without_nan(record: JsonObject) -> JsonObject:
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in record.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
