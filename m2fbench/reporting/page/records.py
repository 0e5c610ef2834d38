"""What a report is put together from: tables, figures, pictures, and the sections that hold them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from m2fbench.reporting.images.picture import Picture

NOT_MEASURED = "-"


@dataclass(frozen=True)
class Cell:
    """One cell of a table; all of it plain text, escaped by whoever writes it.

    text: as shown. value: what it sorts by and what a CSV file has, with all its digits; None: the text. note: why there is nothing, shown as
    a footnote. link: key of a section or record of the page that says more. about: (label, text) pairs shown on demand.
    """

    text: str
    value: float | str | None = None
    note: str = ""
    link: str = ""
    about: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Column:
    """numeric: right-aligned, sorted as numbers. note: what the column means, where its name does not say it."""

    name: str
    numeric: bool = False
    note: str = ""


@dataclass(frozen=True)
class Table:
    """key: safe as a file's name and as an HTML id. rows: as many cells as columns each. notes: below the table.
    in_page: False for what only the files have, being too large to be read."""

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    in_page: bool = True

    @property
    def footnotes(self) -> dict[str, str]:
        """Each distinct note of a cell -> its mark: a, b, ..., z, aa, ab."""
        notes = dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note)
        return {note: _letters(number) for number, note in enumerate(notes)}


@dataclass(frozen=True)
class Figure:
    """key: safe as a file's name and as an HTML id. alt: what is to be seen, for those who cannot. svg: a document of its own, text as text;
    png: the same as pixels. Both have a transparent background and can be read on white and on a dark page."""

    key: str
    title: str
    caption: str
    alt: str
    svg: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of the page, with what it shows in this order: intro, figures, pictures, tables, notes, further parts. folded: closed at first."""

    key: str
    title: str
    intro: str = ""
    figures: tuple[Figure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    parts: tuple["Section", ...] = ()
    folded: bool = False

    @property
    def empty(self) -> bool:
        return not (self.figures or self.pictures or self.tables or self.notes or self.parts)


@dataclass(frozen=True)
class Headline:
    """One of the main figures, large at the top: what, of which run, how much, and in what it stands (interval, published figure)."""

    figure: str
    run: str
    value: str
    context: str
    link: str = ""


@dataclass(frozen=True)
class InShort:
    """One of the answers at the top: what it is about, in a sentence, and the key of the section that says more."""

    about: str
    text: str
    link: str


@dataclass(frozen=True)
class Page:
    """All of ``report.html``. summary: a line or two below the title. in_short, lead: the answers and the figures below the headlines.
    footer: what made it."""

    title: str
    summary: str
    headlines: tuple[Headline, ...]
    sections: tuple[Section, ...]
    footer: str = ""
    lead: tuple[Figure, ...] = ()
    in_short: tuple[InShort, ...] = ()


def all_parts(sections: Iterable[Section]) -> Iterator[Section]:
    """The sections with all their parts, in the order of the page."""
    for section in sections:
        yield section
        yield from all_parts(section.parts)


def number_cell(value: float, digits: int = 2, note: str = "", signed: bool = False) -> Cell:
    """A number, or the sign for none with the reason."""
    if math.isnan(value):
        return Cell(NOT_MEASURED, math.nan, note)
    shown = round(value, digits) + 0.0
    return Cell(f"{shown:+,.{digits}f}" if signed else f"{shown:,.{digits}f}", value)


def interval_cell(low: float, high: float, digits: int = 2, note: str = "") -> Cell:
    """The two ends of an interval; sorted by its width."""
    if math.isnan(low):
        return Cell(NOT_MEASURED, math.nan, note)
    if math.isnan(high):
        return Cell(f"over {low:.{digits}f}", math.inf)
    return Cell(f"{low:.{digits}f} to {high:.{digits}f}", high - low)


def _letters(number: int) -> str:
    text = ""
    while number >= 0:
        text = chr(ord("a") + number % 26) + text
        number = number // 26 - 1
    return text
