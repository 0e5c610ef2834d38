"""The variants side by side at the paper's sizes: random weights, real photos, image by image in turns.

    python scripts/benchmark_variants.py --photos DIR --backbone swin-t --count 12

Speed depends on shapes, not on weights, so random ones do; accuracy under random weights means nothing and is not printed. For accuracy beside
speed see ``m2fbench speed shapes_variants`` (the bundled checkpoint), or any suite over checkpoints with weights.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from PIL import Image
from rich.console import Console
from rich.text import Text

import m2fbench
from m2fbench.models.architecture import architecture_of
from m2fbench.planning import Event
from m2fbench.reporting.terminal.costs import speed_tables
from m2fbench.results import RunResult
from m2fbench.speed import SpeedRequest

BACKBONES = {
    "r50": "R50",
    "r101": "R101",
    "swin-t": "Swin-T",
    "swin-s": "Swin-S",
    "swin-b": "Swin-B-IN21k",
    "swin-l": "Swin-L-IN21k",
}
VARIANTS = (
    "{name: float32}",
    "{name: tf32, tf32: true}",
    "{name: bfloat16, autocast: bfloat16}",
    "{name: float16, autocast: float16}",
    "{name: channels-last, channels_last: true}",
    "{name: eager, attention: eager}",
    "{name: fuse, fuse: true}",
    "{name: lean, lean: true}",
    "{name: lean-bfloat16, lean: true, autocast: bfloat16}",
    "{name: compile, compile: true}",
)


def checkpoint(folder: Path, backbone: str, task: str) -> list[str]:
    """A transformers folder with random weights and the architecture of the published checkpoint; its class names."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation

    torch.manual_seed(0)
    architecture = architecture_of(f"zoo:coco/{task}/{BACKBONES[backbone]}")
    config = Mask2FormerConfig(**architecture.config)
    Mask2FormerForUniversalSegmentation(config).save_pretrained(folder)
    return [config.id2label[index] for index in sorted(config.id2label)]


def suite(folder: Path, photos: list[Path], labels: list[str], names: list[str]) -> Path:
    """A COCO instance suite over the photos, without truth."""
    sizes = [Image.open(photo).size for photo in photos]
    images = [
        {"id": k, "file_name": p.name, "width": w, "height": h} for k, (p, (w, h)) in enumerate(zip(photos, sizes, strict=True))
    ]
    truth = {"images": images, "annotations": [], "categories": [{"id": k + 1, "name": name} for k, name in enumerate(labels)]}
    (folder / "truth.json").write_text(json.dumps(truth))
    variants = [
        text for text in VARIANTS if not names or any(f"name: {name}," in text or f"name: {name}}}" in text for name in names)
    ]
    path = folder / "suite.yaml"
    path.write_text(
        f"suite: variants\ntitle: Variants\ntask: instance\nmetrics: [coco_ap]\nmeasure: speed\n"
        f"dataset: {{name: coco_instance, annotations: {folder}/truth.json, images: {photos[0].parent}}}\n"
        f"protocol: {{min_size: 800, max_size: 1333}}\ncheckpoints: [{{name: random, checkpoint: {folder}/checkpoint}}]\n"
        f"variants: [{', '.join(variants)}]\n"
    )
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of JPEG photos")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--backbone", choices=sorted(BACKBONES), default="swin-t")
    parser.add_argument("--variant", action="append", default=[], help="only this one; repeatable")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scope", choices=("paper", "task"), default="task")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    console = Console(width=170, highlight=False, markup=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos = sorted(args.photos.glob("*.jpg"))[: args.count]
        labels = checkpoint(folder / "checkpoint", args.backbone, "instance")

        def listen(event: Event) -> None:
            if event.kind == "unsupported":
                console.print(f"{event.variant}: {event.message}")

        results: list[RunResult] = m2fbench.run(
            suite(folder, photos, labels, args.variant), output=folder / "runs", device=args.device, listener=listen,
            speed=SpeedRequest(scopes=(args.scope,)),
        )  # fmt: skip
        console.print(f"{args.backbone}, random weights, COCO instance configuration, {len(photos)} photos at 800/1333")
        for table in speed_tables(results, console.width):
            console.print(table, soft_wrap=isinstance(table, Text))
        for warning in dict.fromkeys(w for r in results for w in r.warnings):
            console.print(f"warning: {warning}")


if __name__ == "__main__":
    main()
