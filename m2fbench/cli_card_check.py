"""``m2fbench card-check``: a model card's claims against the published tables and the measured runs."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import OUTSIDE_TOLERANCE, DataOption, open_console

CONTRADICTED = OUTSIDE_TOLERANCE  # exit status


def card_check(
    card: Annotated[Path, typer.Argument(help="The card: a README.md, or a page that holds one.")],
    runs: Annotated[
        list[Path] | None, typer.Option("--runs", help="Run directories, or folders of them, that measured its model; repeatable.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Which model it is about, in place of what it says: hub id, zoo:NAME, or a backbone."),
    ] = None,
    data: DataOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Also list the claims that hold.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print every finding as JSON.")] = False,
) -> None:
    """Check what a model card claims, and the names that its code uses. Exit status 1 where a claim is contradicted."""
    from m2fbench.analysis.runs import open_runs
    from m2fbench.reporting.claims.check import check_card
    from m2fbench.reporting.claims.check_table import findings_table, legend, summary

    console = Console(stderr=True, highlight=False, markup=False) if as_json else open_console()
    with console.status("reading the card") as status:
        opened = open_runs(runs, data=data) if runs else []
        check = check_card(card, opened, model=model, tell=lambda what: status.update(Text(what)))
    if as_json:
        typer.echo(json.dumps(check.to_json(), indent=1, ensure_ascii=False))
    else:
        table = findings_table(check, everything, console.width)
        if table is not None:
            console.print(table)
            console.print(Text(legend(check, everything), style="dim"), soft_wrap=True)
        console.print(Text(summary(check)), soft_wrap=True)
    if check.contradicted:
        raise typer.Exit(CONTRADICTED)
