"""A verdict as JUnit XML: one suite of tests for each suite, one test for each cell's run and for each figure against each baseline.

Elements, their order and attributes are those that Jenkins' schema (junit-10.xsd of its xUnit plugin) and the Ant task's share; facts stand as
properties of the suite, whatever is said of a test in its own output.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from m2fbench.nightly.records import UNCOMPARED, FigureVerdict, Outcome, Verdict
from m2fbench.nightly.wording import explanation, headline, movement, shown_value

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_LOG_BYTES = 8_000
"""Of the end of a failed cell's log."""
_SKIPPED = ("no budget", "unsupported", "unavailable", "interrupted", "left out")


def junit_xml(verdict: Verdict, folder: Path) -> str:
    """folder: of the night, in which the logs lie."""
    suites: dict[str, Element] = {}
    root = Element("testsuites", name=_clean(verdict.nightly))
    for outcome in verdict.outcomes:
        name = outcome.cell.suite
        if name not in suites:
            suites[name] = _suite(root, verdict, name)
        suites[name].append(_run(outcome, folder))
        suites[name].extend(_figure(f, outcome) for f in verdict.figures if f.cell == outcome.cell.name)
    for element in (*suites.values(), root):
        _count(element)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _suite(root: Element, verdict: Verdict, name: str) -> Element:
    number = str(len(root))
    suite = SubElement(
        root, "testsuite", name=_clean(name), id=number, hostname=_clean(verdict.machine), timestamp=verdict.started[:19]
    )
    properties = SubElement(suite, "properties")
    facts = {"night": verdict.night, "title": verdict.title, "machine": verdict.machine, "started": verdict.started,
             "finished": verdict.finished, "headline": headline(verdict)}  # fmt: skip
    for key, value in facts.items():
        SubElement(properties, "property", name=key, value=_clean(value))
    return suite


def _run(outcome: Outcome, folder: Path) -> Element:
    """Whether the cell came to its end."""
    case = Element("testcase", name="run", classname=_class_of(outcome), time=f"{outcome.seconds:.3f}")
    reason = _clean(outcome.reason or outcome.state)
    if outcome.state in _SKIPPED:
        SubElement(case, "skipped", message=f"{outcome.state}: {reason}")
    elif outcome.state != "done":
        failed = SubElement(case, "error", message=reason, type=outcome.state)
        failed.text = reason if outcome.exit_status is None else f"{reason}\nexit status {outcome.exit_status}"
        if log := _tail(outcome, folder):
            SubElement(case, "system-out").text = log
    return case


def _figure(figure: FigureVerdict, outcome: Outcome) -> Element:
    case = Element(
        "testcase", name=_clean(f"{figure.figure} against {figure.baseline}"), classname=_class_of(outcome), time="0.000"
    )
    lines = "\n".join(map(_clean, explanation(figure)))
    if figure.state == "regression":
        SubElement(case, "failure", message=_clean(movement(figure)), type="regression").text = lines
    elif figure.state == "unmeasured" and outcome.state == "done":
        SubElement(case, "error", message=_clean(figure.note or "not measured"), type="unmeasured").text = lines
    elif figure.state == "unmeasured":
        SubElement(case, "skipped", message=_clean(figure.note or "not measured"))
    elif figure.state in UNCOMPARED:
        SubElement(case, "skipped", message=_clean(f"not compared: {figure.note or 'no earlier night to compare with'}"))
    else:
        value = shown_value(figure.value, figure.unit)
        SubElement(case, "system-out").text = _clean(f"{figure.state}: {value}\n{lines}")
    return case


def _count(element: Element) -> None:
    """Of a suite, or of all: what readers check against what they count themselves."""
    cases = list(element.iter("testcase"))
    counts = {"tests": len(cases)}
    for name, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        counts[name] = sum(case.find(kind) is not None for case in cases)
    if element.tag == "testsuites":
        del counts["skipped"]  # no attribute of it in either schema
    for name, count in counts.items():
        element.set(name, str(count))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def _class_of(outcome: Outcome) -> str:
    """SUITE.ROW.VARIANT, whose last dot readers take for the end of a package."""
    cell = outcome.cell
    return ".".join(_clean(part).replace(".", "_") for part in (cell.suite, cell.row, cell.variant))


def _tail(outcome: Outcome, folder: Path) -> str:
    """The end of the log; "" where there is none inside the night's folder."""
    if outcome.log is None:
        return ""
    path = (folder / outcome.log).resolve()
    if not path.is_relative_to(folder.resolve()):
        return ""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _LOG_BYTES))
            return _clean("\n".join(_shown_lines(file.read().decode(errors="replace"))))
    except OSError:
        return ""


def _shown_lines(text: str) -> Iterator[str]:
    """Without the colours of a terminal, and of a line that was written over its last state only."""
    for line in re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", text).split("\n"):
        yield line.rstrip("\r").rpartition("\r")[2]


def _clean(text: str) -> str:
    """Without characters that XML has no way to write."""
    return _NOT_XML.sub("\ufffd", text)
