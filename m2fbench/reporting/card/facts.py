"""What a model card is written from: the runs of one checkpoint, sorted by suite, and what the checkpoint says of itself."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.analysis.findings import Calibration, Comparison, Disaggregation, ErrorFindings, Intervals
from m2fbench.analysis.layers import Examination
from m2fbench.analysis.runs import Run
from m2fbench.errors import M2FBenchError, StoreError
from m2fbench.labels import label_set
from m2fbench.reporting.card.text import plain
from m2fbench.results import RunResult
from m2fbench.scoring import open_dataset
from m2fbench.suite import Suite, load_suite, suite_names
from m2fbench.types import Category, Head, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint

MAIN: Mapping[str, tuple[str, ...]] = {
    "instance": ("AP",),
    "panoptic": ("PQ", "AP_th_pan", "mIoU_pan"),
    "semantic": ("mIoU",),
}
"""The figures that a task is known by, the first of all first."""
FULL_PRECISION = {"dtype": "float32", "autocast": None, "tf32": False}


@dataclass(frozen=True)
class CardOptions:
    """model_id: of the hub, for code and commands. license: its identifier. eval_results: suite name ("" for any) -> hub id of its dataset."""

    model_id: str | None = None
    title: str | None = None
    license: str | None = None
    resamples: int = 1000
    quick: bool = False


@dataclass(frozen=True)
class Analyses:
    """What was found about one run, as far as it was looked for; missing: what was not, and why."""

    intervals: Intervals | None = None
    disaggregation: Disaggregation | None = None
    errors: tuple[ErrorFindings, ...] = ()
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)
    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    layers: Examination | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SuiteRuns:
    """The runs of one suite. reference: the one whose figures stand for the checkpoint: by the paper's protocol in float32 where there is such
    a one; None where only speed was measured. others: the further ones, in the order given."""

    name: str
    suite: Suite | None
    reference: Run | None
    others: tuple[Run, ...]
    analyses: Analyses = Analyses()

    @property
    def runs(self) -> tuple[Run, ...]:
        return (*([self.reference] if self.reference else []), *self.others)

    @property
    def result(self) -> RunResult:
        """The reference's accuracy. Only for suites with a reference."""
        assert self.reference is not None
        assert self.reference.result is not None
        return self.reference.result

    @property
    def task(self) -> Head:
        return task_of(self.suite, self.runs[0].any_result)

    @property
    def dataset(self) -> str:
        """Its name for readers."""
        title = plain(self.runs[0].any_result.suite["title"])
        return title.partition(",")[0].strip() or self.name

    @property
    def shipped(self) -> bool:
        """Whether it is a suite that travels with m2fbench, as it stands there."""
        return self.suite is not None and is_shipped(self.suite)


@dataclass(frozen=True)
class CardFacts:
    """sha256: the checkpoint's. checkpoint: as found again, None where it was not, and ``lost`` says why."""

    sha256: str
    record: JsonObject
    suites: tuple[SuiteRuns, ...]
    checkpoint: "Checkpoint | None"
    lost: str | None
    options: CardOptions

    @property
    def main(self) -> SuiteRuns:
        """The suite that the card leads with."""
        return next((s for s in self.suites if s.reference is not None), self.suites[0])

    @property
    def measured(self) -> tuple[SuiteRuns, ...]:
        """The suites with accuracy figures."""
        return tuple(s for s in self.suites if s.reference is not None)

    @property
    def reference(self) -> str:
        """The checkpoint as a reader may ask for it; of a file or folder by an absolute path its name, for the path is of one machine."""
        return self.options.model_id or readable(str(self.record["reference"]))

    @property
    def title(self) -> str:
        return plain(self.options.title or self.reference.removeprefix("bundled:").rstrip("/").rpartition("/")[2])

    @property
    def config(self) -> JsonObject:
        return {} if self.checkpoint is None else self.checkpoint.config

    @property
    def costs(self) -> Iterator[RunResult]:
        """FLOPs, one result a suite and row."""
        seen = set()
        for run in (run for suite in self.suites for run in suite.runs):
            if run.flops is not None and run.flops.path not in seen:
                seen.add(run.flops.path)
                yield run.flops


def readable(reference: str) -> str:
    """A reference without a machine's folders."""
    path = Path(reference)
    return f"./{path.name}" if path.is_absolute() else reference


def task_of(suite: Suite | None, result: RunResult) -> Head:
    """A suite's task; where the suite is not at hand, the one whose figures the result has."""
    if suite is not None:
        return suite.task
    names = {m.name for m in result.measurements}
    order: tuple[Head, ...] = ("panoptic", "instance", "semantic")  # a panoptic model's result has figures of all three
    return next((head for head in order if MAIN[head][0] in names), "instance")


def gather(runs: Sequence[Run], options: CardOptions) -> CardFacts:
    """Sort the runs. Raises StoreError where they are not of one checkpoint, or none was measured."""
    record = _one_checkpoint(runs)
    suites: dict[str, list[Run]] = {}
    for run in runs:
        suites.setdefault(str(run.any_result.suite["name"]), []).append(run)
    checkpoint, lost = _found_again(runs, record)
    return CardFacts(
        str(record["sha256"]), record, tuple(_sorted(name, members) for name, members in suites.items()), checkpoint, lost, options
    )


def _one_checkpoint(runs: Sequence[Run]) -> JsonObject:
    """What the results say of the checkpoint. Raises StoreError."""
    records = {
        run.label: result.checkpoint
        for run in runs
        for result in (run.speed, run.result)
        if result is not None and result.checkpoint is not None
    }
    if not records:
        raise StoreError(f"{runs[0].folder}: nothing was measured there; a card needs a run that ended (m2fbench run)")
    if len({record["sha256"] for record in records.values()}) > 1:
        said = "; ".join(
            f"{label}: {record['reference']}, sha256 {str(record['sha256'])[:12]}" for label, record in records.items()
        )
        raise StoreError(f"expected runs of one checkpoint, got of several ({said}); a card is of one: give its runs only")
    return max(records.values(), key=lambda record: "parameters" in record)


def _sorted(name: str, runs: Sequence[Run]) -> SuiteRuns:
    scored = [run for run in runs if run.result is not None and run.result.measurements]
    reference = min(scored, key=_rank, default=None)  # of equals the first
    return SuiteRuns(
        name, next((r.suite for r in runs if r.suite is not None), None), reference, tuple(r for r in runs if r is not reference)
    )


def _rank(run: Run) -> tuple[bool, ...]:
    """How far a run is from the one that a paper's figure speaks of."""
    result = run.result
    assert result is not None
    variant = result.variant
    return (
        (result.protocol or {}).get("name") != "paper",
        any(variant.get(key, value) != value for key, value in FULL_PRECISION.items()),
        result.status != "complete",
        (result.protocol or {}).get("tta") is not None,
        result.departure is not None,
        any(variant.get(key, value) != value for key, value in _UNCHANGED.items()),
    )


_UNCHANGED = {
    "lean": False,
    "fuse": False,
    "compile": False,
    "channels_last": False,
    "cudnn_benchmark": False,
    "decoder_layers": None,
}


def _found_again(runs: Sequence[Run], record: JsonObject) -> "tuple[Checkpoint | None, str | None]":
    """The checkpoint, if it is still the one that was measured; else why not."""
    from m2fbench.models.checkpoint import resolve

    reference, revision = str(record["reference"]), record.get("revision")
    rows = [row for run in runs if run.suite for row in run.suite.checkpoints if row.checkpoint == reference]
    try:
        found = resolve(
            f"{reference.partition('@')[0]}@{revision}" if revision else reference,
            config=next((row.config for row in rows), None) or record.get("detectron_config")
            if record.get("form") != "transformers"
            else None,
            labels=next((row.labels for row in rows), None),
        )
    except M2FBenchError as error:
        return None, str(error).replace(reference, readable(reference))
    if found.sha256 != record["sha256"]:
        return (
            None,
            f"{readable(reference)}: has changed since it was measured; run the suites again, or put the measured files back",
        )
    return found, None


def is_shipped(suite: Suite) -> bool:
    return suite.suite in suite_names() and load_suite(suite.suite).hash == suite.hash


def categories_of(suite: SuiteRuns) -> tuple[Category, ...] | None:
    """The classes of a suite's dataset; None where neither the data nor a label set is at hand."""
    for run in suite.runs:
        if run.evidence is not None:
            return run.evidence.dataset.categories
    if suite.suite is None:
        return None
    if suite.suite.labels is not None:
        return label_set(suite.suite.labels).classes
    try:
        return open_dataset(suite.suite, None).categories
    except M2FBenchError:
        return None


def thing_classes(facts: CardFacts, suite: SuiteRuns) -> tuple[tuple[int, ...], bool] | None:
    """Of the checkpoint's class indices those that are things of the suite's dataset, and whether it has others; None where that is not known."""
    from m2fbench.models.classes import match_classes
    from m2fbench.models.protocols import model_classes

    categories = categories_of(suite)
    if facts.checkpoint is None or categories is None:
        return None
    try:
        matched = match_classes(facts.checkpoint.labels, categories)
    except M2FBenchError:
        return None
    found = model_classes(matched, [category.is_thing for category in categories])
    return found.things, found.panoptic
