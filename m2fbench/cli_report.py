"""``m2fbench report``: tables, figures and one page of any runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from m2fbench.cli_common import DataOption, open_console


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run directories, or folders of them; the first run is the reference.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to write report.html, tables/ and figures/ into.")],
    data: DataOption = None,
    title: Annotated[str | None, typer.Option(help="Of the page.")] = None,
    resamples: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Bootstrap resamples behind intervals and comparisons.")
    ] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the resamples.")] = 0,
    images: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Images to show of each kind (best, worst, and so on) for every run; by default 3, fewer for over three runs, and best and "
            "worst ones for one variant of each checkpoint only, which keeps the page at a few MB.",
            show_default=False,
        ),
    ] = None,
    no_images: Annotated[bool, typer.Option("--no-images", help="Show no image of the dataset, as --images 0.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only what is stored: no intervals, subsets, errors or images.")] = False,
) -> None:
    """Write a report of runs: one HTML page that needs no network, tables (CSV, Markdown, LaTeX) and figures (PNG, SVG)."""
    from m2fbench.reporting.page.looking import Effort
    from m2fbench.reporting.page.report import ReportRequest, write_report
    from m2fbench.reporting.terminal.waiting import Waiting

    console = open_console()
    with Waiting(console) as waiting:
        effort = Effort(resamples, seed, 0 if no_images else images, quick, waiting.tell, waiting.progress)
        written = write_report(runs, output, ReportRequest(data, title, effort))
    console.print(Text(f"report: {written[0]} ({len(written) - 1} tables and figures beside it)"), soft_wrap=True)
