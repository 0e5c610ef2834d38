"""A night judged: every figure of every cell against its baselines."""

import datetime
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.runs import Tell, silent
from m2fbench.errors import M2FBenchError
from m2fbench.history.history import History
from m2fbench.history.records import PairedRecord
from m2fbench.nightly.against import Scene, against_last_good, baseline_of
from m2fbench.nightly.asides import changed_and_steady, not_compared
from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.judged import Tonight, judged_figures
from m2fbench.nightly.named import against_published, against_release, below_already, release_result
from m2fbench.nightly.pairing import Again, Pairing, paired
from m2fbench.nightly.records import Cell, FigureVerdict, NightFacts, Outcome, Status, Verdict

Repeat = Callable[[Cell], Path | None]
_NEVER = ("unsupported", "unavailable")
"""Outcomes of cells that cannot run here at all, which are no failure of the night."""


def judge(
    history: History,
    config: NightlyConfig,
    facts: NightFacts,
    outcomes: Sequence[Outcome],
    repeat: Repeat,
    tell: Tell = silent,
) -> Verdict:
    """What the night shows. Comparisons that the history lacks are made and kept in it, so that judging again finds them.

    repeat: runs the accuracy of a cell once more from nothing and gives the run's folder; None where no time is left, or it failed.
    """
    figures: list[FigureVerdict] = []
    notes: list[str] = []
    for outcome in (outcome for outcome in outcomes if outcome.state != "left out"):
        of_cell, said = _judge_cell(history, config, facts, outcome, repeat, tell)
        figures += of_cell
        notes += said
    notes += [*not_compared(figures), *changed_and_steady(figures)]
    complete = all(outcome.state != "interrupted" for outcome in outcomes)
    finished = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return Verdict(
        facts.nightly, facts.title, facts.night, facts.started, finished, facts.machine, status_of(outcomes, figures), complete,
        tuple(outcomes), tuple(figures), tuple(notes),
    )  # fmt: skip


def status_of(outcomes: Sequence[Outcome], figures: Sequence[FigureVerdict]) -> Status:
    """The worst of them. A cell that cannot run here is no failure, unless it once could: its figures then are unmeasured."""
    if any(f.state == "regression" for f in figures):
        return "regression"
    undone = any(outcome.state not in ("done", "left out", *_NEVER) for outcome in outcomes)
    return "unmeasured" if undone or any(f.state == "unmeasured" for f in figures) else "ok"


def _judge_cell(
    history: History, config: NightlyConfig, facts: NightFacts, outcome: Outcome, repeat: Repeat, tell: Tell
) -> tuple[list[FigureVerdict], list[str]]:
    found = judged_figures(history, config, outcome, facts.started)
    notes = []
    if outcome.state in _NEVER:
        notes.append(f"{outcome.cell.name}: {outcome.state}: {outcome.reason or 'no reason given'}")
        found = [t for t in found if any(not math.isnan(p.value) for p in t.earlier)]  # it once could
    reasons = _compare(history, config, outcome, found, repeat, tell)
    found = judged_figures(history, config, outcome, facts.started) if reasons is not None else found
    scene = Scene(history, config.rules.rules, reasons or {})
    verdicts: list[FigureVerdict] = []
    for baseline in config.baselines:
        of_baseline = list(_against(scene, config, baseline, found))
        if baseline == "published" and not of_baseline and found:
            notes.append(f"{outcome.cell.name}: no figure of it is published")
        verdicts += of_baseline
    return verdicts, notes


def _against(scene: Scene, config: NightlyConfig, baseline: str, found: Sequence[Tonight]) -> Iterator[FigureVerdict]:
    for tonight in found:
        if baseline == "last-good":
            yield against_last_good(scene, tonight)
        elif baseline == "published":
            verdict = against_published(scene, tonight, (config.resamples, config.seed))
            if verdict is not None:
                yield verdict
        else:
            yield against_release(scene, tonight, baseline)


def _compare(
    history: History, config: NightlyConfig, outcome: Outcome, found: Sequence[Tonight], repeat: Repeat, tell: Tell
) -> Mapping[str, str] | None:
    """Compare tonight's predictions with those of every baseline that the cell's accuracy figures have. Baseline -> why it could not be
    compared; None where there was nothing to do."""
    rules = config.rules.rules
    wanted: dict[str, list[Tonight]] = {}
    fresh: dict[str, set[str]] = defaultdict(set)
    lost: dict[str, dict[str, float]] = defaultdict(dict)
    for tonight in found:
        if tonight.kind != "accuracy" or tonight.point is None:
            continue
        known = baseline_of(tonight, rules) if "last-good" in config.baselines else None
        if known is not None:
            held_to = known.level or known.point  # of a regression that stands already a second run has nothing to add
            fresh[held_to.result].add(tonight.figure)
            if known.open:
                lost[known.point.result][tonight.figure] = known.lost
            for result in dict.fromkeys((known.point.result, held_to.result)):
                wanted.setdefault(result, []).append(tonight)
        for name in (b for b in config.baselines if b.startswith("release:")):
            entry = release_result(history, tonight, name)
            if not isinstance(entry, str) and entry.sha256 != tonight.point.result:
                wanted.setdefault(entry.sha256, []).append(tonight)
                if not below_already(tonight, entry, rules):
                    fresh[entry.sha256].add(tonight.figure)
    again: Again = cache(lambda: _told(outcome.cell, repeat, tell))  # one second run serves all baselines
    reasons: dict[str, str] = {}
    for baseline, figures in wanted.items():
        tell(f"{outcome.cell.name}: comparing with {baseline[:12]} over the same images")
        judged = tuple(t.figure for t in figures)
        pairing = Pairing(config.resamples, config.seed, rules, judged, frozenset(fresh[baseline]), lost[baseline])
        asked = again if config.repeat and (fresh[baseline] or lost[baseline]) else None
        (run,) = {t.point.result for t in figures if t.point is not None}
        record = paired(history, baseline, run, pairing, known=_known(figures, baseline), again=asked, tell=tell)
        if not isinstance(record, PairedRecord):
            reasons[baseline] = record
    return reasons if wanted else None


def _known(figures: Sequence[Tonight], baseline: str) -> dict[str, Estimate]:
    """The baseline's own figures with their intervals, as far as the history has them."""
    points = {t.figure: p for t in figures if t.series is not None for p in t.series.points if p.result == baseline}
    return {figure: Estimate(point.value, point.low, point.high) for figure, point in points.items()}


def _told(cell: Cell, repeat: Repeat, tell: Tell) -> Path | None:
    tell(f"{cell.name}: its accuracy moved; running it a second time, from nothing")
    try:
        folder = repeat(cell)
    except M2FBenchError as error:
        tell(f"{cell.name}: the second run failed: {error}")
        return None
    if folder is None:
        tell(f"{cell.name}: no second run could be made")
    return folder
