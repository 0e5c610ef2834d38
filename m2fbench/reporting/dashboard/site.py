"""The whole site of a history."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.analysis.regressions import Rules
from m2fbench.analysis.series import Series
from m2fbench.history.records import Entry, Problem

Tell = Callable[[str], None]


@dataclass(frozen=True)
class SiteRequest:
    """title: of the site. url: where it is published, with which the feed's links are whole; None for links relative to the feed. rules: of
    detection. now: the time of making, UTC, ISO 8601."""

    title: str
    url: str | None = None
    rules: Rules = Rules()  # noqa: RUF009  frozen
    now: str = ""


def write_site(
    folder: Path,
    entries: Sequence[Entry],
    series: Sequence[Series],
    problems: Sequence[Problem],
    request: SiteRequest,
    *,
    tell: Tell | None = None,
) -> list[Path]:
    """Write the site; the files written, ``index.html`` first. Files that are already as they should be are left alone. Raises StoreError."""
    raise NotImplementedError
