"""A real nightly on the bundled checkpoint: its weights are disturbed on the second night, and put back on the third."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from xml.etree import ElementTree

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file, save_file

from m2fbench.nightly.verdicts import read_verdict

pytestmark = pytest.mark.slow

CELL = "shapes_instance/model/default"
CONFIG = """
nightly: shapes
title: Shapes, every night
suites:
  - suite: shapes_instance
    checkpoints: [./model]
    set: [dataset.count=60]
device: cpu
baselines: [last-good]
"""


def _disturb(weights: Path, share: float) -> None:
    """Add noise to every matrix, of so large a share of its own standard deviation; the same at every call."""
    tensors = load_file(weights)
    generator = torch.Generator().manual_seed(0)
    for name in sorted(tensors):
        tensor = tensors[name]
        if tensor.is_floating_point() and tensor.ndim > 1:
            tensors[name] = tensor + share * tensor.std() * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, weights, metadata={"format": "pt"})


def test_a_planted_regression_is_named_the_same_night_and_its_end_too(
    tmp_path: Path, cli: Callable[..., CompletedProcess[str]]
) -> None:
    shutil.copytree(ROOT / "m2fbench/assets/shapes_tiny", tmp_path / "model")
    (tmp_path / "nightly.yaml").write_text(CONFIG)
    weights = tmp_path / "model/model.safetensors"
    good = weights.read_bytes()
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}

    def night(name: str, **more: str) -> CompletedProcess[str]:
        return cli("nightly", tmp_path / "nightly.yaml", "--night", name, env=environment | more)

    first = night("first")
    assert first.returncode == 0, first.stderr
    assert [f.state for f in read_verdict(tmp_path / "nights/first/verdict.json").figures] == ["new"]

    _disturb(weights, 0.2)
    second = night("second", GITHUB_STEP_SUMMARY=str(tmp_path / "step.md"))
    assert second.returncode == 1, second.stderr
    (regression,) = read_verdict(tmp_path / "nights/second/verdict.json").figures
    assert (regression.cell, regression.figure, regression.state, regression.evidence) == (CELL, "AP", "regression", "paired")
    assert 2 < -regression.difference.value < 15  # some points, not all of them
    assert regression.difference.high < 0
    assert [change.what for change in regression.changes] == ["checkpoint"]
    summary = (tmp_path / "nights/second/summary.md").read_text()
    assert summary == (tmp_path / "step.md").read_text()
    since = f"{regression.since}"[:10] + " (night second)"
    assert summary.splitlines()[0] == (
        f"### 1 regression: {CELL} AP {regression.baseline_value:.2f} → {regression.value:.2f} since {since}"
    )
    assert "- changed since the last good run: checkpoint " in summary
    assert "a second run, made from nothing, dropped too" in summary
    assert summary.splitlines()[0].removeprefix("### ") in second.stdout + second.stderr
    root = ElementTree.parse(tmp_path / "nights/second/junit.xml").getroot()
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["2", "1", "0"]

    weights.write_bytes(good)
    third = night("third")
    assert third.returncode == 0, third.stderr
    (recovered,) = read_verdict(tmp_path / "nights/third/verdict.json").figures
    assert (recovered.state, recovered.evidence) == ("recovered", "paired")
    assert recovered.difference.value == pytest.approx(-regression.difference.value, abs=1e-9)
    assert recovered.value == regression.baseline_value
    assert [change.what for change in recovered.changes] == ["checkpoint"]
    assert (recovered.since, recovered.since_night, recovered.since_value) == (regression.since, "second", regression.value)
    moved = f"AP {regression.value:.2f} → {recovered.value:.2f}, the level before the regression of {since}"
    assert f"no regression; 1 figure recovered: {CELL} {moved} (1 of 1 cell measured, 1 figure compared)" in third.stdout
    assert json.loads((tmp_path / "nights/third/verdict.json").read_text())["exit_status"] == 0
