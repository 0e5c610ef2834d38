"""A history's rows as a JSON, CSV or Parquet file, streamed, and whole or not there at all.

JSON is one array of flat objects, one a line, as ``jq '.[]'`` and ``pandas.read_json`` take it; what is empty is null, times are ISO 8601.

CSV follows RFC 4180: UTF-8, a header line, CRLF, fields with commas, quotes or line breaks quoted. Numbers have all their digits (before
pandas 3.1, ``read_csv`` needs ``float_precision="round_trip"`` to read them back exactly), truth is true or false, what is empty is empty.
Names come from files that anyone may have written, and a spreadsheet runs text that begins like a formula: where text begins with one of
``= + - @``, their full-width forms, a tab, a line break or an apostrophe, an apostrophe stands before it. Take one leading apostrophe away to
get the text back; numbers are never touched.

Parquet has real types (UTC timestamps in microseconds among them), each column the same one whatever it holds, and ``m2fbench.export``, the
version of these columns, in the schema's metadata.
"""

import contextlib
import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

from m2fbench.errors import ExtraError, shown
from m2fbench.history.exporting import FORMAT_VERSION, ColumnType, Row, Value
from m2fbench.writing import store_error

FileFormat = Literal["json", "csv", "parquet"]
BATCH = 20_000  # rows of a Parquet row group
_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")


def write_file(path: Path, file_format: FileFormat, columns: Mapping[str, ColumnType], rows: Iterable[Row]) -> int:
    """How many rows were written. Raises StoreError, and ExtraError without pyarrow."""
    write = _writer(file_format)
    with _replacing(path) as file:
        return write(file, columns, rows)


def write_stream(file: BinaryIO, file_format: FileFormat, columns: Mapping[str, ColumnType], rows: Iterable[Row]) -> int:
    """As ``write_file``, to what is open already."""
    return _writer(file_format)(file, columns, rows)


Writer = Callable[[BinaryIO, Mapping[str, ColumnType], Iterable[Row]], int]


def _writer(file_format: FileFormat) -> Writer:
    if file_format == "parquet":
        _pyarrow()  # before anything is written
    return {"json": _write_json, "csv": _write_csv, "parquet": _write_parquet}[file_format]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of ``path`` once all is written. Raises StoreError."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        raise store_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink()


def _write_json(file: BinaryIO, columns: Mapping[str, ColumnType], rows: Iterable[Row]) -> int:
    number = 0
    for row in rows:
        record = {name: _plain(value) for name, value in zip(columns, row, strict=True)}
        file.write(b",\n" if number else b"[\n")
        file.write(json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace"))
        number += 1
    file.write(b"\n]\n" if number else b"[]\n")
    return number


def _write_csv(file: BinaryIO, columns: Mapping[str, ColumnType], rows: Iterable[Row]) -> int:
    text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    number = 0
    for row in rows:
        writer.writerow([_field(value) for value in row])
        number += 1
    text.detach()  # flushes, and leaves the file open
    return number


def _write_parquet(file: BinaryIO, columns: Mapping[str, ColumnType], rows: Iterable[Row]) -> int:
    pyarrow, parquet = _pyarrow()
    types = {
        "text": pyarrow.string(),
        "number": pyarrow.float64(),
        "integer": pyarrow.int64(),
        "boolean": pyarrow.bool_(),
        "time": pyarrow.timestamp("us", tz="UTC"),
        "mapping": pyarrow.string(),
    }
    fields = [pyarrow.field(name, types[kind]) for name, kind in columns.items()]
    schema = pyarrow.schema(fields, metadata={"m2fbench.export": str(FORMAT_VERSION)})
    rest, number = iter(rows), 0
    with parquet.ParquetWriter(file, schema) as writer:
        while batch := list(islice(rest, BATCH)):
            values = [[_cell(value) for value in column] for column in zip(*batch, strict=True)]
            writer.write_table(pyarrow.table(values, schema=schema))
            number += len(batch)
    return number


def _plain(value: Value) -> object:
    return value.isoformat() if isinstance(value, datetime) else value


def _field(value: Value) -> object:
    """A CSV field."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _cell(value: Value) -> object:
    """A Parquet value; text that is no Unicode (file names may be) with its bytes escaped."""
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=True)
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "pyarrow"
        found = "is not installed" if missing else f"cannot be imported ({shown(error)})"
        raise ExtraError(f"Parquet needs pyarrow, which {found}; pip install 'm2fbench[parquet]'") from error
    return pyarrow, pyarrow.parquet
