"""The official Cityscapes pixel-level evaluation, run in this process as an oracle; and what of the dataset it needs."""

import contextlib
import copy
import importlib
import importlib.metadata
import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from m2fbench.errors import PredictionsError
from m2fbench.formats.label_png import encode_labels, read_labels
from m2fbench.types import Dataset, Example, ImageId, JsonObject, LabelMap, Predictions

LABELS = 34  # official label ids 0..33; licence plates have -1 and are not drawn


class OfficialLabels(Protocol):
    """What the Cityscapes reader gives beyond a Dataset: the pixels of the official files, by the official ids."""

    def label_ids(self, example: Example) -> NDArray[np.uint8]:
        """uint8 [H, W], ids 0..33 (``*_gtFine_labelIds.png``)."""
        ...

    def instance_ids(self, example: Example) -> NDArray[np.int32]:
        """int32 [H, W], the label id, or label id x 1000 + number for an instance (``*_gtFine_instanceIds.png``)."""
        ...

    # A reader may also have ``joint_ids(example) -> uint16 [H, W]``: the instance ids, where it has made sure that the label ids are
    # those of the instance ids (the id, or a thousandth of it), so that label ids need not be read for counting.


def official_labels(dataset: Dataset) -> OfficialLabels:
    """The reader as one that gives official ids, which the one named "cityscapes" does."""
    return cast(OfficialLabels, dataset)


def official_name() -> str:
    """The script's name and version, for a Verification."""
    return f"cityscapesScripts {importlib.metadata.version('cityscapesScripts')} evalPixelLevelSemanticLabeling"


def official_scores(dataset: Dataset, predictions: Predictions, image_ids: Sequence[ImageId], *, instances: bool) -> JsonObject:
    """All that the official script returns (``classScores``, ``categoryScores``, ...; shares of 1, NaN where undefined).

    instances: whether to have the instance-weighted scores too, which takes many times as long. The script is given temporary files
    written from the dataset and the predictions. It knows no predicted value over 33: there those files say 0 (unlabeled), which is
    a miss to it as well.
    """
    assert predictions.semantic is not None
    script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    options = copy.copy(script.args)
    options.evalInstLevelScore, options.evalPixelAccuracy, options.JSONOutput, options.quiet = instances, False, False, True
    truth = official_labels(dataset)
    examples = {e.image_id: e for e in dataset.examples()}
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as name:
        folder = Path(name)
        predicted, labelled = [], []
        for number, image_id in enumerate(image_ids):
            example, stem = examples[image_id], f"{number:06d}"
            labels = folder / f"{stem}_labelIds.png"
            labels.write_bytes(encode_labels(truth.label_ids(example)))
            if instances:
                ids = truth.instance_ids(example).astype(np.uint16)
                (folder / f"{stem}_instanceIds.png").write_bytes(encode_labels(ids))
            map_file = folder / f"{stem}_pred.png"
            map_file.write_bytes(encode_labels(_known(read_labels(predictions.semantic[image_id], PredictionsError))))
            labelled.append(str(labels))
            predicted.append(str(map_file))
        with _on_this_numpy(script), contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                return cast(JsonObject, script.evaluateImgLists(predicted, labelled, options))
            except SystemExit as stop:  # its way of raising
                raise RuntimeError(f"the official Cityscapes script refused its files: {said.getvalue().strip()}") from stop


def _known(raw: LabelMap) -> NDArray[np.uint8]:
    return np.where(raw < LABELS, raw, 0).astype(np.uint8)


@contextlib.contextmanager
def _on_this_numpy(script: Any) -> Iterator[None]:
    """The script calls ``numpy.in1d``, which numpy 2.4 no longer has; its documented successor stands in, in the script only."""
    before = script.np
    if not hasattr(np, "in1d"):
        script.np = SimpleNamespace(**vars(np), in1d=lambda values, chosen: np.isin(values, chosen).ravel())
    try:
        yield
    finally:
        script.np = before
