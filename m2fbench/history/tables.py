"""What is written to the index's tables and read from them: rows on one side, records on the other."""

import json
import math
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from m2fbench.analysis.series import Paired, Point, Series, SeriesKey
from m2fbench.history.documents import comparison_of, comparison_weight, read
from m2fbench.history.entries import conditions_hash, depends_on_machine
from m2fbench.history.index import DamagedIndexError, Row, chunks, marks
from m2fbench.history.reading import NoResultError
from m2fbench.history.records import Entry, Figure, PairedRecord, Selection
from m2fbench.types import JsonObject

T = TypeVar("T")

_FEW = 100  # results of which the comparisons are looked for by name; of more, all are read
_RESULT = "sha256, kind, status, reason, suite, row, variant, images, time, machine, disturbed, warnings, circumstances, conditions"


class Writer:
    """Writes entries inside one transaction; what they share is looked up once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._texts: dict[str, int] = {}
        self._names: dict[tuple[str, str, bool], int] = {}

    def add(self, entry: Entry) -> None:
        """Nothing where it is in."""
        texts = [self._text(entry.circumstances), self._text(entry.conditions)]
        row = (
            entry.sha256, entry.kind, entry.status, entry.reason, entry.suite, entry.row, entry.variant, entry.limit, entry.time, entry.machine,
            entry.disturbed, json.dumps(entry.warnings), *texts,
        )  # fmt: skip
        done = self._connection.execute(f"INSERT OR IGNORE INTO results ({_RESULT}) VALUES {marks(row)}", row)
        if done.rowcount == 0:
            return
        figures = [
            (done.lastrowid, place, self._name(f), _null(f.value), _null(f.low), _null(f.high))
            for place, f in enumerate(entry.figures)
        ]
        self._connection.executemany("INSERT INTO figures VALUES (?, ?, ?, ?, ?, ?)", figures)

    def _text(self, fields: Mapping[str, object]) -> int:
        key = conditions_hash(fields)
        if key not in self._texts:
            text = json.dumps(dict(fields), sort_keys=True)
            self._connection.execute("INSERT OR IGNORE INTO texts (hash, json) VALUES (?, ?)", (key, text))
            ((self._texts[key],),) = self._connection.execute("SELECT id FROM texts WHERE hash = ?", (key,))
        return self._texts[key]

    def _name(self, figure: Figure) -> int:
        key = (figure.name, figure.unit, figure.higher_is_better)
        if key not in self._names:
            self._connection.execute("INSERT OR IGNORE INTO names (name, unit, higher) VALUES (?, ?, ?)", key)
            found = self._connection.execute("SELECT id FROM names WHERE name = ? AND unit = ? AND higher = ?", key)
            ((self._names[key],),) = found
        return self._names[key]


def delete_results(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    for chunk in chunks(names):
        connection.execute(f"DELETE FROM figures WHERE result IN (SELECT id FROM results WHERE sha256 IN {marks(chunk)})", chunk)
        connection.execute(f"DELETE FROM results WHERE sha256 IN {marks(chunk)}", chunk)


def known_of(connection: sqlite3.Connection, names: Iterable[str]) -> set[str]:
    """Those that are in."""
    return {
        name
        for chunk in chunks(names)
        for (name,) in connection.execute(f"SELECT sha256 FROM results WHERE sha256 IN {marks(chunk)}", chunk)
    }


def _null(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def where(selection: Selection) -> tuple[str, list[object]]:
    """The condition on ``results r``, and its values; figures aside."""
    parts, values = ["1"], list[object]()
    chosen = {
        "suite": selection.suites, "row": selection.rows, "variant": selection.variants, "kind": selection.kinds, "machine": selection.machines,
        "images": selection.limits,
    }  # fmt: skip
    for column, wanted in chosen.items():
        if wanted:
            parts.append(f"r.{column} IN {marks(wanted)}")
            values += wanted
    if selection.since:
        parts.append("r.time >= ?")
        values.append(selection.since)
    if selection.until:  # the beginning of a time means all times that begin so
        parts.append("substr(r.time, 1, ?) <= ?")
        values += (len(selection.until), selection.until)
    if selection.result:
        parts.append("r.sha256 >= ? AND r.sha256 < ?")
        values += (selection.result.lower(), selection.result.lower() + "g")  # beyond the last hexadecimal digit
    return " AND ".join(parts), values


def entries(connection: sqlite3.Connection, selection: Selection) -> list[Entry]:
    """By time, then cell. With figures selected, the results that have one of them. Intervals that a result does not give itself are those of
    its comparisons."""
    condition, values = where(selection)
    if selection.figures:
        condition += (
            " AND r.id IN (SELECT f.result FROM figures f JOIN names n ON n.id = f.name WHERE n.name IN "
            f"{marks(selection.figures)})"
        )
        values += selection.figures
    columns = ", ".join(f"r.{name}" for name in _RESULT.split(", "))
    rows = connection.execute(
        f"SELECT r.id, {columns} FROM results r WHERE {condition} ORDER BY r.time, r.suite, r.row, r.variant, r.kind, r.sha256",
        values,
    ).fetchall()
    figures = _figures(connection, [row[0] for row in rows])
    alone = _alone(_records(connection, {row[1] for row in rows}))
    origins = _origins(connection, [row[1] for row in rows])
    texts = _texts(connection, {row[k] for row in rows for k in (-2, -1)})
    return [_entry(row, _with_intervals(row[1], figures[row[0]], alone), origins.get(row[1], ()), texts) for row in rows]


def _with_intervals(result: str, figures: Sequence[Figure], alone: Mapping[tuple[str, str], tuple[float, float]]) -> list[Figure]:
    return [
        replace(figure, low=ends[0], high=ends[1])
        if math.isnan(figure.low) and (ends := alone.get((result, figure.name))) is not None
        else figure
        for figure in figures
    ]


def _entry(row: Row, figures: Sequence[Figure], origins: Sequence[str], texts: Mapping[int, JsonObject]) -> Entry:
    _, sha256, kind, status, reason, suite, name, variant, images, time, machine, disturbed, warnings, circumstances, conditions = (
        row
    )
    return Entry(
        sha256, kind, status, reason, suite, name, variant, images, time, machine,
        circumstances=_known(texts, circumstances), conditions=_known(texts, conditions), disturbed=bool(disturbed),
        warnings=tuple(_json(warnings)), figures=tuple(figures), origins=tuple(origins),
    )  # fmt: skip


def _known(texts: Mapping[int, JsonObject], key: int) -> JsonObject:
    if key not in texts:
        raise DamagedIndexError("a result's conditions are missing")
    return texts[key]


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DamagedIndexError(f"a text in it is no JSON ({error})") from error


def _texts(connection: sqlite3.Connection, keys: set[int]) -> dict[int, JsonObject]:
    return {
        key: _json(text)
        for chunk in chunks(sorted(keys))
        for key, text in connection.execute(f"SELECT id, json FROM texts WHERE id IN {marks(chunk)}", chunk)
    }


def _figures(connection: sqlite3.Connection, keys: Sequence[int]) -> dict[int, list[Figure]]:
    found: dict[int, list[Figure]] = defaultdict(list)
    names = {key: (name, unit, bool(higher)) for key, name, unit, higher in connection.execute("SELECT * FROM names")}
    for chunk in chunks(keys):
        rows = connection.execute(
            f"SELECT result, name, value, low, high FROM figures WHERE result IN {marks(chunk)} ORDER BY result, place", chunk
        )
        for result, key, value, low, high in rows:
            name, unit, higher = names[key]
            found[result].append(Figure(name, _nan(value), unit, higher, _nan(low), _nan(high)))
    return found


def _origins(connection: sqlite3.Connection, names: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for chunk in chunks(names):
        rows = connection.execute(
            f"SELECT sha256, location FROM origins WHERE sha256 IN {marks(chunk)} ORDER BY time, location", chunk
        )
        for name, location in rows:
            found[name][location] = None
    return {name: list(locations) for name, locations in found.items()}


def origins_from(connection: sqlite3.Connection, names: Iterable[str], host: str) -> Iterator[tuple[str, str]]:
    """(result, location), as one machine found them."""
    for chunk in chunks(names):
        query = f"SELECT sha256, location FROM origins WHERE sha256 IN {marks(chunk)} AND host = ?"
        yield from connection.execute(query, [*chunk, host])


_POINTS = """
SELECT r.suite, r.row, r.variant, r.kind, r.images, r.machine, r.sha256, r.time, r.disturbed, t.hash, n.name, n.unit, n.higher, f.value, f.low,
    f.high
FROM results r JOIN figures f ON f.result = r.id JOIN names n ON n.id = f.name JOIN texts t ON t.id = r.conditions
WHERE {} ORDER BY r.time, r.sha256
"""


def series(connection: sqlite3.Connection, selection: Selection) -> list[Series]:
    """By key. A result that should have been measured and could not be (unsupported, unavailable) is a point without a value in every series of
    its cell; one that only predicted is none."""
    condition, values = where(selection)
    selected = condition
    if selection.figures:
        selected += f" AND n.name IN {marks(selection.figures)}"
    rows = connection.execute(_POINTS.format(selected), [*values, *selection.figures]).fetchall()
    records = _records(connection, {row[6] for row in rows})
    paired, alone = _compared(records), _alone(records)
    accepted = set(connection.execute("SELECT result, figure FROM accepted"))
    points: dict[SeriesKey, list[Point]] = defaultdict(list)
    kinds: dict[SeriesKey, tuple[str, bool]] = {}
    keys: dict[Row, SeriesKey] = {}
    for row in rows:
        suite, name, variant, kind, images, machine, sha256, time, disturbed, conditions, figure, unit, higher, value, low, high = (
            row
        )
        place = (suite, name, variant, kind, figure, images, machine if depends_on_machine(kind, figure, unit) else "")
        key = keys.setdefault(place, SeriesKey(*place))
        kinds[key] = (unit, bool(higher))
        of_figure = paired.get(sha256, {}).get(figure, {})
        low, high = (low, high) if low is not None else alone.get((sha256, figure), (None, None))
        points[key].append(
            Point(sha256, time, _nan(value), _nan(low), _nan(high), conditions, machine, bool(disturbed), of_figure, (sha256, figure) in accepted)
        )  # fmt: skip
    cells: dict[Row, list[SeriesKey]] = defaultdict(list)
    for key in points:
        cells[key.suite, key.row, key.variant, key.kind, key.limit].append(key)
    for place, point in _unmeasured(connection, condition, values):
        for key in cells.get(place, ()):
            if key.machine in ("", point.machine):
                points[key].append(point)
    return [Series(key, *kinds[key], tuple(sorted(points[key], key=lambda p: (p.time, p.result)))) for key in sorted(points)]


def _unmeasured(connection: sqlite3.Connection, condition: str, values: Sequence[object]) -> Iterator[tuple[Row, Point]]:
    rows = connection.execute(
        "SELECT r.suite, r.row, r.variant, r.kind, r.images, r.sha256, r.time, r.machine, t.hash FROM results r JOIN texts t ON t.id = r.conditions "
        f"WHERE {condition} AND r.status IN ('unavailable', 'unsupported') AND r.time > '' AND r.id NOT IN (SELECT result FROM figures)",
        values,
    )
    for *place, sha256, time, machine, conditions in rows.fetchall():
        yield tuple(place), Point(sha256, time, math.nan, conditions=conditions, machine=machine)


def _compared(records: Iterable[PairedRecord]) -> dict[str, dict[str, dict[str, Paired]]]:
    """Result -> figure -> baseline -> what was found."""
    found: dict[str, dict[str, dict[str, Paired]]] = defaultdict(lambda: defaultdict(dict))
    for record in records:
        for f in record.figures:
            found[record.b][f.name][record.a] = Paired(
                record.a, record.images, f.difference, f.p_value, record.identical, record.repeated
            )
    return {result: dict(figures) for result, figures in found.items()}


def _alone(records: Iterable[PairedRecord]) -> dict[tuple[str, str], tuple[float, float]]:
    """(result, figure) -> the interval of the result alone, which its comparisons give too."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for record in records:
        for f in record.figures:
            for result, ends in ((record.a, f.a), (record.b, f.b)):
                if ends.has_interval:
                    found.setdefault((result, f.name), (ends.low, ends.high))
    return found


def _records(connection: sqlite3.Connection, results: set[str]) -> list[PairedRecord]:
    """The comparisons in which one of the results is, one for each two."""
    columns = "SELECT file, a, b, json FROM comparisons"
    if len(results) > _FEW:
        return _best(row for row in connection.execute(columns) if row[1] in results or row[2] in results)
    names = sorted(results)
    return _best(connection.execute(f"{columns} WHERE b IN {marks(names)} OR a IN {marks(names)}", [*names, *names]).fetchall())


def _best(rows: Iterable[Row]) -> list[PairedRecord]:
    """One for each two results."""
    found: dict[tuple[str, str], tuple[tuple[bool, int, int, str], PairedRecord]] = {}
    for file, a, b, text in rows:
        record = _kept(text, comparison_of)
        ranked = (comparison_weight(record, file), record)
        if (a, b) not in found or ranked[0] > found[a, b][0]:
            found[a, b] = ranked
    return [record for _, record in found.values()]


def _kept(text: str, record_of: Callable[[JsonObject], T]) -> T:
    """A small file's text, which was sound when it was taken in."""
    try:
        return record_of(read(text.encode()))
    except (NoResultError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedIndexError(f"a text in it is no longer what it was ({error})") from error


def vocabulary(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """The names that there are, by ``Selection``'s fields: suites, rows, variants, machines and figures."""
    columns = {"suites": "suite", "rows": "row", "variants": "variant", "machines": "machine"}
    queries = {field: f"SELECT DISTINCT {column} FROM results ORDER BY 1" for field, column in columns.items()}
    queries["figures"] = "SELECT DISTINCT name FROM names WHERE id IN (SELECT name FROM figures) ORDER BY 1"
    return {field: [name for (name,) in connection.execute(query)] for field, query in queries.items()}


def releases(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Name -> SHA-256 of its results."""
    rows = connection.execute("SELECT json FROM releases ORDER BY file").fetchall()
    return dict(_kept(text, lambda fields: (str(fields["name"]), tuple(fields["results"]))) for (text,) in rows)


def comparison(connection: sqlite3.Connection, a: str, b: str) -> PairedRecord | None:
    best = _best(connection.execute("SELECT file, a, b, json FROM comparisons WHERE a = ? AND b = ?", (a, b)).fetchall())
    return best[0] if best else None
