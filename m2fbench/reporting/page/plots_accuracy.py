"""Figures of how good runs are: each beside the published figure, against what it costs, by class, by object size, by subset."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m2fbench.analysis.findings import Comparison, SubsetFinding
from m2fbench.reporting.page import plots
from m2fbench.reporting.page.frame import cost_of, line_of, speed_scope
from m2fbench.reporting.page.records import Figure

if TYPE_CHECKING:
    import pandas as pd

COSTS: Mapping[str, tuple[str, float, bool]] = {
    "FLOPs": ("FLOPs an image, G", 1e9, False),
    "parameters": ("parameters, M", 1e6, False),
    "fps": ("images per second", 1.0, True),
}
"""Cost -> (axis label, what it is divided by, whether more of it is better)."""
SHOWN_CLASSES = 40
"""Bars that a figure has room for; of more classes the lowest and the highest are drawn."""
OTHERS = 4
"""Further runs whose classes are marked beside the first one's bars."""


@dataclass(frozen=True)
class Point:
    """name at (cost, value); measured, or as published. low, high: interval of the cost; NaN for an end that is not known."""

    name: str
    cost: float
    value: float
    measured: bool = True
    low: float = math.nan
    high: float = math.nan

    @property
    def ends(self) -> tuple[float, float]:
        """What the cost lies between: the cost itself where it has no interval."""
        if math.isnan(self.low):
            return self.cost, self.cost
        return self.low, math.inf if math.isnan(self.high) else self.high


def pareto_front(points: Sequence[tuple[float, float]], more_is_better: bool = False) -> list[int]:
    """Indices of the points (cost, value) that no other beats: none has as much value at less cost, or more value at as much.

    Ordered by cost, ascending; of equal points the first. more_is_better: of the cost (images per second), which is then maximised. Points
    with NaN are on no front.
    """
    sign = -1.0 if more_is_better else 1.0
    known = [i for i, point in enumerate(points) if not any(map(math.isnan, point))]
    front: list[int] = []
    best = -math.inf
    for i in sorted(known, key=lambda i: (sign * points[i][0], -points[i][1], i)):
        if points[i][1] > best:
            best = points[i][1]
            front.append(i)
    return sorted(front, key=lambda i: points[i][0])


def undecided(points: Sequence[Point], more_is_better: bool = False) -> list[int]:
    """Indices of the points that are on the front or are not, for all that is known: the interval of their cost meets that of a point of as much
    value or more, and none of these is surely cheaper."""
    found = []
    for i, point in enumerate(points):
        low, high = point.ends
        above = [other for k, other in enumerate(points) if k != i and other.value >= point.value]
        beaten = any((other.ends[0] > high) if more_is_better else (other.ends[1] < low) for other in above)
        meets = any(
            other.ends[0] <= high and low <= other.ends[1]
            for other in above
            if not (math.isnan(other.low) and math.isnan(point.low))
        )
        found += [i] if meets and not beaten else []
    return found


def overview(frame: "pd.DataFrame", runs: Sequence[str], metrics: Sequence[str], key: str, title: str) -> Figure | None:
    """Every run's main figures with their intervals, each beside the published one; None where nothing was measured."""
    shown = [m for m in metrics if any(not math.isnan(_value(frame, run, m)) for run in runs)]
    if not shown:
        return None
    height = 1.15 + 0.3 * len(runs)
    with plots.drawing(height=height, columns=len(shown), sharey=True, squeeze=False) as (drawn, grid):
        for axes, metric in zip(grid[0], shown, strict=True):
            for place, run in enumerate(runs):
                _estimate(axes, line_of(frame, run, metric), place, plots.look(place))
            axes.set_title(metric, loc="left")
            axes.grid(axis="y", visible=False)
            axes.margins(x=0.12)
        grid[0][0].set_yticks(range(len(runs)), [plots.named(run) for run in runs])
        grid[0][0].set_ylim(len(runs) - 0.5, -0.5)
        lines = [line_of(frame, run, m) for run in runs for m in shown]
        sure = any(line is not None and not math.isnan(float(line["low"])) for line in lines)
        _measured_and_published(
            drawn, sure, published=any(not math.isnan(_published(frame, run, m)) for run in runs for m in shown)
        )
        said = "; ".join(
            f"{run}: " + ", ".join(f"{m} {_value(frame, run, m):.2f}" for m in shown if not math.isnan(_value(frame, run, m)))
            for run in runs
        )
        caption = (
            "Percent; open marks are the published figures, beside runs that are comparable with them."
            if not sure
            else "Percent; lines are 95 % intervals where they were computed, open marks the published figures, beside runs that are comparable "
            "with them."
        )
        return plots.finished(drawn, key, title, caption, f"Dot plot of {', '.join(shown)}. {said}")


def _estimate(axes: Any, line: "pd.Series[Any] | None", place: float, look: plots.Look) -> None:
    if line is None:
        return
    value, low, high = (float(line[name]) for name in ("value", "low", "high"))
    if not math.isnan(value):
        bars = plots.error_bars([value], [low], [high])
        axes.errorbar([value], [place], xerr=bars, fmt=look.marker, color=look.color, capsize=3, zorder=3)
    if not math.isnan(_comparable(line)):
        axes.plot([line["published"]], [place], "D", markerfacecolor="none", markeredgecolor=plots.GREY, markersize=9, zorder=2)


def _measured_and_published(drawn: Any, sure: bool, published: bool) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            marker="o",
            color=plots.GREY,
            linestyle="-" if sure else "none",
            label=f"measured{', 95 % interval' if sure else ''}",
        )
    ]
    if published:
        handles.append(
            Line2D([], [], marker="D", markerfacecolor="none", markersize=9, color=plots.GREY, linestyle="none", label="published")
        )
    drawn.legend(handles=handles, loc="outside lower left", ncols=2)


def _value(frame: "pd.DataFrame", run: str, metric: str) -> float:
    line = line_of(frame, run, metric)
    return math.nan if line is None else float(line["value"])


def _published(frame: "pd.DataFrame", run: str, metric: str) -> float:
    return _comparable(line_of(frame, run, metric))


def _comparable(line: "pd.Series[Any] | None") -> float:
    """The published figure beside a measured one; NaN where there is none, or none that it may be held against."""
    return float(line["published"]) if line is not None and line["comparable"] else math.nan


def trade_off(
    frame: "pd.DataFrame", runs: Sequence[str], metric: str, cost: str, printed: Iterable[Point] = (), key: str = ""
) -> Figure | None:
    """A metric against a cost, with the front of the measured as far as intervals of the cost tell it. printed: published points beside them.
    None where fewer than two points have both."""
    label, scale, more = COSTS[cost]
    measured = [_measured(frame, run, metric, cost) for run in runs]
    points = [p for p in measured if not (math.isnan(p.cost) or math.isnan(p.value))]
    published = [Point(p.name, p.cost / scale, p.value, False) for p in printed]
    if not points or len(points) + len(published) < 2:
        return None
    unsure = undecided(points, more)
    front = [i for i in pareto_front([(p.cost, p.value) for p in points], more) if i not in unsure]
    with plots.drawing(height=3.7) as (drawn, axes):
        for point in published:
            axes.plot([point.cost], [point.value], "D", markerfacecolor="none", markeredgecolor=plots.GREY, zorder=2)
            axes.annotate(plots.named(point.name, 20), (point.cost, point.value), (5, 4), textcoords="offset points", fontsize=7.5)
        if len(front) > 1 and not unsure:
            axes.plot([points[i].cost for i in front], [points[i].value for i in front], color=plots.GREY, linestyle="--", zorder=1)
        for point in points:
            look = plots.look(runs.index(point.name))
            axes.errorbar(
                [point.cost], [point.value], xerr=plots.error_bars([point.cost], [point.low], [point.high]), fmt=look.marker, color=look.color,
                markersize=8, capsize=3, zorder=3,
            )  # fmt: skip
            axes.plot([], [], look.marker, color=look.color, markersize=8, label=plots.named(point.name))
        axes.set_xlabel(label + (" (more is better)" if more else ""))
        axes.set_ylabel(f"{metric}, %")
        axes.margins(0.15)
        plots.plain_axis(axes.xaxis)
        plots.legend_below(drawn, axes)
        caption = _front_in_words(points, front, unsure)
        if published:
            caption += " Open marks: as published, on the published hardware."
        said = "; ".join(f"{p.name}: {p.value:.2f} at {p.cost:.4g}" for p in points)
        return plots.finished(drawn, key, f"{metric} against {label.split(',')[0]}", caption, f"Scatter plot. {said}")


def _measured(frame: "pd.DataFrame", run: str, metric: str, cost: str) -> Point:
    """One run's point, with the interval of its speed."""
    scale = COSTS[cost][1]
    line = line_of(frame, run, cost, scope=speed_scope(frame)) if cost == "fps" else None
    low, high = (math.nan, math.nan) if line is None else (float(line["low"]) / scale, float(line["high"]) / scale)
    return Point(run, cost_of(frame, run, cost) / scale, _value(frame, run, metric), low=low, high=high)


def _front_in_words(points: Sequence[Point], front: Sequence[int], unsure: Sequence[int]) -> str:
    """The front's points, those that may be on it, and what the lines are."""
    lines = " Lines are 95 % intervals." if any(not math.isnan(point.low) for point in points) else ""
    best = ", ".join(points[i].name for i in front)
    if not unsure:
        return f"On the Pareto front (dashed where it has more than one point): {best}.{lines}"
    open_ = ", ".join(points[i].name for i in unsure)
    return (
        f"Whether on the Pareto front cannot be told: {open_}, as the interval meets that of another run of no less accuracy; so no front is drawn."
        f"{f' On it: {best}.' if best else ''}{lines}"
    )


def class_bars(lines: "pd.DataFrame", runs: Sequence[str], metric: str, key: str) -> Figure | None:
    """One bar a class of the first run, lowest first, with intervals; further runs as marks. lines: of the frame."""
    lines = lines[lines.category.notna() & lines.subset.isna()]
    first = lines[(lines.run == runs[0]) & (lines.metric == metric)].dropna(subset=["value"]).sort_values("value", kind="stable")
    if first.empty:
        return None
    left_out = max(0, len(first) - SHOWN_CLASSES)
    half = SHOWN_CLASSES // 2
    names = [str(name) for name in first.category]
    chosen = [*names[:half], None, *names[-half:]] if left_out else list(names)
    of = first.set_index("category")
    with plots.drawing(height=0.9 + 0.19 * len(chosen) + (0.25 if len(runs) > 1 else 0)) as (drawn, axes):
        places = {name: place for place, name in enumerate(chosen) if name is not None}
        rows = [of.loc[name] for name in places]
        axes.barh(
            list(places.values()), [r.value for r in rows], color=plots.BLUE, alpha=0.75, height=0.72, label=plots.named(runs[0]),
            xerr=plots.error_bars([r.value for r in rows], [r.low for r in rows], [r.high for r in rows]), ecolor=plots.GREY,
        )  # fmt: skip
        for number, run in enumerate(runs[1 : OTHERS + 1], 1):
            other = lines[(lines.run == run) & (lines.metric == metric)].set_index("category").value
            marks = [(other[name], place) for name, place in places.items() if name in other.index]
            look = plots.look(number)
            axes.plot(
                *zip(*marks, strict=True), look.marker, color=look.color, markersize=4.5, label=plots.named(run)
            ) if marks else None
        labels = [f"… {left_out} between …" if name is None else plots.named(name) for name in chosen]
        axes.set_yticks(range(len(chosen)), labels)
        axes.set_ylim(-0.6, len(chosen) - 0.4)
        axes.set_xlabel(f"{metric}, %")
        axes.grid(axis="y", visible=False)
        if len(runs) > 1:
            plots.legend_below(drawn, axes)
        extremes = (
            ", ".join(f"{n} {of.loc[n].value:.1f}" for n in names[:5]),
            ", ".join(f"{n} {of.loc[n].value:.1f}" for n in names[:-6:-1]),
        )
        caption = f"{metric} of each class, {runs[0]}" + (", lines are 95 % intervals" if first.low.notna().any() else "") + "."
        caption += f" {left_out} classes between the lowest and the highest {half} are in the table only." if left_out else ""
        alt = f"Bar chart of {metric} of {len(names)} classes. Lowest: {extremes[0]}. Highest: {extremes[1]}."
        return plots.finished(drawn, key, f"{metric} by class", caption, alt)


def grouped_bars(
    frame: "pd.DataFrame", runs: Sequence[str], metrics: Mapping[str, str], key: str, title: str, caption: str
) -> Figure | None:
    """Bars side by side: a group for each of ``metrics`` (its name -> what the axis calls it), in it one bar a run."""
    known = [run for run in runs if any(not math.isnan(_value(frame, run, m)) for m in metrics)]
    if not known:
        return None
    wide = 0.8 / len(known)
    with plots.drawing(height=3.1) as (drawn, axes):
        for number, run in enumerate(known):
            lines = [line_of(frame, run, metric) for metric in metrics]
            values = [math.nan if line is None else float(line["value"]) for line in lines]
            ends = [[math.nan if line is None else float(line[end]) for line in lines] for end in ("low", "high")]
            look = plots.look(runs.index(run))
            places = [group + (number - (len(known) - 1) / 2) * wide for group in range(len(metrics))]
            axes.bar(
                places, values, wide * 0.9, color=look.color, hatch=look.hatch, edgecolor=plots.PAPER, linewidth=0.5,
                label=plots.named(run), yerr=plots.error_bars(values, *ends), ecolor=plots.GREY, capsize=2,
            )  # fmt: skip
            printed = [_comparable(line) for line in lines]
            axes.plot(places, printed, "D", markerfacecolor="none", markeredgecolor=plots.PAPER, markersize=7)
        axes.set_xticks(range(len(metrics)), list(metrics.values()))
        axes.set_ylabel("%")
        axes.grid(axis="x", visible=False)
        plots.legend_below(drawn, axes)
        said = "; ".join(f"{run}: " + ", ".join(f"{m} {_value(frame, run, m):.1f}" for m in metrics) for run in known)
        return plots.finished(drawn, key, title, caption, f"Bar chart. {said}")


def subset_dots(subsets: Sequence[SubsetFinding], metric: str, overall: float, key: str) -> Figure | None:
    """A figure over each part of the evidence, with its interval; hollow and grey where there is too little to say anything."""
    chosen = [s for s in subsets if metric in s.figures and not math.isnan(s.figures[metric].value)]
    if not chosen:
        return None
    attributes = list(dict.fromkeys(s.attribute for s in chosen))
    rows: list[SubsetFinding | str] = []
    for attribute in attributes:
        rows += [attribute, *(s for s in chosen if s.attribute == attribute)]
    with plots.drawing(height=0.9 + 0.2 * len(rows)) as (drawn, axes):
        for place, row in enumerate(rows):
            if isinstance(row, str):
                continue
            estimate = row.figures[metric]
            color, fill = (plots.BLUE, plots.BLUE) if row.enough else (plots.GREY, "none")
            axes.errorbar(
                [estimate.value], [place], xerr=plots.error_bars([estimate.value], [estimate.low], [estimate.high]), fmt="o", color=color,
                markerfacecolor=fill, capsize=2.5, linestyle="none",
            )  # fmt: skip
        if not math.isnan(overall):
            axes.axvline(overall, color=plots.VERMILLION, linestyle="--", linewidth=1)
        labels = [
            plots.named(row, 40) if isinstance(row, str) else f"{plots.named(row.subset, 34)} ({_count(row)})" for row in rows
        ]
        axes.set_yticks(range(len(rows)), labels)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if isinstance(row, str) else "normal")
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel(f"{metric}, %")
        axes.grid(axis="y", visible=False)
        said = "; ".join(
            f"{s.attribute}, {s.subset}: {s.figures[metric].value:.1f}" + ("" if s.enough else " (too few)") for s in chosen
        )
        caption = (
            "Lines are 95 % intervals; dashed is the figure over everything; open grey marks rest on too little to say anything."
        )
        return plots.finished(drawn, key, f"{metric} by subset", caption, f"Dot plot of {metric}. {said}")


def difference_dots(found: Comparison, key: str) -> Figure | None:
    """B - A of every figure over all classes with its paired interval; hollow where no difference is shown."""
    known = [d for d in found.differences if d.category is None and not math.isnan(d.difference.value)]
    if not known:
        return None
    with plots.drawing(height=0.9 + 0.2 * len(known)) as (drawn, axes):
        for place, d in enumerate(known):
            color = plots.GREY if not d.significant else plots.GREEN if d.difference.value > 0 else plots.VERMILLION
            value, low, high = d.difference.value, d.difference.low, d.difference.high
            axes.errorbar(
                [value], [place], xerr=plots.error_bars([value], [low], [high]), capsize=2.5, color=color, linestyle="none",
                fmt="o" if not d.significant else "^" if value > 0 else "v", markerfacecolor=color if d.significant else "none",
            )  # fmt: skip
        axes.axvline(0, color=plots.GREY, linewidth=1)
        axes.set_yticks(range(len(known)), [plots.named(d.figure) for d in known])
        axes.set_ylim(len(known) - 0.4, -0.6)
        axes.set_xlabel(f"{plots.named(found.b)} less {plots.named(found.a)}, points")
        axes.grid(axis="y", visible=False)
        said = "; ".join(
            f"{d.figure} {d.difference.value:+.2f} ({d.difference.low:+.2f} to {d.difference.high:+.2f})" for d in known
        )
        caption = "Lines are paired 95 % intervals; filled where they leave out zero, upward for better, downward for worse."
        return plots.finished(drawn, key, "Differences", caption, f"Dot plot of differences. {said}")


def _count(subset: SubsetFinding) -> str:
    return f"{subset.images:,} images" if subset.level == "image" or subset.objects is None else f"{subset.objects:,} objects"
