"""What bringing a card up to date has done to it, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from m2fbench.reporting.card.text import INTERVAL, LAYERS, MENDING, PARTS
from m2fbench.reporting.card.update import read_parts, results_by_key

_SHOWN = {
    "intervals": ("results", INTERVAL),
    "subsets": ("factors", PARTS),
    "errors": ("results", MENDING),
    "examination": ("examination", LAYERS),
}
"""What a card can have -> the section that has it, and the words by which that is known."""


def changes(before: bytes, after: bytes, place: str) -> list[str]:
    """Sections rewritten and added, metadata set and taken out; a clause each."""
    metadata, sections, _ = read_parts(before, place)
    new_metadata, new_sections, _ = read_parts(after, place)
    rewritten = [name for name, text in new_sections.items() if name in sections and sections[name] != text]
    added = [name for name in new_sections if name not in sections]
    keys = [key for key in new_metadata if key not in metadata or metadata[key] != new_metadata[key]]
    clauses = {
        "sections rewritten": rewritten,
        "sections added at the end": added,
        "metadata set": [_of_index(metadata, new_metadata) if key == "model-index" else key for key in keys],
        "metadata taken out": [key for key in metadata if key not in new_metadata],
    }
    return [f"{what}: {', '.join(names)}" for what, names in clauses.items() if names]


def _of_index(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    old, new = results_by_key(before.get("model-index")), results_by_key(after["model-index"])
    counts = {
        "new": len(new.keys() - old.keys()),
        "changed": sum(old[key] != new[key] for key in new.keys() & old.keys()),
        "taken out": len(old.keys() - new.keys()),
    }
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    return f"model-index ({said})" if said else "model-index"


def no_longer_there(before: bytes, after: bytes, place: str) -> list[str]:
    """What the card had, of what analyses find, and has no more."""
    return list(_lost(read_parts(before, place)[1], read_parts(after, place)[1]))


def _lost(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for what, (section, words) in _SHOWN.items():
        if words in before.get(section, "") and words not in after.get(section, ""):
            yield what
