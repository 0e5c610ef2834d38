"""What the readers of a whole night must know before its figures: what was held to nothing, and what changed without moving any."""

from collections.abc import Iterable, Sequence

from m2fbench.analysis.words import counted
from m2fbench.nightly.records import UNCOMPARED, FigureVerdict
from m2fbench.nightly.wording import changed

_CELLS = 3
"""Named in a line."""
_TELLING = ("checkpoint", "checkpoint revision", "m2fbench", "m2fbench commit", "suite")
"""Circumstances whose change is what a nightly is run for."""


def not_compared(figures: Sequence[FigureVerdict]) -> list[str]:
    """A line for each reason: the figures that were measured and held to nothing."""
    groups: dict[tuple[str, str], list[FigureVerdict]] = {}
    for figure in figures:
        if figure.state in UNCOMPARED:
            reason = figure.note or "no earlier night to compare with" if figure.state == "new" else figure.note or figure.state
            groups.setdefault((figure.baseline, reason), []).append(figure)
    return [
        f"{counted(len(found), 'figure')} not compared with {baseline}: {reason}: {_by_cell(found)}"
        for (baseline, reason), found in groups.items()
    ]  # fmt: skip


def _by_cell(figures: Iterable[FigureVerdict]) -> str:
    """ "CELL (AP, fps); CELL (AP)"."""
    cells: dict[str, list[str]] = {}
    for figure in figures:
        cells.setdefault(figure.cell, []).append(figure.figure)
    return _listed([f"{cell} ({', '.join(names)})" for cell, names in cells.items()])


def _listed(cells: Sequence[str]) -> str:
    more = [f"{len(cells) - _CELLS} more"] if len(cells) > _CELLS else []
    return "; ".join([*cells[:_CELLS], *more])


def changed_and_steady(figures: Sequence[FigureVerdict]) -> list[str]:
    """A line for each change of checkpoint or code since the night before that moved no figure of a cell."""
    cells: dict[str, list[FigureVerdict]] = {}
    for figure in figures:
        cells.setdefault(figure.cell, []).append(figure)
    quiet: dict[str, list[str]] = {}
    for cell, found in cells.items():
        telling = dict.fromkeys(change for figure in found for change in figure.tonight if change.what in _TELLING)
        if telling and all(figure.state == "steady" for figure in found):
            quiet.setdefault(changed(list(telling)), []).append(cell)
    return [f"{_listed(names)}: {what}: figures steady" for what, names in quiet.items()]
