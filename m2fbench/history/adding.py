"""Adding: from files anywhere to copies in the history, then to its index, a batch at a time, so that a kill loses nothing that was copied."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from m2fbench.history import documents, tables
from m2fbench.history.documents import Seen, seen_of
from m2fbench.history.files import Files, LocalFiles, reason_of
from m2fbench.history.finding import Content, Source, find
from m2fbench.history.index import Index
from m2fbench.history.reading import NoResultError, entry_from, sha256_of
from m2fbench.history.records import Added, Entry, Problem
from m2fbench.history.syncing import origin_rows, remember, result_path

BATCH, BATCH_BYTES = 200, 1 << 26  # results at once, and about how much of them in memory
_WRITERS = 8  # files brought to the disk at once: a file system does several in the time of one

T = TypeVar("T")


class WithIndex(Protocol):
    """Does something with the index, once more with one made again where it turns out to be damaged."""

    def __call__(self, work: Callable[[Index], T]) -> T: ...


class Adding:
    """One call of ``History.add``."""

    def __init__(self, files: Files, with_index: WithIndex, host: str, time: str) -> None:
        self._files = files
        self._with_index = with_index
        self._host = host
        self._time = time
        self._new: dict[str, None] = {}
        self._known: dict[str, None] = {}
        self._problems: list[Problem] = []
        self._seen: dict[str, Seen] = {}

    def add(self, places: Sequence[str | Path], progress: Callable[[int, int], None] | None) -> Added:
        own = self._files.root if isinstance(self._files, LocalFiles) else None
        sources = [find(place, without=own) for place in places]
        self._seen = seen_problems(self._files)
        total, done = sum(len(source.locations) for source in sources), 0
        for source in sources:
            self._problems += source.problems
            for batch in _batches(zip(source.locations, source.read(), strict=True)):
                self._take(batch, "" if source.remote else self._host)
                done += len(batch)
                if progress is not None:
                    progress(done, total)
            self._forget_gone(source)
        known = tuple(name for name in self._known if name not in self._new)
        return Added(tuple(self._new), known, tuple(self._problems))

    def _take(self, batch: Sequence[tuple[str, Content]], host: str) -> None:
        """Files first, the index after."""
        good: dict[str, bytes] = {}  # by SHA-256
        places: dict[str, list[str]] = {}
        failed: dict[str, Problem] = {}
        for location, content in batch:
            if isinstance(content, Exception):
                failed[location] = Problem(
                    location, "unreadable", f"cannot be read: {reason_of(content)}; check it and add it again"
                )
                continue
            name = sha256_of(content)
            good[name] = content
            places.setdefault(name, []).append(location)
        known, troubled = self._with_index(lambda index: _state(index, good))
        results: dict[str, Entry] = {}
        kept: dict[str, Problem] = {}  # of a newer schema: it may be the only copy
        for name in good.keys() - known:
            try:
                results[name] = entry_from(good[name], name)
            except NoResultError as error:
                failed |= {location: Problem(location, error.kind, str(error)) for location in places[name]}
                if error.kind == "newer":
                    kept[name] = Problem(result_path(name), error.kind, str(error))
                else:
                    del places[name]
        self._copy({name: good[name] for name in (*results, *kept)}, troubled)
        self._copy({name: good[name] for name in known & troubled}, troubled)
        self._with_index(lambda index: _enter(index, results.values(), kept.values(), known & troubled))
        self._remember_origins(places, host)
        for _, content in batch:  # in the order of the files
            if isinstance(content, bytes) and (name := sha256_of(content)) in known | results.keys():
                (self._known if name in known else self._new)[name] = None
        self._problems += [failed[location] for location, _ in batch if location in failed]
        gone = {location for location, content in batch if isinstance(content, FileNotFoundError)}
        self._remember_seen([location for location, _ in batch], failed, gone, host)

    def _copy(self, contents: dict[str, bytes], troubled: set[str]) -> None:
        """troubled: those whose copy has been damaged since, which is put right."""

        def put(item: tuple[str, bytes]) -> None:
            name, content = item
            path = result_path(name)
            there = name in troubled or not self._files.put(path, content)
            if there and self._files.read_or_none(path) != content:
                self._files.replace(path, content)

        with ThreadPoolExecutor(_WRITERS) as pool:
            list(pool.map(put, contents.items()))

    def _remember_origins(self, places: dict[str, list[str]], host: str) -> None:
        pairs = {(name, location) for name, locations in places.items() for location in locations}
        before = self._with_index(lambda index: _origins_of(index, places, host))
        found: dict[str, list[str]] = {}
        for name, location in sorted(pairs - before):
            found.setdefault(name, []).append(location)
        if not found:
            return
        fields = {"host": host, "time": self._time, "results": found}
        content = documents.written(fields)
        path = documents.name_of("origins", content)
        self._files.put(path, content)

        def write(index: Index) -> None:
            with index.writing() as connection:
                for statement, row in origin_rows(path, fields):
                    connection.execute(statement, row)

        self._with_index(write)

    def _remember_seen(self, locations: Iterable[str], failed: dict[str, Problem], gone: set[str], host: str) -> None:
        """A problem stays until its location is read in good order; one of a newer schema is kept in the history itself, and one that is gone
        needs no mending."""
        for location in locations:
            problem = failed.get(location)
            file = Seen(problem or Problem(location, "damaged", ""), host).file
            lasting = problem is not None and problem.kind != "newer" and (host == "" or location not in gone)
            if lasting and problem is not None:
                seen = Seen(problem, host)
                if self._seen.get(file) != seen:
                    self._files.replace(file, seen.written(self._time))
                    self._seen[file] = seen
            elif file in self._seen:
                self._files.remove(file)
                del self._seen[file]

    def _forget_gone(self, source: Source) -> None:
        """Problems below a folder in which their files are no more."""
        host = "" if source.remote else self._host
        if not source.root or not source.whole:
            return
        for file, seen in list(self._seen.items()):
            below = seen.problem.location.startswith(f"{source.root.rstrip('/')}/")
            if seen.host == host and below and seen.problem.location not in source.locations:
                self._files.remove(file)
                del self._seen[file]


def _batches(pairs: Iterable[tuple[str, Content]]) -> Iterator[list[tuple[str, Content]]]:
    batch: list[tuple[str, Content]] = []
    size = 0
    for pair in pairs:
        batch.append(pair)
        size += len(pair[1]) if isinstance(pair[1], bytes) else 0
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def seen_problems(files: Files) -> dict[str, Seen]:
    """Problems at sources, by file."""
    found = {}
    for path, content in files.read_many(files.names("problems")):
        try:
            if isinstance(content, Exception):
                raise NoResultError("unreadable", f"cannot be read: {reason_of(content)}; check its permissions")
            try:
                found[path] = seen_of(documents.read(content))
            except (KeyError, TypeError, ValueError) as error:
                raise documents.damaged(error) from error
        except NoResultError as error:
            found[path] = Seen(Problem(f"{files.address}/{path}", error.kind, str(error)), "")
    return found


def _state(index: Index, names: Iterable[str]) -> tuple[set[str], set[str]]:
    """Those of the results that are in, and those whose copies are in trouble."""
    with index.reading() as connection:
        known = tables.known_of(connection, names)
        rows = connection.execute("SELECT file FROM problems WHERE file GLOB 'results/*' AND kind != 'newer'").fetchall()
    return known, {file[-69:-5] for (file,) in rows}


def _enter(index: Index, entries: Iterable[Entry], kept: Iterable[Problem], mended: Iterable[str]) -> None:
    with index.writing() as connection:
        writer = tables.Writer(connection)
        for entry in entries:
            writer.add(entry)
            connection.execute("DELETE FROM problems WHERE file = ?", (result_path(entry.sha256),))
        connection.executemany("DELETE FROM problems WHERE file = ?", [(result_path(name),) for name in mended])
        remember(connection.executemany, kept)


def _origins_of(index: Index, names: Iterable[str], host: str) -> set[tuple[str, str]]:
    with index.reading() as connection:
        return set(tables.origins_from(connection, names, host))
