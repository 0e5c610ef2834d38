"""Speed measured through whole runs: variants in turns, each with the accuracy it has on the same images."""

import csv
import io
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_checkpoint, stub_loader
from PIL import Image
from rich.console import Console

import m2fbench
from m2fbench.errors import DeviceError, SuiteError, UnsupportedError
from m2fbench.models.zoo import zoo_entries
from m2fbench.planning import Event
from m2fbench.reporting.terminal.costs import speed_tables
from m2fbench.results import RunResult
from m2fbench.speed import SpeedRequest
from m2fbench.suite import HEADS, load_suite, suite_names

VARIANTS = """
variants:
  - {name: reference}
  - {name: half, dtype: bfloat16}
  - {name: eager, attention: eager}
measure: speed
"""


@pytest.fixture
def measured(shapes_suite: Callable[..., Path], tmp_path: Path) -> list[RunResult]:
    return m2fbench.run(shapes_suite(count=8, extra=VARIANTS), output=tmp_path / "runs", device="cpu")


@pytest.mark.full
def test_variants_are_timed_in_turns_and_scored_on_the_same_images(
    measured: list[RunResult], shapes_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """The accuracy beside each speed is what a run of that variant by itself gives, to the last digit."""
    plain = m2fbench.run(
        shapes_suite(count=8, extra=VARIANTS.replace("speed", "accuracy")), output=tmp_path / "plain", device="cpu"
    )
    assert [r.variant["name"] for r in measured] == ["reference", "half", "eager"]
    for timed, scored in zip(measured, plain, strict=True):
        assert (timed.kind, timed.status, timed.skipped) == ("speed", "complete", ())
        expected = {(m.name, m.category, m.subset): m.value for m in scored.measurements}
        found = {(m.name, m.category, m.subset): m.value for m in timed.measurements if m.unit in ("percent", "count")}
        del found["parameters", None, None]
        assert found == pytest.approx(expected, abs=0, nan_ok=True)


@pytest.mark.full
def test_the_figures_are_those_of_the_table_of_images(measured: list[RunResult]) -> None:
    reference = measured[0]
    for result in measured:
        assert result.path is not None
        with result.path.with_suffix(".csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [row["counted"] for row in rows] == ["0"] * 5 + ["1"] * 3, "the first five warm up"
        seconds = [float(row["seconds"]) for row in rows[5:]]
        assert result.value("fps") == pytest.approx(3 / sum(seconds), rel=1e-4)
        assert result.value("latency") == pytest.approx(sum(seconds) / 3, rel=1e-4)
        assert result.value("fps_low") <= result.value("fps")
        inside = ("copy", "backbone", "pixel decoder", "transformer decoder", "post-processing")
        for row in rows:
            assert sum(float(row[stage]) for stage in inside) == pytest.approx(float(row["seconds"]), abs=2e-3)
            assert float(row["encode"]) > 0
            assert float(row["preprocess"]) > 0
        assert result.details is not None
        facts = result.details["scopes"]["paper"]
        assert (facts["images"], facts["not_counted"], facts["heads"]) == (3, 5, ["instance"])
        assert "first 5 images not counted" in facts["definition"]
        assert result.details["reference"] == "reference"
        assert result.value("peak_process_memory") > result.value("weight_memory") > 0
        assert math.isnan(result.value("peak_device_memory")), "there is no device"
        sizes = [(row["height"], row["width"]) for row in rows]
        assert [row["first_of_shape"] for row in rows] == [str(int(size not in sizes[:k])) for k, size in enumerate(sizes)]
    assert math.isnan(reference.value("speed_up"))
    assert measured[1].value("speed_up") > 0


@pytest.mark.full
def test_a_result_of_speed_is_read_back(measured: list[RunResult]) -> None:
    for result in measured:
        assert result.path is not None
        assert result.path.name == "speed.json"
        again = m2fbench.read_result(result.path)
        assert again.kind == "speed"
        assert json.dumps(again.to_json(), sort_keys=True) == json.dumps(result.to_json(), sort_keys=True)


def stub(tmp_path: Path) -> Any:
    """A model that finds nothing; what is left to measure is everything around it."""

    def logits_of(pixels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        height, width = pixels.shape[2:]
        return np.zeros((4, 7), np.float32), np.zeros((4, height // 4, width // 4), np.float32)

    return stub_loader(logits_of)


def test_both_scopes_and_what_each_counts(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    (result,) = m2fbench.run(
        shapes_suite(count=6, extra="measure: [speed]\n"), output=tmp_path / "runs", device="cpu", loader=stub(tmp_path),
        speed=SpeedRequest(scopes=("paper", "task")),
    )  # fmt: skip
    assert result.details is not None
    scopes = result.details["scopes"]
    assert (scopes["paper"]["images"], scopes["paper"]["not_counted"]) == (1, 5)
    assert (scopes["task"]["images"], scopes["task"]["not_counted"]) == (6, 0)
    assert result.value("fps") > 0
    assert result.value("fps_task") > 0
    assert math.isnan(result.value("fps_low")), "one image has no interval"
    assert set(scopes["task"]["stages"]) == {"load", "preprocess", "copy", "model", "post-processing", "encode"}


def test_too_few_images_for_the_papers_scope(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(count=6, extra="measure: speed\n")
    with pytest.raises(
        SuiteError, match="5 images: scope 'paper' does not count the first 5; measure over more, or in scope 'task'"
    ):
        m2fbench.run(suite, output=tmp_path / "runs", limit=5, device="cpu", loader=stub(tmp_path))
    (result,) = m2fbench.run(
        suite, output=tmp_path / "runs", limit=2, device="cpu", loader=stub(tmp_path), speed=SpeedRequest(scopes=("task",))
    )
    assert (result.status, result.reason) == ("partial", "2 of 6 images")
    assert result.path is not None
    assert result.path.name == "speed-limit-2.json"
    assert math.isnan(result.value("fps")), "scope paper was not measured"


def test_accuracy_and_speed_of_one_suite(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    events: list[Event] = []
    suite = shapes_suite(count=6, extra="measure: [speed, accuracy]\n")
    results = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path), listener=events.append)
    assert [r.kind for r in results] == ["accuracy", "speed"]
    assert sorted(p.name for p in (tmp_path / "runs").rglob("*.json")) == [
        "identity.json", "model.json", "predictions.json", "result.json", "speed.json", "suite.json",
    ]  # fmt: skip
    assert not list((tmp_path / "runs").rglob(".speed-*")), "the predictions that were scored are not kept"
    timed = [(e.variant, e.done, e.total) for e in events if e.kind == "timed"]
    assert timed == [("1 variant in scope paper", done, 6) for done in range(7)]


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_images_that_cannot_be_read(tmp_path: Path, on_error: str) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(7):
        Image.new("RGB", (64, 48)).save(photos / f"{k}.jpg")
    (photos / "6.jpg").write_bytes(b"no photo")
    labels = [f"c{k}" for k in range(6)]
    truth = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "height": 48, "width": 64} for k in range(7)],
        "annotations": [],
        "categories": [{"id": k + 1, "name": name} for k, name in enumerate(labels)],
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    checkpoint = make_checkpoint(tmp_path / "tiny", labels)
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        f"suite: s\ntitle: S\ntask: instance\nmetrics: [coco_ap]\nprotocol: {{min_size: 64, max_size: 128}}\nmeasure: speed\n"
        f"dataset: {{name: coco_instance, annotations: {tmp_path}/truth.json, images: {photos}}}\non_error: {on_error}\n"
        f"checkpoints: [{{name: tiny, checkpoint: {checkpoint}}}]\n"
    )
    if on_error == "stop":
        with pytest.raises(m2fbench.errors.ImageError, match=r"6\.jpg"):
            m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
        assert not list((tmp_path / "runs").rglob(".speed-*"))
        return
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
    assert [s["image_id"] for s in result.skipped] == [6]
    assert "6.jpg" in result.skipped[0]["error"]
    assert (result.status, result.reason) == ("partial", "6 of 7 images")
    assert result.details is not None
    assert result.details["scopes"]["paper"]["images"] == 1


def test_scope_paper_runs_the_heads_of_the_original_configuration() -> None:
    """Of every suite's rows that the model zoo has, by the zoo's own settings."""
    seen = 0
    for name in suite_names():
        suite = load_suite(name)
        for row in suite.checkpoints:
            if row.checkpoint is not None and row.checkpoint.startswith("zoo:"):
                entry = zoo_entries()[row.checkpoint.removeprefix("zoo:")]
                assert suite.timed_heads["paper"] == tuple(head for head in HEADS if head in entry.heads), (name, row.name)
                seen += 1
    assert seen > 30


def test_measure_takes_one_word_or_several() -> None:
    assert load_suite("shapes_instance").measure == ["accuracy"]
    assert load_suite("shapes_instance", ["measure=speed"]).measure == ["speed"]
    assert load_suite("shapes_instance", ["measure=[accuracy, flops]"]).measure == ["accuracy", "flops"]
    with pytest.raises(SuiteError, match=r"measure.*expected 'accuracy', 'speed', 'flops' or 'energy', got \"quick\""):
        load_suite("shapes_instance", ["measure=quick"])


@pytest.mark.full
def test_the_command(cli: Callable[..., Any], shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(count=7, extra=VARIANTS)
    outcome = cli("speed", suite, "--scope", "both", "--variant", "reference", "--variant", "half", "--output", tmp_path / "runs")
    assert outcome.returncode == 0, outcome.stderr
    for text in (
        "fps",
        "times reference",
        "AP",
        "half",
        "scope paper: heads instance",
        "scope task: heads instance",
        "post-processing",
    ):
        assert text in outcome.stdout
    outcome = cli("speed", suite, "--json", "--limit", "6", "--variant", "eager", "--output", tmp_path / "runs")
    (document,) = json.loads(outcome.stdout)
    assert (document["kind"], document["limit"], document["variant"]["name"]) == ("speed", 6, "eager")
    assert cli("speed", suite, "--limit", "3").returncode == 2


def test_an_image_that_memory_is_too_small_for_is_no_part_of_the_figure(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predictions are made on the CPU and count for accuracy; its time counts for nothing, and the result says so."""
    from m2fbench.models import protocols

    calls = 0
    real = protocols.instance_masks

    def short_of_memory(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls in (8, 9):  # one image's first and second try, after the one that tries the variant and five that warm up
            raise torch.OutOfMemoryError("no more")
        return real(*arguments)

    monkeypatch.setattr(protocols, "instance_masks", short_of_memory)
    suite = shapes_suite(count=8, extra="measure: speed\n")
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
    assert calls == 11
    assert result.details is not None
    facts = result.details["scopes"]["paper"]
    assert facts["images"] == 2
    (failed,) = facts["failed"]
    assert failed["error"] == "post-processed on the CPU after running out of device memory"
    assert (result.status, result.skipped) == ("complete", ())
    assert any("post-processed on the CPU after running out of device memory: 1 image" in w for w in result.warnings)


def test_flops_of_a_suite(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    """Once a row, whatever the variants; the same figures as ``m2fbench flops``; published ones beside."""
    from m2fbench.flops import flops

    suite = shapes_suite(count=4, extra="measure: flops\nvariants: [{name: a}, {name: b, dtype: bfloat16}]\n")
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
    (cost,) = flops([str(suite)]).rows
    assert (result.kind, result.status, result.row) == ("flops", "complete", "tiny")
    assert result.value("FLOPs") == cost.counts["paper"].mean
    assert result.value("FLOPs_fvcore") == cost.counts["fvcore"].mean
    assert result.value("parameters") == cost.all_parameters
    assert result.path == tmp_path / "runs/test_shapes/tiny/flops.json"
    assert json.dumps(m2fbench.read_result(result.path).to_json()) == json.dumps(json.loads(result.path.read_text()))
    assert sum(m.value for m in result.measurements if m.name == "FLOPs_by_part") == pytest.approx(result.value("FLOPs"))


def test_published_flops_are_compared_at_the_papers_inputs(tmp_path: Path) -> None:
    from m2fbench.flops import FlopsRequest, flops_of_row
    from m2fbench.flops_results import figures

    suite = load_suite("ade20k_semantic")
    row = next(row for row in suite.checkpoints if row.name == "r50")
    cost = flops_of_row(suite, row, FlopsRequest())
    assert {m.name: m.value for m in figures(cost)}["FLOPs"] == pytest.approx(71e9, rel=0.01)
    fapn = next(row for row in suite.checkpoints if row.checkpoint is None)
    assert flops_of_row(suite, fapn).problem == fapn.unavailable


def test_a_wrong_country_is_found_before_anything_is_measured(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("a model was loaded")

    with pytest.raises(m2fbench.errors.EmissionsError, match="ATLANTIS"):
        m2fbench.run(
            shapes_suite(count=6, extra="measure: speed\n"), output=tmp_path / "runs", device="cpu", loader=never,
            speed=SpeedRequest(country="ATLANTIS"),
        )  # fmt: skip


def test_energy_is_measured_or_not_given(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A counter that grows by 3 J whenever it is read, and none."""
    from contextlib import contextmanager

    from m2fbench.profiling import meters as counters

    reads = iter(range(10**6))
    meter = counters.Meter("fake", "a test", "measured", lambda: 3.0 * next(reads), 1e-6)

    @contextmanager
    def one(device: str) -> Any:
        yield [meter], []

    monkeypatch.setattr(counters, "meters", one)
    suite = shapes_suite(count=6, extra="measure: energy\n")
    request = SpeedRequest(energy_seconds=0.01, idle_seconds=0.0)
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path), speed=request)
    assert result.details is not None
    used = result.details["energy"]
    assert used["images"] % 6 == 0
    assert result.value("energy") == pytest.approx(3.0 / used["images"])
    assert used["label"] == "fake (measured)"
    assert math.isnan(result.value("CO2e"))
    assert "country" in result.details["emissions"]["reason"]

    @contextmanager
    def none(device: str) -> Any:
        yield [], ["RAPL: no permission"]

    monkeypatch.setattr(counters, "meters", none)
    (result,) = m2fbench.run(suite, output=tmp_path / "other", device="cpu", loader=stub(tmp_path), speed=request)
    assert math.isnan(result.value("energy"))
    assert result.details is not None
    assert result.details["energy"]["reasons"] == ["RAPL: no permission"]


def test_all_heads_of_the_original_configuration_are_timed_and_the_tasks_own_scored(
    shapes_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """As of ADE20K's instance models, whose configuration runs all three."""
    suite = shapes_suite(count=6, extra="measure: speed\nspeed: {heads: [instance, panoptic, semantic]}\n")
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
    assert result.details is not None
    assert result.details["scopes"]["paper"]["heads"] == ["instance", "panoptic", "semantic"]
    assert result.status == "complete"
    assert {m.name for m in result.measurements if m.unit == "percent"} >= {"AP", "APs"}
    for heads, said in (("[panoptic]", "the task's own, instance, among them"), ("[instance, instance]", "each of 'heads' once")):
        with pytest.raises(SuiteError, match=said):
            load_suite("shapes_instance", [f"speed.heads={heads}"])
    with pytest.raises(SuiteError, match="each of 'scopes' once"):
        load_suite("shapes_instance", ["speed.scopes=[paper, paper]"])


def failing(kind: type[Exception], *names: str) -> Any:
    """A loader for which these variants cannot be done; the others find nothing."""

    def load(checkpoint: Any, variant: Any, device: str) -> Any:
        if variant.name in names:
            raise kind(f"no {variant.name} here")
        return stub(Path())(checkpoint, variant, device)

    return load


@pytest.mark.parametrize("kind", [UnsupportedError, DeviceError])
def test_variants_that_fail_at_loading_cost_themselves_only(
    shapes_suite: Callable[..., Path], tmp_path: Path, kind: type[Exception]
) -> None:
    suite = shapes_suite(count=6, extra="measure: speed\nvariants: [{name: a}, {name: b, dtype: bfloat16}]\n")
    first, second = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=failing(kind, "a"))
    assert (first.status, first.reason, first.kind) == ("unsupported", "no a here", "speed")
    assert (second.status, second.value("fps") > 0) == ("complete", True)
    with pytest.raises(UnsupportedError, match="no variant can run here: no a here; no b here"):
        m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=failing(kind, "a", "b"))


def test_an_image_that_one_variant_cannot_do_is_left_out_of_the_accuracy_of_all(
    shapes_suite: Callable[..., Path], tmp_path: Path
) -> None:
    """Memory runs out in the model itself, twice: on the first image (at the trial too) and on the seventh."""
    scenes = 0

    def load(checkpoint: Any, variant: Any, device: str) -> Any:
        model = stub(tmp_path)(checkpoint, variant, device)
        if variant.name == "b":

            def forward(pixels: torch.Tensor) -> Any:
                nonlocal scenes
                scenes += 1
                if scenes in (1, 2, 8):
                    raise MemoryError
                return model.forward(pixels)

            return replace(model, forward=forward)
        return model

    suite = shapes_suite(count=8, extra="measure: energy\nvariants: [{name: a}, {name: b, dtype: bfloat16}]\n")
    request = SpeedRequest(energy_seconds=0.01, idle_seconds=0.0)
    first, second = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=load, speed=request)
    assert [s["image_id"] for s in second.skipped] == [1, 7]
    assert first.skipped == ()
    for result in (first, second):
        assert (result.status, result.reason) == ("partial", "6 of 8 images")
        assert result.dataset is not None
        assert result.dataset["scored_images"] == 6
        assert result.details is not None
        assert result.details["energy_images"] == 6, "those that every variant could do"
    assert "2 images that another variant could not do are left out of the accuracy of all" in first.warnings
    assert second.details["scopes"]["paper"]["images"] == 2


def test_published_fps_stands_beside_scope_paper_only(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    path = shapes_suite(count=6, extra="measure: speed\n")
    row = "published_costs: {fps: 9.7, fps_device: one V100}, source: a paper}]"
    path.write_text(path.read_text().replace("}]", f", {row}", 1))
    for scopes, printed in ((("paper",), [("fps", 9.7, "a paper, on one V100")]), (("task",), [])):
        (result,) = m2fbench.run(path, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path), speed=SpeedRequest(scopes))
        assert [(p.metric, p.value, p.source) for p in result.published] == printed
        assert not any(c.comparable for c in result.comparisons)


def test_what_a_compiler_does_once_a_shape_is_named_where_it_is_in_the_figure(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from m2fbench import speed
    from m2fbench.models import variants

    monkeypatch.setattr(variants, "unsupported", lambda variant, device: None)
    suite = shapes_suite(count=7, extra="measure: speed\nvariants: [{name: a, cudnn_benchmark: true}]\n")
    real, sizes = speed.candidate_of, iter(range(100))
    monkeypatch.setattr(
        speed, "candidate_of", lambda *a: replace(real(*a), shape=lambda item: next(sizes))
    )  # every input a new shape
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path))
    assert any("2 of 2 counted images are the first of their input shape, 100 % of the time" in w for w in result.warnings)


@pytest.mark.parametrize("width", [80, 100, 160])
def test_tables_keep_their_labels_at_any_width(shapes_suite: Callable[..., Path], tmp_path: Path, width: int) -> None:
    suite = shapes_suite(
        count=6,
        extra="measure: [speed]\nvariants: [{name: a-reference}, {name: another, dtype: bfloat16}, {name: t, tf32: true}]\n",
    )
    results = m2fbench.run(
        suite, output=tmp_path / "runs", device="cpu", loader=stub(tmp_path), speed=SpeedRequest(scopes=("paper", "task"))
    )
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    for table in speed_tables(results, width):
        console.print(table, soft_wrap=not hasattr(table, "columns"))
    text = console.file.getvalue()
    for words in (
        "a-reference",
        "another",
        "paper",
        "task",
        "fps",
        "times a-reference",
        "t: unsupported: tf32: needs an NVIDIA GPU",
        "6 of 6",
    ):
        assert words in text
    tables = [line for line in text.splitlines() if line[:1] in "┏┃┡│└"]
    assert max(map(len, tables)) <= width


def test_energy_stands_in_the_terminal_with_its_label_or_its_reason(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = shapes_suite(count=6, extra="measure: energy\n")
    (result,) = m2fbench.run(
        suite,
        output=tmp_path / "runs",
        device="cpu",
        loader=stub(tmp_path),
        speed=SpeedRequest(energy_seconds=0.01, idle_seconds=0.0),
    )
    lines = [str(table) for table in speed_tables([result], 160)]
    (energy,) = (line for line in lines if line.startswith("default: energy: "))
    used = (result.details or {})["energy"]
    assert ("not measured: " in energy) == (used["joules_per_image"] is None)
    assert any(line.startswith("default: CO2e: not given: ") for line in lines)
