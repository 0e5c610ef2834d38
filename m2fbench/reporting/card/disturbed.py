"""Speed that something disturbed: what the speed results say themselves, and of which variants."""

import re
from collections.abc import Iterable, Iterator

from m2fbench.analysis.runs import Run
from m2fbench.reporting.card.facts import CardFacts, SuiteRuns
from m2fbench.reporting.card.text import escape, listed, prose

MARK = "‡"
"""Behind a figure of speed to which a warning belongs."""
_OF_ONE = re.compile(r"(.+?), scope [^:]+: ")  # a series of latencies, which the session's other variants repeat


def disturbances_of(run: Run, suite: SuiteRuns) -> list[str]:
    """The warnings of a run's speed that are of its own variant, without those that the figures' protocol tells already."""
    if run.speed is None:
        return []
    told = suite.result.warnings if suite.reference is not None else ()
    own = str(run.speed.variant["name"])
    return [w for w in run.speed.warnings if w not in told and ((of := _OF_ONE.match(w)) is None or of[1] == own)]


def marked(figure: str, run: Run, suite: SuiteRuns) -> str:
    """``figure``, of a run's speed, with the mark where it was disturbed."""
    return f"{figure} {MARK}" if figure != "-" and disturbances_of(run, suite) else figure


def warnings(facts: CardFacts, timed: Iterable[Run]) -> Iterator[str]:
    """A line a warning of the timed runs, each once, with the variants that it is of."""
    variants: dict[str, dict[str, None]] = {}
    for suite in facts.suites:
        for run in (run for run in timed if any(run is one for one in suite.runs)):
            assert run.speed is not None
            for warning in disturbances_of(run, suite):
                variants.setdefault(warning, {})[escape(run.speed.variant["name"])] = None
    for warning, names in variants.items():
        yield f"- {MARK} {prose(warning) if _OF_ONE.match(warning) else f'{listed(list(names))}: {prose(warning)}'}"
