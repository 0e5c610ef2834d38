"""The metadata of a model card: what the hub reads. Only what was measured over the whole dataset stands in it, and nothing that is guessed."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from m2fbench.analysis.findings import Estimate
from m2fbench.environment import version_of
from m2fbench.models.zoo import zoo_entries
from m2fbench.reporting.card.facts import CardFacts, SuiteRuns
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

FIGURES = (
    "PQ", "PQ_th", "PQ_st", "SQ", "RQ", "AP_th_pan", "AP50_th_pan", "mIoU_pan", "AP", "AP50", "AP75", "APs", "APm", "APl", "boundary_AP", "mIoU",
    "IoU_category", "iIoU_class", "iIoU_category",
)  # fmt: skip
"""Of all figures those that papers head their tables with."""
NAMES = {
    "PQ": "panoptic quality", "PQ_th": "panoptic quality, things", "PQ_st": "panoptic quality, stuff", "SQ": "segmentation quality",
    "RQ": "recognition quality", "AP": "mask average precision", "AP50": "mask AP at IoU 0.5", "AP75": "mask AP at IoU 0.75",
    "APs": "mask AP, small objects", "APm": "mask AP, medium objects", "APl": "mask AP, large objects", "boundary_AP": "boundary AP",
    "mIoU": "mean intersection over union", "segment_recall": "share of the true segments that are found, a mean over classes",
    "mean_accuracy": "share of the true pixels that get their class, a mean over classes", "AR100": "average recall with 100 detections an image",
    "IoU_category": "mean IoU over categories", "iIoU_class": "instance-weighted IoU over classes",
    "iIoU_category": "instance-weighted IoU over categories",
}  # fmt: skip
TASKS = {"instance": "Instance segmentation", "panoptic": "Panoptic segmentation", "semantic": "Semantic segmentation"}
MEASURED_BY = "m2fbench"
HUB_DATASETS = {"coco": "coco"}  # zoo's name of a training set -> the hub's id, as the hub's own Mask2Former cards have it


def long_name(figure: str) -> str:
    """ "AP_th_pan" -> "mask average precision, panoptic model on its things"."""
    if figure in NAMES:
        return NAMES[figure]
    for end, said in (("_th_pan", ", panoptic model on its things"), ("_pan", ", panoptic model")):
        if figure.endswith(end) and figure.removesuffix(end) in NAMES:
            return NAMES[figure.removesuffix(end)] + said
    return figure.replace("_", " ")


def card_data(facts: CardFacts) -> "ModelCardData":
    """All of a new card's metadata."""
    from huggingface_hub import ModelCardData

    results = list(eval_results(facts))
    known = own_metadata(facts)
    return ModelCardData(
        license=facts.options.license or known.get("license"),
        library_name="transformers" if facts.record.get("form") == "transformers" or facts.options.model_id else None,
        pipeline_tag="image-segmentation",
        tags=tags(facts),
        datasets=datasets_of(facts) or known.get("datasets"),
        base_model=known.get("base_model"),
        model_name=facts.title if results else None,
        eval_results=results or None,
        co2_eq_emissions=emissions(facts),
    )


def tags(facts: CardFacts) -> list[str]:
    tasks = dict.fromkeys(f"{suite.task}-segmentation" for suite in facts.measured)
    return ["vision", "image-segmentation", str(facts.config.get("model_type", "mask2former")), *tasks]


def own_metadata(facts: CardFacts) -> JsonObject:
    """What the card that lies with the checkpoint says of license, training data and base model; empty where there is none."""
    from huggingface_hub import metadata_load

    if facts.checkpoint is None or facts.checkpoint.form != "transformers":
        return {}
    try:
        found = metadata_load(facts.checkpoint.folder / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return {key: found[key] for key in ("license", "datasets", "base_model") if found.get(key)}


def datasets_of(facts: CardFacts) -> list[str] | None:
    """The hub's id of what it was trained on: only of checkpoints of the model zoo, by their content, and where the hub has one."""
    published = facts.record.get("published")
    entry = zoo_entries().get(str(published)) if published else None
    known = HUB_DATASETS.get(entry.name.partition("/")[0]) if entry else None
    return [known] if known else None


def eval_results(facts: CardFacts) -> "Iterator[EvalResult]":
    """Every headline figure that was measured over a complete dataset."""
    from huggingface_hub import EvalResult

    for suite in facts.measured:
        if not is_complete(suite):
            continue
        result = suite.result
        for figure, value in headline(suite):
            yield EvalResult(
                task_type="image-segmentation",
                task_name=TASKS[suite.task],
                dataset_type=str((result.dataset or {}).get("name", suite.name)),
                dataset_name=suite.dataset,
                dataset_config=suite.name,
                dataset_split=split_of(suite),
                dataset_args=_dataset_args(suite),
                metric_type=figure,
                metric_name=f"{figure} ({long_name(figure)})",
                metric_value=value,
                metric_args=_metric_args(suite, figure),
                verified=False,
            )


def headline(suite: SuiteRuns) -> Iterator[tuple[str, float]]:
    """The figures of FIGURES that the reference has, as printed."""
    for figure in FIGURES:
        value = suite.result.value(figure)
        if value == value:
            yield figure, round(value, 2)


def is_complete(suite: SuiteRuns) -> bool:
    """Whether the reference's figures are of all images of the suite's dataset."""
    result = suite.result
    changed = () if suite.suite is None else tuple(o for o in suite.suite.overrides if o.startswith("dataset"))
    return result.status == "complete" and not changed


def split_of(suite: SuiteRuns) -> str | None:
    """The part of the dataset, where the suite names one."""
    if suite.suite is None:
        found = (suite.result.dataset or {}).get("split") if suite.reference else None
        return None if found is None else str(found)
    options = suite.suite.dataset.options
    if "split" in options:
        return str(options["split"])
    return "val2017" if suite.shipped and "val2017" in str(options.get("images")) else None


def _dataset_args(suite: SuiteRuns) -> JsonObject:
    """What tells this state of the dataset from any other."""
    fingerprint = suite.result.dataset or {}
    return {key: fingerprint[key] for key in ("images", "annotations_sha256") if fingerprint.get(key) is not None}


def _metric_args(suite: SuiteRuns, figure: str) -> JsonObject:
    result = suite.result
    protocol = result.protocol or {}
    said: JsonObject = {
        "protocol": protocol.get("name"), "min_size": protocol.get("min_size"), "max_size": protocol.get("max_size"),
        "precision": result.variant["dtype"],
    }  # fmt: skip
    estimate = interval_of(suite, figure)
    if estimate is not None and estimate.has_interval:
        intervals = suite.analyses.intervals
        assert intervals is not None
        said[f"interval_{100 * intervals.level:.0f}"] = [round(estimate.low, 2), round(estimate.high, 2)]
    said["suite_sha256"] = result.suite["sha256"]
    return {k: v for k, v in said.items() if v is not None} | {"measured_by": f"{MEASURED_BY} {version_of('m2fbench')}"}


def interval_of(suite: SuiteRuns, figure: str, category: str | None = None) -> Estimate | None:
    intervals = suite.analyses.intervals
    return None if intervals is None else intervals.figures.get((figure, category))


def emissions(facts: CardFacts) -> JsonObject | None:
    """Grams of CO2e of inference, where measured energy stands behind them; None where none was measured."""
    from m2fbench.profiling.emissions import FROM_MEASURED

    for run in (run for suite in facts.suites for run in suite.runs):
        details = run.speed.details if run.speed is not None else None
        found: dict[str, Any] = (details or {}).get("emissions") or {}
        if run.speed is None or found.get("grams_per_image") is None or found.get("label") != FROM_MEASURED:
            continue
        device, environment = run.speed.device or {}, run.speed.environment or {}
        kind = str(device.get("kind", "cpu"))
        return {
            "emissions": found["grams_per_image"],
            "source": f"{MEASURED_BY} {version_of('m2fbench')}: grams of CO2e of one image at inference, not of training; {found['label']} "
            f"({found['source']})",
            "hardware_used": str(environment.get("processor") or "unknown") if kind == "cpu" else kind.removeprefix("cuda "),
        }
    return None
