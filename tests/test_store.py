"""Run directories under bad luck: torn lines, full disks, no permission, other versions, two writers."""

import errno
import io
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.errors import StoreError
from m2fbench.results import Comparison, RunResult, compare, read_result
from m2fbench.store import ImagePredictions, ImageRecord, RunDirectory, differences, key_of, read_table
from m2fbench.types import Measurement, Published
from m2fbench.writing import write_atomically

IDENTITY = {"a": 1, "b": {"c": "x"}}


def record(image_id: Any, predictions: int = 1, error: str | None = None) -> ImageRecord:
    return ImageRecord(image_id, 4, 5, predictions, "stamp", {"forward": 0.5}, error)


def prediction(image_id: Any, score: float = 0.1) -> dict[str, Any]:
    return {"image_id": image_id, "category_id": 1, "segmentation": {"size": [4, 5], "counts": "0\\n~"}, "score": score}


def instances(entries: list[dict[str, Any]]) -> ImagePredictions:
    return ImagePredictions(instances=entries)


def test_what_is_appended_is_there_again(tmp_path: Path) -> None:
    with RunDirectory(tmp_path / "run", IDENTITY) as store:
        store.append(record(2), instances([prediction(2, 1 / 3)]))
        store.append(record("x", 0), instances([]))
    with RunDirectory(tmp_path / "run", IDENTITY) as store:
        assert store.records == {2: record(2), "x": record("x", 0)}
        store.append(record(1, 2), instances([prediction(1), prediction(1, 1e-17)]))
        store.export([1, 2, "x"])
        assert json.loads(store.predictions.instances.read_bytes()) == [prediction(1), prediction(1, 1e-17), prediction(2, 1 / 3)]
        store.write_table([1, 2, "x"])
    rows = (tmp_path / "run/images.csv").read_text().splitlines()
    assert rows[0] == "image_id,height,width,predictions,forward_seconds,fallback,error"
    assert rows[2] == "2,4,5,1,0.500000,,"
    assert read_table(tmp_path / "run") == {"1": "", "2": "", "x": ""}


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(0, 400))
def test_cut_off_anywhere_the_whole_lines_stay(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut") / "run"
    with RunDirectory(folder, IDENTITY) as store:
        for k in range(3):
            store.append(record(k), instances([prediction(k)]))
    journal = folder / "journal.jsonl"
    content = journal.read_bytes()
    journal.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    with RunDirectory(folder, IDENTITY) as store:
        assert list(store.records) == list(range(whole))
        for k in range(whole, 3):
            store.append(record(k), instances([prediction(k)]))
    assert journal.read_bytes() == content


def test_left_out_images_are_tried_again(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY) as store:
        store.append(record(1, 0, "cannot be read"), instances([]))
        store.forget_errors(list(store.records))
        assert not store.records
        store.append(record(1), instances([prediction(1)]))
        store.export([1])
        assert json.loads(store.predictions.instances.read_bytes()) == [prediction(1)]


def test_a_second_writer_refuses(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY), pytest.raises(StoreError, match="another run is writing here"):
        RunDirectory(tmp_path, IDENTITY)
    with RunDirectory(tmp_path, IDENTITY):
        pass


def test_another_identity_is_refused_and_fresh_discards(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY) as store:
        store.append(record(1), instances([prediction(1)]))
    (tmp_path / "notes.txt").write_text("mine")
    other = {"a": 1, "b": {"c": "y"}}
    with pytest.raises(StoreError, match=r'b\.c: was "x", is "y"'):
        RunDirectory(tmp_path, other)
    with RunDirectory(tmp_path, other, fresh=True) as store:
        assert not store.records
    assert (tmp_path / "notes.txt").read_text() == "mine", "only our own files are discarded"


def test_differences_and_keys() -> None:
    assert list(differences({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": 5, "d": 3}, "e": 1})) == [
        "a: was 1, is null", "b.c: was 2, is 5", "e: was null, is 1",
    ]  # fmt: skip
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1}) != key_of({"a": 1, "b": 3})


def test_other_versions_fail_with_the_remedy(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY):
        pass
    stored = json.loads((tmp_path / "identity.json").read_text())
    (tmp_path / "identity.json").write_text(json.dumps(stored | {"store_version": 99}))
    with pytest.raises(StoreError, match="expected store version 2, got 99; start over with --fresh"):
        RunDirectory(tmp_path, IDENTITY)
    (tmp_path / "identity.json").write_text("{")
    with pytest.raises(StoreError, match="not an identity file"):
        RunDirectory(tmp_path, IDENTITY)


def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY):
        pass
    (tmp_path / "journal.jsonl").write_text("nonsense\n")
    with pytest.raises(StoreError, match="not a line of a journal"):
        RunDirectory(tmp_path, IDENTITY)


class _Full(io.FileIO):
    """A file on a disk with 30 bytes left."""

    left = 30

    def write(self, data: Any) -> int:
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(bytes(data)[: self.left])
        self.left -= written
        return written


def test_a_full_disk_keeps_what_is_whole(tmp_path: Path) -> None:
    with RunDirectory(tmp_path, IDENTITY) as store:
        store.append(record(1), instances([prediction(1)]))
        whole = (tmp_path / "journal.jsonl").read_bytes()
        store._journal.close()
        store._journal = _Full(tmp_path / "journal.jsonl", "a+")
        with pytest.raises(StoreError, match="the disk is full .*free space and run the same command again"):
            store.append(record(2), instances([prediction(2)]))
        assert 2 not in store.records
    assert (tmp_path / "journal.jsonl").read_bytes() == whole


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="the disk is full"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.full
def test_a_really_full_disk(tmp_path: Path, shapes_suite: Any, cli: Any) -> None:
    """A file system of 256 KiB: one clear line, and with more room the same command ends the run."""
    mount = tmp_path / "small"
    mount.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(mount)], capture_output=True).returncode:
        pytest.skip("no permission to mount a small file system")
    try:
        suite = shapes_suite(60)
        outcome = cli("run", suite, "--output", mount)
        assert outcome.returncode == 2
        assert "the disk is full" in outcome.stderr
        assert "Traceback" not in outcome.stderr
        done = (mount / "test_shapes/tiny/default/journal.jsonl").read_bytes().count(b"\n")
        assert done > 0
        subprocess.run(["mount", "-o", "remount,size=64m", str(mount)], check=True)
        outcome = cli("run", suite, "--output", mount)
        assert outcome.returncode == 0, outcome.stderr
        assert f"{done} of 60 images were done before" in outcome.stdout
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_no_permission(tmp_path: Path) -> None:
    """A file where a folder should be stands for it: root, as which CI runs, may write anywhere."""
    (tmp_path / "runs").write_text("")
    with pytest.raises(StoreError, match="cannot be written.*--output"):
        RunDirectory(tmp_path / "runs/a", IDENTITY)
    if os.geteuid() == 0:
        with pytest.raises(StoreError, match="cannot be written|no permission"):
            RunDirectory(Path("/proc/m2fbench"), IDENTITY)
    else:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(StoreError, match="no permission to write here"):
            RunDirectory(tmp_path / "closed/a", IDENTITY)


def result() -> RunResult:
    measurements = (
        Measurement("AP", 41.5),
        Measurement("APl", float("nan"), subset="large"),
        Measurement("AP", 3.0, category="cat"),
    )
    published = (Published("AP", 42.0, "there"), Published("APl", 60.0, "there"))
    return RunResult(
        {"name": "s", "title": "S", "sha256": "0"}, "row", {"name": "v"}, "complete", measurements=measurements, published=published,
        comparisons=compare(measurements, published, comparable=True, tolerance={"AP": 0.4, "APl": 1.0}), timings={"forward": 1.5},
    )  # fmt: skip


def test_results_go_to_json_and_back(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    text = json.dumps(result().to_json(), allow_nan=False)
    path.write_text(text)
    again = read_result(path)
    assert json.dumps(again.to_json(), allow_nan=False) == text
    assert again.value("AP") == 41.5
    assert again.value("AP", category="cat") == 3.0
    assert again.path == path
    stored = json.loads(text)["measurements"][1]
    assert stored["value"] is None, "what was not measured is null, never -1"


def test_comparisons() -> None:
    ap, large = result().comparisons
    assert ap == Comparison("AP", 41.5, 42.0, "there", True, False)
    assert ap.difference == -0.5
    assert large.within is False, "a figure that could not be measured does not pass a check"


def test_a_result_of_the_version_before_is_read(tmp_path: Path) -> None:
    old = result().to_json() | {"schema_version": 1}
    del old["kind"], old["details"]
    path = tmp_path / "result.json"
    path.write_text(json.dumps(old))
    again = read_result(path)
    assert (again.kind, again.details, again.to_json()["schema_version"]) == ("accuracy", None, 2)
    assert again.to_json()["measurements"] == result().to_json()["measurements"]


@pytest.mark.parametrize(
    ("version", "remedy"), [(99, "update m2fbench"), (0, "run the suite again"), (None, "run the suite again")]
)
def test_results_of_other_versions(tmp_path: Path, version: int | None, remedy: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result().to_json() | {"schema_version": version}))
    with pytest.raises(StoreError, match=f"expected result schema version 2, got {version}; {remedy}"):
        read_result(path)
