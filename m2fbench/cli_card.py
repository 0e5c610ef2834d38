"""``m2fbench card``: a Hugging Face model card from runs."""

import re
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
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
    same_model: Annotated[
        bool, typer.Option("--same-model", help="With --update: the card is of this checkpoint, though it names another model.")
    ] = False,
    data: DataOption = None,
    resamples: Annotated[int, typer.Option(min=100, help="Resamples behind the 95 % intervals.")] = 1000,
    quick: Annotated[
        bool, typer.Option("--quick", help="No intervals, subsets or errors: only what the results say themselves.")
    ] = False,
) -> None:
    """A Hugging Face model card: what the checkpoint is, code that runs, results with intervals, costs, limits; what nobody measured is marked."""
    from m2fbench.analysis.runs import open_runs
    from m2fbench.reporting.card.another import refuse_another
    from m2fbench.reporting.card.changes import changes, no_longer_there
    from m2fbench.reporting.card.facts import CardOptions, gather
    from m2fbench.reporting.card.model_card import analysed, eval_result_files, make_card, updated_card
    from m2fbench.reporting.terminal.waiting import Waiting
    from m2fbench.writing import make_folder, write_atomically

    if (output is None) == (update is None):
        raise StoreError("expected either -o CARD for a new card or --update CARD for one that is there")
    hub_datasets = _hub_datasets(eval_results or ())
    _check_words(model_id, license)
    target = update or output
    assert target is not None
    if target.is_dir():
        raise StoreError(f"{target}: expected the card's file, got a folder; give {target / 'README.md'}")
    _check_writable(target)
    before = _read(update) if update is not None else b""
    console = open_console()
    with Waiting(console) as waiting:
        waiting.tell("looking at the runs")
        facts = gather(open_runs(runs, data=data), CardOptions(model_id, title, license, resamples, quick))
        if update is not None and not same_model:
            refuse_another(facts, before, str(update))
        facts = analysed(facts, waiting.tell, waiting.progress)
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
    if lost := no_longer_there(before, content, str(target)) if update is not None else ():
        why = "made with --quick" if quick else "see the card for the reason"
        console.print(Text(f"note: no longer in the card: {', '.join(lost)} ({why})", style="yellow"), soft_wrap=True)
    said = "written" if update is None else "brought up to date" if content != before else "up to date already"
    console.print(Text(f"{said}: {target}"), soft_wrap=True)
    if update is not None and content != before:
        for clause in changes(before, content, str(update)):
            console.print(Text(f"  {clause}"), soft_wrap=True)
    for name in files:
        console.print(Text(f"written: {target.parent / '.eval_results' / name}"), soft_wrap=True)


def _check_writable(target: Path) -> None:
    """Raises StoreError where no file can be made in the target's folder, or where that is to be made; nothing is left there."""
    from m2fbench.writing import store_error

    there = next(folder for folder in target.absolute().parents if folder.exists())
    try:
        with TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise store_error(target, error) from error


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
