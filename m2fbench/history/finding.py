"""Result files below paths and addresses: single files, run directories, folders of them, and whole histories.

Below a folder, a result is a file named ``result*.json``, ``speed*.json`` (``result-limit-20.json``) or ``flops.json``, as runs write them, or
``results/AB/SHA256.json``, as histories keep them. A file that is named itself may have any name.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2fbench.errors import HistoryError
from m2fbench.history.files import local_path, public, reason_of
from m2fbench.history.reading import LARGEST
from m2fbench.history.records import Problem
from m2fbench.history.remote_files import contents, opened, speaking_of

_RESULT = re.compile(
    r"(?:.*/)?(?:(?:result|speed)(?:[-_.][^/]*)?\.json|flops\.json|results/[0-9a-f]{2}/[0-9a-f]{64}\.json)", re.DOTALL
)
_EXPECTED = "expected result.json, speed.json or flops.json files in it, as m2fbench run writes them"

Content = bytes | Exception


@dataclass(frozen=True)
class Source:
    """What was found at one place. locations: of the result files, as they are recorded: absolute paths, or addresses without what is secret in
    them. read: the files' bytes, in that order. problems: of the search. root: the folder that was searched, "" where a file was named. whole:
    all of it could be. remote: an address, the same seen from any machine."""

    locations: tuple[str, ...]
    read: Callable[[], Iterator[Content]]
    problems: tuple[Problem, ...] = ()
    root: str = ""
    whole: bool = True
    remote: bool = False


def find(place: str | Path, *, without: Path | None = None) -> Source:
    """The result files at a place. without: a folder that is not searched, but where it is the place itself. Raises HistoryError where nothing
    is there, or it cannot be opened."""
    path = local_path(place)
    return _found_at(str(place)) if path is None else _found_in(path, without)


def _found_in(path: Path, without: Path | None) -> Source:
    path = path.absolute()
    if path.is_file():
        return Source((_recorded(path),), lambda: _contents([str(path)]))
    if not path.is_dir():
        raise _nothing_at(path)
    files: list[str] = []
    problems: list[Problem] = []
    seen = set() if without is None or not without.is_dir() or path.samefile(without) else {_identity(str(without))}
    _walk(str(path), seen, files, problems)
    whole = not problems
    if not files and whole:
        problems.append(Problem(_recorded(path), "unreadable", f"no result file below it; {_EXPECTED}"))
    return Source(tuple(map(_recorded, files)), lambda: _contents(files), tuple(problems), _recorded(path), whole)


def _recorded(path: str | Path) -> str:
    """Bytes of a name that are no UTF-8, which no JSON holds, as ``\\xNN``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def is_gone(location: str) -> bool:
    """Whether nothing is there any more at a path of this machine, as it was recorded; False where that cannot be told."""
    as_bytes = re.sub(rb"\\x([0-9a-f]{2})", lambda escape: bytes.fromhex(escape[1].decode()), location.encode())
    try:
        return Path(location).is_absolute() and not any(Path(os.fsdecode(name)).exists() for name in (location, as_bytes))
    except (OSError, ValueError):
        return False


def check_places(places: Iterable[str | Path]) -> None:
    """Raises HistoryError where a local one is not there."""
    for place in places:
        if (path := local_path(place)) is not None and not path.exists():
            raise _nothing_at(path.absolute())


def _nothing_at(path: Path) -> HistoryError:
    return HistoryError(f"{path}: no such file or folder; expected a result file, a run directory or a folder of them")


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)  # noqa: PTH116  texts are quicker, of which there can be a hundred thousand
    return status.st_dev, status.st_ino


def _walk(folder: str, seen: set[tuple[int, int]], files: list[str], problems: list[Problem]) -> None:
    """Links to folders are followed, each folder once. seen: those that were searched, or are not to be."""
    try:
        identity = _identity(folder)
        if identity in seen:
            return
        seen.add(identity)
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problems.append(
            Problem(_recorded(folder), "unreadable", f"the folder cannot be listed: {reason_of(error)}; check its permissions")
        )
        return
    for entry in listed:
        if entry.is_dir():
            _walk(entry.path, seen, files, problems)
        elif _RESULT.fullmatch(entry.path) and entry.is_file():
            files.append(entry.path)


def _contents(paths: Sequence[str]) -> Iterator[Content]:
    for name in paths:
        path = Path(name)
        try:
            yield path.read_bytes() if path.stat().st_size <= LARGEST else ValueError("too large to be a result")
        except OSError as error:
            yield error


def _found_at(address: str) -> Source:
    fs, path = opened(address)
    with speaking_of(public(address), "listed"):
        fs.invalidate_cache()
        if _is_file(fs, path):
            return Source((public(address),), lambda: contents(fs, [path]), remote=True)
        try:
            paths = sorted(str(each) for each in fs.find(path))
        except FileNotFoundError:
            paths = []
    start = path.rstrip("/") + "/"
    found = [each for each in paths if each.startswith(start) and _RESULT.fullmatch(each)]
    problems = () if found else (Problem(public(address), "unreadable", f"no result file below it; {_EXPECTED}"),)
    locations = tuple(public(_below(address, each[len(start) :])) for each in found)
    return Source(locations, lambda: contents(fs, found), problems, public(address), whole=bool(found), remote=True)


def _is_file(fs: Any, path: str) -> bool:
    """A web server answers for a folder as for a file; a name tells them apart."""
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if protocols & {"http", "https"}:
        return path.split("?")[0].endswith(".json")
    return bool(fs.isfile(path))


def _below(address: str, relative: str) -> str:
    """Chained addresses (``zip://runs::s3://bucket/night.zip``) have the path in their first part."""
    first, chain, rest = address.partition("::")
    return f"{first.rstrip('/') if not first.endswith('://') else first}/{relative}".replace(":///", "://") + chain + rest
