"""What is known of a run before anything is measured, and of one that cannot be measured at all."""

import datetime
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from m2fbench.environment import describe_environment
from m2fbench.planning import Job, Session
from m2fbench.results import RunResult, Status, compare
from m2fbench.suite import RunSpec, Suite
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint


def facts(session: Session, job: Job) -> RunResult:
    """What is known of a run before anything is measured; its status is for the caller to set."""
    from m2fbench.models.published import size_note, task_note

    spec = job.spec
    return RunResult(
        suite=_suite_facts(spec.suite),
        row=spec.row.name,
        variant=spec.variant.model_dump(),
        status="partial",
        departure=_departure(job),
        rules=asdict(spec.suite.rules),
        checkpoint=_describe_checkpoint(job.checkpoint),
        dataset=session.dataset.fingerprint(),
        protocol=job.protocol.description,
        device=job.machine,
        environment=describe_environment(),
        limit=session.limit,
        published=spec.published,
        warnings=(
            *job.checkpoint.warnings,
            *job.classes.warnings,
            *task_note(job.checkpoint, spec.suite.task),
            *size_note(job.checkpoint, spec.protocol, spec.suite.task),
        ),
    )


@dataclass(frozen=True)
class Planned:
    """One run of a call. job: None where there is nothing to run; result: what is known of it beforehand, of a variant that cannot be done."""

    spec: RunSpec
    job: Job | None
    result: RunResult | None = None


def unavailable(spec: RunSpec) -> RunResult:
    """The result of a row that cannot be run."""
    return not_run(spec, "unavailable", spec.row.unavailable)


def not_run(spec: RunSpec, status: Status, reason: str | None) -> RunResult:
    """The result of a run that was not made, with the reason; the published figures stand in it all the same."""
    comparisons = compare((), spec.published, comparable=False, tolerance={})
    return RunResult(
        _suite_facts(spec.suite), spec.row.name, spec.variant.model_dump(), status, reason,
        published=spec.published, comparisons=comparisons,
    )  # fmt: skip


def _departure(job: Job) -> str | None:
    """Why a complete run is still not what the published numbers speak of; None where it is."""
    if job.spec.protocol.name != job.spec.suite.protocol.name:
        return f"another protocol, {job.spec.protocol.name}"
    if job.spec.suite.overrides:
        return f"changed by --set {' '.join(job.spec.suite.overrides)}"
    layers = job.spec.variant.decoder_layers
    if layers is not None and layers + 1 != job.checkpoint.config.get(
        "decoder_layers"
    ):  # which counts the prediction before the first
        return f"stopped after {layers} decoder layer{'s'[: layers != 1]}"
    reference = job.spec.row.checkpoint or ""
    if (
        job.checkpoint.form == "transformers"
        and job.checkpoint.revision is None
        and "/" in reference
        and not reference.startswith((".", "/", "~"))
    ):
        return f"a local folder, {job.checkpoint.folder}, in place of the hub's {reference}"
    return None


def _suite_facts(suite: Suite) -> JsonObject:
    return {"name": suite.suite, "title": suite.title, "sha256": suite.hash}


def _describe_checkpoint(checkpoint: "Checkpoint") -> JsonObject:
    facts = asdict(checkpoint)
    del facts["folder"], facts["labels"], facts["config"], facts["warnings"], facts["stamps"]
    return facts | {"weight_files": list(checkpoint.weight_files), "classes": len(checkpoint.labels)}


def now() -> str:
    """UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
