"""Where a series stands and how much one night differs from the next by chance: a running median and a robust spread.

Spread is kept as shares of the level, but for figures in percent, where it is in points: so that what one level has taught holds at the next.
"""

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from statistics import median

WITHIN_ONE_SIGMA = 0.6827
"""The share of a normal distribution within one standard deviation."""
REMEMBERED = 3
"""Residuals are kept for so many windows: a spread needs more nights than a median."""


class Window:
    """The last ``size`` values, at hand in the order of size."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._recent: deque[float] = deque()
        self._ordered: list[float] = []

    def __len__(self) -> int:
        return len(self._ordered)

    def add(self, value: float) -> None:
        self._recent.append(value)
        insort(self._ordered, value)
        self.keep(self._size)

    def keep(self, number: int) -> None:
        """Only the last so many."""
        while len(self._recent) > number:
            del self._ordered[bisect_left(self._ordered, self._recent.popleft())]

    @property
    def median(self) -> float:
        half, odd = divmod(len(self._ordered), 2)
        return self._ordered[half] if odd else (self._ordered[half - 1] + self._ordered[half]) / 2

    @property
    def sigma(self) -> float:
        """The standard deviation of which the values are absolute residuals, if they are normal: what 68 % of them lie within, which a third
        of outliers cannot move far, enlarged for how little few of them tell. NaN for none."""
        return sigma_of(self._ordered)


def sigma_of(ordered: list[float]) -> float:
    """As ``Window.sigma``, of absolute residuals in the order of size."""
    number = len(ordered)
    if not number:
        return math.nan
    place = min(max(WITHIN_ONE_SIGMA * (number + 1) - 1, 0.0), number - 1.0)
    below = int(place)
    above = min(below + 1, number - 1)
    return (ordered[below] + (place - below) * (ordered[above] - ordered[below])) * (1 + 4 / number)


def scatter(values: Iterable[float]) -> float:
    """The standard deviation of values about their own median."""
    known = sorted(values)
    middle = median(known)
    return sigma_of(sorted(abs(value - middle) for value in known))


class Level:
    """The present level: the median of the last ``window`` nights in line; and the noise, from what nights were off it, this level's and those
    before. shares: noise in shares of the level, not in the figure's unit. together: nights in a row that a step is made of."""

    def __init__(self, window: int, *, shares: bool, together: int) -> None:
        self._window, self._shares = window, shares
        self._nights = Window(window)
        self._residuals = Window(REMEMBERED * window)
        self._lately: deque[float] = deque(maxlen=together)
        self._medians = Window(REMEMBERED * window)
        self._narrowing = math.sqrt(math.pi / (2 * together + math.pi - 2))
        self.value = math.nan
        self.scale = 1.0

    def __len__(self) -> int:
        return len(self._nights)

    @property
    def known(self) -> int:
        """Residuals that the noise is from."""
        return len(self._residuals)

    @property
    def noise(self) -> float:
        """The standard deviation of one night, in ``scale``; NaN where no night tells."""
        return self._residuals.sigma

    @property
    def lasting(self) -> float:
        """The standard deviation that nights in a row must be held to, in ``scale``: the noise, or more where nights that follow each other
        are alike, so that their medians scatter more than those of independent ones would. NaN where no night tells."""
        return max(self.noise, self._medians.sigma) if len(self._medians) else self.noise

    @property
    def widening(self) -> float:
        """By how much a night lies further from a level that is itself of so few nights: the square root of 1 + 1.25 / nights."""
        return math.sqrt(1 + 1.25 / len(self._nights))

    def deviation(self, value: float) -> float:
        """From the level, in ``scale``."""
        return (value - self.value) / self.scale

    def learn(self, value: float) -> None:
        """A night's residual, whether it was in line or not."""
        off = self.deviation(value) / self.widening
        self._residuals.add(abs(off))
        self._lately.append(off)
        if len(self._lately) == self._lately.maxlen:
            self._medians.add(abs(median(self._lately)) / self._narrowing)

    def add(self, value: float) -> None:
        """A night in line."""
        if self._nights:
            self.learn(value)
        self._nights.add(value)
        self._moved()

    def move(self, values: Iterable[float]) -> None:
        """To another level, of which these are the first nights."""
        self._nights = Window(self._window)
        for value in values:
            self._nights.add(value)
        self._moved()

    def restart(self, value: float) -> None:
        """Under other conditions: this is the first night. Most of what is known of the noise is forgotten, so that the new one shows soon."""
        self._residuals.keep(self._window // 2)
        self._medians.keep(self._window // 2)
        self.move([value])

    def _moved(self) -> None:
        self.value = self._nights.median
        self.scale = (abs(self.value) or 1.0) if self._shares else 1.0
