"""Sister models and other backbones: tiny ones with random weights, through a whole suite."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SHAPES_SUITE, make_checkpoint

from m2fbench import run
from m2fbench.datasets.scenes import CATEGORIES
from m2fbench.errors import CheckpointError
from m2fbench.inspection import inspect
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load
from m2fbench.sections import Variant

LABELS = [c.name for c in CATEGORIES]
STAGES = ["stage1", "stage2", "stage3", "stage4"]
NAMES: dict[str, Any] = {"id2label": dict(enumerate(LABELS)), "label2id": {name: k for k, name in enumerate(LABELS)}}


def backbone(kind: str) -> Any:
    import transformers as t

    small = {"hidden_sizes": [16, 32, 64, 128], "depths": [1, 1, 1, 1], "out_features": STAGES}
    heads = {"depths": [1, 1, 1, 1], "num_heads": [1, 2, 2, 2], "out_features": STAGES}
    made = {
        "resnet": lambda: t.ResNetConfig(embedding_size=8, **small),
        "swin": lambda: t.SwinConfig(embed_dim=24, window_size=4, **heads),
        "swinv2": lambda: t.Swinv2Config(embed_dim=24, window_size=4, **heads),
        "convnext": lambda: t.ConvNextConfig(**small),
        "convnextv2": lambda: t.ConvNextV2Config(**small),
        "pvt_v2": lambda: t.PvtV2Config(out_features=STAGES),
        "dinov2": lambda: t.Dinov2Config(
            hidden_size=48, num_hidden_layers=4, num_attention_heads=4, image_size=112, patch_size=16, out_features=STAGES
        ),
    }  # fmt: skip
    return made[kind]()


@pytest.mark.full
@pytest.mark.parametrize("kind", ["resnet", "swinv2", "convnext", "convnextv2", "pvt_v2", "dinov2"])
def test_backbones_of_mask2former(kind: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / kind, LABELS, backbone=backbone(kind))
    assert resolve(str(folder)).backbone == kind
    runs(folder, tmp_path)


def runs(folder: Path, tmp_path: Path, *extra: str) -> Any:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SHAPES_SUITE.format(count=2, checkpoint=folder) + "".join(extra))
    (result,) = run(suite, output=tmp_path / "runs")
    assert result.status == "complete"
    assert result.timings["forward"] > 0
    return result


def maskformer(folder: Path, kind: str) -> Path:
    import transformers as t

    torch.manual_seed(0)
    decoder = t.DetrConfig(
        d_model=32, encoder_layers=1, decoder_layers=2, encoder_attention_heads=4, decoder_attention_heads=4, num_queries=7
    )
    config = t.MaskFormerConfig(
        fpn_feature_size=32, mask_feature_size=32, backbone_config=backbone(kind), decoder_config=decoder, **NAMES
    )
    t.MaskFormerForInstanceSegmentation(config).save_pretrained(folder)
    return folder


def eomt(folder: Path) -> Path:
    import transformers as t

    torch.manual_seed(0)
    config = t.EomtConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=64, patch_size=16, num_queries=7, num_blocks=1,
        num_upscale_blocks=2, **NAMES,
    )  # fmt: skip
    t.EomtForUniversalSegmentation(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "EomtImageProcessor", "size": {"shortest_edge": 64, "longest_edge": 64}, "do_pad": true, "do_resize": true}'
    )
    return folder


@pytest.mark.full
@pytest.mark.parametrize("kind", ["swin", "resnet"])
def test_maskformer(kind: str, tmp_path: Path) -> None:
    folder = maskformer(tmp_path / "maskformer", kind)
    found = inspect(str(folder))
    assert (found.family, found.queries, found.decoder_layers, found.problem) == ("MaskFormer", 7, 2, None)
    runs(folder, tmp_path)
    import transformers as t

    pixels = torch.linspace(-2, 2, 3 * 64 * 96).view(1, 3, 64, 96)
    with torch.inference_mode():
        expected = t.MaskFormerForInstanceSegmentation.from_pretrained(folder).eval()(pixels)
    classes, masks = load(resolve(str(folder)), Variant(name="p"), "cpu").forward(pixels)
    assert torch.equal(classes, expected.class_queries_logits[0])
    assert torch.equal(masks, expected.masks_queries_logits[0])


@pytest.mark.full
def test_eomt_by_its_own_processor(tmp_path: Path) -> None:
    folder = eomt(tmp_path / "eomt")
    found = inspect(str(folder))
    assert (found.family, found.queries, found.decoder_layers, found.backbone) == ("EoMT", 7, None, "ViT")
    runs(folder, tmp_path, "variants: [{name: own, protocol: transformers}]\n")
    with pytest.raises(
        CheckpointError, match=r"takes inputs of 64x64 pixels only, the protocol made .*use 'protocol: transformers'"
    ):
        runs(folder, tmp_path, "variants: [{name: paper}]\n")
    with pytest.raises(CheckpointError, match="its processor has no threshold or return_binary_maps|has no .*return_binary_maps"):
        runs(folder, tmp_path, "variants: [{name: best, protocol: transformers-best}]\n")


def test_a_sister_with_a_weight_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    folder = maskformer(tmp_path / "maskformer", "resnet")
    state = safetensors.torch.load_file(folder / "model.safetensors")
    del state["class_predictor.weight"]
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="a weight is missing from the checkpoint: class_predictor"):
        load(resolve(str(folder)), Variant(name="p"), "cpu")
