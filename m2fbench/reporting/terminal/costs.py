"""Speed and FLOPs of a run in the terminal: each variant's figures with its accuracy, where the time goes, what the paper prints."""

import math
from collections.abc import Iterator, Sequence

from rich.table import Table
from rich.text import Text

from m2fbench.results import RunResult
from m2fbench.types import JsonObject

HEADLINE = ("PQ", "AP", "mIoU", "AP_th_pan", "mIoU_pan")
OUTSIDE = ("load", "preprocess", "encode")
# the first columns to go where the terminal is narrow, and how wide it must be to show them
NEEDS = {"p99": 150, "p90": 140, "p95": 130, "device memory": 118, "p50": 105, "95 %": 92}


def speed_tables(results: Sequence[RunResult], width: int) -> Iterator[Table | Text]:
    """A table of figures, one of the stages, and what stands beside them. results: of kind "speed", of one suite. width: of the terminal."""
    measured = [r for r in results if r.details is not None]
    if measured:
        yield _figures(results, width)
        yield _stages(measured, width)
    for result in results:
        if result.details is None:
            yield Text(f"{_name(result, results)}: {result.status}: {result.reason}", style="yellow")
    for result in measured:
        yield from (Text(f"{_name(result, results)}: {line}") for line in _energy(result))
    if measured:
        yield Text("\n".join(_conditions(measured)), style="dim")


def _name(result: RunResult, results: Sequence[RunResult]) -> str:
    """The variant, and the checkpoint where there is more than one."""
    variant = str(result.variant["name"])
    return variant if len({r.row for r in results}) == 1 else f"{result.row} · {variant}"


def _labels(results: Sequence[RunResult], table: Table) -> None:
    """The columns that say what a line is of; none of them shrinks."""
    table.add_column("variant" if len({r.row for r in results}) == 1 else "checkpoint · variant", no_wrap=True, overflow="fold")
    table.add_column("scope", no_wrap=True, overflow="fold")


def _figures(results: Sequence[RunResult], width: int) -> Table:
    measured = [r for r in results if r.details is not None]
    rows = {r.row for r in results}
    of = f", {results[0].row}" if len(rows) == 1 else ""
    table = Table(title=f"{results[0].suite['title']}{of}: speed, and accuracy on the same images", title_justify="left")
    _labels(results, table)
    accuracy = [n for n in HEADLINE if any(not math.isnan(r.value(n)) for r in measured)]
    on_device = any((r.device or {}).get("kind") != "cpu" for r in measured)
    against = f"times {measured[0].variant['name']}" if len(rows) == 1 else "times the first"
    columns = ["images", "fps", "95 %", "mean ms", "p50", "p90", "p95", "p99", *([against] if len(measured) > len(rows) else [])]
    columns = [name for name in [*columns, *(["device memory"] if on_device else []), *accuracy] if width >= NEEDS.get(name, 0)]
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    first: dict[str, RunResult] = {}
    for result in measured:
        if result.row not in first:
            table.add_section()
        reference = first.setdefault(result.row, result)
        for scope, facts in _scopes(result).items():
            cells = _cells(result, scope, facts) | {against: _ratio(result, scope)}
            cells |= {name: _with_gap(result, reference, name) for name in accuracy}
            table.add_row(_name(result, results), scope, *(cells[name] for name in columns))
        published = next((p for p in result.published if p.metric == "fps"), None)
        if published is not None and result is reference:
            table.add_row(
                Text("published"), "", *(f"{published.value:g}" if name == "fps" else "" for name in columns), style="dim"
            )
    return table


def _cells(result: RunResult, scope: str, facts: JsonObject) -> dict[str, str | Text]:
    end = _end(scope)
    low, high = result.value(f"fps{end}_low"), result.value(f"fps{end}_high")
    return {
        "images": str(facts["images"]),
        "fps": _number(result.value(f"fps{end}"), 2),
        "95 %": _interval(low, high),
        "mean ms": _milliseconds(result.value(f"latency{end}")),
        **{f"p{p}": _milliseconds(result.value(f"latency{end}_p{p}")) for p in (50, 90, 95, 99)},
        "device memory": _megabytes(result.value("peak_device_memory")),
    }


def _end(scope: str) -> str:
    """What the names of a scope's figures end with."""
    return "" if scope == "paper" else f"_{scope}"


def _with_gap(result: RunResult, reference: RunResult, name: str) -> Text:
    """The figure and, for a further variant, what it gains or loses; losses in red."""
    value, gap = result.value(name), result.value(name) - reference.value(name)
    if result is reference or math.isnan(gap):
        return Text(_number(value, 2))
    style = "red" if round(gap, 2) < 0 else ""
    return Text.assemble(_number(value, 2), (f" ({round(gap, 2) + 0.0:+.2f})", style))


def _stages(results: Sequence[RunResult], width: int) -> Table:
    """Mean milliseconds an image; those in brackets are no part of the figures above."""
    table = Table(title="Where the time goes, ms an image", title_justify="left")
    _labels(results, table)
    names = list(dict.fromkeys(name for r in results for scope in _scopes(r).values() for name in scope["stages"]))
    names = [n for n in names if n not in OUTSIDE] + [n for n in OUTSIDE if n in names]
    for name in names:
        shown = f"({name})" if name in OUTSIDE else name
        table.add_column(shown if width >= 130 else shown.replace(" ", "\n").replace("-", "-\n"), justify="right", no_wrap=True)
    for result in results:
        for scope, facts in _scopes(result).items():
            cells = (_milliseconds(facts["stages"].get(name, math.nan)) for name in names)
            table.add_row(_name(result, results), scope, *cells)
    return table


def _scopes(result: RunResult) -> JsonObject:
    return dict((result.details or {})["scopes"])


def _energy(result: RunResult) -> Iterator[str]:
    """What was measured of energy and emissions, by what, or why nothing was; nothing where it was not asked for."""
    facts = result.details or {}
    if "energy" not in facts:
        return
    used, emitted = facts["energy"], facts["emissions"]
    if facts["failure"] is not None:
        yield f"energy: not measured: {facts['failure']}"
        return
    if used["joules_per_image"] is None:
        yield f"energy: not measured: {'; '.join(used['reasons'])}"
    else:
        above = used["joules_per_image_above_idle"]
        idle = "" if above is None else f", {above:.3g} of them above idle"
        covers = "; ".join(f"{m['name']}: {m['covers']}" for m in used["meters"])
        missing = f"; not in it: {'; '.join(used['reasons'])}" if used["reasons"] else ""
        yield (
            f"energy: {used['joules_per_image']:.3g} J an image{idle}, {used['watts']:.3g} W, over {used['images']} passes of the first "
            f"{facts['energy_images']} images in scope {facts['energy_scope']}; {used['label']} ({covers}){missing}"
        )
    if emitted["grams_per_image"] is None:
        yield f"CO2e: not given: {emitted['reason']}"
    else:
        yield f"CO2e: {emitted['grams_per_image']:.3g} g an image, {emitted['label']} ({emitted['source']})"


def _conditions(results: Sequence[RunResult]) -> Iterator[str]:
    first = results[0]
    for scope, facts in _scopes(first).items():
        yield f"scope {scope}: heads {', '.join(facts['heads'])}; {facts['definition']}"
    for result in results:
        for scope, facts in _scopes(result).items():
            if facts["failed"]:
                yield f"{_name(result, results)}, scope {scope}: {len(facts['failed'])} images not timed, the first: {facts['failed'][0]['error']}"
    scored, total = (first.dataset or {}).get("scored_images"), (first.dataset or {}).get("images")
    yield f"accuracy: over {scored}{f' of {total}' if total else ''} images, those that warm up included" + (
        f"; not comparable with published figures ({first.reason})" if first.reason else ""
    )
    for published in (p for p in first.published if p.metric == "fps"):
        yield f"published fps: {published.source}"
    yield "in brackets: outside the figure. p90, p95 and p99 need 10, 20 and 100 images"
    device, machine = first.device or {}, (first.environment or {}).get("processor")
    libraries = (first.environment or {}).get("libraries", {})
    where = (
        f"CPU, {machine}, {device.get('threads')} threads" if device.get("kind") == "cpu" else f"{device.get('kind')}, {machine}"
    )
    memory = first.value("peak_process_memory")
    resident = "" if math.isnan(memory) else f"; the process took {memory / 2**20:.0f} MB at most, all variants loaded"
    yield f"measured on: {where}; torch {libraries.get('torch')}, transformers {libraries.get('transformers')}{resident}"


def _ratio(result: RunResult, scope: str) -> str:
    """How many times faster than the first variant, and between which ends of its interval."""
    ratio, low, high = (result.value(f"speed_up{_end(scope)}{name}") for name in ("", "_low", "_high"))
    if math.isnan(ratio):
        return ""
    return f"{ratio:.2f}" if math.isnan(low) else f"{ratio:.2f} ({low:.2f} to {high:.2f})"


def _interval(low: float, high: float) -> str:
    if math.isnan(low):
        return "-"
    return f"over {low:.2f}" if math.isnan(high) else f"{low:.2f} to {high:.2f}"


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1000 * seconds:.1f}"


def _megabytes(count: float) -> str:
    return "-" if math.isnan(count) else f"{count / 2**20:.0f} MB"


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def flops_table(results: Sequence[RunResult]) -> Table:
    """FLOPs and parameters beside the published ones. results: of kind "flops"."""
    title = f"{results[0].suite['title']}: FLOPs and parameters" if results else ""
    table = Table("checkpoint", "", title=title, title_justify="left")
    for name in ("FLOPs, G", "fvcore's, G", "parameters, M"):
        table.add_column(name, justify="right", no_wrap=True)
    for result in results:
        if math.isnan(result.value("parameters")):
            table.add_row(result.row, Text(f"not counted: {result.reason}", style="yellow"))
            continue
        inputs = f"over {(result.details or {}).get('inputs')}"
        cells = (
            _scaled(result.value("FLOPs"), 1e9),
            _scaled(result.value("FLOPs_fvcore"), 1e9),
            _scaled(result.value("parameters"), 1e6),
        )
        table.add_row(result.row, inputs, *cells)
        if result.comparisons:
            published = {c.metric: c for c in result.comparisons}
            flops, parameters = published.get("FLOPs"), published.get("parameters")
            printed = [_scaled(c.published, unit) if c else "" for c, unit in ((flops, 1e9), (parameters, 1e6))]
            gaps = [f"{100 * (c.measured / c.published - 1):+.2f} %" if c and c.comparable else "" for c in (flops, parameters)]
            table.add_row("", "published", printed[0], "", printed[1], style="dim")
            table.add_row("", "difference", gaps[0], "", gaps[1])
        table.add_section()
    return table


def _scaled(value: float, unit: float) -> str:
    return "-" if math.isnan(value) else f"{value / unit:.2f}"
