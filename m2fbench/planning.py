"""What a run is made of before it runs: the rows and variants chosen, each checkpoint found and its classes matched."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from m2fbench.errors import ClassesError, DatasetError, SuiteError
from m2fbench.registry import near
from m2fbench.sections import Row
from m2fbench.suite import RunSpec, Suite, load_suite, suite_names
from m2fbench.types import Dataset, Example, Head, JsonObject

if TYPE_CHECKING:
    from m2fbench.models.checkpoint import Checkpoint
    from m2fbench.models.classes import ClassMap
    from m2fbench.models.load import Loader
    from m2fbench.models.protocols import Protocol


@dataclass(frozen=True)
class Event:
    """What a run tells its caller as it goes: ``kind`` is "check" (of the dataset, without row or variant), "start", "download" (done and total in
    bytes, total 0 where unknown), "load", "image", "timed" (one more image, under
    every variant), "score", "count" (of FLOPs), "done" or "unsupported" (a variant that is left out, message:
    why)."""

    kind: str
    row: str
    variant: str
    done: int = 0
    total: int = 0
    message: str = ""


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Session:
    """What all runs of one call share. heads: the kinds of prediction to make. score: False to predict only. data: the dataset's
    folder, where one was given."""

    dataset: Dataset
    heads: tuple[Head, ...]
    limit: int | None
    device: str
    output: Path
    fresh: bool
    verify: bool
    score: bool
    tell: Listener
    loader: "Loader"
    data: Path | None = None


@dataclass(frozen=True)
class Job:
    """One run, everything found and matched that can be before the weights are loaded."""

    spec: RunSpec
    checkpoint: "Checkpoint"
    protocol: "Protocol"
    classes: "ClassMap"
    examples: tuple[Example, ...]
    machine: JsonObject

    def protocol_of(self, dataset: Dataset, heads: Sequence[Head]) -> "Protocol":
        """The same protocol, making predictions of other kinds."""
        return protocol_for(self.spec, self.checkpoint, self.classes, dataset, heads)

    def event(self, kind: str, done: int = 0, message: str = "") -> Event:
        return Event(kind, self.spec.row.name, self.spec.variant.name, done, len(self.examples), message)


def plan(
    suite: Suite,
    checkpoints: Sequence[str] = (),
    only: Sequence[str] = (),
    variants: Sequence[str] = (),
    *,
    config: str | None = None,
    labels: str | None = None,
) -> list[RunSpec]:
    """The runs of a suite. With ``checkpoints`` these replace its rows; published values stay with an id and revision that match.
    only, variants: names of the rows and variants to keep, all where empty."""
    rows = list(suite.checkpoints)
    if checkpoints:
        rows = _rows_for(rows, checkpoints, config, labels)
    check_names("--only", only, [row.name for row in rows])
    check_names("--variant", variants, [variant.name for variant in suite.variants])
    kept = [row for row in rows if not only or row.name in only]
    return [RunSpec(suite, row, v) for row in kept for v in suite.variants if not variants or v.name in variants]


def known_checkpoints(*, rows: bool = False) -> dict[str, list[str]]:
    """The checkpoints that shipped suites name, are bundled or stand in the model zoo, each with the suites it stands in.

    rows: with ``suite/row`` in their place; also ``none: WHY`` with the rows that have no checkpoint.
    """
    from m2fbench.models.checkpoint import bundled_names
    from m2fbench.models.zoo import PREFIX, zoo_entries

    known: dict[str, list[str]] = {f"bundled:{name}": [] for name in bundled_names()}
    for name in suite_names():
        for row in load_suite(name).checkpoints:
            if row.checkpoint is not None:
                known.setdefault(row.checkpoint, []).append(f"{name}/{row.name}" if rows else name)
            elif rows:
                known.setdefault(f"none: {row.unavailable}", []).append(f"{name}/{row.name}")
    for entry in zoo_entries():
        known.setdefault(f"{PREFIX}{entry}", [])
    return known


def check_names(option: str, wanted: Sequence[str], known: Sequence[str]) -> None:
    for name in wanted:
        if name not in known:
            raise SuiteError(f"{option} {name}: expected one of {', '.join(known)}{near(name, known)}")


def _rows_for(rows: Sequence[Row], references: Sequence[str], config: str | None, labels: str | None) -> list[Row]:
    from m2fbench.models.download import is_url, redacted

    known = {row.checkpoint: row for row in rows if row.checkpoint and not (config or labels)}
    chosen: list[Row] = []
    for reference in references:
        if reference in known:
            chosen.append(known[reference])
            continue
        plain = redacted(reference) if is_url(reference) else reference.split("@")[0]
        last = re.split(r"[/:]", plain.rstrip("/"))[-1]
        if re.fullmatch(r"model_(final|\d{7})\.(pth|pkl)", last):  # as every training of detectron2 calls it
            last = Path(plain).resolve().parent.name or last
        base = re.sub(r"[^A-Za-z0-9._-]+", "-", last)[:70].strip("._-") or "checkpoint"
        taken = {row.name for row in (*rows, *chosen)}
        name = next(n for k in range(1, len(taken) + 2) if (n := base if k == 1 else f"{base}-{k}") not in taken)
        chosen.append(Row(name=name, checkpoint=reference, config=config, labels=labels))
    return chosen


def prepare(session: Session, spec: RunSpec) -> Job | None:
    """Find the checkpoint and match its classes; None for a row that cannot be run."""
    from m2fbench.models.checkpoint import resolve
    from m2fbench.models.classes import match_classes
    from m2fbench.models.load import describe_device
    from m2fbench.models.published import like_row

    if spec.row.checkpoint is None:
        return None
    session.tell(Event("start", spec.row.name, spec.variant.name, message=f"checkpoint {spec.row.checkpoint}"))

    def arrived(done: int, total: int | None) -> None:
        session.tell(Event("download", spec.row.name, spec.variant.name, done, total or 0))

    checkpoint = resolve(spec.row.checkpoint, config=spec.row.config, labels=spec.row.labels, progress=arrived)
    try:
        classes = match_classes(checkpoint.labels, session.dataset.categories)
    except ClassesError as error:
        raise ClassesError(f"{checkpoint.reference}: {error}") from None
    if spec.row not in spec.suite.checkpoints and (like := like_row(checkpoint, spec.suite)) is not None:
        spec = replace(spec, row=spec.row.model_copy(update={"protocol": like.protocol}))
    protocol = protocol_for(spec, checkpoint, classes, session.dataset, session.heads)
    examples = tuple(session.dataset.examples()[: session.limit])
    _check_images(spec.suite, session.dataset, examples)
    return Job(spec, checkpoint, protocol, classes, examples, describe_device(session.device))


def protocol_for(
    spec: RunSpec, checkpoint: "Checkpoint", classes: "ClassMap", dataset: Dataset, heads: Sequence[Head]
) -> "Protocol":
    """The run's protocol, making predictions of these kinds."""
    from m2fbench.models.protocols import build_protocol, model_classes

    folder = checkpoint.folder if checkpoint.form == "transformers" else None
    its_classes = model_classes(classes, [category.is_thing for category in dataset.categories])
    return build_protocol(spec.protocol, folder, its_classes, heads)


def _check_images(suite: Suite, dataset: Dataset, examples: Sequence[Example]) -> None:
    """Find missing image files before hours of work, not after; ``on_error: skip`` counts them one by one instead."""
    missing = [e.source for e in examples if dataset.stamp(e) == "missing"] if suite.on_error == "stop" else []
    if missing:
        raise DatasetError(
            f"{len(missing)} of {len(examples)} images are missing, the first is {missing[0]}; complete the dataset "
            f"({dataset.needs_data}), or set 'on_error: skip'"
        )
