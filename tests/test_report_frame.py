"""The frame of figures, and the tables made from it, in each format: what they say, and that names stay text."""

import csv
import io
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt
from report_cases import CLASSES, HOSTILE, QUOTED, SOURCE, VARIANT, flops, looked, material, result, speed

from m2fbench.analysis.findings import Estimate, Intervals
from m2fbench.analysis.runs import Run
from m2fbench.reporting.page import tables
from m2fbench.reporting.page.frame import COLUMNS, cost_of, frame_of, line_of, value_of
from m2fbench.reporting.page.records import Cell, Column, Table, interval_cell, number_cell
from m2fbench.reporting.page.table_text import csv_of, latex_of, markdown_of
from m2fbench.reporting.page.tables_classes import class_table
from m2fbench.reporting.page.tables_findings import subsets_table


def run(**changes: Any) -> Run:
    known: dict[str, Any] = {"folder": Path("x"), "label": "swin", "result": result(), "speed": None, "flops": None}
    return Run(**(known | changes))


def test_every_figure_is_a_line_and_published_ones_stand_beside() -> None:
    frame = frame_of([run()])
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == len(result().measurements) + 2  # PQ_st, which was published only, and the parameters
    pq = line_of(frame, "swin", "PQ")
    assert pq is not None
    assert (pq.value, pq.published, pq.difference, pq.comparable, pq.published_source) == (50.0, 52.0, -2.0, True, SOURCE)
    missing = line_of(frame, "swin", "PQ_st")
    assert missing is not None
    assert (math.isnan(missing.value), missing.published) == (True, 43.0)
    assert frame[frame.category == "tree"].published.isna().all()  # what is published is over all classes


def test_intervals_are_of_the_run_the_figure_and_the_class() -> None:
    figures = {("PQ", None): Estimate(50.0, 48.0, 52.0), ("PQ", "tree"): Estimate(77.0, 70.0, 81.0)}
    frame = frame_of([run(), run(label="other")], {"swin": Intervals(figures, 10, 100, 0)})
    with_interval = frame[frame.low.notna()]
    assert list(zip(with_interval.run, with_interval.metric, with_interval.low, with_interval.high, strict=True)) == [
        ("swin", "PQ", 48.0, 52.0), ("swin", "PQ", 70.0, 81.0),
    ]  # fmt: skip


def test_scopes_and_ends_of_intervals_are_columns() -> None:
    frame = frame_of([run(speed=speed("swin", None), flops=flops("swin"))])
    fps = frame[frame.metric == "fps"]
    assert list(zip(fps.scope, fps.value, strict=True)) == [("paper", 8.0), ("task", 16.0)]
    assert (fps.iloc[0].low, fps.iloc[0].high) == (7.0, 9.0)
    assert not frame.metric.str.contains("_low|_high|_task").any()
    assert (cost_of(frame, "swin", "fps"), cost_of(frame, "swin", "FLOPs"), cost_of(frame, "swin", "parameters")) == (
        8.0,
        2.3e11,
        47e6,
    )


def test_one_scope_of_speed_for_all_runs() -> None:
    """The fps of scope task is never shown beside others of scope paper."""
    slow = speed("b", None)
    only_task = replace(slow, measurements=tuple(m for m in slow.measurements if "_task" in m.name))
    frame = frame_of([run(speed=speed("a", None)), run(label="b", speed=only_task)])
    assert cost_of(frame, "swin", "fps") == 8.0
    assert math.isnan(cost_of(frame, "b", "fps"))
    assert cost_of(frame_of([run(label="b", speed=only_task)]), "b", "fps") == 16.0


def test_accuracy_that_only_a_speed_run_has_is_found() -> None:
    frame = frame_of([run(result=None, speed=replace(speed("a", None), measurements=result().measurements))])
    assert value_of(frame, "swin", "PQ") == 50.0
    assert math.isnan(value_of(frame, "swin", "nothing"))


def test_the_papers_columns_in_its_order(tmp_path: Path) -> None:
    made, _ = material(tmp_path)
    table = tables.paper_table(made.frame, "made", made.runs, made.numbers)
    assert [c.name for c in table.columns] == [
        "run", "backbone", "PQ", "PQ_th", "PQ_st", "AP_th_pan", "mIoU_pan", "params, M", "FLOPs, G", "fps",
    ]  # fmt: skip
    assert [cell.text for cell in table.rows[0]] == ["swin", "swin_t", "50.0", "-", "-", "40.0", "60.0", "47.0", "230.0", "8.0"]
    assert table.rows[0][3].note == "nothing of this kind in the truth"
    assert table.rows[0][4].note == "no metric of the suite gives it"
    assert table.rows[1][-1].note == "no speed was measured: m2fbench speed"


def test_single_and_multi_scale_share_a_line() -> None:
    def semantic(value: float, label: str, tta: bool, dtype: str = "float32") -> Run:
        figures = tuple(replace(m, name="mIoU", value=value) for m in result().measurements[:1])
        protocol = {"name": "paper", "min_size": 640, "tta": {"flip": True} if tta else None}
        made = replace(result(measurements=figures, comparisons=(), protocol=protocol), variant=VARIANT | {"dtype": dtype})
        return run(label=label, result=made)

    runs = [semantic(50.0, "bf16", False, "bfloat16"), semantic(57.3, "ms", True), semantic(57.0, "ss", False)]
    table = tables.paper_table(frame_of(runs), "ade", runs, {r.label: i for i, r in enumerate(runs)})
    assert [c.name for c in table.columns][:5] == ["run", "backbone", "crop", "mIoU s.s.", "mIoU m.s."]
    assert [[c.text for c in row[:5]] for row in table.rows] == [
        ["bf16", "swin_t", "640", "50.0", "-"],
        ["ss", "swin_t", "640", "57.0", "57.3"],
    ]


def test_what_was_not_measured_says_why(tmp_path: Path) -> None:
    made, _ = material(tmp_path)
    found = tables.missing_table(made.frame, made.runs, made.numbers)
    assert found is not None
    lines = {(row[0].text, row[1].text): row[3].text for row in found.rows}
    assert lines["swin", "PQ_st"] == "no metric of the suite gives it"
    assert lines["swin", "peak_device_memory"] == "a CPU has no memory of its own"
    assert lines[QUOTED, "all of speed"] == "not asked for: m2fbench speed"


def test_classes_keep_their_order_and_their_names(tmp_path: Path) -> None:
    made, _ = material(tmp_path)
    table = class_table(made.frame, "made", made.runs[:1], "PQ")
    assert [row[0].text for row in table.rows] == list(CLASSES)
    assert [c.name for c in table.columns] == ["class", "segments", "PQ", "95 % interval", "SQ", "TP", "FP", "FN"]
    assert [cell.text for cell in table.rows[4]] == ["tree", "14", "77.00", "70.00 to 81.00", "77.00", "-", "-", "-"]
    assert (table.rows[1][2].text, table.rows[1][2].note) == ("-", "no truth")


def test_subsets_that_are_too_small_are_marked() -> None:
    disaggregation = looked().disaggregation
    assert disaggregation is not None
    table = subsets_table(disaggregation, "s", ["PQ"])
    assert table is not None
    assert [(row[1].text, row[3].text, row[6].text, row[6].note) for row in table.rows] == [
        ("small", "300", "yes", ""), (HOSTILE, "3", "too few", "3 objects"),
    ]  # fmt: skip
    assert table.notes == ("crowd: not divided by it: no crowds",)


NAMES = [*CLASSES, QUOTED, "*bold* `code` [link](http://x)", "# heading", "~tilde~ ^hat^", "a\\b", "- item", "https://example.org"]


def table_of(names: list[str]) -> Table:
    rows = tuple((Cell(name), number_cell(1 / 3), number_cell(math.nan, note=f"why {name}")) for name in names)
    return Table(
        "t", f"Title {HOSTILE}", (Column("name"), Column("a", True), Column("b|c", True, "meaning")), rows, ("a note & <b>",)
    )


def test_csv_reads_back_with_all_digits() -> None:
    lines = list(csv.reader(io.StringIO(csv_of(table_of(NAMES)))))
    assert lines[0] == ["name", "a", "b|c", "remark"]
    assert [line[0] for line in lines[1:]] == NAMES
    assert {(line[1], line[2]) for line in lines[1:]} == {("0.3333333333333333", "")}
    assert lines[1][3] == f"why {NAMES[0]}"


def test_markdown_renders_names_as_text() -> None:
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown_of(table_of(NAMES)))
    inside = [token for token in tokens if token.type == "inline"]
    texts = ["".join(child.content for child in token.children or () if child.type in ("text", "text_special")) for token in inside]
    cells = texts[1 : 1 + 3 * (len(NAMES) + 1)]
    assert cells[:3] == ["name", "a", "b|c"]
    assert cells[3::3] == NAMES
    kinds = {child.type for token in inside for child in token.children or ()}
    assert kinds <= {"text", "text_special", "html_inline", "strong_open", "strong_close"}
    tags = {child.content for token in inside for child in token.children or () if child.type == "html_inline"}
    assert tags == {"<sup>", "</sup>"}


LATEX_BACK = {
    r"\textbackslash{}": "\\", r"\textasciitilde{}": "~", r"\textasciicircum{}": "^", r"\textless{}": "<", r"\textgreater{}": ">",
    r"\textbar{}": "|", r"\textquotedbl{}": '"',
}  # fmt: skip


def test_latex_has_no_commands_but_its_own() -> None:
    text = latex_of(table_of(NAMES))
    body = text[text.index(r"\midrule") + len(r"\midrule") : text.index(r"\bottomrule")]
    cells = [line.split(" & ")[0] for line in body.strip().split(" \\\\\n")]

    def back(cell: str) -> str:
        pattern = "|".join(map(re.escape, LATEX_BACK))
        return re.sub(rf"{pattern}|\\([&%$#_{{}}])", lambda found: LATEX_BACK.get(found[0], found[1]), cell)

    assert [back(cell) for cell in cells] == NAMES
    for cell in cells:
        assert not set(re.sub(r"\\text[a-z]+\{\}|\\[&%$#_{}]", "", cell)) & set('&%$#_{}~^\\<>|"')
    assert r"\begin{tabular}{lrr}" in text
    assert text.count("\\toprule") == text.count("\\midrule") == text.count("\\bottomrule") == 1
    assert r"\textsuperscript{a}" in text


def test_negative_numbers_are_minus_signs_in_latex() -> None:
    table = Table("t", "T", (Column("d", True),), ((number_cell(-1.5, signed=True),), (number_cell(0.0, signed=True),)))
    assert "$-1.50$" in latex_of(table)
    assert "$+0.00$" in latex_of(table)


@pytest.mark.parametrize(("value", "text"), [(-0.001, "0.00"), (math.nan, "-"), (1234.5, "1,234.50")])
def test_numbers(value: float, text: str) -> None:
    assert number_cell(value).text == text


def test_intervals_without_an_upper_end_say_so() -> None:
    assert interval_cell(3.0, math.nan).text == "over 3.00"
    none = interval_cell(math.nan, math.nan, note="why")
    assert (none.text, none.note) == ("-", "why")


def test_footnotes_are_lettered_once_each() -> None:
    rows = tuple((Cell("-", note=f"why {k % 28}"),) for k in range(60))
    marks = Table("t", "T", (Column("c"),), rows).footnotes
    assert list(marks.values())[24:] == ["y", "z", "aa", "ab"]
