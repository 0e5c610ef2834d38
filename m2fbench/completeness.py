"""Whether a dataset that is there is all there: counted through its reader, held to the counts that its makers publish.

The counts are data (datasets/expected.json). A dataset of the user's own, for which nothing is published, is complete where every
image and the truth that its annotations name are there.
"""

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from m2fbench.errors import DatasetError, M2FBenchError
from m2fbench.suite import datasets
from m2fbench.types import Dataset, Example, Head, JsonObject

EXPECTED = Path(__file__).parent / "datasets" / "expected.json"
NAMED = 5  # missing files that a report names

Status = Literal["complete", "incomplete", "absent"]


class Expected(BaseModel):
    """What a published split has. when: how the options that mean it end, one of each list. None: not published, or not to be counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    when: dict[str, tuple[str, ...]]
    images: int
    annotations: int | None = None
    annotations_sha256: str | None = None
    source: str


@dataclass(frozen=True)
class DatasetReport:
    """What is there of a dataset. line: the same in a sentence.

    heads: by task, what its truth lacks, None where nothing. images: those that the annotations or the folder name; missing: of these,
    files that are not there or empty, the first of them in first_missing. annotations: instances of the truth, None where it has no
    list of them. bytes: of the image files, NaN where they are no files.
    """

    name: str
    status: Status
    line: str
    heads: Mapping[Head, str | None]
    images: int = 0
    missing: int = 0
    first_missing: tuple[str, ...] = ()
    annotations: int | None = None
    bytes: float = math.nan
    expected: Expected | None = None
    fingerprint: JsonObject | None = None

    def to_json(self) -> JsonObject:
        """JSON values only; NaN is null."""
        size = None if math.isnan(self.bytes) else int(self.bytes)
        expected = None if self.expected is None else self.expected.model_dump()
        return asdict(self) | {"first_missing": list(self.first_missing), "bytes": size, "expected": expected}


def check_dataset(
    name: str, data: Path | None, options: BaseModel | Mapping[str, Any] | None = None, task: Head | None = None
) -> DatasetReport:
    """Count and check what is there of a dataset, for one task or all of its reader's.

    options: of the reader, its own by default. Raises DatasetError for a dataset, an option or a task that there is not; what is
    wrong with the data is in the report.
    """
    reader = datasets.get(name, DatasetError)
    chosen = options_of(reader, options)
    if task is not None and task not in reader.tasks:
        raise DatasetError(f"dataset {name}: expected a task of {', '.join(reader.tasks)}, got '{task}'")
    opened, problems = _open(reader, chosen, data, (task,) if task else reader.tasks)
    if not opened:
        first = next(iter(problems.values())) or ""
        absent = bool(reader.needs_data) and str(reader.needs_data) in first
        return DatasetReport(name, "absent" if absent else "incomplete", first, problems)
    dataset = next(iter(opened.values()))
    examples, expected = dataset.examples(), expected_of(name, chosen)
    missing, size = _missing(dataset, examples)
    counted = _annotations(opened, problems) if expected is None or expected.annotations is not None else None
    fingerprint = dataset.fingerprint()
    wrong = list(_wrong(name, examples, missing, problems, counted, expected))
    sizes = "" if math.isnan(size) else f", {size / 2**20:,.1f} MB"
    there = f"{name}: {len(examples):,} images{sizes}" + ("" if counted is None else f", {counted:,} annotations")
    held = _held(expected, fingerprint)
    return DatasetReport(
        name, "incomplete" if wrong else "complete", "; ".join([there, *wrong]) if wrong else there + held, problems, len(examples),
        len(missing), tuple(missing[:NAMED]), counted, size, expected, fingerprint,
    )  # fmt: skip


def options_of(reader: type[Dataset], options: BaseModel | Mapping[str, Any] | None) -> BaseModel:
    """A reader's options from plain values. Raises DatasetError naming the first that it does not take."""
    if isinstance(options, BaseModel):
        return options
    try:
        return reader.Options.model_validate(dict(options or {}))
    except ValidationError as failure:
        error = failure.errors()[0]
        where = ".".join(str(part) for part in error["loc"])
        if error["type"] == "extra_forbidden":
            known = ", ".join(reader.Options.model_fields)
            raise DatasetError(f"dataset {reader.name}: has no option '{where}'; expected one of {known}") from None
        if error["type"] == "missing":
            raise DatasetError(
                f"dataset {reader.name}: needs the option '{where}'; give it with --set {where}=..., or name a suite"
            ) from None
        expected = error["msg"].removeprefix("Input should be ")
        raise DatasetError(f"dataset {reader.name}: {where}: expected {expected}, got {str(error['input'])[:40]!r}") from None


def _open(
    reader: type[Dataset], options: BaseModel, data: Path | None, tasks: Sequence[Head]
) -> tuple[dict[Head, Dataset], dict[Head, str | None]]:
    """The reader for every task it can be opened for, and what is wrong with each task's truth."""
    opened: dict[Head, Dataset] = {}
    problems: dict[Head, str | None] = {}
    for task in tasks:
        try:
            opened[task] = reader(options, data, task)
            opened[task].check()
            problems[task] = None
        except M2FBenchError as error:
            problems[task] = str(error)
    return opened, problems


@functools.cache
def _expected() -> dict[str, list[Expected]]:
    return TypeAdapter(dict[str, list[Expected]]).validate_python(json.loads(EXPECTED.read_text(encoding="utf-8")))


def expected_of(name: str, options: BaseModel) -> Expected | None:
    """What the published split that these options mean should have; None for data of the user's own."""
    for expected in _expected().get(name, ()):
        if all(str(getattr(options, key, ends[0])).endswith(ends) for key, ends in expected.when.items()):
            return expected
    return None


def _missing(dataset: Dataset, examples: Sequence[Example]) -> tuple[list[str], float]:
    """The sources of images that are missing or empty, and the bytes of the others, as the readers' stamps say them."""
    missing, sizes = [], []
    for example in examples:
        stamp = dataset.stamp(example)
        found = re.match(r"(\d+) bytes", stamp)
        if stamp == "missing" or (found and found[1] == "0"):
            missing.append(example.source if stamp == "missing" else f"{example.source} (empty)")
        elif found:
            sizes.append(int(found[1]))
    return missing, float(sum(sizes)) if sizes else math.nan


def _annotations(opened: Mapping[Head, Dataset], problems: Mapping[Head, str | None]) -> int | None:
    """Instances in the truth; None where it is not read as a list, or has something wrong with it."""
    if "instance" not in opened or problems["instance"] is not None:
        return None
    truth = opened["instance"].coco_truth()
    content = json.loads(truth.read_bytes()) if isinstance(truth, Path) else truth
    return len(content["annotations"])


def _held(expected: Expected | None, fingerprint: JsonObject) -> str:
    """What the counts of a complete dataset are held to, for its line."""
    if expected is None:
        return "; no counts are published for it: all that its annotations name is here"
    published = expected.annotations_sha256
    same = {None: "", fingerprint.get("annotations_sha256"): "; its annotations are the published file, byte for byte"}
    return f", as {expected.title} has" + same.get(
        published, "; its annotations are not the published file byte for byte: copied by another program, or changed"
    )


def _wrong(
    name: str, examples: Sequence[Example], missing: Sequence[str], problems: Mapping[Head, str | None], annotations: int | None,
    expected: Expected | None,
) -> Iterator[str]:  # fmt: skip
    """Everything that keeps the dataset from being complete, each as a part of one line."""
    if not examples:
        yield "expected images, got none"
    if missing:
        more = f" and {len(missing) - 1:,} more" if len(missing) > 1 else ""
        yield f"{len(missing):,} image files are missing: {missing[0]}{more}; fetch or copy them again"
    if expected is not None:
        if len(examples) != expected.images:
            yield f"{expected.title} has {expected.images:,} images, got {len(examples):,}"
        if annotations is not None and expected.annotations not in (None, annotations):
            yield f"{expected.title} has {expected.annotations:,} annotations, got {annotations:,}"
    for problem in dict.fromkeys(problem for problem in problems.values() if problem is not None):
        yield f"{', '.join(task for task, found in problems.items() if found == problem)}: {problem}"
