"""ADE20K's panoptic and instance truth as files, named and filled as the original code's scripts do it.

    ade20k_panoptic_val.json, ade20k_panoptic_val/ADE_val_00000001.png ..., ade20k_instance_val.json

Scoring needs none of them; they are for other programs. The convention and its source stand in ade20k_truth.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from m2fbench.datasets import ade20k_files as files
from m2fbench.datasets.ade20k_truth import annotations, colors, panoptic
from m2fbench.errors import StoreError
from m2fbench.files import map_over
from m2fbench.formats.panoptic import encode_ids
from m2fbench.labels import label_set
from m2fbench.types import Example, JsonObject

BATCH = 64  # images between two reports of progress


def prepare(
    root: Path, split: str = "validation", target: Path | None = None, progress: Callable[[int, int], object] | None = None
) -> tuple[Path, Path, Path]:
    """Write the three; returns the paths of panoptic JSON, folder of its PNGs, and instance JSON.

    root: the folder of the official files, or its parent. target: where to write, beside the official files where None; what is
    there under these names is replaced once everything is written. progress: called with images done and images in all.
    Raises DatasetError as the reader does, StoreError where nothing can be written.
    """
    layout = files.locate(root, split, f"unpack {files.IMAGES} and, into its {files.FOLDER}, {files.INSTANCES}")
    images = files.find_images(layout)
    for folder, archive in ((layout.semantic, files.IMAGES), (layout.instances, files.INSTANCES)):
        files.check_partners(images, folder, archive)
    target = target or layout.root
    panoptic_file, folder = layout.prepared_panoptic(target)
    instance_file = layout.prepared_instances(target)
    unfinished = target / f".{folder.name}.unfinished"
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        examples = list(map_over(files.example_of, images.items()))
        maps, instances = _write_maps(layout, examples, unfinished, progress or (lambda done, total: None))
        panoptic_file.unlink(missing_ok=True)  # the JSON says that its folder is whole
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
        _write_json(panoptic_file, _document(examples, maps, _panoptic_categories()))
        _write_json(instance_file, _document(examples, instances, _instance_categories()))
    except OSError as error:
        raise StoreError(
            f"{error.filename or target}: cannot be written: {error.strerror}; free room or name another folder"
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return panoptic_file, folder, instance_file


def _write_maps(
    layout: files.Layout, examples: Sequence[Example], folder: Path, progress: Callable[[int, int], object]
) -> tuple[list[JsonObject], list[JsonObject]]:
    """The PNG of every image; returns the annotations of both files."""

    def convert(example: Example) -> tuple[JsonObject, list[JsonObject]]:
        name = f"{example.image_id}.png"
        instances = files.read_instances(layout.instances / name, example.size)
        ids, segments = panoptic(files.read_semantic(layout.semantic / name, example.size), instances)
        (folder / name).write_bytes(encode_ids(ids))
        return _to_annotation(str(example.image_id), name, segments), annotations(str(example.image_id), instances)

    maps: list[JsonObject] = []
    found: list[JsonObject] = []
    for begin in range(0, len(examples), BATCH):
        for of_map, of_instances in map_over(convert, examples[begin : begin + BATCH]):
            maps.append(of_map)
            found += [{"id": number, **annotation} for number, annotation in enumerate(of_instances, len(found) + 1)]
        progress(len(maps), len(examples))
    return maps, found


def _to_annotation(image_id: str, file_name: str, segments: Sequence[JsonObject]) -> JsonObject:
    return {"image_id": image_id, "file_name": file_name, "segments_info": list(segments)}


def _panoptic_categories() -> list[JsonObject]:
    classes = zip(label_set("ade20k").classes, colors(), strict=True)
    return [{"name": c.name, "id": i, "isthing": int(c.is_thing), "color": color} for i, (c, color) in enumerate(classes)]


def _instance_categories() -> list[JsonObject]:
    labels = label_set("ade20k_instance")
    return [{"id": i, "name": name} for i, name in zip(labels.ids, labels.names, strict=True)]


def _document(examples: Sequence[Example], found: Sequence[JsonObject], categories: Sequence[JsonObject]) -> JsonObject:
    return {"images": [files.image_record(e) for e in examples], "annotations": list(found), "categories": list(categories)}


def _write_json(path: Path, document: JsonObject) -> None:
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        unfinished.write_text(json.dumps(document), encoding="ascii")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
