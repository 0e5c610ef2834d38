"""The sections of a card that ``m2fbench card`` keeps: the figures there that are of a class, of a decoder layer, or contradict their own row, and
how many of the rest nothing here can check.

What the claims of a card cover (figures over all data) is judged there; this adds what only such sections have. A figure of a class is held
against the runs' own, one of a layer against their examination. Subsets and costs of errors need the analyses again: they are counted.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from m2fbench.analysis.layers import LayerFinding, read_examination
from m2fbench.analysis.runs import Run
from m2fbench.errors import StoreError, shown
from m2fbench.reporting.claims.document import Document, Paragraph, TableBlock, sentences
from m2fbench.reporting.claims.evidence import MeasuredFigure
from m2fbench.reporting.claims.extraction import MAX_CLAIMS, Claim
from m2fbench.reporting.claims.tables import column_of
from m2fbench.reporting.claims.verdicts import Finding, Verdict

SECTIONS = ("summary", "limits", "factors", "results", "speed", "examination", "impact", "specifications")
"""Those with measured figures; the others have settings."""

_NUMBER = re.compile(
    r"(?<![\w.,])[+-]?\d[\d,]{0,15}\.\d{1,9}(?!\w|[.,]\d)"
)  # figures with decimals: counts of images and objects have none
_SPAN = re.compile(r"(?<![\w.,+-])[+-]?\d[\d,]*\.\d+ to [+-]?\d[\d,]*\.\d+")
_SURE = re.compile(rf"(?P<value>{_NUMBER.pattern}) \((?P<low>[+-]?\d[\d,]*\.\d+) to (?P<high>[+-]?\d[\d,]*\.\d+)\)")
_EARLY = re.compile(r"Stopping after layer (\d{1,4}) of (\d{1,4}) gives (?P<value>\d+\.\d+) points less, by ([\w ]{1,60}?)(?:,|:)")
_SHARES = {"FLOPs saved": "saved", "IoU with the masks before": "mask_iou", "queries that change class": "class_changed"}
_INTERVAL = "95 % interval"


@dataclass
class Marked:
    """findings: what was checked. unchecked: how many figures with decimals were not, by kind."""

    findings: list[Finding] = field(default_factory=list)
    unchecked: Counter[str] = field(default_factory=Counter)


def check_marked(
    document: Document, runs: Sequence[Run], measured: Sequence[MeasuredFigure], judged: Sequence[tuple[Claim, Finding]]
) -> Marked:
    """runs: of the card's model; measured: their figures. judged: the claims that have a verdict, which are not counted again."""
    reader = _Marked(document, measured, _layers(runs), judged)
    for table in document.tables:
        if document.measured.get(table.lines[0]) in SECTIONS:
            reader.table(table)
    for paragraph in document.paragraphs:
        if document.measured.get(paragraph.starts[0][1]) in SECTIONS:
            reader.prose(paragraph)
    return reader.found


def _layers(runs: Sequence[Run]) -> list[Mapping[int, LayerFinding]]:
    """Of each run that was examined; an examination that cannot be read, or is of other predictions, says nothing."""
    found: list[Mapping[int, LayerFinding]] = []
    for run in runs:
        try:
            examination = read_examination(run.folder)
        except StoreError:
            continue
        if examination is not None:
            found.append({layer.layer: layer for layer in examination.layers})
    return found


class _Marked:
    """Goes through tables and prose once."""

    def __init__(
        self,
        document: Document,
        measured: Sequence[MeasuredFigure],
        layers: list[Mapping[int, LayerFinding]],
        judged: Sequence[tuple[Claim, Finding]],
    ) -> None:
        self.document, self.measured, self.layers = document, measured, layers
        self.lines = document.text.split("\n")
        self.claimed: dict[
            tuple[int, int | str], bool
        ] = {}  # (line, column of a cell, or a number of prose) -> whether it is settled
        for claim, finding in judged:
            settled = finding.verdict in (Verdict.confirmed, Verdict.contradicted)
            keys = [claim.column] if claim.source == "table" else _NUMBER.findall(claim.text)
            self.claimed |= {(claim.line, key): settled for key in keys}
        self.found = Marked()
        self.looked = 0

    def table(self, table: TableBlock) -> None:
        header = table.rows[0]
        for row, line in zip(table.rows[1:], table.lines[1:], strict=True):
            for k, (title, cell) in enumerate(zip(header, row, strict=False)):
                for _ in _SPAN.finditer(cell):
                    self.found.unchecked["intervals"] += 1
                value = _NUMBER.match(cell)
                if value is None or title == _INTERVAL or not self._read_on():
                    continue
                column = column_of(self.lines[line - 1], k)
                of = f"{header[0]} {row[0]}" if header[0] in ("class", "after layer") else row[0]
                name, quote = f"{of}, {title}", " | ".join(row)
                span = _SURE.match(cell)
                ends = span["low"] + " to " + span["high"] if span else _at(row, k + 1) if _at(header, k + 1) == _INTERVAL else ""
                known = self._of_table(header, row, k)
                if known:
                    self._against(known, value[0], f"{name} {value[0]}", (line, column), quote)
                elif not self._of_itself(table, row, k, f"{name} {value[0]}", (line, column), quote):
                    outside = self._outside(value[0], ends, f"{name} {value[0]}", (line, column), quote)
                    if not outside and (line, column) not in self.claimed:
                        self.found.unchecked[_kind(self.document.measured[line], title, header)] += 1

    def _read_on(self) -> bool:
        """Whether one more figure is looked at; from the limit of claims on they are only counted."""
        self.looked += 1
        if self.looked > MAX_CLAIMS:
            self.found.unchecked["other figures"] += 1
        return self.looked <= MAX_CLAIMS

    def _of_table(self, header: tuple[str, ...], row: tuple[str, ...], k: int) -> list[float]:
        """What the runs have of a cell: of a class or a layer; nothing where they have none."""
        if header[0] == "class" and header[k].endswith(" of the class"):
            return self._of_class(row[0], header[k].removesuffix(" of the class"))
        if header[0] == "after layer" and re.fullmatch(r"[0-9]{1,4}", row[0]):
            found = [layers[int(row[0])] for layers in self.layers if int(row[0]) in layers]
            if header[k] in _SHARES:
                known = [100 * float(getattr(layer, _SHARES[header[k]])) for layer in found]
            else:
                known = [layer.figures.get(header[k].removesuffix(" there"), math.nan) for layer in found]
            return [value for value in known if not math.isnan(value)]
        return []

    def _of_class(self, category: str, metric: str) -> list[float]:
        names = (metric, metric.replace(" ", "_"))  # markup taken out, an underscore may be a blank
        return [f.value for f in self.measured if f.category == category and f.metric in names]

    def _of_itself(self, table: TableBlock, row: tuple[str, ...], k: int, claim: str, place: tuple[int, int], quote: str) -> bool:
        """A difference against the figures that it is of; whether it is one."""
        header = table.rows[0]
        if header[k] == "difference" and {"value", "published"} <= set(header):
            pair = (_at(row, header.index("value")), _at(row, header.index("published")))
            what = "value minus published"
        elif header[k] == "change" and k and k < len(table.rows[1]):
            pair, what = (row[k - 1], table.rows[1][k - 1]), f"{header[k - 1]} against the first line"
        else:
            return False
        value = _NUMBER.match(row[k])
        numbers = [_NUMBER.fullmatch(cell) for cell in pair]
        if value is None or numbers[0] is None or numbers[1] is None:
            return False
        printed = (value[0], numbers[0][0], numbers[1][0])
        told, (ahead, behind) = _read(printed[0]), (_read(printed[1]), _read(printed[2]))
        holds = abs(told - (ahead - behind)) <= sum(0.5 * 10.0 ** -_digits(text) for text in printed) + 1e-9
        evidence = f"{what} is {ahead - behind:+.2f} in its own table ({pair[0]} and {pair[1]})"
        self._add(Verdict.confirmed if holds else Verdict.contradicted, claim, place, quote, evidence)
        return True

    def prose(self, paragraph: Paragraph) -> None:
        known = dict(self._in_prose(paragraph.text))
        kind = _kind(self.document.measured[paragraph.starts[0][1]], paragraph.text)
        for offset, sentence in sentences(paragraph.text):
            pairs = list(_SPAN.finditer(sentence))
            spans = {value.start() + pair.start() for pair in pairs for value in _NUMBER.finditer(pair[0])}
            self.found.unchecked["intervals"] += len(pairs)
            sure = {found.start(): found for found in _SURE.finditer(sentence)}
            for value in _NUMBER.finditer(sentence):
                if value.start() in spans or not self._read_on():
                    continue
                line, _ = place = paragraph.place(offset + value.start())
                ends = f"{sure[value.start()]['low']} to {sure[value.start()]['high']}" if value.start() in sure else ""
                claim, quote = f"{_words_before(sentence, value.start())}{value[0]}", " ".join(sentence.split())
                if offset + value.start() in known and (line, value[0]) not in self.claimed:
                    self._against(known[offset + value.start()], value[0], claim, place, quote)
                elif not self._outside(value[0], ends, claim, place, quote) and (line, value[0]) not in self.claimed:
                    self.found.unchecked[kind] += 1

    def _in_prose(self, text: str) -> Iterator[tuple[int, list[float]]]:
        """Where a figure stands that the runs have: over all, of the weakest classes, and of the layer that it may stop after."""
        if "divided by" not in text.casefold():  # there it is of a subset
            for found in re.finditer(r"(?<![\w.])([A-Za-z]\w*) (?=\d+\.\d)", text):
                if over_all := [f.value for f in self.measured if f.category is None and f.metric == found[1]]:
                    yield found.end(), over_all
        by = re.search(r"by the ([\w ]{1,60}?) of that class", text)
        if by:
            for category in {f.category for f in self.measured if f.category}:
                for found in re.finditer(rf"(?<!\w){re.escape(category)} (?=\d)", text):
                    if known := self._of_class(category, by[1].strip()):
                        yield found.end(), known
        if early := _EARLY.search(text):
            first, last, name = int(early[1]), int(early[2]), early[4].strip().replace(" ", "_")
            cost = [
                of[last].figures.get(name, math.nan) - of[first].figures.get(name, math.nan)
                for of in self.layers
                if first in of and last in of
            ]
            if cost := [value for value in cost if not math.isnan(value)]:
                yield early.start("value"), cost

    def _against(self, known: Sequence[float], text: str, claim: str, place: tuple[int, int], quote: str) -> None:
        half = 0.5 * 10.0 ** -_digits(text) * (1 + 1e-9) + 1e-9
        holding = [value for value in known if abs(value - _read(text)) <= half]
        verdict = Verdict.confirmed if holding else Verdict.contradicted
        self._add(verdict, claim, place, quote, f"measured: {(holding or known)[0]:.{_digits(text)}f}")

    def _outside(self, text: str, ends: str, claim: str, place: tuple[int, int], quote: str) -> bool:
        """Whether a figure is outside the interval that stands beside it; then neither is to be believed."""
        if not _SPAN.fullmatch(ends) or self.claimed.get(place) or self.claimed.get((place[0], text)):
            return False  # no interval; or a figure that is settled by what was measured
        low, high = map(_read, ends.split(" to "))
        if low <= _read(text) <= high:
            return False
        self._add(Verdict.contradicted, claim, place, quote, f"outside its own 95 % interval, {ends}")
        return True

    def _add(self, verdict: Verdict, claim: str, place: tuple[int, int], quote: str, evidence: str) -> None:
        where = f"{place[0]}:{place[1]}"
        self.found.findings.append(Finding("figure", shown(claim, 120), *place, where, shown(quote, 400), verdict, evidence))


def _at(cells: Sequence[str], k: int) -> str:
    """Rows may be shorter than their header."""
    return cells[k] if k < len(cells) else ""


def _words_before(sentence: str, start: int) -> str:
    """The words that lead to a figure, for its name: at most three of its clause."""
    clause = re.split(r"[,:;(]|(?<!\w)and ", sentence[max(0, start - 60) : start])[-1].split()
    return " ".join(clause[-3:]) + " " if clause else ""


def _read(text: str) -> float:
    return float(text.replace(",", ""))


def _digits(text: str) -> int:
    return len(text.rpartition(".")[2])


_KINDS: Sequence[tuple[str, Callable[[str, str, Sequence[str]], bool]]] = (
    ("error costs", lambda section, text, header: re.search(r"\b(?:mending|mended)\b", text) is not None),
    ("subsets", lambda section, text, header: section == "factors" or "divided by" in text.casefold() or "divided by" in header),
    ("classes", lambda section, text, header: header[:1] == ("class",) or "of that class" in text),
    ("layers", lambda section, text, header: section == "examination"),
    ("times, memory and energy", lambda section, text, header: section in ("speed", "impact", "specifications")),
)


def _kind(section: str, text: str, header: Sequence[str] = ()) -> str:
    return next((kind for kind, is_it in _KINDS if is_it(section, text, header)), "other figures")
