"""Figures that a card claims: which, how much, of which model on which data set, and where that stands.

A figure is given to the model and the data set that its own clause names, else its sentence, the sentences before, the headings above, the card.
"""

import re
from dataclasses import dataclass, replace
from typing import Literal

from m2fbench.reporting.claims.attribution import SUBJECT, Attribution, attributed, dataset_near, main_subject, own_data
from m2fbench.reporting.claims.document import Document, Paragraph, sentences
from m2fbench.reporting.claims.pairs import Found, Relation, pairs_in
from m2fbench.reporting.claims.words import Mention, datasets_in, device_in, metrics_in, models_in, protocol_in, split_in

Source = Literal["prose", "table", "metadata"]
MAX_CLAIMS = 5000


@dataclass(frozen=True)
class Claim:
    """value: in the metric's unit (percent; millions; 10^9; images/s; seconds). digits: printed after the point, which is how exactly it is
    claimed. dataset, split, protocol: None where nothing is said. results: it stands among results. qualifier: what else it is of (a class,
    a subset, a variant) in the card's words. part: the text speaks of a part of the images, objects or classes. printed_by_others: a column
    that repeats what a paper printed. measured: it is said to be measured by m2fbench. share: it is printed as a share of one. quote: the sentence,
    row or key."""

    metric: str
    value: float
    digits: int
    text: str
    line: int
    column: int
    source: Source
    quote: str
    model: Attribution = SUBJECT
    relation: Relation = "is"
    dataset: str | None = None
    split: str | None = None
    protocol: str | None = None
    results: bool = False
    qualifier: str = ""
    part: bool = False
    printed_by_others: bool = False
    measured: bool = False
    share: bool = False
    path: str = ""

    @property
    def where(self) -> str:
        return f"{self.path} (line {self.line})" if self.path else f"{self.line}:{self.column}"


RESULTS = re.compile(r"\b(?i:results?|evaluations?|performance|metrics?|benchmarks?|accuracy|scores?)\b")

_PART = re.compile(
    r"\b(?i:divided by|subsets?|weakest|strongest|rarest|(?:small|medium|large|rare|occluded|crowded|dark|bright)(?:er|est)?[ ]"
    r"(?:objects?|instances?|images?|class(?:es)?|ones)|(?:each|every|per)[ -]class|of the class(?:es)?|at the border|"
    r"the[ ][\w-]{1,30}[ ]class|epoch[ ]\d{1,4}|iteration[ ]\d{1,7}|int8|fp16|bf16|half[ -]precision|quanti[sz]ed|pruned|"
    r"distilled)\b"
)


def prose_claims(document: Document) -> list[Claim]:
    """Those in paragraphs and lists."""
    claims: list[Claim] = []
    for paragraph in document.paragraphs:
        before: list[Mention] = models_in(paragraph.lead) if paragraph.lead else []
        dataset: str | None = None  # of the sentences before, if just one
        for offset, sentence in sentences(paragraph.text):
            models, datasets = models_in(sentence), datasets_in(sentence)
            ahead = 0
            for found in pairs_in(sentence):
                claim = _placed(found, sentence, offset, models, before, paragraph, ahead)
                ahead = found.end
                near = own_data(sentence, found.end) or dataset_near(sentence, datasets, found.start, found.end)
                claims.append(replace(claim, dataset=near or dataset or _of_context(paragraph)))
                if len(claims) >= MAX_CLAIMS:
                    return claims
            if any(m.kind != "pronoun" for m in models):
                before = [main] if (main := main_subject(sentence, models)) else before
            if len(names := {m.value for m in datasets}) == 1:
                dataset = names.pop()
    return claims


def _placed(
    found: Found, sentence: str, offset: int, models: list[Mention], before: list[Mention], paragraph: Paragraph, ahead: int
) -> Claim:
    """ahead: where the figure before it in the sentence ends."""
    own = sentence[found.start : found.end]
    line, column = paragraph.place(offset + found.start + len(own) - len(own.lstrip()))
    around, section = _clause(sentence, found, ahead), paragraph.section
    below_title = section[1:] or section
    return Claim(
        metric=found.metric,
        value=found.value,
        digits=found.digits,
        text=" ".join(own.split()),
        line=line,
        column=column,
        source="prose",
        quote=" ".join(sentence.split()),
        model=attributed(sentence, found.start, found.end, models, before, section),
        relation=found.relation,
        share=found.share,
        qualifier=device_in(around) if found.metric in ("fps", "latency") else "",
        split=split_in(around) or split_in(section[-1] if section else ""),
        protocol=_protocol(sentence, found) or protocol_in(around),
        part=_PART.search(paragraph.text[max(0, offset + found.start - 250) : offset + found.end].rpartition(". ")[2]) is not None,
        results=any(RESULTS.search(text) for text in (*below_title, paragraph.label)),
    )


def _protocol(sentence: str, found: Found) -> str | None:
    """What is said right after a figure: "47.7 (single-scale)"."""
    after = sentence[found.end : found.end + 40]
    return protocol_in(re.split(r"\d|,|;|[ ]and[ ]", after)[0] + " ")


def _clause(sentence: str, found: Found, ahead: int) -> str:
    """The claim with what stands close to it, and no other figure's brackets."""
    end = min((k for k in (sentence.find(s, found.end) for s in (";", ". ")) if k >= 0), default=len(sentence))
    told = re.compile(r"[ ]?\([^()]{0,60}\)").match(sentence, ahead) if ahead else None  # "57.3 mIoU (ms + flip) and ..."
    start = max(sentence.rfind(";", 0, found.start), told.end() if told and told.end() <= found.start else 0)
    following = metrics_in(sentence[found.end : min(end, found.end + 80)])
    return sentence[max(start, found.start - 80) : found.end + min(60, following[0].start if following else 60)]


def _of_context(paragraph: Paragraph) -> str | None:
    """Of the sentence that leads a list, or the nearest heading that names just one."""
    for text in (paragraph.lead, *reversed(paragraph.section)):
        if len(names := {m.value for m in datasets_in(text)}) == 1:
            return names.pop()
    return None
