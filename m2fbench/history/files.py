"""Where a history's files lie: a local folder, or any address that fsspec opens. Files appear whole or not at all, and are never changed.

Locally a file is written aside, brought to the disk and linked to its name, which fails where the name is taken. An object store has no rename
and needs none: a put of a whole object is atomic there, and two writers of one name write the same bytes. Elsewhere (sftp, smb) it is
written aside and moved.
"""

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from m2fbench.errors import HistoryError, shown
from m2fbench.writing import store_error

_WHOLE = {
    "s3",
    "s3a",
    "gs",
    "gcs",
    "abfs",
    "abfss",
    "az",
    "adl",
    "oss",
    "oci",
    "memory",
    "hf",
    "tos",
    "r2",
    "b2",
}  # a put is atomic
_STALE = 86400.0  # seconds after which what was written aside belongs to nobody
_AT_ONCE = 128  # objects asked for together


class Files(Protocol):
    """Paths are relative to the history, with forward slashes. All raise HistoryError, but ``read_many``, whose errors stop nothing."""

    address: str

    def names(self, folder: str) -> list[str]:
        """Paths of all files at any depth of ``folder``, those being written left out; none where there is no such folder."""
        ...

    def exists(self, path: str) -> bool: ...
    def read(self, path: str) -> bytes: ...
    def read_or_none(self, path: str) -> bytes | None:
        """None where it cannot be read."""
        ...

    def read_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | Exception]]:
        """In order."""
        ...

    def put(self, path: str, content: bytes) -> bool:
        """False, and nothing done, where there is a file of that name."""
        ...

    def replace(self, path: str, content: bytes) -> None: ...
    def remove(self, path: str) -> None:
        """No error where it is gone."""
        ...


def is_address(place: str) -> bool:
    """Whether fsspec is to open it; what is none is a local path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*:(//|:)", place) is not None


def local_path(place: str | Path) -> Path | None:
    """The local path that a place is, ``file://`` or not; None for any other address."""
    if isinstance(place, Path):
        return place
    if (found := re.match(r"(?:file|local)://(/[^?#]*)$", place)) is not None:
        return Path(found[1])
    if is_address(place):
        return None
    return Path.home() / place[2:] if place.startswith("~/") else Path(place)


def public(address: str) -> str:
    """An address without what may be secret in it: user and password, and the query of one of the web."""
    bare = re.sub(r"(?<=://)[^/@]*@", "", address)
    return re.sub(r"\?[^:#]*", "", bare) if bare.lower().startswith(("http:", "https:")) else bare


class LocalFiles:
    """The files below a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def names(self, folder: str) -> list[str]:
        found: list[str] = []
        folders = [folder]
        while folders:
            under = folders.pop()
            try:
                with os.scandir(self.root / under) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            _clear_stale(entry)
                        elif entry.is_dir():
                            folders.append(f"{under}/{entry.name}")
                        else:
                            found.append(f"{under}/{entry.name}")
            except FileNotFoundError:
                continue
            except OSError as error:
                raise HistoryError(f"{self.root / under}: cannot be listed: {error.strerror}; check its permissions") from error
        return found

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def read(self, path: str) -> bytes:
        try:
            return (self.root / path).read_bytes()
        except OSError as error:
            raise HistoryError(f"{self.root / path}: cannot be read: {error.strerror}") from error

    def read_or_none(self, path: str) -> bytes | None:
        return _of_read(self, path)

    def read_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | Exception]]:
        for path in paths:
            try:
                yield path, (self.root / path).read_bytes()
            except OSError as error:
                yield path, error

    def put(self, path: str, content: bytes) -> bool:
        place = self.root / path
        if place.exists():
            return False
        folder_at(place.parent)
        aside = _write_aside(place, content)
        try:
            os.link(aside, place)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
                raise _unwritten(place, error) from error
            aside.replace(place)  # a file system without hard links
        finally:
            aside.unlink(missing_ok=True)
        return True

    def replace(self, path: str, content: bytes) -> None:
        place = self.root / path
        folder_at(place.parent)
        _write_aside(place, content).replace(place)

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            (self.root / path).unlink()


def _of_read(files: Files, path: str) -> bytes | None:
    try:
        return files.read(path)
    except HistoryError:
        return None


def _write_aside(place: Path, content: bytes) -> Path:
    aside = place.with_name(f".{place.name}.{os.uname().nodename}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise _unwritten(place, error) from error
    return aside


def folder_at(path: Path) -> None:
    """Made where it is not there. Raises HistoryError."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritten(path, error) from error


def _unwritten(path: Path, error: OSError) -> HistoryError:
    return HistoryError(str(store_error(path, error)).replace("--output", "--history"))


def _clear_stale(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if entry.name.endswith(".part") and time.time() - entry.stat().st_mtime > _STALE:
            Path(entry.path).unlink()


class RemoteFiles:
    """The files below an address."""

    def __init__(self, address: str) -> None:
        self.fs, self.root = opened(address)
        self.address = address
        self._shown = public(address)
        protocol = self.fs.protocol
        self._whole = bool(_WHOLE & {protocol, *(protocol if isinstance(protocol, tuple | list) else ())})

    def _path(self, path: str) -> str:
        return f"{self.root.rstrip('/')}/{path}"

    def names(self, folder: str) -> list[str]:
        start = self._path(folder)
        with speaking_of(f"{self._shown}/{folder}", "listed"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(start)
            except FileNotFoundError:
                return []
        paths = [f"{folder}/{each[len(start) :].strip('/')}" for each in found if each.startswith(start + "/")]
        return [path for path in paths if not path.rsplit("/", 1)[1].startswith(".")]

    def exists(self, path: str) -> bool:
        with speaking_of(f"{self._shown}/{path}", "looked up"):
            self.fs.invalidate_cache()
            return bool(self.fs.exists(self._path(path)))

    def read(self, path: str) -> bytes:
        with speaking_of(f"{self._shown}/{path}", "read"):
            try:
                return bytes(self.fs.cat_file(self._path(path)))
            except FileNotFoundError as error:
                raise HistoryError(f"{self._shown}/{path}: it is not there") from error

    def read_or_none(self, path: str) -> bytes | None:
        return _of_read(self, path)

    def read_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | Exception]]:
        return zip(paths, contents(self.fs, [self._path(path) for path in paths]), strict=True)

    def put(self, path: str, content: bytes) -> bool:
        if self.exists(path):
            return False
        self.replace(path, content)
        return True

    def replace(self, path: str, content: bytes) -> None:
        place = self._path(path)
        with speaking_of(f"{self._shown}/{path}", "written"):
            if self._whole:
                self.fs.pipe_file(place, content)
                return
            folder, name = place.rsplit("/", 1)
            aside = f"{folder}/.{name}.{os.uname().nodename}.{os.getpid()}.part"
            self.fs.makedirs(folder, exist_ok=True)
            self.fs.pipe_file(aside, content)
            self.fs.mv(aside, place)

    def remove(self, path: str) -> None:
        with speaking_of(f"{self._shown}/{path}", "deleted"), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self._path(path))


def opened(address: str) -> tuple[Any, str]:
    """fsspec's file system for an address, and the path there. Keys and other options are those of fsspec's own configuration
    (``FSSPEC_S3_KEY``, ~/.config/fsspec). Raises HistoryError, which names the package where one is missing."""
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(address)
    except ImportError as error:
        raise HistoryError(f"{public(address)}: {error}; install that package beside m2fbench and try again") from error
    except ValueError as error:
        raise HistoryError(f"{public(address)}: no address that fsspec opens ({shown(error)})") from error
    except Exception as error:  # each file system has errors of its own
        raise HistoryError(f"{public(address)}: cannot be opened: {reason_of(error)}") from error
    return fs, str(path)


def contents(fs: Any, paths: Sequence[str]) -> Iterator[bytes | Exception]:
    """Of each, in order; many are asked for at once."""
    for start in range(0, len(paths), _AT_ONCE):
        chunk = list(paths[start : start + _AT_ONCE])
        try:
            found = fs.cat(chunk, on_error="return")
        except Exception as error:  # each file system has errors of its own
            found = dict.fromkeys(chunk, error)
        if isinstance(found, bytes):  # of one path alone
            found = {chunk[0]: found}
        for path in chunk:
            content = found.get(path, FileNotFoundError(path))
            yield content if isinstance(content, Exception) else bytes(content)


@contextlib.contextmanager
def speaking_of(address: str, done: str) -> Iterator[None]:
    """Whatever a file system raises, as a HistoryError of one line."""
    try:
        yield
    except HistoryError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise HistoryError(f"{address}: cannot be {done}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """In a few words."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError):
        return f"no permission ({shown(error.strerror or error, 80)})"
    if isinstance(error, NotImplementedError):
        return "this kind of address cannot do that; expected one that files can be written to"
    text = getattr(error, "strerror", None) or str(error)
    return shown(f"{type(error).__name__}: {text}" if text else type(error).__name__, 160)
