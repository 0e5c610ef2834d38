"""The site's folder: files written whole, left alone where they are as they should be, and removed where an earlier site had them and this
one has not. What others put there is neither changed nor removed."""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO

from m2fbench.errors import StoreError, shown
from m2fbench.writing import make_folder, store_error, write_atomically

MANIFEST = ".m2fbench-dashboard.json"
"""Names of the files that we have written. It names them before they are written, so that one that was begun and not finished is known too."""
_LOCK = ".m2fbench-dashboard.lock"
_FORMAT = "m2fbench dashboard"


class Folder:
    """A context: inside, ``announce`` and ``write`` the files; at its end, those of an earlier site that were not written again are removed.
    One process at a time is inside, the others wait for it."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError where the folder cannot be made, holds something and no site of ours, or its list of files cannot be read."""
        self.path = path
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path}: expected a folder to write the site into, got a file; choose another one")
        make_folder(path)
        _refuse_foreign(path)
        self._lock = _locked(path / _LOCK)
        try:
            self.before = _listed(path / MANIFEST)
        except BaseException:
            self._release()
            raise
        self.written: list[str] = []

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._finish()
        finally:
            self._release()

    def announce(self, names: Iterable[str]) -> None:
        """Files that are going to be written. Raises StoreError where one of them is there and not ours."""
        names = list(names)
        for name in names:
            if name not in self.before and (self.path / name).exists():
                raise StoreError(f"{self.path / name} is there and was not written with the site; choose an empty folder")
        self._list(self.before | set(names))
        for folder in {PurePosixPath(name).parent for name in names}:
            make_folder(self.path / folder)

    def write(self, name: str, text: str) -> None:
        path, content = self.path / name, text.encode("utf-8", "replace")
        self.written.append(name)
        if not _holds(path, content):
            write_atomically(path, content)

    def _finish(self) -> None:
        """Remove what earlier sites had and this one has not, and what a process that was killed had begun."""
        for folder in {PurePosixPath(name).parent for name in self.before}:
            for name in _begun(self.path, folder, self.before):
                _remove(self.path, name)
        for name in sorted(self.before - set(self.written)):
            _remove(self.path, name)
        self._list(set(self.written))

    def _release(self) -> None:
        (self.path / _LOCK).unlink(missing_ok=True)
        self._lock.close()

    def _list(self, names: set[str]) -> None:
        self.before |= names
        document = {"format": _FORMAT, "version": 1, "files": sorted(names)}
        write_atomically(self.path / MANIFEST, json.dumps(document, indent=0) + "\n")


def _refuse_foreign(path: Path) -> None:
    """Raises StoreError where something lies in the folder and no list of ours, which is written before anything else."""
    ours = re.compile(rf"{re.escape(_LOCK)}|\.{re.escape(MANIFEST)}\.\d+\.part")
    try:
        others = sorted(entry.name for entry in os.scandir(path) if not ours.fullmatch(entry.name))
    except OSError as error:
        raise store_error(path, error) from error
    if others and not (path / MANIFEST).exists():
        raise StoreError(
            f"{path}: expected an empty folder or one that holds a dashboard already, found {shown(others[0])}"
            f"{f' and {len(others) - 1} more' if len(others) > 1 else ''}; choose another one"
        )


def _locked(path: Path) -> IO[str]:
    """The file at the path, locked. Raises StoreError."""
    try:
        while True:
            file = path.open("a")
            fcntl.flock(file, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                    return file
            file.close()  # whoever had it has removed it
    except OSError as error:
        raise store_error(path.parent, error) from error


def _begun(root: Path, folder: PurePosixPath, names: set[str]) -> list[str]:
    """Files of ``write_atomically`` in the folder that would have become one of the names."""
    if not (root / folder).is_dir():
        return []
    found = ((entry.name, re.fullmatch(r"\.(.+)\.\d+\.part", entry.name)) for entry in (root / folder).iterdir())
    return [str(folder / entry) for entry, match in found if match and str(folder / match[1]) in {*names, MANIFEST}]


def _listed(path: Path) -> set[str]:
    """Names in the manifest that lie inside the folder; none where there is no manifest. Raises StoreError."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = document["files"]
        if document["format"] != _FORMAT:
            raise ValueError(f"its format is not {_FORMAT!r}")
        return {name for name in names if isinstance(name, str) and _inside(name)}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: expected the list of the site's files, which cannot be read ({error}); choose another folder"
        ) from error


def _inside(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name and name not in ("", ".", MANIFEST)


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.stat().st_size == len(content) and path.read_bytes() == content
    except OSError:
        return False


def _remove(root: Path, name: str) -> None:
    path = root / name
    if any(parent.is_symlink() for parent in path.parents if parent != root and root in parent.parents):
        return  # a link that leads elsewhere, which we have not made
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise store_error(path, error) from error
    parent = path.parent
    while parent != root and not any(os.scandir(parent)):
        parent.rmdir()
        parent = parent.parent
