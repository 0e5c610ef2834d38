"""Fixtures for all tests. The golden folder is optional: every golden check has a small committed fixture besides."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from m2fbench.models.load import LoadedModel

ROOT = Path(__file__).parent.parent
FIXTURES = Path(__file__).parent / "fixtures"
SHARED = Path(os.environ.get("M2FBENCH_GOLDEN", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of golden data and real photos; tests that need it are skipped where it is not."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("no golden data here: put it beside the checkout as ../shared, or name its folder in M2FBENCH_GOLDEN")
    return SHARED


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
