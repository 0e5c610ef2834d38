"""``m2fbench dashboard``: a history as a static site."""

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from m2fbench.cli_common import open_console
from m2fbench.errors import NightlyError

if TYPE_CHECKING:
    from m2fbench.reporting.dashboard.site import SiteRequest


def dashboard(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the site: an empty one, or that of an earlier site.")],
    history: Annotated[
        str | None,
        typer.Option(
            envvar="M2FBENCH_HISTORY",
            help="Folder of the history, or an address that fsspec opens; the configuration's, or 'history', where none is named.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Of the site.", show_default=False)] = None,
    url: Annotated[
        str | None, typer.Option(help="Where the site is published, https://..., for whole links in the feed.", show_default=False)
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="A nightly's configuration: its rules say what a regression is, and its title, url and history hold where none is given.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write a history as a static site: every series with its steps, every run, and a feed of regressions."""
    from m2fbench.history.history import History
    from m2fbench.reporting.dashboard.site import write_site
    from m2fbench.reporting.terminal.waiting import Waiting

    console = open_console()
    place, request = _settings(config, history, title, url)
    with Waiting(console) as waiting:
        waiting.tell("reading the history")
        with History(place, tell=waiting.tell) as opened:
            entries, series, problems, accepted = opened.entries(), opened.series(), opened.problems(), opened.acceptances()
        written = write_site(
            output, entries, series, problems, request, acceptances=accepted, tell=waiting.tell, progress=waiting.progress
        )
    console.print(Text(f"dashboard: {written[0]} ({len(series)} series, {len(entries)} results)"), soft_wrap=True)


def _settings(config: Path | None, history: str | None, title: str | None, url: str | None) -> "tuple[str, SiteRequest]":
    """Where the history is, and what is asked of the site. Raises NightlyError."""
    from m2fbench.analysis.regressions import Rules
    from m2fbench.reporting.dashboard.site import SiteRequest

    rules = Rules()
    if config is not None:
        from m2fbench.nightly.loading import load_nightly

        nightly = load_nightly(config)
        rules, history = nightly.config.rules.rules, history or nightly.history
        title, url = title or nightly.config.title or nightly.config.nightly, url or nightly.config.url
    if url is not None and not url.lower().startswith(("https://", "http://")):
        raise NightlyError(f"url {url}: expected the address of the site's folder, https://...")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return history or "history", SiteRequest(title or "Mask2Former nightlies", url, rules, now)
