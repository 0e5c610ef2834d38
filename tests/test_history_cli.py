"""``m2fbench history`` as a user calls it: what is printed, and with which exit status."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from made_history import made_history, made_result, made_runs, sha256_of

from m2fbench import cli as command_line
from m2fbench.analysis.main_figures import MAIN_FIGURES, is_main
from m2fbench.history.history import History
from m2fbench.reporting.page.tables import MAIN

Run = Callable[..., tuple[int, str, str]]
CELL = "shapes_instance/shapes-tiny/default"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call ``m2fbench history`` in this process, in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("M2FBENCH_HISTORY", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["m2fbench", "history", *map(str, arguments)])
        capsys.readouterr()
        status = command_line._status()
        said = capsys.readouterr()
        return status, said.out, said.err

    return call


def year(nights: int = 60, step: int = 30) -> list[bytes]:
    """Nights of a speed that drops by 5 % with a new driver."""
    rng = random.Random(1)
    return [
        made_result(
            kind="speed", night=n, values={"fps": rng.gauss(9.7 if n < step else 9.2, 0.03)}, per_class={"circle": {"AP": 12.0}},
            environment={"driver": "570.1" if n < step else "580.2"},
        )
        for n in range(nights)
    ]  # fmt: skip


def test_adding_says_what_is_new_and_what_cannot_be_read(run: Run, tmp_path: Path) -> None:
    paths = made_runs(tmp_path / "runs", [made_result(night=n) for n in range(4)])
    assert run("add", "runs")[:2] == (0, f"{tmp_path}/history: 4 new, 0 known before\n")
    paths[1].write_bytes(b"{")
    paths[2].write_bytes(made_result(document={"schema_version": 7}))
    status, out, _ = run("add", "runs", paths[0])
    assert status == 3
    assert [line.split(": ")[:2] for line in out.splitlines()[:2]] == [["damaged", str(paths[1])], ["newer", str(paths[2])]]
    assert out.splitlines()[2] == f"{tmp_path}/history: 0 new, 2 known before, 2 could not be read"
    status, out, _ = run("list", "--problems")
    assert status == 0
    assert [line.split(": ")[0] for line in out.splitlines()] == ["newer", "damaged"]
    found = json.loads(run("list", "--problems", "--json")[1])
    assert [p["kind"] for p in found] == ["newer", "damaged"]
    assert run("rebuild")[:2] == (3, out + f"{tmp_path}/history: 4 results, 2 files that cannot be read\n")
    assert "2 files could not be read" in run("list")[2]
    status, _, err = run("export", "-o", "figures.csv")
    assert status == 3  # and the others are in
    assert "written: figures.csv, 12 rows of 4 results" in err
    assert "not exported: 2 files that cannot be read" in err


def test_a_damaged_file_that_is_gone_is_dismissed_by_rebuilding(run: Run, tmp_path: Path) -> None:
    paths = made_runs(tmp_path / "runs", [made_result(night=n) for n in range(3)])
    for path in paths[1:]:
        path.write_bytes(b"{")
    assert run("add", "runs")[0] == 3
    paths[1].unlink()
    status, out, err = run("list", "--problems")
    assert (status, len(out.splitlines())) == (0, 2)
    assert "delete it and m2fbench history rebuild on the machine that found it" in err
    assert f"goes with its file in {tmp_path}/history/problems" in err
    status, out, _ = run("rebuild")
    assert (status, out.splitlines()[-1]) == (3, f"{tmp_path}/history: 1 result, 1 file that cannot be read")
    assert str(paths[2]) in out
    paths[2].unlink()
    assert run("rebuild")[:2] == (0, f"{tmp_path}/history: 1 result\n")
    assert run("list", "--problems")[1:] == ("", "")
    assert run("list")[2] == ""


def test_a_name_that_no_result_has_is_one_line_and_status_2(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", [made_result(night=n, row=row, machine="m1") for n in range(2) for row in ("a", "b\x1b")])
    for arguments, message in {
        ("--suite", "shapes_instanze"): "(did you mean 'shapes_instance'?); expected one of shapes_instance",
        ("--checkpoint", "c"): "--checkpoint c: no result has it; expected one of a, b?",
        ("--variant", "fp16"): "--variant fp16: no result has it; expected one of default",
        ("--machine", "m"): "--machine m: no result has it (did you mean 'm1'?); expected one of m1",
        ("--figure", "AP_50"): "--figure AP_50: no result has it (did you mean 'AP50'?); expected one of AP, AP50, AP75",
    }.items():
        for command in (("list",), ("list", "--series", "--json"), ("list", "--accepted"), ("export", "-o", "x.csv")):
            status, out, err = run(*command, *arguments)
            assert (status, out) == (2, "")
            assert err.splitlines()[-1].endswith(message)
    assert (
        run("list", "--suite", "shapes_instance", "--kind", "speed")[0] == 0
    )  # such a name is known; that nothing has both is an answer
    assert "no such cell (did you mean 'shapes_instance/a/default'?)" in run("show", "shapes_instance/a/defualt")[2]
    assert "--figure AP_50: no result has it" in run("show", "shapes_instance/a/default", "--figure", "AP_50")[2]


def test_the_night_of_a_result_is_named_wherever_it_stands(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [
        made_result(kind="speed", night=n, values={"fps": (9.7 if n < 20 else 8.0) + n % 3 / 100}, environment={"night": f"ci-{n}"})
        for n in range(30)
    ]  # fmt: skip
    names = made_history(tmp_path / "history", contents)
    out = run("list")[1]
    assert "night" in out.splitlines()[1]
    assert "ci-29" in out
    assert json.loads(run("list", "--json")[1])[3]["night"] == "ci-3"
    assert re.search(r"night +ci-4 *\n", run("show", names[4])[1])
    out = run("show", CELL)[1]
    assert (
        f"2026-01-21 03:00, night ci-20: first {names[20][:10]}; before it {names[19][:10]} of 2026-01-20 03:00, night ci-19" in out
    )
    assert "nothing that was recorded changed between the two" in out  # a night's name is no cause
    (series,) = json.loads(run("show", CELL, "--json")[1])
    assert (series["steps"][0]["night"], series["points"][4]["night"], series["steps"][0]["changes"]) == ("ci-20", "ci-4", [])
    run("accept", CELL, "--reason", "agreed")
    assert f"{CELL} fps from {names[20][:10]} (night ci-20) on: agreed" in run("list", "--accepted")[1]
    assert "accepted" in run("show", names[20])[1]
    assert json.loads(run("show", names[20], "--json")[1])["accepted"][0]["reason"] == "agreed"
    run("export", "-o", "x.json")
    assert [row["night"] for row in json.loads((tmp_path / "x.json").read_text())] == [f"ci-{n}" for n in range(30)]
    monkeypatch.setenv("COLUMNS", "80")
    assert "ci-29" in run("list")[1]
    made_history(tmp_path / "nameless", [made_result()])
    assert "night" not in run("list", "--history", "nameless")[1]


def test_a_cell_shows_its_main_figures_and_each_change_once(run: Run, tmp_path: Path) -> None:
    """Two figures, of which one is a main one, drop on the same night with another checkpoint."""
    before, after = ({"reference": "x", "sha256": letter * 64, "parameters": 1} for letter in "ab")
    levels = {"fps": 9.7, "fps (backbone)": 20.0, "fps_task": 9.9}
    contents = [
        made_result(
            kind="speed", night=n, checkpoint=before if n < 20 else after,
            values={name: level * (1 if n < 20 else 0.8) + n % 3 / 100 for name, level in levels.items()},
        )
        for n in range(30)
    ]  # fmt: skip
    made_history(tmp_path / "history", contents)
    out = run("show", CELL)[1]
    assert out.splitlines()[0] == CELL
    assert out.count(CELL) == 1
    assert "fps on bench-1: regression" in out
    assert "backbone" not in out
    assert out.splitlines()[-1] == "2 figures more, with 2 steps: --all, or --figure NAME"
    every = run("show", CELL, "--all")[1]
    assert every.count(": regression, ") == 3
    assert every.count("  checkpoint: aaaaaaaaaa -> bbbbbbbbbb\n") == 1
    assert "a" * 11 not in every
    one = run("show", CELL, "--figure", "fps (backbone)")[1]
    assert one.count(": regression, ") == 1
    assert "fps (backbone) on bench-1: regression, 20.0" in one
    assert "more" not in one
    (series,) = json.loads(run("show", CELL, "--figure", "fps_task", "--json")[1])
    assert series["figure"] == "fps_task"
    assert len(json.loads(run("show", CELL, "--json")[1])) == 3  # JSON has all
    run("accept", CELL, "--figure", "fps_task", "--reason", "smaller\x1b, as agreed")
    assert re.search(
        r"  fps_task: regression, .*, accepted\n  accepted 2\d{3}-.* on .*: smaller\?, as agreed\n",
        run("show", CELL, "--all")[1],
    )
    result = run("show", sha256_of(contents[0]), "--figure", "fps_task")[1]
    assert "fps_task" in result
    assert "backbone" not in result
    status, _, err = run("show", sha256_of(contents[0]), "--figure", "fps_tusk")
    assert (status, "it has no figure fps_tusk (did you mean 'fps_task'?)" in err) == (2, True)


def test_the_main_figures_are_those_of_reports() -> None:
    assert set(MAIN_FIGURES["accuracy"]) == {name for names in MAIN.values() for name in names}
    assert is_main("accuracy", "AP")
    assert not is_main("speed", "AP")  # of fewer images
    assert not is_main("accuracy", "AP (small)")


def test_what_a_user_can_mend_is_one_line_and_status_2(run: Run, tmp_path: Path) -> None:
    assert run("add", "nowhere")[0] == 2
    assert not (tmp_path / "history").exists()
    made_history(tmp_path / "history", [made_result()])
    cases: list[tuple[tuple[str, ...], str]] = [
        (("add", "nowhere"), "no such file or folder"),
        (("list", "--history", "nowhere"), "no such folder, expected a folder with results/ in it"),
        (("show", "zzz"), "expected the beginning of a result's SHA-256"),
        (("show", "a/b"), "expected SUITE/ROW/VARIANT"),
        (("show", "a/b/c"), f"expected one of {CELL}"),
        (("accept", CELL, "--reason", "wanted"), "no open regression"),
        (("release", "v1", "f" * 12), "no result of"),
        (("release", "v 1", sha256_of(made_result())), "expected a name"),
        (("list", "--kind", "colour"), "'colour' is not one of"),
    ]
    for arguments, message in cases:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert message in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith("m2fbench: error: ")
        assert "Traceback" not in err


def test_results_are_listed_filtered_and_as_json(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = [made_result(night=n, row=row, machine=f"m{n}") for n in range(3) for row in ("a", "b")]
    made_history(tmp_path / "elsewhere", contents)
    monkeypatch.setenv("M2FBENCH_HISTORY", str(tmp_path / "elsewhere"))
    status, out, _ = run("list", "--checkpoint", "a", "--figure", "AP75", "--last", "2")
    assert status == 0
    assert "3 results, the last 2 shown: --last 0 for all" in out
    assert out.count("46.90") == 2
    assert sha256_of(contents[4])[:10] in out
    found = json.loads(run("list", "--json", "--since", "2026-01-02", "--machine", "m2")[1])
    assert [(e["row"], e["machine"]) for e in found] == [("a", "m2"), ("b", "m2")]
    assert found[0]["figures"][0] == {
        "name": "AP", "value": 43.7, "unit": "percent", "higher_is_better": True, "low": None, "high": None,
    }  # fmt: skip
    monkeypatch.setenv("COLUMNS", "60")
    assert run("list", "--kind", "accuracy", "--suite", "shapes_instance", "--variant", "default", "--until", "2026")[0] == 0


def test_a_regression_is_listed_shown_with_what_changed_and_accepted(run: Run, tmp_path: Path) -> None:
    contents = year()
    names = made_history(tmp_path / "history", contents)
    out = run("list", "--series")[1]
    assert "regression since 2026-01-31 03:00: -" in " ".join(out.replace("│", " ").split())
    out = run("show", CELL)[1]
    assert re.search(r"  fps on bench-1: regression, 9\.7\d -> 9\.[12]\d \(-[56]\.\d%\), against the series' own noise, open", out)
    assert f"2026-01-31 03:00: first {names[30][:10]}; before it {names[29][:10]} of 2026-01-30 03:00\n" in out
    assert "driver: 570.1 -> 580.2" in out
    (series,) = json.loads(run("show", CELL, "--json")[1])
    (step,) = series["steps"]
    assert (step["first"], step["last_good"], step["open"], len(series["points"])) == (names[30], names[29], True, 60)
    assert step["changes"] == [{"what": "driver", "before": "570.1", "after": "580.2"}]
    (listed,) = json.loads(run("list", "--series", "--json")[1])
    assert (listed["cell"], listed["points"], listed["latest"]["result"]) == (CELL, 60, names[59])
    assert run("accept", CELL, "--figure", "latency", "--reason", "wanted")[0] == 2
    status, out, _ = run("accept", CELL, "--reason", "the new driver is slower, and needed")
    assert (status, out) == (0, f"accepted: {CELL} fps, the regression since 2026-01-31 03:00\n")
    assert "regression since" not in run("list", "--series")[1]
    assert ", accepted" in run("show", CELL)[1]
    assert run("accept", CELL, "--reason", "again")[0] == 2


def test_a_plural_is_one_where_it_is_one(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", [made_result()])
    assert run("list")[1].splitlines()[-1] == "1 result"
    assert "3 rows of 1 result\n" in run("export", "-o", "x.csv")[2]


def test_one_result_is_shown_in_full(run: Run, tmp_path: Path) -> None:
    contents = year(3)
    paths = made_runs(tmp_path / "runs", contents)
    run("add", "runs")
    assert run("release", "v1", paths[0].parent, sha256_of(contents[1])[:8])[:2] == (0, "release v1: 2 results\n")
    assert run("release", "v1", paths[0])[0] == 2
    assert run("release", "v1", paths[0], "--replace")[:2] == (0, "release v1: 1 result\n")
    name = sha256_of(contents[0])
    status, out, _ = run("show", name[:8], "--per-class", "--circumstances")
    assert status == 0
    for text in (name, "release   v1", str(paths[0]), "9.7", "circle", "12.00", "environment.driver", "570.1"):
        assert text in out
    document = json.loads(run("show", name[:8], "--per-class", "--json")[1])
    assert (document["sha256"], document["releases"]) == (name, ["v1"])
    assert document["measurements"][1]["category"] == "circle"
    paths[0].write_bytes(b"")
    status, _, err = run("release", "v2", paths[0].parent)
    assert status == 2
    assert "it is empty" in err


def test_names_that_try_to_be_markup_are_printed_as_they_are(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", [made_result(row="[red]x[/]", machine="[bold]", warnings=["[/]"], reason="[link=x]")])
    with History(tmp_path / "history") as opened:
        name = opened.entries()[0].sha256
    for arguments in (("list",), ("list", "--series"), ("show", name[:8]), ("show", "shapes_instance/[red]x[/]/default")):
        status, out, _ = run(*arguments)
        assert status == 0
        assert "[red]x[/]" in out


def test_export_is_a_command_of_it(run: Run) -> None:
    assert "export" in run("--help")[1]


def test_an_index_made_again_is_said(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", [made_result()])
    (tmp_path / "history/index.sqlite").write_bytes(b"x" * 5000)
    status, out, err = run("list")
    assert (status, "1 result\n" in out) == (0, True)
    assert "made again from the files" in " ".join(err.split())


def test_what_was_accepted_or_released_is_listed_and_taken_back(run: Run, tmp_path: Path) -> None:
    names = made_history(tmp_path / "history", year())
    assert run("list", "--accepted")[:2] == (0, "")
    assert run("list", "--releases")[:2] == (0, "")
    assert run("accept", CELL)[0] == 2
    assert "--reason" in run("accept", CELL)[2]
    assert "no such cell; expected one of " + CELL in run("accept", "a/b/c", "--reason", "x")[2]
    run("accept", CELL, "--reason", "agreed")
    out = run("list", "--accepted")[1]
    assert re.search(rf"{CELL} fps from {names[30][:10]} on: agreed\n$", out)
    assert json.loads(run("list", "--accepted", "--json")[1])[0]["reason"] == "agreed"
    status, out, _ = run("accept", CELL, "--withdraw")
    assert (status, out) == (0, f"withdrawn: {CELL} fps, accepted for: agreed\n")
    assert ", open" in run("show", CELL)[1]
    status, _, error = run("accept", CELL, "--withdraw")
    assert status == 2
    assert "nothing was accepted; see m2fbench history list --accepted" in error

    assert run("release", "v1", names[0])[0] == 0
    assert run("list", "--releases")[1] == f"v1: 1 result\n  {names[0][:10]} {CELL}, speed, 2026-01-01 03:00\n"
    assert json.loads(run("list", "--releases", "--json")[1]) == {"v1": [names[0]]}
    assert run("release", "v1", names[0], "--delete")[0] == 2
    assert run("release", "v1", "--delete")[0] == 0
    assert "expected one of none" in run("release", "v1", "--delete")[2]


def test_times_that_are_none_are_said(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", [made_result(night=n) for n in range(10)])
    for text, count in (("2026-01-05 03:00", 6), ("2026-01-05T03:00:00Z", 6), ("2026", 10), ("2026-01-09", 2)):
        assert run("list", "--since", text)[1].splitlines()[-1] == f"{count} results"
    for text in ("yesterday", "2026-1", "05.01.2026", "2026-01T03:00"):
        for arguments in (("list", "--since", text), ("export", "-o", "x.csv", "--until", text)):
            status, _, error = run(*arguments)
            assert status == 2
            assert "expected a time in UTC" in " ".join(error.replace("│", " ").split())


def test_nothing_in_a_name_reaches_the_terminal(run: Run, tmp_path: Path) -> None:
    row = "a\x1b[2Jb\nc\x9b"
    nights = [
        made_result(
            row=row,
            night=n,
            kind="speed",
            values={"fps": 9 if n < 9 else 5},
            machine="m\x1b",
            environment={"driver": f"\x1b[31m{n // 9}", "\x1bkey": "x"},
            warnings=("\x1bw",),
            reason="\x1br\nx",
        )
        for n in range(20)
    ]
    (name, *_) = made_history(tmp_path / "history", nights)
    run("accept", f"shapes_instance/{row}/default", "--reason", "\x1bwhy")
    run("release", "v1", name)
    (path,) = made_runs(tmp_path / "r\x1bx\ny", nights[:1])
    path.write_bytes(b"{")
    said = "".join(
        out + error
        for _, out, error in (
            run("add", "r\x1bx\ny"), run("list"), run("list", "--series"), run("list", "--problems"), run("list", "--accepted"),
            run("list", "--releases"), run("show", name, "--circumstances"), run("show", f"shapes_instance/{row}/default"), run("show", "a/b/c"),
            run("accept", f"shapes_instance/{row}/default", "--withdraw"), run("rebuild"),
        )
    )  # fmt: skip
    assert "a?[2Jb?c?" in said
    assert not set(said) & set("\x1b\x9b")


def test_series_are_legible_at_80_columns(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_history(tmp_path / "history", year())
    monkeypatch.setenv("COLUMNS", "80")
    lines = run("list", "--series")[1].splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 8
    assert all(word in "\n".join(lines) for word in ("regression since", "2026-03-01", "bench-1", "speed", "fps"))


def test_an_export_to_a_folder_is_one_line(run: Run, tmp_path: Path) -> None:
    made_history(tmp_path / "history", year(2))
    (tmp_path / "x.csv").mkdir()
    for output in (".", "/", "x.csv"):
        status, _, error = run("export", "--format", "csv", "-o", output)
        assert status == 2
        assert "is a folder: name a file in it" in error
