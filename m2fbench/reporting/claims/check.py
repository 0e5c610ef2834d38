"""A card's claims against the published tables and the measured runs: which hold, which do not, whose a figure really is.

What was measured of the card's own model comes first; then what the paper prints for it; then whose figure the number is. A verdict of "contradicted"
needs another figure for the very thing that is claimed; where there is none, the claim is unverifiable and says why.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from m2fbench.analysis.runs import Run, Tell, silent
from m2fbench.reporting.claims.code import check_code
from m2fbench.reporting.claims.details import check_details
from m2fbench.reporting.claims.document import MISSING, Document, read_document
from m2fbench.reporting.claims.evidence import measured_figures, printed_figures, runs_of
from m2fbench.reporting.claims.extraction import MAX_CLAIMS, Claim, prose_claims
from m2fbench.reporting.claims.judging import Runs, judge
from m2fbench.reporting.claims.marked import check_marked
from m2fbench.reporting.claims.metadata import metadata_claims
from m2fbench.reporting.claims.subject import Subject, subject_of
from m2fbench.reporting.claims.tables import table_claims
from m2fbench.reporting.claims.verdicts import Finding, Verdict
from m2fbench.types import JsonObject


@dataclass(frozen=True)
class CardCheck:
    """findings: in the card's order. gaps: how often it says that more information is needed. runs: labels of those that are of its model.
    unchecked: figures with decimals in m2fbench's own sections that nothing was held against, by kind."""

    path: Path
    subject: Subject
    findings: tuple[Finding, ...]
    gaps: int
    runs: tuple[str, ...]
    unchecked: Mapping[str, int] = field(default_factory=dict)

    def count(self, verdict: Verdict) -> int:
        return sum(finding.verdict is verdict for finding in self.findings)

    @property
    def contradicted(self) -> bool:
        return self.count(Verdict.contradicted) > 0

    def to_json(self) -> JsonObject:
        subject = self.subject
        return {
            "card": str(self.path),
            "model": {"name": subject.name, "backbone": subject.backbone, "dataset": subject.dataset, "task": subject.task, "said_by": subject.said},
            "runs": list(self.runs),
            "verdicts": {verdict.value: self.count(verdict) for verdict in Verdict},
            "more_information_needed": self.gaps,
            "marked_figures_not_checked": dict(self.unchecked),
            "findings": [finding.to_json() for finding in self.findings],
        }  # fmt: skip


def check_card(path: str | Path, runs: Sequence[Run] = (), *, model: str | None = None, tell: Tell = silent) -> CardCheck:
    """Reads a card and checks all it claims. model: which one it is about, in place of what it says. Raises CardError where it cannot be read."""
    document = read_document(Path(path))
    subject = subject_of(document, model)
    own = runs_of(subject, runs, document.text)
    evidence = Runs(measured_figures(own), printed_figures(own), bool(runs))
    claims = [*metadata_claims(document), *table_claims(document), *prose_claims(document)][:MAX_CLAIMS]
    claims = [_as_measured(claim) if claim.measured or claim.line in document.measured else claim for claim in claims]
    findings = [judge(claim, subject, evidence) for claim in claims]
    marked = check_marked(document, own, evidence.measured, list(zip(claims, findings, strict=True)))
    findings += marked.findings
    findings += check_details(document, subject)
    if document.code:
        tell("resolving the names that its code uses")
    findings += check_code(document, subject)
    findings += _broken_links(document)
    if len(claims) >= MAX_CLAIMS:
        rest = f"more than {MAX_CLAIMS} figures: the rest was not read"
        findings.append(Finding("text", "all figures", 1, 1, "1:1", "", Verdict.unverifiable, rest))
    ordered = sorted(findings, key=lambda f: (f.line, f.column))
    labels = tuple(run.label for run in own)
    return CardCheck(Path(path), subject, tuple(ordered), document.gaps, labels, dict((+marked.unchecked).most_common()))


def _as_measured(claim: Claim) -> Claim:
    """A figure that m2fbench has written: in percent, however small it is."""
    if not claim.share:
        return replace(claim, measured=True)
    return replace(claim, measured=True, share=False, value=round(claim.value / 100, 9), digits=claim.digits + 2)


_LINK = re.compile(
    r"\]\(([^()\s]{0,300}" + re.escape(MISSING) + r"[^()\n]{0,300})\)|\]\([ ]{0,10}" + re.escape(MISSING) + r"[ ]{0,10}\)"
)


def _broken_links(document: Document) -> list[Finding]:
    """Links whose address is the mark of something missing."""
    found = []
    for number, line in enumerate(document.text.split("\n"), 1):
        if MISSING in line:
            for link in _LINK.finditer(line):
                found.append(
                    Finding(
                        "text", "a link", number, link.start() + 1, f"{number}:{link.start() + 1}", link[0][1:80], Verdict.gap,
                        f"its address is {MISSING}: it leads nowhere",
                    )
                )  # fmt: skip
    return found
