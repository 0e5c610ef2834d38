"""The work that is timed: images made ready for several variants at once, and one variant's way of doing one."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from m2fbench.errors import ImageError
from m2fbench.planning import Job, Session
from m2fbench.predicting import encoded
from m2fbench.sections import Scope
from m2fbench.store import ImagePredictions
from m2fbench.types import Dataset, Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from m2fbench.models.load import LoadedModel
    from m2fbench.models.preprocess import ModelInput
    from m2fbench.models.protocols import Protocol
    from m2fbench.profiling.speed import Candidate

    Looks = tuple[ModelInput, ...]
    Prepare = Callable[[NDArray[np.uint8]], Looks]


@dataclass(frozen=True)
class Item:
    """One image ready to be timed. load_seconds: of decoding it. looks, prepare_seconds: by variant, those of one protocol being shared."""

    example: Example
    looks: "dict[str, Looks]"
    prepare_seconds: dict[str, float]
    load_seconds: float


@dataclass(frozen=True)
class _Prepared:
    """One image as every protocol wants it; seconds: of preparing each."""

    looks: "tuple[Looks, ...]"
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class _EveryInput:
    """Prepares one image for several protocols; crosses to worker processes."""

    prepares: "tuple[Prepare, ...]"

    def __call__(self, image: "NDArray[np.uint8]") -> _Prepared:
        looks, seconds = [], []
        for prepare in self.prepares:
            started = time.perf_counter()
            looks.append(prepare(image))
            seconds.append(time.perf_counter() - started)
        return _Prepared(tuple(looks), tuple(seconds))


def items(
    session: Session, variants: "Sequence[tuple[Job, Protocol]]", unreadable: Callable[[Example, ImageError], None]
) -> Iterator[Item]:
    """The session's images, decoded once and prepared once for variants that want the same. unreadable: called with what cannot be read."""
    from m2fbench.models.feed import feed, pinned

    prepares: dict[str, Prepare] = {}
    place: dict[str, int] = {}
    for job, protocol in variants:
        key = repr(job.spec.protocol)
        prepares.setdefault(key, protocol.prepare)
        place[job.spec.variant.name] = list(prepares).index(key)
    job, cuda = variants[0][0], session.device == "cuda"
    workers = job.spec.suite.workers if cuda else 0  # on a CPU, processes that decode would take from what is timed
    for fed in feed(job.examples, session.dataset.image, _EveryInput(tuple(prepares.values())), workers=workers):
        if isinstance(fed.data, ImageError):
            unreadable(fed.example, fed.data)
            continue
        looks = tuple(pinned(one) for one in fed.data.looks) if cuda else fed.data.looks
        yield Item(
            fed.example,
            {name: looks[index] for name, index in place.items()},
            {name: fed.data.seconds[index] for name, index in place.items()},
            fed.load_seconds - sum(fed.data.seconds),
        )


def first_item(session: Session, job: Job, protocol: "Protocol") -> Item | None:
    """The first image that can be read, for one variant; None where there is none."""
    for example in job.examples:
        try:
            looks = protocol.prepare(session.dataset.image(example))
        except ImageError:
            continue
        return Item(example, {job.spec.variant.name: looks}, {job.spec.variant.name: 0.0}, 0.0)
    return None


@dataclass(frozen=True)
class Finished:
    """One image's predictions; fallbacks: what it took where memory was short, in which case its time is nobody's figure."""

    predictions: ImagePredictions
    fallbacks: tuple[str, ...]


def candidate_of(
    dataset: Dataset, job: Job, model: "LoadedModel", protocol: "Protocol", scope: Scope
) -> "Candidate[Any, Finished]":
    """One variant's work in one scope, as the profiler wants it: on an image's looks, with the example carried along."""
    from m2fbench.models.load import views_of
    from m2fbench.models.memory import post_process, run_forward
    from m2fbench.models.parts import part_modules, parts_of
    from m2fbench.models.variants import switched
    from m2fbench.profiling.speed import Candidate

    name = job.spec.variant.name

    def copy(item: Item) -> "tuple[Example, Looks]":
        return item.example, tuple(
            replace(look, pixels=look.pixels.to(model.device, non_blocking=True)) for look in item.looks[name]
        )

    def forward(copied: "tuple[Example, Looks]") -> Any:
        example, looks = copied
        views, notes = run_forward(lambda: views_of(model, looks), looks[0].geometry.padded, lambda: None)
        return example, views, notes

    def compute(output: Any) -> Any:
        example, views, notes = output
        with switched(model.switches):
            results, more = post_process(protocol.compute, views)
        return example, results, (*notes, *more)

    def finish(computed: Any) -> Finished:
        example, results, notes = computed
        return Finished(encoded(dataset, example, protocol.finish(results), job.classes), notes)

    parts, whole = parts_of(job.checkpoint.config), model.module is None
    return Candidate(
        name=name, scope=scope, device=model.device, copy=copy, forward=forward, compute=compute, finish=finish,
        shape=lambda item: tuple(look.geometry for look in item.looks[name]),
        parts=() if whole else tuple(part_modules(model.module, parts)), rest="model" if whole else parts.rest,
    )  # fmt: skip
