"""What a checkpoint is, which suites fit it, and what to beware of."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from m2fbench.errors import CheckpointError, ClassesError, M2FBenchError, shown
from m2fbench.labels import label_set
from m2fbench.scoring import open_dataset
from m2fbench.sections import ProtocolSection
from m2fbench.suite import Suite, datasets, load_suite, suite_names
from m2fbench.types import Category, JsonObject

if TYPE_CHECKING:
    from m2fbench.download import Progress
    from m2fbench.models.checkpoint import Checkpoint

_FORMS = {
    "transformers": "transformers folder",
    "detectron2": "original code (detectron2), one file",
    "mmdetection": "mmdetection, one file",
}


@dataclass(frozen=True)
class Inspection:
    """parameters: None where the weights do not load, and ``problem`` says why. size: bytes of the weight files. processor: the input
    size of its preprocessor_config.json. suites: those whose classes it has, with what they score of it."""

    reference: str
    form: str
    family: str
    backbone: str
    parameters: int | None
    queries: int
    decoder_layers: int | None
    classes: tuple[str, ...]
    label_set: str | None
    task: str | None
    files: tuple[str, ...]
    size: int
    sha256: str
    revision: str | None
    published: str | None
    processor: str | None
    suites: tuple[str, ...]
    warnings: tuple[str, ...]
    problem: str | None

    def to_json(self) -> JsonObject:
        return asdict(self)

    def facts(self) -> Iterator[tuple[str, str]]:
        """Name and value of each, for reading."""
        yield "checkpoint", self.reference + (f" at {self.revision}" if self.revision else "")
        yield "form", _FORMS[self.form] + (f", published as {self.published}" if self.published else "")
        layers = f", {self.decoder_layers} decoder layers" if self.decoder_layers is not None else ""
        yield "model", f"{self.family}, {self.queries} queries{layers}"
        yield "backbone", self.backbone
        yield (
            "parameters",
            f"{self.parameters:,} ({self.parameters / 1e6:.1f} M)" if self.parameters else "unknown: the weights do not load",
        )
        first = ", ".join(shown(name, 30) for name in self.classes[:5]) + (", …" if len(self.classes) > 5 else "")
        yield "classes", f"{len(self.classes)}{f', {label_set(self.label_set).title}' if self.label_set else ''}: {first}"
        choice = "; of the suites below, run those of the task it was trained for" if len(self.suites) > 1 else ""
        yield "task", self.task or f"not said by the checkpoint{choice}"
        yield "weights", f"{', '.join(self.files)}, {self.size / 2**20:.1f} MB"
        yield "content", f"sha256 {self.sha256}"
        yield "processor", self.processor or "none"
        yield "suites", ", ".join(self.suites) or "none of the shipped ones has its classes; write one for its dataset"


def inspect(
    reference: str, *, config: str | None = None, labels: str | None = None, progress: "Progress | None" = None
) -> Inspection:
    """Look at a checkpoint, load its weights, and run nothing. Arguments and errors are those of ``resolve``; what is found wrong with
    the weights themselves stands in ``problem``."""
    from m2fbench.models.architecture import backbone_title
    from m2fbench.models.checkpoint import FAMILIES, resolve
    from m2fbench.models.load import load_module
    from m2fbench.models.published import published_labels

    checkpoint = resolve(reference, config=config, labels=labels, progress=progress)
    parameters, problem = None, None
    try:
        parameters = sum(p.numel() for p in load_module(checkpoint).parameters())
    except CheckpointError as error:
        problem = str(error)
    known = published_labels(checkpoint.labels)
    processor = _processor(checkpoint)
    fitting, notes = _suites(checkpoint)
    return Inspection(
        reference=reference,
        form=checkpoint.form,
        family=FAMILIES[checkpoint.config["model_type"]],
        backbone=backbone_title(checkpoint.backbone, checkpoint.config),
        parameters=parameters,
        queries=checkpoint.queries,
        decoder_layers=_decoder_layers(checkpoint),
        classes=checkpoint.labels,
        label_set=known,
        task=checkpoint.task,
        files=checkpoint.weight_files,
        size=sum((checkpoint.folder / name).stat().st_size for name in checkpoint.weight_files),
        sha256=checkpoint.sha256,
        revision=checkpoint.revision,
        published=checkpoint.published,
        processor=processor,
        suites=fitting,
        warnings=(*checkpoint.warnings, *_processor_warnings(checkpoint, processor), *notes),
        problem=problem,
    )


def _decoder_layers(checkpoint: "Checkpoint") -> int | None:
    """transformers' and detectron2's count for Mask2Former has the prediction before the first layer as one."""
    config = checkpoint.config
    if config["model_type"] == "mask2former":
        return int(config.get("decoder_layers", 10)) - 1
    return int((config.get("decoder_config") or {}).get("decoder_layers", 6)) if config["model_type"] == "maskformer" else None


def _processor(checkpoint: "Checkpoint") -> str | None:
    """The input size in preprocessor_config.json as a reader would say it; None where there is none."""
    from m2fbench.models.published import processor_size

    size = processor_size(checkpoint)
    if size is None:
        return None
    if "height" in size:
        return f"{size['width']}x{size['height']}"
    return f"shortest edge {size['shortest_edge']}, longest {size.get('longest_edge', '-')}"


def _processor_warnings(checkpoint: "Checkpoint", processor: str | None) -> Iterator[str]:
    from m2fbench.models.published import published_sizes

    if checkpoint.form != "transformers":
        return
    if processor is None:
        yield "it has no usable preprocessor_config.json: the protocols 'transformers' cannot run it, 'paper' needs none"
        return
    sizes = published_sizes(checkpoint, checkpoint.task) if checkpoint.test_size is None else {checkpoint.test_size: None}
    papers = {f"shortest edge {size[0]}, longest {size[1]}": entry.task if entry else None for size, entry in sizes.items()}
    if papers and processor not in papers:
        said = " or ".join(f"{paper} ({task})" if len(papers) > 1 else paper for paper, task in papers.items())
        yield (
            f"its processor resizes to {processor}, the paper tests at {said}: 'protocol: paper' does so whatever the processor says, "
            f"plain transformers does not; 'm2fbench convert' writes a processor that does"
        )


def _suites(checkpoint: "Checkpoint") -> tuple[tuple[str, ...], list[str]]:
    """Names of the shipped suites that the checkpoint can run, and what to know of it there. A checkpoint that says its task fits the
    suites of that task, a panoptic one those of every task; one that does not fits all that have its classes."""
    from m2fbench.models.classes import match_classes
    from m2fbench.models.published import gives, size_note

    fitting, notes = [], []
    for name in suite_names():
        try:
            suite = load_suite(name)
            match = match_classes(checkpoint.labels, _categories(suite))
        except ClassesError:
            continue
        except M2FBenchError as error:
            notes.append(f"suite {name} could not be looked at: {error}")
            continue
        if checkpoint.task is not None and not gives(checkpoint.task, suite.task):
            continue
        fitting.append(name + _conditions(checkpoint, suite, partly=match.panoptic))
        said = (*(() if match.panoptic else match.warnings), *size_note(checkpoint, _protocol(checkpoint, suite), suite.task))
        notes += [f"in {name}, {note}" for note in said]
    return tuple(fitting), list(dict.fromkeys(notes))


def _protocol(checkpoint: "Checkpoint", suite: Suite) -> ProtocolSection:
    """What a suite runs the checkpoint by: its row's protocol where it stands in the suite, else the suite's."""
    own = (row for row in suite.checkpoints if row.checkpoint is not None and row.checkpoint == checkpoint.reference)
    return next((suite.protocol_of(row) for row in own), suite.protocol)


def _conditions(checkpoint: "Checkpoint", suite: Suite, *, partly: bool) -> str:
    """How a suite that fits can be run, and on what. partly: it has not all of the checkpoint's classes."""
    protocols = {suite.protocol.name, *(variant.protocol for variant in suite.variants)} - {None, "paper"}
    said = [("on its things" if suite.task == "instance" else "on the classes it shares")] if partly else []
    if protocols and checkpoint.form != "transformers":
        said.append("after 'm2fbench convert'")
    return f" ({', '.join(said)})" if said else ""


def _categories(suite: Suite) -> Sequence[Category]:
    """The classes of a suite's dataset, whether or not the data is here."""
    if suite.labels is not None:
        return label_set(suite.labels).classes
    if datasets.get(suite.dataset.name).needs_data is None:
        return open_dataset(suite, None).categories
    raise ClassesError(f"{suite.suite}: says no 'labels'")
