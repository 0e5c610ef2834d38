"""What differs between the circumstances of two runs, what most likely explains a changed figure first: pure."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple


class Change(NamedTuple):
    """One circumstance that is not as it was. what: in words. before, after: as recorded, None where it was not known."""

    what: str
    before: object
    after: object


_WORDS = {
    "checkpoint.sha256": "checkpoint",
    "checkpoint.revision": "checkpoint revision",
    "checkpoint.reference": "checkpoint reference",
    "checkpoint.parameters": "parameters",
    "environment.m2fbench_commit": "m2fbench commit",
    "environment.m2fbench": "m2fbench",
    "suite.sha256": "suite",
    "protocol.name": "protocol",
    "protocol.version": "protocol's code version",
    "dataset.name": "dataset",
    "dataset.annotations_sha256": "annotations",
    "dataset.images_sha256": "images (name, size, time)",
    "dataset.first_image_sha256": "first image",
    "device.kind": "device",
    "device.memory_bytes": "device memory (bytes)",
    "device.capability": "device capability",
    "device.cuda": "CUDA",
    "device.cudnn": "cuDNN",
    "device.threads": "threads",
    "gpu.name": "GPU",
    "gpu.driver": "driver",
    "gpu.power_limit_watts": "GPU power limit (W)",
    "gpu.sm_max_mhz": "highest GPU clock (MHz)",
    "gpu.application_sm_mhz": "GPU application clock (MHz)",
    "environment.driver": "driver",
    "environment.machine_name": "machine",
    "environment.processor": "processor",
    "environment.cpu_count": "CPU cores",
    "environment.machine": "architecture",
    "environment.python": "Python",
    "environment.platform": "operating system",
}
"""By circumstance; of all others the name itself, without the part that it stands in."""

_LIKELY = (
    r"checkpoint\.(sha256|revision|reference)",
    r"checkpoint\.",
    r"environment\.m2fbench_commit",
    r"environment\.m2fbench",
    r"suite\.",
    r"protocol\.",
    r"dataset\.",
    r"device\.kind|gpu\.name|environment\.machine_name",
    r"environment\.driver|gpu\.driver|device\.(cuda|cudnn)",
    r"device\.|gpu\.",
    r"environment\.libraries\.torch",
    r"environment\.libraries\.transformers",
    r"environment\.libraries\.pillow",
    r"environment\.libraries\.",
    r"environment\.(processor|cpu_count|python)",
    r"",
)
"""Beginnings of circumstances, the likeliest cause first."""
_KNOWN = list(_WORDS)
_NO_CAUSE = {"environment.night"}
"""What differs from run to run and explains nothing."""


def changes(before: Mapping[str, object], after: Mapping[str, object]) -> list[Change]:
    """What differs between two flat mappings of circumstances (``Entry.circumstances``), the likeliest cause of a changed figure first. What
    two circumstances say in the same words (the driver stands in two places) is said once; a night's name, which explains nothing, is left out."""
    keys = [key for key in {*before, *after} - _NO_CAUSE if not _same(before.get(key), after.get(key))]
    found = (Change(words(key), before.get(key), after.get(key)) for key in sorted(keys, key=_order))
    return list({(c.what, str(c.before), str(c.after)): c for c in reversed(list(found))}.values())[::-1]


def words(key: str) -> str:
    """A circumstance as a reader knows it: ``torch`` for ``environment.libraries.torch``."""
    if key in _WORDS:
        return _WORDS[key]
    if key.startswith("environment.libraries."):
        return key.removeprefix("environment.libraries.")
    part, _, rest = key.partition(".")
    readable = (rest or part).replace("_", " ").replace(".", " ").removesuffix(" sha256")
    return f"{part}: {readable}" if rest and part != "environment" else readable


def in_short(value: object) -> str:
    """A circumstance's value for display: of hashes and commits the first digits (with ``+changes`` where a commit had some), of long texts the
    beginning; "unknown" for None."""
    if value is None:
        return "unknown"
    text = " ".join(str(value).split())
    if found := re.fullmatch(r"([0-9a-f]{32,64})(\+changes)?", text):
        return found[1][:10] + (found[2] or "")
    return text if len(text) <= 60 else f"{text[:59]}…"


def _same(one: object, other: object) -> bool:
    unknown = isinstance(one, float) and isinstance(other, float) and math.isnan(one) and math.isnan(other)
    return unknown or (one == other and isinstance(one, bool) == isinstance(other, bool))


def _order(key: str) -> tuple[int, int, str]:
    likely = next(place for place, beginning in enumerate(_LIKELY) if re.match(beginning, key))
    return likely, _KNOWN.index(key) if key in _WORDS else len(_KNOWN), key
