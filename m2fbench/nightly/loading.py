"""A nightly's configuration from its YAML file, with every suite that it names, all checked before anything runs."""

import contextlib
import re
from collections.abc import Iterator, Mapping
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from m2fbench.errors import M2FBenchError, NightlyError, SuiteError
from m2fbench.nightly.config import NightlyConfig, NightlySuite
from m2fbench.nightly.judged import USUAL, kinds_of, may_have
from m2fbench.nightly.matrix import CellPlan, cells_of
from m2fbench.nightly.processes import memory_is_told
from m2fbench.registry import near
from m2fbench.suite import Suite, figure_name, load_suite, metrics
from m2fbench.suite_text import described, expand, place, problems_of
from m2fbench.types import JsonObject
from m2fbench.yaml_lines import Lines, read_yaml

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Nightly:
    """A configuration, ready to run. folder: that its file stands in, in which a night is run, and to which the relative paths of its suites
    refer too. history: an absolute path or an address. output, dashboard: absolute. suites: by place in the configuration. lines: of the
    file's keys."""

    path: Path
    folder: Path
    config: NightlyConfig
    history: str
    output: Path
    dashboard: Path | None
    suites: tuple[Suite, ...]
    cells: tuple[CellPlan, ...]
    lines: Lines = field(default_factory=dict, compare=False, repr=False)


def load_nightly(path: Path, *, history: str | None = None, output: Path | None = None, device: Device | None = None) -> Nightly:
    """Read and check it. history, output, device: in place of the configuration's; relative ones refer to the present folder.

    Raises NightlyError with ``file:line: key: expected ..., got ...``, one line for every problem of the file, or of a suite.
    """
    path = path.expanduser().absolute()
    document, lines = _read(path)
    problems = problems_of(NightlyConfig, document, (), path, lines)
    suites, cells, found = _matrix(_entries(document), path, lines)
    problems += found
    if problems:
        raise NightlyError("\n".join(sorted(problems, key=lambda problem: _line(problem, path))))
    config = NightlyConfig.model_validate(document)
    if device is not None:
        config = config.model_copy(update={"device": device})
    folder = path.parent
    chosen = _address(config.history, folder) if history is None else _address(history, Path.cwd())
    if config.budget.memory_GB is not None and not memory_is_told():
        where = place(path, lines, ("budget", "memory_GB"))
        raise NightlyError(f"{where}: this system does not tell what memory a process takes (Linux's /proc does); leave it out")
    return Nightly(
        path, folder, config, chosen, _absolute(config.output, folder) if output is None else _absolute(str(output), Path.cwd()),
        None if config.dashboard is None else _absolute(config.dashboard, folder), suites, cells, lines,
    )  # fmt: skip


def schema() -> JsonObject:
    """The JSON Schema of the configuration."""
    document = NightlyConfig.model_json_schema()
    return document | {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "m2fbench nightly"}


def _read(path: Path) -> tuple[JsonObject, Lines]:
    try:
        document, lines = read_yaml(path)
        if not isinstance(document, dict):
            raise SuiteError(f"{path}:1: expected a mapping with the keys of a nightly, got {described(document)}")
        return expand(document, (), path, lines), lines
    except SuiteError as error:
        raise NightlyError(str(error)) from error


def _line(problem: str, path: Path) -> int:
    """The line of the file that a problem is about."""
    return int(found[1]) if (found := re.match(re.escape(str(path)) + r":(\d+)", problem)) else 0


def _entries(document: JsonObject) -> dict[int, NightlySuite]:
    """The suites that are right by themselves, whatever else is wrong, by their place."""
    found: dict[int, NightlySuite] = {}
    suites = document.get("suites")
    for index, entry in enumerate(suites if isinstance(suites, list) else ()):
        with contextlib.suppress(ValidationError):
            found[index] = NightlySuite.model_validate(entry)
    return found


def _matrix(
    entries: Mapping[int, NightlySuite], path: Path, lines: Lines
) -> tuple[tuple[Suite, ...], tuple[CellPlan, ...], list[str]]:
    """Suites, cells, and what is wrong with them."""
    suites: list[Suite] = []
    cells: list[CellPlan] = []
    problems: list[str] = []
    with chdir(path.parent):
        for index, entry in entries.items():
            try:
                suite = load_suite(entry.suite, overrides(entry))
                planned = cells_of(index, entry, suite)
            except M2FBenchError as error:
                problems += [_blamed(path, lines, index, entry, line) for line in str(error).split("\n")]
                continue
            problems += [*_twice(planned, cells, path, lines), *_unknown_figures(index, entry, suite, path, lines)]
            suites.append(suite)
            cells += planned
    return tuple(suites), tuple(cells), problems


def overrides(entry: NightlySuite) -> list[str]:
    """What ``--set`` says to the suite."""
    measure = [] if entry.measure is None else [f"measure=[{', '.join(entry.measure)}]"]
    return [*entry.set, *measure]


_KEYS = {"--only ": "only", "--variant ": "variants", "--set ": "set"}


def _blamed(path: Path, lines: Lines, index: int, entry: NightlySuite, message: str) -> str:
    """A message about a suite's entry, at the place of the key that it is about."""
    option = next((option for option in _KEYS if message.startswith(option)), None)
    if option is None:
        return f"{place(path, lines, ('suites', index, 'suite'))}: {message}"
    values: list[str] = getattr(entry, _KEYS[option])
    told = message.removeprefix(option)
    number = next((k for k, value in enumerate(values) if told.startswith(value.partition("=")[0])), 0)
    return f"{place(path, lines, ('suites', index, _KEYS[option], number))}: {told}"


def _twice(planned: list[CellPlan], before: list[CellPlan], path: Path, lines: Lines) -> Iterator[str]:
    """Two entries may share a suite, but no cell: its run directory is named after it."""
    taken = {one.cell.name: one.cell.index for one in before}
    for one in planned:
        if one.cell.name in taken:
            where = place(path, lines, ("suites", one.cell.index))
            yield (
                f"{where}: expected every cell once, but {one.cell.name} is one of suites.{taken[one.cell.name]} already; leave it out with "
                f"'only' or 'variants', or give a copy of the suite another name"
            )
            return


def _unknown_figures(index: int, entry: NightlySuite, suite: Suite, path: Path, lines: Lines) -> Iterator[str]:
    """A figure that no cell of the suite has would be missing every night."""
    kinds, used = kinds_of(suite.measure), [metrics.get(name) for name in suite.metrics]
    accuracy = {figure_name(name, metric.head, suite.task) for metric in used for name in metric.names}
    with_accuracy = accuracy if {"accuracy", "speed"} & {*kinds} else set()
    known = [*with_accuracy, *(name for kind in kinds for name in USUAL.get(kind, ()))]
    for number, figure in enumerate(entry.figures):
        of_accuracy = may_have("accuracy", figure)
        if not any(may_have(kind, figure) for kind in kinds) or (of_accuracy and figure.partition(" (")[0] not in accuracy):
            yield (
                f"{place(path, lines, ('suites', index, 'figures', number))}: expected a figure that the suite's measurements "
                f"({', '.join(suite.measure)}) give, got '{figure}'{near(figure, known)}"
            )


def _address(text: str, folder: Path) -> str:
    return text if "://" in text else str(_absolute(text, folder))


def _absolute(text: str, folder: Path) -> Path:
    return (folder / Path(text).expanduser()).resolve()
