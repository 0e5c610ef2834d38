"""detectron2's configs, read as inert text."""

from pathlib import Path
from typing import Any

import pytest

from m2fbench.errors import CheckpointError
from m2fbench.models.detectron_config import DATASETS, apply_config, read_detectron_config

BASE = """
MODEL:
  BACKBONE: {NAME: build_resnet_backbone}
  WEIGHTS: "detectron2://ImageNetPretrained/torchvision/R-50.pkl"
  RESNETS: {DEPTH: 50, STRIDE_IN_1X1: False, NORM: FrozenBN}
  PIXEL_MEAN: [123.675, 116.280, 103.530]
DATASETS:
  TRAIN: ("ade20k_panoptic_train",)
  TEST: ("ade20k_panoptic_val",)
INPUT:
  MIN_SIZE_TRAIN: !!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 21)]"]
  MIN_SIZE_TEST: 640
  MAX_SIZE_TEST: 2560
  FORMAT: RGB
  CROP: {SIZE: !!python/tuple [640, 640]}
"""
LEAF = """
_BASE_: ../Base.yaml
MODEL:
  META_ARCHITECTURE: MaskFormer
  SEM_SEG_HEAD:
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
    NUM_CLASSES: 5
    IN_FEATURES: ["res2", "res3", "res4", "res5"]
  MASK_FORMER: {TEST: {SEMANTIC_ON: True, INSTANCE_ON: True, PANOPTIC_ON: True}}
INPUT: {MAX_SIZE_TEST: 1333}
"""
RESNET: dict[str, Any] = {
    "backbone_config": {"model_type": "resnet", "depths": [3, 4, 6, 3], "layer_type": "bottleneck", "embedding_size": 64, "hidden_sizes": [256]},
    "id2label": dict.fromkeys(range(5)), "feature_size": 256, "mask_feature_size": 256, "encoder_layers": 6, "hidden_dim": 256,
    "num_queries": 100, "decoder_layers": 10, "dim_feedforward": 2048, "num_attention_heads": 8, "pre_norm": False,
}  # fmt: skip


@pytest.fixture
def leaf(tmp_path: Path) -> Path:
    (tmp_path / "swin").mkdir()
    (tmp_path / "Base.yaml").write_text(BASE)
    path = tmp_path / "swin" / "config.yaml"
    path.write_text(LEAF)
    return path


def test_bases_are_resolved_and_python_is_never_evaluated(leaf: Path) -> None:
    config = read_detectron_config(leaf)
    assert config.sizes == (640, 1333)
    assert config.dataset == ("ade20k", "panoptic")
    assert config.get("MODEL.SEM_SEG_HEAD.NUM_CLASSES") == 5
    assert config.get("MODEL.RESNETS.DEPTH") == 50
    assert config.get("INPUT.CROP.SIZE") == [640, 640]
    assert "INPUT.MIN_SIZE_TRAIN" not in config.values


def test_tags_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(
        "A: !!python/object/apply:os.system ['touch exploited']\n"
        "B: !!python/object/new:os.system [touch exploited]\n"
        "C: !!python/name:os.system\n"
        "D: !!python/module:exploited\n"
        "E: !something {x: 1}\n"
        'F: ("__import__(1)", x)\n'
        "G: 1\n"
    )
    config = read_detectron_config(path)
    assert dict(config.values) == {"F": '("__import__(1)", x)', "G": 1}
    assert not (tmp_path / "exploited").exists()


def test_detectron2s_defaults_where_the_files_are_silent(tmp_path: Path) -> None:
    text = "MODEL: {META_ARCHITECTURE: MaskFormer, MASK_FORMER: {TEST: {INSTANCE_ON: true}}}"
    (tmp_path / "c.yaml").write_text(text)
    config = read_detectron_config(tmp_path / "c.yaml")
    assert (config.sizes, config.dataset) == ((800, 1333), (None, "instance"))
    (tmp_path / "c.yaml").write_text(text.replace("META_ARCHITECTURE: MaskFormer, ", ""))
    assert read_detectron_config(tmp_path / "c.yaml").sizes is None, "a part of a config decides nothing by its silence"


def test_texts_are_decoded_as_detectron2_does(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text('MODEL: {MASK_FORMER: {PRE_NORM: "False", NHEADS: "8"}, RESNETS: {STRIDE_IN_1X1: "maybe"}}')
    config = read_detectron_config(tmp_path / "c.yaml")
    assert config.flag("MODEL.MASK_FORMER.PRE_NORM") is False
    assert config.get("MODEL.MASK_FORMER.NHEADS") == 8
    with pytest.raises(CheckpointError, match="STRIDE_IN_1X1: expected true or false, got 'maybe'"):
        config.flag("MODEL.RESNETS.STRIDE_IN_1X1")


def test_every_published_test_dataset_is_known() -> None:
    from m2fbench.labels import label_sets

    assert {labels for labels, _ in DATASETS.values()} == set(label_sets())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("_BASE_: gone.yaml", "its _BASE_ gone.yaml is not there"),
        ("_BASE_: /etc/passwd", "expected the path of a YAML file"),
        ("_BASE_: https://x/y.yaml", "expected the path of a YAML file"),
        ("_BASE_: [a]", "expected the path of a YAML file"),
        ("_BASE_: config.yaml", "leads in a circle"),
        ("A: [", "not valid YAML"),
        ("- a", "expected a config of detectron2, got list"),
        ("{[a]: b}", "not valid YAML"),
        ("A: " + "{B: " * 300 + "1" + "}" * 300, "nested too deep"),
        ("INPUT: {MIN_SIZE_TEST: x, MAX_SIZE_TEST: 5}", "expected sizes in pixels"),
        ("INPUT: {MIN_SIZE_TEST: 0, MAX_SIZE_TEST: 5}", "expected sizes in pixels"),
        ("A: !!bool x", "not valid YAML"),
        ("A: !!int ''", "not valid YAML"),
        ("A: !!timestamp foo", "not valid YAML"),
        ("A: " + "1:" * 400 + "1.5", "not valid YAML"),
        ("a0: &a0 {}\n" + "\n".join(f"a{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(60)) + "}" for i in range(1, 8)), "keys"),
        ("a0: &a0 {x: 1}\n" + "\n".join(f"a{i}: &a{i} {{<<: [" + ", ".join([f"*a{i - 1}"] * 10) + "]}" for i in range(1, 10)), "not valid YAML"),
        ("\n".join(["a: &a0 {x: 1}"] + [f"b{i}: &a{i} {{" + ", ".join(f"k{j}: *a{i - 1}" for j in range(20)) + "}" for i in range(1, 8)]), "keys"),
        ("a: " + "x" * (1 << 20), "expected a config of detectron2, got a file of"),
    ],
)  # fmt: skip
def test_configs_that_cannot_be_used(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message) as caught:
        _ = read_detectron_config(path).sizes
    assert "\n" not in str(caught.value)


def test_what_only_a_config_says_is_taken_from_it(leaf: Path) -> None:
    assert apply_config(RESNET, read_detectron_config(leaf), "x")["backbone_config"]["downsample_in_bottleneck"] is False
    (leaf.parent.parent / "Base.yaml").write_text(BASE.replace("STRIDE_IN_1X1: False", "STRIDE_IN_1X1: True"))
    leaf.write_text(LEAF.replace("MASK_FORMER: {", "MASK_FORMER: {PRE_NORM: True, "))
    config = apply_config(RESNET, read_detectron_config(leaf), "x")
    assert config["backbone_config"]["downsample_in_bottleneck"] is True
    assert config["pre_norm"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("MODEL: {META_ARCHITECTURE: VideoMaskFormer}", "only MaskFormer is supported, got 'VideoMaskFormer'"),
        ("MODEL: {RESNETS: {RES5_DILATION: 2}}", "RES5_DILATION: only 1 is supported, got 2"),
        ("MODEL: {SEM_SEG_HEAD: {NORM: LN}}", "NORM: only GN is supported"),
        ("MODEL: {SEM_SEG_HEAD: {PIXEL_DECODER_NAME: BasePixelDecoder}}", "only MSDeformAttnPixelDecoder"),
        ("MODEL: {MASK_FORMER: {SIZE_DIVISIBILITY: 64}}", "only 32"),
        ("INPUT: {FORMAT: BGR}", "only RGB"),
        ("MODEL: {PIXEL_MEAN: [103.53, 116.28, 123.675]}", "only ImageNet's"),
        ("MODEL: {PIXEL_STD: 1}", "only ImageNet's"),
        ("MODEL: {SEM_SEG_HEAD: {NUM_CLASSES: 80}}", "the weights have 5 where .* says MODEL.SEM_SEG_HEAD.NUM_CLASSES: 80"),
        ("MODEL: {RESNETS: {DEPTH: 101}}", "the weights have 50 where .* says MODEL.RESNETS.DEPTH: 101"),
        ("MODEL: {BACKBONE: {NAME: D2SwinTransformer}}", "the weights have build_resnet_backbone"),
    ],
)
def test_configs_of_something_else(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(line)
    with pytest.raises(CheckpointError, match=message):
        apply_config(RESNET, read_detectron_config(tmp_path / "c.yaml"), "x")
