"""What a model is without its weights: the same as with them, for everything that can be pointed to."""

import json
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import make_checkpoint
from pickles import CHECKPOINTS, unpack
from test_original import zoo_state
from test_sisters import eomt, maskformer

from m2fbench.datasets.scenes import CATEGORIES
from m2fbench.errors import CheckpointError
from m2fbench.labels import label_set
from m2fbench.models.architecture import Architecture, architecture_of, build_module
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load_module
from m2fbench.models.original import architecture as from_shapes
from m2fbench.models.parts import parameters_by_part, part_modules, parts_of
from m2fbench.models.zoo import zoo_entries

LABELS = [c.name for c in CATEGORIES]


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_every_zoo_row_is_what_the_shapes_of_its_weights_say(no_network: None) -> None:
    for name, entry in zoo_entries().items():
        found = architecture_of(f"zoo:{name}")
        state = zoo_state(name)
        expected = from_shapes({key: tuple(value.shape) for key, value in state.items()}, name)
        assert found.config | {"id2label": 0} == expected | {"id2label": 0}, name
        assert len(found.labels) == len(expected["id2label"])
        assert found.labels == label_set(entry.labels).names
        assert (found.task, found.test_size) == (entry.task, (entry.min_size, entry.max_size))
        assert found.weight_bytes is None
        assert "not downloaded" in (found.without_weights or "")


@pytest.mark.parametrize("backbone", ["R50", "Swin-T"])
def test_parameters_of_a_zoo_row_are_those_of_its_weights(backbone: str) -> None:
    made = architecture_of(f"zoo:coco/instance/{backbone}")
    counted = parameters_by_part(build_module(made), parts_of(made.config))
    state = zoo_state(f"coco/instance/{backbone}")
    buffers = ("running_mean", "running_var", "num_batches_tracked", "relative_position_index", "empty_weight")
    weights = {name: value for name, value in state.items() if not name.endswith(buffers)}
    unused = 2 * 768 if backbone == "Swin-T" else 0  # Swin's last norm, which transformers has and no output depends on
    assert sum(counted.values()) == sum(value.numel() for value in weights.values()) + unused
    for part, prefix in (("backbone", "backbone."), ("pixel decoder", "sem_seg_head.pixel_decoder.")):
        own = sum(value.numel() for name, value in weights.items() if name.startswith(prefix))
        assert counted[part] == own + (unused if part == "backbone" else 0)


def test_a_config_alone_is_enough(tiny_checkpoint: Path, tmp_path: Path, no_network: None) -> None:
    (tmp_path / "bare").mkdir()
    config = tmp_path / "bare/config.json"
    config.write_bytes((tiny_checkpoint / "config.json").read_bytes())
    whole = architecture_of(str(tiny_checkpoint))
    assert whole.weight_bytes == (tiny_checkpoint / "model.safetensors").stat().st_size
    for reference in (str(config), str(config.parent)):
        found = architecture_of(reference)
        assert (found.config, found.labels, found.queries) == (whole.config, whole.labels, whole.queries)
        assert found.weight_bytes is None
        assert (found.without_weights or "").startswith("expected weights in one of")
    checkpoint = resolve(str(tiny_checkpoint))
    made = build_module(whole)
    assert {name: tuple(w.shape) for name, w in made.named_parameters()} == {
        name: tuple(w.shape) for name, w in load_module(checkpoint).named_parameters()
    }


@pytest.mark.parametrize("name", ["r50", "swin"])
def test_a_detectron2_config_says_what_its_weights_say(name: str, tmp_path: Path) -> None:
    weights = unpack(f"original_{name}.pkl", tmp_path)
    config = CHECKPOINTS / f"original_{name}.yaml"
    by_file = architecture_of(str(weights), config=str(config))
    by_config = architecture_of(str(config))
    assert {k: v for k, v in by_config.config.items() if k != "id2label"} == {
        k: v for k, v in by_file.config.items() if k != "id2label"
    }
    assert (by_config.labels, by_config.task, by_config.test_size) == (by_file.labels, by_file.task, by_file.test_size)
    assert by_config.weight_bytes is None
    assert by_file.weight_bytes == weights.stat().st_size


WHOLE = """
MODEL:
  META_ARCHITECTURE: MaskFormer
  BACKBONE: {NAME: D2SwinTransformer}
  SEM_SEG_HEAD: {NAME: MaskFormerHead, NUM_CLASSES: 80, TRANSFORMER_ENC_LAYERS: 6, CONVS_DIM: 256}
  MASK_FORMER: {DEC_LAYERS: 10, NUM_OBJECT_QUERIES: 100}
DATASETS: {TEST: [coco_2017_val]}
"""


def test_a_config_that_is_silent_has_the_originals_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(WHOLE)
    found, zoo = architecture_of(str(tmp_path / "config.yaml")), architecture_of("zoo:coco/instance/Swin-T")
    assert (found.config, found.labels, found.test_size, found.task) == (zoo.config, zoo.labels, zoo.test_size, zoo.task)
    folder = architecture_of(str(tmp_path))
    assert (folder.reference, folder.config) == (str(tmp_path), zoo.config)
    with pytest.raises(CheckpointError, match="a config is for checkpoints of a single file"):
        architecture_of(str(tmp_path), config="other.yaml")
    (tmp_path / "model_final.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="model_final.pth"):  # the weights that are there are read
        architecture_of(str(tmp_path))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("META_ARCHITECTURE: MaskFormer", "X: 1", "expected a whole config of detectron2"),
        ("META_ARCHITECTURE: MaskFormer", "META_ARCHITECTURE: GeneralizedRCNN", "only MaskFormer is supported"),
        ("NUM_CLASSES: 80", "NUM_CLASSES: many", "NUM_CLASSES: expected a whole number from 1 to 100,000, got many"),
        ("NUM_CLASSES: 80, ", "", "expected MODEL.SEM_SEG_HEAD.NUM_CLASSES, got none"),
        ("DEC_LAYERS: 10", "DEC_LAYERS: 100000", "DEC_LAYERS: expected a whole number from 1 to 1,000"),
        ("DEC_LAYERS: 10", "DEC_LAYERS: true", "DEC_LAYERS: expected a whole number"),
        ("{NAME: D2SwinTransformer}", "{NAME: D2SwinTransformer}\n  SWIN: {DEPTHS: [2, 2]}", "DEPTHS: expected four whole numbers"),
        ("{NAME: D2SwinTransformer}", "{NAME: D2SwinTransformer}\n  SWIN: {MLP_RATIO: -1}", "MLP_RATIO: expected a number over 0"),
        ("{NAME: D2SwinTransformer}", "{NAME: build_resnet_backbone}\n  RESNETS: {DEPTH: 51}", "DEPTH: expected one of 18, 34, 50"),
        ("{NAME: D2SwinTransformer}", "{NAME: build_fbnet}", "the weights have build_resnet_backbone where"),
    ],
)  # fmt: skip
def test_detectron2_configs_that_are_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in WHOLE
    (tmp_path / "config.yaml").write_text(WHOLE.replace(old, new))
    with pytest.raises(CheckpointError, match=re.escape(message)) as caught:
        architecture_of(str(tmp_path / "config.yaml"))
    assert "\n" not in str(caught.value)


def test_of_a_hub_id_the_config_alone_is_downloaded(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub

    asked = []
    snapshot = tmp_path / "0123456789abcdef"
    snapshot.mkdir()
    (snapshot / "config.json").write_bytes((tiny_checkpoint / "config.json").read_bytes())

    def download(repository: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((repository, revision, tuple(allow_patterns)))
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    found = architecture_of("team/tiny@v1")
    assert asked == [("team/tiny", "v1", ("config.json", "preprocessor_config.json"))]
    assert found.revision == snapshot.name
    assert (found.weight_bytes, found.without_weights) == (None, "only its config.json was downloaded")
    assert found.labels == tuple(LABELS)


def test_references_that_are_nothing(tmp_path: Path) -> None:
    for reference, message in (
        (str(tmp_path / "no.pth"), "no such file"),
        (str(tmp_path / "no/where"), "no such folder"),
        ("zoo:coco/instance/R51", "no such checkpoint in the model zoo"),
        ("bundled:none", "expected one of bundled:"),
    ):
        with pytest.raises(CheckpointError, match=message):
            architecture_of(reference)
    with pytest.raises(CheckpointError, match="a config is for checkpoints of a single file"):
        architecture_of("zoo:coco/instance/R50", config="x.yaml")


def changed(folder: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> str:
    content = json.loads((folder / "config.json").read_bytes())
    change(content)
    target.write_text(json.dumps(content))
    return str(target)


def test_configs_that_no_model_can_be_made_of(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match="model_type mask2former"):
        architecture_of(changed(tiny_checkpoint, path, lambda c: c.update(model_type="bert")))
    with pytest.raises(CheckpointError, match="hidden_dim is 999999999"):
        architecture_of(changed(tiny_checkpoint, path, lambda c: c.update(hidden_dim=999_999_999)))
    bad = architecture_of(changed(tiny_checkpoint, path, lambda c: c.update(hidden_dim=33)))
    with pytest.raises(CheckpointError, match="no model can be made of its config: .*; mend the config") as caught:
        build_module(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["mask2former", "maskformer", "eomt"])
def test_modules_have_shapes_and_no_memory_and_eager_attention(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    if kind == "mask2former":
        make_checkpoint(folder, LABELS)
    else:
        maskformer(folder, "swin") if kind == "maskformer" else eomt(folder)
    found = architecture_of(str(folder))
    module = build_module(found)
    assert not module.training
    assert {str(weight.device) for weight in module.parameters()} == {"meta"}
    assert {m.config._attn_implementation for m in module.modules() if getattr(m, "config", None) is not None} == {"eager"}
    parts = parts_of(found.config)
    counted = parameters_by_part(module, parts)
    assert tuple(counted) == parts.names
    assert sum(counted.values()) == sum(w.numel() for w in load_module(resolve(str(folder))).parameters())
    for name in parts.modules:
        assert counted[name] == sum(w.numel() for n, m in part_modules(module, parts) if n == name for w in m.parameters()) > 0
    assert found.input_size == ((64, 64) if kind == "eomt" else None)


def test_what_a_checkpoint_says_is_kept(tiny_checkpoint: Path) -> None:
    made: Architecture = architecture_of(str(tiny_checkpoint))
    checkpoint = resolve(str(tiny_checkpoint))
    for name in ("reference", "labels", "queries", "backbone", "config", "task", "test_size", "revision"):
        assert getattr(made, name) == getattr(checkpoint, name), name
