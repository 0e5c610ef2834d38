"""A verdict as JSON, versioned: what other programs read of a night.

    verdict_version  1
    status           "regression", "unmeasured" or "ok"; exit_status: 1, 3 or 0, that of the command
    nightly, title, night, started, finished, machine, notes    of the night; complete: whether every cell has come to an end
    outcomes         what came of each cell: cell (index, suite, row, variant, task, measure), state, reason, seconds, exit_status, log, results,
                     peak_memory_bytes
    figures          each judged figure against each baseline: cell, kind, figure, unit, higher_is_better, state, baseline, value, low, high,
                     baseline_value, difference (value, low, high), p_value, evidence, result, baseline_result, since, since_night,
                     since_result, since_value, nights, changes and tonight (what, before, after), note, page (of the series, in the dashboard)

A figure's state is one of

    regression    stands under its baseline, surely: exit status 1
    suspect       tonight it is worse, and too few nights tell whether it stays; improving: better
    recovering    a regression stood, tonight shows nothing of it, and nights to come must confirm that; recovered: it is over
    accepted      a regression that a person has accepted
    improvement   better than before, surely
    steady        nothing stands out
    unmeasured    there is no figure: exit status 3
    new, restart, not compared
                  measured, and held to nothing: there is no earlier night; those before, or the baseline, are of other conditions

Numbers that are not known are null. The fields mean what ``nightly.records`` says of them.
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, get_args

from m2fbench.analysis.findings import Estimate
from m2fbench.errors import NightlyError, shown
from m2fbench.nightly.records import (
    VERDICT_VERSION,
    Cell,
    Change,
    FigureState,
    FigureVerdict,
    Outcome,
    OutcomeState,
    Status,
    Verdict,
)
from m2fbench.types import JsonObject

Record = TypeVar("Record", Cell, Outcome, Change, FigureVerdict, Verdict)
_NUMBERS = ("value", "low", "high", "baseline_value", "p_value", "since_value")


def verdict_json(verdict: Verdict) -> JsonObject:
    """JSON values only."""
    document = {"verdict_version": VERDICT_VERSION, "status": verdict.status, "exit_status": verdict.exit_status}
    found: JsonObject = _plain(document | asdict(verdict))
    return found


def read_verdict(path: Path) -> Verdict:
    """The verdict stored at ``path``. Raises NightlyError for a file that is none, and for one of another version."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise NightlyError(f"{path}: cannot be read: {error.strerror}; expected the verdict.json of a night") from error
    except (ValueError, RecursionError) as error:
        raise NightlyError(f"{path}: not a verdict ({shown(error)}); run the night's command again to judge it anew") from error
    return verdict_from(document, str(path))


def verdict_from(document: Any, where: str) -> Verdict:
    """The record that ``verdict_json`` wrote. where: of it, for messages. Raises NightlyError."""
    version = document.get("verdict_version") if isinstance(document, dict) else None
    if version != VERDICT_VERSION:
        newer = isinstance(version, int) and version > VERDICT_VERSION
        remedy = "update m2fbench" if newer else "run the night's command again to judge it anew"
        raise NightlyError(f"{where}: expected verdict version {VERDICT_VERSION}, got {shown(version, 40)}; {remedy}")
    try:
        values = {f.name: document[f.name] for f in fields(Verdict)}
        values["outcomes"] = tuple(_outcome(o) for o in values["outcomes"])
        values["figures"] = tuple(_figure(f) for f in values["figures"])
        values["notes"] = tuple(map(str, values["notes"]))
        if values["status"] not in get_args(Status):
            raise ValueError(f"status {values['status']!r}")
        return Verdict(**values)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NightlyError(
            f"{where}: not a verdict ({type(error).__name__}: {shown(error)}); run the night's command again to judge it anew"
        ) from error


def _outcome(record: JsonObject) -> Outcome:
    cell = _made(Cell, record["cell"], measure=tuple)
    found = _made(Outcome, record | {"cell": cell}, results=tuple)
    if found.state not in get_args(OutcomeState):
        raise ValueError(f"an outcome of state {found.state!r}")
    return found


def _figure(record: JsonObject) -> FigureVerdict:
    changes, tonight = (tuple(_made(Change, change) for change in record[name]) for name in ("changes", "tonight"))
    difference = Estimate(*(_number(record["difference"][end]) for end in ("value", "low", "high")))
    numbers = {name: _number(record[name]) for name in _NUMBERS}
    found = _made(FigureVerdict, record | numbers | {"changes": changes, "tonight": tonight, "difference": difference})
    if found.state not in get_args(FigureState):
        raise ValueError(f"a figure of state {found.state!r}")
    return found


def _made(kind: type[Record], record: JsonObject, **turned: Callable[[Any], Any]) -> Record:
    """Every field must be there; what a later m2fbench of the same version added is left out."""
    values = {f.name: record[f.name] for f in fields(kind)}
    return kind(**(values | {name: turn(values[name]) for name, turn in turned.items()}))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
