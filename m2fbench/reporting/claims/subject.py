"""Which model a card is about: from what it is told, its title, its metadata, its code, or the one checkpoint that it names."""

import re
from dataclasses import dataclass
from typing import Any

from m2fbench.errors import CardError, shown
from m2fbench.reporting.claims.document import Document
from m2fbench.reporting.claims.published_figures import checkpoint_named, published_figures, same_backbone
from m2fbench.reporting.claims.words import models_in
from m2fbench.types import Head


@dataclass(frozen=True)
class Subject:
    """name: as the card has it, empty where it names none. backbone, dataset, task: of the published checkpoint that it is; None for a model
    of someone's own, or where the card leaves it open. said: where that is
    from."""

    name: str = ""
    backbone: str | None = None
    dataset: str | None = None
    task: Head | None = None
    said: str = "the card names no model"

    @property
    def published(self) -> bool:
        return self.backbone is not None

    @property
    def text(self) -> str:
        """In words, for a table's head."""
        if not self.name and self.backbone is None:
            return "no model named"
        what = " ".join(part for part in (self.backbone, self.dataset, self.task) if part)
        return (
            f"{shown(self.name)} ({what}; from {self.said})"
            if what
            else f"{shown(self.name)} (not a published checkpoint; from {self.said})"
        )


def subject_of(document: Document, model: str | None = None) -> Subject:
    """model: in place of what the card says: a hub id, ``zoo:NAME``, or a backbone such as "Swin-L" or "R50". Raises CardError for a backbone that
    is none."""
    if model is not None:
        return _told(model)
    title = re.sub(r"^(?:model card (?:for|of)|model:)\s*", "", document.title, flags=re.IGNORECASE).strip().strip("`")
    for name, said in ((title, "the title"), *_of_metadata(document.metadata)):
        if found := _published(name, said):
            return found
    own = _own_name(title, document.metadata)
    loaded = dict.fromkeys(m.value for block in document.code for m in models_in(block.text) if m.kind == "checkpoint")
    named = dict.fromkeys(m.value for p in document.paragraphs[:20] for m in models_in(p.text) if m.kind == "checkpoint")
    if own is None:
        for names, said in ((loaded, "its code"), (named, "its text")):
            if (
                len(names) == 1
                and (found := _published(next(iter(names)), said))
                and any("from_pretrained" in c.text for c in document.code)
            ):
                return found
    name, said = own or (title, "the title")
    return Subject(name, said=said)


def _told(model: str) -> Subject:
    if found := _published(model, "--model"):
        return found
    if "/" in model or ":" in model:
        return Subject(model, said="--model")
    backbones = [m.value for m in models_in(model) if m.kind == "backbone"]
    rows = sorted({f.backbone for f in published_figures()})
    exact = [row for row in rows if row.casefold() == model.casefold()]
    if not exact and not backbones:
        raise CardError(
            f"--model {shown(model)}: expected a hub id (owner/name), zoo:NAME, or a backbone, one of {', '.join(rows)}"
        )
    return Subject(model, backbone=(exact or backbones)[0], said="--model")


def _published(name: str, said: str) -> Subject | None:
    """Where ``name`` is, or holds, the name of one published checkpoint; "Mask2Former Swin-T (COCO instance)" names a backbone."""
    named = {m.value for m in models_in(name) if m.kind == "checkpoint"}
    for reference in named or {name.strip()}:
        if found := checkpoint_named(reference):
            return Subject(reference, *found, said=said)
    return None


def _of_metadata(metadata: Any) -> tuple[tuple[str, str], ...]:
    index = metadata.get("model-index") if isinstance(metadata, dict) else None
    names = [entry.get("name") for entry in index if isinstance(entry, dict)] if isinstance(index, list) else []
    return tuple((name, "model-index") for name in names if isinstance(name, str))


def _own_name(title: str, metadata: Any) -> tuple[str, str] | None:
    """The name of a model that is none of the published ones: with an owner, or as the model-index has it."""
    if found := re.search(r"(?<![\w./:-])[\w.-]{1,96}/[\w.-]{1,96}(?![\w/])", title):
        return found[0], "the title"
    names = _of_metadata(metadata)
    if names:
        return names[0]
    return (title, "the title") if _base_model(metadata) else None


def _base_model(metadata: Any) -> str | None:
    base = metadata.get("base_model") if isinstance(metadata, dict) else None
    base = base[0] if isinstance(base, list) and base else base
    return base if isinstance(base, str) else None


def is_own_backbone(subject: Subject, said: str) -> bool:
    """Whether a backbone as a text names it is the subject's: "Swin-L" is Swin-L-IN21k's own name too, but Swin-B-IN21k is not Swin-B."""
    if subject.backbone is None:
        return False
    loose = subject.backbone not in {f.backbone for f in published_figures()}  # as a user may say it: "Swin-L"
    return same_backbone(said, subject.backbone) or (loose and same_backbone(subject.backbone, said))
