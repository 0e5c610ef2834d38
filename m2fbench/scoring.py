"""Figures from predictions, with no model: after a run, or for anyone's file in the official format."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import PredictionsError, SuiteError, VerificationError
from m2fbench.formats.coco_results import read_results
from m2fbench.results import RunResult, Status, compare, read_result
from m2fbench.store import read_identity, read_table
from m2fbench.suite import Suite, datasets, load_suite, metrics
from m2fbench.types import Dataset, Example, ImageId, JsonObject, Measurement, Published

VERIFY_TOLERANCE = 1e-9  # percent points between our evaluator's figures and the official one's


@dataclass(frozen=True)
class Evaluation:
    """verified: by metric, what the official evaluator said; None unasked."""

    measurements: tuple[Measurement, ...]
    verified: JsonObject | None


def open_dataset(suite: Suite, data: str | Path | None) -> Dataset:
    """The suite's dataset; ``data``: its folder, $M2FBENCH_DATA where not given. Raises DatasetError saying how to get it."""
    data = data or os.environ.get("M2FBENCH_DATA") or None
    reader = datasets.get(suite.dataset.name)
    options = reader.Options.model_validate(suite.dataset.options)
    return reader(options, None if data is None else Path(data).expanduser())


def metric_versions(suite: Suite) -> dict[str, int]:
    return {name: metrics.get(name).version for name in suite.metrics}


def evaluate(suite: Suite, dataset: Dataset, predictions: Path, scored: Sequence[ImageId], *, verify: bool) -> Evaluation:
    """All the suite's metrics over the images ``scored``. Raises VerificationError where the official evaluator disagrees."""
    measurements: list[Measurement] = []
    verified: JsonObject = {}
    for name in suite.metrics:
        metric = metrics.get(name)
        result = metric.score(dataset, predictions, scored)
        measurements += result
        if verify:
            difference = metric.verify(dataset, predictions, scored, result)
            verified[name] = {"largest_difference": difference, "tolerance": VERIFY_TOLERANCE}
            if not difference <= VERIFY_TOLERANCE:
                raise VerificationError(
                    f"{name}: the official evaluator's figures differ by up to {difference:.3g} (allowed: {VERIFY_TOLERANCE:g}); "
                    f"do not trust these figures, and please report them with {predictions}"
                )
    return Evaluation(tuple(measurements), verified or None)


def score(
    suite: Suite | str | Path,
    predictions: str | Path,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    verify: bool = False,
) -> RunResult:
    """Score predictions without a model: a run directory of ours, or anyone's file in COCO results format.

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
    row, variant, reason = path.name, "scored from a file", None
    published: tuple[Published, ...] = ()
    if path.is_dir():
        examples = _finished(path, dataset, examples)  # over annotations that the run has checked
        row, variant, published, reason = _origin(path)
    else:
        dataset.check()
    if not examples:
        raise PredictionsError(f"{path}: no finished image of this dataset; finish the run first")
    scored = [e.image_id for e in examples]
    with _official_file(path, dataset) as file:
        evaluation = evaluate(loaded, dataset, file, scored, verify=verify)
    complete = len(scored) == len(dataset.examples())
    status: Status = "complete" if complete else "partial"
    reason = reason if complete else f"{len(scored)} of {len(dataset.examples())} images"
    return RunResult(
        suite={"name": loaded.suite, "title": loaded.title, "sha256": loaded.hash},
        row=row,
        variant={"name": variant},
        status=status,
        reason=reason,
        dataset=dataset.fingerprint() | {"scored_images": len(scored)},
        limit=limit,
        measurements=evaluation.measurements,
        published=published,
        comparisons=compare(evaluation.measurements, published, comparable=reason is None, tolerance={}),
        verified=evaluation.verified,
    )


@contextlib.contextmanager
def _official_file(path: Path, dataset: Dataset) -> Iterator[Path]:
    """Predictions that metrics can take as they are: a run's own, or a checked copy of anyone else's."""
    if path.is_dir():
        if not (path / "predictions.json").is_file():
            raise PredictionsError(f"{path}: expected a run directory with predictions.json, got none; finish the run first")
        yield path / "predictions.json"
        return
    entries = read_results(path, {e.image_id: e.size for e in dataset.examples()}, set(dataset.category_ids))
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        checked = Path(folder) / "predictions.json"
        checked.write_text(json.dumps(entries))
        yield checked


def _finished(run: Path, dataset: Dataset, examples: Sequence[Example]) -> list[Example]:
    """The examples that a run finished. Raises PredictionsError where the run was over another dataset."""
    table, before, now = read_table(run), read_identity(run).get("dataset"), dataset.fingerprint()
    for key in ("name", "annotations_sha256"):
        was = before.get(key) if isinstance(before, dict) else None
        if was != now[key]:
            raise PredictionsError(
                f"{run}: made for another dataset ({key}: was {was}, is {now[key]}); score it by that one's suite"
            )
    return [e for e in examples if table.get(str(e.image_id)) == ""]


def _origin(run: Path) -> tuple[str, str, tuple[Published, ...], str | None]:
    """Row, variant, published values of a run directory, and why its figures are not comparable with them (None: they are)."""
    for stored in sorted(run.glob("result*.json")):  # the complete result, or else that of a limited run
        result = read_result(stored)
        reason = result.reason if result.status == "complete" else None
        return result.row, result.variant["name"], result.published, reason
    return run.resolve().parent.name, run.resolve().name, (), None
