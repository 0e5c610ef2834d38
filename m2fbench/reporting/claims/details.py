"""What a card says of training and testing, against the published configuration of its checkpoint: queries, epochs, batch size, test size.

Only where the card's model is a checkpoint of the zoo, and only sentences that speak of it: the names of the zoo's configs say how long and with
which batch each was trained ("maskformer2_R50_bs16_50ep").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from m2fbench.errors import shown
from m2fbench.models.zoo import ZooEntry
from m2fbench.reporting.claims.document import Document, Paragraph, sentences
from m2fbench.reporting.claims.published_figures import checkpoint_named, entry_of
from m2fbench.reporting.claims.subject import Subject, is_own_backbone
from m2fbench.reporting.claims.verdicts import Finding, Verdict
from m2fbench.reporting.claims.words import models_in

TRAINING_IMAGES = {"ADE20K": 20210, "Cityscapes": 2975, "Mapillary Vistas": 18000}
"""Images of the training sets of those that are trained by iterations (the data sets' papers): so many iterations are how many epochs."""
_MOST_ODD = 1.1  # between epochs as said and as counted from iterations

_QUERIES = re.compile(
    r"\b(\d{2,3})[ ]{1,3}(?i:(?:object|learnable|mask)[ ])?(?i:queries)\b|\b(?i:queries)[ ]{0,4}[:=][ ]{0,4}(\d{2,3})\b"
)
_EPOCHS = re.compile(r"\b(\d{1,4})[ -]{1,3}(?i:epochs?)\b|\b(?i:epochs)[ ]{0,4}[:=][ ]{0,4}(\d{1,4})\b")
_BATCH = re.compile(r"\b(?i:batch[ -]size)[ ]{0,4}(?:(?i:of|is|was)\b|[:=])?[ ]{0,4}(\d{1,4})\b")
_SIDE = r"[ -](?i:side|edge)\b[^.;]{0,40}?\b(\d{3,4})\b"
_SIZE = re.compile(rf"\b(?i:short(?:er|est)){_SIDE}[^.;]{{0,60}}?\b(?i:long(?:er|est)){_SIDE}")
_TRAINING = re.compile(r"\b(?i:train\w{0,4}|hyper-?parameters?|schedule|optimi[sz]er)\b")
_TIMING = re.compile(r"\b(?i:fps|frames|runtime|latency|throughput|inference|fine-?tun\w{0,4}|speed|measured|averag\w{0,4})\b")
_TESTING = re.compile(r"\b(?i:inference|test\w{0,4}|evaluat\w{0,4})\b")
_LANGUAGE = re.compile(
    r"\b(?i:uses|processes|understands)\b[ ](?:(?i:or|and)[ ](?i:uses|processes)[ ])?(?:(?i:natural|human|spoken|written)[ ]){1,3}(?i:language|text)"
)
_NEGATED = re.compile(r"\b(?i:not|no|never|none|neither|nor|without|n't|unlike)\b|n't\b")


@dataclass(frozen=True)
class _Said:
    """One statement. start: in its sentence. right: whether it is as published; should: what is."""

    what: str
    start: int
    right: bool
    should: str


def check_details(document: Document, subject: Subject) -> list[Finding]:
    """Those that are right, and those that are not."""
    entry = entry_of(subject.dataset or "", subject.task or "", subject.backbone or "")
    found = []
    for paragraph in document.paragraphs:
        for offset, sentence in sentences(paragraph.text):
            statements = [*_language(sentence)]
            if entry is not None and subject.dataset is not None and _is_of(subject, sentence, paragraph):
                statements += [
                    *_queries(sentence, entry),
                    *_epochs(sentence, paragraph, entry, subject.dataset),
                    *_batch(sentence, paragraph, entry),
                ]
                statements += [*_test_size(sentence, paragraph, entry)]
            for said in statements:
                line, column = paragraph.place(offset + said.start)
                verdict = Verdict.confirmed if said.right else Verdict.contradicted
                found.append(
                    Finding(
                        "detail", said.what, line, column, f"{line}:{column}", shown(" ".join(sentence.split()), 400), verdict, said.should,
                        None if entry is None else f"{subject.backbone}, {subject.dataset} {subject.task}", subject.dataset,
                    )
                )  # fmt: skip
    return found


def _is_of(subject: Subject, sentence: str, paragraph: Paragraph) -> bool:
    """Whether a sentence is about the card's model as far as it says: not a quotation, and no other checkpoint or model in it."""
    if re.match(r"[ ]{0,3}[\"“]", sentence):
        return False
    for mention in models_in(sentence):
        if mention.kind == "backbone" and not is_own_backbone(subject, mention.value):
            return False
        if mention.kind == "checkpoint" and checkpoint_named(mention.value) != (subject.backbone, subject.dataset, subject.task):
            return False
    return not any(m.kind in ("backbone", "other") and not is_own_backbone(subject, m.value) for m in models_in(paragraph.lead))


def _context(sentence: str, paragraph: Paragraph) -> str:
    return " ; ".join((sentence, paragraph.label, *paragraph.section[-2:], paragraph.lead))


def _numbers(found: list[re.Match[str]]) -> set[int]:
    return {int(next(filter(None, match.groups()))) for match in found}


def _config(entry: ZooEntry) -> str:
    return f"as published ({entry.config})"


def _queries(sentence: str, entry: ZooEntry) -> Iterator[_Said]:
    found = list(_QUERIES.finditer(sentence))
    if len(numbers := _numbers(found)) == 1 and not re.search(r"\d[ ](?:or|to|and)[ ]\d", sentence):
        (said,) = numbers
        yield _Said(f"{said} queries", found[0].start(), said == entry.queries, f"{entry.queries} queries {_config(entry)}")


def _epochs(sentence: str, paragraph: Paragraph, entry: ZooEntry, dataset: str) -> Iterator[_Said]:
    found = list(_EPOCHS.finditer(sentence))
    numbers = _numbers(found)
    if len(numbers) != 1 or not _TRAINING.search(_context(sentence, paragraph)) or re.search(r"(?i)\bfine-?tun", sentence):
        return
    (said,) = numbers
    if epochs := re.search(r"_(\d+)ep\b", entry.config):
        yield _Said(f"{said} epochs", found[0].start(), said == int(epochs[1]), f"{epochs[1]} epochs {_config(entry)}")
    elif thousands := re.search(r"_(\d+)k\b", entry.config):
        batch = int(m[1]) if (m := re.search(r"_bs(\d+)_", entry.config)) else 16
        counted = int(thousands[1]) * 1000 * batch / TRAINING_IMAGES[dataset]
        right = max(said / counted, counted / said) <= _MOST_ODD if said else False
        yield _Said(
            f"{said} epochs", found[0].start(), right,
            f"{thousands[1]}000 iterations of {batch} images, about {counted:.0f} epochs of {dataset}, {_config(entry)}",
        )  # fmt: skip


def _batch(sentence: str, paragraph: Paragraph, entry: ZooEntry) -> Iterator[_Said]:
    """Of training; a batch of one is what speed is measured with."""
    found = list(_BATCH.finditer(sentence))
    published = re.search(r"_bs(\d+)_", entry.config)
    if published and len(numbers := _numbers(found)) == 1 and _TRAINING.search(_context(sentence, paragraph)):
        clause = sentence[max(0, found[0].start() - 120) : found[0].start()]
        if _TIMING.search(clause):
            return
        (said,) = numbers
        yield _Said(
            f"batch size {said}",
            found[0].start(),
            said == int(published[1]),
            f"batch size {published[1]} in training, {_config(entry)}",
        )


def _test_size(sentence: str, paragraph: Paragraph, entry: ZooEntry) -> Iterator[_Said]:
    found = _SIZE.search(sentence)
    if found and _TESTING.search(" ; ".join((sentence, paragraph.label))):
        said = (int(found[1]), int(found[2]))
        size = f"{entry.min_size}/{entry.max_size}"
        yield _Said(
            f"tested at {said[0]}/{said[1]}",
            found.start(),
            said == (entry.min_size, entry.max_size),
            f"tested at {size} {_config(entry)}",
        )


def _language(sentence: str) -> Iterator[_Said]:
    found = _LANGUAGE.search(sentence)
    if found and not _NEGATED.search(sentence):
        yield _Said(
            "processes natural language",
            found.start(),
            False,
            "a Mask2Former takes an image and nothing else; its class names are fixed",
        )
