"""The figure of a decoder, layer by layer: what each adds, and what stopping early would save."""

import math
from collections.abc import Sequence

from m2fbench.analysis.layers import LayerFinding
from m2fbench.reporting.page import plots
from m2fbench.reporting.page.records import Figure


def layer_figure(found: Sequence[LayerFinding], images: int, metrics: Sequence[str], key: str) -> Figure | None:
    """Figures over the number of decoder layers, above the share of the FLOPs that stopping there saves; None where nothing is known."""
    shown = [m for m in metrics if any(not math.isnan(layer.figures.get(m, math.nan)) for layer in found)]
    if not shown:
        return None
    layers = [layer.layer for layer in found]
    saved = [100 * layer.saved for layer in found]
    costed = any(not math.isnan(value) for value in saved)
    ratios = {"height_ratios": [3, 1]} if costed else {"height_ratios": [1]}
    with plots.drawing(
        height=4.2 if costed else 3.2, rows=len(ratios["height_ratios"]), sharex=True, squeeze=False, gridspec_kw=ratios
    ) as (
        drawn,
        grid,
    ):
        above = grid[0][0]
        for number, metric in enumerate(shown):
            look = plots.look(number)
            values = [layer.figures.get(metric, math.nan) for layer in found]
            above.plot(layers, values, color=look.color, marker=look.marker, linestyle=look.line, label=metric)
        above.set_ylabel("%")
        if costed:
            grid[1][0].bar(layers, saved, 0.6, color=plots.GREY, alpha=0.7)
            grid[1][0].set_ylabel("FLOPs saved, %")
        grid[-1][0].set_xticks(layers)
        grid[-1][0].set_xlabel("decoder layers, 0: before any")
        plots.legend_below(drawn, above)
        said = "; ".join(
            f"after {layer.layer}: " + ", ".join(f"{m} {layer.figures[m]:.1f}" for m in shown if m in layer.figures)
            for layer in found
        )
        caption = f"What the model predicts when it stops after so many layers, over {images} images."
        return plots.finished(drawn, key, "Layer by layer", caption, f"Line chart. {said}")
