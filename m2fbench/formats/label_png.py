"""Label PNGs: one grey value (or palette index) a pixel, which is the class; both ways, and anyone's folder of them."""

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import DatasetError, M2FBenchError, PredictionsError, shown
from m2fbench.formats import png
from m2fbench.formats.names import file_stem, name_matcher
from m2fbench.types import Example, ImageId, LabelMap

# what the Cityscapes tools write beside a label map; its pixels are colours, instances or training ids
_NOT_LABELS = ("_color", "_instanceIds", "_instanceTrainIds", "_labelTrainIds")

ErrorType = type[M2FBenchError]


def read_labels(path: Path, error: ErrorType = DatasetError) -> LabelMap:
    """The values in a label PNG as they stand: uint8 or uint16 [H, W].

    Grey of 1, 2, 4, 8 or 16 bits, or a palette, whose index counts and not its colour. Raises ``error``, naming the file, where it
    is missing, damaged, no PNG (another format may have changed values) or coloured.
    """
    quick = png.decode(path)
    if quick is not None and quick.ndim == 2:
        return quick
    try:
        with png.opened(path, ("PNG",)) as image:
            depth = _bit_depth(path) if image.mode == "L" else 8
            values = np.array(image)
            mode = image.mode
    except FileNotFoundError:
        raise error(f"{path}: no such label PNG") from None
    except MemoryError:
        raise
    except Exception as failure:  # decoders raise whatever damaged bytes lead them to
        raise error(f"{path}: not a readable label PNG ({shown(failure)}); write it again") from failure
    if mode == "1":
        return values.astype(np.uint8)
    if mode in ("L", "P"):
        scale = 255 // (2**depth - 1)  # the decoder spreads 2 and 4 bits over 0..255
        return values // np.uint8(scale) if scale > 1 else values
    if mode == "I;16" and values.dtype == np.uint16:
        return values
    if mode in ("I", "I;16B") and values.min(initial=0) >= 0 and values.max(initial=0) <= 65535:
        return values.astype(np.uint16)
    raise error(
        f"{path}: expected a label PNG with one value a pixel (grey, 16-bit grey or palette), got mode {mode}; "
        f"write class values, not colours"
    )


def _bit_depth(path: Path) -> int:
    """Bits a sample, from the PNG's first chunk (signature 8, length 4, name 4, width 4, height 4, depth 1)."""
    with path.open("rb") as file:
        return file.read(25)[24]


def encode_labels(raw: LabelMap) -> bytes:
    """A label PNG, 8 or 16 bits of grey as the type of ``raw`` [H, W] has it."""
    return png.encode(raw)


def no_class(classes: int) -> int:
    """The index that is no class, which also says the type of a map: 255 up to 255 classes (uint8), 65535 beyond (uint16)."""
    return 255 if classes <= 255 else 65535


def to_indices(raw: LabelMap, values: Sequence[int], ignore: Iterable[int] = ()) -> LabelMap:
    """Contiguous indices [H, W]: k where ``raw`` is ``values[k]``; 255 (65535 beyond 255 classes) where it is none of them, or one of
    ``ignore``."""
    nothing = no_class(len(values))
    table = _filled(np.iinfo(raw.dtype).max + 1, nothing)
    for index, value in enumerate(values):
        if 0 <= value < len(table):
            table[value] = index
    for value in ignore:
        if 0 <= value < len(table):
            table[value] = nothing
    return _look_up(table, raw)


def to_values(indices: LabelMap, values: Sequence[int], other: int) -> LabelMap:
    """The dataset's own values [H, W] of contiguous indices; ``other`` where there is no class. uint8 if all values fit, else uint16."""
    table = _filled(np.iinfo(indices.dtype).max + 1, other, max([*values, other]))
    table[: len(values)] = values
    return _look_up(table, indices)


def other_value(values: Collection[int]) -> int:
    """A value for "no class" that is not one of ``values``: 255, or the smallest that is free."""
    return 255 if 255 not in values else next(v for v in range(65536) if v not in values)


def _filled(length: int, value: int, largest: int = 0) -> LabelMap:
    """[length] of ``value``, of the smaller type that it and ``largest`` fit into."""
    return np.full(length, value, np.uint8) if max(value, largest) <= 255 else np.full(length, value, np.uint16)


def _look_up(table: LabelMap, keys: LabelMap) -> LabelMap:
    if table.dtype == keys.dtype == np.uint8:  # several times as fast as indexing
        return np.frombuffer(bytearray(np.ascontiguousarray(keys)).translate(table.tobytes()), np.uint8).reshape(keys.shape)
    return table[keys]


def unexpected_values(raw: LabelMap, allowed: Collection[int]) -> dict[int, int]:
    """Each value of ``raw`` that is not allowed, and in how many pixels it stands; ascending."""
    pixels: NDArray[np.int64] = np.bincount(raw.ravel())
    return {value: int(pixels[value]) for value in np.flatnonzero(pixels).tolist() if value not in allowed}


def read_prediction(path: Path, example: Example, values: Sequence[int]) -> LabelMap:
    """One image's predicted map as contiguous indices; values that are not in ``values`` are no class.

    Raises PredictionsError, naming the file, where it cannot be read or has another size than the image.
    """
    return to_indices(read_raw_prediction(path, example), values)


def read_raw_prediction(path: Path, example: Example) -> LabelMap:
    """One image's predicted map by the values in its file; raises as ``read_prediction`` does."""
    raw = read_labels(path, PredictionsError)
    if raw.shape != example.size:
        height, width = example.size
        raise PredictionsError(
            f"{path}: expected {width}x{height} pixels as image {example.image_id!r} has, got {raw.shape[1]}x{raw.shape[0]}; "
            f"predict at the image's own size"
        )
    return raw


def find_label_pngs(folder: Path, examples: Sequence[Example]) -> dict[ImageId, Path]:
    """The label PNG of each example in anyone's folder of them, subfolders included.

    A file is an image's if its name is the image's id (as by ``file_stem``, or plainly), or else begins with it, as the official
    Cityscapes script has it (``<city>_123456_123456*.png``); of several of those the one in ``_labelIds`` counts, and what the
    Cityscapes tools call colours, instances or training ids does not. Raises PredictionsError where an image has none or several.
    """
    if not folder.is_dir():
        raise PredictionsError(f"{folder}: expected a folder of label PNGs, got {'a file' if folder.exists() else 'nothing'}")
    exact, begun = _candidates(folder, name_matcher(e.image_id for e in examples))
    found: dict[ImageId, Path] = {}
    missing: list[ImageId] = []
    for image_id in (e.image_id for e in examples):
        files = exact.get(image_id) or begun.get(image_id) or []
        if len(files) > 1:
            files = [f for f in files if f.stem.endswith("_labelIds")] or files
        if len(files) > 1:
            raise PredictionsError(
                f"{folder}: expected one label PNG for image {image_id!r}, got {len(files)}: {files[0].relative_to(folder)}, "
                f"{files[1].relative_to(folder)}; keep one of them"
            )
        if files:
            found[image_id] = files[0]
        else:
            missing.append(image_id)
    if missing:
        raise PredictionsError(
            f"{folder}: no label PNG for {len(missing)} of {len(examples)} images, the first being {missing[0]!r} (expected "
            f"{shown(file_stem(missing[0]))}.png, or a name that begins so); predict every image, or score a part of them with --limit"
        )
    return found


def _candidates(
    folder: Path, match: Callable[[str], tuple[ImageId, bool] | None]
) -> tuple[Mapping[ImageId, list[Path]], Mapping[ImageId, list[Path]]]:
    """The PNGs whose name is an image's id, and those whose name begins with one."""
    exact: dict[ImageId, list[Path]] = {}
    begun: dict[ImageId, list[Path]] = {}
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if not name.lower().endswith(".png"):
                continue
            path = Path(root) / name
            matched = match(path.relative_to(folder).as_posix())
            if matched is not None and (matched[1] or not path.stem.endswith(_NOT_LABELS)):
                (exact if matched[1] else begun).setdefault(matched[0], []).append(path)
    return exact, begun
