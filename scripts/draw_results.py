"""The table that ``m2fbench run`` prints, as an SVG picture.

python scripts/draw_results.py runs/shapes_protocols/shapes-tiny/*/result.json --output reports/shapes_protocols.svg
"""

import argparse
import io
from pathlib import Path

from rich.console import Console

from m2fbench import read_result
from m2fbench.reporting.terminal.runs import results_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    table = results_table([read_result(path) for path in args.results])
    console = Console(record=True, file=io.StringIO(), width=112, highlight=False, markup=False)
    console.print(table)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    console.save_svg(str(args.output), title=f"m2fbench run {read_result(args.results[0]).suite['name']}")


if __name__ == "__main__":
    main()
