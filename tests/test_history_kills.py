"""Nothing is lost: kill -9 at any moment of adding, several writers at once, and a damaged and a newer file among a thousand."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from made_history import made_result, made_runs, sha256_of

from m2fbench.history.history import History
from m2fbench.history.index import in_memory
from m2fbench.history.syncing import take_results

pytestmark = pytest.mark.slow

ADD = """
import sys
from pathlib import Path
from m2fbench.history import adding
from m2fbench.history.history import History
adding.BATCH = int(sys.argv[1])
with History(sys.argv[2], create=True, index=Path(sys.argv[4]) if len(sys.argv) > 4 else None, tell=print) as history:
    print("open", flush=True)
    added = history.add([sys.argv[3]], progress=lambda done, total: print(done, flush=True))
    print(len(added.new), len(added.known), len(added.problems))
"""


def adding(batch: int, history: Path, runs: Path, *index: Path) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", ADD, str(batch), str(history), str(runs), *map(str, index)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def finished(process: "subprocess.Popen[str]") -> str:
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, ""), f"{out}\n{err}"
    assert "damaged" not in out  # an index that others write to, or were killed at, is sound
    return out.splitlines()[-1]


def contents(count: int, row: str = "a") -> list[bytes]:
    return [made_result(row=row, night=n, values={"AP": 40 + n / 1000}) for n in range(count)]


def check_whole(history: Path, expected: Sequence[bytes]) -> None:
    """Every result is there, byte for byte and with its origin, and the index is sound and says what one made anew says."""
    names = {sha256_of(content): content for content in expected}
    with History(history) as opened:
        entries = opened.entries()
        assert {entry.sha256 for entry in entries} == names.keys()
        assert all(entry.origins for entry in entries)
        assert opened.problems() == []
    for name, content in names.items():
        assert (history / "results" / name[:2] / f"{name}.json").read_bytes() == content
    connection = sqlite3.connect(history / "index.sqlite")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    with History(history, index=history.parent / "fresh.sqlite") as fresh:
        assert fresh.entries() == entries
    (history.parent / "fresh.sqlite").unlink()


def test_killed_at_any_moment_nothing_that_was_added_is_lost(tmp_path: Path) -> None:
    rng = random.Random(3)
    wanted = contents(400)
    made_runs(tmp_path / "runs", wanted)
    names = {sha256_of(content) for content in wanted}
    kept: set[str] = set()
    killed_at_work = 0
    for _ in range(20):
        process = adding(5, tmp_path / "h", tmp_path / "runs")
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        time.sleep(rng.uniform(0, 0.12))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        killed_at_work += process.wait() == -signal.SIGKILL
        process.communicate()
        on_disk = {path.stem for path in (tmp_path / "h/results").glob("*/[0-9a-f]*.json")}
        assert kept <= on_disk <= names  # what was there once stays, under its right name
        kept = on_disk
        with History(tmp_path / "h") as opened:  # all that lies in the folder is in the index on the next opening
            assert {entry.sha256 for entry in opened.entries()} == on_disk
            assert opened.problems() == []
    assert killed_at_work >= 7
    assert kept
    new, known, problems = map(int, finished(adding(200, tmp_path / "h", tmp_path / "runs")).split())
    assert (new + known, problems) == (400, 0)
    check_whole(tmp_path / "h", wanted)


def test_killed_while_the_index_is_made_the_next_one_makes_it(tmp_path: Path) -> None:
    rng = random.Random(4)
    wanted = contents(1500)
    made_runs(tmp_path / "runs", wanted)
    finished(adding(500, tmp_path / "h", tmp_path / "runs"))
    for _ in range(5):
        (tmp_path / "h/index.sqlite").unlink()
        process = subprocess.Popen(
            [sys.executable, "-c", "import sys; from m2fbench.history.history import History; print('now', flush=True); History(sys.argv[1])",
             str(tmp_path / "h")], stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0, 0.8))
        process.kill()
        process.communicate()
    check_whole(tmp_path / "h", wanted)


@pytest.mark.parametrize("own_index", [False, True], ids=["one index", "an index a machine"])
def test_four_writers_at_once_lose_nothing(own_index: bool, tmp_path: Path) -> None:
    """Each has results of its own, and some that all have."""
    shared, wanted, processes = contents(60, "shared"), contents(60, "shared"), []
    for number in range(4):
        own = contents(120, f"row{number}")
        made_runs(tmp_path / f"runs{number}", [*own, *shared])
        wanted += own
        index = [tmp_path / f"{number}.sqlite"] if own_index else []
        processes.append(adding(7, tmp_path / "h", tmp_path / f"runs{number}", *index))
    counts = [list(map(int, finished(process).split())) for process in processes]
    assert [sum(count) for count in counts] == [180] * 4
    assert sum(count[2] for count in counts) == 0
    assert sum(count[0] for count in counts) >= 540
    check_whole(tmp_path / "h", wanted)


def test_writers_among_which_some_are_killed(tmp_path: Path) -> None:
    rng = random.Random(6)
    wanted: list[bytes] = []
    for number in range(3):
        own = contents(150, f"row{number}")
        made_runs(tmp_path / f"runs{number}", own)
        wanted += own
    for _ in range(3):
        processes = [adding(5, tmp_path / "h", tmp_path / f"runs{number}") for number in range(3)]
        time.sleep(rng.uniform(0.3, 1.2))
        for process in processes[:2]:
            process.kill()
            process.communicate()
        finished(processes[2])
    for number in range(3):
        finished(adding(50, tmp_path / "h", tmp_path / f"runs{number}"))
    check_whole(tmp_path / "h", wanted)


def test_one_damaged_and_one_newer_among_a_thousand(tmp_path: Path) -> None:
    wanted = contents(1000)
    paths = made_runs(tmp_path / "runs", wanted)
    paths[300].write_bytes(wanted[300][: len(wanted[300]) // 2])
    newer = made_result(document={"schema_version": 3})
    paths[700].write_bytes(newer)
    with History(tmp_path / "h", create=True) as opened:
        added = opened.add([tmp_path / "runs"])
        assert len(added.new) == 998
        damaged, of_newer = added.problems
        assert (damaged.kind, damaged.location) == ("damaged", str(paths[300]))
        assert "no whole result file" in damaged.message
        assert (of_newer.kind, of_newer.location) == ("newer", str(paths[700]))
        assert "of result schema 3, this m2fbench reads 1 to 2; update m2fbench" in of_newer.message
        assert {e.sha256 for e in opened.entries()} == {sha256_of(c) for n, c in enumerate(wanted) if n not in (300, 700)}
        assert len(opened.series()[0].points) == 998
        name = sha256_of(newer)
        assert (tmp_path / "h/results" / name[:2] / f"{name}.json").read_bytes() == newer
        assert sorted(p.kind for p in opened.problems()) == ["damaged", "newer"]


def test_random_bytes_are_a_result_or_a_problem() -> None:
    """Any file whatever: bytes exchanged, taken out and put in at random places of a real one."""
    rng, index = random.Random(8), in_memory()
    whole = made_result(kind="speed", per_class={"circle": {"AP": 1.0}})
    kinds = set()
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            at = rng.randrange(len(content))
            content[at : at + rng.randint(0, 2)] = rng.choice([rng.randbytes(1), b'"', b"9", b"\\u0000", b"{}", b"-", b"null"])
        name = sha256_of(bytes(content))
        problems = take_results(index, {f"results/{name[:2]}/{name}.json": bytes(content)})
        kinds |= {problem.kind for problem in problems.values()} or {"read"}
    assert {"read", "damaged"} <= kinds
