"""AP, PQ and mIoU of a shapes checkpoint, outside the runner: for choosing weights while they train, and as a second opinion.

    python scripts/validate_shapes.py m2fbench/assets/shapes_tiny --split val --count 200

AP is official pycocotools'; PQ is panopticapi's definition written for maps without void or crowd; mIoU averages the classes
that the truth shows. The instance figure keeps things only, as for every panoptic checkpoint.
"""

import argparse
import contextlib
import io
import json

import numpy as np
import pycocotools.mask
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from transformers import Mask2FormerForUniversalSegmentation

from m2fbench.datasets.scenes import CATEGORIES, THINGS, generate
from m2fbench.datasets.shapes import MAX_SIZE, MIN_SIZE, SEEDS
from m2fbench.models.postprocess import instance_inference, panoptic_inference, upsample
from m2fbench.models.preprocess import preprocess

things = range(len(THINGS))


@torch.inference_mode()
def evaluate(model: Mask2FormerForUniversalSegmentation, seed: int, count: int) -> dict[str, float]:
    """Percent, one decimal more than the papers print."""
    truth, found, images = [], [], []
    confusion = np.zeros((len(CATEGORIES), len(CATEGORIES)), np.int64)
    quality = np.zeros((len(CATEGORIES), 4))  # sum of IoU, TP, FP, FN
    for index in range(count):
        scene = generate(seed, index)
        height, width = scene.ids.shape
        images.append({"id": index, "height": height, "width": width})
        data = preprocess(scene.image, MIN_SIZE, MAX_SIZE)
        output = model(data.pixels.to(model.device))
        class_logits, mask_logits = output.class_queries_logits[0].float(), output.masks_queries_logits[0].float()
        for number, category in enumerate(scene.classes, 1):
            if category in things:
                rle = pycocotools.mask.encode(np.asfortranarray(scene.ids == number))
                truth.append({
                    "id": len(truth) + 1, "image_id": index, "category_id": category, "iscrowd": 0, "segmentation": rle,
                    "area": int(pycocotools.mask.area(rle)), "bbox": pycocotools.mask.toBbox(rle).tolist(),
                })  # fmt: skip
        instances = instance_inference(class_logits, mask_logits, data.geometry, things=things)
        for rle, category, score in zip(instances.rles, instances.categories, instances.scores, strict=True):
            found.append({"image_id": index, "category_id": int(category), "score": float(score), "segmentation": rle})
        panoptic = panoptic_inference(class_logits, mask_logits, data.geometry, things=things)
        count_panoptic(quality, scene.ids, scene.classes, panoptic.ids, [s.category for s in panoptic.segments])
        probabilities = class_logits.softmax(-1)[:, :-1]
        semantic = torch.einsum("qc,qhw->chw", probabilities, upsample(mask_logits, data.geometry).sigmoid()).argmax(0)
        labels = np.array(scene.classes)[scene.ids - 1]
        confusion += np.bincount(
            labels.ravel() * len(CATEGORIES) + semantic.cpu().numpy().ravel(), minlength=confusion.size
        ).reshape(confusion.shape)
    hits = np.diag(confusion)
    iou = hits / (confusion.sum(0) + confusion.sum(1) - hits)
    pq = quality[:, 0] / (quality[:, 1] + quality[:, 2] / 2 + quality[:, 3] / 2)
    with contextlib.redirect_stdout(io.StringIO()):
        categories = [{"id": k, "name": CATEGORIES[k].name} for k in things]
        official = COCO()
        official.dataset = {"images": images, "annotations": truth, "categories": categories}
        official.createIndex()
        scorer = COCOeval(official, official.loadRes(found), "segm")
        scorer.evaluate()
        scorer.accumulate()
        scorer.summarize()
    names = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    figures = dict(zip(names, 100 * scorer.stats[:6], strict=True))
    figures |= {"PQ": 100 * pq.mean(), "PQ_th": 100 * pq[: len(THINGS)].mean(), "mIoU": 100 * iou.mean()}
    return {name: round(float(value), 2) for name, value in figures.items()}


def count_panoptic(
    quality: np.ndarray, truth: np.ndarray, truth_classes: tuple[int, ...], predicted: np.ndarray, classes: list[int]
) -> None:
    """Add one image to ``quality`` [C, 4]: segments match at IoU over 0.5 and equal class; predicted void counts for nothing."""
    joint = np.bincount(
        truth.ravel() * (len(classes) + 1) + predicted.ravel(), minlength=(len(truth_classes) + 1) * (len(classes) + 1)
    )
    joint = joint.reshape(len(truth_classes) + 1, len(classes) + 1)
    rows, columns = joint.sum(1), joint.sum(0)
    matched: set[int] = set()
    for t, category in enumerate(truth_classes, 1):
        for p, guess in enumerate(classes, 1):
            iou = joint[t, p] / (rows[t] + columns[p] - joint[t, p])
            if guess == category and iou > 0.5:
                quality[category] += (iou, 1, 0, 0)
                matched.add(p)
                break
        else:
            quality[category, 3] += 1
    for p, guess in enumerate(classes, 1):
        if p not in matched:
            quality[guess, 2] += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("--split", choices=list(SEEDS), default="val")
    parser.add_argument("--count", type=int, default=200)
    args = parser.parse_args()
    model = Mask2FormerForUniversalSegmentation.from_pretrained(args.checkpoint).eval()
    print(json.dumps(evaluate(model, SEEDS[args.split], args.count)))


if __name__ == "__main__":
    main()
