"""Figures of what runs cost: how long images take, and where the time and the FLOPs go."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from m2fbench.reporting.page import plots
from m2fbench.reporting.page.records import Figure
from m2fbench.reporting.terminal.costs import OUTSIDE
from m2fbench.results import RunResult

PERCENTILES = (50, 90, 99)


def read_latencies(result: RunResult) -> dict[str, list[float]]:
    """Scope -> seconds of each image that counts, from the table beside a speed result; empty where that is not there, or cannot be read."""
    if result.path is None:
        return {}
    found: dict[str, list[float]] = {}
    try:
        with Path(result.path).with_suffix(".csv").open(newline="", encoding="utf-8") as file:
            for line in csv.DictReader(file):
                if line["counted"] == "1" and not line["failure"]:
                    found.setdefault(line["scope"], []).append(float(line["seconds"]))
    except (OSError, KeyError, ValueError, TypeError):
        return {}
    return found


def latency_distribution(seconds: Mapping[str, Sequence[float]], names: Sequence[str], key: str, scope: str) -> Figure | None:
    """Share of the images that take at most so long, a line a run. seconds: by run; names: all runs of the report, which give the looks."""
    known = {name: sorted(values) for name, values in seconds.items() if values}
    if not known:
        return None
    with plots.drawing(height=3.5) as (drawn, axes):
        for name, values in known.items():
            look = plots.look(names.index(name))
            share = [(i + 1) / len(values) for i in range(len(values))]
            milliseconds = [1000 * value for value in values]
            axes.step(milliseconds, share, where="post", color=look.color, linestyle=look.line, label=plots.named(name))
            at = [float(np.percentile(milliseconds, p)) for p in PERCENTILES]
            axes.plot(at, [p / 100 for p in PERCENTILES], look.marker, color=look.color, markersize=5)
        axes.set_xlabel("ms an image")
        axes.set_ylabel("share of images within")
        axes.set_ylim(0, 1.04)
        if max(v[-1] for v in known.values()) > 5 * min(v[0] for v in known.values()):
            axes.set_xscale("log")
        plots.plain_axis(axes.xaxis)
        plots.legend_below(drawn, axes)
        said = "; ".join(
            f"{name}: median {1000 * values[len(values) // 2]:.1f} ms of {len(values)} images" for name, values in known.items()
        )
        caption = f"Scope {scope}. Marks: " + ", ".join(f"{p}th" for p in PERCENTILES) + " percentile."
        return plots.finished(drawn, key, "How long images take", caption, f"Cumulative distribution. {said}")


def stacked(parts: Mapping[str, Mapping[str, float]], key: str, title: str, unit: str, caption: str) -> Figure | None:
    """One bar a run, of its parts one after the other. parts: run -> part -> amount; those outside of what is measured stand apart, hollow."""
    runs = [run for run, values in parts.items() if values]
    if not runs:
        return None
    names = list(dict.fromkeys(name for run in runs for name in parts[run]))
    names = [n for n in names if n not in OUTSIDE] + [n for n in OUTSIDE if n in names]
    with plots.drawing(height=1.3 + 0.36 * len(runs)) as (drawn, axes):
        starts = np.zeros(len(runs))
        for number, name in enumerate(names):
            amounts = np.array([parts[run].get(name, 0.0) for run in runs])
            amounts = np.where(np.isnan(amounts), 0.0, amounts)
            look, outside = plots.look(number), name in OUTSIDE
            axes.barh(
                range(len(runs)), amounts, left=starts, height=0.62, color="none" if outside else look.color,
                edgecolor=plots.GREY if outside else plots.PAPER, linewidth=0.6, hatch=look.hatch, label=f"({name})" if outside else name,
            )  # fmt: skip
            starts = starts + amounts
        axes.set_yticks(range(len(runs)), [plots.named(run) for run in runs])
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        plots.legend_below(drawn, axes)
        said = "; ".join(f"{run}: " + ", ".join(f"{n} {v:.3g}" for n, v in parts[run].items() if not math.isnan(v)) for run in runs)
        return plots.finished(drawn, key, title, caption, f"Stacked bars, {unit}. {said}")
