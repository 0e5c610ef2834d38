"""Figures that stand in a card's tables, whichever way these lie: metrics as columns or as rows."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from m2fbench.reporting.claims.attribution import Attribution, of_section
from m2fbench.reporting.claims.document import Document, TableBlock
from m2fbench.reporting.claims.extraction import MAX_CLAIMS, Claim
from m2fbench.reporting.claims.pairs import number_of, scaled
from m2fbench.reporting.claims.words import COSTS, datasets_in, metric_of_label, models_in, protocol_in, split_in

_MOST = 2000  # characters of a row that are looked at for what it is of
_NEUTRAL = frozenset({
    "this", "the", "our", "ours", "model", "checkpoint", "mask2former", "value", "values", "result", "results", "score", "scores", "measured",
    "overall", "all", "total", "figure", "test", "val", "validation", "val2017", "mean", "percent", "%", "ss", "ms", "flip", "instance", "panoptic",
    "semantic", "segmentation", "image", "on", "with", "and", "single", "multi", "scale", "backbone",
})  # fmt: skip
_SKIPPED = re.compile(
    r"(?i)\b(?:interval|ci|std|stdev|±|low|high|difference|diff|delta|change|gain|images|objects|count|n|epochs?|schedule|lr|crop|queries|true|p|rank|link|"
    r"download|config|id|seed|share|source|definition|meaning|unit|note|notes|described?|description)\b|Δ|95 ?%"
)
_PUBLISHED = re.compile(r"(?i)\b(?:published|paper|reported|printed|original)\b")
_VALUE = re.compile(
    r"[~≈><≥≤ ]{0,4}(?P<n>\d{1,3}(?:,\d{3}){2}|\d{1,4}(?:[.,]\d{1,6})?)"
    r"(?P<u>[ ]?(?:%|[MBGT]|ms|s|fps|million|billion)?(?:[ ]?FLOPs|[ ]?params?)?)(?![\w.])"
)
_UNITS = re.compile(
    r"(?<![A-Za-z])(?:(?P<giga>G|GFLOPs|10\^9)|(?P<tera>T|TFLOPs)|(?P<mega>M|million|millions)|(?P<ms>ms|milliseconds)|(?P<s>s|sec|seconds))(?![A-Za-z])"
)


@dataclass(frozen=True)
class _Context:
    """What a row or a column says of its figures."""

    model: Attribution | None = None
    dataset: str | None = None
    split: str | None = None
    protocol: str | None = None
    qualifier: str = ""
    published: bool = False
    skipped: bool = False


def table_claims(document: Document) -> list[Claim]:
    claims: list[Claim] = []
    lines = document.text.split("\n")
    for table in document.tables:
        for cell, claim in _with_shares(list(_of_table(table))):
            claims.append(replace(claim, column=column_of(lines[claim.line - 1], cell)))
            if len(claims) >= MAX_CLAIMS:
                return claims
    return claims


def _with_shares(found: list[tuple[int, Claim]]) -> list[tuple[int, Claim]]:
    """Where no accuracy of a table is over 1, "0.45" is a share of one too, not half a percent."""
    accuracies = [claim for _, claim in found if claim.metric not in COSTS]
    if any(not claim.share and (claim.value > 1 or claim.digits < 2) for claim in accuracies):
        return found
    return [
        (k, c if c.share or c.metric in COSTS else replace(c, share=True, value=round(c.value * 100, 6), digits=c.digits - 2))
        for k, c in found
    ]


def _metric_of(label: str) -> str | None:
    """As ``metric_of_label``; "COCO PQ" and "Swin-T PQ" too, whose other words are read for themselves."""
    if found := metric_of_label(label):
        return found
    rest = label
    for mention in sorted([*models_in(label), *datasets_in(label)], key=lambda m: -m.start):
        rest = rest[: mention.start] + " " + rest[mention.end :]
    return metric_of_label(re.sub(r"\b(?i:val(?:2017)?|test-dev)\b", " ", rest)) if rest != label else None


def column_of(line: str, cell: int) -> int:
    """The column, from 1, where a cell of a row begins; 1 in an HTML table."""
    bars = [found.start() for found in re.finditer(r"(?<!\\)\|", line)]
    if not line.lstrip().startswith("|"):
        bars = [-1, *bars]
    return 1 if cell >= len(bars) else bars[cell] + 2 + len(line[bars[cell] + 1 :]) - len(line[bars[cell] + 1 :].lstrip())


def _of_table(table: TableBlock) -> Iterator[tuple[int, Claim]]:
    """With each claim the number of its cell."""
    header, body = table.rows[0], table.rows[1:]
    columns = [_metric_of(cell) for cell in header]
    at, rows = _names_of_rows(body)
    if sum(m is not None for m in columns) > 0:
        yield from _by_columns(table, header, columns)
    elif any(rows):
        yield from _by_rows(table, header, rows, at)


def _names_of_rows(body: Sequence[tuple[str, ...]]) -> tuple[int, list[str | None]]:
    """The column whose cells name metrics, the first such one ("task | metric | value"), and the metric of each row."""
    for at in range(min(3, max(map(len, body), default=0))):
        rows = [_metric_of(row[at]) if at < len(row) else None for row in body]
        if any(rows):
            return at, rows
    return 0, []


def _by_columns(table: TableBlock, header: tuple[str, ...], columns: list[str | None]) -> Iterator[tuple[int, Claim]]:
    """Metrics head the columns; the other cells of a row say whose figures they are."""
    heads = [
        _context([re.sub(re.escape(m), " ", title, flags=re.IGNORECASE)], True) if m else _Context()
        for m, title in zip(columns, header, strict=True)
    ]
    for row, line in zip(table.rows[1:], table.lines[1:], strict=True):
        others = [
            (k, title, cell)
            for k, (title, cell, metric) in enumerate(zip(header, row, columns, strict=False))
            if metric is None and re.search("[A-Za-z]", cell)
        ]
        others = [
            (k, title, cell) for k, title, cell in others if not re.fullmatch(r"(?i)(?:scope|protocol)s?", title)
        ]  # "paper" is one of these
        context = _context([cell for k, title, cell in others if not k or not _SKIPPED.search(title) or models_in(cell)])
        for k, (metric, cell) in enumerate(zip(columns, row, strict=False)):
            if metric is None:
                continue
            told = _merged(context, heads[k])
            if claim := _claim(table, metric, cell, header[k], told, line, f"{row[0]} | {header[k]}: {cell}"):
                yield k, claim


def _by_rows(table: TableBlock, header: tuple[str, ...], rows: list[str | None], at: int) -> Iterator[tuple[int, Claim]]:
    """Metrics head the rows, in column ``at``; the header says whose figures the columns are, and what stands ahead of the metric of what a
    row's are."""
    contexts = [replace(_context([title]), skipped=_SKIPPED.search(title) is not None) for title in header]
    says_dataset = [k for k, title in enumerate(header) if re.search(r"(?i)\bdata ?set\b", title)]
    for metric, row, line in zip(rows, table.rows[1:], table.lines[1:], strict=True):
        if metric is None:
            continue
        ahead = _context(list(row[:at]))
        if ahead.qualifier:  # of a subset, say: no figure over all, and the metric is not what the table is about
            continue
        label = replace(_context([row[at]]), qualifier="")  # "mIoU (Swin-T, ADE20K)"
        here = _merged(_merged(ahead, label), _context([row[k] for k in says_dataset if k < len(row)]))
        for k, cell in enumerate(row[at + 1 :], at + 1):
            if k >= len(header) or contexts[k].skipped or k in says_dataset:
                continue
            if claim := _claim(table, metric, cell, row[at], _merged(contexts[k], here), line, f"{row[at]} | {header[k]}: {cell}"):
                yield k, claim


def _merged(row: _Context, column: _Context) -> _Context:
    return _Context(
        column.model or row.model, column.dataset or row.dataset, column.split or row.split, column.protocol or row.protocol,
        " ; ".join(filter(None, (row.qualifier, column.qualifier))), row.published or column.published,
    )  # fmt: skip


def _context(cells: list[str], of_header: bool = False) -> _Context:
    """What cells without figures say; what is not understood is a qualifier, so that such a figure is not taken for an overall one."""
    text = " ; ".join(cells)[:_MOST]
    models = [m for m in models_in(text) if m.kind in ("checkpoint", "backbone", "other")]
    datasets = datasets_in(text)
    model = Attribution(models[0].kind, models[0].value) if models else None  # type: ignore[arg-type]
    other = next((m for m in models if m.kind == "other"), None)
    if other is not None:  # MaskFormer with a Swin-L is MaskFormer
        model = Attribution("other", other.value)
    rest = text
    for mention in sorted([*models_in(text), *datasets], key=lambda m: -m.start):
        rest = rest[: mention.start] + " " + rest[mention.end :]
    published = _PUBLISHED.search(rest) is not None
    rest = re.sub(
        r"\(?(?:IN|ImageNet)-?2[12]k\)?|\d{4}|val\w*|" + _PUBLISHED.pattern.removeprefix("(?i)"), " ", rest, flags=re.IGNORECASE
    ).strip(" -/|")
    if of_header:  # a unit, or the full name
        rest = re.sub(r"[(\[][^)\]]{0,80}[)\]]|[^A-Za-z]", " ", rest).strip()
        rest = "" if metric_of_label(rest) or _UNITS.fullmatch(rest) else rest
    said = [" ".join(piece.split()) for piece in rest.split(";")]
    qualifier = " ; ".join(piece for piece in said if not set(re.findall(r"[\w%]+", piece.casefold())) <= _NEUTRAL)
    return _Context(model, datasets[-1].value if datasets else None, split_in(text), protocol_in(text), qualifier, published)


def _claim(table: TableBlock, metric: str, cell: str, label: str, context: _Context, line: int, quote: str) -> Claim | None:
    """None where the cell has no figure of this metric."""
    found = _VALUE.match(cell)
    if found is None:
        return None
    share = False
    unit = found["u"].strip().split(" ")[0].removesuffix("FLOPs").removesuffix("params") or _unit_of(label, metric)
    if metric in ("params_M", "flops_G", "latency"):
        if not unit:
            return None
        value, digits = scaled(metric, found["n"], unit)
    else:
        value, digits = number_of(found["n"])
        if metric != "fps" and not 0 <= value <= 100:
            return None
        if share := metric != "fps" and 0 < value <= 1 and digits >= 3:
            value, digits = round(value * 100, 6), digits - 2
    above = " ; ".join((*table.section[1:], table.lead))
    dataset = context.dataset or next((m.value for text in (table.lead, *reversed(table.section)) for m in datasets_in(text)), None)
    bound = cell.lstrip()[:1]
    return Claim(
        metric=metric,
        value=value,
        digits=digits,
        text=f"{' '.join(label.split())} {cell}",
        line=line,
        column=1,
        source="table",
        quote=quote,
        model=context.model or _above(table),
        dataset=dataset,
        split=context.split or split_in(above),
        protocol=context.protocol or protocol_in(label) or protocol_in(above),
        results=True,
        qualifier=context.qualifier,
        printed_by_others=context.published,
        share=share,
        relation="at least" if bound in (">", "≥") else "at most" if bound in ("<", "≤") else "is",
    )


def _unit_of(label: str, metric: str) -> str:
    found = _UNITS.search(label)
    if found is None:
        return {"flops_G": "G" if "gflops" in label.casefold() else "", "params_M": "M"}.get(metric, "")
    return {"giga": "G", "tera": "T", "mega": "M", "ms": "ms", "s": "s"}[found.lastgroup or ""]


def _above(table: TableBlock) -> Attribution:
    """Of the sentence that leads to the table, or the heading above it."""
    for mention in models_in(table.lead):
        if mention.kind in ("backbone", "checkpoint", "other"):
            return Attribution(mention.kind, mention.value)
    return of_section(table.section)
