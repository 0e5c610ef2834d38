"""How long the dashboard takes: its making, and the opening of each kind of page in headless Chromium.

    python scripts/benchmark_dashboard.py > reports/benchmark_dashboard.md      # needs playwright and /usr/bin/chromium

1. 100 series of 1000 nights, four series to a result, so 25 000 results: from a real history, and of the making of the site each part.
2. The worst case: 100 000 results in 400 series.
3. Pages of both, opened from disk: from the navigation to the load event and to the first frame after it, and what the first use of the page takes.

The figures are made up (``demo_history.flat``). Pages are opened five times in a new context each; the largest is given too.
"""

import hashlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from demo_history import content_of, flat, results, series_of
from playwright.sync_api import sync_playwright

from m2fbench.analysis.series import Series
from m2fbench.environment import describe_environment
from m2fbench.history.entries import entry_of
from m2fbench.history.history import History
from m2fbench.history.records import Entry
from m2fbench.reporting.dashboard.site import SiteRequest, write_site

CHROMIUM = "/usr/bin/chromium"
OPENINGS = 5
NIGHTS = 1000
READY = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


def made_site(folder: Path, entries: list[Entry], series: list[Series]) -> list[tuple[str, float]]:
    """The site, twice: what each part of the making takes, and the making again when nothing has changed."""
    parts: list[tuple[str, float]] = []
    last: list[Any] = ["", time.perf_counter()]

    def tell(what: str) -> None:
        if last[0]:
            parts.append((last[0], time.perf_counter() - last[1]))
        last[:] = [what, time.perf_counter()]

    request = SiteRequest("Benchmark", now=datetime.now(UTC).isoformat(timespec="seconds"))
    written, whole = timed(lambda: write_site(folder, entries, series, [], request, tell=tell))
    tell("")
    _, again = timed(lambda: write_site(folder, entries, series, [], request))
    size = sum(path.stat().st_size for path in written) / 1e6
    return [
        *parts,
        (f"**the whole site** ({len(written)} files, {size:.0f} MB)", whole),
        ("the same site again, nothing changed", again),
    ]


def from_history(folder: Path) -> tuple[list[Entry], list[Series], list[tuple[str, float]]]:
    for result in results(flat(100, NIGHTS), NIGHTS):
        content = content_of(result)
        name = hashlib.sha256(content).hexdigest()
        place = folder / "results" / name[:2] / f"{name}.json"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)

    def read() -> tuple[list[Entry], list[Series]]:
        with History(folder) as history:
            return history.entries(), history.series()

    _, first = timed(read)
    (entries, series), again = timed(read)
    return entries, series, [("the history's index, made from nothing, and read", first), ("the history, read", again)]


def pages_of(site: Path) -> dict[str, tuple[str, str]]:
    """Kind of page -> (address below the site, what the first use of it is, as JavaScript)."""
    listed = json.loads((site / "data" / "series.json").read_text())["series"]
    page = max(listed, key=lambda s: s["nights"])["page"]
    cell = next((site / "data" / "cells").glob("*.js")).read_text()
    runs = json.loads(cell[cell.index(",") + 1 : -3])["runs"]
    a, b = runs[-2][0], runs[-1][0]
    choose = "const s = document.querySelector('select[name={0}]'); s.selectedIndex = 1; s.dispatchEvent(new Event('change', {{ bubbles: true }}))"
    wait = "await new Promise(done => { const see = () => document.querySelector('table') ? done() : setTimeout(see, 5); see(); });"
    return {
        "overview": ("index.html", choose.format("suite")),
        "all figures": ("all.html", choose.format("suite")),
        "series": (page, "document.querySelector('#nights').open = true; " + wait),
        "run": (f"run.html#{b}", wait),
        "comparison": (f"compare.html#{a}..{b}", wait),
    }


def opened(site: Path) -> list[str]:
    lines = ["| page | KB | load event, s | drawn, s | first use, s | longest of each |", "|---|---:|---:|---:|---:|---|"]
    uses = {
        "overview": "filter by suite",
        "all figures": "filter by suite",
        "series": "table of nights",
        "run": "run shown",
        "comparison": "shown",
    }
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        for kind, (address, use) in pages_of(site).items():
            path = site / address.partition("#")[0]
            if not path.exists():
                continue
            found = [one_opening(browser, f"{site.as_uri()}/{address}", use) for _ in range(OPENINGS)]
            middle = [statistics.median(column) for column in zip(*found, strict=True)]
            most = ", ".join(f"{max(column):.2f}" for column in zip(*found, strict=True))
            numbers = " | ".join(f"{value:.2f}" for value in middle)
            lines.append(f"| {kind} ({uses[kind]}) | {path.stat().st_size / 1000:.0f} | {numbers} | {most} |")
        version = browser.version
        browser.close()
    return [*lines, "", f"Chromium {version}, headless, {OPENINGS} openings each, 1280 x 900."]


def one_opening(browser: Any, address: str, use: str) -> tuple[float, float, float]:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address, wait_until="load")
    load = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000
    drawn = page.evaluate(READY) / 1000
    first = (
        page.evaluate(
            f"(async () => {{ const start = performance.now(); {use}; await {READY}; return performance.now() - start; }})()"
        )
        / 1000
    )
    page.close()
    return load, drawn, first


def table(rows: list[tuple[str, float]]) -> list[str]:
    return ["| part | s |", "|---|---:|", *(f"| {what} | {seconds:.1f} |" for what, seconds in rows), ""]


def main() -> None:
    lines = [
        "# The dashboard: how long it takes",
        "",
        "Made by `python scripts/benchmark_dashboard.py`; the figures in the history are made up.",
        "",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        print("100 series", file=sys.stderr)
        entries, series, reading = from_history(folder / "history")
        lines += [f"## {len(series)} series of {NIGHTS} nights, {len(entries)} results", ""]
        lines += table([*reading, *made_site(folder / "site", entries, series)]) + opened(folder / "site")
        print("100 000 results", file=sys.stderr)
        entries = [
            entry_of(r, hashlib.sha256(f"{n}".encode()).hexdigest()) for n, r in enumerate(results(flat(400, NIGHTS), NIGHTS))
        ]
        series = series_of(entries)
        lines += ["", f"## The worst case: {len(series)} series of {NIGHTS} nights, {len(entries)} results", ""]
        lines += table(made_site(folder / "large", entries, series)) + opened(folder / "large")
    about = describe_environment()
    processor, cores = about.get("processor") or platform.machine(), about.get("cpu_count")
    lines += [
        "",
        f"{processor}, {cores} cores; Python {platform.python_version()}, m2fbench {about['m2fbench']}, {datetime.now(UTC):%Y-%m-%d}.",
    ]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
