"""Datasets that may be had without a login, from their official addresses: downloaded, checked, unpacked, and resumed at any point.

    TARGET/...                       the validation files, laid out as the dataset's reader looks for them
    TARGET/.m2fbench/NAME.json       what came of archive NAME, once all of it is unpacked

Addresses, sizes and checksums are data (datasets/archives.json, each with where it was published). The official addresses are plain
http: what arrives is held to a published checksum, and where there is none, its own is recorded with a warning.
"""

import functools
import hashlib
import json
import os
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from m2fbench.download import Promise, Terms, fetch, file_name, locked, reason_of, redacted
from m2fbench.errors import DatasetError
from m2fbench.registry import near
from m2fbench.suite import datasets
from m2fbench.unpacking import Unpacked, Wanted, crc_of, unpack

NOTES = ".m2fbench"  # folder in the target
MIRROR = "M2FBENCH_MIRROR"
CATALOGUE = Path(__file__).parent / "datasets" / "archives.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WantedFiles(_Strict):
    """``unpacking.Wanted``, as JSON."""

    pattern: str
    folder: str
    nested: list["WantedFiles"] = []

    @property
    def place(self) -> str:
        """The pattern of these files in the target."""
        return f"{self.folder}/{self.pattern.rsplit('/', 1)[-1]}".lstrip("/")

    def wanted(self) -> Wanted:
        return Wanted(self.pattern, self.folder, tuple(one.wanted() for one in self.nested))


class Archive(_Strict):
    """One published file. sha256: None where nobody has published it; source: who has. readers: the dataset readers that need it."""

    url: str
    bytes: int | None
    sha256: str | None
    source: str | None
    readers: list[str]
    unpacked_at_most: int
    wanted: list[WantedFiles]

    @property
    def name(self) -> str:
        return file_name(self.url)


class Source(_Strict):
    """A dataset as it is published. folder: what it is called below a folder of datasets."""

    title: str
    folder: str
    archives: list[Archive]


@dataclass(frozen=True)
class Step:
    """How far it has come. kind: "download" and "unpack" (done and total in bytes; total None where unknown), "note" (a message)."""

    kind: Literal["download", "unpack", "note"]
    archive: str
    done: int = 0
    total: int | None = None
    message: str = ""


Listener = Callable[[Step], None]


@functools.cache
def _catalogue(path: Path) -> dict[str, Source]:
    return TypeAdapter(dict[str, Source]).validate_json(path.read_bytes())


def sources() -> dict[str, Source]:
    """What can be fetched, by name."""
    return _catalogue(CATALOGUE)


def find_source(name: str) -> tuple[Source, list[Archive]]:
    """What a name stands for: a published dataset (all of it), or a dataset reader (the archives that it needs).

    Raises DatasetError, for a dataset behind a login with what to do.
    """
    if name in sources():
        return sources()[name], sources()[name].archives
    for source in sources().values():
        if needed := [archive for archive in source.archives if name in archive.readers]:
            return source, needed
    if name in datasets.names():
        needs = datasets.get(name).needs_data
        why = f"cannot be fetched without an account of yours: {needs}" if needs else "is built in: there is nothing to fetch"
        raise DatasetError(f"dataset {name} {why}")
    known = sorted({*sources(), *(reader for source in sources().values() for a in source.archives for reader in a.readers)})
    raise DatasetError(f"dataset: expected one of {', '.join(known)}, got '{name}'{near(name, known)}")


def folder_for(name: str, data: Path) -> Path:
    """Where a dataset goes for ``--data DATA``: DATA itself where it is that dataset's folder already, else a folder in it."""
    source, archives = find_source(name)
    there = (path for archive in archives for one in archive.wanted for path in data.glob(one.place))
    noted = any((data / NOTES / f"{archive.name}.json").exists() for archive in archives)
    here = data.absolute().name == source.folder or noted or next(there, None) is not None
    return data if here else data / source.folder


def fetch_dataset(name: str, target: Path, progress: Listener | None = None, *, keep_archives: bool = False) -> list[Path]:
    """All validation files of a dataset in ``target``; what is whole there already is left as it is. Raises DatasetError.

    Killed at any moment, the same call goes on. Archives lie in the cache folder until they are unpacked, and with ``keep_archives``
    after it; one that lies in ``target`` is used in place of a download, and stays.
    """
    _, archives = find_source(name)
    tell = progress or (lambda step: None)
    try:
        (target / NOTES).mkdir(parents=True, exist_ok=True)
        with locked(target / NOTES / "fetch"):
            return [path for archive in archives for path in _archive(archive, target, tell, keep_archives)]
    except OSError as error:
        raise DatasetError(
            f"{error.filename or target}: cannot be read or written: {reason_of(error)}; the same command goes on from there"
        ) from error


def _archive(archive: Archive, target: Path, tell: Listener, keep: bool) -> list[Path]:
    note = target / NOTES / f"{archive.name}.json"
    files = _unpacked_before(archive, note, target)
    if files is None:
        path, own = _arrived(archive, target, tell)
        warning = _warning(archive, path)
        if warning:
            tell(Step("note", archive.name, message=warning))
        files = unpack(
            path, target, [one.wanted() for one in archive.wanted], limit=archive.unpacked_at_most, aside=note.parent,
            progress=lambda done, total: tell(Step("unpack", archive.name, done, total)),
        )  # fmt: skip
        _write_note(note, archive, warning, files)
        if not (own or keep):
            path.unlink(missing_ok=True)
    else:
        tell(Step("note", archive.name, message=f"{archive.name}: its {len(files)} files are here already"))
    return [target / file.name for file in files]


def _arrived(archive: Archive, target: Path, tell: Listener) -> tuple[Path, bool]:
    """The archive's file, and whether it is the user's own: one that lies in the target, held to the checksum as well."""
    own = target / archive.name
    if own.is_file():
        with own.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest() if archive.sha256 else None
        if found != archive.sha256:
            raise DatasetError(
                f"{own}: has SHA256 {found}, expected {archive.sha256} ({archive.source}); delete it, and the same command downloads it"
            )
        return own, True
    url, hosts = _address(archive)
    promise = Promise("sha256", archive.sha256 or "", "expected", archive.bytes)
    terms = Terms(DatasetError, hosts, f"put it into {target}")
    return fetch(url, terms, promise=promise, progress=lambda done, total: tell(Step("download", archive.name, done, total))), False


def _address(archive: Archive) -> tuple[str, tuple[str, ...]]:
    """The address to ask, and the hosts that may be asked by plain http: the official one, and a mirror where a checksum is known."""
    official = urllib.parse.urlsplit(archive.url)
    mirror = os.environ.get(MIRROR)
    if not mirror:
        return archive.url, (official.hostname or "",)
    try:
        host = urllib.parse.urlsplit(mirror).hostname or ""
    except ValueError:
        raise DatasetError(
            f"{MIRROR}: expected the beginning of an address, as https://host/folder, got {redacted(mirror)}"
        ) from None
    return mirror.rstrip("/") + official.path, (host,) if archive.sha256 else ()


def _warning(archive: Archive, path: Path) -> str:
    if archive.sha256 is not None:
        return ""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{archive.name}: no published checksum; sha256 of what arrived: {found}"


def _unpacked_before(archive: Archive, note: Path, target: Path) -> list[Unpacked] | None:
    """The archive's files where an earlier call unpacked them all and they still have the content they had; None else."""
    try:
        content = json.loads(note.read_bytes())
        files = TypeAdapter(list[Unpacked]).validate_python(content["files"])
        same = (content["url"], content["sha256"], content["wanted"]) == _identity(archive)
    except (FileNotFoundError, ValueError, KeyError, TypeError, ValidationError):
        return None
    return files if same and all(_is_whole(target / file.name, file) for file in files) else None


def _is_whole(path: Path, file: Unpacked) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as content:
        return crc_of(content) == file.crc


def _identity(archive: Archive) -> tuple[str, str | None, list[dict[str, object]]]:
    return archive.url, archive.sha256, [one.model_dump() for one in archive.wanted]


def _write_note(note: Path, archive: Archive, warning: str, files: Sequence[Unpacked]) -> None:
    url, sha256, wanted = _identity(archive)
    content = {
        "schema_version": 1, "url": url, "sha256": sha256, "source": archive.source, "warning": warning or None, "wanted": wanted,
        "files": [asdict(file) for file in files],
    }  # fmt: skip
    part = note.with_name(f".{note.name}.part")
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(note)
