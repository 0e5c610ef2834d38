"""A report opened from disk in a browser: sorting, searching, figures; no error, no request, and names that are text."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_cases import CLASSES, HOSTILE, QUOTED, material

from m2fbench.reporting.page.html import render
from m2fbench.reporting.page.report import ReportRequest, page_of

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with hostile names, in a folder whose name needs quoting."""
    folder = tmp_path_factory.mktemp("report")
    made, compared = material(folder / "runs <b>")
    path = folder / "a & b #1" / "report.html"
    path.parent.mkdir()
    path.write_text(render(page_of(made, compared, ReportRequest())))
    return path


class Opened:
    """A page with everything that went wrong on it."""

    def __init__(self, browser: Any, report: Path, **options: Any) -> None:
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.page = browser.new_page(**options)
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(report.as_uri())

    def column(self, table: str, number: int) -> list[str]:
        return list(self.page.locator(f"#table-{table} tbody tr > :nth-child({number})").all_inner_texts())


@pytest.fixture
def opened(browser: Any, report: Path) -> Iterator[Opened]:
    found = Opened(browser, report, viewport={"width": 1280, "height": 900})
    yield found
    found.page.close()
    assert found.wrong == []
    assert [url for url in found.requests if not url.startswith("data:")] == [report.as_uri()]


TABLE = "classes-made-pq-PQ"


def test_headers_sort_by_click_with_nothing_last(opened: Opened) -> None:
    page = opened.page
    header = page.locator(f"#table-{TABLE} thead th").nth(2)
    assert opened.column(TABLE, 1) == list(CLASSES)
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    values = [text.split("\n")[0] for text in opened.column(TABLE, 3)]
    assert values[:4] == ["9.25", "41.50", "77.00", "100.00"]  # by number: as text 100 comes first
    assert values[4].startswith("-")
    header.locator("button").click()
    assert header.get_attribute("aria-sort") == "descending"
    assert [text.split("\n")[0] for text in opened.column(TABLE, 3)][:4] == ["100.00", "77.00", "41.50", "9.25"]
    assert opened.column(TABLE, 3)[4].startswith("-")


def test_headers_sort_by_key(opened: Opened) -> None:
    page = opened.page
    first = page.locator(f"#table-{TABLE} thead th").first
    first.locator("button").focus()
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-sort") == "ascending"
    ascending = opened.column(TABLE, 1)
    assert sorted(ascending) == sorted(CLASSES)
    page.keyboard.press("Space")
    assert first.get_attribute("aria-sort") == "descending"
    assert opened.column(TABLE, 1) == ascending[::-1]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert first.get_attribute("aria-sort") is None
    assert page.locator(f"#table-{TABLE} thead [aria-sort]").count() == 1


def test_search_leaves_the_rows_that_match_and_opens_what_is_folded(opened: Opened) -> None:
    page = opened.page
    rows = page.locator(f"#table-{TABLE} tbody tr:visible")
    assert rows.count() == len(CLASSES)
    page.get_by_label("Search the tables").fill("TREE")
    assert rows.count() == 1
    assert page.locator("#table-paper-made").is_hidden()  # it has no such row
    assert page.locator("#found").inner_text().split()[1:] == ["of", page.locator("#found").inner_text().split()[2], "rows"]
    page.get_by_label("Search the tables").fill("libraries.torch")
    assert page.locator("#run-2 tbody tr:visible").count() > 0  # of a record that was folded
    page.get_by_label("Search the tables").fill(HOSTILE)
    assert rows.count() == 1
    page.get_by_label("Search the tables").fill("no such text anywhere")
    assert page.locator("main tbody tr:visible").count() == 0
    page.get_by_label("Search the tables").fill("")
    assert rows.count() == len(CLASSES)


def test_every_figure_and_picture_has_a_size(opened: Opened) -> None:
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    sizes = page.evaluate("[...document.querySelectorAll('figure svg, figure img')].map(e => { const r = e.getBoundingClientRect();"
                          " return [r.width, r.height, e.tagName, e.tagName === 'IMG' ? e.naturalWidth : 1]; })")  # fmt: skip
    assert len(sizes) >= 18
    assert all(width > 20 and height > 20 and natural > 0 for width, height, _, natural in sizes)
    texts = page.evaluate("[...document.querySelectorAll('figure svg text')].filter(t => t.getBBox().width > 0).length")
    assert texts > 100


def test_markup_in_names_is_text(opened: Opened) -> None:
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    text = page.locator("body").inner_text()
    for name in (*CLASSES, QUOTED, "runs <b>", "beware of <this>"):
        assert name in text, name
    assert page.locator("img[src='x'], main script, main b").count() == 0


def test_links_open_how_a_run_was_measured(opened: Opened) -> None:
    page = opened.page
    assert page.locator("#table-record-1").is_hidden()
    page.locator("#table-paper-made tbody a").first.click()
    page.locator("#table-record-1").wait_for(state="visible")
    assert page.locator("#run-1").is_visible()


def test_pictures_are_enlarged_by_key(opened: Opened) -> None:
    button = opened.page.locator(".pictures button").first
    button.focus()
    opened.page.keyboard.press("Enter")
    assert button.get_attribute("aria-pressed") == "true"


def luminance(color: str) -> float:
    channels = [int(c) / 255 for c in color[color.index("(") + 1 : -1].split(",")[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


COLOURS = """() => ['body', '.summary', '.caption', 'main a', 'figcaption', 'figure svg text', 'thead th', 'nav a'].map(s => {
  const style = getComputedStyle(document.querySelector(s));
  return [s, document.querySelector(s).tagName === 'text' ? style.fill : style.color, getComputedStyle(document.body).backgroundColor]; })"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_stands_out_in_light_and_dark(browser: Any, report: Path, scheme: str, dark: bool) -> None:
    found = Opened(browser, report, color_scheme=scheme)
    for selector, ink, paper in found.page.evaluate(COLOURS):
        light, shade = sorted((luminance(ink), luminance(paper)), reverse=True)
        assert (luminance(paper) < 0.1) is dark
        assert (light + 0.05) / (shade + 0.05) >= 4.5, (selector, ink, paper)
    found.page.close()
    assert found.wrong == []


def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, report: Path) -> None:
    found = Opened(browser, report, viewport={"width": 360, "height": 740})
    found.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert found.page.evaluate("document.documentElement.scrollWidth") <= 360
    assert found.page.locator("figure.lead svg").first.bounding_box()["width"] <= 360, "the first figure is seen whole"
    first = found.page.locator("figure.lead").first
    assert first.locator("figcaption").bounding_box()["y"] < first.locator("svg").bounding_box()["y"]
    found.page.close()


def test_print_shows_all_sections_and_how_the_runs_were_measured(browser: Any, report: Path) -> None:
    found = Opened(browser, report)
    found.page.emulate_media(media="print", color_scheme="dark")
    found.page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.page.locator("nav").is_hidden()
    assert found.page.locator("#table-record-2").is_visible()
    assert all(found.page.locator("details.section").evaluate_all("all => all.map(one => one.open)"))
    found.page.close()
