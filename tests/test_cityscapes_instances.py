"""Cityscapes' submission form for instances: what is written is read back and taken by the official script; the rest is refused."""

import os
from pathlib import Path
from typing import Any

import hotcoco.mask
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from m2fbench.errors import PredictionsError
from m2fbench.formats.cityscapes_instances import LABEL_IDS, read, write
from m2fbench.types import Example

SIZE = (12, 20)
NAME = "frankfurt_000000_000294"
EXAMPLES = [Example(NAME, SIZE, "frankfurt.png")]
EVALUATED = (24, 26)


def entry(mask: np.ndarray, label: int = 26, score: float = 0.5, name: str = NAME) -> dict[str, Any]:
    rle = hotcoco.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {
        "image_id": name, "category_id": label, "segmentation": {"size": list(mask.shape), "counts": rle["counts"].decode()},
        "score": score,
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(predicted=st.lists(st.tuples(st.sampled_from(EVALUATED), st.floats(0, 1)), max_size=6), seed=st.integers(0, 10**9))
def test_what_is_written_is_read_back(
    predicted: list[tuple[int, float]], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Masks to the pixel, scores to the last bit, order kept; empty masks too."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("form")
    entries = [entry(rng.random(SIZE) < rng.choice([0, 0.5, 1]), label, score) for label, score in predicted]
    text = write(folder, NAME, entries)
    assert text.name == f"{NAME}_pred.txt"
    assert read(folder, EXAMPLES, EVALUATED) == entries


def test_the_official_script_reads_what_is_written(tmp_path: Path) -> None:
    official = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling", reason="not installed")
    write(tmp_path, NAME, [entry(np.eye(*SIZE), 26, 0.1), entry(np.eye(*SIZE), 24, 1 / 3)])

    class Arguments:
        predictionPath = os.path.abspath(tmp_path)  # noqa: PTH100
        predictionWalk = None

    text = official.getPrediction(f"{NAME}_gtFine_instanceIds.png", Arguments())
    found = official.readPredInfo(text, Arguments())
    assert [(Path(path).name, info["labelID"], info["conf"]) for path, info in found.items()] == [
        (f"{NAME}_000.png", 26, 0.1), (f"{NAME}_001.png", 24, 1 / 3)
    ]  # fmt: skip
    assert set(np.unique(np.asarray(Image.open(tmp_path / f"{NAME}_000.png"))).tolist()) == {0, 255}


def test_label_ids_are_those_of_the_official_table() -> None:
    labels = pytest.importorskip("cityscapesscripts.helpers.labels", reason="not installed")
    assert set(LABEL_IDS) == set(labels.id2label)


def test_writing_again_replaces_the_file_and_leaves_no_parts(tmp_path: Path) -> None:
    write(tmp_path, NAME, [entry(np.eye(*SIZE)), entry(np.ones(SIZE))])
    write(tmp_path, NAME, [entry(np.ones(SIZE), score=0.25)])
    assert read(tmp_path, EXAMPLES, EVALUATED) == [entry(np.ones(SIZE), score=0.25)]
    assert not list(tmp_path.glob("*.part"))


def test_a_text_file_stands_only_where_its_masks_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, NAME, [entry(np.eye(*SIZE))])

    def full(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="no space"):
        write(tmp_path, NAME, [entry(np.ones(SIZE))])
    assert not list(tmp_path.glob("*.txt"))


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A peer's folder: masks of their own values in a folder of their own."""
    (tmp_path / "city" / "masks").mkdir(parents=True)
    mask = np.zeros(SIZE, np.uint8)
    mask[2:5, 3:9] = 1
    Image.fromarray(mask).save(tmp_path / "city/masks/a.png")
    Image.fromarray(mask[:5]).save(tmp_path / "city/masks/small.png")
    Image.fromarray(mask.astype(bool)).save(tmp_path / "bits.png")
    (tmp_path / "city/masks/broken.png").write_bytes((tmp_path / "city/masks/a.png").read_bytes()[:60])
    (tmp_path / "city/masks/text.png").write_text("no image")
    return tmp_path


def test_a_peers_folder_is_read(foreign: Path) -> None:
    """Found in any subfolder; labels that are not evaluated are left out unopened; a mask named twice counts as its last line says."""
    lines = ["masks/a.png 26.0 0.9", "../bits.png 24 1e-3", "masks/none.png 7 0.5", "masks/a.png 24 0.25"]
    (foreign / f"city/{NAME}_leftImg8bit.txt").write_text("\r\n".join(lines) + "\r\n")
    (foreign / f"city/{NAME[:-1]}5.txt").write_text("")
    mask = np.zeros(SIZE, bool)
    mask[2:5, 3:9] = True
    assert read(foreign, EXAMPLES, EVALUATED) == [entry(mask, 24, 0.25), entry(mask, 24, 0.001)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("masks/a.png 26", ":2: expected 'path/of/mask.png label_id confidence', parted by single spaces, got 'masks/a.png 26'"),
        ("masks/a.png  26 0.5", ":2: expected 'path"),
        ("", ":2: expected 'path"),
        ("masks/my mask.png 26 0.5", ":2: expected 'path"),
        ("masks/a.png car 0.5", ":2: expected a Cityscapes label id .-1 to 33, not a train id.*got 'car'"),
        ("masks/a.png 255 0.5", ":2: expected a Cityscapes label id .*got '255'"),
        ("masks/a.png 26.5 0.5", ":2: expected a Cityscapes label id"),
        ("masks/a.png inf 0.5", ":2: expected a Cityscapes label id"),
        ("masks/a.png 26 high", ":2: expected a finite number as confidence, got 'high'"),
        ("masks/a.png 26 nan", ":2: expected a finite number"),
        ("/etc/a.png 26 0.5", ":2: expected a mask inside"),
        ("../../a.png 26 0.5", ":2: expected a mask inside"),
        ("masks/../../../a.png 26 0.5", ":2: expected a mask inside"),
        ("masks/none.png 26 0.5", ":2: mask .*none.png is not there"),
        ("masks/small.png 26 0.5", ":2: .*small.png: expected a mask of 20x12 pixels as the image has, got 20x5"),
        ("masks/broken.png 26 0.5", ":2: mask .*broken.png cannot be read as an image"),
        ("masks/text.png 26 0.5", ":2: mask .*text.png cannot be read as an image"),
        ("masks 26 0.5", ":2: mask .*masks cannot be read as an image"),
        ("masks/\0.png 26 0.5", ":2: mask .* is not there"),
    ],
)
def test_each_fault_is_named_with_its_line(line: str, message: str, foreign: Path) -> None:
    (foreign / f"city/{NAME}.txt").write_text(f"masks/a.png 26 0.9\n{line}\nmasks/a.png 24 0.5\n")
    with pytest.raises(PredictionsError, match=rf"{NAME}\.txt{message}") as caught:
        read(foreign, EXAMPLES, EVALUATED)
    assert "\n" not in str(caught.value)


def test_missing_and_ambiguous_text_files(foreign: Path) -> None:
    with pytest.raises(PredictionsError, match="expected Cityscapes predictions .* found no .txt file"):
        read(foreign, EXAMPLES, EVALUATED)
    (foreign / "other_000000_000000.txt").write_text("")
    with pytest.raises(PredictionsError, match=rf"expected a file {NAME}\*.txt for image {NAME}, found none"):
        read(foreign, EXAMPLES, EVALUATED)
    (foreign / f"{NAME}.txt").write_text("")
    (foreign / f"city/{NAME}_pred.txt").write_text("")
    with pytest.raises(PredictionsError, match="expected one file .*found .* and .*; remove one"):
        read(foreign, EXAMPLES, EVALUATED)
    (foreign / f"{NAME}.txt").unlink()
    assert read(foreign, EXAMPLES, EVALUATED) == []
    (foreign / f"city/{NAME}_pred.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(PredictionsError, match="bytes that are no text"):
        read(foreign, EXAMPLES, EVALUATED)
