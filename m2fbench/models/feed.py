"""Images decoded and prepared in worker processes while the model works on the ones before."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from m2fbench.errors import ImageError
from m2fbench.models.preprocess import ModelInput
from m2fbench.types import Example

READ_AHEAD = 2  # images each worker keeps ready

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Fed(Generic[Prepared]):
    """One example as prepared, or what was wrong with its image. load_seconds: decoding and preparing, in the worker.
    wait_seconds: what the caller waited for it."""

    example: Example
    data: Prepared | ImageError
    load_seconds: float
    wait_seconds: float = 0.0


class _Prepared(Dataset[Fed[Prepared]]):
    def __init__(
        self,
        examples: Sequence[Example],
        image: Callable[[Example], NDArray[np.uint8]],
        prepare: Callable[[NDArray[np.uint8]], Prepared],
    ) -> None:
        self._examples, self._image, self._prepare = examples, image, prepare

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Fed[Prepared]:
        started = time.perf_counter()
        try:
            data: Prepared | ImageError = self._prepare(self._image(self._examples[index]))
        except ImageError as error:  # as a value: crossing processes, an exception would lose its kind
            source = self._examples[index].source
            data = error if source in str(error) else ImageError(f"{source}: {error}")
        return Fed(self._examples[index], data, time.perf_counter() - started)


def feed(
    examples: Sequence[Example],
    image: Callable[[Example], NDArray[np.uint8]],
    prepare: Callable[[NDArray[np.uint8]], Prepared],
    *,
    workers: int,
) -> Generator[Fed[Prepared], None, None]:
    """The examples in order, prepared. workers: processes, 0 for none; closing the generator ends them."""
    workers = min(workers, len(examples), os.cpu_count() or 1)
    loader = DataLoader(
        _Prepared(examples, image, prepare),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=READ_AHEAD if workers else None,
        collate_fn=None,
        worker_init_fn=_quiet,
    )
    started = time.perf_counter()
    for item in loader:
        waited = time.perf_counter() - started
        yield replace(item, wait_seconds=waited)
        started = time.perf_counter()


def pinned(looks: tuple[ModelInput, ...]) -> tuple[ModelInput, ...]:
    """In page-locked memory, for copies to a CUDA device that need not be waited for."""
    return tuple(replace(look, pixels=look.pixels.pin_memory()) for look in looks)


def _quiet(_: int) -> None:
    """Leave Ctrl-C to the parent, which then ends its workers."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
