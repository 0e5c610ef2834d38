"""A history: files that are the truth, an index that can always be made again, and nothing lost or passed over in silence."""

import contextlib
import json
import math
import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_history import made_history, made_result, made_runs, made_time, sha256_of

from m2fbench.analysis.findings import Estimate
from m2fbench.errors import HistoryError
from m2fbench.history import adding, documents, reading, syncing, tables
from m2fbench.history import index as indexing
from m2fbench.history.entries import depends_on_machine, utc
from m2fbench.history.history import History
from m2fbench.history.index import in_memory
from m2fbench.history.reading import NoResultError, result_of
from m2fbench.history.records import PairedFigure, PairedRecord, Selection
from m2fbench.history.schema import VERSION
from m2fbench.history.syncing import take_results

Made = Callable[..., History]


@pytest.fixture
def history(tmp_path: Path) -> Any:
    with History(tmp_path / "history", create=True) as opened:
        yield opened


@pytest.fixture
def said() -> list[str]:
    return []


def nights(count: int, **options: Any) -> list[bytes]:
    return [made_result(night=n, values={"AP": 43.0 + n / 10}, **options) for n in range(count)]


def test_results_are_kept_byte_for_byte_and_known_the_second_time(history: History, tmp_path: Path) -> None:
    contents = [*nights(3), made_result(kind="speed"), made_result(kind="flops"), made_result(limit=20)]
    paths = made_runs(tmp_path / "runs", contents)
    paths[5].rename(paths[5].with_name("result-limit-20.json"))
    calls: list[tuple[int, int]] = []
    added = history.add([tmp_path / "runs"], progress=lambda done, total: calls.append((done, total)))
    assert set(added.new) == {sha256_of(content) for content in contents}
    assert (added.known, added.problems, calls[-1]) == ((), (), (6, 6))
    for content in contents:
        name = sha256_of(content)
        assert (tmp_path / "history/results" / name[:2] / f"{name}.json").read_bytes() == content
    again = history.add([tmp_path / "runs", paths[0], paths[0].parent])
    assert again.new == ()
    assert set(again.known) == set(added.new)
    assert len(history.entries()) == 6
    assert [e.limit for e in history.entries(Selection(limits=(20,)))] == [20]


def test_a_run_overwritten_by_a_later_one_is_a_new_result(history: History, tmp_path: Path) -> None:
    first, second = nights(2)
    path = tmp_path / "run/result.json"
    path.parent.mkdir()
    path.write_bytes(first)
    assert history.add([path]).new == (sha256_of(first),)
    assert history.result(sha256_of(first)).path == path
    path.write_bytes(second)
    assert history.add([path.parent]).new == (sha256_of(second),)
    assert history.result(sha256_of(first)).path is None  # other bytes lie there now
    assert history.result(sha256_of(second)).path == path
    assert [e.origins for e in history.entries()] == [(str(path),), (str(path),)]
    copy = tmp_path / "copy/result.json"
    copy.parent.mkdir()
    copy.write_bytes(second)
    assert history.add([copy]).known == (sha256_of(second),)
    path.unlink()
    assert set(history.entry(sha256_of(second)).origins) == {str(path), str(copy)}
    assert history.result(sha256_of(second)[:9].upper()).path == copy


def test_what_the_index_says_is_what_the_files_say(history: History, tmp_path: Path) -> None:
    values = {"fps": 9.7, "fps_low": 9.6, "fps_high": 9.8, "time (backbone)": 0.05, "peak_device_memory": None, "AP": 43.7}
    content = made_result(kind="speed", values=values, per_class={"circle": {"AP": 12.0}}, warnings=("hot",))
    made_history(tmp_path / "history", [content])
    with History(tmp_path / "history") as opened:
        (entry,) = opened.entries()
    from m2fbench.history.entries import entry_of

    expected = entry_of(result_of(content), sha256_of(content))
    assert replace(entry, figures=()) == replace(expected, figures=())
    assert list(map(repr, entry.figures)) == list(map(repr, expected.figures))  # NaN is not equal to itself
    assert [f.name for f in entry.figures] == ["fps", "time (backbone)", "peak_device_memory", "AP"]
    assert opened.address == str(tmp_path / "history")


def test_the_index_can_be_deleted_at_any_time(tmp_path: Path) -> None:
    made_runs(tmp_path / "runs", nights(5))
    with History(tmp_path / "history", create=True) as opened:
        opened.add([tmp_path / "runs"])
        opened.add_comparison(record("a", "b"))
        first = opened.entries()[0].sha256
        opened.release("v1", [first])
        opened.accept(first, "AP", "wanted")
        before = (opened.entries(), opened.series(), opened.releases(), opened.comparison("a", "b"))
    for path in (tmp_path / "history").glob("index.sqlite*"):
        path.unlink()
    with History(tmp_path / "history") as opened:
        assert (opened.entries(), opened.series(), opened.releases(), opened.comparison("a", "b")) == before
        assert opened.series()[0].points[0].accepted


def spoil_header(path: Path) -> None:
    path.write_bytes(b"no database at all " * 500)


def spoil_pages(path: Path) -> None:
    with path.open("r+b") as file:
        for page in range(2, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(bytes([255]) * 4096)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2 // 4096 * 4096 + 100)


def drop_table(path: Path) -> None:
    execute(path, "DROP TABLE figures")


def spoil_text(path: Path) -> None:
    execute(path, "UPDATE texts SET json = '{'")


def spoil_comparison(path: Path) -> None:
    execute(path, "UPDATE comparisons SET json = '{'")


def drop_texts(path: Path) -> None:
    execute(path, "DELETE FROM texts")


def spoil_encoding(path: Path) -> None:
    execute(path, "UPDATE results SET suite = CAST(x'ff80ff' AS TEXT)")


def other_program(path: Path) -> None:
    path.unlink()
    execute(path, "CREATE TABLE bookmarks (url TEXT)")


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement)
    connection.close()


SPOILERS = (
    spoil_header, spoil_pages, cut, drop_table, spoil_text, spoil_comparison, drop_texts, spoil_encoding, other_program,
)  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda f: f.__name__)
def test_a_damaged_index_is_set_aside_and_made_again(spoil: Callable[[Path], None], tmp_path: Path, said: list[str]) -> None:
    names = made_history(tmp_path, nights(30))
    with History(tmp_path) as opened:
        opened.add_comparison(record(names[0], names[1]))
    spoil(tmp_path / "index.sqlite")
    with History(tmp_path, tell=said.append) as opened:
        assert [e.sha256 for e in opened.entries()] == names
        (series,) = opened.series()
        assert [len(point.paired) for point in series.points] == [0, 1, *[0] * 28]
    assert len(said) == 1
    assert "made again from the files" in said[0]
    assert len(list(tmp_path.glob("index.sqlite.damaged-*"))) == 1


def test_an_index_that_breaks_while_it_is_open_is_made_again(tmp_path: Path, said: list[str]) -> None:
    names = made_history(tmp_path / "h", nights(30))
    made_runs(tmp_path / "runs", [made_result(night=99)])
    with History(tmp_path / "h", tell=said.append) as opened:
        drop_table(tmp_path / "h/index.sqlite")
        added = opened.add([tmp_path / "runs"])
        assert len(added.new) == 1
        assert {e.sha256 for e in opened.entries()} == {*names, *added.new}
    assert "set aside" in said[0]


def test_a_damaged_index_that_another_process_has_open_is_left_alone(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = made_history(tmp_path, nights(3))
    monkeypatch.setattr(indexing, "PATIENCE", 0.1)
    with History(tmp_path) as other:
        assert len(other.entries()) == 3
        drop_table(tmp_path / "index.sqlite")
        with History(tmp_path, tell=said.append) as opened:
            assert [e.sha256 for e in opened.entries()] == names
    assert "another process has it open" in said[0]
    assert not list(tmp_path.glob("index.sqlite.damaged-*"))


def test_an_index_of_a_newer_m2fbench_is_left_as_it_is(tmp_path: Path, said: list[str]) -> None:
    names = made_history(tmp_path, nights(3))
    History(tmp_path).close()
    execute(tmp_path / "index.sqlite", f"PRAGMA user_version = {VERSION + 1}")
    before = (tmp_path / "index.sqlite").read_bytes()
    for _ in range(2):
        with History(tmp_path, tell=said.append) as opened:
            assert [e.sha256 for e in opened.entries()] == names
    assert (tmp_path / "index.sqlite").read_bytes() == before
    assert len(said) == 1
    assert "newer m2fbench" in said[0]


VERSION_1 = """
CREATE TABLE texts (id INTEGER PRIMARY KEY, hash TEXT NOT NULL UNIQUE, json TEXT NOT NULL);
CREATE TABLE results (
    id INTEGER PRIMARY KEY, sha256 TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, status TEXT NOT NULL, reason TEXT, suite TEXT NOT NULL,
    row TEXT NOT NULL, variant TEXT NOT NULL, images INTEGER NOT NULL, time TEXT NOT NULL, machine TEXT NOT NULL, disturbed INTEGER NOT NULL,
    warnings TEXT NOT NULL, circumstances INTEGER NOT NULL REFERENCES texts, conditions INTEGER NOT NULL REFERENCES texts);
CREATE INDEX results_by_cell ON results (suite, row, variant, kind, time);
CREATE TABLE names (id INTEGER PRIMARY KEY, name TEXT NOT NULL, unit TEXT NOT NULL, higher INTEGER NOT NULL, UNIQUE (name, unit, higher));
CREATE TABLE figures (
    result INTEGER NOT NULL REFERENCES results, place INTEGER NOT NULL, name INTEGER NOT NULL REFERENCES names, value REAL, low REAL, high REAL,
    PRIMARY KEY (result, place)) WITHOUT ROWID;
CREATE TABLE origins (sha256 TEXT PRIMARY KEY, location TEXT NOT NULL, time TEXT NOT NULL);
CREATE TABLE comparisons (file TEXT PRIMARY KEY, a TEXT NOT NULL, b TEXT NOT NULL, json TEXT NOT NULL);
CREATE INDEX comparisons_by_run ON comparisons (b, a);
CREATE TABLE releases (file TEXT PRIMARY KEY, json TEXT NOT NULL);
CREATE TABLE problems (file TEXT PRIMARY KEY, kind TEXT NOT NULL, message TEXT NOT NULL, reader INTEGER NOT NULL);
PRAGMA application_id = 1832019554;
PRAGMA user_version = 1;
"""


def test_an_index_of_version_1_is_migrated(tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made_runs(tmp_path / "runs", nights(4))
    with History(tmp_path / "h", create=True) as opened:
        opened.add([tmp_path / "runs"])
        opened.accept(opened.entries()[0].sha256, "AP", "wanted")
        expected = opened.entries(), opened.series()
    path, old = tmp_path / "h/index.sqlite", tmp_path / "old.sqlite"
    connection = sqlite3.connect(old)
    connection.executescript(VERSION_1)
    connection.execute("ATTACH ? AS present", (str(path),))
    for table in ("texts", "results", "names", "figures"):
        connection.execute(f"INSERT INTO {table} SELECT * FROM present.{table}")
    connection.execute("INSERT INTO origins SELECT sha256, location, time FROM present.origins")
    connection.commit()
    connection.close()
    old.replace(path)
    monkeypatch.setattr(
        syncing, "entry_from", lambda content, sha256: pytest.fail("a result that an old index has needs no reading")
    )
    with History(tmp_path / "h", tell=said.append) as opened:
        assert (opened.entries(), opened.series()) == expected
    assert said == [f"{path}: brought from schema 1 to {VERSION}"]
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (VERSION,)
    connection.close()


DAMAGED: dict[str, tuple[bytes, str, str]] = {
    "empty": (b"", "damaged", "empty"),
    "cut off": (made_result()[:-300], "damaged", "no whole result file"),
    "binary": (bytes(range(256)), "damaged", "no whole result file"),
    "a list": (b"[1]", "damaged", "a JSON list, expected an object"),
    "another program's": (b'{"AP": 43.7}', "damaged", "no schema version"),
    "of a text version": (made_result(document={"schema_version": "2"}), "damaged", 'no schema version, but "2"'),
    "a text for a figure": (
        made_result(document={"measurements": [dict.fromkeys(("name", "value"), "AP")]}),
        "damaged",
        "expected a number",
    ),
    "without figures": (made_result(document={"measurements": None}), "damaged", "no whole result file"),
    "a suite without name": (made_result(document={"suite": {}}), "damaged", "'suite' of another type"),
    "an unknown field": (made_result(document={"surplus": 1}), "damaged", "surplus"),
    "an unknown status": (made_result(document={"status": "fine"}), "damaged", "'status' of another type"),
    "no time": (made_result(document={"finished": "yesterday"}), "damaged", "ISO 8601"),
    "infinite": (made_result(values={"AP": math.inf}), "damaged", "Infinity is no JSON"),
    "half a character": (made_result(document={"row": "x"}).replace(b'"x"', b'"\\ud800"'), "damaged", "surrogates"),
    "nested": (b"[" * 100_000, "damaged", "no whole result file"),
    "older": (made_result(document={"schema_version": 0}), "older", "run the suite again"),
    "newer": (made_result(document={"schema_version": 3, "new": [1]}), "newer", "update m2fbench"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_file_that_cannot_be_read_is_one_clear_line_and_stops_nothing(case: str, history: History, tmp_path: Path) -> None:
    content, kind, message = DAMAGED[case]
    paths = made_runs(tmp_path / "runs", nights(3))
    paths[1].write_bytes(content)
    added = history.add([tmp_path / "runs"])
    assert len(added.new) == 2
    (problem,) = added.problems
    assert (problem.location, problem.kind) == (str(paths[1]), kind)
    assert message in problem.message
    assert "\n" not in problem.message
    (listed,) = history.problems()
    assert listed.kind == kind
    assert len(history.entries()) == 2
    kept = list((tmp_path / "history/results").rglob("*.json"))
    assert len(kept) == (3 if kind == "newer" else 2)


def test_any_bytes_are_a_result_or_a_problem() -> None:
    """Fields of a real file, at random exchanged for what no result has: the index takes what is read, and nothing else is raised."""
    rng = random.Random(5)
    odd = [
        None,
        True,
        -1,
        10**400,
        1e308,
        "",
        "x\u0000y",
        [],
        {},
        [[]],
        {"name": None},
        {"name": "n", "a": {"b": [None]}},
        "2026-01-01",
    ]
    index, outcomes = in_memory(), set()
    for _ in range(400):
        document = json.loads(made_result(kind=rng.choice(["accuracy", "speed", "flops"]), per_class={"circle": {"AP": 1.0}}))
        at: Any = document
        while True:
            keys = list(at) if isinstance(at, dict) else range(len(at)) if isinstance(at, list) else ()
            key = rng.choice(list(keys))
            deeper = at[key]
            if not isinstance(deeper, dict | list) or not deeper or rng.random() < 0.3:
                at[key] = rng.choice(odd)
                break
            at = deeper
        content = json.dumps(document).encode()
        if rng.random() < 0.2:
            content = content[: rng.randrange(len(content))] + rng.randbytes(3) + content[rng.randrange(len(content)) :]
        problems = take_results(index, {f"results/{sha256_of(content)[:2]}/{sha256_of(content)}.json": content})
        outcomes |= {problem.kind for problem in problems.values()} or {"read"}
    assert {"read", "damaged"} <= outcomes


def test_a_problem_at_a_source_stays_until_it_is_mended_or_gone(tmp_path: Path) -> None:
    paths = made_runs(tmp_path / "runs", nights(3))
    whole = paths[0].read_bytes()
    paths[0].write_bytes(b"{")
    paths[1].write_bytes(b"")
    with History(tmp_path / "h", create=True) as opened:
        opened.add([tmp_path / "runs"])
        opened.rebuild()
        assert [p.location for p in opened.problems()] == [str(paths[0]), str(paths[1])]
    shutil.rmtree(tmp_path / "h/releases", ignore_errors=True)
    (tmp_path / "h/index.sqlite").unlink()
    with History(tmp_path / "h") as opened:
        assert len(opened.problems()) == 2  # those of an index would be gone
        paths[0].write_bytes(whole)
        assert opened.add([paths[0]]).problems == ()
        assert [p.location for p in opened.problems()] == [str(paths[1])]
        paths[1].unlink()
        opened.add([tmp_path / "runs"])
        assert opened.problems() == []
        folder = paths[2].parent
        paths[2].write_bytes(b"{")
        opened.add([folder])
        assert len(opened.problems()) == 1
        paths[2].unlink()
        (still,) = opened.add([folder]).problems  # nothing is left in the folder, which does not keep what was in it
        assert "no result file below it" in still.message
        assert opened.problems() == []


def test_rebuilding_forgets_what_is_gone_from_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / os.fsdecode(b"odd\xff")).mkdir()
    places = [tmp_path / os.fsdecode(b"odd\xff") / "result.json", tmp_path / "result.json", tmp_path / "there.json"]
    for place in places:
        place.write_bytes(b"{")
    with History(tmp_path / "h", create=True) as opened:
        opened.add(places)
        places[1].unlink()
        monkeypatch.setattr(opened, "_host", "another")  # on which there may be such a file
        opened.rebuild()
        assert len(opened.problems()) == 3
    with History(tmp_path / "h") as opened:
        opened.rebuild()
        assert [p.location for p in opened.problems()] == [f"{tmp_path}/odd\\xff/result.json", str(places[2])]


def test_results_have_the_intervals_of_their_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = made_history(tmp_path / "h", nights(3))
    record = PairedRecord(
        a, b, 200, 1000, 0,
        (PairedFigure("AP", Estimate(43.0, 41.5, 44.5), Estimate(42.0, 40.5, 43.5), Estimate(-1.0, -2.0, 0.1), 0.2),),
    )  # fmt: skip
    with History(tmp_path / "h") as opened:
        opened.add_comparison(record)
        ends = {e.sha256: (f.low, f.high) for e in opened.entries() if (f := e.figure("AP")) is not None}
        assert (ends[a], ends[b]) == ((41.5, 44.5), (40.5, 43.5))
        assert math.isnan(ends[c][0])
        (only,) = opened.series(Selection(figures=("AP",)))
        assert {p.result: (p.low, p.high) for p in only.points if p.result != c} == {k: v for k, v in ends.items() if k != c}
        monkeypatch.setattr(tables, "_FEW", 1)  # of more results all comparisons are read
        again = {e.sha256: str((f.low, f.high)) for e in opened.entries() if (f := e.figure("AP")) is not None}
        assert again == {name: str(each) for name, each in ends.items()}
        assert [f.low for f in opened.entry(b).figures if f.name == "AP"] == [40.5]


def test_an_unreadable_file_is_a_problem(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = made_runs(tmp_path / "runs", nights(2))
    read = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path == paths[0]:
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    added = history.add([tmp_path / "runs"])
    assert (len(added.new), added.problems[0].kind) == (1, "unreadable")
    assert "no permission" in added.problems[0].message
    assert history.problems() == list(added.problems)


def test_a_result_of_a_newer_schema_is_kept_and_read_by_a_newer_m2fbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = made_result(document={"schema_version": 3})
    made_runs(tmp_path / "runs", [content])
    with History(tmp_path / "h", create=True) as opened:
        assert opened.add([tmp_path / "runs"]).problems[0].kind == "newer"
        shutil.rmtree(tmp_path / "runs")
        with pytest.raises(HistoryError, match="it is there, but of result schema 3"):
            opened.entry(sha256_of(content)[:8])
    monkeypatch.setattr("m2fbench.results.READ", (1, 2, 3))
    for module in (reading, syncing):
        monkeypatch.setattr(module, "SCHEMA_VERSION", 3)
    monkeypatch.setattr(reading, "READ", (1, 2, 3))
    with History(tmp_path / "h") as opened:
        assert [e.sha256 for e in opened.entries()] == [sha256_of(content)]
        assert opened.problems() == []
        assert opened.entries()[0].origins == (str(tmp_path / "runs/0000/result.json"),)


def test_a_copy_that_has_rotted_is_said_and_mended_by_adding_the_original(tmp_path: Path) -> None:
    contents = nights(3)
    paths = made_runs(tmp_path / "runs", contents)
    with History(tmp_path / "h", create=True) as opened:
        opened.add([tmp_path / "runs"])
        name = sha256_of(contents[1])
        copy = tmp_path / "h/results" / name[:2] / f"{name}.json"
        copy.write_bytes(contents[1].replace(b"43.1", b"93.1"))
        with pytest.raises(HistoryError, match="not what its name says.*restore it"):
            opened.result(name)
        opened.rebuild()
        assert [(p.location, p.kind) for p in opened.problems()] == [(str(copy), "damaged")]
        assert len(opened.entries()) == 2
        assert opened.add([paths[1]]).new == (name,)
        assert copy.read_bytes() == contents[1]
        assert opened.problems() == []
        assert opened.result(name).value("AP") == 43.1


def test_a_strange_file_among_the_results_is_a_problem(tmp_path: Path) -> None:
    made_history(tmp_path, nights(2))
    (tmp_path / "results/result.json").write_bytes(made_result(night=7))
    (tmp_path / "results/.half.json.1.part").write_bytes(b"{")  # being written by another
    with History(tmp_path) as opened:
        assert [p.location for p in opened.problems()] == [str(tmp_path / "results/result.json")]
    (tmp_path / "results/result.json").unlink()
    with History(tmp_path) as opened:
        assert opened.problems() == []
        assert len(opened.entries()) == 2


def test_what_another_machine_added_is_taken_in_and_what_is_gone_leaves(tmp_path: Path) -> None:
    contents = nights(4)
    made_history(tmp_path / "h", contents[:2])
    with (
        History(tmp_path / "h", index=tmp_path / "one.sqlite") as one,
        History(tmp_path / "h", index=tmp_path / "two.sqlite") as two,
    ):
        made_runs(tmp_path / "runs", contents[2:])
        one.add([tmp_path / "runs"])
        first = one.entries()[0].sha256
        one.accept(first, "AP", "wanted")
        assert len(two.entries()) == 2  # as of its opening
    with History(tmp_path / "h", index=tmp_path / "two.sqlite") as two:
        assert len(two.entries()) == 4
        assert two.series()[0].points[0].accepted
        assert two.entries()[-1].origins == (str(tmp_path / "runs/0001/result.json"),)
    (next((tmp_path / "h/accepted").rglob("*.json"))).unlink()
    (tmp_path / "h/results" / first[:2] / f"{first}.json").unlink()
    with History(tmp_path / "h", index=tmp_path / "two.sqlite") as two:
        assert len(two.entries()) == 3
        assert not any(p.accepted for s in two.series() for p in s.points)


def test_two_histories_merge_and_a_history_does_not_find_itself(tmp_path: Path) -> None:
    made_history(tmp_path / "one", nights(3))
    made_history(tmp_path / "two", [*nights(1), made_result(night=50)])
    (tmp_path / "link").symlink_to(tmp_path / "one")
    with History(tmp_path / "one") as opened:
        added = opened.add([tmp_path])  # both lie in it
        assert (len(added.new), len(added.known)) == (1, 1)
        assert all("two" in origin for entry in opened.entries() for origin in entry.origins)


def test_links_that_lead_round_are_followed_once(history: History, tmp_path: Path) -> None:
    made_runs(tmp_path / "elsewhere", nights(2))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(tmp_path / "runs")
    os.mkfifo(tmp_path / "elsewhere/result.json")  # reading it would wait for ever
    assert len(history.add([tmp_path / "runs"]).new) == 2


def test_a_place_that_is_not_there_is_an_error_and_an_empty_one_a_problem(history: History, tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="no such file or folder; expected a result file"):
        history.add([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/results.json").write_text("[]")  # of another program
    (problem,) = history.add([tmp_path / "empty"]).problems
    assert "no result file below it; expected result.json" in problem.message
    assert history.problems() == []
    with pytest.raises(HistoryError, match="no such folder, expected a folder with results/ in it"):
        History(tmp_path / "nowhere")
    with pytest.raises(HistoryError, match="no history, expected a folder with results/ in it"):
        History(tmp_path / "empty")


def test_a_series_has_a_machine_where_the_figure_depends_on_it(tmp_path: Path) -> None:
    machines = ("one", "two")
    values = {"fps": 9.0, "time (backbone)": 0.1, "weight_memory": 1e6, "parameters": 10.0, "AP": 40.0}
    made_history(
        tmp_path,
        [
            *(made_result(kind="speed", values=values, machine=m, night=n) for n in range(2) for m in machines),
            *(made_result(machine=m, night=n, values={"AP": 40.0}) for n, m in enumerate(machines)),
            made_result(kind="flops", machine="one"),
        ],
    )
    with History(tmp_path) as opened:
        found = {(s.key.kind, s.key.figure, s.key.machine): len(s.points) for s in opened.series()}
        assert [s.key for s in opened.series()] == sorted(s.key for s in opened.series())
    assert found == {
        **{("speed", figure, machine): 2 for figure in ("fps", "time (backbone)") for machine in machines},
        **{("speed", figure, ""): 4 for figure in ("weight_memory", "parameters", "AP")},
        ("accuracy", "AP", ""): 2, ("flops", "FLOPs", ""): 1, ("flops", "parameters", ""): 1,
    }  # fmt: skip
    assert depends_on_machine("speed", "energy (gpu)", "J/image")
    assert not depends_on_machine("accuracy", "AP", "percent")


def test_points_stand_in_the_order_of_time_with_all_that_is_known_of_them(history: History, tmp_path: Path) -> None:
    first, second, third = (
        made_result(night=0, values={"AP": 43.0}), made_result(night=1, values={"AP": None}),
        made_result(night=2, values={"AP": 42.0}, protocol={"name": "paper", "min_size": 256, "max_size": 256}, machine="two"),
    )  # fmt: skip
    made_runs(tmp_path / "runs", [third, first, second])
    history.add([tmp_path / "runs"])
    a, b = sha256_of(first), sha256_of(third)
    history.add_comparison(record(a, b))
    history.accept(b[:12], "AP", "a new protocol")
    (series,) = history.series()
    assert (series.unit, series.higher_is_better) == ("percent", True)
    assert [p.time for p in series.points] == [made_time(n) for n in range(3)]
    assert [p.result for p in series.points] == [sha256_of(c) for c in (first, second, third)]
    assert math.isnan(series.points[1].value)
    assert [p.machine for p in series.points] == ["bench-1", "bench-1", "two"]
    assert series.points[0].conditions == series.points[1].conditions != series.points[2].conditions
    assert [p.accepted for p in series.points] == [False, False, True]
    paired = series.points[2].paired[a]
    assert (paired.baseline, paired.difference, paired.p_value, paired.images) == (a, Estimate(-1.0, -1.5, -0.5), 0.0005, 200)
    assert [str((p.low, p.high)) for p in series.points] == [
        "(42.0, 44.0)",
        "(nan, nan)",
        "(nan, nan)",
    ]  # that of the first alone is known


def test_a_night_that_could_not_be_measured_has_no_value(tmp_path: Path) -> None:
    lost = {"values": {}, "reason": "no such device"}
    made_history(
        tmp_path,
        [
            made_result(night=0, values={"AP": 43.0}), made_result(night=1, status="unsupported", **lost),  # type: ignore[arg-type]
            made_result(night=2, status="predicted", **lost), made_result(night=3, status="partial", values={"AP": 44.0}),  # type: ignore[arg-type]
            made_result(night=4, status="unavailable", variant="fp16", **lost),  # type: ignore[arg-type]
        ],
    )  # fmt: skip
    with History(tmp_path) as opened:
        (series,) = opened.series()
        assert [str(p.value) for p in series.points] == ["43.0", "nan", "44.0"]
        assert [e.status for e in opened.entries()] == ["complete", "unsupported", "predicted", "partial", "unavailable"]
        assert opened.entries()[1].reason == "no such device"


def record(a: str, b: str, *, resamples: int = 4000, repeated: bool | None = None) -> PairedRecord:
    figure = PairedFigure("AP", Estimate(43.0, 42.0, 44.0), Estimate(42.0), Estimate(-1.0, -1.5, -0.5), 0.0005)
    return PairedRecord(a, b, 200, resamples, 0, (figure,), repeated=repeated)


def test_of_several_comparisons_the_best_one_counts(history: History, tmp_path: Path) -> None:
    best = record("a", "b", repeated=True)
    for each in (record("a", "b", resamples=9000), best, record("a", "b"), record("b", "a")):
        history.add_comparison(each)
        history.add_comparison(each)
    assert history.comparison("b", "c") is None
    assert repr(history.comparison("a", "b")) == repr(best)
    assert len(list((tmp_path / "history/comparisons").rglob("*.json"))) == 4


def test_small_files_that_are_damaged_or_newer_are_problems(history: History, tmp_path: Path) -> None:
    history.add_comparison(record("a", "b"))
    folder = tmp_path / "history"
    file = next((folder / "comparisons").rglob("*.json"))
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"4000", b"5000"))
    for name, text in (("old", "{"), ("new", '{"m2fbench_history": 2}'), ("odd", '{"m2fbench_history": 1, "results": 3}')):
        (folder / "releases").mkdir(exist_ok=True)
        (folder / f"releases/{name}.json").write_text(text)
    history.rebuild()
    assert [p.kind for p in history.problems()] == ["damaged", "newer", "damaged", "damaged"]
    assert history.releases() == {}
    file.write_bytes(whole)
    shutil.rmtree(folder / "releases")
    with History(folder) as opened:
        assert opened.problems() == []
        assert opened.comparison("a", "b") is not None


def test_releases_are_named_once_and_replaced_on_demand(tmp_path: Path) -> None:
    names = made_history(tmp_path, nights(3))
    with History(tmp_path) as opened, History(tmp_path, index=tmp_path / "other.sqlite") as other:
        opened.release("v1.0", [names[0][:10], names[0]])
        for history in (opened, other):
            with pytest.raises(HistoryError, match="there is one of that name; choose another, or say --replace"):
                history.release("v1.0", [names[1]])
        other.release("v1.0", names[1:], replace=True)
        with pytest.raises(HistoryError, match="expected a name of letters"):
            opened.release("../v1", names)
        with pytest.raises(HistoryError, match="expected results to name"):
            opened.release("v2", [])
        with pytest.raises(HistoryError, match="no result of"):
            opened.release("v2", ["f" * 64])
    with History(tmp_path) as opened:
        assert opened.releases() == {"v1.0": tuple(sorted(names[1:]))}


def test_an_acceptance_needs_a_figure_that_is_there_and_a_reason(tmp_path: Path) -> None:
    (name,) = made_history(tmp_path, nights(1))
    with History(tmp_path) as opened:
        with pytest.raises(HistoryError, match="no figure 'PQ'; expected one of AP"):
            opened.accept(name, "PQ", "wanted")
        with pytest.raises(HistoryError, match="expected a reason"):
            opened.accept(name, "AP", " ")


def test_results_are_named_by_any_unambiguous_beginning(tmp_path: Path) -> None:
    names = made_history(tmp_path, nights(40))
    with History(tmp_path) as opened:
        assert opened.entry(names[0][:10]).sha256 == names[0]
        twice = next(a[0] for a in names if sum(b[0] == a[0] for b in names) > 1)
        with pytest.raises(HistoryError, match=r"\d+ results begin so"):
            opened.entry(twice)
        for wrong in ("", "xyz", "%", "ab" * 40):
            with pytest.raises(HistoryError, match="expected the beginning of a result's SHA-256"):
                opened.entry(wrong)


def test_selections_choose_results_and_points(tmp_path: Path) -> None:
    contents = [
        made_result(suite=suite, row=row, variant=variant, kind=kind, night=night, machine=machine)  # type: ignore[arg-type]
        for suite in ("s1", "s2") for row in ("r1", "r2") for variant in ("default", "fp16") for kind in ("accuracy", "speed")
        for night, machine in ((0, "one"), (40, "two"))
    ]  # fmt: skip
    made_history(tmp_path, contents)
    with History(tmp_path) as opened:
        everything = opened.entries()
        assert [(e.time, e.suite, e.row) for e in everything] == sorted((e.time, e.suite, e.row) for e in everything)

        def count(**fields: Any) -> int:
            selection = Selection(**fields)
            points = {p.result for s in opened.series(selection) for p in s.points}
            found = opened.entries(selection)
            assert {e.sha256 for e in found} == points
            return len(found)

        assert count() == 32
        assert count(suites=("s1",)) == count(rows=("r2",)) == count(variants=("fp16",)) == count(kinds=("speed",)) == 16
        assert count(machines=("two",), suites=("s1", "s2")) == 16
        assert count(since="2026-02") == count(until="2026-01") == count(until="2026-02-09") == 16
        assert count(until="2026-02-10") == count(since="2026-01-01", until="2026") == 32
        assert count(figures=("fps",)) == 16
        assert count(figures=("AP", "fps"), limits=(0,)) == 32
        assert count(limits=(5,)) == count(suites=("' OR 1",)) == 0
        assert count(result=everything[0].sha256[:20]) == 1
        assert {s.key.figure for s in opened.series(Selection(figures=("fps",)))} == {"fps"}


def test_times_are_utc_whatever_a_file_says(tmp_path: Path) -> None:
    made_history(tmp_path, [made_result(night="2026-01-01T03:00:00+02:00"), made_result(night="2026-01-01T02:00:00Z")])
    with History(tmp_path) as opened:
        assert [e.time for e in opened.entries()] == ["2026-01-01T01:00:00+00:00", "2026-01-01T02:00:00+00:00"]
    assert utc("2026-01-01T01:00:00.7") == "2026-01-01T01:00:00+00:00"
    assert utc(None) == ""


def test_a_folder_that_may_only_be_read_has_its_index_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = made_history(tmp_path / "h", nights(2))
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with History(tmp_path / "h") as opened:
        assert [e.sha256 for e in opened.entries()] == names
    assert not (tmp_path / "h/index.sqlite").exists()
    assert list((tmp_path / "cache/history").rglob("index.sqlite"))


def test_a_result_of_schema_1_is_read() -> None:
    document = json.loads(made_result())
    del document["kind"], document["details"]
    document["schema_version"] = 1
    assert result_of(json.dumps(document).encode()).kind == "accuracy"
    with pytest.raises(NoResultError, match="schema 99"):
        result_of(json.dumps(document | {"schema_version": 99}).encode())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"shapes-tiny", b"shapes-\xed\xa0\x80", "no UTF-8"),  # half a character, as bytes
        (b"shapes-tiny", b"shapes-\\ud800", "surrogates"),
        (b'"EPYC"', b"1e999", "no number that a float holds"),
        (b'"EPYC"', b"NaN", "no JSON"),
        (b'"EPYC"', b"9" * 5000, "digits"),
        (b'"EPYC"', b"[" * 100_000 + b"]" * 100_000, "recursion"),
    ],
)
def test_what_neither_a_database_nor_json_holds_is_a_problem(
    old: bytes, new: bytes, said: str, history: History, tmp_path: Path
) -> None:
    paths = made_runs(tmp_path / "runs", nights(2))
    paths[0].write_bytes(made_result().replace(old, new, 1))
    added = history.add([tmp_path / "runs"])
    assert (len(added.new), [p.kind for p in added.problems]) == (1, ["damaged"])
    assert said in added.problems[0].message
    assert len(added.problems[0].message) < 300


def test_nesting_just_below_what_can_be_read_stops_nothing(tmp_path: Path) -> None:
    for depth in (*range(100, 900, 200), *range(900, 1000, 7)):
        content = made_result().replace(b'"EPYC"', b'{"a":' * depth + b"1" + b"}" * depth)
        with contextlib.suppress(NoResultError):
            reading.entry_from(content, sha256_of(content))


def test_a_name_that_is_no_unicode_is_recorded_with_its_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / os.fsdecode(b"\xff")
    made_runs(folder, [made_result(), b'{"kind": "accuracy"}'])
    with History(tmp_path / "h", create=True) as opened:
        assert len(opened.add([tmp_path / "runs"]).new) == 1
        assert opened.entries()[0].origins == (f"{tmp_path}/runs/\\xff/0000/result.json",)
        assert [p.location for p in opened.problems()] == [f"{tmp_path}/runs/\\xff/0001/result.json"]


def test_small_files_with_half_characters_do_not_close_the_history(tmp_path: Path) -> None:
    names = made_history(tmp_path, nights(1))
    for folder, fields in (
        ("origins", {"host": "\ud800", "time": "", "results": {names[0]: ["x"]}}),
        ("accepted", {"result": names[0], "figure": "AP", "reason": "\ud800", "host": "h", "time": ""}),
    ):
        content = json.dumps({"m2fbench_history": 1, **fields}).encode()
        path = tmp_path / documents.name_of(folder, content)
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    with History(tmp_path) as opened:
        assert len(opened.entries()) == 1
        assert [p.kind for p in opened.problems()] == ["damaged", "damaged"]


def test_an_index_that_is_deleted_while_it_is_open_is_made_again(tmp_path: Path) -> None:
    made_runs(tmp_path / "runs", nights(3))
    with History(tmp_path / "h", create=True) as opened:
        opened.add([tmp_path / "runs/0000"])
        (tmp_path / "h/index.sqlite").unlink()
        assert len(opened.add([tmp_path / "runs"]).new) == 2
        assert len(opened.entries()) == 3
        (tmp_path / "h").rename(tmp_path / "moved")
        made_runs(tmp_path / "more", nights(4))
        with pytest.raises(HistoryError, match="no longer there"):
            opened.add([tmp_path / "more"])
    assert not (tmp_path / "h").exists()
    with History(tmp_path / "moved") as opened:
        assert len(opened.entries()) == 3


def test_links_in_a_history_that_lead_round_are_followed_once(tmp_path: Path) -> None:
    names = made_history(tmp_path, nights(3))
    for name in ("0", "zz"):
        (tmp_path / "results" / name).symlink_to(tmp_path / "results", target_is_directory=True)
        (tmp_path / "results" / f"{name}-again").symlink_to(tmp_path / "results" / names[0][:2], target_is_directory=True)
    with History(tmp_path) as opened:
        assert len(opened.entries()) == 3
        assert opened.problems() == []


def test_rot_that_reading_a_result_finds_is_put_right_by_adding_the_original(tmp_path: Path) -> None:
    (path,) = made_runs(tmp_path / "runs", nights(1))
    with History(tmp_path / "h", create=True) as opened:
        (name,) = opened.add([path]).new
        copy = tmp_path / "h/results" / name[:2] / f"{name}.json"
        copy.write_bytes(b"{")
        with pytest.raises(HistoryError, match="not what its name says"):
            opened.result(name)
        assert [p.location for p in opened.problems()] == [str(copy)]
        assert opened.add([path]).known == (name,)
        assert opened.problems() == []
        assert opened.result(name).value("AP") == 43.0


def test_large_files_are_taken_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_runs(tmp_path / "runs", nights(10))
    monkeypatch.setattr(adding, "BATCH_BYTES", 2 * len(nights(1)[0]))
    sizes: list[int] = []
    take = adding.Adding._take
    monkeypatch.setattr(adding.Adding, "_take", lambda self, batch, host: (sizes.append(len(batch)), take(self, batch, host)))
    with History(tmp_path / "h", create=True) as opened:
        assert len(opened.add([tmp_path / "runs"]).new) == 10
    assert sizes == [2, 2, 2, 2, 2]


def test_the_index_of_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = made_history(tmp_path / "h", nights(2))
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "cache"))
    with History(tmp_path / "h"):
        pass
    monkeypatch.setattr(os, "access", lambda path, mode: "index" not in Path(path).name)
    with History(tmp_path / "h") as opened:
        assert [e.sha256 for e in opened.entries()] == names
    assert list((tmp_path / "cache/history").rglob("index.sqlite"))


def test_who_may_write_nowhere_can_read_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]) -> None:
    names = made_history(tmp_path / "h", nights(2))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("M2FBENCH_CACHE", str(tmp_path / "file/cache"))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with History(tmp_path / "h", tell=said.append) as opened:
        assert [e.sha256 for e in opened.entries()] == names
    assert "in memory" in said[0]
    assert "M2FBENCH_INDEX" in said[0]


def test_an_index_may_lie_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2FBENCH_INDEX", str(tmp_path / "indexes"))
    for name in ("a", "b"):
        made_history(tmp_path / name, nights(1, row=name))
        with History(tmp_path / name) as opened:
            assert [e.row for e in opened.entries()] == [name]
        assert [p.name for p in (tmp_path / name).iterdir()] == ["results"]
    assert len(list((tmp_path / "indexes").rglob("index.sqlite"))) == 2


def test_releases_and_acceptances_can_be_taken_back(tmp_path: Path) -> None:
    (name,) = made_history(tmp_path, nights(1))
    with History(tmp_path) as opened, History(tmp_path, index=tmp_path / "other.sqlite"):
        opened.release("v1", [name])
        opened.accept(name, "AP", "agreed")
        (accepted,) = opened.acceptances()
        assert (accepted.result, accepted.figure, accepted.reason) == (name, "AP", "agreed")
        with pytest.raises(HistoryError, match="none of that name; expected one of v1"):
            opened.delete_release("v2")
        opened.withdraw(accepted)
        opened.delete_release("v1")
        assert (opened.acceptances(), opened.releases()) == ([], {})
        assert not opened.series()[0].points[0].accepted
    with History(tmp_path, index=tmp_path / "other.sqlite") as opened:
        assert (opened.acceptances(), opened.releases(), len(opened.entries())) == ([], {}, 1)
