"""A verdict as Markdown, in the form that GitHub shows as a job summary."""

from collections import Counter
from collections.abc import Sequence

from m2fbench.environment import version_of
from m2fbench.nightly.records import FigureVerdict, Verdict
from m2fbench.nightly.wording import (
    MOVED,
    TextTable,
    by_importance,
    cells_table,
    explanation,
    figures_table,
    headline,
    moved,
    moved_table,
    unmeasured_table,
)
from m2fbench.reporting.card.text import code, escape, plain, prose

LIMIT = 1_000_000
"""Bytes. GitHub shows no summary of a step that is longer than 1 MiB."""
_RESERVED = 4_000
"""Bytes kept for what stands at the end, and for the lines that say what was left out."""
_ESCAPED = 400
"""Characters of a cell of a table."""


def summary_markdown(verdict: Verdict, *, url: str | None = None, limit: int = LIMIT) -> str:
    """limit: in bytes. What is least important is left out where it would be longer, and a line says so. url: of the dashboard."""
    text = _Bounded(limit - _RESERVED)
    text.add(f"### {prose(headline(verdict))}\n")
    title = verdict.title or verdict.nightly
    text.add(f"{escape(title)} · night {escape(verdict.night)} · {escape(verdict.machine)}{_link(url)}")
    if not verdict.complete:
        text.add("\n**The night was interrupted; the same command resumes it.**")
    _listed(text, verdict.notes)
    _section(text, moved_table(verdict))
    _details(text, by_importance(verdict.of(*MOVED)), url)
    _section(text, unmeasured_table(verdict))
    _folded(text, figures_table(verdict))
    _folded(text, cells_table(verdict))
    end = (
        f"m2fbench {escape(version_of('m2fbench') or 'of no known version')} · started {escape(verdict.started)}, finished "
        f"{escape(verdict.finished)} · exit status {verdict.exit_status}\n"
    )
    return f"{text}\n\n{end}"


class _Bounded:
    """Text that takes no more than so many bytes."""

    def __init__(self, limit: int) -> None:
        self._parts: list[str] = []
        self._left = limit

    def add(self, part: str) -> bool:
        """Whether there was room for it."""
        size = len(part.encode()) + 1
        if size > self._left:
            return False
        self._left -= size
        self._parts.append(part)
        return True

    def force(self, part: str) -> None:
        """Of the reserve."""
        self._parts.append(part)

    def __str__(self) -> str:
        return "\n".join(self._parts)


def _link(url: str | None, name: str = "dashboard") -> str:
    if not url:
        return ""
    safe = plain(url, 2000).replace("<", "%3C").replace(">", "%3E").replace(" ", "%20")
    return f" · [{name}](<{safe}>)" if safe.startswith(("https://", "http://")) else f" · {name}: {code(url)}"


def _rows(text: _Bounded, table: TextTable) -> None:
    """As many as there is room for."""
    header = f"| {' | '.join(escape(cell) for cell in table.header)} |"
    rule = f"| {' | '.join(['---'] * table.words + ['---:'] * (len(table.header) - table.words))} |"
    lines = (f"| {' | '.join(escape(cell, _ESCAPED) or ' ' for cell in row)} |" for row in table.rows)
    for number, line in enumerate((f"{header}\n{rule}", *lines)):
        if not text.add(line):
            _left_out(text, len(table.rows) - max(0, number - 1), "rows")
            return


def _left_out(text: _Bounded, count: int, what: str) -> None:
    text.force(f"\n{count} {what} are left out here, as a summary may hold no more than 1 MiB; verdict.json has all.")


def _section(text: _Bounded, table: TextTable) -> None:
    if table.rows and text.add(f"\n#### {table.title}\n"):
        _rows(text, table)


def _folded(text: _Bounded, table: TextTable) -> None:
    if table.rows and text.add(f"\n<details>\n<summary>{table.title} ({len(table.rows)})</summary>\n"):
        _rows(text, table)
        text.force("\n</details>")


def _details(text: _Bounded, figures: Sequence[FigureVerdict], url: str | None) -> None:
    """By cell; what several of its figures have in common is said once."""
    cells: dict[str, list[FigureVerdict]] = {}
    for figure in figures:
        cells.setdefault(figure.cell, []).append(figure)
    for number, (cell, of_cell) in enumerate(cells.items()):
        if not text.add(f"\n**{prose(cell)}**\n\n{_cell_details(of_cell, url)}"):
            _left_out(text, len(cells) - number, "cells' explanations")
            return


def _cell_details(figures: Sequence[FigureVerdict], url: str | None) -> str:
    told = [(figure, explanation(figure)) for figure in figures]
    times = Counter(line for _, lines in told for line in set(lines))
    parts = []
    for figure, lines in told:
        page = _link(f"{url.rstrip('/')}/{figure.page}", "all its nights") if url and figure.page else ""
        parts.append(f"- **{figure.state}: {prose(moved(figure))}**{page}")
        parts += [f"  - {prose(line)}" for line in lines if times[line] == 1]
    for line in dict.fromkeys(line for _, lines in told for line in lines if times[line] > 1):
        names = list(dict.fromkeys(figure.figure for figure, lines in told if line in lines))
        whose = "" if times[line] == len(told) else f"{', '.join(names)}: "
        parts.append(f"- {prose(whose + line)}")
    return "\n".join(parts)


def _listed(text: _Bounded, notes: Sequence[str]) -> None:
    for number, note in enumerate(notes):
        if not text.add(f"{chr(10) * (number == 0)}- {prose(note)}"):
            _left_out(text, len(notes) - number, "notes")
            return
