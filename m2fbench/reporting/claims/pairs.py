"""Which number in a sentence is which figure: metric and number together, where they belong together beyond doubt.

What is a difference ("by 1.2 PQ"), a threshold, a count or a reference is no figure.
"""

import bisect
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from m2fbench.reporting.claims.words import Mention, metrics_in, models_in

Relation = Literal["is", "about", "at least", "at most"]

_NUMBER = re.compile(
    r"(?<![\w.,/+$±-])(?<!± )(?<!/- )\d{1,3}(?:[.,]\d{1,4})?(?![\w/]|[.,]\d|[ ]?[x×][ ]?\d|[ ]?[-–—][ ]?\d|[ ]?%?[ ]to[ ]\d)"
    r"(?![ ]?(?:%|percent)[ ]of[ ](?!(?i:m?AP|PQ|mIoU)\b))"
    r"(?![ ]{0,2}[\"'“”]?[ ]?(?i:things?|stuff|categor|class|images?|epoch|quer|layer|gpu|iter|step|sample|"
    r"objects?|instances?|pixels?|scales|dataset|"
    r"tasks?|backbone|param|M\b|G\b|B\b|fps|ms\b|s\b|sec|hours?|k\b|iou|crop|times|GB|MB|resamples|bootstrap)\b|[ ]?\])"
)
_STRONG = re.compile(
    r"[ ]{0,4}(?i:scores?|values?|metric)?[ ]{0,4}(?:(?i:of|is|was|are|at|reaches|equals|being|to be)\b|[:=(→]|[ ]-[ ]|–|—)[ :=(]{0,4}"
    r"(?i:about|around|approximately|roughly|nearly|almost|over|more than|at least|below|under|above|up to|exactly|only|just)?[ ~≈><≥≤]{0,4}"
)
_PLACE = re.compile(
    r"\b(?i:tables?|tab\.|figures?|fig\.|sections?|sec\.|pages?|references?|ref\.|steps?|versions?|appendix|chapter|eq\.)[ ]{1,3}$"
)
_FAR = 80  # characters between a metric and its number
_BLOCK = re.compile(
    r"[.!?]|\b(?i:by|than|compared|over|improv\w{0,8}|gain\w{0,3}|higher|lower|increas\w{0,3}|drop\w{0,4}|differ\w{0,6}|threshold|iou|from|learning|rate|weight|"
    r"loss|epochs?|batch|scale|references?|tables?|figure|fig|section|equation|reduc\w{0,4}|plus|minus)\b|[\[\]]|:[ ]{0,3}[A-Za-z“\"]"
)
_ADJACENT = re.compile(
    r"(?:[ ]?(?:±|\+/-)[ ]?\d{1,2}(?:[.,]\d{1,3})?)?[ ]{0,3}%?[ ]{0,3}(?:\([ ]{0,2})?(?:(?i:percent|points?)[ ])?(?:(?i:of|in|for|de|di)[ ])?"
    r"(?:(?i:COCO|ADE20K|Cityscapes|mask|overall|total|test|validation|val)[ ])?"
)
_DELTA_BEFORE = re.compile(
    r"\b(?i:by|gain(?:s|ed|ing)?(?: of)?|improv\w{0,8}(?: of| by)?|increase[sd]?(?: of| by)?|drops?(?: of| by)?|difference of|within|"
    r"additional|extra|another|los(?:es|t|s of)|reduction of|margin of|bonus of)[ ]{1,3}"
    r"(?:(?i:about|around|only|up to|another|an?)[ ])?[~≈]?[ ]{0,2}$"
)
_DELTA_AFTER = re.compile(
    r"[ ]{0,3}(?i:(?:percentage )?points?[ ])?[ ]{0,3}"
    r"(?i:higher|lower|better|worse|more|less|improvement|gains?|drops?|increase|above|below|over the|ahead|behind)\b"
)
_RANGE = re.compile(r"(?<![\w.,])\d{1,3}(?:[.,]\d{1,4})?[ ]?%?(?:[ ]to[ ]|[ ]?[-–—][ ]?|[ ]and[ ])$")
_RISE = re.compile(r"\b(?i:improv|increas|rais|rise|rose|boost|lift|push|went|goes|grow|climb)\w{0,4}\b")
_DELTA_METRIC = re.compile(
    r"\b(?i:gain|improvement|increase|drop|decrease|difference|change|loss|reduction|delta|boost)s?[ ](?i:in|of)[ ](?:(?i:the)[ ])?$"
)
_NOT_REACHED = re.compile(r"\b(?i:not|never|cannot|neither|nor|n't|goal|target|aims?|aiming|hope|wish)\b")
_GOAL = re.compile(r"\b(?i:goals?|targets?)\b")
_WISHED = re.compile(r"[ ]{0,3}(?:is|are|was|would be)[ ](?:(?:our|the|my|a)[ ])?(?i:goal|target|aim|not\b)")
_RELATIONS: tuple[tuple[Relation, re.Pattern[str]], ...] = (
    (
        "about",
        re.compile(
            r"(?:\b(?i:about|around|approximately|approx\.|roughly|nearly|almost|close to|circa|some)[ ]{1,3}|[~≈][ ]{0,2})$"
        ),
    ),
    (
        "at least",
        re.compile(
            r"(?:\b(?i:over|more than|above|at least|exceed(?:s|ing)?|greater than|surpass(?:es|ing)?|beyond)[ ]{1,3}|[>≥][ ]{0,2})$"
        ),
    ),
    ("at most", re.compile(r"(?:\b(?i:below|less than|under|at most|fewer than)[ ]{1,3}|[<≤][ ]{0,2})$")),
)


@dataclass(frozen=True)
class Found:
    """A pair in a sentence. start, end: of metric and number together. share: it is printed as a share of one."""

    metric: str
    value: float
    digits: int
    relation: Relation
    start: int
    end: int
    share: bool = False


def pairs_in(sentence: str) -> list[Found]:
    """Every figure that a sentence states, in order."""
    found = [*_accuracies(sentence), *_costs(sentence)]
    return sorted(found, key=lambda f: f.start)


def number_of(text: str) -> tuple[float, int]:
    """(value, digits after the point); a decimal comma is a point."""
    whole, _, rest = text.replace(",", ".").partition(".")
    return float(f"{whole}.{rest or 0}"), len(rest)


def _accuracies(sentence: str) -> Iterator[Found]:
    metrics = metrics_in(sentence)
    if not metrics:
        return
    numbers = [n for n in _NUMBER.finditer(sentence) if 0 < number_of(n[0])[0] <= 100 and not _numbered(sentence, n)]
    taken: set[int] = set()
    pairs = [*_lists(sentence, metrics, numbers)]
    done = {id(m) for m, _ in pairs}
    taken |= {n.start() for _, n in pairs}
    starts, ends = [n.start() for n in numbers], [n.end() for n in numbers]
    for rule in (_by_connector, _by_adjacency, _by_nearness):
        for k, metric in enumerate(metrics):
            if id(metric) in done:
                continue
            after = bisect.bisect_left(starts, metric.end)
            before = bisect.bisect_right(ends, metric.start) - 1
            stop = metrics[k + 1].start if k + 1 < len(metrics) else len(sentence)
            around = _Around(
                numbers[after] if after < len(numbers) and starts[after] < stop and starts[after] not in taken else None,
                numbers[before] if before >= 0 and starts[before] not in taken else None,
            )
            if number := rule(sentence, metric, around):
                pairs.append((metric, number))
                done.add(id(metric))
                taken.add(number.start())
    for metric, number in pairs:
        if made := _as_claim(sentence, metric, number):
            yield made


def _numbered(sentence: str, number: re.Match[str]) -> bool:
    """ "table 2", "page 7.5": a place, not a figure; nor are the parts of a number that is written in groups."""
    before = sentence[max(0, number.start() - 14) : number.start()]
    return _PLACE.search(before) is not None or re.search(r"(?<![\w.,@-])[\d.,]{0,10}\d $", before) is not None


def _as_claim(sentence: str, metric: Mention, number: re.Match[str]) -> Found | None:
    """None where the pair is a difference, or what is not reached."""
    before, after = sentence[max(0, number.start() - 40) : number.start()], sentence[number.end() : number.end() + 30]
    end = max(metric.end, number.end())
    start = min(metric.start, number.start())
    if _DELTA_BEFORE.search(before) or _DELTA_AFTER.match(sentence[end : end + 40].lstrip("% ")) or _DELTA_AFTER.match(after):
        return None
    if (
        _DELTA_METRIC.search(sentence[max(0, metric.start - 40) : metric.start])
        or _is_range(sentence, number)
        or _is_lead(sentence, end)
    ):
        return None
    clause = re.split(r"[,;:(]|\b(?:but|and|while|whereas)\b", sentence[max(0, start - 60) : start])[-1]
    if (
        _NOT_REACHED.search(clause)
        or _NOT_REACHED.search(sentence[start:end])
        or _GOAL.search(sentence[max(0, start - 200) : start])
        or _WISHED.match(sentence, end)
    ):
        return None
    value, digits = number_of(number[0])
    share = value <= 1 and digits >= 2
    if share:
        value, digits = round(value * 100, 6), digits - 2
    relation: Relation = next((name for name, pattern in _RELATIONS if pattern.search(before)), "is")
    return Found(metric.value, value, digits, relation, start, end, share)


def _is_range(sentence: str, number: re.Match[str]) -> bool:
    """An end of "51.9 to 57.8 PQ", "between 51.9 and 57.8 PQ"; where something rises from one to the other, the other is its figure."""
    before = sentence[max(0, number.start() - 60) : number.start()]
    if re.search(r"\b(?i:between)[ ]$", before) and re.match(r"[ ]?%?[ ]and[ ]\d", sentence[number.end() : number.end() + 10]):
        return True
    found = _RANGE.search(before)
    if found is None or (found[0].endswith(" and ") and not re.search(r"\b(?i:between)[ ]$", before[: found.start()])):
        return False
    return not (re.search(r"\b(?i:from)[ ]$", before[: found.start()]) and _RISE.search(before[: found.start()]))


def _is_lead(sentence: str, end: int) -> bool:
    """ "1.2 AP over MaskFormer": how far ahead of another, not a figure of either."""
    found = re.match(r"[ ]{1,3}(?i:over|above|beyond|ahead of|behind)[ ](?:(?i:the|an?|our)[ ])?", sentence[end : end + 40])
    return found is not None and any(m.start == 0 for m in models_in(sentence[end + found.end() : end + found.end() + 80]))


Numbers = list[re.Match[str]]


def _lists(sentence: str, metrics: list[Mention], numbers: Numbers) -> Iterator[tuple[Mention, re.Match[str]]]:
    """ "PQ, AP and mIoU of 53.2, 45.0 and 47.7": as many numbers as metrics, one list after the other."""
    joined = re.compile(r"[ ]{0,2}(?:,|/|&|,?[ ]and)[ ]{0,2}%?[ ]{0,2}")
    k = 0
    while k < len(metrics):
        last = k
        while last + 1 < len(metrics) and joined.fullmatch(sentence[metrics[last].end : metrics[last + 1].start]):
            last += 1
        count = last - k + 1
        if count > 1:
            at = bisect.bisect_left(numbers, metrics[last].end, key=lambda n: n.start())
            following = numbers[at : at + count]
            near = following and _STRONG.fullmatch(sentence[metrics[last].end : following[0].start()])
            if near and len(following) == count:
                gaps = (sentence[a.end() : b.start()] for a, b in itertools.pairwise(following))
                if all(re.fullmatch(r"[ ]{0,2}%?[ ]{0,2}(?:,|/|&|,?[ ]and)[ ]{0,2}", gap) for gap in gaps):
                    yield from zip(metrics[k : last + 1], following, strict=True)
        k = last + 1


@dataclass(frozen=True)
class _Around:
    """The numbers after a metric (no other metric between) and before it that belong to none yet."""

    after: re.Match[str] | None
    before: re.Match[str] | None


def _by_connector(sentence: str, metric: Mention, around: _Around) -> re.Match[str] | None:
    """ "PQ of 57.8", "PQ: 57.8", "PQ (57.8)"."""
    number = around.after
    return number if number and _STRONG.fullmatch(sentence, metric.end, number.start()) else None


def _by_adjacency(sentence: str, metric: Mention, around: _Around) -> re.Match[str] | None:
    """ "57.8 PQ", "57.8% mIoU", "57.8 (PQ)"."""
    number = around.before
    return number if number and _ADJACENT.fullmatch(sentence, number.end(), metric.start) else None


def _by_nearness(sentence: str, metric: Mention, around: _Around) -> re.Match[str] | None:
    """ "mIoU on the ADE20K validation set reached 47.7": nothing but words between, and the number is a figure beyond doubt."""
    number = around.after
    if number is None or not re.search(r"[.,]", number[0]) or number.start() - metric.end > _FAR:
        return None
    gap = sentence[metric.end : number.start()]
    closes = gap.count(")") > gap.count("(") and not sentence[: metric.start].endswith(
        "("
    )  # of a bracket with more in it than the metric
    return (
        None
        if closes or _BLOCK.search(gap) or re.match(r"[ ]{0,3}%?[ ]{0,3}points\b", sentence[number.end() : number.end() + 16])
        else number
    )


_N = r"(?<![\w.,/-])(?P<n>\d{1,4}(?:[.,]\d{1,3})?)"
_IS = r"[ :=(]{1,4}(?:(?i:of|is|about|around|approximately)[ ])?~?"
_PARAMS = r"(?:(?i:trainable|learnable|total|model)[ ])?(?i:param(?:eter)?s?)\b"
_MILLIONS = r"[ ]?(?P<u>[MB]\b|[MB](?=[ ]?[Pp]aram)|(?i:million|billion))"
_COSTS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("params_M", re.compile(rf"{_N}{_MILLIONS}[ ]?{_PARAMS}")),
    ("params_M", re.compile(rf"\b(?i:param(?:eter)?s?)\b(?:[ ]count)?{_IS}{_N}{_MILLIONS}")),
    ("params_M", re.compile(rf"(?<![\w.,/-])(?P<n>\d{{1,3}}(?:,\d{{3}}){{2}})(?P<u>)[ ]{_PARAMS}")),
    ("params_M", re.compile(rf"\b(?i:parameters){_IS}(?P<n>\d{{1,3}}(?:,\d{{3}}){{2}})(?P<u>)(?![\d,])")),
    ("flops_G", re.compile(rf"{_N}[ ]?(?P<u>[GT])[ ]?(?i:FLOPs?)\b")),
    ("flops_G", re.compile(rf"\b(?i:FLOPs?)\b{_IS}{_N}[ ]?(?P<u>[GT])\b")),
    ("fps", re.compile(rf"{_N}(?P<u>)[ ]?(?i:fps|frames?[ -](?:per|a)[ -]second|images?[ ]?(?:per|a|/)[ ]?s(?:ec(?:ond)?)?)\b")),
    ("fps", re.compile(rf"\b(?i:fps|frames[ -]per[ -]second)\b{_IS}{_N}(?P<u>)(?![.,\d]|[ ]?(?:%|(?i:images|s\b|ms|sec)))")),
    (
        "latency",
        re.compile(
            rf"{_N}[ ]?(?P<u>ms|milliseconds?|s|sec|seconds?)[ ]?(?:per|/|an|a|for each|for one)[ ]?(?i:image|frame|photo)\b"
        ),
    ),
)


def _costs(sentence: str) -> Iterator[Found]:
    taken: list[tuple[int, int]] = []
    for metric, pattern in _COSTS:
        for found in pattern.finditer(sentence):
            if any(a < found.end("n") and found.start("n") < b for a, b in taken):
                continue
            taken.append(found.span("n"))
            before = sentence[max(0, found.start("n") - 40) : found.start("n")]
            if _DELTA_BEFORE.search(before) or _DELTA_AFTER.match(sentence[found.end() : found.end() + 40]):
                continue
            value, digits = scaled(metric, found["n"], found["u"])
            relation: Relation = next((name for name, p in _RELATIONS if p.search(before)), "is")
            yield Found(metric, value, digits, relation, found.start(), found.end())


def scaled(metric: str, number: str, unit: str) -> tuple[float, int]:
    """A figure of cost in the metric's own unit, with its digits there; digits below zero count places before the point."""
    if metric == "params_M" and number.count(",") > 1:
        return int(number.replace(",", "")) / 1e6, 6
    value, digits = number_of(number)
    if unit.casefold() in ("b", "billion", "t"):
        return value * 1000, digits - 3
    if unit.casefold() in ("ms", "millisecond", "milliseconds"):
        return value / 1000, digits + 3
    return value, digits
