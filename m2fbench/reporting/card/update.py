"""Bringing a card up to date without touching what a person wrote: only marked sections, and the metadata that is ours.

    <!-- m2fbench:begin results -->
    ...
    <!-- m2fbench:end results -->

A marker is a line of its own. Everything else of the file, line ends and byte order mark included, stays as it is, byte for byte.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from m2fbench.errors import CardError, shown
from m2fbench.types import JsonObject

BEGIN, END = "<!-- m2fbench:begin {} -->", "<!-- m2fbench:end {} -->"
_MARKER = re.compile(r"^[ \t]*(<!--[ \t]*m2fbench:(begin|end)[ \t]+([\w-]+)[ \t]*-->)[ \t]*$")
_LIKE_A_MARKER = re.compile(r"^[ \t]*<!--.*m2fbench:(begin|end)")
# as huggingface_hub finds metadata (repocard.REGEX_YAML_BLOCK)
_METADATA = re.compile(r"^(\s*---(?:\r\n|\r|\n))([\S\s]*?)((?:\r\n|\r|\n)---[ \t]*(\r\n|\n|$))")
_EMPTY_METADATA = re.compile(r"^\s*---(\r\n|\r|\n)---[ \t]*(\r\n|\n|$)")
BYTE_ORDER_MARK = "\ufeff"


@dataclass(frozen=True)
class Section:
    """What stands between a pair of markers. heading: the one under which it is put where a card has no such section yet."""

    name: str
    heading: str
    body: str

    @property
    def marked(self) -> str:
        return f"{BEGIN.format(self.name)}\n{self.body.strip()}\n{END.format(self.name)}"


Merge = Callable[[JsonObject], Mapping[str, Any]]
"""The metadata that is there -> the keys to set, with their values; a value of None takes the key out."""


def update(content: bytes, sections: Sequence[Section], merge: Merge, place: str) -> bytes:
    """``content`` of a card with these sections and metadata in it; sections that it has not are put at its end. Raises CardError.

    Doing it twice gives what doing it once gives.
    """
    text = _decoded(content, place)
    mark = BYTE_ORDER_MARK if text.startswith(BYTE_ORDER_MARK) else ""
    text = text.removeprefix(mark)
    line_end = _line_end(text)
    metadata, body, first_line = _split(text, place)
    known = _parsed(metadata, place)
    changed = _set_keys(metadata, known, dict(merge(known)), line_end, place)
    return (mark + changed + _with_sections(body, sections, line_end, place, first_line)).encode()


def _decoded(content: bytes, place: str) -> str:
    """Raises CardError where it is no UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardError(
            f"{place}: expected UTF-8 text, got byte 0x{content[error.start]:02x} at {error.start}; save the card as UTF-8"
        ) from None


def _line_end(text: str) -> str:
    """The end of the first line, by which what is new is written."""
    found = re.search(r"\r\n|\r|\n", text)
    return found[0] if found else "\n"


def _split(text: str, place: str) -> tuple[str, str, int]:
    """(the metadata block with its fences, "" for none; the rest; how many lines are before that)."""
    found = _EMPTY_METADATA.match(text) or _METADATA.match(text)
    if found is None:
        if re.match(r"\s*---[ \t]*(\r\n|\r|\n)", text) and not re.match(r"\s*---[ \t]*(\r\n|\r|\n)\s*(\r\n|\r|\n)", text):
            raise CardError(f"{place}:1: metadata that begins with --- and never ends; close it with a line ---")
        return "", text, 0
    head = text[: found.end()]
    return head, text[found.end() :], len(re.findall(r"\r\n|\r|\n", head))


def _inner(metadata: str) -> tuple[str, str, str]:
    """(opening fence, YAML, closing fence with the line break before it)."""
    if _EMPTY_METADATA.match(metadata):
        opening = re.match(r"\s*---(\r\n|\r|\n)", metadata)
        assert opening is not None
        return opening[0], "", metadata[opening.end() :]
    found = _METADATA.match(metadata)
    assert found is not None
    return found[1], found[2], found[3]


def _parsed(metadata: str, place: str) -> JsonObject:
    """Raises CardError where the metadata is no mapping with every key once."""
    if not metadata:
        return {}
    opening, text, _ = _inner(metadata)
    first = len(re.findall(r"\r\n|\r|\n", opening))
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        found = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = "" if mark is None else f":{first + mark.line + 1}"
        problem = getattr(error, "problem", None) or error
        raise CardError(f"{place}{line}: metadata that is no YAML ({shown(problem)}); mend it first") from None
    if found is None:
        return {}
    if not isinstance(found, dict) or not isinstance(node, yaml.MappingNode) or node.flow_style:
        raise CardError(f"{place}:{first + 1}: expected metadata as keys with values, a line each; mend it first")
    names = [str(key.value) for key, _ in node.value]
    for name in names:
        if names.count(name) > 1:
            raise CardError(f"{place}: metadata with the key '{shown(name)}' twice; take one out")
    return dict(found)


def _set_keys(metadata: str, known: JsonObject, wanted: JsonObject, line_end: str, place: str) -> str:
    """The block with the keys of ``wanted`` that differ set in it, each where it was or at the end; all other lines stay."""
    changed = {k: v for k, v in wanted.items() if known.get(k) != v}
    if not changed:
        return metadata
    if not metadata:
        lines = _dumped({k: v for k, v in changed.items() if v is not None})
        return "".join(line + line_end for line in ["---", *lines, "---"])
    opening, text, closing = _inner(metadata)
    lines = re.split(r"\r\n|\r|\n", text) if text else []
    spans = _spans(text)
    for key in sorted((k for k in changed if k in spans), key=lambda k: -spans[k][0]):
        start, stop = spans[key]
        lines[start:stop] = [] if changed[key] is None else _dumped({key: changed[key]})
    if added := _dumped({k: v for k, v in changed.items() if k not in spans and v is not None}):
        while lines and not lines[-1].strip():
            lines.pop()
        lines += added
    body = line_end.join(lines) if _uniform(text, line_end) else _joined(text, lines, line_end)
    if not closing.startswith(("\r", "\n")):
        closing = line_end + closing
    made = opening + body + closing
    _check_untouched(made, known, changed, place)
    return made


def _uniform(text: str, line_end: str) -> bool:
    return set(re.findall(r"\r\n|\r|\n", text)) <= {line_end}


def _joined(text: str, lines: Sequence[str], line_end: str) -> str:
    """Lines joined by the ends that the first of the old lines of that content had; ``line_end`` for what is new."""
    ends: dict[str, list[str]] = {}
    for line, end in re.findall(r"([^\r\n]*)(\r\n|\r|\n)", text):
        ends.setdefault(line, []).append(end)
    made = [line + (ends[line].pop(0) if ends.get(line) else line_end) for line in lines[:-1]]
    return "".join(made) + (lines[-1] if lines else "")


def _spans(text: str) -> dict[str, tuple[int, int]]:
    """Key -> the lines [first, last + 1) that it and its value take; blank lines and comments after a value are not its own."""
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        return {}
    lines = re.split(r"\r\n|\r|\n", text)
    starts = [key.start_mark.line for key, _ in node.value]
    found = {}
    for (key, value), start, following in zip(node.value, starts, [*starts[1:], len(lines)], strict=True):
        stop = following
        literal = isinstance(value, yaml.ScalarNode) and value.style in ("|", ">")
        while stop > start + 1 and (not lines[stop - 1].strip() or (lines[stop - 1].startswith("#") and not literal)):
            stop -= 1
        found[str(key.value)] = (start, stop)
    return found


def _dumped(values: JsonObject) -> list[str]:
    """As huggingface_hub writes metadata."""
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    return [] if not values else yaml_dump(values, sort_keys=False).rstrip("\n").split("\n")


def _check_untouched(metadata: str, known: JsonObject, changed: JsonObject, place: str) -> None:
    """An alias of what was replaced, say, would change a key that nobody asked about."""
    kept = {k: v for k, v in known.items() if k not in changed} | {k: v for k, v in changed.items() if v is not None}
    try:
        made = _parsed(metadata, place)
    except CardError:
        made = {}
    if made != kept:
        names = ", ".join(changed)
        raise CardError(f"{place}: metadata whose {names} cannot be set without touching other keys; write {names} without anchors")


def _with_sections(body: str, sections: Sequence[Section], line_end: str, place: str, first_line: int) -> str:
    """``body`` with each section's text between its markers, or at the end. Raises CardError."""
    new = {section.name: section.marked.replace("\n", line_end) for section in sections}
    pieces: list[str] = []
    position = 0
    for name, start, stop in find_sections(body, new, place, first_line):
        pieces += [body[position:start], new.pop(name)]
        position = stop
    pieces.append(body[position:])
    made = "".join(pieces)
    headings = {section.name: section.heading for section in sections}
    for name, text in new.items():
        made = made + line_end * (2 - _line_ends_after(made)) if made else made
        made += f"## {headings[name]}{line_end}{line_end}{text}{line_end}"
    return made


def _line_ends_after(text: str) -> int:
    """How many line ends the text closes with, two at most."""
    found = re.search(r"(?:\r\n|\r|\n)+\Z", text)
    return min(2, len(re.findall(r"\r\n|\r|\n", found[0]))) if found else 0


def find_sections(body: str, known: Mapping[str, object], place: str, first_line: int = 0) -> list[tuple[str, int, int]]:
    """(name, start, stop) of every marked section, both markers included. Raises CardError where a marker is not what
    it should be. known: the names that there can be."""
    found: list[tuple[str, int, int]] = []
    opened: tuple[str, int, int] | None = None
    for number, match in enumerate(re.finditer(r"([^\r\n]*)(?:\r\n|\r|\n|\Z)", body), first_line + 1):
        line = match[1]
        marker = _MARKER.match(line)
        if marker is None:
            if _LIKE_A_MARKER.match(line):
                raise CardError(
                    f"{place}:{number}: expected {BEGIN.format('NAME')} or the like alone on its line, got {shown(line.strip(), 60)}"
                )
            continue
        kind, name = marker[2], marker[3]
        if name not in known:
            raise CardError(
                f"{place}:{number}: expected a section among {', '.join(known)}, got '{shown(name)}'; take the marker out"
            )
        if kind == "begin":
            if opened is not None:
                raise CardError(
                    f"{place}:{number}: '{name}' begins before '{opened[0]}' of line {opened[2]} has ended; mend the markers"
                )
            if name in {seen for seen, *_ in found}:
                raise CardError(f"{place}:{number}: '{name}' begins a second time; take one of the two out")
            opened = (name, match.start(1) + marker.start(1), number)
        elif opened is None or opened[0] != name:
            raise CardError(f"{place}:{number}: '{name}' ends and has not begun; mend the markers")
        else:
            found.append((name, opened[1], match.start(1) + marker.end(1)))
            opened = None
    if opened is not None:
        raise CardError(f"{place}:{opened[2]}: '{opened[0]}' begins and never ends; put {END.format(opened[0])} after it")
    return found


def read_parts(content: bytes, place: str) -> tuple[JsonObject, dict[str, str], str]:
    """(metadata; marked sections by name, markers included; all other text) of a card. Raises CardError."""
    text = _decoded(content, place).removeprefix(BYTE_ORDER_MARK)
    metadata, body, first_line = _split(text, place)
    names = dict.fromkeys(match[3] for line in re.split(r"\r\n|\r|\n", body) if (match := _MARKER.match(line)))
    sections, rest, position = {}, [], 0
    for name, start, stop in find_sections(body, names, place, first_line):
        sections[name] = body[start:stop]
        rest.append(body[position:start])
        position = stop
    return _parsed(metadata, place), sections, "".join([*rest, body[position:]])


def results_by_key(index: Any) -> dict[tuple[Any, ...], JsonObject]:
    """Every metric of a model-index that the hub can read, by what tells it from all others."""
    found: dict[tuple[Any, ...], JsonObject] = {}
    for result in (result for model in index or () for result in model["results"]):
        found.update(zip(_keys(result), result["metrics"], strict=True))
    return found


def merge_model_index(known: Any, ours: Any, measured_by: str, place: str) -> Any:
    """``known``, a card's model-index, with the entries of ``ours``, one model's: what an earlier card of ours said goes out, and so does
    another's entry of the same task, dataset and metric; all others stay. None where nothing is left. Raises CardError.

    measured_by: how the argument of that name of our metrics begins.
    """
    try:
        models = [dict(model) for model in known or ()]
        kept = [{**model, "results": _others(model["results"], ours, measured_by)} for model in models]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise CardError(f"{place}: model-index is not as the hub has it ({shown(repr(error))}); mend it or take it out") from None
    new = list(ours[0]["results"]) if ours else []
    if kept:
        name = ours[0]["name"] if ours else None
        target = next((model for model in kept if model.get("name") == name), kept[0])
        target["results"] = [*target["results"], *new]
        kept = [model for model in kept if model["results"]]
        return kept or None
    return ours or None


def _others(results: Sequence[JsonObject], ours: Any, measured_by: str) -> list[JsonObject]:
    """The entries that are not ours and that ours do not replace."""
    replaced = {key for model in ours or () for result in model["results"] for key in _keys(result)}
    found = []
    for result in results:
        metrics = [
            metric
            for key, metric in zip(_keys(result), result["metrics"], strict=True)
            if key not in replaced and not str((metric.get("args") or {}).get("measured_by", "")).startswith(measured_by)
        ]
        if metrics:
            found.append(result if len(metrics) == len(result["metrics"]) else {**result, "metrics": metrics})
    return found


def _keys(result: JsonObject) -> list[tuple[Any, ...]]:
    """What tells each metric of an entry from all others."""
    dataset = result["dataset"]
    where = (result["task"]["type"], dataset["type"], dataset.get("config"), dataset.get("split"))
    return [(*where, metric["type"]) for metric in result["metrics"]]
