"""Cityscapes' official instance evaluation, called in this process on files written for it; no metric itself."""

import contextlib
import copy
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from m2fbench.files import map_over
from m2fbench.formats.cityscapes_instances import write
from m2fbench.types import JsonObject

OfficialImage = tuple[Callable[[], NDArray[np.int32]], Sequence[JsonObject]]
"""What loads the instance ids [H, W] of an image, and its COCO results."""


def official_table(images: Sequence[OfficialImage], label_ids: Sequence[int]) -> NDArray[np.float64]:
    """AP of each class at each threshold by cityscapesScripts, 0..1, float64 [K, T]; NaN for a class without truth."""
    import cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling as official
    from cityscapesscripts.evaluation.instances2dict import instances2dict
    from cityscapesscripts.helpers.labels import id2label

    args = copy.copy(official.args)
    args.instLabels = [id2label[label_id].name for label_id in label_ids]
    args.quiet, args.distanceAvailable = True, False

    def match(image: OfficialImage) -> list[dict[str, Any]]:
        load, entries = image
        with tempfile.TemporaryDirectory(prefix="m2fbench-") as name:
            folder = Path(name).resolve()
            truth = folder / "truth_000000_000000_gtFine_instanceIds.png"
            Image.fromarray(load().astype(np.uint16)).save(truth, compress_level=1)
            prediction = write(folder, "truth_000000_000000", entries, compress_level=1)
            of_image = copy.copy(args)
            of_image.predictionPath = str(folder)
            known = instances2dict([str(truth)], False)
            return list(official.matchGtWithPreds([str(prediction)], [str(truth)], known, of_image).values())

    with _removed_functions():
        matched = enumerate(map_over(match, images))
        matches = {str(number): one for number, found in matched for one in found}
    return np.array([_of_class(official, matches, args, name) for name in args.instLabels]).reshape(-1, len(args.overlaps))


def _of_class(official: Any, matches: dict[str, Any], args: Any, name: str) -> NDArray[np.float64]:
    """One class at a time and each threshold by itself where need be, because the script fails on one.

    It indexes into nothing where a class has truth and predictions, but every prediction is ignored: none is right, AP is 0.
    """
    only = copy.copy(args)
    only.instLabels = [name]
    found = []
    for threshold in args.overlaps:
        only.overlaps = np.array([threshold])
        try:
            found.append(float(official.evaluateMatches(matches, only)[0, 0, 0]))
        except IndexError:
            found.append(0.0)
    return np.array(found)


@contextlib.contextmanager
def _removed_functions() -> Iterator[None]:
    """The script calls ``numpy.in1d``, which numpy 2.4 removed."""
    if hasattr(np, "in1d"):
        yield
        return
    np.in1d = np.isin  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del np.in1d  # type: ignore[attr-defined]
