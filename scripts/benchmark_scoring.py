"""Scoring against the official programs: ratios from one run, equal workers on both sides, figures equal to 1e-9.

    python scripts/benchmark_scoring.py --photos DIR    # DIR: folder with COCO's val2017 and annotations/panoptic_val2017.json; optional

1. Panoptic quality against panopticapi (where installed) and cityscapesScripts' evaluator: 1 worker, and 2.
2. Semantic maps against the official Cityscapes pixel-level script as it runs by default, and without its instance-level score;
   and hotcoco's SemanticEval. The script knows one worker only.
3. Cityscapes' instance AP against the official script, from text files and PNGs and from COCO results as a run keeps them.

Truth and predictions are drawn as polygons, 40 to 70 regions and 30 to 60 instances an image, like Cityscapes' own annotations, and
written by Pillow with its defaults as Cityscapes' own tools do. Noise instead would make PNGs slow to decode, for both sides. Programs
take turns; figures are medians over the rounds, wall time and processor time of this process and its children.
"""

import argparse
import contextlib
import copy
import importlib
import importlib.metadata
import importlib.util
import io
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hotcoco.mask
import hotcoco.semantic
import numpy as np
from PIL import Image, ImageDraw

import m2fbench
from m2fbench import files
from m2fbench.datasets.cityscapes import Cityscapes, CityscapesOptions
from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.environment import describe_environment
from m2fbench.formats import cityscapes_instances, png
from m2fbench.formats.label_png import encode_labels
from m2fbench.formats.names import file_stem
from m2fbench.formats.panoptic import document, encode_ids, to_annotation
from m2fbench.metrics import cityscapes_ap, cityscapes_iou, panoptic_quality, semantic_iou
from m2fbench.metrics.cityscapes_official import _on_this_numpy
from m2fbench.peers import peer_predictions
from m2fbench.types import Category, Dataset, Example, PanopticMap, Predictions, ScoringRules, Segment

STUFF = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23)
THINGS = (24, 25, 26, 27, 28, 31, 32, 33)
OFTEN = (0.25, 0.05, 0.45, 0.03, 0.03, 0.02, 0.04, 0.13)  # of the things
Shape = tuple[int, int | None, np.ndarray]  # label id, instance number, corners [N, 2]


SUITE = """
suite: scoring
title: scoring
task: semantic
dataset: {name: cityscapes}
protocol: {min_size: 1, max_size: 1, mean_iou: union}
metrics: [cityscapes_iou]
checkpoints: [{name: x, unavailable: only scored}]
"""


def cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def compare(
    title: str, rounds: int, images: int, ours: str, candidates: dict[str, Callable[[], Sequence[float]]], same: bool = True
) -> None:
    """Run them in turn and print a table; ``same``: all must give the same figures."""
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    busy: dict[str, list[float]] = {name: [] for name in candidates}
    figures = {}
    for number in range(rounds + 1):
        for name, call in candidates.items():
            started, worked = time.perf_counter(), cpu()
            figures[name] = call()
            if number:  # the first round warms up
                wall[name].append(1000 * (time.perf_counter() - started) / images)
                busy[name].append(1000 * (cpu() - worked) / images)
    if same:
        for values in figures.values():
            np.testing.assert_allclose(values, figures[ours], rtol=0, atol=1e-9)
    print(f"\n{title}\n\n| program | wall, ms an image | ratio | processor, ms an image | ratio |\n|---|---:|---:|---:|---:|")
    median = statistics.median
    for name in candidates:
        print(
            f"| {name} | {median(wall[name]):.2f} | {median(wall[name]) / median(wall[ours]):.2f} "
            f"| {median(busy[name]):.2f} | {median(busy[name]) / median(busy[ours]):.2f} |"
        )


def outline(rng: np.random.Generator, x: float, y: float, rx: float, ry: float, corners: int) -> np.ndarray:
    angle = np.sort(rng.uniform(0, 2 * np.pi, corners))
    radius = 1 + 0.15 * rng.normal(size=corners)
    return np.stack([x + rx * radius * np.cos(angle), y + ry * radius * np.sin(angle)], 1)


def scene(rng: np.random.Generator, width: int, height: int, regions: tuple[int, int], instances: tuple[int, int]) -> list[Shape]:
    unit = height / 1024
    shapes: list[Shape] = []
    for _ in range(rng.integers(*regions)):
        rx, ry = np.exp(rng.uniform(np.log((15, 20)), np.log((400, 200)))) * unit
        at = rng.uniform((0, 0.1 * height), (width, 0.7 * height))
        shapes.append((int(rng.choice((*STUFF, 1, 3, 4, 5))), None, outline(rng, *at, rx, ry, int(rng.integers(8, 60)))))
    shapes.sort(key=lambda s: -np.ptp(s[2], 0).prod())
    for number in range(rng.integers(*instances)):
        label = int(rng.choice(THINGS, p=OFTEN))
        size = np.exp(rng.uniform(np.log(8), np.log(120))) * unit
        at = rng.uniform((0, 0.37 * height), (width, 0.6 * height))
        slim = 0.4 if label in (24, 25) else 1.2
        shapes.append((label, number, outline(rng, *at, size * slim, size, int(rng.integers(12, 40)))))
    return shapes


def predicted(rng: np.random.Generator, shapes: Sequence[Shape]) -> list[Shape]:
    """The shapes as a model might see them: a tenth missing, a tenth of another class, outlines that waver."""
    found: list[Shape] = []
    for label, number, corners in shapes:
        if rng.random() < 0.1:
            continue
        dense = (corners[:, None] + (np.roll(corners, -1, 0) - corners)[:, None] * np.arange(4)[:, None] / 4).reshape(-1, 2)
        other = (STUFF if number is None else THINGS) if rng.random() < 0.1 else (label,)
        found.append((int(rng.choice(other)), number, dense + rng.normal(0, 2 if number is None else 1, dense.shape)))
    return found


def draw(shapes: Sequence[Shape], width: int, height: int) -> np.ndarray:
    """Instance ids as Cityscapes has them, int32 [H, W]: sky, road, the shapes, and the bonnet of the car."""
    image = Image.new("I", (width, height), 4)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, width, 0.4 * height), fill=23)
    road = ((0, 1), (0, 0.6), (0.45, 0.4), (0.55, 0.4), (1, 0.6), (1, 1))
    pen.polygon([(x * width, y * height) for x, y in road], fill=7)
    for label, number, corners in shapes:
        pen.polygon([tuple(corner) for corner in corners], fill=label if number is None else 1000 * label + number)
    pen.rectangle((0, 0.94 * height, width, height), fill=1)
    return np.array(image, np.int32)


def city(folder: Path, images: int) -> list[list[Shape]]:
    """A Cityscapes folder with predicted label maps beside it; what was predicted."""
    rng, seen = np.random.default_rng(0), []
    places = [folder / "leftImg8bit/val/frankfurt", folder / "gtFine/val/frankfurt", folder / "semantic"]
    for place in places:
        place.mkdir(parents=True)
    for number in range(images):
        stem, shapes = f"frankfurt_000000_{number:06d}", scene(rng, 2048, 1024, (40, 70), (30, 60))
        ids = draw(shapes, 2048, 1024)
        Image.new("RGB", (2048, 1024)).save(places[0] / f"{stem}_leftImg8bit.png", compress_level=1)
        Image.fromarray(ids.astype(np.uint16)).save(places[1] / f"{stem}_gtFine_instanceIds.png")
        Image.fromarray(labels_of(ids)).save(places[1] / f"{stem}_gtFine_labelIds.png")
        seen.append(predicted(rng, shapes))
        Image.fromarray(labels_of(draw(seen[-1], 2048, 1024))).save(places[2] / f"{stem}.png")
    return seen


def labels_of(ids: np.ndarray) -> np.ndarray:
    return np.where(ids < 1000, ids, ids // 1000).astype(np.uint8)


def workers(count: int) -> None:
    files.WORKERS = count


def semantic(folder: Path, dataset: Any, rounds: int) -> None:
    script = importlib.import_module("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    ids = [example.image_id for example in dataset.examples()]
    maps = {i: folder / "semantic" / f"{i}.png" for i in ids}
    as_kept = {i: folder / "kept" / f"{i}.png" for i in ids}  # by a run of m2fbench
    (folder / "kept").mkdir()
    for i, path in as_kept.items():
        path.write_bytes(encode_labels(np.asarray(Image.open(maps[i]))))
    truth = [str(folder / "gtFine/val/frankfurt" / f"{i}_gtFine_labelIds.png") for i in ids]
    options = copy.copy(script.args)
    options.JSONOutput, options.quiet = False, True

    def official(instances: bool, found: dict[Any, Path] = maps) -> dict[str, Any]:
        options.evalInstLevelScore = instances
        with _on_this_numpy(script):
            return script.evaluateImgLists([str(path) for path in found.values()], truth, options)

    def means(scores: dict[str, Any]) -> list[float]:
        kinds = ("averageScoreClasses", "averageScoreCategories", "averageScoreInstClasses", "averageScoreInstCategories")
        return [100 * scores[kind] for kind in kinds]

    def ours(metric: Any, figures: int, found: dict[Any, Path] = maps) -> list[float]:
        return [m.value for m in metric.score(dataset, Predictions(semantic=found), ids, ScoringRules("union"))[:figures]]

    def hot() -> list[float]:
        evaluation = hotcoco.semantic.SemanticEval(34, ignore_index=None)
        for true, found in zip(truth, maps.values(), strict=True):
            evaluation.update_png(true, str(found))
        return [0.0]

    workers(1)

    def first(metric: Any, figures: int, found: dict[Any, Path] = maps) -> list[float]:
        opened = Cityscapes(CityscapesOptions(), folder, "semantic")
        return [m.value for m in metric.score(opened, Predictions(semantic=found), ids, ScoringRules("union"))[:figures]]

    suite = folder / "suite.yaml"
    suite.write_text(SUITE)

    def whole() -> list[float]:
        result = m2fbench.score(suite, folder / "semantic", data=folder)
        return [result.value(name) for name in cityscapes_iou.CityscapesIoU.names]

    title = "Semantic, 2048x1024, IoU and iIoU: the script as it runs by default, 1 worker"
    compare(f"{title}, predictions as a run keeps them", rounds, len(ids), "m2fbench cityscapes_iou", {
        "official script": lambda: means(official(True, as_kept)),
        "m2fbench cityscapes_iou": lambda: ours(cityscapes_iou.CityscapesIoU(), 4, as_kept),
        "the same, truth not decoded yet": lambda: first(cityscapes_iou.CityscapesIoU(), 4, as_kept),
    })  # fmt: skip
    compare(f"{title}, predictions written by Pillow", rounds, len(ids), "m2fbench cityscapes_iou", {
        "official script": lambda: means(official(True)),
        "m2fbench cityscapes_iou": lambda: ours(cityscapes_iou.CityscapesIoU(), 4),
        "the same, truth not decoded yet": lambda: first(cityscapes_iou.CityscapesIoU(), 4),
        "m2fbench score: opening, checking truth and predictions, scoring": whole,
    })  # fmt: skip
    compare("Semantic, 2048x1024, IoU alone, 1 worker", rounds, len(ids), "m2fbench semantic_iou", {
        "official script without instance scores": lambda: means(official(False))[:1],
        "m2fbench semantic_iou": lambda: ours(semantic_iou.SemanticIoU(), 1),
        "the same, truth not decoded yet": lambda: first(semantic_iou.SemanticIoU(), 1),
    })  # fmt: skip
    compare("For information: hotcoco counting the same files, all 34 labels", rounds, len(ids), "m2fbench semantic_iou", {
        "hotcoco SemanticEval": hot, "m2fbench semantic_iou": lambda: ours(semantic_iou.SemanticIoU(), 1),
    }, same=False)  # fmt: skip


def instances(folder: Path, dataset: Any, seen: Sequence[Sequence[Shape]], rounds: int) -> None:
    """The predicted things as text files and PNGs, and as COCO results."""
    from cityscapesscripts.evaluation.instances2dict import instances2dict

    script = importlib.import_module("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
    rng, results = np.random.default_rng(1), []
    for example, shapes in zip(dataset.examples(), seen, strict=True):
        entries = []
        for label, _, corners in (s for s in shapes if s[1] is not None):
            mask = Image.new("L", (2048, 1024))
            ImageDraw.Draw(mask).polygon([tuple(c) for c in corners], fill=1)
            counts = hotcoco.mask.encode(np.asfortranarray(mask))["counts"].decode()
            entries.append({"image_id": example.image_id, "category_id": label, "score": round(float(rng.random()), 3),
                            "segmentation": {"size": [1024, 2048], "counts": counts}})  # fmt: skip
        cityscapes_instances.write(folder / "instances", example.image_id, entries)
        results += entries
    (folder / "predictions.json").write_text(json.dumps(results))
    ids = [example.image_id for example in dataset.examples()]
    truth = [str(folder / "gtFine/val/frankfurt" / f"{i}_gtFine_instanceIds.png") for i in ids]
    texts = [str(folder / "instances" / f"{i}_pred.txt") for i in ids]

    def official() -> list[float]:
        args = copy.copy(script.args)
        args.quiet, args.distanceAvailable, args.JSONOutput, args.predictionPath = (
            True,
            False,
            False,
            str((folder / "instances").resolve()),
        )
        script.setInstanceLabels(args)
        known = instances2dict(truth, False)
        matches = script.matchGtWithPreds(texts, truth, known, args)
        averages = script.computeAverages(script.evaluateMatches(matches, args), args)
        return [100 * averages["allAp"], 100 * averages["allAp50%"]]

    def ours(predictions: Predictions) -> list[float]:
        return [m.value for m in cityscapes_ap.CityscapesAP().score(dataset, predictions, ids, ScoringRules())[:2]]

    def files() -> list[float]:
        with tempfile.TemporaryDirectory() as scratch:
            return ours(peer_predictions(folder / "instances", dataset, ["instance"], ids, Path(scratch)))

    workers(1)
    with in1d():
        compare("Cityscapes instance AP, 2048x1024, 1 worker", rounds, len(ids), "m2fbench, txt and PNG files", {
            "official script": official, "m2fbench, txt and PNG files": files,
            "m2fbench, a run's predictions": lambda: ours(Predictions(instances=folder / "predictions.json")),
        })  # fmt: skip


@contextlib.contextmanager
def in1d() -> Any:
    """numpy 2.4 no longer has a function that the script calls."""
    missing = not hasattr(np, "in1d")
    if missing:
        np.in1d = np.isin  # type: ignore[attr-defined]
    yield
    if missing:
        del np.in1d  # type: ignore[attr-defined]


def panoptic_map(ids: np.ndarray) -> PanopticMap:
    values = [int(v) for v in np.unique(ids) if v >= 7]
    index = {label: k for k, label in enumerate((*STUFF, *THINGS))}
    clean = np.where(ids >= 7, ids, 0).astype(np.int32)
    return PanopticMap(clean, tuple(Segment(v, index[v if v < 1000 else v // 1000]) for v in values))


def drawn_panoptic(folder: Path, images: int) -> tuple[Dataset, Path, Path, Path]:
    """COCO-like files, 640x480 with 10 to 20 regions and 3 to 15 things; truth as Pillow writes it, predictions as a run does."""
    rng = np.random.default_rng(2)
    (folder / "images").mkdir(parents=True)
    categories = {i: Category(str(i), i in THINGS) for i in (*STUFF, *THINGS)}
    examples, truth, found = [], [], []
    for name in ("truth", "predictions"):
        (folder / name).mkdir()
    for number in range(1, images + 1):
        shapes = scene(rng, 640, 480, (10, 20), (3, 15))
        maps = [panoptic_map(draw(s, 640, 480)) for s in (shapes, predicted(rng, shapes))]
        stem = file_stem(number)
        colours = np.ascontiguousarray(maps[0].ids, "<u4").view(np.uint8).reshape(480, 640, 4)[..., :3]
        Image.fromarray(np.ascontiguousarray(colours)).save(folder / "truth" / f"{stem}.png")
        (folder / "predictions" / f"{stem}.png").write_bytes(encode_ids(maps[1].ids))
        examples.append(Example(number, (480, 640), f"{stem}.jpg"))
        for annotations, one in ((truth, maps[0]), (found, maps[1])):
            annotations.append(to_annotation(number, f"{stem}.png", one, list(categories)))
    for name, annotations in (("truth", truth), ("predictions", found)):
        (folder / f"{name}.json").write_text(json.dumps(document(examples, annotations, categories)))
    options = CocoPanopticOptions(annotations=str(folder / "truth.json"), images=str(folder / "images"), instances=None)
    return CocoPanoptic(options, None), folder / "truth.json", folder / "truth", folder / "predictions"


def real_panoptic(root: Path, folder: Path) -> tuple[Dataset, Path, Path, Path]:
    """COCO's own truth; as predictions the truth moved by a few pixels, a tenth of the segments missing."""
    dataset = CocoPanoptic(CocoPanopticOptions(), root)
    rng, found = np.random.default_rng(3), []
    (folder / "predictions").mkdir(parents=True)
    for example in dataset.examples():
        truth = dataset.panoptic_truth(example)
        ids = np.roll(truth.ids, (3, 4), (0, 1))
        kept = [s for s in truth.segments if rng.random() < 0.9]
        moved = PanopticMap(np.where(np.isin(ids, [s.id for s in kept]), ids, 0).astype(np.int32), tuple(kept))
        moved = PanopticMap(moved.ids, tuple(Segment(s.id, s.category) for s in kept))
        name = f"{file_stem(example.image_id)}.png"
        (folder / "predictions" / name).write_bytes(encode_ids(moved.ids))
        found.append(to_annotation(example.image_id, name, moved, dataset.category_ids))
    (folder / "predictions.json").write_text(json.dumps({"annotations": found}))
    annotations = root / "annotations"
    return dataset, annotations / "panoptic_val2017.json", annotations / "panoptic_val2017", folder / "predictions"


def in_processes(program: Any, pairs: Sequence[Any], truth: Path, found: Path, categories: Any, count: int) -> Any:
    """Its own way of sharing the work, with ``count`` processes rather than one per processor."""
    if count == 1:
        return program.pq_compute_single_core(0, pairs, str(truth), str(found), categories)
    with multiprocessing.get_context("fork").Pool(count) as pool:
        parts = [
            pool.apply_async(program.pq_compute_single_core, (k, pairs[k::count], str(truth), str(found), categories))
            for k in range(count)
        ]
        total = program.PQStat()
        for part in parts:
            total += part.get()
        pool.close()
        pool.join()
    return total


def panoptic(title: str, made: tuple[Dataset, Path, Path, Path], rounds: int, count: int) -> None:
    dataset, truth, maps, found = made
    modules = {
        "panopticapi": "panopticapi.evaluation",
        "cityscapesScripts": "cityscapesscripts.evaluation.evalPanopticSemanticLabeling",
    }
    programs = {name: importlib.import_module(m) for name, m in modules.items() if importlib.util.find_spec(m.split(".")[0])}
    ids = [example.image_id for example in dataset.examples()]
    file = found.with_name("predictions.json")

    def official(program: Any, count: int) -> list[float]:
        content, results = json.loads(truth.read_bytes()), json.loads(file.read_bytes())
        categories, known = {c["id"]: c for c in content["categories"]}, {a["image_id"]: a for a in content["annotations"]}
        pairs = [(known[a["image_id"]], a) for a in results["annotations"]]
        with contextlib.redirect_stdout(io.StringIO()):
            total = in_processes(program, pairs, maps, found, categories, count)
        return [
            100 * total.pq_average(categories, things)[0][part] for things in (None, True, False) for part in ("pq", "sq", "rq")
        ]

    def ours() -> list[float]:
        predictions = Predictions(panoptic=file, panoptic_folder=found)
        return [m.value for m in panoptic_quality.PanopticQuality().score(dataset, predictions, ids, ScoringRules())[:9]]

    workers(count)
    theirs = {name: lambda p=program: official(p, count) for name, program in programs.items()}
    compare(
        f"{title}, {len(ids)} images, {count} worker{'s' * (count > 1)} on each side",
        rounds,
        len(ids),
        "m2fbench",
        theirs | {"m2fbench": ours},
    )


def in_each_setting(title: str, made: tuple[Dataset, Path, Path, Path], rounds: int) -> None:
    """1 worker and 2, each in a process of its own: hotcoco takes the number of its threads from the environment, once."""
    for count in (1, 2):
        os.environ["RAYON_NUM_THREADS"] = str(count)
        process = multiprocessing.get_context("spawn").Process(target=panoptic, args=(title, made, rounds, count))
        sys.stdout.flush()
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder with COCO's val2017 and annotations; without it that part is left out")
    parser.add_argument("--images", type=int, default=12, help="drawn Cityscapes images (of the small ones four times as many)")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    facts = describe_environment()
    names = ("cityscapesScripts", "hotcoco", "pillow", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)
    quick = f"imagecodecs {importlib.metadata.version('imagecodecs')}" if png._decoder() else "imagecodecs not installed"
    api = "" if importlib.util.find_spec("panopticapi") else "; panopticapi not installed"
    print(f"{facts['processor']}, {facts['cpu_count']} cores, Python {platform.python_version()}, {versions}, {quick}{api}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_each_setting("PQ, drawn maps of 640x480", drawn_panoptic(folder / "drawn", 4 * args.images), args.rounds)
        if args.photos:
            in_each_setting("PQ, COCO's own truth", real_panoptic(args.photos, folder / "real"), args.rounds)
        seen = city(folder / "city", args.images)
        semantic(folder / "city", Cityscapes(CityscapesOptions(), folder / "city", "semantic"), args.rounds)
        instances(folder / "city", Cityscapes(CityscapesOptions(), folder / "city", "instance"), seen, max(2, args.rounds // 3))


if __name__ == "__main__":
    main()
