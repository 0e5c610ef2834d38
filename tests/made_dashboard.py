"""Entries and series for tests of the dashboard, with names that try to be something else than text."""

import hashlib
from dataclasses import replace
from functools import cache

from demo_history import Event, Stream, content_of, results, series_of

from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.series import Paired, Series
from m2fbench.history.entries import entry_of
from m2fbench.history.records import Entry, Problem

NIGHTS = 60
BAD = "</script><img src=x onerror=alert(1)>"
QUOTED = "row \"with\" 'quotes' & <b> ../../up"
RIGHT = "نموذج \u202eevil\x00\x1b"
NAME = "night <script>alert(1)</script>"
LONG = "averylongnamewithoutanyplacetobreak" * 8
STREAMS = [
    Stream("shapes", "tiny", "default", "accuracy", {"AP": 43.7, "AP50": 66.0}, 0.012, events=(Event(("AP",), 20, -0.8, ("checkpoint", "9")),)),
    Stream("shapes", "tiny", "default", "speed", {"fps": 31.0, "latency": 1 / 31}, 0.006, events=(Event(("fps",), 9, 0.9, ("torch", "2.99.0")),)),
    Stream("shapes", "tiny", "fp16", "speed", {"fps": 55.0}, 0.006, "another machine", events=(Event(("fps",), 25, 1.2),)),
    Stream("shapes", "tiny", "default", "flops", {"FLOPs": 226e9}, 0.0),
    Stream(BAD, QUOTED, RIGHT, "accuracy", {"PQ": 51.9}, 0.012, restart=30),
    Stream("shapes", LONG, "default", "speed", {"fps": 8.0, "peak_device_memory": 2e9}, 0.006, f"{LONG} <i>"),
]  # fmt: skip
PROBLEMS = [
    Problem(f"s3://me:secret@bucket/{BAD}.json", "damaged", "no JSON; add it again"),
    Problem("b.json", "newer", "update m2fbench"),
]


@cache
def made(nights: int = NIGHTS) -> tuple[list[Entry], list[Series]]:
    """The first so many of the nights."""
    entries = []
    for result in results(STREAMS, NIGHTS):
        sha256 = hashlib.sha256(content_of(result)).hexdigest()
        entry = entry_of(result, sha256, (f"/runs/{BAD}", "s3://me:secret@bucket/x.json"))
        named = {"environment.night": f"{NAME} {entry.time[8:10]}"} if entry.suite == BAD else {}
        entries.append(replace(entry, circumstances=dict(entry.circumstances) | named))
    days = sorted({e.time[:10] for e in entries})[:nights]
    entries = [e for e in entries if e.time[:10] <= days[-1]]
    return entries, [_paired(one) for one in series_of(entries)]


def _paired(series: Series) -> Series:
    """Accuracy with a paired comparison of every night with the first one."""
    if series.key.figure != "AP":
        return series
    first = series.points[0]
    points = [
        replace(p, paired={first.result: Paired(first.result, 200, Estimate(p.value - first.value, p.value - first.value - 0.1,
                                                                           p.value - first.value + 0.1), 0.0004)})
        for p in series.points[1:]
    ]  # fmt: skip
    return replace(series, points=(first, *points))
