"""What each decoder layer of a Mask2Former adds, and what stopping there would save: as ``m2fbench examine`` stored it in a run directory, or
from runs of the variants ``decoder_layers: 0, 1, 2 ...``.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from m2fbench.analysis.runs import Run
from m2fbench.errors import M2FBenchError, StoreError
from m2fbench.formats.names import file_stem
from m2fbench.store import key_of, read_identity
from m2fbench.types import ImageId, JsonObject, Measurement
from m2fbench.writing import make_folder, write_atomically

EXAMINATION_VERSION = 1
FILE, FOLDER = "examination.json", "examination"


@dataclass(frozen=True)
class LayerFinding:
    """What a model predicts that stops after ``layer`` masked-attention layers; 0 is before any. NaN for what was not measured.

    figures: by name, in percent. flops: of one image with post-processing, a multiply-add being one, the count ``paper``; saved: the share
    (0..1) of those of all layers. What follows compares with the layer before, and speaks of queries (``_all``: of all, else of those whose
    best class is an object after the last layer): mask_iou: mean IoU of their masks; class_changed: the share whose best class is another.
    everywhere: the share whose mask was empty at the size of the layer's feature map, so that they see all of it. visible: the mean share of
    the map that the masked attention lets a query see. level: which feature map, 0 the smallest.
    """

    layer: int
    figures: Mapping[str, float]
    flops: float = math.nan
    saved: float = math.nan
    mask_iou: float = math.nan
    mask_iou_all: float = math.nan
    class_changed: float = math.nan
    class_changed_all: float = math.nan
    everywhere: float = math.nan
    everywhere_all: float = math.nan
    visible: float = math.nan
    visible_all: float = math.nan
    level: int | None = None


@dataclass(frozen=True)
class LayerExample:
    """An image whose masks and attention were kept. file: within the run directory."""

    image_id: ImageId
    file: str


@dataclass(frozen=True)
class Examination:
    """What was found of one run. images: that the figures are over; run_images: that the run scored. own: the run's own figures over the same
    images, from its stored predictions; difference: the largest of them from those of the last layer, in percent points. predictions: key of
    the identity of the run's predictions. folder: of the run."""

    suite: str
    row: str
    variant: str
    predictions: str
    images: int
    run_images: int
    layers: tuple[LayerFinding, ...]
    examples: tuple[LayerExample, ...]
    own: Mapping[str, float]
    difference: float
    notes: tuple[str, ...] = ()
    device: JsonObject = field(default_factory=dict)
    environment: JsonObject = field(default_factory=dict)
    finished: str = ""
    folder: Path = Path()

    def to_json(self) -> JsonObject:
        document = {"examination_version": EXAMINATION_VERSION} | asdict(self)
        del document["folder"]
        return dict(_without_nan(document))


def read_examination(run: Path) -> Examination | None:
    """What ``m2fbench examine`` stored in a run directory, None where it did not. Raises StoreError for a file of another version, for a damaged
    one, and for one of other predictions than are there now."""
    path = run / FILE
    if not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
        version = document.pop("examination_version")
        if version != EXAMINATION_VERSION:
            raise StoreError(f"{path}: expected examination version {EXAMINATION_VERSION}, got {version!r}; examine the run again")
        layers = tuple(_layer(layer) for layer in document.pop("layers"))
        examples = tuple(LayerExample(**example) for example in document.pop("examples"))
        own, difference = _numbers(document.pop("own")), _number(document.pop("difference"))
        notes = tuple(document.pop("notes"))
        found = Examination(layers=layers, examples=examples, own=own, difference=difference, notes=notes, folder=run, **document)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{path}: not an examination ({error!r}); examine the run again") from error
    if found.predictions != key_of(read_identity(run)):
        raise StoreError(f"{path}: is of other predictions than are here now; examine the run again")
    return found


def _layer(stored: JsonObject) -> LayerFinding:
    figures, layer, level = _numbers(stored.pop("figures")), stored.pop("layer"), stored.pop("level")
    return LayerFinding(layer, figures, level=level, **_numbers(stored))


def _numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def write_examination(found: Examination, examples: Sequence[tuple[ImageId, bytes]]) -> Examination:
    """Store it, with its examples (.npz files by image id), and read it back. The examples are written first, then the file that names them,
    then those that it does not name are deleted: whenever this ends, what is there is whole. Raises StoreError."""
    folder, named = found.folder / FOLDER, []
    make_folder(folder)
    for image_id, content in examples:
        file = f"{FOLDER}/{file_stem(image_id)}.npz"
        write_atomically(found.folder / file, content)
        named.append(LayerExample(image_id, file))
    document = replace(found, examples=tuple(named)).to_json()
    write_atomically(found.folder / FILE, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    for path in folder.glob("*.npz"):
        if f"{FOLDER}/{path.name}" not in {one.file for one in named}:
            path.unlink(missing_ok=True)
    stored = read_examination(found.folder)
    assert stored is not None
    return stored


def figures_of(measurements: Iterable[Measurement]) -> dict[str, float]:
    """The accuracies over all classes, by name."""
    return {m.name: m.value for m in measurements if m.unit == "percent" and m.category is None and m.subset is None}


def runs_by_depth(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Of these runs the groups that differ in nothing but how many decoder layers they keep, at least two of them, each by depth: one
    checkpoint, over the same images, by the same protocol."""
    groups: dict[str, dict[int, Run]] = {}
    for run in runs:
        depth = depth_of(run)
        if depth is not None:
            groups.setdefault(_all_but_depth(run), {}).setdefault(depth, run)
    return [tuple(run for _, run in sorted(group.items())) for group in groups.values() if len(group) > 1]


def depth_of(run: Run) -> int | None:
    """The masked-attention layers of a run's model, as read back from it; None where that is not known, or it has none."""
    settings = ((run.result.checkpoint or {}) if run.result else {}).get("settings") or {}
    depth = settings.get("decoder_layers")
    return depth if isinstance(depth, int) else None


def _all_but_depth(run: Run) -> str:
    result = run.any_result
    variant = {key: value for key, value in result.variant.items() if key not in ("name", "decoder_layers")}
    checkpoint, dataset = result.checkpoint or {}, result.dataset or {}
    facts = [result.suite["name"], result.row, checkpoint.get("sha256"), dataset, variant, result.protocol, result.limit]
    return json.dumps(facts, sort_keys=True, default=str)


def layers_of_runs(runs: Sequence[Run], *, count_flops: bool = True) -> list[LayerFinding]:
    """The findings of runs that differ in their depth only, as ``runs_by_depth`` groups them, the shallowest first. count_flops: also count what
    each costs, from the checkpoint's configuration; NaN where that cannot be done. ``saved`` is of the deepest run."""
    found = []
    for run in runs:
        depth = depth_of(run)
        if run.result is None or depth is None:
            raise ValueError(f"{run.folder}: not a run whose depth is known")
        found.append(LayerFinding(depth, figures_of(run.result.measurements)))
    found.sort(key=lambda layer: layer.layer)
    return _with_costs(found, runs[0]) if found and count_flops else found


def _with_costs(layers: Sequence[LayerFinding], run: Run) -> list[LayerFinding]:
    from m2fbench.flops import flops_by_layer

    row = None
    if run.suite is not None:
        row = next((row for row in run.suite.checkpoints if row.name == run.any_result.row), None)
    if run.suite is None or row is None:
        return list(layers)
    try:
        costs = {cost.layers: cost.flops for cost in flops_by_layer(run.suite, row)}
    except M2FBenchError:
        return list(layers)
    deepest = costs.get(layers[-1].layer, math.nan)
    return [
        replace(layer, flops=costs.get(layer.layer, math.nan), saved=1 - costs.get(layer.layer, math.nan) / deepest)
        for layer in layers
    ]
