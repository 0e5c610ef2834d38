"""The figures that the paper prints, one by one, from the shipped suites: whose each is, on which data set, by which protocol, and where."""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from m2fbench.models.zoo import PREFIX, ZooEntry, zoo_entries
from m2fbench.reporting.claims.words import HUB_DATASETS, MULTI, SINGLE
from m2fbench.sections import Row
from m2fbench.suite import Suite, load_suite, suite_names
from m2fbench.types import Head

DATASETS = {
    "coco_instance": "COCO", "coco_panoptic": "COCO", "ade20k": "ADE20K", "cityscapes": "Cityscapes", "mapillary": "Mapillary Vistas",
}  # fmt: skip
ZOO_DATASETS = {"COCO": "coco", "ADE20K": "ade20k", "Cityscapes": "cityscapes", "Mapillary Vistas": "mapillary"}


@dataclass(frozen=True)
class PublishedFigure:
    """One number of a table. backbone: "Swin-B-IN21k", as the model zoo has it. split: "val" or "test-dev". protocol: how it was tested.
    metric: as suites have it; of costs "params_M" (millions), "flops_G" (10^9) and "fps". value: as printed; digits: after the point."""

    backbone: str
    dataset: str
    split: str
    task: Head
    metric: str
    value: float
    digits: int
    protocol: str
    source: str
    queries: int | None

    @property
    def checkpoint(self) -> str:
        """Whose it is, in words: "Swin-L-FaPN (IN21k), ADE20K semantic"."""
        return (
            f"{self.backbone.replace('-IN21k', ' (IN21k)')}, {self.dataset}{' test-dev' if self.split != 'val' else ''} {self.task}"
        )

    @property
    def printed(self) -> str:
        return f"{self.value:.{self.digits}f}"


@functools.cache
def published_figures() -> tuple[PublishedFigure, ...]:
    """Every figure of the paper's tables that a suite has."""
    found: dict[PublishedFigure, None] = {}
    for name in suite_names():
        suite = load_suite(name)
        if suite.dataset.name in DATASETS and suite.protocol.name == "paper":
            for row in suite.checkpoints:
                if row.source.startswith("arXiv"):
                    found |= dict.fromkeys(_figures(suite, row))
    return tuple(found)


def backbone_of_row(name: str) -> str:
    """ "swin-l-fapn-in21k" -> "Swin-L-FaPN-IN21k"."""
    parts = {"swin": "Swin", "fapn": "FaPN", "in21k": "IN21k"}
    return "-".join(parts.get(part, part.upper()) for part in name.split("-"))


def _figures(suite: Suite, row: Row) -> Iterator[PublishedFigure]:
    dataset, backbone = DATASETS[suite.dataset.name], backbone_of_row(row.name)
    split = "test-dev" if "test-dev" in suite.title else "val"
    entry = entry_of(dataset, suite.task, backbone)
    queries = None if entry is None else entry.queries

    def figure(metric: str, value: float, protocol: str) -> PublishedFigure:
        digits = 0 if metric in ("params_M", "flops_G") and value == int(value) else 1
        return PublishedFigure(backbone, dataset, split, suite.task, metric, value, digits, protocol, row.source, queries)

    for metric, value in row.published.items():
        yield figure(metric, value, SINGLE)
    for values in row.published_variants.values():
        for metric, value in values.items():
            yield figure(metric, value, MULTI)
    costs = row.published_costs
    for metric in ("params_M", "flops_G", "fps"):
        cost = None if costs is None else getattr(costs, metric)
        if cost is not None:
            yield figure(metric, float(cost), SINGLE)


def entry_of(dataset: str, task: str, backbone: str) -> ZooEntry | None:
    """The zoo's checkpoint; None where none is published."""
    return zoo_entries().get(f"{ZOO_DATASETS.get(dataset, '')}/{task}/{backbone}")


HUB_BACKBONES = {
    "tiny": "Swin-T", "small": "Swin-S", "base": "Swin-B", "base-IN21k": "Swin-B-IN21k", "large": "Swin-L-IN21k",
}  # fmt: skip
_HUB_ID = re.compile(
    r"facebook/mask2former-swin-(tiny|small|base-IN21k|base|large)-(coco|ade|cityscapes|mapillary-vistas)-(instance|panoptic|semantic)"
)


def checkpoint_named(reference: str) -> tuple[str, str, Head] | None:
    """(backbone, data set, task) of a published checkpoint by its hub id or ``zoo:`` name; None of any other.

    The hub's ``swin-base-X`` has the ImageNet-1k backbone where the model zoo has one; where it has only the ImageNet-22k one, it is that.
    """
    tasks: dict[str, Head] = {"instance": "instance", "panoptic": "panoptic", "semantic": "semantic"}
    if found := _HUB_ID.fullmatch(reference.partition("@")[0]):
        backbone, dataset, task = HUB_BACKBONES[found[1]], HUB_DATASETS[found[2]], tasks[found[3]]
        if backbone == "Swin-B" and entry_of(dataset, task, backbone) is None and entry_of(dataset, task, "Swin-B-IN21k"):
            backbone = "Swin-B-IN21k"
        return backbone, dataset, task
    entry = next((e for e in zoo_entries().values() if reference.casefold() == (PREFIX + e.name).casefold()), None)
    if entry is None:
        return None
    where, task_name, backbone = entry.name.split("/")
    return backbone, next(d for d, zoo in ZOO_DATASETS.items() if zoo == where), tasks[task_name]


def same_backbone(said: str, known: str) -> bool:
    """Whether a backbone as a text names it may be this one: "Swin-B" is either Swin-B, and "Swin-L" the backbone of Swin-L-FaPN too."""
    bare = known if "FaPN" in said else known.replace("-FaPN", "")
    return said in (known, bare) or bare.startswith(said + "-")
