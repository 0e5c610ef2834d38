"""Suites: which checkpoints run over which dataset, by which protocol, beside which published numbers.

    YAML file -> Suite -> list[RunSpec], one per (row, variant)

Strict: unknown keys, keys given twice and wrong types are refused with ``file:line: key: expected ..., got ...``. Suites are
found by path or by name; the shipped ones lie in ``suites/`` of the source tree and travel inside the installed package.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, PrivateAttr, model_validator

from m2fbench.errors import SuiteError, shown
from m2fbench.labels import label_sets
from m2fbench.registry import Registry, near
from m2fbench.sections import (
    DatasetSection,
    Finite,
    FlopsSection,
    Kinds,
    Name,
    ProtocolSection,
    Row,
    Scope,
    SpeedSection,
    Strict,
    Variant,
)
from m2fbench.suite_text import FROM_COMMAND_LINE, apply_override, described, expand, place, problems_of
from m2fbench.types import Dataset, Head, JsonObject, Metric, Published, ScoringRules
from m2fbench.yaml_lines import KeyPath, Lines, read_yaml

datasets: Registry[type[Dataset]] = Registry("dataset", "m2fbench.datasets")
metrics: Registry[Metric] = Registry("metric", "m2fbench.metrics")

HEADS: tuple[Head, ...] = get_args(Head)


class Suite(Strict):
    """A declarative benchmark. Published values are compared with what is measured under the first variant."""

    suite: Name
    title: str
    task: Head
    labels: str | None = Field(None, description="Label set of the dataset, by which `m2fbench inspect` sees what fits.")
    dataset: DatasetSection
    protocol: ProtocolSection
    metrics: list[str] = Field(min_length=1)
    checkpoints: list[Row] = Field(min_length=1)
    variants: list[Variant] = Field(default_factory=lambda: [Variant(name="default")], min_length=1)
    measure: Kinds = Field(
        ["accuracy"], description="`accuracy`, `speed`, `flops`, `energy` (which includes speed); one or a list."
    )
    speed: SpeedSection = Field(default_factory=SpeedSection)
    tolerance: dict[str, Annotated[Finite, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Metric name -> largest difference from the published value, in the metric's unit; exit status 1 beyond it.",
    )
    flops: FlopsSection = Field(default_factory=FlopsSection, description="Inputs of `m2fbench flops`.")
    on_error: Literal["stop", "skip"] = Field(
        "stop", description="What an unreadable image does: stop, or be counted and left out."
    )
    workers: int = Field(2, ge=0, le=64, description="Processes that load and decode images; 0 for none.")

    @model_validator(mode="after")
    def _check(self) -> "Suite":
        kinds = {
            "checkpoints": [r.name for r in self.checkpoints],
            "variants": [v.name for v in self.variants],
            "metrics": self.metrics,
        }
        for kind, names in kinds.items():
            if len(names) != len(set(names)):
                twice = next(n for n in names if names.count(n) > 1)
                raise ValueError(f"{kind} of different names ('{twice}' is there twice)")
        if self.speed.heads is not None and self.task not in self.speed.heads:
            raise ValueError(f"'speed.heads' with the task's own, {self.task}, among them")
        for variant in self.variants:
            if variant.tta and (
                self.task != "semantic" or any(spec.tta is None for spec in map(self.protocol_of, self.checkpoints))
            ):
                raise ValueError(f"'task: semantic' and 'protocol.tta' with the variant '{variant.name}', whose 'tta' needs both")
        return self

    def protocol_of(self, row: Row) -> ProtocolSection:
        """The protocol as the row has it."""
        own = {} if row.protocol is None else {k: v for k, v in dict(row.protocol).items() if v is not None}
        return self.protocol.model_copy(update=own)

    _overrides: tuple[str, ...] = PrivateAttr(())

    @property
    def heads(self) -> tuple[Head, ...]:
        """The kinds of prediction that a model of this task can give; a panoptic one gives all from one forward pass."""
        return HEADS if self.task == "panoptic" else (self.task,)

    @property
    def needed_heads(self) -> tuple[Head, ...]:
        """The kinds of prediction that the metrics are computed from."""
        asked = {metrics.get(name).head for name in self.metrics}
        return tuple(head for head in HEADS if head in asked)

    @property
    def timed_heads(self) -> dict[Scope, tuple[Head, ...]]:
        """The heads that each scope of a speed measurement runs."""
        enabled = tuple(head for head in HEADS if head in (self.speed.heads or self.heads))
        return {"paper": enabled, "task": (self.task,)}

    @property
    def rules(self) -> ScoringRules:
        return ScoringRules(mean_iou=self.protocol.mean_iou)

    @property
    def overrides(self) -> tuple[str, ...]:
        """The overrides it was loaded with that change what is measured, as against the file."""
        return tuple(o for o in self._overrides if o.partition(".")[0] in ("protocol", "dataset", "variants"))

    @property
    def hash(self) -> str:
        """SHA-256 of the suite's content, whitespace, comments and key order aside."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class RunSpec:
    """One run: one row of a suite under one variant."""

    suite: Suite
    row: Row
    variant: Variant

    @property
    def protocol(self) -> ProtocolSection:
        """The suite's protocol as row and variant have it; ``tta`` only where the variant asks for it."""
        own = self.suite.protocol_of(self.row)
        named = {} if self.variant.protocol is None else {"name": self.variant.protocol}
        return own.model_copy(update=named | ({} if self.variant.tta else {"tta": None}))

    @property
    def published(self) -> tuple[Published, ...]:
        """What is printed for this row: under the variant where that has figures of its own, else those of the first variant."""
        values = self.row.published_variants.get(self.variant.name, self.row.published)
        return tuple(Published(metric, value, self.row.source) for metric, value in values.items())

    @property
    def is_reference(self) -> bool:
        """Whether the published values speak of this variant: the first, or one with published values of its own."""
        return self.variant == self.suite.variants[0] or self.variant.name in self.row.published_variants

    @property
    def checks_tolerance(self) -> bool:
        """Whether the suite's tolerance applies: published values are the reference protocol's and precision's."""
        return bool(self.suite.tolerance) and self.is_reference


SNAPSHOT_VERSION = 1


def snapshot(suite: Suite, data: Path | None) -> JsonObject:
    """The suite as loaded, overrides applied, with the dataset's folder, as a run directory keeps it. JSON values only."""
    return {
        "snapshot_version": SNAPSHOT_VERSION,
        "suite": suite.model_dump(mode="json"),
        "overrides": list(suite._overrides),
        "data": None if data is None else str(data.absolute()),
    }


def read_snapshot(path: Path) -> tuple[Suite, Path | None]:
    """The suite and the dataset's folder that ``snapshot`` wrote. Raises SuiteError."""
    try:
        document = json.loads(path.read_bytes())
        if document["snapshot_version"] != SNAPSHOT_VERSION:
            raise ValueError(f"expected snapshot version {SNAPSHOT_VERSION}, got {document['snapshot_version']!r}")
        suite = Suite.model_validate(document["suite"])
        suite._overrides = tuple(map(str, document["overrides"]))
        return suite, None if document["data"] is None else Path(document["data"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SuiteError(f"{path}: not a suite that a run has kept ({shown(error)}); run the suite again") from error


_OF_A_PANOPTIC_MODEL = {"instance": "_th_pan", "panoptic": "", "semantic": "_pan"}


def figure_name(figure: str, head: Head, task: Head) -> str:
    """The name of a metric's figure in a suite of ``task``, as the papers print it: a panoptic model's AP is AP_th_pan (on its things),
    its mIoU is mIoU_pan."""
    return figure + _OF_A_PANOPTIC_MODEL[head] if task == "panoptic" else figure


def suite_folder() -> Path:
    """Where the shipped suites lie: inside the installed package, or beside it in a source tree."""
    package = Path(__file__).parent
    inside = package / "suites"
    return inside if inside.is_dir() else package.parent / "suites"


def suite_names() -> list[str]:
    return sorted(path.stem for path in suite_folder().glob("*.yaml"))


def find_suite(name_or_path: str | Path) -> Path:
    """The file of a suite given by path or by the name of a shipped one."""
    path = Path(name_or_path)
    if path.is_file():
        return path
    shipped = suite_folder() / f"{name_or_path}.yaml"
    if re.fullmatch(r"[\w.-]+", str(name_or_path)) and shipped.is_file():
        return shipped
    known = suite_names()
    raise SuiteError(
        f"{name_or_path}: no such file, and no suite of that name{near(path.stem, known)}; the shipped suites are {', '.join(known)}"
    )


def is_suite(name_or_path: str) -> bool:
    """Whether it is the name of a shipped suite, or a YAML file with the key ``suite`` (a detectron2 config has none)."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return re.search(rb"^suite\s*:", path.read_bytes()[: 1 << 16], re.MULTILINE) is not None
    return name_or_path in suite_names() and not path.exists()


def load_suite(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read and check a suite. ``overrides``: ``dotted.key=value`` texts, the value in YAML, applied before the checks.

    Raises SuiteError with ``file:line: key: expected ..., got ...``; one line for every problem found.
    """
    path = find_suite(name_or_path)
    document, lines = read_yaml(path)
    if not isinstance(document, dict):
        raise SuiteError(f"{path}:1: expected a mapping with the keys of a suite, got {described(document)}")
    for override in overrides:
        where = apply_override(document, override)
        lines[where] = FROM_COMMAND_LINE
        if where[:1] == ("protocol",):
            _forget_in_rows(document, where[1:2])
    document = expand(document, (), path, lines)
    problems = problems_of(Suite, document, (), path, lines)
    suite = None if problems else Suite.model_validate(document)
    if suite is not None:
        problems = _plugin_problems(suite, path, lines)
    if problems:
        raise SuiteError("\n".join(problems))
    assert suite is not None
    suite._overrides = tuple(overrides)
    return suite


def _forget_in_rows(document: JsonObject, keys: KeyPath) -> None:
    """What the command line says of the protocol holds for every row, those with a setting of their own too."""
    rows = document.get("checkpoints")
    for row in rows if isinstance(rows, list) else ():
        own = row.get("protocol") if isinstance(row, dict) else None
        if isinstance(own, dict):
            for key in keys or list(own):
                own.pop(key, None)


def _plugin_problems(suite: Suite, path: Path, lines: Lines) -> list[str]:
    """What the dataset's own options model and the registries have to say."""
    problems = []
    try:
        reader = datasets.get(suite.dataset.name, SuiteError)
        problems += problems_of(reader.Options, suite.dataset.options, ("dataset",), path, lines)
        if suite.task not in reader.tasks:
            problems.append(f"{place(path, lines, ('task',))}: expected one of {', '.join(reader.tasks)}, got '{suite.task}'")
    except SuiteError as error:
        problems.append(f"{place(path, lines, ('dataset', 'name'))}: {error}")
    known: set[str] = set()
    for index, name in enumerate(suite.metrics):
        try:
            metric = metrics.get(name, SuiteError)
            figures = {figure_name(figure, metric.head, suite.task) for figure in metric.names}
            if figures & known:
                twice = ", ".join(sorted(figures & known))
                problems.append(
                    f"{place(path, lines, ('metrics', index))}: expected metrics whose figures have names of their own, got '{name}' after "
                    f"another that gives {twice} too; take one of them, and the other in a suite of its own"
                )
            known |= figures
            if metric.head not in suite.heads:
                problems.append(
                    f"{place(path, lines, ('metrics', index))}: expected a metric of {' or '.join(suite.heads)} predictions, which a suite "
                    f"with 'task: {suite.task}' has, got one of {metric.head} predictions"
                )
            if metric.only_for not in (None, suite.dataset.name):
                problems.append(
                    f"{place(path, lines, ('metrics', index))}: '{name}' is defined on the dataset {metric.only_for} only, got {suite.dataset.name}"
                )
        except SuiteError as error:
            problems.append(f"{place(path, lines, ('metrics', index))}: {error}")
    if suite.labels is not None and suite.labels not in label_sets():
        known_sets = ", ".join(label_sets())
        problems.append(
            f"{place(path, lines, ('labels',))}: expected one of {known_sets}, got '{suite.labels}'{near(suite.labels, label_sets())}"
        )
    if not problems:
        named: list[KeyPath] = [("tolerance", name) for name in suite.tolerance]
        for k, row in enumerate(suite.checkpoints):
            named += [("checkpoints", k, "published", name) for name in row.published]
            for variant, values in row.published_variants.items():
                named += [("checkpoints", k, "published_variants", variant, name) for name in values]
                if variant not in (names := [v.name for v in suite.variants]):
                    unknown = ("checkpoints", k, "published_variants", variant)
                    problems.append(
                        f"{place(path, lines, unknown)}: expected a variant's name, {', '.join(names)}, got '{variant}'"
                    )
        for where in named:
            name = str(where[-1])
            if name not in known:
                problems.append(
                    f"{place(path, lines, where)}: expected a figure that the metrics give, got '{name}'{near(name, known)}"
                )
    return problems


def schema() -> JsonObject:
    """The JSON Schema of the suite format, dataset options included."""
    document = Suite.model_json_schema()
    document["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    document["title"] = "m2fbench suite"
    section = document["$defs"]["DatasetSection"]
    section["properties"]["name"]["enum"] = datasets.names()
    section["allOf"] = [
        {
            "if": {"properties": {"name": {"const": name}}},
            "then": {"properties": datasets.get(name).Options.model_json_schema()["properties"]},
        }
        for name in datasets.names()
    ]
    document["properties"]["metrics"]["items"] = {"enum": metrics.names()}
    return document
