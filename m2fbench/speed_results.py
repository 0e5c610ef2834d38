"""From times to results: figures, the table of images, and what stands beside them."""

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.facts import Planned, facts, not_run, now, unavailable
from m2fbench.planning import Session
from m2fbench.predicting import fallback_notes
from m2fbench.results import RunResult, compare
from m2fbench.scoring import Evaluation, evaluate
from m2fbench.sections import Row, Scope
from m2fbench.speed import Measured, SpeedRequest, Subject, TimedImage, measure_row, scratch_folder
from m2fbench.suite import snapshot
from m2fbench.types import ImageId, JsonObject, Measurement, Published
from m2fbench.writing import make_folder, write_atomically

if TYPE_CHECKING:
    from m2fbench.profiling.latency import Interval, Latency

_INSIDE = (
    "copy to the device, model and post-processing up to results on the device, which is synchronised before and after; outside are decoding, "
    "resizing and encoding"
)
DEFINITIONS: dict[Scope, str] = {
    "paper": f"batch of one, all the heads listed, the first 5 images not counted; timed are {_INSIDE}. As the paper's fps "
    "(detectron2's evaluator), but for normalising and padding, which that has inside",
    "task": f"batch of one, the task's own head, every input shape run once untimed first; timed are {_INSIDE}",
}


def speed_of_row(session: Session, planned: Sequence[Planned], request: SpeedRequest) -> list[RunResult]:
    """Measure one row's variants side by side; a result for each, stored in its run directory."""
    known = {one.spec.variant.name: one.result or unavailable(one.spec) for one in planned if one.job is None}
    jobs = [one.job for one in planned if one.job is not None]
    if jobs:
        started = now()
        with scratch_folder(session.output / jobs[0].spec.suite.suite / jobs[0].spec.row.name) as scratch:
            measured = measure_row(session, jobs, request, scratch)
            for subject in measured.subjects:  # before scoring, which may take long, and be interrupted
                write_images(_path(session, subject, "csv"), measured, subject)
            done = _done_by_all(measured)
            for subject in measured.subjects:
                session.tell(subject.job.event("score", len(done)))
                known[subject.name] = _speed_result(session, measured, subject, done, started)
        for job in jobs:
            if (reason := measured.unsupported.get(job.spec.variant.name)) is not None:
                known[job.spec.variant.name] = not_run(job.spec, "unsupported", reason)
    return [replace(known[one.spec.variant.name], kind="speed") for one in planned]


def _path(session: Session, subject: Subject, suffix: str) -> Path:
    spec = subject.job.spec
    folder = session.output / spec.suite.suite / spec.row.name / spec.variant.name
    make_folder(folder)
    return folder / f"speed{'' if session.limit is None else f'-limit-{session.limit}'}.{suffix}"


def _done_by_all(measured: Measured) -> list[ImageId]:
    """The images that every variant has predictions of, over which all are scored."""
    done = [{i for i, record in s.store.records.items() if record.error is None} for s in measured.subjects]
    common = set.intersection(*done) if done else set()
    return [image_id for image_id in (measured.subjects[0].store.records if done else ()) if image_id in common]


def _speed_result(session: Session, measured: Measured, subject: Subject, done: Sequence[ImageId], started: str) -> RunResult:
    job, store = subject.job, subject.store
    evaluation = Evaluation((), None, ("no image that every variant could do",))
    if done:
        evaluation = evaluate(job.spec.suite, session.dataset, store.predictions, done, verify=session.verify)
    known, total = facts(session, job), len(session.dataset.examples())
    published = (*known.published, *_published_fps(measured, job.spec.row))
    measurements = (*figures(measured, subject), *evaluation.measurements)
    skipped = tuple({"image_id": r.image_id, "error": r.error} for r in store.records.values() if r.error is not None)
    lost = len(store.records) - len(skipped) - len(done)
    left_out = (f"{lost} images that another variant could not do are left out of the accuracy of all",) if lost else ()
    result = replace(
        known,
        kind="speed",
        details=details(measured, subject),
        status="complete" if len(done) == total else "partial",
        reason=known.departure if len(done) == total else f"{len(done)} of {total} images",
        checkpoint=(known.checkpoint or {}) | {"parameters": subject.model.parameters, "settings": subject.model.settings},
        dataset=(known.dataset or {}) | {"scored_images": len(done)},
        started=started,
        finished=now(),
        measurements=measurements,
        published=published,
        comparisons=compare(measurements, published, comparable=False, tolerance={}),
        skipped=skipped,
        warnings=(
            *known.warnings, *fallback_notes(store.records.values()), *left_out, *measured.notes, *evaluation.warnings,
        ),
        verified=evaluation.verified,
    )  # fmt: skip
    path = _path(session, subject, "json")
    if not (kept := path.with_name("suite.json")).is_file():  # that of an accuracy run is what its predictions belong to
        write_atomically(kept, json.dumps(snapshot(job.spec.suite, session.data), indent=1) + "\n")
    write_atomically(path, json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return replace(result, path=path)


def _published_fps(measured: Measured, row: Row) -> Iterator[Published]:
    """Only scope ``paper`` is what the paper's fps is."""
    costs = row.published_costs
    if costs is not None and costs.fps is not None and "paper" in measured.scopes:
        yield Published("fps", costs.fps, f"{row.source}, on {costs.fps_device}" if costs.fps_device else row.source)


def figures(measured: Measured, subject: Subject) -> Iterator[Measurement]:
    """Every figure of one variant; those of scope ``task`` end with ``_task``. Seconds, bytes, joules; NaN where there is nothing to measure.

    Device memory: the weights and what the largest image took besides; host memory: of the whole process, all variants loaded.
    """
    for scope in measured.scopes:
        yield from _scope_figures(measured, subject, scope)
    device, host = _memory(subject, "device_growth_bytes"), _memory(subject, "host_bytes")
    yield Measurement("peak_device_memory", device + subject.weight_bytes, "bytes", higher_is_better=False)
    yield Measurement("peak_process_memory", host, "bytes", higher_is_better=False)
    yield Measurement("weight_memory", subject.weight_bytes, "bytes", higher_is_better=False)
    if subject.energy is not None:
        used, emitted = subject.energy["energy"] or {}, subject.energy["emissions"] or {}
        yield Measurement("energy", _or_nan(used.get("joules_per_image")), "J/image", False, subset=used.get("label"))
        yield Measurement("CO2e", _or_nan(emitted.get("grams_per_image")), "g/image", False, subset=emitted.get("label"))
    yield Measurement("parameters", subject.model.parameters, "count", higher_is_better=False)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _memory(subject: Subject, name: str) -> float:
    """The largest of the images' peaks; NaN where it could not be read."""
    values = [getattr(peak, name) for peak in subject.peaks]
    return max((value for value in values if value is not None), default=math.nan)


def _scope_figures(measured: Measured, subject: Subject, scope: Scope) -> Iterator[Measurement]:
    end = "" if scope == "paper" else f"_{scope}"
    images = subject.counted(scope)
    if not images:
        yield Measurement(f"fps{end}", math.nan, "images/s")
        return
    times = latency_of(images)
    yield Measurement(f"fps{end}", times.fps.value, "images/s")
    yield Measurement(f"fps{end}_low", times.fps.low, "images/s")
    yield Measurement(f"fps{end}_high", times.fps.high, "images/s")
    yield Measurement(f"latency{end}", times.mean.value, "s", higher_is_better=False)
    for percentile, value in times.percentiles.items():
        yield Measurement(f"latency{end}_p{percentile}", value, "s", higher_is_better=False)
    for stage, seconds in stage_means(images).items():
        yield Measurement(f"time{end}", seconds, "s", higher_is_better=False, subset=stage)
    ratio = faster(measured.subjects[0], subject, scope)
    if ratio is not None:
        for name, value in (("", ratio.value), ("_low", ratio.low), ("_high", ratio.high)):
            yield Measurement(f"speed_up{end}{name}", value, "x")


def latency_of(images: Sequence[TimedImage]) -> "Latency":
    from m2fbench.profiling.latency import latency

    return latency([image.seconds for image in images])


def stage_means(images: Sequence[TimedImage]) -> dict[str, float]:
    """Seconds an image of each stage, over the images in which it was timed."""
    stages = dict.fromkeys(stage for image in images for stage in image.stages)
    values = {stage: [image.stages[stage] for image in images if stage in image.stages] for stage in stages}
    return {stage: sum(seconds) / len(seconds) for stage, seconds in values.items()}


def faster(reference: Subject, subject: Subject, scope: Scope) -> "Interval | None":
    """How many times faster than the reference, over the images that both have; None for the reference itself, and without such images."""
    from m2fbench.profiling.latency import speed_up

    before = {image.example.image_id: image.seconds for image in reference.counted(scope)}
    both = [image for image in subject.counted(scope) if image.example.image_id in before]
    if reference is subject or not both:
        return None
    return speed_up([before[image.example.image_id] for image in both], [image.seconds for image in both])


def details(measured: Measured, subject: Subject) -> JsonObject:
    """All that stands behind the figures, JSON values only."""
    scopes: JsonObject = {}
    for scope in measured.scopes:
        images = subject.counted(scope)
        failed = [i for i in subject.timed.get(scope, []) if i.failure is not None]
        scopes[scope] = {
            "definition": DEFINITIONS[scope],
            "heads": list(subject.job.spec.suite.timed_heads[scope]),
            "images": len(images),
            "first_of_shape": sum(i.first for i in images),
            "not_counted": sum(not i.counted and i.failure is None for i in subject.timed.get(scope, [])),
            "failed": [{"image_id": i.example.image_id, "error": i.failure} for i in failed],
            "latency": _jsonable(asdict(latency_of(images))) if images else None,
            "stages": stage_means(images),
            "speed_up": None if (ratio := faster(measured.subjects[0], subject, scope)) is None else _jsonable(asdict(ratio)),
        }
    notes = list(dict.fromkeys(note for peak in subject.peaks for note in peak.notes))
    memory = (
        "device_bytes",
        "device_growth_bytes",
        "device_reserved_bytes",
        "device_used_bytes",
        "host_bytes",
        "host_growth_bytes",
    )
    return {
        "scopes": scopes,
        "beside": [s.name for s in measured.subjects if s is not subject],
        "reference": measured.subjects[0].name,
        "memory": {
            "weight_bytes": subject.weight_bytes,
            **{n: None if math.isnan(v := _memory(subject, n)) else v for n in memory},
            "notes": notes,
        },
        "machine": measured.machine,
        **({} if subject.energy is None else _jsonable(subject.energy)),
    }


def _jsonable(value: JsonObject) -> JsonObject:
    """Without numbers that JSON has not, keys as text."""
    text = json.dumps(value, default=str)
    found: JsonObject = json.loads(text, parse_constant=lambda _: None)
    return found


def write_images(path: Path, measured: Measured, subject: Subject) -> None:
    """The table of images: one line an image and scope, seconds by stage."""
    stages = list(dict.fromkeys(s for images in subject.timed.values() for image in images for s in image.stages))
    buffer = io.StringIO()
    table = csv.writer(buffer, lineterminator="\n")
    table.writerow(
        [
            "image_id",
            "height",
            "width",
            "input_height",
            "input_width",
            "scope",
            "counted",
            "first_of_shape",
            "seconds",
            *stages,
            "failure",
        ]
    )
    for scope in measured.scopes:
        for image in subject.timed.get(scope, []):
            cells = (f"{image.stages[s]:.6f}" if s in image.stages else "" for s in stages)
            table.writerow([
                image.example.image_id, *image.example.size, *image.shape, scope, int(image.counted), int(image.first), f"{image.seconds:.6f}",
                *cells, image.failure or "",
            ])  # fmt: skip
    write_atomically(path, buffer.getvalue())
