"""The layouts that ``export`` writes: for each its classes, its image ids, and its files. Sources: the readers' own docstrings."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.datasets.export_plan import Plan, Shot, plan_by_table, plan_of_mapillary_2_0, plan_of_own_classes
from m2fbench.errors import DatasetError
from m2fbench.formats import panoptic
from m2fbench.formats.names import file_stem
from m2fbench.labels import label_set
from m2fbench.types import Category, Dataset, Example, ImageId, JsonObject

CITYSCAPES_TRAIN_IDS = label_set("cityscapes").ids
MAPILLARY_UNLABELED = 65  # of v1.2


@dataclass(frozen=True)
class Layout:
    """write: the files of one image, and what ``finish`` needs to know of it for those of them all."""

    plan: Callable[[Dataset, Mapping[str, str] | None], Plan]
    image_id: Callable[[str, int, ImageId], ImageId]
    write: Callable[[Path, Plan, Shot], Any]
    finish: Callable[[Path, Plan, Sequence[Any]], None]


def _save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def _save_json(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _numbers(plan: Plan, shot: Shot, first: int, last: int, *, per_class: bool = True) -> dict[int, tuple[int, int]]:
    """Segment id -> (category, instance number) of the things that are no crowds."""
    used: dict[int, int] = {}
    numbers = {}
    for segment in shot.panoptic.segments:
        if plan.categories[segment.category].is_thing and not segment.is_crowd:
            among = segment.category if per_class else -1
            number = used.get(among, first)
            if number > last:
                raise DatasetError(f"{shot.source}: has more instances than this layout can number ({last - first + 1})")
            used[among] = number + 1
            numbers[segment.id] = (segment.category, number)
    return numbers


def _painted(shot: Shot, of_segment: Mapping[int, int], background: int = 0) -> NDArray[np.uint16]:
    """[H, W]: the value of each pixel's segment."""
    index = panoptic.segment_index(shot.panoptic.ids, shot.panoptic.segments)
    table = np.array([background, *(of_segment.get(s.id, background) for s in shot.panoptic.segments), background], np.uint16)
    return table[index]


def _write_panoptic(folder: Path, plan: Plan, shot: Shot) -> JsonObject:
    name = f"{file_stem(shot.image_id)}.png"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(panoptic.encode_ids(shot.panoptic.ids))
    ids = [0 if i is None else i for i in plan.ids]  # segments of left-out classes are not there
    return panoptic.to_annotation(shot.image_id, name, shot.panoptic, ids)


def _example(shot: Shot) -> Example:
    return Example(shot.image_id, (shot.image.shape[0], shot.image.shape[1]), f"{file_stem(shot.image_id)}.png")


def _write_coco(root: Path, plan: Plan, shot: Shot) -> tuple[Example, JsonObject, list[JsonObject]]:
    example = _example(shot)
    _save(root / "val2017" / example.source, shot.image)
    annotation = _write_panoptic(root / "annotations/panoptic_val2017", plan, shot)
    masks = panoptic.segment_rles(shot.panoptic)
    things = [
        {"image_id": shot.image_id, "category_id": info["category_id"], "iscrowd": info["iscrowd"], "area": info["area"],
         "bbox": info["bbox"], "segmentation": mask}
        for segment, info, mask in zip(shot.panoptic.segments, annotation["segments_info"], masks, strict=True)
        if plan.categories[segment.category].is_thing
    ]  # fmt: skip
    return example, annotation, things


def _finish_coco(root: Path, plan: Plan, records: Sequence[tuple[Example, JsonObject, list[JsonObject]]]) -> None:
    written = plan.written()
    document = panoptic.document([r[0] for r in records], [r[1] for r in records], written)
    _save_json(root / "annotations/panoptic_val2017.json", document)
    annotations = [annotation for _, _, things in records for annotation in things]
    instances = {
        "images": document["images"],
        "categories": [{"id": i, "name": c.name} for i, c in written.items() if c.is_thing],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(annotations, 1)],
    }
    _save_json(root / "annotations/instances_val2017.json", instances)


def _write_ade20k(root: Path, plan: Plan, shot: Shot) -> None:
    """Instances: red the place among the 100 instance classes from 1, green a number of its own in the image. Crowds have none."""
    base, name = root / "ADEChallengeData2016", f"{shot.image_id}.png"
    _save(base / "images/validation" / name, shot.image)
    _save(base / "annotations/validation" / name, plan.label_png(shot.semantic).astype(np.uint8))
    things = label_set("ade20k_instance")
    numbers = _numbers(plan, shot, 1, 255, per_class=False)
    places = {}
    for segment, (category, _) in numbers.items():
        label = plan.values[category]
        assert label is not None
        places[segment] = things.ids.index(label - 1) + 1
    green = _painted(shot, {segment: number for segment, (_, number) in numbers.items()})
    red = _painted(shot, places)
    _save(base / "annotations_instance/validation" / name, np.stack([red, green, 0 * red], axis=-1).astype(np.uint8))


def _write_cityscapes(root: Path, plan: Plan, shot: Shot) -> None:
    """Crowds are groups: the label id without a number."""
    city = str(shot.image_id).partition("_")[0]
    _save(root / f"leftImg8bit/val/{city}/{shot.image_id}_leftImg8bit.png", shot.image)
    labels = plan.label_png(shot.semantic).astype(np.uint8)
    train_ids = np.full(256, 255, np.uint8)
    train_ids[list(CITYSCAPES_TRAIN_IDS)] = np.arange(len(CITYSCAPES_TRAIN_IDS))
    numbers = _numbers(plan, shot, 0, 999)
    values = {s.id: plan.values[s.category] or 0 for s in shot.panoptic.segments}
    values |= {segment: 1000 * values[segment] + number for segment, (_, number) in numbers.items()}
    start = f"gtFine/val/{city}/{shot.image_id}_gtFine_"
    _save(root / f"{start}labelIds.png", labels)
    _save(root / f"{start}labelTrainIds.png", train_ids[labels])
    _save(root / f"{start}instanceIds.png", _painted(shot, values))


def _mapillary_writer(folder: str) -> Callable[[Path, Plan, Shot], tuple[Example, JsonObject]]:
    def write(root: Path, plan: Plan, shot: Shot) -> tuple[Example, JsonObject]:
        """Label PNGs have a palette, of which the index counts. Instance numbers begin at 1; stuff and crowds have 0."""
        example, truth = _example(shot), root / "validation" / folder
        _save(root / "validation/images" / example.source, shot.image)
        labels = Image.fromarray(plan.label_png(shot.semantic).astype(np.uint8))
        labels.putpalette(bytes(np.random.default_rng(0).integers(0, 256, 768, np.uint8)))
        (truth / "labels").mkdir(parents=True, exist_ok=True)
        labels.save(truth / "labels" / example.source)
        values = {s.id: 256 * (plan.values[s.category] or 0) for s in shot.panoptic.segments}
        for segment, (_, number) in _numbers(plan, shot, 1, 255).items():
            values[segment] += number
        _save(truth / "instances" / example.source, _painted(shot, values, 256 * plan.unlabeled))
        return example, _write_panoptic(truth / "panoptic", plan, shot)

    return write


def _finish_mapillary_1_2(root: Path, plan: Plan, records: Sequence[tuple[Example, JsonObject]]) -> None:
    table = label_set("mapillary_vistas")
    config = [_label(c, evaluate=True) for c in table.classes] + [_label(Category("Unlabeled", False), evaluate=False)]
    _save_json(root / "config.json", {"labels": config, "version": "1.2"})
    categories = dict(zip(table.ids, table.classes, strict=True))
    document = panoptic.document([r[0] for r in records], [r[1] for r in records], categories)
    _save_json(root / "validation/panoptic/panoptic_2018.json", document)


def _finish_mapillary_2_0(root: Path, plan: Plan, records: Sequence[tuple[Example, JsonObject]]) -> None:
    written = plan.written()
    config = [_label(Category("Ambiguous Barrier", False), evaluate=False), *(_label(c, evaluate=True) for c in written.values())]
    config.append(_label(Category("Unlabeled", False), evaluate=False))
    _save_json(root / "config_v2.0.json", {"labels": config, "version": "2.0"})
    document = panoptic.document([r[0] for r in records], [r[1] for r in records], written)
    _save_json(root / "validation/v2.0/panoptic/panoptic_2020.json", document)


def _label(category: Category, *, evaluate: bool) -> JsonObject:
    long = f"export--{category.name.lower().replace(' ', '-')}"
    return {"name": long, "readable": category.name, "instances": category.is_thing, "evaluate": evaluate, "color": [0, 0, 0]}


def _write_folder(root: Path, plan: Plan, shot: Shot) -> None:
    _save(root / f"images/{shot.image_id}.png", shot.image)
    labels = plan.label_png(shot.semantic)
    _save(root / f"labels/{shot.image_id}.png", labels if plan.unlabeled > 255 else labels.astype(np.uint8))


def _finish_folder(root: Path, plan: Plan, records: Sequence[None]) -> None:
    values = zip(plan.categories, plan.values, strict=True)
    _save_json(root / "classes.json", [{"name": plan.names[c.name], "value": v} for c, v in values if v is not None])


def _nothing(root: Path, plan: Plan, records: Sequence[None]) -> None:
    pass


def _stem(source: str, number: int, image_id: ImageId) -> str:
    return f"{source}_{number:06d}"


LAYOUTS: dict[str, Layout] = {
    "coco": Layout(
        plan_of_own_classes,
        lambda source, number, image_id: image_id if isinstance(image_id, int) else number,
        _write_coco,
        _finish_coco,
    ),
    "ade20k": Layout(
        lambda source, names: plan_by_table(source, names, label_set("ade20k"), lambda i: i, 0),
        lambda source, number, image_id: f"ADE_val_{number:08d}",
        _write_ade20k,
        _nothing,
    ),
    "cityscapes": Layout(
        lambda source, names: plan_by_table(source, names, label_set("cityscapes"), lambda i: i, 0),
        lambda source, number, image_id: f"{source.replace('_', '-')}_000000_{number:06d}",  # the city is what precedes the first _
        _write_cityscapes,
        _nothing,
    ),
    "mapillary-v1.2": Layout(
        lambda source, names: plan_by_table(source, names, label_set("mapillary_vistas"), lambda i: i - 1, MAPILLARY_UNLABELED),
        _stem,
        _mapillary_writer(""),
        _finish_mapillary_1_2,
    ),
    "mapillary-v2.0": Layout(plan_of_mapillary_2_0, _stem, _mapillary_writer("v2.0"), _finish_mapillary_2_0),
    "semantic-folder": Layout(plan_of_own_classes, _stem, _write_folder, _finish_folder),
}
