"""The page as a file: it loads nothing, names are text, every reference leads somewhere; and the whole command on a real run."""

import base64
import csv
import hashlib
import json
import math
import re
import shutil
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_cases import CLASSES, HOSTILE, QUOTED, comparison, material, picture

import m2fbench
from m2fbench.analysis.findings import Confusion
from m2fbench.errors import M2FBenchError, StoreError
from m2fbench.reporting.images.gallery import Section as Shown
from m2fbench.reporting.page.comparison import write_comparison_html
from m2fbench.reporting.page.html import inline_svg, render, sort_value
from m2fbench.reporting.page.looking import Effort
from m2fbench.reporting.page.plots_errors import confusion_map
from m2fbench.reporting.page.records import Cell, Page, Section, all_parts
from m2fbench.reporting.page.report import LIST, ReportRequest, _own_files, files_of, page_of, write_page, write_report
from m2fbench.reporting.page.tables_findings import confusion_table

pytestmark = pytest.mark.full
TAGS = {
    "a", "body", "button", "circle", "clippath", "dd", "defs", "details", "div", "dl", "dt", "figcaption", "figure", "footer", "g", "h1", "h2", "h3",
    "h4", "h5", "h6", "head", "header", "html", "image", "img", "input", "label", "li", "link", "main", "meta", "nav", "ol", "output", "p", "path",
    "pattern", "rect", "script", "span", "strong", "style", "summary", "sup", "svg", "table", "tbody", "td", "text", "th", "thead", "title", "tr",
    "tspan", "ul", "use",
}  # fmt: skip


class Reader(HTMLParser):
    """Every tag with its attributes, and all text outside of scripts and styles."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.inside = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.inside = tag

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text.append(data)


def read(document: str) -> Reader:
    reader = Reader()
    reader.feed(document)
    return reader


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    made, compared = material(tmp_path_factory.mktemp("made"))
    return page_of(made, compared, ReportRequest())


@pytest.fixture(scope="module")
def document(page: Page) -> str:
    return render(page)


def test_it_loads_nothing_and_says_so_to_the_browser(document: str) -> None:
    tags = read(document).tags
    for tag, attributes in tags:
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
    policy = next(a["content"] for tag, a in tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    (script,) = re.findall(r"<script>(.*?)</script>", document, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.split("; ") == [
        "default-src 'none'", "img-src data:", "style-src 'unsafe-inline'", f"script-src 'sha256-{digest}'", "base-uri 'none'", "form-action 'none'",
    ]  # fmt: skip
    assert "url(" not in re.sub(r"url\(#", "", document)
    assert "@import" not in document


def test_names_are_text(document: str) -> None:
    reader = read(document)
    assert {tag for tag, _ in reader.tags} <= TAGS
    assert not [a for _, attributes in reader.tags for a in attributes if a.startswith("on")]
    text = " ".join(reader.text)
    for name in (*CLASSES, QUOTED):
        assert name in text, name
    assert sum(tag == "script" for tag, _ in reader.tags) == 1
    assert sum(tag == "img" for tag, _ in reader.tags) == 3


def test_ids_are_unique_and_references_lead_somewhere(document: str) -> None:
    tags = read(document).tags
    ids = Counter(a["id"] for _, a in tags if "id" in a)
    assert [i for i, count in ids.items() if count > 1] == []
    wanted = {a[n][1:] for _, a in tags for n in ("href", "xlink:href") if a.get(n, "").startswith("#")}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", document)) | {a[n] for _, a in tags for n in ("aria-labelledby", "for") if n in a}
    assert wanted <= set(ids)


def test_figures_and_pictures_have_words(document: str, page: Page) -> None:
    tags = read(document).tags
    drawn = [a for tag, a in tags if tag == "svg"]
    figures = [*page.lead, *(f for section in all_parts(page.sections) for f in section.figures)]
    assert len(drawn) == len(figures) >= 15
    assert all(a["role"] == "img" and a["aria-label"] for a in drawn)
    assert all(a["alt"] for tag, a in tags if tag == "img")


def test_every_section_is_there_with_what_was_not_measured_and_how(page: Page, document: str) -> None:
    assert [section.key for section in page.sections] == [
        "results", "trade-offs", "comparison", "classes", "sizes", "subsets", "errors", "images", "layers", "speed", "flops",
        "not-measured", "method",
    ]  # fmt: skip
    text = " ".join(read(document).text)
    for words in (
        "beware of <this>", "no metric of the suite gives it", "no predictions of <b>", "batch of one", "A <CPU>", "torch 2.0", "3 objects",
        "800/1333",
        "5000 images, 1000 resamples (seed 0)", "intervals of boundary_ap", "no crowds", "note", "2030-01-02 03:04:05 UTC",
    ):  # fmt: skip
        assert words in text, words


def test_numbers_sort_by_their_value_and_nothing_by_nothing(document: str) -> None:
    assert 'data-v="230"' in document
    assert 'data-v=""' in document
    assert [sort_value(cell) for cell in (Cell("1,234.57", 1234.56789), Cell("12", 12), Cell("a"), Cell("-", math.nan))] == [
        "1234.568", None, None, "",
    ]  # fmt: skip
    assert sort_value(Cell("a", note="said below")) == "a"  # the cell's content has the mark of the note too


def test_the_answers_stand_at_the_top(page: Page) -> None:
    said = {one.about: one for one in page.in_short}
    (compared,) = (one for about, one in said.items() if "against swin" in about)
    assert compared.text == "PQ +1.50 (+0.50 to +2.50), better; mIoU_pan +1.50 (-0.50 to +2.50), no difference shown."
    assert said["swin, costliest errors"].text == "mask quality (7.5 points of PQ), missed (5.0 points of PQ)."
    lost = "20.0 points less than over all, the largest loss of the subsets measured"
    assert said["swin, worst subset"].text == f"object size, small: PQ 30.0 (27.0 to 33.0), {lost}."
    assert {one.link for one in page.in_short} <= {section.key for section in page.sections}
    assert {tile.run for tile in page.headlines} == {"swin"}


def test_fewer_images_are_shown_of_many_runs_unless_they_are_asked_for() -> None:
    assert [Effort().over(runs).number for runs in (1, 3, 4, 8)] == [3, 3, 2, 1]
    assert Effort(images=7).over(8).number == 7


def test_figures_of_a_page_share_no_ids_and_take_the_colour_of_its_text(page: Page) -> None:
    figure = page.lead[0]
    shown = inline_svg(figure)
    assert "<style" not in shown
    assert "#767676" not in shown.lower()
    assert "currentColor" in shown
    assert all(i.startswith(f"{figure.key}-") for i in re.findall(r' id="([^"]+)"', shown))


def test_the_same_runs_give_the_same_page(document: str, page: Page, tmp_path: Path) -> None:
    made, compared = material(tmp_path / "elsewhere")
    again = render(page_of(made, compared, ReportRequest()))
    assert re.sub(r"/\S*?/&lt;i&gt;", "", again) == re.sub(r"/\S*?/&lt;i&gt;", "", document)


def test_a_large_matrix_is_a_file_only() -> None:
    size = 60
    confusion = Confusion(
        "semantic", tuple(map(str, range(size))), tuple((1.0,) * (size + 1) for _ in range(size + 1)), "pixels", "d"
    )
    table = confusion_table(confusion, "m")
    page = Page("t", "s", (), (Section("k", "K", tables=(table,)),))
    assert not table.in_page
    assert 'id="table-m"' not in render(page)
    assert set(files_of(page.sections, page)) == {"tables/m.csv"}
    assert confusion_map(confusion, "k") is not None


def test_each_folder_has_a_list_of_what_its_files_show(page: Page, tmp_path: Path) -> None:
    write_page(page, tmp_path, set(), {"tables/all-figures.csv": "x"})
    for folder in ("tables", "figures"):
        listed = (tmp_path / folder / "README.md").read_text()
        there = {path.name for path in (tmp_path / folder).iterdir()} - {"README.md"}
        assert set(re.findall(r"`([^`]+)`", listed)) == there
        assert "<img" not in listed
    assert re.search(
        r"- By class › PQ by class › [^\n]*: `classes-made-pq-PQ\.csv`, ", (tmp_path / "tables" / "README.md").read_text()
    )


def test_a_disturbed_speed_is_marked(tmp_path: Path) -> None:
    made, compared = material(tmp_path)
    assert not any("disturbed" in str(part) for part in page_of(made, compared, ReportRequest()).headlines)
    first, *others = made.runs
    assert first.speed is not None
    slowed = replace(first.speed, details=(first.speed.details or {}) | {"machine": {"host": {"on_battery": True}}})
    page = page_of(replace(made, runs=(replace(first, speed=slowed), *others)), compared, ReportRequest())
    (tile,) = (headline for headline in page.headlines if headline.figure == "images a second")
    assert tile.context.endswith("; disturbed: see warnings")
    (section,) = (section for section in page.sections if section.key == "trade-offs")
    assert "fps of swin: the measurement was disturbed: see the warnings under Results." in section.notes


def test_only_its_own_files_are_written_over(page: Page, tmp_path: Path) -> None:
    write_page(page, tmp_path / "out", set(), {"tables/gone.csv": "x"})
    listed = json.loads((tmp_path / "out" / LIST).read_text())["files"]
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*") if p.name != LIST) == listed
    (tmp_path / "out/tables/mine.csv").write_text("kept")
    write_page(page, tmp_path / "out", set(listed), {})
    assert not (tmp_path / "out/tables/gone.csv").exists()
    assert (tmp_path / "out/tables/mine.csv").read_text() == "kept"
    with pytest.raises(StoreError, match=r"mine\.csv: there is such a file, and no report has written it; choose another folder"):
        write_page(page, tmp_path / "out", set(listed), {"tables/mine.csv": "y"})


@pytest.mark.parametrize("listed", ["nonsense", '{"files": 3}', "[]"])
def test_a_folder_of_others_is_left_alone(listed: str, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(StoreError, match="no report has written it"):
        write_report([tmp_path / "runs"], tmp_path, ReportRequest())
    (tmp_path / LIST).write_text(listed)
    with pytest.raises(StoreError, match="not the list of a report's files"):
        write_report([tmp_path / "runs"], tmp_path, ReportRequest())
    assert (tmp_path / "report.html").read_text() == "mine"
    with pytest.raises(StoreError, match="expected a folder"):
        write_report([tmp_path / "runs"], tmp_path / "report.html", ReportRequest())


def test_a_list_that_names_files_elsewhere_removes_none(page: Page, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / LIST).write_text(
        json.dumps({"files": ["../outside.csv", "tables/../../outside.csv", "tables/..", "/etc/passwd", "tables/a.csv"]})
    )
    assert _own_files(out) == {"tables/a.csv"}


def test_a_comparison_is_a_page_of_its_own(tmp_path: Path) -> None:
    write_comparison_html(comparison("swin", QUOTED), [Shown("lost", "Lost", "Most lost.", (picture(),))], tmp_path / "c.html")
    reader = read((tmp_path / "c.html").read_text())
    text = " ".join(reader.text)
    for words in (HOSTILE, QUOTED, "+1.50", "+0.50 to +2.50", "better", "no difference shown", "a note", "Most lost."):
        assert words in text, words
    assert {tag for tag, _ in reader.tags} <= TAGS


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> Path:
    """The bundled checkpoint over eight scenes, under two protocols."""
    folder = tmp_path_factory.mktemp("runs")
    suite = folder / "suite.yaml"
    suite.write_text(
        "suite: tiny_report\ntitle: Tiny\ntask: panoptic\ndataset: {name: shapes, split: test, count: 8}\n"
        "protocol: {name: paper, min_size: 128, max_size: 192}\nmetrics: [panoptic_quality, coco_ap, semantic_iou]\n"
        "checkpoints: [{name: shapes-tiny, checkpoint: bundled:shapes_tiny}]\n"
        "variants: [{name: paper}, {name: again, attention: eager}]\n"
    )
    m2fbench.run(suite, output=folder / "runs", loader=bundled_loader)
    return folder / "runs"


def test_a_report_of_real_runs(runs: Path, tmp_path: Path) -> None:
    told: list[str] = []
    effort = Effort(resamples=20, images=1, tell=told.append)
    written = write_report([runs], tmp_path / "out", ReportRequest(title="A & B", effort=effort))
    assert written[0] == tmp_path / "out/report.html"
    assert all(path.stat().st_size for path in written)
    text = " ".join(read(written[0].read_text()).text)
    for words in (
        "A & B",
        "Most confidently wrong",
        "object size",
        "Calibration",
        "again against paper",
        "mask quality",
        "boundary band",
    ):
        assert words in text, words
    assert any("paper: " in line for line in told)
    with (tmp_path / "out/tables/all-figures.csv").open(newline="") as file:
        lines = {(r["run"], r["metric"], r["category"]): r for r in csv.DictReader(file)}
    stored = m2fbench.read_result(runs / "tiny_report/shapes-tiny/paper/result.json")
    assert float(lines["paper", "PQ", ""]["value"]) == stored.value("PQ")
    assert float(lines["paper", "PQ", ""]["low"]) < stored.value("PQ") < float(lines["paper", "PQ", ""]["high"])


def test_stored_figures_alone_and_images_that_are_gone(runs: Path, tmp_path: Path) -> None:
    written = write_report([runs], tmp_path / "quick", ReportRequest(effort=Effort(quick=True)))
    text = " ".join(read(written[0].read_text()).text)
    assert "the report was made with --quick, from stored figures only" in text
    shutil.copytree(runs, tmp_path / "runs")
    (tmp_path / "runs/tiny_report/shapes-tiny/again/predictions.json").unlink()
    written = write_report([tmp_path / "runs"], tmp_path / "out", ReportRequest(effort=Effort(resamples=20, images=0)))
    text = " ".join(read(written[0].read_text()).text)
    assert "no predictions.json; finish the run first" in text
    assert "again: not compared image by image" in text


def test_a_folder_that_cannot_be_made_is_said_before_any_work(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    told: list[str] = []
    with pytest.raises(M2FBenchError, match="cannot be written"):
        write_report([runs], tmp_path / "file/out", ReportRequest(effort=Effort(tell=told.append)))
    assert told == ["opening the runs"]
    with pytest.raises(M2FBenchError, match="cannot be written"):
        write_report([tmp_path / "no runs"], tmp_path / "file/out", ReportRequest())


def test_the_command_says_what_it_wrote_and_what_is_wrong(runs: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("report", runs, "-o", tmp_path / "out", "--quick", "--title", "[red]T[/red]")
    assert done.returncode == 0, done.stderr
    assert f"report: {tmp_path / 'out/report.html'}" in done.stdout
    wrong = cli("report", tmp_path / "nothing", "-o", tmp_path / "out")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
    assert "no such folder" in wrong.stderr
