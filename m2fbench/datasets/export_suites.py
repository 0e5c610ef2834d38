"""The suites that lie in an exported folder: run with ``--data`` and the folder, they name no path."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from m2fbench.datasets.export_plan import Plan
from m2fbench.types import Head, JsonObject

COCO_METRICS: Mapping[Head, tuple[str, ...]] = {
    "instance": ("coco_ap",),
    "panoptic": ("panoptic_quality", "coco_ap", "semantic_iou"),
    "semantic": ("semantic_iou",),
}
OWN_METRICS: Mapping[str, Mapping[Head, tuple[str, ...]]] = {
    "coco": {"instance": ("coco_ap", "boundary_ap")},
    "cityscapes": {  # whose own AP is called AP too, therefore not beside COCO's
        "instance": ("cityscapes_ap",),
        "panoptic": ("panoptic_quality", "cityscapes_ap", "semantic_iou", "cityscapes_iou"),
        "semantic": ("semantic_iou", "cityscapes_iou"),
    },
}
DATASETS: Mapping[str, Mapping[Head, JsonObject]] = {
    "coco": {"instance": {"name": "coco_instance"}, "panoptic": {"name": "coco_panoptic"}, "semantic": {"name": "coco_panoptic"}},
    "ade20k": {head: {"name": "ade20k"} for head in COCO_METRICS},
    "cityscapes": {head: {"name": "cityscapes"} for head in COCO_METRICS},
    "mapillary-v1.2": {head: {"name": "mapillary"} for head in ("panoptic", "semantic")},
    "mapillary-v2.0": {head: {"name": "mapillary", "version": "2.0"} for head in ("panoptic", "semantic")},
    "semantic-folder": {"semantic": {"name": "semantic_folder", "classes": "classes.json"}},
}
KEEPS_NAMES = ("coco", "semantic-folder")  # their classes are the source's own, or as asked for


def write_suites(target: Path, layout: str, plan: Plan) -> list[Path]:
    """``instance.yaml``, ``panoptic.yaml`` and ``semantic.yaml``, those that the layout has truth for; returns their paths."""
    written = []
    for head, section in DATASETS[layout].items():
        path = target / f"{head}.yaml"
        text = yaml.safe_dump(_suite(layout, head, section, plan), sort_keys=False, allow_unicode=True, width=130)
        path.write_text(f"# Run it with `--data` and this folder.\n{text}", encoding="utf-8")
        written.append(path)
    return written


def _suite(layout: str, head: Head, section: JsonObject, plan: Plan) -> JsonObject:
    dataset = dict(section)
    if layout not in KEEPS_NAMES:
        things = {c.name for c in plan.categories if c.is_thing}
        dataset["classes"] = {other: own for own, other in plan.names.items() if head != "instance" or own in things}
    return {
        "suite": f"{plan.source}_as_{layout.replace('-', '_')}_{head}",
        "title": f"{plan.source} in the layout of {layout}, {head} segmentation",
        "task": head,
        "dataset": dataset,
        "protocol": _protocol(plan),
        "metrics": list(OWN_METRICS.get(layout, {}).get(head, COCO_METRICS[head])),
        "checkpoints": _rows(plan),
    }


def _protocol(plan: Plan) -> JsonObject:
    """The size that the bundled checkpoint was trained with, or COCO's."""
    return {
        "name": "paper",
        **({"min_size": 128, "max_size": 192} if plan.source == "shapes" else {"min_size": 800, "max_size": 1333}),
    }


def _rows(plan: Plan) -> Sequence[JsonObject]:
    if plan.source == "shapes":
        return [{"name": "shapes-tiny", "checkpoint": "bundled:shapes_tiny"}]
    return [{"name": "yours", "unavailable": "put a checkpoint of these classes here, in place of this line: 'checkpoint: ...'"}]
