"""``m2fbench history export``: a history's figures as files that others read, or as runs of an MLflow server."""

import os
import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from m2fbench.cli_common import USER_ERROR, fail, warn
from m2fbench.cli_history_common import (
    UNREAD,
    HistoryOption,
    KindsOption,
    MachinesOption,
    RowsOption,
    SinceOption,
    SuitesOption,
    UntilOption,
    VariantsOption,
    check_names,
    notes,
    open_history,
    print_lines,
)

if TYPE_CHECKING:
    from m2fbench.history.export_files import FileFormat
    from m2fbench.history.history import History
    from m2fbench.history.records import Entry
    from m2fbench.reporting.terminal.waiting import Waiting


class ExportFormat(StrEnum):
    json = "json"
    csv = "csv"
    parquet = "parquet"
    mlflow = "mlflow"


_FILES: "dict[ExportFormat, FileFormat]" = {ExportFormat.json: "json", ExportFormat.csv: "csv", ExportFormat.parquet: "parquet"}


def export(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The file, whose suffix tells the format; - for stdout (json, csv).")
    ] = None,
    format_: Annotated[ExportFormat | None, typer.Option("--format", help="In place of what the file's suffix says.")] = None,
    history: HistoryOption = "history",
    uri: Annotated[
        str | None, typer.Option(envvar="MLFLOW_TRACKING_URI", help="mlflow: the tracking server, such as http://HOST:5000.")
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="mlflow: the experiment for all runs, in place of m2fbench/SUITE for each suite.")
    ] = None,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also the figures by class.")] = False,
    circumstances: Annotated[
        bool, typer.Option("--circumstances", help="json, csv, parquet: also all that may explain a change, in every row.")
    ] = False,
    suite: SuitesOption = None,
    checkpoint: RowsOption = None,
    variant: VariantsOption = None,
    kind: KindsOption = None,
    machine: MachinesOption = None,
    figure: Annotated[
        list[str] | None, typer.Option(help="This figure only (mlflow: results that have it, whole); repeatable.")
    ] = None,
    since: SinceOption = "",
    until: UntilOption = "",
) -> None:
    """Write a history's figures as JSON, CSV or Parquet, or as runs of an MLflow tracking server. Ends with 3 where files of the history could not
    be read; all others are written."""
    from m2fbench.analysis.words import counted
    from m2fbench.errors import shown
    from m2fbench.history.records import Selection
    from m2fbench.reporting.terminal.waiting import Waiting

    form = _form(format_, output, uri)
    selection = Selection(
        suites=tuple(suite or ()), rows=tuple(checkpoint or ()), variants=tuple(variant or ()), kinds=tuple(k.value for k in kind or ()),
        machines=tuple(machine or ()), figures=tuple(figure or ()), since=since, until=until,
    )  # fmt: skip
    console = notes()
    with open_history(history) as opened:
        check_names(opened, selection)
        with Waiting(console) as waiting:
            entries = opened.entries(selection)
            if form is ExportFormat.mlflow:
                unread, said = _to_mlflow(history, entries, str(uri), experiment, per_class, waiting)
            else:
                unread, said = (
                    0,
                    _to_file(opened, entries, _FILES[form], output, selection.figures, per_class, circumstances, waiting),
                )
        print_lines(console, map(Text, said))
        if problems := opened.problems():
            what = f"{counted(len(problems), 'file')} that cannot be read, the first: {problems[0].message}"
            warn(console, [f"not exported: {shown(what, 1000)}; see m2fbench history list --problems"])
    if unread or problems:
        raise typer.Exit(UNREAD)


def _form(form: ExportFormat | None, output: Path | None, uri: str | None) -> ExportFormat:
    """What is asked for; ends with status 2 where the options do not go together."""
    if form is None and output is not None:
        suffix = output.suffix.lower().lstrip(".")
        form = next((f for f in _FILES if f.value == suffix), None)
    if form is None:
        fail(
            "error: the format is not told: expected --format json, csv, parquet or mlflow, or -o FILE.csv (.json, .parquet)",
            USER_ERROR,
        )
    if form is ExportFormat.mlflow:
        if output is not None:
            fail(f"error: --format mlflow writes to a server, not to -o {output}; leave -o out", USER_ERROR)
        if not uri:
            fail("error: which MLflow server? give --uri http://HOST:5000, or set MLFLOW_TRACKING_URI", USER_ERROR)
    if output is not None and output.is_dir():
        fail(f"error: -o {output} is a folder: name a file in it, such as -o {output / f'history.{form}'}", USER_ERROR)
    if form is ExportFormat.parquet and _is_stdout(output):
        fail("error: Parquet is no text for stdout: name a file with -o FILE.parquet", USER_ERROR)
    return form


def _is_stdout(output: Path | None) -> bool:
    return output is None or str(output) == "-"


def _to_file(
    history: "History", entries: "list[Entry]", form: "FileFormat", output: Path | None, figures: tuple[str, ...], per_class: bool,
    circumstances: bool, waiting: "Waiting",
) -> Sequence[str]:  # fmt: skip
    from m2fbench.analysis.words import counted
    from m2fbench.history.export_files import write_file, write_stream
    from m2fbench.history.exporting import columns, rows

    found = rows(entries, figures=figures, result_of=history.result if per_class else None, circumstances=circumstances)
    if output is None or _is_stdout(output):
        try:
            write_stream(sys.stdout.buffer, form, columns(circumstances), found)
            sys.stdout.flush()
        except BrokenPipeError:  # a reader such as head has had enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ()
    waiting.tell(f"writing {counted(len(entries), 'result')}")
    number = write_file(output, form, columns(circumstances), found)
    return [f"written: {output}, {counted(number, 'row')} of {counted(len(entries), 'result')}"]


def _to_mlflow(
    history: str, entries: "list[Entry]", uri: str, experiment: str | None, per_class: bool, waiting: "Waiting"
) -> tuple[int, Sequence[str]]:
    """How many result files could not be read, and what to say."""
    from m2fbench.analysis.words import counted
    from m2fbench.history.mlflow_export import contents_of, export_runs

    waiting.tell(f"sending {counted(len(entries), 'result')}")
    done = export_runs(
        entries, contents_of(history), uri=uri, experiment=experiment, per_class=per_class, progress=waiting.progress
    )
    said = [f"runs: {done.new} new, {done.completed} completed, {done.known} there already"]
    said += [f"experiment: {name}" for name in done.experiments]
    if done.unmeasured:
        without = counted(done.unmeasured, "figure")
        said.append(
            f"left out, as metrics need a value: {without} without one; the tag m2fbench.unmeasured of their runs names them"
        )
    return done.unread, [*said, *done.notes]
