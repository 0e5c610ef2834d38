"""m2fbench's own speed, as ratios measured side by side in one run, with fixed threads and absolute times beside them.

    python scripts/benchmark_speed.py                       # scoring, about two minutes
    python scripts/benchmark_speed.py --photos DIR          # and the overhead of a whole run, on 20 photos of DIR

1. Scoring 1000 images x 100 masks, against pycocotools and against hotcoco alone, loading included on every side.
2. Swin-T with random weights at 800/1333: the share of wall time outside forward pass and post-processing.

Post-processing has a script of its own, benchmark_postprocess.py.
"""

import argparse
import contextlib
import io
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
import torch
from PIL import Image

import m2fbench
from m2fbench.datasets.coco_instance import CocoInstance, CocoOptions
from m2fbench.environment import describe_environment
from m2fbench.metrics.coco_ap import CocoAP
from m2fbench.scoring import open_dataset
from m2fbench.store import ImagePredictions, ImageRecord, RunDirectory
from m2fbench.types import Predictions, ScoringRules


def milliseconds(rounds: int, **candidates: Callable[[], object]) -> dict[str, float]:
    """Median milliseconds of each candidate; they take turns, so that a machine that drifts drifts for all."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            started = time.perf_counter()
            call()
            if number:  # the first round warms up
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def report(title: str, times: dict[str, float], reference: str) -> None:
    print(f"\n{title}")
    for name, value in times.items():
        print(f"  {name:<44} {value:10.1f} ms   {value / times[reference]:6.2f} x {reference}")


def scoring(rounds: int, images: int = 1000, masks: int = 100) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        truth, predictions = made_up(folder, images, masks)

        def official() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                known = COCO(str(truth))
                evaluation = COCOeval(known, known.loadRes(str(predictions)), "segm")
                evaluation.evaluate()
                evaluation.accumulate()
                evaluation.summarize()
            return evaluation.stats

        def alone() -> Any:
            with contextlib.redirect_stdout(io.StringIO()):
                known = hotcoco.COCO(str(truth))
                evaluation = hotcoco.COCOeval(known, known.load_res(str(predictions)), "segm")
                evaluation.run()
            return evaluation.stats

        def ours() -> Any:
            dataset = CocoInstance(CocoOptions(annotations=str(truth), images=str(folder)), None)
            score = CocoAP().score(
                dataset, Predictions(instances=predictions), [e.image_id for e in dataset.examples()], ScoringRules()
            )
            return np.array([m.value / 100 for m in score[:12]])

        suite = folder / "suite.yaml"
        suite.write_text(
            f"suite: scoring\ntitle: scoring\ntask: instance\nmetrics: [coco_ap]\nprotocol: {{min_size: 1, max_size: 1}}\n"
            f"dataset: {{name: coco_instance, annotations: {truth}, images: {folder}}}\ncheckpoints: [{{name: x, unavailable: x}}]\n"
        )
        run = as_run(folder / "run", suite, predictions)

        def whole(source: Path) -> Any:
            return np.array([m.value / 100 for m in m2fbench.score(suite, source).measurements[:12]])

        for figures in (ours(), whole(run), whole(predictions)):
            np.testing.assert_allclose(figures, official(), rtol=0, atol=1e-11)
        times = milliseconds(
            rounds,
            **{
                "hotcoco alone": alone,
                "m2fbench": ours,
                "m2fbench score, a run directory": lambda: whole(run),
                "m2fbench score, anyone's file, checked": lambda: whole(predictions),
            },
        )
        times |= milliseconds(1, pycocotools=official)
        size = predictions.stat().st_size / 2**20
        report(
            f"Scoring {images} images x {masks} masks ({size:.0f} MiB of predictions), loading included, figures equal",
            times,
            "m2fbench",
        )
        print(f"  m2fbench takes {times['m2fbench'] / times['hotcoco alone']:.2f} times hotcoco's time")


def as_run(folder: Path, suite: Path, predictions: Path) -> Path:
    """The predictions as a finished run of the suite has them."""
    dataset = open_dataset(m2fbench.load_suite(suite), None)
    by_image: dict[Any, list[Any]] = {}
    for entry in json.loads(predictions.read_bytes()):
        by_image.setdefault(entry["image_id"], []).append(entry)
    order = [e.image_id for e in dataset.examples()]
    with RunDirectory(folder, {"dataset": dataset.fingerprint()}) as store:
        for image_id in order:
            store.append(ImageRecord(image_id, 480, 640, len(by_image[image_id]), "", {}), ImagePredictions(by_image[image_id]))
        store.export(order)
        store.write_table(order)
    return folder


def made_up(folder: Path, images: int, masks: int) -> tuple[Path, Path]:
    """Truth of seven blobs an image, and predictions around them and elsewhere, in COCO's files; 480x640, 80 classes."""
    rng = np.random.default_rng(0)
    truth: dict[str, Any] = {"images": [], "annotations": [], "categories": [{"id": c, "name": f"c{c}"} for c in range(1, 81)]}
    results = []
    for image in range(1, images + 1):
        truth["images"].append({"id": image, "file_name": f"{image}.jpg", "height": 480, "width": 640})
        centres = rng.uniform((0, 0, 8, 8), (480, 640, 120, 120), (masks, 4))
        near = rng.integers(0, 7, masks)
        centres[7:] = np.where(rng.random((masks - 7, 1)) < 0.6, centres[near[7:]] + rng.normal(0, 4, (masks - 7, 4)), centres[7:])
        centres = centres.clip((0, 0, 4, 4), (479, 639, 240, 320))
        rles = [hotcoco.mask.encode(blob(*centre, k)) for k, centre in enumerate(centres)]
        areas = hotcoco.mask.area(rles)
        classes = rng.integers(1, 81, masks)
        classes[7:] = np.where(rng.random(masks - 7) < 0.6, classes[near[7:]], classes[7:])
        for k, rle in enumerate(rles):
            segmentation = {"size": list(rle["size"]), "counts": rle["counts"].decode()}
            if k < 7:
                truth["annotations"].append({
                    "id": len(truth["annotations"]) + 1, "image_id": image, "category_id": int(classes[k]), "iscrowd": int(rng.random() < 0.02),
                    "area": int(areas[k]), "bbox": [0, 0, 1, 1], "segmentation": segmentation,
                })  # fmt: skip
            results.append(
                {"image_id": image, "category_id": int(classes[k]), "segmentation": segmentation, "score": float(rng.random())}
            )
    (folder / "truth.json").write_text(json.dumps(truth))
    (folder / "predictions.json").write_text(json.dumps(results))
    return folder / "truth.json", folder / "predictions.json"


def blob(cy: float, cx: float, ry: float, rx: float, petals: int) -> np.ndarray:
    """uint8 [480, 640], an ellipse with a wavy rim, drawn inside its own box only."""
    mask = np.zeros((480, 640), np.uint8, order="F")
    top, left = max(0, int(cy - 1.1 * ry)), max(0, int(cx - 1.1 * rx))
    y, x = np.mgrid[top : min(480, int(cy + 1.1 * ry) + 1), left : min(640, int(cx + 1.1 * rx) + 1)]
    wobble = 1 + 0.1 * np.sin(5 * np.arctan2(y - cy, x - cx) + petals)
    mask[top : top + y.shape[0], left : left + y.shape[1]] = ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 < wobble
    return mask


def overhead(photos: Path, count: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = sorted(photos.glob("*.jpg"))[:count]
        sizes = [Image.open(path).size for path in paths]
        images = [
            {"id": k, "file_name": path.name, "height": size[1], "width": size[0]}
            for k, (path, size) in enumerate(zip(paths, sizes, strict=True), 1)
        ]
        labels = [f"class {k}" for k in range(80)]
        truth = {"images": images, "annotations": [], "categories": [{"id": k + 1, "name": n} for k, n in enumerate(labels)]}
        (folder / "truth.json").write_text(json.dumps(truth))
        swin_t(folder / "swin-t", labels)
        suite = folder / "suite.yaml"
        suite.write_text(
            f"suite: overhead\ntitle: overhead\ntask: instance\nmetrics: [coco_ap]\n"
            f"dataset: {{name: coco_instance, annotations: {folder}/truth.json, images: {photos}}}\n"
            f"protocol: {{min_size: 800, max_size: 1333}}\ncheckpoints: [{{name: swin-t, checkpoint: {folder}/swin-t}}]\n"
        )
        marks: dict[str, list[float]] = {}

        def listen(event: Any) -> None:
            marks.setdefault(event.kind, []).append(time.perf_counter())

        started = time.perf_counter()
        (result,) = m2fbench.run(suite, output=folder / "runs", listener=listen)
        total = time.perf_counter() - started
        inside = result.timings["forward"] + result.timings["postprocess"]
        loop = marks["image"][-1] - marks["image"][0]
        print(f"\nA whole run: Swin-T, random weights, 800/1333, {len(paths)} photos")
        print(f"  forward + post-processing {inside:8.2f} s   ({1000 * inside / len(paths):.0f} ms an image)")
        print(f"  from loading weights to the last image {loop:8.2f} s   {100 * (1 - inside / loop):.2f} % outside")
        print(f"  whole run, imports, hashing and scoring included {total:8.2f} s   {100 * (1 - inside / total):.2f} % outside")
        print(
            f"  waited for images {result.timings['wait']:.2f} s in all; their decoding took {result.timings['load']:.2f} s in the workers"
        )


def swin_t(folder: Path, labels: list[str]) -> None:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    backbone = SwinConfig(
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=backbone, id2label=dict(enumerate(labels)), label2id={n: k for k, n in enumerate(labels)}
    )
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of JPEG photos for the second part; without it that part is left out")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    facts = describe_environment()
    libraries = ", ".join(
        f"{name} {facts['libraries'][name]}" for name in ("torch", "transformers", "hotcoco", "pycocotools", "numpy")
    )
    print(
        f"{facts['processor']}, {facts['cpu_count']} cores, {args.threads} torch threads, Python {platform.python_version()}, {libraries}"
    )
    scoring(max(3, args.rounds // 2))
    if args.photos:
        overhead(args.photos, args.count)


if __name__ == "__main__":
    main()
