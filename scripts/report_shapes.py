"""Make the report, comparison and model card of the bundled checkpoint in three variants, as ``reports/shapes`` holds them.

    python scripts/report_shapes.py reports/shapes

It runs the commands that it prints, each as a user would: the suite, a look at its layers, the report, one picture, the comparison, the card,
and the check of the card's claims. No download; three minutes on two cores.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

SUITE = "shapes_report"


def commands(runs: Path, out: Path, scenes: int | None) -> list[list[str]]:
    """scenes: how many; None for the suite's own number."""
    row = runs / SUITE / "shapes-tiny"
    count = [] if scenes is None else ["--set", f"dataset.count={scenes}"]
    return [
        ["run", SUITE, "--output", str(runs), *count],
        ["examine", str(row / "fp32"), "--images", "2"],
        ["report", str(runs / SUITE), "-o", str(out), "--title", "The bundled checkpoint in three variants"],
        ["show", str(row / "fp32"), "7", "-o", str(out / "scene.png"), "--size", "384"],
        ["compare", str(row / "fp32"), str(row / "transformers"), "-o", str(out / "comparison")],
        ["card", str(runs / SUITE), "-o", str(out / "card" / "README.md")],
        ["card-check", str(out / "card" / "README.md"), "--runs", str(runs / SUITE)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--runs", type=Path, help="where the runs are kept; forgotten if not given")
    parser.add_argument("--count", type=int, help="so many scenes in place of 200")
    chosen = parser.parse_args()
    (chosen.out / "card").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="m2fbench-") as folder:
        runs = chosen.runs or Path(folder) / "runs"
        for command in commands(runs, chosen.out, chosen.count):
            print(f"$ m2fbench {shlex.join(command)}", flush=True)
            subprocess.run([sys.executable, "-m", "m2fbench", *command], check=True)


if __name__ == "__main__":
    main()
