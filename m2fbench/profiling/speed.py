"""Timing several ways of doing the same work side by side, image by image, so that a machine that drifts drifts for all alike.

Two scopes, never mixed:

- ``paper``: what the paper's fps is (detectron2's evaluator): batch of one, all heads that the original configuration enables, the copy of the
  input to the device, the model and its post-processing up to results on the device, the device synchronised before and after; the first five
  images are not counted. Decoding and resizing before, and encoding after, stay outside.
- ``task``: the same for the one head that the task asks for, and every input shape is run once untimed before it is first timed, so that what a
  library does once a shape (choosing kernels, compiling) is no part of the figure.

What lies outside is timed too, and reported apart. Garbage is collected between images, not while one is timed.
"""

import gc
import random
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from m2fbench.profiling.stages import Clock, between, mark, timed_parts
from m2fbench.sections import Scope

WARM_UP = 5  # images that scope "paper" does not count, as detectron2's evaluator has it

Input = TypeVar("Input")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Candidate(Generic[Input, Result]):
    """One way of doing the work.

    copy: an input to the device. forward: what ``copy`` gave -> the model's output. compute: that -> the results, on the device. finish: the
    results -> predictions on the host, encoded. parts: (name, module) of those of the model whose times are told apart; rest: what
    all else of it is called. shape: what of an input a
    library may choose kernels by.
    """

    name: str
    scope: Scope
    device: torch.device
    copy: Callable[[Input], Input]
    forward: Callable[[Input], Any]
    compute: Callable[[Any], Any]
    finish: Callable[[Any], Result]
    shape: Callable[[Input], Hashable]
    parts: Sequence[tuple[str, Any]] = ()
    rest: str = "model"


@dataclass(frozen=True)
class Timing(Generic[Result]):
    """One image done one way. seconds: from the copy to the results on the device, which is the figure. stages: seconds of "copy", each part of the
    model, the rest of it, "post-processing" and, outside the figure, "encode". counted: False for what warms up. first: the first
    input of its shape, whose time holds what a library does once a shape. failure: why there is no result, in which case nothing else is meant."""

    candidate: Candidate[Any, Result]
    seconds: float
    stages: dict[str, float]
    counted: bool
    first: bool
    result: Result | None
    failure: str | None = None


def interleaved(
    candidates: Sequence[Candidate[Input, Result]],
    inputs: Iterable[Input],
    *,
    clock: Clock,
    failures: tuple[type[Exception], ...] = (),
    around: Callable[[Candidate[Input, Result]], Any] | None = None,
) -> Iterator[tuple[Input, list[Timing[Result]]]]:
    """Each input with one timing a candidate, in the candidates' order; which is first, second, ... is drawn anew for every input, the same
    draws in every run, so that none always follows the same other.

    failures: exceptions that cost one image, not the measurement; running out of memory is one of them always. around: a context manager that
    each timed piece of work runs inside, entered before and left after it is timed (for what watches memory).
    """
    seen: set[tuple[int, Hashable]] = set()
    order, draw = list(range(len(candidates))), random.Random(0)
    lost: tuple[type[Exception], ...] = (*failures, torch.OutOfMemoryError, MemoryError)
    with _no_collection():
        for number, item in enumerate(inputs):
            draw.shuffle(order)
            found: dict[int, Timing[Result]] = {}
            for index in order:
                candidate = candidates[index]
                key = index, candidate.shape(item)
                first = key not in seen
                try:
                    if candidate.scope == "task" and first:
                        warm_up(candidate, item)
                        first = False
                    counted = candidate.scope == "task" or number >= WARM_UP
                    with (around or _nothing)(candidate):
                        found[index] = time_one(candidate, item, clock, counted=counted, first=first)
                    seen.add(key)
                except lost as error:
                    found[index] = Timing(candidate, 0.0, {}, False, first, None, str(error) or type(error).__name__)
                gc.collect()
            yield item, [found[index] for index in range(len(candidates))]


def warm_up(candidate: Candidate[Input, Result], item: Input) -> None:
    """The timed work once, untimed."""
    candidate.compute(candidate.forward(candidate.copy(item)))
    synchronise(candidate.device)


def time_one(
    candidate: Candidate[Input, Result], item: Input, clock: Clock, *, counted: bool, first: bool = False
) -> Timing[Result]:
    """The work on one input, timed from a quiet device to a quiet device."""
    device = candidate.device
    synchronise(device)
    started = clock()
    before = mark(device, clock)
    copied = candidate.copy(item)
    ready = mark(device, clock)
    with timed_parts(candidate.parts, device, clock) as parts:
        output = candidate.forward(copied)
    passed = mark(device, clock)
    results = candidate.compute(output)
    done = mark(device, clock)
    synchronise(device)
    seconds = clock() - started
    begun = clock()
    finished = candidate.finish(results)
    encode = clock() - begun
    stages = {"copy": between(before, ready), **parts.seconds()}
    forward = between(ready, passed)
    stages[candidate.rest] = forward - sum(parts.seconds().values())
    stages |= {"post-processing": between(passed, done), "encode": encode}
    return Timing(candidate, seconds, stages, counted, first, finished)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _nothing(_: object) -> Iterator[None]:
    yield


@contextmanager
def _no_collection() -> Iterator[None]:
    """What is there already is set aside, so that collecting between images takes next to nothing."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
