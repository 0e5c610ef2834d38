"""The embedded dataset for panoptic and semantic suites: the same scenes, with the ground as classes."""

from typing import get_args

import numpy as np
import pytest

from m2fbench.datasets.scenes import CATEGORIES, THINGS, generate
from m2fbench.datasets.shapes import SEEDS, Shapes, ShapesOptions
from m2fbench.types import Head

OPTIONS = ShapesOptions(split="val", count=5)


@pytest.mark.parametrize("task", ["panoptic", "semantic"])
def test_things_come_first_and_the_ground_after_them(task: Head) -> None:
    dataset = Shapes(OPTIONS, None, task)
    assert dataset.categories == CATEGORIES
    assert [c.is_thing for c in dataset.categories] == [True] * 6 + [False] * 4
    assert dataset.category_ids == tuple(range(1, 11))
    assert dataset.label_values == tuple(range(10))


def test_the_instance_task_is_what_it_was() -> None:
    dataset = Shapes(OPTIONS)
    assert (dataset.category_ids, dataset.label_values) == ((1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 4, 5))
    digest = "607b388858d3576dc7d2f3b9ffa416d41c4a618bb774df41fc22bf85e87b0746"
    assert dataset.fingerprint()["annotations_sha256"] == digest, "run directories and published values depend on it"


@pytest.mark.parametrize("task", get_args(Head))
def test_instance_truth_and_fingerprint_are_those_of_every_task(task: Head) -> None:
    dataset = Shapes(OPTIONS, None, task)
    assert dataset.coco_truth() == Shapes(OPTIONS).coco_truth()
    assert [c["id"] for c in dataset.coco_truth()["categories"]] == [1, 2, 3, 4, 5, 6]
    assert dataset.fingerprint() == Shapes(OPTIONS).fingerprint()
    assert dataset.examples() == Shapes(OPTIONS).examples()


def test_panoptic_and_semantic_truth_are_the_scenes() -> None:
    dataset = Shapes(OPTIONS, None, "panoptic")
    for example in dataset.examples():
        scene = generate(SEEDS["val"], int(example.image_id) - 1)
        truth, labels = dataset.panoptic_truth(example), dataset.semantic_truth(example)
        assert truth.ids.dtype == np.int32
        assert labels.dtype == np.uint8
        np.testing.assert_array_equal(truth.ids, scene.ids)
        assert tuple(s.category for s in truth.segments) == scene.classes
        for segment in truth.segments:
            assert set(labels[truth.ids == segment.id]) == {segment.category}
            assert not segment.is_crowd
        annotated = [a["category_id"] - 1 for a in dataset.coco_truth()["annotations"] if a["image_id"] == example.image_id]
        assert annotated == [s.category for s in truth.segments if CATEGORIES[s.category].is_thing]


def test_opened_for_instances_the_ground_has_no_class() -> None:
    dataset = Shapes(OPTIONS)
    for example in dataset.examples():
        scene = generate(SEEDS["val"], int(example.image_id) - 1)
        truth, labels = dataset.panoptic_truth(example), dataset.semantic_truth(example)
        ground = np.array(scene.classes)[scene.ids - 1] >= len(THINGS)
        assert set(truth.ids[ground]) <= {0}
        assert set(labels[ground]) <= {255}
        assert labels[~ground].max() < len(THINGS)
        assert {s.id for s in truth.segments} == set(np.unique(truth.ids)) - {0}
