"""The dashboard opened from disk, and from a server below a path, in a browser: no error, no foreign request, and names that are text."""

import functools
import http.server
import math
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_dashboard import BAD, LONG, NAME, PROBLEMS, QUOTED, RIGHT, made
from test_report_browser import luminance

from m2fbench.history.records import Figure
from m2fbench.reporting.dashboard.naming import clean
from m2fbench.reporting.dashboard.site import SiteRequest, write_site
from m2fbench.reporting.dashboard.units import scale_of

pytestmark = pytest.mark.full
SCREEN = {"width": 1280, "height": 900}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With hostile names, in a folder whose name needs quoting."""
    folder = tmp_path_factory.mktemp("sites") / "a & b #1" / "site"
    folder.parent.mkdir()
    write_site(folder, *made(), PROBLEMS, SiteRequest(f"Nights {BAD}", now="2026-12-01T05:00:00+00:00"))
    return folder


class Opened:
    """A page with everything that went wrong on it."""

    def __init__(self, browser: Any, root: str, page: str = "index.html", **options: Any) -> None:
        self.wrong: list[str] = []
        self.requests: list[str] = []
        self.root = root
        self.page = browser.new_page(**{"viewport": SCREEN, **options})
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.wrong.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.go(page)

    def go(self, page: str) -> None:
        self.page.goto(f"{self.root}/{page}")

    def shown(self) -> list[str]:
        """Figure and cell of the visible rows."""
        return [" ".join(t.split()) for t in self.page.locator("table.series tbody tr:visible th").all_inner_texts()]

    def close(self) -> None:
        self.page.close()
        assert self.wrong == []
        assert [url for url in self.requests if not url.startswith(("data:", self.root))] == []


@pytest.fixture
def opened(browser: Any, site: Path) -> Iterator[Opened]:
    found = Opened(browser, site.as_uri())
    yield found
    found.close()


def path_of(site: Path, beginning: str) -> str:
    return f"series/{next((site / 'series').glob(f'{beginning}*.html')).name}"


def test_from_the_overview_to_a_comparison_and_back(opened: Opened) -> None:
    page = opened.page
    page.locator(".alarms a", has_text="fps").first.click()
    page.wait_for_url("**/series/shapes-tiny-default-fps-*.html")
    assert page.locator("h1").inner_text() == "fps"
    assert "regression since" in page.locator(".lead").inner_text()
    first_bad = page.locator(".steps a.run").first.inner_text()
    page.locator(".steps a.run").first.click()
    page.locator("#run table").first.wait_for()
    assert page.url.endswith(f"run.html#{first_bad}")
    assert page.locator("#run h1").inner_text().startswith("Speed of 2026-11-2")
    assert "2.99.0" in page.locator("#run").inner_text()
    page.get_by_role("link", name="compare with the night before").click()
    page.locator("#comparison table").first.wait_for()
    assert re.search(rf"compare\.html#[0-9a-f]{{12}}\.\.{first_bad}$", page.url)
    differing = page.get_by_role("table", name="Circumstances that differ").inner_text()
    assert "environment.libraries.torch" in differing
    row = page.get_by_role("table", name="Figures").locator("tbody tr", has_text="fps").inner_text()
    assert "worse" in row
    assert re.search(r"−\d\.\d+", row)
    for expected in ("run.html#", "/series/shapes-tiny-default-fps", "index.html"):
        page.go_back()
        page.wait_for_url(f"**{expected}**")


def test_a_run_leads_to_its_series_and_to_its_neighbours(opened: Opened, site: Path) -> None:
    page = opened.page
    opened.go(path_of(site, "shapes-tiny-default-ap-accuracy"))
    page.locator("#nights summary").click()
    names = [link.split("#")[1] for link in page.locator("#nights tbody a").evaluate_all("all => all.map(a => a.href)")]
    opened.go(f"run.html#{names[5]}")
    page.get_by_role("link", name="night before").first.click()
    page.wait_for_url(f"**#{names[6]}")
    page.get_by_role("link", name="night after").click()
    page.wait_for_url(f"**#{names[5]}")
    page.get_by_role("table", name="Figures").get_by_role("link", name="AP", exact=True).click()
    page.wait_for_url("**/series/shapes-tiny-default-ap-accuracy-*.html")


def test_runs_that_are_not_there_are_said_to_be_missing(opened: Opened) -> None:
    # A shard that is not there is an error of the browser's log, so one that is there is asked.
    entries, _ = made()
    opened.go(f"run.html#{entries[0].sha256[:2]}{'0' * 30}")
    opened.page.get_by_role("heading", name="No such run").wait_for()
    opened.go("run.html#<img src=x onerror=alert(1)>")
    opened.page.get_by_text("No run of this site is called").wait_for()
    opened.go("run.html")
    opened.page.get_by_role("heading", name="Which run?").wait_for()


def test_filters_are_kept_in_the_address(opened: Opened) -> None:
    page = opened.page
    everything = opened.shown()
    page.get_by_label("Variant", exact=True).select_option("fp16")
    assert [row for row in opened.shown() if row.startswith("fps")] == opened.shown() != everything
    assert "variant=fp16" in page.url
    page.get_by_label("Machine", exact=True).select_option("NVIDIA H200")
    assert opened.shown() == []
    assert page.get_by_text("No series is like this.").is_visible()
    page.go_back()
    assert page.get_by_label("Machine", exact=True).input_value() == ""
    assert len(opened.shown()) == 1
    page.go_back()
    assert opened.shown() == everything
    page.get_by_label("State", exact=True).select_option("regression")
    shared = page.url
    assert len(opened.shown()) == 2
    page.get_by_label("Search", exact=True).fill("FPS")
    page.wait_for_url("**q=FPS**")
    assert len(opened.shown()) == 1
    page.get_by_role("button", name="Clear", exact=True).click()
    assert opened.shown() == everything
    page.goto(shared)
    assert len(opened.shown()) == 2
    assert page.locator("#found").inner_text() == f"2 of {len(everything)} series"


def test_a_hostile_name_can_be_filtered_by(opened: Opened) -> None:
    page = opened.page
    page.get_by_label("Suite", exact=True).select_option(BAD)
    assert len(opened.shown()) == 1
    page.reload()
    assert page.get_by_label("Suite", exact=True).input_value() == BAD
    assert len(opened.shown()) == 1


def test_other_figures_are_shown_on_request(opened: Opened) -> None:
    page = opened.page
    assert not any(row.startswith(("AP50", "latency")) for row in opened.shown())
    page.get_by_label("Figure", exact=True).select_option("latency")
    page.wait_for_url("**/all.html?figure=latency")
    assert len(opened.shown()) == 1
    page.get_by_label("Figure", exact=True).select_option("*")
    assert len(opened.shown()) == len(made()[1])
    page.get_by_label("Figure", exact=True).select_option("")
    page.wait_for_url("**/index.html")


def test_columns_sort_by_number_with_nothing_last(opened: Opened) -> None:
    page = opened.page
    page.get_by_role("button", name="Latest").click()
    values = [float(row) for row in page.locator("table.series tbody tr").evaluate_all("rows => rows.map(r => r.dataset.value)")]
    known = [value for value in values if not math.isnan(value)]
    assert known == sorted(known)
    assert page.locator("th[aria-sort=ascending]").count() == 1
    page.get_by_role("button", name="State").focus()
    page.keyboard.press("Enter")
    assert page.locator("table.series tbody tr").first.get_attribute("data-state") == "regression"
    page.reload()
    assert page.locator("th[aria-sort=ascending] button").inner_text() == "State"


def test_pointing_at_a_night_shows_it(opened: Opened, site: Path) -> None:
    page = opened.page
    opened.go(path_of(site, "shapes-tiny-default-fps"))
    area = page.locator(".chart:visible .area")
    assert page.locator(".details:visible").count() == 0
    box = area.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
    details = page.locator(".details:visible")
    middle = details.inner_text()
    for expected in ("images/s", "UTC", "95 % interval", "NVIDIA H200", "torch", "m2fbench commit", "checkpoint"):
        assert expected in middle
    page.mouse.move(box["x"] + box["width"] - 2, box["y"] + 40)
    assert "2026-11-30" in details.inner_text() != middle
    cursor = page.locator(".chart:visible circle.cursor").bounding_box()
    assert box["x"] < cursor["x"] + cursor["width"] / 2 <= box["x"] + box["width"]
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + 40)
    page.wait_for_url("**/run.html#*")


def test_the_chart_is_read_by_key(opened: Opened, site: Path) -> None:
    page = opened.page
    opened.go(path_of(site, "shapes-tiny-default-fps"))
    page.locator(".chart:visible .area").focus()
    page.keyboard.press("End")
    details = page.locator(".details:visible")
    last = details.inner_text()
    assert "2026-11-30" in last
    page.keyboard.press("ArrowLeft")
    assert "2026-11-29" in details.inner_text()
    page.keyboard.press("ArrowUp")
    assert "regression" in details.inner_text()
    page.keyboard.press("Escape")
    assert page.locator(".details:visible").count() == 0
    page.keyboard.press("Home")
    assert "2026-10-0" in details.inner_text()
    page.keyboard.press("Enter")
    page.wait_for_url("**/run.html#*")


def test_zooms_show_the_last_nights(opened: Opened, site: Path) -> None:
    page = opened.page
    opened.go(path_of(site, "shapes-tiny-default-fps"))
    whole = page.locator(".chart:visible svg.plot").get_attribute("data-first")
    page.locator("label", has_text="last 30").click()
    assert page.locator(".chart:visible").count() == 1
    assert int(page.locator(".chart:visible svg.plot").get_attribute("data-first")) > int(whole) == 0
    assert "nights=30" in page.url
    page.reload()
    assert page.locator(".chart:visible").get_attribute("data-zoom") == "30"


def test_the_whole_site_can_be_used_by_key(opened: Opened) -> None:
    page = opened.page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    outlines = []
    for _ in range(40):
        page.keyboard.press("Tab")
        outlines.append(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
    assert set(outlines) == {"solid"}, "what is focused is to be seen"


def test_what_has_the_focus_is_on_the_screen_when_zoomed_in(browser: Any, site: Path) -> None:
    """A window of 1280 pixels at 200 %."""
    found = Opened(browser, site.as_uri(), viewport={"width": 640, "height": 450}, reduced_motion="reduce")
    count = found.page.locator("table.series thead button").count()
    assert count == found.page.locator("table.series thead button:visible").count() > 5
    for number in range(count):
        button = found.page.locator("table.series thead button").nth(number)
        button.focus()
        seen = button.evaluate(
            "e => { const b = e.getBoundingClientRect(); return document.elementFromPoint(b.x + b.width / 2, b.y + b.height / 2) === e; }"
        )
        assert seen, button.inner_text()
    found.close()


def test_accessible_names_are_words(opened: Opened, site: Path) -> None:
    page = opened.page
    head = page.locator("table.series thead").aria_snapshot()
    assert 'button "State"' in head
    assert "↕" not in head
    opened.go(path_of(site, "shapes-tiny-default-fps"))
    charts = page.locator(".charts").aria_snapshot()
    assert 'radio "all nights"' in charts
    assert re.search(r'application "fps of shapes/tiny/default, \d+ nights; latest [\d.]+ images/s\.', charts)
    assert "img" not in charts, "what the name of the chart says is not said again mark by mark"


def test_the_night_before_is_one_of_the_same_machine(browser: Any, tmp_path: Path) -> None:
    entries = [e for e in made()[0] if e.kind == "speed" and e.row == "tiny" and e.variant == "default"][:6]
    entries = [replace(e, machine=f"machine {i % 2}") for i, e in enumerate(sorted(entries, key=lambda e: e.time))]
    write_site(tmp_path, entries, [], [], SiteRequest("Two machines"))
    found = Opened(browser, tmp_path.as_uri(), f"run.html#{entries[4].sha256}")
    found.page.get_by_role("link", name="night before").first.click()
    found.page.wait_for_url(f"**#{entries[2].sha256[:12]}")
    found.go(f"compare.html#{entries[0].sha256[:16].upper()}..{entries[4].sha256[:8]}")
    found.page.locator("#comparison table").first.wait_for()
    found.close()


def test_a_difference_within_the_intervals_is_not_sure(browser: Any, tmp_path: Path) -> None:
    entry = next(e for e in made()[0] if e.kind == "speed" and e.row == "tiny")
    pairs = {"near": (30.0, 29.9), "far": (30.0, 20.0)}
    a, b = (
        replace(
            entry,
            sha256=name * 64,
            figures=tuple(Figure(f, pairs[f][k], "images/s", True, pairs[f][k] - 1, pairs[f][k] + 1) for f in pairs),
        )
        for k, name in enumerate("ab")
    )
    write_site(tmp_path, [a, b], [], [], SiteRequest("Two runs"))
    found = Opened(browser, tmp_path.as_uri(), "compare.html#aaaaaaaa..bbbbbbbb")
    table = found.page.get_by_role("table", name="Figures")
    assert "worse, not sure" in table.locator("tr", has_text="near").inner_text()
    assert table.locator("td.worse").all_inner_texts() == ["worse"]
    assert found.page.get_by_text("the intervals of A and B overlap").is_visible()
    found.close()


def test_the_last_two_runs_of_a_cell_are_compared_unless_others_are_chosen(opened: Opened) -> None:
    """Of one kind, not one and the same; and the way back leads to where one came from."""
    page = opened.page
    page.get_by_label("Site").get_by_role("link", name="Compare").click()
    page.locator("#comparison table").first.wait_for()
    entries = sorted(made()[0], key=lambda e: (e.time, e.sha256))
    page.locator("select[name=cell-a]").select_option(label="shapes / tiny / default")
    page.locator("select[name=cell-b]").select_option(label="shapes / tiny / default")
    last = [e for e in entries if (e.suite, e.row, e.variant) == ("shapes", "tiny", "default")][-1]
    earlier = [e for e in entries if (e.cell, e.kind, e.machine) == (last.cell, last.kind, last.machine)][-2]
    page.wait_for_url(f"**#{earlier.sha256[:12]}..{last.sha256[:12]}")
    page.locator(".warnings").wait_for(state="detached")  # the pair before, whose runs were of two cells, had one
    opened.go("index.html")
    opened.go("compare.html")
    page.wait_for_url("**#*..*")
    page.go_back()
    page.wait_for_url("**/index.html")


def test_a_nights_name_is_shown_and_is_no_cause(opened: Opened, site: Path) -> None:
    page = opened.page
    entries = [e for e in made()[0] if e.suite == BAD]
    opened.go(path_of(site, "script-img"))
    page.locator(".chart:visible .area").focus()
    page.keyboard.press("End")
    assert f"{NAME} 30" in page.locator(".details:visible").inner_text()
    page.locator("#nights summary").click()
    assert page.locator("#nights tbody tr").first.locator("td").first.inner_text() == f"{NAME} 30"
    opened.go(f"run.html#{entries[-1].sha256}")
    page.locator("#run table").first.wait_for()
    assert f"{NAME} 30" in page.locator(".facts").inner_text()
    opened.go(f"compare.html#{entries[-2].sha256}..{entries[-1].sha256}")
    page.locator("#comparison table").first.wait_for()
    assert f"night {NAME} 29" in page.locator("#comparison .facts").inner_text()
    assert "environment.night" not in page.locator("#comparison").inner_text()


def test_picking_runs_compares_them(opened: Opened) -> None:
    from playwright.sync_api import expect

    page = opened.page
    opened.go("compare.html")
    cell, run = page.locator("select[name=cell-a]"), page.locator("select[name=run-a]")
    cell.select_option(label="shapes / tiny / default")
    page.locator("select[name=cell-b]").select_option(label="shapes / tiny / fp16")
    page.locator("#comparison table").first.wait_for()
    page.locator(".warnings").get_by_text("different cells").wait_for()
    before = page.url
    run.select_option(index=5)
    page.wait_for_url(lambda url: url != before)
    a, b = page.url.split("#")[1].split("..")
    page.get_by_role("button", name="Swap A and B").click()
    page.wait_for_url(f"**#{b}..{a}")
    expect(page.locator("select[name=run-a]")).to_have_value(b)


def test_what_cannot_be_compared_is_warned_of(opened: Opened) -> None:
    entries, _ = made()
    odd = [e for e in entries if e.suite == BAD]
    opened.go(f"compare.html#{odd[0].sha256[:12]}..{odd[-1].sha256[:12]}")
    opened.page.locator(".warnings").wait_for()
    assert (
        "Not comparable: the two were measured under different conditions (protocol.min_size)"
        in opened.page.locator(".warnings").inner_text()
    )
    headings = opened.page.locator("#comparison caption").all_inner_texts()
    assert headings[0] == "Conditions that differ"
    assert opened.page.get_by_text("better", exact=True).count() == opened.page.get_by_text("worse", exact=True).count() == 0


def test_names_are_text_everywhere(opened: Opened, site: Path) -> None:
    entries, _ = made()
    odd = next(e for e in entries if e.suite == BAD)
    pages = [
        "index.html",
        "all.html",
        f"run.html#{odd.sha256}",
        f"compare.html#{odd.sha256}..{odd.sha256}",
        path_of(site, "script-img"),
    ]
    for address in pages:
        opened.go(address)
        opened.page.locator("main h1").first.wait_for()
        opened.page.locator("main bdi").first.wait_for()
        text = opened.page.locator("body").inner_text()
        assert opened.page.locator("main img, main script[src], main b, main i").count() == 0
        assert BAD in text, address
        assert QUOTED in text
        assert clean(RIGHT) in text
        assert "secret" not in text


PAGES = ("index.html", "all.html", "compare.html", "run", "series", "comparison")


def address_of(site: Path, page: str) -> str:
    entries = [e for e in made()[0] if e.row == LONG]
    a, b = entries[0].sha256[:12], entries[-1].sha256[:12]
    known = {"run": f"run.html#{b}", "series": path_of(site, "shapes-averylong"), "comparison": f"compare.html#{a}..{b}"}
    return known.get(page, page)


def test_a_phone_shows_it_without_scrolling_sideways(browser: Any, site: Path) -> None:
    found = Opened(browser, site.as_uri(), viewport=PHONE, has_touch=True)
    for page in PAGES:
        found.go(address_of(site, page))
        found.page.wait_for_timeout(100)
        found.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        assert found.page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], page
    found.close()


@pytest.mark.parametrize("width", [700, 1000, 1280])
def test_no_width_scrolls_sideways(browser: Any, site: Path, width: int) -> None:
    found = Opened(browser, site.as_uri(), viewport={"width": width, "height": 900})
    for page in PAGES:
        found.go(address_of(site, page))
        found.page.wait_for_timeout(50)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width, page
    found.close()


COLOURS = """() => [...document.querySelectorAll('main *, .top a')].filter(e => e.getClientRects().length && !e.closest('[aria-hidden=true]')
  && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => [e.className + ' ' + e.tagName,
  e.tagName === 'text' ? getComputedStyle(e).fill : getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor])"""
PROBE = """name => { const e = document.createElement('p'); document.body.append(e); e.style.color = `var(--${name})`;
  return getComputedStyle(e).color; }"""


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_text_and_marks_stand_out_in_light_and_dark(browser: Any, site: Path, scheme: str, dark: bool) -> None:
    found = Opened(browser, site.as_uri(), color_scheme=scheme)
    for page in ("index.html", path_of(site, "shapes-tiny-default-fps"), address_of(site, "comparison")):
        found.go(page)
        found.page.wait_for_timeout(100)
        seen = {(ink, paper): what for what, ink, paper in found.page.evaluate(COLOURS)}
        assert len(seen) >= 2
        for (ink, paper), what in seen.items():
            light, shade = sorted((luminance(ink), luminance(paper)), reverse=True)
            assert (luminance(paper) < 0.1) is dark
            assert (light + 0.05) / (shade + 0.05) >= 4.5, (page, what, ink, paper)
    found.go(path_of(site, "shapes-tiny-default-fps"))
    paper = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
    for name in ("bad", "good", "odd", "curve"):
        light, shade = sorted((luminance(found.page.evaluate(PROBE, name)), luminance(paper)), reverse=True)
        assert (light + 0.05) / (shade + 0.05) >= 3.0, name
    found.close()


def test_it_works_below_any_address_of_a_server(browser: Any, site: Path) -> None:
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site.parent))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        found = Opened(browser, f"http://127.0.0.1:{server.server_port}/site")
        found.page.locator(".alarms a", has_text="compare the two").first.click()
        found.page.locator("#comparison table").first.wait_for()
        found.page.get_by_label("Site").get_by_role("link", name="Overview").click()
        found.page.get_by_label("State", exact=True).select_option("regression")
        assert len(found.shown()) == 2
        found.close()
    finally:
        server.shutdown()
        server.server_close()


def test_without_scripts_the_series_can_be_read(browser: Any, site: Path) -> None:
    found = Opened(browser, site.as_uri(), java_script_enabled=False)
    assert found.page.locator("table.series tbody tr").count() > 3
    found.page.locator(".alarms a", has_text="fps").first.click()
    assert found.page.locator("svg.plot:visible").count() == 1
    found.page.locator("label", has_text="last 30").click()
    assert found.page.locator(".chart:visible").get_attribute("data-zoom") == "30"
    found.close()


def test_print_shows_the_series_on_white(browser: Any, site: Path) -> None:
    found = Opened(browser, site.as_uri())
    found.page.emulate_media(media="print", color_scheme="dark")
    assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert found.page.locator(".filters").is_hidden()
    assert found.page.locator("table.series").is_visible()
    found.close()


def test_scripts_print_figures_as_the_pages_do(opened: Opened) -> None:
    opened.go("compare.html")
    for unit in ("percent", "s", "bytes", "count", "x", "images/s", "J/image"):
        for value in (0.0, 1e-7, 0.000999, 0.03, 1.0, 9.9996, 45.034, 123.456, 99999.5, 2.5e6, 2.6e9, 226e9, 3.1e13, -4.2):
            printed = opened.page.evaluate("([unit, value]) => valueText(scaleOf(unit, value), value)", [unit, value])
            assert printed == scale_of(unit, value).text(value), (unit, value)
    for value in (0.125, 0.375, 78.125, -3.125, 0.0, -0.001, 2.675, 12.5):  # halves, which Python rounds to even
        signed = opened.page.evaluate("value => number(scaleOf('percent', 1), value, true)", value)
        assert signed == scale_of("percent", 1.0).number(value, signed=True), value
