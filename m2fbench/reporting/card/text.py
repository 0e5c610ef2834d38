"""Text of a model card: values, tables, and names from files written so that Markdown and HTML show them as they are."""

import math
import re
from collections.abc import Iterable, Sequence

from m2fbench.analysis.findings import Estimate

MISSING = "[More Information Needed]"
# by which an earlier card is known to have what an analysis found
INTERVAL = "95 % interval"
PARTS = "What the figures are for a part of the data"
MENDING = "What mending one kind of error alone would add to"
LAYERS = "Mask2Former predicts after every decoder layer."
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "&#124;"}
_LONGEST = 200  # characters of a name; more would be no name


def plain(text: object, longest: int = _LONGEST) -> str:
    """``text`` on one line, of bounded length, without characters that do not show."""
    line = re.sub(
        r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    ).strip()
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def prose(text: object) -> str:
    """A sentence from elsewhere in the program, or from a file, as text of a paragraph."""
    return escape(text, 2000)


def escape(text: object, longest: int = _LONGEST) -> str:
    """A name from a file as text of a paragraph or of a table's cell."""
    shown = re.sub(r"([\\`*{}\[\]~#!$])", r"\\\1", plain(text, longest))
    shown = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", shown)  # inside a word, as in AP_th_pan, they are themselves
    shown = re.sub(r"[&<>|]", lambda found: _ENTITIES[found[0]], shown)
    shown = re.sub(r"(?i)(https?|ftp)(:)(?=//)", r"\1&#58;", shown)  # GitHub's Markdown makes links of bare addresses
    shown = re.sub(r"(?i)\bwww\.", "www&#46;", shown)
    return re.sub(r"^([-+]|\d+[.)])(?= )", r"\\\1", shown)


def code(text: object) -> str:
    """A hash, a path, a command as code in a paragraph."""
    shown = plain(text, 2000)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{shown}{space}{fence}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table of cells that are Markdown already; the first ``words`` columns are words, the others numbers, right-aligned."""
    lines = [header, [*["---"] * words, *["---:"] * (len(header) - words)], *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def folded(summary: str, content: str) -> str:
    """``content``, shown on a click. summary: Markdown-free text."""
    return f"<details>\n<summary>{summary}</summary>\n\n{content}\n\n</details>"


def number(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    return "-" if math.isnan(value) else f"{round(value, digits) + 0.0:+.{digits}f}"


def span(estimate: Estimate | None, digits: int = 2) -> str:
    """The interval alone."""
    if estimate is None or not estimate.has_interval:
        return "-"
    return f"{number(estimate.low, digits)} to {number(estimate.high, digits)}"


def with_span(value: float, estimate: Estimate | None) -> str:
    """A figure as it stands in a sentence."""
    return number(value) + (f" ({span(estimate)})" if estimate is not None and estimate.has_interval else "")


def listed(parts: Sequence[str]) -> str:
    """a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""


def needed(who: str) -> str:
    """What no measurement and no config can say, and who can."""
    return f"{MISSING} (known to {who})"
