"""The whole site of a history."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from m2fbench.analysis.regressions import Rules
from m2fbench.analysis.series import Series
from m2fbench.history.records import Acceptance, Entry, Problem
from m2fbench.reporting.dashboard.digest import Digest, Site

Tell = Callable[[str], None]
Progress = Callable[[int, int], None]


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
    acceptances: Sequence[Acceptance] = (),
    tell: Tell | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Write the site; the files written, ``index.html`` first. Files that are already as they should be are left alone. acceptances: of
    ``History.acceptances``, for the reasons. Raises StoreError, also where the folder holds something else than an earlier site."""
    from m2fbench.reporting.dashboard.files import Folder

    say = tell or (lambda what: None)
    with Folder(folder) as target:
        say(f"looking for changes in {len(series)} series")
        site = Site(entries, series, request.rules, progress, acceptances)
        pages = _pages(site, problems, request)
        say("writing runs")
        parts = list(_data(site, request))
        target.announce([*pages, *(name for name, _ in parts)])
        for name, text in parts:
            target.write(name, text)
        say(f"writing {len(pages)} pages")
        for number, (name, make) in enumerate(reversed(pages.items()), 1):  # the first page last: it links to all others
            target.write(name, make())
            if progress is not None:
                progress(number, len(pages))
    return [folder / name for name in reversed(target.written)]


def _pages(site: Site, problems: Sequence[Problem], request: SiteRequest) -> dict[str, Callable[[], str]]:
    """Name -> what makes it, so that no more than one of them is in memory."""
    from m2fbench.reporting.dashboard.overview import overview_page
    from m2fbench.reporting.dashboard.page import render

    def overview(digests: Sequence[Digest], everything: bool) -> Callable[[], str]:
        return lambda: overview_page(site, digests, problems, request.title, request.now, everything=everything)

    found = {"index.html": overview(site.shown, False)}
    if len(site.shown) < len(site.digests):
        found["all.html"] = overview(site.digests, True)
    for name in ("run", "compare"):
        found[f"{name}.html"] = lambda name=name: render(f"{name}.html.j2", site=request.title, root="", here=name)  # type: ignore[misc]
    return found | _series_pages(site, request.title)


def _series_pages(site: Site, title: str) -> dict[str, Callable[[], str]]:
    from m2fbench.reporting.dashboard.series_page import series_page

    cells: dict[str, list[Digest]] = defaultdict(list)
    for digest in site.digests:
        cells[digest.key.cell].append(digest)

    def page(digest: Digest) -> Callable[[], str]:
        return lambda: series_page(site, digest, cells[digest.key.cell], title)

    return {f"series/{digest.slug}.html": page(digest) for digest in site.digests}


def _data(site: Site, request: SiteRequest) -> Iterator[tuple[str, str]]:
    from m2fbench.reporting.dashboard.data import cell_files, run_files, series_json
    from m2fbench.reporting.dashboard.feed import atom
    from m2fbench.reporting.dashboard.page import assets

    yield from assets().items()
    yield from run_files(site)
    yield from cell_files(site)
    yield "data/series.json", series_json(site)
    yield "feed.xml", atom(site, request.title, whole_url(request.url))


def whole_url(url: str | None) -> str | None:
    """The address of the site with a slash at its end."""
    return None if not url else url.removesuffix("index.html").rstrip("/") + "/"
