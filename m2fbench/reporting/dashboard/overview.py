"""The first page: what is open, and every series on a line of its own."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from m2fbench.analysis.words import counted
from m2fbench.history.records import Problem
from m2fbench.reporting.dashboard.digest import RECENT, STATUSES, Digest, Site
from m2fbench.reporting.dashboard.naming import day, without_password
from m2fbench.reporting.dashboard.page import markup, render
from m2fbench.reporting.dashboard.series_page import step_row
from m2fbench.reporting.dashboard.svg import sparkline
from m2fbench.reporting.dashboard.units import percent

PROBLEMS = 200  # lines of the list
OPEN = 50  # regressions listed with their circumstances
_NOUNS = ("regression", "improvement", "drift")  # statuses that are counted as such


def overview_page(
    site: Site, digests: Sequence[Digest], problems: Sequence[Problem], title: str, now: str, *, everything: bool
) -> str:
    """everything: the page of all series, in place of the first one."""
    main, others = site.shown, len(site.digests) - len(site.shown)
    those = site.digests if everything else main
    opened, accepted = site.open(those), site.accepted(those)
    return render(
        "overview.html.j2",
        site=title, root="", here="overview", everything=everything, rows=[_row(site, d) for d in digests], others=others,
        options=_options(site, digests),
        figures=_figures(site), statuses=[(s, *STATUSES[s]) for s in STATUSES], counts=_counts(digests), main=sorted({d.key.figure for d in main}),
        accepted=[(d, step_row(site, d, step)) for d, step in accepted[:OPEN]], past=len(accepted),
        opened=[(d, step_row(site, d, d.detection.open)) for d in opened[:OPEN] if d.detection.open], more=max(0, len(opened) - OPEN),
        hidden=0 if everything else len(site.open(site.digests)) - len(opened), runs=len(site.entries), newest=day(site.newest),
        machines=len({e.machine for e in site.entries.values()}), now=now,
        problems=[(without_password(p.location), p.kind, without_password(p.message)) for p in problems[:PROBLEMS]], unread=len(problems),
    )  # fmt: skip


def _row(site: Site, digest: Digest) -> dict[str, Any]:
    icon, meaning = STATUSES[digest.status]
    change = digest.change
    return {
        "d": digest, "key": digest.key, "icon": icon, "meaning": meaning, "note": _note(site, digest), "value": f"{digest.value:.9g}",
        "change": digest.change_text, "share": f"{change / abs(digest.level):.6g}" if digest.level and change == change else "",
        "worse": _direction(digest), "spark": markup(sparkline(digest)), "date": day(digest.time), "order": list(STATUSES).index(digest.status),
        "machines": "\n".join(digest.machines), "limit": digest.key.limit,
    }  # fmt: skip


def _note(site: Site, digest: Digest) -> str:
    """What stands below the state."""
    trend = digest.detection.trend
    if digest.status == "drift" and trend is not None:
        return f"{percent(trend.change)} in {trend.days:.0f} days"
    if digest.step is not None:
        return f"since {day(digest.points[digest.step.first].time)}"
    last = digest.detection.steps[-1] if digest.detection.steps else None
    if last is not None and last.accepted and len(digest.points) - last.first <= RECENT:
        acceptance = site.acceptance(digest, last)
        return f"accepted {day(acceptance.time)}" if acceptance is not None else "regression accepted"
    return "machine disturbed" if digest.disturbed else ""


def _direction(digest: Digest) -> str:
    """In a word, of changes that mean something."""
    return {"regression": "worse", "improvement": "better"}.get(digest.status, "")


def _options(site: Site, digests: Sequence[Digest]) -> list[tuple[str, str, list[str]]]:
    """(key, label, values) of the filters whose values are names."""
    machines = sorted({machine for d in digests for machine in d.machines})
    return [
        ("suite", "Suite", sorted({d.key.suite for d in digests})),
        ("row", "Checkpoint", sorted({d.key.row for d in digests})),
        ("variant", "Variant", sorted({d.key.variant for d in digests})),
        ("machine", "Machine", machines),
    ]


def _figures(site: Site) -> list[str]:
    """Of all series, the main ones first."""
    main = dict.fromkeys(sorted({d.key.figure for d in site.shown}))
    return list(main | dict.fromkeys(sorted({d.key.figure for d in site.digests})))


def _counts(digests: Sequence[Digest]) -> list[tuple[str, str, str, str]]:
    """(status, icon, how many, of what)"""
    found = Counter(d.status for d in digests)
    said = {status: counted(found[status], status) if status in _NOUNS else f"{found[status]} {status}" for status in STATUSES}
    return [(status, icon, *said[status].split(" ", 1)) for status, (icon, _) in STATUSES.items() if found[status]]  # type: ignore[misc]
