"""A history exported to a real MLflow server on this machine: read back equal, twice is once, and what is said where there is no server."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from made_history import made_history, made_result, sha256_of

from m2fbench.errors import ExtraError, HistoryError
from m2fbench.history.entries import entry_of
from m2fbench.history.mlflow_export import contents_of, export_runs
from m2fbench.history.mlflow_runs import ARTIFACT_TAG, RESULT_TAG, figure_of
from m2fbench.history.reading import result_of
from m2fbench.history.records import Entry

pytestmark = pytest.mark.full
with_server = pytest.mark.slow  # one takes a quarter of a minute to start
Call = Callable[..., subprocess.CompletedProcess[str]]

RESULTS = [
    *(made_result(night=night, kind=kind, values={"AP": 40 + night / 3, "time (pixel decoder)": 0.01 / 3, "AP50": None, "fps_low": 1.5, "fps": 2.0})
      for night in range(3) for kind in ("accuracy", "speed")),
    made_result(suite="other suite", kind="flops"),
    made_result(suite="other suite", values={}, status="unavailable", reason="the checkpoint is gone"),
]  # fmt: skip


def entries_of(contents: Sequence[bytes]) -> list[Entry]:
    return [entry_of(result_of(content), sha256_of(content)) for content in contents]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{free.getsockname()[1]}"
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/db.sqlite",
        "--artifacts-destination", str(folder / "files"), "--host", "127.0.0.1", "--port", uri.rpartition(":")[2], "--workers", "1",
    ]  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
        )
    try:
        for _ in range(240):
            with suppress(OSError), urllib.request.urlopen(f"{uri}/api/2.0/mlflow/experiments/search?max_results=1", timeout=60):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.5)
        else:
            pytest.fail(f"no MLflow server after two minutes: {(folder / 'log').read_text()}")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "history"
    made_history(folder, RESULTS)
    return folder


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs(uri: str, *experiments: str) -> list[Any]:
    at = client(uri)
    return list(at.search_runs([at.get_experiment_by_name(name).experiment_id for name in experiments], max_results=1000))


@with_server
def test_the_command_exports_equal_figures_and_twice_is_once(server: str, cli: Call, history: Path, tmp_path: Path) -> None:
    arguments = ("history", "export", "--format", "mlflow", "--history", history)
    first = cli(*arguments, "--uri", server, cwd=tmp_path)
    assert (first.returncode, first.stdout) == (0, "")
    assert [line for line in first.stderr.splitlines() if not line.startswith("sending 8 results")] == [
        "runs: 8 new, 0 completed, 0 there already", "experiment: m2fbench/other suite",
        "experiment: m2fbench/shapes_instance",
        "left out, as metrics need a value: 6 figures without one; the tag m2fbench.unmeasured of their runs names them",
    ]  # fmt: skip
    experiments = ("m2fbench/shapes_instance", "m2fbench/other suite")
    check(server, runs(server, *experiments), history, tmp_path / "artifacts")

    second = cli(*arguments, cwd=tmp_path, env={"MLFLOW_TRACKING_URI": server})
    assert "runs: 0 new, 0 completed, 8 there already" in second.stderr
    assert len(runs(server, *experiments)) == len(RESULTS)
    assert [p.name for p in tmp_path.iterdir()] == ["artifacts"]  # mlflow leaves nothing where the command is called


def check(uri: str, found: list[Any], history: Path, folder: Path) -> None:
    """Each result is one run, whose metrics are its figures, to the last digit."""
    folder.mkdir()
    by_sha = {run.data.tags[RESULT_TAG]: run for run in found}
    entries = entries_of(RESULTS)
    assert len(found) == len(by_sha) == len(entries)
    for entry, content in zip(entries, RESULTS, strict=True):
        run = by_sha[entry.sha256]
        plain = {name: value for name, value in run.data.metrics.items() if not name.endswith((".low", ".high"))}
        assert {figure_of(name)[0]: value for name, value in plain.items()} == {
            f.name: f.value for f in entry.figures if f.value == f.value
        }
        ends = {f"{f.name}.low": f.low for f in entry.figures if f.low == f.low}
        assert {name: value for name, value in run.data.metrics.items() if name not in plain} == ends
        assert run.info.run_name == f"{entry.row}/{entry.variant}"
        assert run.info.status == ("FAILED" if entry.status == "unavailable" else "FINISHED")
        time_ms = int(datetime.fromisoformat(entry.time).timestamp() * 1000)
        assert (run.info.start_time, run.info.end_time) == (time_ms, time_ms)
        for name in run.data.metrics:
            assert [(m.timestamp, m.step) for m in client(uri).get_metric_history(run.info.run_id, name)] == [(time_ms, 0)]
        assert run.data.params["variant.dtype"] == "float32"
        assert run.data.tags["m2fbench.machine"] == entry.machine
        path = client(uri).download_artifacts(run.info.run_id, "result.json", str(folder))
        assert Path(path).read_bytes() == content


@with_server
def test_what_an_export_left_unfinished_is_completed(server: str) -> None:
    entries = entries_of(RESULTS[:2])
    at = client(server)
    identity = at.create_experiment("unfinished")
    run = at.create_run(identity, tags={RESULT_TAG: entries[0].sha256})
    at.log_metric(run.info.run_id, "AP", entries[0].figures[0].value, timestamp=1767236400000)
    done = export_runs(
        entries, dict(zip([e.sha256 for e in entries], RESULTS, strict=False)).__getitem__, uri=server, experiment="unfinished"
    )
    assert (done.new, done.completed, done.known) == (1, 1, 0)
    assert {r.info.status for r in runs(server, "unfinished")} == {"FINISHED"}
    assert len(runs(server, "unfinished")) == 2
    assert at.get_run(run.info.run_id).data.metrics.keys() == {"AP", "pixel decoder/time", "fps", "fps.low"}


@with_server
def test_killed_exports_are_completed_by_the_next(server: str, history: Path) -> None:
    contents = [made_result(night=night) for night in range(30)]
    made_history(history.parent / "long", contents)
    command = [
        sys.executable,
        "-m",
        "m2fbench",
        "history",
        "export",
        "--format",
        "mlflow",
        "--history",
        str(history.parent / "long"),
    ]
    at = client(server)
    experiment = at.create_experiment("killed")
    for least in (1, 12):
        process = subprocess.Popen([*command, "--uri", server, "--experiment", "killed"], stderr=subprocess.DEVNULL)
        while len(at.search_runs([experiment])) < least and process.poll() is None:
            time.sleep(0.02)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert len(runs(server, "killed")) < 30
    entries = entries_of(contents)
    done = export_runs(entries, contents_of(str(history.parent / "long")), uri=server, experiment="killed")
    assert done.new + done.completed + done.known == 30
    found = runs(server, "killed")
    assert sorted(r.data.tags[RESULT_TAG] for r in found) == sorted(e.sha256 for e in entries)
    assert {(r.info.status, len(r.data.metrics)) for r in found} == {("FINISHED", 3)}


@with_server
def test_many_are_looked_for_by_reading_through_the_experiment(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {sha256_of(c): c for c in RESULTS[:6]}
    entries = entries_of(list(contents.values()))
    first = export_runs(entries, contents.__getitem__, uri=server, experiment="many", per_class=True)
    monkeypatch.setattr("m2fbench.history.mlflow_export.ONE_BY_ONE", 2)
    second = export_runs(entries, contents.__getitem__, uri=server, experiment="many")
    assert (first.new, second.new, second.known) == (6, 0, 6)
    assert len(runs(server, "many")) == 6


@with_server
def test_a_deleted_experiment_is_not_written_to(server: str) -> None:
    at = client(server)
    at.delete_experiment(at.create_experiment("gone"))
    with pytest.raises(HistoryError, match=r"'gone' has been deleted there; restore it .*, or name another with --experiment"):
        export_runs(entries_of(RESULTS[:1]), lambda sha256: RESULTS[0], uri=server, experiment="gone")


@with_server
def test_a_result_file_that_is_gone_is_said_and_made_up_for_later(server: str, tmp_path: Path) -> None:
    entries = entries_of(RESULTS[:1])
    done = export_runs(entries, contents_of(str(tmp_path)), uri=server, experiment="no files")
    assert done.new == 1
    assert "cannot be read and is not attached" in done.notes[0]
    assert done.unread == 1
    (run,) = runs(server, "no files")
    assert "cannot be read" in run.data.tags[ARTIFACT_TAG]
    assert run.data.metrics["AP"] == 40.0
    done = export_runs(entries, lambda sha256: RESULTS[0], uri=server, experiment="no files")
    assert (done.known, done.notes) == (1, ())
    (run,) = runs(server, "no files")
    assert ARTIFACT_TAG not in run.data.tags
    assert [file.path for file in client(server).list_artifacts(run.info.run_id)] == ["result.json"]


@with_server
def test_files_that_a_server_keeps_in_a_folder_of_its_own_are_not_attached(server: str, tmp_path: Path) -> None:
    client(server).create_experiment("folder", artifact_location=f"{tmp_path}/its own")
    done = export_runs(entries_of(RESULTS[:2]), lambda sha256: RESULTS[0], uri=server, experiment="folder")
    assert done.new == 2
    assert done.notes == (
        "result files are not attached: it keeps them in a folder of its own machine (start it with --serve-artifacts)",
    )
    assert not list(tmp_path.iterdir())
    assert ["its own machine" in run.data.tags[ARTIFACT_TAG] for run in runs(server, "folder")] == [True, True]


@with_server
def test_nobody_else_is_spoken_to(server: str, history: Path, tmp_path: Path) -> None:
    """mlflow sends usage data unless it believes itself to be under test; here it cannot believe so."""
    spy = (
        "import os, sys\n"
        "def listen(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        told = arguments[1][0] if event == 'socket.connect' else arguments[0]\n"
        "        os.write(2, f'SPOKE TO {told}\\n'.encode())\n"
        "sys.addaudithook(listen)\n"
        "from m2fbench.cli import main\n"
        "main()\n"
    )
    hints = (
        "PYTEST",
        "CI",
        "GITHUB",
        "TRAVIS",
        "TOX",
        "BUILD",
        "JENKINS",
        "MLFLOW",
        "DO_NOT_TRACK",
        "GITLAB",
        "CIRCLE",
        "TEAMCITY",
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(hints)}
    arguments = ("history", "export", "--format", "mlflow", "--history", history, "--uri", server, "--experiment", "spied")
    done = subprocess.run(
        [sys.executable, "-c", spy, *map(str, arguments)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    spoken = {line.removeprefix("SPOKE TO ") for line in done.stderr.splitlines() if line.startswith("SPOKE TO")}
    assert spoken == {"127.0.0.1"}
    assert done.stdout == ""
    assert next(line for line in done.stderr.splitlines() if not line.startswith("SPOKE TO")) == "sending 8 results"


@contextmanager
def answering(status: int, body: bytes, kind: str = "text/html") -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://someone:secret@127.0.0.1:{httpd.server_port}"
        httpd.shutdown()


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (200, b"<html>Welcome</html>", "text/html", "as no MLflow tracking server does; check the address"),
        (200, b'{"hello": "world"}', "application/json", "as no MLflow tracking server does; check the address"),
        (404, b"<html>no such page</html>", "text/html", "as no MLflow tracking server does; check the address"),
        (
            401,
            b"who are you",
            "text/html",
            "refuses .* set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
        ),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "application/json", "refuses .* MLFLOW_TRACKING_TOKEN"),
        (500, b"<html>\x1b[31mbroken</html>", "text/html", "error code 500"),
    ],
)
def test_what_is_no_server_is_told_in_a_line(status: int, body: bytes, kind: str, message: str) -> None:
    with answering(status, body, kind) as uri, pytest.raises(HistoryError, match=message) as caught:
        export_runs(entries_of(RESULTS[:1]), lambda sha256: RESULTS[0], uri=uri)
    assert "secret" not in str(caught.value)
    assert str(caught.value).startswith("http://127.0.0.1:")
    assert str(caught.value).isprintable()


def test_the_command_where_nothing_listens(cli: Call, history: Path, tmp_path: Path) -> None:
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        uri = f"http://someone:secret@127.0.0.1:{taken.getsockname()[1]}"
        done = cli("history", "export", "--format", "mlflow", "--uri", uri, "--history", history, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].endswith("nothing listens there; is the server up, and the address right?")
    assert "secret" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m2fbench.history.mlflow_export.FIRST_SECONDS", "1")
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(HistoryError, match="does not answer in time"):
            export_runs(entries_of(RESULTS[:1]), lambda sha256: RESULTS[0], uri=f"http://127.0.0.1:{silent.getsockname()[1]}")


@pytest.mark.parametrize("uri", ["nonsense://x", "http://", "./mlruns"])
def test_an_address_of_no_server(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HistoryError) as caught:
        export_runs(entries_of(RESULTS[:1]), lambda sha256: RESULTS[0], uri=uri)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_without_mlflow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ExtraError, match=r"mlflow, which is not installed; pip install 'm2fbench\[mlflow\]'"):
        export_runs([], lambda sha256: b"", uri="http://127.0.0.1:1")
