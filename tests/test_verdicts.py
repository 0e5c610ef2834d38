"""A verdict as JSON: nothing is lost, NaN is null, and what is none is said in a line."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from made_verdict import made_verdict

from m2fbench.errors import NightlyError
from m2fbench.nightly import verdicts
from m2fbench.nightly.records import EXIT_STATUS, Verdict
from m2fbench.nightly.verdicts import read_verdict, verdict_from, verdict_json


def test_what_is_written_is_read_as_it_was() -> None:
    verdict = made_verdict()
    text = json.dumps(verdict_json(verdict), allow_nan=False)
    again = verdict_from(json.loads(text), "here")
    assert repr(asdict(again)) == repr(asdict(verdict))  # NaN is not equal to itself, its text is
    assert [type(one) for one in (*again.outcomes, *again.figures)] == [type(one) for one in (*verdict.outcomes, *verdict.figures)]


@pytest.mark.parametrize("status", EXIT_STATUS)
def test_the_exit_status_stands_in_it(status: Any) -> None:
    document = verdict_json(made_verdict(status))
    assert (document["status"], document["exit_status"]) == (status, {"regression": 1, "unmeasured": 3, "ok": 0}[status])


def test_every_key_is_documented() -> None:
    def keys(value: object) -> set[str]:
        if isinstance(value, dict):
            return set(value) | {key for entry in value.values() for key in keys(entry)}
        return {key for entry in value for key in keys(entry)} if isinstance(value, list) else set()

    document = verdict_json(made_verdict())
    assert not [key for key in keys(document) if key not in str(verdicts.__doc__)]


def test_what_is_not_known_is_null() -> None:
    last = verdict_json(made_verdict())["figures"][-1]
    assert (last["value"], last["difference"]["low"], last["since"]) == (None, None, None)
    found = verdict_from(verdict_json(made_verdict()), "here").figures[-1]
    assert math.isnan(found.value)
    assert math.isnan(found.difference.high)


def test_what_a_later_m2fbench_added_is_passed_over() -> None:
    document = verdict_json(made_verdict())
    document["weather"] = "mild"
    document["figures"][0]["weather"] = "mild"
    assert isinstance(verdict_from(document, "here"), Verdict)


def _changed(path: list[Any], value: Any) -> Any:
    document: Any = verdict_json(made_verdict())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return document


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (_changed(["verdict_version"], 2), "expected verdict version 1, got 2; update m2fbench"),
        (_changed(["verdict_version"], 0), "got 0; run the night's command again"),
        ({}, "got None; run"),
        ([], "got None; run"),
        ("no\nverdict", "got None; run"),
        (_changed(["figures"], None), "not a verdict"),
        (_changed(["figures", 0, "state"], "splendid"), "a figure of state 'splendid'"),
        (_changed(["outcomes", 0, "state"], "splendid"), "an outcome of state 'splendid'"),
        (_changed(["status"], "fine"), "status 'fine'"),
        (_changed(["figures", 0, "difference"], {}), "not a verdict"),
        (_changed(["figures", 0, "value"], "many"), "not a verdict"),
        (_changed(["outcomes", 0], "gone"), "not a verdict"),
    ],
)
def test_what_is_none_is_said_in_a_line(document: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "verdict.json"
    path.write_text(json.dumps(document))
    with pytest.raises(NightlyError, match="verdict.json: ") as raised:
        read_verdict(path)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_files_that_cannot_be_read_are_said_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_bytes(json.dumps(verdict_json(made_verdict())).encode()[:100])
    (tmp_path / "other.json").write_bytes(b"\xff\xfe\x00")
    for name, message in (("cut", "not a verdict"), ("other", "not a verdict"), ("nothing", "cannot be read")):
        with pytest.raises(NightlyError, match=message):
            read_verdict(tmp_path / f"{name}.json")
