"""Checkpoints in every form the hub has them in, from a local server too, and everything that can be wrong with one."""

import hashlib
import http.server
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import make_checkpoint

from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import LoadedModel, load
from m2fbench.sections import Variant

PLAIN = Variant(name="plain")


def logits(folder: Path, variant: Variant = PLAIN) -> tuple[torch.Tensor, torch.Tensor]:
    model: LoadedModel = load(resolve(str(folder)), variant, "cpu")
    return model.forward(torch.linspace(-2, 2, 3 * 64 * 96).view(1, 3, 64, 96))


@pytest.fixture
def copy(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint that a test may spoil."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_facts_of_a_folder(tiny_checkpoint: Path) -> None:
    checkpoint = resolve(str(tiny_checkpoint))
    assert checkpoint.labels[:3] == ("disc", "square", "triangle")
    assert len(checkpoint.labels) == 10
    assert (checkpoint.queries, checkpoint.backbone, checkpoint.revision) == (12, "swin", None)
    assert checkpoint.weight_files == ("model.safetensors",)


def test_the_content_hash_sees_weights_and_config(tiny_checkpoint: Path, copy: Path) -> None:
    assert resolve(str(copy)).sha256 == resolve(str(tiny_checkpoint)).sha256
    edit_config(copy, num_queries=13)
    assert resolve(str(copy)).sha256 != resolve(str(tiny_checkpoint)).sha256


def test_forward_equals_transformers(tiny_checkpoint: Path) -> None:
    from transformers import Mask2FormerForUniversalSegmentation

    model = Mask2FormerForUniversalSegmentation.from_pretrained(tiny_checkpoint).eval()
    with torch.inference_mode():
        output = model(torch.linspace(-2, 2, 3 * 64 * 96).view(1, 3, 64, 96))
    classes, masks = logits(tiny_checkpoint)
    assert torch.equal(classes, output.class_queries_logits[0])
    assert torch.equal(masks, output.masks_queries_logits[0])


def test_bin_and_sharded_weights_give_the_same_logits(tiny_checkpoint: Path, copy: Path, tmp_path: Path) -> None:
    expected = logits(tiny_checkpoint)
    state = safetensors.torch.load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(state, copy / "pytorch_model.bin")
    assert resolve(str(copy)).weight_files == ("pytorch_model.bin",)
    assert all(torch.equal(a, b) for a, b in zip(logits(copy), expected, strict=True))
    sharded = make_checkpoint(tmp_path / "sharded", resolve(str(tiny_checkpoint)).labels, max_shard_size="400KB")
    files = resolve(str(sharded)).weight_files
    assert files[0] == "model.safetensors.index.json"
    assert len(files) > 2
    assert all(torch.equal(a, b) for a, b in zip(logits(sharded), expected, strict=True))
    (sharded / files[1]).unlink()
    with pytest.raises(CheckpointError, match=f"names {files[1]}, which is not there"):
        resolve(str(sharded))


def test_old_and_new_names_of_weights_give_the_same_logits(tiny_checkpoint: Path, copy: Path) -> None:
    """transformers saves a Swin under older names than the model's own, and renames them as it loads."""
    from transformers import Mask2FormerForUniversalSegmentation

    new = Mask2FormerForUniversalSegmentation.from_pretrained(tiny_checkpoint).state_dict()
    old = set(safetensors.torch.load_file(tiny_checkpoint / "model.safetensors"))
    assert len(old - set(new)) > 50
    safetensors.torch.save_file({k: v.contiguous() for k, v in new.items()}, copy / "model.safetensors", {"format": "pt"})
    assert all(torch.equal(a, b) for a, b in zip(logits(copy), logits(tiny_checkpoint), strict=True))


def test_eager_attention_agrees_with_sdpa(tiny_checkpoint: Path) -> None:
    for a, b in zip(logits(tiny_checkpoint), logits(tiny_checkpoint, Variant(name="e", attention="eager")), strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


class _Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploited",)


def test_a_malicious_bin_runs_nothing(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "model.safetensors").unlink()
    torch.save({"weight": torch.zeros(1), "x": _Exploit()}, copy / "pytorch_model.bin")
    monkeypatch.chdir(copy)
    for _ in range(2):
        with pytest.raises(
            CheckpointError, match="pytorch_model.bin: the weights cannot be loaded: the file contains 'posix.system'"
        ) as caught:
            load(resolve(str(copy)), PLAIN, "cpu")
        assert str(caught.value).endswith("nothing of it was run; load only files you trust"), "another download would be no better"
        (copy / "pytorch_model.bin").write_bytes(pickle.dumps(_Exploit()))
    assert not (copy / "exploited").exists()


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 1}, {3: torch.zeros(1)}, {"model": {"a": torch.zeros(1)}}], ids=str)
def test_a_bin_that_holds_no_state_dict(content: Any, copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(content, copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pytorch_model.bin holds a .*, expected"):
        load(resolve(str(copy)), PLAIN, "cpu")


def test_a_config_of_which_no_model_can_be_made(copy: Path) -> None:
    for wrong in ({"num_attention_heads": 3}, {"hidden_dim": "a"}, {"common_stride": None}):
        before = (copy / "config.json").read_text()
        edit_config(copy, **wrong)
        with pytest.raises(CheckpointError, match=r"config\.json: .*; use the config\.json that belongs to the weights") as caught:
            load(resolve(str(copy)), PLAIN, "cpu")
        assert "\n" not in str(caught.value)
        (copy / "config.json").write_text(before)


@pytest.mark.parametrize("kind", [[], {}, None, 3])
def test_a_model_type_that_is_no_text(kind: Any, copy: Path) -> None:
    edit_config(copy, model_type=kind)
    with pytest.raises(CheckpointError, match="expected a Mask2Former checkpoint"):
        resolve(str(copy))


def test_a_bug_of_ours_is_not_taken_for_a_damaged_file(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def broken(*_: Any, **__: Any) -> None:
        raise TypeError("got an unexpected keyword argument")

    checkpoint = resolve(str(copy))
    monkeypatch.setattr(transformers.Mask2FormerForUniversalSegmentation, "from_pretrained", broken)
    with pytest.raises(TypeError, match="unexpected keyword"):
        load(checkpoint, PLAIN, "cpu")


def test_a_config_that_asks_for_more_than_the_files_hold(copy: Path) -> None:
    edit_config(copy, num_queries=150_000, hidden_dim=131_072, feature_size=131_072)
    with pytest.raises(CheckpointError, match=r"config\.json asks for [\d,]{12,} weights, more than model\.safetensors can hold"):
        load(resolve(str(copy)), PLAIN, "cpu")


def test_indices_of_shards_that_are_not_what_they_say(copy: Path) -> None:
    torch.save(safetensors.torch.load_file(copy / "model.safetensors"), copy / "part.pt")
    (copy / "model.safetensors").unlink()
    for weight_map in ({"a": "part.pt"}, {"a": 1}, {"a": "../x.bin"}, ["a"]):
        (copy / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(CheckpointError, match=r"is not there|is not a weight index"):
            resolve(str(copy))


@pytest.mark.parametrize("keep", [0, 7, 5000, 0.5])
def test_truncated_weights(copy: Path, keep: float) -> None:
    path = copy / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(keep if keep > 1 or keep == 0 else keep * len(content))])
    with pytest.raises(CheckpointError, match="the weights cannot be loaded") as caught:
        load(resolve(str(copy)), PLAIN, "cpu")
    assert "\n" not in str(caught.value)


def test_missing_extra_and_misshapen_weights_are_refused(copy: Path) -> None:
    path = copy / "model.safetensors"
    state = safetensors.torch.load_file(path)
    name = "class_predictor.weight"
    safetensors.torch.save_file({k: v for k, v in state.items() if k != name}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"a weight is missing from the checkpoint: {name}"):
        load(resolve(str(copy)), PLAIN, "cpu")
    safetensors.torch.save_file(state | {"extra.weight": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"a weight is unknown to the model: extra\.weight"):
        load(resolve(str(copy)), PLAIN, "cpu")
    safetensors.torch.save_file(state, path, {"format": "pt"})
    edit_config(copy, num_queries=20)
    with pytest.raises(CheckpointError, match=r"weights do not fit config\.json: .*quer.* is \[12, 32\], expected \[20, 32\]"):
        load(resolve(str(copy)), PLAIN, "cpu")


def test_what_is_no_checkpoint(copy: Path, tmp_path: Path) -> None:
    for reference, message in (
        (str(tmp_path / "gone"), "no such folder"),
        (str(copy / "config.json"), "got a file of it; pass"),
        ("bundled:nothing", "expected one of bundled:"),
        ("bundled:../../x", "expected one of bundled:"),
        ("just-a-name", ", and not a hub id"),
        ("a/b/c", f"no such folder in {Path.cwd()}, and not a hub id"),
        ("runs/nosuch.pkl", f"runs/nosuch.pkl: no such file in {Path.cwd()}; check the path"),
        ("x" * 5000, "cannot be looked at"),
        ("~nosuchuser/x", "cannot be looked at"),
        ("bundled:..", "expected one of bundled:"),
    ):
        with pytest.raises(CheckpointError) as caught:
            resolve(reference)
        assert message in str(caught.value)
    for kind, message in (
        ("detr", "expected a Mask2Former checkpoint, or a sister of it .*got 'detr'"),
        ("oneformer", "takes a text"),
    ):
        edit_config(copy, model_type=kind)
        with pytest.raises(CheckpointError, match=message):
            resolve(str(copy))
    edit_config(copy, model_type="mask2former", id2label={"a": "b"})
    with pytest.raises(CheckpointError, match="expected id2label to name classes|not a Mask2Former's"):
        resolve(str(copy))
    for changes in (
        {"id2label": {"0": "a", "2": "b"}},
        {"id2label": None, "num_labels": "x"},
        {"num_queries": None},
        {"backbone_config": "swin"},
        {"num_queries": float("inf")},
        {"num_queries": 50_000_000},
        {"encoder_layers": 1_000_000},
        {"decoder_layers": "abc"},
        {"backbone_config": {"depths": 5}},
        {"backbone_config": {"depths": None}},
    ):
        edit_config(copy, **{"id2label": {"0": "a"}, "num_queries": 5, "backbone_config": {}, **changes})
        with pytest.raises(CheckpointError, match=r"config\.json is not a Mask2Former's"):
            resolve(str(copy))
    (copy / "config.json").write_text("[" * 200_000)
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        resolve(str(copy))
    (copy / "config.json").write_text('{"model_type": "mask')
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read"):
        resolve(str(copy))
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"expected a transformers folder with config\.json"):
        resolve(str(copy))


@pytest.mark.full
def test_labels_and_configs_given(copy: Path, tmp_path: Path) -> None:
    names = [f"class {k}" for k in range(10)]
    (tmp_path / "names.json").write_text(json.dumps(names))
    assert resolve(str(copy), labels=str(tmp_path / "names.json")).labels == tuple(names)
    with pytest.raises(CheckpointError, match="has 10 classes, labels coco_panoptic names 133"):
        resolve(str(copy), labels="coco_panoptic")
    with pytest.raises(CheckpointError, match="a config is for checkpoints of a single file"):
        resolve(str(copy), config="x.yaml")
    for options in ({"config": "x.yaml"}, {"labels": "coco_panoptic"}):
        with pytest.raises(CheckpointError, match=r"nosuch\.pth: no such file in .*; check the path"):
            resolve("nosuch.pth", **options)


def test_default_label_names_are_filled_in(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    del config["id2label"], config["label2id"]
    (copy / "config.json").write_text(json.dumps(config | {"num_labels": 3}))
    assert resolve(str(copy)).labels == ("LABEL_0", "LABEL_1", "LABEL_2")


class Hub:
    """The part of the hub's HTTP interface that snapshots need, on loopback. requests: what was asked for."""

    def __init__(self, repositories: dict[str, Path]) -> None:
        self.requests: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer(body=False)

            def do_GET(self) -> None:
                self.answer(body=True)

            def answer(self, *, body: bool) -> None:
                hub.requests.append(self.path)
                status, headers, content = hub.reply(self.path.split("?")[0], repositories)
                self.send_response(status)
                for key, value in (headers | {"Content-Length": str(len(content))}).items():
                    self.send_header(key, value)
                self.end_headers()
                if body:
                    self.wfile.write(content)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reply(self, path: str, repositories: dict[str, Path]) -> tuple[int, dict[str, str], bytes]:
        for repository, folder in repositories.items():
            commit = hashlib.sha1(repository.encode()).hexdigest()
            files = {p.name: p.read_bytes() for p in folder.iterdir()}
            if match := re.fullmatch(f"/api/models/{repository}(/revision/(.+))?", path):
                if match[2] not in (None, "main", "v1", commit):
                    return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
                siblings = [{"rfilename": name} for name in files]
                return (
                    200,
                    _JSON,
                    json.dumps({"id": repository, "modelId": repository, "sha": commit, "siblings": siblings}).encode(),
                )
            if re.fullmatch(f"/api/models/{repository}/tree/{commit}", path):
                tree = [{"type": "file", "path": n, "size": len(c), "oid": hashlib.sha1(c).hexdigest()} for n, c in files.items()]
                return 200, _JSON, json.dumps(tree).encode()
            if (match := re.fullmatch(f"/{repository}/resolve/{commit}/(.+)", path)) and match[1] in files:
                content = files[match[1]]
                return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": commit}, content
        return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"


_JSON = {"Content-Type": "application/json"}

RESOLVE = """
import sys
from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import resolve
try:
    checkpoint = resolve(sys.argv[1])
    print("ok", checkpoint.revision, checkpoint.sha256, checkpoint.weight_files)
except CheckpointError as error:
    print("error", error)
"""


@pytest.fixture
def hub(tiny_checkpoint: Path, tmp_path: Path) -> Iterator[tuple[Hub, Any]]:
    """A local hub, and a function that resolves a reference against it in a fresh process."""
    pickled = Path(shutil.copytree(tiny_checkpoint, tmp_path / "pickled"))
    torch.save(safetensors.torch.load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    other = Path(shutil.copytree(tiny_checkpoint, tmp_path / "other"))
    edit_config(other, model_type="detr")
    server = Hub({"team/tiny": tiny_checkpoint, "team/pickled": pickled, "team/other": other})
    environment = {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path / "cache"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
    }

    def call(reference: str, **more: str) -> str:
        command = [sys.executable, "-c", RESOLVE, reference]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment, **more}, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    yield server, call
    server.server.shutdown()


@pytest.mark.full
def test_hub_ids_resolve_download_once_and_work_offline(hub: tuple[Hub, Any], tiny_checkpoint: Path) -> None:
    server, call = hub
    commit = hashlib.sha1(b"team/tiny").hexdigest()
    answer = call("team/tiny")
    assert answer == f"ok {commit} {resolve(str(tiny_checkpoint)).sha256} ('model.safetensors',)"
    assert call("team/tiny@v1") == answer
    downloads = [r for r in server.requests if r.endswith("/model.safetensors")]
    server.requests.clear()
    assert call(f"team/tiny@{commit}") == answer
    assert not [r for r in server.requests if r.endswith("/model.safetensors")], "in the cache already"
    assert len(downloads) <= 2  # a HEAD and a GET
    assert call("team/tiny", HF_HUB_OFFLINE="1") == answer
    assert call("team/tiny", HF_ENDPOINT="http://127.0.0.1:9") == answer


@pytest.mark.full
def test_hub_ids_that_do_not_work(hub: tuple[Hub, Any]) -> None:
    server, call = hub
    assert call("team/pickled").endswith("('pytorch_model.bin',)")
    assert call("team/nothing").startswith("error team/nothing: no such folder, and the hub has no such checkpoint")
    assert call("team/tiny@v9").startswith("error team/tiny@v9: the checkpoint has no revision 'v9'")
    server.requests.clear()
    assert "expected a Mask2Former checkpoint, or a sister of it" in call("team/other")
    assert not [r for r in server.requests if "safetensors" in r], "refused before its weights travel"
    assert call("team/never", HF_ENDPOINT="http://127.0.0.1:9").startswith(
        "error team/never: no such folder here, not in the cache, and the hub cannot be reached"
    )
