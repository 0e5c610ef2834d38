"""``m2fbench nightly``: a matrix of suites, checkpoints and variants, and what moved since the nights before."""

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from m2fbench.cli_common import INTERRUPTED, USER_ERROR, DeviceName, fail, open_console, say

if TYPE_CHECKING:
    from m2fbench.nightly.loading import Nightly
    from m2fbench.nightly.night import NightRequest


def _schema(wanted: bool) -> None:
    if wanted:
        from m2fbench.nightly.loading import schema

        typer.echo(json.dumps(schema(), indent=1))
        raise typer.Exit


def nightly(
    config: Annotated[Path | None, typer.Argument(help="A nightly's configuration, a YAML file; see --schema.")] = None,
    night: Annotated[str | None, typer.Option(help="The night's name, in place of today's date (UTC).")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Cells to run, as SUITE/ROW/VARIANT with * for any text; repeatable.")
    ] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells again that this night could not measure so far.")] = False,
    history: Annotated[str | None, typer.Option(help="The history, in place of the configuration's.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the nights, in place of the configuration's.")
    ] = None,
    device: Annotated[DeviceName | None, typer.Option(help="In place of the configuration's.")] = None,
    summary: Annotated[Path | None, typer.Option(help="A further file for the Markdown summary.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and list the cells; run nothing.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", callback=_schema, is_eager=True, help="Print the JSON Schema of configurations.")
    ] = False,
) -> None:
    """Run a matrix of suites, compare every figure with its baseline, and say what moved. Interrupted, the same command resumes.

    Exit status: 0 nothing got worse; 1 a regression; 3 something could not be measured.
    """
    from m2fbench.errors import NightlyError
    from m2fbench.nightly.closing import next_steps, short_table
    from m2fbench.nightly.loading import load_nightly
    from m2fbench.nightly.night import NightRequest, run_night
    from m2fbench.nightly.wording import headline, moved_table, unmeasured_table
    from m2fbench.reporting.terminal.nightly import NightDisplay
    from m2fbench.reporting.terminal.verdict import show_verdict

    if config is None:
        raise NightlyError("which configuration? expected m2fbench nightly CONFIG; --schema says what stands in one")
    loaded = load_nightly(config, history=history, output=output, device=None if device is None else device.value)
    request = NightRequest(_checked_name(night), tuple(only or ()), retry, summary)
    if dry_run:
        _list_cells(loaded, request)
        return
    console = open_console()
    try:
        with _terminated_as_interrupted(), NightDisplay(console) as display:
            report = run_night(loaded, request, display)
    except KeyboardInterrupt:
        fail("interrupted; what has ended is kept: the same command resumes", INTERRUPTED)
    console.print()
    verdict = report.verdict
    for path in report.written:
        console.print(f"written: {path}", soft_wrap=True)
    tables = moved_table(verdict), unmeasured_table(verdict), short_table(verdict)
    show_verdict(console, headline(verdict), tables, verdict.notes, report.exit_status)
    options = {"--history": history, "--output": output, "--device": None if device is None else device.value}
    again = ["m2fbench", "nightly", str(config), "--night", report.folder.name]
    again += [text for option, value in options.items() if value is not None for text in (option, str(value))]
    for step in next_steps(loaded, report.folder, verdict, again):
        console.print(f"next: {step}", soft_wrap=True)
    if report.problems:
        say("\n".join(report.problems), "error: ", USER_ERROR)
    if report.exit_status:
        raise typer.Exit(report.exit_status)


def _checked_name(night: str | None) -> str | None:
    """It becomes a folder's name. Raises NightlyError."""
    import re

    from m2fbench.errors import NightlyError

    if night is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", night):
        raise NightlyError(f"--night {night}: expected letters, digits, '.', '_' and '-', beginning with a letter or digit")
    return night


@contextlib.contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, with which services are stopped, and SIGHUP end a night as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    heard = [
        number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) is not signal.SIG_IGN
    ]  # as nohup has it
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _list_cells(loaded: "Nightly", request: "NightRequest") -> None:
    """What would be run, in this order; raises NightlyError with what can be seen to be wrong."""
    from m2fbench.errors import NightlyError
    from m2fbench.nightly.beforehand import seen_beforehand
    from m2fbench.nightly.matrix import chosen
    from m2fbench.nightly.night import folder_of
    from m2fbench.nightly.order import planned_night
    from m2fbench.reporting.terminal.nightly import plan_table

    console = open_console()
    picked = chosen(loaded.cells, request.only)
    planned = planned_night(loaded, folder_of(loaded, request.night), picked, retry=request.retry)
    console.print(plan_table(planned.cells, planned.limits, planned.states))
    console.print(f"night: {planned.folder}; {planned.budget}", soft_wrap=True)
    console.print(f"history: {loaded.history}", soft_wrap=True)
    seen = seen_beforehand(loaded)
    for warning in seen.warnings:
        console.print(f"warning: {warning}", soft_wrap=True)
    if seen.problems:
        raise NightlyError("\n".join(seen.problems))
