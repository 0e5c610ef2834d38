"""The bundled checkpoint: small, whole, good enough that figures mean something, and not so good that they could not move."""

from pathlib import Path
from typing import Any

import pytest
from transformers import Mask2FormerForUniversalSegmentation
from validate_shapes import evaluate

import m2fbench
from m2fbench.datasets.scenes import CATEGORIES
from m2fbench.datasets.shapes import SEEDS
from m2fbench.models.checkpoint import bundled_folder, resolve

FOLDER = bundled_folder() / "shapes_tiny"


def test_it_is_small_and_names_its_classes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 8_000_000
    assert resolve("bundled:shapes_tiny").labels == tuple(c.name for c in CATEGORIES)
    assert sum(c.is_thing for c in CATEGORIES) >= 5
    assert sum(not c.is_thing for c in CATEGORIES) >= 3


@pytest.mark.full
def test_one_checkpoint_serves_all_three_tasks() -> None:
    """On validation scenes; the test scenes are the suite's."""
    figures = evaluate(Mask2FormerForUniversalSegmentation.from_pretrained(FOLDER).eval(), SEEDS["val"], 60)
    assert 60 <= figures["AP"] < 90
    assert figures["PQ"] >= 75
    assert figures["mIoU"] >= 85


@pytest.mark.full
def test_the_shipped_suite_gives_the_committed_figures(cli: Any, tmp_path: Path) -> None:
    """The whole of it by its command, verified by pycocotools, within the suite's own tolerance (exit status 1 otherwise)."""
    outcome = cli("run", "shapes_instance", "--output", tmp_path / "runs", "--verify")
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    result = m2fbench.read_result(tmp_path / "runs/shapes_instance/shapes-tiny/default/result.json")
    assert result.status == "complete"
    assert 60 <= result.value("AP") < 90
    assert {c.metric for c in result.comparisons} >= {"AP", "AP50", "AP75", "APs", "APm", "APl"}
    assert all(c.comparable for c in result.comparisons)


@pytest.mark.full
def test_the_plain_path_costs_what_the_suite_shows(tmp_path: Path) -> None:
    paper, plain, best = m2fbench.run("shapes_protocols", output=tmp_path / "runs", limit=60)
    assert paper.value("AP") > plain.value("AP") + 2
    assert abs(paper.value("AP") - best.value("AP")) < 5
