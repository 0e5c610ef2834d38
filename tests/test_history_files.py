"""Histories and results at addresses: in memory, on a web server, in an archive; and local files that appear whole or not at all."""

import functools
import http.server
import importlib.util
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from made_history import made_history, made_result, made_runs, sha256_of

from m2fbench.errors import HistoryError
from m2fbench.history.files import LocalFiles, is_address, local_path, public, reason_of
from m2fbench.history.history import History
from m2fbench.history.records import PairedRecord
from m2fbench.history.remote_files import RemoteFiles

CONTENTS = [made_result(night=n, values={"AP": 43.0 + n}) for n in range(3)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def memory() -> Iterator[str]:
    """An address that no other test uses."""
    fs = fsspec.filesystem("memory")
    yield "memory://bucket"
    fs.rm("/bucket", recursive=True) if fs.exists("/bucket") else None


class Server:
    """A web server over a folder, on the loopback."""

    def __init__(self, folder: Path) -> None:
        class Quiet(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    server = Server(tmp_path / "web")
    yield server.url
    server.close()


def test_a_history_in_an_object_store(memory: str, tmp_path: Path, cache: Path) -> None:
    paths = made_runs(tmp_path / "runs", [*CONTENTS, made_result(document={"schema_version": 9})])
    (tmp_path / "runs/0001/result.json").write_bytes(b"{")
    with History(f"{memory}/history", create=True) as opened:
        added = opened.add([tmp_path / "runs"])
        assert (len(added.new), [p.kind for p in added.problems]) == (2, ["damaged", "newer"])
        opened.release("v1", [sha256_of(CONTENTS[0])])
        opened.accept(sha256_of(CONTENTS[2]), "AP", "wanted")
        opened.add_comparison(PairedRecord("a", "b", 1, 1, 0, ()))
        expected = opened.entries(), opened.series(), opened.releases(), opened.problems()
        assert opened.result(sha256_of(CONTENTS[0])).path == paths[0]
    name = sha256_of(CONTENTS[0])
    assert fsspec.filesystem("memory").cat(f"/bucket/history/results/{name[:2]}/{name}.json") == CONTENTS[0]
    (index,) = (cache / "history").rglob("index.sqlite")
    index.unlink()  # as another machine, which has none
    with History(f"{memory}/history/") as opened:
        assert (opened.entries(), opened.series(), opened.releases(), opened.problems()) == expected
        assert opened.comparison("a", "b") is not None
        with pytest.raises(HistoryError, match="there is one of that name"):
            opened.release("v1", [name])
        opened.release("v1", [name, sha256_of(CONTENTS[2])], replace=True)
        paths[1].write_bytes(CONTENTS[1])
        assert opened.add([paths[1]]).new == (sha256_of(CONTENTS[1]),)
        assert [p.kind for p in opened.problems()] == ["newer"]


def test_results_in_an_object_store(memory: str, tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    for night, content in enumerate(CONTENTS):
        fs.pipe_file(f"/bucket/runs/{night}/result.json", content)
    fs.pipe_file("/bucket/runs/3/speed.json", b"{")
    fs.pipe_file("/bucket/runs/3/predictions.json", b"[]")
    with History(tmp_path / "h", create=True) as opened:
        added = opened.add([f"{memory}/runs", f"{memory}/runs/0/result.json"])
        assert set(added.new) == set(map(sha256_of, CONTENTS))
        assert [p.location for p in added.problems] == ["memory://bucket/runs/3/speed.json"]
        assert opened.entries()[0].origins == ("memory://bucket/runs/0/result.json",)
        assert opened.result(added.new[0]).path is None
        fs.rm("/bucket/runs/3/speed.json")
        assert opened.add([f"{memory}/runs/"]).problems == ()
        assert opened.problems() == []
        (problem,) = opened.add([f"{memory}/nothing"]).problems
        assert "no result file below it" in problem.message


def test_results_on_a_web_server(web: str, tmp_path: Path) -> None:
    made_runs(tmp_path / "web/runs", CONTENTS)
    (tmp_path / "web/runs/0000/images.csv").write_text("image_id\n")
    with History(tmp_path / "h", create=True) as opened:
        assert opened.add([f"{web}/runs/0000/result.json?token=secret"]).new == (sha256_of(CONTENTS[0]),)
        assert opened.entries()[0].origins == (f"{web}/runs/0000/result.json",)  # without what may be secret
        assert set(opened.add([f"{web}/runs/"]).new) == set(map(sha256_of, CONTENTS[1:]))
        assert [e.origins for e in opened.entries()] == [(f"{web}/runs/000{n}/result.json",) for n in range(3)]
        (problem,) = opened.add([f"{web}/gone/result.json"]).problems
        assert (problem.kind, problem.location) == ("unreadable", f"{web}/gone/result.json")


def test_a_history_on_a_web_server_can_be_read(web: str, tmp_path: Path) -> None:
    names = made_history(tmp_path / "web/history", CONTENTS)
    with History(f"{web}/history") as opened:
        assert [e.sha256 for e in opened.entries()] == names
        assert opened.result(names[0]).value("AP") == 43.0
        with pytest.raises(HistoryError, match="cannot be written"):
            opened.accept(names[0], "AP", "wanted")
    assert not (tmp_path / "web/history/accepted").exists()


def test_a_server_that_is_gone_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    server = Server(tmp_path / "web")
    server.close()
    with History(tmp_path / "h", create=True) as opened:
        (problem,) = opened.add([f"{server.url}/result.json"]).problems
        assert problem.kind == "unreadable"
        assert "\n" not in problem.message
    with pytest.raises(HistoryError, match="127.0.0.1") as raised:
        History(f"{server.url}/history")
    assert "\n" not in str(raised.value)


def test_results_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "night.zip", "w") as archive:
        archive.writestr("runs/a/result.json", CONTENTS[0])
        archive.writestr("runs/b/result.json", CONTENTS[1])
    with History(tmp_path / "h", create=True) as opened:
        assert len(opened.add([f"zip://runs::{tmp_path}/night.zip"]).new) == 2
        assert opened.entries()[0].origins == (f"zip://runs/a/result.json::{tmp_path}/night.zip",)
        assert opened.add([opened.entries()[0].origins[0]]).known == (sha256_of(CONTENTS[0]),)


def test_addresses_that_cannot_be_opened_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="Protocol not known"):
        History("nonsense://somewhere")
    with pytest.raises(HistoryError, match="memory://none: no history there; m2fbench history add"):
        History("memory://none")
    if importlib.util.find_spec("s3fs") is None:
        with pytest.raises(HistoryError, match="s3fs.*install that package"):
            History("s3://key:secret@bucket/history", create=True)
    with History(tmp_path, create=True) as opened, pytest.raises(HistoryError, match="Protocol not known"):
        opened.add(["nonsense://somewhere"])


def test_what_a_file_system_raises_is_one_line(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError("The specified bucket\ndoes not exist")

    files = RemoteFiles(f"{memory}/h")
    monkeypatch.setattr(files.fs, "pipe_file", gone, raising=False)
    with pytest.raises(HistoryError, match="memory://bucket/h/results/x.json: cannot be written: it is not there"):
        files.put("results/x.json", b"1")
    with pytest.raises(HistoryError, match="memory://bucket/h/results/y.json: it is not there"):
        files.read("results/y.json")
    files.remove("results/y.json")


def test_a_file_address_is_a_local_folder(tmp_path: Path) -> None:
    names = made_history(tmp_path / "h", CONTENTS)
    with History(f"file://{tmp_path}/h") as opened:
        assert [e.sha256 for e in opened.entries()] == names
    assert (tmp_path / "h/index.sqlite").exists()
    assert local_path("local:///a/b") == Path("/a/b")
    assert local_path("C:results") == Path("C:results")
    assert is_address("s3://bucket")
    assert is_address("zip::/night.zip")
    assert public("s3://key:secret@bucket/x") == "s3://bucket/x"
    assert public("https://u:p@host/x?sig=1") == "https://host/x"


def test_a_store_that_is_no_object_store_has_files_moved_into_place(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = RemoteFiles(f"{memory}/h")
    monkeypatch.setattr(files, "_whole", False)
    moved = []
    move = files.fs.mv
    monkeypatch.setattr(files.fs, "mv", lambda a, b: (moved.append((a, b)), move(a, b)), raising=False)
    assert files.put("results/ab/x.json", b"1")
    assert not files.put("results/ab/x.json", b"2")
    assert files.read("results/ab/x.json") == b"1"
    assert files.names("results") == ["results/ab/x.json"]
    assert [b for _, b in moved] == ["/bucket/h/results/ab/x.json"]


def test_local_files_are_put_once_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LocalFiles(tmp_path)
    assert files.put("a/b.json", b"1")
    assert not files.put("a/b.json", b"2")
    old = tmp_path / "a/.c.json.host.1.part"
    old.write_bytes(b"half")
    assert files.names("a") == ["a/b.json"]
    assert old.exists()  # somebody may be writing it
    os.utime(old, (time.time() - 90_000,) * 2)
    assert files.names("a") == ["a/b.json"]
    assert not old.exists()

    def no_links(*_: object) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert files.put("a/c.json", b"3")
    assert sorted(files.names("a")) == ["a/b.json", "a/c.json"]
    assert [p.name for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []


def test_a_full_disk_is_one_line_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_runs(tmp_path / "runs", CONTENTS)
    with History(tmp_path / "h", create=True) as opened:

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(HistoryError, match="the disk is full"):
                opened.add([tmp_path / "runs"])
        assert len(opened.add([tmp_path / "runs"]).new) == 3
        assert not list((tmp_path / "h").rglob("*.part"))


def test_what_one_writer_leaves_aside_is_no_other_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between linking a file to its name and removing what it was written as; the next process has the same host and number."""
    files = LocalFiles(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda self, missing_ok=False: None)
        files.put("releases/v1.json", b"whole")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        files.replace("releases/v1.json", b"half")
    assert files.read("releases/v1.json") == b"whole"


@pytest.mark.parametrize("text", ["s3://me:p@ss@host/x", "s3://me@host/x", "sftp://me:pw@host/x"])
def test_no_part_of_a_password_is_shown(text: str) -> None:
    assert public(text).endswith("://host/x")
    assert "ss@" not in reason_of(ValueError(f"cannot open {text}"))
    assert "pw" not in reason_of(ValueError(f"cannot open {text}"))
