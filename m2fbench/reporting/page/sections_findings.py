"""The sections of a report that show what the analyses found: subsets, errors, comparisons, images, decoder layers."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from m2fbench.analysis.findings import Comparison
from m2fbench.analysis.layers import LayerFinding, layers_of_runs, runs_by_depth
from m2fbench.analysis.object_subsets import CONVENTION
from m2fbench.analysis.runs import Run
from m2fbench.reporting.images.picture import Picture
from m2fbench.reporting.page import plots_accuracy, plots_errors
from m2fbench.reporting.page.looking import Compared, Looked
from m2fbench.reporting.page.plots_layers import layer_figure
from m2fbench.reporting.page.records import Column, Figure, Section, Table, number_cell
from m2fbench.reporting.page.sections_results import Material
from m2fbench.reporting.page.tables import MAIN, task_of
from m2fbench.reporting.page.tables_findings import (
    calibration_table,
    changes_table,
    confused_table,
    confusion_table,
    differences_table,
    errors_by_class,
    errors_by_group,
    errors_table,
    subsets_table,
)

PartOf = Callable[[Material, Run, Looked, str], Section | None]


def subsets(material: Material) -> Section:
    """Disaggregated figures of every run."""
    intro = (
        "The same figures over parts of the evidence, each with its count and interval; parts too small to say anything are marked. "
        f"{CONVENTION}"
    )
    return Section("subsets", "By subset", intro, parts=_each(material, "subsets", _subsets))


def errors(material: Material) -> Section:
    """Kinds of errors, confusions, precision over recall and calibration of every run."""
    return Section("errors", "Errors", parts=_each(material, "errors", _errors))


def images(material: Material) -> Section:
    """Best, worst and most confidently wrong images of every run."""
    return Section("images", "Images", parts=_each(material, "images", _images))


def layers(material: Material) -> Section:
    """What each decoder layer adds, of the runs that were examined."""
    intro = "Mask2Former predicts after every decoder layer; the last prediction is the run's own."
    return Section("layers", "Layer by layer", intro, parts=(*_each(material, "layers", _layers), *_depths(material)))


def _each(material: Material, key: str, part: PartOf) -> tuple[Section, ...]:
    """One part a run, all but the first folded."""
    found: list[Section] = []
    for number, run in enumerate(material.runs):
        one = part(material, run, material.looked[run.label], f"{key}-{number + 1}")
        if one is not None:
            found.append(replace(one, folded=bool(found)))
    return tuple(found)


def _subsets(material: Material, run: Run, looked: Looked, key: str) -> Section | None:
    found = looked.disaggregation
    if found is None:
        return None
    metrics = MAIN[task_of(run)]
    objects = [s for s in found.subsets if s.level == "object"]
    drawn = [
        plots_accuracy.subset_dots(subsets, m, material.value(run, m), f"{key}-{place}")
        for place, (m, subsets) in enumerate([*((m, found.subsets) for m in metrics), ("PQ_th", objects)])
    ]
    table = subsets_table(found, key, metrics)
    tables = () if table is None else (table,)
    return Section(key, run.label, figures=tuple(f for f in drawn if f is not None), tables=tables)


def _errors(material: Material, run: Run, looked: Looked, key: str) -> Section | None:
    """The task's own errors and confusions; of the other heads folded."""
    parts = [*_error_parts(looked, key), *_score_parts(looked, key), *_confusion_parts(looked, key)]
    own = task_of(run)
    shown = {f"{key}-{own}-kinds", f"{key}-confusion-{own}-part", *([f"{key}-scores"] if own == "instance" else [])}
    return Section(key, run.label, parts=tuple(replace(part, folded=part.key not in shown) for part in parts)) if parts else None


def _error_parts(looked: Looked, key: str) -> Iterator[Section]:
    for found in looked.errors:
        name = f"{key}-{found.head}"
        figures = [plots_errors.error_bars(found, name)]
        if found.head == "semantic":
            figures.append(plots_errors.distances(looked.boundary, f"{name}-boundary"))
        tables = [errors_table(found, name), errors_by_group(found, f"{name}-groups"), errors_by_class(found, f"{name}-classes")]
        yield Section(
            f"{name}-kinds",
            f"Where {found.figure} was lost",
            figures=tuple(f for f in figures if f),
            tables=tuple(t for t in tables if t),
        )


def _score_parts(looked: Looked, key: str) -> Iterator[Section]:
    figures: list[Figure | None] = [
        plots_errors.curves(looked.precision_recall, f"{key}-precision", "Precision and recall", "recall", "precision"),
    ]
    tables: tuple[Table, ...] = ()
    if looked.calibration is not None and looked.calibration.bins:
        figures.append(plots_errors.reliability(looked.calibration, f"{key}-calibration"))
        tables = (calibration_table(looked.calibration, f"{key}-calibration"),)
    drawn = tuple(f for f in figures if f is not None)
    if drawn:
        yield Section(f"{key}-scores", "Instance scores: precision, recall, calibration", figures=drawn, tables=tables)


def _confusion_parts(looked: Looked, key: str) -> Iterator[Section]:
    for found in looked.confusions:
        name = f"{key}-confusion-{found.head}"
        figure = plots_errors.confusion_map(found, name)
        tables = (confused_table(found, name), confusion_table(found, f"{name}-matrix"))
        title = f"Which {found.unit} were taken for which"
        yield Section(f"{name}-part", title, figures=() if figure is None else (figure,), tables=tables)


def _images(material: Material, run: Run, looked: Looked, key: str) -> Section | None:
    if looked.gallery is None:
        return None
    shown = looked.gallery
    parts = tuple(
        Section(f"{key}-{number}", part.title, part.description, pictures=part.pictures)
        for number, part in enumerate(shown.sections, 1)
    )
    return Section(key, run.label, notes=shown.notes, parts=parts) if parts or shown.notes else None


def _layers(material: Material, run: Run, looked: Looked, key: str) -> Section | None:
    found = looked.examination
    if found is None:
        return None
    figure = layer_figure(found.layers, found.images, MAIN[task_of(run)], key)
    notes = (f"Over {found.images} of the {found.run_images} images that were scored", *found.notes)
    table = layers_table(found.layers, MAIN[task_of(run)], key)
    figures = () if figure is None else (figure,)
    legend = ", ".join(dict.fromkeys(strip.caption for strip in looked.layer_pictures))  # one for all of them
    strips = tuple(replace(strip, caption="") for strip in looked.layer_pictures)
    parts = (Section(f"{key}-masks", "Masks and attention", legend, pictures=strips),) if strips else ()
    return Section(key, run.label, figures=figures, tables=(table,), notes=notes, parts=parts)


def _depths(material: Material) -> Iterator[Section]:
    """Runs of one checkpoint that differ in their depth only, beside each other."""
    for number, group in enumerate(runs_by_depth(material.runs), 1):
        key, metrics = f"depths-{number}", MAIN[task_of(group[0])]
        found = layers_of_runs(group)
        images = int((group[0].any_result.dataset or {}).get("scored_images", 0))
        figure = layer_figure(found, images, metrics, key)
        title = f"Stopping early: {', '.join(run.label for run in group)}"
        yield Section(key, title, figures=() if figure is None else (figure,), tables=(layers_table(found, metrics, key),))


def layers_table(found: Sequence[LayerFinding], metrics: Sequence[str], key: str) -> Table:
    """Each layer's figures, what stopping there saves, and how much its masks still change."""
    shown = [m for m in metrics if any(not math.isnan(layer.figures.get(m, math.nan)) for layer in found)]
    rows = tuple(
        (
            number_cell(layer.layer, 0), *(number_cell(layer.figures.get(m, math.nan)) for m in shown), number_cell(layer.flops / 1e9),
            number_cell(100 * layer.saved, 1), number_cell(100 * layer.mask_iou, 1), number_cell(100 * layer.class_changed, 1),
            number_cell(100 * layer.everywhere, 1), number_cell(100 * layer.visible, 1),
        )
        for layer in found
    )  # fmt: skip
    columns = (
        Column("layers", True, "masked-attention layers until the prediction; 0: before any"), *(Column(m, True) for m in shown),
        Column("FLOPs, G", True, "10⁹ an image"), Column("saved, %", True, "of the FLOPs of all layers"),
        Column("mask IoU, %", True, "with the masks of the layer before, over queries that end as objects"),
        Column("class changed, %", True, "queries whose best class is another than after the layer before"),
        Column("sees all, %", True, "queries whose mask was empty, so that their attention sees everything"),
        Column("visible, %", True, "mean share of the feature map that the masked attention lets a query see"),
    )  # fmt: skip
    return Table(key, "Layer by layer", columns, rows)


def comparisons(found: Iterable[tuple[str, Compared]]) -> Section:
    """Each further run against the first of its suite. found: a name that is safe in keys, the suite's, with each."""
    parts: list[Section] = []
    notes = []
    for number, (name, one) in enumerate(found, 1):
        if one.comparison is None:
            notes.append(f"{one.run.label}: not compared image by image: {one.problem}")
        else:
            parts.append(comparison(one.comparison, f"comparison-{name}-{number}", one.pictures, folded=bool(parts)))
    intro = "Each further run against the first one of its suite, over the images that both have."
    return Section("comparison", "Comparison of the runs", intro, notes=tuple(notes), parts=tuple(parts))


def comparison(
    found: Comparison, key: str, pictures: Sequence[tuple[str, str, tuple[Picture, ...]]] = (), folded: bool = False
) -> Section:
    """Two runs: differences with paired intervals, the images that changed most, side by side where they are at hand."""
    over_all = differences_table(found, key, by_class=False)
    by_class, by_image = differences_table(found, f"{key}-classes", by_class=True), changes_table(found, f"{key}-changes")
    whole = differences_table(found, f"{key}-classes-all", by_class=True, in_page=False)
    longer = by_class is not None and whole is not None and len(whole.rows) > len(by_class.rows)
    of_classes = tuple(table for table in (by_class, whole if longer else None) if table is not None)
    figure = plots_accuracy.difference_dots(found, f"{key}-differences")
    parts = [
        Section(
            f"{key}-by-class",
            "By class",
            "Every other figure by class is in the tables beside this page." if longer else "",
            tables=of_classes,
            folded=True,
        ),
        Section(f"{key}-by-image", "Images that changed most", tables=() if by_image is None else (by_image,)),
        *(Section(f"{key}-pictures-{n}", title, text, pictures=shown) for n, (title, text, shown) in enumerate(pictures, 1)),
    ]
    return Section(
        key, f"{found.b} against {found.a}", figures=() if figure is None else (figure,), tables=() if over_all is None else (over_all,),
        notes=tuple(found.notes), parts=tuple(part for part in parts if not part.empty), folded=folded,
    )  # fmt: skip
