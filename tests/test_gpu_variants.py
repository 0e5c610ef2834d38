"""Variants on a CUDA device, against float32 on the CPU; skipped where there is none.

Tolerances are shares of the largest logit. Half precision and TF32 move masks across the threshold of an attention mask, after which a few
queries differ much: so the median is held, and the share of logits that are far off.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_variants import images, resnet, state, swin, variant  # noqa: F401 (fixtures)

from m2fbench import run
from m2fbench.models.checkpoint import Checkpoint
from m2fbench.models.load import load
from m2fbench.models.variants import unsupported

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here: these compare variants on one with the CPU"),
]

CASES: list[tuple[dict[str, Any], float]] = [  # settings, median difference in shares of the largest logit
    ({}, 1e-4),
    ({"attention": "eager"}, 1e-4),
    ({"channels_last": True}, 1e-4),
    ({"cudnn_benchmark": True}, 1e-4),
    ({"lean": True}, 1e-4),
    ({"fuse": True}, 1e-4),
    ({"tf32": True}, 1e-2),
    ({"autocast": "float16"}, 1e-2),
    ({"autocast": "bfloat16"}, 5e-2),
    ({"dtype": "float16"}, 1e-2),
    ({"dtype": "bfloat16"}, 5e-2),
    ({"compile": True}, 1e-4),
    ({"compile": True, "lean": True, "autocast": "bfloat16", "channels_last": True}, 5e-2),
]


@pytest.mark.parametrize(("settings", "tolerance"), CASES, ids=lambda v: "-".join(v) or "plain" if isinstance(v, dict) else "")
@pytest.mark.parametrize("name", ["swin", "resnet"])
def test_logits_against_the_cpus(name: str, settings: dict[str, Any], tolerance: float, request: pytest.FixtureRequest) -> None:
    if settings.get("fuse") and name == "swin":
        pytest.skip("a Swin has no batch norms to fold")
    checkpoint: Checkpoint = request.getfixturevalue(name)
    if (reason := unsupported(variant(**settings), "cuda")) is not None:
        pytest.skip(f"this device cannot: {reason}")
    model, reference = load(checkpoint, variant(**settings), "cuda"), load(checkpoint, variant(), "cpu")
    before = state()
    for x in images(2):
        for ours, theirs in zip(model.forward(x), reference.forward(x), strict=True):
            off = (ours.cpu() - theirs).abs() / theirs.abs().max()
            assert off.median() < tolerance
            assert (off > 10 * tolerance).float().mean() < 0.02
    assert state() == before
    for key in ("tf32", "cudnn_benchmark", "channels_last", "lean"):
        assert model.settings[key] is bool(settings.get(key)), key
    assert model.settings["autocast"] == settings.get("autocast")
    assert bool(model.settings["compiled"]) is bool(settings.get("compile"))


def test_tf32_rounds_and_float32_does_not(restored_switches: None, resnet: Checkpoint) -> None:  # noqa: F811
    """Side by side in one process, and whatever the process allows; where TF32 exists it must show."""
    if (reason := unsupported(variant(tf32=True), "cuda")) is not None:
        pytest.skip(f"this device cannot: {reason}")
    rounded, exact = load(resnet, variant(tf32=True), "cuda"), load(resnet, variant(), "cuda")
    x = images(1)[0]
    theirs = load(resnet, variant(), "cpu").forward(x)[1]
    torch.set_float32_matmul_precision("high")
    differences = [(model.forward(x)[1].cpu() - theirs).abs().median() for model in (rounded, exact, rounded, exact)]
    assert min(differences[::2]) > 3 * max(differences[1::2])


@pytest.fixture
def restored_switches() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


def test_a_run_under_every_variant(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    text = "variants:\n" + "".join(
        f"  - {{name: v{k}, {', '.join(f'{key}: {str(value).lower()}' for key, value in settings.items())}}}\n"
        for k, (settings, _) in enumerate(CASES)
    ).replace(", }", "}")
    results = run(shapes_suite(2, text), output=tmp_path / "runs", device="cuda")
    for result, (settings, _) in zip(results, CASES, strict=True):
        expected = "unsupported" if "fuse" in settings or unsupported(variant(**settings), "cuda") else "complete"
        assert result.status == expected, (settings, result.reason)
