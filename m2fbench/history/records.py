"""What the history knows of one result, of two compared, and of files that it cannot read."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from m2fbench.analysis.findings import Estimate
from m2fbench.results import Kind, Status


@dataclass(frozen=True)
class Figure:
    """One figure over all classes. name: with its subset in brackets where it has one. low, high: the interval that the result itself
    gives, or its comparisons give of it alone."""

    name: str
    value: float
    unit: str
    higher_is_better: bool
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class Entry:
    """One result of the history; ``sha256`` of its file is its name, of which any unambiguous beginning will do.

    time: when it was finished, UTC, ISO 8601 to the second. limit: of images, 0 for all. machine: what ran it, in words. circumstances: flat
    (dotted key -> JSON scalar), what may explain a change: versions, commits, driver, hashes of checkpoint and suite. conditions: flat, what
    must be equal for two figures to be compared. disturbed: something else took the machine's time while speed was measured. origins: where
    its file was found; the folder of one that still exists is its run directory.
    """

    sha256: str
    kind: Kind
    status: Status
    reason: str | None
    suite: str
    row: str
    variant: str
    limit: int
    time: str
    machine: str
    circumstances: Mapping[str, object]
    conditions: Mapping[str, object]
    disturbed: bool
    warnings: tuple[str, ...]
    figures: tuple[Figure, ...]
    origins: tuple[str, ...] = ()

    @property
    def cell(self) -> str:
        """``suite/row/variant``, as run directories lie."""
        return f"{self.suite}/{self.row}/{self.variant}"

    @property
    def night(self) -> str:
        """The name of the night that it was measured in; "" where it was of none, or its name was not recorded."""
        return str(self.circumstances.get("environment.night") or "")

    def figure(self, name: str) -> Figure | None:
        return next((f for f in self.figures if f.name == name), None)


@dataclass(frozen=True)
class PairedFigure:
    """One figure of a paired comparison: b - a. a, b: their values with the intervals of each alone. difference: with its paired interval."""

    name: str
    a: Estimate
    b: Estimate
    difference: Estimate
    p_value: float


@dataclass(frozen=True)
class PairedRecord:
    """Two results over the same images, compared image by image. a: the baseline's SHA-256, b: the run's. identical: all predictions are the
    same. repeated: whether a second run of the same night showed the same (a drop, or being back), None where none was
    made."""

    a: str
    b: str
    images: int
    resamples: int
    seed: int
    figures: tuple[PairedFigure, ...]
    identical: bool = False
    repeated: bool | None = None


@dataclass(frozen=True)
class Acceptance:
    """A regression that a person has accepted: ``figure`` from ``result`` on, at ``time``, on the machine ``host``. file: its name in the history."""

    file: str
    result: str
    figure: str
    reason: str
    host: str
    time: str


@dataclass(frozen=True)
class Problem:
    """A file that should be a result and cannot be read. kind: "damaged", "newer" (of a later m2fbench; kept, and read once that is
    installed), "older" or "unreadable" (no permission, gone, network). message: one line, what to do included."""

    location: str
    kind: Literal["damaged", "newer", "older", "unreadable"]
    message: str


@dataclass(frozen=True)
class Added:
    """What came of adding. new, known: results by SHA-256; problems: files that are not among them."""

    new: tuple[str, ...]
    known: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Selection:
    """Which results are meant; an empty field means all. since, until: times, as the beginning of one ("2026-11"). result: the beginning of a
    SHA-256."""

    suites: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    figures: tuple[str, ...] = ()
    machines: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    result: str = ""
    limits: tuple[int, ...] = field(default=())
