"""Running a suite: predict what is missing, then score."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.environment import IDENTITY_LIBRARIES, describe_environment, version_of
from m2fbench.errors import StoreError, SuiteError
from m2fbench.planning import Event, Job, Listener, Session, plan, prepare
from m2fbench.predicting import predict
from m2fbench.results import RunResult, Status, compare
from m2fbench.scoring import Evaluation, check_truth, evaluate, metric_versions, open_dataset
from m2fbench.store import RunDirectory, dataset_identity, key_of
from m2fbench.submission import discard_submission, write_submission
from m2fbench.suite import RunSpec, Suite, load_suite
from m2fbench.types import Dataset, ImageId, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint
    from m2fbench.models.load import Loader


def run(
    suite: Suite | str | Path,
    *,
    checkpoints: Sequence[str] = (),
    config: str | None = None,
    labels: str | None = None,
    only: Sequence[str] = (),
    variants: Sequence[str] = (),
    data: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    output: str | Path = "runs",
    fresh: bool = False,
    verify: bool = False,
    predict_only: bool = False,
    listener: Listener | None = None,
    loader: "Loader | None" = None,
) -> list[RunResult]:
    """Run every row of a suite under every variant, resuming what an earlier run left, and return the results in order.

    suite: loaded, or the path or name of one. checkpoints: hub ids, folders, files, ``zoo:NAME`` or addresses in place of the suite's;
    config, labels: detectron2 config and class names of these, which then are single files. only, variants: names of rows and of variants.
    data: the dataset's folder. limit: so many images. device: "auto", "cpu" or "cuda". overrides: ``dotted.key=value``. output: the folder
    of run directories. fresh: discard earlier predictions. verify: re-score with the official evaluators; VerificationError on a difference
    above 1e-9 percent points. predict_only: look for no truth and score nothing, but write what the dataset's evaluation server takes.
    loader: makes the model (for tests).

    Raises M2FBenchError subclasses for what the caller can mend; whatever was finished by then is kept.
    """
    loaded_suite = suite if isinstance(suite, Suite) else load_suite(suite, overrides)
    if isinstance(suite, Suite) and overrides:
        raise SuiteError("overrides: expected a suite by path or name, got a loaded one; pass them to load_suite")
    if limit is not None and limit < 1:
        raise SuiteError(f"limit: expected at least 1 image, got {limit}")
    if (config or labels) and not checkpoints:
        raise SuiteError("--config and --labels: expected with --checkpoint, whose they are; the suite's rows have their own")
    specs = plan(loaded_suite, checkpoints, only, variants, config=config, labels=labels)
    tell = listener or (lambda event: None)
    dataset = open_dataset(loaded_suite, data)
    if not predict_only:
        tell(Event("check", "", "", total=len(dataset.examples()), message=dataset.name))
        check_truth(dataset)
    from m2fbench.models.load import choose_device, load  # only now: what is wrong so far is said at once, torch takes seconds

    session = Session(
        dataset, loaded_suite.needed_heads, limit, choose_device(device), Path(output), fresh, verify, not predict_only,
        tell, loader or load,
    )  # fmt: skip
    jobs = [prepare(session, spec) for spec in specs]  # all of them first: a bad last row is found before hours of work
    return [_unavailable(spec) if job is None else _execute(session, job) for spec, job in zip(specs, jobs, strict=True)]


def _unavailable(spec: RunSpec) -> RunResult:
    comparisons = compare((), spec.published, comparable=False, tolerance={})
    return RunResult(
        _suite_facts(spec.suite), spec.row.name, spec.variant.model_dump(), "unavailable", spec.row.unavailable,
        published=spec.published, comparisons=comparisons,
    )  # fmt: skip


def _identity(session: Session, job: Job) -> JsonObject:
    """What a run directory's predictions have in common. Image files are told apart one by one, by their stamps, so that a
    mended one does not cost the others."""
    fingerprint = session.dataset.fingerprint()
    return {
        "checkpoint_sha256": job.checkpoint.sha256,
        "dataset": dataset_identity(fingerprint),
        "task": job.spec.suite.task,
        "heads": list(session.heads),
        "protocol": job.protocol.description,
        "classes": list(job.classes.to_dataset),
        "variant": {k: v for k, v in job.spec.variant.model_dump().items() if k not in ("name", "protocol", "tta")},
        "device": {k: v for k, v in job.machine.items() if k in ("kind", "threads")},
        "libraries": {name: version_of(name) for name in IDENTITY_LIBRARIES},
    }


def _execute(session: Session, job: Job) -> RunResult:
    started = _now()
    spec, identity = job.spec, _identity(session, job)
    folder = session.output / spec.suite.suite / spec.row.name / spec.variant.name
    with RunDirectory(folder, identity, heads=session.heads, fresh=session.fresh) as store:
        _check_stamps(session.dataset, store)
        before = len(store.records)
        predict(session, job, store)
        if session.fresh or len(store.records) > before:
            discard_submission(folder / "submission")  # of other predictions
        order = [e.image_id for e in session.dataset.examples()]
        store.export(order, category_records(session.dataset))
        store.write_table(order)
        if session.score:
            session.tell(job.event("score", len(job.examples)))
        else:
            write_submission(session.dataset, store.predictions, job.examples, folder / "submission", key_of(identity))
        result = _result(session, job, store, identity, started)
        path = store.write_result(result.to_json(), session.limit, scored=session.score)
    session.tell(job.event("done", message=str(path)))
    return replace(result, path=path)


def _result(session: Session, job: Job, store: RunDirectory, identity: JsonObject, started: str) -> RunResult:
    """Score what the store holds of the job's images."""
    from m2fbench.models.published import size_note, task_note

    spec, dataset = job.spec, session.dataset
    errors = {e.image_id: store.records[e.image_id].error for e in job.examples}
    scored = [image_id for image_id, error in errors.items() if error is None]
    evaluation = Evaluation((), None)
    if session.score:
        evaluation = evaluate(spec.suite, dataset, store.predictions, scored, verify=session.verify)
    fingerprint, total = dataset.fingerprint(), len(dataset.examples())
    complete = len(scored) == total
    departure = _departure(job)
    reason = f"{len(scored)} of {total} images" if not complete else departure
    reason = reason if session.score else f"predictions only, of {len(scored)} of {total} images"
    tolerance = spec.suite.tolerance if spec.checks_tolerance else {}
    status: Status = "predicted" if not session.score else "complete" if complete else "partial"
    return RunResult(
        suite=_suite_facts(spec.suite),
        row=spec.row.name,
        variant=spec.variant.model_dump(),
        status=status,
        reason=reason,
        departure=departure,
        rules=asdict(spec.suite.rules),
        checkpoint=_describe_checkpoint(job.checkpoint) | store.model,
        dataset=fingerprint | {"scored_images": len(scored)},
        protocol=job.protocol.description,
        device=job.machine,
        environment=describe_environment(),
        prediction_key=key_of(identity | {"images_sha256": fingerprint.get("images_sha256")}),
        result_key=key_of(
            {
                "predictions": identity,
                "scored": scored,
                "metrics": metric_versions(spec.suite),
                "rules": asdict(spec.suite.rules),
            }
        ),
        limit=session.limit,
        started=started,
        finished=_now(),
        timings=_timings(store, scored),
        measurements=evaluation.measurements,
        published=spec.published,
        comparisons=compare(evaluation.measurements, spec.published, comparable=reason is None, tolerance=tolerance),
        skipped=tuple({"image_id": image_id, "error": error} for image_id, error in errors.items() if error is not None),
        warnings=(
            *job.checkpoint.warnings,
            *job.classes.warnings,
            *task_note(job.checkpoint, spec.suite.task),
            *size_note(job.checkpoint, spec.protocol, spec.suite.task),
            *evaluation.warnings,
        ),
        verified=evaluation.verified,
    )


def _departure(job: Job) -> str | None:
    """Why a complete run is still not what the published numbers speak of; None where it is."""
    if job.spec.protocol.name != job.spec.suite.protocol.name:
        return f"another protocol, {job.spec.protocol.name}"
    if job.spec.suite.overrides:
        return f"changed by --set {' '.join(job.spec.suite.overrides)}"
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


def category_records(dataset: Dataset) -> list[JsonObject]:
    """The classes as COCO panoptic files list them."""
    pairs = zip(dataset.category_ids, dataset.categories, strict=True)
    return [{"id": number, "name": c.name, "isthing": int(c.is_thing)} for number, c in pairs]


def _check_stamps(dataset: Dataset, store: RunDirectory) -> None:
    """Refuse to go on beside predictions of image files that have changed since."""
    changed = [
        e.source
        for e in dataset.examples()
        if (record := store.records.get(e.image_id)) is not None and record.error is None and record.stamp != dataset.stamp(e)
    ]
    if changed:
        raise StoreError(
            f"{store.path}: {len(changed)} finished images have changed on disk since, the first is {changed[0]}; put them back, "
            f"choose another --output, or discard all predictions with --fresh"
        )


def _describe_checkpoint(checkpoint: "Checkpoint") -> JsonObject:
    facts = asdict(checkpoint)
    del facts["folder"], facts["labels"], facts["config"], facts["warnings"], facts["stamps"]
    return facts | {"weight_files": list(checkpoint.weight_files), "classes": len(checkpoint.labels)}


def _timings(store: RunDirectory, scored: Sequence[ImageId]) -> dict[str, float]:
    """Seconds by stage, summed over the images, whichever session they were done in."""
    totals: dict[str, float] = {}
    for image_id in scored:
        for stage, seconds in store.records[image_id].seconds.items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    return totals


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
