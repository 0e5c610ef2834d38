"""A run's figures over parts of its evidence: where a model fails.

Images are chosen by what is in them and how they look, objects by what they are like (``ObjectSubset``), classes by how often the truth has
them. Whole images are a subset like any: its figures are those of scoring it alone, its resamples draw from it alone. For objects all images are
resampled, since a false positive can be anywhere.

Of panoptic predictions the objects are the segments of things: stuff is no object, and a mean over all classes would mix the few stuff slivers
of, say, the small size with its things. So a part of them has PQ_th, SQ_th and RQ_th (or recall), and counts of things alone.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.bootstrap import Progress, bootstrap, draw
from m2fbench.analysis.findings import Disaggregation, Estimate, SubsetFinding
from m2fbench.analysis.image_attributes import ImageGroup, luma, shapes, split_in_thirds, thirds
from m2fbench.analysis.image_evidence import MAIN_FIGURE, main_head
from m2fbench.analysis.intervals import estimates, estimates_of
from m2fbench.analysis.object_subsets import OBJECT_RANGES, ObjectRange
from m2fbench.analysis.runs import Evidence, MetricStatistics, Tell, silent, statistics_of
from m2fbench.analysis.words import counted, span_in_words
from m2fbench.suite import figure_name
from m2fbench.types import Floats, Head, Summary

Level = Literal["image", "object", "class"]

FEWEST_IMAGES, FEWEST_OBJECTS, WIDEST = 10, 20, 30.0
"""With fewer images or objects, or a main figure whose interval spans more points, a subset says nothing of the model."""

_NO_STATISTICS = "no metric of the suite says what each image contributes to its figures"
_IMAGE_LEVEL = ("objects in the image", "classes in the image", "brightness", "contrast", "image size", "aspect")
_MEAN_NAMES = {"IoU": "mIoU", "accuracy": "mean_accuracy"}
"""What a figure by class is called as a mean over classes."""
_PIXELS_ONLY = "semantic truth has pixels of classes, not objects"


def disaggregate(
    evidence: Evidence, *, resamples: int = 200, seed: int = 0, tell: Tell = silent, progress: Progress | None = None
) -> Disaggregation:
    """All subsets, for every head that was predicted. progress: told of subsets done, of how many."""
    whole = statistics_of(evidence, tell=tell)
    if not whole or not evidence.examples:
        reason = _NO_STATISTICS if evidence.examples else "no image was scored"
        attributes = dict.fromkeys((*_IMAGE_LEVEL, *(r.attribute for r in OBJECT_RANGES), "class frequency"))
        return Disaggregation((), dict.fromkeys(attributes, reason))
    undefined: dict[str, str] = {}
    groups = _image_groups(evidence, whole, undefined, tell)
    total = len(groups) + len(OBJECT_RANGES)
    tell(f"resampling {total} subsets {resamples} times each")
    found: list[SubsetFinding] = []
    for number, group in enumerate(groups):
        found.append(_of_images(evidence, whole, group, resamples, seed))
        if progress is not None:
            progress(number + 1, total)
    for number, part in enumerate(OBJECT_RANGES, len(groups)):
        found += _of_objects(evidence, part, resamples, seed, undefined)
        if progress is not None:
            progress(number + 1, total)
    found = _varying(found, undefined)
    return Disaggregation((*found, *_of_classes(evidence, whole, resamples, seed, undefined)), undefined)


def _image_groups(evidence: Evidence, whole: Sequence[MetricStatistics], undefined: dict[str, str], tell: Tell) -> list[ImageGroup]:
    """Those of every attribute that images differ in; the others go into ``undefined``."""
    head = _of_main_head(evidence, whole)
    truth = head.statistics.truth_count
    groups = []
    if head.head == "semantic":
        undefined["objects in the image"] = _PIXELS_ONLY
    else:
        what = "true segments:" if head.head == "panoptic" else "true objects:"
        groups += thirds("objects in the image", ("few", "medium", "many"), truth.sum(1).astype(float), what)
    groups += thirds("classes in the image", ("few", "medium", "many"), (truth > 0).sum(1).astype(float), "classes in the truth:")
    looks = luma(evidence, tell)
    if looks.problem is not None:
        undefined |= {"brightness": looks.problem, "contrast": looks.problem}
    else:
        groups += thirds("brightness", ("dark", "medium", "bright"), looks.brightness, "mean luma, 0 to 255:")
        groups += thirds("contrast", ("low", "medium", "high"), looks.contrast, "standard deviation of luma:")
    groups += shapes(evidence.examples)
    by_attribute: dict[str, list[ImageGroup]] = {}
    for group in groups:
        by_attribute.setdefault(group.attribute, []).append(group)
    for attribute, parts in list(by_attribute.items()):
        if len(parts) == 1:
            undefined[attribute] = f"does not vary: all images are '{parts[0].subset}' ({parts[0].definition})"
            del by_attribute[attribute]
    return [group for parts in by_attribute.values() for group in parts]


def _of_main_head(evidence: Evidence, whole: Sequence[MetricStatistics]) -> MetricStatistics:
    """The statistics by whose truth images are described."""
    return leading(whole, main_head(evidence)) or whole[0]


def leading(metrics: Sequence[MetricStatistics], head: Head) -> MetricStatistics | None:
    """By whose truth a head's images, objects and classes are counted: the metric that gives its main figure, else the first. Others may know
    fewer classes, as Cityscapes' own IoU, which counts those with instances."""
    of_head = [m for m in metrics if m.head == head]
    return next((m for m in of_head if MAIN_FIGURE[head] in m.statistics.figures), of_head[0] if of_head else None)


def _of_images(
    evidence: Evidence, whole: Sequence[MetricStatistics], group: ImageGroup, resamples: int, seed: int
) -> SubsetFinding:
    """The figures of all heads over some images."""
    summaries = bootstrap([m.statistics for m in whole], resamples=resamples, seed=seed, images=group.images)
    main = _of_main_head(evidence, whole)
    objects = None if main.head == "semantic" else int(main.statistics.truth_count[group.images].sum())
    return _finding(
        group.attribute, group.subset, group.definition, "image", len(group.images), objects,
        _overall(whole, summaries, len(group.images)), main.head, evidence,
    )  # fmt: skip


def _overall(metrics: Sequence[MetricStatistics], summaries: Sequence[Summary], images: int) -> dict[str, Estimate]:
    figures: dict[str, Estimate] = {}
    for metric, summary in zip(metrics, summaries, strict=True):
        for (name, category), estimate in estimates(metric, summary, images).items():
            if category is None:
                figures.setdefault(name, estimate)
    return figures


def _of_objects(
    evidence: Evidence, part: ObjectRange, resamples: int, seed: int, undefined: dict[str, str]
) -> Iterator[SubsetFinding]:
    """One finding for each head whose objects have the property."""
    there = statistics_of(evidence, part.objects)
    things = np.array([c.is_thing for c in evidence.dataset.categories], bool)
    for head in evidence.predictions.heads:
        of_head = [m for m in there if m.head == head]
        first = leading(there, head)
        if first is None:
            undefined[f"{part.attribute} ({head})"] = (
                _PIXELS_ONLY if head == "semantic" else f"no metric of {head} predictions in the suite has figures for it"
            )
            continue
        truth = first.statistics.truth_count
        truth = truth[:, things] if head == "panoptic" else truth  # whose classes are the dataset's
        images, objects = int(truth.any(1).sum()), int(truth.sum())
        figures: dict[str, Estimate] = {}
        if objects:
            summaries = bootstrap([m.statistics for m in of_head], resamples=resamples, seed=seed)
            figures = _overall(of_head, summaries, len(evidence.examples))
            if of_things := {name: e for name, e in figures.items() if head == "panoptic" and name.endswith("_th")}:
                figures = of_things  # else recall, which is of things only
        unit = f"; {objects} pixels of connected regions" if head == "semantic" else ""
        yield _finding(
            part.attribute, part.subset, part.definition + unit, "object", images, None if head == "semantic" else objects,
            figures, head, evidence,
        )  # fmt: skip


def _varying(found: Sequence[SubsetFinding], undefined: dict[str, str]) -> list[SubsetFinding]:
    """Without the attributes of objects that all objects of a head share."""
    kept = []
    for finding in found:
        filled = [
            f for f in found if (f.attribute, f.head, f.level) == (finding.attribute, finding.head, finding.level) and f.images
        ]
        if finding.level == "image" or len(filled) > 1:
            kept.append(finding)
        else:
            all_alike = f"all are '{filled[0].subset}' ({filled[0].definition})" if filled else "there are no objects"
            undefined[f"{finding.attribute} ({finding.head})"] = f"does not vary: {all_alike}" if filled else all_alike
    return kept


def _of_classes(
    evidence: Evidence, whole: Sequence[MetricStatistics], resamples: int, seed: int, undefined: dict[str, str]
) -> Iterator[SubsetFinding]:
    """Thirds of each head's classes by how many images have them in the truth; figures are means over classes, a class counting in the
    resamples that hold it."""
    total = len(evidence.examples)
    weights = np.concatenate([np.ones((1, total), np.int32), draw(total, resamples, seed)])
    for head in evidence.predictions.heads:
        of_head = [m for m in whole if m.head == head and m.statistics.class_figures]
        first = leading(of_head, head)
        if first is None:
            undefined[f"class frequency ({head})"] = _NO_STATISTICS
            continue
        truth, categories = first.statistics.truth_count, first.statistics.categories
        frequency = (truth > 0).sum(0)
        known = np.flatnonzero(frequency)
        bins = [known[chosen] for chosen in split_in_thirds(frequency[known].astype(float))]
        if len(bins) < 2:
            alike = f"does not vary: all classes are in {counted(int(frequency.max()), 'image')}"
            undefined[f"class frequency ({head})"] = alike if len(known) else "no class is in the truth"
            continue
        summaries = bootstrap([m.statistics for m in of_head], resamples=resamples, seed=seed)
        present = weights.astype(float) @ (truth > 0) > 0
        names = ("rare", "common", "frequent") if len(bins) == 3 else ("rare", "frequent")
        for name, classes in zip(names, bins, strict=True):
            low, high = frequency[classes].min(), frequency[classes].max()
            many = f"{len(classes)} classes, each in" if len(classes) > 1 else "1 class, in"
            text = f"{many} {span_in_words(low, high)} of {counted(total, 'image')}"
            objects = None if head == "semantic" else int(truth[:, classes].sum())
            yield _finding(
                "class frequency", name, text, "class", int(truth[:, classes].any(1).sum()), objects,
                _means(evidence, of_head, summaries, [categories[k] for k in classes], present[:, classes], total), head, evidence,
            )  # fmt: skip


def _means(
    evidence: Evidence, of_head: Sequence[MetricStatistics], summaries: Sequence[Summary], classes: Sequence[str],
    present: NDArray[np.bool_], images: int,
) -> dict[str, Estimate]:  # fmt: skip
    """Of each figure by class the mean over ``classes``, K of them; none of a metric that does not know them all. present: which of them each
    resample holds, [1 + B, K]."""
    figures: dict[str, Estimate] = {}
    for metric, summary in zip(of_head, summaries, strict=True):
        place = {name: k for k, name in enumerate(metric.statistics.categories)}
        if any(name not in place for name in classes):
            continue
        columns = [place[name] for name in classes]
        for plane, figure in enumerate(metric.statistics.class_figures):
            values = np.where(present, summary.by_class[:, plane, columns], np.nan)
            name = _MEAN_NAMES.get(figure, figure)
            (estimate,) = estimates_of(_mean(values)[:, None], images)
            figures.setdefault(figure_name(name, metric.head, evidence.suite.task), estimate)
    return figures


def _mean(values: Floats) -> Floats:
    """Of what is defined in each row, NaN for nothing."""
    defined = ~np.isnan(values)
    means = np.full(len(values), np.nan)
    np.divide(np.where(defined, values, 0).sum(1), defined.sum(1), out=means, where=defined.any(1))
    return means


def _finding(
    attribute: str, subset: str, definition: str, level: Level, images: int, objects: int | None, figures: Mapping[str, Estimate],
    head: Head, evidence: Evidence,
) -> SubsetFinding:  # fmt: skip
    reason = too_little(images, objects, figures, figure_name(MAIN_FIGURE[head], head, evidence.suite.task))
    return SubsetFinding(attribute, subset, definition, level, images, objects, figures, reason is None, reason, head)


def too_little(images: int, objects: int | None, figures: Mapping[str, Estimate], main: str) -> str | None:
    """Why a subset says nothing of the model; None where it does. main: the figure that speaks for the head; the first where there is none of
    that name, as of objects: PQ_th, or recall."""
    if images < FEWEST_IMAGES:
        return f"{counted(images, 'image')}, fewer than {FEWEST_IMAGES}"
    if objects is not None and objects < FEWEST_OBJECTS:
        return f"{counted(objects, 'object')}, fewer than {FEWEST_OBJECTS}"
    name = main if main in figures else next(iter(figures), None)
    if name is None or math.isnan(figures[name].value):
        return "nothing to measure"
    estimate = figures[name]
    if not estimate.has_interval:
        return f"{name} is undefined in too many resamples"
    span = estimate.high - estimate.low
    return f"the interval of {name} spans {span:.1f} points, more than {WIDEST:.0f}" if span > WIDEST else None
