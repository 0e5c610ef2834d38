"""The page of one series: its chart, its steps and what changed with each, and its nights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import escape

from m2fbench.analysis.circumstances import changes, in_short, words
from m2fbench.analysis.series import Paired, Step
from m2fbench.reporting.dashboard.axes import seconds_of
from m2fbench.reporting.dashboard.digest import STATUSES, Digest, Site, circumstances, levels
from m2fbench.reporting.dashboard.naming import clean, day, minute
from m2fbench.reporting.dashboard.page import json_text, markup, render
from m2fbench.reporting.dashboard.svg import chart, mark, marks_of
from m2fbench.reporting.dashboard.units import percent

ZOOMS = (30, 90, 365)
COLUMNS = (
    "environment.m2fbench_commit",
    "checkpoint.sha256",
    "environment.libraries.torch",
    "environment.libraries.transformers",
    "gpu.driver",
    "environment.driver",
    "environment.python",
)
"""What of a night's circumstances stands in the table of nights and beside the chart."""
LEGEND = {
    "regression": "regression: first night of a step to the worse",
    "improvement": "improvement: first night of a step to the better",
    "recovered": "recovered: first night back from a regression",
    "suspect": "suspect: stands out, too few nights yet to say that it stays",
    "outlier": "outlier: stood out and did not stay",
    "disturbed": "disturbed: something else took the machine's time",
    "unmeasured": "unmeasured: no value",
    "restart": "restart: other conditions than before, not compared with it",
}


@dataclass(frozen=True)
class StepRow:
    """One step as its line in the table says it. kind: its direction, "recovered" where it made up for a regression; made_up: what that means.
    first, last_good: names of the two runs; first_day, last_good_day: their days, with the names of their nights. acceptance: (day, reason).
    changes: (what, before, after) in words, of what differs between the two runs."""

    step: Step
    kind: str
    change: str
    made_up: str
    before: str
    after: str
    first: str
    first_day: str
    last_good: str
    last_good_day: str
    nights: int
    evidence: str
    acceptance: tuple[str, str] | None
    changes: tuple[tuple[str, str, str], ...]


def series_page(site: Site, digest: Digest, others: Sequence[Digest], title: str) -> str:
    """others: series of the same cell, this one among them."""
    seconds = seconds_of(digest.points)
    icon, meaning = STATUSES[digest.status]
    key, drawn = digest.key, _charts(digest, seconds)
    return render(
        "series.html.j2",
        site=title, root="../", here="series", d=digest, key=key, icon=icon, meaning=meaning, limit=_limit(digest), facts=_facts(site, digest),
        charts=drawn, legend=[(markup(mark(kind)), LEGEND[kind]) for kind in marks_of(digest)],
        has_intervals=any('class="whiskers"' in c["svg"] or 'class="band"' in c["svg"] for c in drawn),
        has_cuts=any('class="mark cut"' in c["svg"] for c in drawn), cut=markup(mark("cut")),
        since=dated(site, digest, digest.step.first) if digest.step else "",
        has_levels=bool(levels(digest.detection, digest.series)), steps=[step_row(site, digest, step) for step in digest.detection.steps[::-1]],
        rest=[o for o in others if o.slug != digest.slug], reason=_reason(site, digest), data=markup(json_text(_data(site, digest, seconds))),
    )  # fmt: skip


def _limit(digest: Digest) -> str:
    return f"first {digest.key.limit} images" if digest.key.limit else ""


def _reason(site: Site, digest: Digest) -> str:
    """Why the last night gave no value."""
    entry = site.entries.get(digest.points[-1].result)
    return "" if entry is None or digest.status != "unmeasured" else entry.reason or "the run did not give this figure"


def _facts(site: Site, digest: Digest) -> list[tuple[str, str, str]]:
    """(what, value, beside it)"""
    scale, points, noise = digest.scale, digest.points, digest.detection.noise
    night = "" if digest.latest is None else site.night(points[digest.latest])
    named = f", night {night}" if night else ""
    facts = [("Latest", scale.text(digest.value), f"{minute(digest.time)} UTC{named}{_interval(digest)}")]
    if not math.isnan(digest.level):
        against = "the level before" if digest.step else "the nights before"
        against += " the regression" if digest.step and digest.status != "improvement" else ""
        facts.append(("Change", digest.change_text, f"against {against}, {scale.text(digest.level)}"))
    if not math.isnan(noise):
        facts.append(("A night's noise", *_noise(digest)))
    trend = digest.detection.trend
    if trend is not None:
        facts.append(("Drift", percent(trend.change), f"over {trend.days:.0f} days, {trend.points} nights"))
    measured = sum(not math.isnan(p.value) for p in points)
    days = " to ".join(dict.fromkeys((day(points[0].time), day(points[-1].time))))
    facts.append(("Nights", f"{len(points)}", f"{days}, {measured} measured"))
    return facts


def _interval(digest: Digest) -> str:
    """Of accuracy over the images, which are the same every night: how much another set of images would change it, not another night."""
    last = digest.points[-1 if digest.latest is None else digest.latest]
    if math.isnan(last.low) or math.isnan(last.high):
        return ""
    scale = digest.scale
    over = " over the images" if scale.unit == "percent" else ""
    return f"; 95 % interval{over} {scale.number(last.low)} to {scale.number(last.high)}"


def _noise(digest: Digest) -> tuple[str, str]:
    """In points of percentages; otherwise in the unit, and as a share of the level."""
    scale, noise, level = digest.scale, digest.detection.noise, digest.level
    if scale.unit == "percent":
        return f"± {_brief(noise)} points", "one standard deviation"
    share = f"{_brief(100 * noise / abs(level))} % of its level" if level and not math.isnan(level) else "one standard deviation"
    return f"± {_brief(noise / scale.factor)} {scale.label}".rstrip(), share


def _brief(value: float) -> str:
    """Two digits, written out."""
    return f"{float(f'{value:.2g}'):.15g}"


def _charts(digest: Digest, seconds: Sequence[float]) -> list[dict[str, Any]]:
    """One a zoom; as many as there are nights for."""
    total = len(digest.points)
    found: list[dict[str, Any]] = []
    for nights in (*(n for n in ZOOMS if n < total), None):
        name = f"last {nights}" if nights else "all"
        count = nights or total
        label = f"{clean(digest.key.figure)} of {clean(digest.key.cell)}, {count} nights; latest {digest.scale.text(digest.value)}"
        drawn = chart(digest, nights, seconds, str(escape(label)))
        found.append({"key": str(nights or "all"), "name": name, "svg": markup(drawn), "checked": False})
    best = next((c for c in found if c["key"] == "365"), found[-1])
    best["checked"] = True
    return found


def step_row(site: Site, digest: Digest, step: Step) -> StepRow:
    first, good, acceptance = digest.points[step.first], digest.points[step.last_good], site.acceptance(digest, step)
    return StepRow(
        step, "recovered" if step.ends is not None else step.direction, digest.step_text(step), _made_up(site, digest, step),
        digest.scale.text(step.before), digest.scale.text(step.after), site.name(first.result), dated(site, digest, step.first),
        site.name(good.result), dated(site, digest, step.last_good), len(digest.points) - step.first, _evidence(digest, step),
        None if acceptance is None else (day(acceptance.time), acceptance.reason),
        tuple((c.what, in_short(c.before), in_short(c.after)) for c in changes(circumstances(site, good), circumstances(site, first))),
    )  # fmt: skip


def dated(site: Site, digest: Digest, index: int) -> str:
    """A night's day, with the night's name where that says more."""
    night = site.night(digest.points[index])
    return day(digest.points[index].time) + (f" (night {night})" if night else "")


def _made_up(site: Site, digest: Digest, step: Step) -> str:
    """Of a recovery, how far it is from where the figure stood before the regression; "" of others."""
    ended = digest.ended_by(step)
    if ended is None:
        return ""
    left = digest.scale.change(step.after - ended.before, ended.before)
    return (
        f"{left} against the level before the regression of {dated(site, digest, ended.first)}, {digest.scale.text(ended.before)}"
    )


def _evidence(digest: Digest, step: Step) -> str:
    paired = digest.points[step.first].paired.get(digest.points[step.last_good].result)
    if step.evidence == "paired" and paired is not None:
        return paired_text(digest, paired)
    nights = step.found - step.first + 1
    beside = "" if paired is None else f"; {paired_text(digest, paired)}"
    return f"{nights} night{'s' if nights != 1 else ''} at the new level{beside}"


def paired_text(digest: Digest, paired: Paired) -> str:
    if paired.identical:
        return f"the same predictions on all {paired.images} images"
    number = digest.scale.number
    estimate = paired.difference
    interval = f" ({number(estimate.low, signed=True)} to {number(estimate.high, signed=True)})" if estimate.has_interval else ""
    text = f"{number(estimate.value, signed=True)} points{interval} on the same {paired.images} images, p = {paired.p_value:.2g}"
    return text + {True: ", again in a second run", False: ", not in a second run", None: ""}[paired.repeated]


def _data(site: Site, digest: Digest, seconds: Sequence[float]) -> dict[str, Any]:
    """For the page's script: of every night what is not to be seen in the chart."""
    pool: dict[tuple[object, ...], int] = {}
    machines: dict[str, int] = {}
    states: dict[str, int] = {}
    nights: list[list[Any]] = []
    places = {point.result: i for i, point in enumerate(digest.points)}

    def newest(paired: Paired) -> tuple[int, str]:
        return -places.get(paired.baseline, -1), paired.baseline

    columns = [key for key in COLUMNS if any(key in circumstances(site, point) for point in digest.points)]
    for i, (point, state) in enumerate(zip(digest.points, digest.states, strict=True)):
        around = circumstances(site, point)
        texts = tuple(around.get(key) for key in columns)
        paired = "; ".join(
            f"{paired_text(digest, p)}, against {site.name(p.baseline)}" for p in sorted(point.paired.values(), key=newest)
        )
        night = [
            site.name(point.result), round(seconds[i]), minute(point.time), *map(_finite, (point.value, point.low, point.high)),
            states.setdefault(state, len(states)), int(point.disturbed) + 2 * int(point.accepted), machines.setdefault(point.machine, len(machines)),
            pool.setdefault(texts, len(pool)),
        ]  # fmt: skip
        named = site.night(point)
        nights.append([*night, paired, named] if named else [*night, paired] if paired else night)
    scale = digest.scale
    printed = [["" if value is None else in_short(value) for value in texts] for texts in pool]
    return {
        "scale": [scale.factor, scale.digits, scale.label], "figure": digest.key.figure, "states": list(states), "machines": list(machines),
        "columns": [words(key) for key in columns], "pool": printed, "nights": nights,
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
