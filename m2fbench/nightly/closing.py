"""What a night's command says at its end: the judged figures in short, and what a person can do next."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from m2fbench.nightly.folder import nights_in, results_in
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.order import RETRIED
from m2fbench.nightly.records import FigureVerdict, Verdict
from m2fbench.nightly.wording import MOVED, TextTable, by_importance, shown_value

SHOWN = 20  # figures
STEPS = 3  # of each kind


def short_table(verdict: Verdict, most: int = SHOWN) -> TextTable:
    """The judged figures but those that the tables of what moved, which count among the ``most`` shown, and of what was not measured have."""
    moved = verdict.of(*MOVED)
    others = [figure for figure in by_importance(verdict.figures) if figure not in moved and figure.state != "unmeasured"]
    shown = others[: max(0, most - len(moved))]
    rows = [
        (f.cell, f.figure, f.baseline, f.state, shown_value(f.baseline_value, f.unit), shown_value(f.value, f.unit)) for f in shown
    ]
    title = "The other figures" if moved else "Figures"
    if len(others) > len(shown):
        title += f" ({len(shown)} of {len(others)}; summary.md has all)"
    return TextTable(title, ("cell", "figure", "against", "state", "baseline", "tonight"), tuple(rows), 4)


def next_steps(nightly: Nightly, folder: Path, verdict: Verdict, again: Sequence[str]) -> list[str]:
    """Commands and files to go on with, one line each; none after a night that is in order. again: the command of this night."""
    regressions = verdict.of("regression")
    lines = [*_first(_comparisons(nightly, folder, regressions)), *_first(_acceptances(nightly, regressions))]
    failed = [outcome for outcome in verdict.outcomes if outcome.state in RETRIED]
    lines += _first(f"{_path(folder / o.log)}: what {o.cell.name} wrote" for o in failed if o.log is not None)
    if failed:
        lines.append(f"{shlex.join([*again, '--retry'])}: runs the {len(failed)} that failed again")
    return lines


def _first(lines: Iterator[str]) -> list[str]:
    return list(dict.fromkeys(lines))[:STEPS]


def _comparisons(nightly: Nightly, folder: Path, regressions: Sequence[FigureVerdict]) -> Iterator[str]:
    """Of the runs behind a regression of accuracy, where both lie in the output folder."""
    accuracy = [f for f in regressions if f.kind == "accuracy" and f.baseline_result is not None]
    if not accuracy:
        return
    runs = {
        (cell, sha256): path / "runs" / cell
        for path, _ in nights_in(nightly.output)
        for cell, results in results_in(path).items()
        for sha256 in results
    }
    for figure in accuracy:
        before = runs.get((figure.cell, str(figure.baseline_result)))
        if before is not None and before.is_dir():
            tonight = folder / "runs" / figure.cell
            yield f"m2fbench compare {shlex.quote(_path(before))} {shlex.quote(_path(tonight))}: which images lost"


def _acceptances(nightly: Nightly, regressions: Sequence[FigureVerdict]) -> Iterator[str]:
    default = str(Path("history").resolve())
    where = "" if nightly.history == default else f" --history {shlex.quote(_path(nightly.history))}"
    for figure in regressions:
        if figure.baseline == "last-good":
            yield f"m2fbench history accept {shlex.quote(figure.cell)} --reason WHY{where}: where the change is as it should be"


def _path(path: Path | str) -> str:
    """From here where it lies below."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if "://" not in str(path) and Path(path).is_relative_to(here) else str(path)
