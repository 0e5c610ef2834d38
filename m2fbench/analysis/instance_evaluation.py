"""hotcoco's evaluation of a run's instances, kept for all that is asked of it: error types, curves, calibration, confusion."""

from pathlib import Path
from typing import Any

from m2fbench.analysis.runs import Evidence
from m2fbench.metrics import coco_files
from m2fbench.metrics.kept import Kept

_kept: Kept[Any] = Kept()


def evaluation_of(evidence: Evidence) -> Any:
    """A ``hotcoco.COCOeval`` over the run's images, evaluated and accumulated; None where there are no images."""
    results = evidence.predictions.instances
    assert results is not None
    if not evidence.image_ids:  # the evaluator would take none for all
        return None

    def make() -> tuple[Any, list[Path]]:
        return _evaluated(evidence, results), [results]

    return _kept.get(evidence.dataset, (results, evidence.image_ids), make)


def _evaluated(evidence: Evidence, results: Path) -> Any:
    with coco_files.integer_ids(evidence.dataset, results, evidence.image_ids) as (truth, entries, ids):
        return coco_files.evaluated(truth, entries, list(ids.values()), results)
