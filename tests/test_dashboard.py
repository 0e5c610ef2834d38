"""The dashboard's parts without a browser: names, numbers, charts, data, the feed and the folder."""

import json
import math
import os
import re
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_dashboard import BAD, LONG, PROBLEMS, QUOTED, RIGHT, made
from typer.testing import CliRunner

from m2fbench.analysis import regressions
from m2fbench.analysis.findings import Estimate
from m2fbench.analysis.main_figures import is_main
from m2fbench.analysis.regressions import Rules
from m2fbench.analysis.series import Detection, Paired, Point, Series, SeriesKey, Step
from m2fbench.errors import StoreError
from m2fbench.history.records import Acceptance
from m2fbench.reporting.dashboard.axes import Frame, seconds_of, time_ticks, value_ticks
from m2fbench.reporting.dashboard.digest import Site, digest, levels
from m2fbench.reporting.dashboard.feed import ATOM, atom
from m2fbench.reporting.dashboard.files import MANIFEST, Folder
from m2fbench.reporting.dashboard.naming import clean, name_length, slug, slug_of, without_password
from m2fbench.reporting.dashboard.page import json_text
from m2fbench.reporting.dashboard.series_page import series_page, step_row
from m2fbench.reporting.dashboard.site import SiteRequest, whole_url, write_site
from m2fbench.reporting.dashboard.svg import chart, sparkline
from m2fbench.reporting.dashboard.units import percent, scale_of

REQUEST = SiteRequest(f"Nights {BAD}", "https://example.org/bench/index.html", now="2026-12-01T05:00:00+00:00")
KEY = SeriesKey("suite", "row", "default", "accuracy", "AP")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    entries, series = made()
    written = write_site(folder, entries, series, PROBLEMS, REQUEST)
    assert written[0] == folder / "index.html"
    return folder


def small(folder: Path, nights: int = 3) -> list[Path]:
    """A site of a few nights of one cell."""
    entries, series = made(nights)
    entries = [e for e in entries if e.kind == "flops"]
    return write_site(folder, entries, [s for s in series if s.key.kind == "flops"], [], REQUEST)


# names and numbers


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_slugs_are_names_of_files_everywhere(parts: list[str]) -> None:
    made_of = slug(*parts)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,75}", made_of)
    assert slug(*parts) == made_of


def test_slugs_tell_series_apart_and_stay() -> None:
    changed: list[dict[str, Any]] = [
        {}, {"limit": 10}, {"kind": "speed"}, {"machine": "a b"}, {"machine": "a-b"}, {"figure": "ap"}, {"suite": "suite-row", "row": "default"},
        {"row": LONG}, {"row": f"{LONG}x"},
    ]  # fmt: skip
    keys = [replace(KEY, **fields) for fields in changed]
    slugs = [slug_of(key) for key in keys]
    assert len(set(slugs)) == len(keys)
    assert slugs[0] == "suite-row-default-ap-accuracy-c962bb2ef4"


def test_runs_are_named_by_as_many_digits_as_tell_them_apart() -> None:
    assert name_length(["a" * 64, "b" * 64]) == 12
    assert name_length(["a" * 64, "a" * 20 + "b" * 44]) == 21
    assert name_length([]) == 12


@pytest.mark.parametrize(
    ("unit", "value", "text"),
    [
        ("percent", 45.034, "45.03 %"), ("percent", 0.0, "0.00 %"), ("images/s", 9.1274, "9.127 images/s"), ("s", 0.08123, "81.23 ms"),
        ("images/s", 1234.5, "1\u202f234 images/s"), ("s", 2.5, "2.500 s"), ("s", 3e-5, "30.00 µs"), ("bytes", 2.6e9, "2.600 GB"),
        ("bytes", 4.5e6, "4.500 MB"), ("count", 226e9, "226.0 G"), ("count", 44e6, "44.00 M"), ("x", 1.5, "1.500 ×"),
        ("J/image", 12.0, "12.00 J/image"), ("s", math.nan, "not measured"),
    ],
)  # fmt: skip
def test_figures_are_printed_in_a_unit_that_people_read(unit: str, value: float, text: str) -> None:
    assert scale_of(unit, value).text(value).replace("\xa0", " ") == text


def test_changes_are_points_of_percentages_and_shares_of_anything_else() -> None:
    assert scale_of("percent", 45.0).change(-0.304, 45.0) == "−0.30\xa0points"
    assert scale_of("s", 0.1).change(0.0123, 0.1) == "+12.3\xa0%"
    assert scale_of("s", 0.1).change(0.0, 0.1) == "none"
    assert scale_of("s", 0.1).change(math.nan, 0.1) == "–"
    assert scale_of("s", 0.1).change(0.02, 0.0) == "+20.0\xa0ms"
    assert percent(-0.00004) == "0.00\xa0%"


def test_a_value_that_is_not_nothing_is_not_printed_as_nothing() -> None:
    assert scale_of("s", 1e-3).text(2.6e-9).replace("\xa0", " ") == "0.0000026 ms"
    assert scale_of("percent", 45.0).text(-0.00049).replace("\xa0", " ") == "−0.00049 %"


def test_texts_are_without_what_does_not_show_and_addresses_without_passwords() -> None:
    assert clean("a\x00b\u202ec\ud800d") == "a�b�c�d"
    assert clean("naïve — 数\xa0字") == "naïve — 数\xa0字"
    assert without_password("s3://key:secret@bucket/a@b.json") == "s3://bucket/a@b.json"
    assert without_password("/home/me@work/result.json") == "/home/me@work/result.json"


# charts


@given(st.floats(-1e12, 1e12), st.floats(1e-6, 1e12))
def test_ticks_of_values_are_few_and_inside(low: float, span: float) -> None:
    high = low + span
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    ticks = value_ticks(low, high)
    assert 1 <= len(ticks) <= 7
    slack = 1e-6 * (high - low) + 1e-9 * abs(low)
    assert all(low - slack <= tick <= high + slack for tick in ticks)


@pytest.mark.parametrize("days", [0.5, 3, 10, 30, 90, 200, 365, 1000, 4000, 20000])
def test_ticks_of_time_are_few_and_named(days: float) -> None:
    start = datetime(2026, 2, 3).timestamp()
    ticks = time_ticks(start, start + 86400 * days)
    assert len(ticks) <= 7
    assert all(start <= at <= start + 86400 * days and name for at, name in ticks)
    assert len(ticks) >= 2 or days < 3


def test_ticks_within_a_day_are_hours_and_minutes() -> None:
    start = datetime(2026, 2, 3, 22, 7, tzinfo=UTC).timestamp()
    assert [name for _, name in time_ticks(start, start + 300)] == ["Feb 3 22:07", "22:08", "22:09", "22:10", "22:11", "22:12"]
    assert [name for _, name in time_ticks(start, start + 4 * 3600)] == ["Feb 3 23:00", "Feb 4", "01:00", "02:00"]


def test_runs_of_the_same_day_stand_apart() -> None:
    several = [replace(p, time=f"2026-01-01T03:0{2 * i}:00+00:00") for i, p in enumerate(points(1.0, 2.0, 3.0))]
    text = chart(seen(Series(KEY, "x", True, tuple(several))), None, seconds_of(several), "")
    places = [int(x) for x, _ in re.findall(r"M(\d+) (\d+)h0", re.search(r'class="dots" d="([^"]+)"', text)[1])]  # type: ignore[index]
    assert all(b - a > 3000 for a, b in pairwise(places)), "of 8000 from edge to edge"
    assert len(re.findall(r'<text class="d[ "]', text)) == 5, "minutes below"


def points(*values: float, **more: Any) -> tuple[Point, ...]:
    return tuple(Point(f"{i:064x}", f"2026-01-{i + 1:02}T03:00:00+00:00", v, conditions="c", **more) for i, v in enumerate(values))


def seen(series: Series, **changes: Any) -> Any:
    steady = Detection(("first", *["steady"] * (len(series.points) - 1)), (), 0.1)
    return digest(series, replace(steady, **changes), Rules(), "2026-01-05T00:00:00+00:00")


@pytest.mark.parametrize(
    "values", [(1.0,), (math.nan,), (math.nan, math.nan), (5.0, 5.0, 5.0), (0.0, 0.0), (1e12, 1e-9), (-1.0, math.nan, 3.0)]
)
def test_charts_of_odd_series_are_well_formed(values: tuple[float, ...]) -> None:
    one = seen(Series(KEY, "x", True, points(*values)))
    for text in (chart(one, None, seconds_of(one.points), "a &amp; b"), sparkline(one)):
        ET.fromstring(text)
        assert "nan" not in text.replace("Nan", "")
        assert "inf" not in text


def test_a_chart_without_values_has_no_scale() -> None:
    one = seen(Series(KEY, "bytes", True, points(math.nan, math.nan)))
    assert 'class="v"' not in chart(one, None, seconds_of(one.points), "")


def test_figures_and_times_beyond_all_measure_do_not_stop_the_site(tmp_path: Path) -> None:
    odd = [(1.0, math.inf, 2.0, -math.inf), (1e308, -1.7e308, 1e308), (5e-324, 1e-320, 0.0)]
    series = [Series(replace(KEY, row=f"{i}"), "s", True, points(*values)) for i, values in enumerate(odd)]
    series.append(Series(replace(KEY, row="wide"), "s", True, points(1.0, 2.0, low=-math.inf, high=math.inf)))
    late = tuple(
        replace(p, time=time)
        for p, time in zip(points(1.0, 2.0), ("0001-01-01T00:00:00+00:00", "9999-12-31T00:00:00+00:00"), strict=True)
    )
    series.append(Series(replace(KEY, row="late"), "s", True, late))
    write_site(tmp_path, [], series, [], REQUEST)
    state = {s["row"]: s["value"] for s in json.loads((tmp_path / "data" / "series.json").read_text())["series"]}
    assert state["0"] == 2.0, "the last one that is a number"
    assert state["1"] is None


def test_a_chart_has_every_night_at_its_place(site: Path) -> None:
    """Dots and marks together are the measured nights, at heights in the order of their values."""
    _, series = made()
    one = Site(*made(), Rules()).digests
    fps = next(d for d in one if d.key.figure == "fps" and d.key.variant == "fp16")
    svg = ET.fromstring(chart(fps, None, seconds_of(fps.points), ""))
    dots = re.findall(r"M(\d+) (\d+)h0", next(p.get("d", "") for p in svg.iter("path") if str(p.get("class")).startswith("dots")))
    marks = [m for m in svg.iter("svg") if str(m.get("class")).startswith("mark") and "beyond" not in str(m.get("class"))]
    assert len(dots) + len(marks) == len(fps.points)
    low, high = float(svg.get("data-low", "")), float(svg.get("data-high", ""))
    plain = [p.value for p in fps.points if low <= p.value <= high]
    heights = {round((high - v) / (high - low) * 2000) for v in plain}
    assert {int(y) for _, y in dots} <= heights
    assert series


def test_an_outlier_does_not_flatten_the_other_nights() -> None:
    values = [10.0, 10.1, 9.9, 10.0, 50.0, 10.1]
    one = seen(Series(KEY, "images/s", True, points(*values)), states=("first", "steady", "steady", "steady", "outlier", "steady"))
    text = chart(one, None, seconds_of(one.points), "")
    high = float(re.findall(r'data-high="([^"]+)"', text)[0])
    assert high < 10.5
    assert 'class="mark beyond"' in text, "and it is said that it lies beyond"


def test_intervals_over_images_are_drawn_where_they_leave_the_nights_to_be_seen() -> None:
    """Wider ones are in a fact and in the night's details: they are of the images, which are the same every night."""
    narrow = Series(
        KEY, "percent", True, tuple(replace(p, low=p.value - 0.1, high=p.value + 0.1) for p in points(43.0, 43.6, 43.3))
    )
    wide = replace(narrow, points=tuple(replace(p, low=p.value - 2, high=p.value + 2) for p in narrow.points))
    site = Site([], [], Rules())
    drawn, fact = (series_page(site, one, [one], "") for one in (seen(narrow), seen(wide)))
    assert 'class="whiskers"' in drawn
    assert 'class="whiskers"' not in fact
    assert "95 % interval over the images 41.30 to 45.30" in fact
    fps = seen(replace(wide, unit="images/s"))
    assert 'class="whiskers"' in chart(fps, None, seconds_of(fps.points), ""), "noise of the night itself"


def test_a_frame_keeps_everything_inside() -> None:
    frame = Frame(0, 0.0, 10.0, 1.0, 3.0)
    assert (frame.x(5.0), frame.y(3.0), frame.y(1.0), frame.y(99.0), frame.beyond(3.1)) == (0.5, 0.0, 1.0, 0.0, True)


def test_levels_break_at_steps_and_at_other_conditions() -> None:
    step = Step(4, 3, 6, 10.0, 8.0, "regression", "level")
    series = Series(KEY, "x", True, points(10.0, 10.0, 30.0, 10.0, 8.0, 8.0, 8.0, 5.0, 5.0))
    states = ("first", "steady", "outlier", "steady", "regression", "steady", "steady", "restart", "steady")
    assert levels(Detection(states, (step,), 0.1), series) == [(0, 3, 10.0), (4, 6, 8.0), (7, 8, 5.0)]


# what the site says of a series


def test_states_of_series() -> None:
    step = Step(1, 0, 2, 10.0, 8.0, "regression", "level")
    series = Series(KEY, "percent", True, points(10.0, 8.0, 8.2))
    assert seen(series).status == "steady"
    bad = seen(series, steps=(step,), open=step)
    assert (bad.status, bad.level, bad.change_text) == ("regression", 10.0, "−1.80\xa0points")
    assert seen(series, steps=(replace(step, direction="improvement"),)).status == "improvement"
    assert seen(series, states=("first", "steady", "suspect")).status == "suspect"
    assert seen(series, states=("first", "steady", "restart")).status == "new"
    assert seen(replace(series, points=points(1.0, math.nan)), states=("first", "unmeasured")).status == "unmeasured"
    assert digest(series, Detection(("first", "steady", "steady"), (), 0.1), Rules(), "2026-02-01T00:00:00+00:00").status == "ended"
    assert not seen(replace(series, points=points(math.nan))).main, "what was never measured is not on the first page"


RECOVERY = Series(KEY, "percent", True, points(72.8, 54.7, 54.7, 72.0, 72.1))
REGRESSED = Step(1, 0, 2, 72.8, 54.7, "regression", "level")
RECOVERED = Step(3, 2, 4, 54.7, 72.05, "improvement", "level", ends=0)


def test_a_recovery_is_no_improvement() -> None:
    """What counts is how far it is from where it was before the regression."""
    one = seen(RECOVERY, steps=(REGRESSED, RECOVERED), states=("first", "regression", "steady", "improvement", "steady"))
    assert (one.status, one.level, one.change_text) == ("recovered", 72.8, "−0.70\xa0points")
    assert one.states[3] == "recovered"
    site = Site([], [], Rules())
    row = step_row(site, one, RECOVERED)
    assert row.made_up.replace("\xa0", " ") == "−0.75 points against the level before the regression of 2026-01-02, 72.80 %"
    page = Tags()
    page.feed(series_page(site, one, [one], ""))
    assert "+17.35" not in page.text
    assert "improvement:" not in page.text, "in the legend"
    assert "recovered: first night back from a regression" in page.text
    again = seen(RECOVERY, steps=(REGRESSED, replace(RECOVERED, ends=None)), states=one.detection.states)
    assert (again.status, again.level, step_row(site, again, again.detection.steps[1]).made_up) == ("improvement", 54.7, "")


def test_a_regression_that_the_last_night_shows_nothing_of_is_open_still() -> None:
    one = seen(RECOVERY, steps=(REGRESSED,), open=REGRESSED, returning=True)
    assert (one.status, one.level) == ("recovering", 72.8)
    assert Site([], [], Rules()).open([one]) == [one]


@pytest.fixture
def accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site with a regression that a person has accepted, whose reason is no HTML."""
    nights = [replace(p, accepted=i == 1) for i, p in enumerate(points(72.8, 54.7, 54.7, 54.8))]
    found = Detection(("first", "regression", "steady", "steady"), (replace(REGRESSED, accepted=True),), 0.1)
    monkeypatch.setattr(regressions, "detect", lambda series, rules: found)
    given = [
        Acceptance("a", nights[1].result, "AP", "too early", "host", "2026-01-04T05:00:00+00:00"),
        Acceptance("b", nights[1].result, "AP", f"smaller model {BAD}", "host", "2026-01-05T05:00:00+00:00"),
        Acceptance("c", nights[1].result, "PQ", "another figure", "host", "2026-01-06T05:00:00+00:00"),
    ]
    write_site(tmp_path, made()[0][:1], [Series(KEY, "percent", True, tuple(nights))], [], REQUEST, acceptances=given)
    return tmp_path


def test_the_reason_of_an_acceptance_is_told(accepted: Path) -> None:
    for path in (accepted / "index.html", next((accepted / "series").iterdir())):
        tags = Tags()
        tags.feed(path.read_text())
        text = " ".join(tags.text.split())
        assert f"Accepted on 2026-01-05: smaller model {BAD}" in text, path
        assert "too early" not in text
        assert "another figure" not in text
    assert "accepted 2026-01-05" in (accepted / "index.html").read_text(), "in its row"
    entry = ET.parse(accepted / "feed.xml").getroot().find(f"{{{ATOM}}}entry")
    assert entry is not None
    assert "Accepted on 2026-01-05: smaller model" in child(entry, "content")
    assert child(entry, "updated") == "2026-01-05T05:00:00Z"


def test_a_nights_name_is_told_where_it_says_more_than_its_day() -> None:
    nights = RECOVERY.points
    base = next(e for e in made()[0] if e.kind == "accuracy")
    names = ("2026-01-01", "ci-77", "n3", "2026-01-04", "2026-01-06")
    entries = [
        replace(base, sha256=p.result, time=p.time, circumstances={"environment.night": name})
        for p, name in zip(nights, names, strict=True)
    ]
    site = Site(entries, [], Rules())
    one = seen(RECOVERY, steps=(REGRESSED,), open=REGRESSED, states=("first", "regression", "steady", "steady", "steady"))
    row = step_row(site, one, REGRESSED)
    assert (row.first_day, row.last_good_day) == ("2026-01-02 (night ci-77)", "2026-01-01")
    assert row.changes == (), "a night's name is no cause"
    page = series_page(site, one, [one], "")
    data = json.loads(page[page.index('id="data">') + 10 : page.rindex("</script>")])["nights"]
    assert [night[11] if len(night) > 11 else "" for night in data] == ["", "ci-77", "n3", "", "2026-01-06"]
    assert "regression</span> since 2026-01-02 (night ci-77)" in page
    assert "night 2026-01-06" in page, "of the latest, finished the day before its name's"


def test_an_interval_that_goes_on_beyond_the_chart_is_marked() -> None:
    """And the legend speaks of it only then."""
    key = replace(KEY, figure="fps", kind="speed")
    narrow = Series(
        key, "images/s", True, tuple(replace(p, low=p.value - 0.1, high=p.value + 0.1) for p in points(43.0, 43.6, 43.3))
    )
    wide = replace(narrow, points=(*narrow.points[:2], replace(narrow.points[2], low=30.0, high=60.0)))
    site = Site([], [], Rules())
    whole, cut = (series_page(site, one, [one], "") for one in (seen(narrow), seen(wide)))
    words = "interval that goes on beyond the chart"
    assert ('class="mark cut"' in whole, words in whole) == (False, False)
    assert words in cut
    assert re.findall(r'<svg class="mark cut" x="([\d.]+)%" y="(\w+%?)"', cut) == [("95.45", "0"), ("95.45", "100%")]
    many = Series(key, "images/s", True, tuple(Point(f"{i:064x}", f"2026-{1 + i // 28:02}-{1 + i % 28:02}T03:00:00+00:00", 40.0 + i % 2,
                                                     10.0 if 50 <= i < 60 or i == 100 else 39.9, 41.1) for i in range(200)))  # fmt: skip
    assert chart(seen(many), None, seconds_of(many.points), "").count('class="mark cut"') == 2, "one for each stretch"


def test_series_are_counted_in_words(site: Path) -> None:
    text = (site / "index.html").read_text()
    assert re.search(r"<strong>2</strong> regressions</a>", text)
    assert re.search(r"<strong>\d+</strong> steady</a>", text)


def test_too_few_nights_are_not_called_steady() -> None:
    few = Series(KEY, "percent", True, points(10.0, 10.0, 10.0))
    assert seen(few, noise=math.nan).status == "new"
    assert seen(replace(few, key=replace(KEY, kind="flops")), noise=math.nan).status == "steady", "counted, without noise"
    same = Paired(few.points[1].result, 10, Estimate(0.0), 1.0, identical=True)
    paired = replace(few, points=(*few.points[:2], replace(few.points[2], paired={same.baseline: same})))
    assert seen(paired, noise=math.nan).status == "steady", "compared over the same images"


def test_evidence_says_what_the_paired_comparison_was() -> None:
    nights = points(45.0, 44.6, 44.6, 44.6)
    pair = Paired(nights[0].result, 5000, Estimate(-0.4, -0.9, 0.1), 0.12)
    other = Paired("f" * 64, 5000, Estimate(-0.5, -0.9, -0.1), 0.01)
    series = Series(
        KEY, "percent", True, (nights[0], replace(nights[1], paired={other.baseline: other, pair.baseline: pair}), *nights[2:])
    )
    step = Step(1, 0, 3, 45.0, 44.6, "regression", "level")
    detected = Detection(("first", "regression", "steady", "steady"), (step,), 0.1, step)
    site = Site([], [series], Rules())
    one = digest(series, detected, Rules(), "2026-01-05T00:00:00+00:00")
    text = "−0.40 points (−0.90 to +0.10) on the same 5000 images, p = 0.12"
    assert step_row(site, one, step).evidence == f"3 nights at the new level; {text}"
    page = series_page(site, one, [one], "")
    both = json.loads(page[page.index('id="data">') + 10 : page.rindex("</script>")])["nights"][1][-1]
    assert both.startswith(f"{text}, against {nights[0].result}; −0.50 points"), "the newest baseline first, and none left out"
    assert step_row(site, one, replace(step, evidence="paired")).evidence == text


def test_a_disturbed_latest_value_is_said_to_be(tmp_path: Path) -> None:
    series = Series(replace(KEY, figure="fps", kind="speed", machine="m"), "images/s", True, points(1.0, 2.0, disturbed=True))
    write_site(tmp_path, [], [series], [], REQUEST)
    page = next((tmp_path / "series").iterdir()).read_text()
    assert "the machine was disturbed while the latest value was measured" in page
    assert "disturbed: something else took the machine" in page


def test_the_change_is_held_against_quiet_nights_of_the_same_level() -> None:
    series = Series(KEY, "percent", True, (*points(10.0, 8.0, 8.0, 8.4), replace(points(8.1)[0], time="2026-01-05T03:00:00+00:00")))
    step = Step(1, 0, 2, 10.0, 8.0, "regression", "level", accepted=True)
    found = seen(series, steps=(step,), states=("first", "regression", "steady", "outlier", "steady"))
    assert found.level == 8.0
    assert found.change == pytest.approx(0.1)


def test_main_figures() -> None:
    main = ["AP", "PQ", "AP_th_pan", "mIoU_pan", "mIoU"]
    assert all(is_main("accuracy", figure) for figure in main)
    assert not any(is_main("speed", figure) for figure in main), "beside speed it is of fewer images"
    assert is_main("speed", "fps")
    assert is_main("flops", "FLOPs")
    assert not is_main("accuracy", "AP50")


def test_rules_are_those_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr(
        regressions, "detect", lambda series, rules: asked.append(rules) or Detection(("first",) * len(series.points), (), math.nan)
    )
    entries, series = made(3)
    write_site(tmp_path, entries, series, [], replace(REQUEST, rules=Rules(nights=7)))
    assert set(asked) == {Rules(nights=7)}
    assert len(asked) == len(series)


# pages and data


class Tags(HTMLParser):
    """What a browser would find in a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_pages_load_the_sites_own_files_only_and_names_are_text(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert {p.name for p in pages} >= {"index.html", "all.html", "run.html", "compare.html"}
    for path in pages:
        tags = Tags()
        tags.feed(path.read_text())
        names = {tag for tag, _ in tags.found}
        assert not names & {"img", "i", "b", "iframe", "object", "embed", "style", "base", "form"} - {"form"}, path
        for tag, attributes in tags.found:
            assert not any(name.startswith("on") or name == "style" for name in attributes), (path, tag)
            for name in ("src", "href"):
                address = attributes.get(name)
                if address and not address.startswith(("data:,", "#", "?")):
                    target = (path.parent / re.split("[?#]", address)[0]).resolve()
                    assert target.is_file(), (path, address)
                    assert target.is_relative_to(site), (path, address)
        policy = next(a["content"] for t, a in tags.found if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
        assert policy is not None
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert ("html", {"lang": "en"}) in tags.found
        headings = [int(tag[1]) for tag, _ in tags.found if re.fullmatch("h[1-6]", tag)]
        assert headings[:1] in ([1], []), path
        assert all(b <= a + 1 for a, b in pairwise(headings)), path
    overview = Tags()
    overview.feed((site / "index.html").read_text())
    for name in (BAD, QUOTED, LONG, clean(RIGHT)):
        assert name in overview.text, name


def test_a_series_page_says_what_happened(site: Path) -> None:
    fps = next(p for p in (site / "series").glob("shapes-tiny-default-fps-*.html"))
    tags = Tags()
    tags.feed(fps.read_text())
    text = " ".join(tags.text.split())
    assert "regression since 2026-11-2" in text
    assert re.search(r"torch 2\.12\.1 → 2\.99\.0", text)
    assert "compare the two" in text
    assert "on NVIDIA H200" in text
    accuracy = (next((site / "series").glob("shapes-tiny-default-ap-accuracy-*.html"))).read_text()
    assert "on the same 200 images" in accuracy or "nights at the new level" in accuracy
    assert "checkpoint</span>" in accuracy


def data_of(path: Path) -> Any:
    """What a data script hands over."""
    text = path.read_text()
    assert re.match(r'received\("[a-z0-9/-]+",', text)
    assert "<" not in text
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


def test_every_run_is_in_its_file_with_all_that_is_known(site: Path) -> None:
    entries, _ = made()
    shards = {path.stem: data_of(path) for path in (site / "data" / "runs").glob("*.js")}
    assert sum(len(s["runs"]) for s in shards.values()) == len(entries)
    for entry in entries[:: len(entries) // 25]:
        shard = shards[entry.sha256[:2]]
        run = shard["runs"][entry.sha256[:12]]
        assert (run[0], run[2], run[3], shard["texts"][run[7]], bool(run[8])) == (
            entry.sha256,
            entry.kind,
            entry.status,
            entry.machine,
            entry.disturbed,
        )
        assert shard["cells"][run[1]][1:] == [clean(entry.suite), clean(entry.row), clean(entry.variant)]
        figures = {shard["figures"][place][0]: values for place, *values in run[10]}
        for figure in entry.figures:
            assert figures[figure.name][0] == (None if math.isnan(figure.value) else figure.value)
        assert dict(shard["pairs"][place] for place in run[11]) == dict(entry.circumstances)
        assert dict(shard["pairs"][place] for place in run[12]) == dict(entry.conditions)
        origins = [shard["texts"][place] for place in run[13]]
        assert origins == [f"/runs/{BAD}", "s3://bucket/x.json"]


def test_links_to_filtered_views_name_what_the_filters_have(tmp_path: Path) -> None:
    key = replace(KEY, suite="a\x00\u200bb\ud800", row=RIGHT)
    entries = [replace(made()[0][0], suite=key.suite, row=key.row)]
    write_site(tmp_path, entries, [Series(key, "percent", True, points(1.0))], [], REQUEST)
    overview, page = Tags(), Tags()
    overview.feed((tmp_path / "index.html").read_text())
    page.feed(next((tmp_path / "series").iterdir()).read_text())
    asked = [parse_qs(urlsplit(a["href"] or "").query) for _, a in page.found if "?suite" in (a.get("href") or "")]
    assert {"suite": [clean(key.suite)], "row": [clean(RIGHT)]} in asked
    assert f"{clean(key.suite)}" in overview.text
    shard = data_of(next((tmp_path / "data" / "runs").iterdir()))
    assert shard["cells"][0][1:3] == [clean(key.suite), clean(key.row)]


def test_cells_lead_to_runs_and_series(site: Path) -> None:
    entries, series = made()
    cells = data_of(site / "data" / "cells.js")
    assert {tuple(cell[1:]) for cell in cells} == {(clean(e.suite), clean(e.row), clean(e.variant)) for e in entries}
    found = [data_of(site / "data" / "cells" / f"{name}.js") for name, *_ in cells]
    assert sum(len(cell["runs"]) for cell in found) == len(entries)
    pages = {line[4] for cell in found for line in cell["series"]}
    assert pages == {path.stem for path in (site / "series").glob("*.html")} == {slug_of(s.key) for s in series}
    for cell in found:
        assert [run[1] for run in cell["runs"]] == sorted(run[1] for run in cell["runs"])


def test_other_programs_read_the_present_state(site: Path) -> None:
    document = json.loads((site / "data" / "series.json").read_text())
    fps = next(s for s in document["series"] if s["figure"] == "fps" and s["variant"] == "default" and s["row"] == "tiny")
    assert fps["state"] == "regression"
    assert fps["regression"]["changes"][0] == {"what": "torch", "before": "2.12.1", "after": "2.99.0"}
    assert (site / fps["page"]).is_file()


def test_json_ends_neither_page_nor_script() -> None:
    assert json_text({"a": "</script><!--&\u2028"}) == '{"a":"\\u003c/script\\u003e\\u003c!--\\u0026\\u2028"}'
    with pytest.raises(ValueError, match="JSON"):
        json_text(math.nan)


def test_problems_are_listed_and_an_empty_history_says_what_to_do(site: Path, tmp_path: Path) -> None:
    page = (site / "index.html").read_text()
    assert "Files that could not be read" in page
    assert "update m2fbench" in page
    assert "secret" not in page
    write_site(tmp_path, [], [], PROBLEMS[1:], REQUEST)
    empty = (tmp_path / "index.html").read_text()
    assert "m2fbench history add" in empty
    assert "1 file is in the history" in empty
    assert ET.parse(tmp_path / "feed.xml").getroot().tag == f"{{{ATOM}}}feed"


# the feed


def child(element: ET.Element, name: str) -> str:
    found = element.findall(f"{{{ATOM}}}{name}")
    assert len(found) == 1, name
    return found[0].text or ""


def feed_of(nights: int, url: str | None = "https://example.org/bench/") -> ET.Element:
    return ET.fromstring(atom(Site(*made(nights), Rules()), REQUEST.title, url))


def test_the_feed_is_what_rfc_4287_asks_for(site: Path) -> None:
    feed = ET.parse(site / "feed.xml").getroot()
    for element in (feed, *feed.findall(f"{{{ATOM}}}entry")):
        assert re.fullmatch(r"urn:uuid:[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", child(element, "id"))
        assert child(element, "title")
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", child(element, "updated"))
        assert all(link.get("href", "").startswith("https://example.org/bench/") for link in element.findall(f"{{{ATOM}}}link"))
        rels = [link.get("rel") for link in element.findall(f"{{{ATOM}}}link")]
        assert rels.count("alternate") == 1
    assert feed.find(f"{{{ATOM}}}author/{{{ATOM}}}name") is not None
    entries = feed.findall(f"{{{ATOM}}}entry")
    assert len({child(e, "id") for e in entries}) == len(entries) == 2
    assert [child(e, "published") for e in entries] == sorted((child(e, "published") for e in entries), reverse=True)
    assert child(entries[0], "title").startswith("fps −")
    assert "torch: 2.12.1 to 2.99.0" in child(entries[0], "content")
    assert all(e.find(f"{{{ATOM}}}category").get("term") == "regression" for e in entries)  # type: ignore[union-attr]
    for entry in entries:
        page = entry.find(f"{{{ATOM}}}link").get("href", "").removeprefix("https://example.org/bench/")  # type: ignore[union-attr]
        assert (site / page).is_file()


def test_names_in_the_feed_stay_when_more_nights_come() -> None:
    late, early = ({child(e, "id"): child(e, "title") for e in feed_of(nights).findall(f"{{{ATOM}}}entry")} for nights in (60, 50))
    assert len(early) == 1
    assert early.items() <= late.items()
    assert child(feed_of(60), "id") == child(feed_of(50), "id")


def test_links_of_a_feed_without_an_address_are_relative() -> None:
    assert (
        whole_url("https://a.example/b/index.html")
        == whole_url("https://a.example/b/")
        == whole_url("https://a.example/b")
        == "https://a.example/b/"
    )
    links = [link.get("href", "") for link in feed_of(60, None).iter(f"{{{ATOM}}}link")]
    assert links[0] == "index.html"
    assert not any(link.startswith(("http", "/")) for link in links)


# the folder


def test_what_has_not_changed_is_left_alone_and_what_is_gone_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    small(folder, 3)
    (folder / "series" / "notes.txt").write_text("mine")
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST}
    for path in before:
        os.utime(path, ns=(1, 1))
    small(folder, 3)
    assert all(path.stat().st_mtime_ns == 1 for path in before)
    write_site(folder, [], [], [], REQUEST)
    left = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert "series/notes.txt" in left
    assert not any(name.startswith(("data/runs", "series/shapes")) for name in left)
    assert (folder / "index.html").stat().st_mtime_ns != 1
    assert not list(folder.rglob("*.part"))


def test_a_folder_that_is_someone_elses_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(StoreError, match="found index.html; choose another"):
        small(tmp_path)
    (tmp_path / "index.html").rename(tmp_path / "model.safetensors")
    with pytest.raises(StoreError, match="expected an empty folder or one that holds a dashboard already, found model.safetensors"):
        small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]
    (tmp_path / MANIFEST).write_text(json.dumps({"format": "another", "files": []}))
    with pytest.raises(StoreError, match="its format is not"):
        small(tmp_path)
    (tmp_path / MANIFEST).unlink()
    (tmp_path / "model.safetensors").rename(tmp_path / "index.html")
    with pytest.raises(StoreError, match="expected a folder"):
        small(tmp_path / "index.html")


def test_a_file_of_someone_elses_in_the_sites_folder_is_not_written_over(tmp_path: Path) -> None:
    small(tmp_path)
    with Folder(tmp_path) as folder:
        (tmp_path / "data" / "mine.js").write_text("mine")
        with pytest.raises(StoreError, match=r"mine\.js is there and was not written with the site"):
            folder.announce(["data/mine.js"])
        for name in folder.before:
            folder.written.append(name)


def test_a_list_of_files_cannot_name_what_lies_outside(tmp_path: Path) -> None:
    folder, outside = tmp_path / "site", tmp_path / "precious.txt"
    outside.write_text("mine")
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / "a.txt").write_text("mine")
    folder.mkdir()
    (folder / "link").symlink_to(linked)
    names = ["../precious.txt", str(outside), "a/../../precious.txt", "link/a.txt", 7, ""]
    (folder / MANIFEST).write_text(json.dumps({"format": "m2fbench dashboard", "version": 1, "files": names}))
    small(folder)
    assert outside.read_text() == (linked / "a.txt").read_text() == "mine"
    (folder / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match="expected the list of the site's files"):
        small(folder)


def test_a_site_that_was_begun_and_not_finished_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from m2fbench.reporting.dashboard import files

    real, left = files.write_atomically, [6]

    def failing(path: Path, content: str | bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(path, content)

    monkeypatch.setattr(files, "write_atomically", failing)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path)
    assert not (tmp_path / "index.html").exists()
    monkeypatch.setattr(files, "write_atomically", real)
    written = small(tmp_path)
    assert all(path.is_file() for path in written)


def test_a_site_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    with Folder(tmp_path) as first:
        other = threading.Thread(target=small, args=(tmp_path,))
        other.start()
        first.announce(["mine.html"])
        first.write("mine.html", "")
        other.join(0.2)
        assert other.is_alive(), "it waits"
    other.join(60)
    assert not (tmp_path / "mine.html").exists(), "the later one knew what the earlier one wrote"
    assert small(tmp_path)[0].is_file()
    assert not list(tmp_path.glob("*.lock"))


def test_what_a_killed_process_had_begun_is_removed(tmp_path: Path) -> None:
    small(tmp_path)
    left = [tmp_path / ".index.html.123.part", tmp_path / "assets" / ".common.js.4.part", tmp_path / f".{MANIFEST}.5.part"]
    mine = tmp_path / ".notes.txt.6.part"
    for path in (*left, mine):
        path.write_text("")
    (tmp_path / ".m2fbench-dashboard.lock").write_text("")
    small(tmp_path)
    assert not any(path.exists() for path in left)
    assert mine.exists()


# the command


def test_the_command_says_where_the_site_is(tmp_path: Path) -> None:
    from demo_history import content_of, results
    from made_dashboard import STREAMS
    from made_history import made_history

    from m2fbench.cli import app

    made_history(tmp_path / "history", [content_of(r) for r in results(STREAMS[3:4], 3)])
    arguments = ["dashboard", "-o", str(tmp_path / "site"), "--title", "Ours & <theirs>"]
    found = CliRunner().invoke(app, arguments, env={"M2FBENCH_HISTORY": str(tmp_path / "history")})
    assert found.exit_code == 0, found.output
    assert f"dashboard: {tmp_path / 'site' / 'index.html'} (1 series, 3 results)" in found.output
    assert "Ours &amp; &lt;theirs&gt;" in (tmp_path / "site" / "index.html").read_text()
    wrong = CliRunner().invoke(app, [*arguments, "--url", "javascript:alert(1)", "--history", str(tmp_path / "history")])
    assert wrong.exit_code != 0
