"""Predictions made from the shapes' truth by moving and losing objects: evidence without a model, in a second."""

import json
from pathlib import Path

import numpy as np

from m2fbench.analysis.runs import Evidence
from m2fbench.datasets.shapes import Shapes
from m2fbench.formats.label_png import encode_labels, to_values
from m2fbench.formats.panoptic import document, encode_ids, segment_rles, to_annotation
from m2fbench.scoring import open_dataset
from m2fbench.suite import load_suite
from m2fbench.types import ImageId, PanopticMap, Predictions, Segment


def made_evidence(folder: Path, count: int, task: str = "panoptic", seed: int = 0) -> Evidence:
    """Of the first ``count`` test scenes, for the heads of the task's bundled suite; others with another seed."""
    suite = load_suite(f"shapes_{task}", [f"dataset.count={count}"])
    dataset = open_dataset(suite, None)
    assert isinstance(dataset, Shapes)
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    annotations, results = [], []
    semantic: dict[ImageId, Path] = {}
    for example in dataset.examples():
        found = _worse(dataset.panoptic_truth(example), rng)
        name = f"{example.image_id}.png"
        (folder / f"panoptic-{name}").write_bytes(encode_ids(found.ids))
        annotations.append(to_annotation(example.image_id, f"panoptic-{name}", found, dataset.category_ids))
        for rle, segment in zip(segment_rles(found), found.segments, strict=True):
            if dataset.categories[segment.category].is_thing:
                category_id = dataset.category_ids[segment.category]
                results.append(
                    {"image_id": example.image_id, "category_id": category_id, "segmentation": rle, "score": float(rng.random())}
                )
        labels = np.full(example.size, 255, np.uint8)
        for segment in found.segments:
            labels[found.ids == segment.id] = segment.category
        semantic[example.image_id] = folder / f"semantic-{name}"
        semantic[example.image_id].write_bytes(encode_labels(to_values(labels, dataset.label_values, 255)))
    categories = dict(zip(dataset.category_ids, dataset.categories, strict=True))
    panoptic, instances = folder / "panoptic.json", folder / "instances.json"
    panoptic.write_text(json.dumps(document(dataset.examples(), annotations, categories)))
    instances.write_text(json.dumps(results))
    predictions = {
        "panoptic": Predictions(instances, panoptic, folder, semantic), "instance": Predictions(instances=instances),
        "semantic": Predictions(semantic=semantic),
    }[task]  # fmt: skip
    return Evidence(suite, dataset, predictions, tuple(dataset.examples()), None)


def _worse(truth: PanopticMap, rng: np.random.Generator) -> PanopticMap:
    """A fifth of the segments lost, a tenth of another class, everything moved by up to three pixels."""
    ids = np.roll(truth.ids, rng.integers(-3, 4, 2), (0, 1))
    kept = [s for s in truth.segments if rng.random() > 0.2 and (ids == s.id).any()]
    segments = tuple(Segment(s.id, (s.category + 1) % 6 if rng.random() < 0.1 else s.category) for s in kept)
    return PanopticMap(np.where(np.isin(ids, [s.id for s in segments]), ids, 0).astype(np.int32), segments)
