"""The SQLite index: made from the files, made again where it is damaged, and shared by processes.

The rollback journal, not a write-ahead log: the latter needs shared memory between all who have the file open, which network file systems do not
give. A writer asks for the lock at the beginning of a transaction (``BEGIN IMMEDIATE``), so that two never wait for one another, and waits
for it up to a minute. A process killed amid a transaction leaves a journal that the next one rolls back.
"""

import contextlib
import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

from m2fbench.errors import HistoryError
from m2fbench.history import schema
from m2fbench.history.files import folder_at

ELSEWHERE = "set M2FBENCH_INDEX to a folder of this machine for it"
PATIENCE = 60.0  # seconds that one waits for another process
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT)
_AT_ONCE = 500  # values in one statement

T = TypeVar("T")
Row = tuple[Any, ...]
Tell = Callable[[str], None]


class DamagedIndexError(Exception):
    """To be made again."""


class Index:
    """One open index; a context of transactions."""

    def __init__(self, connection: sqlite3.Connection, path: Path | None, lock: IO[bytes] | None) -> None:
        """path: None for one in memory."""
        self.connection = connection
        self.path = path
        self._lock = lock
        self.inode = None if path is None else path.stat().st_ino

    def close(self) -> None:
        self.connection.close()
        if self._lock is not None:
            self._lock.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing."""
        with self._speaking():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of it, whatever others write meanwhile."""
        with self._speaking():
            self.connection.execute("BEGIN")
            try:
                yield self.connection
            finally:
                with contextlib.suppress(sqlite3.Error):
                    self.connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _speaking(self) -> Iterator[None]:
        with _speaking_of(self.path):
            yield


@contextlib.contextmanager
def _speaking_of(path: Path | None) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in _DAMAGED or re.match("no such|Could not decode", str(error)):
            raise DamagedIndexError(str(error)) from error
        name = getattr(error, "sqlite_errorname", "")
        if name == "SQLITE_IOERR_SHORT_READ":
            raise DamagedIndexError("it is cut off") from error
        if name == "SQLITE_READONLY_DBMOVED":
            raise DamagedIndexError("it has been deleted or moved") from error
        if isinstance(error, sqlite3.OperationalError):
            raise HistoryError(f"{path}: {_reason(code, error)}") from error
        raise


def _reason(code: int, error: Exception) -> str:
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process has been writing to the index for {PATIENCE:.0f} s; try again when it is done"
    if code == sqlite3.SQLITE_FULL:
        return "the disk is full; free space and run the same command again: what is in the folder is safe"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        return f"the index cannot be written ({error}); check the folder's permissions, or {ELSEWHERE}"
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL):
        return f"the disk of the index fails, is full, or has no locks ({error}); {ELSEWHERE}; what is in the history is safe"
    return f"the index cannot be used ({error}); delete it, it is made again from the files"


def open_index(path: Path, tell: Tell) -> Index:
    """The index at ``path``, of the present schema: made if it is not there, migrated if it is older, set aside and begun again if it is
    damaged. One that a newer m2fbench made is left alone, and one beside it taken. Raises HistoryError."""
    folder_at(path.parent)
    lock = _locked(path, fcntl.LOCK_SH)
    if lock is None:
        raise HistoryError(f"{path}: another process has kept the index locked for {PATIENCE:.0f} s; try again when it is done")
    try:
        connection = _ready(path, tell)
    except DamagedIndexError as error:
        lock.close()
        return _begun_again(path, str(error), tell)
    except BaseException:
        lock.close()
        raise
    if connection is None:
        lock.close()
        other = path.with_name(f"{path.stem}-{schema.VERSION}{path.suffix}")
        if not other.exists():
            tell(f"{path}: a newer m2fbench made this index; it is left as it is, and {other.name} made beside it")
        return open_index(other, tell)
    return Index(connection, path, lock)


def in_memory() -> Index:
    connection = _connected(":memory:")
    _create(connection)
    return Index(connection, None, None)


def _connected(name: str | Path) -> sqlite3.Connection:
    connection = sqlite3.connect(name, timeout=PATIENCE, isolation_level=None)
    connection.execute("PRAGMA cache_size = -65536")  # KiB
    return connection


def _ready(path: Path, tell: Tell) -> sqlite3.Connection | None:
    """None where a newer m2fbench made it."""
    with _speaking_of(path):
        connection = _connected(path)
        try:
            connection.execute("BEGIN")
            version = _version(connection)
            connection.execute("COMMIT")
            if version < schema.VERSION:
                connection.execute("BEGIN IMMEDIATE")
                version = _version(connection)  # another process may have been faster
                _bring_up(connection, version, path, tell)
                connection.execute("COMMIT")
            if version > schema.VERSION:
                connection.close()
                return None
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if not tables >= schema.NAMES:
                raise DamagedIndexError(f"it has no table {', '.join(sorted(schema.NAMES - tables))}")
        except BaseException:
            connection.close()
            raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    """Inside a transaction, or another process's making of it could be seen by halves."""
    ((application,),) = connection.execute("PRAGMA application_id")
    ((version,),) = connection.execute("PRAGMA user_version")
    ((tables,),) = connection.execute("SELECT count(*) FROM sqlite_master")
    if application != schema.APPLICATION and (tables or version):
        raise DamagedIndexError("it is a database of another program")
    return int(version)


def _bring_up(connection: sqlite3.Connection, version: int, path: Path, tell: Tell) -> None:
    if version == 0:
        _create(connection)
        return
    if version < schema.VERSION:
        tell(f"{path}: brought from schema {version} to {schema.VERSION}")
    for step in range(version, schema.VERSION):
        for statement in schema.MIGRATIONS[step]:
            connection.execute(statement)
    if version < schema.VERSION:
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")


def _create(connection: sqlite3.Connection) -> None:
    for statement in schema.TABLES.split(";"):
        connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    connection.execute(f"PRAGMA user_version = {schema.VERSION}")


def begin_again(index: Index, reason: str, tell: Tell) -> Index:
    """In place of an index that turned out to be damaged while it was used, which is closed."""
    index.close()
    return in_memory() if index.path is None else _begun_again(index.path, reason, tell, index.inode)


def _begun_again(path: Path, reason: str, tell: Tell, inode: int | None = None) -> Index:
    """Only when nobody has it open: a journal that another process goes on writing would spoil the new one. inode: of the file that is known to
    be damaged; another one there is what another process has made meanwhile."""
    lock = _locked(path, fcntl.LOCK_EX)
    if lock is None:
        tell(f"{path}: the index is damaged ({reason}) and another process has it open; this one goes on without, from the files")
        return in_memory()
    try:
        if inode is not None and path.exists() and path.stat().st_ino == inode:
            _set_aside(path, reason, tell)
        try:
            connection = _ready(path, tell)
        except DamagedIndexError:
            _set_aside(path, reason, tell)
            connection = _ready(path, tell)
    except BaseException:
        lock.close()
        raise
    if connection is None:
        lock.close()
        raise HistoryError(f"{path}: another process has replaced the index meanwhile; run the same command again")
    with contextlib.suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_SH)
    return Index(connection, path, lock)


def _set_aside(path: Path, reason: str, tell: Tell) -> None:
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.getpid()}")
    path.replace(aside)
    with contextlib.suppress(FileNotFoundError):  # killed before, SQLite deletes a journal without its database
        path.with_name(f"{path.name}-journal").replace(aside.with_name(f"{aside.name}-journal"))
    tell(f"{path}: the index was damaged ({reason}); it is set aside as {aside.name} and made again from the files")


def _locked(path: Path, how: int) -> IO[bytes] | None:
    """Held by every process that has the index open, shared; None where it cannot be had within a minute. Some file systems have no locks: there
    it is not held."""
    try:
        file = path.with_name(f"{path.name}.lock").open("ab")
    except OSError as error:
        raise HistoryError(
            f"{path}: the index cannot be written ({error.strerror}); check the folder's permissions, or {ELSEWHERE}"
        ) from error
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.05)
        except OSError:
            return file
        else:
            return file


def chunks(values: Iterable[T]) -> Iterator[Sequence[T]]:
    """As many as one statement takes."""
    listed = list(values)
    for start in range(0, len(listed), _AT_ONCE):
        yield listed[start : start + _AT_ONCE]


def marks(values: Sequence[object]) -> str:
    return f"({', '.join('?' * len(values))})"
