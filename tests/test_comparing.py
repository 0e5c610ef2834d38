"""Intervals of a run's figures, and two runs compared: what is scored, what is refused, what is said."""

import io
import json
import math
import shutil
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from m2fbench.analysis.bootstrap import bootstrap, percentiles
from m2fbench.analysis.comparing import compare_runs
from m2fbench.analysis.findings import Comparison, Difference, Estimate, ImageChange
from m2fbench.analysis.intervals import intervals
from m2fbench.analysis.runs import Run, open_runs, statistics_of
from m2fbench.cli import app
from m2fbench.cli_compare import open_pair, show_comparison
from m2fbench.errors import DatasetError, PredictionsError, StoreError
from m2fbench.metrics.panoptic_quality import PanopticQuality
from m2fbench.reporting.terminal.comparison import class_verdict, comparison_json, gains, losses, verdict
from m2fbench.runner import run
from m2fbench.suite import load_suite

pytestmark = pytest.mark.full

SMALL = ["dataset.count=12", "workers=0", "protocol.min_size=64", "protocol.max_size=96"]  # quick
LOOSE = ["protocol.object_threshold=0.2", "protocol.overlap_threshold=0.3", "protocol.detections=5", "protocol.mean_iou=all"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> Path:
    """Of the bundled checkpoint: strict and loose (panoptic), loose over fewer images, other images, instances."""
    folder = tmp_path_factory.mktemp("runs")
    for name, suite, overrides, limit in (
        ("strict", "shapes_panoptic", [], None),
        ("loose", "shapes_panoptic", LOOSE, None),
        ("fewer", "shapes_panoptic", LOOSE, 9),
        ("other", "shapes_panoptic", ["dataset.split=val"], 2),
        ("instance", "shapes_instance", [], 2),
    ):
        run(load_suite(suite, [*SMALL, *overrides]), output=folder / name, loader=bundled_loader, limit=limit)
    return folder


@pytest.fixture
def strict_and_loose(runs: Path) -> tuple[Run, Run]:
    first, second = open_runs([runs / "strict", runs / "loose"])
    return replace(first, label="strict"), replace(second, label="loose")


def test_a_runs_intervals_are_around_its_own_figures(runs: Path) -> None:
    (opened,) = open_runs([runs / "strict"])
    assert opened.evidence is not None
    assert opened.result is not None
    said: list[str] = []
    found = intervals(opened.evidence, resamples=300, tell=said.append)
    assert found.images == 12
    assert found.missing == {}
    assert any("resampling 12 images 300 times" in line for line in said)
    measured = {(m.name, m.category): m.value for m in opened.result.measurements if m.unit == "percent"}
    assert set(found.figures) == set(measured)
    for key, estimate in found.figures.items():
        assert estimate.value == pytest.approx(measured[key], abs=1e-9, nan_ok=True)
        assert not estimate.has_interval or estimate.low <= estimate.high
    for name in ("PQ", "AP_th_pan", "mIoU_pan"):
        estimate = found.figures[name, None]
        assert estimate.low < estimate.value < estimate.high
        assert estimate.high - estimate.low < 25
    assert repr(intervals(opened.evidence, resamples=300)) == repr(found)  # repr: NaN is not equal to itself
    without = replace(opened.evidence, predictions=replace(opened.evidence.predictions, panoptic=None))
    assert intervals(without, resamples=100).missing == {"panoptic_quality": "there are no panoptic predictions"}


def test_differences_are_those_of_the_figures_with_paired_intervals(strict_and_loose: tuple[Run, Run]) -> None:
    a, b = strict_and_loose
    assert a.result is not None
    assert b.result is not None
    assert a.evidence is not None
    assert b.evidence is not None
    found = compare_runs(a, b, resamples=250, seed=3)
    assert (found.a, found.b, found.images, found.resamples, found.seed) == ("strict", "loose", 12, 250, 3)
    by_key = {(d.figure, d.category): d for d in found.differences}
    measured = {(m.name, m.category) for m in a.result.measurements if m.unit == "percent"}
    assert set(by_key) == measured
    for (figure, category), d in by_key.items():
        assert d.a == pytest.approx(a.result.value(figure, category=category), abs=1e-9, nan_ok=True)
        if (figure, category) not in (("mIoU_pan", None), ("challenge_score_pan", None)):  # whose rules differ
            assert d.b == pytest.approx(b.result.value(figure, category=category), abs=1e-9, nan_ok=True)
        assert d.difference.value == pytest.approx(d.b - d.a, abs=1e-9, nan_ok=True)

    pair = [next(m.statistics for m in statistics_of(e) if m.metric == "panoptic_quality") for e in (a.evidence, b.evidence)]
    first, second = bootstrap(pair, resamples=250, seed=3)
    low, high = percentiles(second.overall[1:] - first.overall[1:])
    pq = by_key["PQ", None]
    assert (pq.difference.low, pq.difference.high) == pytest.approx((low[0], high[0]), abs=1e-9)
    (other,) = bootstrap(pair[1:], resamples=250, seed=4)
    low, high = percentiles(other.overall[1:] - first.overall[1:])
    assert pq.difference.high - pq.difference.low < high[0] - low[0]  # not paired: hard images are hard for one only
    assert math.isnan(pq.adjusted_p)
    of_class = by_key["PQ", "disc"]
    assert of_class.adjusted_p >= of_class.p_value


def test_a_few_detections_cost_recall_and_the_verdict_says_so(strict_and_loose: tuple[Run, Run]) -> None:
    found = {d.figure: d for d in compare_runs(*strict_and_loose, resamples=300).differences if d.category is None}
    ar = found["AR100_th_pan"]
    assert ar.difference.value < -5
    assert ar.significant
    assert ar.p_value == pytest.approx(2 / 301)
    assert verdict(ar) == "worse"
    assert verdict(found["mIoU_present_pan"]) == "equal"  # the semantic output is the same


def test_a_run_against_itself_shows_nothing(strict_and_loose: tuple[Run, Run]) -> None:
    found = compare_runs(strict_and_loose[0], strict_and_loose[0], resamples=100)
    known = [d for d in found.differences if not math.isnan(d.a)]
    assert all(d.difference.value == 0 for d in known)
    assert {d.p_value for d in known if d.difference.has_interval} == {1.0}
    assert {verdict(d) for d in known} <= {"equal", "no interval"}
    assert losses(found, 5) == gains(found, 5) == []


def test_changes_are_each_images_own_figure_the_largest_loss_first(strict_and_loose: tuple[Run, Run]) -> None:
    a, b = strict_and_loose
    found = compare_runs(a, b, resamples=100)
    assert len(found.changes) == 12
    assert {c.figure for c in found.changes} == {"PQ"}
    assert [c.b - c.a for c in found.changes] == sorted(c.b - c.a for c in found.changes)
    for change in (found.changes[0], found.changes[-1]):
        for run_, value in ((a, change.a), (b, change.b)):
            assert run_.evidence is not None
            e = run_.evidence
            alone = PanopticQuality().score(e.dataset, e.predictions, [change.image_id], e.suite.rules)
            assert value == pytest.approx(alone[0].value, abs=1e-9)


def test_only_images_that_both_have_count(runs: Path, strict_and_loose: tuple[Run, Run]) -> None:
    a, _ = strict_and_loose
    (fewer,) = open_runs([runs / "fewer"])
    found = compare_runs(a, replace(fewer, label="fewer"), resamples=100)
    assert found.images == 9
    assert "left out, as only strict has them: 3 images" in found.notes
    assert a.evidence is not None
    ids = a.evidence.image_ids[:9]
    official = PanopticQuality().score(a.evidence.dataset, a.evidence.predictions, ids, a.evidence.suite.rules)
    assert found.differences[0].a == pytest.approx(official[0].value, abs=1e-9)
    assert "intervals over only 9 images are about 20 % too narrow" in found.notes


def test_one_image_has_no_interval(strict_and_loose: tuple[Run, Run]) -> None:
    a, b = (
        replace(r, evidence=replace(r.evidence, examples=r.evidence.examples[:1]))
        for r in strict_and_loose
        if r.evidence is not None
    )
    found = compare_runs(a, b, resamples=100)
    assert not any(d.difference.has_interval or d.significant for d in found.differences)
    assert all(math.isnan(d.p_value) for d in found.differences)
    assert "one image cannot be resampled: no intervals" in found.notes


def test_other_settings_are_noted_and_one_rule_counts_for_both(strict_and_loose: tuple[Run, Run]) -> None:
    a, b = strict_and_loose
    found = compare_runs(a, b, resamples=100)
    notes = "\n".join(found.notes)
    assert "protocol, A against B: " in notes
    assert "object_threshold: 0.8 against 0.2" in notes
    assert "by the rule 'present' for both, as in A; B's suite has 'all'" in notes
    by_figure = {d.figure: d for d in found.differences if d.category is None}
    assert by_figure["mIoU_pan"].b == pytest.approx(by_figure["mIoU_present_pan"].b, nan_ok=True)


def test_what_is_not_the_same_task_dataset_or_at_hand_is_refused_in_one_line(runs: Path, strict_and_loose: tuple[Run, Run]) -> None:
    a, b = strict_and_loose
    other, instance = open_runs([runs / "other", runs / "instance"])
    cases: list[tuple[Run, type[Exception], str]] = [
        (instance, DatasetError, "strict is a run of task panoptic, .* of instance; compare runs of one task"),
        (other, DatasetError, "are not of one dataset .*split: test against val"),
        (replace(b, evidence=None, problem="the masks are gone"), PredictionsError, "loose: .*: the masks are gone"),
    ]
    assert b.evidence is not None
    nothing = replace(b.evidence, examples=())
    cases.append((replace(b, evidence=nothing), PredictionsError, "no image in common"))
    elsewhere, fewer = copy(b.evidence.dataset), copy(b.evidence.dataset)
    elsewhere.name, fewer.categories = "coco", fewer.categories[1:]
    cases.append(
        (replace(b, evidence=replace(b.evidence, dataset=elsewhere)), DatasetError, r"\(A against B: shapes against coco\)")
    )
    cases.append((replace(b, evidence=replace(b.evidence, dataset=fewer)), DatasetError, r"\(A against B: other classes\)"))
    for run_, error, message in cases:
        with pytest.raises(error, match=message) as raised:
            compare_runs(a, run_, resamples=100)
        assert "\n" not in str(raised.value)


def test_a_class_of_few_images_and_too_few_resamples_show_nothing(strict_and_loose: tuple[Run, Run]) -> None:
    found = compare_runs(*strict_and_loose, resamples=100)
    (said,) = (note for note in found.notes if "resamples" in note)
    assert said.startswith(
        "of 10 classes a single one that differs cannot be shown with 100 resamples, whose smallest p of 0.02 is 0.2 "
    )
    assert said.endswith("take --resamples 400 or more")
    assert not any("resamples" in note for note in compare_runs(*strict_and_loose, resamples=400).notes)
    evidence = strict_and_loose[0].evidence
    assert evidence is not None
    ap = next(m.statistics for m in statistics_of(evidence) if m.metric == "coco_ap")
    holding = dict(zip(ap.categories, (ap.truth_count > 0).sum(0).tolist(), strict=True))
    of_class = {d.category: d.p_value for d in found.differences if d.figure == "AP_th_pan" and not math.isnan(d.p_value)}
    assert all(of_class[name] >= 2 ** (1 - count) for name, count in holding.items() if name in of_class)
    assert any(2 ** (1 - count) > 2 / 101 for count in holding.values())


def _difference(value: float, low: float = math.nan, high: float = math.nan, adjusted: float = math.nan) -> Difference:
    return Difference("AP", "cat", 1.0, 1.0 + value, Estimate(value, low, high), 0.04, adjusted)


@pytest.mark.parametrize(
    ("difference", "said", "of_class"),
    [
        (_difference(2, 1, 3, 0.01), "better", "better"),
        (_difference(2, 1, 3, 0.2), "better", "no difference shown"),
        (_difference(-2, -3, -1, 0.05), "worse", "worse"),
        (_difference(2, -1, 3, 0.01), "no difference shown", "no difference shown"),
        (_difference(2, 0, 3, 0.01), "no difference shown", "no difference shown"),
        (_difference(0, 0, 0, 1.0), "equal", "equal"),
        (_difference(2), "no interval", "no interval"),
        (_difference(math.nan), "not measured", "not measured"),
        (_difference(-1, 0.5, 3, 0.01), "no difference shown", "no difference shown"),  # resamples on the other side of zero
        (_difference(1, -3, -0.5, 0.01), "no difference shown", "no difference shown"),
        (_difference(1, 0, 0, 0.01), "no difference shown", "no difference shown"),
    ],
)
def test_words_say_no_more_than_the_interval(difference: Difference, said: str, of_class: str) -> None:
    assert verdict(difference) == said
    assert class_verdict(difference, 0.95) == of_class


def _shown(comparison: Comparison, top: int = 5, per_class: bool = False) -> str:
    console = Console(width=200, record=True, highlight=False, markup=False, file=io.StringIO())
    show_comparison(console, comparison, top, per_class)
    return console.export_text()


def test_names_with_markup_are_shown_as_they_are() -> None:
    d = Difference("PQ", None, 50, 52, Estimate(2, 1, 3), 0.01)
    many = tuple(replace(d, category=f"[red]class {k}", p_value=k / 30, adjusted_p=min(1, k / 20)) for k in range(20))
    found = Comparison(
        "[bold]a", "b", 3, 100, 0, (d, *many), (ImageChange("[x]1", "PQ", 50, 20), ImageChange(2, "PQ", 1, 1)), ("[note]",)
    )
    text = _shown(found)
    for part in (
        "A: [bold]a",
        "[red]class 0",
        "[x]1",
        "note: [note]",
        "the 10 classes of 20 that differ most surely",
        "images that lost most",
    ):
        assert part in text
    assert "[red]class 11" not in text
    assert "images that gained most" not in text  # none has
    assert "[red]class 19" in _shown(found, per_class=True)


def test_the_command(runs: Path, cli: Callable[..., CompletedProcess[str]], tmp_path: Path) -> None:
    output = tmp_path / "new" / "folder"
    done = cli("compare", runs / "strict", runs / "loose", "--resamples", 100, "--json", "--top", 1, "-o", output)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["images"] == 12
    by_figure = {d["figure"]: d for d in document["differences"] if d["category"] is None}
    assert by_figure["AR100_th_pan"]["verdict"] == "worse"
    assert by_figure["PQ"]["adjusted_p"] is None
    assert "resampling 12 images 100 times" in done.stderr
    assert json.loads((output / "comparison.json").read_text()) == document
    page = (output / "comparison.html").read_text()
    assert page.count("data:image/") == 2  # the one that lost most, the one that gained most
    assert f"{document['b']} against {document['a']}" in page
    assert {path.name for path in output.iterdir()} == {"comparison.html", "comparison.json"}


def test_folders_must_hold_one_run(runs: Path) -> None:
    with pytest.raises(StoreError, match=r"expected one run, found 2 \(.*strict.*\); name one of them") as raised:
        open_pair(runs / "strict", _with_two(runs), None)
    assert "\n" not in str(raised.value)
    file = runs / "loose" / "shapes_panoptic" / "shapes-tiny" / "default" / "result.json"
    a, b = open_pair(runs / "strict", file, None)
    assert (a.folder, b.folder) == (runs / "strict" / file.parent.relative_to(runs / "loose"), file.parent)


def test_what_a_user_names_wrongly_is_said_in_one_line(runs: Path, tmp_path: Path) -> None:
    strict, result = runs / "strict", runs / "loose" / "shapes_panoptic" / "shapes-tiny" / "default" / "result.json"
    (tmp_path / "unfinished" / "masks").mkdir(parents=True)
    cases = [
        (runs / "loose", result, "loose and .*result.json are the same run; name two that differ"),
        (strict, tmp_path / "nowhere", "nowhere: no such folder; expected a run directory"),
        (strict, tmp_path / "unfinished", "unfinished: no run in it; expected folders with a result.json"),
        (strict, runs, r"expected one run, found 5 \([^,]+, [^,]+, [^,]+ and 2 more\); name one of them"),
    ]
    for a, b, message in cases:
        with pytest.raises(StoreError, match=message) as raised:
            open_pair(a, b, None)
        assert "\n" not in str(raised.value)


def test_what_cannot_be_written_is_said_before_any_run_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    gone = [str(tmp_path / name) for name in ("a", "b")]
    for name, message in (("file", "expected a folder to write into, got a file"), ("file/out", "cannot be written")):
        found = CliRunner().invoke(app, ["compare", *gone, "-o", str(tmp_path / name)])
        assert isinstance(found.exception, StoreError)
        assert message in str(found.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def _with_two(runs: Path) -> Path:
    folder = runs.parent / f"{runs.name}-two"
    shutil.copytree(runs / "strict", folder / "strict")
    shutil.copytree(runs / "loose", folder / "loose")
    return folder


def test_json_has_no_nan(strict_and_loose: tuple[Run, Run]) -> None:
    found = replace(
        compare_runs(*strict_and_loose, resamples=100),
        differences=(_difference(math.nan),),
        changes=(ImageChange(1, "PQ", float(np.float64(3)), math.nan),),
    )
    text = json.dumps(comparison_json(found), allow_nan=False)
    assert '"b": null' in text
