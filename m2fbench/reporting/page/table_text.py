"""A table as CSV, Markdown and LaTeX. Names from files are text in each of them, whatever they hold."""

import csv
import io
import math
import re

from m2fbench.reporting.card.text import escape, plain
from m2fbench.reporting.page.records import Cell, Table

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    "±": r"$\pm$", "·": r"\textperiodcentered{}", "†": r"\textdagger{}", "…": r"\ldots{}", "→": r"$\rightarrow$", "−": r"$-$",
    "⁶": r"\textsuperscript{6}", "⁹": r"\textsuperscript{9}", "²": r"\textsuperscript{2}", "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
}  # fmt: skip


def csv_of(table: Table) -> str:
    """Numbers with all their digits; nothing where there is no number, and then why, if that is known, in the last column."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    noted = bool(table.footnotes)
    writer.writerow([*(column.name for column in table.columns), *(["remark"] if noted else [])])
    for row in table.rows:
        why = "; ".join(dict.fromkeys(cell.note for cell in row if cell.note))
        writer.writerow([*map(_raw, row), *([why] if noted else [])])
    return buffer.getvalue()


def _raw(cell: Cell) -> str | float:
    if isinstance(cell.value, float | int) and not math.isinf(cell.value) and " to " not in cell.text:
        return "" if math.isnan(cell.value) else cell.value
    return cell.text


def markdown_of(table: Table) -> str:
    """A heading-free table of GitHub's Markdown, with its title above and its notes below."""
    marks = table.footnotes

    def line(cells: list[str]) -> str:
        return f"| {' | '.join(cell or ' ' for cell in cells)} |"

    def shown(cell: Cell) -> str:
        return escape(cell.text) + (f" <sup>{marks[cell.note]}</sup>" if cell.note else "")

    lines = [f"**{escape(table.title)}**", "", line([escape(c.name) for c in table.columns])]
    lines.append(line(["---:" if c.numeric else "---" for c in table.columns]))
    lines += [line([shown(cell) for cell in row]) for row in table.rows]
    notes = [f"{escape(column.name)}: {_sentence(column.note)}" for column in table.columns if column.note]
    notes += [f"<sup>{mark}</sup> {_sentence(note)}" for note, mark in marks.items()]
    notes += [_sentence(note) for note in table.notes]
    return "\n".join([*lines, *([""] if notes else []), *(f"- {note}" for note in notes)]) + "\n"


def _sentence(text: str) -> str:
    """Escaped without the limit that names have."""
    return " ".join(escape(word) for word in text.split())


def latex_of(table: Table) -> str:
    """A ``table`` environment; it needs the packages booktabs and textcomp (``\\usepackage[T1]{fontenc}``)."""
    marks = table.footnotes
    columns = "".join("r" if column.numeric else "l" for column in table.columns)

    def shown(cell: Cell) -> str:
        mark = rf"\textsuperscript{{{marks[cell.note]}}}" if cell.note else ""
        return latex(cell.text) + mark

    rows = [" & ".join(map(shown, row)) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}", r"\centering", rf"\caption{{{latex(table.title)}}}", rf"\label{{tab:{table.key}}}",
        rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(latex(c.name) for c in table.columns) + r" \\", r"\midrule",
        *rows, r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    notes = [f"{latex(column.name)}: {latex(column.note)}" for column in table.columns if column.note]
    notes += [rf"\textsuperscript{{{mark}}}{latex(note)}" for note, mark in marks.items()]
    notes += [latex(note) for note in table.notes]
    if notes:
        lines += [
            "",
            r"\smallskip",
            r"\begin{minipage}{\linewidth}\footnotesize",
            *(f"{note}." + r"\par" for note in notes),
            r"\end{minipage}",
        ]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def latex(text: str) -> str:
    """Text as text of LaTeX: nothing in it is a command, and minus signs of numbers are minus signs."""
    line = " ".join(plain(word) for word in text.split())
    if re.fullmatch(r"[-+][\d.,]+", line):
        return f"${line}$"
    return "".join(_LATEX.get(character, character) for character in line)
