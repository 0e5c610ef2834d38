"""Fixtures for all tests. The golden folder is optional: every golden check has a small committed fixture besides."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m2fbench.datasets.scenes import CATEGORIES
from m2fbench.models.load import LoadedModel

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(os.environ.get("M2FBENCH_GOLDEN", ROOT.parent / "shared"))
CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data and real photos; tests that need it are skipped where it is not."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("no golden data here: put it beside the checkout as ../shared, or name its folder in M2FBENCH_GOLDEN")
    return SHARED


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """One Chromium for all tests of pages."""
    if not CHROMIUM.is_file():
        pytest.skip(f"no {CHROMIUM}: install chromium to test pages in a browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install -e '.[test]'")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def checkpoint_folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder that looks like a transformers checkpoint with the given class names; its weights are never read."""

    def make(labels: Sequence[str], name: str = "stub") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {"model_type": "mask2former", "num_queries": 100, "id2label": {str(i): n for i, n in enumerate(labels)}}
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "model.safetensors").write_bytes(b"stub")
        return folder

    return make


Logits = tuple[np.ndarray, np.ndarray]


def stub_loader(logits_of: Callable[[torch.Tensor], Logits]) -> Any:
    """A loader whose model answers with ``logits_of(pixels)`` instead of computing."""

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        classes, masks = logits_of(pixels)
        return torch.from_numpy(classes), torch.from_numpy(masks)

    return lambda checkpoint, variant, device: LoadedModel(forward, torch.device("cpu"), 0, {"stub": True})


@pytest.fixture(scope="session")
def bundled_loader() -> Any:
    """The bundled checkpoint, loaded once for all runs; images that it has seen are not computed again."""
    from m2fbench.models import load as loading

    model: LoadedModel | None = None
    seen: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = {}

    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert model is not None
        key = pixels.numpy().tobytes()
        if key not in seen:
            seen[key] = model.forward(pixels)
        return seen[key]

    def load(checkpoint: Any, variant: Any, device: str) -> LoadedModel:
        nonlocal model
        assert checkpoint.reference == "bundled:shapes_tiny"
        model = model or loading.load(checkpoint, variant, "cpu")
        return LoadedModel(forward, model.device, model.parameters, model.settings)

    return load


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real transformers folder of a Swin Mask2Former with random weights and the shapes classes; quick on a CPU."""
    return make_checkpoint(tmp_path_factory.mktemp("tiny") / "tiny-swin", [c.name for c in CATEGORIES])


def make_checkpoint(folder: Path, labels: Sequence[str], *, backbone: Any = None, **options: Any) -> Path:
    """Random weights, the same at every call. backbone: the configuration of another than a small Swin."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessorPil, SwinConfig

    torch.manual_seed(3)
    backbone = backbone or SwinConfig(
        embed_dim=24,
        depths=[1, 1, 1, 1],
        num_heads=[1, 2, 2, 2],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone, feature_size=32, hidden_dim=32, mask_feature_size=32, num_attention_heads=4, encoder_layers=1,
        decoder_layers=2, encoder_feedforward_dim=64, dim_feedforward=64, num_queries=12,
        id2label=dict(enumerate(labels)), label2id={name: k for k, name in enumerate(labels)},
    )  # fmt: skip
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder, **options)
    Mask2FormerImageProcessorPil(size={"shortest_edge": 128, "longest_edge": 192}).save_pretrained(folder)
    return folder


@pytest.fixture
def cli() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``m2fbench`` as a user does, in a process of its own."""

    def call(*arguments: object, env: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "m2fbench", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=300, **options)

    return call


def killed_at_work(command: Sequence[str], journal: Path, growth: int, pause: float = 0.0) -> int:
    """Start a run, kill -9 its process group once the journal has grown by ``growth`` lines, ``pause`` seconds after that was seen;
    the lines that are there then."""

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.exists() else 0

    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        wanted, deadline = lines() + growth, time.monotonic() + 120
        while lines() < wanted and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)  # polling more often would take the processor from the run
        assert lines() >= wanted, f"{lines()} lines in the journal, expected {wanted}; exit status {process.poll()}"
        time.sleep(pause)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return lines()


SHAPES_SUITE = """
suite: test_shapes
title: Shapes for tests
task: instance
dataset: {{name: shapes, split: val, count: {count}}}
protocol: {{min_size: 128, max_size: 192}}
metrics: [coco_ap]
checkpoints: [{{name: tiny, checkpoint: {checkpoint}}}]
"""


@pytest.fixture
def shapes_suite(tmp_path: Path, tiny_checkpoint: Path) -> Callable[..., Path]:
    """Write a suite over the first ``count`` validation scenes with the tiny checkpoint; ``extra`` lines are appended."""

    def write(count: int = 6, extra: str = "") -> Path:
        path = tmp_path / "shapes.yaml"
        path.write_text(SHAPES_SUITE.format(count=count, checkpoint=tiny_checkpoint) + extra)
        return path

    return write
