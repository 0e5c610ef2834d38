"""What a check of a card finds, as records."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from m2fbench.types import JsonObject


class Verdict(StrEnum):
    """contradicted: another figure, or the installed library, says otherwise. not_this: true of another checkpoint, and placed where a reader
    takes it for this one's. unverifiable: no published figure and no rule speaks of it. not_measured: only a run could tell. gap: marked as
    missing where something cannot work without it. credited: another model's, and said to be. confirmed: it holds."""

    contradicted = "contradicted"
    not_this = "not this checkpoint's"
    unverifiable = "unverifiable"
    not_measured = "not measured"
    gap = "gap"
    credited = "rightly credited"
    confirmed = "confirmed"


GOOD = (Verdict.credited, Verdict.confirmed)


@dataclass(frozen=True)
class Finding:
    """One claim with its verdict. where: "line:column", or the key of the metadata. checkpoint, dataset, protocol: of the figures that decide, as
    far as the verdict rests on any."""

    kind: Literal["figure", "detail", "code", "text"]
    claim: str
    line: int
    column: int
    where: str
    quote: str
    verdict: Verdict
    evidence: str
    checkpoint: str | None = None
    dataset: str | None = None
    protocol: str | None = None

    def to_json(self) -> JsonObject:
        return {
            "kind": self.kind, "claim": self.claim, "line": self.line, "column": self.column, "where": self.where, "quote": self.quote,
            "verdict": self.verdict.value, "evidence": self.evidence, "checkpoint": self.checkpoint, "dataset": self.dataset,
            "protocol": self.protocol,
        }  # fmt: skip
