"""A comparison of two runs as a page of its own."""

from collections.abc import Sequence
from pathlib import Path

from m2fbench.analysis.findings import Comparison
from m2fbench.environment import version_of
from m2fbench.reporting.images.gallery import Section as Shown
from m2fbench.reporting.page.html import render
from m2fbench.reporting.page.records import Headline, Page
from m2fbench.reporting.page.sections_findings import comparison
from m2fbench.writing import write_atomically

HEADLINES = 6


def write_comparison_html(found: Comparison, pictures: Sequence[Shown], path: Path) -> None:
    """Write ``path``: differences, the images that changed most, and their pictures, as ``compared_pictures`` gives them. Raises StoreError."""
    write_atomically(path, render(comparison_page(found, pictures)))


def comparison_page(found: Comparison, pictures: Sequence[Shown]) -> Page:
    """The page, with the first figures large at the top."""
    section = comparison(found, "comparison", [(part.title, part.description, part.pictures) for part in pictures])
    headlines = tuple(
        Headline(
            d.figure, "B - A", f"{d.difference.value:+.2f}", f"{d.a:.2f} to {d.b:.2f}"
            + (f"; 95 %: {d.difference.low:+.2f} to {d.difference.high:+.2f}" if d.difference.has_interval else ""),
        )
        for d in [d for d in found.differences if d.category is None and d.difference.value == d.difference.value][:HEADLINES]
    )  # fmt: skip
    summary = f"A: {found.a}. B: {found.b}. Over {found.images} images that both have; differences are in points."
    return Page(f"{found.b} against {found.a}", summary, headlines, (section,), f"Made by m2fbench {version_of('m2fbench')}.")
