"""Cityscapes' submission form for instances: a text file per image, and a PNG per mask beside it.

    FOLDER/frankfurt_000000_000294_pred.txt     a line per prediction: "path/of/mask.png label_id confidence"
    FOLDER/frankfurt_000000_000294_000.png      0 outside the mask, anything else inside

Convention: cityscapesScripts ``evalInstanceLevelSemanticLabeling``: the text file of an image may lie anywhere in the folder and
is found by its name, which begins with the image's id; paths of masks are relative to the text file and stay in the folder; a
path named twice counts once, as its last line says; masks of labels that are not evaluated are never opened.
"""

import math
import os
import urllib.parse
from bisect import bisect_left
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.errors import PredictionsError, shown
from m2fbench.files import map_over
from m2fbench.formats import png
from m2fbench.types import Example, ImageId, JsonObject, Rle, Size

LABEL_IDS = range(-1, 34)
"""Every label id that Cityscapes knows."""

_LINE = "expected 'path/of/mask.png label_id confidence', parted by single spaces"


def write(folder: Path, image_id: ImageId, entries: Sequence[JsonObject], compress_level: int = 6) -> Path:
    """Write one image's COCO results (run-length encodings, Cityscapes label ids) and return its text file.

    The text file comes last and each file appears whole, so where it stands its masks stand too. compress_level: of the PNGs, 0..9.
    """
    import hotcoco.mask

    folder.mkdir(parents=True, exist_ok=True)
    stem = urllib.parse.quote(str(image_id), safe="")
    text = folder / f"{stem}_pred.txt"
    text.unlink(missing_ok=True)  # an older one would name masks that are being replaced
    lines = []
    for number, entry in enumerate(entries):
        mask = Image.fromarray(hotcoco.mask.decode(entry["segmentation"]) * np.uint8(255))
        path = folder / f"{stem}_{number:03d}.png"
        part = path.with_name(f"{path.name}.part")
        mask.save(part, format="PNG", compress_level=compress_level)
        part.replace(path)
        lines.append(f"{path.name} {entry['category_id']} {float(entry['score'])!r}\n")
    part = text.with_name(f"{text.name}.part")
    part.write_text("".join(lines), encoding="utf-8")
    part.replace(text)
    return text


def read(folder: Path, examples: Sequence[Example], category_ids: Collection[int]) -> list[JsonObject]:
    """The predictions of these images as COCO results, image by image; those of other labels than ``category_ids`` are left out.

    Raises PredictionsError for the first file or line that is not what the official script takes.
    """
    names = sorted((file, base) for base, _, files in os.walk(folder) for file in files if file.endswith(".txt"))
    if not names:
        raise PredictionsError(f"{folder}: expected Cityscapes predictions (a text file per image), found no .txt file")
    wanted = [
        (example, path, line, label, confidence)
        for example in examples
        for path, (line, label, confidence) in _lines(folder, _text_of(folder, example, names)).items()
        if label in category_ids
    ]
    masks = map_over(lambda w: _read_mask(w[1], w[0].size, w[2]), wanted)
    return [
        {"image_id": example.image_id, "category_id": label, "segmentation": mask, "score": confidence}
        for (example, _, _, label, confidence), mask in zip(wanted, masks, strict=True)
    ]


def _text_of(folder: Path, example: Example, names: Sequence[tuple[str, str]]) -> Path:
    """The text file of an image among all (name, folder) in order."""
    stem = urllib.parse.quote(str(example.image_id), safe="")
    found = []
    for name, base in names[bisect_left(names, (stem, "")) :]:
        if not name.startswith(stem):
            break
        found.append(Path(base) / name)
    if not found:
        raise PredictionsError(
            f"{folder}: expected a file {stem}*.txt for image {example.image_id}, found none; an image without predictions has an empty one"
        )
    if len(found) > 1:
        raise PredictionsError(
            f"{folder}: expected one file {stem}*.txt for image {example.image_id}, found {found[0]} and {found[1]}; remove one of them"
        )
    return found[0]


def _lines(folder: Path, text: Path) -> dict[Path, tuple[str, int, float]]:
    """Mask path -> (file and line for messages, label id, confidence)."""
    try:
        lines = text.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise PredictionsError(f"{text}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise PredictionsError(f"{text}: {_LINE}, got bytes that are no text") from error
    found = {}
    root = os.path.abspath(folder)  # noqa: PTH100  # as the official script: ".." is resolved in the text, links are not followed
    for number, line in enumerate(lines, 1):
        where = f"{text}:{number}"
        parts = line.split(" ")
        if len(parts) != 3 or not parts[0]:
            raise PredictionsError(f"{where}: {_LINE}, got {shown(line, 60)!r}")
        path = Path(os.path.abspath(text.parent / parts[0].replace("\0", "?")))  # noqa: PTH100
        if Path(parts[0]).is_absolute() or not path.is_relative_to(root):
            raise PredictionsError(f"{where}: expected a mask inside {folder}, got {shown(parts[0])!r}")
        found[path] = (where, _label(parts[1], where), _confidence(parts[2], where))
    return found


def _label(text: str, where: str) -> int:
    value = _number(text)
    if not value.is_integer() or int(value) not in LABEL_IDS:
        raise PredictionsError(
            f"{where}: expected a Cityscapes label id ({LABEL_IDS[0]} to {LABEL_IDS[-1]}, not a train id), got {shown(text, 40)!r}"
        )
    return int(value)


def _confidence(text: str, where: str) -> float:
    value = _number(text)
    if not math.isfinite(value):
        raise PredictionsError(f"{where}: expected a finite number as confidence, got {shown(text, 40)!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _read_mask(path: Path, size: Size, where: str) -> Rle:
    """The mask in a PNG as a run-length encoding; everything but 0 is inside."""
    sparse = png.decode_sparse(path)
    if sparse is not None and sparse[0] == size:
        return _encoded(sparse[2], size, sparse[1])
    quick = png.decode(path)
    if quick is not None and quick.dtype == np.uint8 and quick.shape == size:
        return _encoded(cast(NDArray[np.uint8], quick), size)
    try:
        with png.opened(path) as image:
            if image.size != (size[1], size[0]):
                raise PredictionsError(
                    f"{where}: {path}: expected a mask of {size[1]}x{size[0]} pixels as the image has, got {image.size[0]}x{image.size[1]}"
                )
            mask = np.asarray(image.convert("L"))
    except PredictionsError:
        raise
    except FileNotFoundError as error:
        raise PredictionsError(f"{where}: mask {path} is not there") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PredictionsError(f"{where}: mask {path} cannot be read as an image: {shown(error)}") from error
    return _encoded(mask, size)


def _encoded(mask: NDArray[np.uint8], size: Size, start: int = 0) -> Rle:
    """The run-length encoding, at ``size``, of what is not 0 in rows [R, W], of which the first is row ``start`` of the image.

    From its bounding box alone: turning a whole map takes far longer.
    """
    import hotcoco.mask

    height, width = size
    rows = np.flatnonzero(mask.max(1, initial=0))
    edges = np.zeros(0, np.int64)
    if len(rows):
        top, bottom = rows[0], rows[-1] + 1
        columns = np.flatnonzero(mask[top:bottom].max(0))
        left, right = columns[0], columns[-1] + 1
        box = np.zeros((right - left, bottom - top + 2), bool)
        box[:, 1:-1] = mask[top:bottom, left:right].T != 0
        column, row = np.divmod(np.flatnonzero(box[:, 1:] != box[:, :-1]), box.shape[1] - 1)
        edges = (column + left) * height + row + top + start  # where runs begin and end by turns
        touching = np.flatnonzero(edges[1:-1:2] == edges[2::2])  # a run to the foot of a column goes on in the next
        edges = np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    counts = counts if counts[-1] or len(counts) == 1 else counts[:-1]
    rle: Any = hotcoco.mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": rle["counts"].decode("ascii")}
