"""Panoptic counts where truth and prediction are both PNGs on disk: by hotcoco, which decodes and compares them without Python.

Two thirds of the time that Python needs for an image is PIL's decoding. hotcoco computes as panopticapi does, the annotation's
areas and the last crowd region of a class included; tests hold it to the same figures. It takes the indices of a palette for ids and
words its errors in its own way, so it is given plain RGB files only, and whatever it refuses is left to Python.

Precondition: the dataset's ``check`` has passed, as it has before anything is scored. hotcoco scores truth whose PNG and JSON list
different segments as if that were meant, and does not tell; ``check`` refuses it, and so does the way through Python.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from m2fbench.formats.panoptic_predictions import PanopticEntry
from m2fbench.types import Dataset, Example, ImageId, JsonObject, Segment, Size

_SIGNATURE = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_RGB = (b"\x08\x02", b"\x08\x06")  # 8 bits a channel, without and with alpha


@runtime_checkable
class PanopticFiles(Protocol):
    """A dataset whose panoptic truth lies in COCO panoptic PNGs."""

    def panoptic_file(self, example: Example) -> PanopticEntry:
        """The PNG of one image, and the segments that its JSON lists for it."""
        ...


def counts_of_files(
    dataset: Dataset, examples: Sequence[Example], entries: Mapping[ImageId, PanopticEntry]
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """tp, fp, fn and true segments that are no crowd, int64 [4, C]; and sums of IoU, float64 [C].

    None where this way is not open: the truth is not in files, a file is no plain RGB PNG of its image's size, or cannot be scored.
    """
    if not isinstance(dataset, PanopticFiles) or not examples:
        return None
    true, found = [dataset.panoptic_file(e) for e in examples], [entries[e.image_id] for e in examples]
    areas = all(segment.area is not None for _, segments in true for segment in segments)
    if not areas or not all(_plain(t[0], e.size) and _plain(f[0], e.size) for t, f, e in zip(true, found, examples, strict=True)):
        return None
    from hotcoco.panoptic import PanopticEval

    classes = len(dataset.categories)
    categories = [{"id": k, "name": str(k), "isthing": 1} for k in range(classes)]
    images = [{"id": k, "file_name": "", "height": e.size[0], "width": e.size[1]} for k, e in enumerate(examples)]
    truth = {"images": images, "categories": categories, "annotations": _annotations(true)}
    try:
        evaluation = PanopticEval(truth, {"annotations": _annotations(found)}, gt_folder=".", pred_folder=".")
        evaluation.evaluate()
        by_class = evaluation.results()["per_class"]
    except (ValueError, OSError):
        return None
    counts = np.array([[by_class[k][name] for k in range(classes)] for name in ("tp", "fp", "fn")], np.int64)
    uncrowded = [segment.category for _, segments in true for segment in segments if not segment.is_crowd]
    return np.vstack([counts, np.bincount(uncrowded, minlength=classes)]), np.array([by_class[k]["iou"] for k in range(classes)])


def _annotations(entries: Sequence[PanopticEntry]) -> list[JsonObject]:
    return [
        {"image_id": k, "file_name": str(path.resolve()), "segments_info": [_listed(s) for s in segments]}
        for k, (path, segments) in enumerate(entries)
    ]


def _listed(segment: Segment) -> JsonObject:
    return {"id": segment.id, "category_id": segment.category, "area": segment.area or 0, "iscrowd": int(segment.is_crowd)}


def _plain(path: Path, size: Size) -> bool:
    """Whether this is an RGB PNG of that size, by its header."""
    try:
        with path.open("rb", buffering=0) as file:
            header = file.read(26)
    except OSError:
        return False
    height, width = (number.to_bytes(4, "big") for number in size)
    return header[:24] == _SIGNATURE + width + height and header[24:] in _RGB
