"""Datasets that keep images and truth as files side by side: sizes from headers, label PNGs, partners that are missing."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image

from m2fbench.errors import DatasetError, ImageError, shown
from m2fbench.files import map_over
from m2fbench.formats import png
from m2fbench.formats.label_png import read_labels
from m2fbench.formats.panoptic import areas_and_boxes, segment_rles
from m2fbench.types import Category, Example, ImageId, JsonObject, LabelMap, PanopticMap, Size

ORIENTATION = 0x0112  # EXIF tag; 5 to 8 are quarter turns


def header_size(path: Path, *, exif_rotation: bool = False) -> Size:
    """(height, width) as the header says it, without decoding; turned by EXIF if asked. Raises ImageError."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = exif_rotation and _exif(image, path).get(ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # damaged bytes make PIL raise anything
        raise ImageError(f"{path}: not a readable image ({shown(error)}); replace it") from error
    return (width, height) if turned else (height, width)


def _exif(image: Image.Image, path: Path) -> Image.Exif:
    """What Pillow would read once it has decoded the image: it decodes every PNG to look for EXIF at its end."""
    front = image.format == "PNG" and not png.orientation_last(path)
    return Image.Image.getexif(image) if front else image.getexif()


def image_sizes(images: Mapping[ImageId, Path], truth: Callable[[ImageId], Path], *, exif_rotation: bool = False) -> list[Size]:
    """The size of every image; of one that cannot be read, its truth's, so that a run may leave it out and go on."""

    def size(item: tuple[ImageId, Path]) -> Size:
        try:
            return header_size(item[1], exif_rotation=exif_rotation)
        except ImageError:
            if truth(item[0]).is_file():
                return header_size(truth(item[0]))
            raise

    return list(map_over(size, images.items()))


def read_values(path: Path, size: Size) -> LabelMap:
    """The values of a label PNG as they stand, [height, width]; raises DatasetError where it is none, or not of ``size``."""
    if not path.is_file():
        raise DatasetError(
            f"{path}: no such file, yet its image is there; unpack the dataset again, or score a split that has truth"
        )
    values = read_labels(path)
    if values.shape != size:
        raise DatasetError(
            f"{path}: expected {size[1]}x{size[0]} pixels as the image has, got {values.shape[1]}x{values.shape[0]}; it belongs to "
            f"another image or version"
        )
    return values


def things_as_coco(
    examples: Sequence[Example],
    panoptic_truth: Callable[[Example], PanopticMap],
    categories: Sequence[Category],
    category_ids: Sequence[int],
) -> JsonObject:
    """The things of panoptic truth as COCO annotations: RLE masks, areas of masks, crowds as crowds."""

    def things(example: Example) -> list[JsonObject]:
        truth = panoptic_truth(example)
        truth = PanopticMap(truth.ids, tuple(s for s in truth.segments if categories[s.category].is_thing))
        return [
            {"image_id": example.image_id, "category_id": category_ids[s.category], "iscrowd": int(s.is_crowd), "area": area,
             "bbox": box, "segmentation": rle}
            for s, rle, area, box in zip(
                truth.segments, segment_rles(truth), *(a.tolist() for a in areas_and_boxes(truth)), strict=True
            )
        ]  # fmt: skip

    found = [annotation for per_image in map_over(things, examples) for annotation in per_image]
    return {
        "images": [{"id": e.image_id, "file_name": e.source, "height": e.size[0], "width": e.size[1]} for e in examples],
        "categories": [{"id": i, "name": c.name} for i, c in zip(category_ids, categories, strict=True) if c.is_thing],
        "annotations": [{"id": number, **annotation} for number, annotation in enumerate(found, 1)],
    }


def check_files(paths: Sequence[Path], problem: str, remedy: str) -> None:
    """Raises DatasetError naming the first of ``paths``, if any, and their number."""
    if paths:
        raise DatasetError(f"{paths[0]}: {problem} ({len(paths)} such file{'s' * (len(paths) > 1)}); {remedy}")


def raise_first(problems: Sequence[str]) -> None:
    """Raises DatasetError with the first of them, if any, and their number: one for each file."""
    if problems:
        raise DatasetError(problems[0] + (f" ({len(problems)} such files)" if len(problems) > 1 else ""))
