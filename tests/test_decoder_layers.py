"""Stopping after N decoder layers: the logits are those of the full model's auxiliary output, to the last bit; what is saved is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_checkpoint
from pickles import CHECKPOINTS, unpack
from test_flops import Logits, traced
from test_sisters import eomt, maskformer

import m2fbench
from m2fbench.errors import CheckpointError, SuiteError, UnsupportedError
from m2fbench.flops import FlopsRequest, flops_by_layer, flops_of_row
from m2fbench.models.checkpoint import Checkpoint, resolve
from m2fbench.models.load import load, load_module
from m2fbench.models.shaping import masked_layers, stop_after
from m2fbench.sections import Row, Variant
from m2fbench.suite import load_suite

LAYERS = 5  # of the bundled checkpoint; its config says 6, as transformers counts them


def variant(**settings: Any) -> Variant:
    return Variant(name="x", **settings)


def image(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def deep_swin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five layers of random weights, whatever the fixture for all tests has."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    folder = make_checkpoint(tmp_path_factory.mktemp("deep") / "swin", ["circle", "square", "triangle"])
    config = Mask2FormerConfig.from_pretrained(folder, decoder_layers=LAYERS + 1)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return folder


def auxiliary(checkpoint: Checkpoint) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """What transformers itself gives for every layer of a checkpoint, the last included."""
    with torch.inference_mode():
        found = load_module(checkpoint)(pixel_values=image(), output_auxiliary_logits=True)
    layers = [*found.auxiliary_logits, found]
    return [(layer["class_queries_logits"][0], layer["masks_queries_logits"][0]) for layer in layers]


@pytest.mark.full
@pytest.mark.parametrize("which", ["bundled", "swin", "original"])
def test_equal_to_the_auxiliary_output_of_that_layer(which: str, deep_swin: Path, tmp_path: Path) -> None:
    """original: a file of the original code's format, of three layers, DEC_LAYERS 4."""
    if which == "original":
        checkpoint = resolve(str(unpack("original_r50.pkl", tmp_path)), config=str(CHECKPOINTS / "original_r50.yaml"))
    else:
        checkpoint = resolve("bundled:shapes_tiny" if which == "bundled" else str(deep_swin))
    expected, parameters = auxiliary(checkpoint), []
    assert len(expected) == checkpoint.config["decoder_layers"] == (4 if which == "original" else LAYERS + 1)
    for layers in (0, len(expected) // 2, len(expected) - 1):
        model = load(checkpoint, variant(decoder_layers=layers), "cpu")
        assert model.settings["decoder_layers"] == layers
        for ours, theirs in zip(model.forward(image()), expected[layers], strict=True):
            assert torch.equal(ours, theirs)
        parameters.append(model.parameters)
    whole = load(checkpoint, variant(), "cpu")
    assert (whole.settings["decoder_layers"], whole.parameters) == (len(expected) - 1, parameters[-1])
    assert parameters == sorted(set(parameters)), "layers have parameters of their own"
    assert not torch.equal(expected[-2][0], expected[-1][0]), "layers differ, so equal logits say something"


@pytest.mark.full
@pytest.mark.parametrize("settings", [{"lean": True, "fuse": True}, {"dtype": "bfloat16"}], ids=str)
def test_with_other_settings(settings: dict[str, Any]) -> None:
    """The stopped model is what its plain one is with them: close to the float32 one, and lean as well."""
    checkpoint = resolve("bundled:shapes_tiny")
    plain = load(checkpoint, variant(decoder_layers=3), "cpu")
    other = load(checkpoint, variant(decoder_layers=3, **settings), "cpu")
    assert other.settings["decoder_layers"] == 3
    limit = 0.05 if "dtype" in settings else 1e-4
    for ours, theirs in zip(other.forward(image()), plain.forward(image()), strict=True):
        assert (ours - theirs).abs().median() <= limit * theirs.abs().max()


@pytest.mark.full
def test_compiled(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole by a backend that compiles nothing."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda part, **options: real(part, backend="eager", **options))
    checkpoint = resolve(str(tiny_checkpoint))
    compiled, plain = (load(checkpoint, variant(decoder_layers=0, compile=c), "cpu") for c in (True, False))
    assert len(compiled.settings["compiled"]) == 3
    for ours, theirs in zip(compiled.forward(image()), plain.forward(image()), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.full
def test_what_cannot_be_stopped_there(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="^decoder_layers: 2: this model has 1 masked-attention layers; choose 0 to 1$"):
        load(resolve(str(tiny_checkpoint)), variant(decoder_layers=2), "cpu")
    for folder, name in (
        (maskformer(tmp_path / "m", "resnet"), "MaskFormerForInstanceSegmentation"),
        (eomt(tmp_path / "e"), "Eomt"),
    ):
        module = load_module(resolve(str(folder)))
        assert masked_layers(module) is None
        with pytest.raises(UnsupportedError, match=f"^decoder_layers: knows Mask2Former only, this is a {name}"):
            stop_after(module, 0)


def test_part_of_the_identity_only_where_set(shapes_suite: Callable[..., Path]) -> None:
    assert "decoder_layers" not in variant().identity
    assert variant(decoder_layers=0).identity == variant().identity | {"decoder_layers": 0}
    with pytest.raises(SuiteError, match="decoder_layers"):
        load_suite(shapes_suite(2, "variants: [{name: x, decoder_layers: -1}]\n"))


@pytest.mark.full
def test_a_run_of_several_depths(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    """Each is a run of its own; what the model does not have is said and the others run; a stopped one is not what was published."""
    extra = "variants: [{name: all}, {name: none, decoder_layers: 0}, {name: full, decoder_layers: 1}, {name: more, decoder_layers: 2}]\n"
    whole, none, full, more = m2fbench.run(shapes_suite(2, extra), output=tmp_path / "runs", device="cpu")
    assert [r.status for r in (whole, none, full, more)] == ["complete"] * 3 + ["unsupported"]
    assert more.reason == "decoder_layers: 2: this model has 1 masked-attention layers; choose 0 to 1"
    assert (whole.departure, none.departure, full.departure) == (None, "stopped after 0 decoder layers", None)
    assert [(r.checkpoint or {})["settings"]["decoder_layers"] for r in (whole, none, full)] == [1, 0, 1]
    assert len({r.prediction_key for r in (whole, none, full)}) == 3


def test_the_shipped_suite_has_every_depth() -> None:
    suite = load_suite("shapes_layers")
    assert [v.decoder_layers for v in suite.variants] == [None, *range(LAYERS)]
    assert resolve("bundled:shapes_tiny").config["decoder_layers"] == LAYERS + 1


@pytest.mark.full
def test_flops_are_fvcores_of_the_stopped_model(deep_swin: Path) -> None:
    """Counted for every depth from one recording without weights; held to fvcore's count of the real module with fewer layers."""
    suite = load_suite("shapes_instance")
    row, request = Row(name="deep", checkpoint=str(deep_swin)), FlopsRequest(size=(96, 128))
    costs = flops_by_layer(suite, row, request)
    assert [cost.layers for cost in costs] == [0, 1, 2, 3, 4, 5]
    for cost in (costs[0], costs[2], costs[5]):
        real = load_module(resolve(str(deep_swin)), eager=True)
        stop_after(real, cost.layers)
        assert cost.counts["fvcore"].mean == traced(Logits(real), torch.zeros(1, 3, 96, 128)).total()
    whole = flops_of_row(suite, row, request).counts
    assert {name: count.mean for name, count in costs[-1].counts.items()} == {name: count.mean for name, count in whole.items()}
    saved = [cost.saved for cost in costs]
    assert saved == sorted(saved, reverse=True)
    assert saved[-1] == 0
    assert saved[0] == pytest.approx(1 - costs[0].flops / costs[-1].flops)


def test_flops_of_what_has_no_such_layers(tmp_path: Path) -> None:
    suite = load_suite("shapes_instance")
    with pytest.raises(CheckpointError, match="MaskFormer has no masked-attention layers to stop after"):
        flops_by_layer(suite, Row(name="m", checkpoint=str(maskformer(tmp_path / "m", "resnet"))), FlopsRequest(size=(96, 128)))
    with pytest.raises(CheckpointError, match="nobody has it"):
        flops_by_layer(suite, Row(name="n", unavailable="nobody has it"))
