"""Whether a card that is to be brought up to date is about another model than the runs."""

import re
from collections.abc import Iterator
from typing import Any

from m2fbench.errors import CardError, shown
from m2fbench.reporting.card.facts import CardFacts
from m2fbench.reporting.card.update import read_parts

_TITLE = re.compile(r"(?m)^#[ \t]+(?:Model Card for[ \t]+)?`?([\w./-]+?)`?[ \t]*\r?$")  # of one word
_LOADED = re.compile(r"from_pretrained\(\s*[\"']([\w.-]+/[\w.-]+)[\"']")
_HASH = re.compile(r"\*\*Content hash:\*\* sha256 `([0-9a-f]{64})`")


def refuse_another(facts: CardFacts, content: bytes, place: str) -> None:
    """Raises CardError where a card names models, none of them ours, and no section of ours is of this very checkpoint.

    A card's names: those of its model-index, a title that looks like a name, the hub ids that its code loads. Ours: the title, the id on the
    hub, the reference by which the checkpoint was measured, its name in the model zoo. Owners, upper and lower case, - and _ are one.
    """
    metadata, sections, prose = read_parts(content, place)
    hashes = {found for text in sections.values() for found in _HASH.findall(text)}
    if facts.sha256 in hashes:
        return
    theirs = dict.fromkeys(_names(metadata, prose))
    ours = {_bare(name) for name in _our_names(facts)}
    if theirs and not ours & {_bare(name) for name in theirs}:
        raise CardError(
            f"{place}: a card of {shown(', '.join(theirs))}, the runs are of {shown(facts.title)} (sha256 {facts.sha256[:12]}); give that model's "
            "own card, its --model-id, or --same-model if it is this one under another name"
        )


def _names(metadata: dict[str, Any], prose: str) -> Iterator[str]:
    index = metadata.get("model-index")
    for model in index if isinstance(index, list) else ():
        if isinstance(model, dict) and model.get("name"):
            yield str(model["name"])
    title = _TITLE.search(prose)
    if title is not None and re.search(r"[-_/]", title[1]):
        yield title[1]
    yield from _LOADED.findall(prose)


def _our_names(facts: CardFacts) -> Iterator[str]:
    yield facts.title
    yield from filter(None, (facts.options.model_id, facts.record.get("published")))
    yield str(facts.record["reference"])


def _bare(name: str) -> str:
    """Without owner, folders, revision and the like; names of the model zoo, which have three parts, whole."""
    name = name.strip().partition("@")[0].rstrip("/").casefold().replace("_", "-")
    for prefix in ("bundled:", "zoo:"):
        name = name.removeprefix(prefix)
    zoo = re.fullmatch(r"[\w-]+/(instance|panoptic|semantic)/[\w.-]+", name)
    return name if zoo else name.rpartition("/")[2]
