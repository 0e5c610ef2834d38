"""Train the small Mask2Former that travels with m2fbench, from nothing, on the procedural ``shapes`` scenes.

    python scripts/train_shapes.py --work training            # train; run again to resume after an interruption
    python scripts/train_shapes.py --work training --export m2fbench/assets/shapes_tiny

Panoptic training: every segment, thing or stuff, is one target, so one checkpoint serves instance, panoptic and semantic
suites. Scenes come from the TRAIN stream; weights are chosen by AP on the VALIDATION stream; the TEST stream is for the suite.
"""

import argparse
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig
from validate_shapes import evaluate

from m2fbench.datasets.scenes import CATEGORIES, SIZES, generate
from m2fbench.datasets.shapes import MAX_SIZE, MIN_SIZE, SEEDS
from m2fbench.models.preprocess import normalise, padded_size, resize, resized_size


def config() -> Mask2FormerConfig:
    """About 1.9 million parameters: a ResNet of basic blocks, two encoder layers, five decoder layers, 24 queries."""
    names = {i: c.name for i, c in enumerate(CATEGORIES)}
    backbone = ResNetConfig(
        embedding_size=32, hidden_sizes=[32, 64, 96, 128], depths=[2, 2, 2, 2], layer_type="basic",
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    return Mask2FormerConfig(
        backbone_config=backbone, feature_size=64, mask_feature_size=64, hidden_dim=64, encoder_feedforward_dim=256,
        dim_feedforward=256, encoder_layers=2, decoder_layers=6, num_attention_heads=4, num_queries=24,
        train_num_points=1536, id2label=names, label2id={n: i for i, n in names.items()},
    )  # fmt: skip


def make_scene(index: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...], tuple[int, int]]:
    """Training scene ``index``: resized image, ids at full size, classes, original size."""
    scene = generate(SEEDS["train"], index)
    size = scene.ids.shape
    image = resize(scene.image, resized_size(size, MIN_SIZE, MAX_SIZE))
    return image, scene.ids.astype(np.uint8), scene.classes, size


class Scenes:
    """The training scenes in memory, by image size, so that every batch has one shape."""

    def __init__(self, count: int, workers: int) -> None:
        self.by_size: dict[tuple[int, int], list] = {size: [] for size in SIZES}
        started = time.time()
        with ProcessPoolExecutor(workers) as pool:
            for number, (image, ids, classes, size) in enumerate(pool.map(make_scene, range(count), chunksize=64), 1):
                self.by_size[size].append((image, ids, classes))
                if number % 4000 == 0:
                    print(f"scenes {number}/{count} {time.time() - started:.0f} s", flush=True)

    def batch(self, rng: np.random.Generator, batch_size: int) -> tuple[torch.Tensor, list, list]:
        size = SIZES[rng.integers(len(SIZES))]
        scenes = self.by_size[size]
        resized = resized_size(size, MIN_SIZE, MAX_SIZE)
        padded = padded_size(resized)
        # truth stays at full size: the loss samples points, so its masks need the padding's proportions, not its pixels
        truth_shape = (math.ceil(padded[0] * size[0] / resized[0]), math.ceil(padded[1] * size[1] / resized[1]))
        pixels, masks, classes = [], [], []
        for k in rng.integers(len(scenes), size=batch_size):
            image, ids, labels = scenes[k]
            if rng.random() < 0.5:
                image, ids = image[:, ::-1], ids[:, ::-1]
            gain = rng.uniform(0.85, 1.15, 3)
            image = (image * gain).clip(0, 255).astype(np.uint8)
            pixels.append(normalise(image, padded))
            full = np.zeros(truth_shape, np.uint8)
            full[: size[0], : size[1]] = ids
            numbers = torch.arange(1, len(labels) + 1, dtype=torch.uint8)
            masks.append((torch.from_numpy(full)[None] == numbers[:, None, None]).float())
            classes.append(torch.tensor(labels))
        return torch.cat(pixels), masks, classes


def export(best: Path, folder: Path) -> None:
    """The best weights as a transformers folder, with a processor config that states the sizes they were trained with."""
    Mask2FormerForUniversalSegmentation.from_pretrained(best).save_pretrained(folder)
    processor = {
        "image_processor_type": "Mask2FormerImageProcessor",
        "size": {"shortest_edge": MIN_SIZE, "longest_edge": MAX_SIZE},
        "size_divisor": 32,
        "ignore_index": 255,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("training"), help="folder for the log and the resumable state")
    parser.add_argument("--export", type=Path, help="write the best weights so far to this folder and stop")
    parser.add_argument("--steps", type=int, default=12000)
    parser.add_argument("--batch", type=int, default=12)
    parser.add_argument("--lr", type=float, default=7e-4)
    parser.add_argument("--scenes", type=int, default=24000)
    parser.add_argument("--every", type=int, default=500, help="validate and save each so many steps")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    state_file = args.work / "state.pt"
    if args.export:
        export(args.work / "best", args.export)
        return
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = Mask2FormerForUniversalSegmentation(config()).to(args.device).train()
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW([{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}], lr=args.lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=args.steps, pct_start=0.1)
    step, best = 0, 0.0
    if state_file.exists():
        state = torch.load(state_file, map_location=args.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        step, best = state["step"], state["best"]
    log = (args.work / "log.jsonl").open("a", buffering=1)
    if step == 0:
        head = {"parameters": sum(p.numel() for p in model.parameters()), "torch": torch.__version__}
        print(json.dumps(head | {k: str(v) for k, v in vars(args).items() if k != "work"}), file=log)
    scenes = Scenes(args.scenes, args.threads)
    losses, started, since = [], time.time(), step
    while step < args.steps:
        pixels, masks, classes = scenes.batch(np.random.default_rng((7, step)), args.batch)
        output = model(
            pixels.to(args.device),
            mask_labels=[m.to(args.device) for m in masks],
            class_labels=[c.to(args.device) for c in classes],
        )
        optimizer.zero_grad()
        output.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        step += 1
        losses.append(output.loss.item())
        if step % 100 == 0:
            pace = (time.time() - started) / (step - since)
            print(f"step {step} loss {np.mean(losses):.3f} {pace:.3f} s/step", flush=True)
            losses = losses[-50:]
        if step % args.every == 0 or step == args.steps:
            best = checkpoint(args.work, log, model, optimizer, schedule, step, best, float(np.mean(losses)))
            losses = []


def checkpoint(work: Path, log, model, optimizer, schedule, step: int, best: float, loss: float) -> float:
    """Validate, log, keep the weights if they are the best so far, save the state to resume from; returns the best AP."""
    model.eval()
    figures = evaluate(model, SEEDS["val"], 100)
    model.train()
    record = {"step": step, "loss": round(loss, 3)} | figures
    print(json.dumps(record), file=log)
    print(record, flush=True)
    if figures["AP"] > best:
        best = figures["AP"]
        model.save_pretrained(work / "best")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
    torch.save(state | {"step": step, "best": best}, work / "state.part")
    (work / "state.part").replace(work / "state.pt")
    return best


if __name__ == "__main__":
    main()
