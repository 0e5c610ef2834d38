"""Many files at once: work on them in threads, and what tells one state of them from another."""

import hashlib
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from m2fbench.formats import png

WORKERS = os.cpu_count() or 1
"""Threads that work on files and count images."""

_TAIL = 4096  # bytes
_IEND = bytes(4) + b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
_SUMS = 8  # bytes: Adler-32 of the pixels, CRC of the chunk that it ends

S = TypeVar("S")
T = TypeVar("T")


def map_over(work: Callable[[S], T], items: Iterable[S], workers: int | None = None) -> Iterator[T]:
    """``work`` of each item, in order, in threads: decoding PNGs and arithmetic on arrays let go of the interpreter's lock.

    workers: threads, ``WORKERS`` where not given. The first failure, in the order of the items, ends it.
    """
    np.empty(31 << 20, np.uint8)  # Linux' allocator hands maps back to the system, and pays for fresh pages each time, until it
    # has seen a larger block freed: a third of the time
    pool = ThreadPoolExecutor(workers or WORKERS)
    try:
        yield from pool.map(work, items)
    finally:
        pool.shutdown(cancel_futures=True)


def stamp(path: str | Path) -> str:
    """Size and modification time of a file, or "missing"; texts are quicker, of which there can be a hundred thousand."""
    try:
        status = os.stat(path)  # noqa: PTH116
    except OSError:
        return "missing"
    return f"{status.st_size} bytes, {status.st_mtime_ns} ns"


def stamps_sha256(paths: Iterable[str | Path]) -> str:
    """Hash over name, size and modification time: contents of images would be gigabytes. Of a path only the name counts."""
    return _sha256(paths, stamp)


def pngs_sha256(paths: Iterable[str | Path]) -> str:
    """Hash over name, size and check sums of PNG files: the zlib stream's over all pixels and the chunk's over that, which end the last
    IDAT chunk. A copy of them has the same, whenever it was made. Of a file that is no whole PNG, its content."""
    return _sha256(paths, _mark)


def content_sha256(paths: Iterable[str | Path]) -> str:
    """Hash over the content of files that are few; those that are not there count as empty."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(f"{path.name}\0{len(content)}\n".encode() + content)
    return digest.hexdigest()


def missing_of(paths: Iterable[str | Path]) -> int:
    """How many of the files are not there."""
    return sum(stamp(path) == "missing" for path in paths)


def _mark(path: str | Path) -> str:
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123
            size = file.seek(0, os.SEEK_END)
            sums = _sums_at_end(file, size) or _sums_found(file)
            if sums is None:
                file.seek(0)
                sums = hashlib.file_digest(file, "sha256").digest()
            return f"{size} bytes, {sums.hex()}"
    except OSError:
        return "missing"


def _sums_at_end(file: IO[bytes], size: int) -> bytes | None:
    """Check sums of pixels and IDAT chunk where that chunk is the last but IEND and short, with one read; else None.

    The bytes before IEND are the end of an IDAT chunk if its beginning stands as far before them as it says it is long, and its CRC
    is right.
    """
    file.seek(max(0, size - _TAIL))
    tail = file.read(_TAIL)
    end = len(tail) - len(_IEND)
    if not tail.endswith(_IEND):
        return None
    at = tail.rfind(b"IDAT", 4, end)
    whole = at > 0 and at + 8 + int.from_bytes(tail[at - 4 : at], "big") == end
    if not whole or end - at < 12 or zlib.crc32(tail[at : end - 4]).to_bytes(4, "big") != tail[end - 4 : end]:
        return None
    return tail[end - _SUMS : end]


def _sums_found(file: IO[bytes]) -> bytes | None:
    """The same of any PNG, by its chunks from the front; None where it is none, is cut off, or the last IDAT chunk is too short."""
    file.seek(0)
    if file.read(len(png.SIGNATURE)) != png.SIGNATURE:
        return None
    last, name = None, b""
    for name, at, length in png.chunks(file):
        if name == b"IDAT":
            last = (at, length)
    if name != b"IEND" or last is None or last[1] < 4:
        return None
    file.seek(last[0] + last[1] - 4)
    return file.read(_SUMS)


def _sha256(paths: Iterable[str | Path], state: Callable[[str | Path], str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"{os.path.basename(path)}\0{state(path)}\n".encode())  # noqa: PTH119
    return digest.hexdigest()
