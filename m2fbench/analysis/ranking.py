"""Which images of a run to look at: the best, the worst, and those in which it is most confidently wrong.

Best and worst go by the head's main figure of each image alone (AP, PQ, mIoU); images without truth have none and are not ranked. What is
most confidently wrong depends on what a head says of its confidence:

instance   the wrong prediction of the highest score, for a score is the model's own claim to be right. Not score times area, which is a
           ranking by size: scores differ by a few hundredths, areas by thousands. Among scores that print alike (two decimals), the largest.
panoptic   the official format has no scores, so the largest segment that is false or of a wrong class: what is seen first.
semantic   no scores either: the largest connected region (by its eight neighbours) of one class that the truth does not have there.
"""

import heapq
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.image_evidence import MAIN_FIGURE, ImageEvidence, image_reader
from m2fbench.analysis.runs import Evidence, MetricStatistics, Tell, silent
from m2fbench.analysis.verdicts import IOU, Verdict, decode, judge, match_instances, overlaps_of
from m2fbench.analysis.words import counted
from m2fbench.errors import shown
from m2fbench.files import map_over
from m2fbench.metrics.panoptic_matching import match, overlaps
from m2fbench.types import Example, Head, ImageId, InstanceSet, LabelMap, PanopticMap

THRESHOLD = 0.5
"""Score from which a predicted instance is shown and counted."""

Weight = tuple[float, float]
"""By which what is wrong is compared, larger is worse: score and pixels, or pixels twice."""


@dataclass(frozen=True)
class RankedImage:
    """figure: the name of ``value`` as results have it, in percent, NaN where the image has none. why: in words, which may hold names from
    files. pixels: of what is confidently wrong, bool [H, W]; None for best and worst."""

    image_id: ImageId
    figure: str
    value: float
    why: str
    pixels: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Ranking:
    """Each the first first. criterion: what makes a confident mistake here. notes: what was not ranked, and why."""

    head: Head
    figure: str
    best: tuple[RankedImage, ...]
    worst: tuple[RankedImage, ...]
    confidently_wrong: tuple[RankedImage, ...]
    criterion: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mistake:
    """The gravest of one image."""

    weight: Weight
    why: str
    pixels: NDArray[np.bool_]


def rank(
    evidence: Evidence,
    statistics: Sequence[MetricStatistics],
    head: Head,
    count: int = 6,
    threshold: float = THRESHOLD,
    tell: Tell = silent,
) -> Ranking:
    """The ``count`` images of each kind. statistics: as ``statistics_of`` gives them. Ties go by image id, whole numbers before texts.

    An image that ranks among the best is not among the worst of so few images that both would overlap.
    """
    figure, values, notes = image_values(evidence, statistics, head)
    ordered = sorted((i for i in values if not math.isnan(values[i])), key=lambda i: (-values[i], id_key(i)))
    last = min(count, len(ordered) // 2)
    best = ordered[: min(count, len(ordered) - last)]
    worst = sorted(ordered[len(ordered) - last :], key=lambda i: (values[i], id_key(i)))
    if unranked := len(evidence.examples) - len(ordered):
        of = counted(len(evidence.examples), "image")
        notes.append(f"not ranked, having no {figure} of their own (no truth in them): {unranked} of {of}")
    examples = {example.image_id: example for example in evidence.examples}
    read = image_reader(evidence, head)

    def with_counts(image_id: ImageId) -> RankedImage:
        return RankedImage(image_id, figure, values[image_id], in_words(read(examples[image_id]).confident(threshold)))

    tell(f"looking for confident mistakes of the {head} head")
    gravest = _gravest(evidence.examples, read, count, threshold)
    return Ranking(
        head,
        figure,
        tuple(map(with_counts, best)),
        tuple(map(with_counts, worst)),
        tuple(RankedImage(i, figure, values.get(i, math.nan), m.why, m.pixels) for i, m in gravest),
        _CRITERIA[head],
        tuple(notes),
    )


def image_values(
    evidence: Evidence, statistics: Sequence[MetricStatistics], head: Head
) -> tuple[str, dict[ImageId, float], list[str]]:
    """The name of the head's main figure, each image's own, and what there is to say where there are none.

    An image without truth that counts has NaN, even where a metric gives such an image 0 for what was predicted there.
    """
    wanted = MAIN_FIGURE[head]
    for one in statistics:
        if one.head == head and wanted in one.statistics.figures:
            values = one.statistics.per_image()[:, one.statistics.figures.index(wanted)]
            there = one.statistics.truth_count.sum(1) > 0
            named = zip(one.statistics.image_ids, np.where(there, values, np.nan).tolist(), strict=True)
            return one.names[wanted], dict(named), []
    missing = f"none of the suite's metrics ({', '.join(evidence.suite.metrics)}) gives {wanted} image by image, so best and worst are not known"
    return wanted, {}, [missing]


def id_key(image_id: ImageId) -> tuple[bool, int, str]:
    """Orders ids: numbers by size, then texts."""
    return (True, 0, image_id) if isinstance(image_id, str) else (False, image_id, "")


_CRITERIA: dict[Head, str] = {
    "instance": "the wrong detection of the highest score (the larger of equal ones)",
    "panoptic": "the largest segment that is false or of a wrong class (panoptic predictions carry no scores)",
    "semantic": "the largest connected region of one wrong class (semantic maps carry no scores)",
}


def in_words(image: ImageEvidence) -> str:
    """What is right and wrong of an image: "7 right, 1 missed, 2 false, 1 of a wrong class"; shares of pixels for semantic maps."""
    if image.truth is None:
        return "no truth to compare with"
    judgement = judge(image)
    if image.head == "semantic":
        pixels = judgement.pixel_counts
        judged = sum(pixels[v] for v in (Verdict.RIGHT, Verdict.MISSED, Verdict.WRONG_CLASS))
        if not judged:
            return "no pixel has a class in the truth"
        share = {v: 100 * pixels[v] / judged for v in (Verdict.RIGHT, Verdict.MISSED, Verdict.WRONG_CLASS)}
        missed = f", {share[Verdict.MISSED]:.1f} % without a class" if pixels[Verdict.MISSED] else ""
        return f"{share[Verdict.RIGHT]:.1f} % of the pixels right, {share[Verdict.WRONG_CLASS]:.1f} % of a wrong class{missed}"
    counts = judgement.counts
    return (
        f"{counts[Verdict.RIGHT]} right, {counts[Verdict.MISSED]} missed, {counts[Verdict.FALSE]} false, "
        f"{counts[Verdict.WRONG_CLASS]} of a wrong class"
    )


def _gravest(
    examples: Iterable[Example], read: Callable[[Example], ImageEvidence], count: int, threshold: float
) -> list[tuple[ImageId, Mistake]]:
    """The ``count`` images of the gravest mistakes, one of each image. Masks are kept of these only."""
    kept: list[tuple[Weight, int, ImageId, Mistake]] = []
    in_order = sorted(examples, key=lambda e: id_key(e.image_id))
    for place, (example, mistake) in enumerate(
        zip(in_order, map_over(lambda e: mistake_in(read(e), threshold), in_order), strict=True)
    ):
        if mistake is not None and count:
            heapq.heappush(kept, (mistake.weight, -place, example.image_id, mistake))
            if len(kept) > count:
                heapq.heappop(kept)
    return [(image_id, mistake) for _, _, image_id, mistake in sorted(kept, key=lambda k: k[:2], reverse=True)]


def mistake_in(image: ImageEvidence, threshold: float = THRESHOLD) -> Mistake | None:
    """The gravest mistake of one image; None where there is none, or no truth."""
    truth, prediction = image.truth, image.prediction
    if isinstance(truth, InstanceSet) and isinstance(prediction, InstanceSet):
        return _instance_mistake(image, truth, image.confident(threshold).prediction)  # type: ignore[arg-type]  # as the prediction is
    if isinstance(truth, PanopticMap) and isinstance(prediction, PanopticMap):
        return _panoptic_mistake(image, truth, prediction)
    if isinstance(truth, np.ndarray) and isinstance(prediction, np.ndarray):
        return _semantic_mistake(image, truth, prediction)
    return None


def _instance_mistake(image: ImageEvidence, truth: InstanceSet, prediction: InstanceSet) -> Mistake | None:
    _, found, partner = match_instances(truth, prediction)
    wrong = np.flatnonzero((found == Verdict.FALSE) | (found == Verdict.WRONG_CLASS)).tolist()
    if not wrong:
        return None
    import hotcoco.mask

    areas = np.asarray(hotcoco.mask.area([prediction.rles[k] for k in wrong]), np.int64).tolist()
    weights = [(round(float(prediction.scores[k]), 2), float(area)) for k, area in zip(wrong, areas, strict=True)]
    place = max(range(len(wrong)), key=lambda n: (weights[n], -n))
    number = wrong[place]
    names = _class_names(image)
    said = f'predicted "{names[prediction.categories[number]]}" with {prediction.scores[number]:.2f}'
    if partner[number] >= 0:
        return Mistake(
            weights[place],
            f'{said} where the truth has "{names[truth.categories[partner[number]]]}"',
            decode(prediction.rles[number]),
        )
    return Mistake(weights[place], f"{said} {_nearest(names, truth, prediction, number)}", decode(prediction.rles[number]))


def _nearest(names: Sequence[str], truth: InstanceSet, prediction: InstanceSet, number: int) -> str:
    """What the truth has where a detection is matched with nothing."""
    one = InstanceSet((prediction.rles[number],), prediction.categories[[number]], prediction.scores[[number]])
    iou = overlaps_of(truth, one)[0]
    if not len(iou) or iou.max() <= 0:
        return "where the truth has nothing"
    best = int(iou.argmax())
    name = names[truth.categories[best]]
    if iou[best] >= IOU:
        return f'on a "{name}" that another detection has found'
    return f'where the truth has at best a "{name}" of IoU {iou[best]:.2f}'


def _panoptic_mistake(image: ImageEvidence, truth: PanopticMap, prediction: PanopticMap) -> Mistake | None:
    table = overlaps(truth, prediction)
    matching = match(table, truth.segments, prediction.segments)
    right = np.zeros(len(prediction.segments), bool)
    right[matching.found[matching.same]] = True
    judged = table[1:-1, 1:-1][~matching.crowd].sum(0)  # pixels of each predicted segment on truth that counts
    wrong = np.flatnonzero(~right & ~matching.excused & (judged > 0))
    if not len(wrong):
        return None
    number = int(wrong[judged[wrong].argmax()])
    segment = prediction.segments[number]
    area = int(table[:, 1 + number].sum())
    by_class: Counter[int] = Counter()
    for row, true in enumerate(truth.segments):
        by_class[true.category] += int(table[1 + row, 1 + number])
    category, pixels = min(by_class.items(), key=lambda item: (-item[1], item[0]))
    names = _class_names(image)
    said = f'predicted "{names[segment.category]}" over {_percent(area / prediction.ids.size)} of the image'
    if category == segment.category:
        there = f'where the truth has "{names[category]}" too, but no segment of an IoU above 0.5 with this one'
    else:
        there = f'where the truth has "{names[category]}" ({_percent(pixels / area)} of the segment)'
    return Mistake((float(judged[number]),) * 2, f"{said} {there}", prediction.ids == segment.id)


def _semantic_mistake(image: ImageEvidence, truth: LabelMap, prediction: LabelMap) -> Mistake | None:
    from scipy import ndimage

    classes = len(image.categories)
    wrong = (truth != prediction) & (truth != np.iinfo(truth.dtype).max) & (prediction < classes)
    totals = np.bincount(prediction[wrong], minlength=classes)
    best, region, category = 0, None, 0
    for candidate in np.argsort(-totals, kind="stable").tolist():
        if totals[candidate] <= best:
            break  # no region of it, and of those that follow, can be larger
        labels, _ = ndimage.label(wrong & (prediction == candidate), np.ones((3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        if sizes.max() > best:
            best, region, category = int(sizes.max()), labels == 1 + int(sizes.argmax()), candidate
    if region is None:
        return None
    there = np.bincount(truth[region], minlength=classes)
    names = _class_names(image)
    of_it = f" ({_percent(there.max() / best)} of the region)" if there.max() < best else ""
    said = f'predicted "{names[category]}" over {_percent(best / truth.size)} of the image'
    return Mistake((float(best),) * 2, f'{said} where the truth has "{names[int(there.argmax())]}"{of_it}', region)


def _class_names(image: ImageEvidence) -> list[str]:
    """As they may stand in a sentence."""
    return [shown(category.name, 60) for category in image.categories]


def _percent(share: float) -> str:
    """To two digits, and never 0 for what is there."""
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
