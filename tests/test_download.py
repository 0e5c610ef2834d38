"""Downloads from a real server on loopback that does everything servers do: break off, change, refuse, lead elsewhere."""

import hashlib
import http.server
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from m2fbench import download
from m2fbench.errors import CheckpointError
from m2fbench.models.download import cache_folder, fetch

CONTENT = bytes(range(256)) * 4096  # 1 MiB


class Server:
    """Serves ``files``; its attributes say how. requests: the Range header of each request, None where it had none."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str | None] = []
        self.break_after: list[int] = []  # bytes of each coming answer before the connection is cut
        self.statuses: list[int] = []  # of each coming answer, in place of what is asked for; 200 for that
        self.ranges = self.lengths = True
        self.redirects: dict[str, str] = {}
        self.pause = 0.0  # seconds between pieces
        self.heeds_if_range = True
        self.raw: dict[str, bytes] = {}  # whole answers, headers and all
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.requests.append(self.headers.get("Range"))
                status = server.statuses.pop(0) if server.statuses else 200
                if status != 200:
                    self.send_error(status)
                elif self.path in server.raw:
                    self.wfile.write(server.raw[self.path])
                elif self.path in server.redirects:
                    self.send_response(302)
                    self.send_header("Location", server.redirects[self.path])
                    self.end_headers()
                elif self.path not in server.files:
                    self.send_error(404)
                else:
                    self.answer(server.files[self.path])

            def answer(self, content: bytes) -> None:
                tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
                asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                heeded = self.headers.get("If-Range") == tag or not server.heeds_if_range
                start = int(asked[1]) if asked and server.ranges and heeded else 0
                if start >= len(content) and start:
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.end_headers()
                    return
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("ETag", tag)
                if server.lengths:
                    self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                if server.break_after:
                    body = body[: server.break_after.pop(0)]
                for offset in range(0, len(body), 1 << 15):
                    self.wfile.write(body[offset : offset + (1 << 15)])
                    time.sleep(server.pause)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSES", (0.0, 0.0, 0.0, 0.0))
    made = Server()
    yield made
    made.server.shutdown()


def name_for(content: bytes) -> str:
    return f"/zoo/model_final_{hashlib.md5(content).hexdigest()[:6]}.pkl"


def test_a_file_arrives_whole_with_progress_and_only_once(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    seen: list[tuple[int, int | None]] = []
    path = fetch(server.url + name, lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache_folder())
    assert path.name == name.rsplit("/", 1)[1]
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert fetch(server.url + name) == path
    assert len(server.requests) == 1
    assert {p.name for p in path.parent.iterdir()} == {path.name, f".{path.name}.lock"}


def test_broken_off_it_goes_on_where_it_was(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.break_after = [300_000, 200_000, 1]
    assert fetch(server.url + name).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=500000-", "bytes=500001-"]


def test_given_up_it_goes_on_in_the_next_run(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(CheckpointError, match=r"broke off; 0\.1 MB are kept: the same command goes on from there"):
        fetch(server.url + name)
    server.requests.clear()
    assert fetch(server.url + name).read_bytes() == CONTENT
    assert server.requests == ["bytes=100000-"]


def test_a_file_that_changed_meanwhile_is_begun_again(server: Server) -> None:
    server.files["/x/model.pkl"] = b"a" * 500_000
    server.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(CheckpointError):
        fetch(server.url + "/x/model.pkl")
    server.files["/x/model.pkl"] = CONTENT
    assert fetch(server.url + "/x/model.pkl").read_bytes() == CONTENT


def test_a_server_that_does_not_heed_if_range_cannot_splice_two_files(server: Server) -> None:
    server.heeds_if_range = False
    server.files["/x/model.pkl"] = b"a" * len(CONTENT)
    server.break_after = [100_000, 0, 0, 0, 0]
    with pytest.raises(CheckpointError):
        fetch(server.url + "/x/model.pkl")
    server.files["/x/model.pkl"] = CONTENT
    assert fetch(server.url + "/x/model.pkl").read_bytes() == CONTENT


def test_answers_that_are_not_the_file(server: Server) -> None:
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
    server.raw = {
        "/cut.pkl": head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n",
        "/cut-chunk.pkl": head + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabcde",
        "/gzip.pkl": head + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        "/empty.pkl": head + b"Content-Length: 0\r\n\r\n",
        "/204.pkl": b"HTTP/1.1 204 No Content\r\n\r\n",
        "/rubbish.pkl": b"hello",
        "/evil.pkl": b"HTTP/1.1 404 evil \x1b]0;pwn\x07 reason\r\n\r\n",
    }
    for name in server.raw:
        with pytest.raises(CheckpointError) as caught:
            fetch(server.url + name)
        assert all(c.isprintable() for c in str(caught.value))
        assert not _whole(name), name
    server.raw = {}
    server.files["/cut.pkl"] = CONTENT
    assert fetch(server.url + "/cut.pkl").read_bytes() == CONTENT


def _whole(name: str) -> list[Path]:
    return list(cache_folder().rglob(name.rsplit("/", 1)[1]))


def test_the_hash_is_in_the_name_whatever_follows_it(server: Server) -> None:
    server.files["/model_final_000000.pkl?download=1"] = CONTENT
    with pytest.raises(CheckpointError, match="its name promises 000000"):
        fetch(server.url + "/model_final_000000.pkl?download=1")
    server.files["/model-20240131.pth"] = CONTENT  # a date
    assert fetch(server.url + "/model-20240131.pth").read_bytes() == CONTENT


def test_secrets_in_an_address_are_not_repeated(server: Server) -> None:
    with pytest.raises(CheckpointError) as caught:
        fetch(server.url.replace("http://", "http://user:secret@") + "/gone.pkl?token=secret")
    assert "secret" not in str(caught.value)


def test_addresses_in_other_alphabets(server: Server) -> None:
    server.files["/%C3%BC.pkl"] = CONTENT
    assert fetch(server.url + "/ü.pkl").read_bytes() == CONTENT


def test_a_server_without_ranges_or_lengths(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.ranges = False
    server.break_after = [300_000]
    assert fetch(server.url + name).read_bytes() == CONTENT
    server.lengths = False
    server.files["/plain.pkl"] = CONTENT
    seen: list[tuple[int, int | None]] = []
    assert fetch(server.url + "/plain.pkl", lambda done, total: seen.append((done, total))).read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), None)


def test_a_wrong_hash_is_refused_and_not_kept(server: Server) -> None:
    for name in ("/zoo/model_final_000000.pkl", "/mm/mask2former-0000000a.pth"):
        server.files[name] = CONTENT
        with pytest.raises(CheckpointError, match=r"its name promises 0+a?; it was deleted"):
            fetch(server.url + name)
        assert not [p for p in cache_folder().rglob("*") if p.is_file() and p.stat().st_size]
    right = f"/mm/mask2former-{hashlib.sha256(CONTENT).hexdigest()[:8]}.pth"
    server.files[right] = CONTENT
    assert fetch(server.url + right).read_bytes() == CONTENT


def test_a_whole_part_is_not_downloaded_again(server: Server) -> None:
    """Killed between the last byte and the renaming."""
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    path = fetch(server.url + name)
    tag = f'"{hashlib.sha256(CONTENT).hexdigest()[:16]}"'
    path.rename(path.with_name(f".{path.name}.part"))
    path.with_name(f".{path.name}.etag").write_text(tag)
    assert fetch(server.url + name).read_bytes() == CONTENT
    assert server.requests[-1] == f"bytes={len(CONTENT)}-"


def test_answers_that_are_errors(server: Server) -> None:
    with pytest.raises(CheckpointError, match="the server answers 404"):
        fetch(server.url + "/gone.pkl")
    assert len(server.requests) == 1
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.break_after = [1000]
    server.statuses = [200, 503, 429]
    server.requests.clear()
    assert fetch(server.url + name).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=1000-", "bytes=1000-", "bytes=1000-"]
    server.statuses = [500] * 9
    with pytest.raises(CheckpointError, match="cannot be downloaded: the server answers 500"):
        fetch(server.url + "/never.pkl")
    with pytest.raises(CheckpointError, match="cannot be downloaded: .*; check the connection"):
        fetch("http://127.0.0.1:9/x.pkl")


def test_redirects(server: Server) -> None:
    server.files["/there.pkl"] = CONTENT
    server.redirects["/here.pkl"] = "/there.pkl"
    assert fetch(server.url + "/here.pkl").read_bytes() == CONTENT
    for name, target in (("/file.pkl", "file:///etc/passwd"), ("/loop.pkl", "/loop.pkl"), ("/bad.pkl", "http://[bad/")):
        server.redirects[name] = target
        with pytest.raises(CheckpointError, match=r"the server answers 302|cannot be downloaded") as caught:
            fetch(server.url + name)
        assert "\n" not in str(caught.value)
    handler = download._Redirects()
    for address in ("https://a/b.pkl", "HTTPS://a/b.pkl"):
        request = download.urllib.request.Request(address)
        with pytest.raises(download.urllib.error.URLError, match="not https"):
            handler.redirect_request(request, None, 302, "", {}, "http://a/b.pkl")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://example.com/model_final_94dc52.pkl", "expected an https address, got http"),
        ("ftp://example.com/x.pkl", "expected an https address, got ftp"),
        ("file:///etc/passwd", "expected an https address, got file"),
        ("https://example.com/", "expected the address of a file"),
        ("https:///x.pkl", "expected the address of a file"),
        ("https://example.com/a/../../../etc/x", "expected the address of a file"),
        ("https://example.com/%2e%2e/%2e%2e/x", "expected the address of a file"),
        ("https://h:99999/x.pkl", "is no address"),
        ("https://[x/y.pkl", "is no address"),
        ("https://a..b/x.pkl", "is no address"),
        ("https://" + "a" * 70 + ".org/x.pkl", "is no address"),
    ],
)
def test_addresses_that_are_not_accepted(url: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        fetch(url)


def test_names_stay_inside_the_cache(server: Server) -> None:
    server.files["/a%2F..%2F..%2Fx.pkl"] = CONTENT
    path = fetch(server.url + "/a%2F..%2F..%2Fx.pkl")
    assert path.resolve().is_relative_to(cache_folder().resolve())
    server.files["/x.pkl?v=1"] = b"1"
    server.files["/x.pkl?v=2"] = b"2"
    assert fetch(server.url + "/x.pkl?v=1").read_bytes() == b"1"
    assert fetch(server.url + "/x.pkl?v=2").read_bytes() == b"2"


def test_a_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "blocked").write_text("")
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "blocked"))
    server.files["/x.pkl"] = CONTENT
    with pytest.raises(CheckpointError, match="name another folder in M2FBENCH_CACHE"):
        fetch(server.url + "/x.pkl")


FETCH = "import sys; from m2fbench.models.download import fetch; print(fetch(sys.argv[1]))"


def start(url: str) -> "subprocess.Popen[Any]":
    return subprocess.Popen([sys.executable, "-c", FETCH, url], stdout=subprocess.PIPE, text=True, env=dict(os.environ))


@pytest.mark.full
def test_killed_it_goes_on(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.pause = 0.05
    process = start(server.url + name)
    while not (parts := list(cache_folder().rglob("*.part"))) or parts[0].stat().st_size < 200_000:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    server.pause = 0.0
    server.requests.clear()
    assert fetch(server.url + name).read_bytes() == CONTENT
    assert server.requests[0] is not None


@pytest.mark.full
def test_two_at_once_download_once(server: Server) -> None:
    name = name_for(CONTENT)
    server.files[name] = CONTENT
    server.pause = 0.02
    processes = [start(server.url + name) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in processes}
    assert len(paths) == 1
    assert Path(paths.pop()).read_bytes() == CONTENT
    assert server.requests == [None]
