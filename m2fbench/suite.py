"""Suites: which checkpoints run over which dataset, by which protocol, beside which published numbers.

    YAML file -> Suite -> list[RunSpec], one per (row, variant)

Strict: unknown keys, keys given twice and wrong types are refused with ``file:line: key: expected ..., got ...``. Suites are
found by path or by name; the shipped ones lie in ``suites/`` of the source tree and travel inside the installed package.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from m2fbench.errors import SuiteError
from m2fbench.labels import label_sets
from m2fbench.registry import Registry, near
from m2fbench.types import Dataset, JsonObject, Metric, Published
from m2fbench.yaml_lines import KeyPath, Lines, dotted, read_yaml

datasets: Registry[type[Dataset]] = Registry("dataset", "m2fbench.datasets")
metrics: Registry[Metric] = Registry("metric", "m2fbench.metrics")

FROM_COMMAND_LINE = 0  # in place of a line number

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
ProtocolName = Literal["paper", "transformers", "transformers-best"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class DatasetSection(BaseModel):
    """Which dataset; every other key is an option of that dataset's reader."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str = Field(description="A dataset reader: see `m2fbench list datasets`.")

    @property
    def options(self) -> JsonObject:
        return dict(self.model_extra or {})


class ProtocolSection(Strict):
    """How an image becomes the model's input, and its output a prediction."""

    name: ProtocolName = Field("paper", description="`paper`, or one of the two plain Hugging Face paths.")
    min_size: int = Field(ge=1, le=8192, description="Shortest edge after the resize, in pixels.")
    max_size: int = Field(ge=1, le=32768, description="Cap on the longest edge, in pixels.")
    detections: int = Field(100, ge=1, description="Detections kept per image.")


class Row(Strict):
    """One line of the published table: a checkpoint, and the numbers printed for it."""

    name: Name = Field(description="The row's name in tables and in the run directory.")
    checkpoint: str | None = Field(
        None, description="Hub id (`@revision` to pin), folder, .pkl or .pth file, `zoo:NAME`, https address, or `bundled:NAME`."
    )
    config: str | None = Field(None, description="detectron2 config of a single file, in place of the config.yaml beside it.")
    labels: str | None = Field(None, description="Class names of a single file: a label set, or a file of names.")
    unavailable: str | None = Field(None, description="Why the row cannot be run (then it has no checkpoint).")
    published: dict[str, Finite] = Field(default_factory=dict, description="Metric name -> published value.")
    source: str = Field("", description="Where the published values are printed.")

    @model_validator(mode="after")
    def _check(self) -> "Row":
        if (self.checkpoint is None) == (self.unavailable is None):
            raise ValueError("either 'checkpoint' or 'unavailable', one of the two")
        if self.published and not self.source:
            raise ValueError("'source', saying where the published values are printed")
        return self


class Variant(Strict):
    """Settings under which every row runs once more."""

    name: Name
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of weights and forward pass.")
    attention: Literal["eager", "sdpa"] = Field("sdpa", description="Attention kernels, in model and backbone.")
    tf32: bool = Field(False, description="Let CUDA round float32 matrix products to TF32.")
    protocol: ProtocolName | None = Field(None, description="Another protocol than the suite's.")


class Suite(Strict):
    """A declarative benchmark. Published values are compared with what is measured under the first variant."""

    suite: Name
    title: str
    task: Literal["instance"]
    labels: str | None = Field(None, description="Label set of the dataset, by which `m2fbench inspect` sees what fits.")
    dataset: DatasetSection
    protocol: ProtocolSection
    metrics: list[str] = Field(min_length=1)
    checkpoints: list[Row] = Field(min_length=1)
    variants: list[Variant] = Field(default_factory=lambda: [Variant(name="default")], min_length=1)
    tolerance: dict[str, Annotated[Finite, Field(ge=0)]] = Field(
        default_factory=dict,
        description="Metric name -> largest difference from the published value, in the metric's unit; exit status 1 beyond it.",
    )
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
        return self

    _overrides: tuple[str, ...] = PrivateAttr(())

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
        """The suite's protocol as the variant has it."""
        name = self.variant.protocol
        return self.suite.protocol if name is None else self.suite.protocol.model_copy(update={"name": name})

    @property
    def published(self) -> tuple[Published, ...]:
        return tuple(Published(metric, value, self.row.source) for metric, value in self.row.published.items())

    @property
    def checks_tolerance(self) -> bool:
        """Whether the suite's tolerance applies: published values are the reference protocol's and precision's."""
        first = self.suite.variants[0]
        return bool(self.suite.tolerance) and self.variant == first


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


def load_suite(name_or_path: str | Path, overrides: Sequence[str] = ()) -> Suite:
    """Read and check a suite. ``overrides``: ``dotted.key=value`` texts, the value in YAML, applied before the checks.

    Raises SuiteError with ``file:line: key: expected ..., got ...``; one line for every problem found.
    """
    path = find_suite(name_or_path)
    document, lines = read_yaml(path)
    if not isinstance(document, dict):
        raise SuiteError(f"{path}:1: expected a mapping with the keys of a suite, got {_describe(document)}")
    for override in overrides:
        lines[_apply(document, override)] = FROM_COMMAND_LINE
    document = _expand(document, (), path, lines)
    problems = _problems(Suite, document, (), path, lines)
    suite = None if problems else Suite.model_validate(document)
    if suite is not None:
        problems = _plugin_problems(suite, path, lines)
    if problems:
        raise SuiteError("\n".join(problems))
    assert suite is not None
    suite._overrides = tuple(overrides)
    return suite


def _plugin_problems(suite: Suite, path: Path, lines: Lines) -> list[str]:
    """What the dataset's own options model and the registries have to say."""
    problems = []
    try:
        reader = datasets.get(suite.dataset.name, SuiteError)
        problems += _problems(reader.Options, suite.dataset.options, ("dataset",), path, lines)
        if suite.task not in reader.tasks:
            problems.append(f"{_at(path, lines, ('task',))}: expected one of {', '.join(reader.tasks)}, got '{suite.task}'")
    except SuiteError as error:
        problems.append(f"{_at(path, lines, ('dataset', 'name'))}: {error}")
    known: set[str] = set()
    for index, name in enumerate(suite.metrics):
        try:
            metric = metrics.get(name, SuiteError)
            known |= set(metric.names)
            if metric.task != suite.task:
                problems.append(
                    f"{_at(path, lines, ('metrics', index))}: expected a metric for {suite.task}, got one for {metric.task}"
                )
        except SuiteError as error:
            problems.append(f"{_at(path, lines, ('metrics', index))}: {error}")
    if suite.labels is not None and suite.labels not in label_sets():
        known_sets = ", ".join(label_sets())
        problems.append(
            f"{_at(path, lines, ('labels',))}: expected one of {known_sets}, got '{suite.labels}'{near(suite.labels, label_sets())}"
        )
    if not problems:
        named: list[KeyPath] = [("tolerance", name) for name in suite.tolerance]
        named += [("checkpoints", k, "published", name) for k, row in enumerate(suite.checkpoints) for name in row.published]
        for where in named:
            name = str(where[-1])
            if name not in known:
                problems.append(
                    f"{_at(path, lines, where)}: expected a figure that the metrics give, got '{name}'{near(name, known)}"
                )
    return problems


def _problems(model: type[BaseModel], document: Any, prefix: KeyPath, path: Path, lines: Lines) -> list[str]:
    try:
        model.model_validate(document)
    except ValidationError as failure:
        found = []
        for error in failure.errors():
            where: KeyPath = (*prefix, *error["loc"])
            found.append(f"{_at(path, lines, where)}: {_explain(error, model, error['loc'])}")
        return found
    return []


def _at(path: Path, lines: Lines, where: KeyPath) -> str:
    """``file:line: key``, the line of the innermost part that the file has; ``--set key`` where it came from the command line."""
    given = [key for key, line in lines.items() if line == FROM_COMMAND_LINE]
    if any(where[: len(key)] == key or (key[: len(where)] == where and where not in lines) for key in given):
        return f"--set {dotted(where)}"
    known = where
    while known and known not in lines:
        known = known[:-1]
    return f"{path}:{lines.get(known, 1)}: {dotted(where)}" if where else f"{path}:{lines.get(known, 1)}"


_EXPECTED = {
    "string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "dict_type": "a mapping", "list_type": "a list", "model_type": "a mapping", "model_attributes_type": "a mapping",
}  # fmt: skip


def _explain(error: Any, model: type[BaseModel], location: KeyPath) -> str:
    """pydantic's error in the house's words: expected ..., got ..."""
    kind, context, given = error["type"], error.get("ctx", {}), error["input"]
    if kind == "missing":
        return "expected this key, got none"
    if kind == "extra_forbidden":
        known = list(_fields(model, location[:-1]))
        return f"unknown key{near(str(location[-1]), known)}; expected one of {', '.join(known)}"
    if kind == "value_error":
        return f"expected {context['error']}" + ("" if isinstance(given, dict) else f", got {_describe(given)}")
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", context["expected"])
        return f"expected {context['expected']}, got {_describe(given)}{near(str(given), choices)}"
    if kind == "too_short":
        return f"expected at least one, got {_describe(given)}"
    if kind == "string_pattern_mismatch":
        return f"expected letters, digits, '.', '_' and '-', beginning with a letter or digit, got {_describe(given)}"
    expected = _EXPECTED.get(kind) or error["msg"].removeprefix("Input should be ").removeprefix("String should ")
    return f"expected {expected}, got {_describe(given)}"


def _fields(model: type[BaseModel], location: KeyPath) -> Mapping[str, Any]:
    """The fields of the model that sits at ``location`` inside ``model``."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[str(part)].annotation
        inner = [a for a in (annotation, *get_args(annotation)) if isinstance(a, type) and issubclass(a, BaseModel)]
        if not inner:
            return {}
        model = inner[0]
    return model.model_fields


def _describe(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def _expand(value: Any, here: KeyPath, path: Path, lines: Lines) -> Any:
    """``value`` with ``${NAME}`` in its texts replaced from the environment."""
    if isinstance(value, dict):
        return {key: _expand(inner, (*here, key), path, lines) for key, inner in value.items()}
    if isinstance(value, list):
        return [_expand(inner, (*here, index), path, lines) for index, inner in enumerate(value)]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise SuiteError(
                f"{_at(path, lines, here)}: the environment variable {match[1]} is not set; set it, or write the path out"
            )
        return os.environ[match[1]]

    return _VARIABLE.sub(replace, value)


def _apply(document: dict[str, Any], override: str) -> KeyPath:
    """Set one dotted key of the raw document and return its path; lists are indexed by number or, where their items have names, by name."""
    key, equals, text = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise SuiteError(f"--set {override}: expected dotted.key=value, as in --set protocol.min_size=640")
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        raise SuiteError(f"--set {override}: expected a value in YAML, got {text!r}") from error
    target: Any = document
    path: list[str | int] = []
    for depth, part in enumerate(parts):
        so_far = ".".join(parts[: depth + 1])
        if isinstance(target, list):
            path.append(_index(target, part, override, so_far))
        elif isinstance(target, dict):
            path.append(part)
            if depth < len(parts) - 1:
                target.setdefault(part, {})
        else:
            raise SuiteError(f"--set {override}: {so_far} does not exist in this suite")
        if depth < len(parts) - 1:
            target = target[path[-1]]
    target[path[-1]] = value
    return tuple(path)


def _index(items: list[Any], part: str, override: str, so_far: str) -> int:
    names = [str(item.get("name")) if isinstance(item, dict) else str(item) for item in items]
    if part in names:
        return names.index(part)
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    raise SuiteError(f"--set {override}: {so_far}: expected a number under {len(items)} or one of {', '.join(names)}")


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
