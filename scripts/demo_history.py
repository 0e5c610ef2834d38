"""A made-up history of nightlies, for looking at the dashboard and for timing it: nothing in it was measured.

    python scripts/demo_history.py FOLDER [--nights 365]      # then: m2fbench dashboard --history FOLDER -o SITE

Four suites, ten cells, accuracy, speed and FLOPs of each, with what happens in a year: noise that is each machine's own, drift, nights that
stand out, disturbed nights, nights without a figure, steps both ways with what caused them in the circumstances, a machine that is replaced by
another, and a protocol that changes.
"""

import argparse
import datetime
import hashlib
import json
import math
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.series import Point, Series, SeriesKey
from m2fbench.history.entries import conditions_hash, depends_on_machine
from m2fbench.history.history import History
from m2fbench.history.records import Entry, PairedFigure, PairedRecord
from m2fbench.results import Kind, RunResult
from m2fbench.types import JsonObject, Measurement

LAST = datetime.datetime(2026, 11, 30, 2, 30, tzinfo=datetime.UTC)
UNITS: dict[str, tuple[str, bool]] = {
    "fps": ("images/s", True), "latency": ("s", False), "latency_p99": ("s", False), "peak_device_memory": ("bytes", False),
    "peak_process_memory": ("bytes", False), "FLOPs": ("count", False), "parameters": ("count", False),
}  # fmt: skip
PARTS = {"APs": "small", "APm": "medium", "APl": "large"}


@dataclass(frozen=True)
class Event:
    """From the night that is ``before`` nights before the last on, ``until`` one, a figure is multiplied (costs) or raised (accuracy, points) by
    ``by``; ``what``: circumstance and its new value."""

    figures: tuple[str, ...]
    before: int
    by: float
    what: tuple[str, str] | None = None
    until: int = -1


@dataclass(frozen=True)
class Stream:
    """One result a night: figures with their levels, their noise (points, or a share), and what happens to them."""

    suite: str
    row: str
    variant: str
    kind: Kind
    figures: dict[str, float]
    noise: float
    machine: str = "NVIDIA H200"
    events: tuple[Event, ...] = ()
    first: int = 10**6
    last: int = -1
    drift: float = 0.0
    restart: int | None = None
    paired: bool = False


@dataclass
class Facts:
    """What all results of a night share."""

    night: int
    time: datetime.datetime
    libraries: dict[str, str] = field(default_factory=dict)
    commit: str = ""
    driver: str = ""


def facts(night: int, nights: int) -> Facts:
    """Versions as they come out over a year."""
    before = nights - 1 - night
    torch = "2.11.0" if before > 210 else "2.12.0" if before > 60 else "2.12.1"
    commit = hashlib.sha1(f"commit {before // 4}".encode()).hexdigest()
    jitter = random.Random(night).randint(-600, 2400)
    time = LAST - datetime.timedelta(days=before) + datetime.timedelta(seconds=jitter)
    return Facts(night, time, {"torch": torch, "transformers": "5.17.0" if before > 150 else "5.23.0", "numpy": "2.4.6", "pillow": "13.0.0"}, commit,
                 "570.86.15" if before > 120 else "580.65.06")  # fmt: skip


def year() -> list[Stream]:
    """The streams of the demonstration."""
    found: list[Stream] = []
    h200, a100 = "NVIDIA H200", "NVIDIA A100-SXM4-80GB"
    for row, ap, fps in (("R50", 43.7, 31.0), ("Swin-T", 45.0, 27.5), ("Swin-L", 50.1, 12.4)):
        found += _cell(
            "coco_instance", row, "float32", {"AP": ap, "AP50": ap * 1.5, "APs": ap * 0.55, "APm": ap * 1.08, "APl": ap * 1.42}, fps
        )
    found += _cell("coco_panoptic", "R50", "float32", {"PQ": 51.9, "AP_th_pan": 41.7, "mIoU_pan": 61.7}, 28.0)
    found += _cell("coco_panoptic", "Swin-L", "float32", {"PQ": 57.8, "AP_th_pan": 48.6, "mIoU_pan": 67.4}, 11.2,
                   accuracy=(Event(("PQ", "AP_th_pan"), 170, -0.42, ("protocol", "resize"), until=120), Event(("PQ",), 42, 0.31)))  # fmt: skip
    found += _cell("ade20k_semantic", "Swin-T", "float32", {"mIoU": 47.7}, 41.0)
    found += _cell(
        "ade20k_semantic", "Swin-T", "float16", {"mIoU": 47.68}, 66.0, accuracy=(Event(("mIoU",), 11, -0.63, ("checkpoint", "9")),)
    )
    found += _cell("cityscapes_panoptic", "R50", "float32", {"PQ": 62.1, "AP_th_pan": 37.3, "mIoU_pan": 77.5}, 9.1, restart=230)
    found += _cell("cityscapes_panoptic", "Swin-B", "float16", {"PQ": 66.1, "AP_th_pan": 42.8, "mIoU_pan": 82.7}, 8.4,
                   speed=(Event(("fps",), 205, 1.24), Event(("fps",), 88, 0.90, until=60), Event(("peak_device_memory",), 25, 1.11)))  # fmt: skip
    found += [
        Stream("coco_instance", "R50", "compiled", "accuracy", {"AP": 43.69, "AP50": 65.5}, 0.012, paired=True),
        Stream("coco_instance", "R50", "compiled", "speed", {"fps": 24.0, "latency": 1 / 24, "peak_device_memory": 1.9e9}, 0.011, a100, last=140),
        Stream("coco_instance", "R50", "compiled", "speed", {"fps": 44.0, "latency": 1 / 44, "peak_device_memory": 1.9e9}, 0.007, h200, first=140,
               events=(Event(("fps",), 17, 0.935, ("torch", "2.13.0")), Event(("latency",), 17, 1 / 0.935))),
    ]  # fmt: skip
    return found


def _cell(
    suite: str, row: str, variant: str, accuracy_of: dict[str, float], fps: float, *, accuracy: tuple[Event, ...] = (),
    speed: tuple[Event, ...] = (), restart: int | None = None,
) -> list[Stream]:  # fmt: skip
    heavy = {"R50": 1.0, "Swin-T": 1.05, "Swin-B": 2.1, "Swin-L": 4.0}[row]
    half = 0.55 if variant == "float16" else 1.0
    costs = {"fps": fps, "latency": 1 / fps, "latency_p99": 1.4 / fps, "peak_device_memory": 2.6e9 * heavy * half}
    return [
        Stream(suite, row, variant, "accuracy", accuracy_of, 0.012, events=accuracy, restart=restart, paired=True),
        Stream(suite, row, variant, "speed", costs, 0.006, events=speed, drift=0.0001 if row == "Swin-T" else 0.0),
        Stream(suite, row, variant, "flops", {"FLOPs": 226e9 * heavy, "parameters": 44e6 * heavy}, 0.0),
    ]


def results(streams: list[Stream], nights: int, seed: int = 7) -> Iterator[RunResult]:
    """Night by night, stream by stream."""
    draws = random.Random(seed)
    for night in range(nights):
        around = facts(night, nights)
        before = nights - 1 - night
        for stream in streams:
            if stream.last < before <= stream.first and draws.random() > 0.01:
                yield _result(stream, around, before, draws)


def _result(stream: Stream, around: Facts, before: int, draws: random.Random) -> RunResult:
    timed = stream.kind == "speed"
    disturbed = timed and draws.random() < 0.02
    gone = stream.kind != "flops" and before and draws.random() < 0.006
    odd = draws.choice((-6.0, 6.0)) if draws.random() < 0.004 and before > 2 else 0.0
    shock = draws.gauss(0, 1) + odd
    values = {
        name: _value(stream, name, level, before, shock + draws.gauss(0, 0.4), disturbed) for name, level in stream.figures.items()
    }
    measured = [_measurement(name, math.nan if gone else value) for name, value in values.items()]
    if timed and not gone:
        measured += [_measurement(f"fps{end}", values["fps"] * (1 + share)) for end, share in (("_low", -0.012), ("_high", 0.012))]
    environment: JsonObject = {
        "m2fbench": "0.1.0", "m2fbench_commit": around.commit, "python": "3.11.9", "platform": "Linux-6.8.0-x86_64", "processor": "AMD EPYC 9654",
        "cpu_count": 96, "machine_name": stream.machine, "driver": around.driver, "libraries": dict(around.libraries),
    }  # fmt: skip
    checkpoint = hashlib.sha256(stream.row.encode()).hexdigest()
    for event in stream.events:
        if event.what and event.until < before <= event.before:
            kind, value = event.what
            checkpoint = value * 64 if kind == "checkpoint" else checkpoint
            if kind == "torch":
                environment["libraries"]["torch"] = value
    minimum = 800 if stream.restart is None or before > stream.restart else 1024
    found = RunResult(
        suite={"name": stream.suite, "sha256": hashlib.sha256(stream.suite.encode()).hexdigest()}, row=stream.row,
        variant={"name": stream.variant, "dtype": "float16" if stream.variant == "float16" else "float32", "compile": stream.variant == "compiled"},
        status="complete", kind=stream.kind, measurements=tuple(measured), started=around.time.isoformat(), finished=around.time.isoformat(),
        environment=environment, rules={"mean_iou": "present"},
        warnings=("latencies drift by 9 % over the run: something else took the machine's time",) if disturbed else (),
    )  # fmt: skip
    if stream.kind == "flops":
        return found
    known: JsonObject = {
        "checkpoint": {"reference": f"zoo:{stream.suite}/{stream.row}", "sha256": checkpoint, "parameters": 44_000_000},
        "dataset": {"name": stream.suite.split("_")[0], "images": 5000, "annotations_sha256": "a" * 64, "scored_images": 5000},
        "protocol": {"name": "paper", "min_size": minimum, "max_size": 1333, "version": 2}, "device": {"kind": f"cuda {stream.machine}"},
        "details": {"scopes": {"paper": {"heads": ["instance"]}}, "machine": {}} if timed else None,
    }  # fmt: skip
    return RunResult(**{**found.__dict__, **known})


def _value(stream: Stream, name: str, level: float, before: int, shock: float, disturbed: bool) -> float:
    unit, higher = UNITS.get(name, ("percent", True))
    active = [e for e in stream.events if name in e.figures and e.until < before <= e.before]
    if unit == "percent":
        shift = sum(e.by for e in active) + (1.9 if stream.restart is not None and before <= stream.restart else 0.0)
        return level + shift + stream.noise * shock
    share = 1 + stream.noise * shock * (0.08 if unit == "bytes" else 1 if higher else -1)
    share *= math.prod(e.by for e in active) * (1 - stream.drift * (365 - before) if name == "fps" else 1.0)
    slowed = 0.93 if disturbed and unit in ("images/s", "s") else 1.0
    return level * share * (slowed if higher else 1 / slowed)


def _measurement(name: str, value: float) -> Measurement:
    unit, higher = UNITS.get(name.removesuffix("_low").removesuffix("_high"), ("percent", True))
    return Measurement(name, value, unit, higher, subset=PARTS.get(name))


def content_of(result: RunResult) -> bytes:
    return (json.dumps(result.to_json(), ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_history(folder: Path, streams: list[Stream], nights: int) -> int:
    """Lay a history down in ``folder`` as another machine would have: its result files and paired comparisons; the number of results."""
    count = 0
    last_good: dict[tuple[str, str, str], tuple[str, RunResult]] = {}
    comparisons: list[PairedRecord] = []
    paired = {(s.suite, s.row, s.variant) for s in streams if s.paired}
    for result in results(streams, nights):
        content = content_of(result)
        name = hashlib.sha256(content).hexdigest()
        place = folder / "results" / name[:2] / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        count += 1
        cell = (result.suite["name"], result.row, result.variant["name"])
        if result.kind == "accuracy" and cell in paired and not math.isnan(result.measurements[0].value):
            comparisons += _compared(last_good, cell, name, result)
    with History(folder) as history:
        for record in comparisons:
            history.add_comparison(record)
    return count


def _compared(
    good: dict[tuple[str, str, str], tuple[str, RunResult]], cell: tuple[str, str, str], name: str, result: RunResult
) -> list[PairedRecord]:
    """With the last good run, which the run becomes unless it dropped; differences of over a tenth of a point are sure."""
    if cell not in good or good[cell][1].protocol != result.protocol:
        good[cell] = (name, result)
        return []
    baseline, before = good[cell]
    old = {m.name if m.subset is None else f"{m.name} ({m.subset})": m.value for m in before.measurements}
    figures = []
    for m in result.measurements:
        figure = m.name if m.subset is None else f"{m.name} ({m.subset})"
        d = m.value - old[figure]
        figures.append(
            PairedFigure(
                figure, Estimate(old[figure]), Estimate(m.value), Estimate(d, d - 0.07, d + 0.07), 0.0005 if abs(d) > 0.1 else 0.4
            )
        )
    if all(abs(f.difference.value) < 0.1 for f in figures) or figures[0].difference.value > 0.2:
        good[cell] = (name, result)
    return (
        [PairedRecord(baseline, name, 5000, 4000, 0, tuple(figures))] if any(abs(f.difference.value) > 0.1 for f in figures) else []
    )


def series_of(entries: list[Entry]) -> list[Series]:
    """As a history gives them, without paired comparisons."""
    points: dict[SeriesKey, list[Point]] = defaultdict(list)
    known: dict[SeriesKey, tuple[str, bool]] = {}
    for e in entries:
        conditions = conditions_hash(e.conditions)
        for f in e.figures:
            machine = e.machine if depends_on_machine(e.kind, f.name, f.unit) else ""
            key = SeriesKey(e.suite, e.row, e.variant, e.kind, f.name, e.limit, machine)
            known[key] = (f.unit, f.higher_is_better)
            points[key].append(Point(e.sha256, e.time, f.value, f.low, f.high, conditions, e.machine, e.disturbed))
    return [Series(key, *known[key], tuple(found)) for key, found in points.items()]


def flat(series: int, nights: int) -> list[Stream]:
    """Streams of four series each, for timing; a step in every third."""
    levels: dict[str, Any] = {"AP": 43.7, "PQ": 51.9, "mIoU": 61.0, "AP50": 66.0}
    costs = {"fps": 31.0, "latency": 1 / 31, "peak_device_memory": 2.6e9, "peak_process_memory": 3.1e9}
    found = []
    for number in range(series // 4):
        row, speed = f"checkpoint-{number // 2:02}", number % 2 == 1
        events = (Event(("fps",), nights // 3, 0.9),) if speed and number % 3 == 0 else ()
        kind: Kind = "speed" if speed else "accuracy"
        figures, noise = (costs, 0.008) if speed else (levels, 0.02)
        found.append(Stream(f"suite-{number % 5}", row, "default", kind, figures, noise, events=events))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--nights", type=int, default=365)
    options = parser.parse_args()
    print(f"{write_history(options.folder, year(), options.nights)} results in {options.folder}")


if __name__ == "__main__":
    main()
