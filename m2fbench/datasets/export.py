"""Any dataset with panoptic truth, written out in the layout of another: images, truth, and suites that run over them.

This lets every reader, metric and suite be tried without a download: the embedded shapes as COCO, ADE20K, Cityscapes or Mapillary
Vistas would have them. Images are PNGs, so nothing is lost; read back, truth has the same pixels, classes and instances. What a layout
cannot say is left out: crowds but in COCO's, Cityscapes' and Mapillary's panoptic files; segments without a pixel; the areas that
annotations state.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from m2fbench.datasets.export_layouts import LAYOUTS, Layout
from m2fbench.datasets.export_plan import Plan, Shot
from m2fbench.datasets.export_suites import write_suites
from m2fbench.errors import DatasetError, StoreError
from m2fbench.registry import near
from m2fbench.types import Dataset, Example, JsonObject, PanopticMap

MARKER = ".m2fbench-export.json"


def export(
    source: Dataset,
    layout: str,
    target: Path,
    class_names: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Path]:
    """Write ``source``, opened for the panoptic task, into the folder ``target``; returns the suites that lie there now.

    layout: one of ``LAYOUTS``. class_names: the source's class -> the layout's; classes not listed are left out. None: the table for
    this source where there is one, else the classes that have the layout's own names (all, where a layout takes any).
    progress: called with (images done, images in all). Raises StoreError where ``target`` holds anything but an export of the same
    kind that broke off, which is begun anew, and DatasetError where classes or numbers do not fit the layout.
    """
    if layout not in LAYOUTS:
        raise DatasetError(f"layout: expected one of {', '.join(LAYOUTS)}, got '{layout}'{near(layout, LAYOUTS)}")
    chosen = LAYOUTS[layout]
    plan = chosen.plan(source, _class_names(source, layout) if class_names is None else class_names)
    marker: JsonObject = {"dataset": source.fingerprint(), "layout": layout, "classes": dict(plan.names), "finished": False}
    _claim(target, marker)
    examples = source.examples()
    records = []
    progress(0, len(examples))
    for number, example in enumerate(examples, 1):
        records.append(chosen.write(target, plan, _shot(source, plan, chosen, example, number)))
        progress(number, len(examples))
    chosen.finish(target, plan, records)
    suites = write_suites(target, layout, plan)
    (target / MARKER).write_text(json.dumps({**marker, "finished": True}, indent=1), encoding="utf-8")
    return suites


def _class_names(source: Dataset, layout: str) -> Mapping[str, str] | None:
    tables: Mapping[str, Mapping[str, Mapping[str, str]]] = json.loads(
        Path(__file__).with_name("export_classes.json").read_text(encoding="utf-8")
    )
    return tables.get(source.name, {}).get(layout)


def _claim(target: Path, marker: JsonObject) -> None:
    """Make the folder ours, or raise StoreError."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        there = next(target.iterdir(), None)
        if there is not None:
            before = _read_marker(target / MARKER)
            if before != json.loads(json.dumps(marker)):
                done = before is not None and before.get("finished")
                what = "a finished export" if done else f"{there.name}" if before is None else "an export of something else"
                raise StoreError(f"{target}: expected an empty folder, got one with {what}; name another, or empty this one")
        (target / MARKER).write_text(json.dumps(marker, indent=1), encoding="utf-8")
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror}") from error


def _read_marker(path: Path) -> JsonObject | None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _shot(source: Dataset, plan: Plan, layout: Layout, example: Example, number: int) -> Shot:
    """One image with its truth; segments of left-out classes, and those without a pixel, are not in it."""
    truth = source.panoptic_truth(example)
    present = set(np.unique(truth.ids).tolist())
    kept = tuple(replace(s, area=None) for s in truth.segments if plan.values[s.category] is not None and s.id in present)
    ids = np.where(np.isin(truth.ids, [s.id for s in kept]), truth.ids, 0).astype(np.int32)
    image_id = layout.image_id(source.name, number, example.image_id)
    return Shot(image_id, example.source, source.image(example), PanopticMap(ids, kept), source.semantic_truth(example))
