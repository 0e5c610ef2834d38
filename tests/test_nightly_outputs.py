"""What a night leaves for readers: the summary as GitHub renders it, JUnit XML by its schemas' rules, and the terminal's tables."""

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from made_verdict import made_cell, made_figure, made_outcome, made_regression, made_verdict
from markdown_it import MarkdownIt
from rich.console import Console

from m2fbench.analysis.findings import Estimate
from m2fbench.errors import NightlyError, StoreError
from m2fbench.nightly.asides import not_compared
from m2fbench.nightly.junit import junit_xml
from m2fbench.nightly.outputs import append_summary, write_outputs
from m2fbench.nightly.records import Change, Verdict
from m2fbench.nightly.summary import LIMIT, summary_markdown
from m2fbench.nightly.verdicts import read_verdict
from m2fbench.nightly.wording import explanation, headline, moved_table, movement, shown_value, unmeasured_table
from m2fbench.reporting.terminal.verdict import show_verdict

NAN = float("nan")
HOSTILE = "a|b <script>alert(1)</script> `x` **y** [z](http://evil) </details> \x1b[31m \x00 \ud800 @all #1\n# head"


class _Page(HTMLParser):
    """Elements by name, their texts, and the rows of every table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.tables: list[list[list[str]]] = []
        self.cell: list[str] | None = None
        self.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(text))

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = []

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            self.tables[-1][-1].append("".join(self.cell))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)


def test_the_headline_says_it_all_in_a_line() -> None:
    assert headline(made_verdict()) == (
        "1 regression: shapes_instance/shapes-tiny/default AP 71.25 → 66.00 since 2026-11-28; "
        "1 cell not measured: shapes_instance/other/default (timeout); 1 suspect: shapes_instance/shapes-tiny/default fps 10 images/s → 9 images/s"
    )
    published = made_regression(baseline="published")
    assert headline(made_verdict(figures=(made_regression(), published))).startswith("1 regression: ")  # one figure, however often
    assert "AP 71.25 → 66.00 against published since" in headline(made_verdict(figures=(published,)))
    many = tuple(made_regression(cell=made_cell(f"row-{k}")) for k in range(5))
    assert (
        headline(made_verdict(figures=many))
        == "5 regressions in 5 cells; 1 cell not measured: shapes_instance/other/default (timeout)"
    )
    two = made_verdict(figures=many[:2])
    assert re.match(r"2 regressions: [^;]*row-0[^;]*; [^;]*row-1/default[^;]*; 1 cell", headline(two))
    undone = tuple(made_outcome(made_cell(f"row-{k}"), "timeout" if k else "failed") for k in range(4))
    assert (
        headline(made_verdict("unmeasured", outcomes=undone, figures=()))
        == "no regression; 4 cells not measured (1 failed, 3 timeout)"
    )
    quiet = made_verdict("ok", outcomes=(made_outcome(),), figures=(made_figure(),))
    assert headline(quiet) == "no regression (1 of 1 cell measured, 1 figure compared)"
    held_to_nothing = (made_figure(), made_figure("new", figure="fps"), made_figure("restart", figure="AP50"))
    outcomes = (made_outcome(), made_outcome(made_cell("b"), "left out"))
    assert headline(replace(quiet, outcomes=outcomes, figures=held_to_nothing)) == (
        "no regression (1 of 2 cells measured, 1 left out, 1 figure compared, 2 not)"
    )
    both = (made_figure(), made_figure("not compared", baseline="published"))
    assert headline(replace(quiet, figures=both)) == "no regression (1 of 1 cell measured, 1 comparison made, 1 not)"
    assert headline(made_verdict(figures=(made_regression(), *held_to_nothing))).endswith("(timeout); 2 figures not compared")
    lacking = made_verdict("unmeasured", outcomes=(made_outcome(),), figures=(made_figure("unmeasured", value=NAN),))
    assert headline(lacking) == "no regression; 1 figure not measured: shapes_instance/shapes-tiny/default AP"


def test_a_cell_that_cannot_run_here_is_no_alarm_in_the_headline() -> None:
    outcomes = (made_outcome(), made_outcome(made_cell("new"), "unsupported", "no such device"))
    assert (
        headline(made_verdict("ok", outcomes=outcomes, figures=())) == "no regression (1 of 2 cells measured, 0 figures compared)"
    )


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (71.238, "percent", "71.24"),
        (2.5e9, "bytes", "2.5 GB"),
        (226.4e9, "count", "226.4 G"),
        (12.0, "count", "12"),
        (0.0123, "s", "12.3 ms"),
        (9.7312, "images/s", "9.731 images/s"),
        (NAN, "percent", "-"),
    ],
)
def test_values_as_people_read_them(value: float, unit: str, shown: str) -> None:
    assert shown_value(value, unit) == shown


def test_the_summary_tells_what_moved_and_why() -> None:
    text = summary_markdown(made_verdict(), url="https://example.org/m2fbench/")
    assert text.splitlines()[0].startswith(
        "### 1 regression: shapes_instance/shapes-tiny/default AP 71.25 → 66.00 since 2026-11-28"
    )
    for part in (
        "[dashboard](<https://example.org/m2fbench/>)",
        "\n**shapes_instance/shapes-tiny/default**\n\n- **regression: AP 71.25 → 66.00 since 2026-11-28**",
        "  - change -5.25 (-6.50 to -4.00), paired bootstrap over the same images, p 0.0005",
        "- changed between the last good run and the first bad night: checkpoint 1111111111 → 2222222222; driver unknown → 570.86",
        "- a second run, made from nothing, dropped too",
        "exit status 1",
        "bench-1",
    ):
        assert part in text
    page = _Page(text)
    moved, undone, figures, cells = page.tables
    assert moved[1] == ["shapes_instance/shapes-tiny/default", "AP", "regression", "last-good", "2026-11-28", "2", "71.25", "66.00",
                        "-5.25 (-6.50 to -4.00)", "0.0005"]  # fmt: skip
    assert [row[2] for row in moved[1:]] == ["regression", "suspect"]
    assert undone[1:] == [["shapes_instance/other/default", "all", "timeout", "ended after 120 min", "logs/other.log"]]
    assert [row[3] for row in figures[1:]] == ["regression", "suspect", "unmeasured"]
    assert [row[1] for row in cells[1:]] == ["done", "timeout"]
    assert page.tags.count("details") == 2


def test_a_regression_without_a_change_says_so() -> None:
    text = summary_markdown(made_verdict(figures=(made_regression(baseline_result="cd" * 32, cell=made_cell("b")),)))
    assert "changed between the last good run and the first bad night: checkpoint" in text
    bare = replace(made_regression(), changes=())
    assert "nothing that the results record has changed between the last good run and the first bad night" in summary_markdown(
        made_verdict(figures=(bare,))
    )


def test_what_figures_of_a_cell_have_in_common_is_said_once() -> None:
    names = ("PQ", "AP_th_pan", "mIoU_pan")
    figures = tuple(replace(made_regression(figure=name), difference=Estimate(-5.0 - k)) for k, name in enumerate(names))
    other = replace(figures[0], cell=made_cell("b").name)
    text = summary_markdown(made_verdict(figures=(*figures, other)))
    assert text.startswith("### 4 regressions in 2 cells; ")
    block = text.partition("**shapes_instance/shapes-tiny/default**\n\n")[2].partition("**shapes_instance/b/default**")[0]
    for line in ("checkpoint 1111111111", "a second run, made from nothing", "since 2026-11-28T03", "compared with result"):
        assert block.count(line) == 1
    assert [line for line in block.splitlines() if line.startswith("  - change ")] == [
        f"  - change {-5.0 - k:.2f}, paired bootstrap over the same images, p 0.0005" for k in range(3)
    ]
    unlike = (figures[0], replace(figures[1], note="another"), figures[2])
    assert "\n- PQ, mIoU_pan: a second run, made from nothing, dropped too" in summary_markdown(made_verdict(figures=unlike))


def test_a_standing_regression_and_what_came_since(tmp_path: Path) -> None:
    standing = made_regression(since_value=66.5, since_night="n5", tonight=(Change("driver", "1", "2"),))
    assert movement(standing).endswith("AP 71.25 → 66.50 since 2026-11-28 (night n5), tonight 66.00")
    assert movement(replace(standing, nights=1)).endswith("AP 71.25 → 66.00 since 2026-11-28 (night n5)")
    lines = explanation(standing)
    assert "since 2026-11-28T03:00:00+00:00 (night n5, result abababababab), 2 nights" in lines
    assert "changed since the night before: driver 1 → 2" in lines
    assert not any("night before" in line for line in explanation(replace(standing, tonight=standing.changes)))


def test_a_recovery_is_held_to_the_level_before_the_regression() -> None:
    recovered = replace(made_regression(baseline_value=66.2, since_night="n5"), state="recovered", value=71.1)
    assert movement(recovered).endswith("AP 66.20 → 71.10, the level before the regression of 2026-11-28 (night n5)")
    verdict = made_verdict("ok", figures=(recovered,))
    assert headline(verdict).startswith(
        "no regression; 1 cell not measured: shapes_instance/other/default (timeout); 1 figure recovered: "
    )
    assert "- **recovered: AP 66.20 → 71.10, the level before" in summary_markdown(verdict)
    assert "the regression began 2026-11-28T03:00:00+00:00 (night n5, " in summary_markdown(verdict)


def test_what_was_not_compared_is_said_on_top_and_for_each_reason() -> None:
    cells = [made_cell(f"row-{k}") for k in range(5)]
    figures = tuple(made_figure("new", cell=cell, figure=name) for cell in cells for name in ("AP", "fps"))
    unlike = made_figure("not compared", baseline="published", note="not comparable with the published figure: 10 of 20 images")
    lines = not_compared((*figures, unlike, made_figure()))
    assert lines == [
        "10 figures not compared with last-good: no earlier night to compare with: shapes_instance/row-0/default (AP, fps); "
        "shapes_instance/row-1/default (AP, fps); shapes_instance/row-2/default (AP, fps); 2 more",
        "1 figure not compared with published: not comparable with the published figure: 10 of 20 images: shapes_instance/shapes-tiny/default (AP)",
    ]
    text = summary_markdown(made_verdict(notes=tuple(lines)))
    assert text.index("not compared with published") < text.index("#### What moved")


def test_an_interrupted_night_says_so() -> None:
    assert "was interrupted" in summary_markdown(made_verdict(complete=False))
    assert "was interrupted" not in summary_markdown(made_verdict())


def _hostile() -> Verdict:
    cell = made_cell(HOSTILE, HOSTILE, HOSTILE)
    regression = replace(
        made_regression(cell=cell), figure=HOSTILE, unit=HOSTILE, note=HOSTILE, changes=(Change(HOSTILE, HOSTILE, HOSTILE),)
    )
    return made_verdict(
        outcomes=(made_outcome(cell, "failed", HOSTILE, log="../../etc/passwd"),), figures=(regression, made_figure("unmeasured", note=HOSTILE)),
        notes=(HOSTILE,), title=HOSTILE, machine=HOSTILE, night=HOSTILE, nightly=HOSTILE,
    )  # fmt: skip


def test_what_moved_links_to_its_nights() -> None:
    verdict = made_verdict(figures=(made_regression(page="series/ap-1.html"),))
    assert "** · [all its nights](<https://example.org/m2fbench/series/ap-1.html>)" in summary_markdown(
        verdict, url="https://example.org/m2fbench/"
    )
    assert "ap-1.html" not in summary_markdown(verdict)


def test_hostile_names_stay_text_in_the_summary() -> None:
    plain = summary_markdown(replace(_hostile(), **_harmless()))
    text = summary_markdown(_hostile(), url='javascript:alert(1)"><script>')
    page, expected = _Page(text), _Page(plain)
    assert set(page.tags) <= {
        "h3",
        "h4",
        "p",
        "strong",
        "ul",
        "li",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "details",
        "summary",
        "code",
    }
    assert [[len(row) for row in table] for table in page.tables] == [[len(row) for row in table] for table in expected.tables]
    assert page.tags.count("h3") == 1
    assert not any(ord(c) < 32 and c != "\n" for c in text)
    assert page.tables[0][1][0].startswith("a|b <script>")  # shown as it is
    text.encode()


def _harmless() -> dict[str, Any]:
    cell = made_cell()
    return {
        "outcomes": (made_outcome(cell, "failed", "x"),),
        "figures": (made_regression(), made_figure("unmeasured", cell=made_cell("other"), note="x")),
        "notes": ("x",), "title": "x", "machine": "x", "night": "x",
    }  # fmt: skip


@pytest.mark.full
def test_a_summary_of_a_huge_night_is_cut_where_it_matters_least() -> None:
    cells = [made_cell(f"row-{k}") for k in range(3000)]
    figures = tuple(made_figure(cell=cell, note="n" * 390) for cell in cells) + tuple(
        made_regression(cell=cell) for cell in cells[:20]
    )
    verdict = made_verdict(outcomes=tuple(map(made_outcome, cells)), figures=figures)
    text = summary_markdown(verdict)
    assert len(text.encode()) <= LIMIT < 1024 * 1024
    moved, shown, *_ = _Page(text).tables
    assert len(moved) == 21  # every regression
    said, *_ = re.findall(r"(\d+) rows are left out here, as a summary may hold no more than 1 MiB; verdict.json has all", text)
    assert 3020 - int(said) == len(shown) - 1
    assert text.count("<details>") == text.count("</details>")
    assert "exit status 1" in text.splitlines()[-1]
    small = summary_markdown(verdict, limit=10_000)
    assert len(small.encode()) <= 10_000
    assert small.startswith("### 20 regressions in 20 cells")


def _allowed(root: ElementTree.Element) -> None:
    """The rules of junit-10.xsd (Jenkins' xUnit plugin) and of the Ant task's schema that are about what may stand where."""
    attributes = {
        "testsuites": {"name", "tests", "failures", "errors", "time", "disabled"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "hostname", "id", "package", "disabled"},
        "properties": set(), "property": {"name", "value"}, "testcase": {"name", "classname", "time"},
        "failure": {"message", "type"}, "error": {"message", "type"}, "skipped": {"message", "type"}, "system-out": set(),
    }  # fmt: skip
    children = {
        "testsuites": ["testsuite"], "testsuite": ["properties", "testcase", "system-out", "system-err"], "properties": ["property"],
        "testcase": ["skipped", "error", "failure", "system-out", "system-err"],
    }  # fmt: skip
    required = {"testsuite": {"name", "tests", "failures", "errors", "time"}, "testcase": {"name", "classname", "time"},
                "property": {"name", "value"}, "failure": {"type"}, "error": {"type"}}  # fmt: skip
    assert root.tag == "testsuites"
    for element in root.iter():
        assert set(element.keys()) <= attributes[element.tag]
        assert required.get(element.tag, set()) <= set(element.keys())
        order = [children.get(element.tag, []).index(child.tag) for child in element]
        assert order == sorted(order)
        for name in ("tests", "failures", "errors", "skipped", "id"):
            assert re.fullmatch(r"\d+", element.get(name, "0"))
        for name in ("time",):
            assert re.fullmatch(r"\d+(\.\d+)?", element.get(name, "0"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", element.get("timestamp", "2026-11-29T03:00:00"))
    for case in root.iter("testcase"):
        assert sum(case.find(kind) is not None for kind in ("failure", "error", "skipped")) <= 1


def _counts(root: ElementTree.Element) -> None:
    for element in (root, *root.iter("testsuite")):
        cases = list(element.iter("testcase"))
        assert int(element.get("tests", -1)) == len(cases)
        for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            if element.get(name) is not None:
                assert int(element.get(name, -1)) == sum(case.find(kind) is not None for case in cases)


def test_junit_has_a_test_for_every_run_and_every_comparison(tmp_path: Path) -> None:
    semantic = made_cell(suite="shapes_semantic")
    outcomes = (
        made_outcome(), made_outcome(made_cell("other"), "failed", "killed by signal 9", exit_status=-9, log="logs/other.log"),
        made_outcome(semantic, "no budget", "the night's time was over before it began"),
        made_outcome(made_cell("third", "shapes_semantic"), "unsupported", "no such device"),
    )  # fmt: skip
    figures = (
        made_regression(), made_figure("improvement", baseline="published"), made_figure("unmeasured", figure="AP50", note="no such figure"),
        made_figure("unmeasured", made_cell("other"), note="failed"), made_figure("unmeasured", semantic, note="no budget"),
        made_figure("not compared", figure="AP", baseline="release:v1", note="10 of 20 images"),
    )  # fmt: skip
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs/other.log").write_bytes(b"x" * 20_000 + b"\nstep 1\rstep 2\n\x1b[31mError \x00 \xff ]]> & <b>\x1b[0m\x0b\n")
    root = ElementTree.fromstring(junit_xml(made_verdict(outcomes=outcomes, figures=figures), tmp_path))
    _allowed(root)
    _counts(root)
    assert [suite.get("name") for suite in root] == ["shapes_instance", "shapes_semantic"]
    assert [root.get(name) for name in ("tests", "failures", "errors")] == ["10", "1", "2"]
    cases = {(case.get("classname"), case.get("name")): case for case in root.iter("testcase")}
    failure = cases["shapes_instance.shapes-tiny.default", "AP against last-good"].find("failure")
    assert failure is not None
    assert failure.get("message") == "shapes_instance/shapes-tiny/default AP 71.25 → 66.00 since 2026-11-28"
    assert "changed between the last good run and the first bad night: checkpoint 1111111111" in str(failure.text)
    run = cases["shapes_instance.other.default", "run"]
    error, log = run.find("error"), run.find("system-out")
    assert error is not None
    assert log is not None
    assert (error.get("message"), error.get("type"), error.text) == (
        "killed by signal 9",
        "failed",
        "killed by signal 9\nexit status -9",
    )
    assert str(log.text).endswith("\nstep 2\nError \ufffd \ufffd ]]> & <b>\ufffd\n")
    assert len(str(log.text)) < 9_000
    assert cases["shapes_instance.shapes-tiny.default", "AP50 against last-good"].find("error") is not None
    for key in (("shapes_semantic.shapes-tiny.default", "run"), ("shapes_semantic.third.default", "run"),
                ("shapes_instance.other.default", "AP against last-good"),
                ("shapes_instance.shapes-tiny.default", "AP against release:v1")):  # fmt: skip
        assert cases[key].find("skipped") is not None
    assert {p.get("name") for p in root[0].iter("property")} >= {"night", "machine", "headline"}


def test_junit_is_valid_whatever_names_and_logs_hold(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    (tmp_path / "secret").write_text("not the night's")
    outcome = made_outcome(made_cell("x"), "failed", "reason", log="../secret")
    verdict = replace(_hostile(), outcomes=(*_hostile().outcomes, outcome))
    text = junit_xml(verdict, tmp_path / "night")
    root = ElementTree.fromstring(text.encode())
    _allowed(root)
    _counts(root)
    assert "not the night's" not in text  # a log outside the night's folder is not read
    assert not any(case.find("system-out") is not None for case in root.iter("testcase") if case.get("name") == "run")


def test_outputs_are_written_beside_each_other(tmp_path: Path) -> None:
    folder, step = tmp_path / "nights/one", tmp_path / "step.md"
    step.write_text("earlier\n")
    verdict = made_verdict()
    paths = write_outputs(verdict, folder)
    assert paths == [folder / "verdict.json", folder / "summary.md", folder / "junit.xml"]
    assert read_verdict(folder / "verdict.json").status == "regression"
    text = (folder / "summary.md").read_text()
    assert text == summary_markdown(verdict)
    append_summary(text, step)
    assert step.read_text() == f"earlier\n\n{text}"
    _allowed(ElementTree.parse(folder / "junit.xml").getroot())
    assert sorted(path.name for path in folder.iterdir()) == ["junit.xml", "summary.md", "verdict.json"]
    assert write_outputs(_hostile(), folder) == paths


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="file: cannot be written"):
        write_outputs(made_verdict(), tmp_path / "file")
    with pytest.raises(NightlyError, match="the job summary cannot be written: .*; unset GITHUB_STEP_SUMMARY"):
        append_summary("text", tmp_path / "file/summary.md")


def test_a_job_summary_that_would_be_too_long_keeps_the_headline(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (LIMIT - 100))
    append_summary("### 1 regression\n\nmore\n" + "y" * 200, path)
    assert path.read_text().lstrip("x") == (
        "\n### 1 regression\n\nThe rest is left out, as a summary may hold no more than 1 MiB; summary.md has it.\n"
    )


@pytest.mark.parametrize("terminal", [True, False])
def test_the_terminal_shows_tables_and_the_headline_last(terminal: bool) -> None:
    verdict = _hostile() if terminal else made_verdict()
    console = Console(width=160, file=io.StringIO(), force_terminal=terminal, highlight=False, markup=True)
    show_verdict(console, headline(verdict), (moved_table(verdict), unmeasured_table(verdict)), verdict.notes, verdict.exit_status)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    if terminal:
        assert "[z](http://evil)" in text.replace("\n", "")
        assert "┃" in text
        assert "\x1b[31m " not in text  # the name's own
        assert "\x00" not in text
        return
    lines = text.splitlines()
    assert lines[-1] == headline(verdict)
    assert lines[-2] == "note: shapes_instance/x/fp8: unsupported: no such device"
    assert lines[0] == "What moved"
    cells = ["shapes_instance/shapes-tiny/default", "AP", "regression", "last-good", "2026-11-28", "2", "71.25", "66.00"]
    assert cells in [re.split(r" {2,}", line.strip())[:8] for line in lines]
    assert len({line.index("AP") for line in lines if "  AP  " in line}) == 1
    assert "\x1b" not in text


def test_changes_of_other_figures_are_shares() -> None:
    figure = made_figure(
        kind="speed", figure="fps", unit="images/s", value=9.0, baseline_value=10.0, difference=Estimate(-1.0), state="regression"
    )
    assert moved_table(made_verdict(figures=(figure,))).rows[0][8] == "-10.0 %"
