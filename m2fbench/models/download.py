"""Checkpoint files from the web, into a cache: with progress, resumed where they broke off, checked by the hash in their name.

CACHE/HOST/PATH/NAME          whole and checked
CACHE/HOST/PATH/.NAME.part    what has arrived so far, and beside it the ETag of the file it is a part of
"""

import contextlib
import errno
import fcntl
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from m2fbench.errors import CheckpointError
from m2fbench.models.zoo import hash_in_name

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all where the server says)."""

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def cache_folder() -> Path:
    """$M2FBENCH_CACHE, or ``m2fbench`` in the user's cache folder."""
    if own := os.environ.get("M2FBENCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "m2fbench"


def is_url(reference: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE) is not None


def fetch(url: str, progress: Progress | None = None) -> Path:
    """The file at an https address, from the cache where it is whole there. Raises CheckpointError; what has arrived is kept.

    A name that promises a hash (``model_final_94dc52.pkl``) is held to it. Plain http is accepted from this machine only.
    """
    path = _path_for(url)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():  # another process may have been faster
                _download(url, path, progress or (lambda done, total: None))
    except OSError as error:
        raise _cannot_store(url, path, error) from error
    return path


def _cannot_store(url: str, path: Path, error: OSError) -> CheckpointError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CheckpointError(f"{url}: the disk is full ({path.parent}); free space, or name another folder in M2FBENCH_CACHE")
    return CheckpointError(
        f"{url}: cannot be stored in {path.parent} ({error.strerror or error}); name another folder in M2FBENCH_CACHE"
    )


def _path_for(url: str) -> Path:
    parts = urllib.parse.urlsplit(url)
    try:
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise CheckpointError(f"{url}: expected an https address, got {parts.scheme}; weights must not travel unprotected")
    names = [re.sub(r"[^\w.+-]", "_", urllib.parse.unquote(name)) for name in parts.path.split("/") if name]
    if not host or not names or any(name in (".", "..") for name in names):
        raise CheckpointError(f"{url}: expected the address of a file, as https://host/path/model_final_94dc52.pkl")
    if parts.query:
        names.insert(-1, hashlib.sha256(parts.query.encode()).hexdigest()[:12])
    return cache_folder().joinpath(f"{host}_{parts.port}" if parts.port else host, *names)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time downloads a file; the others wait for it."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, path: Path, progress: Progress) -> None:
    part, note = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.etag")
    reason = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive(url, part, note, progress):
                _check(url, part, note)
                part.replace(path)
                note.unlink(missing_ok=True)
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise CheckpointError(f"{url}: the server answers {error.code} ({error.reason}); check the address") from error
            reason = f"the server answers {error.code} ({error.reason})"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if isinstance(getattr(error, "reason", None), ValueError):
                raise CheckpointError(f"{url}: {error.reason}") from error  # type: ignore[union-attr]
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        if not before and not (part.exists() and part.stat().st_size):
            break  # nothing has ever come: no use in trying on
    arrived = part.stat().st_size if part.exists() else 0
    kept = (
        f"{arrived / 2**20:.1f} MB are kept: the same command goes on from there"
        if arrived
        else "check the connection and the address"
    )
    raise CheckpointError(f"{url}: cannot be downloaded: {reason}; {kept}")


def _receive(url: str, part: Path, note: Path, progress: Progress) -> bool:
    """Append what the server sends to ``part``; whether the file is whole."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "m2fbench", "Accept-Encoding": "identity"})
    if have and note.exists():  # without a way to tell that it is the same file, a part is of no use
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", note.read_text(encoding="utf-8"))
    try:
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if whole and int(whole[1]) == have:
            return True
        part.unlink(missing_ok=True)
        return False
    with answer:
        resumed = answer.status == 206 and _starts_at(answer.headers.get("Content-Range", "")) == have
        if answer.status == 206 and not resumed:
            raise http.client.HTTPException("the server sends another part than asked for")
        length = answer.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length and length.isdecimal() else None
        tag = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        if not resumed:
            note.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            if tag and not tag.startswith("W/"):
                note.write_text(tag, encoding="utf-8")
            done = _copy(answer, file, have if resumed else 0, total, progress)
    return total is None or done == total


def _starts_at(content_range: str) -> int | None:
    match = re.match(r"bytes (\d+)-", content_range)
    return int(match[1]) if match else None


def _copy(answer: IO[bytes], file: IO[bytes], done: int, total: int | None, progress: Progress) -> int:
    progress(done, total)
    try:
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            progress(done, total)
    except http.client.IncompleteRead as error:
        file.write(error.partial)
        done += len(error.partial)
    return done


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from a protected address to an unprotected one."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https://") and not newurl.startswith("https://"):
            raise urllib.error.URLError(ValueError(f"leads on to {newurl}, which is not https"))
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """For http and https only: a redirect must not lead to a local file."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler, _Redirects,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _check(url: str, part: Path, note: Path) -> None:
    """Hold the file to the hash that its name promises; another one is deleted, or it would be resumed for ever."""
    promised = hash_in_name(url.rsplit("/", 1)[-1])
    if promised is None:
        return
    algorithm, beginning = promised
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(beginning):
        size = part.stat().st_size
        part.unlink()
        note.unlink(missing_ok=True)
        raise CheckpointError(
            f"{url}: what arrived ({size:,} bytes) has {algorithm.upper()} {found[:12]}..., its name promises {beginning}; it was deleted: "
            f"try again, or get the file elsewhere and pass its path"
        )
