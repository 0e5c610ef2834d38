"""Examples of an examination: what a few queries of one image predict and look at, layer by layer, in an .npz file."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import StoreError
from m2fbench.types import ImageId, JsonObject, Size

NO_OBJECT = "no object"


@dataclass(frozen=True)
class ExampleMaps:
    """The masks and the attention of K queries in one image, for each of L layers; see ``m2fbench.models.layer_maps.maps_of``.

    size, resized, padded: (height, width) of the image, as resized for the model, and padded. names: of the model's classes. masks: uint8
    [L + 1, K, h, w] over the image. attention, visible: uint8 and bool [K, h, w] of each layer, over the padded input.
    """

    image_id: ImageId
    size: Size
    resized: Size
    padded: Size
    names: tuple[str, ...]
    queries: NDArray[np.int32]
    classes: NDArray[np.int32]
    probabilities: NDArray[np.float32]
    masks: NDArray[np.uint8]
    levels: NDArray[np.int32]
    everywhere: NDArray[np.bool_]
    peaks: NDArray[np.float32]
    attention: tuple[NDArray[np.uint8], ...]
    visible: tuple[NDArray[np.bool_], ...]

    def name(self, prediction: int, query: int) -> str:
        """The class that query number ``query`` of these has after ``prediction`` layers."""
        index = int(self.classes[prediction, query])
        return self.names[index] if index < len(self.names) else NO_OBJECT


def pack_example(facts: JsonObject, maps: Mapping[str, NDArray[Any]]) -> bytes:
    """An .npz file of the maps. facts: image_id, size, resized, padded and names, as in ``ExampleMaps``."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, facts=np.array(json.dumps(facts)), **dict(maps))  # type: ignore[arg-type]
    return buffer.getvalue()


def read_example(path: Path) -> ExampleMaps:
    """Raises StoreError."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            layers = range(1, len(stored["levels"]) + 1)
            names = ("queries", "classes", "probabilities", "masks", "levels", "everywhere", "peaks")
            return ExampleMaps(
                image_id=facts["image_id"],
                size=_size(facts["size"]),
                resized=_size(facts["resized"]),
                padded=_size(facts["padded"]),
                names=tuple(map(str, facts["names"])),
                attention=tuple(stored[f"attention_{n}"] for n in layers),
                visible=tuple(stored[f"visible_{n}"] for n in layers),
                **{name: stored[name] for name in names},
            )
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise StoreError(f"{path}: not an example of an examination ({error!r}); examine the run again") from error


def _size(values: Sequence[int]) -> Size:
    height, width = values
    return int(height), int(width)
