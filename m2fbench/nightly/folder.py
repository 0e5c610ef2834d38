"""The folder of a night, and what stands in it.

    OUTPUT/NIGHT/
        night.json         the configuration as it was run, the cells, when it began and ended; written first
        lock               held while a nightly works on this night, and until the last process of its cells has ended
        cells/SUITE/ROW/VARIANT.json     what came of a cell, written as it ends; as it begins, that it has not ended
        logs/SUITE/ROW/VARIANT.log       what its process wrote
        runs/              run directories
        repeats/           the same of second runs: cells, logs and runs
        verdict.json, summary.md, junit.xml

Every file but the logs is written aside and renamed.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from m2fbench.errors import NightlyError, shown
from m2fbench.nightly.loading import Nightly
from m2fbench.nightly.records import Cell, Outcome
from m2fbench.types import JsonObject
from m2fbench.writing import make_folder, store_error, write_atomically

NIGHT_VERSION = 1
RESUMED_WITHIN = timedelta(hours=20)  # of its beginning; a night a day later is another
LOCK_PATIENCE = 5.0  # seconds, in which what a killed nightly left is ended
_FREE = (
    "title", "history", "output", "dashboard", "url", "baselines", "rules", "resamples", "seed", "repeat", "keep", "budget",
)  # fmt: skip
"""What may change between two attempts at a night: none of it changes a measurement."""
_FREE_OF_A_SUITE = ("figures", "cell_minutes")


@dataclass(frozen=True)
class NightFile:
    """What night.json says. config: as it was run. suites: hash of each. cells: names. finished: when the last cell ended, None before.
    pruned: when its predictions were deleted, None before."""

    nightly: str
    night: str
    started: str
    config: JsonObject
    suites: tuple[str, ...]
    cells: tuple[str, ...]
    finished: str | None = None
    pruned: str | None = None


@contextlib.contextmanager
def locked(night: Path, patience: float = LOCK_PATIENCE) -> Iterator[int]:
    """Hold the night's lock; its file descriptor, which the processes of cells are handed. Raises NightlyError where another has it."""
    make_folder(night)
    try:
        file = (night / "lock").open("a")
    except OSError as error:
        raise store_error(night / "lock", error) from error
    deadline = time.monotonic() + patience
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise NightlyError(
                        f"{night}: another nightly is at work on this night; wait for it, or choose another --night"
                    ) from error
                time.sleep(0.1)
        yield file.fileno()


def name_of_night(output: Path, nightly: str, now: datetime) -> str:
    """Today's date, UTC; before it an unfinished night of this nightly that began a few hours ago, over midnight say."""
    today = now.strftime("%Y-%m-%d")
    for path, night in nights_in(output):
        begun = _moment(night.started)
        if (
            night.nightly == nightly
            and night.finished is None
            and begun is not None
            and timedelta() <= now - begun < RESUMED_WITHIN
        ):
            return path.name
    return today


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def nights_in(output: Path) -> list[tuple[Path, NightFile]]:
    """The nights of an output folder, the latest first. What is no night of ours is left out."""
    found = []
    for path in output.glob("*/night.json"):
        with contextlib.suppress(NightlyError):
            if not path.parent.is_symlink():
                found.append((path.parent, read_night(path.parent)))
    return sorted(found, key=lambda one: (one[1].started, one[1].night), reverse=True)


def read_night(night: Path) -> NightFile:
    """Raises NightlyError where it is none, or of a later version."""
    path = night / "night.json"
    try:
        document = json.loads(path.read_bytes())
        if (version := document.pop("night_version")) != NIGHT_VERSION:
            raise NightlyError(
                f"{path}: expected night version {NIGHT_VERSION}, got {shown(version)}; update m2fbench, or choose another --night"
            )
        return NightFile(**(document | {key: tuple(document[key]) for key in ("suites", "cells")}))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise NightlyError(
            f"{path}: not the file of a night ({shown(error)}); choose another --night, or delete {night}"
        ) from error


def write_night(night: Path, known: NightFile) -> None:
    write_atomically(
        night / "night.json", json.dumps({"night_version": NIGHT_VERSION} | asdict(known), indent=1, ensure_ascii=False) + "\n"
    )


def new_night(nightly: Nightly, name: str, started: str) -> NightFile:
    return NightFile(
        nightly.config.nightly, name, started, nightly.config.model_dump(mode="json"), tuple(suite.hash for suite in nightly.suites),
        tuple(one.cell.name for one in nightly.cells),
    )  # fmt: skip


def refuse_changes(night: Path, before: NightFile, now: NightFile) -> None:
    """Raises NightlyError where the configuration has changed since in what is measured; naming, judging and limits may change."""
    found = _differences(before, now)
    if found:
        raise NightlyError(
            f"{night}: began with another configuration: {'; '.join(found[:5])}; put it back, or choose another --night"
        )


def _differences(before: NightFile, now: NightFile) -> list[str]:
    if before.nightly != now.nightly:
        return [f"nightly was {before.nightly}, is {now.nightly}"]
    found = [
        f"{key} was {_short(before.config.get(key))}, is {_short(value)}"
        for key, value in now.config.items()
        if key not in (*_FREE, "suites") and before.config.get(key) != value
    ]
    old, new = before.config.get("suites") or [], now.config["suites"]
    if len(old) != len(new):
        found.append(f"suites were {len(old)}, are {len(new)}")
    for index, (a, b) in enumerate(zip(old, new, strict=False)):
        found += [
            f"suites.{index}.{key} was {_short(a.get(key))}, is {_short(b.get(key))}"
            for key in b
            if key not in _FREE_OF_A_SUITE and a.get(key) != b.get(key)
        ]
    if not found and before.suites != now.suites:
        changed = [new[k]["suite"] for k, (a, b) in enumerate(zip(before.suites, now.suites, strict=False)) if a != b]
        found.append(f"the suite {', '.join(changed)} has changed")
    if not found and before.cells != now.cells:
        found.append("its cells are others")
    return found


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def outcome_path(root: Path, cell: Cell) -> Path:
    """root: of the night, or of its repeats."""
    return root / "cells" / cell.suite / cell.row / f"{cell.variant}.json"


def log_path(root: Path, cell: Cell) -> Path:
    return root / "logs" / cell.suite / cell.row / f"{cell.variant}.log"


def write_outcome(root: Path, outcome: Outcome) -> None:
    path = outcome_path(root, outcome.cell)
    make_folder(path.parent)
    write_atomically(path, json.dumps(asdict(outcome), indent=1, ensure_ascii=False) + "\n")


def read_outcome(root: Path, cell: Cell) -> Outcome | None:
    """None where there is none, or a file that says nothing of sense: the cell is then run."""
    try:
        document = json.loads(outcome_path(root, cell).read_bytes())
        return Outcome(**(document | {"cell": cell, "results": tuple(map(str, document["results"]))}))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def results_in(night: Path) -> Mapping[str, tuple[str, ...]]:
    """SHA-256 of the results of every cell, by its name; of all outcome files that can be read."""
    found = {}
    for path in (night / "cells").glob("*/*/*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            name = path.relative_to(night / "cells").with_suffix("").as_posix()
            found[name] = tuple(map(str, json.loads(path.read_bytes())["results"]))
    return found


def nights_ago(nights: Sequence[tuple[Path, NightFile]], cells: Sequence[Cell], most: int = 30) -> dict[str, int]:
    """For each cell in which of these nights, the latest being 1, it was last begun; ``most`` + 1 where in none of so many."""
    ages = dict.fromkeys((cell.name for cell in cells), most + 1)
    for age, (path, _) in enumerate(nights[:most], 1):
        for cell in cells:
            if ages[cell.name] > age and (outcome := read_outcome(path, cell)) is not None and outcome.log is not None:
                ages[cell.name] = age
    return ages
