"""How long each part of a model takes, by hooks on its modules.

On CUDA the work is only queued when a module returns, so events are put into the queue and read once the device has finished; elsewhere the
clock is read.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

Clock = Callable[[], float]
"""Seconds from any origin, never going back."""


@dataclass
class Marks:
    """The begin and end of each part, as often as it ran: CUDA events or clock readings. A run that failed has no end."""

    spans: dict[str, list[list[Any]]] = field(default_factory=dict)

    def seconds(self) -> dict[str, float]:
        """Summed over the runs of each part that came to their end. On CUDA only once the device has finished."""
        return {name: sum(between(*span) for span in spans if len(span) == 2) for name, spans in self.spans.items()}


def between(begin: Any, end: Any) -> float:
    """Seconds from one mark to another."""
    return float(begin.elapsed_time(end)) / 1000 if isinstance(begin, torch.cuda.Event) else float(end - begin)


def mark(device: torch.device, clock: Clock) -> Any:
    """This moment: of the device's queue on CUDA, of the clock elsewhere."""
    if device.type != "cuda":
        return clock()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


@contextmanager
def timed_parts(parts: Iterable[tuple[str, Any]], device: torch.device, clock: Clock) -> Iterator[Marks]:
    """Time the forward passes of the modules ``parts``, (name, torch module), inside the block; those of one name are added up."""
    marks = Marks()
    hooks = []
    for name, module in parts:

        def begin(*_: Any, name: str = name) -> None:
            marks.spans.setdefault(name, []).append([mark(device, clock)])

        def end(*_: Any, name: str = name) -> None:
            marks.spans[name][-1].append(mark(device, clock))

        hooks += [module.register_forward_pre_hook(begin), module.register_forward_hook(end)]
    try:
        yield marks
    finally:
        for hook in hooks:
            hook.remove()
