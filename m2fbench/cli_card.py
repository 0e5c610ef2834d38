"""``m2fbench card``: a Hugging Face model card from runs."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from m2fbench.cli_common import DataOption, open_console
from m2fbench.errors import M2FBenchError, StoreError, shown


def card(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories of one checkpoint, or folders of them.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The card to write; README.md is what the hub shows.")
    ] = None,
    update: Annotated[
        Path | None,
        typer.Option(
            "--update", help="Bring this card up to date: its marked sections and our metadata; everything else stays as it is."
        ),
    ] = None,
    model_id: Annotated[str | None, typer.Option("--model-id", help="The model's id on the hub, for code and commands.")] = None,
    title: Annotated[str | None, typer.Option(help="The card's title; else the id's or the checkpoint's name.")] = None,
    license: Annotated[
        str | None, typer.Option(help="The weights' license, by the hub's identifier (mit, apache-2.0, other).")
    ] = None,
    eval_results: Annotated[
        list[str] | None,
        typer.Option(
            "--eval-results",
            metavar="[SUITE=]OWNER/DATASET",
            help="Also write .eval_results/SUITE.yaml beside the card, for this dataset of the hub; repeatable.",
        ),
    ] = None,
    data: DataOption = None,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples behind the 95 % intervals.")] = 1000,
    quick: Annotated[
        bool, typer.Option("--quick", help="No intervals, subsets or errors: only what the results say themselves.")
    ] = False,
) -> None:
    """A Hugging Face model card: what the checkpoint is, code that runs, results with intervals, costs, limits; what nobody measured is marked."""
    from m2fbench.analysis.runs import open_runs
    from m2fbench.reporting.card.facts import CardOptions
    from m2fbench.reporting.card.model_card import collect, eval_result_files, make_card, updated_card
    from m2fbench.writing import make_folder, write_atomically

    if (output is None) == (update is None):
        raise StoreError("expected either -o CARD for a new card or --update CARD for one that is there")
    hub_datasets = _hub_datasets(eval_results or ())
    _check_words(model_id, license)
    target = update or output
    assert target is not None
    if target.is_dir():
        raise StoreError(f"{target}: expected the card's file, got a folder; give {target / 'README.md'}")
    before = _read(update) if update is not None else b""
    console = open_console()
    with console.status("looking at the runs") as status:
        found = open_runs(runs, data=data)
        options = CardOptions(model_id, title, license, resamples, quick)
        facts = collect(found, options, lambda what: status.update(Text(what)))
        content = make_card(facts).encode() if update is None else updated_card(facts, before, str(update))
        files = eval_result_files(facts, hub_datasets) if hub_datasets else {}
    make_folder(target.parent)
    if content != before:
        write_atomically(target, content)
    for name, text in files.items():
        make_folder(target.parent / ".eval_results")
        write_atomically(target.parent / ".eval_results" / name, text)
    for suite in facts.suites:
        for run in suite.runs:
            if run.problem and run is suite.reference:
                console.print(
                    Text(f"note: {run.label}: no intervals, subsets or errors: {run.problem}", style="yellow"), soft_wrap=True
                )
    said = "written" if update is None else "brought up to date" if content != before else "up to date already"
    console.print(Text(f"{said}: {target}"), soft_wrap=True)
    for name in files:
        console.print(Text(f"written: {target.parent / '.eval_results' / name}"), soft_wrap=True)


def _read(card: Path) -> bytes:
    try:
        return card.read_bytes()
    except OSError as error:
        raise StoreError(f"{card}: cannot be read: {error.strerror}; for a new card use -o") from error


def _check_words(model_id: str | None, license: str | None) -> None:
    """Raises M2FBenchError for what the hub takes for no id, or for no license."""
    if model_id is not None and not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", model_id):
        raise M2FBenchError(f"--model-id {shown(model_id)}: expected a model's id on the hub, OWNER/MODEL")
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,60}", license):
        raise M2FBenchError(f"--license {shown(license)}: expected a license as the hub names it, such as mit, apache-2.0 or other")


def _hub_datasets(values: "tuple[str, ...] | list[str]") -> Mapping[str, str]:
    """Suite name, or "" for every suite -> id of a dataset of the hub."""
    found = {}
    for value in values:
        suite, _, dataset = value.rpartition("=")
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", dataset):
            raise M2FBenchError(
                f"--eval-results {value}: expected a dataset's id on the hub, OWNER/DATASET, or SUITE=OWNER/DATASET"
            )
        found[suite] = dataset
    return found
