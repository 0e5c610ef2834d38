"""What checkpoints cost, as tables for a terminal and as a Markdown report."""

from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from m2fbench.flops import CostReport, ModelCost

G, M = 1e9, 1e6
UNCOUNTED_SHOWN, UNCOUNTED_IN_TERMINAL = 8, 5  # operators, the largest first
SMALLEST_SHOWN = 5e-4  # G; what is below is said to be so


def flops_display(report: CostReport) -> Iterator[Table | Text]:
    """What could not be counted; totals beside the published figures, and of what they are; parts; operators where it is one row."""
    for row in report.rows:
        if row.problem or not row.counts:
            yield Text(f"{row.row}: not counted: {row.problem}{_printed(row)}", style="yellow")
    counted = [row for row in report.rows if row.counts]
    if not counted:
        return
    if len(counted) < len(report.rows):
        yield Text()
    suites = len({row.suite for row in counted}) > 1
    named = [((row.suite or "-",) if suites else ()) for row in counted]
    first = ("suite",) if suites else ()
    cells = [(*name, *_cells(row, counted)) for name, row in zip(named, counted, strict=True)]
    yield _table((*first, *_columns(counted)), cells)
    yield Text()
    for row in counted:
        yield Text(f"{f'{row.suite} ' if suites else ''}{row.row}: {_about(row)}")
        for note in (*row.notes, *_not_compared(row)):
            yield Text(f"{row.row}: {note}", style="yellow")
    yield Text()
    parts = [(*name, *cells[1:]) for name, cells in zip(named, _part_cells(counted), strict=True)]
    yield _table((*first, "row", *(f"{part}, G" for part in _parts(counted))), parts)
    yield Text("parts: of the count paper")
    if len(counted) == 1:
        yield Text()
        yield _table(("operator, G", *counted[0].counts), list(_operator_cells(counted[0])))
        yield Text()
        columns = ("not counted", "count", "calls", "estimate, G", "made")
        yield _table(columns, list(_uncounted_cells(counted[0], UNCOUNTED_IN_TERMINAL)))
    yield Text(f"\n{report.convention}")
    for name, text in report.definitions.items():
        yield Text(f"{name}: {text}")
    for line in _legend(counted):
        yield Text(line)
    yield Text(f"made with {_versions(report)}")


def _versions(report: CostReport) -> str:
    return ", ".join(f"{name} {version}" for name, version in report.versions.items() if version)


def _legend(rows: Sequence[ModelCost]) -> Iterator[str]:
    """What the columns of the first table mean, where they are in it."""
    sources = dict.fromkeys(row.source for row in rows if row.published and row.source)
    if sources:
        yield f"published: {'; '.join(sources)}; difference: from it, of the count paper and of the parameters"
    if any(row.images > 1 for row in rows):
        yield "±: the standard deviation over the images"
    yield "operations: twice the count paper, a multiplication and an addition being two"


def _not_compared(row: ModelCost) -> Iterator[str]:
    if row.counts and not row.as_published and row.published and row.published.flops_G:
        yield "other inputs than the published figure's, so its FLOPs are not compared"


def _printed(row: ModelCost) -> str:
    """What is published of a row that has no line in the table."""
    costs = row.published
    figures = ((costs.flops_G, "G FLOPs"), (costs.params_M, "M parameters")) if costs else ()
    said = " and ".join(f"{value:g} {unit}" for value, unit in figures if value is not None)
    return f" (published: {said}, {row.source})" if said else ""


def _about(row: ModelCost) -> str:
    """What was counted, over what, and by whose settings."""
    suite = f"as {row.suite} has it" if row.suite else "by no suite"
    heads = f"post-processing of {', '.join(row.heads)}" if row.heads else "no post-processing"
    sizes = f" ({row.sizes} distinct padded size{'s'[: row.sizes != 1]})" if row.images > 1 else ""
    model = f"{row.backbone}, {row.queries} queries, {row.classes} classes"
    return f"{model}; {suite}: {heads}; {row.inputs}{sizes}; {_weights(row)}"


def markdown(report: CostReport, command: str) -> str:
    """A report of its own: every row, both counts, the definitions, parts, operators, and what was not counted. command: that makes it."""
    counted = [row for row in report.rows if row.counts]
    lines = [
        "# What the checkpoints cost: FLOPs and parameters", "",
        f"Made by `{command}` with {_versions(report)}.", "",
        f"{_sentence(report.convention)} The counts are made of shapes alone: no weights, no arithmetic, and the machine does not matter.", "",
        *(f"- **{name}**: {text}." for name, text in report.definitions.items()), "",
        "## Totals", "",
        *(f"- {line}." for line in _legend(report.rows)), "",
        *_markdown_table(("suite", *_columns(report.rows)), [(row.suite or "-", *_cells(row, report.rows)) for row in report.rows]), "",
    ]  # fmt: skip
    for row in report.rows:
        lines += [f"- {row.suite or '-'} {row.row}: not counted: {row.problem}"] if row.problem else []
    lines += ["", "Inputs, task heads and where the architecture is from:", ""]
    for row in counted:
        notes = "".join(f"; {note}" for note in (*row.notes, *_not_compared(row)))
        lines.append(f"- {row.suite or '-'} {row.row} (`{row.reference}`): {_about(row)}{notes}")
    lines += ["", "## By part, G of the count `paper`", ""]
    lines += _markdown_table(("suite", "row", *_parts(counted)), list(_part_cells(counted)))
    lines += ["", "## Parameters by part, M", ""]
    lines += _markdown_table(("suite", "row", *_parameter_parts(counted)), list(_parameter_cells(counted)))
    lines += [
        "",
        "## By operator, G of the count `paper`",
        "",
        "`fvcore` has the same, without `baddbmm` and post-processing, with batch norm.",
        "",
    ]
    lines += list(_operators(counted))
    lines += ["", "## What was not counted, of each definition", ""]
    lines += [
        "Per image. The estimate is one per element of the operator's output, for `baddbmm` that of a batched matrix product; no total has it.",
        "",
    ]
    for row in counted:
        cells = [(name, one, calls, estimate) for name, one, calls, estimate, _ in _uncounted_cells(row)]
        lines += [
            f"### {row.suite or '-'} {row.row}",
            "",
            *_markdown_table(("operator", "count", "calls", "estimate, G"), cells),
            "",
        ]
    return "\n".join(lines).rstrip() + "\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _columns(rows: Sequence[ModelCost]) -> tuple[str, ...]:
    compared = any(row.published for row in rows)
    published = ("published, G", "difference") if compared else ()
    parameters = ("published, M", "difference") if compared else ()
    return ("row", "images", "fvcore, G", "paper, G", *published, "operations, G", "parameters, M", *parameters)


def _cells(row: ModelCost, rows: Sequence[ModelCost]) -> tuple[str, ...]:
    compared, costs = any(r.published for r in rows), row.published
    counts = [f"{c.mean / G:.2f}" + (f" ± {c.std / G:.2f}" if row.images > 1 else "") for c in row.counts.values()] or ["-", "-"]
    total = row.all_parameters
    published = (_plain(costs.flops_G if costs else None), _percent(row.flops_difference)) if compared else ()
    parameters = (_plain(costs.params_M if costs else None), _percent(row.parameters_difference)) if compared else ()
    operations = f"{2 * row.counts['paper'].mean / G:.1f}" if row.counts else "-"
    return (row.row, str(row.images or "-"), *counts, *published, operations, f"{total / M:.2f}" if total else "-", *parameters)


def _plain(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2f} %"


def _weights(row: ModelCost) -> str:
    if row.weight_bytes is not None:
        return f"weight files of {row.weight_bytes:,} bytes"
    total = 4 * (row.all_parameters or 0)
    return f"weight files not at hand ({row.without_weights}), {total / 2**20:.0f} MB as float32"


def _ordered(names: Iterable[Iterable[str]]) -> list[str]:
    """All of them once, each list's order kept."""
    return list(dict.fromkeys(name for inner in names for name in inner))


def _parts(rows: Sequence[ModelCost]) -> tuple[str, ...]:
    return (*_ordered(row.counts["paper"].count.by_part for row in rows), "total")


def _part_cells(rows: Sequence[ModelCost]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        count = row.counts["paper"]
        parts = (_number(count.count.by_part.get(part)) for part in _parts(rows)[:-1])
        yield (row.suite or "-", row.row, *parts, _number(count.mean))


def _parameter_parts(rows: Sequence[ModelCost]) -> tuple[str, ...]:
    return (*_ordered(row.parameters for row in rows), "total")


def _parameter_cells(rows: Sequence[ModelCost]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        values = (row.parameters.get(part) for part in _parameter_parts(rows)[:-1])
        cells = ("-" if value is None else f"{value / M:.3f}" for value in values)
        yield (row.suite or "-", row.row, *cells, f"{(row.all_parameters or 0) / M:.3f}")


def _operators(rows: Sequence[ModelCost]) -> Iterator[str]:
    names = _ordered(row.counts["paper"].count.by_operator for row in rows)
    cells = []
    for row in rows:
        found = row.counts["paper"].count.by_operator
        cells.append((row.suite or "-", row.row, *(_number(found.get(name)) for name in names)))
    yield from _markdown_table(("suite", "row", *names), cells)


def _operator_cells(row: ModelCost) -> Iterator[tuple[str, ...]]:
    counts = [count.count.by_operator for count in row.counts.values()]
    for name in _ordered(reversed(counts)):
        yield (name, *(_number(found.get(name)) for found in counts))


def _uncounted_cells(row: ModelCost, most: int = UNCOUNTED_SHOWN) -> Iterator[tuple[str, str, str, str, str]]:
    for name, count in row.counts.items():
        for number, (operator, known) in enumerate(count.count.uncounted.items()):
            if number == most:
                rest = list(count.count.uncounted.values())[number:]
                calls, estimate = sum(r.occurrences for r in rest), sum(r.estimate for r in rest)
                yield f"{len(rest)} others", name, f"{calls:g}", _number(estimate), "one per element"
                break
            yield operator, name, f"{known.occurrences:g}", _number(known.estimate), known.rule


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value / G:.3f}" if value / G >= SMALLEST_SHOWN or value == 0 else f"<{SMALLEST_SHOWN:g}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        left = all(not row[number][:1].isdigit() and row[number][:1] not in "+-<" for row in rows) or number == 0
        table.add_column(Text(column), justify="left" if left else "right", no_wrap=number == 0)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---" if column in ("suite", "row", "operator", "count") else "---:" for column in columns]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows)]
