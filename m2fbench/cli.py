"""The command line: one function a verb, each a thin layer over the Python API.

Exit status: 0 done; 1 a figure outside the suite's tolerance, a claim of a card that does not hold, or a regression; 2 something the user can
mend, in one line; 3 a night could not measure something, or a history could not read a file; 70 a bug of ours; 130 interrupted.
"""

import errno
import json
import os
import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from m2fbench.cli_card import card
from m2fbench.cli_card_check import card_check
from m2fbench.cli_common import (
    INTERRUPTED,
    OUR_BUG,
    USER_ERROR,
    CheckpointArgument,
    CheckpointsOption,
    ConfigOption,
    DataOption,
    DeviceName,
    LabelsOption,
    LimitOption,
    SetOption,
    SuiteArgument,
    VerifyOption,
    fail,
    open_console,
    say,
    show,
    warn,
)
from m2fbench.cli_compare import compare
from m2fbench.cli_costs import flops
from m2fbench.cli_dashboard import dashboard
from m2fbench.cli_datasets import app as datasets_app
from m2fbench.cli_examine import examine
from m2fbench.cli_history import app as history_app
from m2fbench.cli_nightly import nightly
from m2fbench.cli_report import report
from m2fbench.cli_show import show_image
from m2fbench.cli_speed import speed
from m2fbench.errors import M2FBenchError, VerificationError


class _Commands(TyperGroup):
    """The commands. Some versions of typer make an interrupt of a command an exit status, and nobody would say so."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            fail("interrupted", INTERRUPTED)


app = typer.Typer(
    name="m2fbench",
    cls=_Commands,
    help="How good, how fast and how costly a Mask2Former checkpoint is, by the paper's own protocol.\n\n"
    "Start with: m2fbench run shapes_instance",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(datasets_app)
app.add_typer(history_app)
app.command()(flops)
app.command()(speed)
app.command()(report)
app.command()(compare)
app.command(name="show")(show_image)
app.command()(examine)
app.command()(card)
app.command(name="card-check")(card_check)
app.command()(nightly)
app.command()(dashboard)


class Listing(StrEnum):
    suites = "suites"
    datasets = "datasets"
    metrics = "metrics"
    checkpoints = "checkpoints"


def _version(wanted: bool) -> None:
    if wanted:
        from m2fbench.environment import version_of

        typer.echo(f"m2fbench {version_of('m2fbench')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    pass


@app.command()
def run(
    suite: SuiteArgument,
    checkpoint: CheckpointsOption = None,
    config: ConfigOption = None,
    labels: LabelsOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Run the row of this name only; repeatable.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Run the variant of this name only; repeatable.")] = None,
    data: DataOption = None,
    limit: LimitOption = None,
    device: Annotated[DeviceName, typer.Option(help="Where the model runs.")] = DeviceName.auto,
    set_: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard what earlier runs left instead of resuming.")] = False,
    verify: VerifyOption = False,
    predict_only: Annotated[
        bool, typer.Option("--predict-only", help="Score nothing; write what the dataset's evaluation server takes.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print every class's figures.")] = False,
) -> None:
    """Run a suite: predict, score, and compare with the published numbers. Interrupted, the same command resumes."""
    from m2fbench.reporting.terminal.runs import RunDisplay
    from m2fbench.runner import run as run_suite

    console = open_console()
    try:
        with RunDisplay(console) as display:
            results = run_suite(
                suite, checkpoints=checkpoint or (), config=config, labels=labels, only=only or (),
                variants=variant or (), data=data, limit=limit, device=device.value, overrides=set_ or (), output=output, fresh=fresh,
                verify=verify, predict_only=predict_only, listener=display,
            )  # fmt: skip
    except KeyboardInterrupt:
        fail("interrupted; what was finished is kept: the same command resumes", INTERRUPTED)
    show(console, results, per_class)


@app.command()
def score(
    suite: SuiteArgument,
    predictions: Annotated[
        Path,
        typer.Option(help="A run directory, or a file or folder in one of the official formats (COCO, label PNGs, Cityscapes)."),
    ],
    data: DataOption = None,
    limit: LimitOption = None,
    set_: SetOption = None,
    verify: VerifyOption = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="Also print every class's figures.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON, every figure of every class.")] = False,
) -> None:
    """Score predictions without the model: those of a run, or anyone's."""
    from m2fbench.scoring import score as score_predictions

    with (Console(stderr=True) if as_json else open_console()).status(f"checking and scoring {predictions}"):
        result = score_predictions(suite, predictions, data=data, limit=limit, overrides=set_ or (), verify=verify)
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show(open_console(), [result], per_class)


@app.command()
def convert(
    source: CheckpointArgument,
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    config: ConfigOption = None,
    labels: LabelsOption = None,
    task: Annotated[
        str | None, typer.Option(help="instance, panoptic or semantic, where the paper's test size depends on it (ADE20K).")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Test size as SHORTEST/LONGEST edge, as in 800/1333, in place of the paper's.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint that is there.")] = False,
) -> None:
    """Write any checkpoint as a transformers folder: safetensors, class names, and a processor with the paper's sizes."""
    from m2fbench.models.checkpoint import resolve
    from m2fbench.models.convert import convert as convert_checkpoint
    from m2fbench.models.convert import request
    from m2fbench.reporting.terminal.runs import reading

    wanted, console = request(target, task=task, size=size, force=force), open_console()
    with reading(console) as progress:
        checkpoint = resolve(source, config=config, labels=labels, progress=progress)
    warn(console, checkpoint.warnings)
    with console.status("loading and writing"):
        made = convert_checkpoint(checkpoint, wanted)
    console.print(Text(
        f"written: {made.folder} ({made.bytes / 2**20:.1f} MB, {len(checkpoint.labels)} classes); its processor resizes to "
        f"{made.size[0]}/{made.size[1]} ({made.origin})"
    ), soft_wrap=True)  # fmt: skip
    console.print(
        "transformers' processors stretch to multiples of 32 where the paper pads: 'protocol: paper' prepares images itself",
        soft_wrap=True,
    )


@app.command()
def inspect(
    checkpoint: CheckpointArgument,
    config: ConfigOption = None,
    labels: LabelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what a checkpoint is, which suites fit it, and what to beware of."""
    from m2fbench.inspection import inspect as inspect_checkpoint
    from m2fbench.reporting.terminal.runs import inspection_table, reading

    console = open_console()
    with reading(Console(stderr=True) if as_json else console) as progress:
        found = inspect_checkpoint(checkpoint, config=config, labels=labels, progress=progress)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        console.print(inspection_table(found))
        warn(console, found.warnings)
    if found.problem:
        raise M2FBenchError(found.problem)


@app.command()
def validate(suites: Annotated[list[str], typer.Argument(help="Paths or names of suites.")]) -> None:
    """Check suites without running them; every problem is one line with file, line and key."""
    from m2fbench.models.checkpoint import problem_of
    from m2fbench.suite import find_suite, load_suite

    problems = []
    for name in suites:
        try:
            suite = load_suite(name)
        except M2FBenchError as error:
            problems.append(str(error))
            continue
        rows = ((row.name, problem_of(row.checkpoint, row.config, row.labels)) for row in suite.checkpoints)
        wrong = [f"{find_suite(name)}: {row}: {problem}" for row, problem in rows if problem]
        if wrong:
            problems += wrong
            continue
        count, variants = len(suite.checkpoints), len(suite.variants)
        typer.echo(f"{find_suite(name)}: valid: {count} checkpoint{'s'[: count != 1]} x {variants} variant{'s'[: variants != 1]}")
    if problems:
        raise M2FBenchError("\n".join(problems))


@app.command(name="list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    rows: Annotated[bool, typer.Option("--rows", help="Checkpoints: the suites' rows, also those that cannot be run.")] = False,
) -> None:
    """List what is there to run: suites, datasets, metrics or checkpoints."""
    from m2fbench.suite import datasets, load_suite, metrics, suite_names

    table = Table(box=None, pad_edge=False)
    if what is Listing.suites:
        for column in ("suite", "title", "dataset", "checkpoints"):
            table.add_column(column)
        for name in suite_names():
            suite = load_suite(name)
            table.add_row(name, suite.title, suite.dataset.name, ", ".join(row.name for row in suite.checkpoints))
    elif what is Listing.datasets:
        for column in ("dataset", "tasks", "options", "data"):
            table.add_column(column)
        for name in datasets.names():
            reader = datasets.get(name)
            table.add_row(name, ", ".join(reader.tasks), ", ".join(reader.Options.model_fields), reader.needs_data or "built in")
    elif what is Listing.metrics:
        for column in ("metric", "predictions", "figures"):
            table.add_column(column)
        for name in metrics.names():
            table.add_row(name, metrics.get(name).head, ", ".join(metrics.get(name).names))
    else:
        from m2fbench.planning import known_checkpoints

        known = known_checkpoints(rows=rows)
        width = max(map(len, known))
        for reference, places in known.items():  # a line each, however wide the terminal
            typer.echo(f"{reference:<{width}}  {', '.join(places) or '-'}")
        return
    open_console().print(table)


@app.command()
def schema() -> None:
    """Print the JSON Schema of the suite format, for editors."""
    from m2fbench.suite import schema as suite_schema

    typer.echo(json.dumps(suite_schema(), indent=1))


@app.command()
def doctor(data: DataOption = None) -> None:
    """Say what is here, what is missing, and what to do about it."""
    from m2fbench.doctor import findings

    table = Table(box=None, pad_edge=False, show_header=False)
    for mark, name, text in findings(data):
        table.add_row(Text(mark, style={"ok": "green", "missing": "yellow"}.get(mark, "")), name, text)
    open_console().print(table)


def main() -> None:
    """The console script: user errors become one line, anything else is a bug of ours and says so."""
    sys.exit(_status())


def _status() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except M2FBenchError as error:
        return say(str(error), "error: ", USER_ERROR)
    except VerificationError as error:
        return say(str(error), "verification failed: ", OUR_BUG)
    except (KeyboardInterrupt, typer.Abort):
        return say("interrupted", "", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click's, of whichever package typer takes it from
            typer.echo(str(error), err=True)
            return USER_ERROR
        if hasattr(error, "format_message"):  # the command line itself is wrong
            return say(" ".join(error.format_message().split()), "error: ", USER_ERROR)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            return say(
                f"{error.filename or 'a file'}: {error.strerror}; free space, or mend the permissions", "error: ", USER_ERROR
            )
        traceback.print_exc()
        return say("this is a bug of m2fbench; please report it with the lines above", "", OUR_BUG)
