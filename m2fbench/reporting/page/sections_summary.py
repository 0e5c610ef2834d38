"""The top of a report: the main figures, which run is better and whether that is sure, and where the first run of each suite fails."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from m2fbench.analysis.findings import Difference
from m2fbench.analysis.runs import Run
from m2fbench.analysis.worst import worst_subset
from m2fbench.history.entries import disturbed
from m2fbench.reporting.page.frame import cost_of, line_of, speed_scope
from m2fbench.reporting.page.looking import Compared, Looked
from m2fbench.reporting.page.records import Headline, InShort
from m2fbench.reporting.page.sections_results import Material, machine_of, said_by
from m2fbench.reporting.page.tables import MAIN, record_key, task_of
from m2fbench.reporting.terminal.comparison import verdict

if TYPE_CHECKING:
    import pandas as pd

HEADLINES = 6
_WORST = 3  # classes named
_NAMED = 3  # runs named that were not compared


def headlines(material: Material) -> tuple[Headline, ...]:
    """The first run's main figures and costs; of further suites their first run's first figure. What sets runs apart is ``in_short``."""
    found = []
    for number, runs in enumerate(material.suites.values()):
        run = runs[0]
        for metric in MAIN[task_of(run)] if number == 0 else MAIN[task_of(run)][:1]:
            line = line_of(material.frame, run.label, metric)
            if line is not None and not math.isnan(float(line["value"])):
                link = record_key(material.numbers[run.label])
                found.append(Headline(metric, run.label, f"{line['value']:.1f}", _context(line), link))
    return tuple([*found, *_cost_headlines(material, material.runs[0])][:HEADLINES])


def _context(line: "pd.Series[float]") -> str:
    said = []
    if not math.isnan(float(line["low"])):
        said.append(f"95 %: {line['low']:.1f} to {line['high']:.1f}")
    if not math.isnan(float(line["published"])):
        compared = f" ({_signed(line['difference'])})" if line["comparable"] else ", not comparable"
        said.append(f"published {line['published']:g}{compared}")
    return "; ".join(said)


def _cost_headlines(material: Material, run: Run) -> Iterator[Headline]:
    scope = speed_scope(material.frame)
    slowed = "; disturbed: see warnings" if disturbed(run.speed) else ""
    for cost, unit, scale, context in (
        ("parameters", "M parameters", 1e6, ""),
        ("FLOPs", "G FLOPs an image", 1e9, "a multiply-add is one"),
        ("fps", "images a second", 1.0, f"scope {scope}, {machine_of(run.speed)}{slowed}"),
    ):
        value = cost_of(material.frame, run.label, cost) / scale
        if not math.isnan(value):
            yield Headline(unit, run.label, f"{value:.4g}", context, record_key(material.numbers[run.label]))


def in_short(material: Material, compared: Iterable[Compared]) -> tuple[InShort, ...]:
    """Each comparison's verdict on the main figures, then what the first run of each suite loses most by."""
    found, untold = [], []
    for one in compared:
        if one.comparison is None:
            untold.append((one.run.label, f"{one.problem}"))
            continue
        by_name = {d.figure: d for d in one.comparison.differences if d.category is None}
        said = [(verdict(d), _difference(d)) for metric in MAIN[task_of(one.run)] if (d := by_name.get(metric)) is not None]
        words = "; ".join(f"{figure}, {word}" for word, figure in said)
        if words:
            found.append(InShort(f"{one.run.label} against {one.comparison.a}", f"{words}.", "comparison"))
    told = said_by(untold if len(untold) <= _NAMED else [(f"{len(untold)} runs", why) for _, why in untold])
    found += [InShort("Whether runs differ", f"not tested: {line}.", "comparison") for line in told]
    for runs in material.suites.values():
        run = runs[0]
        weak = _weaknesses(material, run, material.looked[run.label])
        found += [InShort(f"{run.label}, {what}", f"{text}.", link) for what, text, link in weak]
    return tuple(found)


def _difference(d: Difference) -> str:
    interval = f" ({_signed(d.difference.low)} to {_signed(d.difference.high)})" if d.difference.has_interval else ""
    return f"{d.figure} {_signed(d.difference.value)}{interval}"


def _weaknesses(material: Material, run: Run, looked: Looked) -> Iterator[tuple[str, str, str]]:
    """(what, in words, key of the section that says more): the costliest errors, the worst classes, the worst of the subsets."""
    metric = MAIN[task_of(run)][0]
    for errors in looked.errors[:1]:  # of the task's own head
        shares = sorted((s for s in errors.shares if s.cost > 0), key=lambda s: -s.cost)[:2]
        if shares:
            yield "costliest errors", ", ".join(f"{s.name} ({s.cost:.1f} points of {errors.figure})" for s in shares), "errors"
    by_class = "IoU" if metric == "mIoU" else metric
    lines = material.frame[(material.frame.run == run.label) & (material.frame.metric == by_class)]
    lines = lines[lines.category.notna() & lines.subset.isna()].dropna(subset=["value"])
    worst = lines.drop_duplicates("category").sort_values("value", kind="stable")[:_WORST]
    if len(worst):
        named = ", ".join(f"{line.category} {line.value:.1f}" for line in worst.itertuples())
        yield "worst classes", f"{by_class} of {named}", "classes"
    worst = worst_subset(task_of(run), looked.disaggregation, looked.intervals)
    if worst is not None:
        e, where = worst.estimate, f"{worst.subset.attribute}, {worst.subset.subset}"
        lost = f"{worst.loss:.1f} points less than over all, the largest loss of the subsets measured"
        yield "worst subset", f"{where}: {worst.figure} {e.value:.1f} ({e.low:.1f} to {e.high:.1f}), {lost}", "subsets"


def _signed(value: float) -> str:
    return f"{round(float(value), 2) + 0.0:+.2f}"  # + 0.0: never "-0.00"
