"""The known limits of a checkpoint, each drawn from its figures and told with them; nothing is said that was not measured."""

import math
from collections.abc import Iterator

from m2fbench.analysis.runs import Run
from m2fbench.analysis.words import counted
from m2fbench.analysis.worst import worst_subset
from m2fbench.reporting.card.facts import MAIN, CardFacts, SuiteRuns
from m2fbench.reporting.card.metadata import interval_of
from m2fbench.reporting.card.results import FEW, by_size, class_figure, classes, told_errors, what_differs
from m2fbench.reporting.card.text import escape, listed, number, prose, with_span

WEAKEST = 3
CALIBRATED = 0.05
"""An expected calibration error below this is not worth a warning."""


def limits(facts: CardFacts) -> list[str]:
    """A sentence or two each, those of the card's first suite first."""
    found: list[str] = []
    for suite in facts.measured:
        of = f"{suite.name}: " if len(facts.measured) > 1 else ""
        found += [of + text for text in _of_suite(suite)]
    return [*found, _where(facts)]


def _of_suite(suite: SuiteRuns) -> Iterator[str]:
    yield from _weak_classes(suite)
    yield from _rare_classes(suite)
    yield from _sizes(suite)
    yield from _worst_subset(suite)
    yield from _dearest_error(suite)
    yield from _calibration(suite)
    yield from _variants(suite)
    result = suite.result
    protocol = (result.protocol or {}).get("name", "paper")
    if protocol != "paper":
        yield f"Measured by protocol {escape(protocol)} alone (the processor that ships with it), so its figures do not stand beside published ones."
    if result.skipped:
        yield f"{counted(len(result.skipped), 'image')} could not be read and count in no figure."


def _weak_classes(suite: SuiteRuns) -> Iterator[str]:
    """The classes with the lowest figures among those with truth enough to say so."""
    found = class_figure(suite)
    if found is None:
        return
    figure, count = found
    pixels = count.startswith("truth_pixels")
    told = [(name, value, truth) for name, value, truth in classes(suite) if not math.isnan(value) and (pixels or truth >= FEW)]
    weakest = sorted(told, key=lambda entry: entry[1])[: min(WEAKEST, len(told) - 1)]
    if not weakest:
        return
    unit = count.removeprefix("truth_").partition("_")[0]
    parts = []
    for name, value, truth in weakest:
        of = [f"of {truth:,.0f} true {unit}"] if truth == truth else []
        parts.append(f"{escape(name)} {with_span(value, interval_of(suite, figure, name))}" + (f" {of[0]}" if of else ""))
    yield f"Weakest classes: {listed(parts)}; each by the {figure} of that class alone."


def _rare_classes(suite: SuiteRuns) -> Iterator[str]:
    """Classes of which there are too few objects."""
    found = class_figure(suite)
    if found is None or found[1].startswith("truth_pixels") or not found[1]:
        return
    unit = found[1].removeprefix("truth_").partition("_")[0]
    every = classes(suite)
    rare = [escape(name) for name, _, truth in every if truth < FEW]
    if rare:
        names = listed(rare) if len(rare) <= 5 else f"{', '.join(rare[:5])} and {len(rare) - 5} more"
        yield f"{len(rare)} of {len(every)} classes have fewer than {FEW} true {unit} in these images ({names}): their figures say little."


def _sizes(suite: SuiteRuns) -> Iterator[str]:
    names = by_size(suite.result)
    if not names:
        return
    small, _, large = (suite.result.value(name) for name in names)
    if math.isnan(small) or math.isnan(large) or small >= large:
        return
    told = (f"{escape(name)} {with_span(suite.result.value(name), interval_of(suite, name))}" for name in (names[0], names[2]))
    first, second = told
    low, high = interval_of(suite, names[0]), interval_of(suite, names[2])
    if low is not None and high is not None and low.high >= high.low:
        return
    yield f"Small objects (under 32² pixels) are found less well than large ones (over 96²): {first} against {second}."


def _worst_subset(suite: SuiteRuns) -> Iterator[str]:
    """The subset that loses most, as a report tells it too."""
    worst = worst_subset(suite.task, suite.analyses.disaggregation, suite.analyses.intervals)
    if worst is not None:
        subset = worst.subset
        where = counted(subset.images, "image") + ("" if subset.objects is None else f", {counted(subset.objects, 'object')}")
        yield (
            f"Of the subsets measured, {escape(subset.attribute)} “{escape(subset.subset)}” ({prose(subset.definition)}; {where}) loses most: "
            f"there it is {with_span(worst.estimate.value, worst.estimate)}, {number(worst.loss)} points less than over all, by "
            f"{escape(worst.figure)}."
        )


def _dearest_error(suite: SuiteRuns) -> Iterator[str]:
    """Of the task's own head."""
    for found in suite.analyses.errors[:1]:
        if told := told_errors(found):
            first = told[0]
            yield (
                f"Of what {escape(found.figure)} {number(found.value)} lacks, mending {escape(first.name)} alone would add most, "
                f"{number(first.cost, 1)} points ({prose(first.definition)})."
            )


def _calibration(suite: SuiteRuns) -> Iterator[str]:
    for head, found in suite.analyses.calibrations.items():
        filled = [b for b in found.bins if b.count and not math.isnan(b.accuracy)]
        if math.isnan(found.error) or found.error < CALIBRATED or not filled:
            continue
        worst = max(filled, key=lambda b: abs(b.confidence - b.accuracy) * b.count)
        over = "over" if worst.confidence > worst.accuracy else "under"
        yield (
            f"Scores of {head} predictions are no probabilities: expected calibration error {found.error:.3f} "
            f"({prose(found.definition)}); most of it where scores are {worst.low:g} to {worst.high:g}, which are right in "
            f"{100 * worst.accuracy:.0f} % of {worst.count:,} cases at a mean score of {worst.confidence:.2f}: {over}confident."
        )


def _variants(suite: SuiteRuns) -> Iterator[str]:
    """What the further variants lose of the main figure, where they lose any."""
    reference = suite.result
    for run in suite.others:
        if run.result is None or not run.result.measurements or run.result.status != reference.status:
            continue
        losses = []
        for name in MAIN[suite.task]:
            if _loses(suite, run, name):
                losses.append(f"{escape(name)} {number(run.result.value(name))} instead of {number(reference.value(name))}")
        if losses:
            plain = (run.result.protocol or {}).get("name", "paper") != "paper"
            what = f"Run with {escape(what_differs(run))}" + (
                " (the processor that ships with it, not the paper's protocol)" if plain else ""
            )
            yield f"{what}, the same weights give {listed(losses)}."


def _loses(suite: SuiteRuns, run: Run, name: str) -> bool:
    """Whether a variant's figure is lower than the reference's: by its paired interval where there is one, else by a tenth of a point."""
    assert run.result is not None
    comparison = suite.analyses.comparisons.get(run.label)
    for difference in () if comparison is None else comparison.differences:
        if (difference.figure, difference.category) == (name, None) and difference.difference.has_interval:
            return difference.significant and difference.difference.value < 0
    return run.result.value(name) - suite.result.value(name) <= -0.1


def _where(facts: CardFacts) -> str:
    """On what the figures were measured, and so what they say nothing of."""
    images = ((suite.dataset, int((suite.result.dataset or {}).get("scored_images", 0))) for suite in facts.measured)
    places = listed([f"{escape(name)} ({counted(count, 'image')})" for name, count in dict.fromkeys(images)]) or "nothing"
    return f"All figures are of {places}; how it does on other images was not measured."
