"""The steps of a cell's series in the terminal: each night on which something stepped once, with what else changed there."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from rich.text import Text

from m2fbench.analysis.circumstances import changes, in_short
from m2fbench.analysis.series import Detection, Series, Step
from m2fbench.history.records import Acceptance, Entry
from m2fbench.reporting.terminal.history import SHORT, STYLES, Detected, changed, on_machine, plain, shown, when

_Stepped = tuple[Series, Detection, Step]


def step_lines(found: Detected, entries: Mapping[str, Entry], accepted: Sequence[Acceptance]) -> Iterator[Text]:
    """By the night on which they began: the first result at the new level and the last at the old, each figure from what to what, the reasons for
    which they were accepted, and once what changed between the two. entries: by SHA-256."""
    events: dict[tuple[str, str, str], list[_Stepped]] = defaultdict(list)
    for series, detection in found:
        for step in detection.steps:
            first, last_good = series.points[step.first], series.points[step.last_good]
            events[first.time, first.result, last_good.result].append((series, detection, step))
    above: list[str] = []
    for (time, first_result, last_result), steps in sorted(events.items(), key=lambda event: event[0]):
        before, after = entries[last_result], entries[first_result]
        yield Text(plain(f"{when(time)}{_night(after)}: first {first_result[:SHORT]}; before it {_named(before)}"))
        for each in steps:
            yield _figure_line(*each)
        yield from _reasons(steps, accepted)
        told = [
            f"{change.what}: {in_short(change.before)} -> {in_short(change.after)}"
            for change in changes(before.circumstances, after.circumstances)
        ] or ["nothing that was recorded changed between the two"]
        for line in ["what changed is the same as above"] if told == above and len(told) > 1 else told:
            yield Text(plain(f"  {line}"))
        above = told


def _figure_line(series: Series, detection: Detection, step: Step) -> Text:
    standing = ", accepted" if step.accepted else ", open" if step is detection.open else ""
    evidence = "compared image by image" if step.evidence == "paired" else "against the series' own noise"
    return Text(
        plain(
            f"  {series.key.figure}{on_machine(series)}: {step.direction}, {shown(step.before, series.unit)} -> "
            f"{shown(step.after, series.unit)} ({changed(step.change, step.relative, series.unit)}), {evidence}{standing}"
        ),
        style=STYLES[step.direction] if step is detection.open else "",
    )


def _reasons(steps: Sequence[_Stepped], accepted: Sequence[Acceptance]) -> Iterator[Text]:
    """Each once, with the figures it holds for where there are several."""
    reasons: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for series, _, step in steps:
        if step.accepted and (by := _acceptance(series, step, accepted)) is not None:
            reasons[when(by.time), by.host, by.reason].append(series.key.figure)
    for (time, host, reason), figures in reasons.items():
        of = f" ({', '.join(figures)})" if len(reasons) > 1 else ""
        yield Text(plain(f"  accepted{of} {time} on {host}: {reason}"))


def _acceptance(series: Series, step: Step, accepted: Sequence[Acceptance]) -> Acceptance | None:
    """The one that covers the step: of its first night, or of a later one."""
    places = {point.result: place for place, point in enumerate(series.points) if place >= step.first}
    of_step = [a for a in accepted if a.figure == series.key.figure and a.result in places]
    return min(of_step, key=lambda a: (places[a.result], a.time), default=None)


def _named(entry: Entry) -> str:
    return f"{entry.sha256[:SHORT]} of {when(entry.time)}{_night(entry)}"


def _night(entry: Entry) -> str:
    return f", night {entry.night}" if entry.night else ""
