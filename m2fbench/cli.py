"""The command line: one function a verb, each a thin layer over the Python API.

Exit status: 0 done; 1 a figure outside the suite's tolerance; 2 something the user can mend, in one line; 70 a bug of ours;
130 interrupted.
"""

import errno
import json
import os
import sys
import traceback
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2fbench.cli_datasets import app as datasets_app
from m2fbench.errors import M2FBenchError, VerificationError

USER_ERROR, OUTSIDE_TOLERANCE, OUR_BUG, INTERRUPTED = 2, 1, 70, 130  # exit statuses

app = typer.Typer(
    name="m2fbench",
    help="How good, how fast and how costly a Mask2Former checkpoint is, by the paper's own protocol.\n\n"
    "Start with: m2fbench run shapes_instance",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.add_typer(datasets_app)


class DeviceName(StrEnum):
    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Listing(StrEnum):
    suites = "suites"
    datasets = "datasets"
    metrics = "metrics"
    checkpoints = "checkpoints"


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
SuiteArgument = Annotated[str, typer.Argument(help="Path of a suite, or the name of a shipped one: see 'm2fbench list suites'.")]


class _Output(Console):
    """stdout. Brackets in names are brackets, and a reader that goes away does not end the run."""

    def on_broken_pipe(self) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _console() -> Console:
    """Wide enough for tables where it is not a terminal."""
    console = _Output(highlight=False, markup=False)
    return console if console.is_terminal else _Output(highlight=False, markup=False, width=160)


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
    checkpoint: Annotated[
        list[str] | None,
        typer.Option(
            help="Hub id (@revision), folder, file, zoo:NAME, address or bundled:NAME, in place of the suite's; repeatable."
        ),
    ] = None,
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
    from m2fbench.reporting.terminal import RunDisplay
    from m2fbench.runner import run as run_suite

    console = _console()
    try:
        with RunDisplay(console) as display:
            results = run_suite(
                suite, checkpoints=checkpoint or (), config=config, labels=labels, only=only or (),
                variants=variant or (), data=data, limit=limit, device=device.value, overrides=set_ or (), output=output, fresh=fresh,
                verify=verify, predict_only=predict_only, listener=display,
            )  # fmt: skip
    except KeyboardInterrupt:
        _fail("interrupted; what was finished is kept: the same command resumes", INTERRUPTED)
    _show(console, results, per_class)


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

    with (Console(stderr=True) if as_json else _console()).status(f"checking and scoring {predictions}"):
        result = score_predictions(suite, predictions, data=data, limit=limit, overrides=set_ or (), verify=verify)
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        _show(_console(), [result], per_class)


def _show(console: Console, results: list, per_class: bool) -> None:  # type: ignore[type-arg]
    """The table, the classes where asked for, warnings and paths; ends with status 1 where a tolerance does not hold."""
    from m2fbench.reporting.terminal import class_tables, results_table

    console.print()
    console.print(results_table(results))
    _warn(console, dict.fromkeys(f"{r.row}: {w}" for r in results for w in r.warnings))
    for result in results:
        if per_class and result.measurements:
            for table in class_tables(result):
                console.print(table)
        for verdict in (result.verified or {}).items():
            console.print(
                f"{result.row}: {verdict[0]} verified by {verdict[1]['evaluator']}, largest difference {verdict[1]['largest_difference']:.1e}"
            )
        if result.skipped:
            console.print(Text(f"{result.row}: {len(result.skipped)} images could not be read and were left out", style="yellow"))
        if result.path is not None:
            console.print(Text(f"result: {result.path}"), soft_wrap=True)
        if result.path is not None and result.status == "predicted":
            console.print(Text(f"for the evaluation server: {result.path.with_name('submission')}"), soft_wrap=True)
    outside = [f"{r.row} {c.metric}" for r in results for c in r.comparisons if c.within is False]
    if outside:
        _fail(f"outside the suite's tolerance: {', '.join(outside)}", OUTSIDE_TOLERANCE)


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
    from m2fbench.reporting.terminal import reading

    wanted, console = request(target, task=task, size=size, force=force), _console()
    with reading(console) as progress:
        checkpoint = resolve(source, config=config, labels=labels, progress=progress)
    _warn(console, checkpoint.warnings)
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
    from m2fbench.reporting.terminal import inspection_table, reading

    console = _console()
    with reading(Console(stderr=True) if as_json else console) as progress:
        found = inspect_checkpoint(checkpoint, config=config, labels=labels, progress=progress)
    if as_json:
        typer.echo(json.dumps(found.to_json(), indent=1, ensure_ascii=False))
    else:
        console.print(inspection_table(found))
        _warn(console, found.warnings)
    if found.problem:
        raise M2FBenchError(found.problem)


def _warn(console: Console, warnings: Iterable[str]) -> None:
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)


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
    _console().print(table)


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
    _console().print(table)


def _fail(message: str, status: int) -> None:
    raise typer.Exit(_say(message, "", status))


def main() -> None:
    """The console script: user errors become one line, anything else is a bug of ours and says so."""
    sys.exit(_status())


def _status() -> int:
    try:
        return int(app(standalone_mode=False) or 0)
    except M2FBenchError as error:
        return _say(str(error), "error: ", USER_ERROR)
    except VerificationError as error:
        return _say(str(error), "verification failed: ", OUR_BUG)
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted", "", INTERRUPTED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # click's, of whichever package typer takes it from
            typer.echo(str(error), err=True)
            return USER_ERROR
        if hasattr(error, "format_message"):  # the command line itself is wrong
            return _say(" ".join(error.format_message().split()), "error: ", USER_ERROR)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
            return _say(
                f"{error.filename or 'a file'}: {error.strerror}; free space, or mend the permissions", "error: ", USER_ERROR
            )
        traceback.print_exc()
        return _say("this is a bug of m2fbench; please report it with the lines above", "", OUR_BUG)


def _say(message: str, prefix: str, status: int) -> int:
    """``message`` on stderr, each line by itself; returns ``status``."""
    for line in message.split("\n"):
        typer.echo(f"m2fbench: {prefix}{''.join(c if c.isprintable() else '?' for c in line)}", err=True)
    return status
