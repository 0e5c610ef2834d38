"""What runs have measured, as claims of a card are held against it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2fbench.analysis.runs import Run
from m2fbench.reporting.claims.published_figures import DATASETS, checkpoint_named, same_backbone
from m2fbench.reporting.claims.subject import Subject
from m2fbench.results import RunResult

_COSTS = {
    "parameters": ("params_M", 1e-6), "FLOPs": ("flops_G", 1e-9), "FLOPs_fvcore": ("flops_G", 1e-9), "fps": ("fps", 1.0), "fps_task": ("fps", 1.0),
    "latency": ("latency", 1.0), "latency_task": ("latency", 1.0),
}  # fmt: skip


@dataclass(frozen=True)
class MeasuredFigure:
    """One figure of a run. metric, value: as claims have them; category: a class, None over all. run: the run's label; variant: its name.
    setting: data set, protocol, images and what departs, in words. comparable: of all images, as published."""

    metric: str
    value: float
    category: str | None
    run: str
    variant: str
    checkpoint: str
    dataset: str
    setting: str
    comparable: bool
    protocol: str


def measured_figures(runs: Sequence[Run]) -> list[MeasuredFigure]:
    """Every figure of every run, the accuracy first."""
    found: dict[MeasuredFigure, None] = {}
    for run in runs:
        for result in (run.result, run.speed, run.flops):
            if result is not None:
                found |= dict.fromkeys(_figures(run, result))
    return list(found)


def _figures(run: Run, result: RunResult) -> Iterator[MeasuredFigure]:
    checkpoint = str((result.checkpoint or {}).get("reference", result.row))
    told: set[tuple[str, str | None]] = set()
    for m in result.measurements:
        metric, unit = _COSTS.get(m.name, (m.name, 1.0))
        if m.measured and (m.name, m.category) not in told:
            told.add((m.name, m.category))
            yield MeasuredFigure(
                metric, m.value * unit, m.category, run.label, str(result.variant.get("name", "")), checkpoint, dataset_of(result),
                setting_of(result), result.status == "complete" and result.reason is None, str((result.protocol or {}).get("name", "")),
            )  # fmt: skip
    parameters = (result.checkpoint or {}).get("parameters")
    if isinstance(parameters, int) and ("parameters", None) not in told:
        variant, setting = str(result.variant.get("name", "")), f"counted in {checkpoint}"
        yield MeasuredFigure(
            "params_M", parameters * 1e-6, None, run.label, variant, checkpoint, dataset_of(result), setting, True, ""
        )


def dataset_of(result: RunResult) -> str:
    """COCO, ADE20K, ..., or the name that the reader has."""
    name = str((result.dataset or {}).get("name", result.suite.get("name", "")))
    return DATASETS.get(name, name)


def setting_of(result: RunResult) -> str:
    """ "COCO, protocol paper, float32, variant default; partial: 40 of 5000 images"."""
    dataset, variant = result.dataset or {}, result.variant
    said = [dataset_of(result)]
    if result.protocol:
        said.append(f"protocol {result.protocol.get('name')}" + (", multi-scale + flip" if result.protocol.get("tta") else ""))
    said.append(f"variant {variant.get('name')} ({variant.get('dtype')})")
    scored = dataset.get("scored_images")
    if scored is not None:
        said.append(f"{scored} images")
    return ", ".join(said) + (f"; {_STATUS.get(result.status, result.status)}: {result.reason}" if result.reason else "")


_STATUS = {"complete": "not as published"}


def printed_figures(runs: Sequence[Run]) -> list[MeasuredFigure]:
    """What stands beside the runs' own figures as published, by their suites; the setting says where it is printed."""
    found: dict[MeasuredFigure, None] = {}
    for run in runs:
        for result in (run.result, run.speed, run.flops):
            for p in () if result is None else result.published:
                metric, unit = _COSTS.get(p.metric, (p.metric, 1.0))
                checkpoint = str((result.checkpoint or {}).get("reference", result.row)) if result is not None else ""
                dataset = dataset_of(result) if result is not None else ""
                found[MeasuredFigure(metric, p.value * unit, None, run.label, "", checkpoint, dataset, p.source, True, "")] = None
    return list(found)


def runs_of(subject: Subject, runs: Sequence[Run], text: str) -> list[Run]:
    """Those of the card's model. A published checkpoint's are known by their reference; a model of someone's own has all the runs where they are of
    one checkpoint, else those whose checkpoint the card names."""
    if subject.published:
        return [run for run in runs if _is_of(subject, run.any_result)]
    hashes = {str((run.any_result.checkpoint or {}).get("sha256")) for run in runs}
    if len(hashes) <= 1:
        return list(runs)
    return [run for run in runs if _is_named(run.any_result, text)]


def _is_of(subject: Subject, result: RunResult) -> bool:
    record = result.checkpoint or {}
    references = [str(record.get("reference", ""))] + ([f"zoo:{record['published']}"] if record.get("published") else [])
    for reference in references:
        found = checkpoint_named(reference)
        if found is not None and subject.backbone is not None:
            backbone, dataset, task = found
            return same_backbone(subject.backbone, backbone) and subject.dataset in (None, dataset) and subject.task in (None, task)
    return False


def _is_named(result: RunResult, text: str) -> bool:
    record = result.checkpoint or {}
    names = [str(record.get("reference", "")), str(record.get("sha256", ""))[:12], result.row]
    return any(name and re.search(rf"(?<![\w./-]){re.escape(name)}", text) for name in names)


def same_dataset(said: str, known: str) -> bool:
    """Spelling and additions ("shapes, 200 images") aside."""
    a, b = (re.sub(r"[^a-z0-9]", "", name.casefold()) for name in (said, known))
    return bool(a and b) and (a in b or b in a)
