"""``m2fbench examine``: a finished run opened again, and its model looked at layer by layer.

One forward pass an image gives what every decoder layer predicts. Each layer's predictions are made by the run's own protocol, written in the
official formats, and scored by the suite's metrics; the last layer's figures must be those of the run.
"""

import contextlib
import json
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.analysis.image_evidence import find_example
from m2fbench.analysis.layer_examples import pack_example
from m2fbench.analysis.layers import FILE, Examination, LayerFinding, figures_of, read_examination, write_examination
from m2fbench.analysis.runs import Evidence, Run, one_run_folder, open_runs
from m2fbench.environment import IDENTITY_LIBRARIES, describe_environment, version_of
from m2fbench.errors import ImageError, M2FBenchError, StoreError, SuiteError, UnsupportedError
from m2fbench.facts import now
from m2fbench.flops import FlopsRequest, flops_by_layer
from m2fbench.planning import Job, Listener, Session, prepare
from m2fbench.predicting import category_records, encoded
from m2fbench.scoring import evaluate
from m2fbench.sections import Row
from m2fbench.store import ImageRecord, RunDirectory, differences, key_of, read_identity
from m2fbench.suite import RunSpec, Suite
from m2fbench.types import Dataset, Example, ImageId, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.examine import Layers
    from m2fbench.models.layer_maps import LayerCounts
    from m2fbench.models.load import LoadedModel, Loader
    from m2fbench.models.preprocess import ModelInput

EXAMPLES = 4  # images whose masks and attention are kept
LIMIT = 200  # images that the figures are over
QUERIES = 4  # of an example: those of the highest scores
SAME = ("checkpoint_sha256", "task", "heads", "protocol", "classes", "variant")  # of a run's identity, which must not have changed


def examine(
    run: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    examples: int = EXAMPLES,
    image_ids: Sequence[str] = (),
    limit: int = LIMIT,
    replace_fuller: bool = False,
    listener: Listener | None = None,
    loader: "Loader | None" = None,
) -> Examination:
    """Examine the model of the one run in the folder ``run`` and store what is found there: ``examination.json``, and examples beside it, in
    place of an earlier examination.

    data: the dataset's folder, in place of the run's. examples: keep the first so many images; image_ids: keep these instead. limit: score
    each layer over the first so many images of the run. replace_fuller: also in place of an examination over more images. loader: makes the
    model (for tests). Raises M2FBenchError: not a finished run, another checkpoint or protocol than the run's, a model without
    masked-attention layers, or an examination over more images that is not to be replaced.
    """
    from m2fbench.models.examine import refuse_other
    from m2fbench.models.load import choose_device, load

    if limit < 1 or examples < 0:
        raise SuiteError(
            f"examine: expected a limit of at least 1 image and no negative number of examples, got {limit} and {examples}"
        )
    opened, evidence = _finished(run, data)
    scored = evidence.examples[:limit]
    kept = tuple(dict.fromkeys(find_example(evidence, wanted) for wanted in image_ids)) or evidence.examples[:examples]
    if not replace_fuller:
        _refuse_fewer(opened, len(scored))
    tell = listener or (lambda event: None)
    identity = read_identity(opened.folder)
    session = Session(
        evidence.dataset, tuple(identity["heads"]), None, choose_device(device), opened.folder, False, False, True, tell, loader or load,
        evidence.data,
    )  # fmt: skip
    job = _same_job(opened, session, identity, evidence.suite)
    job = replace(job, examples=(*scored, *(e for e in kept if e not in scored)))
    tell(job.event("load", message=f"loading {job.checkpoint.location}"))
    model = session.loader(job.checkpoint, job.spec.variant, session.device)
    refuse_other(model)
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as scratch:
        found = _look(session, job, model, {e.image_id for e in scored}, {e.image_id for e in kept}, Path(scratch))
    costs, notes = _costs(session, job)
    layers = _findings(found, costs)
    ids = [e.image_id for e in scored]
    own = figures_of(evaluate(evidence.suite, evidence.dataset, evidence.predictions, ids, verify=False).measurements)
    difference, departures = _compared(layers[-1].figures, own)
    examination = Examination(
        suite=evidence.suite.suite,
        row=job.spec.row.name,
        variant=job.spec.variant.name,
        predictions=key_of(identity),
        images=len(scored),
        run_images=len(evidence.examples),
        layers=layers,
        examples=(),
        own=own,
        difference=difference,
        notes=(*departures, *_otherwise(identity, job), *notes),
        device=job.machine,
        environment=describe_environment(),
        finished=now(),
        folder=opened.folder,
    )
    stored = write_examination(examination, found.examples)
    tell(job.event("done", message=str(opened.folder / FILE)))
    return stored


def _finished(path: str | Path, data: str | Path | None) -> tuple[Run, Evidence]:
    (run,) = open_runs([one_run_folder(path)], data=data)
    if run.evidence is None:
        raise StoreError(f"{run.folder}: cannot be examined: {run.problem}")
    return run, run.evidence


def _refuse_fewer(run: Run, images: int) -> None:
    """Raises StoreError where an examination over more images is stored; one that cannot be read is no loss."""
    try:
        stored = read_examination(run.folder)
    except StoreError:
        return
    if stored is not None and stored.images > images:
        raise StoreError(
            f"{run.folder / FILE}: is over {stored.images} images, and would be replaced by one over {images}; give --limit {stored.images}, "
            f"or --replace"
        )


def _same_job(run: Run, session: Session, identity: JsonObject, suite: Suite) -> Job:
    """The run's job prepared once more. Raises StoreError where its predictions would not be made that way now."""
    result = run.result
    assert result is not None  # there is evidence
    variant = next(v for v in suite.variants if v.name == result.variant["name"])
    if variant.compile:
        raise UnsupportedError(f"{run.folder}: its model is compiled, and cannot be looked into; examine a run without 'compile'")
    reference = (result.checkpoint or {}).get("reference")
    row = next((r for r in suite.checkpoints if r.name == result.row), None) or Row(name=result.row, checkpoint=reference)
    job = prepare(session, RunSpec(suite, row, variant))
    assert job is not None  # a row that was run has a checkpoint
    made_with = {
        "checkpoint_sha256": job.checkpoint.sha256,
        "task": suite.task,
        "heads": list(session.heads),
        "protocol": job.protocol.description,
        "classes": list(job.classes.to_dataset),
        "variant": variant.identity,
    }
    before, after = {key: identity.get(key) for key in SAME}, json.loads(json.dumps(made_with))
    if changed := "; ".join(differences(before, after)):
        raise StoreError(
            f"{run.folder}: its predictions were made with another checkpoint or protocol than is there now ({changed}); "
            f"put that back, or run the suite again"
        )
    return job


def _otherwise(identity: JsonObject, job: Job) -> Iterator[str]:
    """What is not as it was when the run predicted, and may round otherwise."""
    libraries = {name: version_of(name) for name in IDENTITY_LIBRARIES}
    changed = list(differences(identity.get("libraries", {}), libraries))
    if identity.get("device", {}).get("kind") != job.machine["kind"]:
        changed.append(f"device: was {identity.get('device', {}).get('kind')}, is {job.machine['kind']}")
    if changed:
        yield f"examined in another environment than the run's: {'; '.join(changed)}"
    if job.spec.variant.tta:
        yield "changes, attention and FLOPs are those of the first look at each image, the figures of all looks together"


@dataclass(frozen=True)
class _Found:
    """counts: over all images scored. figures: of each layer. levels: the feature map of each layer. examples: (image id, .npz file)."""

    counts: "LayerCounts"
    figures: tuple[dict[str, float], ...]
    levels: tuple[int, ...]
    examples: tuple[tuple[ImageId, bytes], ...]


def _look(session: Session, job: Job, model: "LoadedModel", scored: set[ImageId], kept: set[ImageId], scratch: Path) -> _Found:
    """Every image of the job: its layers' predictions into run directories in ``scratch``, one a layer, and these scored."""
    from m2fbench.models.feed import feed
    from m2fbench.models.layer_maps import count_changes

    counts: LayerCounts | None = None
    examples: list[tuple[ImageId, bytes]] = []
    levels: tuple[int, ...] = ()
    stores: list[RunDirectory] = []
    session.tell(job.event("image"))
    fed = feed(job.examples, session.dataset.image, job.protocol.prepare, workers=job.spec.suite.workers)
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(fed))
        for done, item in enumerate(fed, 1):
            if isinstance(item.data, ImageError):
                raise item.data
            looks, image_id = item.data, item.example.image_id
            passes = [_examined(model, look, weights=image_id in kept and look is looks[0]) for look in looks]
            if image_id in kept:
                examples.append((image_id, _example(session.dataset, job, item.example, passes[0], looks[0])))
            if image_id in scored:
                levels = tuple(look.level for look in passes[0].attention)
                if not stores:
                    stores += [
                        stack.enter_context(RunDirectory(scratch / str(n), {"layer": n}, heads=session.heads))
                        for n in range(len(passes[0].class_logits))
                    ]
                _predict(session, job, model, item.example, list(zip(passes, looks, strict=True)), stores)
                changes = count_changes(passes[0], looks[0].geometry)
                counts = changes if counts is None else counts + changes
            session.tell(job.event("image", done))
        session.tell(job.event("score", len(scored), message="every layer"))
        order = [example.image_id for example in job.examples if example.image_id in scored]
        figures = tuple(_score(session, job, store, order) for store in stores)
    if counts is None:
        raise StoreError(f"{session.output}: holds no finished image to examine; finish the run first")
    return _Found(counts, figures, levels, tuple(examples))


def _examined(model: "LoadedModel", look: "ModelInput", *, weights: bool) -> "Layers":
    from m2fbench.models.examine import examine as examine_pass
    from m2fbench.models.memory import run_forward

    found, _ = run_forward(lambda: examine_pass(model, look.pixels, weights=weights), look.geometry.padded, lambda: None)
    return found


def _predict(
    session: Session,
    job: Job,
    model: "LoadedModel",
    example: Example,
    passes: "Sequence[tuple[Layers, ModelInput]]",
    stores: Sequence[RunDirectory],
) -> None:
    """The image's predictions of each layer, by the run's protocol."""
    from m2fbench.models.memory import post_process
    from m2fbench.models.semantic import View
    from m2fbench.models.variants import switched

    for number, store in enumerate(stores):
        views: list[View] = [
            View(layers.class_logits[number], layers.mask_logits[number], look.geometry, look.flipped) for layers, look in passes
        ]
        with switched(model.switches):
            found, _ = post_process(job.protocol.infer, views)
        record = ImageRecord(example.image_id, *example.size, 0, session.dataset.stamp(example), {})
        store.append(record, encoded(session.dataset, example, found, job.classes))


def _score(session: Session, job: Job, store: RunDirectory, order: Sequence[ImageId]) -> dict[str, float]:
    store.export(order, category_records(session.dataset))
    return figures_of(evaluate(job.spec.suite, session.dataset, store.predictions, order, verify=False).measurements)


def _example(dataset: Dataset, job: Job, example: Example, layers: "Layers", look: "ModelInput") -> bytes:
    from m2fbench.models.layer_maps import best_queries, maps_of

    things = job.spec.suite.task == "instance"
    classes = [index for index in job.classes.kept if not things or dataset.categories[job.classes.to_dataset[index]].is_thing]
    geometry = look.geometry
    facts: JsonObject = {
        "image_id": example.image_id,
        "size": list(geometry.original),
        "resized": list(geometry.resized),
        "padded": list(geometry.padded),
        "names": list(job.checkpoint.labels),
    }
    return pack_example(facts, maps_of(layers, geometry, best_queries(layers, classes, QUERIES)))


def _costs(session: Session, job: Job) -> tuple[list[float], tuple[str, ...]]:
    """FLOPs of stopping after each number of layers; none, and why, where they cannot be counted."""
    session.tell(job.event("count", message="counting FLOPs"))
    try:
        costs = flops_by_layer(job.spec.suite, job.spec.row, FlopsRequest(data=session.data))
    except M2FBenchError as error:
        return [], (f"FLOPs were not counted: {error}",)
    return [cost.flops for cost in costs], ()


def _findings(found: _Found, costs: Sequence[float]) -> tuple[LayerFinding, ...]:
    counts, layers = found.counts, []
    for number, figures in enumerate(found.figures):
        flops = costs[number] if number < len(costs) else math.nan
        whole = costs[len(found.figures) - 1] if len(costs) >= len(found.figures) else math.nan
        layer = LayerFinding(number, figures, flops=flops, saved=1 - flops / whole)
        if number:
            queries = counts.queries[number]
            iou, changed, everywhere, visible = (
                [_ratio(part, whole) for part, whole in zip(parts[number], of, strict=True)]
                for parts, of in (
                    (counts.overlap, counts.compared[number]),
                    (counts.changed, queries),
                    (counts.everywhere, queries),
                    (counts.visible, queries),
                )
            )
            layer = replace(
                layer, mask_iou_all=iou[0], mask_iou=iou[1], class_changed_all=changed[0], class_changed=changed[1],
                everywhere_all=everywhere[0], everywhere=everywhere[1], visible_all=visible[0], visible=visible[1],
                level=found.levels[number - 1],
            )  # fmt: skip
        layers.append(layer)
    return tuple(layers)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _compared(last: Mapping[str, float], own: Mapping[str, float]) -> tuple[float, tuple[str, ...]]:
    """The largest difference of two sets of figures, in percent points, and a note where they are not the same."""
    both = [name for name in own if not math.isnan(own[name]) and not math.isnan(last.get(name, math.nan))]
    difference = max((abs(own[name] - last[name]) for name in both), default=math.nan)
    undefined = sorted(
        name for name in {*own, *last} if math.isnan(own.get(name, math.nan)) != math.isnan(last.get(name, math.nan))
    )
    if difference > 0 or undefined:
        only = f"; {', '.join(undefined)} can be measured in one of them only" if undefined else ""
        return difference, (f"the last layer's figures differ from the run's own by up to {difference:.3g} points{only}",)
    return difference, ()
