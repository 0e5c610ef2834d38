"""The index brought up to its files: what lies in the folder and is not in it is taken in, what is gone leaves it."""

import re
import time
from collections.abc import Callable, Iterable, Mapping

from m2fbench.history import documents, schema, tables
from m2fbench.history.files import Files, reason_of
from m2fbench.history.index import Index, Row, chunks
from m2fbench.history.reading import NoResultError, entry_from, sha256_of
from m2fbench.history.records import Entry, Problem
from m2fbench.results import SCHEMA_VERSION
from m2fbench.types import JsonObject

_RESULT = re.compile(r"results/([0-9a-f]{2})/(\1[0-9a-f]{62})\.json")
_TOLD = 10.0  # seconds after which it is said how far reading has come

Tell = Callable[[str], None]


def synchronise(index: Index, files: Files, tell: Tell, *, anew: bool = False) -> None:
    """anew: every file is read and held to its name again."""
    if anew:
        with index.writing() as connection:
            for table in schema.NAMES:
                connection.execute(f"DELETE FROM {table}")
    _results(index, files, tell)
    _origins(index, files)
    _comparisons(index, files)
    _accepted(index, files)
    _releases(index, files)


def result_path(sha256: str) -> str:
    return f"results/{sha256[:2]}/{sha256}.json"


def _results(index: Index, files: Files, tell: Tell) -> None:
    names = files.names("results")
    there = {found[2]: found[0] for found in map(_RESULT.fullmatch, names) if found is not None}
    with index.reading() as connection:
        known = {name for (name,) in connection.execute("SELECT sha256 FROM results")}
        troubles = {
            row[0]: row[1:] for row in connection.execute("SELECT file, kind, reader FROM problems WHERE file GLOB 'results/*'")
        }
    _drop_gone(index, files, known - there.keys(), troubles.keys() - set(names))
    strange = [name for name in names if _RESULT.fullmatch(name) is None and name not in troubles]
    if strange:
        message = "no file of a history, whose results are named by the SHA-256 of their content; move it away, and add it with m2fbench history add"
        with index.writing() as connection:
            connection.executemany(_PROBLEM, [(name, "damaged", message, SCHEMA_VERSION) for name in strange])
    missing = [there[name] for name in sorted(there.keys() - known) if not _settled(troubles.get(there[name]))]
    done, told = 0, time.monotonic()
    for chunk in chunks(missing):
        take_results(index, dict(files.read_many(chunk)))
        done += len(chunk)
        if time.monotonic() - told > _TOLD:
            told = time.monotonic()
            tell(f"{files.address}: {done} of {len(missing)} results read into the index")


def _settled(trouble: Row | None) -> bool:
    """Only a newer m2fbench can read what is of a newer schema; what is damaged may have been mended."""
    return trouble is not None and trouble[0] in ("newer", "older") and trouble[1] == SCHEMA_VERSION


def _drop_gone(index: Index, files: Files, results: Iterable[str], troubles: Iterable[str]) -> None:
    gone = [name for name in results if not files.exists(result_path(name))]  # one added since the listing is there
    solved = [name for name in troubles if not files.exists(name)]
    if gone or solved:
        with index.writing() as connection:
            tables.delete_results(connection, gone)
            connection.executemany("DELETE FROM problems WHERE file = ?", [(name,) for name in solved])


def take_results(index: Index, contents: Mapping[str, bytes | Exception]) -> dict[str, Problem]:
    """Of files of the history, by path, into the index; the problems among them."""
    entries: list[tuple[str, Entry]] = []
    problems: dict[str, Problem] = {}
    for path, content in contents.items():
        try:
            entries.append((path, _entry(path, content)))
        except NoResultError as error:
            problems[path] = Problem(path, error.kind, str(error))
    with index.writing() as connection:
        writer = tables.Writer(connection)
        for path, entry in entries:
            writer.add(entry)
            connection.execute("DELETE FROM problems WHERE file = ?", (path,))
        remember(connection.executemany, problems.values())
    return problems


_PROBLEM = "INSERT OR REPLACE INTO problems VALUES (?, ?, ?, ?)"


def remember(executemany: Callable[[str, list[Row]], object], problems: Iterable[Problem]) -> None:
    """Problems of the history's own files, whose location is the path in it."""
    executemany(_PROBLEM, [(p.location, p.kind, p.message, SCHEMA_VERSION) for p in problems])


def _entry(path: str, content: bytes | Exception) -> Entry:
    if isinstance(content, Exception):
        raise NoResultError("unreadable", f"cannot be read: {reason_of(content)}; check its permissions")
    sha256 = path[-69:-5]
    if sha256_of(content) != sha256:
        raise rotten()
    return entry_from(content, sha256)


def rotten() -> NoResultError:
    return NoResultError(
        "damaged",
        "its content is not what its name says, so the file has been damaged since it was added; restore it from a backup, or add the "
        "original once more with m2fbench history add",
    )


Take = Callable[[str, JsonObject], Iterable[tuple[str, Row]]]


def _documents(index: Index, files: Files, folder: str, table: str, take: Take, *, changing: bool = False) -> None:
    """New small files of a folder, and those that a person has deleted. table: that says which are in. take: the statements that take one in.
    changing: they may have changed since, so all are read."""
    names = set(files.names(folder))
    with index.reading() as connection:
        before = {name for (name,) in connection.execute(f"SELECT file FROM {table}")}
        troubles = {name for (name,) in connection.execute("SELECT file FROM problems WHERE file GLOB ?", (f"{folder}/*",))}
    gone = [(name,) for name in (troubles | before) - names if not files.exists(name)]
    if gone:
        with index.writing() as connection:
            connection.executemany("DELETE FROM problems WHERE file = ?", gone)
            connection.executemany(f"DELETE FROM {table} WHERE file = ?", gone)
    for chunk in chunks(sorted(names if changing else names - before)):
        statements: list[tuple[str, Row]] = []
        for path, content in files.read_many(chunk):
            try:
                if isinstance(content, Exception):
                    raise NoResultError("unreadable", f"cannot be read: {reason_of(content)}; check its permissions")
                fields = _fields(path, content)
                try:
                    statements += take(path, fields)
                except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
                    raise documents.damaged(error) from error
                statements.append(("DELETE FROM problems WHERE file = ?", (path,)))
            except NoResultError as error:
                statements.append((_PROBLEM, (path, error.kind, str(error), SCHEMA_VERSION)))
        with index.writing() as connection:
            for statement, row in statements:
                connection.execute(statement, row)


def _fields(path: str, content: bytes) -> JsonObject:
    """Named by their content, or by a name of a person's choice (releases)."""
    fields = documents.read(content)
    if not path.startswith("releases/") and path[-69:-5] != sha256_of(content):
        raise rotten()
    return fields


def _origins(index: Index, files: Files) -> None:
    _documents(index, files, "origins", "taken", origin_rows)


def origin_rows(path: str, fields: JsonObject) -> Iterable[tuple[str, Row]]:
    host, when = str(fields["host"]), str(fields["time"])
    for sha256, locations in fields["results"].items():
        for location in locations:
            yield "INSERT OR IGNORE INTO origins VALUES (?, ?, ?, ?, ?)", (sha256, str(location), host, when, path)
    yield "INSERT OR IGNORE INTO taken VALUES (?)", (path,)


def _comparisons(index: Index, files: Files) -> None:
    _documents(index, files, "comparisons", "comparisons", comparison_rows)


def comparison_rows(path: str, fields: JsonObject) -> Iterable[tuple[str, Row]]:
    record = documents.comparison_of(fields)
    text = documents.written(fields).decode()
    yield "INSERT OR IGNORE INTO comparisons VALUES (?, ?, ?, ?)", (path, record.a, record.b, text)


def _accepted(index: Index, files: Files) -> None:
    _documents(index, files, "accepted", "accepted", accepted_rows)


def accepted_rows(path: str, fields: JsonObject) -> Iterable[tuple[str, Row]]:
    row = tuple(str(fields[key]) for key in ("result", "figure", "reason", "host", "time"))
    yield "INSERT OR IGNORE INTO accepted VALUES (?, ?, ?, ?, ?, ?)", (path, *row)


def _releases(index: Index, files: Files) -> None:
    _documents(index, files, "releases", "releases", release_rows, changing=True)  # a person may have replaced one


def release_rows(path: str, fields: JsonObject) -> Iterable[tuple[str, Row]]:
    results = [str(name) for name in fields["results"]]
    text = documents.written({"name": str(fields["name"]), "results": results}).decode()
    yield "INSERT OR REPLACE INTO releases VALUES (?, ?)", (path, text)
