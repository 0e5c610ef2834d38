"""What ``m2fbench card-check`` prints."""

import re
from collections import Counter
from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from m2fbench.errors import shown
from m2fbench.reporting.claims.check import CardCheck
from m2fbench.reporting.claims.verdicts import GOOD, Finding, Verdict

_STYLES = {
    Verdict.contradicted: "bold red", Verdict.not_this: "yellow", Verdict.gap: "yellow", Verdict.unverifiable: "cyan", Verdict.not_measured: "cyan",
    Verdict.credited: "green", Verdict.confirmed: "green",
}  # fmt: skip
_MEANINGS = {
    Verdict.contradicted: "another figure, the installed library or its own row says otherwise",
    Verdict.not_this: "true of another checkpoint",
    Verdict.unverifiable: "nothing here speaks of it",
    Verdict.not_measured: "only runs can tell",
    Verdict.gap: "marked as missing where it is needed",
    Verdict.credited: "another model's, and said to be",
    Verdict.confirmed: "it holds",
}
_WIDE = 120  # columns of a terminal from which on names have more room
_NAMED = 3  # claims that a folded row names


def findings_table(check: CardCheck, everything: bool, width: int = _WIDE) -> Table | None:
    """A line a claim: what, where, verdict, evidence; None where there is nothing to show. everything: those that hold, too. width: of the
    terminal, in characters."""
    rows = _shown(check, everything)
    if not rows:
        return None
    title = f"{shown(check.path)}: {check.subject.text}"
    table = Table(title=title, title_justify="left", show_lines=True)
    claim, where = (34, 17) if width >= _WIDE else (22, 12)
    table.add_column("claim", overflow="fold", max_width=claim)
    table.add_column("where", overflow="fold", max_width=where)
    table.add_column("verdict", overflow="fold", min_width=12, max_width=16)
    table.add_column("evidence", overflow="fold", ratio=1)
    for same in _alike(rows):
        first, count = same[0], len(same)
        names = list(dict.fromkeys(shown(f.claim, 200) for f in same))
        left = len(names) - _NAMED
        told = ", ".join(names[:_NAMED]) + (f" and {left} more" if left > 0 else "")
        table.add_row(
            Text(_broken(f"{count} claims: {told}" if count > 1 else told, claim)),
            Text(_broken(_where(same), where)),
            Text(first.verdict.value, style=_STYLES[first.verdict]),
            _evidence(first, count == 1, max(24, width - claim - where - 29)),
        )
    return table


def _shown(check: CardCheck, everything: bool) -> list[Finding]:
    return [f for f in check.findings if everything or f.verdict not in GOOD]


def _alike(rows: Sequence[Finding]) -> list[list[Finding]]:
    """Rows of which nothing is known, for the same reason, are one; the others each their own."""
    groups: dict[tuple[object, ...], list[Finding]] = {}
    for k, finding in enumerate(rows):
        folds = finding.kind == "figure" and finding.verdict in (Verdict.not_measured, Verdict.unverifiable)
        groups.setdefault((finding.verdict, finding.evidence) if folds else (k,), []).append(finding)
    return list(groups.values())


def _where(same: Sequence[Finding]) -> str:
    first, last = same[0].line, same[-1].line
    if len(same) == 1:
        return same[0].where
    return f"line {first}" if first == last else f"lines {first} to {last}"


def _broken(text: str, width: int) -> str:
    """Names that are longer than a column, broken behind a dot, slash, bracket, dash or underscore rather than anywhere."""
    words = []
    for word in text.split(" "):
        lines = [""]
        for piece in re.split(r"(?<=[./(_-])", word) if len(word) > width else [word]:
            if lines[-1] and len(lines[-1]) + len(piece) > width:
                lines.append("")
            lines[-1] += piece
        words.append("\n".join(lines))
    return " ".join(words)


def _evidence(finding: Finding, alone: bool, width: int) -> Text:
    """The evidence, and set apart below it the card's own words."""
    quote = shown(finding.quote, 240) if alone and finding.kind != "text" else ""
    quote = _broken(quote, width)
    return Text.assemble(
        _broken(shown(finding.evidence, 900), width), *((("\ncard: ", "dim"), (f"“{quote}”", "dim italic")) if quote else ())
    )


def legend(check: CardCheck, everything: bool) -> str:
    """What the verdicts in the table mean, and which of them counts."""
    kinds = {finding.verdict for finding in _shown(check, everything)}
    told = "; ".join(f"{verdict.value}: {_MEANINGS[verdict]}" for verdict in Verdict if verdict in kinds)
    unchecked = "; figures of m2fbench's own marked sections that were not checked have no row" if check.unchecked else ""
    return f"{told}{unchecked}. Only “contradicted” makes the exit status 1."


def summary(check: CardCheck) -> str:
    """How many claims there are, what became of them, and what was not checked."""
    count = Counter(finding.verdict for finding in check.findings)
    told = ", ".join(f"{count[verdict]} {verdict.value}" for verdict in Verdict if count[verdict])
    total = len(check.findings)
    gaps = f"; {check.gaps} marked [More Information Needed]" if check.gaps else ""
    runs = f"; runs of it: {', '.join(map(shown, check.runs))}" if check.runs else ""
    rest = _unchecked(check)
    if not total:
        return f"{shown(check.path)}: no claims found that can be checked{gaps}{rest}"
    return f"{shown(check.path)}: {total} claim{'s'[: total != 1]}: {told}{gaps}{runs}{rest}"


def _unchecked(check: CardCheck) -> str:
    total = sum(check.unchecked.values())
    if not total:
        return ""
    kinds = ", ".join(f"{count} of {kind}" for kind, count in check.unchecked.items())
    return f"; {total} figure{'s'[: total != 1]} of its marked sections {'was' if total == 1 else 'were'} not checked ({kinds})"
