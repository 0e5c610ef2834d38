"""mmdetection's checkpoints: the logits of mmdetection's own code, and what has no counterpart."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pickles import CHECKPOINTS, unpack

from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load
from m2fbench.models.torch_files import read_torch
from m2fbench.sections import Variant

PLAIN = Variant(name="plain")


@pytest.fixture(params=["r50", "swin"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def file(name: str, tmp_path: Path) -> Path:
    """r50 as mmengine's trainer writes it, with its logs; swin as published, in torch's old form."""
    return unpack(f"mmdetection_{name}.pth", tmp_path)


def logits(path: Path, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    golden = np.load(CHECKPOINTS / f"mmdetection_{name}.npz")
    return load(resolve(str(path)), PLAIN, "cpu").forward(torch.from_numpy(golden["pixels"].astype(np.float32)))


def test_the_logits_are_mmdetections(file: Path, name: str) -> None:
    golden = np.load(CHECKPOINTS / f"mmdetection_{name}.npz")
    for found, key in zip(logits(file, name), ("class_logits", "mask_logits"), strict=True):
        expected = torch.from_numpy(golden[key])
        assert (found - expected).abs().max() < 3e-4  # a wrong permutation moves them by a fifth of their spread and more
        assert (found - expected).abs().mean() / expected.std() < 1e-5


def test_facts(file: Path, name: str) -> None:
    checkpoint = resolve(str(file))
    assert checkpoint.form == "mmdetection"
    assert checkpoint.labels == ("thing0", "thing1", "thing2", "stuff0", "stuff1")
    assert checkpoint.backbone == ("resnet" if name == "r50" else "swin")
    assert checkpoint.warnings == ()


def rewritten(path: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    content = dict(read_torch(path))
    content = {"meta": dict(content["meta"]), "state_dict": {k: v.clone() for k, v in content["state_dict"].items()}}
    change(content)
    path = path.with_name("changed.pth")
    torch.save(content, path)
    return path


@pytest.mark.full
def test_the_names_of_version_2(file: Path, name: str) -> None:
    def rename(content: dict[str, Any]) -> None:
        state = {}
        for key, value in content["state_dict"].items():
            if ".transformer_decoder.layers." in key:
                key = (
                    key.replace(".cross_attn.", ".attentions.0.")
                    .replace(".self_attn.", ".attentions.1.")
                    .replace(".ffn.", ".ffns.0.")
                )
            if ".pixel_decoder.encoder." in key:
                key = key.replace(".self_attn.", ".attentions.0.").replace(".ffn.", ".ffns.0.")
            state[key] = value
        content["state_dict"] = state
        content["meta"] = {"CLASSES": ("a", "b", "c", "d", "e"), "config": content["meta"]["cfg"]}

    expected = logits(file, name)
    path = rewritten(file, rename)
    assert resolve(str(path)).labels == ("a", "b", "c", "d", "e")
    assert all(torch.equal(a, b) for a, b in zip(logits(path, name), expected, strict=True))


@pytest.mark.full
def test_what_has_no_counterpart_is_named(file: Path, name: str) -> None:
    def with_text(text: str) -> Callable[[dict[str, Any]], None]:
        return lambda content: content["meta"].update(cfg=text)

    head = "model = dict(type='Mask2Former', panoptic_head=dict({}))"
    cases: list[tuple[Callable[[dict[str, Any]], None], str]] = [
        (with_text("model = dict(type='MaskFormer')"), "type='MaskFormer'"),
        (with_text("model = dict(backbone=dict(style='caffe'))"), "style='caffe'"),
        (with_text("model = {'backbone': {'dilations': (1, 1, 1, 2)}}"), r"dilations=\[1, 1, 1, 2\]"),
        (with_text("model = dict(data_preprocessor=dict(bgr_to_rgb=False))"), "bgr_to_rgb=False"),
        (with_text("model = dict(data_preprocessor=dict(mean=[0, 0, 0]))"), "mean="),
        (with_text("model = dict(backbone=dict(qk_scale=0.5))"), "qk_scale=0.5"),
        (with_text(head.format("layers=dict(self_attn_cfg=dict(num_heads=8, num_levels=3, num_points=8))")), "num_points=8"),
        (with_text(head.format("layers=[dict(cross_attn_cfg=dict(num_heads=2))]")), "num_heads=2"),
        (with_text(head.format("ffn_cfg=dict(act_cfg=dict(type='GELU'))")), "type='GELU'"),
        (
            lambda c: c["state_dict"].update({"panoptic_head.extra.weight": torch.zeros(1)}),
            "Mask2Former has not: panoptic_head.extra.weight",
        ),
        (
            lambda c: c["state_dict"].update({"decode_head.query_embed.weight": torch.zeros(8, 32)}),
            "the same weight under two names",
        ),
        (lambda c: c["meta"].update(dataset_meta={"classes": ["a"]}), ""),
    ]
    if name == "swin":
        key = "backbone.stages.0.downsample.norm.weight"
        cases.append((lambda c: c["state_dict"].update({key: torch.zeros(6)}), "expected a last dimension of four neighbours"))
    for change, message in cases:
        path = rewritten(file, change)
        if not message:
            assert any("its meta names 1 classes, the weights have 5" in warning for warning in resolve(str(path)).warnings)
            continue
        with pytest.raises(CheckpointError, match=message):
            resolve(str(path))
    fine = rewritten(
        file, with_text("dict(num_levels=3, num_points=4), train_cfg=dict(num_points=12544), qk_scale=None, style='pytorch'")
    )
    resolve(str(fine))
