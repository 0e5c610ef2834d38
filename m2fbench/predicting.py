"""Predicting what a run directory lacks: images in, predictions in the official formats out."""

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from m2fbench.errors import ImageError
from m2fbench.formats.coco_results import to_results
from m2fbench.formats.label_png import encode_labels
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import encode_ids, to_annotation
from m2fbench.planning import Job, Session
from m2fbench.store import ImagePredictions, ImageRecord, RunDirectory
from m2fbench.types import Dataset, Example, ImageId, InstanceSet, JsonObject, LabelMap, PanopticMap

if TYPE_CHECKING:
    from m2fbench.models.classes import ClassMap
    from m2fbench.models.feed import Fed
    from m2fbench.models.load import ForwardOutput, LoadedModel
    from m2fbench.models.preprocess import ModelInput
    from m2fbench.models.protocols import Inference

    Input = Fed[tuple[ModelInput, ...]]

Finished = tuple[ImageRecord, ImagePredictions]


def predict(session: Session, job: Job, store: RunDirectory) -> None:
    """Predict the examples that the store lacks; the model is loaded only where there are any."""
    from m2fbench.models.feed import feed

    store.forget_errors(e.image_id for e in job.examples)
    todo = [e for e in job.examples if e.image_id not in store.records]
    if not todo:
        return
    session.tell(job.event("load", message=f"loading {job.checkpoint.location}"))
    model = session.loader(job.checkpoint, job.spec.variant, session.device)
    store.write_model({"parameters": model.parameters, "settings": model.settings})
    before = len(job.examples) - len(todo)
    session.tell(job.event("image", before))
    cuda = model.device.type == "cuda"
    fed = feed(todo, session.dataset.image, job.protocol.prepare, workers=job.spec.suite.workers)
    ready: Iterator[Input] = fed if not cuda else (_pinned(item) for item in fed)
    with contextlib.closing(fed), contextlib.closing(_finished(session.dataset, job, model, ready, overlap=cuda)) as finished:
        for done, (record, predictions) in enumerate(finished, before + 1):
            if record.error is not None and job.spec.suite.on_error == "stop":
                raise ImageError(record.error)
            store.append(record, predictions)
            session.tell(job.event("image", done, record.error or ""))


def _finished(
    dataset: Dataset, job: Job, model: "LoadedModel", fed: "Iterator[Input]", *, overlap: bool
) -> Generator[Finished, None, None]:
    """Predictions in order. overlap: post-process and encode one image on a second thread while the device works on the next,
    so that the device does not wait for the encoding; at most these two images are unfinished."""
    if not overlap:
        for item in fed:
            yield _post_process(dataset, job, item, _forward(model, item))
        return
    with ThreadPoolExecutor(1) as pool:
        pending: Future[Finished] | None = None
        for item in fed:
            output = _forward(model, item, pending.result if pending is not None else _nothing)
            if pending is not None:
                yield pending.result()
            pending = pool.submit(_post_process, dataset, job, item, output)
        if pending is not None:
            yield pending.result()


def _pinned(item: "Input") -> "Input":
    from m2fbench.models.feed import pinned

    return item if isinstance(item.data, ImageError) else replace(item, data=pinned(item.data))


def _nothing() -> None: ...


def _forward(model: "LoadedModel", item: "Input", settle: Callable[[], object] = _nothing) -> "ForwardOutput | ImageError":
    """The model's logits, or why there are none. settle: waits for what holds the device's memory besides."""
    from m2fbench.models.load import timed_forward

    if isinstance(item.data, ImageError):
        return item.data
    try:
        return timed_forward(model, item.data, settle)
    except ImageError as error:
        return ImageError(f"{item.example.source}: {error}")


def _post_process(dataset: Dataset, job: Job, item: "Input", output: "ForwardOutput | ImageError") -> Finished:
    """One image's predictions under the dataset's ids; none where it could not be read, or the memory did not do."""
    from m2fbench.models.memory import post_process

    example, seconds = item.example, {"load": item.load_seconds, "wait": item.wait_seconds}
    stamp = dataset.stamp(example)

    def left_out(error: str) -> Finished:
        return ImageRecord(example.image_id, *example.size, 0, stamp, seconds, error), ImagePredictions()

    if isinstance(output, ImageError):
        return left_out(str(output))
    seconds["forward"] = output.seconds()
    started = time.perf_counter()
    try:
        with output.switched():
            found, notes = post_process(job.protocol.infer, output.views)
    except ImageError as error:
        return left_out(f"{example.source}: {error}")
    seconds["postprocess"] = time.perf_counter() - started
    started = time.perf_counter()
    predictions = encoded(dataset, example, found, job.classes)
    seconds["encode"] = time.perf_counter() - started
    record = ImageRecord(example.image_id, *example.size, _count(predictions), stamp, seconds, fallbacks=(*output.notes, *notes))
    return record, predictions


def encoded(dataset: Dataset, example: Example, found: "Inference", classes: "ClassMap") -> ImagePredictions:
    """Predictions under the checkpoint's class indices, as they are stored: under the dataset's ids, maps as PNGs."""
    to_dataset = np.array(classes.to_dataset, np.int64)
    return ImagePredictions(
        instances=None if found.instances is None else _instances(example, found.instances, to_dataset, dataset),
        panoptic=None if found.panoptic is None else _panoptic(example, found.panoptic, to_dataset, dataset),
        semantic=None if found.semantic is None else _semantic(found.semantic, to_dataset, dataset),
    )


def fallback_notes(records: Iterable[ImageRecord]) -> tuple[str, ...]:
    """What the records of finished images say of fallbacks, a line for each kind."""
    met: dict[str, list[ImageId]] = {}
    for record in records:
        for fallback in record.fallbacks:
            met.setdefault(fallback, []).append(record.image_id)
    return tuple(f"{what}: {len(ids)} image{'s'[: len(ids) > 1]}, the first is {ids[0]}" for what, ids in met.items())


def _count(predictions: ImagePredictions) -> int:
    """Of the per-image table: instances, or else segments, or one semantic map."""
    if predictions.instances is not None:
        return len(predictions.instances)
    return len(predictions.panoptic[0]["segments_info"]) if predictions.panoptic is not None else 1


Indices = np.ndarray[tuple[int, ...], np.dtype[np.int64]]
"""For each class of the checkpoint the dataset's category index, or -1."""


def _instances(example: Example, found: InstanceSet, to_dataset: Indices, dataset: Dataset) -> list[JsonObject]:
    return to_results(example.image_id, replace(found, categories=to_dataset[found.categories]), dataset.category_ids)


def _panoptic(example: Example, found: PanopticMap, to_dataset: Indices, dataset: Dataset) -> tuple[JsonObject, bytes]:
    """Entry and PNG; segments of classes that the dataset has not are void."""
    known = tuple(replace(s, category=int(to_dataset[s.category])) for s in found.segments if to_dataset[s.category] >= 0)
    ids = found.ids
    if len(known) < len(found.segments):
        ids = np.where(np.isin(ids, [s.id for s in known]), ids, 0).astype(np.int32)
    kept = PanopticMap(ids, known)
    name = f"{file_stem(example.image_id)}.png"
    return to_annotation(example.image_id, name, kept, dataset.category_ids), encode_ids(ids)


def _semantic(found: LabelMap, to_dataset: Indices, dataset: Dataset) -> bytes:
    """Label PNG in the dataset's values; pixels of classes that the dataset has not get a value that no class has."""
    none = _unused(dataset.label_values)
    values = np.array([*dataset.label_values, none])  # the last is that of index -1
    table: LabelMap = values[to_dataset].astype(np.uint8 if values.max() <= 255 else np.uint16)
    return encode_labels(table[found])


def _unused(values: tuple[int, ...]) -> int:
    """0 where no class has it, as in ADE20K and Cityscapes; else what every reader of label PNGs takes for none."""
    if 0 not in values:
        return 0
    return 255 if max(values) < 255 else 65535


def category_records(dataset: Dataset) -> list[JsonObject]:
    """The classes as COCO panoptic files list them."""
    pairs = zip(dataset.category_ids, dataset.categories, strict=True)
    return [{"id": number, "name": c.name, "isthing": int(c.is_thing)} for number, c in pairs]
