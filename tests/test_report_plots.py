"""Figures: what is on the Pareto front, that they can be read on white and on dark pages, that the same content gives the same bytes."""

import io
import itertools
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from report_cases import CLASSES, HOSTILE, comparison, looked, material, result, speed

from m2fbench.analysis.findings import Confusion, ErrorFindings, ErrorShare
from m2fbench.analysis.runs import Run
from m2fbench.reporting.page import plots, plots_accuracy, plots_costs, plots_errors
from m2fbench.reporting.page.frame import frame_of
from m2fbench.reporting.page.plots_accuracy import Point, pareto_front, undecided
from m2fbench.reporting.page.plots_layers import layer_figure
from m2fbench.reporting.page.records import Figure
from m2fbench.types import Measurement

numbers = st.one_of(st.integers(0, 6).map(float), st.just(math.nan))


@given(st.lists(st.tuples(numbers, numbers), max_size=12), st.booleans())
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]], more: bool) -> None:
    """Against the definition, point by point."""

    def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
        cheaper, equal = (a[0] > b[0] if more else a[0] < b[0]), a[0] == b[0]
        return (cheaper and a[1] >= b[1]) or (equal and a[1] > b[1])

    known = [p for p in points if not any(map(math.isnan, p))]
    expected = {p for p in known if not any(beats(q, p) for q in known)}
    front = pareto_front(points, more)
    assert {points[i] for i in front} == expected
    assert len(front) == len(expected)
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)
    assert all(points.index(points[i]) == i for i in front)  # of equal points the first


spans = st.tuples(numbers, st.integers(0, 6), st.integers(0, 2), st.integers(0, 2))


@given(st.lists(spans, max_size=6), st.booleans())
def test_what_intervals_leave_open_is_on_the_front_for_some_costs_only(
    given_: list[tuple[float, int, int, int]], more: bool
) -> None:
    """Against every choice of each point's lowest and highest cost; of equal values and costs there is no telling."""
    points = [
        Point(str(k), 10.0 + c, float(v), low=10.0 + c - a, high=10.0 + c + b) for k, (c, v, a, b) in enumerate(given_) if c == c
    ]
    open_ = undecided(points, more)
    for i, point in enumerate(points):
        on = set()
        for end in itertools.product(*[(0, 1)] * len(points)):
            costs = [p.ends[e] for p, e in zip(points, end, strict=True)]
            rivals = [k for k, p in enumerate(points) if k != i and p.value >= point.value]
            on.add(not any(costs[k] > costs[i] if more else costs[k] < costs[i] for k in rivals))
        assert i in open_ or len(on) == 1
        assert i not in open_ or on != {False}
    plain = [replace(point, low=math.nan, high=math.nan) for point in points]
    assert undecided(plain, more) == [], "without intervals the front is decided"


def test_no_front_is_claimed_between_speeds_whose_intervals_meet(tmp_path: Path) -> None:
    runs = [
        Run(tmp_path / name, name, result(name, shift=shift), speed(name, None, fps=fps), None)
        for name, shift, fps in (("exact", 2.0, 8.0), ("near", 1.0, 9.0), ("fast", 0.0, 30.0))
    ]
    drawn = plots_accuracy.trade_off(frame_of(runs), [run.label for run in runs], "PQ", "fps", key="k")
    assert drawn is not None
    assert "cannot be told: near, as the interval meets" in drawn.caption
    assert "On it: exact, fast. Lines are 95 % intervals." in drawn.caption
    apart = plots_accuracy.trade_off(frame_of(runs[::2]), ["exact", "fast"], "PQ", "fps", key="k")
    assert apart is not None
    assert apart.caption == "On the Pareto front (dashed where it has more than one point): exact, fast. Lines are 95 % intervals."


def test_published_figures_stand_beside_comparable_runs_only(tmp_path: Path) -> None:
    whole = result()
    other = replace(whole, comparisons=tuple(replace(c, comparable=False) for c in whole.comparisons))
    for made, there in ((whole, True), (other, False)):
        run = Run(tmp_path, "swin", made, None, None)
        drawn = plots_accuracy.overview(frame_of([run]), ["swin"], ["PQ"], "k", "t")
        assert drawn is not None
        assert (">published<" in drawn.svg) is there


def luminance(color: str) -> float:
    """WCAG 2.1's relative luminance."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("page", ["#ffffff", plots.DARK_PAGE])
def test_colours_stand_out_on_white_and_on_dark(page: str) -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert all(contrast(color, page) >= 3 for color in plots.SERIES)
    assert contrast(plots.GREY, page) >= 4  # of text


def test_no_two_series_look_alike_without_colour() -> None:
    looks = [plots.look(number) for number in range(35)]
    assert len({(look.color, look.marker) for look in looks}) == 35
    assert len({(look.marker, str(look.line), look.hatch) for look in looks[:7]}) == 7


Draw = Callable[[Path], Figure | None]


def _figures() -> dict[str, Draw]:
    found, runs = looked(), ["swin", "other"]
    assert found.disaggregation is not None
    assert found.calibration is not None
    assert found.examination is not None
    subsets, calibration, layers = found.disaggregation.subsets, found.calibration, found.examination.layers

    def frame(folder: Path):  # type: ignore[no-untyped-def]
        return material(folder)[0].frame

    def labels(folder: Path) -> list[str]:
        return [run.label for run in material(folder)[0].runs]

    return {
        "overview": lambda p: plots_accuracy.overview(frame(p), labels(p), ["PQ", "AP_th_pan", "nothing"], "k", "t"),
        "trade-off": lambda p: plots_accuracy.trade_off(frame(p), labels(p), "PQ", "FLOPs", [Point(HOSTILE, 3e11, 51.0)], "k"),
        "classes": lambda p: plots_accuracy.class_bars(frame(p), labels(p), "PQ", "k"),
        "sizes": lambda p: plots_accuracy.grouped_bars(
            frame(p), labels(p), {"APs_th_pan": "small", "APl_th_pan": "large"}, "k", "t", "c"
        ),
        "subsets": lambda p: plots_accuracy.subset_dots(subsets, "PQ", 50.0, "k"),
        "differences": lambda p: plots_accuracy.difference_dots(comparison("a", HOSTILE), "k"),
        "errors": lambda p: plots_errors.error_bars(found.errors[0], "k"),
        "confusion": lambda p: plots_errors.confusion_map(found.confusions[0], "k"),
        "curves": lambda p: plots_errors.curves(found.precision_recall, "k", "t", "recall", "precision"),
        "distances": lambda p: plots_errors.distances(found.boundary, "k"),
        "calibration": lambda p: plots_errors.reliability(calibration, "k"),
        "latency": lambda p: plots_costs.latency_distribution({"swin": [0.1, 0.2, 0.9], "other": []}, runs, "k", "paper"),
        "stages": lambda p: plots_costs.stacked(
            {"swin": {"backbone": 3.0, "load": 1.0}, "other": {"backbone": math.nan}}, "k", "t", "ms", "c"
        ),
        "layers": lambda p: layer_figure(layers, 10, ["PQ"], "k"),
    }


FIGURES = _figures()


@pytest.mark.full
@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_the_same_bytes_each_time_and_text_stays_text(name: str, tmp_path: Path) -> None:
    one, other = FIGURES[name](tmp_path), FIGURES[name](tmp_path)
    assert one is not None
    assert one == other
    assert one.alt
    assert one.caption
    root = ET.fromstring(one.svg)
    texts = "".join(root.itertext())
    assert len([e for e in root.iter() if e.tag.endswith("}text")]) > 3  # not glyphs as paths
    assert "onerror" not in one.svg.replace("&lt;img src=x onerror=alert(1)&gt;", "")
    assert not re.search(r"20\d\d-\d\d-\d\d", texts)
    assert "http://" not in re.sub(r"xmlns(:\w+)?=\"[^\"]*\"|<!DOCTYPE[^>]*>", "", one.svg.split("</metadata>")[-1])
    with Image.open(io.BytesIO(one.png)) as image:
        pixels = np.asarray(image.convert("RGBA"))
        assert not {"Software", "Date"} & set(image.info)
    assert pixels[0, 0, 3] == 0  # transparent
    assert (pixels[..., 3] == 255).any()


@pytest.mark.full
def test_of_many_classes_the_lowest_and_the_highest_are_drawn() -> None:
    figures = tuple(Measurement("PQ", float(k), category=f"class {k:03d}") for k in range(133))
    frame = frame_of([Run(Path("x"), "r", result(measurements=figures, comparisons=()), None, None)])
    figure = plots_accuracy.class_bars(frame, ["r"], "PQ", "k")
    assert figure is not None
    drawn = re.findall(r"class (\d{3})", figure.svg)
    assert sorted(map(int, drawn)) == [*range(20), *range(113, 133)]
    assert "93 between" in figure.svg
    assert "93 classes" in figure.caption


def test_of_many_classes_those_confused_most_are_drawn() -> None:
    size = 40
    matrix = np.eye(size + 1) * 100
    matrix[35, 38] = 7
    confusion = Confusion("semantic", tuple(map(str, range(size))), tuple(map(tuple, matrix.tolist())), "pixels", "d")
    chosen = plots_errors._drawn_classes(confusion)
    assert len(chosen) == plots_errors.LABELLED
    assert {35, 38} <= set(chosen)
    assert plots_errors.most_confused(confusion) == [("35", "38", 7.0, pytest.approx(7 / 107))]


def test_nothing_to_draw_is_no_figure(tmp_path: Path) -> None:
    frame = frame_of([Run(tmp_path, "r", result(measurements=(), comparisons=()), None, None)])
    empty = Confusion("panoptic", CLASSES, tuple((0.0,) * 6 for _ in range(6)), "segments", "d")
    nothing = ErrorFindings("panoptic", "PQ", math.nan, "c", (ErrorShare("a", "b", 1, math.nan),))
    assert plots_accuracy.overview(frame, ["r"], ["PQ"], "k", "t") is None
    assert plots_accuracy.trade_off(frame, ["r"], "PQ", "fps", (), "k") is None
    assert plots_accuracy.class_bars(frame, ["r"], "PQ", "k") is None
    assert plots_accuracy.grouped_bars(frame, ["r"], {"APs": "small"}, "k", "t", "c") is None
    assert plots_accuracy.subset_dots((), "PQ", 1.0, "k") is None
    assert plots_errors.error_bars(nothing, "k") is None
    assert plots_errors.confusion_map(empty, "k") is None
    assert plots_errors.curves((), "k", "t", "x", "y") is None
    assert plots_costs.latency_distribution({"a": []}, ["a"], "k", "paper") is None
    assert plots_costs.stacked({"a": {}}, "k", "t", "ms", "c") is None


def test_latencies_are_of_images_that_count(tmp_path: Path) -> None:
    timed = speed("a", tmp_path / "speed.json")
    assert plots_costs.read_latencies(timed) == {"paper": pytest.approx([0.12, 0.14, 0.16])}
    assert plots_costs.read_latencies(replace(timed, path=tmp_path / "elsewhere" / "speed.json")) == {}
    (tmp_path / "speed.csv").write_text("image_id,counted\n1,1\n")
    assert plots_costs.read_latencies(timed) == {}


@pytest.mark.parametrize(("text", "shown"), [("short", "short"), ("a" * 50, f"{'a' * 16}…{'a' * 15}"), ("a\nb\x00c", "a b?c")])
def test_names_fit_an_axis(text: str, shown: str) -> None:
    assert plots.named(text) == shown
