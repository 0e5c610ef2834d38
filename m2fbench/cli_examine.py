"""``m2fbench examine``: what each decoder layer adds, and where queries look."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from m2fbench.cli_common import INTERRUPTED, DataOption, DeviceName, fail, open_console, warn

if TYPE_CHECKING:
    from m2fbench.analysis.layers import Examination

_EXAMPLES, _LIMIT = 4, 200  # as in m2fbench.examining
_FIGURES = 4  # columns of them
_HEADLINE = ("PQ", "AP_th_pan", "mIoU_pan", "AP", "AP50", "APs", "boundary_AP", "mIoU", "pixel_accuracy")


def examine(
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    data: DataOption = None,
    device: Annotated[DeviceName, typer.Option(help="Where the model runs.")] = DeviceName.auto,
    images: Annotated[int, typer.Option(min=0, help="Keep masks and attention of the first K images.")] = _EXAMPLES,
    image: Annotated[
        list[str] | None, typer.Option(help="Keep those of the image of this id, in place of the first ones; repeatable.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Score every layer over the first N images of the run.")] = _LIMIT,
    replace: Annotated[
        bool, typer.Option("--replace", help="Also replace a stored examination over more images, which is refused otherwise.")
    ] = False,
) -> None:
    """Look at a run's model layer by layer: the figures that stopping early would give, and where its queries look.

    Stored as examination.json in the run directory, where reports find it, with the masks and attention kept; it replaces an earlier
    one, but for one over more images.
    """
    from m2fbench.examining import examine as examine_run
    from m2fbench.reporting.terminal.runs import RunDisplay

    console = open_console()
    try:
        with RunDisplay(console) as display:
            found = examine_run(
                run, data=data, device=device.value, examples=images, image_ids=image or (), limit=limit, replace_fuller=replace,
                listener=display,
            )  # fmt: skip
    except KeyboardInterrupt:
        fail("interrupted; nothing was stored", INTERRUPTED)
    _show(console, found)


def _show(console: Console, found: "Examination") -> None:
    console.print()
    console.print(_table(found))
    some = f"the first {found.images} of the run's {found.run_images} images" if found.images < found.run_images else None
    whose = "the run over these images" if some else "the run"
    same = f"; the last layer's figures are those of {whose}, to the last digit" if found.difference == 0 else ""
    console.print(f"over {some or f'all {found.images} images of the run'}{same}")
    console.print(
        "mask IoU and class changed: against the layer before; these and what it sees: over queries whose best class is an object at the end"
    )
    warn(console, found.notes)


def _table(found: "Examination") -> Table:
    names = [name for name in _HEADLINE if name in found.own][:_FIGURES]
    table = Table(title=f"{found.row} · {found.variant}: predictions after every decoder layer", title_justify="left")
    columns = ("layer", *names, "GFLOPs", "saved", "mask IoU", "class changed", "feature map", "sees of it", "mask empty, sees all")
    for name in columns:
        table.add_column(name, justify="right")
    for layer in found.layers:
        level = "-" if layer.level is None else f"{layer.level + 1}"
        shares = [_share(value) for value in (layer.saved, layer.mask_iou, layer.class_changed)]
        table.add_row(
            str(layer.layer), *(_number(layer.figures.get(name, math.nan), 2) for name in names), _number(layer.flops / 1e9, 2), *shares,
            level, _share(layer.visible), _share(layer.everywhere),
        )  # fmt: skip
    return table


def _number(value: float, digits: int) -> str:
    return "-" if math.isnan(value) else f"{value:.{digits}f}"


def _share(value: float) -> Text:
    return Text(_number(100 * value, 1) + ("" if math.isnan(value) else " %"))
