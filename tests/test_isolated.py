"""Commands in processes of their own: whatever they do, they end, nothing of them stays, and the reason is known."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from m2fbench.errors import StoreError
from m2fbench.nightly import isolated
from m2fbench.nightly.endings import meaning
from m2fbench.nightly.isolated import Ended, Limits, run_isolated
from m2fbench.nightly.processes import MemoryWatch, descendants

pytestmark = pytest.mark.full


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-S", "-c", textwrap.dedent(code), *map(str, arguments)]


def alive(pid: int) -> bool:
    """A zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False


def gone(pids: list[int], within: float = 10.0) -> bool:
    deadline = time.monotonic() + within
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not any(map(alive, pids))


def pids_in(path: Path, count: int, within: float = 20.0) -> list[int]:
    """The process ids that a command wrote into a file, a line each."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if len(lines := path.read_text().splitlines()) >= count:
                return [int(line) for line in lines]
        time.sleep(0.02)
    raise AssertionError(f"{path}: fewer than {count} processes")


FAMILY = """
    import os, signal, sys, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    def note():
        with open(sys.argv[1], "a") as file:
            file.write(f"{os.getpid()}\\n")
    note()
    if os.fork() == 0:          # a child in a session of its own, and a child of that, which both stay
        os.setsid()
        if os.fork() == 0:
            note()
            time.sleep(600)
        note()
        time.sleep(600)
    EVERYBODY_THERE
"""


def test_output_exit_status_and_no_input(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "one.log"
    code = (
        "import os, sys; print(os.getcwd(), os.environ['NAME'], repr(sys.stdin.read())); print('no', file=sys.stderr); sys.exit(3)"
    )
    ended = run_isolated(python(code), log, Limits(60), folder=tmp_path, environment={**os.environ, "NAME": "value"})
    assert (ended.how, ended.exit_status, ended.oom_killed) == ("exited", 3, False)
    assert sorted(log.read_text().splitlines()) == sorted([f"{tmp_path} value ''", "no"])
    run_isolated(python("print('again')"), log, Limits(60))
    assert log.read_text().endswith("again\n"), "an earlier attempt's output stays"
    assert log.read_text().startswith((str(tmp_path), "no"))


def test_a_crash_has_its_signal(tmp_path: Path) -> None:
    ended = run_isolated(python("import os; os.abort()"), tmp_path / "log", Limits(60))
    assert (ended.how, ended.exit_status) == ("exited", -signal.SIGABRT)
    state, reason = meaning(ended, "about to abort\n", 1, None)
    assert state == "failed"
    assert reason == "killed by signal 6 (SIGABRT); its last line: about to abort"


def test_a_command_that_does_not_exist(tmp_path: Path) -> None:
    ended = run_isolated([str(tmp_path / "nothing")], tmp_path / "log", Limits(60))
    assert ended.exit_status == 127
    assert "cannot be started: No such file or directory" in (tmp_path / "log").read_text()


def test_one_that_hangs_and_ignores_being_asked_is_killed_with_all_its_descendants(tmp_path: Path) -> None:
    code = FAMILY.replace("EVERYBODY_THERE", "time.sleep(600)")
    started = time.monotonic()
    ended = run_isolated(python(code, tmp_path / "pids"), tmp_path / "log", Limits(1.5, grace=0.5))
    assert ended.how == "timeout"
    assert ended.exit_status == -signal.SIGKILL
    assert time.monotonic() - started < 60
    assert gone(pids_in(tmp_path / "pids", 3), within=0.5), "all are gone when it returns"
    assert meaning(ended, "image 5 of 9\n", 0.025, None) == (
        "timeout",
        "ended after its limit of 0.025 min; its last line: image 5 of 9",
    )


def test_one_that_can_be_asked_ends_as_it_likes(tmp_path: Path) -> None:
    code = """
        import signal, sys, time
        def end(*_):
            print("tidied up")
            sys.exit(5)
        signal.signal(signal.SIGTERM, end)
        time.sleep(600)
    """
    ended = run_isolated(python(code), tmp_path / "log", Limits(1.0, grace=30))
    assert (ended.how, ended.exit_status) == ("timeout", 5)
    assert "tidied up" in (tmp_path / "log").read_text()


def test_what_a_command_leaves_behind_is_ended(tmp_path: Path) -> None:
    code = FAMILY.replace(
        "EVERYBODY_THERE", "\n    while open(sys.argv[1]).read().count('\\n') < 3: time.sleep(0.02)\n    sys.exit(0)"
    )
    ended = run_isolated(python(code, tmp_path / "pids"), tmp_path / "log", Limits(60))
    assert (ended.how, ended.exit_status) == ("exited", 0)
    assert gone(pids_in(tmp_path / "pids", 3), within=0.5)


def test_memory_of_all_processes_together(tmp_path: Path) -> None:
    """Neither of the two takes more than the limit."""
    code = """
        import os, time
        os.fork()
        held = bytearray(os.urandom(1 << 20)) * 60
        time.sleep(600)
    """
    ended = run_isolated(python(code), tmp_path / "log", Limits(60, memory_bytes=100 * 2**20))
    assert ended.how == "memory"
    assert ended.peak_memory_bytes is not None
    assert 120 * 2**20 < ended.peak_memory_bytes < 200 * 2**20
    state, reason = meaning(ended, "", 1, 0.1)
    assert state == "memory"
    assert str(reason).endswith("GB of memory, more than its limit of 0.1 GB")


def test_a_shared_page_is_counted_once(tmp_path: Path) -> None:
    """As those of workers that are forked from a process which holds an image: four processes, each with the same 60 MiB."""
    code = """
        import os, time
        held = bytearray(os.urandom(1 << 20)) * 60
        os.fork(), os.fork()
        total = sum(held[::4096])
        time.sleep(2)
    """
    ended = run_isolated(python(code), tmp_path / "log", Limits(60, memory_bytes=160 * 2**20))
    assert (ended.how, ended.exit_status) == ("exited", 0)
    assert ended.peak_memory_bytes is not None
    assert 60 * 2**20 < ended.peak_memory_bytes < 130 * 2**20


def test_one_that_is_killed_from_outside(tmp_path: Path) -> None:
    code = "import os, time; print(os.getpid(), flush=True); os.kill(os.getpid(), 9)"
    ended = run_isolated(python(code), tmp_path / "log", Limits(60))
    assert ended.exit_status == -signal.SIGKILL
    state, reason = meaning(ended, "", 1, None)
    assert state == "failed"
    assert str(reason).startswith("killed by signal 9 (SIGKILL), which is what the system does when memory runs out")
    killed = Ended("exited", -signal.SIGKILL, 1.0, None, oom_killed=True)
    assert meaning(killed, "", 1, None) == ("memory", "killed by the system for want of memory")


def test_the_supervisor_killed_takes_the_command_with_it(tmp_path: Path) -> None:
    code = "import os, sys, time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(600)"

    def kill(seconds: float, peak: int | None) -> None:
        (command,) = pids_in(tmp_path / "pids", 1)
        parent = int(Path(f"/proc/{command}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)

    ended = run_isolated(python(code, tmp_path / "pids"), tmp_path / "log", Limits(60), tick=kill)
    assert (ended.how, ended.exit_status) == ("exited", -signal.SIGKILL)
    assert gone(pids_in(tmp_path / "pids", 1))


def test_interrupted_it_ends_the_command_first(tmp_path: Path) -> None:
    code = FAMILY.replace("EVERYBODY_THERE", "time.sleep(600)").replace("signal.signal(signal.SIGTERM, signal.SIG_IGN)", "")

    def interrupt(seconds: float, peak: int | None) -> None:
        pids_in(tmp_path / "pids", 3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated(python(code, tmp_path / "pids"), tmp_path / "log", Limits(60), tick=interrupt)
    assert gone(pids_in(tmp_path / "pids", 3), within=0.5)


def test_nothing_outlives_a_caller_that_is_killed(tmp_path: Path) -> None:
    inner = textwrap.dedent(FAMILY.replace("EVERYBODY_THERE", "time.sleep(600)"))
    outer = f"""
        import sys
        from pathlib import Path
        from m2fbench.nightly.isolated import Limits, run_isolated
        run_isolated([sys.executable, "-S", "-c", {inner!r}, {str(tmp_path / "pids")!r}], Path({str(tmp_path / "log")!r}), Limits())
    """
    caller = subprocess.Popen([sys.executable, "-c", textwrap.dedent(outer)], start_new_session=True)
    try:
        pids = pids_in(tmp_path / "pids", 3)
    finally:
        caller.kill()
        caller.wait()
    assert gone(pids)


def test_a_log_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolated, "LOG_LIMIT", 10**5)
    ended = run_isolated(python("while True: print('and on' * 100)"), tmp_path / "log", Limits(60, grace=5))
    assert ended.how == "output"
    assert meaning(ended, "and on\n", 1, None)[0] == "failed"


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        run_isolated(["true"], tmp_path / "log", Limits())


def test_descendants_and_no_memory_of_nobody() -> None:
    child = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"])
    try:
        assert child.pid in descendants(os.getpid())
    finally:
        child.kill()
        child.wait()
    assert child.pid not in descendants(os.getpid())
    assert MemoryWatch(child.pid).look() is None


@pytest.mark.parametrize(
    ("written", "status", "state", "reason"),
    [
        ("m2fbench: error: a.pkl: no such file; check the path\n", 2, "failed", "a.pkl: no such file; check the path"),
        ("x\nm2fbench: error: one\nm2fbench: error: two\n", 2, "failed", "one; two"),
        ("m2fbench: error: no variant can run here: tf32: no CUDA; choose others, or --device\n", 2, "unsupported", None),
        ("Traceback (most recent call last):\nKeyError: 'x'\nm2fbench: this is a bug of m2fbench\n", 70, "failed", "KeyError: 'x'"),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\nm2fbench: this is a bug\n", 70, "memory", None),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried\nm2fbench: x\n", 70, "memory", None),
        ("m2fbench: error: image 5: too large for memory (CUDA out of memory); skip it\n", 2, "memory", None),
        ("MemoryError\n", 1, "done", None),  # its results decide
        ("", 4, "failed", "ended with exit status 4 and said nothing"),
        ("/venv/bin/python: No module named m2fbench\n", 1, "failed", "/venv/bin/python: No module named m2fbench"),
        ("all well\n", 0, "done", None),
        ("outside the suite's tolerance: tiny AP\n", 1, "done", None),
        ("\x1b[31mred\x07\n", 3, "failed", "?[31mred?"),
    ],
)
def test_what_an_end_means(written: str, status: int, state: str, reason: str | None) -> None:
    found = meaning(Ended("exited", status, 1.0, None), written, 1, None)
    assert found[0] == state
    if reason is not None:
        assert found[1] == reason
    if state not in ("done",):
        assert found[1]
        assert "\n" not in found[1]
