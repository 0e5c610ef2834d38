"""Hundreds of truncated, bit-flipped and malicious checkpoint files: each one loads or is refused in one line; no crash, no code run,
no hang, no huge allocation. In a process of its own, watched by an audit hook, an alarm and the memory it takes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
from conftest import ROOT
from pickles import unpack

from m2fbench.models.weights import read_weights

WORKER = """
import json, os, random, resource, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[4])
import numpy as np, torch
from m2fbench.errors import CheckpointError
from m2fbench.models.checkpoint import resolve
from m2fbench.models.load import load
from m2fbench.sections import Variant
from test_fuzz_checkpoints import mutate

source, kind, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
content, plain = source.read_bytes(), Variant(name="p")
os.chdir(source.parent)
load(resolve(str(source)), plain, "cpu")  # everything that loading imports is imported now
for warm in (b"", b"PK\\x03\\x04", b"\\x80\\x02."):
    Path("warm.pkl").write_bytes(warm)
    try:
        resolve("warm.pkl")
    except CheckpointError:
        pass
seen = []
watched = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "socket.connect", "shutil.rmtree")
sys.addaudithook(lambda event, arguments: seen.append(event) if event in watched else None)
before = set(os.listdir("."))
start, loaded, refused, slowest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, 0, 0, 0.0
for seed in range(count):
    path = Path(f"fuzz{source.suffix}")
    path.write_bytes(mutate(content, kind, seed))
    signal.alarm(60)
    began = time.perf_counter()
    try:
        load(resolve(str(path)), plain, "cpu")
        loaded += 1
    except CheckpointError as error:
        assert "\\n" not in str(error) and len(str(error)) < 1000, str(error)
        refused += 1
    slowest = max(slowest, time.perf_counter() - began)
    signal.alarm(0)
    path.unlink()
growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - start) / 1024
made = sorted(set(os.listdir(".")) - before)
print(json.dumps({"loaded": loaded, "refused": refused, "slowest": slowest, "growth_mb": growth, "events": seen, "made": made}))
"""

PAYLOADS = (
    b"cos\nsystem\n(S'touch exploited'\ntR",
    b"\x8c\x05posix\x8c\x06system\x93\x8c\x0ftouch exploited\x85R",
    b'c__builtin__\neval\n(S\'__import__("os").system("touch exploited")\'\ntR',
    b"(S'touch exploited'\nios\nsystem\n",
    b"(cos\nsystem\nS'touch exploited'\no",
    b"csubprocess\nPopen\n((lS'touch'\naS'exploited'\natR",
    b'cbuiltins\nexec\n(S\'open("exploited","w")\'\ntR',
    b"cnumpy\nload\n(S'exploited'\ntR",
    b"ctorch\nload\n(S'exploited'\ntR",
    b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR",
    b"c_codecs\ndecode\n(S'x'\nS'zip'\ntR",
    b"r\xff\xff\xff\x7f",
    b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"((((((((" * 500,
    b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(J\xff\xff\xff\x7ftS'b'\ntR",
    b"ccollections\nOrderedDict\n(cos\nsystem\ntR",
)


def mutate(content: bytes, kind: str, seed: int) -> bytes:
    """One damaged or malicious version of a checkpoint file, the same for the same seed."""
    import random

    rng = random.Random(f"{kind}{seed}")
    changed = bytearray(content)
    # most of a file is weights: aim at its ends, where the structure is, as often as anywhere
    where = [
        rng.randrange(len(changed)),
        rng.randrange(min(4000, len(changed))),
        len(changed) - 1 - rng.randrange(min(4000, len(changed))),
    ]
    if kind == "truncated":
        return bytes(changed[: rng.choice(where)])
    if kind == "flipped":
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            changed[rng.choice(where) if rng.random() < 0.5 else rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed)
    if kind == "spliced":
        for _ in range(rng.choice((1, 2, 5))):
            at, length = rng.choice(where), rng.randrange(200)
            piece = rng.choice((bytes(rng.randrange(256) for _ in range(length)), bytes(changed[:length]), b"\xff" * length))
            changed[at : at + rng.randrange(200)] = piece
        return bytes(changed)
    payload = rng.choice(PAYLOADS)
    if rng.random() < 0.3:  # a pickle of its own
        return rng.choice((b"", b"\x80\x02", b"\x80\x04", b"\x80\x05")) + payload + rng.choice((b".", b"0]."))
    at = rng.choice((2, 11, rng.randrange(400), rng.choice(where)))
    changed[at:at] = payload + rng.choice((b"", b"0"))
    return bytes(changed)


KINDS = ("truncated", "flipped", "spliced", "malicious")
FORMS = ("pickle", "zip", "legacy", "safetensors", "mmdetection", "mmdetection-legacy")


@pytest.fixture
def form(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint in one of the forms."""
    name = str(request.param)
    if name.startswith("mmdetection"):
        return unpack("mmdetection_swin.pth" if "legacy" in name else "mmdetection_r50.pth", tmp_path)
    path = unpack("original_swin.pkl", tmp_path)
    state = read_weights(path).state
    if name == "safetensors":
        safetensors.torch.save_file(state, tmp_path / "x.safetensors")
        return tmp_path / "x.safetensors"
    if name == "pickle":
        return path
    torch.save({"model": state, "iteration": 7}, tmp_path / "x.pth", _use_new_zipfile_serialization=name == "zip")
    return tmp_path / "x.pth"


def fuzz(form: Path, kind: str, count: int) -> dict[str, object]:
    command = [sys.executable, "-c", WORKER, str(form), kind, str(count), str(ROOT / "tests")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", FORMS, indirect=True)
def test_hundreds_of_bad_files(form: Path, kind: str) -> None:
    count = 60
    found = fuzz(form, kind, count)
    if kind in ("truncated", "malicious"):
        assert found["refused"] > 0.9 * count, found  # type: ignore[operator]
    assert found["events"] == []
    assert found["made"] == []
    assert found["slowest"] < 20, found  # type: ignore[operator]
    assert found["growth_mb"] < 300, found  # type: ignore[operator]
