"""A result as an MLflow run: names that MLflow admits and that lead back, and what becomes of what has no value."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_history import made_result, sha256_of
from mlflow.utils import validation

from m2fbench.history.entries import entry_of
from m2fbench.history.mlflow_runs import RESULT_TAG, figure_of, metric_name, run_of
from m2fbench.history.reading import result_of
from m2fbench.history.records import Entry, Figure
from m2fbench.results import RunResult

names = st.text(min_size=1, max_size=30) | st.from_regex(r"[A-Za-z0-9@./_ -]{1,12}( \([a-z0-9. -]{1,12}\))?", fullmatch=True)


def made(**options: object) -> tuple[Entry, RunResult]:
    content = made_result(**options)  # type: ignore[arg-type]
    result = result_of(content)
    return entry_of(result, sha256_of(content)), result


@pytest.mark.parametrize(
    ("figure", "category", "name"),
    [
        ("AP", None, "AP"),
        ("time (pixel decoder)", None, "pixel decoder/time"),
        ("AP@50", None, "AP.40.50"),
        ("AP", "traffic light", "class/traffic light/AP"),
        ("APs (small)", "dining table/desk", "class/dining table.2f.desk/small/APs"),
        ("AP", "class", "class/class/AP"),
        ("AP (class)", None, "class/AP"),
        ("a (b) (c)", None, "b.29. .28.c/a"),
    ],
)
def test_names_of_metrics(figure: str, category: str | None, name: str) -> None:
    assert metric_name(figure, category) == name
    assert figure_of(name) == (figure, category)


@given(names, st.none() | names)
def test_every_name_is_admitted_by_mlflow_and_leads_back(figure: str, category: str | None) -> None:
    name = metric_name(figure, category)
    assert figure_of(name) == (figure, category)
    for each in (name, f"{name}.low"):
        validation._validate_metric_name(each)
        assert ":" not in each  # not admitted by a server on Windows
    with pytest.raises(ValueError, match="no metric of m2fbench"):
        figure_of(f"{name}.low")


@given(st.dictionaries(names, st.none() | st.text() | st.booleans() | st.floats(), max_size=8))
def test_parameters_and_tags_are_admitted_whatever_the_keys(circumstances: dict[str, object]) -> None:
    entry, _ = made()
    run = run_of(
        replace(entry, circumstances=circumstances, conditions={f"variant.{k}": v for k, v in circumstances.items()}), None
    )
    for key, value in run.parameters.items():
        validation._validate_param(key, value)
    for key, value in run.tags.items():
        validation._validate_tag(key, value)


def test_what_stands_where() -> None:
    entry, result = made(kind="speed", variant="fp16", per_class={"disc": {"AP": 41.5}}, environment={"night": "ci-7"})
    run = run_of(entry, replace(result, started="2025-12-31T22:30:00+00:00"), per_class=True)
    assert run.name == "shapes-tiny/fp16"
    assert (run.started, run.finished, run.status) == (1767220200000, 1767236400000, "FINISHED")
    assert run.metrics == {
        "fps": 9.7, "fps.low": 9.6, "fps.high": 9.8, "latency": 0.103, "peak_device_memory": 2e9, "AP": 43.7, "class/disc/AP": 41.5,
    }  # fmt: skip
    assert run.parameters.items() >= {
        "suite": "shapes_instance", "row": "shapes-tiny", "variant": "fp16", "kind": "speed", "limit": "0", "variant.dtype": "float16",
        "checkpoint.reference": "zoo:shapes-tiny", "dataset.name": "shapes",
    }.items()  # fmt: skip
    assert run.tags.items() >= {
        RESULT_TAG: entry.sha256, "m2fbench.machine": "bench-1", "m2fbench.commit": "1111111", "m2fbench.status": "complete",
        "environment.libraries.torch": "2.11.0", "m2fbench.disturbed": "false",
        "m2fbench.night": "ci-7",
    }.items()  # fmt: skip


def test_figures_without_a_value_are_named_and_no_metrics() -> None:
    entry, _ = made(values={"AP": 40.0, "AP50": None, "APs (small)": None})
    entry = replace(entry, figures=(*entry.figures, Figure("n" * 300, 1.0, "percent", True), Figure("x", math.inf, "s", False)))
    run = run_of(entry, None)
    assert run.metrics == {"AP": 40.0}
    assert json.loads(run.tags["m2fbench.unmeasured"]) == list(run.unmeasured) == ["AP50", "APs (small)", "n" * 300, "x"]


def test_what_could_not_be_run_is_a_failed_run_with_its_reason() -> None:
    entry, _ = made(values={}, status="unavailable", reason="the checkpoint is gone")
    run = run_of(replace(entry, time=""), None)
    assert (run.status, run.metrics, run.started, run.finished) == ("FAILED", {}, 1, 1)
    assert run.tags["m2fbench.reason"] == run.tags["mlflow.note.content"] == "the checkpoint is gone"
