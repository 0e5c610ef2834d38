"""Two runs over the same images: what differs, how surely, and on which images.

Both are accumulated anew over the same draws of images, so that intervals and p-values are of the paired difference.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from m2fbench.analysis.bootstrap import Progress, bootstrap, difference, false_discovery, narrowness, p_values, percentiles
from m2fbench.analysis.findings import LEVEL, Comparison, Difference, Estimate, ImageChange
from m2fbench.analysis.image_evidence import MAIN_FIGURE
from m2fbench.analysis.intervals import FEWEST_IMAGES, estimates_of
from m2fbench.analysis.runs import Evidence, MetricStatistics, Run, Tell, silent, statistics_of
from m2fbench.analysis.words import counted
from m2fbench.errors import DatasetError, PredictionsError
from m2fbench.results import RunResult
from m2fbench.store import dataset_identity
from m2fbench.types import Floats, JsonObject

FEW_IMAGES = 30
"""Below it percentile intervals are noticeably too narrow, and a note says so."""

Pair = tuple[MetricStatistics, MetricStatistics]


def compare_runs(
    a: Run, b: Run, *, resamples: int = 1000, seed: int = 0, tell: Tell = silent, progress: Progress | None = None
) -> Comparison:
    """B - A over the images that both have. Raises PredictionsError where one has no predictions at hand, DatasetError where they are not of
    one task on one dataset."""
    first, second, notes = _same_images(a, b)
    tell(f"{a.label}: {len(first.examples)} images")
    ours = statistics_of(first, tell=tell)
    tell(f"{b.label}: {len(second.examples)} images")
    theirs = {m.metric: m for m in statistics_of(second, tell=tell)}
    pairs = [(m, theirs[m.metric]) for m in ours if m.metric in theirs]
    if not pairs:
        raise PredictionsError(
            f"{a.label} and {b.label}: no metric in both that says what each image contributes; compare runs of suites with the same metrics"
        )
    tell(f"resampling {len(first.examples)} images {resamples} times, the same draws for both")
    changes, said = _changes(pairs, first)
    differences = _differences(pairs, resamples, seed, progress)
    return Comparison(
        a.label, b.label, len(first.examples), resamples, seed, differences, changes,
        (*notes, *_of_few(len(first.examples)), *_of_resolution(differences, resamples), *said),
    )  # fmt: skip


def _same_images(a: Run, b: Run) -> tuple[Evidence, Evidence, list[str]]:
    """The evidence of both over the images that both have, scored by A's rules; and what a reader should know of how they differ."""
    first, second = _evidence(a), _evidence(b)
    _check_comparable(a, b, first, second)
    have = [(run.label, set(evidence.image_ids)) for run, evidence in ((a, first), (b, second))]
    both = have[0][1] & have[1][1]
    if not both:
        raise PredictionsError(f"{a.label} and {b.label} have no image in common; run both over the same images")
    notes = [
        f"left out, as only {label} has them: {counted(len(ids) - len(both), 'image')}"
        for label, ids in have
        if len(ids) > len(both)
    ]
    examples = tuple(e for e in first.examples if e.image_id in both)
    first, second = replace(first, examples=examples), replace(second, examples=examples)
    rules = first.suite.rules, second.suite.rules
    if rules[0] != rules[1]:
        notes.append(
            f"mIoU averages over classes by the rule '{rules[0].mean_iou}' for both, as in A; B's suite has '{rules[1].mean_iou}'"
        )
        protocol = second.suite.protocol.model_copy(update={"mean_iou": rules[0].mean_iou})
        second = replace(second, suite=second.suite.model_copy(update={"protocol": protocol}))
    return first, second, [*notes, *_departures(a, b)]


def _evidence(run: Run) -> Evidence:
    if run.evidence is None:
        raise PredictionsError(f"{run.label}: cannot be compared image by image: {run.problem}")
    return run.evidence


def _check_comparable(a: Run, b: Run, first: Evidence, second: Evidence) -> None:
    tasks = first.suite.task, second.suite.task
    if tasks[0] != tasks[1]:
        raise DatasetError(f"{a.label} is a run of task {tasks[0]}, {b.label} of {tasks[1]}; compare runs of one task")
    known, other = (dataset_identity(e.dataset.fingerprint()) for e in (first, second))
    unlike = list(_unlike(known, other))
    if first.dataset.name != second.dataset.name:
        unlike = [f"{first.dataset.name} against {second.dataset.name}"]
    if first.dataset.categories != second.dataset.categories or unlike:
        said = "; ".join(unlike) or "other classes"
        raise DatasetError(
            f"{a.label} and {b.label} are not of one dataset (A against B: {said}); compare runs over the same images"
        )


def _unlike(a: Mapping[str, object], b: Mapping[str, object], prefix: str = "") -> Iterator[str]:
    """``key: A's value, B's value`` for each value in which they differ; hashes shortened."""
    for key in sorted({*a, *b}):
        one, other = a.get(key), b.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _unlike(one, other, f"{prefix}{key}.")
        elif one != other:
            yield f"{prefix}{key}: {_brief(one)} against {_brief(other)}"


def _brief(value: object) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _departures(a: Run, b: Run) -> list[str]:
    """In what else than their weights the runs differ, one note for each kind of setting."""
    notes = []
    for name, of in _SETTINGS.items():
        one, other = (of(run.any_result) for run in (a, b))
        both = one.keys() & other.keys()  # another protocol has other settings, which its name stands for
        if unlike := "; ".join(_unlike({k: one[k] for k in both}, {k: other[k] for k in both})):
            notes.append(f"{name}, A against B: {unlike}")
    return notes


def _libraries(environment: JsonObject | None) -> JsonObject:
    libraries = (environment or {}).get("libraries", {})
    return {name: libraries.get(name) for name in ("torch", "transformers", "pillow")}


_SETTINGS: dict[str, Callable[[RunResult], JsonObject]] = {
    "protocol": lambda result: result.protocol or {},
    "variant": lambda result: {k: v for k, v in result.variant.items() if k != "name"},
    "device": lambda result: {"kind": (result.device or {}).get("kind")},
    "libraries": lambda result: _libraries(result.environment),
}


def _of_few(images: int) -> list[str]:
    if images < FEWEST_IMAGES:
        return ["one image cannot be resampled: no intervals"]
    narrow = f"intervals over only {images} images are about {100 * narrowness(images):.0f} % too narrow"
    return [narrow] if images < FEW_IMAGES else []


def _of_resolution(differences: tuple[Difference, ...], resamples: int) -> list[str]:
    """What to say where so few resamples cannot show a difference of one class among so many: p has steps of 2 / (resamples + 1)."""
    families = Counter(d.figure for d in differences if not math.isnan(d.adjusted_p))
    most, least = max(families.values(), default=0), 2 / (resamples + 1)
    if most * least <= 1 - LEVEL:
        return []
    enough = math.ceil(2 * most / (1 - LEVEL))
    return [
        f"of {counted(most, 'class')} a single one that differs cannot be shown with {resamples} resamples, whose smallest p of {least:.2g} is "
        f"{min(1.0, most * least):.2g} when adjusted; take --resamples {enough} or more"
    ]


def _differences(pairs: list[Pair], resamples: int, seed: int, progress: Progress | None) -> tuple[Difference, ...]:
    """Over all classes, then by class; of two metrics' figures of one name the first metric's, as results are read."""
    summaries = bootstrap([m.statistics for pair in pairs for m in pair], resamples=resamples, seed=seed, progress=progress)
    overall: dict[str, Difference] = {}
    by_class: dict[tuple[str, str], Difference] = {}
    for number, (ours, theirs) in enumerate(pairs):
        a, b = summaries[2 * number : 2 * number + 2]
        images = len(ours.statistics.image_ids)
        holding = (ours.statistics.truth_count > 0).sum(0)
        ones, others = _shared(ours.statistics.figures, theirs.statistics.figures)
        found = _of_columns(a.overall[:, ones], b.overall[:, others], images, images)
        alone = zip(estimates_of(a.overall[:, ones], images), estimates_of(b.overall[:, others], images), strict=True)
        for one, record, (first, second) in zip(ones, found, alone, strict=True):
            name = ours.names[ours.statistics.figures[one]]
            overall.setdefault(name, replace(record, figure=name, a_interval=first, b_interval=second))
        for one, other in zip(*_shared(ours.statistics.class_figures, theirs.statistics.class_figures), strict=True):
            name = ours.names[ours.statistics.class_figures[one]]
            found = _of_columns(a.by_class[:, one], b.by_class[:, other], images, holding)
            adjusted = false_discovery(np.array([d.p_value for d in found])).tolist()
            for category, record, p in zip(ours.statistics.categories, found, adjusted, strict=True):
                by_class.setdefault((name, category), replace(record, figure=name, category=category, adjusted_p=p))
    return (*overall.values(), *by_class.values())


def _shared(a: tuple[str, ...], b: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """Where the names stand that are in both."""
    names = [name for name in a if name in b]
    return list(map(a.index, names)), list(map(b.index, names))


def _of_columns(a: Floats, b: Floats, images: int, holding: NDArray[np.int64] | int) -> list[Difference]:
    """One nameless record for each column of [1 + B, F], row 0 of which is of the images as they are. holding: images that each column rests
    on, [F] or of all."""
    between = difference(a, b)
    low, high = percentiles(between[1:])
    p = p_values(between[1:], holding)
    if images < FEWEST_IMAGES:
        low, high, p = (np.full_like(p, np.nan) for _ in range(3))
    return [
        Difference("", None, one, other, Estimate(*interval), chance)
        for one, other, interval, chance in zip(
            a[0].tolist(), b[0].tolist(), np.stack([between[0], low, high], 1).tolist(), p.tolist(), strict=True
        )
    ]


def _changes(pairs: list[Pair], evidence: Evidence) -> tuple[tuple[ImageChange, ...], list[str]]:
    """The main figure of each image alone, the largest loss first; and what to say of images that have none."""
    head = evidence.suite.task
    main = next((p for p in pairs if p[0].head == head and MAIN_FIGURE[head] in p[0].statistics.figures), None)
    if main is None:
        return (), [f"no {MAIN_FIGURE[head]} in both runs, so that no image is said to have gained or lost"]
    column = [m.statistics.figures.index(MAIN_FIGURE[head]) for m in main]
    a, b = (m.statistics.per_image()[:, k].tolist() for m, k in zip(main, column, strict=True))
    name = main[0].names[MAIN_FIGURE[head]]
    changes = [ImageChange(i, name, one, other) for i, one, other in zip(evidence.image_ids, a, b, strict=True)]
    known = [c for c in changes if not math.isnan(c.b - c.a)]
    without = len(changes) - len(known)
    said = f"in no list, as alone they have no {name} under one of the runs (nothing to measure there): {counted(without, 'image')}"
    return tuple(sorted(known, key=lambda c: c.b - c.a)), [said] * bool(without)
