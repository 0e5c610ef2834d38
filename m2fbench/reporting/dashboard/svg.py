"""Sparklines and charts as SVG text, as small as it can be: a site has hundreds of them.

Curves lie in a box of their own that is stretched to whatever room there is, with strokes that are not; marks and letters stand at shares of it,
and keep their size. Colours and strokes are classes of the site's style sheet.
"""

import math
from collections.abc import Sequence

from m2fbench.analysis.series import Point, Step
from m2fbench.reporting.dashboard.axes import Frame, frame_of, seconds_of, time_ticks, value_ticks
from m2fbench.reporting.dashboard.digest import Digest, levels

_WIDE, _HIGH = 8000, 2000  # units of a chart's inner box
SPARK_NIGHTS = 90
_SPARK = (132, 30)
_CALM_POINTS, _CALM_SHARE = 0.2, 0.01
"""What a sparkline shows about its level at the least, so that noise that means nothing looks like nothing."""
_WHISKERS = 160  # nights up to which intervals are drawn one by one, more of them are a band
MARKS = {
    "regression": "M-6-5L6-5L0 5Z",
    "improvement": "M-6 5L6 5L0-5Z",
    "recovered": "M-6 5L6 5L0-5Z",
    "suspect": "M0-5.5L5.5 0L0 5.5L-5.5 0Z",
    "outlier": "M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5",
    "disturbed": "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0-4.5 0Z",
    "unmeasured": "M-3.5-6.5L3.5 .5M-3.5 .5L3.5-6.5",
    "restart": "M-5 0H5M0-5V5",
    "cut": "M-3.5 0L0-4L3.5 0",
}
"""The outline of every kind of mark, about its place, in pixels."""


def sparkline(digest: Digest) -> str:
    """The last nights in brief: the curve, steps, and where it stands."""
    points, detection = digest.points, digest.detection
    seconds = seconds_of(points)
    first = max(0, len(points) - SPARK_NIGHTS)
    wide, high = _SPARK
    middle = digest.value if math.isnan(digest.level) else digest.level
    room = _CALM_POINTS if digest.scale.unit == "percent" else _CALM_SHARE * abs(middle)
    around = () if math.isnan(middle) else (middle - room, middle + room)
    frame = frame_of(points, detection, seconds, first, around)
    inside = [
        (frame.x(seconds[i]) * (wide - 8) + 4, frame.y(points[i].value) * (high - 8) + 4, i) for i in _measured(points, first)
    ]
    text = [f'<svg class="spark" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" aria-hidden="true">']
    text += [f'<path d="{part}"/>' for part in _lines(inside, digest)]
    for step in detection.steps:
        if step.first >= first:
            x = frame.x(seconds[step.first]) * (wide - 8) + 4
            text.append(f'<path class="at {digest.states[step.first]}" d="M{x:.1f} 1V{high - 1}"/>')
    if inside:
        x, y, _ = inside[-1]
        text.append(f'<circle class="{digest.status}" cx="{x:.1f}" cy="{y:.1f}" r="2.6"/>')
    return "".join([*text, "</svg>"])


def _measured(points: Sequence[Point], first: int) -> list[int]:
    return [i for i in range(first, len(points)) if not math.isnan(points[i].value)]


def _lines(places: Sequence[tuple[float, float, int]], digest: Digest) -> list[str]:
    """Paths through the places, a new one where conditions change."""
    parts: list[str] = []
    conditions: str | None = None
    for x, y, i in places:
        here = digest.points[i].conditions
        if here != conditions or not parts:
            parts.append(f"M{x:.1f} {y:.1f}h0")
        else:
            parts[-1] += f"L{x:.1f} {y:.1f}"
        conditions = here
    return parts


def chart(digest: Digest, nights: int | None, seconds: Sequence[float], label: str) -> str:
    """The last so many nights of a series, all for None. seconds: of every point. label: what it shows, as attribute text, escaped."""
    points, detection = digest.points, digest.detection
    first = 0 if nights is None else max(0, len(points) - nights)
    stretches = [(max(a, first), b, level) for a, b, level in levels(detection, digest.series) if b >= first]
    values = [level for _, _, level in stretches]
    frame = frame_of(points, detection, seconds, first, values)
    intervals = _intervals(frame, points, seconds)
    if digest.scale.unit == "percent" and intervals and _cut(frame, points):  # over images, not nights: it would only hide them
        frame, intervals = frame_of(points, detection, seconds, first, values, intervals=False), []
    edges = f'data-first="{first}" data-start="{frame.start:.0f}" data-end="{frame.end:.0f}" data-low="{frame.low!r}" data-high="{frame.high!r}"'
    return "".join([
        f'<svg class="plot" width="100%" height="340" role="img" aria-label="{label}" {edges}>',
        *_axes(frame, digest),
        f'<svg width="100%" height="100%" viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none">',
        *_open(frame, digest, seconds),
        *intervals,
        *_curve(frame, digest, seconds),
        *(f'<path class="level" d="M{_x(frame, seconds[a])} {_y(frame, v)}H{_x(frame, seconds[b])}"/>' for a, b, v in stretches),
        "</svg>",
        *(_cuts(frame, points, seconds) if intervals else ()),
        *_steps(frame, digest, seconds),
        *_marks(frame, digest, seconds),
        "</svg>",
    ])  # fmt: skip


def _x(frame: Frame, seconds: float) -> int:
    return round(frame.x(seconds) * _WIDE)


def _y(frame: Frame, value: float) -> int:
    return round(frame.y(value) * _HIGH)


def _axes(frame: Frame, digest: Digest) -> list[str]:
    """Lines and labels, all of which but the text are for the eye only."""
    factor = digest.scale.factor
    ticks = value_ticks(frame.low / factor, frame.high / factor) if digest.latest is not None else []
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = next((d for d in range(12) if abs(round(step, d) - step) < 1e-9 * max(step, 1e-12)), 12)
    text = ['<g class="axes" aria-hidden="true">']
    for tick in ticks:
        y = f"{100 * frame.y(tick * factor):.2f}%"
        shown = f"{tick + 0.0:.{digits}f}".replace("-", "−")
        text.append(f'<line x1="0" x2="100%" y1="{y}" y2="{y}"/><text class="v" x="-8" y="{y}" dy="4">{shown}</text>')
    for number, (at, name) in enumerate(time_ticks(frame.start, frame.end)):
        x = f"{100 * frame.x(at):.2f}%"
        odd = " odd" if number % 2 else ""
        text.append(
            f'<line class="t" x1="{x}" x2="{x}" y1="100%" y2="100%"/><text class="d{odd}" x="{x}" y="100%" dy="19">{name}</text>'
        )
    return [*text, "</g>"]


def _open(frame: Frame, digest: Digest, seconds: Sequence[float]) -> list[str]:
    """The nights under an open regression, shaded."""
    step = digest.detection.open
    if step is None:
        return []
    left = max(_x(frame, seconds[max(step.first, frame.first)]), 0)
    return [f'<rect class="open" x="{left}" y="0" width="{_WIDE - left}" height="{_HIGH}"/>']


def _intervals(frame: Frame, points: Sequence[Point], seconds: Sequence[float]) -> list[str]:
    known = [i for i in range(frame.first, len(points)) if not math.isnan(points[i].low) and not math.isnan(points[i].high)]
    if not known:
        return []
    ends = [(_x(frame, seconds[i]), _y(frame, points[i].low), _y(frame, points[i].high)) for i in known]
    if len(points) - frame.first <= _WHISKERS:
        return [f'<path class="whiskers" d="{"".join(f"M{x} {low}V{high}" for x, low, high in ends)}"/>']
    upper = "L".join(f"{x} {high}" for x, _, high in ends)
    lower = "L".join(f"{x} {low}" for x, low, _ in reversed(ends))
    return [f'<path class="band" d="M{upper}L{lower}Z"/>']


def _cut(frame: Frame, points: Sequence[Point]) -> list[int]:
    """Nights whose intervals leave the chart."""
    known = [i for i in range(frame.first, len(points)) if not math.isnan(points[i].low) and not math.isnan(points[i].high)]
    return [i for i in known if frame.beyond(points[i].low) or frame.beyond(points[i].high)]


def _cuts(frame: Frame, points: Sequence[Point], seconds: Sequence[float]) -> list[str]:
    """A small arrow where an interval goes on beyond the chart; of a band, one for each stretch."""
    cut = _cut(frame, points)
    band = len(points) - frame.first > _WHISKERS
    above, below = {i for i in cut if points[i].high > frame.high}, {i for i in cut if points[i].low < frame.low}
    return [
        f'<svg class="mark cut" x="{100 * frame.x(seconds[i]):.2f}%" y="{edge}"><path d="{path}"/></svg>'
        for edge, path, nights in (("0", MARKS["cut"], above), ("100%", "M-3.5 0L0 4L3.5 0", below))
        for i in sorted(nights)
        if not band or i - 1 not in nights
    ]


def _curve(frame: Frame, digest: Digest, seconds: Sequence[float]) -> list[str]:
    """A thin line through the nights, and a dot for each that has no mark of its own."""
    points = digest.points
    places = [(float(_x(frame, seconds[i])), float(_y(frame, points[i].value)), i) for i in _measured(points, frame.first)]
    lines = [part.replace(".0", "") for part in _lines(places, digest)]
    dots = "".join(f"M{x:.0f} {y:.0f}h0" for x, y, i in places if _mark(digest, i) is None)
    dense = " dense" if len(places) > 200 else ""
    return [*(f'<path class="curve" d="{line}"/>' for line in lines), f'<path class="dots{dense}" d="{dots}"/>']


def _mark(digest: Digest, i: int) -> str | None:
    """Which mark a night has beside the dot."""
    state = digest.states[i]
    if digest.points[i].disturbed and state in ("steady", "outlier", "first"):
        return "disturbed"
    if state in MARKS:
        return state
    return None


def marks_of(digest: Digest) -> list[str]:
    """The kinds that occur, for the legend."""
    present = {_mark(digest, i) for i in range(len(digest.points))}
    return [kind for kind in MARKS if kind in present]


def mark(kind: str) -> str:
    """For the legend."""
    top = -10 if kind == "unmeasured" else -7
    return f'<svg class="mark {kind}" width="16" height="14" viewBox="-8 {top} 16 14" aria-hidden="true"><path d="{MARKS[kind]}"/></svg>'


def _steps(frame: Frame, digest: Digest, seconds: Sequence[float]) -> list[str]:
    """A line up and down at the first night of every step and at every change of conditions."""
    text = []
    for i in range(frame.first, len(digest.points)):
        state = digest.states[i]
        if state in ("regression", "improvement", "recovered", "restart"):
            x = f"{100 * frame.x(seconds[i]):.2f}%"
            text.append(f'<line class="at {state}" x1="{x}" x2="{x}" y1="0" y2="100%"/>')
    return [*text, *_labels(frame, digest, seconds)]


def _labels(frame: Frame, digest: Digest, seconds: Sequence[float]) -> list[str]:
    """How much every step is, at the upper edge; left of it where there is no room on the right."""
    shown: list[tuple[Step, float]] = [(s, frame.x(seconds[s.first])) for s in digest.detection.steps if s.first >= frame.first]
    if len(shown) > 8:
        return []
    text = []
    for number, (step, x) in enumerate(shown):
        side, dx = ("end", -7) if x > 0.8 else ("start", 7)
        crowded = number and abs(x - shown[number - 1][1]) < 0.16
        text.append(
            f'<text class="step {digest.states[step.first]}" x="{100 * x:.2f}%" y="{26 if crowded else 10}" dx="{dx}" text-anchor="{side}">'
            f"{digest.step_text(step)}</text>"
        )
    return text


def _marks(frame: Frame, digest: Digest, seconds: Sequence[float]) -> list[str]:
    text = []
    for i in range(frame.first, len(digest.points)):
        kind = _mark(digest, i)
        value = digest.points[i].value
        if kind is None and not frame.beyond(value):
            continue
        x = f"{100 * frame.x(seconds[i]):.2f}%"
        y = "100%" if math.isnan(value) else f"{100 * frame.y(value):.2f}%"
        if kind is not None:
            text.append(f'<svg class="mark {kind}" x="{x}" y="{y}"><path d="{MARKS[kind]}"/></svg>')
        if not math.isnan(value) and frame.beyond(value):
            arrow = "M-4 3L0-3L4 3" if value > frame.high else "M-4-3L0 3L4-3"
            text.append(f'<svg class="mark beyond" x="{x}" y="{y}"><path d="{arrow}"/></svg>')
    return text
