"""The tables that are made from what the analyses found: subsets, errors, confusions, calibration, comparisons of two runs."""

import math
from collections.abc import Sequence

from m2fbench.analysis.findings import Calibration, Comparison, Confusion, Disaggregation, ErrorFindings, Estimate
from m2fbench.reporting.page.plots_errors import LABELLED, most_confused
from m2fbench.reporting.page.records import NOT_MEASURED, Cell, Column, Table, interval_cell, number_cell
from m2fbench.reporting.terminal.comparison import class_verdict, gains, losses, method, verdict

READABLE = 200
"""Lines of a table by class, beyond which the page has the main figures only."""


def subsets_table(found: Disaggregation, key: str, figures: Sequence[str]) -> Table | None:
    """Every subset with its count, its figures and their intervals; too small ones marked, with the reason."""
    names = [f for f in figures if any(f in s.figures for s in found.subsets)]
    names += [f for s in found.subsets for f in s.figures if f not in names and not any(n in s.figures for n in names)]
    names = list(dict.fromkeys(names))
    rows = []
    for s in found.subsets:
        cells = []
        for name in names:
            estimate = s.figures.get(name, Estimate(math.nan))
            cells += [number_cell(estimate.value), interval_cell(estimate.low, estimate.high)]
        rows.append((
            Cell(s.attribute), Cell(s.subset), number_cell(s.images, 0), number_cell(math.nan if s.objects is None else s.objects, 0), *cells,
            Cell("yes" if s.enough else "too few", note="" if s.enough else s.reason or "too little to say anything"), Cell(s.definition),
        ))  # fmt: skip
    if not rows:
        return None
    columns = [Column("divided by"), Column("subset"), Column("images", True), Column("objects", True, "true ones that count")]
    for name in names:
        columns += [Column(name, True), Column("95 % interval", True)]
    notes = tuple(f"{attribute}: not divided by it: {why}" for attribute, why in found.undefined.items())
    return Table(key, "Figures by subset, %", (*columns, Column("enough"), Column("definition")), tuple(rows), notes)


def errors_table(found: ErrorFindings, key: str) -> Table:
    """The kinds of errors with their definitions, how often and what each costs."""
    rows = tuple(
        (Cell(s.name), number_cell(s.cost), number_cell(math.nan if s.count is None else s.count, 0), Cell(s.definition))
        for s in found.shares
    )
    columns = (
        Column("error"),
        Column("cost", True, f"points of {found.figure} that mending it would give"),
        Column("count", True),
        Column("definition"),
    )
    return Table(key, f"What {found.figure} lost to which errors", columns, rows, (f"Convention: {found.convention}", *found.notes))


def errors_by_class(found: ErrorFindings, key: str) -> Table | None:
    """Class by kind of error; None where that is not given."""
    names = list(dict.fromkeys(name for values in found.by_class.values() for name in values))
    if not names:
        return None
    whole = all(float(v).is_integer() for values in found.by_class.values() for v in values.values() if not math.isnan(v))
    rows = tuple(
        (Cell(category), *(number_cell(values.get(name, math.nan), 0 if whole else 2) for name in names))
        for category, values in found.by_class.items()
    )
    columns = (Column("class"), *(Column(name, True) for name in names))
    unit = f", {found.by_class_unit}" if found.by_class_unit else ""
    return Table(key, f"Errors by class{unit}", columns, rows)


def errors_by_group(found: ErrorFindings, key: str) -> Table | None:
    """Part of the evidence by kind of error or figure; None where that is not given."""
    names = list(dict.fromkeys(name for values in found.by_group.values() for name in values))
    if not names:
        return None
    rows = tuple(
        (Cell(group), *(number_cell(values.get(name, math.nan)) for name in names)) for group, values in found.by_group.items()
    )
    unit = f", {found.by_group_unit}" if found.by_group_unit else ""
    return Table(key, f"By part{unit}", (Column("part"), *(Column(name, True) for name in names)), rows)


def confused_table(found: Confusion, key: str) -> Table:
    """The pairs of classes that are confused most."""
    rows = tuple(
        (Cell(truth), Cell(predicted), number_cell(count, 0), number_cell(100 * share, 1))
        for truth, predicted, count, share in most_confused(found)
    )
    columns = (Column("truth"), Column("predicted"), Column(found.unit, True), Column("share, %", True, "of that true class"))
    return Table(key, "Most confused", columns, rows, (found.definition,))


def confusion_table(found: Confusion, key: str) -> Table:
    """The whole matrix."""
    names = (*found.categories, "nothing")
    rows = tuple((Cell(name), *(number_cell(v, 0) for v in line)) for name, line in zip(names, found.matrix, strict=True))
    columns = (Column("truth"), *(Column(n, True) for n in names))
    title, readable = f"Confusion matrix, {found.unit}", len(found.categories) <= LABELLED
    return Table(key, title, columns, rows, (found.definition,), in_page=readable)


def calibration_table(found: Calibration, key: str) -> Table:
    """The bins of a reliability diagram."""
    rows = tuple(
        (
            Cell(f"{b.low:.2f} to {b.high:.2f}", b.low),
            number_cell(b.count, 0),
            number_cell(b.confidence, 3),
            number_cell(b.accuracy, 3),
        )
        for b in found.bins
    )
    columns = (Column("score"), Column("predictions", True), Column("mean score", True), Column("share right", True))
    notes = (f"Expected calibration error {found.error:.4f}, largest {found.largest:.4f}", found.definition)
    return Table(key, "Calibration", columns, rows, notes)


def differences_table(found: Comparison, key: str, by_class: bool, in_page: bool = True) -> Table | None:
    """B - A with paired intervals, of the figures over all classes or of those by class; None for none. in_page: of those by class the main
    figure of each head, where all would be too long to read; else all, for the files."""
    chosen = [d for d in found.differences if (d.category is not None) == by_class]
    if by_class and len(chosen) > READABLE and in_page:
        chosen = [d for d in chosen if d.figure.removesuffix("_pan").removesuffix("_th") in ("PQ", "AP", "IoU")] or chosen
    rows = []
    for d in chosen:
        said = class_verdict(d, found.level) if by_class else verdict(d)
        rows.append((
            *([Cell(str(d.category))] if by_class else []), Cell(d.figure), number_cell(d.a), number_cell(d.b),
            number_cell(d.difference.value, signed=True), _ends(d.difference), number_cell(d.p_value, 4),
            *([number_cell(d.adjusted_p, 4)] if by_class else []), Cell(said),
        ))  # fmt: skip
    if not rows:
        return None
    columns = (
        *([Column("class")] if by_class else []), Column("metric"), Column("A", True), Column("B", True), Column("B - A", True),
        Column(f"{100 * found.level:.0f} % interval", True, "paired, over images"), Column("p", True, "two-sided, of no difference"),
        *([Column("adjusted p", True, "for the number of classes")] if by_class else []), Column("B is"),
    )  # fmt: skip
    title = "Differences by class" if by_class else "Differences over all classes"
    return Table(key, title, columns, tuple(rows), (f"A: {found.a}", f"B: {found.b}", *method(found)), in_page)


def _ends(difference: Estimate) -> Cell:
    if not difference.has_interval:
        return Cell(NOT_MEASURED, math.nan)
    return Cell(f"{difference.low:+.2f} to {difference.high:+.2f}", difference.high - difference.low)


def changes_table(found: Comparison, key: str, most: int = 10) -> Table | None:
    """The images that lost and gained most."""
    chosen = [*losses(found, most), *reversed(gains(found, most))]
    if not chosen:
        return None
    rows = tuple(
        (Cell(str(c.image_id)), Cell(c.figure), number_cell(c.a), number_cell(c.b), number_cell(c.b - c.a, signed=True))
        for c in chosen
    )
    columns = (
        Column("image"),
        Column("figure", note="of this image alone"),
        Column("A", True),
        Column("B", True),
        Column("B - A", True),
    )
    return Table(key, f"Images that {found.b} lost and gained most on", columns, rows, (f"A: {found.a}", f"B: {found.b}"))
