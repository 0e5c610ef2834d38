"""Cityscapes' AP accumulated anew for weighted images, against the official script on images that are really there several times."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_cityscapes_ap import Json, Scenes, scenes

from m2fbench.metrics import cityscapes_ap_statistics
from m2fbench.metrics.cityscapes_ap import CityscapesAP
from m2fbench.metrics.coco_files import largest_difference
from m2fbench.types import ImageStatistics, Measurement, ObjectSubset, Predictions, ScoringRules

ALLOWED = 1e-9
RULES = ScoringRules()
Case = tuple[Any, Predictions, list[Any]]


def opened(folder: Path, truths: dict[str, np.ndarray], entries: list[Json]) -> Case:
    folder.mkdir(exist_ok=True)
    (folder / "predictions.json").write_text(json.dumps(entries))
    return Scenes(truths), Predictions(instances=folder / "predictions.json"), list(truths)


def copies(truths: dict[str, np.ndarray], entries: list[Json], weights: list[int]) -> tuple[dict[str, np.ndarray], list[Json]]:
    names = [(name, f"{name}_{number}") for name, weight in zip(truths, weights, strict=True) for number in range(weight)]
    return (
        {copy: truths[name] for name, copy in names},
        [e | {"image_id": copy} for name, copy in names for e in entries if e["image_id"] == name],
    )


def as_measured(statistics: ImageStatistics, weights: list[int]) -> list[Measurement]:
    summary = statistics.summarise(np.array([weights], float))
    found = [Measurement(name, value) for name, value in zip(statistics.figures, summary.overall[0].tolist(), strict=True)]
    for name, plane in zip(statistics.class_figures, summary.by_class[0].tolist(), strict=True):
        found += [Measurement(name, value, category=c) for value, c in zip(plane, statistics.categories, strict=True)]
    return found


@pytest.mark.full
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**9), data=st.data())
def test_any_weighting_is_the_score_of_duplicated_images(
    seed: int, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("case")
    made = scenes(seed, 4)
    ours = CityscapesAP().statistics(*opened(folder / "a", *made), RULES)
    assert ours is not None
    for weights in (data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)), [1] * 4, [1, 0, 0, 1]):
        score = CityscapesAP().score(*opened(folder / "b", *copies(*made, weights)), RULES)
        expected = [m for m in score if m.unit == "percent"]
        measured = as_measured(ours, weights)
        assert [(m.name, m.category) for m in measured] == [(m.name, m.category) for m in expected]
        assert largest_difference(measured, expected) <= ALLOWED


@pytest.mark.parametrize(("seed", "weights"), [(1, [2, 1, 0, 3]), (2, [0, 0, 0, 1])])
def test_the_official_script_says_the_same(seed: int, weights: list[int], tmp_path: Path) -> None:
    made = scenes(seed, 4)
    ours = CityscapesAP().statistics(*opened(tmp_path / "a", *made), RULES)
    assert ours is not None
    case = opened(tmp_path / "b", *copies(*made, weights))
    assert CityscapesAP().verify(*case, RULES, as_measured(ours, weights)).difference <= ALLOWED
    assert 0 < as_measured(ours, weights)[0].value < 100


def test_many_weightings_and_each_image_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = opened(tmp_path, *scenes(3, 7))
    ours = CityscapesAP().statistics(*case, RULES)
    assert ours is not None
    weights = np.random.default_rng(0).poisson(1, (5, 7)).astype(float)
    whole = ours.summarise(weights)
    np.testing.assert_array_equal(whole.overall, np.concatenate([ours.summarise(row[None]).overall for row in weights]))
    np.testing.assert_allclose(ours.per_image(), ours.summarise(np.eye(7)).overall, rtol=0, atol=ALLOWED)
    monkeypatch.setattr(cityscapes_ap_statistics, "BLOCK", 1)
    np.testing.assert_array_equal(ours.summarise(weights).by_class, whole.by_class)
    assert CityscapesAP().statistics(*case, RULES, ObjectSubset("area", 0, 100)) is None
    truths = [m.value for m in CityscapesAP().score(*case, RULES) if m.name == "truth_instances"]
    assert ours.truth_count.sum(0).tolist() == truths


def test_degenerate_inputs(tmp_path: Path) -> None:
    truths, entries = scenes(3, 3)
    nothing_found = CityscapesAP().statistics(*opened(tmp_path, truths, []), RULES)
    assert nothing_found is not None
    assert nothing_found.summarise(np.ones((1, 3))).overall.tolist() == [[0, 0]]
    nothing_there = CityscapesAP().statistics(*opened(tmp_path, {n: np.zeros_like(m) for n, m in truths.items()}, entries), RULES)
    assert nothing_there is not None
    assert np.isnan(nothing_there.summarise(np.ones((2, 3))).overall).all()
    assert np.isnan(nothing_there.per_image()).all()
    dataset, predictions, _ = opened(tmp_path, truths, entries)
    no_images = CityscapesAP().statistics(dataset, predictions, [], RULES)
    assert no_images is not None
    assert np.isnan(no_images.summarise(np.zeros((1, 0))).overall).all()
    assert no_images.per_image().shape == (0, 2)
