"""Figures of where a model fails: kinds of errors, confusions, precision over recall, calibration."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from m2fbench.analysis.findings import Calibration, Confusion, Curve, ErrorFindings
from m2fbench.reporting.page import plots
from m2fbench.reporting.page.records import Figure

LABELLED = 30
"""Classes that a confusion matrix has room for; of more, those that are confused most are drawn."""
NOTHING = "nothing"


def error_bars(found: ErrorFindings, key: str) -> Figure | None:
    """What a figure would gain if one kind of error were mended, the kinds in their own order."""
    shares = [s for s in found.shares if not math.isnan(s.cost)]
    if not shares:
        return None
    with plots.drawing(height=0.8 + 0.32 * len(shares)) as (drawn, axes):
        places = range(len(shares))
        for place, share in zip(places, shares, strict=True):
            axes.barh([place], [share.cost], color=plots.BLUE, height=0.66, alpha=0.85)
            counted = "" if share.count is None or math.isnan(share.count) else f", {share.count:,.0f} ×"
            axes.annotate(
                f"{share.cost:.1f}{counted}",
                (max(share.cost, 0.0), place),
                (4, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(places, [plots.named(s.name) for s in shares])
        axes.invert_yaxis()
        axes.margins(x=0.18)
        axes.set_xlabel(f"points of {found.figure} that mending it would give")
        axes.grid(axis="y", visible=False)
        said = ", ".join(f"{s.name} {s.cost:.2f}" for s in shares)
        caption = (
            f"{found.figure} {found.value:.2f}; each mended alone, so they need not add up. {plots.sentence(found.convention)}"
        )
        return plots.finished(drawn, key, f"What {found.figure} lost to which errors", caption, f"Bar chart: {said}")


def shares_of(confusion: Confusion) -> Any:
    """float64 [C + 1, C + 1]: each row's shares of its sum; rows without anything are NaN."""
    matrix = np.asarray(confusion.matrix, np.float64)
    sums = matrix.sum(1, keepdims=True)
    return np.divide(matrix, sums, out=np.full_like(matrix, np.nan), where=sums > 0)


def most_confused(confusion: Confusion, most: int = 20) -> list[tuple[str, str, float, float]]:
    """(truth, predicted, how often, share of that truth) of the pairs of different classes that happen most; "nothing" among them."""
    matrix = np.asarray(confusion.matrix, np.float64)
    shares, names = shares_of(confusion), (*confusion.categories, NOTHING)
    pairs = [(i, j) for i in range(len(matrix)) for j in range(len(matrix)) if i != j and matrix[i, j] > 0]
    pairs.sort(key=lambda pair: (-matrix[pair], pair))
    return [(names[i], names[j], float(matrix[i, j]), float(shares[i, j])) for i, j in pairs[:most]]


def confusion_map(confusion: Confusion, key: str) -> Figure | None:
    """Shares of each true class, right ones blue, wrong ones vermillion, the stronger the more; None for an empty matrix."""
    shares = shares_of(confusion)
    if not len(shares) or np.isnan(shares).all():
        return None
    chosen = _drawn_classes(confusion)
    size = len(confusion.categories)
    indices = [*chosen, size]
    part = np.nan_to_num(shares[np.ix_(indices, indices)])
    names = [*(plots.named(confusion.categories[i], 22) for i in chosen), NOTHING]
    side = min(7.2, 2.0 + 0.19 * len(names))
    with plots.drawing(width=min(7.2, side + 0.6), height=side) as (drawn, axes):
        image = np.zeros((*part.shape, 4))
        image[..., :3] = _rgb(plots.VERMILLION)
        diagonal = np.arange(len(chosen))
        image[diagonal, diagonal, :3] = _rgb(plots.BLUE)
        image[..., 3] = np.sqrt(part)
        axes.imshow(image, interpolation="nearest")
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7.5)
        axes.set_yticks(range(len(names)), names, fontsize=7.5)
        axes.set_xticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(len(names) + 1) - 0.5, minor=True)
        axes.grid(visible=False, which="major")
        axes.grid(visible=True, which="minor", linewidth=0.4, alpha=0.35)
        axes.tick_params(which="minor", length=0)
        axes.set_xlabel("predicted")
        axes.set_ylabel("truth")
        left = size - len(chosen)
        caption = f"Share of the {confusion.unit} of each true class (rows): right ones blue, confused ones vermillion; the shade is the square "
        caption += "root of the share, so that small ones are seen." + (
            f" The {len(chosen)} classes confused most of {size}." if left else ""
        )
        pairs = ", ".join(f"{truth} as {found} {share:.0%}" for truth, found, _, share in most_confused(confusion, 5))
        return plots.finished(
            drawn, key, "Confusion", caption, f"Confusion matrix of {len(chosen)} classes. Most frequent: {pairs}."
        )


def _drawn_classes(confusion: Confusion) -> list[int]:
    """All, or the ones with most off the diagonal, in the dataset's order."""
    matrix = np.asarray(confusion.matrix, np.float64)
    size = len(confusion.categories)
    if size <= LABELLED:
        return list(range(size))
    wrong = matrix.copy()
    np.fill_diagonal(wrong, 0)
    wrong[:, size] = wrong[size, :] = 0  # what is missed or made up confuses nothing with another class
    amount = wrong.sum(0) + wrong.sum(1)
    return sorted(np.argsort(-amount[:size], kind="stable")[:LABELLED].tolist())


def _rgb(color: str) -> tuple[float, ...]:
    return tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))


def curves(found: Sequence[Curve], key: str, title: str, x: str, y: str) -> Figure | None:
    """Lines over the unit square."""
    known = [curve for curve in found if curve.x]
    if not known:
        return None
    with plots.drawing(height=3.6) as (drawn, axes):
        for number, curve in enumerate(known):
            look = plots.look(number)
            axes.plot(
                curve.x, curve.y, color=look.color, linestyle=look.line, marker=look.marker, markevery=(number, max(1, len(curve.x) // 8)),
                markersize=4.5, label=plots.named(curve.name),
            )  # fmt: skip
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.02, 1.05)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        plots.legend_below(drawn, axes)
        alt = f"Line chart of {y} over {x}: {', '.join(curve.name for curve in known)}."
        return plots.finished(drawn, key, title, f"{y.capitalize()} over {x}.", alt)


def distances(found: Sequence[Curve], key: str) -> Figure | None:
    """What depends on how far pixels are from a boundary between classes, a share of the diagonal that ends nowhere."""
    known = [curve for curve in found if curve.x]
    if not known:
        return None
    with plots.drawing(height=3.2) as (drawn, axes):
        for number, curve in enumerate(known):
            look = plots.look(number)
            inside = [(100 * x, y) for x, y in zip(curve.x, curve.y, strict=True) if math.isfinite(x)]
            axes.plot(
                *zip(*inside, strict=True), color=look.color, marker=look.marker, linestyle=look.line, label=plots.named(curve.name)
            )
        axes.set_xlabel("distance to the nearest boundary, % of the image's diagonal")
        axes.set_ylabel("share")
        axes.set_ylim(-0.02, 1.05)
        plots.legend_below(drawn, axes)
        said = "; ".join(
            f"{c.name}: " + ", ".join(f"{y:.2f} at {100 * x:.2g} %" for x, y in zip(c.x, c.y, strict=True)) for c in known
        )
        return plots.finished(
            drawn, key, "Near and far from boundaries", "Pixels by their distance to a boundary.", f"Line chart. {said}"
        )


def reliability(found: Calibration, key: str) -> Figure | None:
    """Share of right predictions over mean score, bin by bin, above how many predictions each bin has."""
    bins = [b for b in found.bins if b.count]
    if not bins:
        return None
    middles, widths = [(b.low + b.high) / 2 for b in found.bins], [0.92 * (b.high - b.low) for b in found.bins]
    ratios = {"height_ratios": [3, 1]}
    with plots.drawing(height=4.3, rows=2, sharex=True, gridspec_kw=ratios) as (drawn, (above, below)):
        above.plot([0, 1], [0, 1], color=plots.GREY, linestyle="--", linewidth=1, label="scores that are probabilities")
        above.plot([b.confidence for b in bins], [b.accuracy for b in bins], "o-", color=plots.BLUE, label="measured")
        above.set_ylabel("share that is right")
        above.set_ylim(-0.02, 1.05)
        below.bar(middles, [b.count for b in found.bins], widths, color=plots.BLUE, alpha=0.75)
        below.set_yscale("log")
        plots.plain_axis(below.yaxis)
        below.set_ylabel("predictions")
        below.set_xlabel("score")
        below.set_xlim(0, 1)
        above.legend(loc="upper left")
        said = "; ".join(f"score {b.confidence:.2f}: {b.accuracy:.2f} right of {b.count}" for b in bins)
        caption = f"Expected calibration error {found.error:.3f}, largest {found.largest:.3f}. {plots.sentence(found.definition)}"
        return plots.finished(drawn, key, "Calibration", caption, f"Reliability diagram. {said}")
