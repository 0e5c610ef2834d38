"""``m2fbench speed``: images per second with post-processing, where the time goes, memory and energy."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from m2fbench.cli_common import (
    INTERRUPTED,
    CheckpointsOption,
    ConfigOption,
    DataOption,
    DeviceName,
    LabelsOption,
    SetOption,
    SuiteArgument,
    fail,
    open_console,
    show,
)

if TYPE_CHECKING:
    from m2fbench.sections import Scope


class ScopeName(StrEnum):
    paper = "paper"
    task = "task"
    both = "both"


_SCOPES: "dict[ScopeName, tuple[Scope, ...]]" = {
    ScopeName.paper: ("paper",),
    ScopeName.task: ("task",),
    ScopeName.both: ("paper", "task"),
}


def speed(
    suite: SuiteArgument,
    checkpoint: CheckpointsOption = None,
    config: ConfigOption = None,
    labels: LabelsOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Measure the row of this name only; repeatable.")] = None,
    variant: Annotated[list[str] | None, typer.Option(help="Measure the variant of this name only; repeatable.")] = None,
    data: DataOption = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N images.")] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the model runs.")] = DeviceName.auto,
    set_: SetOption = None,
    output: Annotated[Path, typer.Option(help="Folder of run directories.")] = Path("runs"),
    scope: Annotated[
        ScopeName | None,
        typer.Option(
            help="paper: as the paper's fps; task: the task's own head, every input shape warmed up. The suite's if not given."
        ),
    ] = None,
    energy: Annotated[bool, typer.Option("--energy", help="Also joules per image, from the hardware's counters.")] = False,
    country: Annotated[
        str | None, typer.Option(help="Three letters (ISO 3166) of whose grid it is, for grams of CO2e; implies --energy.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Time a suite's variants side by side, image by image, each beside its accuracy on the same images."""
    from m2fbench.reporting.terminal.runs import RunDisplay
    from m2fbench.runner import run as run_suite
    from m2fbench.speed import SpeedRequest
    from m2fbench.suite import load_suite

    console = Console(stderr=True, highlight=False, markup=False) if as_json else open_console()
    scopes = None if scope is None else _SCOPES[scope]
    loaded = load_suite(suite, set_ or ()).model_copy(update={"measure": ["speed"]})
    try:
        with RunDisplay(console) as display:
            results = run_suite(
                loaded, checkpoints=checkpoint or (), config=config, labels=labels, only=only or (), variants=variant or (), data=data,
                limit=limit, device=device.value, output=output, listener=display,
                speed=SpeedRequest(scopes=scopes, energy=energy, country=country),
            )  # fmt: skip
    except KeyboardInterrupt:
        fail("interrupted; times are not resumed: the same command measures anew", INTERRUPTED)
    if as_json:
        typer.echo(json.dumps([r.to_json() for r in results], indent=1, ensure_ascii=False, allow_nan=False))
    else:
        show(console, results, per_class=False)
