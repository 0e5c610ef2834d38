"""Archives, unpacked as if their author meant harm: only the files asked for, only inside the target, no more than was declared.

Every file is written aside and renamed, so that a name means a whole file; what is whole already (size and CRC of a zip's
directory, content of a tar's member) is left as it is, so that unpacking that was broken off goes on.
"""

import contextlib
import errno
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from m2fbench.download import reason_of
from m2fbench.errors import DatasetError, shown

CHUNK = 1 << 20
Progress = Callable[[int, int], None]
"""(bytes unpacked so far, bytes in all)."""


@dataclass(frozen=True)
class Wanted:
    """Files of an archive. pattern: their names there, ``*`` within one part of a path. folder: where they go, in the target.
    nested: the files wanted of them where they are zip archives themselves, which are not kept."""

    pattern: str
    folder: str
    nested: tuple["Wanted", ...] = ()

    def matches(self, name: str) -> bool:
        parts, patterns = name.split("/"), self.pattern.split("/")
        return len(parts) == len(patterns) and all(map(fnmatchcase, parts, patterns))


@dataclass(frozen=True)
class Unpacked:
    """A file that is there now. name: its path in the target, with slashes; size in bytes; crc: zlib.crc32 of its content."""

    name: str
    size: int
    crc: int


@dataclass(frozen=True)
class _Member:
    """What an archive declares of a file. crc: None where it says nothing of it (tar)."""

    name: str
    size: int
    crc: int | None
    open: Callable[[], IO[bytes]]


def unpack(
    archive: Path, target: Path, wanted: Sequence[Wanted], *, limit: int, aside: Path, progress: Progress | None = None
) -> list[Unpacked]:
    """The ``wanted`` files of a zip or an uncompressed tar, below ``target``. Raises DatasetError in one line.

    limit: bytes that they may declare in all, those of nested archives apart. aside: a folder for nested archives, on any disk.
    An archive with a member that leads elsewhere, or that is a link or a device, is refused before anything is written.
    """
    try:
        with _opened(archive) as members:
            chosen = [(w, m) for m in members for w in wanted if w.matches(m.name)]
            _refuse(archive, wanted, chosen, limit)
            return _write(archive, target, chosen, limit, aside, progress or (lambda done, total: None))
    except (
        zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError,
    ) as error:  # fmt: skip
        raise DatasetError(
            f"{archive}: is no whole archive ({shown(error) or type(error).__name__}); delete it, and the same command gets it again"
        ) from error
    except OSError as error:
        raise DatasetError(
            f"{error.filename or target}: cannot be written: {reason_of(error)}; the same command goes on from there"
        ) from error


def _refuse(archive: Path, wanted: Sequence[Wanted], chosen: Sequence[tuple[Wanted, _Member]], limit: int) -> None:
    """Raise DatasetError where a kind of file is not there at all, or where they are more than there can be."""
    for one in wanted:
        if not any(w is one for w, _ in chosen):
            raise DatasetError(f"{archive}: expected files {one.pattern} in it, got none; it is another archive")
    declared = sum(member.size for _, member in chosen)
    if declared > limit:
        raise DatasetError(f"{archive}: declares {declared:,} bytes of files, expected at most {limit:,}; it was not unpacked")


def _write(
    archive: Path, target: Path, chosen: Sequence[tuple[Wanted, _Member]], limit: int, aside: Path, progress: Progress
) -> list[Unpacked]:
    total = sum(member.size for _, member in chosen)
    target.mkdir(parents=True, exist_ok=True)
    done, made = 0, []
    progress(0, total)
    for want, member in chosen:
        name = member.name.rsplit("/", 1)[1] if "/" in member.name else member.name
        if want.nested:
            inner = aside / name
            _one(member, inner)
            made += unpack(inner, target, want.nested, limit=limit, aside=aside)
            inner.unlink()
        else:
            relative = f"{want.folder}/{name}" if want.folder else name
            made.append(Unpacked(relative, member.size, _one(member, target / relative)))
        done += member.size
        progress(done, total)
    return made


def _one(member: _Member, path: Path) -> int:
    """Write one file unless it is whole already; returns its CRC."""
    if (whole := _whole(member, path)) is not None:
        return whole
    if member.size > shutil.disk_usage(_existing(path)).free:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    crc = size = 0
    try:
        with member.open() as source, part.open("wb") as file:
            while chunk := source.read(CHUNK):
                file.write(chunk)
                crc, size = zlib.crc32(chunk, crc), size + len(chunk)
        if size != member.size:
            raise EOFError(f"{member.name} ends after {size:,} of {member.size:,} bytes")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return crc


def crc_of(file: IO[bytes]) -> int:
    crc = 0
    while chunk := file.read(CHUNK):
        crc = zlib.crc32(chunk, crc)
    return crc


def _whole(member: _Member, path: Path) -> int | None:
    """The CRC of the file at ``path`` where it is the member; None where it is not."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size == member.size:
            with path.open("rb") as file:
                found = crc_of(file)
            if member.crc is None:
                with member.open() as source:
                    return found if crc_of(source) == found else None
            return found if found == member.crc else None
    return None


def _existing(path: Path) -> Path:
    return next(folder for folder in path.absolute().parents if folder.exists())


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[list[_Member]]:
    """The regular files of an archive, all names looked at. Raises DatasetError for a name or a kind of member that is refused."""
    with archive.open("rb") as file:
        is_zip = file.read(4) in (b"PK\x03\x04", b"PK\x05\x06")
    if is_zip:
        with zipfile.ZipFile(archive) as source:
            yield list(_zip_members(archive, source))
    else:
        with tarfile.open(archive, "r:") as tar:
            yield list(_tar_members(archive, tar))


def _zip_members(archive: Path, source: zipfile.ZipFile) -> Iterable[_Member]:
    for info in source.infolist():
        name = _safe(archive, info.orig_filename)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetError(f"{archive}: holds {shown(name)}, a link or a device; it was not unpacked")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"{name} is compressed by method {info.compress_type}")
        if not info.is_dir() and kind != stat.S_IFDIR:
            yield _Member(name, info.file_size, info.CRC, lambda info=info: source.open(info))  # type: ignore[misc]


def _tar_members(archive: Path, source: tarfile.TarFile) -> Iterable[_Member]:
    for info in source:
        name = _safe(archive, info.name)
        if not (info.isreg() or info.isdir()):
            raise DatasetError(f"{archive}: holds {shown(name)}, a link or a device; it was not unpacked")
        if info.isreg():
            yield _Member(name, info.size, None, lambda info=info: _extracted(source, info))  # type: ignore[misc]


def _extracted(source: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = source.extractfile(info)
    assert file is not None  # a regular file has content
    return file


def _safe(archive: Path, name: str) -> str:
    """The name of a member without a leading ``./``. Raises DatasetError for one that leads out of the folder, or no terminal shows."""
    plain = name.removeprefix("./")
    if plain.startswith("/") or "\\" in plain or ".." in plain.split("/") or not all(c.isprintable() for c in plain):
        raise DatasetError(f"{archive}: holds a file named '{shown(name)}', which leads out of the folder; it was not unpacked")
    return plain
