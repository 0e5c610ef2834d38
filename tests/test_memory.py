"""Running out of memory on one image: another try, the CPU, or the image left out; put into real runs by errors thrown where torch throws them."""

import csv
import json
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import m2fbench
from m2fbench import predicting
from m2fbench.errors import DeviceError, ImageError
from m2fbench.models import load as loading
from m2fbench.models import memory, protocols
from m2fbench.models.checkpoint import resolve
from m2fbench.models.memory import AGAIN, FORWARD_AGAIN, ON_CPU, Shortage, attempt, shortage_of
from m2fbench.models.preprocess import Geometry
from m2fbench.models.semantic import View
from m2fbench.sections import Variant
from m2fbench.store import ImageRecord

FOLDER = Path("runs/test_shapes/tiny/default")


def failing(call: Callable[..., Any], script: str, error: Callable[[], Exception]) -> Callable[..., Any]:
    """``call``, but each "x" of ``script`` is a call that fails, each "." one that does not; those after the last do not."""
    steps: Iterator[str] = iter(script)

    def stub(*arguments: Any, **options: Any) -> Any:
        if next(steps, ".") == "x":
            raise error()
        return call(*arguments, **options)

    return stub


def too_much() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def forward_failing(script: str, error: Callable[[], Exception] = too_much) -> Any:
    def load(checkpoint: Any, variant: Any, device: str) -> Any:
        model = loading.load(checkpoint, variant, device)
        return replace(model, forward=failing(model.forward, script, error))

    return load


@pytest.fixture
def post_processing_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def fails(script: str, error: Callable[[], Exception] = too_much) -> None:
        monkeypatch.setattr(protocols, "instance_inference", failing(protocols.instance_inference, script, error))

    return fails


def notes_of(result: m2fbench.RunResult) -> list[str]:
    return [warning for warning in result.warnings if "memory" in warning]


def fallbacks(run: Path) -> dict[str, str]:
    with (run / "images.csv").open() as file:
        return {row["image_id"]: row["fallback"] for row in csv.DictReader(file)}


@pytest.mark.full
def test_post_processing_falls_back_to_the_cpu_and_is_reported(
    shapes_suite: Callable[..., Path], tmp_path: Path, post_processing_fails: Callable[..., None]
) -> None:
    """Image 2 at its second try, images 3 and 5 on the CPU; the resumed run still says so, and the predictions are the same."""
    suite = shapes_suite(5)
    (undisturbed,) = m2fbench.run(suite, output=tmp_path / "other")
    assert notes_of(undisturbed) == []
    post_processing_fails(".x.xx..xx.")
    m2fbench.run(suite, output=tmp_path / "runs", limit=3)
    (result,) = m2fbench.run(suite, output=tmp_path / "runs")
    assert result.status == "complete"
    assert notes_of(result) == [f"{AGAIN}: 1 image, the first is 2", f"{ON_CPU}: 2 images, the first is 3"]
    assert fallbacks(tmp_path / FOLDER) == {"1": "", "2": AGAIN, "3": ON_CPU, "4": "", "5": ON_CPU}
    lines = [json.loads(line.split("\t")[0]) for line in (tmp_path / FOLDER / "journal.jsonl").read_text().splitlines()]
    assert ["fallbacks" in line for line in lines] == [False, True, True, False, True], "else older versions could not read it"
    assert undisturbed.path is not None
    assert (tmp_path / FOLDER / "predictions.json").read_bytes() == (undisturbed.path.parent / "predictions.json").read_bytes()


def test_the_logits_are_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third try gets them on the CPU, as tensors of their own kind."""
    moved = View(torch.zeros(1, 2), torch.zeros(1, 4, 4), Geometry((4, 4), (4, 4), (4, 4)))
    monkeypatch.setattr(memory, "_on_cpu", lambda view: moved)
    view = replace(moved, flipped=True)
    found, notes = memory.post_process(failing(lambda views: views, "xx", too_much), [view])
    assert found == [moved]
    assert found[0] is moved
    assert notes == (ON_CPU,)
    monkeypatch.undo()
    assert memory._on_cpu(view).mask_logits.device.type == "cpu"
    assert memory._on_cpu(view).flipped


def test_a_forward_pass_is_tried_once_more(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    (result,) = m2fbench.run(shapes_suite(3), output=tmp_path / "runs", loader=forward_failing(".x."))
    assert result.status == "complete"
    assert notes_of(result) == [f"{FORWARD_AGAIN}: 1 image, the first is 2"]


LINE = r"shapes val/000001: too little device memory for the model's input of \d+x\d+ pixels; free some, use --device cpu, or set 'on_error: skip'"


def test_an_image_too_large_stops_the_run_with_a_line(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=LINE) as caught:
        m2fbench.run(shapes_suite(3), output=tmp_path / "runs", loader=forward_failing(".xx"))
    assert "\n" not in str(caught.value)
    (result,) = m2fbench.run(shapes_suite(3), output=tmp_path / "runs", limit=1, loader=lambda *_: pytest.fail("done again"))
    assert result.status == "partial"


@pytest.mark.full
def test_an_image_too_large_is_skipped_and_done_when_there_is_room(shapes_suite: Callable[..., Path], tmp_path: Path) -> None:
    suite = shapes_suite(3, "on_error: skip\n")
    (result,) = m2fbench.run(suite, output=tmp_path / "runs", loader=forward_failing(".xx"))
    assert (result.status, result.reason) == ("partial", "2 of 3 images")
    assert [s["image_id"] for s in result.skipped] == [2]
    assert "too little device memory" in result.skipped[0]["error"]
    (mended,) = m2fbench.run(suite, output=tmp_path / "runs", loader=forward_failing("x"))
    assert (mended.status, notes_of(mended)) == ("complete", [f"{FORWARD_AGAIN}: 1 image, the first is 2"])


def host() -> Exception:
    """What torch really raises; no machine has that much."""
    try:
        torch.empty(1 << 60, dtype=torch.uint8)
    except RuntimeError as error:
        return error
    pytest.fail("an exbibyte was allocated")


@pytest.mark.full
@pytest.mark.parametrize("error", [host, lambda: MemoryError("Unable to allocate 9 GiB for an array")])
def test_the_hosts_memory_is_one_line_too(
    error: Callable[[], Exception], shapes_suite: Callable[..., Path], tmp_path: Path, post_processing_fails: Callable[..., None]
) -> None:
    """There is nothing to fall back to, so the image is left out at once."""
    suite = shapes_suite(3, "on_error: skip\n")
    (forward,) = m2fbench.run(suite, output=tmp_path / "forward", loader=forward_failing("x.", error))
    assert forward.skipped[0]["error"].endswith("pixels; free some, or set 'on_error: skip' to leave such images out")
    assert [s["image_id"] for s in forward.skipped] == [1]
    post_processing_fails("xx..", error)
    (post,) = m2fbench.run(suite, output=tmp_path / "post")
    assert [s["image_id"] for s in post.skipped] == [1, 2]
    assert ": too little memory for post-processing at " in post.skipped[0]["error"]
    post_processing_fails("xxx", lambda: too_much())
    (third,) = m2fbench.run(suite, output=tmp_path / "third")
    assert [s["image_id"] for s in third.skipped] == [1], "the CPU's own try can fail as well"


def test_other_errors_are_bugs_and_stay_so(
    shapes_suite: Callable[..., Path], tmp_path: Path, post_processing_fails: Callable[..., None]
) -> None:
    post_processing_fails("x", lambda: RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"))
    with pytest.raises(RuntimeError, match="size of tensor"):
        m2fbench.run(shapes_suite(2, "on_error: skip\n"), output=tmp_path / "runs")
    with pytest.raises(IndexError):
        attempt(lambda: [][0])


def test_weights_that_do_not_fit_are_one_line(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.Module, "to", failing(torch.nn.Module.to, "x", too_much))
    with pytest.raises(DeviceError, match="too little device memory for its weights; free some, or use --device cpu"):
        loading.load(resolve(str(tiny_checkpoint)), Variant(name="plain"), "cpu")


def test_what_the_failed_try_held_is_free_for_the_next() -> None:
    held: list[weakref.ref[Any]] = []

    def call() -> str:
        array = np.zeros(5)
        held.append(weakref.ref(array))
        if len(held) == 1:
            raise too_much()
        return "freed" if held[0]() is None else "still held"

    assert attempt(call) is Shortage.DEVICE
    assert attempt(call) == "freed"


@pytest.mark.full
def test_a_second_try_waits_for_the_image_before(
    shapes_suite: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On CUDA the image before is post-processed meanwhile, and holds memory; here its thread is slow and the order is written down."""
    order: list[str] = []
    finished, infer = predicting._finished, protocols.instance_inference

    def slow(*arguments: Any, **options: Any) -> Any:
        torch.zeros(2000, 2000) @ torch.zeros(2000, 2000)
        found = infer(*arguments, **options)
        order.append("post-processed")
        return found

    def load(*arguments: Any) -> Any:
        model = loading.load(*arguments)

        def forward(pixels: torch.Tensor) -> Any:
            order.append("forward")
            if order.count("forward") == 2:
                raise too_much()
            return model.forward(pixels)

        return replace(model, forward=forward)

    monkeypatch.setattr(protocols, "instance_inference", slow)
    monkeypatch.setattr(predicting, "_finished", lambda *arguments, overlap: finished(*arguments, overlap=True))
    (result,) = m2fbench.run(shapes_suite(2), output=tmp_path / "runs", loader=load)
    assert order.index("post-processed") < [k for k, step in enumerate(order) if step == "forward"][2]
    assert notes_of(result) == [f"{FORWARD_AGAIN}: 1 image, the first is 2"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (too_much(), Shortage.DEVICE),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be ..."), Shortage.DEVICE),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), Shortage.DEVICE),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), Shortage.DEVICE),
        (MemoryError(), Shortage.HOST),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (ValueError("DefaultCPUAllocator"), None),
    ],
)
def test_which_memory_ran_out(error: Exception, expected: Shortage | None) -> None:
    assert shortage_of(error) is expected


def test_journals_of_before_are_read() -> None:
    """A line without the key, and what a line with it must hold."""
    old = {"image_id": 1, "height": 4, "width": 5, "predictions": 1, "stamp": "s", "seconds": {"forward": 0.5}, "error": None}
    record = ImageRecord.from_json(old)
    assert record.fallbacks == ()
    assert record.to_json() == old, "and versions of before read ours"
    noted = replace(record, fallbacks=(ON_CPU,))
    assert ImageRecord.from_json(json.loads(json.dumps(noted.to_json()))) == noted
    for damaged in ([1], {**old, "fallbacks": "cpu"}, {**old, "fallbacks": None}, {**old, "seconds": 1}, {**old, "more": 1}):
        with pytest.raises(TypeError):
            ImageRecord.from_json(damaged)  # type: ignore[arg-type]
