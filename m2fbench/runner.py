"""Running a suite: predict what is missing, then score."""

import contextlib
import datetime
import logging
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from m2fbench.environment import IDENTITY_LIBRARIES, describe_environment, version_of
from m2fbench.errors import DatasetError, ImageError, SuiteError
from m2fbench.formats.coco_results import to_results
from m2fbench.registry import near
from m2fbench.results import RunResult, Status, compare
from m2fbench.scoring import evaluate, metric_versions, open_dataset
from m2fbench.store import ImageRecord, RunDirectory, key_of
from m2fbench.suite import Row, RunSpec, Suite, load_suite
from m2fbench.types import Dataset, Example, ImageId, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint
    from m2fbench.models.feed import Fed
    from m2fbench.models.load import ForwardOutput, LoadedModel, Loader
    from m2fbench.models.protocols import Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Event:
    """What a run tells its caller as it goes: ``kind`` is "start", "load", "image", "score" or "done"."""

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

    suite: loaded, or the path or name of one. checkpoints: hub ids, folders or ``bundled:NAME`` in place of the suite's; only:
    names of rows. data: the dataset's folder. limit: so many images. device: "auto", "cpu" or "cuda". overrides:
    ``dotted.key=value``. output: the folder of run directories. fresh: discard earlier predictions. verify: re-score with the
    official evaluator; VerificationError on a difference above 1e-9 percent points. loader: makes the model (for tests).

    Raises M2FBenchError subclasses for what the caller can mend; whatever was finished by then is kept.
    """
    from m2fbench.models.load import choose_device, load

    loaded_suite = suite if isinstance(suite, Suite) else load_suite(suite, overrides)
    if isinstance(suite, Suite) and overrides:
        raise SuiteError("overrides: expected a suite by path or name, got a loaded one; pass them to load_suite")
    if limit is not None and limit < 1:
        raise SuiteError(f"limit: expected at least 1 image, got {limit}")
    specs = plan(loaded_suite, checkpoints, only)
    chosen = choose_device(device)
    dataset = open_dataset(loaded_suite, data)
    tell = listener or (lambda event: None)
    return [_run_one(s, dataset, limit, chosen, Path(output), fresh, verify, tell, loader or load) for s in specs]


def plan(suite: Suite, checkpoints: Sequence[str] = (), only: Sequence[str] = ()) -> list[RunSpec]:
    """The runs of a suite. With ``checkpoints`` these replace its rows; published values stay with an id and revision that match."""
    rows = list(suite.checkpoints)
    if checkpoints:
        rows = _rows_for(rows, checkpoints)
    names = [row.name for row in rows]
    for name in only:
        if name not in names:
            raise SuiteError(f"--only {name}: expected one of {', '.join(names)}{near(name, names)}")
    kept = [row for row in rows if not only or row.name in only]
    return [RunSpec(suite, row, variant) for row in kept for variant in suite.variants]


def _rows_for(rows: Sequence[Row], references: Sequence[str]) -> list[Row]:
    known = {row.checkpoint: row for row in rows if row.checkpoint}
    chosen: list[Row] = []
    for reference in references:
        if reference in known:
            chosen.append(known[reference])
            continue
        base = (
            "".join(c if c.isalnum() or c in "._-" else "-" for c in reference.rstrip("/").split("/")[-1]).strip(".-")
            or "checkpoint"
        )
        taken = {row.name for row in (*rows, *chosen)}
        name = next(n for k in range(1, len(taken) + 2) if (n := base[:70] if k == 1 else f"{base[:70]}-{k}") not in taken)
        chosen.append(Row(name=name, checkpoint=reference))
    return chosen


def _run_one(
    spec: RunSpec, dataset: Dataset, limit: int | None, device: str, output: Path, fresh: bool, verify: bool, tell: Listener,
    loader: "Loader",
) -> RunResult:  # fmt: skip
    from m2fbench.models.checkpoint import resolve
    from m2fbench.models.classes import match_classes
    from m2fbench.models.load import describe_device
    from m2fbench.models.protocols import build_protocol

    suite_facts = {"name": spec.suite.suite, "title": spec.suite.title, "sha256": spec.suite.hash}
    variant = spec.variant.model_dump()
    if spec.row.checkpoint is None:
        reason = spec.row.unavailable
        comparisons = compare((), spec.published, comparable=False, tolerance={})
        return RunResult(
            suite_facts, spec.row.name, variant, "unavailable", reason, published=spec.published, comparisons=comparisons
        )
    started = _now()
    tell(Event("start", spec.row.name, spec.variant.name, message=f"checkpoint {spec.row.checkpoint}"))
    checkpoint = resolve(spec.row.checkpoint)
    classes = match_classes(checkpoint.labels, dataset.categories)
    protocol = build_protocol(spec.protocol, checkpoint.folder, classes)
    machine = describe_device(device)
    identity: JsonObject = {
        "checkpoint_sha256": checkpoint.sha256,
        "dataset": dataset.fingerprint(),
        "task": spec.suite.task,
        "protocol": protocol.description,
        "classes": list(classes.to_dataset),
        "variant": {k: v for k, v in variant.items() if k not in ("name", "protocol")},
        "device": machine["kind"],
        "libraries": {name: version_of(name) for name in IDENTITY_LIBRARIES},
    }
    examples = list(dataset.examples()[:limit])
    _check_images(spec.suite, dataset, identity["dataset"])
    folder = output / spec.suite.suite / spec.row.name / spec.variant.name
    with RunDirectory(folder, identity, fresh=fresh) as store:
        job = _Job(spec, dataset, checkpoint, protocol, classes.to_dataset, device, loader)
        _predict(job, store, examples, tell)
        tell(Event("score", spec.row.name, spec.variant.name, len(examples), len(examples)))
        order = [e.image_id for e in dataset.examples()]
        store.export(order)
        scored = [e.image_id for e in examples if store.records[e.image_id].error is None]
        evaluation = evaluate(spec.suite, dataset, store.predictions, scored, verify=verify)
        store.write_table(order)
        skipped = tuple(
            {"image_id": e.image_id, "error": store.records[e.image_id].error}
            for e in examples
            if store.records[e.image_id].error is not None
        )
        complete = not skipped and len(examples) == len(dataset.examples())
        status: Status = "complete" if complete else "partial"
        comparable = complete and spec.protocol == spec.suite.protocol
        tolerance = spec.suite.tolerance if spec.checks_tolerance else {}
        result = RunResult(
            suite=suite_facts,
            row=spec.row.name,
            variant=variant,
            status=status,
            reason=None if complete else f"{len(scored)} of {len(dataset.examples())} images",
            checkpoint=_describe_checkpoint(checkpoint) | store.model,
            dataset=identity["dataset"] | {"scored_images": len(scored)},
            protocol=protocol.description,
            device=machine,
            environment=describe_environment(),
            prediction_key=key_of(identity),
            result_key=key_of({"predictions": identity, "limit": limit, "metrics": metric_versions(spec.suite)}),
            limit=limit,
            started=started,
            finished=_now(),
            timings=_timings(store, scored),
            measurements=evaluation.measurements,
            published=spec.published,
            comparisons=compare(evaluation.measurements, spec.published, comparable=comparable, tolerance=tolerance),
            skipped=skipped,
            warnings=classes.warnings,
            verified=evaluation.verified,
        )
        path = store.write_result(result.to_json(), limit)
    tell(Event("done", spec.row.name, spec.variant.name, message=str(path)))
    return replace(result, path=path)


def _check_images(suite: Suite, dataset: Dataset, fingerprint: JsonObject) -> None:
    """Find missing image files before hours of work, not after; ``on_error: skip`` counts them one by one instead."""
    missing = fingerprint["missing_images"]
    if missing and suite.on_error == "stop":
        for example in dataset.examples():
            if not Path(example.source).is_file():
                raise DatasetError(
                    f"{missing} of {fingerprint['images']} images are missing, the first is {example.source}; complete the dataset "
                    f"({dataset.needs_data}), or set 'on_error: skip'"
                )


@dataclass(frozen=True)
class _Job:
    spec: RunSpec
    dataset: Dataset
    checkpoint: "Checkpoint"
    protocol: "Protocol"
    to_dataset: tuple[int, ...]
    device: str
    loader: "Loader"


def _predict(job: _Job, store: RunDirectory, examples: Sequence[Example], tell: Listener) -> None:
    """Predict the examples that the store lacks; the model is loaded only where there are any."""
    from m2fbench.models.feed import feed

    store.forget_errors()
    todo = [e for e in examples if e.image_id not in store.records]
    row, variant, total = job.spec.row.name, job.spec.variant.name, len(examples)
    if not todo:
        return
    tell(Event("load", row, variant, message=f"loading {job.checkpoint.folder}"))
    model = job.loader(job.checkpoint, job.spec.variant, job.device)
    store.write_model({"parameters": model.parameters, "settings": model.settings})
    tell(Event("image", row, variant, total - len(todo), total))
    cuda = model.device.type == "cuda"
    fed = feed(todo, job.dataset.image, job.protocol.prepare, workers=job.spec.suite.workers, pin=cuda)
    with contextlib.closing(_finished(job, model, fed, overlap=cuda)) as finished:
        for done, (example, record, predictions) in enumerate(finished, total - len(todo) + 1):
            if record.error is not None and job.spec.suite.on_error == "stop":
                raise ImageError(record.error)
            store.append(record, predictions)
            tell(Event("image", row, variant, done, total, message=record.error or ""))
            log.debug("%s done", example.source)


Finished = tuple[Example, ImageRecord, list[JsonObject]]


def _finished(job: _Job, model: "LoadedModel", fed: "Iterator[Fed]", *, overlap: bool) -> Generator[Finished, None, None]:
    """Predictions in order. overlap: post-process and encode one image on a second thread while the device works on the next,
    so that the device does not wait for the encoding; at most these two images are unfinished."""
    from m2fbench.models.load import timed_forward

    if not overlap:
        for item in fed:
            yield _post_process(job, item, timed_forward(model, item.data))
        return
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Finished] | None = None
        for item in fed:
            output = timed_forward(model, item.data)
            if pending is not None:
                yield pending.result()
            pending = pool.submit(_post_process, job, item, output)
        if pending is not None:
            yield pending.result()


def _post_process(job: _Job, item: "Fed", output: "ForwardOutput | None") -> Finished:
    """One image's predictions under the dataset's ids; none where it could not be read."""
    example, seconds = item.example, {"load": item.load_seconds, "wait": item.wait_seconds}
    if isinstance(item.data, ImageError) or output is None:
        return example, ImageRecord(example.image_id, *example.size, 0, seconds, str(item.data)), []
    seconds["forward"] = output.seconds()
    started = time.perf_counter()
    found = job.protocol.instances(output.class_logits, output.mask_logits, item.data.geometry)
    categories = np.array(job.to_dataset, np.int64)[found.categories]
    predictions = to_results(example.image_id, replace(found, categories=categories), job.dataset.category_ids)
    seconds["postprocess"] = time.perf_counter() - started
    return example, ImageRecord(example.image_id, *example.size, len(predictions), seconds), predictions


def _describe_checkpoint(checkpoint: "Checkpoint") -> JsonObject:
    facts = asdict(checkpoint)
    del facts["folder"], facts["labels"]
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
