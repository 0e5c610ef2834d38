"""The index's tables, and how an index of an earlier schema becomes one of the present.

Whatever cannot be derived from what an old index holds is deleted from it, and the next synchronisation reads the files that it came from again.
"""

import re

VERSION = 2  # PRAGMA user_version
APPLICATION = 0x6D326662  # PRAGMA application_id: "m2fb"

TABLES = """
CREATE TABLE texts (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, status TEXT NOT NULL, reason TEXT, suite TEXT NOT NULL,
    row TEXT NOT NULL, variant TEXT NOT NULL, images INTEGER NOT NULL, time TEXT NOT NULL, machine TEXT NOT NULL, disturbed INTEGER NOT NULL,
    warnings TEXT NOT NULL, circumstances INTEGER NOT NULL REFERENCES texts, conditions INTEGER NOT NULL REFERENCES texts);
CREATE INDEX results_by_cell ON results (suite, row, variant, kind, time);
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL, higher INTEGER NOT NULL, UNIQUE (name, unit, higher));
CREATE TABLE figures (
    result INTEGER NOT NULL REFERENCES results, place INTEGER NOT NULL, name INTEGER NOT NULL REFERENCES names, value REAL, low REAL, high REAL,
    PRIMARY KEY (result, place)) WITHOUT ROWID;
CREATE TABLE origins (sha256 TEXT NOT NULL, location TEXT NOT NULL, host TEXT NOT NULL, time TEXT NOT NULL, file TEXT NOT NULL,
    PRIMARY KEY (sha256, location, host)) WITHOUT ROWID;
CREATE TABLE comparisons (file TEXT PRIMARY KEY, a TEXT NOT NULL, b TEXT NOT NULL, json TEXT NOT NULL);
CREATE INDEX comparisons_by_run ON comparisons (b, a);
CREATE TABLE accepted (file TEXT PRIMARY KEY, result TEXT NOT NULL, figure TEXT NOT NULL, reason TEXT NOT NULL, host TEXT NOT NULL,
    time TEXT NOT NULL);
CREATE TABLE releases (file TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE taken (file TEXT PRIMARY KEY);
CREATE TABLE problems (file TEXT PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, reader INTEGER NOT NULL);
"""
"""texts: conditions and circumstances, which most nights share. results.images: of a limited run, 0 for all. figures: over all classes; NULL is NaN.
taken: files of origins that have been read. problems: files of the history that cannot be, and by which result schema that was found."""

NAMES = frozenset(re.findall(r"CREATE TABLE (\w+)", TABLES))

MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (  # which had one origin a result, without its host, and no acceptances
        "DROP TABLE origins",
        *(statement + ";" for statement in TABLES.split(";") if re.match(r"\s*CREATE TABLE (origins|accepted|taken)\b", statement)),
    ),
}
"""Statements that lead from each version to the next."""
