"""``m2fbench history``: results of many nights, from files that are the truth."""

import typer

app = typer.Typer(
    name="history", help="Results of many nights: an index over result files.", no_args_is_help=True, rich_markup_mode=None
)
