"""How figures look, and how they become SVG and PNG: one style, for print and for white and dark pages alike.

The background is transparent. Of the colours of Okabe and Ito (2008, "Color universal design"), which colour-blind people tell apart, those four
are used that keep a contrast of 3:1 (WCAG 2.1, 1.4.11) both on white and on a dark page, and a grey that does. Every series has its own marker,
line style and hatching besides, so that none is told by colour alone.
"""

import contextlib
import io
import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from m2fbench.reporting.page.records import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
PAPER = "#FFFFFF"
"""Of hatching and edges on filled areas, which stand out of every colour in print too."""
GREY = "#767676"
"""Of text, axes and what is published."""
SERIES = (BLUE, VERMILLION, GREEN, PURPLE, GREY)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
HATCHES = ("", "///", "|||", "\\\\\\", "xx", "++", "---")
"""Of lines only: a pattern of dots is a hundred times as large in an SVG."""
DARK_PAGE = "#111417"
"""The darkest page on which figures are held to be readable: that of ``report.html``."""
WIDTH = 7.2
"""Of a figure, in inches."""
_SALT = "m2fbench"
_RC = {
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.facecolor": "none", "savefig.transparent": True,
    "text.color": GREY, "axes.edgecolor": GREY, "axes.labelcolor": GREY, "xtick.color": GREY, "ytick.color": GREY, "grid.color": GREY,
    "legend.labelcolor": GREY, "legend.frameon": False, "legend.fontsize": 8.5, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6,
    "axes.axisbelow": True, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.8, "font.size": 9, "axes.labelsize": 9,
    "axes.titlesize": 9.5, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "lines.linewidth": 1.6, "lines.markersize": 6,
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"], "svg.fonttype": "none", "svg.hashsalt": _SALT,
    "text.parse_math": False, "axes.unicode_minus": True, "hatch.linewidth": 0.7, "axes.formatter.use_mathtext": False,
    "figure.constrained_layout.use": True, "axes.prop_cycle": None,
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How one series is drawn: colour, marker, line style, hatching."""

    color: str
    marker: str
    line: Any
    hatch: str


def look(number: int) -> Look:
    """Of the series of that number; no two of the first 35 are alike."""
    return Look(SERIES[number % 5], MARKERS[number % 7], LINES[(number + number // 5) % 5], HATCHES[number % 7])


@contextlib.contextmanager
def drawing(
    width: float = WIDTH, height: float = 3.4, columns: int = 1, rows: int = 1, **options: Any
) -> Iterator[tuple[Any, Any]]:
    """(figure, axes) in the style of reports, without any window; closed at the end. options: of ``Figure.subplots``.

    Everything that is drawn and saved belongs inside: text that looks like a formula is one outside.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Drawn

    settings = {name: value for name, value in _RC.items() if value is not None}
    with mpl.rc_context(settings):
        drawn = Drawn(figsize=(width, height))
        FigureCanvasAgg(drawn)
        yield drawn, drawn.subplots(rows, columns, **options)


def finished(drawn: Any, key: str, title: str, caption: str, alt: str) -> Figure:
    """The figure in both forms, the same bytes for the same content. To be called inside of ``drawing``."""
    svg, png = io.StringIO(), io.BytesIO()
    logger = logging.getLogger("matplotlib.font_manager")
    level = logger.level
    logger.setLevel(logging.ERROR)  # of names in scripts that the font lacks: boxes in the PNG, text in the SVG
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from")
            drawn.draw_without_rendering()
            drawn.set_layout_engine("none")  # where everything is has been found, and need not be for each format
            drawn.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            drawn.savefig(png, format="png", dpi=160, metadata={"Software": None})
    finally:
        logger.setLevel(level)
    return Figure(key, title, caption, alt, svg.getvalue(), png.getvalue())


def named(text: object, limit: int = 32) -> str:
    """A name as an axis has room for it: on one line, the middle left out where it is long."""
    line = " ".join("".join(c if c.isprintable() or c.isspace() else "?" for c in str(text)).split())
    return line if len(line) <= limit else f"{line[: limit // 2]}…{line[len(line) - limit // 2 + 1 :]}"


def sentence(text: str) -> str:
    """A remark as a sentence of a caption."""
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."


def plain_axis(axis: Any, scale: float = 1.0) -> None:
    """Tick labels as plain numbers divided by ``scale``, on logarithmic axes too."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / scale:g}"))
    if axis.get_scale() == "log":
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_minor_formatter(NullFormatter())


def error_bars(values: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> list[list[float]]:
    """What matplotlib wants of intervals: how far below and above the value they reach; NaN, which draws nothing, where an interval is not known."""
    below = [max(0.0, v - low) if low == low else math.nan for v, low in zip(values, lows, strict=True)]
    above = [max(0.0, high - v) if high == high else math.nan for v, high in zip(values, highs, strict=True)]
    return [below, above]


def legend_below(drawn: Any, axes: "Axes") -> None:
    """A legend of what is labelled on ``axes``, below it, where it covers no data; none for nothing."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        columns = max(1, min(4, len(handles), int(100 / (6 + max(map(len, labels))))))
        drawn.legend(handles, labels, loc="outside lower left", ncols=columns)
