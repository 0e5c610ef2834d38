"""Files of torch.save: what training leaves behind loads, what could harm or mislead is refused, and nothing runs."""

import collections
import contextlib
import functools
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_pickled import NEST, Call

from m2fbench.models.pickled import ForbiddenTypeError, PickleError
from m2fbench.models.torch_files import is_legacy, read_torch

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def trained() -> dict[str, Any]:
    """What a trainer saves: weights with optimizer, scheduler and numpy's scalars beside them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(2, 3).to(torch.bfloat16))
    optimizer = torch.optim.AdamW(model[:2].parameters())
    model[:2](torch.rand(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10, 10, 20])
    state = model.state_dict()
    state["tied"] = state["0.weight"][1:]
    return {
        "model": state, "optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict(), "iteration": 7,
        "trainer": {"best": np.float64(43.7), "history": np.arange(3.0), "dtype": torch.float16, "size": torch.Size([1, 2])},
        "parameter": model[0].weight, "device": torch.device("cpu"),
    }  # fmt: skip


def save(content: Any, path: Path, *, zipped: bool) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@FORMS
def test_what_trainers_save(zipped: bool, tmp_path: Path) -> None:
    expected = trained()
    path = save(expected, tmp_path / "x.pth", zipped=zipped)
    found = read_torch(path)
    assert is_legacy(path) is not zipped
    assert list(found["model"]) == list(expected["model"])
    assert all(torch.equal(found["model"][k], v) and found["model"][k].dtype == v.dtype for k, v in expected["model"].items())
    assert found["scheduler"]["milestones"] == collections.Counter([10, 10, 20])
    assert found["trainer"]["best"] == 43.7
    assert found["trainer"]["history"].tolist() == [0, 1, 2]
    assert torch.equal(found["optimizer"]["state"][0]["exp_avg"], expected["optimizer"]["state"][0]["exp_avg"])


@FORMS
def test_a_malicious_file_is_refused_and_runs_nothing(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for call, named in (
        (Call(os.system, "touch exploited"), "posix.system"),
        (Call(eval, "open('exploited', 'w')"), "eval"),
        (Call(torch.load, "exploited"), "torch.serialization.load"),
        (collections.defaultdict(dict), "collections.defaultdict"),
        (Path("x"), "pathlib"),
    ):
        path = save({"model": {"weight": torch.zeros(1)}, "x": call}, tmp_path / "x.pth", zipped=zipped)
        with pytest.raises(ForbiddenTypeError, match=f"{named}.*(refused|nothing of it was run)"):
            read_torch(path)
    assert not (tmp_path / "exploited").exists()


def rewritten(path: Path, change: Callable[[dict[str, bytes]], dict[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    """The archive at ``path`` with its entries changed."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in change(entries).items():
            archive.writestr(name, content)
    return path


def test_archives_that_are_not_what_they_say(tmp_path: Path) -> None:
    for change, compression, message in (
        (lambda e: e, zipfile.ZIP_DEFLATED, "compressed archive"),
        (lambda e: e | {"x/constants.pkl": b""}, zipfile.ZIP_STORED, "TorchScript"),
        (lambda e: e | {"y/data.pkl": b""}, zipfile.ZIP_STORED, "not one of torch.save's"),
        (lambda e: {k: v for k, v in e.items() if "data" not in k}, zipfile.ZIP_STORED, "no data.pkl"),
        (lambda e: {k: v for k, v in e.items() if k != "x/data/0"}, zipfile.ZIP_STORED, "storage 0 is not of the size"),
        (lambda e: e | {"x/data/0": b"abc"}, zipfile.ZIP_STORED, "storage 0 is not of the size"),
    ):
        path = save({"model": {"w": torch.arange(1000.0)}}, tmp_path / "x.pth", zipped=True)
        with pytest.raises(PickleError, match=message):
            read_torch(rewritten(path, change, compression))


def test_damaged_weights_are_noticed(tmp_path: Path) -> None:
    """torch.load itself takes a flipped bit in the weights for weights."""
    path = save({"model": {"w": torch.full((1000,), 7.0)}}, tmp_path / "x.pth", zipped=True)
    content = bytearray(path.read_bytes())
    content[content.find(struct.pack("<4f", 7, 7, 7, 7)) + 2000] ^= 16
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["model"]["w"].ne(7).any()
    with pytest.raises(PickleError, match="checksum of x/data/0 does not hold"):
        read_torch(path)


def forged(path: Path, content: bytes) -> Path:
    save({"model": {"w": torch.zeros(4)}}, path, zipped=True)
    return rewritten(path, lambda entries: entries | {"x/data.pkl": content})


STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ"


def tensor(size: bytes, stride: bytes, offset: bytes = b"K\x00") -> bytes:
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + offset + size + stride + b"\x89}tR."


@pytest.mark.parametrize(
    "content",
    [
        tensor(b"J\xff\xff\xff\x7f\x85", b"K\x00\x85"),  # one value, expanded two thousand million times
        tensor(b"K\x05\x85", b"K\x01\x85"),
        tensor(b"K\x04\x85", b"K\x01\x85", b"K\x01"),
        tensor(b"K\x02K\x02\x86", b"K\x04K\x01\x86"),
        tensor(b"J\xff\xff\xff\xff\x85", b"K\x01\x85"),
        tensor(b"K\x04\x85", b"J\xff\xff\xff\xff\x85"),
        tensor(b"(" + b"J\xff\xff\xff\x7f" * 200_000 + b"t", b"(" + b"K\x00" * 200_000 + b"t"),
        tensor(b"K\x04\x85", b"K\x01\x85").replace(b"K\x04tQ", b"J\xff\xff\xff\x7ftQ"),
        tensor(b"K\x04\x85", b"K\x01\x85").replace(b"FloatStorage", b"DoubleStorage"),
        b"\x80\x02c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}K\x01q\x00h\x00" + NEST + b"0K\x01s.",
        b"\x80\x02ccollections\nCounter\n}(" + b"".join(b"M" + struct.pack("<H", n) + b"K\x00" for n in range(5000)) + b"u\x85q\x00R0"
        + b"ccollections\nCounter\nh\x00R0" * 20_000 + b".",
    ],
    ids=["expanded", "beyond", "offset", "strides", "negative", "negative stride", "dimensions", "storage", "itemsize", "bytearray",
         "hash", "copies"],
)  # fmt: skip
def test_claims_beyond_the_file_are_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(PickleError):
        read_torch(forged(tmp_path / "x.pth", content))


def test_a_legacy_file_cannot_claim_more_than_it_has(tmp_path: Path) -> None:
    path = save({"model": {"w": torch.zeros(4)}}, tmp_path / "x.pth", zipped=False)
    content = path.read_bytes()
    assert content.count(b"K\x04") >= 2
    path.write_bytes(content.replace(b"K\x04", b"J\x00\x00\x00\x7f"))
    with pytest.raises(PickleError, match="claims .* bytes of weights and has"):
        read_torch(path)


@FORMS
@pytest.mark.full
def test_truncation_is_said(zipped: bool, tmp_path: Path) -> None:
    content = save({"model": {"w": torch.arange(50.0), "b": torch.zeros(3)}}, tmp_path / "x.pth", zipped=zipped).read_bytes()
    for length in range(8, len(content), 1 if len(content) < 2000 else 7):
        (tmp_path / "x.pth").write_bytes(content[:length])
        with pytest.raises(PickleError):
            read_torch(tmp_path / "x.pth")


@functools.cache
def _saved(zipped: bool) -> bytes:
    """Once for all: addresses in memory are part of such files."""
    buffer = io.BytesIO()
    torch.save(trained(), buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


@given(st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bytes_never_escape(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(_saved(data.draw(st.booleans())))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with contextlib.suppress(PickleError):
        read_torch(path)


def test_what_is_no_torch_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(pickle.dumps({"a": 1}))
    assert not is_legacy(path)
    for content in (b"", b"PK\x03\x04", b"PK\x03\x04" + b"x" * 500, b"hello"):
        path.write_bytes(content)
        with pytest.raises(PickleError):
            read_torch(path)
