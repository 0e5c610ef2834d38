"""Anyone's predictions in COCO's panoptic results format, checked entry by entry.

Convention: https://cocodataset.org/#format-results. The official evaluator lets the last of two segments of one id win, and the
last of two entries of one image, without a word; here both are errors.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from m2fbench.errors import PredictionsError, shown
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.panoptic import LARGEST_ID
from m2fbench.types import ImageId, Segment, Size

PanopticEntry = tuple[Path, tuple[Segment, ...]]
"""The PNG of an image, and the segments that the JSON lists for it; ``read_map`` makes a map of the two."""


def read_predictions(
    path: Path,
    folder: Path | None,
    sizes: Mapping[ImageId, Size],
    category_ids: Sequence[int],
    required: Collection[ImageId] = (),
) -> dict[ImageId, PanopticEntry]:
    """The PNG and the segments of each image that ``path`` has predictions for; categories become contiguous indices.

    path: a COCO panoptic JSON, or the bare list of its annotations. folder: where the PNGs are; by default the path without its
    ``.json``. sizes: (height, width) by id of the dataset's images. required: images that must be there with their PNG.
    Raises PredictionsError naming the first entry that is not a prediction for this dataset. PNGs are not opened.
    """
    folder = path.with_name(path.name.removesuffix(".json")) if folder is None else folder
    with paused_collector():
        annotations = _annotations(path)
        categories = {category_id: index for index, category_id in enumerate(category_ids)}
        found: dict[ImageId, PanopticEntry] = {}
        for number, annotation in enumerate(annotations):
            where = f"{path}: annotations[{number}]"
            image_id, file_name, segments = _head(annotation, where, sizes)
            if image_id in found:
                raise PredictionsError(f"{where}: expected one entry for each image, got a second one for image {image_id!r}")
            found[image_id] = folder / file_name, _segments(segments, where, categories)
    _complete(path, folder, found, required)
    return found


def _annotations(path: Path) -> list[object]:
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{path}: not valid JSON ({shown(error)}); write it again") from error
    annotations = document.get("annotations") if isinstance(document, dict) else document
    if not isinstance(annotations, list):
        raise PredictionsError(
            f"{path}: expected COCO panoptic predictions (an object with a list 'annotations'), got "
            f"{'none in it' if isinstance(document, dict) else 'a ' + type(document).__name__}"
        )
    return annotations


def _head(annotation: object, where: str, sizes: Mapping[ImageId, Size]) -> tuple[ImageId, str, object]:
    """Image id, PNG name and segments of one entry."""
    if not isinstance(annotation, dict):
        raise PredictionsError(f"{where}: expected an object, got a {type(annotation).__name__}")
    for key in ("image_id", "file_name", "segments_info"):
        if key not in annotation:
            raise PredictionsError(f"{where}: expected the key '{key}', got {shown(', '.join(annotation)) or 'none'}")
    image_id, file_name = annotation["image_id"], annotation["file_name"]
    if type(image_id) not in (int, str) or image_id not in sizes:
        raise PredictionsError(
            f"{where}: image {shown(repr(image_id))} is not in the dataset; are these predictions for another one?"
        )
    if not isinstance(file_name, str) or not _inside(file_name):
        raise PredictionsError(f"{where}: file_name: expected a path inside the PNG folder, got {shown(repr(file_name))}")
    return image_id, file_name.replace("\\", "/"), annotation["segments_info"]


def _inside(file_name: str) -> bool:
    path = file_name.replace("\\", "/")
    return bool(path.strip("./")) and not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def _segments(entries: object, where: str, categories: Mapping[int, int]) -> tuple[Segment, ...]:
    if not isinstance(entries, list):
        raise PredictionsError(f"{where}: segments_info: expected a list, got a {type(entries).__name__}")
    segments: dict[int, Segment] = {}
    for number, entry in enumerate(entries):
        at = f"{where}: segments_info[{number}]"
        if not isinstance(entry, dict) or "id" not in entry or "category_id" not in entry:
            raise PredictionsError(f"{at}: expected an object with 'id' and 'category_id', got {shown(repr(entry), 60)}")
        segment_id, category_id = entry["id"], entry["category_id"]
        if type(segment_id) is not int or not 0 < segment_id <= LARGEST_ID:
            raise PredictionsError(f"{at}: id: expected a whole number from 1 to {LARGEST_ID}, got {shown(repr(segment_id), 60)}")
        if type(category_id) is not int or category_id not in categories:
            raise PredictionsError(
                f"{at}: category {shown(repr(category_id), 60)} is not in the dataset (its ids run from {min(categories)} to "
                f"{max(categories)}); were contiguous indices written for the dataset's own ids?"
            )
        if segment_id in segments:
            raise PredictionsError(f"{at}: expected segments of different ids, got {segment_id} twice; give each an id of its own")
        segments[segment_id] = Segment(segment_id, categories[category_id])
    return tuple(segments.values())


def _complete(path: Path, folder: Path, found: Mapping[ImageId, PanopticEntry], required: Collection[ImageId]) -> None:
    missing = [image_id for image_id in required if image_id not in found]
    if missing:
        raise PredictionsError(
            f"{path}: no prediction for image {missing[0]!r}{_more(missing)}; an image in which nothing was found has an entry "
            "without segments and a black PNG"
        )
    absent = [found[image_id][0] for image_id in required if not found[image_id][0].is_file()]
    if absent:
        raise PredictionsError(f"{absent[0]}: no such PNG{_more(absent)}; {path} names it, and PNGs are looked for in {folder}")


def _more(items: Sequence[object]) -> str:
    return f" (and {len(items) - 1} more)" if len(items) > 1 else ""
