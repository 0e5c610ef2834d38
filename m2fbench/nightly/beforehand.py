"""What can be seen to be wrong with a nightly before anything runs: checkpoints, datasets, releases, and comparisons that cannot be made."""

from collections.abc import Iterator
from contextlib import chdir
from dataclasses import dataclass

from m2fbench.errors import HistoryError, M2FBenchError
from m2fbench.history.history import History
from m2fbench.nightly.config import NightlySuite
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.matrix import CellPlan
from m2fbench.suite import Suite, find_suite
from m2fbench.suite_text import place
from m2fbench.yaml_lines import KeyPath, read_yaml


@dataclass(frozen=True)
class Beforehand:
    """cells: why a cell cannot be run, by its name. problems: these with ``file:line: key``, and whatever else is wrong. warnings: what will
    say less than may be hoped for, with its place."""

    cells: dict[str, str]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def seen_beforehand(nightly: Nightly) -> Beforehand:
    """Nothing is run, downloaded or written. A checkpoint of the hub may turn out not to be there as its cell runs."""
    cells: dict[str, str] = {}
    problems: dict[str, None] = {}
    warnings: list[str] = []
    with chdir(nightly.folder):
        for index, (entry, suite) in enumerate(zip(nightly.config.suites, nightly.suites, strict=True)):
            mine = [one for one in nightly.cells if one.cell.index == index]
            if missing := _problem_of_data(entry, suite):
                where = ("suites", index, "suite" if entry.data is None else "data")
                problems[f"{place(nightly.path, nightly.lines, where)}: {missing}"] = None
                cells |= {one.cell.name: missing for one in mine if one.unavailable is None}
            elif warning := _incomparable(nightly, index, mine):
                warnings.append(warning)
            for one in mine:
                if (problem := _problem_of_checkpoint(one)) is not None:
                    problems[f"{_place_of_checkpoint(nightly, one, problem)}: {problem}"] = None
                    cells.setdefault(one.cell.name, problem)
    for problem in _unknown_releases(nightly):
        problems[problem] = None
    return Beforehand(cells, tuple(problems), tuple(warnings))


def _problem_of_data(entry: NightlySuite, suite: Suite) -> str | None:
    from m2fbench.scoring import check_truth, open_dataset

    try:
        check_truth(open_dataset(suite, entry.data))
    except M2FBenchError as error:
        return str(error)
    return None


def _problem_of_checkpoint(one: CellPlan) -> str | None:
    from m2fbench.models.checkpoint import problem_here

    row = one.spec.row
    return None if one.unavailable is not None else problem_here(row.checkpoint, row.config, row.labels)


def _place_of_checkpoint(nightly: Nightly, one: CellPlan, problem: str) -> str:
    """In the nightly's own file where that names the checkpoint, else in the suite's."""
    entry, row = nightly.config.suites[one.cell.index], one.spec.row
    if row.checkpoint in entry.checkpoints:
        return place(
            nightly.path, nightly.lines, ("suites", one.cell.index, "checkpoints", entry.checkpoints.index(row.checkpoint))
        )
    path = find_suite(entry.suite)
    number = next(k for k, known in enumerate(nightly.suites[one.cell.index].checkpoints) if known.name == row.name)
    key = "config" if row.config is not None and problem.startswith("config ") else "checkpoint"
    where: KeyPath = ("checkpoints", number, key)
    return place(nightly.folder / path, read_yaml(path)[1], where)


def _incomparable(nightly: Nightly, index: int, cells: list[CellPlan]) -> str | None:
    """A suite that runs over some of its images, where a comparison with what is published was asked for."""
    from m2fbench.scoring import open_dataset

    entry, suite = nightly.config.suites[index], nightly.suites[index]
    if entry.limit is None or "published" not in nightly.config.baselines or not any(one.spec.published for one in cells):
        return None
    if entry.limit >= len(open_dataset(suite, entry.data).examples()):
        return None
    where = place(nightly.path, nightly.lines, ("suites", index, "limit"))
    return f"{where}: published figures are of all images, and not comparable with a limit of {entry.limit}"


def _unknown_releases(nightly: Nightly) -> Iterator[str]:
    wanted = {k: b.removeprefix("release:") for k, b in enumerate(nightly.config.baselines) if b.startswith("release:")}
    if not wanted:
        return
    try:
        with History(nightly.history) as history:
            known = list(history.releases())
        there = f"which has {', '.join(known)}" if known else "which has none"
    except HistoryError:  # none is there yet, or it cannot be opened, which the night itself will say
        known, there = [], "which cannot be opened or is not there yet"
    for number, name in wanted.items():
        if name not in known:
            where = place(nightly.path, nightly.lines, ("baselines", number))
            yield f"{where}: expected a release of the history {nightly.history}, {there}; got '{name}' (m2fbench history release makes one)"
