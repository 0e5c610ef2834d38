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

from m2fbench.errors import CheckpointError, shown
from m2fbench.models.zoo import hash_in_name

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all where the server says)."""

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _BrokenOffError(Exception):
    """The server or the way to it failed; what has arrived is kept."""


def cache_folder() -> Path:
    """$M2FBENCH_CACHE, or ``m2fbench`` in the user's cache folder."""
    own, base = os.environ.get("M2FBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).absolute() if own else (Path(base) if base else Path.home() / ".cache").absolute() / "m2fbench"


def is_url(reference: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE) is not None


def redacted(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    return re.sub(r"(?<=://)[^/@]*@", "", re.sub(r"[?#].*", "", shown(url, 300)))


def fetch(url: str, progress: Progress | None = None) -> Path:
    """The file at an https address, from the cache where it is whole there. Raises CheckpointError; what has arrived is kept.

    A name that promises a hash (``model_final_94dc52.pkl``) is held to it. Plain http is accepted from this machine only.
    """
    address, path = _checked(url)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if not path.is_file():  # another process may have been faster
                _download(address, path, progress or (lambda done, total: None))
    except OSError as error:  # those of the network are _BrokenOffError by now
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        reason = "the disk is full: free space" if full else f"{error.strerror or error}: mend that"
        raise CheckpointError(
            f"{redacted(url)}: cannot be stored in {path.parent}: {reason}, or name another folder in M2FBENCH_CACHE"
        ) from error
    return path


def _checked(url: str) -> tuple[str, Path]:
    """The address as it can be sent, and its place in the cache. Raises CheckpointError where it is no https address of a file."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:  # UnicodeError is one
        raise CheckpointError(f"{redacted(url)}: is no address ({shown(error)}); expected https://host/path/file") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOOPBACK):
        raise CheckpointError(
            f"{redacted(url)}: expected an https address, got {parts.scheme}; weights must not travel unprotected"
        )
    names = [urllib.parse.unquote(name) for name in parts.path.split("/") if name]
    if not host or not names or any(name in (".", "..") for name in names):
        raise CheckpointError(f"{redacted(url)}: expected the address of a file, as https://host/path/model_final_94dc52.pkl")
    plain = [re.sub(r"[^\w.+-]", "_", name)[-100:] for name in names]
    if parts.query or plain != names:  # two addresses never share a place
        plain.insert(-1, hashlib.sha256(f"{parts.path}?{parts.query}".encode()).hexdigest()[:12])
    quoted = parts._replace(
        path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~"), query=urllib.parse.quote(parts.query, safe="=&%/?:+,;@")
    )
    return quoted.geturl(), cache_folder().joinpath(f"{host}_{port}" if port else host, *plain)


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
        begun = _size(part) > 0
        try:
            _receive(url, part, note, progress)
            _check(url, path.name, part, note)
            part.replace(path)
            note.unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise CheckpointError(
                    f"{redacted(url)}: the server answers {error.code} ({shown(error.reason, 60)}); check the address"
                ) from error
            reason = f"the server answers {error.code} ({shown(error.reason, 60)})"
        except _BrokenOffError as error:
            reason = shown(error)
        if not begun and not _size(part):
            break  # nothing has ever come: no use in trying on
    arrived = _size(part)
    kept = (
        f"{arrived / 2**20:.1f} MB are kept: the same command goes on from there"
        if arrived
        else "check the connection and the address"
    )
    raise CheckpointError(f"{redacted(url)}: cannot be downloaded: {reason}; {kept}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Failures of the network as _BrokenOffError, so that those of the disk stay apart."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenOffError(getattr(error, "reason", None) or error or type(error).__name__) from error


def _receive(url: str, part: Path, note: Path, progress: Progress) -> None:
    """Append what the server sends to ``part`` until it is whole. Raises _BrokenOffError and HTTPError."""
    have = _size(part)
    tag = note.read_text(encoding="utf-8") if have and note.exists() else ""
    request = urllib.request.Request(url, headers={"User-Agent": "m2fbench", "Accept-Encoding": "identity"})
    if tag:  # without a way to tell that it is the same file, a part is of no use
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        with _network():
            answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        if error.headers.get("Content-Range", "") == f"bytes */{have}":
            return  # all of it is here
        part.unlink(missing_ok=True)
        raise _BrokenOffError("the server has another file now") from error
    with answer:
        resumed, total, now = _promise(answer, have, tag)
        if resumed is None:
            part.unlink(missing_ok=True)
            raise _BrokenOffError("the server has another file now")
        if not resumed:
            note.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            if now and not now.startswith("W/"):
                note.write_text(now, encoding="utf-8")
            done = _copy(answer, file, have if resumed else 0, total, progress)
    if total is not None and done != total:
        raise _BrokenOffError("the connection broke off")
    if done == 0:
        raise _BrokenOffError("the server sends an empty file")


def _promise(answer: Any, have: int, tag: str) -> tuple[bool | None, int | None, str]:
    """(whether the answer goes on where ``part`` ends, None where it goes on with another file; size of the whole; its ETag)."""
    encoding = answer.headers.get("Content-Encoding", "identity")
    if answer.status not in (200, 206) or encoding != "identity":
        what = f"status {answer.status}" if answer.status not in (200, 206) else f"encoding {shown(encoding, 20)}"
        raise _BrokenOffError(f"the server answers with {what}, expected the file as it is")
    now = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
    length = answer.headers.get("Content-Length") or ""
    if answer.status == 200:
        return False, int(length) if length.isdecimal() else None, now
    part = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", answer.headers.get("Content-Range", ""))
    if part is None or int(part[1]) != have or (now and now != tag):
        return None, None, now
    return True, int(part[3]) if part[3] != "*" else int(part[2]) + 1, now or tag


def _copy(answer: Any, file: IO[bytes], done: int, total: int | None, progress: Progress) -> int:
    progress(done, total)
    while True:
        try:
            with _network():
                chunk = answer.read(CHUNK)
        except _BrokenOffError as error:
            rest = getattr(error.__cause__, "partial", b"")
            file.write(rest)
            raise
        if not chunk:
            return done
        file.write(chunk)
        done += len(chunk)
        progress(done, total)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from a protected address to an unprotected one."""

    def redirect_request(self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = (urllib.parse.urlsplit(url).scheme for url in (req.full_url, newurl))
        if before == "https" and after != "https":
            raise urllib.error.URLError(f"it leads on to {redacted(newurl)}, which is not https")
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


def _check(url: str, name: str, part: Path, note: Path) -> None:
    """Hold the file to the hash that its name promises; another one is deleted, or it would be resumed for ever."""
    promised = hash_in_name(name)
    if promised is None:
        return
    algorithm, beginning = promised
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(beginning):
        size = _size(part)
        part.unlink()
        note.unlink(missing_ok=True)
        raise CheckpointError(
            f"{redacted(url)}: what arrived ({size:,} bytes) has {algorithm.upper()} {found[:12]}..., its name promises {beginning}; it was "
            f"deleted: try again, or get the file elsewhere and pass its path"
        )
