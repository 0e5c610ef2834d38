"""``m2fbench nightly``: a matrix of suites, checkpoints and variants, and what moved since the nights before."""

from pathlib import Path
from typing import Annotated

import typer


def nightly(config: Annotated[Path, typer.Argument(help="A nightly's configuration, a YAML file.")]) -> None:
    """Run a matrix of suites, compare every figure with its baseline, and say what moved. Interrupted, the same command resumes."""
    raise NotImplementedError
