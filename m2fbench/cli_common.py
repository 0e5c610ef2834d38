"""What the commands share: options, the console, exit statuses."""

import os
import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

if TYPE_CHECKING:
    from m2fbench.results import RunResult

USER_ERROR, OUTSIDE_TOLERANCE, OUR_BUG, INTERRUPTED = 2, 1, 70, 130  # exit statuses


class DeviceName(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


DataOption = Annotated[Path | None, typer.Option("--data", envvar="M2FBENCH_DATA", help="The dataset's folder.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first N images; the result is partial.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", help="dotted.key=value, in place of what the suite says; repeatable.")
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Score again with the official evaluator; fail on any difference.")]
ConfigOption = Annotated[
    str | None, typer.Option("--config", help="detectron2 config of a single file, in place of the config.yaml beside it.")
]
LabelsOption = Annotated[
    str | None,
    typer.Option(
        "--labels", help="Class names: a label set, or a file of names (JSON, or one a line), in place of the checkpoint's own."
    ),
]
CheckpointArgument = Annotated[
    str, typer.Argument(help="Hub id, folder, .pkl or .pth file, zoo:NAME, https address, or bundled:NAME.")
]
CheckpointsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--checkpoint",
        help="Hub id (@revision), folder, file, zoo:NAME, address or bundled:NAME, in place of the suite's; repeatable.",
    ),
]
SuiteArgument = Annotated[str, typer.Argument(help="Path of a suite, or the name of a shipped one: see 'm2fbench list suites'.")]


class _Output(Console):
    """stdout. Brackets in names are brackets, and a reader that goes away does not end the run."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_console() -> Console:
    """Wide enough for tables where it is not a terminal."""
    console = _Output(highlight=False, markup=False)
    if console.is_terminal or os.environ.get("COLUMNS", "").isdigit():
        return console
    return _Output(highlight=False, markup=False, width=160)


def warn(console: Console, warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


def fail(message: str, status: int) -> NoReturn:
    raise typer.Exit(say(message, "", status))


def say(message: str, prefix: str, status: int) -> int:
    """``message`` on stderr, each line by itself; returns ``status``."""
    for line in message.split("\n"):
        typer.echo(f"m2fbench: {prefix}{''.join(c if c.isprintable() else '?' for c in line)}", err=True)
    return status


def show(console: Console, results: "Sequence[RunResult]", per_class: bool) -> None:
    """The table, the classes where asked for, warnings and paths; ends with status 1 where a tolerance does not hold."""
    from m2fbench.reporting.terminal.costs import flops_table, speed_tables
    from m2fbench.reporting.terminal.runs import class_tables, results_table

    console.print()
    if scored := [r for r in results if r.kind == "accuracy"]:
        console.print(results_table(scored))
    if timed := [r for r in results if r.kind == "speed"]:
        for table in speed_tables(timed, console.width):
            console.print(table, soft_wrap=isinstance(table, Text))
    if counted := [r for r in results if r.kind == "flops"]:
        console.print(flops_table(counted))
    warn(console, dict.fromkeys(f"{r.row}: {w}" for r in results for w in r.warnings))
    for result in results:
        if per_class and result.measurements:
            for table in class_tables(result):
                console.print(table)
        for verdict in (result.verified or {}).items():
            console.print(
                f"{result.row}: {verdict[0]} verified by {verdict[1]['evaluator']}, largest difference {verdict[1]['largest_difference']:.1e}"
            )
        if result.skipped:
            console.print(
                Text(
                    f"{result.row}: {len(result.skipped)} images were left out, the first: {result.skipped[0]['error']}",
                    style="yellow",
                )
            )
        if result.path is not None:
            console.print(Text(f"result: {result.path}"), soft_wrap=True)
        if result.path is not None and result.status == "predicted":
            console.print(Text(f"for the evaluation server: {result.path.with_name('submission')}"), soft_wrap=True)
    outside = [f"{r.row} {c.metric}" for r in results for c in r.comparisons if c.within is False]
    if outside:
        fail(f"outside the suite's tolerance: {', '.join(outside)}", OUTSIDE_TOLERANCE)
