"""Data of the site's scripts, and of other programs.

A page opened from a disk may not read files, only load scripts; so every file of runs and of cells is a script that hands over JSON. Runs are
divided by the first two digits of their SHA-256. Circumstances, which repeat from night to night, stand once in each file.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from m2fbench.analysis.circumstances import changes
from m2fbench.history.records import Entry
from m2fbench.reporting.dashboard.digest import Digest, Site, circumstances
from m2fbench.reporting.dashboard.naming import cell_slug, clean, minute, night_name, without_password
from m2fbench.reporting.dashboard.page import json_text

Files = Iterator[tuple[str, str]]
PairedOf = Mapping[str, list[list[Any]]]


def run_files(site: Site) -> Files:
    """Every run with all that is known of it."""
    shards: dict[str, list[Entry]] = defaultdict(list)
    for entry in site.entries.values():
        shards[entry.sha256[:2]].append(entry)
    paired = _paired(site)
    for digits, entries in sorted(shards.items()):
        yield f"data/runs/{digits}.js", _script(f"runs/{digits}", _shard(site, sorted(entries, key=lambda e: e.sha256), paired))


def _script(name: str, value: Any) -> str:
    return f"received({json.dumps(name)},{json_text(value)});\n"


class _Pool:
    """Values that occur again and again, each once."""

    def __init__(self) -> None:
        self._places: dict[Any, int] = {}

    def place(self, value: Any) -> int:
        return self._places.setdefault(value, len(self._places))

    @property
    def values(self) -> list[Any]:
        return list(self._places)


def _shard(site: Site, entries: Sequence[Entry], paired: PairedOf) -> dict[str, Any]:
    pairs, figures, texts, cells = _Pool(), _Pool(), _Pool(), _Pool()
    known: dict[tuple[tuple[str, object], ...], list[int]] = {}

    def places(mapping: Mapping[str, object]) -> list[int]:
        items = tuple(mapping.items())
        found = known.get(items)
        if found is None:
            found = known[items] = [pairs.place((key, _scalar(value))) for key, value in items]
        return found

    runs = {}
    for entry in entries:
        cell = (entry.suite, entry.row, entry.variant)
        runs[site.name(entry.sha256)] = [
            entry.sha256, cells.place((cell_slug(*cell), *map(clean, cell))), entry.kind,
            entry.status, entry.reason, entry.limit, minute(entry.time), texts.place(entry.machine), int(entry.disturbed),
            [texts.place(warning) for warning in entry.warnings],
            [[figures.place((f.name, f.unit, f.higher_is_better)), *_ends(f.value, f.low, f.high)] for f in entry.figures],
            places(entry.circumstances), places(entry.conditions), [texts.place(without_password(o)) for o in entry.origins],
            paired.get(entry.sha256, []),
        ]  # fmt: skip
    return {"pairs": pairs.values, "figures": figures.values, "texts": texts.values, "cells": cells.values, "runs": runs}


def _scalar(value: object) -> object:
    """What JSON can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def _ends(value: float, low: float, high: float) -> list[float | None]:
    """Without the interval where there is none."""
    ends = [low, high] if math.isfinite(low) and math.isfinite(high) else []
    return [None if not math.isfinite(v) else v for v in (value, *ends)]


def _paired(site: Site) -> dict[str, list[list[Any]]]:
    """Run -> [baseline, figure, difference, low, high, p] of every paired comparison with an earlier one."""
    found: dict[str, list[list[Any]]] = defaultdict(list)
    for digest in site.digests:
        for point in digest.points:
            for one in point.paired.values():
                d = one.difference
                numbers = [None if not math.isfinite(v) else v for v in (d.value, d.low, d.high, one.p_value)]
                found[point.result].append([site.name(one.baseline), digest.key.figure, *numbers])
    return found


def cell_files(site: Site) -> Files:
    """The runs and series of every cell, and the list of cells."""
    runs: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    series: dict[tuple[str, str, str], list[Digest]] = defaultdict(list)
    for entry in site.entries.values():
        runs[(entry.suite, entry.row, entry.variant)].append(entry)
    for digest in site.digests:
        series[(digest.key.suite, digest.key.row, digest.key.variant)].append(digest)
    names = sorted(runs)
    yield "data/cells.js", _script("cells", [[cell_slug(*name), *map(clean, name)] for name in names])
    for name in names:
        machines = _Pool()
        listed = [
            [
                site.name(e.sha256),
                minute(e.time),
                e.kind,
                e.limit,
                machines.place(e.machine),
                int(e.disturbed),
                e.status,
                night_name(e),
            ]
            for e in sorted(runs[name], key=lambda e: (e.time, e.sha256))
        ]
        found = [[d.key.kind, d.key.figure, d.key.limit, d.key.machine, d.slug] for d in series[name]]
        yield (
            f"data/cells/{cell_slug(*name)}.js",
            _script(f"cells/{cell_slug(*name)}", {"machines": machines.values, "runs": listed, "series": found}),
        )


def series_json(site: Site) -> str:
    """``data/series.json``: every series' present state for other programs; null for what is not known."""
    document = {"version": 1, "newest": site.newest, "series": [_described(site, digest) for digest in site.digests]}
    return json.dumps(document, indent=1, allow_nan=False) + "\n"


def _described(site: Site, digest: Digest) -> dict[str, Any]:
    key, step = digest.key, digest.detection.open
    return {
        "suite": key.suite, "row": key.row, "variant": key.variant, "kind": key.kind, "figure": key.figure, "limit": key.limit,
        "machine": key.machine, "unit": digest.series.unit, "higher_is_better": digest.series.higher_is_better, "state": digest.status,
        "value": _known(digest.value), "level": _known(digest.level), "noise": _known(digest.detection.noise), "time": digest.time,
        "nights": len(digest.points), "page": f"series/{digest.slug}.html",
        "regression": None if step is None else {
            "since": digest.points[step.first].time, "first_bad": digest.points[step.first].result,
            "last_good": digest.points[step.last_good].result, "before": step.before, "after": step.after, "evidence": step.evidence,
            "changes": [
                {"what": c.what, "before": _scalar(c.before), "after": _scalar(c.after)}
                for c in _changes(site, digest, step.last_good, step.first)
            ],
        },
    }  # fmt: skip


def _changes(site: Site, digest: Digest, before: int, after: int) -> Iterable[Any]:
    return changes(circumstances(site, digest.points[before]), circumstances(site, digest.points[after]))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
