"""The site's folder: files written whole, left alone where they are as they should be, and removed where an earlier site had them and this
one has not. What others put there is neither changed nor removed."""

import json
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from m2fbench.errors import StoreError
from m2fbench.writing import make_folder, store_error, write_atomically

MANIFEST = ".m2fbench-dashboard.json"
"""Names of the files that we have written. It names them before they are written, so that one that was begun and not finished is known too."""
_FORMAT = "m2fbench dashboard"


class Folder:
    """A context: inside, ``write`` the files; at its end, those of an earlier site that were not written again are removed."""

    def __init__(self, path: Path) -> None:
        """Raises StoreError where the folder cannot be made, or holds what looks like someone else's site."""
        self.path = path
        if path.exists() and not path.is_dir():
            raise StoreError(f"{path}: expected a folder to write the site into, got a file; choose another with --output")
        make_folder(path)
        self.before = _listed(path / MANIFEST)
        self.written: list[str] = []
        self.changed: list[Path] = []

    def announce(self, names: Iterable[str]) -> None:
        """Files that are going to be written. Raises StoreError where one of them is there and not ours."""
        names = list(names)
        for name in names:
            if name not in self.before and (self.path / name).exists():
                raise StoreError(
                    f"{self.path / name} is there and was not written by 'm2fbench dashboard'; choose an empty folder with --output"
                )
        self._list(self.before | set(names))
        for folder in {PurePosixPath(name).parent for name in names}:
            make_folder(self.path / folder)

    def write(self, name: str, text: str) -> None:
        path, content = self.path / name, text.encode("utf-8", "replace")
        self.written.append(name)
        if not _holds(path, content):
            write_atomically(path, content)
            self.changed.append(path)

    def finish(self) -> None:
        """Remove what earlier sites had and this one has not."""
        for name in sorted(self.before - set(self.written)):
            _remove(self.path, name)
        self._list(set(self.written))

    def _list(self, names: set[str]) -> None:
        self.before |= names
        document = {"format": _FORMAT, "version": 1, "files": sorted(names)}
        write_atomically(self.path / MANIFEST, json.dumps(document, indent=0) + "\n")


def _listed(path: Path) -> set[str]:
    """Names in the manifest that lie inside the folder; none where there is no manifest, or one that is not ours."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        names = document["files"] if document["format"] == _FORMAT else []
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
