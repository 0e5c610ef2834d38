"""What ``m2fbench card-check`` prints."""

from collections import Counter

from rich.table import Table
from rich.text import Text

from m2fbench.errors import shown
from m2fbench.reporting.claims.check import CardCheck
from m2fbench.reporting.claims.verdicts import GOOD, Finding, Verdict

_STYLES = {
    Verdict.contradicted: "bold red", Verdict.not_this: "yellow", Verdict.gap: "yellow", Verdict.unverifiable: "cyan", Verdict.not_measured: "cyan",
    Verdict.credited: "green", Verdict.confirmed: "green",
}  # fmt: skip


def findings_table(check: CardCheck, everything: bool) -> Table | None:
    """A line a claim: what, where, verdict, evidence; None where there is nothing to show. everything: those that hold, too."""
    rows = [f for f in check.findings if everything or f.verdict not in GOOD]
    if not rows:
        return None
    title = f"{shown(check.path)}: {check.subject.text}"
    table = Table(title=title, title_justify="left", show_lines=True)
    for name, width in (("claim", 26), ("where", 12), ("verdict", 13)):
        table.add_column(name, overflow="fold", max_width=width + 10, min_width=min(width, 12))
    table.add_column("evidence", overflow="fold", ratio=1)
    for finding in rows:
        table.add_row(
            Text(shown(finding.claim, 200)), Text(finding.where), Text(finding.verdict.value, style=_STYLES[finding.verdict]), _evidence(finding)
        )  # fmt: skip
    return table


def _evidence(finding: Finding) -> Text:
    """The evidence, and the card's own words below."""
    quote = shown(finding.quote, 240)
    return Text.assemble(shown(finding.evidence, 900), *((("\n" + quote, "dim"),) if quote and finding.kind != "text" else ()))


def summary(check: CardCheck) -> str:
    """How many claims there are, and what became of them."""
    count = Counter(finding.verdict for finding in check.findings)
    told = ", ".join(f"{count[verdict]} {verdict.value}" for verdict in Verdict if count[verdict])
    total = len(check.findings)
    gaps = f"; {check.gaps} marked [More Information Needed]" if check.gaps else ""
    runs = f"; runs of it: {', '.join(map(shown, check.runs))}" if check.runs else ""
    if not total:
        return f"{shown(check.path)}: no claims found that can be checked{gaps}"
    return f"{shown(check.path)}: {total} claim{'s'[: total != 1]}: {told}{gaps}{runs}"
