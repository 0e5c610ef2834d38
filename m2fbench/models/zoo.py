"""The original model zoo by name: ``zoo:coco/instance/R50`` and where each checkpoint is published (zoo.json).

Rows and test settings: MODEL_ZOO.md and the configs of facebookresearch/Mask2Former 9b0651c. The six digits in a file's name are the
beginning of its MD5, as MODEL_ZOO.md says.
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

from m2fbench.errors import CheckpointError
from m2fbench.registry import near

PREFIX = "zoo:"


@dataclass(frozen=True)
class ZooEntry:
    """A published checkpoint. labels: its label set. min_size, max_size: of the test resize, in pixels. heads: those its config runs.
    threshold: of the panoptic post-processing, None where it has none. resize: "before" or "after" semantic inference."""

    name: str
    url: str
    config: str
    labels: str
    min_size: int
    max_size: int
    queries: int
    heads: tuple[str, ...]
    threshold: float | None
    resize: str

    @property
    def task(self) -> str:
        return self.name.split("/")[1]

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[-1]


@functools.cache
def zoo_entries() -> dict[str, ZooEntry]:
    """By name, in the order of the published tables."""
    rows = json.loads((Path(__file__).parent / "zoo.json").read_text())
    return {row["name"]: ZooEntry(**row | {"heads": tuple(row["heads"])}) for row in rows}


def is_zoo(reference: str) -> bool:
    return reference[: len(PREFIX)].casefold() == PREFIX


def zoo_entry(reference: str) -> ZooEntry:
    """The entry that ``zoo:DATASET/TASK/BACKBONE`` means, upper and lower case aside. Raises CheckpointError with the nearest name."""
    known = {name.casefold(): entry for name, entry in zoo_entries().items()}
    name = reference[len(PREFIX) :].casefold()
    if name not in known:
        beside = [entry.name for key, entry in known.items() if "/" in name and key.startswith(name.rsplit("/", 1)[0] + "/")]
        hint = f"; there are {', '.join(beside)}" if beside else near(name, known)
        raise CheckpointError(
            f"{reference}: no such checkpoint in the model zoo{hint}; 'm2fbench list checkpoints' has all of them"
        )
    return known[name]


def entry_of_file(name: str) -> ZooEntry | None:
    """The entry whose file has this name; that the content is the published one is for the caller to see (``hash_in_name``)."""
    return next((entry for entry in zoo_entries().values() if entry.file == name), None)


def hash_in_name(name: str) -> tuple[str, str] | None:
    """(algorithm, beginning of the hash) that a file's name promises; None where it promises none.

    Conventions: detectron2's model zoo (``model_final_94dc52.pkl``, MD5), torch hub's and mmdetection's (``name-743b7d99.pth``, SHA-256).
    """
    if match := re.fullmatch(r"model_final_([0-9a-f]{6})\.pkl", name):
        return "md5", match[1]
    if match := re.search(r"-(?=\d*[a-f])([0-9a-f]{8})\.(pth|pt|bin|safetensors)$", name):  # eight digits alone are a date
        return "sha256", match[1]
    return None
