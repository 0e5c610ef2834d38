"""The model zoo by name: its rows, and a published file through download, hash and suite."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pickles import unpack
from PIL import Image
from test_download import Server, server  # noqa: F401  (a fixture)

import m2fbench
from m2fbench.errors import CheckpointError
from m2fbench.labels import label_set, label_sets
from m2fbench.models import checkpoint as checkpoints
from m2fbench.models import single_file, zoo
from m2fbench.models.checkpoint import resolve
from m2fbench.models.zoo import hash_in_name, zoo_entries, zoo_entry
from m2fbench.planning import Event
from m2fbench.suite import load_suite


def test_names_are_found_whatever_their_case_and_near_ones_suggested() -> None:
    assert zoo_entry("zoo:coco/instance/R50").file == "model_final_3c8ec9.pkl"
    assert zoo_entry("zoo:COCO/Panoptic/swin-l-in21k").queries == 200
    with pytest.raises(CheckpointError, match=r"did you mean 'coco/instance/r50'"):
        zoo_entry("zoo:coco/instances/R50")
    with pytest.raises(CheckpointError, match=r"there are coco/instance/R50, coco/instance/R101"):
        zoo_entry("zoo:coco/instance/R5")
    with pytest.raises(CheckpointError, match="list checkpoints"):
        zoo_entry("zoo:x")


@pytest.mark.full
def test_validate_looks_names_up(cli: Callable[..., Any], tmp_path: Path) -> None:
    text = (Path(m2fbench.__file__).parent.parent / "suites/coco_instance.yaml").read_text()
    (tmp_path / "x.yaml").write_text(text.replace("zoo:coco/instance/R50", "zoo:coco/instance/R5"))
    outcome = cli("validate", tmp_path / "x.yaml")
    assert outcome.returncode == 2
    assert "x.yaml: r50: zoo:coco/instance/R5: no such checkpoint in the model zoo" in outcome.stderr
    (tmp_path / "x.yaml").write_text(text.replace("zoo:coco/instance/R50", "a.pth\n    labels: nosuch.json"))
    assert "x.yaml: r50: labels nosuch.json: expected one of ade20k" in cli("validate", tmp_path / "x.yaml").stderr
    (tmp_path / "x.yaml").write_text(text.replace("zoo:coco/instance/R50", "a.pth\n    config: nosuch.yaml"))
    assert "x.yaml: r50: config nosuch.yaml: no such file in" in cli("validate", tmp_path / "x.yaml").stderr


def test_every_row_is_published_under_a_hash_and_its_settings_are_whole() -> None:
    for name, entry in zoo_entries().items():
        assert entry.name == name
        assert entry.url.startswith("https://")
        assert hash_in_name(entry.file) is not None
        assert entry.labels in label_sets()
        assert entry.task in entry.heads
        assert entry.resize == ("after" if entry.heads == ("semantic",) else "before")
    assert {e.name for e in zoo_entries().values() if e.threshold == 0.0} == {
        "mapillary/panoptic/R50",
        "mapillary/panoptic/Swin-L-IN21k",
    }


def test_names_that_promise_a_hash() -> None:
    assert hash_in_name("model_final_94dc52.pkl") == ("md5", "94dc52")
    assert hash_in_name("mask2former_r50_20220504_001756-743b7d99.pth") == ("sha256", "743b7d99")
    for name in ("model_final.pth", "model_0089999.pth", "model_final_94dc52.pth", "model-20211121x.pth", "best_94dc52.pkl"):
        assert hash_in_name(name) is None


def test_label_sets_are_whole() -> None:
    sizes = {name: len(label_set(name).classes) for name in label_sets()}
    assert sizes == {
        "ade20k": 150, "ade20k_instance": 100, "cityscapes": 19, "cityscapes_instance": 8, "coco_instance": 80, "coco_panoptic": 133,
        "mapillary_vistas": 65,
    }  # fmt: skip
    things = {name: sum(c.is_thing for c in label_set(name).classes) for name in label_sets()}
    assert things == sizes | {"ade20k": 100, "cityscapes": 8, "coco_panoptic": 80, "mapillary_vistas": 37}
    for name in label_sets():
        assert len(set(label_set(name).ids)) == len(set(label_set(name).names)) == sizes[name]
    assert label_set("coco_panoptic").names[:80] == label_set("coco_instance").names
    assert [i - 1 for i, c in zip(label_set("ade20k").ids, label_set("ade20k").classes, strict=True) if c.is_thing] == list(
        label_set("ade20k_instance").ids
    )


def test_label_sets_equal_the_datasets_own(shared: Path) -> None:
    import json

    for name, file in (("coco_instance", "instances"), ("coco_panoptic", "panoptic")):
        categories = json.loads((shared / f"data/coco_real/annotations/{file}_val2017.json").read_bytes())["categories"]
        found = dict(zip(label_set(name).ids, label_set(name).names, strict=True))
        assert found == {c["id"]: c["name"] for c in categories}
        assert list(found) == sorted(found)


def test_the_suites_rows_are_in_the_zoo_and_published_with_the_papers_numbers() -> None:
    for row in load_suite("coco_instance").checkpoints:
        assert row.unavailable is None
        if (row.checkpoint or "").startswith("zoo:"):
            assert zoo_entry(row.checkpoint or "").name.casefold().endswith(row.name.casefold())


@pytest.fixture
def published(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:  # noqa: F811
    """Publish a small checkpoint as zoo:coco/instance/R50 on a local server."""

    def publish(queries: int = 100) -> bytes:
        path = unpack("original_r50.pkl", tmp_path)
        content = dict(pickle.loads(path.read_bytes()))
        rng, head = np.random.default_rng(2), "sem_seg_head.predictor"
        shapes = {
            "class_embed.weight": (81, 64),
            "class_embed.bias": (81,),
            "query_feat.weight": (queries, 64),
            "query_embed.weight": (queries, 64),
        }
        model = dict(content["model"]) | {f"{head}.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
        del model["criterion.empty_weight"]
        data = pickle.dumps({"model": model, "__author__": "x"})
        name = f"/coco/instance/model_final_{hashlib.md5(data).hexdigest()[:6]}.pkl"
        server.files[name] = data
        entries = dict(zoo_entries())
        entries["coco/instance/R50"] = replace(entries["coco/instance/R50"], url=server.url + name)
        for module in (zoo, checkpoints, single_file):
            for attribute in ("zoo_entries", "zoo_entry", "entry_of_file"):
                if hasattr(module, attribute):
                    monkeypatch.setattr(module, attribute, {
                        "zoo_entries": lambda: entries,
                        "zoo_entry": lambda reference: entries[reference.removeprefix("zoo:")],
                        "entry_of_file": lambda file: next((e for e in entries.values() if e.file == file), None),
                    }[attribute])  # fmt: skip
        return data

    return publish


def test_a_published_checkpoint_brings_its_names_task_and_size(published: Callable[..., bytes], server: Server) -> None:  # noqa: F811
    published()
    checkpoint = resolve("zoo:coco/instance/R50")
    assert checkpoint.published == "coco/instance/R50"
    assert checkpoint.labels == label_set("coco_instance").names
    assert (checkpoint.task, checkpoint.test_size, checkpoint.warnings) == ("instance", (800, 1333), ())
    by_address = resolve(server.url + next(iter(server.files)))
    assert by_address.published == "coco/instance/R50"
    assert by_address.sha256 == checkpoint.sha256
    by_path = resolve(str(checkpoint.folder / checkpoint.weight_files[0]))
    assert (by_path.published, by_path.task) == ("coco/instance/R50", "instance")
    assert len(server.requests) == 1


def test_what_is_not_the_published_checkpoint(published: Callable[..., bytes]) -> None:
    published(queries=8)
    with pytest.raises(CheckpointError, match="has 8 queries, the published one 100"):
        resolve("zoo:coco/instance/R50")
    published()
    checkpoint = resolve("zoo:coco/instance/R50")
    file = checkpoint.folder / checkpoint.weight_files[0]
    content = bytearray(file.read_bytes())
    content[-1000] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="does not have the hash in its name .*delete it and run again"):
        resolve("zoo:coco/instance/R50")


@pytest.mark.full
def test_the_suites_r50_row_runs_from_the_zoo(published: Callable[..., bytes], tmp_path: Path) -> None:
    """Download, hash, conversion, prediction, scoring, verification: the row as a user runs it, on a COCO of two small images."""
    import json

    published()
    data = tmp_path / "coco"
    (data / "annotations").mkdir(parents=True)
    (data / "val2017").mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2):
        Image.fromarray(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8)).save(data / f"val2017/{number:012d}.jpg")
    truth: dict[str, Any] = {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg", "height": 96, "width": 128} for n in (1, 2)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 400, "bbox": [10, 10, 20, 20],
                         "segmentation": [[10, 10, 30, 10, 30, 30, 10, 30]]}],
        "categories": [{"id": i, "name": n} for i, n in zip(label_set("coco_instance").ids, label_set("coco_instance").names, strict=True)],
    }  # fmt: skip
    (data / "annotations/instances_val2017.json").write_text(json.dumps(truth))
    events: list[Event] = []
    overrides = ["protocol.min_size=96", "protocol.max_size=128"]
    (result,) = m2fbench.run(
        "coco_instance", only=["r50"], data=data, overrides=overrides, output=tmp_path / "runs", verify=True, listener=events.append
    )
    assert result.checkpoint["published"] == "coco/instance/R50"
    assert result.checkpoint["form"] == "detectron2"
    assert result.status == "complete"
    assert result.verified is not None
    downloads = [e for e in events if e.kind == "download"]
    assert downloads[-1].done == downloads[-1].total > 1_000_000
    assert result.reason == "changed by --set protocol.min_size=96 protocol.max_size=128"
