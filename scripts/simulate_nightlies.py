"""How surely steps are found in nights that are made up, and how often one is seen where there is none.

    python scripts/simulate_nightlies.py [--speed-years 100] [--accuracy-years 25] [--seed 0]

A year is 365 nights, 1 % of them without a figure. Speed: log-normal noise about a level that drifts by up to 3 % in the year, each night
correlated by 0.3 with the one before, 2 % outlier nights of 4 to 30 % (three of four slower, half of those known to be disturbed) and
one step. Accuracy: 500 images whose scores stay but for a tenth of them, which chance moves every night; one step, which a fifth of the images
carry. Every accuracy night is compared with the night that is the baseline then, by the paired bootstrap over the images (4000 resamples), as
a nightly does it, with a second run where the figure drops, or without. Only nights with a figure are counted. Alarms are false that belong
to no planted step, gains included.
"""

import argparse
import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import product
from statistics import median

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.bootstrap import bootstrap, difference, p_values, percentiles
from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.regressions import Rules, confirms, detect
from m2fbench.analysis.series import Detection, Paired, Point, Series, SeriesKey
from m2fbench.types import Floats, Summary

NIGHTS = 365
IMAGES = 500
RESAMPLES = 4000  # as a nightly takes by default
SPEED = SeriesKey("simulated", "r50", "fp16", "speed", "fps", machine="machine 1")
ACCURACY = SeriesKey("simulated", "r50", "fp16", "accuracy", "PQ")


@dataclass(frozen=True)
class Planted:
    """A change of the truth. night: the first at the new level. size: of speed a share of the level, of accuracy points; losses negative."""

    night: int
    size: float


@dataclass(frozen=True)
class SpeedYear:
    """noise: the standard deviation of a night, as a share. drift: over the year, as a share."""

    noise: float
    planted: tuple[Planted, ...] = ()
    nights: int = NIGHTS
    level: float = 40.0
    drift: float = 0.03
    outliers: float = 0.02
    missing: float = 0.01
    correlation: float = 0.3


def speed_series(year: SpeedYear, rng: np.random.Generator, key: SeriesKey = SPEED) -> Series:
    """Images/s, night after night."""
    fresh = rng.normal(0, year.noise, year.nights)
    wander = fresh.copy()
    for k in range(1, year.nights):
        wander[k] = year.correlation * wander[k - 1] + math.sqrt(1 - year.correlation**2) * fresh[k]
    ramp = np.linspace(0, year.drift, year.nights)
    truth = np.full(year.nights, year.level)
    for step in year.planted:
        truth[step.night :] *= 1 + step.size
    odd = rng.random(year.nights) < year.outliers
    slower = rng.random(year.nights) < 0.75
    off = rng.uniform(0.04, 0.3, year.nights)
    values = truth * (1 + ramp) * np.exp(wander) * np.where(odd, np.where(slower, 1 - off, 1 + off / 2), 1)
    disturbed = odd & slower & (rng.random(year.nights) < 0.5)
    values[rng.random(year.nights) < year.missing] = np.nan
    width = 0.1 * year.noise * values  # the interval of a night is of its own latencies, and far narrower than the nights are apart
    return Series(key, "images/s", True, tuple(
        Point(f"speed {k}", _time(k), v, v - w, v + w, machine=key.machine, disturbed=d)
        for k, (v, w, d) in enumerate(zip(values.tolist(), width.tolist(), disturbed.tolist(), strict=True))
    ))  # fmt: skip


def _time(night: int) -> str:
    return f"{date(2026, 1, 1) + timedelta(night)}T02:00:00Z"


@dataclass(frozen=True)
class AccuracyYear:
    """noise: the standard deviation of a night's figure about the truth, in points, all of it from a tenth of the images."""

    noise: float
    planted: tuple[Planted, ...] = ()
    nights: int = NIGHTS
    images: int = IMAGES
    repeat: bool = True


@dataclass(frozen=True)
class Scores:
    """Statistics whose figures are means of scores over images. scores: [N, F] in percent."""

    scores: Floats
    class_figures: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def image_ids(self) -> tuple[int, ...]:
        return tuple(range(len(self.scores)))

    @property
    def figures(self) -> tuple[str, ...]:
        return tuple(str(k) for k in range(self.scores.shape[1]))

    @property
    def truth_count(self) -> NDArray[np.int64]:
        return np.ones((len(self.scores), 0), np.int64)

    found_count = truth_count

    def summarise(self, weights: Floats) -> Summary:
        return Summary(weights @ self.scores / weights.sum(1, keepdims=True), np.zeros((len(weights), 0, 0)))

    def per_image(self) -> Floats:
        return self.scores


def accuracy_scores(year: AccuracyYear, rng: np.random.Generator, runs: int = 2) -> Floats:
    """Percent [runs, N images, nights]: of each image in each night, and what further runs of the night would have given."""
    truth = np.repeat(np.clip(rng.normal(50, 20, year.images), 0, 100)[:, None], year.nights, 1)
    for step in year.planted:
        carried = (rng.random(year.images) < 0.2) * rng.exponential(1, year.images)
        truth[:, step.night :] += (step.size * carried / carried.mean())[:, None]
    moved = rng.random((runs, year.images, year.nights)) < 0.1
    each = year.noise * math.sqrt(year.images / 0.1)
    return truth + moved * rng.normal(0, each, moved.shape)


def accuracy_series(
    year: AccuracyYear, rng: np.random.Generator, rules: Rules | None = None, *, resamples: int = RESAMPLES
) -> tuple[Series, list[Detection]]:
    """The series of a year and what was detected on each of its nights.

    Night by night, as a nightly does it: what the nights so far show names the baseline (and, while a regression is open, the last night of
    its level), tonight's run is compared with that, the comparison stands with the night. All nights are resampled at once, which are the
    same draws for all as in the comparison of two.
    """
    rules = rules or Rules()
    scores = accuracy_scores(year, rng)
    (summary,) = bootstrap([Scores(np.concatenate(list(scores), 1))], resamples=resamples, seed=0)
    first, second = summary.overall[:, : year.nights], summary.overall[:, year.nights :]
    points: list[Point] = []
    seen: list[Detection] = []
    for night in range(year.nights):
        pairs = {}
        for before in {seen[-1].baseline, seen[-1].in_line} - {None} if seen else ():
            pair = compared(first[:, before], first[:, night], year.images, points[before].result)
            if year.repeat and before == seen[-1].in_line and dropped(pair, rules):  # of what stands already there is no second run
                again = compared(first[:, before], second[:, night], year.images, points[before].result)
                pair = replace(pair, repeated=confirms(again.difference.value, again.p_value, rules))
            pairs[pair.baseline] = pair
        points.append(Point(f"accuracy {night}", _time(night), float(first[0, night]), paired=pairs))
        seen.append(detect(Series(ACCURACY, "percent", True, tuple(points)), rules))
    return Series(ACCURACY, "percent", True, tuple(points)), seen


def compared(a: Floats, b: Floats, images: int, baseline: str) -> Paired:
    """b - a, from the resampled figures of both, [1 + B] each, as ``analysis.comparing`` has it."""
    between = difference(a, b)[:, None]
    low, high = percentiles(between[1:])
    p = p_values(between[1:], images)
    return Paired(baseline, images, Estimate(float(between[0, 0]), float(low[0]), float(high[0])), float(p[0]))


def dropped(pair: Paired, rules: Rules) -> bool:
    return pair.p_value <= rules.alpha and pair.difference.value <= -rules.points


@dataclass(frozen=True)
class Found:
    """delays: of every planted step the nights with a figure from its first to the one on which it was found, 0 for the same; None where it was
    not. firsts: by how many nights the first night was told wrong. false: steps that belong to none planted."""

    delays: tuple[int | None, ...]
    firsts: tuple[int, ...]
    false: int


def held_to(planted: Sequence[Planted], points: Sequence[Point], detection: Detection, late: int = 30) -> Found:
    """A step belongs to a planted one whose direction it has and which it is found on or up to ``late`` nights after, not yet found by another."""
    left = list(detection.steps)
    delays: list[int | None] = []
    firsts: list[int] = []
    for truth in planted:
        direction = "regression" if truth.size < 0 else "improvement"
        mine = [s for s in left if s.direction == direction and 0 <= s.found - truth.night <= late]
        delays.append(measured(points[truth.night : mine[0].found]) if mine else None)
        if mine:
            firsts.append(mine[0].first - truth.night)
            left.remove(mine[0])
    return Found(tuple(delays), tuple(firsts), len(left))


def measured(points: Sequence[Point]) -> int:
    """Nights that have a figure."""
    return sum(not math.isnan(p.value) for p in points)


def row(label: str, found: Sequence[Found]) -> str:
    """Of the table: share found by the third night, share found at all, median night of being found, false alarms a series and year."""
    delays = [d for f in found for d in f.delays]
    known = [d for d in delays if d is not None]
    firsts = [n for f in found for n in f.firsts]
    in_time = f"{100 * sum(d <= 2 for d in known) / len(delays):.0f} %" if delays else ""
    at_all = f"{100 * len(known) / len(delays):.0f} %" if delays else ""
    night = f"{median(known) + 1:.0f}" if known else ""
    right = f"{100 * sum(abs(n) <= 1 for n in firsts) / len(firsts):.0f} %" if firsts else ""
    return f"| {label} | {in_time} | {at_all} | {night} | {right} | {sum(f.false for f in found) / len(found):.3f} |"


HEAD = ("found by the third night", "in 30 nights", "median night", "first night right to ±1", "false alarms a year")


def table(names: Sequence[str], rows: Sequence[str]) -> str:
    head = (*names, *HEAD)
    return "\n".join([f"| {' | '.join(head)} |", f"|{'---|' * len(head)}", *rows])


def speed_rows(years: int, seed: int) -> list[str]:
    rows = []
    for noise, size in product((0.005, 0.01, 0.02, 0.03), (0.0, 0.02, 0.03, 0.05, 0.08, 0.15)):
        found = []
        for number in range(years):
            rng = np.random.default_rng([seed, 1, int(1000 * noise), int(1000 * size), number])
            planted = (Planted(int(rng.integers(30, NIGHTS - 30)), -size if rng.random() < 0.7 else size),) if size else ()
            series = speed_series(SpeedYear(noise, planted, drift=float(rng.uniform(-0.03, 0.03))), rng)
            found.append(held_to(planted, series.points, detect(series)))
        rows.append(row(f"{100 * noise:g} % | {f'{100 * size:g} %' if size else 'none'}", found))
    return rows


def accuracy_rows(years: int, seed: int, tell: Callable[[str], None]) -> list[str]:
    rows = []
    for repeat, noise, size in product((True, False), (0.02, 0.05, 0.1), (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)):
        found = []
        for number in range(years):
            rng = np.random.default_rng([seed, 2, int(1000 * noise), int(1000 * size), number])
            planted = (Planted(int(rng.integers(30, NIGHTS - 30)), -size if rng.random() < 0.7 else size),) if size else ()
            series, seen = accuracy_series(AccuracyYear(noise, planted, repeat=repeat), rng)
            found.append(held_to(planted, series.points, seen[-1]))
        rows.append(row(f"{'yes' if repeat else 'no'} | {noise:g} | {f'{size:g}' if size else 'none'}", found))
        tell(rows[-1])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed-years", type=int, default=100, help="of each kind")
    parser.add_argument("--accuracy-years", type=int, default=25, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    started = time.perf_counter()
    print("# How surely a nightly finds a step\n")
    print(
        f"    python scripts/simulate_nightlies.py --speed-years {args.speed_years} --accuracy-years {args.accuracy_years} --seed {args.seed}\n"
    )
    print(f"Python {platform.python_version()}, numpy {importlib.metadata.version('numpy')}. {Rules()}\n")
    print(" ".join(__doc__.split("\n\n")[2].split()))
    print(f"\n## Speed, {args.speed_years} years a row\n")
    print(table(("noise of a night", "step"), speed_rows(args.speed_years, args.seed)))
    print(f"\n## Accuracy, {args.accuracy_years} years a row\n")
    rows = accuracy_rows(args.accuracy_years, args.seed, lambda _: None)
    print(table(("second run", "noise of a night, points", "step, points"), rows))
    print(f"\nMade in {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
