"""``m2fbench flops``: parameters and FLOPs of checkpoints, over the images that the paper counts them over, beside its figures.

No weights are loaded and no arithmetic is done: the model's operators are recorded on the meta device once for every distinct input size, its
post-processing once for every distinct geometry, and the counts are averaged over the images.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2fbench.environment import version_of
from m2fbench.errors import CheckpointError, M2FBenchError, SuiteError
from m2fbench.flops_inputs import Inputs, Setting, setting_for, setting_of_row
from m2fbench.planning import check_names
from m2fbench.sections import PublishedCosts, Row
from m2fbench.suite import Suite, is_suite, load_suite
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from m2fbench.models.architecture import Architecture
    from m2fbench.models.preprocess import Geometry
    from m2fbench.profiling.flops import Count, MeanCount

Progress = Callable[[str, int, int], None]
"""(what is counted, input sizes done, input sizes in all), as it goes."""

LIBRARIES = ("m2fbench", "fvcore", "torch", "transformers")


@dataclass(frozen=True)
class ModelCost:
    """What one checkpoint costs. suite, row: where it stands; reference: as its checkpoint was given. inputs: over which it was counted;
    as_published: whether they are those of the published FLOPs. images: how many; sizes: how many distinct inputs they make.

    counts: by definition, empty where nothing was counted, and ``problem`` says why. parameters: by part. weight_bytes: of its files, None where none
    are at hand, and ``without_weights`` says why. published: the paper's figures, printed in ``source``.
    """

    row: str
    suite: str | None = None
    reference: str | None = None
    family: str | None = None
    backbone: str | None = None
    classes: int | None = None
    queries: int | None = None
    heads: tuple[str, ...] = ()
    inputs: str | None = None
    as_published: bool = False
    images: int = 0
    sizes: int = 0
    counts: Mapping[str, "MeanCount"] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    weight_bytes: int | None = None
    without_weights: str | None = None
    published: PublishedCosts | None = None
    source: str = ""
    problem: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def all_parameters(self) -> int | None:
        """None where nothing was counted."""
        return sum(self.parameters.values()) if self.parameters else None

    @property
    def flops_difference(self) -> float | None:
        """Of the count ``paper`` from the published FLOPs, in percent; None where one of them is not there, or of other inputs."""
        published = self.published.flops_G if self.published and self.as_published else None
        return 100 * (self.counts["paper"].mean / 1e9 / published - 1) if published and self.counts else None

    @property
    def parameters_difference(self) -> float | None:
        """From the published number, in percent."""
        published = self.published.params_M if self.published else None
        return 100 * (self.all_parameters / 1e6 / published - 1) if published and self.all_parameters else None

    def to_json(self) -> JsonObject:
        total = self.all_parameters
        return {
            "suite": self.suite,
            "row": self.row,
            "checkpoint": self.reference,
            "family": self.family,
            "backbone": self.backbone,
            "classes": self.classes,
            "queries": self.queries,
            "heads": list(self.heads),
            "inputs": self.inputs,
            "inputs_as_published": self.as_published,
            "images": self.images,
            "distinct_sizes": self.sizes,
            "counts": {name: count.to_json() for name, count in self.counts.items()},
            "parameters": total,
            "parameters_by_part": dict(self.parameters),
            "float32_bytes": 4 * total if total is not None else None,
            "weight_bytes": self.weight_bytes,
            "without_weights": self.without_weights,
            "published": self.published.model_dump(include={"flops_G", "params_M"}) if self.published else None,
            "source": self.source or None,
            "difference_percent": {"flops": self.flops_difference, "parameters": self.parameters_difference},
            "problem": self.problem,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class CostReport:
    """rows: in the order asked for. definitions: of the counts, by name. versions: of what they were made with."""

    rows: tuple[ModelCost, ...]
    convention: str
    definitions: Mapping[str, str]
    versions: Mapping[str, str | None]

    def to_json(self) -> JsonObject:
        return {
            "schema_version": 1,
            "convention": self.convention,
            "definitions": dict(self.definitions),
            "versions": dict(self.versions),
            "rows": [row.to_json() for row in self.rows],
        }


@dataclass(frozen=True)
class FlopsRequest:
    """What to count over. suite: whose task and test sizes a checkpoint named by itself is counted at (None: found by its classes). only: rows of
    suites. data: the dataset's folder. sizes: a file [[id, height, width], ...]. size: (height, width) of the one input. images: how many.
    config, labels: of single files, as in :func:`m2fbench.models.checkpoint.resolve`."""

    suite: str | None = None
    only: tuple[str, ...] = ()
    data: Path | None = None
    sizes: Path | None = None
    size: tuple[int, int] | None = None
    images: int | None = None
    config: str | None = None
    labels: str | None = None


def flops(targets: Sequence[str], request: FlopsRequest | None = None, progress: Progress | None = None) -> CostReport:
    """Count every target: a suite (all its rows) or a checkpoint, or config, in any form that ``architecture_of`` takes.

    Raises M2FBenchError with one line: no such target, or no images to count over. A row that cannot be counted stands in the report with its reason.
    """
    from m2fbench.profiling.flops import CONVENTION, DEFINITIONS

    request = request or FlopsRequest()
    counter = _Counter(progress or (lambda *_: None))
    suites = {target: load_suite(target) for target in targets if is_suite(target) or _meant_as_suite(target)}
    _check_only(request.only, suites)
    _refuse_idle(request, all(target in suites for target in targets))
    rows: list[ModelCost] = []
    for target in targets:
        rows += _suite_rows(suites[target], request, counter) if target in suites else [_single(target, request, counter)]
    return CostReport(
        tuple(rows), CONVENTION, {d.name: d.text for d in DEFINITIONS}, {name: version_of(name) for name in LIBRARIES}
    )


def _meant_as_suite(target: str) -> bool:
    """A plain word that is nothing on disk is no checkpoint's reference; a suite by that name is asked for, and missed with a suggestion."""
    return re.fullmatch(r"[A-Za-z0-9_]+", target) is not None and not Path(target).exists()


def _check_only(only: Sequence[str], suites: Mapping[str, Suite]) -> None:
    known = list(dict.fromkeys(row.name for suite in suites.values() for row in suite.checkpoints))
    if only and not suites:
        raise SuiteError(f"--only {only[0]}: chooses rows of a suite, and no target is one; leave it out")
    check_names("--only", only, known)


def _refuse_idle(request: FlopsRequest, suites_only: bool) -> None:
    """What would have no effect is refused: it was meant to have one."""
    if request.size is not None:
        for option, given in (("--images", request.images), ("--sizes", request.sizes)):
            if given is not None:
                raise SuiteError(f"{option} {given}: has no meaning with --size, which is one input; leave one of them out")
    for option, text in (("--suite", request.suite), ("--config", request.config), ("--labels", request.labels)):
        if suites_only and text is not None:
            raise SuiteError(f"{option} {text}: is of a checkpoint named by itself, and every target is a suite; leave it out")


def flops_of_row(suite: Suite, row: Row, request: FlopsRequest | None = None, progress: Progress | None = None) -> ModelCost:
    """The cost of one row of a suite, or of one in its place; where it cannot be counted the reason stands in it."""
    return _cost(suite, row, request or FlopsRequest(), _Counter(progress or (lambda *_: None)))


@dataclass(frozen=True)
class StoppedCost:
    """What a Mask2Former costs that stops after ``layers`` of its masked-attention layers. counts: by definition, over the images.
    saved: the share (0..1) of the whole model's FLOPs, of the count ``paper``, that is not needed."""

    layers: int
    counts: Mapping[str, "MeanCount"]
    saved: float

    @property
    def flops(self) -> float:
        """Of the count ``paper``."""
        return self.counts["paper"].mean


def flops_by_layer(
    suite: Suite, row: Row, request: FlopsRequest | None = None, progress: Progress | None = None
) -> tuple[StoppedCost, ...]:
    """The cost of stopping a row of a suite after 0, 1, ... all of its masked-attention layers, with the post-processing; from its
    configuration, without weights. Raises M2FBenchError where it cannot be counted, as for a model that has no such layers."""
    from m2fbench.models.architecture import architecture_of

    request = request or FlopsRequest()
    reference = row.architecture or row.checkpoint
    if reference is None:
        raise CheckpointError(f"{row.name}: {row.unavailable}")
    architecture = architecture_of(reference, config=row.config, labels=row.labels)
    if architecture.family != "Mask2Former":
        raise CheckpointError(
            f"{reference}: {architecture.family} has no masked-attention layers to stop after; expected a Mask2Former"
        )
    setting = setting_of_row(suite, row, request)
    tell = progress or (lambda *_: None)
    counts = _Model(architecture, every_layer=True).counts_of_all(setting.inputs, setting, lambda n, of: tell(row.name, n, of))
    whole = counts[-1]["paper"].mean
    return tuple(StoppedCost(layers, found, 1 - found["paper"].mean / whole) for layers, found in enumerate(counts))


def _suite_rows(suite: Suite, request: FlopsRequest, counter: "_Counter") -> Iterator[ModelCost]:
    for row in suite.checkpoints:
        if not request.only or row.name in request.only:
            yield _cost(suite, row, request, counter)


def _cost(suite: Suite, row: Row, request: FlopsRequest, counter: "_Counter") -> ModelCost:
    reference, problem = row.architecture or row.checkpoint, row.unavailable
    if reference is not None:
        try:
            return _row(suite, row, reference, request, counter)
        except CheckpointError as error:
            problem = str(error)
    return ModelCost(row.name, suite.suite, row.checkpoint, published=row.published_costs, source=row.source, problem=problem)


def _row(suite: Suite, row: Row, reference: str, request: FlopsRequest, counter: "_Counter") -> ModelCost:
    from m2fbench.models.architecture import architecture_of

    setting = setting_of_row(suite, row, request)
    architecture = architecture_of(reference, config=row.config, labels=row.labels)
    cost = counter.cost(architecture, setting, row.name, row.published_costs, row.source)
    if reference == row.checkpoint:
        return cost
    note = f"counted as {reference}, whose architecture it has as the suite says; its own files were not looked at"
    return replace(cost, reference=row.checkpoint, notes=(*cost.notes, note))


def _single(reference: str, request: FlopsRequest, counter: "_Counter") -> ModelCost:
    from m2fbench.models.architecture import architecture_of

    architecture = architecture_of(reference, config=request.config, labels=request.labels)
    setting, row = setting_for(architecture, request)
    published, source = (row.published_costs, row.source) if row else (None, "")
    return counter.cost(architecture, setting, reference, published, source)


class _Counter:
    """Counts architectures; what has been counted of one is not counted again for another that differs in names only."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._models: dict[str, _Model] = {}

    def cost(
        self, architecture: "Architecture", setting: Setting, row: str, published: PublishedCosts | None, source: str
    ) -> ModelCost:
        inputs = setting.inputs.at(architecture.input_size)
        known = {k: v for k, v in architecture.config.items() if k not in ("id2label", "label2id")} | {
            "classes": len(architecture.labels)
        }
        key = json.dumps(known, sort_keys=True, default=str)
        try:
            model = self._models.get(key) or _Model(architecture)
            self._models[key] = model
            counts = model.counts(inputs, setting, lambda done, all_: self._progress(row, done, all_))
            problem = None
        except M2FBenchError as error:
            counts, problem, model = {}, str(error), None
        return ModelCost(
            row=row,
            suite=setting.suite,
            reference=architecture.reference,
            family=architecture.family,
            backbone=architecture.title,
            classes=len(architecture.labels),
            queries=architecture.queries,
            heads=setting.heads,
            inputs=inputs.described,
            as_published=inputs.as_published,
            images=len(inputs.geometries),
            sizes=len({g.padded for g in inputs.geometries}),
            counts=counts,
            parameters=model.parameters if model else {},
            weight_bytes=architecture.weight_bytes,
            without_weights=architecture.without_weights,
            published=published,
            source=source,
            problem=problem,
            notes=(*architecture.warnings, *setting.notes, *inputs.notes),
        )


class _Model:
    """One architecture's module on the meta device, and its counts by input size; with ``every_layer`` also those of stopping earlier."""

    def __init__(self, architecture: "Architecture", *, every_layer: bool = False) -> None:
        from m2fbench.models.architecture import build_module
        from m2fbench.models.parts import parameters_by_part, part_modules, parts_of

        module = build_module(architecture)
        self._module: Any = module
        self._parts = parts_of(architecture.config)
        self._part_modules = part_modules(module, self._parts)
        self.parameters = parameters_by_part(module, self._parts)
        self._every_layer = every_layer
        self._sizes: dict[tuple[int, int], list[tuple[dict[str, Count], Any]]] = {}

    def counts(self, inputs: Inputs, setting: Setting, progress: Callable[[int, int], None]) -> dict[str, "MeanCount"]:
        """Definition -> the count over the images, of the whole model."""
        return self.counts_of_all(inputs, setting, progress)[-1]

    def counts_of_all(self, inputs: Inputs, setting: Setting, progress: Callable[[int, int], None]) -> list[dict[str, "MeanCount"]]:
        """The same of all that is counted, the whole model last."""
        from m2fbench.profiling.flops import DEFINITIONS, mean, together

        distinct = Counter(inputs.geometries)
        sizes = list(dict.fromkeys(geometry.padded for geometry in distinct))
        progress(0, len(sizes))
        for done, size in enumerate(sizes):
            self._count(size)
            progress(done + 1, len(sizes))
        found: list[dict[str, list[Count]]] = [{d.name: [] for d in DEFINITIONS} for _ in self._sizes[sizes[0]]]
        for geometry in distinct:
            after = {
                definition.name: _post_processing(self._sizes[geometry.padded][-1][1], geometry, setting, definition)
                for definition in DEFINITIONS
                if definition.post_processing and setting.heads
            }
            for counts, (by_definition, _) in zip(found, self._sizes[geometry.padded], strict=True):
                for name, one in by_definition.items():
                    counts[name].append(together(one, after[name]) if name in after else one)
        return [{name: mean(counts, list(distinct.values())) for name, counts in each.items()} for each in found]

    def _count(self, size: tuple[int, int]) -> None:
        from m2fbench.profiling.flops import DEFINITIONS, count
        from m2fbench.profiling.operators import record_layers, record_model

        if size in self._sizes:
            return
        where = self._module, size, self._parts.rest, self._part_modules
        self._sizes[size] = [
            (
                {d.name: count(recording.calls, d, self._parts.names) for d in DEFINITIONS},
                tuple(tuple(tensor.shape[1:]) for tensor in recording.result),
            )
            for recording in (record_layers(*where) if self._every_layer else (record_model(*where),))
        ]


def _post_processing(shapes: Any, geometry: "Geometry", setting: Setting, definition: Any) -> "Count":
    from m2fbench.models.plain_postprocess import on_shapes
    from m2fbench.profiling.flops import POST_PROCESSING, count
    from m2fbench.profiling.operators import record

    recording = record(
        lambda: on_shapes(shapes, geometry, setting.heads, resize=setting.resize, detections=setting.detections),
        POST_PROCESSING,
    )
    return count(recording.calls, definition, (POST_PROCESSING,))
