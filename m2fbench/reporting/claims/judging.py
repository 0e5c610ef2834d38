"""One claim against the published figures, and against what was measured of the card's model."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from m2fbench.errors import shown
from m2fbench.reporting.claims.attribution import SUBJECT
from m2fbench.reporting.claims.evidence import MeasuredFigure, same_dataset
from m2fbench.reporting.claims.extraction import Claim
from m2fbench.reporting.claims.published_figures import PublishedFigure, checkpoint_named, published_figures, same_backbone
from m2fbench.reporting.claims.subject import Subject, is_own_backbone
from m2fbench.reporting.claims.verdicts import Finding, Verdict
from m2fbench.reporting.claims.words import COSTS

_ABOUT = 0.02  # what "about" leaves open, as a share
_NEAR = 0.3  # points: the widest tolerance of the suites that repeat the paper
_MOST = 3  # figures that one piece of evidence lists


@dataclass(frozen=True)
class _Judged:
    verdict: Verdict
    evidence: str
    checkpoint: str | None = None
    dataset: str | None = None
    protocol: str | None = None


@dataclass(frozen=True)
class Runs:
    """Figures of the runs of the card's model: measured, and printed beside them by their suites. given: whether there are runs, of whichever
    model."""

    measured: Sequence[MeasuredFigure] = ()
    printed: Sequence[MeasuredFigure] = ()
    given: bool = False


def judge(claim: Claim, subject: Subject, runs: Runs) -> Finding:
    """The claim with its verdict."""
    by_name = claim.model.kind == "backbone"
    claim = _owned(claim, subject)
    found = _judged(claim, subject, runs)
    if by_name and found.verdict is Verdict.not_this:  # "Swin-T has 47.7 mIoU on ADE20K" says nothing of the card's own checkpoint
        found = replace(
            found, verdict=Verdict.credited, evidence=found.evidence.partition(", another checkpoint")[0].removeprefix("is ")
        )
    figure = f"{stated(claim)} on {claim.dataset}" if claim.dataset else stated(claim)
    return Finding(
        "figure", figure, claim.line, claim.column, claim.where, shown(claim.quote, 400), found.verdict, found.evidence, found.checkpoint,
        found.dataset or claim.dataset, found.protocol or claim.protocol,
    )  # fmt: skip


def _owned(claim: Claim, subject: Subject) -> Claim:
    """A claim on the subject under another name (its id, its backbone) as one on the subject."""
    model = claim.model
    same = (model.kind == "backbone" and is_own_backbone(subject, model.value)) or (
        model.kind == "checkpoint" and (model.value == subject.name or checkpoint_named(model.value) == _identity(subject))
    )
    return replace(claim, model=SUBJECT) if same else claim


def _identity(subject: Subject) -> tuple[str | None, str | None, str | None]:
    return subject.backbone, subject.dataset, subject.task


def _judged(claim: Claim, subject: Subject, runs: Runs) -> _Judged:
    if claim.model.kind == "other":
        return _Judged(
            Verdict.unverifiable, f"of {shown(claim.model.value)}, which is no Mask2Former; not among the published figures here"
        )
    if claim.model.kind in ("backbone", "checkpoint"):
        return _of_another(claim, subject)
    if claim.printed_by_others:
        return _by_print(claim, subject, runs)
    by_run = _by_measurement(claim, runs.measured)
    if claim.model.kind == "architecture":
        holds_here = by_run is not None and by_run[0].verdict is Verdict.confirmed
        if not holds_here and _speaking(claim):
            return _of_architecture(claim, subject)
        claim = replace(claim, model=SUBJECT)  # of a data set that the paper has nothing of, it can only be this one's
    by_paper = _by_paper(claim, subject)
    if by_run is None:
        if by_paper.verdict is Verdict.not_measured and runs.given:
            return replace(by_paper, evidence=f"{by_paper.evidence}; the runs given have no such figure of it")
        return by_paper
    return _both(by_run, by_paper)


def _by_print(claim: Claim, subject: Subject, runs: Runs) -> _Judged:
    """A figure that the card repeats as published."""
    by_suite = _by_measurement(claim, runs.printed)
    if by_suite is None or (by_suite[0].verdict is not Verdict.confirmed and subject.published):
        return _by_paper(claim, subject)
    return replace(by_suite[0], evidence=by_suite[0].evidence.replace("measured:", "printed:", 1))


def _both(by_run: tuple[_Judged, bool], by_paper: _Judged) -> _Judged:
    """The measurement decides where it is of all images by the suite's own protocol; else what confirms the claim does."""
    run, comparable = by_run
    if run.verdict is by_paper.verdict is Verdict.confirmed or by_paper.verdict in (Verdict.unverifiable, Verdict.not_measured):
        return run if by_paper.verdict is not Verdict.confirmed else replace(run, evidence=f"{run.evidence}; {by_paper.evidence}")
    decides = run if comparable or run.verdict is Verdict.confirmed else by_paper
    other = by_paper if decides is run else run
    return replace(decides, evidence=f"{decides.evidence}; {other.evidence}")


def _by_measurement(claim: Claim, measured: Sequence[MeasuredFigure]) -> tuple[_Judged, bool] | None:
    """What the runs say, and whether that is comparable with published figures; None where they say nothing of it."""
    names = (claim.metric, f"{claim.metric}_th_pan", f"{claim.metric}_pan")
    figures = [f for f in measured if f.metric in names and (claim.dataset is None or same_dataset(claim.dataset, f.dataset))]
    figures = [f for f in figures if f.metric == claim.metric] or figures
    if not figures or claim.split in ("test", "test-dev"):
        return None
    if claim.qualifier:
        said = set(claim.qualifier.casefold().split(" ; "))
        by_class = [f for f in figures if f.category is not None and f.category.casefold() in said]
        by_variant = [f for f in figures if f.category is None and {f.variant.casefold(), f.run.casefold()} & said]
        figures = by_class or by_variant
        if not figures:
            return _Judged(Verdict.unverifiable, f"of '{_qualified(claim)}', which is no class or variant of the runs"), False
    else:
        figures = [f for f in figures if f.category is None]
    holding = [f for f in figures if holds(claim, f.value, 0.0)]
    for figure in holding[:1]:
        return _Judged(
            Verdict.confirmed,
            f"measured: {_value(figure.value, figure.metric)} ({figure.setting})",
            figure.checkpoint,
            figure.dataset,
            figure.protocol,
        ), figure.comparable
    if not figures:
        return None
    if claim.part:
        return _Judged(
            Verdict.unverifiable, "its sentence speaks of a part of the data, of which the runs have no such figure"
        ), False
    nearest = sorted(figures, key=lambda f: (not f.comparable, abs(f.value - claim.value)))
    told = " / ".join(f"{_value(f.value, f.metric)} ({f.setting})" for f in nearest[:_MOST])
    return _Judged(
        Verdict.contradicted, f"measured: {told}", nearest[0].checkpoint, nearest[0].dataset, nearest[0].protocol
    ), nearest[0].comparable


def _of_another(claim: Claim, subject: Subject) -> _Judged:
    """A figure that the card gives to another Mask2Former than its own."""
    named = checkpoint_named(claim.model.value) if claim.model.kind == "checkpoint" else None
    if claim.model.kind == "checkpoint" and named is None:
        return _Judged(Verdict.unverifiable, f"of {shown(claim.model.value)}, which is no published checkpoint")

    def is_theirs(figure: PublishedFigure) -> bool:
        if named is not None:
            return (figure.backbone, figure.dataset, figure.task) == named
        return same_backbone(claim.model.value, figure.backbone)

    theirs = [f for f in _speaking(claim) if is_theirs(f)]
    theirs.sort(key=lambda f: (f.dataset, f.task) != (subject.dataset, subject.task))  # what a reader compares it with first
    for figure in theirs:
        if _agrees(claim, figure):
            return _judged_by(Verdict.credited, figure, _of(figure))
    if not theirs:
        return _Judged(Verdict.unverifiable, f"the paper prints no {_name(claim)} of {claim.model.value}{_on(claim)}")
    evidence = f"of {claim.model.value} the paper prints {_listed(theirs)}{_whose(claim, is_theirs)}"
    return _judged_by(Verdict.contradicted, theirs[0], evidence)


def _of_architecture(claim: Claim, subject: Subject) -> _Judged:
    """A figure of "Mask2Former", which may be any row's; among the results of one checkpoint it misleads."""
    own = _by_paper(replace(claim, model=SUBJECT), subject) if subject.published else None
    if own is not None and own.verdict is Verdict.confirmed:
        return own
    speaking = _speaking(claim)
    agreeing = [f for f in speaking if _agrees(claim, f)]
    if not agreeing:
        if not speaking:
            return _Judged(Verdict.unverifiable, f"the paper prints no {_name(claim)}{_on(claim)}")
        if claim.dataset is None or claim.metric in COSTS:
            where = "of which model and size" if claim.metric in COSTS else "on which data set"
            return _Judged(Verdict.unverifiable, f"{where} is not said; no published Mask2Former has this {_name(claim)}")
        best = max(speaking, key=lambda f: f.value)
        return _judged_by(
            Verdict.contradicted, best, f"no published Mask2Former has it{_on(claim)}; the highest is {best.printed}, {_of(best)}"
        )
    figure = max(agreeing, key=lambda f: ("FaPN" not in f.backbone, f.value))
    if claim.results and (subject.published or subject.name):
        mine = f"; {_own_figures(claim, subject)}" if subject.published else ""
        return _judged_by(Verdict.not_this, figure, f"stands among this card's results, but is {_of(figure)}{mine}")
    return _judged_by(Verdict.credited, figure, f"of the architecture: {_of(figure)}")


def _by_paper(claim: Claim, subject: Subject) -> _Judged:
    """A figure of the card's model against the tables."""
    speaking = _speaking(claim)
    if claim.qualifier:
        return _Judged(Verdict.unverifiable, f"of '{_qualified(claim)}', of which the paper prints nothing")
    if not subject.published:
        return _of_own_model(claim, subject, speaking)
    mine = [f for f in speaking if f.backbone == subject.backbone or _is_loosely(subject, f)]
    own = [f for f in mine if subject.dataset in (None, f.dataset) and subject.task in (None, f.task)]
    for figure in own:
        if _agrees(claim, figure):
            return _judged_by(Verdict.confirmed, figure, _of(figure))
    for figure in mine:
        if _agrees(claim, figure):
            if claim.metric == "params_M":
                return _judged_by(Verdict.confirmed, figure, f"as printed of the same architecture: {_of(figure)}")
            return _judged_by(Verdict.not_this, figure, f"is {_of(figure)}, another checkpoint; {_own_figures(claim, subject)}")
    if claim.part:
        return _Judged(Verdict.unverifiable, "its sentence speaks of a part of the data, of which the paper prints nothing")
    against = own or [f for f in mine if claim.metric != "flops_G" and claim.metric not in ("fps", "latency")]
    if not against:
        if claim.metric in COSTS:
            others = [f for f in _speaking(replace(claim, dataset=None)) if f.backbone == subject.backbone]
            elsewhere = f"; of this backbone it prints {_listed(others)}" if others else ""
            return _Judged(Verdict.unverifiable, f"the paper prints no {_name(claim)} of {_subject(subject)}{elsewhere}")
        return _Judged(
            Verdict.unverifiable,
            f"the paper prints no {_name(claim)} of {_subject(subject)}{_on(claim)}{_whose(claim, lambda f: False)}",
        )
    if not own and claim.dataset is None and subject.dataset is None:
        return _Judged(Verdict.unverifiable, f"on which data set is not said; {_subject(subject)} has {_listed(against)}")
    if own_measurement := _measurement(claim, subject, against):
        return own_measurement
    evidence = f"{_own_figures(claim, subject)}{_whose(claim, lambda f: f in mine)}"
    return _judged_by(Verdict.contradicted, against[0], evidence)


def _measurement(claim: Claim, subject: Subject, against: Sequence[PublishedFigure]) -> _Judged | None:
    """A figure that is given more exactly than the paper prints it is someone's own measurement: where the card says that m2fbench has measured it,
    or where it is close to the printed one, that contradicts nothing."""
    figure = against[0]
    if claim.metric in COSTS or claim.relation != "is" or claim.digits <= figure.digits:
        return None
    near = any(abs(claim.value - f.value) <= _NEAR for f in against)
    if not (claim.measured or near):
        return None
    said = (
        "said to be measured by m2fbench"
        if claim.measured
        else "close to the printed figure, not the same: a measurement of someone's own"
    )
    return _judged_by(Verdict.not_measured, figure, f"{said}; only its runs can tell (--runs); {_own_figures(claim, subject)}")


def _of_own_model(claim: Claim, subject: Subject, speaking: Sequence[PublishedFigure]) -> _Judged:
    """Of a model that someone trained, the paper says nothing; that the number is a published one is worth saying."""
    agreeing = [f for f in speaking if _agrees(claim, f)] if claim.dataset else []
    same = f"; the paper prints this of {_listed(agreeing, whose=True)}" if agreeing else ""
    named = subject.said == "model-index" or "/" in subject.name
    who = shown(subject.name) if named else "the card's model"
    return _Judged(Verdict.not_measured, f"{who} is no published checkpoint, only its own runs can tell (--runs){same}")


def _is_loosely(subject: Subject, figure: PublishedFigure) -> bool:
    return subject.backbone is not None and subject.dataset is None and is_own_backbone(subject, figure.backbone)


def _own_figures(claim: Claim, subject: Subject) -> str:
    """What the paper does print of the subject, for the reader to put in its place."""
    found = [f for f in _speaking(replace(claim, protocol=None)) if f.backbone == subject.backbone or _is_loosely(subject, f)]
    own = [f for f in found if subject.dataset in (None, f.dataset) and subject.task in (None, f.task)]
    if own:
        return f"{_subject(subject)} has {_listed(own)}"
    if found:
        sisters = sorted(found, key=lambda f: f.dataset != subject.dataset)
        first = sisters[0]
        like = [f for f in sisters if (f.dataset, f.split, f.task) == (first.dataset, first.split, first.task)]
        return f"{_subject(subject)} has no such figure; its {first.dataset} {first.task} sister has {_listed(like)}"
    return f"the paper prints no {_name(claim)} of {_subject(subject)}{_on(claim)}"


def _speaking(claim: Claim) -> list[PublishedFigure]:
    """The published figures of the claim's metric, data set, split and protocol; a panoptic model's AP is its AP_th_pan."""
    metric = "fps" if claim.metric == "latency" else claim.metric
    aliases = {"AP": ("AP_th_pan",), "mIoU": ("mIoU_pan",)}.get(metric, ())
    found = [f for f in published_figures() if f.metric == metric or f.metric in aliases]
    if claim.dataset is not None:
        found = [f for f in found if f.dataset == claim.dataset]
    if claim.split is not None:
        found = [f for f in found if f.split == claim.split]
    if claim.protocol is not None and metric not in COSTS:
        found = [f for f in found if f.protocol == claim.protocol]
    return sorted(found, key=lambda f: (f.metric != metric, f.split != "val"))


def holds(claim: Claim, value: float, half_digit: float) -> bool:
    """Whether a figure, known to within half_digit, is what the claim prints."""
    half = max(0.5 * 10.0**-claim.digits, half_digit) * (1 + 1e-9) + 1e-9
    if claim.relation == "at least":
        return value + half_digit >= claim.value
    if claim.relation == "at most":
        return value - half_digit <= claim.value
    if claim.relation == "about":
        half = max(half, _ABOUT * value)
    return abs(value - claim.value) <= half


def _agrees(claim: Claim, figure: PublishedFigure) -> bool:
    half = 0.5 * 10.0**-figure.digits
    if claim.metric != "latency":
        return holds(claim, figure.value, half)
    ends = [1 / (figure.value + half), 1 / (figure.value - half)]  # seconds of a printed fps
    return any(holds(claim, seconds, 0.0) for seconds in ends) or ends[0] <= claim.value <= ends[1]


def _whose(claim: Claim, left_out: Callable[[PublishedFigure], bool]) -> str:
    """Whose the claimed figure is, where it is a printed one."""
    if claim.relation != "is" or claim.metric in COSTS:
        return ""
    anywhere = [f for f in _speaking(replace(claim, protocol=None)) if not left_out(f) and _agrees(claim, f)]
    exact = [f for f in anywhere if f.metric == claim.metric] or anywhere
    return f"; {_number(claim)} is {_listed(exact, whose=True)}" if exact else ""


def _listed(figures: Iterable[PublishedFigure], whose: bool = False) -> str:
    """ "47.7 single-scale / 49.6 multi-scale + flip (Swin-T, ADE20K semantic; arXiv 2112.01527, table V)"."""
    groups: dict[tuple[str, str, str], list[PublishedFigure]] = {}
    for figure in figures:
        groups.setdefault((figure.checkpoint, figure.metric, figure.source), []).append(figure)
    told = []
    for (checkpoint, metric, source), members in list(groups.items())[:_MOST]:
        if whose:
            told.append(f"{_possessive(checkpoint)} {metric}, {members[0].protocol} ({source})")
        else:
            values = " / ".join(f.printed if metric in COSTS else f"{f.printed} {f.protocol}" for f in members)
            told.append(
                f"{values} {COSTS[metric]} ({checkpoint}; {source})"
                if metric in COSTS
                else f"{metric} {values} ({checkpoint}; {source})"
            )
    left = len(groups) - _MOST
    return ", ".join(told) + (f" and {left} other{'s'[: left != 1]}" if left > 0 else "")


def _possessive(checkpoint: str) -> str:
    model, _, rest = checkpoint.partition(", ")
    return f"{model}'s on {rest}:"


def _of(figure: PublishedFigure) -> str:
    if figure.metric in COSTS:
        return f"{figure.checkpoint}: {figure.printed} {COSTS[figure.metric]} ({figure.source})"
    return f"{figure.checkpoint}: {figure.metric} {figure.printed}, {figure.protocol} ({figure.source})"


def _judged_by(verdict: Verdict, figure: PublishedFigure, evidence: str) -> _Judged:
    return _Judged(verdict, evidence, figure.checkpoint, figure.dataset, figure.protocol)


def _subject(subject: Subject) -> str:
    known = " ".join(p for p in (subject.dataset, subject.task) if p)
    return f"{subject.backbone}{f' ({known})' if known else ''}"


def _on(claim: Claim) -> str:
    return f" on {shown(claim.dataset, 60)}{' ' + claim.split if claim.split else ''}" if claim.dataset else ""


def _name(claim: Claim) -> str:
    names = {"params_M": "number of parameters", "flops_G": "FLOPs", "fps": "speed", "latency": "speed"}
    return names.get(claim.metric, claim.metric)


def _qualified(claim: Claim) -> str:
    return shown(claim.qualifier.replace(" ; ", ", "), 60)


def _number(claim: Claim) -> str:
    return f"{claim.value:.{max(claim.digits, 0)}f}"


def _value(value: float, metric: str) -> str:
    return f"{value:.4g} {COSTS[metric]}" if metric in COSTS else f"{metric} {value:.2f}"


def stated(claim: Claim) -> str:
    """The claim in short: "PQ 57.8", "at least 47 M parameters"."""
    relation = "" if claim.relation == "is" else f"{claim.relation} "
    if claim.metric in COSTS:
        return f"{relation}{_number(claim)} {COSTS[claim.metric]}"
    return f"{claim.metric} {relation}{_number(claim)}"
