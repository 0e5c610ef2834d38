"""Anyone's predictions, in whichever of the official forms they come, as the files that metrics take.

results.json                       COCO results (detectron2's coco_instances_results.json too): instances
predictions.json                   COCO panoptic format, its PNGs in the folder of the same name: panoptic
sem_seg_predictions.json           detectron2's: semantic
a folder of label PNGs             named after the images, subfolders and Cityscapes' endings included: semantic
a folder of .txt files and masks   Cityscapes' instance results: instances
a folder of several of these       as ``--predict-only`` writes them
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from m2fbench.errors import PredictionsError
from m2fbench.files import map_over
from m2fbench.formats import cityscapes_instances
from m2fbench.formats.coco_results import read_results
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.label_png import find_label_pngs, read_labels, unexpected_values
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic_predictions import read_predictions
from m2fbench.formats.sem_seg_json import read_sem_seg
from m2fbench.types import Dataset, Example, Head, ImageId, Predictions

_FORMS = (
    "COCO results JSON, COCO panoptic JSON with its folder of PNGs, detectron2's sem_seg_predictions.json, a folder of label PNGs, or "
    "Cityscapes' .txt files with masks"
)

# values that stand for something in a dataset's label PNGs without being evaluated
_OTHER_LABELS: Mapping[str, Sequence[int]] = {"cityscapes": cityscapes_instances.LABEL_IDS}


def peer_predictions(
    path: Path, dataset: Dataset, heads: Sequence[Head], image_ids: Sequence[ImageId], scratch: Path
) -> Predictions:
    """The predictions at ``path`` as metrics take them, checked; those of other heads than ``heads`` are left aside.

    image_ids: the images that are to be scored. scratch: an empty folder for what has to be rewritten. Raises PredictionsError.
    """
    if not path.exists():
        raise PredictionsError(f"{path}: cannot be read: there is no such file or folder; expected {_FORMS}")
    found: dict[Head, list[Path]] = {}
    for head, place in _places(path):
        found.setdefault(head, []).append(place)
    for head, places in found.items():
        if len(places) > 1 and head in heads:
            raise PredictionsError(
                f"{path}: holds {head} predictions twice, {places[0].name} and {places[1].name}; name one of the two"
            )
    wanted = {head: places[0] for head, places in found.items() if head in heads}
    if not wanted:
        held = f"{' and '.join(found)} predictions" if found else "none that could be recognised"
        raise PredictionsError(f"{path}: expected {' or '.join(heads)} predictions, got {held}; it takes {_FORMS}")
    panoptic = wanted.get("panoptic")
    if panoptic is not None:
        read_predictions(panoptic, None, _sizes(dataset), dataset.category_ids, image_ids)
    return Predictions(
        instances=_instances(wanted["instance"], dataset, image_ids, scratch) if "instance" in wanted else None,
        panoptic=panoptic,
        panoptic_folder=None if panoptic is None else panoptic.with_name(panoptic.name.removesuffix(".json")),
        semantic=_semantic(wanted["semantic"], dataset, image_ids, scratch) if "semantic" in wanted else None,
    )


def _places(path: Path) -> list[tuple[Head, Path]]:
    """The predictions at ``path`` and in it, each with its head; a folder of PNGs beside a panoptic JSON of its name is that one's."""
    if path.is_file():
        head = _head_of(path)
        return [(head, path)] if head else []
    found: list[tuple[Head, Path]] = []
    files = sorted(path.iterdir())
    for file in files:
        if file.is_file() and file.suffix == ".json" and (head := _head_of(file)) is not None:
            found.append((head, file))
    if any(file.suffix == ".txt" for file in files):
        return [*found, ("instance", path)]
    if any(file.suffix == ".png" for file in files):
        return [*found, ("semantic", path)]
    maps = {file.with_suffix("") for head, file in found if head == "panoptic"}
    folders = [file for file in files if file.is_dir() and file not in maps]
    inside = [place for folder in folders for place in _places(folder)]
    if inside and all(head == "semantic" for head, _ in inside) and len(inside) > 1:
        return [*found, ("semantic", path)]  # a folder for each city
    if inside and all(head == "instance" and place.is_dir() for head, place in inside) and len(inside) > 1:
        return [*found, ("instance", path)]
    return found + inside


def _head_of(file: Path) -> Head | None:
    """Which head's predictions a JSON file holds; None where it looks like none."""
    try:
        with paused_collector():
            content = json.loads(file.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{file}: not valid JSON ({error}); write it again") from error
    if isinstance(content, dict):
        return "panoptic" if "annotations" in content else None
    if not isinstance(content, list):
        return None
    first = content[0] if content else {}
    if isinstance(first, dict) and "segments_info" in first:
        return "panoptic"
    return "semantic" if isinstance(first, dict) and "file_name" in first and "image_id" not in first else "instance"


def _sizes(dataset: Dataset) -> dict[ImageId, tuple[int, int]]:
    return {example.image_id: example.size for example in dataset.examples()}


def _instances(path: Path, dataset: Dataset, image_ids: Sequence[ImageId], scratch: Path) -> Path:
    """A checked copy in COCO results format."""
    things = {i for i, c in zip(dataset.category_ids, dataset.categories, strict=True) if c.is_thing}
    if path.is_dir():
        chosen = set(image_ids)
        examples = [example for example in dataset.examples() if example.image_id in chosen]
        entries = cityscapes_instances.read(path, examples, things)
    else:
        entries = read_results(path, _sizes(dataset), things)
    checked = scratch / "predictions.json"
    checked.write_text(json.dumps(entries))
    return checked


def _semantic(path: Path, dataset: Dataset, image_ids: Sequence[ImageId], scratch: Path) -> dict[ImageId, Path]:
    chosen = set(image_ids)
    examples = [example for example in dataset.examples() if example.image_id in chosen]
    if path.is_dir():
        found = _by_either_name(examples, lambda named: find_label_pngs(path, named))
        _check_values(found, dataset)
        return found
    folder = scratch / "semantic"
    folder.mkdir()
    ids: tuple[int, ...] = getattr(dataset, "sem_seg_ids", dataset.category_ids)  # a reader says where they are others
    return _by_either_name(examples, lambda named: read_sem_seg(path, named, ids, folder, dataset.label_values))


def _by_either_name(
    examples: Sequence[Example], read: Callable[[Sequence[Example]], Mapping[ImageId, Path]]
) -> dict[ImageId, Path]:
    """What ``read`` finds by the images' ids or, where that fails and these are others, by the names of the image files."""
    try:
        return dict(read(examples))
    except PredictionsError as by_id:
        stems = {Path(example.source).stem: example for example in examples}
        if len(stems) < len(examples) or all(stem == file_stem(e.image_id) for stem, e in stems.items()):
            raise
        try:
            found = read([replace(example, image_id=stem) for stem, example in stems.items()])
        except PredictionsError:
            raise by_id from None
        return {stems[str(stem)].image_id: path for stem, path in found.items()}


def _check_values(files: Mapping[ImageId, Path], dataset: Dataset) -> None:
    """No value that nobody could have meant: training ids or colours would quietly score as misses. Where classes are left out, any
    value may be one of theirs."""
    if dataset.fingerprint().get("classes") is not None:
        return
    known = {0, 255, 65535, *dataset.label_values, *_OTHER_LABELS.get(dataset.name, ())}
    if dataset.name == "mapillary":
        known |= set(range(max(dataset.label_values) + 2))  # those that are not evaluated, and unlabelled after the last

    def check(path: Path) -> None:
        for value, pixels in unexpected_values(read_labels(path, PredictionsError), known).items():
            first, last = dataset.label_values[0], dataset.label_values[-1]
            raise PredictionsError(
                f"{path}: {pixels} pixels have the value {value}, which is no class of {dataset.name}: its label PNGs hold {first} "
                f"({dataset.categories[0].name}) to {last} ({dataset.categories[-1].name}); write these, and 255 where there is no class"
            )

    for _ in map_over(check, files.values()):
        pass
