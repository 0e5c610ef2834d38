"""Speed: a suite's variants side by side on the same images, in turns, each with its accuracy on just these images.

Nothing is resumed: times of two sessions are not one measurement. The figures and every image's times are kept in the run directory, as
``speed.json`` and ``speed.csv``, beside what an accuracy run leaves there.
"""

import contextlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from m2fbench.errors import DeviceError, ImageError, SuiteError, UnsupportedError
from m2fbench.planning import Event, Job, Session
from m2fbench.predicting import category_records
from m2fbench.sections import Scope
from m2fbench.speed_work import Finished, Item, candidate_of, first_item, items
from m2fbench.store import ImagePredictions, ImageRecord, RunDirectory
from m2fbench.suite import Suite
from m2fbench.types import Dataset, Example, JsonObject
from m2fbench.writing import make_folder

if TYPE_CHECKING:
    from m2fbench.models.load import LoadedModel
    from m2fbench.models.protocols import Protocol
    from m2fbench.profiling.memory import Peak
    from m2fbench.profiling.nvml import Gpu
    from m2fbench.profiling.speed import Candidate, Timing

Clock = Callable[[], float]
KEPT = 8  # images held in memory for the measurement of energy, which goes over them again and again


@dataclass(frozen=True)
class SpeedRequest:
    """scopes: of the figures; the suite's where None. energy: measure it too, for ``energy_seconds`` a variant after ``idle_seconds`` of rest.
    country: ISO 3166 code of three letters, for grams of CO2e."""

    scopes: tuple[Scope, ...] | None = None
    energy: bool = False
    energy_seconds: float = 10.0
    idle_seconds: float = 3.0
    country: str | None = None


@dataclass(frozen=True)
class TimedImage:
    """One image under one variant and scope. seconds: the figure. stages: what it is made of, and what lies outside it. first: the first of
    its input shape. failure: why its time is no figure."""

    example: Example
    seconds: float
    stages: dict[str, float]
    counted: bool
    first: bool
    failure: str | None
    shape: tuple[int, int]


@dataclass
class Subject:
    """One variant under measurement. timed: by scope, image by image. weight_bytes: of its parameters and buffers. energy: None where it was not
    asked for."""

    job: Job
    model: "LoadedModel"
    protocols: "dict[Scope, Protocol]"
    store: RunDirectory
    weight_bytes: int
    timed: dict[Scope, list[TimedImage]] = field(default_factory=dict)
    peaks: "list[Peak]" = field(default_factory=list)
    energy: JsonObject | None = None

    @property
    def name(self) -> str:
        return self.job.spec.variant.name

    def counted(self, scope: Scope) -> list[TimedImage]:
        """The images that count for the figure."""
        return [image for image in self.timed.get(scope, []) if image.counted and image.failure is None]


@dataclass(frozen=True)
class Measured:
    """What one row's measurement left: its variants, those that turned out not to work with the reason, and the state of the machine
    meanwhile."""

    subjects: list[Subject]
    unsupported: dict[str, str]
    scopes: tuple[Scope, ...]
    machine: JsonObject
    notes: tuple[str, ...]


def measure_row(
    session: Session, jobs: Sequence[Job], request: SpeedRequest, folder: Path, *, clock: Clock = time.perf_counter
) -> Measured:
    """Time one row's variants over the session's images. folder: for the predictions, from which accuracy is scored. Raises M2FBenchError."""
    from m2fbench.profiling.disturbances import disturbances, drift
    from m2fbench.profiling.telemetry import watch

    scopes = request.scopes or tuple(jobs[0].spec.suite.speed.scopes)
    with contextlib.ExitStack() as stack:
        subjects, unsupported = _subjects(session, jobs, scopes, folder, stack)
        if not subjects:
            return Measured([], unsupported, scopes, {}, ())
        kept: list[Item] = []
        gpu = _gpu(session, stack)
        with watch(session.device) as machine:
            for scope in scopes:  # one after the other: what one warms up is not to be the other's
                _time(session, subjects, scope, scope == scopes[0], kept, gpu, clock)
        order = [example.image_id for example in session.dataset.examples()]
        for subject in subjects:
            subject.store.export(order, category_records(session.dataset))
        if request.energy:
            for subject in subjects:
                session.tell(Event("start", jobs[0].spec.row.name, subject.name, message="measuring energy"))
                subject.energy = _energy(session, subject, scopes[0], kept, request)
    notes = [*disturbances(machine.summary())]
    for subject, scope in itertools.product(subjects, scopes):
        if said := drift(_relative(subject.counted(scope))):
            notes.append(f"{subject.name}, scope {scope}: {said}")
        notes += _first_of_shapes(subject, scope)
    return Measured(subjects, unsupported, scopes, machine.summary(), tuple(notes))


def _time(
    session: Session,
    subjects: Sequence[Subject],
    scope: Scope,
    scored: bool,
    kept: list[Item],
    gpu: "Gpu | str | None",
    clock: Clock,
) -> None:
    """All images in one scope. scored: its predictions are those that accuracy is scored from."""
    from m2fbench.profiling.speed import interleaved

    job, count = subjects[0].job, len(subjects)
    title = f"{count} variant{'s'[: count != 1]} in scope {scope}"

    def unreadable(example: Example, error: ImageError) -> None:
        if job.spec.suite.on_error == "stop":
            raise error
        if scored:
            for subject in subjects:
                record = ImageRecord(example.image_id, *example.size, 0, "", {}, str(error))
                subject.store.append(record, ImagePredictions())

    session.tell(Event("timed", job.spec.row.name, title, 0, len(job.examples)))
    ready = items(session, [(s.job, s.protocols[scope]) for s in subjects], unreadable)
    timed = interleaved(
        [candidate_of(session.dataset, s.job, s.model, s.protocols[scope], scope) for s in subjects], ready, clock=clock,
        failures=(ImageError, UnsupportedError), around=partial(_watch_memory, session, subjects, gpu),
    )  # fmt: skip
    for done, (item, timings) in enumerate(timed, 1):
        for subject, timing in zip(subjects, timings, strict=True):
            _keep(subject, scope, scored, item, timing)
        if scored and len(kept) < KEPT and all(timing.failure is None for timing in timings):
            kept.append(item)
        session.tell(Event("timed", job.spec.row.name, title, done, len(job.examples)))


def _keep(subject: Subject, scope: Scope, scored: bool, item: Item, timing: "Timing[Finished]") -> None:
    """Write down one image's times and, where they are scored, its predictions."""
    (look, *_) = item.looks[subject.name]
    stages = {"load": item.load_seconds, "preprocess": item.prepare_seconds[subject.name], **timing.stages}
    found = timing.result or Finished(ImagePredictions(), ())
    failure = timing.failure and timing.failure.partition("; ")[0]  # without the advice, which is for runs
    unclean = failure or "; ".join(found.fallbacks) or None
    subject.timed.setdefault(scope, []).append(
        TimedImage(item.example, timing.seconds, stages, timing.counted, timing.first, unclean, look.geometry.padded)
    )
    if scored:
        heads = subject.store.heads  # the others were run for their time only
        predictions = ImagePredictions(**{
            name: getattr(found.predictions, name) if head in heads else None
            for name, head in (("instances", "instance"), ("panoptic", "panoptic"), ("semantic", "semantic"))
        })  # fmt: skip
        number = len(predictions.instances) if predictions.instances is not None else 1
        subject.store.append(
            ImageRecord(item.example.image_id, *item.example.size, number, "", {"timed": timing.seconds}, failure, found.fallbacks),
            predictions,
        )


@contextlib.contextmanager
def scratch_folder(beside: Path) -> Iterator[Path]:
    """A folder for predictions that are scored and then not needed any more. Raises StoreError where none can be made."""
    make_folder(beside)
    with tempfile.TemporaryDirectory(prefix=".speed-", dir=beside) as name:
        yield Path(name)


def checked_request(suite: Suite, dataset: Dataset, limit: int | None, request: SpeedRequest) -> SpeedRequest:
    """The request with what the suite says, before hours of work. Raises SuiteError for too few images, EmissionsError for a country that has
    no grid."""
    from m2fbench.profiling.emissions import grid
    from m2fbench.profiling.speed import WARM_UP

    scopes = request.scopes or tuple(suite.speed.scopes)
    images = len(dataset.examples()[:limit])
    if "paper" in scopes and images <= WARM_UP:
        raise SuiteError(
            f"{images} images: scope 'paper' does not count the first {WARM_UP}; measure over more, or in scope 'task'"
        )
    if request.country is not None:
        grid(request.country)
    energy = request.energy or "energy" in suite.measure or request.country is not None
    return replace(request, scopes=scopes, energy=energy)


def _subjects(
    session: Session, jobs: Sequence[Job], scopes: Sequence[Scope], folder: Path, stack: contextlib.ExitStack
) -> tuple[list[Subject], dict[str, str]]:
    """The variants, loaded and tried on the first image that can be read; and those that this device cannot do, with the reason."""
    from m2fbench.profiling.speed import warm_up

    subjects: list[Subject] = []
    unsupported: dict[str, str] = {}
    for job in jobs:
        try:
            subject = _subject(session, job, scopes, folder, stack)
            item = first_item(session, job, subject.protocols[scopes[0]])
            if item is not None:
                session.tell(job.event("load", message="trying it on the first image"))
                with contextlib.suppress(ImageError):  # too large for the memory, as others need not be
                    warm_up(candidate_of(session.dataset, job, subject.model, subject.protocols[scopes[0]], scopes[0]), item)
        except DeviceError as error:  # UnsupportedError among them
            session.tell(job.event("unsupported", message=str(error)))
            unsupported[job.spec.variant.name] = str(error)
        else:
            subjects.append(subject)
    return subjects, unsupported


def _subject(session: Session, job: Job, scopes: Sequence[Scope], folder: Path, stack: contextlib.ExitStack) -> Subject:
    """The model loaded, and a place for its predictions."""
    session.tell(job.event("load", message=f"loading {job.checkpoint.location}"))
    model = session.loader(job.checkpoint, job.spec.variant, session.device)
    heads = job.spec.suite.timed_heads
    protocols = {scope: job.protocol_of(session.dataset, heads[scope]) for scope in scopes}
    scored = tuple(head for head in session.heads if head in heads[scopes[0]])
    name = job.spec.variant.name
    store = stack.enter_context(RunDirectory(folder / name, {"variant": name}, heads=scored))
    weights = () if model.module is None else itertools.chain(model.module.parameters(), model.module.buffers())
    return Subject(job, model, protocols, store, sum(weight.nbytes for weight in weights))


def _gpu(session: Session, stack: contextlib.ExitStack) -> "Gpu | str | None":
    """The device for NVML, opened once for all images, or why it cannot be; None on a CPU."""
    from m2fbench.profiling import nvml

    if session.device != "cuda":
        return None
    gpu = nvml.open_gpu(nvml.torch_identity(session.device))
    stack.callback(nvml.close, gpu)
    return gpu


@contextlib.contextmanager
def _watch_memory(
    session: Session, subjects: Sequence[Subject], gpu: "Gpu | str | None", candidate: "Candidate[Any, Any]"
) -> Iterator[None]:
    from m2fbench.profiling.memory import peak_memory

    with peak_memory(session.device, gpu=gpu) as peak:
        yield
    next(s for s in subjects if s.name == candidate.name).peaks.append(peak)


def _relative(images: Sequence[TimedImage]) -> list[float]:
    """Each time over the median of its input shape, in order: what is left is not the images' doing."""
    by_shape: dict[tuple[int, int], list[float]] = {}
    for image in images:
        by_shape.setdefault(image.shape, []).append(image.seconds)
    medians = {shape: statistics.median(seconds) for shape, seconds in by_shape.items()}
    return [image.seconds / medians[image.shape] for image in images if len(by_shape[image.shape]) > 1]


def _first_of_shapes(subject: Subject, scope: Scope) -> Iterator[str]:
    """What a variant that does something once a shape, compiling or choosing kernels, has of that in its figure."""
    images, variant = subject.counted(scope), subject.job.spec.variant
    first = [image for image in images if image.first]
    if first and (variant.compile or variant.cudnn_benchmark):
        share = sum(image.seconds for image in first) / sum(image.seconds for image in images)
        yield (
            f"{subject.name}, scope {scope}: {len(first)} of {len(images)} counted images are the first of their input shape, {100 * share:.0f} % of "
            f"the time, in which kernels are compiled or chosen; scope 'task' leaves that out"
        )


def _energy(session: Session, subject: Subject, scope: Scope, kept: Sequence[Item], request: SpeedRequest) -> JsonObject:
    """Joules an image, and grams of CO2e where a country is given: the timed work again and again over the first images."""
    from m2fbench.profiling.emissions import co2, grid
    from m2fbench.profiling.energy import measure_energy
    from m2fbench.profiling.meters import meters
    from m2fbench.profiling.speed import warm_up

    candidate = candidate_of(session.dataset, subject.job, subject.model, subject.protocols[scope], scope)

    def step() -> None:
        for item in kept:
            warm_up(candidate, item)

    facts: JsonObject = {"energy": None, "emissions": None, "energy_scope": scope, "energy_images": len(kept), "failure": None}
    if not kept:
        return facts | {"failure": "no image that every variant could do"}
    where = grid(request.country) if request.country else None
    try:
        with meters(session.device) as (counters, reasons):
            used = measure_energy(
                step, images=len(kept), seconds=request.energy_seconds, meters=counters, reasons=reasons,
                idle_seconds=request.idle_seconds,
            )  # fmt: skip
        emitted = co2(used, where, step=step, images=len(kept), seconds=request.energy_seconds)
    except ImageError as error:  # memory that was enough for them once
        return facts | {"failure": str(error)}
    return facts | {"energy": asdict(used), "emissions": asdict(emitted)}
