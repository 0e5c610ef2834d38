"""Whose figure a claim is, and on which data set, by the words around it."""

import re
from dataclasses import dataclass
from typing import Literal

from m2fbench.reporting.claims.words import Mention, datasets_in, models_in


@dataclass(frozen=True)
class Attribution:
    """Whose a figure is said to be. kind: "subject" (the card's model), "backbone", "checkpoint" (``value`` names it), "architecture" (Mask2Former
    as such) or "other" (another architecture)."""

    kind: Literal["subject", "backbone", "checkpoint", "architecture", "other"]
    value: str = ""


SUBJECT = Attribution("subject")
_NEAR = 8  # models named after a claim that are looked at


def dataset_near(sentence: str, mentions: list[Mention], start: int, end: int) -> str | None:
    """The data set that a claim at this place is on, of those mentioned: within it, right after it ("on COCO"), before it, or at last after
    it."""
    inside = [m for m in mentions if m.start < end and m.end > start]
    after = next((m for m in mentions if m.start >= end), None)
    if inside:
        return inside[-1].value
    if after and re.fullmatch(
        r"[ )%*]{0,6}(?:,[ ])?(?i:on|for|in|over|at|\()[ ]{0,2}(?:the[ ]|MS[ -])?[ ]{0,3}", sentence[end : after.start]
    ):
        return after.value
    ahead = [m for m in mentions if m.end <= start]
    return ahead[-1].value if ahead else after.value if after else None


_OWN_DATA = re.compile(
    r"[ )%*]{0,6}(?i:on|for|in|over)[ ]{1,3}(?P<name>(?i:our|my|an?|custom|private|in-house|internal)[ ](?:[\w-]{1,30}[ ]){0,3}?"
    r"(?i:data(?:[ -]?sets?)?|benchmark|images|photos|test[ ]set|validation[ ]set)\b|the[ ][A-Z][\w-]{2,30}[ ](?i:data[ -]?set|benchmark)\b)"
)


def own_data(sentence: str, end: int) -> str | None:
    """Data that no table here is of and that a claim which ends here is on: "61.3 PQ on our data", "on the PanNuke dataset"."""
    found = _OWN_DATA.match(sentence, end)
    return None if found is None or datasets_in(found["name"]) else found["name"]


_BASED_ON = re.compile(
    r"\b(?i:are|is|were|was)[ ](?:all[ ])?(?i:based on|obtained (?:with|by|from)|achieved (?:with|by)|those of|reported for|of|for|from|"
    r"with|reached by|the)[ ]{1,3}(?:(?i:the|an?|our)[ ])?[ ]{0,3}$"
)

_BEHIND = re.compile(  # "57.8 PQ on COCO with a Swin-L"
    r"[ %)*]{0,6}(?:(?:(?i:on)[ ])?(?:COCO|ADE20K|Cityscapes)[ ]{1,3})?(?i:with|for|by|using|from|\()[ ]{0,3}(?:(?i:the|an?)[ ])?[ ]{0,3}"
)


_COMPARED = re.compile(
    r"\b(?i:over|than|against|versus|vs\.?|unlike|above|behind|below|compared[ ](?:to|with))[ ]{1,3}(?:(?i:the|an?)[ ])?[ ]{0,3}$"
)


_ANOTHER = re.compile(  # "45.0 AP (50.1 for Swin-L)": what follows has a figure of its own
    r"\d[.,]\d|\b(?i:vs|versus|against|than|unlike|compared|whereas|while|over|behind|below|above)\b"
)


def main_subject(sentence: str, models: list[Mention]) -> Mention | None:
    """Which model a sentence is about, for the "it" of the next: the first one named in its main clause."""
    start = label.end() if (label := re.match(r"[ ]{0,8}[^:.,]{1,60}:[ ]", sentence)) else 0
    if re.match(r"[ ]{0,8}(?i:although|though|while|whereas|unlike|compared|by|with|in|on|for|as)\b", sentence[start:]):
        start = max(sentence.find(",", start, start + 400), start)
    named = [m for m in models if m.kind not in ("pronoun", "other")]
    return next((m for m in named if m.start >= start), named[0] if named else None)


def attributed(
    sentence: str, start: int, end: int, models: list[Mention], before: list[Mention], section: tuple[str, ...]
) -> Attribution:
    """Whose figure a claim at this place of a sentence is. models: those the sentence names; before: the one that it continues."""
    ahead = [m for m in models if m.end <= start]
    behind = [m for m in models if m.start >= end]
    for mention in behind[:_NEAR]:  # "the results (57.8 PQ) are based on the Swin-L backbone"
        if mention.kind in ("backbone", "checkpoint") and _BASED_ON.search(sentence[max(0, mention.start - 80) : mention.start]):
            return _named(mention)
    inside = [m for m in models if m.start < end and m.end > start and m.kind != "pronoun"]
    if inside:
        return _named(inside[0])
    if behind and _BEHIND.fullmatch(sentence[end : behind[0].start]):
        return _named(behind[0])
    for mention in reversed(ahead):
        if mention.kind == "pronoun":
            return _named(before[0]) if before else SUBJECT
        compared = mention.kind == "other" or _COMPARED.search(sentence[max(0, mention.start - 40) : mention.start])
        bracketed = re.search(r"\d[ ]?%?[ ]{0,3}\([ ]{0,3}$", sentence[max(0, mention.start - 10) : mention.start])
        if bracketed and ")" in sentence[mention.end : min(start, mention.end + 20)]:
            continue  # "from 51.9 (R50) to 53.2 PQ": the number before it is its own
        if compared and not _right_after(sentence[mention.end : start]):
            continue  # "outperforms MaskFormer with 57.8 PQ": it is not MaskFormer's
        return _named(mention)
    named = [m for m in behind if m.kind in ("backbone", "checkpoint")]
    if named and not ahead and not before and not _ANOTHER.search(sentence[end : named[0].start]):
        return _named(named[0])
    if before:
        return _named(before[0])
    return of_section(section)


def _right_after(gap: str) -> bool:
    return (
        re.fullmatch(
            r"(?:,?[ ](?:which|that))?[ ]{0,2}(?:\(|:|'s|,|"
            r"(?i:has|reaches|achieves|gets|at|scores|obtains|is at))?[ (]{0,3}(?:(?i:an?|of|about)[ ])?",
            gap,
        )
        is not None
    )


def _named(mention: Mention) -> Attribution:
    if mention.kind in ("backbone", "checkpoint", "architecture", "other"):
        return Attribution(mention.kind, mention.value)
    return SUBJECT


def of_section(section: tuple[str, ...]) -> Attribution:
    """Whose figures stand below headings: a model that the nearest of them names, else the card's."""
    for heading in reversed(section[1:]):
        for mention in models_in(heading):
            if mention.kind in ("backbone", "checkpoint", "other"):
                return _named(mention)
    return SUBJECT
