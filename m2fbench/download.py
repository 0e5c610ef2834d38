"""Files from the web, into a cache: with progress, resumed where they broke off, held to the hash and size promised for them.

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
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from m2fbench.errors import M2FBenchError, shown

Progress = Callable[[int, int | None], None]
"""(bytes so far, bytes in all where the server says)."""

CHUNK = 1 << 18
TIMEOUT = 30.0  # seconds without a byte
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further try
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Promise:
    """What a file must be. digest: its hash in hexadecimal, or the beginning of it; by: who says so, as a message begins with it.
    size: in bytes, None where unknown."""

    algorithm: str
    digest: str
    by: str = "its name promises"
    size: int | None = None


@dataclass(frozen=True)
class Terms:
    """On what terms an address is accepted. error: what is raised. plain_http: hosts besides this machine that may be asked without
    protection. otherwise: what the reader does with a file that came another way."""

    error: type[M2FBenchError]
    plain_http: Collection[str] = ()
    otherwise: str = "pass its path"


class _BrokenOffError(Exception):
    """The server or the way to it failed; what has arrived is kept."""


class _AnotherFileError(Exception):
    """What the server has is not of the size it should be."""


def cache_folder() -> Path:
    """$M2FBENCH_CACHE, or ``m2fbench`` in the user's cache folder."""
    own, base = os.environ.get("M2FBENCH_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own).absolute() if own else (Path(base) if base else Path.home() / ".cache").absolute() / "m2fbench"


def is_url(reference: str) -> bool:
    return re.match(r"[a-z][a-z0-9+.-]*://", reference, re.IGNORECASE) is not None


def redacted(url: str) -> str:
    """An address without what may be secret in it: user, password, query."""
    return re.sub(r"(?<=://)[^/@]*@", "", re.sub(r"[?#].*", "", shown(url, 300)))


def file_name(url: str) -> str:
    """The last part of an address's path, as the file is called there; empty where it has none."""
    with contextlib.suppress(ValueError):
        names = [name for name in urllib.parse.urlsplit(url).path.split("/") if name]
        return urllib.parse.unquote(names[-1]) if names else ""
    return ""


def fetch(
    url: str, terms: Terms, *, promise: Promise | None = None, folder: Path | None = None, progress: Progress | None = None
) -> Path:
    """The file at an https address, from the cache where it is whole there. Raises ``terms.error``; what has arrived is kept.

    Held to ``promise`` on arrival. ``folder``: in place of ``cache_folder()``. Plain http is accepted from this machine and from
    ``terms.plain_http`` only.
    """
    address, place = _checked(url, terms)
    path = (folder or cache_folder()) / place
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path):
            if not path.is_file():  # another process may have been faster
                _download(address, path, progress or (lambda done, total: None), promise, terms)
    except OSError as error:  # those of the network are _BrokenOffError by now
        raise terms.error(
            f"{redacted(url)}: cannot be stored in {path.parent}: {reason_of(error)}, or name another folder in M2FBENCH_CACHE"
        ) from error
    return path


def reason_of(error: OSError) -> str:
    """Why a file cannot be written, and what to do."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "the disk is full: free space" if full else f"{error.strerror or error}: mend that"


def _checked(url: str, terms: Terms) -> tuple[str, Path]:
    """The address as it can be sent, and its place in the cache. Raises ``terms.error`` where it is no accepted address of a file."""
    try:
        parts = urllib.parse.urlsplit(url)
        host, port = parts.hostname or "", parts.port
        host.encode("idna")
    except ValueError as error:  # UnicodeError is one
        raise terms.error(f"{redacted(url)}: is no address ({shown(error)}); expected https://host/path/file") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and host in (*_LOOPBACK, *terms.plain_http)):
        raise terms.error(
            f"{redacted(url)}: expected an https address, got {parts.scheme}; what is computed with must not travel unprotected"
        )
    names = [urllib.parse.unquote(name) for name in parts.path.split("/") if name]
    if not host or not names or any(name in (".", "..") for name in names):
        raise terms.error(f"{redacted(url)}: expected the address of a file, as https://host/path/model_final_94dc52.pkl")
    plain = [re.sub(r"[^\w.+-]", "_", name)[-100:] for name in names]
    if parts.query or plain != names:  # two addresses never share a place
        plain.insert(-1, hashlib.sha256(f"{parts.path}?{parts.query}".encode()).hexdigest()[:12])
    quoted = parts._replace(
        path=urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~"), query=urllib.parse.quote(parts.query, safe="=&%/?:+,;@")
    )
    return quoted.geturl(), Path(f"{host}_{port}" if port else host, *plain)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time makes a file; the others wait for it."""
    with path.with_name(f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _download(url: str, path: Path, progress: Progress, promise: Promise | None, terms: Terms) -> None:
    part, note = path.with_name(f".{path.name}.part"), path.with_name(f".{path.name}.etag")
    reason = ""
    for pause in (0.0, *PAUSES):
        time.sleep(pause)
        begun = _size(part) > 0
        try:
            _receive(url, part, note, progress, promise.size if promise else None)
            _check(url, part, note, promise, terms)
            part.replace(path)
            note.unlink(missing_ok=True)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code not in (408, 429):
                raise terms.error(
                    f"{redacted(url)}: the server answers {error.code} ({shown(error.reason, 60)}); check the address"
                ) from error
            reason = f"the server answers {error.code} ({shown(error.reason, 60)})"
        except _AnotherFileError as error:
            _discard(part, note)
            raise terms.error(
                f"{redacted(url)}: {error}; it was not kept: try again, or get the file elsewhere and {terms.otherwise}"
            ) from None
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
    raise terms.error(f"{redacted(url)}: cannot be downloaded: {reason}; {kept}")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _discard(part: Path, note: Path) -> None:
    part.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


@contextlib.contextmanager
def _network() -> Iterator[None]:
    """Failures of the network as _BrokenOffError, so that those of the disk stay apart."""
    try:
        yield
    except urllib.error.HTTPError:
        raise
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _BrokenOffError(getattr(error, "reason", None) or error or type(error).__name__) from error


def _receive(url: str, part: Path, note: Path, progress: Progress, size: int | None) -> None:
    """Append what the server sends to ``part`` until it is whole. Raises _BrokenOffError, HTTPError and _AnotherFileError."""
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
        if size is not None and total not in (None, size):
            raise _AnotherFileError(f"the server has {total:,} bytes, expected {size:,}")
        if not resumed:
            note.unlink(missing_ok=True)
        with part.open("ab" if resumed else "wb") as file:
            if now and not now.startswith("W/"):
                note.write_text(now, encoding="utf-8")
            done = _copy(answer, file, have if resumed else 0, size if total is None else total, progress)
        total = size if total is None else total
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
        if total is not None and done > total:
            raise _AnotherFileError(f"the server sends more than {total:,} bytes, expected no more")
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


def _check(url: str, part: Path, note: Path, promise: Promise | None, terms: Terms) -> None:
    """Hold the file to what is promised; another one is deleted, or it would be resumed for ever."""
    if promise is None:
        return
    size = _size(part)
    if promise.size not in (None, size):
        raise _AnotherFileError(f"{size:,} bytes arrived, expected {promise.size:,}")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, promise.algorithm).hexdigest()
    if not found.startswith(promise.digest):
        _discard(part, note)
        raise terms.error(
            f"{redacted(url)}: what arrived ({size:,} bytes) has {promise.algorithm.upper()} {found[:12]}..., {promise.by} "
            f"{promise.digest[:12]}; it was deleted: try again, or get the file elsewhere and {terms.otherwise}"
        )
