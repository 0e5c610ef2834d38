"""How long 1000 paired bootstrap resamples of two runs take, every one fully re-accumulated: AP, PQ and mIoU.

    python scripts/benchmark_bootstrap.py [--images 1000] [--resamples 1000]

The input is made up, of COCO's proportions: 80 classes of Zipf-like frequency, 7 true instances and 100 detections an image (AP with its twelve
figures over all and seven for each class), 133 classes and about 11 segments (PQ), 150 classes and about 9 of them in an image (mIoU). Matching
predictions with truth is done once, before, and its time stands apart. Goal: a minute for each on two cores.

pycocotools knows no weights; what it would take to run its ``accumulate`` for each resample, evaluations put together anew and not made anew, is
measured over a few and extrapolated. Its AP of those resamples must be ours to 1e-9. Machine and versions are printed first.
"""

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_api
from pycocotools.cocoeval import COCOeval

from m2fbench.analysis.bootstrap import bootstrap, draw
from m2fbench.environment import describe_environment
from m2fbench.metrics.coco_ap import CocoAP
from m2fbench.metrics.coco_files import pycocotools_pair
from m2fbench.metrics.panoptic_statistics import PARTS, QUALITY, PanopticStatistics
from m2fbench.metrics.semantic_statistics import FIGURES, SemanticStatistics
from m2fbench.types import Category, Dataset, Example, ImageStatistics, Predictions, ScoringRules

HEIGHT, WIDTH, CLASSES, TRUTHS, FOUND = 480, 640, 80, 7, 100
EXTRAPOLATED = 5  # resamples of pycocotools


class Drawn(Dataset):
    """Truth without images."""

    name = "drawn"

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document
        self.categories = tuple(Category(f"class {k}", True) for k in range(CLASSES))
        self.category_ids = tuple(range(1, CLASSES + 1))

    def examples(self) -> Sequence[Example]:
        return [Example(i["id"], (HEIGHT, WIDTH), "") for i in self._document["images"]]

    def coco_truth(self) -> dict[str, Any]:
        return self._document


def boxes(rng: np.random.Generator, number: int) -> np.ndarray:
    """Left, top, width, height [N, 4]; areas spread over COCO's three ranges."""
    size = np.exp(rng.uniform(np.log(12), np.log(300), (number, 2)))
    corner = rng.uniform(0, 1, (number, 2)) * np.maximum((WIDTH, HEIGHT) - size, 1)
    return np.concatenate([corner, size], 1)


def masks(found: np.ndarray) -> list[dict[str, Any]]:
    rles = mask_api.frPyObjects(np.ascontiguousarray(found), HEIGHT, WIDTH)
    return [{"size": r["size"], "counts": r["counts"].decode()} for r in rles]


def frequency(classes: int) -> np.ndarray:
    shares = 1 / np.arange(1, classes + 1) ** 0.9
    return shares / shares.sum()


def drawn_instances(folder: Path, images: int, seed: int) -> tuple[Drawn, list[Path]]:
    """Truth, and the results of two detectors that agree on much."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results: tuple[list[dict[str, Any]], ...] = ([], [])
    for image in range(1, images + 1):
        number = int(rng.poisson(TRUTHS))
        truth, category = boxes(rng, number), rng.choice(CLASSES, number, p=frequency(CLASSES)) + 1
        for rle, c in zip(masks(truth) if number else [], category.tolist(), strict=True):
            annotations.append({
                "id": len(annotations) + 1, "image_id": image, "category_id": c, "segmentation": rle, "iscrowd": int(rng.random() < 0.01),
                "area": float(mask_api.area(rle)), "bbox": [0, 0, 1, 1],
            })  # fmt: skip
        seen = np.flatnonzero(rng.random(number) < 0.85)
        difficulty = rng.uniform(0.02, 0.25, len(seen))[:, None]
        others = boxes(rng, FOUND - len(seen)), rng.choice(CLASSES, FOUND - len(seen), p=frequency(CLASSES)) + 1
        for entries in results:
            near = truth[seen] + difficulty * truth[seen][:, 2:].repeat(2, 1) * rng.normal(0, 0.6, (len(seen), 4))
            where = np.concatenate([np.maximum(near, 1), others[0]])
            score = np.concatenate([rng.beta(5, 2, len(seen)), rng.beta(1, 6, len(others[0]))])
            classes = np.concatenate([category[seen], others[1]])
            for rle, c, s in zip(masks(where), classes.tolist(), score.tolist(), strict=True):
                entries.append({"image_id": image, "category_id": c, "segmentation": rle, "score": s})
    categories = [{"id": k, "name": f"class {k - 1}"} for k in range(1, CLASSES + 1)]
    sizes = [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)]
    paths = [folder / "a.json", folder / "b.json"]
    for path, entries in zip(paths, results, strict=True):
        path.write_text(json.dumps(entries))
    return Drawn({"images": sizes, "annotations": annotations, "categories": categories}), paths


def panoptic(images: int, seed: int, classes: int = 133) -> PanopticStatistics:
    rng = np.random.default_rng(seed)
    truth = rng.poisson(11 * frequency(classes), (images, classes))
    tp = rng.binomial(truth, 0.7)
    counts = np.stack([tp, rng.poisson(3 * frequency(classes), tp.shape), truth - tp, tp * rng.uniform(0.6, 0.95, tp.shape)], 1)
    names = tuple(f"class {k}" for k in range(classes))
    ids = tuple(range(images))
    return PanopticStatistics(ids, QUALITY, PARTS, names, truth, tp, counts, np.arange(classes) < 80)


def semantic(images: int, seed: int, classes: int = 150) -> SemanticStatistics:
    rng = np.random.default_rng(seed)
    truth = rng.integers(1, 60_000, (images, classes)) * (rng.random((images, classes)) < np.minimum(1, 9 * frequency(classes)))
    hits = rng.binomial(truth, 0.8)
    counts = np.stack([hits, truth, hits + rng.binomial(truth, 0.15)], 1).astype(np.int64)
    names = tuple(f"class {k}" for k in range(classes))
    return SemanticStatistics(tuple(range(images)), FIGURES, ("IoU", "accuracy"), names, truth, hits, counts, "present")


def measure(name: str, pair: Sequence[ImageStatistics], resamples: int) -> tuple[float, np.ndarray]:
    """Prints a line; seconds of processor time, and the resampled figures of the first run."""
    started, worked = time.perf_counter(), time.process_time()
    first, _ = bootstrap(pair, resamples=resamples, seed=0)
    wall, busy = time.perf_counter() - started, time.process_time() - worked
    figures = first.overall.shape[1] + first.by_class[0].size
    print(f"{name:<24}{len(pair[0].image_ids):>8}{len(pair[0].categories):>9}{figures:>9}{wall:>9.1f}{busy:>9.1f}", flush=True)
    return busy, first.overall


def by_pycocotools(dataset: Drawn, path: Path, images: int) -> tuple[float, list[float]]:
    """Seconds of processor time of one ``accumulate`` of a resample, the mean over a few, and AP of each in percent."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(*pycocotools_pair(dataset.coco_truth(), path), "segm")
        evaluation.evaluate()
        table = np.empty(len(evaluation.evalImgs), object)
        table[:] = evaluation.evalImgs
        by_image = table.reshape(-1, images)
        found, seconds = [], 0.0
        for counts in draw(images, EXTRAPOLATED, 0):
            started = time.process_time()
            evaluation.evalImgs = by_image[:, np.repeat(np.arange(images), counts)].ravel().tolist()
            evaluation.accumulate()
            seconds += time.process_time() - started
            precision = evaluation.eval["precision"][..., 0, 2]
            found.append(100 * float(precision[precision > -1].mean()))
    return seconds / EXTRAPOLATED, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    facts = describe_environment()
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "pycocotools", "hotcoco"))
    print(f"{facts['processor']}, {facts['cpu_count']} cores, Python {platform.python_version()}, {versions}")
    print(f"load before {os.getloadavg()[0]:.1f}; {args.resamples} paired resamples of two runs")
    with tempfile.TemporaryDirectory() as name:
        dataset, paths = drawn_instances(Path(name), args.images, 0)
        ids = [e.image_id for e in dataset.examples()]
        started = time.perf_counter()
        # One run at a time: the dataset keeps what was matched last.
        pair = [CocoAP().statistics(dataset, Predictions(instances=path), ids, ScoringRules()) for path in paths]
        print(f"matching two runs' instances with the truth, once: {time.perf_counter() - started:.1f} s")
        print(f"{'':<24}{'images':>8}{'classes':>9}{'figures':>9}{'seconds':>9}{'cpu s':>9}")
        busy, resampled = measure("AP", pair, args.resamples)
        measure("PQ", [panoptic(args.images, 1), panoptic(args.images, 2)], args.resamples)
        measure("mIoU", [semantic(args.images, 3), semantic(args.images, 4)], args.resamples)
        each, official = by_pycocotools(dataset, paths[0], args.images)
    np.testing.assert_allclose(resampled[1 : 1 + EXTRAPOLATED, 0], official, rtol=0, atol=1e-9)
    total = 2 * args.resamples * each
    print(f"pycocotools' accumulate: {each:.2f} cpu s for one resample of one run, the mean of {EXTRAPOLATED}; AP equal to 1e-9")
    print(f"extrapolated to the {2 * args.resamples} above: {total:.0f} cpu s, {total / busy:.0f} times ours")


if __name__ == "__main__":
    main()
