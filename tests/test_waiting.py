"""Progress where there is no terminal: lines now and then, and one at the end where there were any."""

import io

import pytest
from rich.console import Console

from m2fbench.reporting.terminal import waiting
from m2fbench.reporting.terminal.waiting import Waiting


@pytest.mark.parametrize(
    ("seconds", "lines"),
    [
        (1.0, ["sending"]),
        (11.0, ["sending", "sending: 1 of 3", "sending: 2 of 3", "sending: 3 of 3"]),
        (6.0, ["sending", "sending: 2 of 3", "sending: 3 of 3"]),
    ],
)
def test_lines_tell_of_the_end_where_they_have_told_of_the_way(
    seconds: float, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: now[0])
    console = Console(file=io.StringIO())
    with Waiting(console) as shown:
        shown.tell("sending")
        for done in range(1, 4):
            now[0] += seconds
            shown.progress(done, 3)
    assert console.file.getvalue().splitlines() == lines  # type: ignore[attr-defined]
