"""Figures from predictions, with no model: after a run, or for anyone's file in the official format."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import PredictionsError, VerificationError
from m2fbench.formats.coco_results import read_results
from m2fbench.results import RunResult, Status, compare, read_result
from m2fbench.store import read_table
from m2fbench.suite import Suite, datasets, load_suite, metrics
from m2fbench.types import Dataset, Example, ImageId, JsonObject, Measurement, Published

VERIFY_TOLERANCE = 1e-9  # percent points between our evaluator's figures and the official one's


@dataclass(frozen=True)
class Evaluation:
    """verified: by metric, what the official evaluator said; None unasked."""

    measurements: tuple[Measurement, ...]
    verified: JsonObject | None


def open_dataset(suite: Suite, data: str | Path | None) -> Dataset:
    """The suite's dataset; ``data``: its folder. Raises DatasetError saying how to get it where it is not there."""
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
    dataset = open_dataset(loaded, data)
    examples = list(dataset.examples()[:limit])
    path = Path(predictions).expanduser()
    file, row, source = path, path.name, "file"
    published: tuple[Published, ...] = ()
    if path.is_dir():
        source, file = "run", path / "predictions.json"
        examples = _finished(path, examples)
        row, published = _row_of(path)
    entries = read_results(file, {e.image_id for e in dataset.examples()}, set(dataset.category_ids))
    if not examples:
        raise PredictionsError(f"{path}: no finished image of this dataset")
    scored = [e.image_id for e in examples]
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        clean = Path(folder) / "predictions.json"
        clean.write_text(json.dumps(entries))
        evaluation = evaluate(loaded, dataset, clean, scored, verify=verify)
    complete = len(scored) == len(dataset.examples())
    status: Status = "complete" if complete else "partial"
    return RunResult(
        suite={"name": loaded.suite, "title": loaded.title, "sha256": loaded.hash},
        row=row,
        variant={"name": f"scored from a {source}"},
        status=status,
        reason=None if complete else f"{len(scored)} of {len(dataset.examples())} images",
        dataset=dataset.fingerprint() | {"scored_images": len(scored)},
        limit=limit,
        measurements=evaluation.measurements,
        published=published,
        comparisons=compare(evaluation.measurements, published, comparable=complete, tolerance={}),
        verified=evaluation.verified,
    )


def _finished(run: Path, examples: Sequence[Example]) -> list[Example]:
    table = read_table(run)
    return [e for e in examples if table.get(str(e.image_id)) == ""]


def _row_of(run: Path) -> tuple[str, tuple[Published, ...]]:
    """The name and the published values of the row that a run directory belongs to; the folder's name where it has no result."""
    stored = run / "result.json"
    if not stored.is_file():
        return run.name, ()
    result = read_result(stored)
    return result.row, result.published
