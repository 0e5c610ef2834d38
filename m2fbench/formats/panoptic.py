"""COCO's panoptic format, both ways: one JSON, and for each image a PNG whose colours are segment ids.

Convention: https://cocodataset.org/#format-data and #format-results: id = R + 256 G + 65536 B, 0 is void, and every other id in
a PNG is listed in the JSON. Everything here works on runs of equal ids, of which a map has a twentieth of its pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import M2FBenchError, PredictionsError, shown
from m2fbench.formats import png
from m2fbench.types import Category, Example, ImageId, JsonObject, PanopticMap, Rle, Segment, Size

LARGEST_ID = 256**3 - 1
_MODES = ("RGB", "RGBA", "P")

Ints = NDArray[np.int64]


def read_ids(path: Path, size: Size | None = None, error: type[M2FBenchError] = PredictionsError) -> NDArray[np.int32]:
    """int32 [H, W], the segment ids of a PNG: RGB, with or without alpha (which says nothing), or a palette of such colours.

    Raises ``error`` in one line, naming the file, where it is missing, damaged, of another kind, or not of ``size``.
    """
    quick = png.decode(path)
    if quick is not None and quick.ndim == 3 and size in (None, quick.shape[:2]):
        height, width = quick.shape[:2]
        samples = np.append(quick.ravel(), np.uint8(0))  # four bytes from every third on: an id, and a byte of the next one
        return np.ndarray((height, width), "<i4", samples, 0, (3 * width, 3)) & LARGEST_ID
    try:
        with png.opened(path) as image:
            if image.mode not in _MODES:
                raise error(f"{path}: expected an RGB image (segment id = R + 256 G + 65536 B), got mode {image.mode}")
            if size is not None and (image.height, image.width) != size:
                raise error(f"{path}: expected {size[1]}x{size[0]} pixels as the image has, got {image.width}x{image.height}")
            content = (image if image.mode == "RGB" else image.convert("RGB")).tobytes()
            shape = image.height, image.width
    except FileNotFoundError:
        raise error(f"{path}: no such file; the JSON names it") from None
    except (M2FBenchError, MemoryError):
        raise
    except Exception as failure:  # decoders raise whatever damaged bytes lead them to
        raise error(f"{path}: not a readable PNG ({shown(failure)}); write or copy it again") from failure
    three_of_four = np.ndarray(shape, "<u4", content + b"\0", strides=(3 * shape[1], 3))  # each pixel with the next one's red
    return (three_of_four & LARGEST_ID).view(np.int32)


def encode_ids(ids: NDArray[np.integer[Any]]) -> bytes:
    """PNG bytes of ids [H, W], each 0 to 2^24 - 1. Quick rather than small."""
    pixels = np.ascontiguousarray(ids, "<u4").view(np.uint8).reshape(*ids.shape, 4)
    return png.encode(pixels[..., :3])


def run_starts(*maps: NDArray[np.integer[Any]]) -> Ints:
    """Where in flat maps of one length the runs begin over which none of them changes; int64 [R], the first is 0."""
    changes = maps[0][1:] != maps[0][:-1]
    for other in maps[1:]:
        changes |= other[1:] != other[:-1]
    return np.concatenate([[0], np.flatnonzero(changes) + 1]) if len(maps[0]) else np.zeros(0, np.int64)


def segment_index(values: NDArray[np.integer[Any]], segments: Sequence[Segment]) -> Ints:
    """For each id its place in ``segments`` plus 1; 0 for void, ``len(segments) + 1`` for an id that is not listed."""
    listed = np.array([0, *(segment.id for segment in segments)], np.int64)
    order = np.argsort(listed, kind="stable")
    ascending = listed[order]
    place = np.searchsorted(ascending, values).clip(max=len(listed) - 1)
    return np.where(ascending[place] == values, order[place], len(listed))


def areas_and_boxes(panoptic: PanopticMap) -> tuple[Ints, Ints]:
    """Pixels of each segment, int64 [N], and its box (left, top, width, height), int64 [N, 4]; zeros for one without a pixel."""
    height, width = panoptic.ids.shape
    flat = panoptic.ids.ravel()
    starts = np.union1d(run_starts(flat), np.arange(height, dtype=np.int64) * width) if flat.size else np.zeros(0, np.int64)
    lengths = np.diff(starts, append=flat.size)
    index = segment_index(flat[starts], panoptic.segments)
    count = len(panoptic.segments)
    areas = np.bincount(index, lengths, count + 2).astype(np.int64)[1 : count + 1]
    top, left = np.divmod(starts, max(width, 1))
    boxes = np.zeros((count + 2, 4), np.int64)
    order = np.argsort(index, kind="stable")
    found, first = np.unique(index[order], return_index=True)
    for column, values, chosen in (
        (0, left, np.minimum), (1, top, np.minimum), (2, left + lengths, np.maximum), (3, top + 1, np.maximum),
    ):  # fmt: skip
        boxes[found, column] = chosen.reduceat(values[order], first) if len(found) else 0
    boxes[:, 2:] -= boxes[:, :2]
    return areas, boxes[1 : count + 1]


def to_annotation(image_id: ImageId, file_name: str, panoptic: PanopticMap, category_ids: Sequence[int]) -> JsonObject:
    """One image's entry in the JSON. file_name: of its PNG. category_ids: the dataset's own id of each category index.

    ``area`` is what the segment says, or else the count of its pixels.
    """
    areas, boxes = areas_and_boxes(panoptic)
    segments = [
        {
            "id": s.id, "category_id": category_ids[s.category], "area": pixels if s.area is None else s.area, "bbox": box,
            "iscrowd": int(s.is_crowd),
        }
        for s, pixels, box in zip(panoptic.segments, areas.tolist(), boxes.tolist(), strict=True)
    ]  # fmt: skip
    return {"image_id": image_id, "file_name": file_name, "segments_info": segments}


def document(images: Sequence[Example], annotations: Sequence[JsonObject], categories: Mapping[int, Category]) -> JsonObject:
    """The whole JSON. categories: by the dataset's own id."""
    return {
        "images": [
            {"id": e.image_id, "height": e.size[0], "width": e.size[1], "file_name": PurePosixPath(e.source).name} for e in images
        ],
        "annotations": list(annotations),
        "categories": [{"id": i, "name": c.name, "isthing": int(c.is_thing)} for i, c in categories.items()],
    }


def segment_rles(panoptic: PanopticMap) -> list[Rle]:
    """The mask of each segment, compressed."""
    import hotcoco.mask

    height, width = panoptic.ids.shape
    flat = panoptic.ids.ravel(order="F")
    starts = run_starts(flat)
    index = segment_index(flat[starts], panoptic.segments)
    ends = np.append(starts[1:], flat.size)
    rles: list[Rle] = []
    for number in range(1, len(panoptic.segments) + 1):
        mine = index == number
        edges = np.stack([starts[mine], ends[mine]], 1).ravel()
        counts = np.diff(edges, prepend=0, append=flat.size).tolist()
        counts = counts if counts[-1] else counts[:-1]  # a run of no zeros at the end is not the official encoder's
        rle: Any = hotcoco.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
        rles.append({"size": [height, width], "counts": rle["counts"].decode("ascii")})
    return rles


def listing_problem(ids: NDArray[np.int32], segments: Sequence[Segment]) -> str | None:
    """What the ids of a PNG and the segments that the JSON lists for it do not share, the first of it; None where they agree."""
    flat = ids.ravel()
    there = set(np.unique(flat[run_starts(flat)]).tolist()) - {0}
    listed = {segment.id for segment in segments}
    for ids_of_one, found, missing in ((there - listed, "PNG", "JSON"), (listed - there, "JSON", "PNG")):
        if ids_of_one:
            more = f" and {len(ids_of_one) - 1} more" if len(ids_of_one) > 1 else ""
            return f"segment {min(ids_of_one)}{more} is in the {found} and not in the {missing}"
    return None


def read_map(
    path: Path, segments: Sequence[Segment], size: Size | None = None, error: type[M2FBenchError] = PredictionsError
) -> PanopticMap:
    """A PNG with the segments that the JSON lists for it. Raises ``error`` as ``read_ids`` does, and where the two do not agree."""
    ids = read_ids(path, size, error)
    if problem := listing_problem(ids, segments):
        raise error(f"{path}: {problem}; write both again, from one map")
    return PanopticMap(ids, tuple(segments))
