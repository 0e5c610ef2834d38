"""Run directories opened again: their figures, and where they are at hand their predictions beside the truth.

A run is a folder RUNS/SUITE/ROW/VARIANT with ``result.json`` (or that of a limited run), ``speed.json``, or both; ``flops.json`` lies beside
the variants.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from m2fbench.errors import M2FBenchError, StoreError
from m2fbench.results import RunResult, read_result
from m2fbench.scoring import open_dataset
from m2fbench.store import dataset_identity, differences, predictions_in, read_identity, read_table
from m2fbench.suite import Suite, figure_name, load_suite, metrics, read_snapshot
from m2fbench.types import Dataset, Example, Head, ImageId, ImageStatistics, ObjectSubset, Predictions

NAMED = 3
"""Runs that an error names of several."""
Tell = Callable[[str], None]
"""Told what is being worked on, for a user who waits."""


def silent(what: str) -> None:
    """A ``Tell`` that says nothing."""


@dataclass(frozen=True)
class Evidence:
    """What a run's accuracy figures rest on: predictions of the images that were scored, and their truth.

    examples: the scored images in the dataset's order. data: the dataset's folder, None where it needs none.
    """

    suite: Suite
    dataset: Dataset
    predictions: Predictions
    examples: tuple[Example, ...]
    data: Path | None

    @property
    def image_ids(self) -> tuple[ImageId, ...]:
        return tuple(example.image_id for example in self.examples)


@dataclass(frozen=True)
class Run:
    """One run directory. label: what tells it from the other runs of a report. result: its accuracy figures; speed, flops: what else was
    measured; None for what was not. evidence: None where nothing can be looked at image by image; problem then says why."""

    folder: Path
    label: str
    result: RunResult | None
    speed: RunResult | None
    flops: RunResult | None
    evidence: Evidence | None = None
    problem: str | None = None
    suite: Suite | None = field(default=None, repr=False)

    @property
    def any_result(self) -> RunResult:
        """Of what was measured, the result that says most of the run itself: accuracy first."""
        found = self.result or self.speed or self.flops
        assert found is not None  # ``open_runs`` opens none without
        return found


def open_runs(paths: Sequence[str | Path], *, data: str | Path | None = None) -> list[Run]:
    """The runs in these folders, at any depth, in the order given; below a folder, suites by name, rows and variants as their suite has them.

    data: the dataset's folder, in place of the one that the run used. Raises StoreError where there is no run.
    """
    folders = list(dict.fromkeys(folder for path in paths for folder in _run_folders(Path(path).expanduser())))
    return _labelled([_open(folder, data) for folder in folders])


def one_run_folder(path: str | Path) -> Path:
    """The folder of the one run at or below ``path``, found without reading what it holds. Raises StoreError where there are none or several."""
    above = Path(path).expanduser()
    folders = _run_folders(above)
    if len(folders) > 1:
        names = ", ".join(str(folder.relative_to(above.resolve())) for folder in folders[:NAMED])
        more = f" and {len(folders) - NAMED} more" if len(folders) > NAMED else ""
        raise StoreError(f"{path}: expected one run, found {len(folders)} ({names}{more}); name one of them")
    return folders[0]


def _run_folders(path: Path) -> list[Path]:
    if path.is_file() and path.suffix == ".json":
        path = path.parent
    if not path.is_dir():
        raise StoreError(f"{path}: no such folder; expected a run directory, or a folder of them (m2fbench run writes runs/)")
    if _is_run(path):
        return [path.resolve()]
    found = {
        file.parent.resolve() for pattern in ("result*.json", "speed*.json") for file in path.rglob(pattern) if _is_run(file.parent)
    }
    if not found:
        raise StoreError(f"{path}: no run in it; expected folders with a result.json or speed.json (m2fbench run writes runs/)")
    return sorted(found, key=lambda folder: (_place(folder), str(folder)))  # a tie must not hang on the order of a set


def _is_run(folder: Path) -> bool:
    return any(re.fullmatch(r"(result|speed)(-limit-\d+)?\.json", file.name) for file in folder.glob("*.json"))


def _place(folder: Path) -> tuple[str, int, int, str]:
    """Where a run stands among others: by its suite, and there as the suite orders rows and variants."""
    suite = _suite_of(folder, None)
    rows, variants = ([], []) if suite is None else ([r.name for r in suite.checkpoints], [v.name for v in suite.variants])
    row, variant = folder.parent.name, folder.name
    return (
        folder.parent.parent.name,
        rows.index(row) if row in rows else len(rows),
        variants.index(variant) if variant in variants else len(variants),
        f"{row}/{variant}",
    )


def _suite_of(folder: Path, result: RunResult | None) -> Suite | None:
    """The suite of a run: as the run has kept it; else the shipped one of that name, if it is the same still."""
    try:
        return read_snapshot(folder / "suite.json")[0]
    except M2FBenchError:
        pass
    try:
        suite = load_suite(str(result.suite["name"])) if result is not None else None
    except M2FBenchError:
        return None
    return suite if suite is not None and result is not None and suite.hash == result.suite["sha256"] else None


def _open(folder: Path, data: str | Path | None) -> Run:
    result, speed = _latest(folder, "result"), _latest(folder, "speed")
    flops = folder.parent / "flops.json"
    if result is None and speed is None:
        raise StoreError(
            f"{folder}: its result was there and is gone; expected folders that nothing else writes or deletes meanwhile"
        )
    suite = _suite_of(folder, result or speed)
    run = Run(folder, "", result, speed, read_result(flops) if flops.is_file() else None, suite=suite)
    if result is None:
        return _without(run, "its accuracy was not measured in a run of its own, so there are no predictions")
    try:
        return _with_evidence(run, result, data)
    except M2FBenchError as error:
        return _without(run, str(error))


def _without(run: Run, problem: str) -> Run:
    return replace(run, problem=problem)


def _latest(folder: Path, kind: str) -> RunResult | None:
    """The complete result, else that of the most images."""
    complete = folder / f"{kind}.json"
    if complete.is_file():
        return read_result(complete)
    limited = sorted(folder.glob(f"{kind}-limit-*.json"), key=lambda path: int(path.stem.rsplit("-", 1)[1]))
    return read_result(limited[-1]) if limited else None


def _with_evidence(run: Run, result: RunResult, data: str | Path | None) -> Run:
    """Raises M2FBenchError where predictions or dataset are not there, or are not those of the result."""
    if run.suite is None:
        raise StoreError(f"{run.folder}: no suite.json, and no shipped suite is the one it was run by; run the suite again")
    identity, table = read_identity(run.folder), read_table(run.folder)
    kept = run.folder / "suite.json"
    used = data if data is not None else read_snapshot(kept)[1] if kept.is_file() else None
    dataset = open_dataset(run.suite, used)
    before, now = identity["dataset"], dataset_identity(dataset.fingerprint())
    if changed := "; ".join(differences(before, now)):
        raise StoreError(f"{run.folder}: the dataset is not the one that was scored ({changed}); give its folder with --data")
    examples = tuple(e for e in dataset.examples()[: result.limit] if table.get(str(e.image_id)) == "")
    heads: Sequence[Head] = identity.get("heads", ())
    predictions = predictions_in(run.folder, heads, [e.image_id for e in examples])
    if predictions.instances is not None and not predictions.instances.is_file():
        raise StoreError(f"{run.folder}: no predictions.json; finish the run first")
    evidence = Evidence(run.suite, dataset, predictions, examples, None if used is None else Path(used))
    return replace(run, evidence=evidence)


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """Each under the shortest name that no other run has: what differs of row, variant and suite, else also of the folders that the
    runs lie in, as few as tell them apart."""
    parts = [(r.any_result.row, str(r.any_result.variant["name"]), str(r.any_result.suite["name"])) for r in runs]
    columns: Iterable[tuple[int, ...]] = ((0,), (0, 1), (2, 0, 1))
    if len({p[0] for p in parts}) == 1 and len(runs) > 1:
        columns = ((1,), *columns)
    choices = [[" · ".join(p[k] for k in chosen) for p in parts] for chosen in columns]
    named = choices[-1]
    above = [run.folder.parts[:-3][::-1] for run in runs]  # the folders that runs of one suite, row and variant lie in
    for depth in range(1, 1 + max((len(names) for names in above), default=0)):
        choices.append([f"{'/'.join(names[:depth][::-1])} · {label}" for names, label in zip(above, named, strict=True)])
    numbered = [f"{label} · {number}" for number, label in enumerate(named, 1)]
    labels = next((labels for labels in choices if len(set(labels)) == len(labels)), numbered)
    return [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]


@dataclass(frozen=True)
class MetricStatistics:
    """One metric's statistics over a run's images. names: the figures' names as the run's results have them (a panoptic model's AP is
    AP_th_pan), by the metric's own."""

    metric: str
    head: Head
    statistics: ImageStatistics
    names: dict[str, str]


def statistics_of(evidence: Evidence, subset: ObjectSubset | None = None, tell: Tell = silent) -> list[MetricStatistics]:
    """Those of every metric of the suite that has them; with ``subset``, of the objects in it."""
    found = []
    for name in evidence.suite.metrics:
        metric = metrics.get(name)
        if metric.head not in evidence.predictions.heads:
            continue
        tell(f"comparing predictions with the truth for {name}")
        statistics = metric.statistics(evidence.dataset, evidence.predictions, evidence.image_ids, evidence.suite.rules, subset)
        if statistics is not None:
            names = {f: figure_name(f, metric.head, evidence.suite.task) for f in (*statistics.figures, *statistics.class_figures)}
            found.append(MetricStatistics(name, metric.head, statistics, names))
    return found
