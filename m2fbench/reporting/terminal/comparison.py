"""A comparison of two runs in the terminal, and as JSON."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal

from rich.table import Table
from rich.text import Text

from m2fbench.analysis.findings import Comparison, Difference, ImageChange
from m2fbench.types import JsonObject

Verdict = Literal["better", "worse", "equal", "no difference shown", "no interval", "not measured"]
_STYLES: dict[Verdict, str] = {"better": "green", "worse": "red", "no interval": "dim", "not measured": "dim"}
_OF_CLASSES = ("PQ", "AP", "IoU", "boundary_AP")
"""The figures by class that speak for a head; the others stand in the JSON."""


def verdict(difference: Difference) -> Verdict:
    """What may be said of B against A; every figure is the better the higher it is."""
    if math.isnan(difference.difference.value):
        return "not measured"
    if not difference.difference.has_interval:
        return "no interval"
    low, value, high = difference.difference.low, difference.difference.value, difference.difference.high
    if low == value == high == 0:
        return "equal"
    if low > 0 and value > 0:
        return "better"
    # Resamples that lie on the other side of zero than the figure itself (classes come and go in them) show nothing.
    return "worse" if high < 0 and value < 0 else "no difference shown"


def class_verdict(difference: Difference, level: float) -> Verdict:
    """The same for one class of many: a difference is shown only where it survives the adjustment for their number."""
    found = verdict(difference)
    return "no difference shown" if found in ("better", "worse") and not difference.adjusted_p <= 1 - level else found


def overall_table(comparison: Comparison) -> Table:
    """Every figure over all classes."""
    title = f"A: {comparison.a}\nB: {comparison.b}\nimages that both have: {comparison.images:,}"
    table = _table(title, "figure", comparison, "p")
    for d in (d for d in comparison.differences if d.category is None):
        table.add_row(d.figure, *_cells(d), _p(d.p_value), _word(verdict(d)))
    return table


def class_tables(comparison: Comparison, most: int | None = None) -> Iterator[Table]:
    """The classes by the main figure of each head, those that differ most surely first; ``most``: only so many of each, None for all in the
    dataset's order."""
    of_classes = [d for d in comparison.differences if d.category is not None]
    names = dict.fromkeys(d.figure for d in of_classes if d.figure.removesuffix("_pan").removesuffix("_th") in _OF_CLASSES)
    for name in names or dict.fromkeys(d.figure for d in of_classes[:1]):
        chosen = [d for d in of_classes if d.figure == name]
        said = f"{name} by class"
        if most is not None and len(chosen) > most:
            chosen = sorted(chosen, key=_surest)[:most]
            said = f"{name}, the {most} classes of {sum(d.figure == name for d in of_classes)} that differ most surely"
        table = _table(said, "class", comparison, "adjusted p")
        for d in chosen:
            table.add_row(d.category, *_cells(d), _p(d.adjusted_p), _word(class_verdict(d, comparison.level)))
        yield table


def _surest(difference: Difference) -> tuple[float, float]:
    p, size = difference.p_value, difference.difference.value
    return (math.inf if math.isnan(p) else p, 0.0 if math.isnan(size) else -abs(size))


def losses(comparison: Comparison, most: int) -> list[ImageChange]:
    """Images on which B is worse, the largest loss first."""
    return [c for c in comparison.changes[:most] if c.b < c.a]


def gains(comparison: Comparison, most: int) -> list[ImageChange]:
    """Images on which B is better, the largest gain first."""
    return [c for c in comparison.changes[::-1][:most] if c.b > c.a]


def image_table(title: str, changes: Sequence[ImageChange]) -> Table:
    """Images with their own figure under both runs."""
    figure = changes[0].figure if changes else ""
    table = Table("image", title=title, title_justify="left")
    for name in (f"{figure} A", f"{figure} B", "B − A"):
        table.add_column(name, justify="right", no_wrap=True)
    for c in changes:
        table.add_row(Text(str(c.image_id)), f"{c.a:.2f}", f"{c.b:.2f}", _signed(c.b - c.a))
    return table


def method(comparison: Comparison) -> list[str]:
    """How intervals and words came about, a line each."""
    share, chance = f"{100 * comparison.level:.0f} %", 1 - comparison.level
    return [
        f"{share} percentile intervals and p-values from {comparison.resamples} paired resamples of the images (seed {comparison.seed}), each "
        f"accumulated anew; a mean over classes is over those that a resample holds",
        "better, worse: the interval of B − A leaves out zero; figures over all classes are not adjusted for their number",
        f"of classes also p, adjusted by Benjamini and Hochberg over the classes of a figure, is at most {chance:.2g}; without that, one class in "
        f"{1 / chance:.0f} would seem to differ by chance; no p is below 2^(1 − k) where only k images hold the class",
    ]


def comparison_json(comparison: Comparison) -> JsonObject:
    """All of it, NaN as null; with the verdict of each difference."""
    document = asdict(comparison)
    for record, d in zip(document["differences"], comparison.differences, strict=True):
        word = verdict(d) if d.category is None else class_verdict(d, comparison.level)
        record |= {"significant": d.significant, "verdict": word}
    found: JsonObject = _without_nan(document | {"method": method(comparison)})
    return found


def _table(title: str, first: str, comparison: Comparison, p: str) -> Table:
    table = Table(title=Text(title), title_justify="left")
    table.add_column(first, no_wrap=True)
    for name in ("A", "B", "B − A", f"{100 * comparison.level:.0f} % interval", p):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("B is")
    return table


def _cells(d: Difference) -> tuple[str, str, str, str]:
    interval = f"{_signed(d.difference.low)} to {_signed(d.difference.high)}" if d.difference.has_interval else "-"
    return _number(d.a), _number(d.b), _signed(d.difference.value), interval


def _word(said: Verdict) -> Text:
    return Text(said, style=_STYLES.get(said, ""))


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{round(value, 2) + 0.0:+.2f}"  # + 0.0: never "-0.00"


def _p(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.3f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
