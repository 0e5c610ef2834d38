"""``m2fbench show``: one image of a run, with truth, prediction and what differs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from m2fbench.cli_common import DataOption, open_console
from m2fbench.errors import StoreError, shown
from m2fbench.writing import check_folder, write_atomically


class HeadName(StrEnum):
    instance = "instance"
    panoptic = "panoptic"
    semantic = "semantic"


def show_image(
    run: Annotated[Path, typer.Argument(help="A run directory: RUNS/SUITE/CHECKPOINT/VARIANT.")],
    image_id: Annotated[str, typer.Argument(help="The image's id, or its file's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture: .png, .jpg or .webp.")],
    data: DataOption = None,
    head: Annotated[HeadName | None, typer.Option(help="Whose predictions, where a run has several; else the task's own.")] = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Instances of at least this score.")] = 0.5,
    size: Annotated[int, typer.Option(min=16, max=8192, help="Longest edge of each part of the picture, in pixels.")] = 640,
    against: Annotated[Path | None, typer.Option(help="Another run over the same images, to show beside this one.")] = None,
) -> None:
    """Draw one image of a run: photo, truth, prediction, and what is right, missed, false and of a wrong class."""
    _check(output)
    from m2fbench.analysis.runs import one_run_folder, open_runs

    folders = [one_run_folder(path) for path in ([run] if against is None else [run, against])]
    if len(set(folders)) < len(folders):
        raise StoreError(f"--against {against}: expected another run, got the same one twice")
    from m2fbench.reporting.images.sheets import Look
    from m2fbench.reporting.images.showing import encoded, show_run

    with Console(stderr=True, highlight=False, markup=False).status("drawing"):
        first, *rest = open_runs(folders, data=data)
        look = Look(size, score)
        result = show_run(first, image_id, None if head is None else head.value, look, *rest)
        write_atomically(output, encoded(result.image, output.suffix))
    open_console().print(Text(f"{output}: {result.words}"), soft_wrap=True)


def _check(output: Path) -> None:
    """Before anything is read. Raises StoreError."""
    if output.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise StoreError(f"-o {shown(output)}: expected a name ending in .png, .jpg or .webp")
    if output.is_dir():
        raise StoreError(f"-o {shown(output)}: expected a file to write, got a folder; name a file")
    if not output.parent.is_dir():
        raise StoreError(f"-o {shown(output)}: there is no folder {shown(output.parent)}; make it, or name another")
    check_folder(output.parent)
