"""``m2fbench flops``: what a checkpoint costs, counted without running it."""

import json
import os
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import open_console
from m2fbench.errors import M2FBenchError, StoreError, SuiteError, shown
from m2fbench.writing import write_atomically


def flops(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="TARGET...",
            help="A suite (all its rows), or a checkpoint: hub id, folder or config.json, detectron2 config.yaml, .pkl or .pth file, zoo:NAME, "
            "https address, bundled:NAME.",
        ),
    ],
    only: Annotated[list[str] | None, typer.Option(help="Of suites the row of this name only; repeatable.")] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            help="By whose task and test sizes a checkpoint is counted; else by the suite that its classes and task are of, else at --size."
        ),
    ] = None,
    config: Annotated[str | None, typer.Option(help="detectron2 config of a single file.")] = None,
    labels: Annotated[str | None, typer.Option(help="Class names: a label set, or a file of names.")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", envvar="M2FBENCH_DATA", help="The dataset's folder, for its images' sizes.")
    ] = None,
    sizes: Annotated[
        Path | None, typer.Option(help="The images' sizes without the images: JSON, [[id, height, width], ...].")
    ] = None,
    size: Annotated[str | None, typer.Option(help="One input of this size, HEIGHTxWIDTH in pixels, in place of images.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Count over the first N images, in place of the suite's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print a report in Markdown.")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Write to this file instead.")] = None,
) -> None:
    """Count FLOPs and parameters, beside the published ones; no weights are needed and nothing is computed."""
    if as_json and as_markdown:
        raise M2FBenchError("--json and --markdown: one of the two")
    if output is not None and not (as_json or as_markdown):
        raise M2FBenchError(f"-o {output}: say what to write, --json or --markdown")
    if output is not None:
        _check_output(output)
    from m2fbench.flops import FlopsRequest
    from m2fbench.flops import flops as count
    from m2fbench.reporting.terminal.flops import flops_display, markdown

    request = FlopsRequest(
        suite=suite, only=tuple(only or ()), data=data, sizes=sizes, size=_size(size), images=images, config=config, labels=labels
    )
    console = open_console()
    aside = Console(stderr=True, highlight=False, markup=False)
    with aside.status("counting") as status:

        def progress(row: str, done: int, all_: int) -> None:
            status.update(Text(f"counting {row}: {done} of {all_} input sizes"))

        report = count(targets, request, progress)
    if not (as_json or as_markdown):
        for part in flops_display(report):
            console.print(part, soft_wrap=isinstance(part, Text))
        return
    text = json.dumps(report.to_json(), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    if as_markdown:
        text = markdown(report, _command(targets, request, size, output))
    if output is None:
        typer.echo(text, nl=False)
    else:
        write_atomically(output, text)
        console.print(Text(f"written: {output}"), soft_wrap=True)


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", text.strip().lower())
    if match is None or min(int(match[1]), int(match[2])) < 1:
        raise SuiteError(f"--size {shown(text, 40)}: expected HEIGHTxWIDTH in pixels, as in 800x1216")
    from m2fbench.flops_inputs import MAX_EDGE

    if max(int(match[1]), int(match[2])) >= MAX_EDGE:
        raise SuiteError(f"--size {shown(text, 40)}: the largest edge that is counted is {MAX_EDGE - 1} pixels")
    return int(match[1]), int(match[2])


def _check_output(path: Path) -> None:
    """Before anything is counted. Raises StoreError."""
    if path.exists() and not path.is_file():
        raise StoreError(
            f"-o {path}: expected a file to write, got {'a folder' if path.is_dir() else 'something else'}; name a file"
        )
    if not path.parent.is_dir():
        raise StoreError(f"-o {path}: there is no folder {path.parent}; make it, or name another")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise StoreError(f"-o {path}: no permission to write in {path.parent}; name another folder")


def _command(targets: list[str], request: object, size: str | None, output: Path | None) -> str:
    """The command line that makes the report again."""
    words = ["m2fbench", "flops", *targets]
    for name in ("only", "suite", "config", "labels", "data", "sizes", "images"):
        value = getattr(request, name)
        if isinstance(value, Path):  # the report may be read where that path means nothing
            value = value.name if name == "sizes" else "DATA"
        for one in value if isinstance(value, tuple) else (value,):
            words += [f"--{name}", str(one)] if one is not None else []
    words += ["--size", size] if size else []
    return shlex.join([*words, "--markdown", *(["-o", str(output)] if output else [])])
