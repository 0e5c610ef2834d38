"""Which figures of a cell are judged, and what there is of each tonight."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from m2fbench.analysis.series import Point, Series
from m2fbench.errors import HistoryError
from m2fbench.history.history import History
from m2fbench.history.records import Entry, Selection
from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.records import Outcome
from m2fbench.results import Kind
from m2fbench.types import Head

ACCURACY: dict[Head, tuple[str, ...]] = {"instance": ("AP",), "panoptic": ("PQ", "AP_th_pan", "mIoU_pan"), "semantic": ("mIoU",)}
USUAL: dict[Kind, tuple[str, ...]] = {"speed": ("fps", "fps_task", "peak_device_memory"), "flops": ("FLOPs",)}
_UNITS = {"fps": "images/s", "fps_task": "images/s", "peak_device_memory": "bytes", "FLOPs": "count"}
"""Of figures that no night has a value of; the others are percent."""


_COSTS: dict[Kind, str] = {
    "speed": r"(fps|latency|time|speed_up)(_task)?(_low|_high|_p\d+)?|peak_(device|process)_memory|weight_memory|energy|CO2e|parameters",
    "flops": r"FLOPs(_[a-z]+)*|parameters",
}
"""Names of the figures that ``speed_results`` and ``flops_results`` give."""


def may_have(kind: Kind, figure: str) -> bool:
    """Whether results of a kind have figures of such a name. Those of speed have the accuracy over the timed images too."""
    name = figure.partition(" (")[0]
    cost = any(re.fullmatch(names, name) for names in _COSTS.values())
    return bool(re.fullmatch(_COSTS[kind], name)) if cost and kind in _COSTS else not cost and kind != "flops"


@dataclass(frozen=True)
class Tonight:
    """One judged figure of one cell. entry: tonight's result, None where there is none. series: up to tonight, whose last point is tonight's
    where it was measured; None where no night has the figure. missing: why tonight has no value, None where it has one."""

    outcome: Outcome
    kind: Kind
    figure: str
    entry: Entry | None
    series: Series | None
    missing: str | None

    @property
    def unit(self) -> str:
        found = self.entry.figure(self.figure) if self.entry is not None else None
        if found is not None:
            return found.unit
        return self.series.unit if self.series is not None else _UNITS.get(self.figure, "percent")

    @property
    def higher_is_better(self) -> bool:
        found = self.entry.figure(self.figure) if self.entry is not None else None
        if found is not None:
            return found.higher_is_better
        return self.series.higher_is_better if self.series is not None else self.unit not in ("bytes", "count", "s")

    @property
    def point(self) -> Point | None:
        """Tonight's."""
        if self.missing is not None or self.series is None:
            return None
        return self.series.points[-1]

    @property
    def earlier(self) -> tuple[Point, ...]:
        mine = self.entry.sha256 if self.entry is not None else None
        return () if self.series is None else tuple(p for p in self.series.points if p.result != mine)


def judged_figures(history: History, config: NightlyConfig, outcome: Outcome, until: str) -> list[Tonight]:
    """until: the time to which the history of a cell without a result reaches, that of the night's start."""
    there, problems = _entries(history, outcome)
    past = _past(history, config, outcome, there)
    found = []
    for kind, figure, asked in _wanted(config, outcome, there, past):
        entry = there.get(kind)
        series = _cut(past, kind, figure, entry, until)
        missing = _missing(outcome, kind, figure, entry, series, problems)
        if missing is not None and not asked and not any(not math.isnan(p.value) for p in (series.points if series else ())):
            continue  # a figure that this cell never has
        found.append(Tonight(outcome, kind, figure, entry, series, missing))
    return found


def _entries(history: History, outcome: Outcome) -> tuple[dict[Kind, Entry], list[str]]:
    """Tonight's results by kind, and what keeps the others from being read."""
    found: dict[Kind, Entry] = {}
    problems = []
    for sha256 in outcome.results:
        try:
            entry = history.entry(sha256)
        except HistoryError as error:
            problems.append(str(error))
        else:
            found[entry.kind] = entry
    return found, problems


def _past(history: History, config: NightlyConfig, outcome: Outcome, there: dict[Kind, Entry]) -> list[Series]:
    """The cell's series, of the limit that the night runs with."""
    cell = outcome.cell
    limit = config.suites[cell.index].limit or 0
    limits = {limit, 0, *(entry.limit for entry in there.values())}  # FLOPs are not of images, and have none
    found = history.series(Selection((cell.suite,), (cell.row,), (cell.variant,), limits=tuple(sorted(limits))))
    return [s for s in found if s.key.kind == "flops" or s.key.limit in (limits - {0} if limit else limits)]


def kinds_of(measure: Collection[str]) -> list[Kind]:
    """The results that a cell of these measurements leaves."""
    asked: Sequence[tuple[Kind, bool]] = (
        ("accuracy", "accuracy" in measure), ("speed", bool({"speed", "energy"} & set(measure))), ("flops", "flops" in measure),
    )  # fmt: skip
    return [kind for kind, there in asked if there]


def _wanted(
    config: NightlyConfig, outcome: Outcome, there: dict[Kind, Entry], past: Sequence[Series]
) -> list[tuple[Kind, str, bool]]:
    """Kind, figure, and whether it must be there; of a kind's figures that nobody named the first must."""
    kinds = kinds_of(outcome.cell.measure)
    named = config.suites[outcome.cell.index].figures
    if named:
        found = [(_kind_of(name, kinds, there, past), name) for name in named]
        return [(kind, name, True) for kind, name in found if kind is not None]
    figures: dict[Kind, tuple[str, ...]] = {"accuracy": ACCURACY[outcome.cell.task], **USUAL}
    chosen = []
    for kind in kinds:
        known = {s.key.figure for s in past if s.key.kind == kind and any(not math.isnan(p.value) for p in s.points)}
        known |= {f.name for f in there[kind].figures if not math.isnan(f.value)} if kind in there else set()
        first = next((f for f in figures[kind] if f in known), figures[kind][0])
        chosen += [(kind, figure, figure == first) for figure in figures[kind]]
    return chosen


def _kind_of(name: str, kinds: Sequence[Kind], there: dict[Kind, Entry], past: Sequence[Series]) -> Kind | None:
    """The kind of result that has the figure: tonight's, else an earlier one, else the first that may have it; None where none of this cell has
    (FLOPs are counted in the first cell of a row only)."""
    for kind in kinds:
        if kind in there and there[kind].figure(name) is not None:
            return kind
    earlier = [s.key.kind for s in past if s.key.figure == name]
    possible = [kind for kind in kinds if kind in earlier] or [kind for kind in kinds if may_have(kind, name)]
    return possible[0] if possible else None


def _cut(past: Sequence[Series], kind: Kind, figure: str, entry: Entry | None, until: str) -> Series | None:
    """The figure's series up to and with tonight's point; without a result the one that was measured last, up to tonight."""
    mine = [s for s in past if s.key.kind == kind and s.key.figure == figure]
    if entry is not None:
        for series in mine:
            place = next((k for k, point in enumerate(series.points) if point.result == entry.sha256), None)
            if place is not None:
                return replace(series, points=series.points[: place + 1])
    earlier = [replace(s, points=tuple(p for p in s.points if p.time < until)) for s in mine]
    earlier = [s for s in earlier if s.points]
    return max(earlier, key=lambda s: s.points[-1].time, default=None)


def _missing(
    outcome: Outcome, kind: Kind, figure: str, entry: Entry | None, series: Series | None, problems: Sequence[str]
) -> str | None:
    if entry is None:
        if outcome.state != "done":
            return f"{outcome.state}: {outcome.reason}" if outcome.reason else outcome.state
        return problems[0] if problems else f"the cell left no {kind} result"
    if entry.status in ("unavailable", "unsupported", "predicted"):
        return f"{entry.status}: {entry.reason}" if entry.reason else entry.status
    found = entry.figure(figure)
    if found is None:
        return f"its {kind} result has no {figure}"
    if math.isnan(found.value):
        said = f" ({entry.warnings[0]})" if entry.warnings else ""
        return f"could not be measured{said}"
    if series is None or series.points[-1].result != entry.sha256:
        return "its result is not among the history's series; m2fbench history show says why"
    return None
