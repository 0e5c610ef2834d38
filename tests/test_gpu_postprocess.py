"""Post-processing on a device: its results beside the CPU's, no waiting for it, bounded memory, and what happens when that runs out.

The checks are functions of a device. ``pytest -m gpu`` runs them on CUDA. Everywhere they run on the CPU too, which then takes the branches that CUDA
takes; and what needs no numbers runs on torch's device without values.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import FIXTURES, SHARED
from torch.utils._python_dispatch import TorchDispatchMode

from m2fbench.errors import ImageError
from m2fbench.models import postprocess, protocols, semantic
from m2fbench.models.load import LoadedModel, timed_forward
from m2fbench.models.memory import ON_CPU, post_process
from m2fbench.models.postprocess import (
    Detections,
    InstanceMasks,
    SegmentQueries,
    instance_masks,
    panoptic_inference,
    panoptic_segments,
    select_detections,
    select_segments,
    upsample,
)
from m2fbench.models.preprocess import Geometry, ModelInput
from m2fbench.models.protocols import ModelClasses, build_protocol
from m2fbench.models.semantic import View, semantic_labels
from m2fbench.sections import ProtocolSection

UNSURE = (
    1e-3  # of a logit or of the margin between the two best: another device may round a pixel nearer than that to the other side
)
CUDA = pytest.param(
    "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")]
)
DEVICES = ["cpu", CUDA]
HEADS: tuple[Any, ...] = ("instance", "panoptic", "semantic")


@pytest.fixture
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The CPU takes the branches that CUDA takes; the reference below switches that off."""
    if request.param == "cpu":
        monkeypatch.setattr(postprocess, "_in_numpy", lambda values: False)
    else:  # the reference precision
        monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    return torch.device(request.param)


@contextlib.contextmanager
def reference() -> Iterator[None]:
    """The branches of the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "_in_numpy", lambda values: True)
        yield


def golden() -> Iterator[Any]:
    """The committed fixtures, and the golden files where they are."""
    for path in [*sorted(FIXTURES.glob("postprocess_*.npz")), *sorted((SHARED / "golden").glob("postprocess_*.npz"))]:
        with np.load(path) as file:
            cases = sorted({name.split("/")[0] for name in file.files if "/" in name}) or [""]
        full = [pytest.mark.full] if path.parent != FIXTURES else []
        yield from (pytest.param(path, case, id=f"{path.stem} {case}".strip(), marks=full) for case in cases)


def read(path: Path, case: str) -> tuple[View, list[int], dict[str, float]]:
    with np.load(path) as file:
        arrays = {name.removeprefix(f"{case}/"): file[name] for name in file.files if name.startswith(case)}
    sizes = (tuple(arrays[f"{kind}_size"].tolist()) for kind in ("output", "resized", "padded"))
    masks = torch.from_numpy(arrays["mask_logits"].astype(np.float32))
    view = View(torch.from_numpy(arrays["class_logits"]), masks, Geometry(*sizes))
    things = arrays["thing_classes"].tolist() if "thing_classes" in arrays else list(range(int(arrays["num_things"])))
    return view, things, {"object_threshold": float(arrays.get("object_mask_threshold", 0.8)), "overlap_threshold": 0.8}


def on(view: View, device: torch.device) -> View:
    return View(view.class_logits.to(device), view.mask_logits.to(device), view.geometry, view.flipped)


def by_pair(view: View, things: list[int]) -> dict[tuple[int, int], tuple[torch.Tensor, float]]:
    """(query, class) -> mask and score, on the host."""
    found = select_detections(view.class_logits, things, 100)
    masks: InstanceMasks = instance_masks(found, view.mask_logits, view.geometry)
    pairs = zip(found.queries[found.mask_of].tolist(), masks.categories.tolist(), strict=True)
    values = zip(masks.masks.cpu()[masks.mask_of.cpu()], masks.scores.tolist(), strict=True)
    return dict(zip(pairs, values, strict=True))


def check_instances(view: View, things: list[int], device: torch.device) -> None:
    with reference():
        expected = by_pair(view, things)
    found = by_pair(on(view, device), things)
    assert set(found) == set(expected)
    logits = upsample(view.mask_logits, view.geometry).abs()
    for pair, (mask, score) in found.items():
        differing = mask != expected[pair][0]
        assert (logits[pair[0]][differing] < UNSURE).all(), pair
        assert score == pytest.approx(expected[pair][1], abs=1e-5), pair


def check_panoptic(view: View, things: list[int], limits: dict[str, float], device: torch.device) -> None:
    def call(view: View) -> Any:
        return panoptic_inference(view.class_logits, view.mask_logits, view.geometry, things=things, **limits)

    with reference():
        expected = call(view)
    found = call(on(view, device))
    assert found.segments == expected.segments
    logits = upsample(view.mask_logits, view.geometry)
    probability, label = view.class_logits.softmax(-1).max(-1)
    kept = (label < view.class_logits.shape[1] - 1) & (probability > limits["object_threshold"])
    sigmoids = logits[kept].sigmoid()
    nobody = torch.full((2, *view.geometry.original), -torch.inf)
    best = torch.cat((probability[kept, None, None] * sigmoids, nobody)).topk(2, 0)
    unsure = (best.values[0] - best.values[1]).numpy() < UNSURE
    if len(sigmoids):
        unsure |= logits[kept].gather(0, best.indices[:1])[0].abs().numpy() < UNSURE
    assert unsure[found.ids != expected.ids].all()


def check_semantic(view: View, resize: Any, device: torch.device) -> None:
    expected = semantic_labels([view], resize=resize)
    found = semantic_labels([on(view, device)], resize=resize).cpu()
    assert found.dtype == expected.dtype
    from plain_paper import plain_semantic

    best = plain_semantic(view.class_logits, view.mask_logits, view.geometry, resize).topk(2, 0).values
    assert ((best[0] - best[1])[found != expected] < UNSURE).all()


@pytest.mark.parametrize("device", DEVICES, indirect=True)
@pytest.mark.parametrize(("path", "case"), list(golden()))
def test_the_device_gives_what_the_cpu_gives(path: Path, case: str, device: torch.device) -> None:
    view, things, limits = read(path, case)
    check_instances(view, things, device)
    check_panoptic(view, things, limits, device)
    for resize in ("before", "after"):
        check_semantic(view, resize, device)


def made_up(geometry: Geometry, queries: int, classes: int = 133, confident: int = 30) -> View:
    """Discs, the first ``confident`` of which have a class of their own."""
    generator = torch.Generator().manual_seed(0)
    height, width = (edge // 4 for edge in geometry.padded)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = torch.rand(queries, 2, 1, 1, generator=generator)
    radius = 0.05 + 0.3 * torch.rand(queries, 1, 1, generator=generator)
    masks = 12 - 20 * ((y / height - centre[:, 0]) ** 2 + (x / width - centre[:, 1]) ** 2).sqrt() / radius
    class_logits = torch.randn(queries, classes + 1, generator=generator)
    class_logits[torch.arange(queries), torch.randint(classes, (queries,), generator=generator)] += 9.0
    class_logits[confident:, -1] += 12.0
    return View(class_logits, masks.clamp(-12, 9), geometry)


def after_selection(view: View, forbid: Callable[[], Any]) -> tuple[Any, Any, Any]:
    """All heads; ``forbid``: a context for what follows the selection, in which nothing may wait for the device."""
    things = list(range(80))
    detections = select_detections(view.class_logits, things, 100)
    segments = select_segments(view.class_logits, things, 0.8)
    with forbid():
        return heads_of(detections, segments, view)


def heads_of(detections: Detections, segments: SegmentQueries, view: View) -> tuple[Any, Any, Any]:
    return (
        instance_masks(detections, view.mask_logits, view.geometry),
        panoptic_segments(segments, view.mask_logits, view.geometry, overlap_threshold=0.8),
        [semantic_labels([view], resize=resize) for resize in ("before", "after")],  # type: ignore[arg-type]
    )


@contextlib.contextmanager
def no_synchronisation() -> Iterator[None]:
    """CUDA's own watch: whatever waits for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_nothing_waits_for_the_device_after_selection() -> None:
    view = on(made_up(Geometry((427, 640), (800, 1199), (800, 1216)), 100), torch.device("cuda"))
    after_selection(view, contextlib.nullcontext)  # the first call loads kernels
    with pytest.raises(RuntimeError), no_synchronisation():
        select_segments(view.class_logits, [0], 0.8)  # the watch sees what it is to see
    instances, panoptic, labels = after_selection(view, no_synchronisation)
    assert all(t.is_cuda for t in (instances.masks, instances.scores, panoptic.ids, panoptic.opened, *labels))


class NoCopies(TorchDispatchMode):
    """Refuses operations that carry data between the host and a device; numbers and empty shapes do not count."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        places = {
            value.device.type
            for value in (*torch.utils._pytree.tree_leaves((args, kwargs)), *torch.utils._pytree.tree_leaves(result))
            if isinstance(value, torch.Tensor) and value.dim()
        }
        assert len(places) < 2, f"{func} copies between the host and the device"
        return result


@contextlib.contextmanager
def no_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch's device without values: whatever asks for one fails, and so does what copies."""
    for module in (postprocess, semantic):
        monkeypatch.setitem(module.BLOCK_BYTES, "meta", 1 << 18)
    with NoCopies():
        yield


def some(*size: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    return torch.empty(size, dtype=dtype, device="meta")


@pytest.mark.parametrize("counts", [(100, 40, 15), (3, 1, 1), (0, 0, 0)])
@pytest.mark.parametrize("original", [(42, 64), (80, 119)])
def test_nothing_asks_for_values_after_selection(
    counts: tuple[int, int, int], original: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Holds without a GPU that no number is asked for and nothing copied; that nothing else waits, only a GPU can tell."""
    pairs, distinct, kept = counts
    geometry = Geometry(original, (80, 119), (96, 128))
    classes, masks = some(100, 134, dtype=torch.float32), some(100, 24, 32, dtype=torch.float32)
    detections = Detections(some(distinct), some(pairs), some(pairs), some(pairs, dtype=torch.float32))
    segments = SegmentQueries(some(kept), some(kept), some(kept, dtype=torch.float32), some(133, dtype=torch.bool))
    with no_values(monkeypatch):
        instances, panoptic, (before, after) = heads_of(detections, segments, View(classes, masks, geometry))
    assert (instances.masks.shape, instances.masks.dtype) == ((distinct, *original), torch.bool)
    assert (instances.scores.shape, instances.scores.dtype) == ((pairs,), torch.float32)
    assert (panoptic.ids.shape, panoptic.ids.dtype) == (original, torch.int32)
    assert panoptic.opened.shape == panoptic.categories.shape == (kept,)
    assert before.shape == after.shape == original
    assert before.dtype == torch.uint8
    assert all(t.is_meta for t in (instances.masks, instances.scores, panoptic.ids, panoptic.opened, before, after))


@pytest.mark.parametrize(
    "asks",
    [
        lambda values: values.sum().item(),
        lambda values: values.nonzero(),
        lambda values: torch.bincount(values),
        lambda values: values.cpu(),
        lambda values: torch.ones(3).to(values.device),
        lambda values: values[values > 0],
        lambda values: bool((values > 0).any()),
        lambda values: select_segments(values[:, None].float(), [0], 0.8),
        lambda values: select_detections(values[:, None].float(), None, 3),
    ],
)
def test_what_asks_for_values_is_seen(asks: Callable[[torch.Tensor], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), no_values(monkeypatch):
        asks(some(5))


def protocol_of(*heads: Any) -> protocols.Protocol:
    section = ProtocolSection.model_validate({"name": "paper", "min_size": 800, "max_size": 1333})
    return build_protocol(section, None, ModelClasses(tuple(range(133)), tuple(range(80)), True), heads)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
@pytest.mark.parametrize("head", HEADS)
def test_device_memory_is_bounded(head: Any) -> None:
    """200 queries on 12 megapixels, 9.6 GB of logits all at once: 2 GiB besides what the result takes."""
    view = on(made_up(Geometry((3000, 4000), (800, 1067), (800, 1088)), 200, confident=200), torch.device("cuda"))
    protocol = protocol_of(head)
    for call in (protocol.infer, lambda views: [protocol.compute(views)]):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = call([view])
        kept = torch.cuda.memory_allocated() - before
        assert torch.cuda.max_memory_allocated() - before - kept < 2 << 30, head
        del result


@contextlib.contextmanager
def hardly_any_memory(device: torch.device) -> Iterator[None]:
    """On CUDA the allocator gets 16 MiB more than it has; elsewhere the device's half fails as it would there."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + (16 << 20)) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    real, calls = postprocess.upsample, iter(range(2))

    def upsample(*arguments: Any) -> torch.Tensor:
        if next(calls, None) is not None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 256.00 MiB.")
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postprocess, "upsample", upsample)
        yield


@pytest.mark.parametrize("device", DEVICES, indirect=True)
def test_out_of_device_memory_the_cpu_does_it(device: torch.device) -> None:
    view = made_up(Geometry((512, 1024), (512, 1024), (512, 1024)), 60)
    protocol = protocol_of("instance", "panoptic")
    with reference():
        expected = protocol.infer([view])
    there = on(view, device)
    with hardly_any_memory(device):
        found, notes = post_process(protocol.infer, [there])
    assert notes == (ON_CPU,)
    assert found.instances.rles == expected.instances.rles  # type: ignore[union-attr]
    np.testing.assert_array_equal(found.panoptic.ids, expected.panoptic.ids)  # type: ignore[union-attr]
    assert post_process(protocol.compute, [there])[1] == (), "the device is as good as before"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_a_forward_pass_that_does_not_fit_names_the_size() -> None:
    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.empty(1, 2, device="cuda"), torch.empty(1 << 33, device="cuda")[:16].view(1, 4, 4)

    device = torch.device("cuda")
    look = ModelInput(torch.zeros(1, 3, 32, 64), Geometry((32, 64), (32, 64), (32, 64)))
    with (
        hardly_any_memory(device),
        pytest.raises(ImageError, match="too little device memory for the model's input of 64x32 pixels"),
    ):
        timed_forward(LoadedModel(forward, device, 0, {}), [look])
