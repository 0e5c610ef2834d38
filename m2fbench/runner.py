"""Running a suite: predict what is missing, then score."""

import contextlib
import datetime
import re
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m2fbench.environment import IDENTITY_LIBRARIES, describe_environment, version_of
from m2fbench.errors import ClassesError, DatasetError, ImageError, StoreError, SuiteError
from m2fbench.formats.coco_results import to_results
from m2fbench.registry import near
from m2fbench.results import RunResult, Status, compare
from m2fbench.scoring import evaluate, metric_versions, open_dataset
from m2fbench.store import ImageRecord, RunDirectory, key_of
from m2fbench.suite import Row, RunSpec, Suite, load_suite
from m2fbench.types import Dataset, Example, ImageId, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint
    from m2fbench.models.classes import ClassMap
    from m2fbench.models.feed import Fed
    from m2fbench.models.load import ForwardOutput, LoadedModel, Loader
    from m2fbench.models.protocols import Protocol


@dataclass(frozen=True)
class Event:
    """What a run tells its caller as it goes: ``kind`` is "start", "download" (done and total in bytes, total 0 where unknown), "load",
    "image", "score" or "done"."""

    kind: str
    row: str
    variant: str
    done: int = 0
    total: int = 0
    message: str = ""


Listener = Callable[[Event], None]


def run(
    suite: Suite | str | Path,
    *,
    checkpoints: Sequence[str] = (),
    config: str | None = None,
    labels: str | None = None,
    only: Sequence[str] = (),
    data: str | Path | None = None,
    limit: int | None = None,
    device: str = "auto",
    overrides: Sequence[str] = (),
    output: str | Path = "runs",
    fresh: bool = False,
    verify: bool = False,
    listener: Listener | None = None,
    loader: "Loader | None" = None,
) -> list[RunResult]:
    """Run every row of a suite under every variant, resuming what an earlier run left, and return the results in order.

    suite: loaded, or the path or name of one. checkpoints: hub ids, folders, files, ``zoo:NAME`` or addresses in place of the suite's;
    config, labels: detectron2 config and class names of these, which then are single files. only: names of rows. data: the dataset's
    folder. limit: so many images. device: "auto", "cpu" or "cuda". overrides: ``dotted.key=value``. output: the folder of run
    directories. fresh: discard earlier predictions. verify: re-score with the official evaluator; VerificationError on a difference
    above 1e-9 percent points. loader: makes the model (for tests).

    Raises M2FBenchError subclasses for what the caller can mend; whatever was finished by then is kept.
    """
    loaded_suite = suite if isinstance(suite, Suite) else load_suite(suite, overrides)
    if isinstance(suite, Suite) and overrides:
        raise SuiteError("overrides: expected a suite by path or name, got a loaded one; pass them to load_suite")
    if limit is not None and limit < 1:
        raise SuiteError(f"limit: expected at least 1 image, got {limit}")
    if (config or labels) and not checkpoints:
        raise SuiteError("--config and --labels: expected with --checkpoint, whose they are; the suite's rows have their own")
    specs = plan(loaded_suite, checkpoints, only, config=config, labels=labels)
    dataset = open_dataset(loaded_suite, data)
    dataset.check()
    from m2fbench.models.load import choose_device, load  # only now: what is wrong so far is said at once, torch takes seconds

    session = _Session(
        dataset, limit, choose_device(device), Path(output), fresh, verify, listener or (lambda event: None), loader or load
    )
    jobs = [_prepare(session, spec) for spec in specs]  # all of them first: a bad last row is found before hours of work
    return [_unavailable(spec) if job is None else _execute(session, job) for spec, job in zip(specs, jobs, strict=True)]


def plan(
    suite: Suite,
    checkpoints: Sequence[str] = (),
    only: Sequence[str] = (),
    *,
    config: str | None = None,
    labels: str | None = None,
) -> list[RunSpec]:
    """The runs of a suite. With ``checkpoints`` these replace its rows; published values stay with an id and revision that match."""
    rows = list(suite.checkpoints)
    if checkpoints:
        rows = _rows_for(rows, checkpoints, config, labels)
    names = [row.name for row in rows]
    for name in only:
        if name not in names:
            raise SuiteError(f"--only {name}: expected one of {', '.join(names)}{near(name, names)}")
    kept = [row for row in rows if not only or row.name in only]
    return [RunSpec(suite, row, variant) for row in kept for variant in suite.variants]


def _rows_for(rows: Sequence[Row], references: Sequence[str], config: str | None, labels: str | None) -> list[Row]:
    from m2fbench.models.download import is_url, redacted

    known = {row.checkpoint: row for row in rows if row.checkpoint and not (config or labels)}
    chosen: list[Row] = []
    for reference in references:
        if reference in known:
            chosen.append(known[reference])
            continue
        plain = redacted(reference) if is_url(reference) else reference.split("@")[0]
        last = re.split(r"[/:]", plain.rstrip("/"))[-1]
        if re.fullmatch(r"model_(final|\d{7})\.(pth|pkl)", last):  # as every training of detectron2 calls it
            last = Path(plain).resolve().parent.name or last
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", last)[:70].strip("._-") or "checkpoint"
        taken = {row.name for row in (*rows, *chosen)}
        name = next(n for k in range(1, len(taken) + 2) if (n := base if k == 1 else f"{base}-{k}") not in taken)
        chosen.append(Row(name=name, checkpoint=reference, config=config, labels=labels))
    return chosen


@dataclass(frozen=True)
class _Session:
    """What all runs of one call share."""

    dataset: Dataset
    limit: int | None
    device: str
    output: Path
    fresh: bool
    verify: bool
    tell: Listener
    loader: "Loader"


@dataclass(frozen=True)
class _Job:
    """One run, everything found and matched that can be before the weights are loaded."""

    spec: RunSpec
    checkpoint: "Checkpoint"
    protocol: "Protocol"
    classes: "ClassMap"
    examples: tuple[Example, ...]
    machine: JsonObject

    def event(self, kind: str, done: int = 0, message: str = "") -> Event:
        return Event(kind, self.spec.row.name, self.spec.variant.name, done, len(self.examples), message)


def _unavailable(spec: RunSpec) -> RunResult:
    comparisons = compare((), spec.published, comparable=False, tolerance={})
    return RunResult(
        _suite_facts(spec.suite), spec.row.name, spec.variant.model_dump(), "unavailable", spec.row.unavailable,
        published=spec.published, comparisons=comparisons,
    )  # fmt: skip


def _prepare(session: _Session, spec: RunSpec) -> _Job | None:
    """Find the checkpoint and match its classes; None for a row that cannot be run."""
    from m2fbench.models.checkpoint import resolve
    from m2fbench.models.classes import match_classes
    from m2fbench.models.load import describe_device
    from m2fbench.models.protocols import build_protocol

    if spec.row.checkpoint is None:
        return None
    session.tell(Event("start", spec.row.name, spec.variant.name, message=f"checkpoint {spec.row.checkpoint}"))

    def arrived(done: int, total: int | None) -> None:
        session.tell(Event("download", spec.row.name, spec.variant.name, done, total or 0))

    checkpoint = resolve(spec.row.checkpoint, config=spec.row.config, labels=spec.row.labels, progress=arrived)
    try:
        classes = match_classes(checkpoint.labels, session.dataset.categories)
    except ClassesError as error:
        raise ClassesError(f"{checkpoint.reference}: {error}") from None
    protocol = build_protocol(spec.protocol, checkpoint.folder if checkpoint.form == "transformers" else None, classes)
    examples = tuple(session.dataset.examples()[: session.limit])
    _check_images(spec.suite, session.dataset, examples)
    return _Job(spec, checkpoint, protocol, classes, examples, describe_device(session.device))


def _identity(session: _Session, job: _Job) -> JsonObject:
    """What a run directory's predictions have in common. Image files are told apart one by one, by their stamps, so that a
    mended one does not cost the others."""
    fingerprint = session.dataset.fingerprint()
    return {
        "checkpoint_sha256": job.checkpoint.sha256,
        "dataset": {k: v for k, v in fingerprint.items() if k not in ("images_sha256", "missing_images")},
        "task": job.spec.suite.task,
        "protocol": job.protocol.description,
        "classes": list(job.classes.to_dataset),
        "variant": {k: v for k, v in job.spec.variant.model_dump().items() if k not in ("name", "protocol")},
        "device": {k: v for k, v in job.machine.items() if k in ("kind", "threads")},
        "libraries": {name: version_of(name) for name in IDENTITY_LIBRARIES},
    }


def _execute(session: _Session, job: _Job) -> RunResult:
    started = _now()
    spec, identity = job.spec, _identity(session, job)
    folder = session.output / spec.suite.suite / spec.row.name / spec.variant.name
    with RunDirectory(folder, identity, fresh=session.fresh) as store:
        _check_stamps(session.dataset, store)
        _predict(session, job, store)
        session.tell(job.event("score", len(job.examples)))
        order = [e.image_id for e in session.dataset.examples()]
        store.export(order)
        store.write_table(order)
        result = _result(session, job, store, identity, started)
        path = store.write_result(result.to_json(), session.limit)
    session.tell(job.event("done", message=str(path)))
    return replace(result, path=path)


def _result(session: _Session, job: _Job, store: RunDirectory, identity: JsonObject, started: str) -> RunResult:
    """Score what the store holds of the job's images."""
    from m2fbench.models.published import size_note

    spec, dataset = job.spec, session.dataset
    errors = {e.image_id: store.records[e.image_id].error for e in job.examples}
    scored = [image_id for image_id, error in errors.items() if error is None]
    evaluation = evaluate(spec.suite, dataset, store.predictions, scored, verify=session.verify)
    fingerprint, total = dataset.fingerprint(), len(dataset.examples())
    complete = len(scored) == total
    reason = f"{len(scored)} of {total} images" if not complete else _departure(job)
    tolerance = spec.suite.tolerance if spec.checks_tolerance else {}
    status: Status = "complete" if complete else "partial"
    return RunResult(
        suite=_suite_facts(spec.suite),
        row=spec.row.name,
        variant=spec.variant.model_dump(),
        status=status,
        reason=reason,
        checkpoint=_describe_checkpoint(job.checkpoint) | store.model,
        dataset=fingerprint | {"scored_images": len(scored)},
        protocol=job.protocol.description,
        device=job.machine,
        environment=describe_environment(),
        prediction_key=key_of(identity | {"images_sha256": fingerprint.get("images_sha256")}),
        result_key=key_of({"predictions": identity, "scored": scored, "metrics": metric_versions(spec.suite)}),
        limit=session.limit,
        started=started,
        finished=_now(),
        timings=_timings(store, scored),
        measurements=evaluation.measurements,
        published=spec.published,
        comparisons=compare(evaluation.measurements, spec.published, comparable=reason is None, tolerance=tolerance),
        skipped=tuple({"image_id": image_id, "error": error} for image_id, error in errors.items() if error is not None),
        warnings=(*job.checkpoint.warnings, *job.classes.warnings, *size_note(job.checkpoint, job.spec.protocol)),
        verified=evaluation.verified,
    )


def _departure(job: _Job) -> str | None:
    """Why a complete run is still not what the published numbers speak of; None where it is."""
    if job.spec.protocol != job.spec.suite.protocol:
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


def _check_images(suite: Suite, dataset: Dataset, examples: Sequence[Example]) -> None:
    """Find missing image files before hours of work, not after; ``on_error: skip`` counts them one by one instead."""
    missing = [e.source for e in examples if dataset.stamp(e) == "missing"] if suite.on_error == "stop" else []
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(examples)} images are missing, the first is {missing[0]}; complete the dataset "
            f"({dataset.needs_data}), or set 'on_error: skip'"
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


def _predict(session: _Session, job: _Job, store: RunDirectory) -> None:
    """Predict the examples that the store lacks; the model is loaded only where there are any."""
    from m2fbench.models.feed import feed

    store.forget_errors()
    todo = [e for e in job.examples if e.image_id not in store.records]
    if not todo:
        return
    session.tell(job.event("load", message=f"loading {job.checkpoint.location}"))
    model = session.loader(job.checkpoint, job.spec.variant, session.device)
    store.write_model({"parameters": model.parameters, "settings": model.settings})
    before = len(job.examples) - len(todo)
    session.tell(job.event("image", before))
    cuda = model.device.type == "cuda"
    fed = feed(todo, session.dataset.image, job.protocol.prepare, workers=job.spec.suite.workers, pin=cuda)
    with contextlib.closing(_finished(session.dataset, job, model, fed, overlap=cuda)) as finished:
        for done, (record, predictions) in enumerate(finished, before + 1):
            if record.error is not None and job.spec.suite.on_error == "stop":
                raise ImageError(record.error)
            store.append(record, predictions)
            session.tell(job.event("image", done, record.error or ""))


Finished = tuple[ImageRecord, list[JsonObject]]


def _finished(
    dataset: Dataset, job: _Job, model: "LoadedModel", fed: "Iterator[Fed]", *, overlap: bool
) -> Generator[Finished, None, None]:
    """Predictions in order. overlap: post-process and encode one image on a second thread while the device works on the next,
    so that the device does not wait for the encoding; at most these two images are unfinished."""
    from m2fbench.models.load import timed_forward

    if not overlap:
        for item in fed:
            yield _post_process(dataset, job, item, timed_forward(model, item.data))
        return
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Finished] | None = None
        for item in fed:
            output = timed_forward(model, item.data)
            if pending is not None:
                yield pending.result()
            pending = pool.submit(_post_process, dataset, job, item, output)
        if pending is not None:
            yield pending.result()


def _post_process(dataset: Dataset, job: _Job, item: "Fed", output: "ForwardOutput | None") -> Finished:
    """One image's predictions under the dataset's ids; none where it could not be read."""
    example, seconds = item.example, {"load": item.load_seconds, "wait": item.wait_seconds}
    predictions: list[JsonObject] = []
    error = str(item.data) if isinstance(item.data, ImageError) else None
    if output is not None and not isinstance(item.data, ImageError):
        seconds["forward"] = output.seconds()
        started = time.perf_counter()
        found = job.protocol.instances(output.class_logits, output.mask_logits, item.data.geometry)
        categories = np.array(job.classes.to_dataset, np.int64)[found.categories]
        predictions = to_results(example.image_id, replace(found, categories=categories), dataset.category_ids)
        seconds["postprocess"] = time.perf_counter() - started
    record = ImageRecord(example.image_id, *example.size, len(predictions), dataset.stamp(example), seconds, error)
    return record, predictions


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
