"""FLOPs: fvcore's own figures of the real model, operator by operator; the paper's, row by row; and what cannot be counted is said."""

import functools
import io
import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, make_checkpoint
from fvcore.nn import FlopCountAnalysis
from plain_paper import plain_instances, plain_semantic
from rich.console import Console
from rich.text import Text
from test_sisters import backbone, eomt, maskformer
from torch import nn

import m2fbench.profiling.operators as operators
from m2fbench.errors import DatasetError, M2FBenchError, StoreError, SuiteError
from m2fbench.flops import CostReport, FlopsRequest, ModelCost, flops
from m2fbench.flops_inputs import read_sizes, setting_for, setting_of_row
from m2fbench.flops_results import comparisons
from m2fbench.models.architecture import architecture_of, build_module
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load_module
from m2fbench.models.parts import part_modules, parts_of
from m2fbench.models.plain_postprocess import on_shapes, plain_inference
from m2fbench.models.preprocess import Geometry
from m2fbench.models.zoo import zoo_entries
from m2fbench.profiling.flops import FVCORE, PAPER, POST_PROCESSING, Count, Uncounted, count, mean, together
from m2fbench.profiling.operators import NeedsDataError, record, record_model
from m2fbench.reporting.terminal.flops import flops_display, markdown
from m2fbench.sections import PublishedCosts
from m2fbench.suite import load_suite

LABELS = ["circle", "square", "triangle"]
REPORT = ROOT / "reports/flops.md"


class Logits(nn.Module):
    """The two outputs that a prediction is made of: a trace takes tensors."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = self.model(pixel_values=pixels)
        return output.class_queries_logits, output.masks_queries_logits


def traced(module: nn.Module, *inputs: torch.Tensor) -> FlopCountAnalysis:
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with torch.no_grad():
        analysis = FlopCountAnalysis(module, inputs)
        analysis.total()
    return analysis


def equal_fvcore(folder: Path, size: tuple[int, int]) -> Count:
    """Count the config of ``folder`` without its weights, and hold that to fvcore's count of the real model on the CPU."""
    real = load_module(resolve(str(folder)), eager=True)
    analysis = traced(Logits(real), torch.zeros(1, 3, *size))
    found = architecture_of(str(folder))
    module, parts = build_module(found), parts_of(found.config)
    recording = record_model(module, size, parts.rest, part_modules(module, parts))
    counted = count(recording.calls, FVCORE, parts.names)
    assert counted.by_operator == dict(analysis.by_operator())
    assert counted.total == analysis.total()
    for part, paths in parts.modules.items():
        assert counted.by_part[part] == sum(analysis.total(f"model.{path}") for path in paths), part
    assert [tuple(t.shape) for t in recording.result] == [tuple(t.shape) for t in Logits(real)(torch.zeros(1, 3, *size))]
    # of what fvcore passes over, this is tensors' arithmetic; its mul, add, div and sub are also the trace's arithmetic with sizes
    missed = {name.removeprefix("aten::"): n for name, n in analysis.unsupported_ops().items()}
    for name in ("softmax", "gelu", "baddbmm", "sigmoid", "masked_fill_", "max_pool2d", "exp", "add_", "upsample_bicubic2d"):
        assert missed.get(name, 0) == (counted.uncounted[name].occurrences if name in counted.uncounted else 0), name
    return counted


CONFIGS: dict[str, Callable[[Path], Path]] = {
    "swin, 3 classes": lambda folder: make_checkpoint(folder, LABELS),
    "resnet, 133 classes": lambda folder: make_checkpoint(folder, [f"c{k}" for k in range(133)], backbone=backbone("resnet")),
    "swin, 200 queries": lambda folder: with_queries(make_checkpoint(folder, LABELS), 200),
    "swinv2": lambda folder: make_checkpoint(folder, LABELS, backbone=backbone("swinv2")),
    "convnext": lambda folder: make_checkpoint(folder, LABELS, backbone=backbone("convnext")),
    "pvt_v2": lambda folder: make_checkpoint(folder, LABELS, backbone=backbone("pvt_v2")),
    "dinov2": lambda folder: make_checkpoint(folder, LABELS, backbone=backbone("dinov2")),
    "maskformer, swin": lambda folder: maskformer(folder, "swin"),
    "maskformer, resnet": lambda folder: maskformer(folder, "resnet"),
}


def with_queries(folder: Path, queries: int) -> Path:
    """The checkpoint again, with more queries."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    config = Mask2FormerConfig.from_pretrained(folder, num_queries=queries)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "size", [(96, 128), pytest.param((64, 32), marks=pytest.mark.full), pytest.param((160, 96), marks=pytest.mark.full)]
)
def test_equal_to_fvcores_count_of_the_real_model(size: tuple[int, int], tiny_checkpoint: Path) -> None:
    counted = equal_fvcore(tiny_checkpoint, size)
    assert {"linear", "conv", "matmul", "einsum", "bmm", "layer_norm", "group_norm", "grid_sampler", "upsample_bilinear2d"} == set(
        counted.by_operator
    )


@pytest.mark.full
@pytest.mark.parametrize("name", list(CONFIGS)[1:])
def test_equal_to_fvcore_for_other_configs(name: str, tmp_path: Path) -> None:
    for size in ((96, 128), (64, 64)):
        equal_fvcore(CONFIGS[name](tmp_path / str(size[0])), size)


@pytest.mark.full
@pytest.mark.parametrize("masks", [0.0, 1.0])
def test_equal_to_fvcore_for_eomt_with_and_without_masks(masks: float, tmp_path: Path) -> None:
    folder = eomt(tmp_path / "eomt")
    model = load_module(resolve(str(folder)))
    model.attn_mask_probs.fill_(masks)
    model.save_pretrained(folder)
    counted = equal_fvcore(folder, (64, 64))
    assert architecture_of(str(folder)).mask_probabilities == (masks,)
    (folder / "model.safetensors").unlink()
    bare = architecture_of(str(folder))
    assert bare.mask_probabilities == (0.0,)
    assert "its weights would say which blocks attend within masks" in bare.warnings[0]
    assert counted.total > 0


@pytest.mark.full
def test_equal_to_fvcore_at_full_size(tmp_path: Path) -> None:
    """The published R50, with random weights, on a small image."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    entry = architecture_of("zoo:coco/instance/R50")
    Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**entry.config)).save_pretrained(tmp_path / "r50")
    counted = equal_fvcore(tmp_path / "r50", (128, 160))
    assert counted.by_operator["batch_norm"] > 0


# ---- operators, one by one


class Toy(nn.Module):
    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()
        self.run = run

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.run(*inputs)


def tensors(*shapes: tuple[int, ...], device: str = "cpu") -> list[torch.Tensor]:
    return [torch.ones(shape, device=device) for shape in shapes]


F = nn.functional
TOYS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "linear": (lambda x, w, b: F.linear(x, w, b), [(2, 3, 4), (5, 4), (5,)]),
    "@": (lambda x, y: x @ y, [(2, 3, 4), (2, 4, 5)]),
    "Tensor.matmul": (lambda x, y: x.matmul(y), [(3, 4), (4, 5)]),
    "mm": (lambda x, y: torch.mm(x, y), [(3, 4), (4, 5)]),
    "bmm": (lambda x, y: torch.bmm(x, y), [(2, 3, 4), (2, 4, 5)]),
    "addmm": (lambda c, x, y: torch.addmm(c, x, y), [(3, 5), (3, 4), (4, 5)]),
    "einsum": (lambda x, y: torch.einsum("bqc,bchw->bqhw", x, y), [(1, 7, 3), (1, 3, 9, 11)]),
    "einsum, spaced": (lambda x, y: torch.einsum("n c t, n c p -> n t p", x, y), [(2, 3, 4), (2, 3, 5)]),
    "einsum of three": (lambda x, y, z: torch.einsum("ij,jk,kl->il", x, y, z), [(13, 7), (7, 17), (17, 3)]),
    "conv2d": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [(1, 4, 17, 19), (6, 4, 3, 3), (6,)]),
    "conv2d, grouped": (lambda x, w: F.conv2d(x, w, groups=2), [(1, 4, 17, 19), (6, 2, 3, 3)]),
    "conv1d": (lambda x, w: F.conv1d(x, w), [(1, 4, 17), (6, 4, 3)]),
    "conv_transpose2d": (lambda x, w: F.conv_transpose2d(x, w, stride=2), [(1, 4, 7, 9), (4, 6, 2, 2)]),
    "padding by name": (lambda x, w: F.conv2d(x, w, padding="same"), [(1, 4, 7, 9), (6, 4, 3, 3)]),
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b), [(2, 3, 4), (4,), (4,)]),
    "layer_norm, plain": (lambda x: F.layer_norm(x, (4,)), [(2, 3, 4)]),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [(1, 4, 5, 6), (4,), (4,)]),
    "batch_norm": (lambda x, m, v, w, b: F.batch_norm(x, m, v, w, b), [(1, 4, 5, 6), (4,), (4,), (4,), (4,)]),
    "instance_norm": (lambda x, w: F.instance_norm(x, weight=w), [(1, 4, 5, 6), (4,)]),
    "interpolate": (lambda x: F.interpolate(x, size=(9, 13), mode="bilinear"), [(1, 4, 5, 6)]),
    "interpolate, nearest": (lambda x: F.interpolate(x, scale_factor=2.0), [(1, 4, 5, 6)]),
    "grid_sample": (lambda x, g: F.grid_sample(x, g, align_corners=False), [(1, 4, 5, 6), (1, 3, 7, 2)]),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, (2, 2)), [(1, 4, 6, 8)]),
    "softmax and gelu": (lambda x: F.gelu(x.softmax(-1)), [(3, 4)]),
    "baddbmm": (lambda c, x, y: torch.baddbmm(c, x, y), [(2, 3, 5), (2, 3, 4), (2, 4, 5)]),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v), [(1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6)]),
    "tensordot": (lambda x, y: torch.tensordot(x, y, dims=1), [(3, 4), (4, 5)]),
    "fft": (lambda x: torch.fft.rfft2(x).abs(), [(1, 8, 8)]),
    "unused": (lambda x, y: (x @ y, x + 1)[1], [(3, 4), (4, 5)]),
    "written into": (lambda x, y: x.clone().copy_(x @ y) * 2, [(3, 3), (3, 3)]),
    "written into a view": (lambda x, y: wrote_into_a_row(x, y), [(3, 3), (3, 3)]),
}  # fmt: skip


def wrote_into_a_row(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    made = x.clone()
    made[0] = torch.mm(x, y)[0]
    return made


@pytest.mark.parametrize("name", list(TOYS))
def test_an_operator_is_counted_as_fvcore_counts_it(name: str) -> None:
    run, shapes = TOYS[name]
    analysis = traced(Toy(run), *tensors(*shapes))
    inputs = tensors(*shapes, device="meta")
    counted = count(record(lambda: (run(*inputs),), "all").calls, FVCORE, ("all",))
    assert counted.by_operator == dict(analysis.by_operator())
    passed_over = {name.removeprefix("aten::"): float(n) for name, n in analysis.unsupported_ops().items()}
    passed_over.pop("clone", None)  # data moved, nothing computed
    assert {k: v.occurrences for k, v in counted.uncounted.items()} == passed_over


def test_products_that_fvcore_does_not_know_are_estimated_as_products() -> None:
    q, k, v = tensors((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 6), device="meta")
    counted = count(record(lambda: (F.scaled_dot_product_attention(q, k, v),), "all").calls, FVCORE, ("all",))
    assert counted.uncounted["scaled_dot_product_attention"].estimate == 2 * (3 * 4 * 5 + 3 * 5 * 6)
    c, x, y = tensors((2, 3, 5), (2, 3, 4), (2, 4, 5), device="meta")
    calls = record(lambda: (torch.baddbmm(c, x, y),), "all").calls
    assert count(calls, FVCORE, ("all",)).uncounted["baddbmm"].estimate == 2 * 3 * 4 * 5
    assert count(calls, PAPER, ("all",)).by_operator == {"baddbmm": 2 * 3 * 4 * 5}
    x, w = tensors((1, 4, 7, 9), (6, 2, 3, 3), device="meta")
    calls = record(lambda: (F.conv2d(x, w, padding="same", groups=2),), "all").calls
    (known,) = count(calls, FVCORE, ("all",)).uncounted.values()
    assert (
        known.estimate
        == traced(Toy(lambda x, w: F.conv2d(x, w, padding=1, groups=2)), *tensors((1, 4, 7, 9), (6, 2, 3, 3))).total()
    )


def test_the_two_counts_differ_by_what_their_definitions_say(tiny_checkpoint: Path) -> None:
    found = architecture_of(str(tiny_checkpoint))
    module, parts = build_module(found), parts_of(found.config)
    calls = record_model(module, (96, 128), parts.rest, part_modules(module, parts)).calls
    ours, papers = (count(calls, definition, parts.names).by_operator for definition in (FVCORE, PAPER))
    assert papers.pop("baddbmm") > 0
    assert {k: v for k, v in ours.items() if k != "batch_norm"} == papers


def test_an_operator_of_ones_own_is_reported() -> None:
    library = torch.library.Library("m2fbench_test", "FRAGMENT")
    library.define("twice(Tensor x) -> Tensor")
    library.define("blind(Tensor x) -> Tensor")
    library.impl("twice", lambda x: torch.empty_like(x), "Meta")
    (x,) = tensors((3, 4), device="meta")
    counted = count(record(lambda: (torch.ops.m2fbench_test.twice(x @ x.T) + 1,), "all").calls, FVCORE, ("all",))
    assert counted.uncounted["m2fbench_test::twice"] == Uncounted(1, 9.0, "one per element of its output")
    with pytest.raises(
        NeedsDataError, match="the operator m2fbench_test::blind cannot run on shapes alone, so nothing was counted"
    ) as caught:
        record(lambda: (torch.ops.m2fbench_test.blind(x),), "all")
    assert "\n" not in str(caught.value)
    with pytest.raises(NeedsDataError, match="item"):
        record(lambda: (x * x.sum().item(),), "all")


def test_a_model_that_cannot_be_counted_stands_in_the_report_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: Any) -> Any:
        raise NeedsDataError("the operator x::y cannot run on shapes alone, so nothing was counted: no data")

    monkeypatch.setattr(operators, "record_model", refuse)
    (row,) = flops(["bundled:shapes_tiny"], FlopsRequest(size=(64, 64))).rows
    assert row.counts == {}
    assert row.problem == "the operator x::y cannot run on shapes alone, so nothing was counted: no data"
    assert row.flops_difference is None
    assert row.to_json()["parameters"] is None


def test_einsums_on_images_that_would_fill_the_memory_are_counted() -> None:
    """fvcore makes arrays of the operands' shapes; these would be of 400 TB."""
    x, y = (torch.empty(shape, device="meta") for shape in ((200, 65), (200, 500_000, 500_000)))
    counted = count(record(lambda: (torch.einsum("qc,qhw->chw", x, y),), "all").calls, FVCORE, ("all",))
    assert counted.total == pytest.approx(200 * 65 * 500_000**2, rel=1e-3)


# ---- means, parts, post-processing


def test_mean_and_deviation_are_over_the_images() -> None:
    def one(conv: float, linear: float) -> Count:
        return Count("x", {"a": {"conv": conv}, "b": {"linear": linear}}, {"add": Uncounted(2, conv, "r")})

    counts, images = [one(10, 1), one(20, 5), one(70, 9)], [3, 2, 1]
    found = mean(counts, images)
    totals = np.repeat([11, 25, 79], images)
    assert found.mean == pytest.approx(totals.mean())
    assert found.std == pytest.approx(totals.std())
    assert found.count.by_part == pytest.approx(
        {"a": np.repeat([10, 20, 70], images).mean(), "b": np.repeat([1, 5, 9], images).mean()}
    )
    assert sum(found.count.by_operator.values()) == pytest.approx(found.mean)
    assert found.count.uncounted["add"].estimate == pytest.approx(np.repeat([10, 20, 70], images).mean())
    assert mean([counts[0]], [5]).std == 0
    both = together(counts[0], Count("x", {POST_PROCESSING: {"einsum": 4.0}}, {"add": Uncounted(1, 1.0, "r")}))
    assert both.total == 15
    assert both.uncounted["add"] == Uncounted(3, 11.0, "r")


GEOMETRY = Geometry(original=(50, 70), resized=(60, 84), padded=(64, 96))


@pytest.mark.parametrize(
    ("heads", "resize", "expected"),
    [
        (("instance",), "before", {"upsample_bilinear2d": 4 * 7 * (64 * 96 + 50 * 70)}),
        (("semantic",), "after", {"upsample_bilinear2d": 4 * (7 * 64 * 96 + 5 * 50 * 70), "einsum": 7 * 5 * 64 * 96}),
        (("semantic",), "before", {"upsample_bilinear2d": 4 * 7 * (64 * 96 + 50 * 70), "einsum": 7 * 5 * 50 * 70}),
        (("instance", "panoptic", "semantic"), "before", {"upsample_bilinear2d": 4 * 7 * (64 * 96 + 50 * 70), "einsum": 7 * 5 * 50 * 70}),
    ],
)  # fmt: skip
def test_the_post_processing_counted_by_hand(heads: Any, resize: Any, expected: dict[str, float]) -> None:
    recording = record(lambda: on_shapes(((7, 6), (7, 16, 24)), GEOMETRY, heads, resize=resize, detections=100), POST_PROCESSING)
    counted = count(recording.calls, PAPER, (POST_PROCESSING,))
    assert counted.by_operator == pytest.approx(expected, rel=1e-3)  # four digits of an einsum
    assert counted.by_operator["upsample_bilinear2d"] == expected["upsample_bilinear2d"]


def test_what_is_counted_is_the_papers_post_processing() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 6, generator=generator), torch.randn(7, 16, 24, generator=generator)
    for resize in ("before", "after"):
        (scores,) = plain_inference(*logits, GEOMETRY, ("semantic",), resize=resize, detections=9)  # type: ignore[arg-type]
        assert torch.allclose(scores, plain_semantic(*logits, GEOMETRY, resize), atol=1e-6)
    scores, masks = plain_inference(*logits, GEOMETRY, ("instance",), resize="before", detections=9)
    expected, _, expected_masks = plain_instances(*logits, GEOMETRY, None, 9)
    assert torch.allclose(scores, expected)
    assert torch.equal(masks > 0, expected_masks)


# ---- inputs


def test_the_sizes_that_travel_with_the_package_are_cocos(shared: Path) -> None:
    listed = sorted(json.loads((shared / "data/coco_val2017_sizes.json").read_bytes()))[:100]
    document = json.loads((ROOT / "m2fbench/datasets/coco_val2017_sizes.json").read_bytes())
    assert document["sizes"] == listed
    assert "COCO" in document["source"]


def test_the_images_are_the_first_hundred_at_their_padded_sizes() -> None:
    suite = load_suite("coco_instance")
    inputs = setting_of_row(suite, suite.checkpoints[0], FlopsRequest()).inputs
    assert len(inputs.geometries) == 100
    assert len({g.padded for g in inputs.geometries}) == 20
    assert all(edge % 32 == 0 and edge <= 1344 for g in inputs.geometries for edge in g.padded)
    assert inputs.geometries[0] == Geometry((426, 640), (800, 1202), (800, 1216))  # 000000000139.jpg
    assert inputs.described == "the first 100 images by ascending id of COCO val2017, at 800/1333"
    assert inputs.as_published
    suite = load_suite("ade20k_semantic")
    crops = {row.name: setting_of_row(suite, row, FlopsRequest()).inputs.geometries for row in suite.checkpoints}
    assert crops["r50"] == (Geometry((512, 512), (512, 512), (512, 512)),)
    assert crops["swin-b"] == (Geometry((640, 640), (640, 640), (640, 640)),)


def test_other_images_are_not_compared_with_the_published_figures(tmp_path: Path) -> None:
    suite = load_suite("coco_instance")
    for request in (FlopsRequest(images=3), FlopsRequest(size=(96, 130))):
        assert not setting_of_row(suite, suite.checkpoints[0], request).inputs.as_published
    inputs = setting_of_row(suite, suite.checkpoints[0], FlopsRequest(size=(96, 130))).inputs
    assert inputs.geometries == (Geometry((96, 130), (96, 130), (96, 160)),)
    (tmp_path / "few.json").write_text("[[7, 100, 200], [3, 50, 60]]")
    inputs = setting_of_row(suite, suite.checkpoints[0], FlopsRequest(sizes=tmp_path / "few.json")).inputs
    assert [g.original for g in inputs.geometries] == [(50, 60), (100, 200)]
    assert not inputs.as_published
    assert inputs.notes == ()
    assert inputs.described == "all 2 images of few.json, at 800/1333"
    asked = setting_of_row(suite, suite.checkpoints[0], FlopsRequest(sizes=tmp_path / "few.json", images=100)).inputs
    assert asked.notes == ("100 images were asked for; few.json has 2",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "expected [[id, height, width], ...], got {}"),
        ("[]", "expected [[id, height, width], ...], got []"),
        ("[[1, 2]]", "[0]: expected [id, height, width], got [1, 2]"),
        ("[[1, 2, 3], [1, 2, 3.5]]", "[1]: expected [id, height, width], got [1, 2, 3.5]"),
        ("[[1, true, 3]]", "[0]: expected [id, height, width], got [1, true, 3]"),
        ("[[1, 0, 3]]", "[0]: expected sizes in pixels from 1 to 65535, got 0 and 3"),
        ("[[1, 9, 70000]]", "expected sizes in pixels"),
        ("[[1, 9, 9], [1, 8, 8]]", "[1]: image 1 is there twice"),
        ('[[1, 9, 9], ["a", 8, 8]]', "expected ids that are all numbers or all texts"),
        (f"{'[' * 100_000}", "not valid JSON"),
    ],
)
def test_sizes_files_that_are_wrong_give_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "sizes.json"
    path.write_text(text)
    with pytest.raises(DatasetError, match=re.escape(message)) as caught:
        read_sizes(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="No such file"):
        read_sizes(tmp_path / "none.json")


def test_an_image_too_thin_for_its_test_size_is_named(tmp_path: Path) -> None:
    (tmp_path / "thin.json").write_text("[[1, 1, 60000]]")
    suite = load_suite("coco_instance")
    with pytest.raises(DatasetError, match=r"thin.json: an image of 1x60000 \(height x width\) is too long and thin for 800/1333"):
        setting_of_row(suite, suite.checkpoints[0], FlopsRequest(sizes=tmp_path / "thin.json"))


def test_suites_without_images_at_hand_say_what_to_do() -> None:
    with pytest.raises(DatasetError, match="pass --data .* --sizes, or one size with --size HEIGHTxWIDTH"):
        flops(["cityscapes_semantic"])
    with pytest.raises(DatasetError, match="the sizes of the first 100 of COCO val2017 travel with m2fbench"):
        flops(["coco_instance"], FlopsRequest(images=101))
    with pytest.raises(SuiteError, match="--only r5: expected one of r50, .*did you mean 'r50'"):
        flops(["coco_instance"], FlopsRequest(only=("r5",)))
    with pytest.raises(SuiteError, match="--only r50: chooses rows of a suite"):
        flops(["zoo:coco/instance/R50"], FlopsRequest(only=("r50",)))


# ---- the whole


def test_every_shape_is_recorded_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_checkpoint: Path) -> None:
    seen = []

    def noted(module: Any, size: Any, *rest: Any) -> Any:
        seen.append(size)
        return record_model(module, size, *rest)

    monkeypatch.setattr(operators, "record_model", noted)
    sizes = [[1, 128, 160], [2, 128, 160], [3, 64, 80], [4, 127, 160]]
    (tmp_path / "sizes.json").write_text(json.dumps(sizes))
    request = FlopsRequest(sizes=tmp_path / "sizes.json", suite="shapes_instance")
    report = flops([str(tiny_checkpoint), str(tiny_checkpoint / "config.json")], request)
    assert sorted(seen) == sorted({g.padded for g in geometries(request)})
    assert 1 < len(seen) < len(sizes)
    first, second = report.rows
    assert (first.images, first.sizes) == (4, len(seen))
    assert first.counts == second.counts
    each = [flops([str(tiny_checkpoint)], replace(request, sizes=None, size=g.padded)).rows[0] for g in geometries(request)]
    model = [row.counts["fvcore"].mean for row in each]
    assert first.counts["fvcore"].mean == pytest.approx(np.mean(model))
    assert first.counts["fvcore"].std == pytest.approx(np.std(model))


def geometries(request: FlopsRequest) -> tuple[Geometry, ...]:
    suite = load_suite("shapes_instance")
    return setting_of_row(suite, suite.checkpoints[0], request).inputs.geometries


def test_a_dataset_of_ones_own_is_counted_at_its_real_sizes() -> None:
    (row,) = flops(["shapes_panoptic"], FlopsRequest(images=2)).rows
    assert row.images == 2
    assert row.heads == ("instance", "panoptic", "semantic")
    assert row.counts["paper"].count.by_part[POST_PROCESSING] > 0
    assert POST_PROCESSING not in row.counts["fvcore"].count.by_part
    assert row.weight_bytes is not None
    json.dumps(row.to_json(), allow_nan=False)


def test_a_checkpoint_named_by_itself_is_counted_by_the_suite_that_is_its_own() -> None:
    for name, entry in zoo_entries().items():
        setting, row = setting_for(architecture_of(f"zoo:{name}"), FlopsRequest(size=(64, 64)))
        dataset, task, _ = name.split("/")
        assert setting.suite == f"{dataset}_{task}", name
        assert setting.resize == entry.resize
        assert entry.task in setting.heads
        assert row is None or f"zoo:{name}" in (row.checkpoint, row.architecture)
    geometry = setting_for(architecture_of("zoo:ade20k/semantic/Swin-L-IN21k"), FlopsRequest())[0].inputs.geometries
    assert [g.padded for g in geometry] == [(640, 640)]


def test_classes_that_are_no_suites_ask_for_one(checkpoint_folder: Callable[..., Path]) -> None:
    folder = checkpoint_folder(["a", "b"], "own")
    with pytest.raises(
        SuiteError, match="its 2 classes are no shipped suite's.*pass --size HEIGHTxWIDTH.*as in --suite coco_instance$"
    ):
        flops([str(folder)])
    from m2fbench.labels import label_set

    folder = checkpoint_folder(label_set("ade20k").names, "ade")
    with pytest.raises(SuiteError, match="more than one suite; say --suite ade20k_panoptic or --suite ade20k_semantic"):
        flops([str(folder)])


def test_a_checkpoint_of_no_suite_is_counted_at_one_size(checkpoint_folder: Callable[..., Path], tmp_path: Path) -> None:
    folder = str(checkpoint_folder(["a", "b"], "own"))
    (alone,) = flops([folder], FlopsRequest(size=(64, 96))).rows
    assert (alone.suite, alone.heads, alone.problem) == (None, (), None)
    assert "the model alone was counted, without post-processing; --suite adds that, as in --suite coco_instance" in alone.notes[0]
    (by_suite,) = flops([folder], FlopsRequest(size=(64, 96), suite="coco_instance")).rows
    assert by_suite.counts["fvcore"] == alone.counts["fvcore"]
    parts = dict(by_suite.counts["paper"].count.by_part)
    assert parts.pop(POST_PROCESSING) > 0
    assert parts == alone.counts["paper"].count.by_part
    assert "by no suite: no post-processing; one image of 64x96 (height x width)" in displayed(alone)
    assert "as coco_instance has it: post-processing of instance" in displayed(by_suite)


@pytest.mark.parametrize(
    ("on", "heads", "resize"),
    [
        ("INSTANCE_ON", ("instance",), "before"),
        ("SEMANTIC_ON", ("semantic",), "after"),
        ("PANOPTIC_ON", ("instance", "panoptic", "semantic"), "before"),
    ],
)
def test_a_config_that_says_its_task_needs_no_suite(on: str, heads: tuple[str, ...], resize: str, tmp_path: Path) -> None:
    from test_architecture import WHOLE

    text = WHOLE.replace("coco_2017_val", "mine_val").replace("NUM_CLASSES: 80", "NUM_CLASSES: 7")
    (tmp_path / "config.yaml").write_text(text.replace("DEC_LAYERS: 10,", f"DEC_LAYERS: 10, TEST: {{{on}: true}},"))
    for reference in (tmp_path, tmp_path / "config.yaml"):
        setting, row = setting_for(architecture_of(str(reference)), FlopsRequest(size=(64, 96)))
        assert (setting.suite, setting.heads, setting.resize, row) == (None, heads, resize, None)
        assert "its config says that its task is" in setting.notes[0]


@pytest.mark.full
def test_the_papers_count_is_over_all_heads_of_the_original_configuration() -> None:
    """ADE20K's instance configuration runs all three heads."""
    instance, panoptic = (
        flops([f"ade20k_{task}"], FlopsRequest(only=("r50",), size=(640, 640))).rows[0] for task in ("instance", "panoptic")
    )
    assert instance.heads == panoptic.heads == ("instance", "panoptic", "semantic")
    einsum = 100 * 100 * 640 * 640  # queries, classes, pixels: the semantic head's
    paper = instance.counts["paper"]
    shapes = ((100, 101), (100, 160, 160))
    geometry = Geometry((640, 640), (640, 640), (640, 640))
    post = count(
        record(lambda: on_shapes(shapes, geometry, ("instance",), resize="before", detections=100), POST_PROCESSING).calls,
        PAPER,
        (POST_PROCESSING,),
    )
    assert paper.count.by_part[POST_PROCESSING] == pytest.approx(post.total + einsum, rel=1e-3)
    assert (paper.mean - einsum) / 1e9 == pytest.approx(103.9, abs=0.1)
    assert panoptic.counts["paper"].mean - paper.mean == pytest.approx(50 * 100 * 640 * 640, rel=0.01)  # 150 classes, not 100


def test_options_without_effect_are_refused(tmp_path: Path) -> None:
    one = FlopsRequest(size=(64, 64))
    for targets, request, message in (
        (["bundled:shapes_tiny"], replace(one, images=3), "--images 3: has no meaning with --size, which is one input"),
        (["bundled:shapes_tiny"], replace(one, sizes=tmp_path), "--sizes .*: has no meaning with --size"),
        (
            ["shapes_instance"],
            replace(one, suite="coco_instance"),
            "--suite coco_instance: .*every target is a suite; leave it out",
        ),
        (["shapes_instance"], replace(one, config="x.yaml"), "--config x.yaml: .*every target is a suite"),
        (["shapes_instance"], replace(one, labels="ade20k"), "--labels ade20k: .*every target is a suite"),
    ):
        with pytest.raises(SuiteError, match=message):
            flops(targets, request)
    assert len(flops(["shapes_instance", "bundled:shapes_tiny"], replace(one, suite="shapes_panoptic")).rows) == 2


def test_an_output_that_cannot_be_written_is_refused_before_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m2fbench import cli_costs

    def never(*_: Any) -> Any:
        raise AssertionError("counted")

    monkeypatch.setattr("m2fbench.flops.flops", never)
    for path, message in ((tmp_path / "no/x.json", "there is no folder"), (tmp_path, "got a folder")):
        with pytest.raises(StoreError, match=message):
            cli_costs.flops(["bundled:shapes_tiny"], as_json=True, output=path)
    monkeypatch.setattr("os.access", lambda *_: False)
    with pytest.raises(StoreError, match="no permission to write in"):
        cli_costs.flops(["bundled:shapes_tiny"], as_json=True, output=tmp_path / "x.json")


# ---- the tables


def displayed(*rows: ModelCost) -> str:
    """What a terminal of any width has."""
    console = Console(width=200, record=True, file=io.StringIO())
    for part in flops_display(CostReport(rows, "one = one", {"fvcore": "f.", "paper": "p."}, {"torch": "9.9", "fvcore": None})):
        console.print(part, soft_wrap=isinstance(part, Text))
    return console.export_text()


@functools.cache
def counted_shapes() -> ModelCost:
    return flops(["shapes_instance"], FlopsRequest(size=(64, 96))).rows[0]


def shapes_row(**changes: Any) -> ModelCost:
    costs = PublishedCosts(flops_G=226, params_M=2)
    return replace(counted_shapes(), **({"published": costs, "source": "a paper, table 7"} | changes))


def test_the_table_says_what_was_counted() -> None:
    row = shapes_row()
    text = displayed(row)
    assert f"{row.row}: ResNet, blocks 2-2-2-2" in text
    assert "as shapes_instance has it: post-processing of instance; one image of 64x96 (height x width); weight files of" in text
    assert "published: a paper, table 7; difference: from it, of the count paper and of the parameters" in text
    assert "operations: twice the count paper" in text
    assert "made with torch 9.9\n" in text
    assert "±" not in text
    assert f"{row.row}: other inputs than the published figure's, so its FLOPs are not compared" in text
    assert "other inputs" not in displayed(replace(row, as_published=True))
    assert "other inputs" not in displayed(replace(row, published=PublishedCosts(params_M=2)))
    assert "±: the standard deviation over the images" in displayed(replace(row, images=2))
    assert "published" not in displayed(replace(row, published=None))


def test_the_markdown_says_why_flops_are_not_compared() -> None:
    text = markdown(CostReport((shapes_row(),), "one = one", {"paper": "p"}, {"torch": "9.9"}), "m2fbench flops x")
    assert "; other inputs than the published figure's, so its FLOPs are not compared" in text
    assert "- published: a paper, table 7; difference: from it" in text


def test_the_terminal_lists_five_uncounted_operators_of_each_count() -> None:
    row = shapes_row()
    lines = displayed(row).partition("not counted")[2].partition("\n\n")[0].splitlines()[1:]
    for name, counted in row.counts.items():
        own = [words for words in map(str.split, lines) if name in words[1:3]]
        assert [words[0] for words in own[:5]] == list(counted.count.uncounted)[:5]
        assert own[5][:2] == [str(len(counted.count.uncounted) - 5), "others"]
        assert len(own) == 6


def test_what_could_not_be_counted_is_said_first() -> None:
    failed = ModelCost("fapn", problem="no code", published=PublishedCosts(params_M=217), source="table V")
    assert displayed(failed) == "fapn: not counted: no code (published: 217 M parameters, table V)\n"
    text = displayed(shapes_row(), failed)
    assert text.startswith("fapn: not counted: no code (published: 217 M parameters, table V)\n\nrow ")
    assert text.count("fapn") == 1


def test_rows_of_several_suites_are_told_apart() -> None:
    first, second = shapes_row(), shapes_row(suite="other")
    text = displayed(first, second)
    assert text.startswith("suite            row")
    for row in (first, second):
        assert f"\n{row.suite} {row.row}: ResNet" in text
    assert not displayed(first, first).startswith("suite")


def test_parameters_are_compared_whatever_the_inputs() -> None:
    for as_published in (True, False):
        found = {c.metric: c for c in comparisons(shapes_row(as_published=as_published))}
        assert set(found) == {"FLOPs", "parameters"}
        assert found["parameters"].comparable
        assert found["FLOPs"].comparable is as_published
        assert found["FLOPs"].published == 226e9


def test_a_dataset_smaller_than_the_papers_hundred_is_counted_whole(shapes_suite: Callable[..., Path]) -> None:
    suite = load_suite(shapes_suite())
    inputs = setting_of_row(suite, suite.checkpoints[0], FlopsRequest()).inputs
    assert 1 < len(inputs.geometries) < 100
    assert inputs.described.startswith(f"all {len(inputs.geometries)} images of shapes")
    assert inputs.notes == ()
    asked = setting_of_row(suite, suite.checkpoints[0], FlopsRequest(images=50)).inputs
    assert asked.notes == (f"50 images were asked for; shapes has {len(asked.geometries)}",)


def test_a_model_of_one_input_size_is_counted_at_that(tmp_path: Path) -> None:
    folder = eomt(tmp_path / "eomt")
    (row,) = flops([str(folder)], FlopsRequest(suite="coco_instance")).rows
    assert (row.images, row.inputs) == (1, "one image of 64x64 (height x width), the only input that the model takes")
    assert "not over the first 100 images" in row.notes[0]
    assert list(row.counts["paper"].count.by_part) == ["mask and class heads", "transformer", POST_PROCESSING]


# ---- the report that is committed


def reported() -> dict[tuple[str, str], dict[str, str]]:
    """(suite, row) -> column -> cell, of the first table; columns of one name are told apart by the one before them."""
    lines = REPORT.read_text().split("## Totals")[1].split("##")[0].splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    columns = [
        name if name != "difference" else f"{before} difference" for before, name in zip(["", *table[0]], table[0], strict=False)
    ]
    return {(row[0], row[1]): dict(zip(columns, row, strict=True)) for row in table[2:]}


ROWS = [(name, row) for name in ("coco_instance", "ade20k_semantic") for row in load_suite(name).checkpoints]


@pytest.mark.parametrize(("suite", "row"), ROWS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_every_published_figure_stands_in_the_report_within_a_percent(suite: str, row: Any) -> None:
    cells, costs = reported()[suite, row.name], row.published_costs
    assert float(cells["published, M"]) == costs.params_M
    if row.unavailable:
        assert cells["paper, G"] == cells["fvcore, G"] == cells["parameters, M"] == "-"
        assert f"{suite} {row.name}: not counted: {row.unavailable}" in REPORT.read_text()
        return
    found, published = float(cells["paper, G"].split(" ± ")[0]), float(cells["published, G"])
    assert published == costs.flops_G
    assert abs(found / published - 1) < 0.01
    assert float(cells["published, G difference"].removesuffix(" %")) == pytest.approx(100 * (found / published - 1), abs=0.02)
    assert float(cells["operations, G"]) == pytest.approx(2 * found, abs=0.1)
    assert abs(float(cells["parameters, M"]) / costs.params_M - 1) < 0.01
    assert int(cells["images"]) == (100 if suite == "coco_instance" else 1)


def test_the_report_has_all_rows_and_the_command() -> None:
    assert list(reported()) == [(name, row.name) for name, row in ROWS]
    assert "Made by `m2fbench flops coco_instance ade20k_semantic --markdown -o reports/flops.md`" in REPORT.read_text()
    for definition in (FVCORE, PAPER):
        assert definition.text in REPORT.read_text()


@pytest.mark.full
@pytest.mark.parametrize(
    ("suite", "row"),
    [("ade20k_semantic", "r50"), ("ade20k_semantic", "swin-s"), pytest.param("coco_instance", "r50", marks=pytest.mark.slow)],
)
def test_the_report_is_what_is_counted(suite: str, row: str) -> None:
    (found,) = flops([suite], FlopsRequest(only=(row,))).rows
    cells = reported()[suite, row]
    deviation = f" ± {found.counts['paper'].std / 1e9:.2f}" if found.images > 1 else ""
    assert cells["paper, G"] == f"{found.counts['paper'].mean / 1e9:.2f}{deviation}"
    assert cells["fvcore, G"].split(" ± ")[0] == f"{found.counts['fvcore'].mean / 1e9:.2f}"
    assert cells["parameters, M"] == f"{(found.all_parameters or 0) / 1e6:.2f}"


def test_published_costs_are_those_of_the_papers_tables(shared: Path) -> None:
    from test_published_suites import SLUGS

    published = json.loads((shared / "reference/published_results.json").read_bytes())
    places = {
        "coco_instance": ("coco_val2017", {"flops_G": "flops_G", "params_M": "params_M", "fps": "fps_instance"}),
        "coco_panoptic": ("coco_val2017", {"params_M": "params_M", "fps": "fps_panoptic"}),
        "ade20k_semantic": ("ade20k_val_semantic", {"flops_G": "flops_G", "params_M": "params_M"}),
    }
    for name, (block, keys) in places.items():
        rows = {row.name: row.published_costs for row in load_suite(name).checkpoints}
        expected = {SLUGS[row["backbone"]]: row for row in published[block]["rows"]}
        assert set(rows) == set(expected)
        for slug, costs in rows.items():
            assert costs is not None
            printed = costs.model_dump(exclude_none=True, exclude={"fps_device"})
            assert printed == {k: expected[slug][v] for k, v in keys.items() if v in expected[slug]}
            assert costs.fps_device == ("one V100" if costs.fps else None)


def test_the_hubs_copies_are_counted_as_the_zoos_rows_that_they_are() -> None:
    from test_published_suites import HUB

    for row in load_suite("coco_instance").checkpoints:
        expected = HUB.get(row.checkpoint or "")
        assert row.architecture == (f"zoo:{expected}" if expected else None)


# ---- the command


@pytest.mark.full
def test_the_command_prints_tables_json_and_markdown(cli: Callable[..., Any], tmp_path: Path) -> None:
    done = cli("flops", "bundled:shapes_tiny", "--size", "64x96")
    assert done.returncode == 0, done.stderr
    for word in (
        "backbone",
        "pixel decoder",
        "transformer decoder",
        "post-processing",
        "baddbmm",
        "one multiply-add = one FLOP",
        FVCORE.text[:40],
    ):
        assert word in " ".join(done.stdout.split())
    target = tmp_path / "out.json"
    done = cli("flops", "bundled:shapes_tiny", "--size", "64x96", "--json", "-o", target)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(target.read_text())["rows"]
    assert row["counts"]["paper"]["operations"] == 2 * row["counts"]["paper"]["flops"]
    assert sum(row["parameters_by_part"].values()) == row["parameters"]
    assert row["inputs"] == "one image of 64x96 (height x width)"


@pytest.mark.full
def test_command_lines_that_are_wrong(cli: Callable[..., Any], tmp_path: Path) -> None:
    for arguments, message in (
        (("zoo:coco/instance/R5",), "no such checkpoint in the model zoo"),
        (("bundled:shapes_tiny", "--size", "64"), "--size 64: expected HEIGHTxWIDTH in pixels"),
        (("bundled:shapes_tiny", "--size", "0x64"), "expected HEIGHTxWIDTH"),
        (("bundled:shapes_tiny", "-o", "x.md"), "say what to write, --json or --markdown"),
        (("bundled:shapes_tiny", "--json", "--markdown"), "one of the two"),
        (("bundled:shapes_tiny", "--json", "-o", tmp_path / "no/x.json"), f"there is no folder {tmp_path / 'no'}; make it"),
        (("bundled:shapes_tiny", "--json", "-o", tmp_path), "expected a file to write, got a folder"),
        (("bundled:shapes_tiny", "--json", "-o", "/dev/null"), "expected a file to write, got something else"),
        (("bundled:shapes_tiny", "--size", "100000x100000"), "the largest edge that is counted is 65535 pixels"),
        (("bundled:shapes_tiny", "--size", "64x64", "--images", "3"), "--images 3: has no meaning with --size"),
        (("coco_instance", "--suite", "coco_panoptic"), "--suite coco_panoptic: is of a checkpoint named by itself"),
        (("coco_instances",), "no suite of that name (did you mean 'coco_instance'?)"),
        (("./no_such_folder",), "no such folder"),
    ):
        done = cli("flops", *arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_what_a_suite_says_of_costs_is_checked(tmp_path: Path, shapes_suite: Callable[..., Path]) -> None:
    for extra, message in (
        ("flops: {inputs: crops}", "expected 'first' or 'crop', got \"crops\""),
        ("flops: {inputs: crop, images: 3}", "no 'images' with 'inputs: crop'"),
        ("flops: {images: 0}", "greater than or equal to 1"),
        ("flops: {image: 3}", "unknown key (did you mean 'images'?)"),
    ):
        with pytest.raises(SuiteError, match=re.escape(message)):
            load_suite(shapes_suite(extra=extra))
    path = shapes_suite()
    text = path.read_text()
    for costs, message in (("{flops_G: 0}", "greater than 0"), ("{flops: 3}", "unknown key"), ("{fps: 3}", "expected 'source'")):
        path.write_text(text.replace("{name: tiny,", f"{{name: tiny, published_costs: {costs},"))
        with pytest.raises(SuiteError, match=re.escape(message)):
            load_suite(path)


def test_reports_are_plain_values(tiny_checkpoint: Path) -> None:
    report: CostReport = flops([str(tiny_checkpoint)], FlopsRequest(suite="shapes_instance", size=(64, 64)))
    text = json.dumps(report.to_json(), allow_nan=False)
    assert json.loads(text)["definitions"] == {"fvcore": FVCORE.text, "paper": PAPER.text}
    assert json.loads(text)["versions"]["fvcore"]
    row: ModelCost = report.rows[0]
    assert issubclass(NeedsDataError, M2FBenchError)
    assert row.flops_difference is row.parameters_difference is None


def test_an_interrupt_is_said(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    import m2fbench.flops
    from m2fbench import cli

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(m2fbench.flops, "flops", interrupted)
    monkeypatch.setattr("sys.argv", ["m2fbench", "flops", "bundled:shapes_tiny"])
    assert cli._status() == 130
    assert capfd.readouterr().err == "m2fbench: interrupted\n"
