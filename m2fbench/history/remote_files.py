"""The files below an address that fsspec opens.

An object store has no rename and needs none: a put of a whole object is atomic there, and two writers of one name write the same bytes. Elsewhere
(sftp, smb) a file is written aside and moved.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from m2fbench.errors import HistoryError, shown
from m2fbench.history.files import aside_name, content_or_none, public, reason_of

_WHOLE = frozenset(
    ["s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "memory", "hf", "tos", "r2", "b2"]
)  # a put is atomic
AT_ONCE = 128  # objects asked for together


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
        return content_or_none(self, path)

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
            aside = f"{folder}/{aside_name(name)}"
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
    for start in range(0, len(paths), AT_ONCE):
        chunk = list(paths[start : start + AT_ONCE])
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
