"""The committed report of the bundled checkpoint: the command that makes it is run again, whole, and must give the committed figures."""

import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

pytestmark = pytest.mark.slow

COMMITTED = ROOT / "reports" / "shapes"
TOLERANCE = 0.5  # points, as of the shapes suites: what another processor's rounding may move
Figures = dict[tuple[str, str], float]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("reports") / "shapes"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "report_shapes.py", out], capture_output=True, text=True, cwd=out.parent, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def figures(folder: Path) -> Figures:
    """(run, metric) -> the accuracy figure over all classes."""
    with (folder / "tables" / "all-figures.csv").open(newline="", encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["kind"] == "accuracy" and r["unit"] == "percent" and not r["category"]]
    return {(r["run"], r["metric"]): float(r["value"]) for r in rows if r["value"]}


def test_the_committed_figures_are_those_of_the_command(made: Path) -> None:
    now, committed = figures(made), figures(COMMITTED)
    assert now.keys() == committed.keys()
    assert {label for label, _ in now} == {"fp32", "bf16", "transformers"}
    assert len(now) > 60
    assert now == pytest.approx(committed, abs=TOLERANCE)


def test_report_comparison_and_card_are_whole(made: Path) -> None:
    for folder in (made, COMMITTED):
        for name in ("report.html", "comparison/comparison.html", "comparison/comparison.json", "card/README.md", "scene.png"):
            assert (folder / name).stat().st_size > 1000, str(folder / name)
        page = (folder / "report.html").read_text(encoding="utf-8")
        assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page), "the page loads something"


def test_the_comparison_says_what_the_plain_path_costs(made: Path) -> None:
    for folder in (made, COMMITTED):
        found = json.loads((folder / "comparison" / "comparison.json").read_bytes())
        (ap,) = (d for d in found["differences"] if d["figure"] == "AP_th_pan" and d["category"] is None)
        paired = ap["difference"]
        assert -12 < paired["low"] < paired["value"] < paired["high"] < 0


def test_the_card_is_valid_and_its_claims_hold(made: Path) -> None:
    from huggingface_hub import ModelCard

    for folder in (made, COMMITTED):
        card = ModelCard.load(folder / "card" / "README.md")
        results = {r.metric_type: r.metric_value for r in card.data.eval_results or ()}
        assert results["PQ"] == pytest.approx(86.15, abs=TOLERANCE)
        text = (folder / "card" / "README.md").read_text(encoding="utf-8")
        assert yaml.safe_load(text.split("---")[1])["pipeline_tag"] == "image-segmentation"


def test_nothing_of_the_machine_that_made_it_stands_in_it() -> None:
    for path in sorted(COMMITTED.rglob("*")):
        if path.suffix in (".html", ".md", ".csv", ".tex", ".json", ".svg"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"/(?:work|home|root|tmp)/", text), path
