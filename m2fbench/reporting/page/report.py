"""``m2fbench report``: from run directories to one page, and to tables and figures as files beside it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from m2fbench.analysis.runs import Run, open_runs
from m2fbench.environment import version_of
from m2fbench.errors import StoreError
from m2fbench.reporting.card.text import prose
from m2fbench.reporting.page import sections_costs, sections_findings, sections_results, sections_summary
from m2fbench.reporting.page.frame import frame_of
from m2fbench.reporting.page.html import render
from m2fbench.reporting.page.looking import Compared, Effort, compare_all, look
from m2fbench.reporting.page.records import Page, Section, all_parts
from m2fbench.reporting.page.sections_results import Material
from m2fbench.reporting.page.table_text import csv_of, latex_of, markdown_of
from m2fbench.writing import check_folder, make_folder, write_atomically

LIST = "report-files.json"
"""Of the files that a report has written, so that the next one knows which are its own."""


@dataclass(frozen=True)
class ReportRequest:
    """data: the datasets' folder, in place of those the runs used. title: of the page."""

    data: Path | None = None
    title: str | None = None
    effort: Effort = field(default_factory=Effort)


def write_report(paths: Sequence[str | Path], output: Path, request: ReportRequest) -> list[Path]:
    """Write the report of the runs in these folders; the files written, the page first. Raises StoreError where ``output``
    holds files of others under the same names, of a page before anything is worked on, and before anything is written."""
    request.effort.tell("opening the runs")
    own = _own_files(output)
    check_folder(output)
    runs = open_runs(paths, data=request.data)
    effort = request.effort.over(len(runs))
    material = gather(runs, effort)
    compared = [(name, one) for name, of in material.suites.items() for one in compare_all(of, effort)]
    effort.tell("drawing figures and writing the page")
    page = page_of(material, compared, request)
    return write_page(page, output, own, {"tables/all-figures.csv": material.frame.to_csv(index=False, lineterminator="\n")})


def gather(runs: Sequence[Run], effort: Effort) -> Material:
    """Look at every run and put all figures into one frame."""
    looked, shown = {}, set()
    for run in runs:
        checkpoint = (str(run.any_result.suite["name"]), run.any_result.row)
        looked[run.label] = look(run, effort, gallery_of_it=effort.images is not None or checkpoint not in shown)
        shown.add(checkpoint)
    return Material(
        tuple(runs), frame_of(runs, {label: found.intervals for label, found in looked.items() if found.intervals}), looked
    )


def page_of(material: Material, compared: Sequence[tuple[str, Compared]], request: ReportRequest) -> Page:
    """The page with all sections that have something to show."""
    sections = [
        sections_results.results(material),
        sections_results.trade_offs(material),
        sections_findings.comparisons(compared),
        sections_results.classes(material),
        sections_results.sizes(material),
        sections_findings.subsets(material),
        sections_findings.errors(material),
        sections_findings.images(material),
        sections_findings.layers(material),
        sections_costs.speed(material),
        sections_costs.flops(material),
        sections_costs.not_measured(material),
        sections_costs.method(material),
    ]
    titles = dict.fromkeys(str(run.any_result.suite["title"]) for run in material.runs)
    title = request.title or (next(iter(titles)) if len(titles) == 1 else "Mask2Former checkpoints, measured")
    return Page(
        title, summary_of(material), sections_summary.headlines(material), tuple(s for s in sections if not s.empty),
        footer_of(material), sections_results.overviews(material), sections_summary.in_short(material, [one for _, one in compared]),
    )  # fmt: skip


def summary_of(material: Material) -> str:
    """What the page is about, in a line."""
    runs = material.runs
    checkpoints = dict.fromkeys(str((run.any_result.checkpoint or {}).get("reference", run.any_result.row)) for run in runs)
    datasets = dict.fromkeys(_dataset(run) for run in runs)
    protocols = dict.fromkeys(str((run.any_result.protocol or {}).get("name", "unknown")) for run in runs)
    counted, on = f"{len(runs)} run{'s'[: len(runs) != 1]}", _some([d for d in datasets if d])
    return f"{counted} of {_some(list(checkpoints))} on {on}; protocol {_some(list(protocols))}. Accuracies are in percent."


def _dataset(run: Run) -> str:
    dataset = run.any_result.dataset or {}
    return f"{dataset['name']} ({dataset.get('scored_images', '?')} images)" if "name" in dataset else ""


def _some(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def footer_of(material: Material) -> str:
    """What made the page, and what lies beside it."""
    versions = dict.fromkeys(str((run.any_result.environment or {}).get("m2fbench", "unknown")) for run in material.runs)
    return (
        f"Made by m2fbench {version_of('m2fbench')} (runs by {_some(list(versions))}). Beside this page: tables/ with every table as CSV, Markdown "
        "and LaTeX, figures/ with every figure as PNG and SVG."
    )


def files_of(sections: Sequence[Section], page: Page) -> dict[str, str | bytes]:
    """Path below the report's folder -> content: every table three times, every figure twice."""
    files: dict[str, str | bytes] = {}
    for section in all_parts(sections):
        for table in section.tables:
            forms = ((".csv", csv_of), (".md", markdown_of), (".tex", latex_of))
            files |= {f"tables/{table.key}{suffix}": write(table) for suffix, write in forms if table.in_page or suffix == ".csv"}
    for figure in (*page.lead, *(f for section in all_parts(sections) for f in section.figures)):
        files |= {f"figures/{figure.key}.svg": figure.svg, f"figures/{figure.key}.png": figure.png}
    return files


def indexes_of(files: Mapping[str, str | bytes], page: Page) -> dict[str, str]:
    """tables/README.md and figures/README.md: what each of these files shows, by the page's titles above it, which name runs, and its own."""
    found, titles = {}, {"all-figures": "Every figure of every run, a line a figure"}
    titles |= {figure.key: figure.title for figure in page.lead} | dict(_titles(page.sections))
    for folder in ("tables", "figures"):
        kinds: dict[str, list[str]] = {}
        for name in files:
            path = PurePosixPath(name)
            if str(path.parent) == folder:
                kinds.setdefault(path.stem, []).append(path.suffix)
        lines = [f"- {prose(titles.get(key, key))}: {', '.join(f'`{key}{kind}`' for kind in of)}" for key, of in kinds.items()]
        if lines:
            found[f"{folder}/README.md"] = "\n".join([prose(page.title), "", prose(page.summary), "", *lines]) + "\n"
    return found


def _titles(sections: Iterable[Section], above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """(key, title below the titles of its sections) of every table and figure."""
    for section in sections:
        titles = (*above, section.title)
        named = [*((t.key, t.title) for t in section.tables), *((f.key, f.title) for f in section.figures)]
        yield from ((key, " › ".join((*titles, title))) for key, title in named)
        yield from _titles(section.parts, titles)


def write_page(page: Page, output: Path, own: set[str], further: dict[str, str | bytes]) -> list[Path]:
    """The page and its files, each whole or not at all; those that an earlier report left and this one has not are removed. own: names of the
    files that may be written over."""
    files: dict[str, str | bytes] = {"report.html": render(page)} | files_of(page.sections, page) | further
    files |= indexes_of(files, page)
    taken = [name for name in files if name not in own and (output / name).exists()]
    if taken:
        raise StoreError(f"{output / taken[0]}: there is such a file, and no report has written it; choose another folder with -o")
    for folder in {(output / name).parent for name in files}:
        make_folder(folder)
    write_atomically(output / LIST, json.dumps({"files": sorted(own | files.keys())}, indent=1) + "\n")
    for name, content in files.items():
        write_atomically(output / name, content)
    for name in own - files.keys():
        (output / name).unlink(missing_ok=True)
    write_atomically(output / LIST, json.dumps({"files": sorted(files)}, indent=1) + "\n")
    return [output / name for name in files]


def _own_files(output: Path) -> set[str]:
    """The files that an earlier report has written into this folder. Raises StoreError where others' stand in the way."""
    if output.exists() and not output.is_dir():
        raise StoreError(f"-o {output}: expected a folder to write into, got a file; name a folder")
    kept = output / LIST
    try:
        names = json.loads(kept.read_bytes())["files"] if kept.is_file() else []
        own = {str(name) for name in names}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{kept}: not the list of a report's files ({error!r}); remove it, or choose another folder with -o"
        ) from error
    safe = {name for name in own if name == "report.html" or _below(name)}
    if (output / "report.html").exists() and "report.html" not in safe:
        raise StoreError(
            f"{output / 'report.html'}: there is such a file, and no report has written it; choose another folder with -o"
        )
    return safe


def _below(name: str) -> bool:
    """Whether this is a name that a report gives, whatever the list says."""
    parts = name.split("/")
    return len(parts) == 2 and parts[0] in ("tables", "figures") and parts[1] not in ("", ".", "..")
