"""``m2fbench dashboard``: a history as a static site."""

from pathlib import Path
from typing import Annotated

import typer


def dashboard(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the site.")],
    history: Annotated[str, typer.Option(help="Folder of the history, or an address that fsspec opens.")] = "history",
) -> None:
    """Write a history as a static site: every series with its steps, every run, and a feed of regressions."""
    raise NotImplementedError
