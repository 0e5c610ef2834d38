"""Exported rows: read back by the csv module, pandas, pyarrow and json, and equal to what the history holds."""

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
import pyarrow.parquet as parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_history import made_history, made_result, made_time, sha256_of

from m2fbench.errors import ExtraError, StoreError
from m2fbench.history.entries import entry_of
from m2fbench.history.export_files import FileFormat, write_file, write_stream
from m2fbench.history.exporting import COLUMNS, columns, rows, time_of
from m2fbench.history.history import History
from m2fbench.history.reading import result_of
from m2fbench.history.records import Entry

FORMATS: tuple[FileFormat, ...] = ("json", "csv", "parquet")
HOSTILE = '=HYPERLINK("http://example.com","x")'
CLASSES = {"disc": {"AP": 41.5}, "star": {"AP": math.nan}}
RESULTS = [
    made_result(night=0, per_class=CLASSES),
    made_result(night=1, values={"AP": 0.1 + 0.2, "AP50": None, "APs (small)": 1e-300}),
    made_result(night=2, kind="speed", variant="fp16"),
    made_result(night=3, kind="flops", machine=""),
    made_result(
        night=4, row='a "quoted", row\nof two lines', machine=HOSTILE, status="partial", limit=20, reason="-20 images, ünïcode 画像"
    ),
    made_result(
        night=5,
        values={},
        status="unavailable",
        reason="the checkpoint is gone",
        environment={"libraries": {}},
        finished=None,
        started=None,
    ),
]


def entries_of(contents: Sequence[bytes]) -> list[Entry]:
    return [entry_of(result_of(content), sha256_of(content)) for content in contents]


ENTRIES = entries_of(RESULTS)
Figures = dict[tuple[str, str], tuple[float | None, float | None, float | None]]


def figures(entries: Sequence[Entry]) -> Figures:
    """(result, figure) -> (value, low, high), None for NaN."""
    return {
        (e.sha256, f.name): tuple(None if math.isnan(v) else v for v in (f.value, f.low, f.high))
        for e in entries
        for f in e.figures
    }  # type: ignore[misc]


def records(path: Path, file_format: FileFormat) -> list[dict[str, Any]]:
    """By pandas, what is empty as None."""
    frame = {
        "json": lambda: pd.read_json(path, orient="records", dtype=False, precise_float=True),
        "csv": lambda: pd.read_csv(path, keep_default_na=False, na_values=[""]),
        "parquet": lambda: pd.read_parquet(path),
    }[file_format]()
    assert list(frame.columns) == list(columns())
    return [{k: None if pd.isna(v) else v for k, v in row.items()} for row in frame.to_dict("records")]


@pytest.mark.parametrize("file_format", FORMATS)
def test_pandas_reads_back_what_the_history_holds(tmp_path: Path, file_format: FileFormat) -> None:
    path = tmp_path / "figures"
    assert write_file(path, file_format, columns(), rows(ENTRIES)) == sum(len(e.figures) or 1 for e in ENTRIES)
    read = records(path, file_format)
    assert {(r["result"], r["figure"]): (r["value"], r["low"], r["high"]) for r in read if r["figure"]} == figures(ENTRIES)
    for entry in ENTRIES:
        of_it = [r for r in read if r["result"] == entry.sha256]
        text = {k: {v for r in of_it if (v := r[k]) is not None} for k in ("suite", "row", "machine", "reason", "status", "kind")}
        if file_format == "csv":
            text = {k: {v.removeprefix("'") for v in values} for k, values in text.items()}
        expected = {k: {v} if (v := getattr(entry, k)) not in (None, "") else set() for k in text}
        assert {k: v - {""} for k, v in text.items()} == expected
        assert {pd.Timestamp(r["time"]) if r["time"] else None for r in of_it} == {time_of(entry.time)}
        assert {bool(r["disturbed"]) for r in of_it} == {entry.disturbed}
        assert {int(r["limit"]) for r in of_it} == {entry.limit}


def test_a_result_without_figures_is_a_row_with_its_reason() -> None:
    (row,) = [dict(zip(COLUMNS, r, strict=True)) for r in rows(ENTRIES[-1:])]
    assert (row["status"], row["reason"]) == ("unavailable", "the checkpoint is gone")
    assert row["figure"] is row["value"] is row["unit"] is row["time"] is row["torch"] is None
    assert row["driver"] == "570.86.15"


def test_json_is_an_array_of_flat_objects_one_a_line(tmp_path: Path) -> None:
    write_file(tmp_path / "a.json", "json", columns(circumstances=True), rows(ENTRIES, circumstances=True))
    lines = (tmp_path / "a.json").read_text().splitlines()
    read = json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == read
    assert read[0]["circumstances"]["environment.libraries.torch"] == read[0]["torch"] == "2.11.0"
    assert read[0]["time"] == made_time(0)
    assert not any(isinstance(v, dict | list) for r in read for k, v in r.items() if k != "circumstances")


def test_csv_is_rfc_4180_and_runs_no_formula(tmp_path: Path) -> None:
    write_file(tmp_path / "a.csv", "csv", columns(), rows(ENTRIES))
    text = (tmp_path / "a.csv").read_bytes().decode()
    assert text.endswith("\r\n")
    assert "\n" not in text.replace("\r\n", "").replace("row\nof", "")
    read = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
    assert {(r["result"], r["figure"]): float(r["value"]) if r["value"] else None for r in read if r["figure"]} == {
        key: value for key, (value, _, _) in figures(ENTRIES).items()
    }
    assert {r["machine"] for r in read if r["row"].startswith("a ")} == {f"'{HOSTILE}"}
    assert {r["reason"] for r in read if r["row"].startswith("a ")} == {"'-20 images, ünïcode 画像"}
    assert {r["disturbed"] for r in read} == {"false"}


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_csv_text_comes_back_by_taking_one_apostrophe_away(text: str) -> None:
    file = io.BytesIO()
    write_stream(file, "csv", {"a": "text", "b": "number"}, [(text, -1.5)])
    _, (read, number) = csv.reader(io.StringIO(file.getvalue().decode(), newline=""))
    assert read.removeprefix("'") == text
    assert read[:1] not in tuple("=+-@\t\r\n")
    assert number == "-1.5"


def test_parquet_types_do_not_depend_on_what_is_empty(tmp_path: Path) -> None:
    for name, entries in {"all": ENTRIES, "empty": ENTRIES[-1:], "none": []}.items():
        write_file(tmp_path / f"{name}.parquet", "parquet", columns(), rows(entries))
    schemas = [parquet.read_schema(tmp_path / f"{name}.parquet") for name in ("all", "empty", "none")]
    assert schemas[0].equals(schemas[1], check_metadata=True)
    assert schemas[0].equals(schemas[2], check_metadata=True)
    assert schemas[0].field("time").type == pyarrow.timestamp("us", tz="UTC")
    assert schemas[0].field("value").type == pyarrow.float64()
    assert schemas[0].metadata[b"m2fbench.export"] == b"1"
    table = parquet.read_table([tmp_path / "all.parquet", tmp_path / "empty.parquet"])
    assert table.column("torch").null_count == 2
    assert str(pd.read_parquet(tmp_path / "all.parquet")["time"].dtype) == "datetime64[us, UTC]"


def test_parquet_in_several_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2fbench.history.export_files.BATCH", 4)
    number = write_file(tmp_path / "a.parquet", "parquet", columns(), rows(ENTRIES))
    file = parquet.ParquetFile(tmp_path / "a.parquet")
    assert (file.metadata.num_rows, file.num_row_groups) == (number, math.ceil(number / 4))
    assert file.read().column("result").to_pylist() == [e.sha256 for e in ENTRIES for _ in e.figures or [None]]


def test_figures_by_class_and_chosen_figures() -> None:
    by_sha = {sha256_of(content): result_of(content) for content in RESULTS}
    places = [list(COLUMNS).index(name) for name in ("figure", "category", "value")]
    found = [
        tuple(row[place] for place in places) for row in rows(ENTRIES, figures=["AP", "APs (small)"], result_of=by_sha.__getitem__)
    ]
    first, second = ENTRIES[0].figure("AP"), ENTRIES[1].figure("AP")
    assert first is not None
    assert second is not None
    assert found[:3] == [("AP", None, first.value), ("AP", "disc", 41.5), ("AP", "star", None)]
    assert found[3:5] == [("AP", None, second.value), ("APs (small)", None, 1e-300)]
    assert {name for name, _, _ in found} == {"AP", "APs (small)"}


def test_times_are_utc_whatever_the_result_says() -> None:
    assert time_of("2026-03-01T05:00:00+02:00") == time_of("2026-03-01T03:00:00+00:00") == time_of("2026-03-01T03:00:00")
    assert time_of("yesterday") is None


@pytest.mark.parametrize("file_format", FORMATS)
def test_a_file_is_there_whole_or_as_it_was(tmp_path: Path, file_format: FileFormat) -> None:
    (tmp_path / "a").write_text("before")

    def broken() -> Any:
        yield from rows(ENTRIES)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        write_file(tmp_path / "a", file_format, columns(), broken())
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("a", "before")]
    with pytest.raises(StoreError, match="cannot be written"):
        write_file(tmp_path / "gone" / "a", file_format, columns(), rows(ENTRIES))


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ExtraError, match=r"pyarrow, which is not installed; pip install 'm2fbench\[parquet\]'"):
        write_file(tmp_path / "a.parquet", "parquet", columns(), rows(ENTRIES))
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "history"
    made_history(folder, RESULTS)
    return folder


Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.full
def test_the_command_writes_each_format_by_the_files_suffix(cli: Call, history: Path, tmp_path: Path) -> None:
    with History(history) as opened:
        expected = figures(opened.entries())
    assert expected == figures(ENTRIES)
    for file_format in FORMATS:
        path = tmp_path / f"figures.{file_format}"
        done = cli("history", "export", "-o", path, "--history", history)
        assert (done.returncode, done.stdout) == (0, "")
        assert f"written: {path}" in done.stderr
        read = records(path, file_format)
        assert {(r["result"], r["figure"]): (r["value"], r["low"], r["high"]) for r in read if r["figure"]} == expected


@pytest.mark.full
def test_the_command_to_stdout_with_filters(cli: Call, history: Path) -> None:
    chosen = ("--kind", "accuracy", "--figure", "AP", "--since", "2026-01-01", "--until", "2026-01-02", "--per-class")
    done = cli("history", "export", "--format", "json", "-o", "-", *chosen, env={"M2FBENCH_HISTORY": str(history)})
    assert done.returncode == 0, done.stderr
    assert [(r["time"], r["category"]) for r in json.loads(done.stdout)] == [
        (made_time(0), None), (made_time(0), "disc"), (made_time(0), "star"), (made_time(1), None),
    ]  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("file_format", ["json", "csv"])
def test_a_reader_that_has_had_enough_is_no_error(history: Path, file_format: str) -> None:
    command = f"set -o pipefail; {sys.executable} -m m2fbench history export --format {file_format} --circumstances --history '{history}' | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.full
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the format is not told"),
        (("-o", "figures.xlsx"), "the format is not told"),
        (("--format", "parquet"), "name a file with -o FILE.parquet"),
        (("--format", "mlflow"), "which MLflow server?"),
        (("--format", "mlflow", "-o", "x.json", "--uri", "http://127.0.0.1:1"), "leave -o out"),
        (("-o", "gone/figures.csv"), "cannot be written"),
    ],
)
def test_the_command_says_in_a_line_what_is_wrong(
    cli: Call, history: Path, tmp_path: Path, arguments: Sequence[str], message: str
) -> None:
    done = cli("history", "export", *arguments, "--history", history, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": ""})
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
