"""The original code's checkpoints: the logits of the original code itself, at all its sizes, and everything that can be wrong."""

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FIXTURES
from pickles import CHECKPOINTS, dumps, unpack

from m2fbench.errors import CheckpointError
from m2fbench.labels import label_set
from m2fbench.models.checkpoint import Checkpoint, resolve
from m2fbench.models.load import load
from m2fbench.models.original import architecture, modern_names, to_transformers
from m2fbench.models.zoo import zoo_entries
from m2fbench.sections import Variant

PLAIN = Variant(name="plain")
Logits = tuple[torch.Tensor, torch.Tensor]


def logits(checkpoint: Checkpoint, pixels: np.ndarray, variant: Variant = PLAIN) -> Logits:
    return load(checkpoint, variant, "cpu").forward(torch.from_numpy(pixels.astype(np.float32)))


def differences(found: Logits, expected: Any) -> list[tuple[float, float]]:
    """(largest absolute, mean absolute over the standard deviation) for class and mask logits."""
    pairs = zip(found, (expected["class_logits"], expected["mask_logits"]), strict=True)
    return [
        (float((a - torch.from_numpy(b)).abs().max()), float((a - torch.from_numpy(b)).abs().mean() / torch.from_numpy(b).std()))
        for a, b in pairs
    ]


@pytest.fixture(params=["r50", "swin"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def original(name: str, tmp_path: Path) -> Path:
    """A small checkpoint in the original format, random weights, in a folder of its own."""
    folder = tmp_path / "trained"
    folder.mkdir()
    return unpack(f"original_{name}.pkl", folder)


@pytest.fixture
def golden(name: str) -> Any:
    """Pixels, and the logits that the original code gives for them with that checkpoint."""
    return np.load(CHECKPOINTS / f"original_{name}.npz")


def content_of(path: Path) -> dict[str, Any]:
    return dict(pickle.loads(path.read_bytes()))


def respoil(path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write the checkpoint again with its state dict changed."""
    content = content_of(path)
    state = dict(content["model"])
    content["model"] = change(state) or state
    path.write_bytes(pickle.dumps(content, 4))
    return path


def test_the_logits_are_the_original_codes(original: Path, golden: Any) -> None:
    found = differences(logits(resolve(str(original)), golden["pixels"]), golden)
    # another CPU rounds otherwise: float32 against float64 differ by 6e-5 here; a wrong mapping by more than 1e-2
    assert max(largest for largest, _ in found) < 3e-4, found
    assert max(mean for _, mean in found) < 1e-5, found


@pytest.mark.parametrize("numpy1", [False, True], ids=["numpy2", "numpy1"])
@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.full
def test_every_protocol_gives_the_same_logits(original: Path, golden: Any, protocol: int, numpy1: bool, tmp_path: Path) -> None:
    again = tmp_path / "again.pkl"
    again.write_bytes(dumps(content_of(original), protocol, numpy1=numpy1))
    expected = logits(resolve(str(original)), golden["pixels"])
    assert all(torch.equal(a, b) for a, b in zip(logits(resolve(str(again)), golden["pixels"]), expected, strict=True))


@pytest.mark.full
def test_the_forms_of_torch_and_safetensors_give_the_same_logits(original: Path, golden: Any, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    state = {k: torch.from_numpy(v.copy()) for k, v in content_of(original)["model"].items()}
    expected = logits(resolve(str(original)), golden["pixels"])
    torch.save({"model": state, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}}, "iteration": 7}, tmp_path / "a.pth")
    torch.save({"model": state}, tmp_path / "b.pth", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "c.bin")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "d.pt")
    save_file(state, tmp_path / "e.safetensors")
    for path in sorted(tmp_path.glob("?.*")):
        assert all(torch.equal(a, b) for a, b in zip(logits(resolve(str(path)), golden["pixels"]), expected, strict=True)), path


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.full
def test_variants_take_effect(original: Path, golden: Any, dtype: Any) -> None:
    model = load(resolve(str(original)), Variant(name="half", dtype=dtype, attention="eager"), "cpu")
    assert model.settings["dtype"] == dtype
    assert model.settings["attention"] == {"backbone": "eager", "model": "eager"}
    assert model.forward(torch.from_numpy(golden["pixels"]))[0].dtype == torch.float32


@pytest.mark.full
def test_old_names_are_read(original: Path, golden: Any) -> None:
    expected = logits(resolve(str(original)), golden["pixels"])
    for old, new in (("pixel_decoder.", ""), ("query_feat", "static_query")):
        path = respoil(original, lambda s, old=old, new=new: {k.replace(old, new): v for k, v in s.items()})  # type: ignore[misc]
        assert not any(old in k for k in content_of(path)["model"])
        assert all(torch.equal(a, b) for a, b in zip(logits(resolve(str(path)), golden["pixels"]), expected, strict=True))


# the same on the two real photos of the golden checkpoints; on a CPU that rounds as theirs did, by the instructions it may use
GOLDEN = """
import json, sys
import numpy as np, torch
from PIL import Image
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load
from m2fbench.models.preprocess import preprocess
from m2fbench.sections import Variant
torch.set_num_threads(2)
file, logits, photos = sys.argv[1:]
golden = np.load(logits)
overrides = json.loads(str(golden["overrides"]))
settings = dict(zip(overrides[::2], overrides[1::2]))
model = load(resolve(file), Variant(name="plain"), "cpu")
answer = []
for photo in (872, 1000):
    image = np.asarray(Image.open(f"{photos}/{photo:012d}.jpg").convert("RGB"))
    found = model.forward(preprocess(image, settings["INPUT.MIN_SIZE_TEST"], settings["INPUT.MAX_SIZE_TEST"]).pixels)
    for value, kind in zip(found, ("class", "mask")):
        expected = torch.from_numpy(golden[f"{photo}_{kind}_logits"])
        difference = (value - expected).abs()
        answer.append([float(difference.max()), float(difference.mean() / expected.std())])
print(json.dumps(answer))
"""
SAME_ROUNDING = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"}


def golden_differences(shared: Path, checkpoint: str, file: Path, **environment: str) -> list[list[float]]:
    arguments = [str(file), str(shared / "golden" / f"{checkpoint}.npz"), str(shared / "data" / "coco_real" / "val2017")]
    done = subprocess.run(
        [sys.executable, "-c", GOLDEN, *arguments], capture_output=True, text=True, env={**os.environ, **environment}, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout))


@pytest.mark.full
def test_golden_r50(shared: Path) -> None:
    name = "original_tiny_r50_ade_semantic"
    found = golden_differences(shared, name, shared / "golden" / f"{name}.pkl", **SAME_ROUNDING)
    assert max(largest for largest, _ in found) <= 1e-5, found
    free = golden_differences(
        shared, name, shared / "golden" / f"{name}.pkl"
    )  # as this CPU rounds, and the original code on it too
    assert max(mean for _, mean in free) < 1e-5, free


@pytest.mark.full
def test_golden_swin(shared: Path) -> None:
    name = "original_tiny_swin_coco_panoptic"
    found = golden_differences(shared, name, shared / "golden" / f"{name}.pkl")
    assert max(mean for _, mean in found) < 1e-3, found


@pytest.mark.full
@pytest.mark.parametrize("checkpoint", ["original_tiny_r50_ade_semantic", "original_tiny_swin_coco_panoptic"])
def test_golden_rewritten(shared: Path, checkpoint: str, tmp_path: Path) -> None:
    """With numpy 1's names and in every protocol: the same logits on the same photos, bit for bit."""
    source = shared / "golden" / f"{checkpoint}.pkl"
    pixels = np.random.default_rng(0).normal(size=(1, 3, 96, 128)).astype(np.float32)
    expected = logits(resolve(str(source)), pixels)
    for protocol in range(6):
        for numpy1 in (False, True):
            path = tmp_path / f"{protocol}-{numpy1}.pkl"
            path.write_bytes(dumps(content_of(source), protocol, numpy1=numpy1))
            found = logits(resolve(str(path)), pixels)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), (protocol, numpy1)


# ---- the zoo's real sizes, without their weights


def zoo_shapes() -> dict[str, dict[str, Any]]:
    """Backbone -> name -> (shape, dtype): the original code's own state dicts."""
    return dict(json.loads(gzip.decompress((FIXTURES / "zoo_shapes.json.gz").read_bytes())))


def zoo_state(entry: str) -> dict[str, torch.Tensor]:
    """The state dict of a zoo checkpoint, on the meta device. Synchronised batch norms count their batches, frozen ones do not."""
    published = zoo_entries()[entry]
    classes = len(label_set(published.labels).classes)
    backbone = entry.rsplit("/", 1)[1].removesuffix("-IN21k")
    state = {}
    for name, (shape, dtype) in zoo_shapes()[backbone].items():
        shape = list(shape)
        if name.startswith(("sem_seg_head.predictor.class_embed", "criterion.empty_weight")):
            shape[0] = classes + 1
        if name in ("sem_seg_head.predictor.query_feat.weight", "sem_seg_head.predictor.query_embed.weight"):
            shape[0] = published.queries
        state[name] = torch.empty(shape, dtype=getattr(torch, dtype), device="meta")
    if backbone.startswith("R") and entry.startswith(("cityscapes", "ade20k/semantic/R101")):
        counters = [name.removesuffix("running_mean") + "num_batches_tracked" for name in state if name.endswith("running_mean")]
        state |= {name: torch.empty((), dtype=torch.int64, device="meta") for name in counters}
    return state


@pytest.mark.parametrize(
    "entry", [e if e.startswith("coco/panoptic") else pytest.param(e, marks=pytest.mark.full) for e in zoo_entries()]
)
def test_every_zoo_checkpoint_converts_with_no_weight_left_or_missing(entry: str) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    state = zoo_state(entry)
    config = architecture({name: tuple(value.shape) for name, value in state.items()}, entry)
    with torch.device("meta"):
        model = Mask2FormerForUniversalSegmentation(Mask2FormerConfig(**config))
    expected = {name: (tuple(value.shape), value.dtype) for name, value in model.state_dict().items()}
    assert {name: (tuple(value.shape), value.dtype) for name, value in to_transformers(state, entry).items()} == expected
    published = zoo_entries()[entry]
    assert config["num_queries"] == published.queries
    assert len(config["id2label"]) == len(label_set(published.labels).classes)
    if config["backbone_config"]["model_type"] == "swin":
        assert config["backbone_config"]["window_size"] == (12 if "Swin-B" in entry or "Swin-L" in entry else 7)


def test_the_zoo_covers_what_it_should() -> None:
    entries = zoo_entries().values()
    assert len(entries) == 47
    assert {len(label_set(e.labels).classes) for e in entries} == {80, 133, 150, 100, 19, 8, 65}
    assert {e.queries for e in entries} == {100, 200}
    assert set(zoo_shapes()) == {"R50", "R101", "Swin-T", "Swin-S", "Swin-B", "Swin-L"}


def test_every_weight_has_a_place_of_its_own() -> None:
    """No two weights end under one name, and each one's values arrive."""
    for backbone, shapes in zoo_shapes().items():
        if backbone in ("R101", "Swin-B", "Swin-L"):
            continue  # the same names as their smaller sisters, more of them
        state = {
            name: torch.full([min(n, 3) if len(s) else n for n in s], float(k)) for k, (name, (s, _)) in enumerate(shapes.items())
        }
        values = [
            v.flatten()[0].item()
            for v in to_transformers(modern_names(state, backbone), backbone).values()
            if v.numel() and v.dim()
        ]
        kept = {float(k) for k, name in enumerate(shapes) if "relative_position_index" not in name}
        assert kept <= set(values) | {0.0}


# ---- what can be wrong


def refusal(path: Path | str, **options: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(resolve(str(path), **options), PLAIN, "cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.full
def test_missing_left_over_and_misshapen_weights_are_named(original: Path) -> None:
    keep = shutil.copy(original, original.with_suffix(".keep"))

    def spoil(change: Callable[[dict[str, Any]], Any]) -> str:
        shutil.copy(keep, original)
        return refusal(respoil(original, change))

    def without(word: str) -> Callable[[dict[str, Any]], Any]:
        return lambda s: {k: v for k, v in s.items() if word not in k}

    def shaped(name: str, *shape: int) -> Callable[[dict[str, Any]], Any]:
        return lambda s: s | {name: np.zeros(shape, np.float32)}

    head = "sem_seg_head.predictor"
    assert "unknown to Mask2Former: extra.weight" in spoil(lambda s: s | {"extra.weight": np.zeros(1, np.float32)})
    assert "a weight is missing" in spoil(without("predictor.level_embed"))
    assert "a weight is missing: sem_seg_head.predictor.class_embed.weight" in spoil(without("class_embed.weight"))
    assert "transformer_ffn_layers.1" in spoil(without("transformer_ffn_layers.1"))
    assert "do not fit together" in spoil(shaped(f"{head}.class_embed.bias", 9))
    assert "expected 2 dimensions" in spoil(shaped(f"{head}.class_embed.weight", 9))
    assert "query, key and value" in spoil(shaped(f"{head}.transformer_self_attention_layers.0.self_attn.in_proj_bias", 10))
    assert "fit no number of heads" in spoil(
        shaped("sem_seg_head.pixel_decoder.transformer.encoder.layers.0.self_attn.sampling_offsets.weight", 97, 64)
    )
    assert "4 levels, expected 3" in spoil(shaped("sem_seg_head.pixel_decoder.transformer.level_embed", 4, 64))
    assert "are no Mask2Former" in spoil(shaped(f"{head}.class_embed.weight", 1, 64))
    bias = f"{head}.class_embed.bias"
    assert "class_predictor.bias holds NaN" in spoil(lambda s: s | {bias: s[bias] * np.nan})
    assert "has something other than weights under 'x' (str)" in spoil(lambda s: s | {"x": "y"})


@pytest.mark.full
def test_what_would_load_as_something_else_is_refused(original: Path) -> None:
    keep = shutil.copy(original, original.with_suffix(".keep"))

    def spoil(change: Callable[[dict[str, Any]], Any]) -> str:
        shutil.copy(keep, original)
        return refusal(respoil(original, change))

    head, pixel = "sem_seg_head.predictor", "sem_seg_head.pixel_decoder"
    twice = "are the same weight under two names"
    assert twice in spoil(lambda s: s | {f"{head}.static_query.weight": s[f"{head}.query_feat.weight"]})
    assert twice in spoil(lambda s: s | {"sem_seg_head.adapter_1.weight": s[f"{pixel}.adapter_1.weight"]})
    for dtype in (np.int8, np.bool_, np.uint16):
        message = spoil(lambda s, dtype=dtype: s | {f"{head}.class_embed.bias": s[f"{head}.class_embed.bias"].astype(dtype)})  # type: ignore[misc]
        assert "expected floating point" in message
    assert "NaN or infinite" in spoil(
        lambda s: s | {f"{head}.class_embed.bias": s[f"{head}.class_embed.bias"].astype(np.float64) * 1e300}
    )
    message = spoil(lambda s: s | {"evil\nm2fbench: error: fake\x1b]0;pwn\x07": np.zeros(1, np.float32)})
    assert "evil?m2fbench: error: fake?" in message


def test_a_file_that_changes_between_hash_and_load_is_refused(original: Path) -> None:
    checkpoint = resolve(str(original))
    respoil(original, lambda s: s)
    with pytest.raises(CheckpointError, match="has changed since it was looked at"):
        load(checkpoint, PLAIN, "cpu")


def test_a_config_yaml_that_is_none_of_detectron2s(original: Path) -> None:
    (original.parent / "config.yaml").write_text("lr: 0.1")
    checkpoint = resolve(str(original))
    assert any("none of detectron2's and was not used" in warning for warning in checkpoint.warnings)
    assert checkpoint.test_size is None
    with pytest.raises(CheckpointError, match="got one without MODEL, INPUT or DATASETS"):
        resolve(str(original), config=str(original.parent / "config.yaml"))
    with pytest.raises(CheckpointError, match="got no file; check the path"):
        resolve(str(original), config="nosuch.yaml")
    with pytest.raises(CheckpointError, match="got no file"):
        resolve(str(original), config=str(original.parent))


def test_backbones_that_are_not_supported(tmp_path: Path) -> None:
    swin, r50 = unpack("original_swin.pkl", tmp_path), unpack("original_r50.pkl", tmp_path)
    table = "backbone.layers.0.blocks.0.attn.relative_position_bias_table"
    assert "fit no window" in refusal(respoil(swin, lambda s: s | {table: np.zeros((26, 1), np.float32)}))
    assert "fit no window" in refusal(respoil(swin, lambda s: s | {table: np.zeros((999_999, 1), np.float32)}))
    assert "deep stem" in refusal(respoil(r50, lambda s: {k.replace("stem.conv1", "stem.conv1_1"): v for k, v in s.items()}))
    conv = "backbone.res2.0.conv2.weight"
    r50 = unpack("original_r50.pkl", tmp_path)
    assert "grouped or wide" in refusal(respoil(r50, lambda s: s | {conv: s[conv][:, :1]}))


def test_what_another_file_is(tmp_path: Path) -> None:
    for names, what in (
        (["roi_heads.box_head.fc1.weight", "backbone.x"], "a detectron2 R-CNN"),
        (["sem_seg_head.predictor.transformer.encoder.layers.0.norm1.weight"], "an original MaskFormer"),
        (["model.pixel_level_module.encoder.x"], "transformers' layout without their config.json"),
        (["task_mlp.layers.0.weight"], "an original OneFormer"),
        (["patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"], "an ImageNet backbone alone"),
        (["a", "b"], "something else, with weights named a, b"),
    ):
        path = tmp_path / "x.pkl"
        path.write_bytes(pickle.dumps({"model": {name: np.zeros(2, np.float32) for name in names}}))
        assert what in refusal(path)
    for content, what in (
        (pickle.dumps([1]), "holds a list, expected a state dict"),
        (pickle.dumps({"model": {}}), "expected a state dict|something other than weights"),
        (pickle.dumps({"blobs": {"a": np.zeros(1)}}), "holds blobs, expected a state dict"),
        (b"", "is empty"),
        (b"\x89PNG\r\n", "is no file of weights"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "git lfs pull"),
    ):
        path.write_bytes(content)
        assert any(part in refusal(path) for part in what.split("|")), what


def test_the_folder_of_a_training(original: Path, tmp_path: Path) -> None:
    folder = original.parent
    assert resolve(str(folder)).weight_files == (original.name,)
    shutil.copy(original, folder / "model_0000009.pth")
    assert "got 2 checkpoints; pass the file" in refusal(folder)
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    assert resolve(str(folder)).weight_files == ("model_0000009.pth",)
    shutil.copy(original, folder / "model_final.pth")
    assert resolve(str(folder)).weight_files == ("model_final.pth",)
    assert "got nothing" in refusal(_made(tmp_path / "empty"))


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


# ---- the config beside it


@pytest.mark.full
def test_a_config_beside_the_weights_completes_them(name: str, original: Path) -> None:
    alone = resolve(str(original))
    assert (alone.task, alone.test_size, alone.detectron_config) == (None, None, None)
    assert any("no config.yaml beside it says PRE_NORM" in warning for warning in alone.warnings)
    config = shutil.copy(CHECKPOINTS / f"original_{name}.yaml", original.parent / "config.yaml")
    beside = resolve(str(original))
    assert beside.detectron_config == str(config)
    assert beside.test_size == (800, 1333)
    assert beside.task is not None
    assert not any("no config.yaml beside it says PRE_NORM" in warning for warning in beside.warnings)
    text = config.read_text()
    config.write_text(text.replace("PRE_NORM: false", "PRE_NORM: true"))
    assert resolve(str(original)).sha256 != beside.sha256
    assert resolve(str(original), config=str(CHECKPOINTS / f"original_{name}.yaml")).sha256 == beside.sha256


@pytest.mark.full
def test_weights_and_config_that_disagree(name: str, original: Path) -> None:
    config = Path(shutil.copy(CHECKPOINTS / f"original_{name}.yaml", original.parent / "config.yaml"))
    text = config.read_text()
    keys = ["NUM_OBJECT_QUERIES: 8", "DEC_LAYERS: 4", "NUM_CLASSES: 5", "HIDDEN_DIM: 64", "NHEADS: 4", "DIM_FEEDFORWARD: "]
    keys += ["WINDOW_SIZE: 3", "EMBED_DIM: 8"] if name == "swin" else ["RES2_OUT_CHANNELS: 16", "DEPTH: 50"]
    for key in keys:
        assert key in text, key
        config.write_text(text.replace(key, f"{key.split(':')[0]}: 3{key.split(':')[1].strip()}"))
        message = refusal(original)
        assert f"{key.split(':')[0]}: 3" in message, key
        assert "use the config.yaml that belongs to them" in message
    other = "swin" if name == "r50" else "r50"
    assert "BACKBONE.NAME" in refusal(original, config=str(CHECKPOINTS / f"original_{other}.yaml"))


# ---- class names


def test_where_class_names_come_from(original: Path, tmp_path: Path) -> None:
    assert resolve(str(original)).labels == ("LABEL_0", "LABEL_1", "LABEL_2", "LABEL_3", "LABEL_4")
    names = ("cat", "dog", "bird", "tree", "sky")
    for text in (json.dumps(names), "\n".join(names) + "\n", json.dumps({"id2label": {str(i): n for i, n in enumerate(names)}})):
        (tmp_path / "names").write_text(text)
        assert resolve(str(original), labels=str(tmp_path / "names")).labels == names
    for text, message in (
        ('["cat"]', "has 5 classes, labels .* names 1"),
        ('{"1": "cat", "3": "dog"}', "expected a mapping from 0, 1, 2"),
        ("", "expected class names"),
        ("[", "a file of class names"),
        ('{"id2label": 5}', "expected class names"),
        ('{"' + "9" * 5000 + '": "a"}', "expected a mapping from 0, 1, 2"),
        ("[" * 100_000, "a file of class names"),
        ('["a", ["b"], "c", "d", "e"]', "expected class names"),
        (" " * (1 << 21), "a file of class names"),
    ):
        (tmp_path / "names").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            resolve(str(original), labels=str(tmp_path / "names"))
    with pytest.raises(CheckpointError, match=r"expected one of ade20k.*did you mean 'coco_panoptic'"):
        resolve(str(original), labels="coco_panoptik")


@pytest.mark.full
def test_published_numbers_of_classes_are_guessed_and_said(original: Path) -> None:
    head = "sem_seg_head.predictor.class_embed"

    def classes(count: int) -> Path:
        zeros = {f"{head}.weight": np.zeros((count + 1, 64), np.float32), f"{head}.bias": np.zeros(count + 1, np.float32)}
        return respoil(original, lambda s: {k: v for k, v in s.items() if k != "criterion.empty_weight"} | zeros)

    for count, title, first in (
        (80, "COCO", "person"),
        (133, "COCO panoptic", "person"),
        (150, "ADE20K", "wall"),
        (19, "Cityscapes", "road"),
    ):
        checkpoint = resolve(str(classes(count)))
        assert checkpoint.labels[0] == first
        assert any(f"its {count} classes are taken for those of {title}" in warning for warning in checkpoint.warnings)
        load(checkpoint, PLAIN, "cpu")
    (original.parent / "config.yaml").write_text("DATASETS: {TEST: ('my_products_val',)}")
    checkpoint = resolve(str(original))
    assert checkpoint.labels[0] == "LABEL_0"
    assert any("names no published dataset" in warning for warning in checkpoint.warnings)


def test_a_name_that_promises_a_hash(original: Path) -> None:
    import hashlib

    true = hashlib.md5(original.read_bytes()).hexdigest()[:6]
    right, wrong = original.with_name(f"model_final_{true}.pkl"), original.with_name("model_final_94dc52.pkl")
    shutil.copy(original, right)
    shutil.copy(original, wrong)
    assert not any("MD5" in warning for warning in resolve(str(right)).warnings)
    assert any("the file's name promises 94dc52: not the published file" in warning for warning in resolve(str(wrong)).warnings)
    assert resolve(str(wrong)).published is None
