"""Checkpoints that are one file: the original detectron2 .pkl and .pth, and mmdetection's .pth."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch

from m2fbench.errors import CheckpointError
from m2fbench.labels import label_set, label_sets
from m2fbench.models import mmdetection, original
from m2fbench.models.checkpoint import Checkpoint, stamp_of
from m2fbench.models.detectron_config import UNSAID, DetectronConfig, apply_config, read_detectron_config
from m2fbench.models.user_files import given_labels, user_path
from m2fbench.models.weights import StateDict, Weights, read_weights
from m2fbench.models.zoo import ZooEntry, entry_of_file, hash_in_name
from m2fbench.types import JsonObject

CONFIG_NAME = "config.yaml"  # what detectron2 writes beside its checkpoints
_WEIGHT_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class _Model:
    """What a file holds. config: transformers' configuration, class names still missing. state: under the original's names. notes: what
    was taken for granted."""

    form: str
    config: JsonObject
    state: StateDict
    weights: Weights
    detectron: DetectronConfig | None
    notes: tuple[str, ...]


def describe_file(path: Path, reference: str, *, config: str | None, labels: str | None, entry: ZooEntry | None) -> Checkpoint:
    """The checkpoint in ``path``. config: a detectron2 config, in place of the config.yaml beside it. labels: the name of a label set,
    or a file of class names. entry: the zoo's row where the file came from there.

    Raises CheckpointError: not a Mask2Former, damaged, a type that is refused, weights and config that disagree.
    """
    stamp = stamp_of(path)
    sha256, published, warnings = _hashes(path, entry)
    model = _read(path, reference, config)
    names, origin = _class_names(model, labels, published, reference)
    assumed = () if published else model.notes  # of a published checkpoint nothing is
    warnings += [note for note in (origin, *assumed) if note]
    if published and model.config["num_queries"] != published.queries:
        raise CheckpointError(
            f"{reference}: has {model.config['num_queries']} queries, the published one {published.queries}; get it again"
        )
    settings = json.dumps({k: v for k, v in model.config.items() if k != "id2label"}, sort_keys=True)
    task, size, said = _task_and_size(model.detectron, published)
    return Checkpoint(
        reference=reference,
        folder=path.parent,
        revision=None,
        sha256=hashlib.sha256(f"{sha256}\n{settings}\n".encode()).hexdigest(),
        labels=names,
        queries=model.config["num_queries"],
        backbone=model.config["backbone_config"]["model_type"],
        weight_files=(path.name,),
        stamps=(stamp,),
        form=model.form,
        config=model.config | {"id2label": {str(index): name for index, name in enumerate(names)}},
        detectron_config=str(model.detectron.path) if model.detectron else None,
        task=task,
        test_size=size,
        test_size_origin=said,
        published=published.name if published else None,
        warnings=tuple(warnings),
    )


def read_state(checkpoint: Checkpoint) -> StateDict:
    """The weights under transformers' names, every one of the shape that ``checkpoint.config`` asks for; none missing, none left over.

    Nothing is allocated for a model before that is certain.
    """
    path = checkpoint.folder / checkpoint.weight_files[0]
    model = _read(path, checkpoint.reference, checkpoint.detectron_config)
    state = original.to_transformers(model.state, checkpoint.reference)
    _check(checkpoint.reference, state, checkpoint.config)
    return state


def _read(path: Path, reference: str, config: str | None) -> _Model:
    weights = read_weights(path)
    state, form = weights.state, "detectron2"
    if mmdetection.is_mmdetection(state):
        state, form = mmdetection.to_original(state, reference), "mmdetection"
    state = original.modern_names(state, reference)
    if not original.is_original(state):
        raise CheckpointError(
            f"{reference}: expected a Mask2Former checkpoint of the original code or of mmdetection, got {original.describe_other(state)}"
        )
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    architecture = original.architecture(shapes, reference)
    if form == "mmdetection":
        if config:
            raise CheckpointError(f"{reference}: --config is for detectron2's checkpoints; an mmdetection one carries its own")
        notes = mmdetection.check_settings(weights.meta, architecture, reference)
        return _Model(form, architecture, state, weights, None, notes)
    detectron, notes = _detectron_config(path, config, resnet=architecture["backbone_config"]["model_type"] == "resnet")
    if detectron:
        architecture = apply_config(architecture, detectron, reference)
    return _Model(form, architecture, state, weights, detectron, notes)


def _detectron_config(path: Path, given: str | None, *, resnet: bool) -> tuple[DetectronConfig | None, tuple[str, ...]]:
    """The config given or lying beside the weights, and what is taken for granted where there is none or it is silent."""
    beside = path.parent / CONFIG_NAME
    found = user_path(given, "config") if given else beside if beside.is_file() else None
    config = read_detectron_config(found) if found else None
    if config and not any(key.startswith(("MODEL.", "INPUT.", "DATASETS.")) for key in config.values):
        if given:
            raise CheckpointError(f"{config.path}: expected a config of detectron2, got one without MODEL, INPUT or DATASETS")
        return None, (f"the {CONFIG_NAME} beside it is none of detectron2's and was not used",)
    unsaid = config.unsaid if config else UNSAID
    unsaid = tuple(key.rsplit(".", 1)[-1] for key in unsaid if resnet or "RESNETS" not in key)
    if not unsaid:
        return config, ()
    what = f"{config.path} does not say" if config else f"no {CONFIG_NAME} beside it says"
    return config, (f"{what} {', '.join(unsaid)}, which weights cannot say: taken to be as in all published checkpoints",)


def _check(reference: str, state: StateDict, config: JsonObject) -> None:
    """Compare names and shapes with those of the model, made without memory."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**config))
    weights = model.state_dict()
    expected = {name: tuple(value.shape) for name, value in weights.items()}
    for name in sorted({*expected, *state}):
        found = tuple(state[name].shape) if name in state else None
        if found != expected.get(name):
            problem = (
                f"a weight is missing: {name}" if found is None
                else f"a weight is unknown to this architecture: {name}" if name not in expected
                else f"weights that do not fit together: {name} is {list(found)}, expected {list(expected[name])}"
            )  # fmt: skip
            raise CheckpointError(f"{reference}: {problem} (transformers' names); is this a whole, unchanged checkpoint?")
        if weights[name].is_floating_point() and state[name].dtype not in _WEIGHT_DTYPES:
            kind = str(state[name].dtype).removeprefix("torch.")
            raise CheckpointError(
                f"{reference}: {name} holds {kind} values, expected floating point; is this a quantised checkpoint?"
            )
    broken = next((n for n, v in state.items() if v.is_floating_point() and not bool(v.float().isfinite().all())), None)
    if broken:
        raise CheckpointError(
            f"{reference}: {broken} holds NaN or infinite values; the checkpoint is damaged, or its training diverged"
        )


def _hashes(path: Path, entry: ZooEntry | None) -> tuple[str, ZooEntry | None, list[str]]:
    """(SHA-256 of the file, the zoo's row where it is proven to be that file, warnings)."""
    try:
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        promised = hash_in_name(path.name)
        if promised is None:
            return sha256, entry, []
        with path.open("rb") as file:
            found = sha256 if promised[0] == "sha256" else hashlib.file_digest(file, promised[0]).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions") from error
    if found.startswith(promised[1]):
        return sha256, entry or entry_of_file(path.name), []
    if entry:
        raise CheckpointError(f"{path}: does not have the hash in its name ({promised[1]}): it is damaged; delete it and run again")
    return (
        sha256,
        None,
        [
            f"its {promised[0].upper()} begins {found[: len(promised[1])]}, the file's name promises {promised[1]}: not the published file"
        ],
    )


def _class_names(model: _Model, labels: str | None, entry: ZooEntry | None, reference: str) -> tuple[tuple[str, ...], str | None]:
    """Names by class index, and a warning where they are only a guess."""
    count = len(model.config["id2label"])
    unnamed = tuple(f"LABEL_{index}" for index in range(count))
    if labels:
        names = given_labels(labels)
        if len(names) != count:
            raise CheckpointError(f"{reference}: has {count} classes, labels {labels} names {len(names)}; give one name for each")
        return names, None
    if entry:
        return label_set(entry.labels).names, None
    if own := mmdetection.class_names(model.weights.meta):
        return (
            (own, None)
            if len(own) == count
            else (unnamed, f"its meta names {len(own)} classes, the weights have {count}: taken for unnamed")
        )
    if model.detectron:
        known = model.detectron.dataset[0]
        if known and len(label_set(known).classes) == count:
            return label_set(known).names, None
        return unnamed, f"{model.detectron.path} names no published dataset: classes are unnamed; name them with --labels"
    for name in label_sets():
        if len(label_set(name).classes) == count:
            title = label_set(name).title
            return label_set(
                name
            ).names, f"its {count} classes are taken for those of {title}, by their number; say otherwise with --labels"
    return unnamed, f"nothing names its {count} classes; name them with --labels"


def _task_and_size(
    detectron: DetectronConfig | None, entry: ZooEntry | None
) -> tuple[str | None, tuple[int, int] | None, str | None]:
    """The task it was trained for, the size it is tested at, and who says so: its config before the zoo."""
    if detectron and (size := detectron.sizes):
        return detectron.dataset[1], size, str(detectron.path)
    if entry:
        return entry.task, (entry.min_size, entry.max_size), f"the model zoo, {entry.name}"
    return detectron.dataset[1] if detectron else None, None, None
