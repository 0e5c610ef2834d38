"""Figures as they are printed: scaled to a unit that people read, with as many digits as tell nights apart.

The page's scripts print by the same table, which is handed to them as it is.
"""

import math
from dataclasses import dataclass

SCALES: dict[str, tuple[tuple[float, float, str], ...]] = {
    "percent": ((0.0, 1.0, "%"),),
    "s": ((0.0, 1e-6, "µs"), (1e-3, 1e-3, "ms"), (1.0, 1.0, "s")),
    "bytes": ((0.0, 1e6, "MB"), (1e9, 1e9, "GB")),
    "count": ((0.0, 1.0, ""), (1e6, 1e6, "M"), (1e9, 1e9, "G"), (1e12, 1e12, "T")),
    "x": ((0.0, 1.0, "×"),),
}
"""By unit: from which magnitude on, divided by what, called what. Other units stand as they are."""
SIGNIFICANT = 4
NOT_MEASURED = "not measured"
_SPACE = "\N{NO-BREAK SPACE}"


@dataclass(frozen=True)
class Scale:
    """Of one series, so that its values stand under one another. unit: as results have it; label: what is printed; digits: behind the point."""

    unit: str
    factor: float
    label: str
    digits: int

    def number(self, value: float, *, signed: bool = False) -> str:
        if math.isnan(value):
            return "–"
        shown = round(value / self.factor, self.digits) + 0.0
        text = f"{shown:{'+' if signed and shown else ''},.{self.digits}f}"
        return text.replace("-", "−").replace(",", "\N{NARROW NO-BREAK SPACE}")

    def text(self, value: float) -> str:
        if math.isnan(value):
            return NOT_MEASURED
        number = self.number(value)
        if value and not number.strip("−0."):  # never nothing where there is something
            small = value / self.factor
            number = f"{small:.{min(1 - math.floor(math.log10(abs(small))), 30)}f}".replace("-", "−")
        return f"{number}{_SPACE}{self.label}".rstrip()

    def change(self, change: float, level: float) -> str:
        """A difference: points of percentages, a share of anything else where there is a level to take it of."""
        if math.isnan(change):
            return "–"
        if self.unit == "percent":
            return f"{self.number(change, signed=True)}{_SPACE}points"
        if not change:
            return "none"
        if not level or math.isnan(level):
            return f"{self.number(change, signed=True)}{_SPACE}{self.label}".rstrip()
        return percent(change / abs(level))


def percent(share: float) -> str:
    """With its sign: two digits under a percent."""
    digits = 1 if abs(share) >= 0.01 else 2
    shown = round(100 * share, digits) + 0.0
    return f"{shown:{'+' if shown else ''}.{digits}f}{_SPACE}%".replace("-", "−")


def scale_of(unit: str, magnitude: float) -> Scale:
    """magnitude: of a typical value; NaN where there is none."""
    size = 0.0 if math.isnan(magnitude) else abs(magnitude)
    _, factor, label = [step for step in SCALES.get(unit, ((0.0, 1.0, unit),)) if size >= step[0]][-1]
    if unit == "percent":
        return Scale(unit, factor, label, 2)
    whole = math.floor(math.log10(size / factor)) + 1 if size else 1
    return Scale(unit, factor, label, min(max(SIGNIFICANT - max(whole, 1), 0), 3 if size >= factor else 6))
