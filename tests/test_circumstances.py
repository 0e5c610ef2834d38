"""What is said of the differences between two runs' circumstances."""

import math
import random

import pytest

from m2fbench.analysis.circumstances import Change, changes, in_short, words
from m2fbench.environment import describe_environment
from m2fbench.history.entries import circumstances_of
from m2fbench.results import RunResult

A, B = "a" * 64, "b" * 64


def test_the_likeliest_cause_comes_first() -> None:
    likely = (
        "checkpoint.sha256",
        "checkpoint.reference",
        "environment.m2fbench_commit",
        "suite.sha256",
        "protocol.semantic_resize",
        "dataset.annotations_sha256",
        "device.kind",
        "environment.driver",
        "environment.libraries.torch",
        "environment.libraries.transformers",
        "environment.libraries.hotcoco",
        "environment.python",
        "environment.platform",
        "something.else",
    )
    shuffled = random.Random(0).sample(likely, len(likely))
    found = changes(dict.fromkeys(shuffled, "old"), dict.fromkeys(shuffled, "new"))
    assert [c.what for c in found] == [words(key) for key in likely]
    assert [c.what for c in found] == [
        "checkpoint", "checkpoint reference", "m2fbench commit", "suite", "protocol: semantic resize", "annotations", "device", "driver",
        "torch", "transformers", "hotcoco", "Python", "operating system", "something: else",
    ]  # fmt: skip


def test_only_what_differs() -> None:
    same = {"checkpoint.sha256": A, "dataset.images": 5000, "device.threads": 1, "noise": math.nan}
    assert changes(same, dict(same, noise=float("nan"))) == []
    assert changes(same, same | {"dataset.images": 4999}) == [("dataset: images", 5000, 4999)]
    assert changes({"flag": True}, {"flag": 1}) == [("flag", True, 1)]


def test_the_night_is_no_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    assert changes({"environment.night": "n1"}, {"environment.night": "n2"}) == changes({}, {"environment.night": "n2"}) == []
    monkeypatch.setenv("M2FBENCH_NIGHT", "n3")
    assert describe_environment.__wrapped__()["night"] == "n3"
    monkeypatch.setenv("M2FBENCH_NIGHT", "")
    assert describe_environment.__wrapped__()["night"] is None


def test_what_one_run_does_not_know() -> None:
    assert changes({}, {"environment.driver": "570.1"}) == [Change("driver", None, "570.1")]
    assert changes({"environment.driver": "570.1"}, {}) == [Change("driver", "570.1", None)]
    assert changes({"environment.driver": None}, {}) == []


def test_the_driver_stands_in_two_places_and_is_said_once() -> None:
    one, other = ({"environment.driver": v, "gpu.driver": v} for v in ("570.1", "575.2"))
    assert changes(one, other) == [("driver", "570.1", "575.2")]
    assert len(changes(one, other | {"gpu.driver": "580"})) == 2


def test_every_circumstance_of_a_run_has_words() -> None:
    """None of those that results have is shown by its dotted name."""
    result = RunResult(
        {"name": "s", "sha256": A}, "r", {"name": "v"}, "complete", checkpoint={"sha256": A, "parameters": 1, "reference": "x"},
        dataset={"name": "d", "images": 3, "first_image_sha256": B}, protocol={"name": "paper", "tta": {"flip": True, "min_sizes": [1, 2]}},
        device={"kind": "cuda H200", "cudnn": 91, "threads": 2}, environment=describe_environment(),
        details={"machine": {"gpu": {"name": "H200", "driver": "570", "power_limit_watts": 700}}},
    )  # fmt: skip
    before = circumstances_of(result)
    assert len(before) > 20
    found = changes(before, {})
    assert len({c.what for c in found}) >= len(before) - 1  # but for the driver
    assert not [c.what for c in found if any(part in c.what for part in ("environment", "sha256", "libraries", "."))]
    assert found[0].what == "checkpoint"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "unknown"),
        (A, "a" * 10),
        ("0123456789abcdef0123456789abcdef01234567+changes", "0123456789+changes"),
        ("2.11.0+cu128", "2.11.0+cu128"),
        ("deadbeef", "deadbeef"),
        (5000, "5000"),
        (True, "True"),
        ("two\nlines", "two lines"),
        ("x" * 61, "x" * 59 + "…"),
        ("x" * 60, "x" * 60),
    ],
)
def test_values_in_short(value: object, text: str) -> None:
    assert in_short(value) == text
