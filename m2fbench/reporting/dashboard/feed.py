"""The feed of regressions: Atom 1.0 (RFC 4287), an entry for every regression of a main figure, the newest first.

Improvements are on the site and not in the feed, which is there to be an alarm. An entry keeps its name as long as its first bad run does.
"""

import uuid
import xml.etree.ElementTree as ET
from datetime import UTC, datetime

from m2fbench.analysis.series import Step
from m2fbench.reporting.dashboard.digest import Digest, Site
from m2fbench.reporting.dashboard.naming import clean, instant, slug_of
from m2fbench.reporting.dashboard.series_page import step_row

ATOM = "http://www.w3.org/2005/Atom"
MOST = 200  # entries
_SPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://m2fbench/dashboard")


def atom(site: Site, title: str, url: str | None) -> str:
    """url: of the site, with a slash at its end; links are relative to the feed where it is None."""
    found = [(digest, step) for digest in site.shown for step in digest.detection.steps if step.direction == "regression"]
    found.sort(key=lambda pair: (pair[0].points[pair[1].first].time, slug_of(pair[0].key)), reverse=True)
    ET.register_namespace("", ATOM)
    feed = ET.Element(f"{{{ATOM}}}feed")
    _add(feed, "title", f"{title}: regressions")
    _add(feed, "id", f"urn:uuid:{uuid.uuid5(_SPACE, url or clean(title))}")
    times = [_changed(site, digest, step) for digest, step in found[:MOST]]
    _add(feed, "updated", _moment(max(times, default=site.newest)))
    _add(_add(feed, "author"), "name", "m2fbench")
    if url is not None:
        _add(feed, "link", rel="self", type="application/atom+xml", href=f"{url}feed.xml")
    _add(feed, "link", rel="alternate", type="text/html", href=f"{url or ''}index.html")
    for digest, step in found[:MOST]:
        _entry(feed, site, digest, step, url or "")
    ET.indent(feed, " ")
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(feed, encoding="unicode") + "\n"


def _entry(feed: ET.Element, site: Site, digest: Digest, step: Step, url: str) -> None:
    row = step_row(site, digest, step)
    first = digest.points[step.first]
    entry = _add(feed, "entry")
    where = f"{digest.key.cell}" + (f" on {digest.key.machine}" if digest.key.machine else "")
    _add(entry, "title", f"{digest.key.figure} {row.change}: {where}")
    _add(entry, "id", f"urn:uuid:{uuid.uuid5(_SPACE, f'{digest.slug} {first.result}')}")
    _add(entry, "published", _moment(first.time))
    _add(entry, "updated", _moment(_changed(site, digest, step)))
    _add(entry, "link", rel="alternate", type="text/html", href=f"{url}series/{digest.slug}.html")
    _add(entry, "link", rel="related", type="text/html", href=f"{url}compare.html#{row.last_good}..{row.first}")
    _add(entry, "category", term="regression")
    if step.accepted:
        _add(entry, "category", term="accepted")
    changed = "; ".join(f"{what}: {before} to {after}" for what, before, after in row.changes)
    lines = [
        f"From {row.before} to {row.after}, first in the run {row.first} of {row.first_day}; the last good run is {row.last_good} of "
        f"{row.last_good_day}.",
        f"Evidence: {row.evidence}.",
        f"What changed between the two: {changed}." if changed else "Nothing that is recorded changed between the two.",
    ]
    if row.acceptance is not None:
        lines.append(f"Accepted on {row.acceptance[0]}: {row.acceptance[1]}")
    _add(entry, "content", " ".join(lines), type="text")


def _changed(site: Site, digest: Digest, step: Step) -> str:
    """When there was last something new to say of it: it was found, or accepted."""
    acceptance = site.acceptance(digest, step)
    return max(digest.points[step.found].time, "" if acceptance is None else acceptance.time)


def _add(parent: ET.Element, name: str, text: str | None = None, **attributes: str) -> ET.Element:
    element = ET.SubElement(parent, f"{{{ATOM}}}{name}", {key: clean(value) for key, value in attributes.items()})
    element.text = None if text is None else clean(text)
    return element


def _moment(time: str) -> str:
    """As RFC 3339 writes it; 1970 for what is no time."""
    seconds = instant(time)
    return datetime.fromtimestamp(seconds if seconds == seconds else 0, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
