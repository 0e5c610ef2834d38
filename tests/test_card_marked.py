"""``m2fbench card-check`` on the sections that ``m2fbench card`` keeps: classes, layers, intervals, differences, and what is only counted."""

import io
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from m2fbench.analysis.layers import Examination, LayerFinding
from m2fbench.analysis.runs import Run
from m2fbench.errors import StoreError
from m2fbench.reporting.claims import marked
from m2fbench.reporting.claims.check import CardCheck, check_card
from m2fbench.reporting.claims.check_table import findings_table, legend, summary
from m2fbench.reporting.claims.verdicts import Verdict
from m2fbench.results import RunResult
from m2fbench.types import Measurement, Published

LIMITS = """<!-- m2fbench:begin limits -->
- Weakest classes: ring 73.59 (69.20 to 77.96) of 173 true segments and cross 78.38 (74.39 to 82.15) of 154; each by the PQ of that class alone.
- Divided by position, “inside” (176 images) loses most: there it is 73.63 (70.96 to 76.33), 6.51 points less than over all, by PQ_th.
<!-- m2fbench:end limits -->
"""
FACTORS = """<!-- m2fbench:begin factors -->
| divided by | subset | metric | value of the subset | 95 % interval | images | objects |
| --- | --- | --- | ---: | ---: | ---: | ---: |
| position | inside | PQ_th | 73.63 | 70.96 to 76.33 | 176 | 384 |
<!-- m2fbench:end factors -->
"""
RESULTS = """<!-- m2fbench:begin results -->
| metric | value | 95 % interval | published | difference |
| --- | ---: | ---: | ---: | ---: |
| PQ | 86.15 | 84.98 to 87.28 | 86.00 | +0.15 |

What mending one kind of error alone would add to PQ 86.15, in points: mask quality 7.6 (1,197 segments) and missed 4.9 (162 segments).

| class | PQ of the class | 95 % interval | true segments |
| --- | ---: | ---: | ---: |
| ring | 73.59 | 69.20 to 77.96 | 173 |
| cross | 78.38 | 74.39 to 82.15 | 154 |

| variant | what differs | PQ | change |
| --- | --- | ---: | ---: |
| fp32 | nothing | 86.15 |   |
| bf16 | bfloat16 | 86.13 | -0.02 (-0.17 to +0.11) |
<!-- m2fbench:end results -->
"""
LAYERS = """<!-- m2fbench:begin examination -->
| after layer | PQ there | FLOPs saved | queries that change class |
| --- | ---: | ---: | ---: |
| 0 | 68.46 | 8.1 % | - |
| 1 | 86.15 | 0.0 % | 3.3 % |

Stopping after layer 0 of 1 gives 17.69 points less, by PQ, for 8 % fewer FLOPs: a variant `decoder_layers: 0`.
<!-- m2fbench:end examination -->
"""
CARD = "\n".join(("# me/rings\n", LIMITS, FACTORS, RESULTS, LAYERS))


def run(variant: str, value: float, *classes: Measurement) -> Run:
    result = RunResult(
        suite={"name": "shapes_panoptic", "title": "Shapes"}, row="rings", variant={"name": variant, "dtype": "float32"}, status="complete",
        checkpoint={"reference": "me/rings", "sha256": "aa" * 32}, dataset={"name": "shapes", "scored_images": 200}, protocol={"name": "paper"},
        measurements=(Measurement("PQ", value), *classes), published=(Published("PQ", 86.0, "a report"),),
    )  # fmt: skip
    return Run(Path(variant), variant, result, None, None)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    """Two variants, the first of them examined."""
    layers = (LayerFinding(0, {"PQ": 68.4612}, saved=0.0812), LayerFinding(1, {"PQ": 86.1504}, saved=0.0, class_changed=0.0334))
    found = Examination("shapes_panoptic", "rings", "fp32", "", 200, 200, layers, (), {}, 0.0)
    monkeypatch.setattr(marked, "read_examination", lambda folder: found if folder.name == "fp32" else None)
    by_class = (Measurement("PQ", 73.5921, category="ring"), Measurement("PQ", 78.3799, category="cross"))
    return [run("fp32", 86.1504, *by_class), run("bf16", 86.1312)]


def check(tmp_path: Path, text: str, runs: Sequence[Run] = ()) -> CardCheck:
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    return check_card(path, runs)


def test_what_is_right_holds_and_the_rest_is_counted(tmp_path: Path, runs: list[Run]) -> None:
    found = check(tmp_path, CARD, runs)
    assert [f for f in found.findings if f.verdict is not Verdict.confirmed] == []
    assert found.unchecked == {"intervals": 8, "subsets": 3, "error costs": 2}
    end = "13 figures of its marked sections were not checked (8 of intervals, 3 of subsets, 2 of error costs)"
    assert summary(found).endswith(end)
    assert found.to_json()["marked_figures_not_checked"] == found.unchecked
    assert "were not checked have no row" in legend(found, True)


@pytest.mark.parametrize(
    ("right", "wrong", "evidence"),
    [
        ("| ring | 73.59", "| ring | 74.59", "measured: 73.59"),
        ("ring 73.59 (", "ring 74.59 (", "measured: 73.59"),
        ("| 0 | 68.46", "| 0 | 88.46", "measured: 68.46"),
        ("| 8.1 %", "| 9.1 %", "measured: 8.1"),
        ("| 3.3 %", "| 3.5 %", "measured: 3.3"),
        ("gives 17.69", "gives 17.29", "measured: 17.69"),
    ],
)
def test_what_was_measured_of_classes_and_layers(right: str, wrong: str, evidence: str, tmp_path: Path, runs: list[Run]) -> None:
    assert CARD.count(right) == 1
    found = check(tmp_path, CARD.replace(right, wrong), runs)
    assert [f.evidence for f in found.findings if f.verdict is Verdict.contradicted] == [evidence]


@pytest.mark.parametrize(
    ("right", "wrong", "evidence"),
    [
        ("| PQ | 86.15", "| PQ | 89.15", "outside its own 95 % interval, 84.98 to 87.28"),
        ("| ring | 73.59", "| ring | 79.59", "outside its own 95 % interval, 69.20 to 77.96"),
        ("PQ_th | 73.63", "PQ_th | 93.63", "outside its own 95 % interval, 70.96 to 76.33"),
        ("there it is 73.63", "there it is 93.63", "outside its own 95 % interval, 70.96 to 76.33"),
        ("| +0.15", "| +0.25", "value minus published is +0.15 in its own table (86.15 and 86.00)"),
        ("| -0.02", "| -0.12", "PQ against the first line is -0.02 in its own table (86.13 and 86.15)"),
    ],
)
def test_a_row_that_contradicts_itself_needs_no_run(right: str, wrong: str, evidence: str, tmp_path: Path) -> None:
    assert CARD.count(right) == 1
    told = [f.evidence for f in check(tmp_path, CARD.replace(right, wrong)).findings if f.verdict is Verdict.contradicted]
    assert evidence in told
    assert not check(tmp_path, CARD).contradicted
    outside = CARD.replace(right, wrong).replace("m2fbench:", "somebody:")
    assert not check(tmp_path, outside).contradicted  # what others mean by an interval is theirs


def test_without_runs_or_a_readable_examination_the_figures_are_counted(
    tmp_path: Path, runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(tmp_path, CARD).unchecked == {"intervals": 8, "layers": 6, "classes": 4, "subsets": 3, "error costs": 2}

    def damaged(folder: Path) -> Examination:
        raise StoreError(f"{folder}: not an examination")

    monkeypatch.setattr(marked, "read_examination", damaged)
    assert check(tmp_path, CARD, runs).unchecked["layers"] == 6


@pytest.mark.full
def test_what_is_said_of_many_is_one_row_and_names_stay_whole(tmp_path: Path) -> None:
    from rich.console import Console

    name = "AutoTokenizer.from_pretrained(facebook/mask2former-swin-tiny-coco-instance)"
    code = f'```python\nfrom transformers import AutoTokenizer\nAutoTokenizer.from_pretrained("{name[30:-1]}")\n```\n'
    found = check(tmp_path, f"{CARD}\nAn AP of 12.34, APs 23.45 and AP50 45.67.\n\n{code}")
    console = Console(width=80, record=True, file=io.StringIO())
    table = findings_table(found, False, 80)
    assert table is not None
    console.print(table)
    drawn = console.export_text()
    assert drawn.count("only its own runs") == 1
    assert "claims:" in drawn
    assert "mask2former-swin-" in drawn
    assert legend(found, False).endswith("Only “contradicted” makes the exit status 1.")
    assert "confirmed:" not in legend(found, False)


@pytest.mark.parametrize(
    "text",
    [
        "| PQ | value | 95 % interval | published | difference |\n|---|---|---|---|---|\n| a | 1.50\n| b | 1.5 | | | +0.10 |\n",
        "| difference | value | published |\n|---|---|---|\n| +0.10 |\n",
        f"| after layer | PQ there |\n|---|---|\n| {'9' * 5000} | 1.{'2' * 5000} |\n| | 1.5 |\n",
        f"Stopping after layer {'9' * 5000} of 5 gives {'9' * 400}.25 points less, by PQ: so. A PQ 1.50 (nan to 2.00).\n",
        "| class | change |\n|---|---|\n| - | 1.50 (2.00 to\n",
    ],
)
def test_damaged_sections_are_read(text: str, tmp_path: Path, runs: list[Run]) -> None:
    for name in ("results", "examination", "nothing"):
        assert not check(tmp_path, f"<!-- m2fbench:begin {name} -->\n{text}", runs).count(Verdict.gap)


def test_a_figure_at_the_end_of_a_sentence_counts(tmp_path: Path) -> None:
    text = "<!-- m2fbench:begin limits -->\nThe same weights give 65.83 instead of 71.24.\n<!-- m2fbench:end limits -->\n"
    assert check(tmp_path, text).unchecked == {"other figures": 2}


@pytest.mark.full
def test_endless_figures_are_counted_in_time(tmp_path: Path) -> None:
    start = time.process_time()
    rows = "| a | b |\n|---|---|\n" + "| 1.5 | 2.5 |\n" * 6000
    text = f"<!-- m2fbench:begin results -->\n{rows}\n{'Rings get 1.5. ' * 6000}{'1' * 60000}\n<!-- m2fbench:end results -->\n"
    found = check(tmp_path, text)
    assert found.unchecked == {"other figures": 18000}
    assert time.process_time() - start < 10
