"""Slow drift: the slope that no step explains.

A level that follows its nights never sees a loss of 0.05 % a night, so it is looked for apart, over all nights of the present level. Nights near
each other are alike (a warm week, a busy month), which makes a test over single nights see drift in everything; the test is therefore over the
medians of blocks of nights: Mann and Kendall's, of how many pairs of blocks rise, with the slope of Theil and Sen (the median over the pairs).
"""

import math
from collections.abc import Sequence
from datetime import datetime
from itertools import combinations, pairwise
from statistics import median

from m2fbench.analysis.series import Point, Trend

BLOCK, FEWEST, MOST = 5, 8, 20
"""Nights to a block at least; blocks at least, and at most."""
CHANCE = 0.001
"""Largest two-sided p of a drift that is said."""


def drift(nights: Sequence[Point], level: float, least: float) -> Trend | None:
    """The drift over these nights, all of one level; None where it is no more than chance or smaller than ``least``. level, least: in the
    figure's unit."""
    count = min(len(nights) // BLOCK, MOST)
    if count < FEWEST or not level:
        return None
    ends = [round(len(nights) * k / count) for k in range(count + 1)]
    blocks = [nights[a:b] for a, b in pairwise(ends)]
    days = _days(nights)
    when = [median(days[a:b]) for a, b in pairwise(ends)]
    values = [median(p.value for p in block) for block in blocks]
    pairs = [(when[b] - when[a], values[b] - values[a]) for a, b in combinations(range(count), 2)]
    slopes = [y / x for x, y in pairs if x > 0]
    change = median(slopes) * days[-1] if slopes else 0.0
    if abs(change) < least or _chance(sum((y > 0) - (y < 0) for _, y in pairs), count) > CHANCE:
        return None
    return Trend(change / abs(level), days[-1], len(nights))


def _days(nights: Sequence[Point]) -> list[float]:
    """Since the first of them; their numbers where a time cannot be read."""
    try:
        times = [datetime.fromisoformat(p.time) for p in nights]
        return [(t - times[0]).total_seconds() / 86400 for t in times]
    except (ValueError, TypeError):
        return [float(k) for k in range(len(nights))]


def _chance(surplus: int, count: int) -> float:
    """Two-sided p of so many more rising pairs than falling ones (Kendall 1975, normal approximation)."""
    deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
    return math.erfc(max(0, abs(surplus) - 1) / deviation / math.sqrt(2))
