"""Post-processing per image against the paper's own order of operations written plainly (scripts/plain_paper.py), outputs asserted identical.

    python scripts/benchmark_postprocess.py                     # on the CPU, about two minutes
    python scripts/benchmark_postprocess.py --device cuda       # timed by CUDA events, synchronised

Made-up logits: discs whose edges are as steep as a trained model's, the first of them sure of their class (``sure`` in the titles), the rest of no
object. The candidates take turns, so that a machine that drifts drifts for all; medians. "compute" leaves the result on the device,
"infer" copies and encodes it as a run does; the plain order encodes nothing.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from plain_paper import plain_instances, plain_panoptic, plain_semantic

from m2fbench.environment import describe_environment
from m2fbench.models.load import describe_device
from m2fbench.models.postprocess import (
    encode_masks,
    instance_inference,
    instance_masks,
    panoptic_inference,
    panoptic_segments,
    select_detections,
    select_segments,
)
from m2fbench.models.preprocess import Geometry
from m2fbench.models.semantic import View, semantic_inference, semantic_labels

Call = Callable[[], object]
GOALS = {"instance": 2.5, "panoptic": 3.5}
THINGS = list(range(80))
# title, geometry, queries, classes, sure queries
CASES = [
    ("COCO", Geometry((427, 640), (800, 1199), (800, 1216)), 100, 133, 15),
    ("COCO, crowded", Geometry((427, 640), (800, 1199), (800, 1216)), 100, 133, 40),
    ("COCO, 200 queries", Geometry((427, 640), (800, 1199), (800, 1216)), 200, 133, 30),
    ("Cityscapes", Geometry((1024, 2048), (1024, 2048), (1024, 2048)), 100, 133, 30),
]


def logits(geometry: Geometry, queries: int, classes: int, sure: int, device: torch.device) -> View:
    generator = torch.Generator().manual_seed(0)
    height, width = (edge // 4 for edge in geometry.padded)
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    centre, radius = torch.rand(queries, 2, 1, 1, generator=generator), 0.04 + 0.26 * torch.rand(queries, 1, 1, generator=generator)
    masks = (150 * (radius - ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt())).clamp(-16, 10)
    masks += 0.5 * torch.randn(masks.shape, generator=generator)
    class_logits = torch.randn(queries, classes + 1, generator=generator)
    for query in range(sure):  # by far the likeliest class, and two others that share the detections that are left
        class_logits[query, torch.randperm(classes, generator=generator)[:3]] += torch.tensor([12.0, 6.0, 6.0])
    class_logits[sure:, -1] += 9.0
    return View(class_logits.to(device), masks.to(device), geometry)


def milliseconds(rounds: int, device: torch.device, candidates: dict[str, Call]) -> dict[str, float]:
    """Median of each, in turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            elapsed = _once(call, device)
            if number:
                times[name].append(elapsed)
    return {name: statistics.median(values) for name, values in times.items()}


def _once(call: Call, device: torch.device) -> float:
    if device.type == "cpu":
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return float(begin.elapsed_time(end))


def instance(view: View) -> tuple[dict[str, Call], str]:
    arguments = view.class_logits, view.mask_logits, view.geometry

    def compute() -> object:
        return instance_masks(select_detections(view.class_logits, THINGS, 100), view.mask_logits, view.geometry)

    found = instance_inference(*arguments, things=THINGS)
    scores, labels, masks = plain_instances(*arguments, THINGS)
    expected = sorted((int(c), r["counts"]) for c, r in zip(labels, encode_masks(masks), strict=True))
    assert sorted((int(c), r["counts"]) for c, r in zip(found.categories, found.rles, strict=True)) == expected
    gap = float(np.abs(np.sort(found.scores) - np.sort(scores.double().cpu().numpy())).max())
    assert gap < 1e-6
    distinct = len(select_detections(view.class_logits, THINGS, 100).queries)
    return {
        "plain": lambda: plain_instances(*arguments, THINGS),
        "compute": compute,
        "infer": lambda: instance_inference(*arguments, things=THINGS),
    }, f"{len(found)} masks of {distinct} queries, identical; scores within {gap:.0e}"


def panoptic(view: View) -> tuple[dict[str, Call], str]:
    arguments = view.class_logits, view.mask_logits, view.geometry

    def compute() -> object:
        found = select_segments(view.class_logits, THINGS, 0.8)
        return panoptic_segments(found, view.mask_logits, view.geometry, overlap_threshold=0.8)

    found = panoptic_inference(*arguments, things=THINGS)
    ids, segments = plain_panoptic(*arguments, THINGS)
    assert [(s.id, s.category) for s in found.segments] == segments
    assert (found.ids == ids.cpu().numpy()).all()
    return {
        "plain": lambda: plain_panoptic(*arguments, THINGS),
        "compute": compute,
        "infer": lambda: panoptic_inference(*arguments, things=THINGS),
    }, f"{len(segments)} segments, identical"


def semantic(view: View) -> tuple[dict[str, Call], str]:
    best = plain_semantic(view.class_logits, view.mask_logits, view.geometry, "before").topk(2, 0)
    wrong = torch.from_numpy(semantic_inference([view], resize="before").astype(np.int64)) != best.indices[0].cpu()
    margin = (best.values[0] - best.values[1]).cpu()
    assert (margin[wrong] < 1e-5).all()
    return {
        "plain": lambda: plain_semantic(view.class_logits, view.mask_logits, view.geometry, "before").argmax(0),
        "compute": lambda: semantic_labels([view], resize="before"),
        "infer": lambda: semantic_inference([view], resize="before"),
    }, f"{int(wrong.sum())} pixels differ, all with the two best classes within 1e-5"


HEADS: dict[str, Callable[[View], tuple[dict[str, Call], str]]] = {
    "instance": instance, "panoptic": panoptic, "semantic": semantic,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--heads", nargs="+", choices=tuple(HEADS), default=list(HEADS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    device, facts = torch.device(args.device), describe_environment()
    libraries: dict[str, Any] = {name: facts["libraries"][name] for name in ("torch", "hotcoco", "numpy")}
    print(f"{facts['processor']}, {facts['cpu_count']} cores, {args.threads} torch threads, Python {platform.python_version()}, "
          f"{', '.join(f'{name} {version}' for name, version in libraries.items())}; on {describe_device(args.device)}")  # fmt: skip
    for title, geometry, queries, classes, sure in CASES:
        (height, width), (to_height, to_width) = geometry.resized, geometry.original
        print(f"\n{title}: {height}x{width} to {to_height}x{to_width}, {queries} queries, {sure} of them sure, {classes} classes")
        view = logits(geometry, queries, classes, sure, device)
        for head in args.heads:
            candidates, equality = HEADS[head](view)
            times = milliseconds(args.rounds, device, candidates)
            goal = f"; goal {GOALS[head]}" if head in GOALS and args.device == "cpu" else ""
            columns = "".join(f"  {name} {times[name]:8.1f} ms" for name in times)
            ratios = ", ".join(f"{times['plain'] / times[name]:.1f} x ({name})" for name in ("compute", "infer"))
            print(f"  {head:<9}{columns}   plain is {ratios}{goal}; {equality}")


if __name__ == "__main__":
    main()
