"""A model card taken apart for reading: metadata, headings, tables, code, and prose with the place of every sentence.

Markdown as cards are written, not all of CommonMark: ATX headings, pipe tables and plain HTML tables, fenced code, lists. A card inside a
``markdown`` fence (a page about a card) is read as the card. Markup is taken out of prose character by character, so that columns stay true.
"""

import bisect
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from m2fbench.errors import CardError, SuiteError
from m2fbench.yaml_lines import Lines, parse_yaml

MAX_BYTES = 2 * 2**20
MAX_METADATA = 2**18
MAX_HEADING = 300  # characters read of one
MAX_SENTENCE = 4000  # characters read of one sentence; the rest is read as another
MAX_CELLS = 200_000  # of HTML tables
MISSING = "[More Information Needed]"


@dataclass(frozen=True)
class Paragraph:
    """Prose: a paragraph or an item of a list. text: without markup, one line. starts: (offset in text, line, column) of every line of it. section:
    the headings above, outermost first. lead: the sentence with a colon that a list follows."""

    text: str
    starts: tuple[tuple[int, int, int], ...]
    section: tuple[str, ...]
    lead: str = ""

    def place(self, offset: int) -> tuple[int, int]:
        """(line, column), from 1, of a character of ``text``."""
        start, line, column = self.starts[bisect.bisect_right(self.starts, offset, key=lambda s: s[0]) - 1]
        return line, column + offset - start

    @property
    def label(self) -> str:
        """What stands before a colon at its beginning: "Metrics" of "- **Metrics**: ..."; empty where nothing does."""
        found = re.match(r"[ ]*([^:.]{1,60}?)[ ]{0,8}:(?!//)", self.text)
        return found[1].strip() if found else ""


@dataclass(frozen=True)
class TableBlock:
    """rows: cells without markup, the header first. lines: of each row."""

    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    section: tuple[str, ...]
    lead: str = ""


@dataclass(frozen=True)
class CodeBlock:
    """language: as the fence says, lower case. line: of its first line of code."""

    language: str
    text: str
    line: int


@dataclass
class Document:
    """metadata: the front matter as plain values, None without one; metadata_lines: the line of every key. title: the first heading."""

    path: Path
    text: str
    metadata: Any = None
    metadata_lines: Lines = field(default_factory=dict)
    title: str = ""
    paragraphs: list[Paragraph] = field(default_factory=list)
    tables: list[TableBlock] = field(default_factory=list)
    code: list[CodeBlock] = field(default_factory=list)
    headings: list[tuple[int, str]] = field(default_factory=list)
    measured: dict[int, str] = field(default_factory=dict)
    """Lines of the sections that ``m2fbench card`` keeps, and which section each is in: what stands there was measured."""

    @property
    def gaps(self) -> int:
        """How often something is marked as not known."""
        return self.text.count(MISSING)


def read_document(path: Path) -> Document:
    """Raises CardError where the file is no text, too large, or has metadata that are no YAML."""
    try:
        if path.exists() and not path.is_file():
            raise CardError(f"{path}: expected the Markdown file of a model card, got {'a folder' if path.is_dir() else 'no file'}")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CardError(
                f"{path}: expected a model card of at most {MAX_BYTES >> 20} MiB, got {size >> 20} MiB; is this a card?"
            )
        data = path.read_bytes()
    except OSError as error:
        raise CardError(f"{path}: cannot be read: {error.strerror}; expected the Markdown file of a model card") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CardError(f"{path}: expected UTF-8 text, got other bytes at position {error.start}") from error
    if "\0" in text:
        raise CardError(f"{path}: expected the text of a model card, got a file with NUL characters")
    return _Reader(path, text).read()


_FENCE = re.compile(r"[ \t>]{0,20}(`{3,}|~{3,})[ ]{0,3}\{?[ ]?\.?([\w+#-]{0,20})(.{0,200})$")
_HEADING = re.compile(r"[ ]{0,3}(#{1,6})[ \t]+(\S.*)$")
_ITEM = re.compile(r"[ \t>]{0,40}(?:[-*+]|\d{1,3}[.)])[ \t]+")


class _Reader:
    """Goes through the lines once."""

    def __init__(self, path: Path, text: str) -> None:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        self.raw = text.split("\n")
        self.document = Document(path, text, measured=dict(_marked(self.raw)))
        self.lines = list(self.raw)
        self.section: list[tuple[int, str]] = []
        self.held: list[tuple[int, str]] = []  # lines of the paragraph at hand
        self.lead = ""
        self.cards = 0  # fences around whole cards that are open
        self.last_end = text.count("-->")  # ends of comments that may still follow

    def read(self) -> Document:
        at = self._front_matter(0)
        while at < len(self.lines):
            at = self._block(at)
        self._flush()
        return self.document

    def _block(self, at: int) -> int:
        """Reads what begins at a line; the line after it."""
        if "<!--" in self.lines[at]:
            self._blank_comments(at)
        line = self.lines[at]
        fence = _FENCE.match(line)
        if fence and not (fence[1][0] == "`" and "`" in fence[3]):
            return self._fence(at, fence)
        if heading := _HEADING.match(line):
            self._flush()
            self._heading(at, len(heading[1]), plain(heading[2][:MAX_HEADING]).strip().rstrip("#").strip())
            return at + 1
        if "|" in line and at + 1 < len(self.lines) and _is_delimiter(self.lines[at + 1]):
            self._flush(keep_lead=True)
            return self._table(at)
        if "<table" in line.casefold():
            self._flush(keep_lead=True)
            return self._html_table(at)
        if not line.strip():
            self._flush()
        else:
            if _ITEM.match(line):
                self._flush()
            self.held.append((at, line))
        return at + 1

    def _blank_comments(self, at: int) -> None:
        """HTML comments that begin on a line as blanks. One that never ends is none, unless it begins the line."""
        start = self.lines[at].find("<!--")
        while start >= 0:
            ahead = range(at, len(self.lines) if self.last_end else at)
            end = next((k for k in ahead if "-->" in self.lines[k][start if k == at else 0 :]), None)
            if end is None:
                self.last_end = 0
                if not self.lines[at][:start].strip():
                    self.lines[at:] = [""] * (len(self.lines) - at)
                return
            if end == at:
                stop = self.lines[at].index("-->", start) + 3
                self.lines[at] = self.lines[at][:start] + " " * (stop - start) + self.lines[at][stop:]
            else:
                stop = self.lines[end].index("-->") + 3
                self.lines[at] = self.lines[at][:start]
                self.lines[at + 1 : end] = [""] * (end - at - 1)
                self.lines[end] = " " * stop + self.lines[end][stop:]
            start = self.lines[at].find("<!--")

    def _front_matter(self, at: int) -> int:
        """The YAML between two lines of dashes, if it begins here."""
        if at >= len(self.lines) or self.lines[at].rstrip() != "---":
            return at
        end = next((k for k in range(at + 1, len(self.lines)) if self.lines[k].rstrip() in ("---", "...")), None)
        if end is None:
            return at
        if self.document.metadata is not None:
            return end + 1
        text = "\n".join(self.raw[at + 1 : end])
        if len(text) > MAX_METADATA:
            raise CardError(
                f"{self.document.path}:{at + 1}: expected metadata of at most {MAX_METADATA >> 10} KiB, got {len(text) >> 10} KiB"
            )
        try:
            self.document.metadata, self.document.metadata_lines = parse_yaml("\n" * (at + 1) + text, self.document.path)
        except SuiteError as error:
            raise CardError(f"{error}; in the metadata of the card") from error
        return end + 1

    def _fence(self, at: int, fence: re.Match[str]) -> int:
        self._flush(keep_lead=True)
        language = fence[2].lower()
        if language in ("markdown", "md"):
            self.cards += 1
            return self._front_matter(at + 1)
        if not language and self.cards and not fence[3].strip():
            self.cards -= 1
            return at + 1
        end = next((k for k in range(at + 1, len(self.lines)) if _closes(self.lines[k], fence[1])), len(self.lines))
        self.document.code.append(CodeBlock(language, "\n".join(self.raw[at + 1 : end]), at + 2))
        return end + 1

    def _heading(self, at: int, level: int, text: str) -> None:
        self.document.title = self.document.title or text
        self.document.headings.append((at + 1, text))
        self.section = [(depth, name) for depth, name in self.section if depth < level] + [(level, text)]
        self.lead = ""

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(name for _, name in self.section)

    def _flush(self, keep_lead: bool = False) -> None:
        """Ends the paragraph at hand."""
        if not self.held:
            return
        starts, text, offset = [], [], 0
        is_item = _ITEM.match(self.held[0][1]) is not None
        for at, line in self.held:
            body = line[(_ITEM.match(line) or re.match("", line)).end() :] if at == self.held[0][0] else line  # type: ignore[union-attr]
            indent = len(line) - len(body)
            starts.append((offset, at + 1, indent + 1))
            text.append(plain(body))
            offset += len(body) + 1
        paragraph = Paragraph(" ".join(text), tuple(starts), self._names, self.lead if is_item else "")
        self.document.paragraphs.append(paragraph)
        if not is_item:
            self.lead = (
                paragraph.text[-300:] if paragraph.text.rstrip().endswith(":") else paragraph.text[-300:] if keep_lead else ""
            )
        self.held = []

    def _table(self, at: int) -> int:
        rows, lines = [_cells(self.lines[at])], [at + 1]
        k = at + 2
        while k < len(self.lines) and "|" in self.lines[k]:
            rows.append(_cells(self.lines[k]))
            lines.append(k + 1)
            k += 1
        self.document.tables.append(TableBlock(tuple(rows), tuple(lines), self._names, self.lead))
        self.lead = ""
        return k

    def _html_table(self, at: int) -> int:
        end = next((k for k in range(at, len(self.lines)) if "</table" in self.lines[k].casefold()), len(self.lines) - 1)
        parser = _HtmlTable()
        parser.feed("\n".join(self.lines[at : end + 1]))
        if parser.rows:
            lines = tuple(at + line for line, _ in parser.rows)
            self.document.tables.append(TableBlock(tuple(tuple(cells) for _, cells in parser.rows), lines, self._names, self.lead))
        self.lead = ""
        return end + 1


_MARK = re.compile(r"[ ]{0,3}<!-- m2fbench:(begin|end) ([\w-]{1,40}) -->[ ]*")


def _marked(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Numbers of the lines between the marks of ``m2fbench card``, with the name of the section."""
    inside = ""
    for number, line in enumerate(lines, 1):
        if mark := _MARK.fullmatch(line):
            inside = mark[2] if mark[1] == "begin" else ""
        elif inside:
            yield number, inside


def _closes(line: str, fence: str) -> bool:
    bare = line.strip().lstrip(">").strip()
    return len(bare) >= len(fence) and set(bare) == {fence[0]}


def _is_delimiter(line: str) -> bool:
    bare = line.strip()
    return "-" in bare and set(bare) <= set("|-: \t")


def _cells(line: str) -> tuple[str, ...]:
    """The cells of a row, without markup."""
    bare = line.strip().replace("\\|", "\x01")
    bare = bare.removeprefix("|").removesuffix("|")
    return tuple(" ".join(plain(cell.replace("\x01", "|")).split()) for cell in bare.split("|"))


class _HtmlTable(HTMLParser):
    """Rows of a plain table; cells that span more than one column or row stay where they begin."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.rows: list[tuple[int, list[str]]] = []
        self.cell: list[str] | None = None
        self.count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append((self.getpos()[0], []))
        elif tag in ("td", "th") and self.rows and self.count < MAX_CELLS:
            self.cell = []
            self.count += 1
        elif tag == "sub" and self.cell is not None:
            self.cell.append("_")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self.cell is not None:
            self.rows[-1][1].append(" ".join("".join(self.cell).split()))
            self.cell = None

    def handle_data(self, data: str) -> None:
        if self.cell is not None:
            self.cell.append(data)


_MARKUP = re.compile(
    r"(?P<image>!\[(?=[^\]\n]{0,200}\]\())|(?P<target>\]\([^)\s]{0,500}(?:[ ][^)\n]{0,100})?\))|(?P<open>\[(?=[^\]\n]{0,200}\]\())|"
    r"(?P<sub></?su[bp]>|\$?[_^]\{|\\_)|(?P<tag></?[A-Za-z][^<>\n]{0,500}>)|(?P<close>\}\$?)|(?P<mark>[`*$|]+|\\(?=[^\w\s])|(?<!\w)_{1,3}(?=\w)|(?<=\w)_{1,3}(?!\w))"
)
_ENTITIES = {"&amp;": "&", "&lt;": "<", "&gt;": ">", "&nbsp;": " ", "&#124;": "|", "&#58;": ":", "&#46;": "."}


def plain(text: str) -> str:
    """Text without markup, of the same length: what is taken out leaves blanks, an index ("AP<sub>50</sub>", "AP_{50}") an underscore."""

    def bare(found: re.Match[str]) -> str:
        fill = "_" if found.lastgroup == "sub" and not found[0].startswith("</") else " "
        return fill * len(found[0])

    text = re.sub(r"&(?:amp|lt|gt|nbsp|#124|#58|#46);", lambda m: _ENTITIES[m[0]].ljust(len(m[0])), text)
    return _MARKUP.sub(bare, text.replace("\u00a0", " ").replace("\t", " "))


_END = re.compile(r"[.!?][\"')\]]{0,2}[ ]+(?=[\"'(\[]{0,2}[A-Z0-9])|[;][ ]+")
_ABBREVIATED = re.compile(r"(?:\b(?:e\.g|i\.e|et al|vs|cf|approx|resp|Fig|fig|Tab|No|no)|\b[A-Z]|^[ ]*\d{1,3})\.$")


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """(offset, sentence) one after the other."""
    start = 0
    for found in _END.finditer(text):
        head = text[max(start, found.start() - 12) : found.start() + 1]
        if found[0][0] == "." and _ABBREVIATED.search(head) is not None:
            continue
        yield from _pieces(start, text[start : found.end()])
        start = found.end()
    yield from _pieces(start, text[start:])


def _pieces(offset: int, text: str) -> Iterator[tuple[int, str]]:
    for k in range(0, len(text), MAX_SENTENCE):
        if text[k : k + MAX_SENTENCE].strip():
            yield offset + k, text[k : k + MAX_SENTENCE]
