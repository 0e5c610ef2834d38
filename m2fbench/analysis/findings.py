"""What the analyses find, as plain records: reports, cards and comparisons draw these, and nothing else.

Figures are in percent, NaN where there was nothing to measure. Intervals are 95 % unless ``level`` says otherwise.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from m2fbench.types import ImageId

LEVEL = 0.95

FigureKey = tuple[str, str | None]
"""A figure's name as results have it, and the class it is of (None: over all)."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval; low and high are NaN where none was computed."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def has_interval(self) -> bool:
        return not (math.isnan(self.low) or math.isnan(self.high))


@dataclass(frozen=True)
class Intervals:
    """Bootstrap intervals of one run's figures. images: resampled; resamples: how many times."""

    figures: Mapping[FigureKey, Estimate]
    images: int
    resamples: int
    seed: int
    level: float = LEVEL
    missing: Mapping[str, str] = field(default_factory=dict)
    """Metrics without intervals -> why."""


@dataclass(frozen=True)
class SubsetFinding:
    """The figures over a part of the evidence.

    attribute: what it is divided by ("object size"). subset: which part ("small"). definition: in words and numbers. level: what is chosen:
    whole images, objects, or classes. images: those that take part (for objects: in which there is one). objects: true objects that count,
    None where the head has none. figures: by name. enough: whether there is enough to say anything; reason: why not. head: whose objects are
    counted or chosen; whole images carry the figures of all heads.
    """

    attribute: str
    subset: str
    definition: str
    level: Literal["image", "object", "class"]
    images: int
    objects: int | None
    figures: Mapping[str, Estimate]
    enough: bool = True
    reason: str | None = None
    head: str | None = None


@dataclass(frozen=True)
class Disaggregation:
    """All subsets of one run. undefined: attributes that mean nothing here -> why."""

    subsets: tuple[SubsetFinding, ...]
    undefined: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """One figure of two runs over the same images: B - A with its paired interval. p_value: two-sided, of no difference, from the resamples.
    significant: whether the interval leaves out zero. adjusted_p: of a class, by Benjamini and Hochberg over all classes of the figure, so that
    of the classes picked by it 5 % are expected to be false; NaN over all. a_interval, b_interval: of figures over all classes, what each run
    alone gives over the same draws; not of classes."""

    figure: str
    category: str | None
    a: float
    b: float
    difference: Estimate
    p_value: float
    adjusted_p: float = math.nan
    a_interval: Estimate | None = None
    b_interval: Estimate | None = None

    @property
    def significant(self) -> bool:
        return self.difference.has_interval and not self.difference.low <= 0 <= self.difference.high


@dataclass(frozen=True)
class ImageChange:
    """One image's own figures (``figure`` of this image alone) under two runs."""

    image_id: ImageId
    figure: str
    a: float
    b: float


@dataclass(frozen=True)
class Comparison:
    """Two runs compared over the images that both have. changes: of the head's main figure, the largest loss first."""

    a: str
    b: str
    images: int
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    changes: tuple[ImageChange, ...]
    notes: tuple[str, ...] = ()
    level: float = LEVEL


@dataclass(frozen=True)
class ErrorShare:
    """One kind of error. definition: in words. count: how often, None where that means nothing. cost: what the figure would gain (points)
    if all errors of this kind were mended, the others staying."""

    name: str
    definition: str
    count: float | None
    cost: float


@dataclass(frozen=True)
class ErrorFindings:
    """What a head's figure lost to which kind of error. figure, value: the one that the costs are of. by_class: class -> error name ->
    cost or count, whichever ``by_class_unit`` says. convention: whose definitions these are."""

    head: str
    figure: str
    value: float
    convention: str
    shares: tuple[ErrorShare, ...]
    by_class: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    by_class_unit: str = ""
    notes: tuple[str, ...] = ()
    by_group: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Part of the evidence (things, stuff; boundary band, inside) -> error name or figure -> value in ``by_group_unit``."""
    by_group_unit: str = ""


@dataclass(frozen=True)
class Confusion:
    """matrix[i][j]: truth of class i (the last row: nothing) predicted as class j (the last column: nothing). unit: "instances", "segments"
    or "pixels". definition: what counts as a pair."""

    head: str
    categories: tuple[str, ...]
    matrix: tuple[tuple[float, ...], ...]
    unit: str
    definition: str


@dataclass(frozen=True)
class Curve:
    """y over x, both 0..1; undefined points are left out."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class CalibrationBin:
    low: float
    high: float
    confidence: float
    """Mean score of the predictions in the bin; NaN for none."""
    accuracy: float
    """Share of them that are right; NaN for none."""
    count: int


@dataclass(frozen=True)
class Calibration:
    """Whether scores are probabilities. error: expected calibration error, 0..1. definition: what is right, and which predictions count."""

    bins: tuple[CalibrationBin, ...]
    error: float
    largest: float
    definition: str
