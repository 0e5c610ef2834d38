"""A history into an MLflow tracking server: every result one run (``mlflow_runs``), however often it is exported.

A run carries the SHA-256 of its result in a tag, is looked for by it, and is marked as finished last of all: a second export adds nothing, and
one that was interrupted is completed by the next. What was deleted there is exported again. Two exports of the same results at the same moment
are not told apart by the server and may write a run twice.

mlflow itself is kept from sending usage data (``MLFLOW_DISABLE_TELEMETRY``), from printing, and from waiting for minutes on a server that does
not answer; ``MLFLOW_HTTP_REQUEST_TIMEOUT`` and ``MLFLOW_HTTP_REQUEST_MAX_RETRIES`` are kept where they are set.
"""

import contextlib
import json
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from m2fbench.errors import ExtraError, HistoryError, M2FBenchError, shown
from m2fbench.history.files import Files, LocalFiles, local_path, public, without_password
from m2fbench.history.mlflow_runs import ARTIFACT, ARTIFACT_TAG, RESULT_TAG, MlflowRun, run_of
from m2fbench.history.records import Entry
from m2fbench.history.remote_files import RemoteFiles
from m2fbench.results import RunResult

PREFIX = "m2fbench/"
SECONDS, RETRIES = "20", "2"  # of one request, unless the environment says otherwise
FIRST_SECONDS, FIRST_RETRIES = "15", "0"  # of the first request, which tells whether there is a server
ONE_BY_ONE = 50  # up to so many results are looked for one by one, more by reading through the experiment
AT_ONCE = 4  # connections
_NO_MLFLOW = "answers, but as no MLflow tracking server does; check the address"
_PARAMETERS, _METRICS = 100, 800  # of one request; MLflow's limits are 100, 1000 and 1000 together

ContentOf = Callable[[str], bytes]
"""A result file's bytes by its SHA-256; raises an M2FBenchError where it cannot be read."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Exported:
    """What came of an export, in results. completed: runs that an export before this one left unfinished. unmeasured: figures without a value,
    which cannot be metrics. unread: result files that cannot be read. notes: one line each, what else is not there."""

    new: int = 0
    completed: int = 0
    known: int = 0
    unmeasured: int = 0
    unread: int = 0
    experiments: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def export_runs(
    entries: Sequence[Entry],
    content_of: ContentOf,
    *,
    uri: str,
    experiment: str | None = None,
    per_class: bool = False,
    progress: Progress = lambda done, total: None,
) -> Exported:
    """experiment: for all of them, in place of one a suite, ``m2fbench/SUITE``. Raises HistoryError, and ExtraError without mlflow."""
    client = _client(uri)
    server = _Server(client, uri, content_of, per_class)
    by_experiment: dict[str, list[Entry]] = {}
    for entry in entries:
        by_experiment.setdefault(experiment or f"{PREFIX}{entry.suite}", []).append(entry)
    done: list[_Done] = []
    progress(0, len(entries))
    try:
        with _fail_fast():
            client.search_experiments(max_results=1)
        for name, wanted in by_experiment.items():
            for one in server.export(name, wanted):
                done.append(one)
                progress(len(done), len(entries))
    except M2FBenchError:
        raise
    except Exception as error:  # mlflow's own, requests', and those of whatever stores artifacts
        kept = f"; {len(done)} of {len(entries)} results are there, and the same command completes them" if done else ""
        raise HistoryError(f"{public(uri)}: {_reason(error)}{kept}") from error
    return Exported(
        new=sum(d.state == "new" for d in done),
        completed=sum(d.state == "completed" for d in done),
        known=sum(d.state == "known" for d in done),
        unmeasured=sum(d.unmeasured for d in done),
        unread=len(server.unread),
        experiments=tuple(by_experiment),
        notes=tuple(server.notes),
    )


def contents_of(history: str) -> ContentOf:
    """Of the result files of a history, a folder or an address."""
    folder = local_path(history)
    files: Files = RemoteFiles(history) if folder is None else LocalFiles(folder)
    return lambda sha256: files.read(f"results/{sha256[:2]}/{sha256}.json")


@dataclass(frozen=True)
class _Done:
    state: str
    unmeasured: int = 0


class _Server:
    """A tracking server and what it has turned out not to take. notes: what is to be said at the end, each once.
    unread: results whose files cannot be read."""

    def __init__(self, client: Any, uri: str, content_of: ContentOf, per_class: bool) -> None:
        self._client, self._uri, self._content_of, self._per_class = client, uri, content_of, per_class
        self._no_artifacts: str | None = None
        self.notes: dict[str, None] = {}
        self.unread: set[str] = set()

    def export(self, name: str, entries: Sequence[Entry]) -> Iterator[_Done]:
        """As each is done, in any order."""
        experiment = self._experiment(name)
        there = self._runs(experiment, entries)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            jobs = [pool.submit(self._one, experiment, entry, there.get(entry.sha256)) for entry in entries]
            try:
                for job in jobs:
                    yield job.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _experiment(self, name: str) -> str:
        """Its id. Raises HistoryError."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                identity = self._client.create_experiment(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                identity = self._client.get_experiment_by_name(name).experiment_id  # made by another export meanwhile
            if not identity:
                raise HistoryError(f"{public(self._uri)}: {_NO_MLFLOW}")
            return str(identity)
        if not found.experiment_id:
            raise HistoryError(f"{public(self._uri)}: {_NO_MLFLOW}")
        if found.lifecycle_stage != "active":
            raise HistoryError(
                f"{public(self._uri)}: the experiment {shown(name)!r} has been deleted there; restore it (mlflow experiments restore "
                f"--experiment-id {found.experiment_id}), or name another with --experiment"
            )
        return str(found.experiment_id)

    def _runs(self, experiment: str, entries: Sequence[Entry]) -> dict[str, Any]:
        """Result -> its run, of those that are there already."""
        few = len(entries) <= ONE_BY_ONE
        filters = [f"tags.`{RESULT_TAG}` = '{e.sha256}'" for e in entries] if few else [f"tags.`{RESULT_TAG}` != ''"]
        found: dict[str, Any] = {}
        for text in filters:
            for run in _pages(self._client, experiment, text):
                result = run.data.tags[RESULT_TAG]
                if result not in found or run.info.status != "RUNNING":  # of two a whole one
                    found[result] = run
        return found

    def _one(self, experiment: str, entry: Entry, there: Any) -> _Done:
        if there is not None and there.info.status != "RUNNING":
            if ARTIFACT_TAG in there.data.tags and self._no_artifacts is None:
                self._attach(there, self._content(entry)[0])
            return _Done("known")
        content, result = self._content(entry)
        run = run_of(entry, result, per_class=self._per_class)
        written = there if there is not None else self._create(experiment, run)
        self._log(written.info.run_id, run)
        self._attach(written, content)
        self._client.set_terminated(written.info.run_id, run.status, run.finished)
        return _Done("new" if there is None else "completed", len(run.unmeasured))

    def _create(self, experiment: str, run: MlflowRun) -> Any:
        written = self._client.create_run(experiment, start_time=run.started, tags=run.tags, run_name=run.name)
        if not written.info.run_id:
            raise HistoryError(f"{public(self._uri)}: {_NO_MLFLOW}")
        return written

    def _log(self, run_id: str, run: MlflowRun) -> None:
        from mlflow.entities import Metric, Param

        parameters = [Param(key, value) for key, value in run.parameters.items()]
        metrics = [Metric(key, value, run.finished, 0) for key, value in run.metrics.items()]
        for start in range(0, max(len(parameters), 1), _PARAMETERS):
            first = metrics[:_METRICS] if start == 0 else []
            self._client.log_batch(run_id, metrics=first, params=parameters[start : start + _PARAMETERS], synchronous=True)
        for start in range(_METRICS, len(metrics), _METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + _METRICS], synchronous=True)

    def _content(self, entry: Entry) -> tuple[bytes | None, RunResult | None]:
        try:
            content = self._content_of(entry.sha256)
            return content, RunResult.from_json(json.loads(content), Path(ARTIFACT))
        except (M2FBenchError, ValueError) as error:
            self.unread.add(entry.sha256)
            self.notes[f"{entry.cell}, {entry.sha256[:12]}: its file cannot be read and is not attached ({shown(error)})"] = None
            return None, None

    def _attach(self, run: Any, content: bytes | None) -> None:
        """The result file, where the server takes files; where it does not, a tag says so, and a later export tries again."""
        reason: str | None = None
        if content is None:
            reason = "the result file cannot be read"
        elif reason := self._no_artifacts or self._refused(run.info.artifact_uri):
            self._no_artifacts = reason
        else:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / ARTIFACT
                    path.write_bytes(content)
                    self._client.log_artifact(run.info.run_id, str(path))
            except Exception as error:
                if _unreachable(error):
                    raise
                self._no_artifacts = reason = _reason(error)
        if reason and content is not None:
            self.notes[f"result files are not attached: {self._no_artifacts}"] = None
        if reason:
            self._client.set_tag(run.info.run_id, ARTIFACT_TAG, f"missing: {reason}")
        elif ARTIFACT_TAG in run.data.tags:
            self._client.delete_tag(run.info.run_id, ARTIFACT_TAG)

    def _refused(self, artifacts: str) -> str | None:
        """A server's own folder is none of this machine."""
        remote = urlsplit(self._uri).scheme in ("http", "https")
        if remote and urlsplit(artifacts).scheme in ("", "file"):
            return "it keeps them in a folder of its own machine (start it with --serve-artifacts)"
        return None


def _pages(client: Any, experiment: str, text: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], filter_string=text, max_results=1000, page_token=token)
        yield from page
        if not (token := page.token):
            return


def _client(uri: str) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    for name, value in {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": SECONDS,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": RETRIES,
        "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    }.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from mlflow import MlflowClient
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == "mlflow"
        found = "is not installed" if missing else f"cannot be imported ({shown(error)})"
        raise ExtraError(f"an MLflow server needs mlflow, which {found}; pip install 'm2fbench[mlflow]'") from error
    try:
        return MlflowClient(tracking_uri=uri)
    except Exception as error:  # an address that it cannot make anything of
        raise HistoryError(f"{public(uri)}: {_reason(error)}; expected an address such as http://HOST:5000") from error


@contextlib.contextmanager
def _fail_fast() -> Iterator[None]:
    names = {"MLFLOW_HTTP_REQUEST_TIMEOUT": FIRST_SECONDS, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": FIRST_RETRIES}
    before = {name: os.environ[name] for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        os.environ.update(before)


def _chain(error: BaseException | None) -> Iterable[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _unreachable(error: Exception) -> bool:
    return any(isinstance(e, ConnectionError | TimeoutError) or type(e).__module__.startswith("urllib3") for e in _chain(error))


def _reason(error: Exception) -> str:
    """One line: what is wrong, and what to do."""
    text = without_password(" ".join(str(error).split()))
    code = str(getattr(error, "error_code", ""))
    if isinstance(error, ImportError) or re.search(r"No module named|unsupported URI", text):
        return "mlflow as it is installed opens no such address (a database needs all of it: pip install mlflow)"
    if code in ("UNAUTHENTICATED", "PERMISSION_DENIED") or re.search(r"error code 40[13]", text):
        return (
            f"refuses ({shown(text)}); set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN, to "
            "someone who may write there"
        )
    if "valid JSON" in text or re.search(r"failed with error code (404|405|501)", text):
        return _NO_MLFLOW
    if failing := re.search(r"too many (5\d\d) error responses", text):
        return f"fails with error code {failing[1]} each time; look into the server's log"
    for pattern, what in (
        (r"timed? ?out", "does not answer in time"),
        (r"refused", "nothing listens there"),
        (r"resolve|not known|getaddrinfo", "there is no such host"),
        (r"certificate|SSL", f"no trusted connection ({shown(text[-200:], 200)})"),
    ):
        if _unreachable(error) and re.search(pattern, text, re.IGNORECASE):
            return f"{what}; is the server up, and the address right?"
    return shown(text or type(error).__name__, 300)
