"""The command line as a user meets it: exit statuses, one line for what can be mended, quick start-up, and the documents."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from conftest import ROOT

import m2fbench
from m2fbench.analysis.regressions import Rules
from m2fbench.cli import app
from m2fbench.nightly.config import NightlyConfig

README = (ROOT / "README.md").read_text()
COMMANDS = sorted(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
HEAVY = ("torch", "transformers", "hotcoco", "pycocotools", "pandas", "huggingface_hub")


def test_version(cli: Any) -> None:
    outcome = cli("--version")
    assert re.fullmatch(r"m2fbench \d+\.\d+\.\d+\n", outcome.stdout)
    assert outcome.returncode == 0


@pytest.mark.parametrize("arguments", [["--help"], ["validate", "coco_instance"], ["list", "suites"], ["schema"]], ids=" ".join)
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
import sys
sys.argv = ["m2fbench"] + {arguments!r}
from m2fbench.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)
"""
    outcome = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    allowed = "[]" if "validate" not in arguments and "list" not in arguments and "schema" not in arguments else "['hotcoco']"
    assert outcome.stderr.strip() in ("[]", allowed), outcome.stderr


def test_every_command_is_documented_and_helps(cli: Any) -> None:
    for name in COMMANDS:
        assert f"`m2fbench {name}" in README, f"the README does not name the command {name}"
        outcome = cli(name, "--help")
        assert outcome.returncode == 0
        assert len(outcome.stdout) > 100
    for name in re.findall(r"(?:`|&& |^)m2fbench ([a-z]+)", README, re.MULTILINE):
        assert name in COMMANDS, f"the README names a command {name}"


def test_every_option_of_run_is_documented() -> None:
    command = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    for option in (o for p in command.params for o in p.opts if o.startswith("--")):
        assert f"`{option}" in README, f"the README does not name {option}"


def test_ci_runs_the_readmes_test_command() -> None:
    command = re.search(r"Run the tests:\n\n```sh\n(.*)\n```", README)
    assert command
    install, _, run = command[1].rpartition(" && ")
    script = (ROOT / ".ci/run").read_text().splitlines()
    assert install in script
    assert script[-1] == run == "pytest"


def test_the_readmes_nightly_suite_and_python_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly, suite = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    config = NightlyConfig.model_validate(yaml.safe_load(nightly))
    assert config.rules.rules == Rules()  # what the README says of the rules are the defaults
    path = tmp_path / "example.yaml"
    path.write_text(suite)
    monkeypatch.setenv("PRODUCTS", "/data")
    assert len(m2fbench.load_suite(path).variants) == 4
    python = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert python
    monkeypatch.chdir(tmp_path)
    exec(python[1].replace("dataset.count=20", "dataset.count=3"), {})
    assert list((tmp_path / "runs-20").rglob("result.json"))


def test_public_api() -> None:
    assert m2fbench.__all__ == ["M2FBenchError", "RunResult", "Suite", "load_suite", "read_result", "run", "score"]
    for name in m2fbench.__all__:
        item = getattr(m2fbench, name)
        assert item.__doc__, name
        assert f"`{name}`" in README, f"the README does not name {name}"
    with pytest.raises(AttributeError):
        m2fbench.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nothing"], "nothing: no such file, and no suite of that name"),
        (["run", "coco_instance", "--data", "/nowhere"], "dataset coco_instance is not here: looked for /nowhere/annotations"),
        (["run", "shapes_instance", "--checkpoint", "/nowhere/model"], "/nowhere/model: no such folder"),
        (["run", "shapes_instance", "--set", "task=panoptics"], "task: expected 'instance', 'panoptic' or 'semantic'"),
        (["run", "shapes_instance", "--only", "none"], "--only none: expected one of shapes-tiny"),
        (["run", "shapes_instance", "--device", "cuda"], "torch sees no CUDA device"),
        (["validate", "/nowhere.yaml"], "/nowhere.yaml: no such file"),
        (["score", "shapes_instance", "--set", "dataset.count=2", "--predictions", "/nowhere.json"], "/nowhere.json: cannot be read"),
        (["run", "shapes_instance", "--limit", "0"], "--limit"),
        (["run"], "Missing argument 'suite'"),
        (["walk"], "No such command 'walk'"),
        (["run", "shapes_instance", "--lmit", "3"], "No such option"),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_one_line_and_status_2(arguments: list[str], message: str, cli: Any, tmp_path: Path) -> None:
    import torch

    if "cuda" in arguments and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    outcome = cli(*arguments, cwd=tmp_path)
    assert outcome.returncode == 2
    (line,) = outcome.stderr.strip().splitlines()
    assert line.startswith("m2fbench: error: ")
    assert message in line


@pytest.mark.full
def test_exit_status_follows_the_tolerance(shapes_suite: Callable[..., Path], tmp_path: Path, cli: Any) -> None:
    suite = shapes_suite(2)
    text = suite.read_text()
    for published, status in ((0.0, 0), (99.0, 1)):
        suite.write_text(text.replace("}]", f", published: {{AP: {published}}}, source: test}}]") + "tolerance: {AP: 50.0}\n")
        outcome = cli("run", suite, "--output", tmp_path / "runs", "--per-class")
        assert outcome.returncode == status, outcome.stderr
        assert "published" in outcome.stdout
        assert "difference" in outcome.stdout
        assert "result.json" in outcome.stdout
        assert "triangle" in outcome.stdout
    assert "outside the suite's tolerance: tiny AP" in outcome.stderr
    limited = cli("run", suite, "--output", tmp_path / "runs", "--limit", 1)
    assert limited.returncode == 0
    assert "partial, not comparable (1 of 2 images)" in limited.stdout


def test_a_bug_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from m2fbench import cli as module
    from m2fbench import suite as suites

    def broken(*_: object) -> None:
        raise KeyError("oops")

    monkeypatch.setattr(suites, "load_suite", broken)
    monkeypatch.setattr(sys, "argv", ["m2fbench", "validate", "x"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 70
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "this is a bug of m2fbench" in error


def test_a_failed_verification_is_status_70(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shapes_suite: Callable[..., Path]
) -> None:
    from m2fbench import cli as module
    from m2fbench.metrics.coco_ap import CocoAP

    monkeypatch.setattr(CocoAP, "verify", lambda *_: 1e-6)
    monkeypatch.setattr(sys, "argv", ["m2fbench", "run", str(shapes_suite(1)), "--output", str(tmp_path / "runs"), "--verify"])
    with pytest.raises(SystemExit) as stop:
        module.main()
    assert stop.value.code == 70


@pytest.mark.full
def test_a_reader_that_goes_away_does_not_end_the_run(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    command = f"{sys.executable} -m m2fbench run {shapes_suite(2)} --output {tmp_path}/runs | true; echo ${{PIPESTATUS[0]}}"
    outcome = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert outcome.stdout.strip() == "0", outcome.stderr
    assert list((tmp_path / "runs").rglob("result.json"))


@pytest.mark.full
def test_ctrl_c_keeps_what_is_done(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    import signal
    import time

    command = [sys.executable, "-m", "m2fbench", "run", str(shapes_suite(200)), "--output", str(tmp_path / "runs")]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs have ignored
    )  # fmt: skip
    journal = tmp_path / "runs/test_shapes/tiny/default/journal.jsonl"
    while process.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.strip().splitlines()[-1] == "m2fbench: interrupted; what was finished is kept: the same command resumes"
    assert "Traceback" not in error


@pytest.mark.full
def test_lists_and_doctor(cli: Any, tmp_path: Path) -> None:
    assert "coco_instance" in cli("list", "suites").stdout
    assert "shapes" in cli("list", "datasets").stdout
    assert "AP50" in cli("list", "metrics").stdout
    lines = cli("list", "checkpoints").stdout.splitlines()
    assert lines[0].split()[:2] == ["bundled:shapes_tiny", "shapes_instance,"]
    assert len({line.split()[0] for line in lines}) == len(lines), "one line a checkpoint"
    assert "zoo:coco/panoptic/Swin-L-IN21k" in {line.split()[0] for line in lines}
    rows = cli("list", "checkpoints", "--rows").stdout
    assert "coco_instance/swin-t, coco_instance_protocols/swin-t" in rows
    assert "none: no checkpoint published" in rows
    outcome = cli("doctor", "--data", tmp_path)
    assert outcome.returncode == 0
    for text in (
        "torch",
        "accelerator",
        "dataset coco_instance",
        "download val2017.zip",
        "dataset shapes",
        "built in",
        "shapes_tiny",
    ):
        assert text in outcome.stdout, text


@pytest.mark.full
def test_doctor_finds_a_dataset(cli: Any, tmp_path: Path) -> None:
    folder = tmp_path / "coco/annotations"
    folder.mkdir(parents=True)
    images = [{"id": k, "file_name": f"{k}.jpg", "height": 2, "width": 2} for k in (1, 2)]
    (folder / "instances_val2017.json").write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    assert "2 of 2 images are missing" in cli("doctor", "--data", tmp_path).stdout


@pytest.mark.full
def test_an_installed_wheel_carries_suites_and_checkpoint(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "site"), str(wheel)],
        check=True, capture_output=True,
    )  # fmt: skip
    script = (
        "import m2fbench, sys; assert 'site' in m2fbench.__file__, m2fbench.__file__\n"
        "(r,) = m2fbench.run('shapes_instance', limit=2, output='runs'); print(r.status, r.path)\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin"}
    outcome = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert outcome.stdout.startswith("partial runs/shapes_instance/shapes-tiny"), outcome.stderr
    assert wheel.stat().st_size < 10_000_000
