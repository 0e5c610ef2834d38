"""Where a history's files lie: a local folder, or any address that fsspec opens. Files appear whole or not at all, and are never changed.

Locally a file is written aside, brought to the disk and linked to its name, which fails where the name is taken.
"""

import contextlib
import errno
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from m2fbench.errors import HistoryError, shown
from m2fbench.writing import store_error

_STALE = 86400.0  # seconds after which what was written aside belongs to nobody


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
    bare = without_password(address)
    return re.sub(r"\?[^:#]*", "", bare) if bare.lower().startswith(("http:", "https:")) else bare


def without_password(text: str) -> str:
    return re.sub(r"(?<=://)[^/\s]*@", "", text)


class LocalFiles:
    """The files below a local folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def names(self, folder: str) -> list[str]:
        found: list[str] = []
        folders, seen = [folder], set[tuple[int, int]]()
        while folders:
            under = folders.pop()
            try:
                status = (self.root / under).stat()
                if (status.st_dev, status.st_ino) in seen:  # a link that leads round
                    continue
                seen.add((status.st_dev, status.st_ino))
                with os.scandir(self.root / under) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            _clear_stale(entry)
                        elif entry.is_dir():
                            folders.insert(0 if entry.is_symlink() else len(folders), f"{under}/{entry.name}")  # links last
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
        return content_or_none(self, path)

    def read_many(self, paths: Sequence[str]) -> Iterator[tuple[str, bytes | Exception]]:
        for path in paths:
            try:
                yield path, (self.root / path).read_bytes()
            except OSError as error:
                yield path, error

    def put(self, path: str, content: bytes) -> bool:
        place = self._to_write(path)
        if place.exists():
            return False
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
        place = self._to_write(path)
        aside = _write_aside(place, content)
        try:
            aside.replace(place)
        except OSError as error:
            aside.unlink(missing_ok=True)
            raise _unwritten(place, error) from error

    def remove(self, path: str) -> None:
        try:
            (self.root / path).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritten(self.root / path, error) from error

    def _to_write(self, path: str) -> Path:
        """A history that has been moved while it was open is not begun again at its old place."""
        if not self.root.is_dir():
            raise HistoryError(
                f"{self.root}: the folder of the history is no longer there; run the same command again where it is now"
            )
        place = self.root / path
        folder_at(place.parent)
        return place


def content_or_none(files: Files, path: str) -> bytes | None:
    try:
        return files.read(path)
    except HistoryError:
        return None


def _write_aside(place: Path, content: bytes) -> Path:
    aside = place.with_name(aside_name(place.name))
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise _unwritten(place, error) from error
    return aside


def aside_name(name: str) -> str:
    """Nobody else's: containers share the names of hosts and the numbers of processes, and what a killed process left may be linked already."""
    return f".{name}.{os.uname().nodename}.{os.getpid()}.{secrets.token_hex(4)}.part"


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


def reason_of(error: BaseException) -> str:
    """In a few words."""
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, PermissionError):
        return f"no permission ({shown(error.strerror or error, 80)})"
    if isinstance(error, NotImplementedError):
        return "this kind of address cannot do that; expected one that files can be written to"
    text = getattr(error, "strerror", None) or str(error)
    return shown(without_password(f"{type(error).__name__}: {text}" if text else type(error).__name__), 160)
