"""detectron2's sem_seg_predictions.json: a list of {file_name, category_id, segmentation}, one entry per image and class.

Convention: ``SemSegEvaluator.encode_json_sem_seg`` of detectron2 02b5c4e. ``category_id`` is the dataset's own id where the dataset
was registered with ``stuff_dataset_id_to_contiguous_id`` (COCO's panoptic ids, Mapillary's 1..65 of a panoptic model), and the
contiguous index where it was not (ADE20K, and Mapillary of a semantic model: from 0). A reader whose ids in such files are not its
``category_ids`` has them as ``sem_seg_ids``. The masks of one image do not overlap.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError, shown
from m2fbench.formats.collecting import paused_collector
from m2fbench.formats.label_png import encode_labels, no_class, other_value, to_values
from m2fbench.formats.names import Match, file_stem, name_matcher
from m2fbench.formats.rle import decode_counts, segmentation_problems
from m2fbench.types import Example, ImageId, JsonObject, LabelMap, Rle, Size

Parts = list[tuple[int, int, Rle]]
"""Of one image: (number of the entry, category index, mask)."""


def read_sem_seg(
    path: Path, examples: Sequence[Example], category_ids: Sequence[int], folder: Path, values: Sequence[int]
) -> dict[ImageId, Path]:
    """Write the predictions in ``path`` as label PNGs into ``folder``; the path of each example's.

    category_ids: the id of each category in the file. values: the value of each category in the PNGs. Pixels without an entry get
    a value that is no class. Entries of images that are not among ``examples`` are passed over. Raises PredictionsError naming the
    first entry that is not a prediction for this dataset, or the first image that has none.
    """
    sizes = {example.image_id: example.size for example in examples}
    with paused_collector():
        entries = _entries(path)
        parts = _by_image(path, entries, sizes, {category: index for index, category in enumerate(category_ids)})
    missing = [e.image_id for e in examples if e.image_id not in parts]
    if missing:
        raise PredictionsError(
            f"{path}: no entry for {len(missing)} of {len(examples)} images, the first being {missing[0]!r}; are these predictions for "
            f"another dataset, or for a part of it (then score with --limit)?"
        )
    folder.mkdir(parents=True, exist_ok=True)
    other = other_value(values)
    written: dict[ImageId, Path] = {}
    for image_id, size in sizes.items():
        written[image_id] = folder / f"{file_stem(image_id)}.png"
        indices = _render(path, parts[image_id], size, len(category_ids))
        written[image_id].write_bytes(encode_labels(to_values(indices, values, other)))
    return written


def _entries(path: Path) -> list[object]:
    try:
        entries = json.loads(path.read_bytes())
    except OSError as error:
        raise PredictionsError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise PredictionsError(f"{path}: not valid JSON ({error}); write it again") from error
    if not isinstance(entries, list):
        raise PredictionsError(f"{path}: expected a JSON list as detectron2 writes it, got a {type(entries).__name__}")
    return entries


def _by_image(path: Path, entries: list[object], sizes: dict[ImageId, Size], indices: dict[int, int]) -> dict[ImageId, Parts]:
    match = name_matcher(sizes)
    matched: dict[str, Match | None] = {}  # an image has many entries
    parts: dict[ImageId, Parts] = {}
    for number, entry in enumerate(entries):
        where = f"{path}: entry {number}"
        file_name, category, mask = _checked(entry, where, indices)
        if file_name not in matched:
            matched[file_name] = match(file_name)
        image = matched[file_name]
        if image is not None:
            parts.setdefault(image.image_id, []).append((number, indices[category], mask))
    problems = segmentation_problems((mask, sizes[i]) for i, of_image in parts.items() for _, _, mask in of_image)
    numbers = (number for of_image in parts.values() for number, _, _ in of_image)
    for number, problem in zip(numbers, problems, strict=True):
        if problem:
            raise PredictionsError(f"{path}: entry {number}: segmentation: {problem}")
    return parts


def _checked(entry: object, where: str, indices: dict[int, int]) -> tuple[str, int, JsonObject]:
    if not isinstance(entry, dict):
        raise PredictionsError(f"{where}: expected an object, got a {type(entry).__name__}")
    for key in ("file_name", "category_id", "segmentation"):
        if key not in entry:
            raise PredictionsError(f"{where}: expected the key '{key}', got {shown(', '.join(entry)) or 'none'}")
    file_name, category, mask = entry["file_name"], entry["category_id"], entry["segmentation"]
    if not isinstance(file_name, str):
        raise PredictionsError(f"{where}: expected the image's path as file_name, got {shown(repr(file_name), 40)}")
    if type(category) is not int or category not in indices:
        raise PredictionsError(
            f"{where}: category {shown(repr(category), 40)} is not in the dataset (ids in such a file run from {min(indices)} to "
            f"{max(indices)}); was it written for another dataset?"
        )
    if not isinstance(mask, dict):
        raise PredictionsError(f"{where}: segmentation: expected a run-length encoding, got {shown(repr(mask), 40)}")
    return file_name, category, mask


def _render(path: Path, parts: Parts, size: Size, classes: int) -> LabelMap:
    """The map of one image, indices [H, W], from masks that must not overlap."""
    counts = [part[2]["counts"] for part in parts]
    texts = iter(_runs([c for c in counts if isinstance(c, str)]))
    starts, ends, owners = [], [], []
    for number, lengths in enumerate(next(texts) if isinstance(c, str) else np.array(c, np.int64) for c in counts):
        stop = np.cumsum(lengths)[1::2]
        starts.append(stop - lengths[1::2])
        ends.append(stop)
        owners.append(np.full(len(stop), number))
    start, end, owner = np.concatenate(starts), np.concatenate(ends), np.concatenate(owners)
    order = np.argsort(start[end > start], kind="stable")
    start, end, owner = (a[end > start][order] for a in (start, end, owner))
    overlap = np.flatnonzero(start[1:] < end[:-1])
    if len(overlap):
        one, other = sorted(parts[owner[k]][0] for k in (overlap[0], overlap[0] + 1))
        raise PredictionsError(f"{path}: entry {other}: overlaps entry {one} of the same image; expected one class a pixel")
    nothing = no_class(classes)
    edges = np.concatenate([[0], np.stack([start, end], 1).ravel(), [size[0] * size[1]]])
    colours = np.full(len(edges) - 1, nothing, np.uint8 if nothing == 255 else np.uint16)  # gap, mask, gap, mask, ..., gap
    colours[1::2] = np.array([part[1] for part in parts])[owner]
    flat = np.repeat(colours, np.diff(edges))
    indices: LabelMap = np.ascontiguousarray(flat.reshape(size[1], size[0]).T)  # runs go column by column
    return indices


def _runs(counts: list[str]) -> list[NDArray[np.int64]]:
    lengths, per_mask, _ = decode_counts(counts)
    return np.split(lengths, np.cumsum(per_mask)[:-1])
