"""A history: a folder, or any address that fsspec opens, of result files that are the truth, and a SQLite index that can be made again.

    HISTORY/
        results/AB/SHA256.json     every result file, byte for byte, under the SHA-256 of its content; those of a newer schema too
        origins/AB/SHA256.json     where results were found, by which machine, and when they were added
        comparisons/AB/SHA256.json paired comparisons (``PairedRecord``)
        accepted/AB/SHA256.json    regressions that a person has accepted, with the reason
        releases/NAME.json         the results of a named release
        problems/SHA256.json       files at a source that are no result, until they are
        index.sqlite               made from the above; in the cache for addresses that are no local folder, and folders one may only read, or
                                   below M2FBENCH_INDEX; with index.sqlite.lock, by which processes know that others have it open

Every file is written aside and renamed, and none but problems, and releases on demand, is ever changed: several machines that add to one folder
make the union of their files. A release or an acceptance that is taken back is deleted. Results first, then the index: killed between, the next
opening takes them in.
"""

import datetime
import hashlib
import os
import re
import socket
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from m2fbench.analysis.series import Series
from m2fbench.download import cache_folder
from m2fbench.errors import HistoryError, shown
from m2fbench.history import documents, tables
from m2fbench.history.adding import Adding, seen_problems
from m2fbench.history.files import Files, LocalFiles, folder_at, local_path, public
from m2fbench.history.finding import is_gone
from m2fbench.history.index import ELSEWHERE, DamagedIndexError, Index, Row, begin_again, in_memory, open_index
from m2fbench.history.reading import NoResultError, result_of, sha256_of
from m2fbench.history.records import Acceptance, Added, Entry, PairedRecord, Problem, Selection
from m2fbench.history.remote_files import RemoteFiles
from m2fbench.history.syncing import accepted_rows, comparison_rows, release_rows, remember, result_path, rotten, synchronise
from m2fbench.results import RunResult

Tell = Callable[[str], None]
T = TypeVar("T")
_ALL = Selection()
_TRIES = 3


def silent(what: str) -> None:
    """A ``Tell`` that says nothing."""


class History:
    """One open history; a context manager, for one thread. Opening makes its index if there is none, brings it to the present schema, makes it
    again where it is damaged, and takes in whatever lies in the folder and is not in it yet."""

    def __init__(self, address: str | Path, *, index: Path | None = None, tell: Tell = silent, create: bool = False) -> None:
        """index: the SQLite file, in place of the default one. create: make the folder if it is not there. Raises HistoryError."""
        self._tell = tell
        self._files = _files(address, create)
        self._index_path = index or _index_path(self._files)
        self._host = socket.gethostname()
        self._index = self._synchronised(self._opened())

    def _opened(self) -> Index:
        """For who may write neither to the history nor to the cache, one in memory."""
        try:
            folder_at(self._index_path.parent)
        except HistoryError as error:
            self._tell(f"no place for an index ({error}): it is made in memory, each time anew; {ELSEWHERE}")
            return in_memory()
        return open_index(self._index_path, self._tell)

    def _synchronised(self, index: Index) -> Index:
        for _ in range(_TRIES):
            try:
                synchronise(index, self._files, self._tell)
            except DamagedIndexError as error:
                index = begin_again(index, str(error), self._tell)
            except BaseException:
                index.close()
                raise
            else:
                return index
        index.close()
        raise HistoryError(f"{self._index_path}: the index is damaged each time it is made; check the disk that it lies on")

    def _with_index(self, work: Callable[[Index], T]) -> T:
        """Once more with an index made again where this one turns out to be damaged."""
        try:
            return work(self._index)
        except DamagedIndexError as error:
            self._index = self._synchronised(begin_again(self._index, str(error), self._tell))
            return work(self._index)

    def close(self) -> None:
        self._index.close()

    def __enter__(self) -> "History":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def address(self) -> str:
        return public(self._files.address)

    def rebuild(self) -> None:
        """Make the index again from all files, each of which is held to its name. Problems that this machine has seen at places where there is no
        file any more are dropped."""
        self._with_index(lambda index: synchronise(index, self._files, self._tell, anew=True))
        for file, seen in seen_problems(self._files).items():
            if seen.host == self._host and is_gone(seen.problem.location):
                self._files.remove(file)

    def add(self, places: Sequence[str | Path], *, progress: Callable[[int, int], None] | None = None) -> Added:
        """Take in every result file at or below these paths and addresses. A file that cannot be read is a problem and stops nothing.

        progress: called with (files done, files in all). The same bytes again are known, not new. Raises HistoryError where a place is not
        there, or the history cannot be written; what was added before is kept."""
        return self._adding().add(places, progress)

    def _adding(self) -> Adding:
        return Adding(self._files, self._with_index, self._host, _now())

    def entries(self, selection: Selection = _ALL) -> list[Entry]:
        """By time, then cell. With figures selected, the results that have one of them."""
        return self._read(lambda connection: tables.entries(connection, selection))

    def entry(self, beginning: str) -> Entry:
        """The result whose SHA-256 begins so. Raises HistoryError where none or several do."""
        wanted = beginning.strip().lower()
        if not re.fullmatch(r"[0-9a-f]{1,64}", wanted):
            raise HistoryError(
                f"{shown(beginning)!r}: expected the beginning of a result's SHA-256, as m2fbench history list shows it"
            )
        found = self.entries(Selection(result=wanted))
        if len(found) > 1:
            listed = ", ".join(e.sha256[: len(wanted) + 6] for e in found[:4])
            more = ", ..." if len(found) > 4 else ""
            raise HistoryError(f"{wanted}: {len(found)} results begin so ({listed}{more}); give more of it")
        if not found:
            held = [p for p in self.problems() if Path(p.location).name.startswith(wanted)]
            why = f"; it is there, but {held[0].message}" if held else "; see m2fbench history list"
            raise HistoryError(f"{wanted}: no result of {self.address} begins so{why}")
        return found[0]

    def result(self, sha256: str) -> RunResult:
        """The whole result, read from its file, whose path is that of an origin which still exists and is the same, None where none is."""
        entry = self.entry(sha256)
        path = result_path(entry.sha256)
        content = self._files.read(path)
        try:
            if sha256_of(content) != entry.sha256:
                raise rotten()
            result = result_of(content)
        except NoResultError as error:
            damaged = Problem(path, error.kind, str(error))  # remembered, so that adding the original puts it right
            self._write(lambda connection: remember(connection.executemany, [damaged]))
            raise HistoryError(f"{self.address}/{path}: {error}") from error
        return replace(result, path=next((Path(each) for each in entry.origins if _holds(each, content)), None))

    def series(self, selection: Selection = _ALL) -> list[Series]:
        """Every figure night after night, paired comparisons and acceptances in its points; by key. A night that should have been measured and
        could not be (unsupported, unavailable) has no value."""
        return self._read(lambda connection: tables.series(connection, selection))

    def vocabulary(self) -> dict[str, list[str]]:
        """The names that there are, by ``Selection``'s fields: suites, rows, variants, machines and figures."""
        return self._read(tables.vocabulary)

    def problems(self) -> list[Problem]:
        """Files of the history that cannot be read, and files at sources that could not be when they were last looked at; by location."""
        own = [Problem(f"{self.address}/{row[0]}", *row[1:]) for row in self._rows("SELECT file, kind, message FROM problems")]
        return sorted([*own, *(each.problem for each in seen_problems(self._files).values())], key=lambda p: p.location)

    def add_comparison(self, record: PairedRecord) -> None:
        """Of several of the same two results the one with a repeated run counts, then the one of more resamples."""
        content = documents.comparison_text(record)
        self._keep(documents.name_of("comparisons", content), content, comparison_rows)

    def comparison(self, a: str, b: str) -> PairedRecord | None:
        """a: the baseline's SHA-256, b: the run's."""
        return self._read(lambda connection: tables.comparison(connection, a, b))

    def release(self, name: str, results: Iterable[str], *, replace: bool = False) -> None:
        """Name results (by beginnings of their SHA-256) as those of a release. Raises HistoryError where the name is taken."""
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise HistoryError(f"release {shown(name)!r}: expected a name of letters, digits, '.', '_' and '-', as v1.2")
        chosen = sorted({self.entry(each).sha256 for each in results})
        if not chosen:
            raise HistoryError(f"release {name}: expected results to name; give run directories, or beginnings of their SHA-256")
        fields = {"name": name, "results": chosen, "host": self._host, "time": _now()}
        path, content = f"releases/{name}.json", documents.written(fields)
        if replace:
            self._files.replace(path, content)
        elif not self._files.put(path, content):
            raise HistoryError(f"release {name}: there is one of that name; choose another, or say --replace")
        self._take(path, content, release_rows)

    def delete_release(self, name: str) -> None:
        """The name; its results stay. Raises HistoryError where there is none of that name."""
        if name not in (known := self.releases()):
            raise HistoryError(f"release {shown(name)}: there is none of that name; expected one of {', '.join(known) or 'none'}")
        self._remove("releases", f"releases/{name}.json")

    def releases(self) -> dict[str, tuple[str, ...]]:
        """Name -> SHA-256 of its results."""
        return self._read(lambda connection: tables.releases(connection))

    def accept(self, result: str, figure: str, reason: str) -> None:
        """A person accepts that ``figure`` changed with this result: its step is no alarm any more, and its level the one to compare with."""
        entry = self.entry(result)
        if entry.figure(figure) is None:
            has = ", ".join(f.name for f in entry.figures[:8]) or "none"
            raise HistoryError(f"{entry.sha256[:10]}: it has no figure {shown(figure)!r}; expected one of {has}")
        if not reason.strip():
            raise HistoryError("expected a reason for which the change is accepted")
        fields = {"result": entry.sha256, "figure": figure, "reason": reason.strip(), "host": self._host, "time": _now()}
        content = documents.written(fields)
        self._keep(documents.name_of("accepted", content), content, accepted_rows)

    def acceptances(self) -> list[Acceptance]:
        """By time."""
        return [Acceptance(*row) for row in self._rows("SELECT * FROM accepted ORDER BY time, file")]

    def withdraw(self, acceptance: Acceptance) -> None:
        """Take it back: what was accepted is an alarm again."""
        self._remove("accepted", acceptance.file)

    def _remove(self, table: str, file: str) -> None:
        self._files.remove(file)
        self._write(lambda connection: connection.execute(f"DELETE FROM {table} WHERE file = ?", (file,)))

    def _keep(self, path: str, content: bytes, rows: Callable[..., Iterable[tuple[str, Row]]]) -> None:
        self._files.put(path, content)
        self._take(path, content, rows)

    def _take(self, path: str, content: bytes, rows: Callable[..., Iterable[tuple[str, Row]]]) -> None:
        """A small file that was written, into the index."""
        statements = list(rows(path, documents.read(content)))
        self._write(lambda connection: [connection.execute(statement, row) for statement, row in statements])

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def read(index: Index) -> T:
            with index.reading() as connection:
                return work(connection)

        return self._with_index(read)

    def _rows(self, query: str) -> list[Row]:
        return self._read(lambda connection: connection.execute(query).fetchall())

    def _write(self, work: Callable[[sqlite3.Connection], object]) -> None:
        def write(index: Index) -> None:
            with index.writing() as connection:
                work(connection)

        self._with_index(write)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _files(address: str | Path, create: bool) -> Files:
    """Raises HistoryError where there is no history and none is to be made."""
    root = local_path(address)
    if root is None:
        files = RemoteFiles(str(address).rstrip("/"))
        if not create and not files.names("results"):
            raise HistoryError(f"{public(str(address))}: no history there; {_BEGIN}")
        return files
    root = root.absolute()
    if not (root / "results").is_dir():
        if not create:
            what = "no history" if root.is_dir() else "no such folder"
            raise HistoryError(f"{root}: {what}, expected a folder with results/ in it; {_BEGIN}")
        folder_at(root / "results")
    return LocalFiles(root)


_BEGIN = "m2fbench history add RESULTS --history HISTORY begins one"


def _index_path(files: Files) -> Path:
    """In the history, or, of one that is no folder, may only be read, or has an index that only another user may write, in the cache; below
    M2FBENCH_INDEX where that is set."""
    elsewhere = os.environ.get("M2FBENCH_INDEX", "")
    if isinstance(files, LocalFiles) and not elsewhere:
        index = files.root / "index.sqlite"
        needed = (files.root, index, index.with_name(f"{index.name}.lock"))
        if all(os.access(path, os.W_OK) for path in needed if path.exists()):
            return index
    base = Path(elsewhere).absolute() if elsewhere else cache_folder() / "history"
    return base / hashlib.sha256(os.fsencode(files.address)).hexdigest()[:16] / "index.sqlite"


def _holds(location: str, content: bytes) -> bool:
    """Whether a local file is there and the same still."""
    path = Path(location)
    try:
        return path.is_absolute() and path.stat().st_size == len(content) and path.read_bytes() == content
    except (OSError, ValueError):
        return False
