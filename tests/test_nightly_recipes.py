"""The recipes for a nightly: the workflow is what GitHub takes and its steps do what they say, the units and the cron line work."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from m2fbench.nightly.config import NightlyConfig
from m2fbench.nightly.loading import load_nightly

RECIPES = ROOT / "scripts" / "nightly"
WORKFLOW = RECIPES / "github-workflow.yml"
FOLDER = "scripts/nightly"
Call = Callable[..., subprocess.CompletedProcess[str]]

STAND_IN = """#!/usr/bin/env bash
# m2fbench nightly CONFIG --night NIGHT [--history H]: leaves what a night leaves, and ends with $STATUS
printf '%s\\n' "$*" >> "$CALLS"
[ -z "$DIES" ] || kill -9 $PPID
while [ -n "$WAITS" ] && [ ! -e "$CALLS.go" ]; do /bin/sleep 0.05; done
folder=$(dirname "$2")
mkdir -p "$folder/history/results/ab" "$folder/nights/$4"
echo '{}' > "$folder/history/results/ab/$RESULT.json"
echo binary > "$folder/history/index.sqlite"
echo '<testsuites/>' > "$folder/nights/$4/junit.xml"
[ "$STATUS" = 2 ] || { mkdir -p "$folder/dashboard"; echo site > "$folder/dashboard/index.html"; }
exit $STATUS
"""


@dataclass
class Job:
    """What came of a job's steps. outcomes: by the step's name or what it uses. summary: the job's."""

    outcomes: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, dict[str, str]] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    text: str = ""

    @property
    def failed(self) -> bool:
        return "failure" in self.outcomes.values()


def run_job(checkout: Path, environment: Mapping[str, str], **env: str) -> Job:
    """The steps of the workflow's first job one after another, as GitHub's runner does it: those that are actions are noted and skipped."""
    document = yaml.safe_load(WORKFLOW.read_text())
    context = {**document["env"], **env}
    job = Job()
    for step in document["jobs"]["night"]["steps"]:
        name = step.get("name") or step["uses"].partition("@")[0]
        if not wanted(step.get("if", ""), job, context):
            job.outcomes[name] = "skipped"
        elif "uses" in step:
            job.outcomes[name] = "success"
            if path := step.get("with", {}).get("path"):
                job.paths[name] = filled(path, job, context)
        else:
            job.outcomes[name], outputs = run_step(step, job, checkout, {**environment, **context}, context)
            job.outputs[step.get("id", name)] = outputs
        job.outputs.setdefault(step.get("id", name), {})["outcome"] = job.outcomes[name]
    return job


def run_step(
    step: Any, job: Job, checkout: Path, environment: Mapping[str, str], context: Mapping[str, str]
) -> tuple[str, dict[str, str]]:
    output = checkout.parent / "github-output"
    output.write_text("")
    script = checkout.parent / "step.sh"
    script.write_text(filled(step["run"], job, context))
    own = {key: filled(str(value), job, context) for key, value in step.get("env", {}).items()}
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)], cwd=checkout, capture_output=True, text=True, timeout=120,
        env={**environment, **own, "GITHUB_OUTPUT": str(output), "GITHUB_RUN_ID": "77", "GITHUB_STEP_SUMMARY": str(checkout.parent / "summary.md")},
    )  # fmt: skip
    job.text += done.stdout + done.stderr
    outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
    return ("failure" if done.returncode else "success"), outputs


def value_of(expression: str, job: Job, context: Mapping[str, str]) -> str:
    """Of ``env.X``, ``github.run_id``, ``steps.ID.outputs.X``, ``steps.ID.outcome``."""
    parts = expression.split(".")
    if parts[0] == "env":
        return context[parts[1]]
    if parts[0] == "github":
        return {"run_id": "77", "run_attempt": "1"}[parts[1]]
    assert parts[0] == "steps", expression
    return job.outputs.get(parts[1], {}).get(parts[-1], "")


def filled(text: str, job: Job, context: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{ *(.+?) *\}\}", lambda match: value_of(match[1], job, context), text)


def wanted(condition: str, job: Job, context: Mapping[str, str]) -> bool:
    terms = [term.strip() for term in condition.split("&&") if term.strip()]
    if "always()" not in terms and job.failed:
        return False
    for term in terms:
        if term == "always()":
            continue
        match = re.fullmatch(r"(\S+) (==|!=) '(.*)'", term)
        assert match is not None, term
        if (value_of(match[1], job, context) == match[3]) != (match[2] == "=="):
            return False
    return True


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clone whose origin is a bare repository beside it, with the configuration in it."""
    git(tmp_path, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    return clone(tmp_path, "work")


def clone(folder: Path, name: str) -> Path:
    git(folder, "clone", "--quiet", "origin.git", f"{name}/checkout")
    place = folder / name / "checkout"
    if not (place / FOLDER).exists():
        (place / FOLDER).mkdir(parents=True)
        shutil.copy(RECIPES / "nightly.yaml", place / FOLDER)
        git(place, "add", "--all")
        git(place, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "--message", "begun")
        git(place, "push", "--quiet", "origin", "HEAD:main")
    return place


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def environment(folder: Path, status: int, result: str, **more: str) -> dict[str, str]:
    """With stand-ins for ``m2fbench`` and ``pip``."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name, text in {"m2fbench": STAND_IN, "pip": "#!/bin/sh\nexit 0\n", "sleep": "#!/bin/sh\nexit 0\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    return {
        "PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(folder), "STATUS": str(status), "RESULT": result, "DIES": "", "WAITS": "",
        "CALLS": str(folder / "calls"), "GIT_CONFIG_GLOBAL": "/dev/null", **more,
    }  # fmt: skip


def kept(folder: Path) -> list[str]:
    """Files of the history's branch at the origin."""
    return git(folder / "origin.git", "ls-tree", "-r", "--name-only", "m2fbench-history").split()


def test_the_workflow_is_valid_for_github() -> None:
    done = subprocess.run(
        ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_workflow_asks_for_no_more_than_it_needs() -> None:
    document = yaml.safe_load(WORKFLOW.read_text())
    jobs = document["jobs"]
    assert document["permissions"] == {}
    assert document["concurrency"]["cancel-in-progress"] is False
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "night": {"contents": "write"}, "publish": {"pages": "write", "id-token": "write"},
    }  # fmt: skip
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+(/[a-z]+)?@v\d+", each) for each in used)
    budget = load_nightly(RECIPES / "nightly.yaml").config.budget
    assert budget.minutes is not None
    assert budget.minutes + 15 <= jobs["night"]["timeout-minutes"]
    assert "!cancelled()" in jobs["publish"]["if"]  # published though the night failed


@pytest.mark.parametrize(
    ("status", "outcome", "said"),
    [
        (0, "success", ""),
        (1, "failure", "a regression"),
        (3, "failure", "could not be measured"),
        (2, "failure", "ended with status 2"),
    ],
)
def test_whatever_a_night_says_is_kept_shown_and_passed_on(checkout: Path, status: int, outcome: str, said: str) -> None:
    job = run_job(checkout, environment(checkout.parent, status, f"night{status}"))
    rest = {name: state for name, state in job.outcomes.items() if name != "Verdict"}
    there = status != 2
    assert set(rest.items()) - {("Upload the dashboard", "skipped")} == {
        (name, "success") for name in rest if name != "Upload the dashboard" or there
    }
    assert job.outcomes["Verdict"] == outcome
    assert said in job.text
    assert job.outputs["night"]["status"] == str(status)
    assert job.outputs["site"].get("there", "") == ("yes" if there else "")
    assert kept(checkout.parent.parent) == [".gitignore", f"results/ab/night{status}.json"]  # no index
    assert (checkout.parent / "calls").read_text() == f"nightly {FOLDER}/nightly.yaml --night ci-77\n"
    for path in job.paths.values():
        for line in path.splitlines():
            assert line.startswith(("!", FOLDER)), line
    assert (checkout / job.paths["Upload the JUnit report"]).exists()
    assert git(checkout, "status", "--porcelain") == ""  # results name the commit, and whether it was changed


@pytest.mark.full
def test_the_next_night_has_the_history_and_two_at_once_lose_nothing(checkout: Path) -> None:
    folder = checkout.parent.parent
    first = run_job(checkout, environment(checkout.parent, 0, "one"))
    assert not first.failed
    slow, quick = clone(folder, "slow"), clone(folder, "quick")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_job, slow, environment(slow.parent, 0, "two", WAITS="yes"))
        while not (slow.parent / "calls").exists() and not running.done():
            time.sleep(0.05)
        second = run_job(quick, environment(quick.parent, 0, "three"))  # while the slow night runs
        (slow.parent / "calls.go").touch()
        third = running.result()
    assert not second.failed, second.text
    assert not third.failed, third.text
    assert kept(folder) == [".gitignore", *(f"results/ab/{name}.json" for name in ("one", "three", "two"))]
    assert (slow / FOLDER / "history" / "results" / "ab" / "one.json").exists()


@pytest.mark.full
def test_one_file_that_two_nights_wrote_loses_neither(checkout: Path) -> None:
    """A problem of one name, seen by two machines."""
    folder = checkout.parent.parent
    assert not run_job(checkout, environment(checkout.parent, 0, "one")).failed
    slow, quick = clone(folder, "slow"), clone(folder, "quick")
    both = {name: environment(place.parent, 0, name) for name, place in (("slow", slow), ("quick", quick))}
    for name, variables in both.items():
        program = Path(variables["PATH"].split(":")[0]) / "m2fbench"
        also = f"mkdir -p {FOLDER}/history/problems; echo {name} > {FOLDER}/history/problems/a.json\nexit"
        program.write_text(STAND_IN.replace("exit", also))
    both["slow"]["WAITS"] = "yes"
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_job, slow, both["slow"])
        while not (slow.parent / "calls").exists() and not running.done():
            time.sleep(0.05)
        assert not run_job(quick, both["quick"]).failed
        (slow.parent / "calls.go").touch()
        done = running.result()
    assert not done.failed, done.text
    assert [f"results/ab/{name}.json" in kept(folder) for name in ("one", "quick", "slow")] == [True] * 3


def test_no_night_without_its_history(checkout: Path) -> None:
    git(checkout, "remote", "set-url", "origin", str(checkout.parent / "gone.git"))
    job = run_job(checkout, environment(checkout.parent, 0, "one"))
    assert job.outcomes["Fetch the history"] == "failure"
    assert job.outcomes["Night"] == job.outcomes["Keep the history"] == job.outcomes["Keep the last nights"] == "skipped"
    assert job.outcomes["Verdict"] == "failure"
    assert "the history cannot be asked for" in job.text
    assert not (checkout.parent / "calls").exists()


def test_a_killed_night_keeps_what_there_is_and_fails(checkout: Path) -> None:
    job = run_job(checkout, environment(checkout.parent, 0, "one", DIES="yes"))
    assert {name for name, state in job.outcomes.items() if state == "failure"} == {"Night", "Verdict"}
    assert job.outcomes["Keep the history"] == job.outcomes["Upload the night"] == "success"
    assert "the night was not run to its end" in job.text


def test_with_an_address_no_branch_is_used(checkout: Path) -> None:
    job = run_job(checkout, environment(checkout.parent, 0, "one"), HISTORY="s3://bucket/m2fbench")
    assert job.outcomes["Fetch the history"] == job.outcomes["Keep the history"] == "skipped"
    assert job.outcomes["Verdict"] == "success"
    assert (
        checkout.parent / "calls"
    ).read_text() == f"nightly {FOLDER}/nightly.yaml --night ci-77 --history s3://bucket/m2fbench\n"
    assert "m2fbench-history" not in git(checkout, "ls-remote", "origin")


def test_the_example_is_a_nightly() -> None:
    loaded = load_nightly(RECIPES / "nightly.yaml")
    assert isinstance(loaded.config, NightlyConfig)
    assert {cell.cell.suite for cell in loaded.cells} == {"shapes_report"}


@pytest.mark.full
def test_the_example_can_be_run(cli: Call, tmp_path: Path) -> None:
    done = cli("nightly", RECIPES / "nightly.yaml", "--dry-run", "--history", tmp_path / "history", "-o", tmp_path / "nights")
    assert done.returncode == 0, done.stderr
    assert "shapes_report/shapes-tiny/bf16" in done.stdout


def installed(tmp_path: Path, name: str) -> Path:
    """A recipe with its placeholder replaced by a folder where m2fbench is."""
    home = tmp_path / "srv"
    program = home / ".venv" / "bin" / "m2fbench"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text('#!/bin/sh\necho "$@" >> calls\necho last words\n[ ! -e slow ] || sleep 30\nexit $(cat status)\n')
    program.chmod(0o755)
    (tmp_path / name).write_text((RECIPES / name).read_text().replace("/srv/m2fbench", str(home)))
    return tmp_path / name


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_units_are_valid_for_systemd(tmp_path: Path) -> None:
    units = [installed(tmp_path, f"m2fbench-nightly.{kind}") for kind in ("service", "timer")]
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *map(str, units)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    calendar = re.search(r"OnCalendar=(.*)", units[1].read_text())
    assert calendar is not None
    assert subprocess.run(["systemd-analyze", "calendar", calendar[1]], capture_output=True, timeout=60).returncode == 0


def test_a_regression_fails_the_unit_and_want_of_memory_does_not_end_the_night() -> None:
    text = (RECIPES / "m2fbench-nightly.service").read_text()
    active = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    assert active["OOMPolicy"] == "continue"
    assert active["Type"] == "oneshot"
    assert "SuccessExitStatus" not in active


def cron_line(path: Path) -> tuple[list[str], str, dict[str, str]]:
    """(five fields, command, variables) of a crontab with one line."""
    lines = [line for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    (line,) = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    *fields, command = line.split(None, 5)
    return fields, command, variables


@pytest.mark.parametrize(("status", "mailed"), [(0, False), (1, True), (3, True)])
def test_the_cron_line_runs_and_mails_where_something_is_wrong(tmp_path: Path, status: int, mailed: bool) -> None:
    fields, command, variables = cron_line(installed(tmp_path, "crontab"))
    assert all(re.fullmatch(r"[\d*,/-]+", each) for each in fields)
    assert "%" not in command  # cron makes line breaks of them
    assert set(variables) == {"MAILTO", "SHELL", "PATH"}
    home = tmp_path / "srv"
    (home / "status").write_text(str(status))
    done = subprocess.run(
        [variables["SHELL"], "-c", command], env={"PATH": variables["PATH"]}, cwd="/", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == status
    assert (home / "calls").read_text() == "nightly nightly.yaml\n"
    assert (home / "nightly.log").read_text() == "last words\n"
    assert done.stdout == (f"m2fbench nightly: exit status {status}\nlast words\n" if mailed else "")
    assert done.stderr == ""


def test_the_cron_line_leaves_a_night_that_still_runs_alone(tmp_path: Path) -> None:
    _, command, variables = cron_line(installed(tmp_path, "crontab"))
    home = tmp_path / "srv"
    (home / "status").write_text("0")
    with subprocess.Popen(
        ["flock", "nightly.lock", "sh", "-c", "echo held; exec cat"], cwd=home, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        done = subprocess.run(
            [variables["SHELL"], "-c", command], env={"PATH": variables["PATH"]}, capture_output=True, text=True, timeout=60
        )
        assert holder.stdin is not None
        holder.stdin.close()
    assert done.returncode == 75
    assert "exit status 75" in done.stdout
    assert not (home / "calls").exists()
