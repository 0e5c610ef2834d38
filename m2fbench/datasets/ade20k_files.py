"""ADE20K's files: where they lie, what pairs with what, and reading them.

    ADEChallengeData2016/images/validation/ADE_val_00000001.jpg             or a lossless .png
    ADEChallengeData2016/annotations/validation/ADE_val_00000001.png        semantic labels
    ADEChallengeData2016/annotations_instance/validation/ADE_val_00000001.png   instances, from an archive of their own

and, where somebody ran the original code's preparation, what it made of them:

    ADEChallengeData2016/ade20k_panoptic_val.json, ade20k_panoptic_val/ADE_val_00000001.png, ade20k_instance_val.json
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.datasets.ade20k_truth import InstanceLabels, Labels, instances_problem, labels_problem
from m2fbench.errors import DatasetError, ImageError
from m2fbench.formats import png
from m2fbench.types import Example, JsonObject, Size

FOLDER = "ADEChallengeData2016"
IMAGES = "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip"
INSTANCES = "http://sceneparsing.csail.mit.edu/data/ChallengeData2017/annotations_instance.tar"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
PREPARE_AGAIN = "prepare the files again (`m2fbench datasets prepare ade20k`), or remove them"
_SHORT = {"training": "train", "validation": "val"}


@dataclass(frozen=True)
class Layout:
    """The paths of one split; a folder or file of it may be missing. root: what holds ``images`` and ``annotations``."""

    root: Path
    split: str

    @property
    def images(self) -> Path:
        return self.root / "images" / self.split

    @property
    def semantic(self) -> Path:
        return self.root / "annotations" / self.split

    @property
    def instances(self) -> Path:
        return self.root / "annotations_instance" / self.split

    @property
    def short(self) -> str:
        """The split's name in what the original code prepares."""
        return _SHORT.get(self.split, self.split)

    def prepared_panoptic(self, root: Path | None = None) -> tuple[Path, Path]:
        """The JSON file and the folder of its PNGs."""
        name = f"ade20k_panoptic_{self.short}"
        return (root or self.root) / f"{name}.json", (root or self.root) / name

    def prepared_instances(self, root: Path | None = None) -> Path:
        return (root or self.root) / f"ade20k_instance_{self.short}.json"


def locate(data: Path | None, split: str, how_to_get: str) -> Layout:
    """The layout in ``data`` or its subfolder ADEChallengeData2016, whichever has images of the split."""
    roots = [data or Path(), (data or Path()) / FOLDER]
    for root in roots:
        if Layout(root, split).images.is_dir():
            return Layout(root, split)
    looked = " and ".join(str(Layout(root, split).images) for root in roots)
    raise DatasetError(f"dataset ade20k is not here: looked for {looked}; {how_to_get}")


def find_images(layout: Layout) -> dict[str, Path]:
    """Image id -> its file, by ascending id."""
    found: dict[str, Path] = {}
    for path in _listed(layout.images):
        if path.suffix.lower() in IMAGE_ENDINGS:
            if path.stem in found:
                raise DatasetError(
                    f"{path}: expected one image of every id, got {found[path.stem].name} as well; remove one of them"
                )
            found[path.stem] = path
    if not found:
        raise DatasetError(f"{layout.images}: expected images ({', '.join(IMAGE_ENDINGS)}), got none; unpack {IMAGES} again")
    return dict(sorted(found.items()))


def image_size(path: Path) -> Size:
    """(height, width) by the image's header. The labels fit the pixels as stored, so EXIF rotation plays no part."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # as in read_image: damaged bytes make PIL raise anything
        raise ImageError(f"{path}: not a readable image ({error}); unpack {IMAGES} again") from error


def read_semantic(path: Path, size: Size) -> Labels:
    """uint8 [H, W]; raises DatasetError naming the file where it is not a label PNG of that size."""
    labels = _read_png(path, size, ("L", "P"), "one 8-bit channel", IMAGES)
    if problem := labels_problem(labels):
        raise DatasetError(f"{path}: {problem}; it is another file, or of the full ADE20K rather than the challenge's")
    return labels


def read_instances(path: Path, size: Size) -> InstanceLabels:
    """uint8 [H, W, 3]; raises DatasetError naming the file where it is not an instance PNG of that size."""
    labels = _read_png(path, size, ("RGB",), "three 8-bit channels", INSTANCES)
    if problem := instances_problem(labels):
        raise DatasetError(f"{path}: {problem}; unpack {INSTANCES} again")
    return labels


def read_ids(path: Path, size: Size) -> NDArray[np.int32]:
    """Segment ids int32 [H, W] of a panoptic PNG: R + 256 G + 65536 B."""
    colors = _read_png(path, size, ("RGB",), "three 8-bit channels", "").astype(np.int32)
    return colors[..., 0] + 256 * colors[..., 1] + 65536 * colors[..., 2]


def _read_png(path: Path, size: Size, modes: tuple[str, ...], channels: str, archive: str) -> NDArray[np.uint8]:
    remedy = f"unpack {archive} again" if archive else PREPARE_AGAIN
    try:
        with png.opened(path) as image:
            if image.mode not in modes:
                raise DatasetError(f"{path}: expected a PNG of {channels}, got PIL mode {image.mode}; {remedy}")
            values = np.array(image)
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file, and the image has no truth without it; {remedy}") from None
    except DatasetError:
        raise
    except Exception as error:
        raise DatasetError(f"{path}: not a readable PNG ({error}); {remedy}") from error
    if values.shape[:2] != size:
        raise DatasetError(
            f"{path}: expected {size[1]}x{size[0]} pixels as the image has, got {values.shape[1]}x{values.shape[0]}; "
            f"image or labels have been resized: {remedy}"
        )
    return values


def check_partners(images: Iterable[str], folder: Path, archive: str) -> None:
    """Every image has a PNG in ``folder`` and every PNG an image; else DatasetError with the first and how many."""
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}: no such folder, and the task needs it; `m2fbench datasets fetch ade20k` gets it, or unpack {archive} so that "
            f"it lies there"
        )
    wanted, there = set(images), {path.stem for path in _listed(folder) if path.suffix.lower() == ".png"}
    if missing := sorted(wanted - there):
        raise DatasetError(
            f"{folder / missing[0]}.png: no such file, with {len(missing)} of {len(wanted)} images without annotations there; "
            f"unpack {archive} again"
        )
    if extra := sorted(there - wanted):
        raise DatasetError(
            f"{folder / extra[0]}.png: has no image, as {len(extra)} of {len(there)} annotations there; unpack {IMAGES} again, or "
            f"remove the annotations of images that you left out"
        )


def pngs_in(folder: Path) -> list[Path]:
    """The PNGs of a folder, in the order of their names; none without it."""
    return [path for path in _listed(folder) if path.suffix.lower() == ".png"]


def example_of(item: tuple[str, Path]) -> Example:
    return Example(item[0], image_size(item[1]), str(item[1]))


def image_record(example: Example) -> JsonObject:
    """The image as COCO's files name it."""
    height, width = example.size
    return {"id": example.image_id, "file_name": Path(example.source).name, "width": width, "height": height}


def _listed(folder: Path) -> list[Path]:
    """The files of a folder by name, those aside that an operating system leaves behind; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
