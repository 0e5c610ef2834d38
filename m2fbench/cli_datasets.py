"""``m2fbench datasets``: get a dataset, see whether it is all there, and bring one into another form."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.text import Text

from m2fbench.errors import DatasetError

app = typer.Typer(
    name="datasets",
    help="Fetch, check, prepare and export datasets ('m2fbench list datasets' has their names).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# readers' names for layouts
_LAYOUT_OF = {
    "coco_instance": "coco", "coco_panoptic": "coco", "mapillary": "mapillary-v1.2", "semantic_folder": "semantic-folder",
}  # fmt: skip
SetOption = Annotated[list[str] | None, typer.Option("--set", help="key=value, an option of the dataset; repeatable.")]
DataOption = Annotated[Path | None, typer.Option("--data", envvar="M2FBENCH_DATA", help="The dataset's folder, or the one above.")]


def _console() -> Console:
    """Wide enough for any line where it is not a terminal."""
    console = Console(highlight=False, markup=False)
    return console if console.is_terminal else Console(highlight=False, markup=False, width=160)


def _folder(data: Path | None) -> Path:
    if data is None:
        raise DatasetError("expected a folder for the dataset, got none: pass --data or set M2FBENCH_DATA")
    return data


def _source(name: str, settings: list[str] | None) -> tuple[str, dict[str, Any], str | None]:
    """Reader, options and task (None: all that the reader has) of what a user calls a dataset."""
    from m2fbench.suite import datasets, load_suite, suite_names

    task, options = None, {}
    if name not in datasets.names() and (name.endswith((".yaml", ".yml")) or name in suite_names()):
        suite = load_suite(name)
        name, options, task = suite.dataset.name, suite.dataset.options, suite.task
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise DatasetError(f"--set {setting}: expected key=value, an option of the dataset, as in --set version=2.0")
        options[key.removeprefix("dataset.")] = value if key.endswith("version") else yaml.safe_load(value)
    return name, options, task


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="A dataset, as 'm2fbench list datasets' names it, or a suite, whose dataset it is.")],
    data: DataOption = None,
    set_: SetOption = None,
    task: Annotated[str | None, typer.Option(help="instance, panoptic or semantic only, instead of all that it has.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count what is there of a dataset and hold it to the published counts; status 2 where something is missing."""
    from m2fbench.completeness import check_dataset

    name, options, of_suite = _source(name, set_)
    with (Console(stderr=True) if as_json else _console()).status(f"checking {name}"):
        report = check_dataset(name, data, options, task or of_suite)  # type: ignore[arg-type]  # the reader knows its tasks
    if as_json:
        typer.echo(json.dumps(report.to_json(), indent=1, ensure_ascii=False))
    else:
        console = _console()
        for head, problem in report.heads.items():
            console.print(Text(f"{head}: {'its truth is whole' if problem is None else problem}"), soft_wrap=True)
        for source in report.first_missing:
            console.print(Text(f"missing: {source}", style="yellow"), soft_wrap=True)
        if report.missing > len(report.first_missing):
            console.print(f"missing: {report.missing - len(report.first_missing):,} more")
    if report.status != "complete":
        raise DatasetError(f"{report.status}: {report.line}")
    if not as_json:
        _console().print(Text(f"complete: {report.line}", style="green"), soft_wrap=True)


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="coco-val2017, ade20k, or a dataset reader.")],
    data: DataOption = None,
    keep_archives: Annotated[bool, typer.Option("--keep-archives", help="Leave the archives in the download cache.")] = False,
) -> None:
    """Download and unpack the validation files of COCO or ADE20K. Interrupted, the same command goes on."""
    from m2fbench.acquire import fetch_dataset, folder_for
    from m2fbench.reporting.terminal.fetching import FetchDisplay

    console, target = _console(), folder_for(name, _folder(data))
    with FetchDisplay(console) as display:
        files = fetch_dataset(name, target, display, keep_archives=keep_archives)
    console.print(Text(f"{len(files):,} files of {name} are in {target}"), soft_wrap=True)


@app.command()
def prepare(
    name: Annotated[str, typer.Argument(help="ade20k.")] = "ade20k",
    data: DataOption = None,
) -> None:
    """Make ADE20K's panoptic and instance truth, as COCO files, from its label maps and instance annotations."""
    if name != "ade20k":
        raise DatasetError(f"datasets prepare: expected ade20k, got '{name}': every other dataset is read as it comes")
    from m2fbench.datasets.prepare_ade20k import prepare as prepare_files
    from m2fbench.reporting.terminal.fetching import counting

    console, folder = _console(), _folder(data)
    with counting(console, "preparing ade20k") as progress:
        made = prepare_files(folder, progress=progress)
    for path in made:
        console.print(Text(f"written: {path}"), soft_wrap=True)


@app.command()
def export(
    name: Annotated[str, typer.Argument(help="A dataset reader, as 'm2fbench list datasets' names it.")],
    target: Annotated[Path, typer.Argument(help="The folder to make.")],
    layout: Annotated[
        str,
        typer.Option(help="Whose files they look like: coco, ade20k, cityscapes, mapillary-v1.2, mapillary-v2.0, semantic-folder."),
    ],
    count: Annotated[int | None, typer.Option(min=1, help="That many images, of a dataset that makes them.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of the dataset, instead of its reader's own choice.")] = None,
    set_: SetOption = None,
    data: DataOption = None,
) -> None:
    """Write a dataset's images and truth in the layout of another, as official tools read it."""
    from m2fbench.completeness import options_of
    from m2fbench.datasets.export import export as export_files
    from m2fbench.reporting.terminal.fetching import counting
    from m2fbench.suite import datasets

    name, options, _ = _source(name, set_)
    reader = datasets.get(name, DatasetError)
    if count is not None and "count" not in reader.Options.model_fields:
        raise DatasetError(f"--count: is for a dataset that makes its images, as shapes does; {name} has those that it has")
    chosen = options_of(reader, options | {k: v for k, v in (("count", count), ("split", split)) if v is not None})
    if "panoptic" not in reader.tasks:
        raise DatasetError(f"datasets export: expected a dataset with panoptic truth, got {name}, whose truth is {reader.tasks[0]}")
    source, console = reader(chosen, data, "panoptic"), _console()
    with counting(console, f"exporting {name}") as progress:
        suites = export_files(source, _LAYOUT_OF.get(layout, layout), target, None, progress)
    own = "" if name == "shapes" else " --checkpoint CHECKPOINT"
    for suite in suites:
        console.print(Text(f"written; run it with: m2fbench run {suite} --data {target}{own}"), soft_wrap=True)
