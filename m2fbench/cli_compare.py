"""``m2fbench compare``: two runs over the same images, what differs and how surely."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import DataOption, open_console
from m2fbench.errors import StoreError

if TYPE_CHECKING:
    from m2fbench.analysis.findings import Comparison
    from m2fbench.analysis.runs import Run, Tell

CLASSES = 10


def compare(
    a: Annotated[Path, typer.Argument(metavar="A", help="A run directory, or a folder that holds just one.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="The run that is said to be better or worse than A.")],
    data: DataOption = None,
    resamples: Annotated[int, typer.Option(min=100, max=1_000_000, help="Resamples behind intervals and p-values.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draws.")] = 0,
    top: Annotated[int, typer.Option(min=0, help="How many of the images that lost most, and of those that gained most.")] = 5,
    per_class: Annotated[
        bool, typer.Option("--per-class", help="Print every class, not only those that differ most surely.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON, every figure of every class and every image.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for comparison.html, with pictures side by side, and comparison.json."),
    ] = None,
) -> None:
    """Compare two runs over the images that both have: paired differences with intervals, and the images gained and lost."""
    from m2fbench.analysis.comparing import compare_runs
    from m2fbench.reporting.terminal.comparison import comparison_json
    from m2fbench.reporting.terminal.waiting import Waiting

    if output is not None:
        _check(output)
    a, b = pair_of(a, b)
    console = Console(stderr=True, highlight=False, markup=False) if as_json else open_console()
    with Waiting(console) as waiting:
        waiting.tell("opening the runs")
        first, second = open_pair(a, b, data)
        found = compare_runs(first, second, resamples=resamples, seed=seed, tell=waiting.tell, progress=waiting.progress)
        written = [] if output is None else write_comparison(found, first, second, output, top, waiting.tell)
    if as_json:
        typer.echo(json.dumps(comparison_json(found), indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show_comparison(console, found, top, per_class)
    for path in written:
        console.print(Text(f"written: {path}"), soft_wrap=True)


def _check(output: Path) -> None:
    """Before anything is read. Raises StoreError."""
    from m2fbench.writing import check_folder

    if output.exists() and not output.is_dir():
        raise StoreError(f"-o {output}: expected a folder to write into, got a file; name a folder")
    check_folder(output)


def pair_of(a: Path, b: Path) -> tuple[Path, Path]:
    """The folders of the two runs, before anything is opened. Raises StoreError where a folder holds more than one, or both the same."""
    from m2fbench.analysis.runs import one_run_folder

    first, second = one_run_folder(a), one_run_folder(b)
    if first == second:
        raise StoreError(f"{a} and {b} are the same run; name two that differ")
    return first, second


def open_pair(a: Path, b: Path, data: Path | None) -> "tuple[Run, Run]":
    """The two runs, under names that tell them apart. Raises StoreError as ``pair_of`` does."""
    from m2fbench.analysis.runs import open_runs

    first, second = open_runs(pair_of(a, b), data=data)
    return first, second


def write_comparison(found: "Comparison", a: "Run", b: "Run", folder: Path, top: int, tell: "Tell") -> list[Path]:
    """The page, with pictures of the images that changed most, and all of it as JSON; the files. Raises StoreError."""
    from m2fbench.reporting.images.gallery import compared_pictures
    from m2fbench.reporting.page.comparison import write_comparison_html
    from m2fbench.reporting.terminal.comparison import comparison_json
    from m2fbench.writing import make_folder, write_atomically

    pictures = compared_pictures(a, b, found.changes, top, tell=tell) if top else ()
    make_folder(folder)
    page, document = folder / "comparison.html", folder / "comparison.json"
    tell("writing the page")
    write_comparison_html(found, pictures, page)
    write_atomically(document, json.dumps(comparison_json(found), indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    return [page, document]


def show_comparison(console: Console, found: "Comparison", top: int, per_class: bool) -> None:
    """Differences over all, by class, images and notes."""
    from m2fbench.reporting.terminal.comparison import class_tables, gains, image_table, losses, method, overall_table

    console.print()
    console.print(overall_table(found))
    for table in class_tables(found, None if per_class else CLASSES):
        console.print(table)
    for title, changes in (("images that lost most", losses(found, top)), ("images that gained most", gains(found, top))):
        if changes:
            console.print(image_table(title, changes))
    for line in method(found):
        console.print(Text(line, style="dim"), soft_wrap=True)
    for note in found.notes:
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
