"""Figures from predictions, with no model: after a run, or for anyone's file in the official format."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from m2fbench.errors import DatasetError, PredictionsError, SuiteError, VerificationError
from m2fbench.peers import peer_predictions
from m2fbench.results import RunResult, Status, compare, read_result
from m2fbench.store import dataset_identity, differences, predictions_in, read_identity, read_table, without_truth
from m2fbench.suite import Suite, datasets, figure_name, load_suite, metrics
from m2fbench.types import Dataset, Example, Head, ImageId, JsonObject, Measurement, Predictions, Published


@dataclass(frozen=True)
class Evaluation:
    """verified: by metric, what the official evaluator said; None unasked. warnings: what could not be measured, and why."""

    measurements: tuple[Measurement, ...]
    verified: JsonObject | None
    warnings: tuple[str, ...] = ()


def data_folder(data: str | Path | None) -> Path | None:
    """The folder of datasets: ``data``, else $M2FBENCH_DATA, else none."""
    chosen = data or os.environ.get("M2FBENCH_DATA") or None
    return None if chosen is None else Path(chosen).expanduser()


def open_dataset(suite: Suite, data: str | Path | None) -> Dataset:
    """The suite's dataset; ``data``: its folder, $M2FBENCH_DATA where not given. Raises DatasetError saying how to get it."""
    reader = datasets.get(suite.dataset.name)
    return reader(reader.Options.model_validate(suite.dataset.options), data_folder(data), suite.task)


def check_truth(dataset: Dataset) -> None:
    """``dataset.check()``; where there is no truth at all, the error says what can be done without it."""
    try:
        dataset.check()
    except DatasetError as error:
        if dataset.fingerprint()["annotations_sha256"] is not None:
            raise
        raise DatasetError(f"{error}; images that have no truth, as a test set's, can be predicted with --predict-only") from error


def metric_versions(suite: Suite) -> dict[str, int]:
    return {name: metrics.get(name).version for name in suite.metrics}


def evaluate(suite: Suite, dataset: Dataset, predictions: Predictions, scored: Sequence[ImageId], *, verify: bool) -> Evaluation:
    """All the suite's metrics over the images ``scored``, but those for whose head there are no predictions. Raises VerificationError
    where the official evaluator disagrees."""
    measurements: list[Measurement] = []
    warnings: list[str] = []
    verified: JsonObject = {}
    for name in suite.metrics:
        metric = metrics.get(name)
        if metric.head not in predictions.heads:
            warnings.append(f"{name} was not measured: the predictions hold no {metric.head} ones")
            continue
        result = metric.score(dataset, predictions, scored, suite.rules)
        measurements += [
            replace(m, name=figure_name(m.name, metric.head, suite.task)) if m.unit == "percent" else m for m in result
        ]
        if verify:
            said = metric.verify(dataset, predictions, scored, suite.rules, result)
            verified[name] = {
                "evaluator": said.evaluator, "largest_difference": said.difference, "tolerance": said.tolerance,
            }  # fmt: skip
            if not said.difference <= said.tolerance:
                raise VerificationError(
                    f"{name}: the figures of {said.evaluator} differ by up to {said.difference:.3g} (allowed: {said.tolerance:g}); "
                    f"do not trust these figures, and please report them with the predictions"
                )
    return Evaluation(tuple(measurements), verified or None, tuple(warnings))


def score(
    suite: Suite | str | Path,
    predictions: str | Path,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    verify: bool = False,
) -> RunResult:
    """Score predictions without a model: a run directory of ours, or anyone's files in an official format (see ``m2fbench.peers``).

    A run directory counts the images that it finished; a file counts for the suite's whole dataset (or its first ``limit``
    images), an image without entries being one in which nothing was found. Nothing is written. Raises PredictionsError where
    the predictions do not fit the dataset.
    """
    loaded = suite if isinstance(suite, Suite) else load_suite(suite, overrides)
    if limit is not None and limit < 1:
        raise SuiteError(f"limit: expected at least 1 image, got {limit}")
    dataset = open_dataset(loaded, data)
    examples = list(dataset.examples()[:limit])
    path = Path(predictions).expanduser()
    origin = _Origin(path.name, "scored from a file")
    if (path / "identity.json").is_file():
        examples = _finished(path, dataset, examples)
        origin = _origin(path)
    if not origin.looked_at_truth:
        check_truth(dataset)
    if not examples:
        raise PredictionsError(f"{path}: no finished image of this dataset; finish the run first")
    scored = [e.image_id for e in examples]
    with _official_files(path, loaded, dataset, scored) as files:
        evaluation = evaluate(loaded, dataset, files, scored, verify=verify)
    complete = len(scored) == len(dataset.examples())
    status: Status = "complete" if complete else "partial"
    departure = origin.departure or _otherwise(loaded, origin)
    reason = departure if complete else f"{len(scored)} of {len(dataset.examples())} images"
    return RunResult(
        suite={"name": loaded.suite, "title": loaded.title, "sha256": loaded.hash},
        row=origin.row,
        variant={"name": origin.variant},
        status=status,
        reason=reason,
        departure=departure,
        rules=asdict(loaded.rules),
        dataset=dataset.fingerprint() | {"scored_images": len(scored)},
        limit=limit,
        measurements=evaluation.measurements,
        published=origin.published,
        comparisons=compare(evaluation.measurements, origin.published, comparable=reason is None, tolerance={}),
        warnings=evaluation.warnings,
        verified=evaluation.verified,
    )


@contextlib.contextmanager
def _official_files(path: Path, suite: Suite, dataset: Dataset, scored: Sequence[ImageId]) -> Iterator[Predictions]:
    """Predictions that metrics can take as they are: a run's own, or checked ones of anyone else's."""
    heads = suite.needed_heads
    if (path / "identity.json").is_file():
        made: Sequence[Head] = read_identity(path).get("heads", ())
        held = tuple(head for head in heads if head in made)
        if not held or ("instance" in held and not (path / "predictions.json").is_file()):
            raise PredictionsError(f"{path}: expected a finished run with {' or '.join(heads)} predictions; finish the run first")
        yield predictions_in(path, held, scored)
        return
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        yield peer_predictions(path, dataset, heads, scored, Path(folder))


def _finished(run: Path, dataset: Dataset, examples: Sequence[Example]) -> list[Example]:
    """The examples that a run finished. Raises PredictionsError where the run was over another dataset."""
    table, before, now = read_table(run), read_identity(run).get("dataset"), dataset_identity(dataset.fingerprint())
    before = before if isinstance(before, dict) else {}
    if before.get("annotations_sha256") is None:  # predicted before there was truth
        before, now = without_truth(before), without_truth(now)
    if changed := "; ".join(differences(before, now)):
        raise PredictionsError(f"{run}: made for another dataset ({changed}); score it by that one's suite")
    return [e for e in examples if table.get(str(e.image_id)) == ""]


@dataclass(frozen=True)
class _Origin:
    """Where predictions are from. departure: why their figures are not comparable with ``published`` (None: they are). suite, rules: by
    which the run was scored. looked_at_truth: whether the truth has been checked then."""

    row: str
    variant: str
    published: tuple[Published, ...] = ()
    departure: str | None = None
    suite: str | None = None
    rules: JsonObject | None = None
    looked_at_truth: bool = False


def _origin(run: Path) -> _Origin:
    """From the complete result of a run directory, or else that of a limited run, or of one that only predicted."""
    stored = [run / "result.json", *sorted(run.glob("result-*.json")), run / "predicted.json"]
    for path in filter(Path.is_file, stored):
        result = read_result(path)
        return _Origin(
            result.row, result.variant["name"], result.published, result.departure, result.suite["name"], result.rules,
            result.status != "predicted",
        )  # fmt: skip
    return _Origin(run.resolve().parent.name, run.resolve().name)


def _otherwise(suite: Suite, origin: _Origin) -> str | None:
    """Why figures by this suite are not what the run's published numbers speak of; None where they are."""
    if suite.overrides:
        return f"changed by --set {' '.join(suite.overrides)}"
    if origin.suite not in (None, suite.suite):
        return f"scored by another suite, {suite.suite}, than the run's, {origin.suite}"
    if origin.rules not in (None, asdict(suite.rules)):
        return "scored by another rule of averaging than the run"
    return None
