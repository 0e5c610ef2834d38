"""Tonight's predictions against an earlier run's over the same images: what is at hand, what is the same anyway, what a second run says."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from m2fbench.analysis.comparing import compare_runs
from m2fbench.analysis.findings import Comparison, Estimate
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.regressions import Rules, confirms, is_back
from m2fbench.analysis.runs import Evidence, Run, Tell, open_runs
from m2fbench.errors import M2FBenchError
from m2fbench.history.history import History
from m2fbench.history.records import PairedFigure, PairedRecord
from m2fbench.store import dataset_identity

SCORED_ALIKE = 1e-3
"""Points. The baseline's predictions scored anew must give the figures of its result to within this; otherwise the scoring has changed, of
which a comparison of predictions would show nothing."""

Again = Callable[[], Path | None]
"""Runs the cell once more from nothing and gives the run's folder; None where it could not."""


@dataclass(frozen=True)
class Pairing:
    """How comparisons are made. judged: figures that are looked at. fresh: of these the ones of which a drop would be news. lost: those with an open
    regression since the baseline, with what is lost at the level of the nights before, in points, positive; being back would be news."""

    resamples: int
    seed: int
    rules: Rules
    judged: tuple[str, ...]
    fresh: frozenset[str] = frozenset()
    lost: Mapping[str, float] = field(default_factory=dict)


def paired(
    history: History, baseline: str, run: str, pairing: Pairing, *, known: Mapping[str, Estimate], again: Again | None, tell: Tell
) -> PairedRecord | str:
    """What the history has of the two, else the comparison made and kept; a line that says why there is none.

    baseline, run: results' SHA-256. known: the baseline's figures with their intervals, as far as the history has them. again: asked for a
    second run where a figure dropped, or is back.
    """
    there = history.comparison(baseline, run)
    if there is not None:
        return there
    try:
        pair = _opened(history, baseline, run)
        if isinstance(pair, str):
            return pair
        record = _identical(pair, pairing, known, tell) or _compared(pair, pairing, tell)
        if isinstance(record, str):
            return record
    except M2FBenchError as error:
        return str(error)
    if again is not None and not record.identical and (moved := news(record, pairing)):
        record = replace(record, repeated=_repeated(moved, pair, pairing, again, tell))
    history.add_comparison(record)
    return record


@dataclass(frozen=True)
class _Pair:
    """Both runs opened. a, b: their results. before, now: the figures that stand in these."""

    a: str
    b: str
    first: Evidence
    second: Evidence
    runs: tuple[Run, Run]
    before: Mapping[str, float]
    now: Mapping[str, float]


def _opened(history: History, baseline: str, run: str) -> _Pair | str:
    first, second = evidence_of(history, baseline), evidence_of(history, run)
    if isinstance(first, str):
        return f"predictions of the baseline are not at hand: {first}"
    if isinstance(second, str):
        return f"predictions of the night are not at hand: {second}"
    assert first.evidence is not None
    assert second.evidence is not None
    before, now = ({f.name: f.value for f in history.entry(sha256).figures} for sha256 in (baseline, run))
    return _Pair(baseline, run, first.evidence, second.evidence, (first, second), before, now)


def news(record: PairedRecord, pairing: Pairing) -> dict[str, bool]:
    """The figures that a second run must confirm: False for those that dropped, True for those that are back. Of accuracy every figure is the
    better the higher it is."""
    rules, found = pairing.rules, {}
    for f in record.figures:
        difference, p = f.difference.value, f.p_value
        if f.name in pairing.fresh and is_drop(difference, p, rules):
            found[f.name] = False
        elif f.name in pairing.lost and is_back(difference, p, pairing.lost[f.name], rules):
            found[f.name] = True
    return found


def is_drop(difference: float, p_value: float, rules: Rules) -> bool:
    """Whether a paired difference stands out of chance and is large enough to count, downwards."""
    return p_value <= rules.alpha and difference <= -rules.points and difference < 0


def evidence_of(history: History, sha256: str) -> Run | str:
    """The run directory of an accuracy result, opened, with predictions and dataset at hand; a line that says what is not."""
    path = history.result(sha256).path
    if path is None:
        return "its run directory is on another machine, deleted, or holds a later run"
    if not any(any(path.parent.glob(pattern)) for pattern in ("predictions.json", "panoptic.json", "semantic/*.png")):
        return f"deleted from {path.parent}"
    (run,) = open_runs([path.parent])
    if run.result is None or run.result.path is None or run.result.path.name != path.name:
        return f"{path.parent} holds a run of more images"
    return _whole(run)


def _whole(run: Run) -> Run | str:
    if run.evidence is None:
        return str(run.problem)
    gone = next((file for file in _files(run.evidence) if not file.is_file()), None)
    return run if gone is None else f"{gone} is gone"


def _files(evidence: Evidence) -> list[Path]:
    """Every prediction file, in an order that two runs of the same images share."""
    p = evidence.predictions
    maps = sorted(p.panoptic_folder.glob("*.png")) if p.panoptic_folder is not None else []
    semantic = [] if p.semantic is None else [p.semantic[i] for i in evidence.image_ids]
    return [*(file for file in (p.instances, p.panoptic) if file is not None), *maps, *semantic]


def same_predictions(a: Evidence, b: Evidence) -> bool:
    """Byte for byte, over the same images of the same dataset, scored by the same rules."""
    if a.image_ids != b.image_ids or a.suite.metrics != b.suite.metrics or a.suite.rules != b.suite.rules:
        return False
    if a.predictions.heads != b.predictions.heads or a.dataset.categories != b.dataset.categories:
        return False
    if dataset_identity(a.dataset.fingerprint()) != dataset_identity(b.dataset.fingerprint()):
        return False
    ours, theirs = _files(a), _files(b)
    return [f.name for f in ours] == [f.name for f in theirs] and all(
        one.stat().st_size == other.stat().st_size and one.read_bytes() == other.read_bytes()
        for one, other in zip(ours, theirs, strict=True)
    )


def _identical(pair: _Pair, pairing: Pairing, known: Mapping[str, Estimate], tell: Tell) -> PairedRecord | str | None:
    """Of the same predictions there is nothing to resample: the difference is 0. None where they are not the same."""
    if not same_predictions(pair.first, pair.second):
        return None
    if changed := _scored_otherwise(pair.before, pair.now):
        return f"the predictions are those of the baseline, byte for byte, and are scored otherwise since: {changed}"
    if any(name not in known or not known[name].has_interval for name in pairing.judged if name in pair.now):
        found = intervals(pair.second, resamples=pairing.resamples, seed=pairing.seed, tell=tell)
        known = {figure: estimate for (figure, category), estimate in found.figures.items() if category is None}
    figures = []
    for name, value in pair.now.items():
        if name in pair.before and not math.isnan(value):
            ends = known.get(name, Estimate(value))
            alone = Estimate(value, ends.low, ends.high)
            figures.append(PairedFigure(name, alone, alone, Estimate(0.0, 0.0, 0.0), 1.0))
    images = len(pair.first.examples)
    return PairedRecord(pair.a, pair.b, images, pairing.resamples, pairing.seed, tuple(figures), identical=True)


def _compared(pair: _Pair, pairing: Pairing, tell: Tell) -> PairedRecord | str:
    found = compare_runs(*pair.runs, resamples=pairing.resamples, seed=pairing.seed, tell=tell)
    if found.images == len(pair.first.examples) and (
        changed := _scored_otherwise(pair.before, {d.figure: d.a for d in found.differences if d.category is None})
    ):
        return f"the baseline's predictions are scored otherwise since: {changed}"
    return _record(pair.a, pair.b, found)


def _record(baseline: str, run: str, found: Comparison) -> PairedRecord:
    figures = tuple(
        PairedFigure(d.figure, d.a_interval or Estimate(d.a), d.b_interval or Estimate(d.b), d.difference, d.p_value)
        for d in found.differences
        if d.category is None
    )
    return PairedRecord(baseline, run, found.images, found.resamples, found.seed, figures)


def _scored_otherwise(before: Mapping[str, float], now: Mapping[str, float]) -> str:
    """``AP was 71.24, is 66.02``, for the first figure of the same predictions that is not what it was; "" where there is none."""
    for name, value in now.items():
        old = before.get(name, math.nan)
        if abs(value - old) > SCORED_ALIKE:
            return f"{name} was {old:.2f}, is {value:.2f}"
    return ""


def _repeated(moved: Mapping[str, bool], pair: _Pair, pairing: Pairing, again: Again, tell: Tell) -> bool | None:
    """Whether a second run shows the same of all figures that moved (``news``): those that dropped drop too (``confirms``), those that are back
    are back too. None where there is none to compare, or it says yes of some and not of others, and the next night must tell."""
    folder = again()
    if folder is None:
        return None
    try:
        (opened,) = open_runs([folder])
        repeat = _whole(opened)
        if isinstance(repeat, str):
            tell(f"the second run cannot be compared: {repeat}")
            return None
        if repeat.evidence is not None and same_predictions(pair.second, repeat.evidence):
            return True
        found = compare_runs(pair.runs[0], repeat, resamples=pairing.resamples, seed=pairing.seed, tell=tell)
    except M2FBenchError as error:
        tell(f"the second run cannot be compared: {error}")
        return None
    answers: dict[str, bool | None] = {}
    for d in found.differences:
        if d.category is None and d.figure in moved:
            difference, p = d.difference.value, d.p_value
            back = moved[d.figure] and is_back(difference, p, pairing.lost[d.figure], pairing.rules)
            answers[d.figure] = back if moved[d.figure] else confirms(difference, p, pairing.rules)
    said = {answers.get(name) for name in moved}
    return said.pop() if len(said) == 1 else None
