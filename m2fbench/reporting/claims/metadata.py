"""Figures in a card's metadata: the ``model-index`` that the hub reads, and any other list of metrics with values."""

import math
from collections.abc import Iterator
from typing import Any

from m2fbench.errors import shown
from m2fbench.reporting.claims.attribution import SUBJECT, Attribution
from m2fbench.reporting.claims.document import Document
from m2fbench.reporting.claims.extraction import MAX_CLAIMS, Claim
from m2fbench.reporting.claims.words import COSTS, datasets_in, metric_of_label, models_in, protocol_in, split_in
from m2fbench.yaml_lines import KeyPath, dotted


def metadata_claims(document: Document) -> list[Claim]:
    claims: list[Claim] = []
    for where, entry, around in _metrics(document.metadata, (), {}):
        claim = _claim(document, where, entry, around)
        if claim is not None:
            claims.append(claim)
        if len(claims) >= MAX_CLAIMS:
            break
    return claims


def _metrics(
    node: Any, here: KeyPath, around: dict[str, Any], depth: int = 0
) -> Iterator[tuple[KeyPath, dict[str, Any], dict[str, Any]]]:
    """Every mapping with a metric and its value, with what the mappings around it say of data set, task and model."""
    if depth > 12:
        return
    if isinstance(node, dict):
        known = around | {
            key: node[key] for key in ("dataset", "task", "name", "model", "source") if key in node and node[key] is not None
        }
        if "value" in node and any(key in node for key in ("type", "name", "metric")):
            yield here, node, around
            return
        for key, value in node.items():
            yield from _metrics(value, (*here, str(key)), known, depth + 1)
    elif isinstance(node, list):
        for k, value in enumerate(node):
            yield from _metrics(value, (*here, k), around, depth + 1)


def _claim(document: Document, where: KeyPath, entry: dict[str, Any], around: dict[str, Any]) -> Claim | None:
    labels = [str(entry[key]) for key in ("type", "metric", "name") if isinstance(entry.get(key), str)]
    metric = next((m for m in map(metric_of_label, labels) if m is not None), None)
    value = _number(entry["value"])
    if metric is None or value is None:
        return None
    text = str(entry["value"])
    digits = len(text.partition(".")[2]) if "e" not in text.casefold() else 12
    if metric == "params_M" and value > 1e5:
        value, digits = value / 1e6, 6
    elif metric == "flops_G" and value > 1e6:
        value, digits = value / 1e9, 9
    share = metric not in COSTS and 0 < value <= 1
    if share:
        value, digits = round(value * 100, 9), max(digits - 2, 0)
    said = " ; ".join(_texts(around.get("dataset")))
    datasets = datasets_in(said) or datasets_in(said.replace("_", " ").upper())
    named = [] if where[0] == "model-index" else models_in(str(around.get("name", "")))  # the index's name is the card's own model
    models = [Attribution(m.kind, m.value) for m in named if m.kind in ("backbone", "checkpoint")]
    return Claim(
        metric=metric,
        value=value,
        digits=digits,
        text=f"{shown(labels[-1], 60)} {shown(text, 20)}",
        line=document.metadata_lines.get((*where, "value"), 1),
        column=1,
        source="metadata",
        quote=f"{shown(labels[0], 60)}: {shown(text, 20)} on {shown(_each_once(said) or 'no data set', 80)}",
        model=models[0] if models else SUBJECT,
        dataset=datasets[0].value if datasets else said.partition(" ; ")[0] or None,
        split=split_in(said),
        protocol=protocol_in(" ; ".join((*labels, *_texts(entry.get("args"))))),
        results=True,
        measured=_measured_by(entry),
        share=share,
        path=dotted((*where, "value")),
    )


def _measured_by(entry: dict[str, Any]) -> bool:
    """Whether ``m2fbench card`` has written it."""
    args = entry.get("args")
    return isinstance(args, dict) and str(args.get("measured_by", "")).startswith("m2fbench")


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) else None


def _each_once(said: str) -> str:
    """ "COCO ; coco ; val2017" as a reader wants it: "COCO, val2017"."""
    first: dict[str, str] = {}
    for text in said.split(" ; "):
        first.setdefault(text.casefold(), text)
    return ", ".join(first.values())


def _texts(node: Any, depth: int = 0) -> list[str]:
    """Every text in a mapping, the name first."""
    if isinstance(node, str):
        return [node]
    if isinstance(node, dict) and depth < 4:
        keys = sorted(node, key=lambda key: (key not in ("name", "type"), str(key)))
        return [text for key in keys for text in _texts(node[key], depth + 1)]
    return []
