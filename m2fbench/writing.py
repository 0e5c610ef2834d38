"""Files that are written whole or not at all, and what to tell a user where they cannot be."""

import contextlib
import errno
import os
import tempfile
from pathlib import Path

from m2fbench.errors import StoreError


def make_folder(path: Path) -> None:
    """Raises StoreError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise store_error(path, error) from error


def check_folder(path: Path) -> None:
    """Whether a folder is there, or can be made, that takes a file: to be asked before work whose result goes there. Leaves nothing behind.
    Raises StoreError."""
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise store_error(path, error) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """``path`` holds all of ``content`` or what it held before, whatever happens. Raises StoreError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        raise store_error(path, error) from error


def store_error(path: Path, error: OSError) -> StoreError:
    """What went wrong in writing ``path``, in a line that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"{path}: the disk is full ({error.strerror}); what was finished is kept: free space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreError(f"{path}: no permission to write here ({error.strerror}); choose another folder with --output")
    return StoreError(f"{path}: cannot be written: {error.strerror or error}; choose another folder with --output")
