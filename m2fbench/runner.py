"""Running a suite: predict what is missing, then score."""

import itertools
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from m2fbench.environment import IDENTITY_LIBRARIES, version_of
from m2fbench.errors import StoreError, SuiteError, UnsupportedError
from m2fbench.facts import Planned, facts, not_run, now, unavailable
from m2fbench.flops_results import flops_result
from m2fbench.planning import Event, Job, Listener, Session, plan, prepare
from m2fbench.predicting import category_records, fallback_notes, predict
from m2fbench.results import RunResult, Status, compare
from m2fbench.scoring import Evaluation, check_truth, data_folder, evaluate, metric_versions, open_dataset
from m2fbench.speed import SpeedRequest, checked_request
from m2fbench.speed_results import speed_of_row
from m2fbench.store import RunDirectory, dataset_identity, key_of
from m2fbench.submission import discard_submission, write_submission
from m2fbench.suite import RunSpec, Suite, load_suite, snapshot
from m2fbench.types import Dataset, ImageId, JsonObject

if TYPE_CHECKING:
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
    speed: SpeedRequest | None = None,
) -> list[RunResult]:
    """Run every row of a suite under every variant, resuming what an earlier run left, and return the results in order: what the suite's
    ``measure`` asks for, accuracy first.

    suite: loaded, or the path or name of one. checkpoints: hub ids, folders, files, ``zoo:NAME`` or addresses in place of the suite's;
    config, labels: detectron2 config and class names of these, which then are single files. only, variants: names of rows and of variants.
    data: the dataset's folder. limit: so many images. device: "auto", "cpu" or "cuda". overrides: ``dotted.key=value``. output: the folder
    of run directories. fresh: discard earlier predictions. verify: re-score with the official evaluators; VerificationError on a difference
    above 1e-9 percent points. predict_only: look for no truth and score nothing, but write what the dataset's evaluation server takes.
    loader: makes the model (for tests). speed: how to measure speed where the suite asks for it.

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
    request = None
    if {"speed", "energy"} & set(loaded_suite.measure) and not predict_only:
        request = checked_request(loaded_suite, dataset, limit, speed or SpeedRequest())
    if not predict_only:
        tell(Event("check", "", "", total=len(dataset.examples()), message=dataset.name))
        check_truth(dataset)
    from m2fbench.models.load import choose_device, load  # only now: what is wrong so far is said at once, torch takes seconds

    session = Session(
        dataset, loaded_suite.needed_heads, limit, choose_device(device), Path(output), fresh, verify, not predict_only,
        tell, loader or load, data_folder(data),
    )  # fmt: skip
    undone = _undone(session, specs)
    # all of them first: a bad last row is found before hours of work
    jobs = [None if result else prepare(session, spec) for spec, result in zip(specs, undone, strict=True)]
    planned = [Planned(*one) for one in zip(specs, jobs, undone, strict=True)]
    results: list[RunResult] = []
    if "accuracy" in loaded_suite.measure or predict_only:
        results += [one.result or (_execute(session, one.job) if one.job else unavailable(one.spec)) for one in planned]
    if request is not None:
        for _, row in itertools.groupby(planned, key=lambda one: one.spec.row.name):
            results += speed_of_row(session, list(row), request)
    if "flops" in loaded_suite.measure and not predict_only:
        firsts = {one.spec.row.name: one for one in reversed(planned)}
        results += [flops_result(session, one, None if data is None else Path(data)) for one in reversed(firsts.values())]
    return _refuse_if_nothing_ran(results)


def _undone(session: Session, specs: Sequence[RunSpec]) -> list[RunResult | None]:
    """For each run what is known of it beforehand: a result where the device cannot do its variant, else None."""
    from m2fbench.models.variants import unsupported

    variants = {spec.variant.name: spec.variant for spec in specs if spec.row.checkpoint is not None}
    reasons = {name: unsupported(variant, session.device) for name, variant in variants.items()}
    found: list[RunResult | None] = []
    for spec in specs:
        reason = None if spec.row.checkpoint is None else reasons[spec.variant.name]
        found.append(not_run(spec, "unsupported", reason) if reason else None)
    for spec, result in zip(specs, _refuse_if_nothing_ran(found), strict=True):
        if result is not None:
            session.tell(Event("unsupported", spec.row.name, spec.variant.name, message=str(result.reason)))
    return found


Known = TypeVar("Known", RunResult, RunResult | None)


def _refuse_if_nothing_ran(results: list[Known]) -> list[Known]:
    """Raises UnsupportedError where the device can do no variant of the call: then there is nothing to report."""
    reasons = [r.reason for r in results if r is not None and r.status == "unsupported"]
    if reasons and all(r is not None and r.status in ("unsupported", "unavailable") for r in results):
        raise UnsupportedError(
            f"no variant can run here: {'; '.join(dict.fromkeys(map(str, reasons)))}; choose others, or --device"
        )
    return results


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
        "variant": job.spec.variant.identity,
        "device": {k: v for k, v in job.machine.items() if k in ("kind", "threads")},
        "libraries": {name: version_of(name) for name in IDENTITY_LIBRARIES},
    }


def _execute(session: Session, job: Job) -> RunResult:
    """The result of one run; one that says why where only its model, or its first image, showed that the variant cannot be done."""
    try:
        return _predict_and_score(session, job)
    except UnsupportedError as error:
        session.tell(job.event("unsupported", message=str(error)))
        return not_run(job.spec, "unsupported", str(error))


def _predict_and_score(session: Session, job: Job) -> RunResult:
    started = now()
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
        store.write_suite(snapshot(spec.suite, session.data))
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
    spec, dataset = job.spec, session.dataset
    errors = {e.image_id: store.records[e.image_id].error for e in job.examples}
    scored = [image_id for image_id, error in errors.items() if error is None]
    evaluation = Evaluation((), None)
    if session.score:
        evaluation = evaluate(spec.suite, dataset, store.predictions, scored, verify=session.verify)
    fingerprint, total = dataset.fingerprint(), len(dataset.examples())
    complete = len(scored) == total
    known = facts(session, job)
    reason = f"{len(scored)} of {total} images" if not complete else known.departure
    reason = reason if session.score else f"predictions only, of {len(scored)} of {total} images"
    tolerance = spec.suite.tolerance if spec.checks_tolerance else {}
    status: Status = "predicted" if not session.score else "complete" if complete else "partial"
    return replace(
        known,
        status=status,
        reason=reason,
        checkpoint=(known.checkpoint or {}) | store.model,
        dataset=fingerprint | {"scored_images": len(scored)},
        prediction_key=key_of(identity | {"images_sha256": fingerprint.get("images_sha256")}),
        result_key=key_of(
            {
                "predictions": identity,
                "scored": scored,
                "metrics": metric_versions(spec.suite),
                "rules": asdict(spec.suite.rules),
            }
        ),
        started=started,
        finished=now(),
        timings=_timings(store, scored),
        measurements=evaluation.measurements,
        comparisons=compare(evaluation.measurements, spec.published, comparable=reason is None, tolerance=tolerance),
        skipped=tuple({"image_id": image_id, "error": error} for image_id, error in errors.items() if error is not None),
        warnings=(
            *known.warnings,
            *fallback_notes(store.records[image_id] for image_id in scored),
            *evaluation.warnings,
        ),
        verified=evaluation.verified,
    )


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


def _timings(store: RunDirectory, scored: Sequence[ImageId]) -> dict[str, float]:
    """Seconds by stage, summed over the images, whichever session they were done in."""
    totals: dict[str, float] = {}
    for image_id in scored:
        for stage, seconds in store.records[image_id].seconds.items():
            totals[stage] = totals.get(stage, 0.0) + seconds
    return totals
