"""``m2fbench show``: the picture, the line about it, and what is refused in one line."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

import m2fbench
from m2fbench.analysis.image_evidence import find_example
from m2fbench.analysis.runs import Run, open_runs
from m2fbench.cli import app
from m2fbench.errors import DatasetError, M2FBenchError, PredictionsError, StoreError
from m2fbench.reporting.images.sheets import Look
from m2fbench.reporting.images.showing import encoded, show_run
from m2fbench.suite import suite_folder
from m2fbench.types import Example

COUNT = 4

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> dict[str, Path]:
    """A run of each task over the same few scenes, the semantic one in two variants."""
    folder = tmp_path_factory.mktemp("show")
    found = {}
    for task in ("panoptic", "instance", "semantic"):
        suite = yaml.safe_load((suite_folder() / f"shapes_{task}.yaml").read_text())
        suite.pop("tolerance", None)
        suite["checkpoints"][0].pop("published", None)
        suite["checkpoints"][0].pop("published_variants", None)
        dataset = {"name": "shapes", "count": COUNT}
        variants = [{"name": "a"}, {"name": "b"}] if task == "semantic" else [{"name": "default"}]
        path = folder / f"{task}.yaml"
        path.write_text(yaml.safe_dump(suite | {"dataset": dataset, "workers": 0, "variants": variants}))
        for result in m2fbench.run(path, output=folder / "runs", device="cpu", loader=bundled_loader):
            assert result.path is not None
            found[f"{task} {result.variant['name']}"] = result.path.parent
    return found


def show(*arguments: object) -> tuple[int, str, str]:
    """Exit status or error, stdout and stderr."""
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    if isinstance(result.exception, M2FBenchError):
        return 2, result.stdout, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(("task", "figures"), [("panoptic", "PQ"), ("instance", "AP"), ("semantic", "mIoU")])
def test_each_task(runs: dict[str, Path], tmp_path: Path, task: str, figures: str) -> None:
    run = runs[f"{task} {'a' if task == 'semantic' else 'default'}"]
    status, out, error = show(run, "2", "-o", tmp_path / "x.png", "--size", "200")
    assert status == 0, error
    assert out.count("\n") == 1
    assert out.startswith(f"{tmp_path / 'x.png'}: Image 2 of ")
    assert "photo, truth, prediction and difference; " in out
    assert f"; {figures} " in out
    assert " right, " in out
    with Image.open(tmp_path / "x.png") as image:
        assert image.format == "PNG"
        assert image.width >= 2 * 150
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_an_images_own_figure_is_that_of_scoring_it_alone(runs: dict[str, Path]) -> None:
    (run,) = open_runs([runs["panoptic default"]])
    assert run.evidence is not None
    alone = replace(run.evidence, examples=run.evidence.examples[2:3])
    metric = m2fbench.suite.metrics.get("panoptic_quality")
    figures = metric.score(alone.dataset, alone.predictions, alone.image_ids, alone.suite.rules)
    expected = next(f.value for f in figures if f.name == "PQ" and f.category is None)
    assert f"; PQ {expected:.1f}, SQ " in show_run(run, "3", None, Look(100)).words


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_other_formats(runs: dict[str, Path], tmp_path: Path, suffix: str) -> None:
    status, _, error = show(runs["panoptic default"], 1, "-o", tmp_path / f"x{suffix}", "--head", "instance", "--score", "0.9")
    assert status == 0, error
    with Image.open(tmp_path / f"x{suffix}") as image:
        assert image.format == {".webp": "WEBP"}.get(suffix, "JPEG")


def test_two_runs_beside_the_truth(runs: dict[str, Path], tmp_path: Path) -> None:
    status, out, error = show(runs["semantic a"], 3, "-o", tmp_path / "x.png", "--against", runs["semantic b"], "--size", "150")
    assert status == 0, error
    assert "Image 3, semantic: truth, " in out
    assert "; b: mIoU " in out
    with Image.open(tmp_path / "x.png") as image:
        assert image.width > 3 * 128


def test_without_a_head_two_runs_are_shown_by_one_that_both_have(runs: dict[str, Path], tmp_path: Path) -> None:
    status, out, error = show(runs["panoptic default"], 3, "-o", tmp_path / "x.png", "--against", runs["instance default"])
    assert status == 0, error
    assert "Image 3, instance: truth, " in out


def test_a_picture_that_cannot_be_written_is_said_before_the_run_is_looked_for(tmp_path: Path) -> None:
    status, _, error = show(tmp_path / "gone", 1, "-o", "/proc/x.png")
    assert (status, "/proc: cannot be written" in error or "/proc: no permission" in error) == (2, True), error


REFUSED = [
    (["9", "-o", "x.png"], "image '9': expected an id or a file name of one of the run's 4 images; there are, say, 1, 2, 3"),
    (["33", "-o", "x.png"], "image '33': expected an id or a file name of one of the run's 4 images; the nearest are 3"),
    (["1", "-o", "x.gif"], "-o x.gif: expected a name ending in .png, .jpg or .webp"),
    (["1", "-o", "gone/x.png"], "-o gone/x.png: there is no folder gone; make it, or name another"),
    (["1", "-o", "x.png", "--head", "instance"], "--head: expected semantic, got instance"),
    (["1", "-o", "x.png", "--against", "SAME"], "expected another run, got the same one twice"),
    (["1", "-o", "x.png", "--against", "INSTANCE", "--head", "semantic"], "--head: expected instance, got semantic"),
    (["1", "-o", "x.png", "--against", "INSTANCE"], "expected predictions of semantic, as "),
    (["1\nmalicious", "-o", "x.png"], r"image '1\nmalicious': expected"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_what_is_refused_in_one_line(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs["semantic a"]
    known = {"SAME": str(run), "INSTANCE": str(runs["instance default"])}
    status, _, error = show(run, *[known.get(a, a) for a in arguments])
    assert status == 2
    assert message in error
    assert "\n" not in error
    assert not list(tmp_path.iterdir())


def test_a_folder_of_several_runs(runs: dict[str, Path], tmp_path: Path) -> None:
    folder = runs["semantic b"].parent
    status, _, error = show(folder, 1, "-o", tmp_path / "x.png")
    assert status == 2
    assert f"{folder}: expected one run, found 2 (a, b); name one of them" in error


def evidence_of(*examples: Example, scored: int | None = None) -> Any:
    """Of images with such ids and files, the first ``scored`` of which were predicted."""
    there = examples[:scored]
    dataset = SimpleNamespace(examples=lambda: examples)
    return SimpleNamespace(dataset=dataset, examples=there, image_ids=tuple(e.image_id for e in there))


def test_images_by_id_and_by_file_name() -> None:
    size = (3, 4)
    beach, alps = Example(3, size, "/x/photos/beach.jpg"), Example(12, size, "/x/photos/alps.v2.png")
    city, last = Example("a/b:c", size, "/y/12.png"), Example("last", size, "/z/last.png")
    evidence = evidence_of(beach, alps, city, last, scored=3)
    for wanted, example in (
        ("3", beach), ("000000000003", beach), ("beach", beach), ("beach.jpg", beach), ("/x/photos/beach.jpg", beach),
        ("12", alps), ("alps.v2", alps), ("a/b:c", city), ("a%2Fb%3Ac", city), ("12.png", city),
    ):  # fmt: skip
        assert find_example(evidence, wanted) is example, wanted
    with pytest.raises(DatasetError, match=r"image 'beech': .*; the nearest are beach"):
        find_example(evidence, "beech")
    with pytest.raises(DatasetError, match="in the dataset, but this run has no prediction of it; it was limited to 3 images"):
        find_example(evidence, "last")
    twins = evidence_of(Example(1, size, "/a/x.png"), Example(2, size, "/b/x.png"))
    with pytest.raises(DatasetError, match="2 images have files of that name, 1 and 2 among them; give an id"):
        find_example(twins, "x")
    assert find_example(twins, "/b/x.png").image_id == 2


def test_without_truth_there_is_photo_and_prediction(runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    (run,) = open_runs([runs["semantic b"]])
    assert run.evidence is not None

    def none(example: Example) -> Any:
        raise DatasetError("the dataset has no truth; it is a test set")

    monkeypatch.setattr(run.evidence.dataset, "semantic_truth", none)
    shown = show_run(run, "1", None, Look(100))
    assert shown.words.endswith("photo and prediction (the dataset has no truth; it is a test set); no truth to compare with")
    assert np.asarray(shown.image).ndim == 3
    with pytest.raises(DatasetError, match="two runs are shown beside the truth, of which there is none"):
        show_run(run, "1", None, Look(100), run)


def test_runs_that_cannot_be_shown(runs: dict[str, Path]) -> None:
    (run,) = open_runs([runs["panoptic default"]])
    assert run.evidence is not None
    gone: Run = replace(run, evidence=None, problem="the photos are gone")
    with pytest.raises(StoreError, match="nothing to show: the photos are gone"):
        show_run(gone, "1", None, Look())
    few = replace(run, evidence=replace(run.evidence, examples=run.evidence.examples[:1]))
    with pytest.raises(StoreError, match="expected a run over the same images, got one that has no image 2"):
        show_run(run, "2", None, Look(), few)
    none = replace(run.evidence.predictions, instances=None)
    other = replace(run, evidence=replace(run.evidence, predictions=none))
    with pytest.raises(PredictionsError, match="--head: expected panoptic or semantic, got instance"):
        show_run(run, "2", "instance", Look(), other)


def test_a_write_that_fails_leaves_what_was_there(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.png").write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    status, _, error = show(runs["semantic b"], 1, "-o", tmp_path / "x.png", "--size", "64")
    assert status == 2
    assert "the disk is full" in error
    assert (tmp_path / "x.png").read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 1


def test_bytes_of_every_suffix() -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    assert encoded(image, ".png").startswith(b"\x89PNG")
    assert encoded(image, ".JPG").startswith(b"\xff\xd8")
    assert encoded(image, ".webp").startswith(b"RIFF")
