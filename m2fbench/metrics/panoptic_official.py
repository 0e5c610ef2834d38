"""Panoptic quality by the official program: panopticapi where it is installed, else cityscapesScripts' copy of it.

panopticapi is in no package index, so it cannot be required; both have one ``pq_compute_single_core``. The truth is written out
in COCO's panoptic format first.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from m2fbench import files
from m2fbench.files import map_over
from m2fbench.formats.panoptic import encode_ids, to_annotation
from m2fbench.formats.panoptic_predictions import PanopticEntry
from m2fbench.types import Dataset, Example, ImageId, JsonObject

_EVALUATORS = (
    ("panopticapi", "panopticapi.evaluation"),
    ("cityscapesScripts", "cityscapesscripts.evaluation.evalPanopticSemanticLabeling"),
)
_GROUPS = (("", None), ("_th", True), ("_st", False))

Figures = tuple[dict[str, float], dict[str, list[float]], dict[str, list[float]]]
"""Figures over classes, figures by class, counts by class."""


def official_figures(
    dataset: Dataset, examples: Sequence[Example], entries: Mapping[ImageId, PanopticEntry]
) -> tuple[str, Figures]:
    """Name and version of the program, and everything it says: figures in percent, counts by class; NaN where it says 0 of
    nothing or divides by it."""
    evaluator, program = _program()

    def pair(item: tuple[int, Example]) -> tuple[JsonObject, JsonObject]:
        number, example = item
        truth = dataset.panoptic_truth(example)
        (folder / f"{number}.png").write_bytes(encode_ids(truth.ids))
        path, segments = entries[example.image_id]
        listed = [{"id": s.id, "category_id": dataset.category_ids[s.category]} for s in segments]
        found = {"image_id": number, "file_name": str(path.resolve()), "segments_info": listed}
        return to_annotation(number, f"{number}.png", truth, dataset.category_ids), found

    categories = {
        i: {"id": i, "name": c.name, "isthing": int(c.is_thing)}
        for i, c in zip(dataset.category_ids, dataset.categories, strict=True)
    }
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as name:
        folder = Path(name)
        pairs = list(map_over(pair, enumerate(examples)))
        with contextlib.redirect_stdout(io.StringIO()):
            parts = map_over(
                lambda part: program.pq_compute_single_core(0, part, str(folder), str(folder), categories),
                [pairs[k :: files.WORKERS] for k in range(files.WORKERS)],
            )
            total = program.PQStat()
            for part in parts:
                total += part
    truth_segments = dict.fromkeys(categories, 0)
    for truth, _ in pairs:
        for segment in truth["segments_info"]:
            truth_segments[segment["category_id"]] += not segment["iscrowd"]
    return evaluator, _figures(total, categories, truth_segments)


def _program() -> tuple[str, ModuleType]:
    package, module = _EVALUATORS[0 if importlib.util.find_spec("panopticapi") else 1]
    program = importlib.import_module(module)
    try:
        return f"{package} {importlib.metadata.version(package)}", program
    except importlib.metadata.PackageNotFoundError:
        return f"{package} (version unknown)", program


def _figures(total: Any, categories: Mapping[int, JsonObject], truth: Mapping[int, int]) -> Figures:
    overall: dict[str, float] = {}
    by_class: dict[str, list[float]] = {}
    counted = {i: total[i].tp + total[i].fp + total[i].fn > 0 for i in categories}
    for suffix, things in _GROUPS:
        try:
            means, each = total.pq_average(categories, things)
        except ZeroDivisionError:  # no class has anything to measure
            means, each = dict.fromkeys(("pq", "sq", "rq"), math.nan), {}
        for part in ("pq", "sq", "rq"):
            overall[part.upper() + suffix] = 100 * means[part]
            if things is None:
                by_class[part.upper()] = [100 * each[i][part] if counted[i] else math.nan for i in categories]
    counts = {name.upper(): [float(getattr(total[i], name)) for i in categories] for name in ("tp", "fp", "fn")}
    return overall, by_class, counts | {"truth_segments": [float(truth[i]) for i in categories]}
