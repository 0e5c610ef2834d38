"""The reader of pickled weights: what real files contain comes out equal, everything else is refused, and nothing runs."""

import collections
import contextlib
import os
import pickle
import pickletools
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pickles import dumps

from m2fbench.models.pickled import ForbiddenTypeError, PickledArray, PickleError, read_pickle


def read(content: bytes, folder: Path) -> Any:
    path = folder / "x.pkl"
    path.write_bytes(content)
    return read_pickle(path)


def plain(value: Any) -> Any:
    """``value`` with PickledArrays as the arrays they are."""
    if isinstance(value, PickledArray):
        return value.value
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(plain, value))
    return value


def assert_same(found: Any, expected: Any) -> None:
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tobytes() == expected.tobytes()
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_same(found[key], expected[key])
    elif isinstance(expected, list | tuple):
        assert type(found) is type(expected)
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same(a, b)
    else:
        assert found == expected or (found != found and expected != expected)


def checkpoint() -> dict[str, Any]:
    """Everything that real checkpoint files were seen to hold."""
    model = collections.OrderedDict(
        weight=np.arange(12, dtype=np.float32).reshape(3, 4),
        turned=np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
        half=np.ones(3, np.float16),
        index=np.arange(4).reshape(2, 2),
        counter=np.array(7),
        flags=np.array([True, False]),
        nothing=np.zeros((0, 3), np.float32),
        big_endian=np.arange(3, dtype=">i4"),
    )
    model._metadata = collections.OrderedDict({"": {"version": 1}, "sem_seg_head": {"version": 2}})  # type: ignore[attr-defined]
    return {
        "model": model, "__author__": "third_party", "matching_heuristics": True, "iteration": 89999, "best": np.float64(43.7),
        "count": np.int64(5), "lrs": [0.1, 1e-4, -0.0], "milestones": {1, 2}, "betas": (0.9, 0.999), "none": None, "long": 2**70,
        "raw": b"\x00\xff", "no": b"", "buffer": bytearray(b"ab"), "name": "Zürich\n'\"", "empty": {}, "pair": (1,), "unit": (),
    }  # fmt: skip


@pytest.mark.parametrize("numpy1", [False, True], ids=["numpy2", "numpy1"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_checkpoints_hold_in_every_protocol(protocol: int, numpy1: bool, tmp_path: Path) -> None:
    expected = checkpoint()
    assert_same(plain(read(dumps(expected, protocol, numpy1=numpy1), tmp_path)), expected | {"buffer": b"ab"})


arrays = hnp.arrays(
    st.sampled_from(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "?", ">f4"]),
    hnp.array_shapes(min_dims=0, max_side=5, min_side=0),
)
trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=300) | arrays,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(trees, st.integers(0, 5), st.booleans())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equal_to_pickle_itself(tmp_path: Path, tree: Any, protocol: int, optimize: bool) -> None:
    content = pickle.dumps(tree, protocol)
    assert_same(plain(read(pickletools.optimize(content) if optimize else content, tmp_path)), tree)


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("call", "named"),
    [
        (Call(os.system, "touch exploited"), "posix.system"),
        (Call(eval, "open('exploited', 'w')"), "eval"),
        (Call(__import__, "exploited"), "__import__"),
        (Call(getattr, {}, "get"), "getattr"),
        (Call(np.load, "exploited.npy"), "numpy.load"),
        (Call(collections.Counter, "aab"), "collections.Counter"),
        (Call(Path, "exploited"), "pathlib"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malicious_pickle_is_refused_and_runs_nothing(
    call: Call, named: str, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ForbiddenTypeError, match=f"{named}.*refused and nothing of it was run"):
        read(pickle.dumps({"model": {"weight": np.zeros(1), "x": call}}, protocol), tmp_path)
    assert not (tmp_path / "exploited").exists()


def test_other_ways_in_are_closed(tmp_path: Path) -> None:
    for content, message in (
        (b"cposix\nsystem\n.", "posix.system"),
        (b"(S'touch exploited'\nios\nsystem\n.", "INST"),
        (b"(cos\nsystem\nS'touch exploited'\no.", "os.system"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"Psomething\n.", "PERSID"),
        (b"\x80\x02U\x01xQ.", "outside itself"),
        (b"\x80\x02K\x01K\x02R.", "no type"),
        (b"\x80\x02K\x01}b.", "no array"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0bndarray.sum\x93.", "numpy.ndarray.sum"),
        (pickle.dumps(np.array([print], object)), "'O8', expected numbers"),
        (pickle.dumps(np.array(["a"])), "'U1', expected numbers"),
        (pickle.dumps(np.zeros(1, [("x", "f4")])), "'V4', expected numbers"),
    ):
        with pytest.raises(ForbiddenTypeError, match=message):
            read(content, tmp_path)
    assert not (tmp_path / "exploited").exists()


MEASURE = """
import resource, sys, time
from pathlib import Path
from m2fbench.models.pickled import PickleError, read_pickle
before, started, outcome = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter(), "read"
try:
    read_pickle(Path(sys.argv[1]))
except PickleError as error:
    outcome = "refused"
print(outcome, time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def measured(content: bytes, folder: Path) -> tuple[str, float, int]:
    """Outcome, seconds and growth in memory (bytes) of reading it in a process of its own: peaks never come down again."""
    path = folder / "x.pkl"
    path.write_bytes(content)
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    outcome, seconds, kilobytes = done.stdout.split()
    return outcome, float(seconds), 1024 * int(kilobytes)


def array_state(shape: bytes) -> bytes:
    start = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00f4K\x00K\x01\x87R"
    return start + b"(K\x01" + shape + dtype + b"\x89C\x04abcdtb."


NEST = b"".join(b"\x86q" + bytes([i]) + b"h" + bytes([i]) for i in range(1, 100))
BOMBS = {
    "memo index": b"\x80\x02K\x01r\xff\xff\xff\x7f" * 2 + b"]0",
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"abc.",
    "text": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "long": b"\x80\x02\x8b\xff\xff\xff\x7f\x01.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"K\x01",
    "array": array_state(b"\x8a\x08" + struct.pack("<q", 1 << 40) + b"\x85"),
    "many dimensions": array_state(b"(" + b"\x8a\x04\xff\xff\xff\x7f" * 100_000 + b"t"),
    "nested shape": array_state(b"K\x01q\x00h\x00" + NEST + b"\x85"),
    "hash of shared tuples": b"\x80\x02}K\x01q\x00h\x00" + NEST + b"0K\x01s.",
    "set of shared tuples": b"\x80\x04\x8f(K\x01q\x00h\x00" + NEST + b"0\x90.",
    "copies": b"\x80\x02c_codecs\nencode\nq\x00X" + struct.pack("<I", 1 << 20) + b"a" * (1 << 20) + b"\x85q\x01R" + b"h\x00h\x01R" * 10_000 + b".",
    "opcodes": b"\x80\x02" + b"K\x010" * 1_500_000 + b"K\x01.",
    "containers": b"\x80\x04" + b"\x8f" * 2_000_000 + b".",
    "many arguments": b"\x80\x02cnumpy\ndtype\nq\x00(X\x02\x00\x00\x00f4" + b"K\x01" * 200_000 + b"tq\x01R0" + b"h\x00h\x01R0" * 100_000 + b"N.",
    "long pairs": b"\x80\x03ccollections\nOrderedDict\n]q\x00(B" + struct.pack("<I", 1 << 20) + bytes(1 << 20) + b"q\x01" + b"h\x01" * 10_000
    + b"e\x85R.",
    "huge numbers": array_state(b"(\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b"q\x07" + b"h\x07" * 60 + b"t"),
    "huge key": b"\x80\x02}\x8b" + struct.pack("<I", 1 << 20) + b"\x7f" * (1 << 20) + b"q\x07K\x01s" + b"h\x07K\x01s" * 100_000 + b".",
    "deep list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"x.",
    "ints as text": b"L" + b"9" * 1_000_000 + b"L\n.",
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_cost_little(name: str, tmp_path: Path) -> None:
    outcome, seconds, memory = measured(BOMBS[name], tmp_path)
    assert outcome == "refused"
    assert seconds < 20  # under a second where nothing else runs; without the bounds minutes, hours, or no end
    assert memory < 200 << 20


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.full
def test_every_truncation_is_said(protocol: int, tmp_path: Path) -> None:
    content = pickle.dumps({"model": {"w": np.arange(40.0)}, "n": 3}, protocol)
    for length in range(len(content)):
        with pytest.raises(PickleError):
            read(content[:length], tmp_path)


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(PickleError, match="is empty"):
        read(b"", tmp_path)


@given(st.data())
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_flipped_bits_never_escape(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever single bytes become, it is read as something or refused in the one way."""
    content = bytearray(pickle.dumps(checkpoint(), data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PickleError):
        read(bytes(content), tmp_path)
