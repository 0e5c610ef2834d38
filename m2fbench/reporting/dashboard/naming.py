"""What things are called on the site: texts without what does not show, names of files, names of runs, times."""

import hashlib
import json
import math
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise

from m2fbench.analysis.series import SeriesKey
from m2fbench.history.records import Entry

SHORTEST = 12
"""Hexadecimal digits of a run's name, as many more as tell all runs apart."""
_SPACES = " \N{NO-BREAK SPACE}\N{NARROW NO-BREAK SPACE}"
_LEGIBLE = 60  # letters of a slug's readable part


def clean(text: object) -> str:
    """The text without control characters and halves of characters, which neither HTML nor XML may hold."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c in _SPACES else "\N{REPLACEMENT CHARACTER}" for c in shown)


def slug(*parts: object) -> str:
    """A name for a file: letters, digits and hyphens, lower case, readable, and by a hash its own for every sequence of parts."""
    digest = hashlib.sha256(json.dumps([str(part) for part in parts]).encode()).hexdigest()[:10]
    readable = "-".join(re.sub(r"[^a-z0-9]+", "-", str(part).lower()).strip("-") for part in parts if part not in ("", 0))
    return f"{readable[:_LEGIBLE].strip('-')}-{digest}".lstrip("-")


def slug_of(key: SeriesKey) -> str:
    """Of a series' page."""
    return slug(key.suite, key.row, key.variant, key.figure, key.kind, key.limit, key.machine)


def cell_slug(suite: str, row: str, variant: str) -> str:
    return slug(suite, row, variant)


def name_length(names: Iterable[str]) -> int:
    """How many digits of the SHA-256s tell them all apart, ``SHORTEST`` at least."""
    ordered = sorted(set(names))
    common = max((_common(a, b) for a, b in pairwise(ordered)), default=0)
    return max(SHORTEST, common + 1)


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@cache
def instant(time: str) -> float:
    """Seconds since 1970; NaN for what is no time."""
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def day(time: str) -> str:
    return clean(time[:10])


def minute(time: str) -> str:
    return clean(time[:16].replace("T", " "))


def night_name(entry: Entry) -> str:
    """Of the entry's night, where that says more than its day; "" otherwise."""
    return "" if entry.night == entry.time[:10] else clean(entry.night)


def without_password(location: str) -> str:
    """An address without the user and password that may stand in it; a site may be public."""
    return re.sub(r"(?<=://)[^/@]*@", "", location)
