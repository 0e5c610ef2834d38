"""The operators of a forward pass and their shapes, seen without doing the arithmetic.

The module runs on the meta device, where tensors have shapes and no data, under a dispatch mode that sees every operator. In inference mode
torch hands it the operators whole (``linear``, ``matmul``, ``layer_norm``), before they come apart into others: the same that a jit trace
has, which is what fvcore counts. A trace itself cannot be had on the meta device.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from m2fbench.errors import M2FBenchError


class NeedsDataError(M2FBenchError):
    """An operator that does not run on shapes alone, so that nothing can be counted."""


@dataclass(frozen=True)
class Shape:
    """Of a tensor."""

    sizes: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.sizes)


@dataclass(frozen=True)
class Call:
    """One operator, called once.

    operator: as a trace names it, ``aten::`` and all. part: of the model, in which it ran. arguments: all of its schema's, in order, with a Shape in
    place of every tensor. output: of its first output that is a tensor, None where none is. copies: its output is its input looked at otherwise.
    """

    operator: str
    part: str
    arguments: tuple[Any, ...]
    output: Shape | None
    copies: bool = False


@dataclass(frozen=True)
class Recording:
    """calls: those of one forward pass that its result depends on, in order. result: on the meta device."""

    calls: tuple[Call, ...]
    result: tuple[torch.Tensor, ...]


def record(run: Callable[[], tuple[torch.Tensor, ...]], rest: str, parts: Sequence[tuple[str, nn.Module]] = ()) -> Recording:
    """Run ``run``, which makes its tensors on the meta device, and note the operators that what it returns depends on.

    What is computed and not used (an auxiliary prediction, the mask for a layer that does not follow) is left out, as a trace has it.
    parts: (name, a module whose calls are that part); what runs outside them is ``rest``. Raises NeedsDataError, one line, where an
    operator cannot run without data.
    """
    (recording,) = record_each(lambda: [run()], rest, parts)
    return recording


def record_each(
    run: Callable[[], Sequence[tuple[torch.Tensor, ...]]], rest: str, parts: Sequence[tuple[str, nn.Module]] = ()
) -> tuple[Recording, ...]:
    """``record`` for each of several results of one ``run``: what that one alone depends on."""
    where = [rest]
    listener = _Listener(where)
    with torch.inference_mode(), _entered(parts, where), listener:
        results = run()
    return tuple(Recording(tuple(_used(listener.events, result)), result) for result in results)


def record_model(module: nn.Module, size: tuple[int, int], rest: str, parts: Sequence[tuple[str, nn.Module]]) -> Recording:
    """One forward pass of a transformers model on the meta device over one image of ``size`` (height, width), in pixels. Its result: class
    logits [1, Q, C + 1], mask logits [1, Q, h, w]."""

    def run() -> tuple[torch.Tensor, ...]:
        output = module(pixel_values=torch.empty(1, 3, *size, device="meta"))
        return output.class_queries_logits, output.masks_queries_logits

    return record(run, rest, parts)


def record_layers(
    module: nn.Module, size: tuple[int, int], rest: str, parts: Sequence[tuple[str, nn.Module]]
) -> tuple[Recording, ...]:
    """``record_model`` of a Mask2Former stopped after 0, 1, 2 ... of its masked-attention layers, all from one forward pass: the auxiliary
    output of a layer depends on exactly what is run where it is the last."""

    def run() -> list[tuple[torch.Tensor, ...]]:
        output = module(pixel_values=torch.empty(1, 3, *size, device="meta"), output_auxiliary_logits=True)
        earlier = [(one["class_queries_logits"], one["masks_queries_logits"]) for one in output.auxiliary_logits]
        return [*earlier, (output.class_queries_logits, output.masks_queries_logits)]

    return record_each(run, rest, parts)


@dataclass(frozen=True)
class _Event:
    """A call, and the memory that it reads and writes: views of one tensor share theirs, so one that is written into is seen in the others."""

    call: Call
    reads: frozenset[int]
    writes: frozenset[int]


def _used(events: Sequence[_Event], result: tuple[torch.Tensor, ...]) -> list[Call]:
    needed = {_memory(tensor) for tensor in result}
    used = []
    for event in reversed(events):
        if not needed.isdisjoint(event.writes):
            needed |= event.reads
            used.append(event.call)
    return used[::-1]


def _memory(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _entered(parts: Sequence[tuple[str, nn.Module]], where: list[str]) -> Iterator[None]:
    """Keep the name of the innermost part that runs last in ``where``."""

    def leave(*_: Any) -> None:
        where.pop()

    hooks: list[Any] = []
    for name, module in parts:

        def enter(*_: Any, name: str = name) -> None:
            where.append(name)

        hooks += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


class _Listener(TorchDispatchMode):
    """Notes what is dispatched. What an operator does inside is not seen: the mode is off meanwhile."""

    def __init__(self, where: list[str]) -> None:
        super().__init__()
        self.events: list[_Event] = []
        self._where = where
        self._kept: list[torch.Tensor] = []  # so that no two tensors of the pass lie at one address

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = list(_in_order(func, args, kwargs or {}))
        output = _run(func, args, kwargs or {})
        made, taken = list(_tensors(output)), list(_tensors(given))
        written = [t for value, a in zip(given, func._schema.arguments, strict=True) if a.is_write for t in _tensors(value)]
        self._kept += made
        call = Call(
            func.name().partition(".")[0],
            self._where[-1],
            tuple(map(_shaped, given)),
            _shaped(made[0]) if made else None,
            copies=func.is_view,
        )
        writes = frozenset(map(_memory, (*made, *written)))
        self.events.append(_Event(call, frozenset(map(_memory, taken)), writes))
        return output


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)


def _run(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if func is torch.ops.aten.nonzero.default:  # how many there are is not known; what is done with their indices is no arithmetic
        return torch.empty((0, args[0].dim()), dtype=torch.int64, device="meta")
    try:
        return func(*args, **kwargs)
    except (NotImplementedError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NeedsDataError(
            f"the operator {func.name()} cannot run on shapes alone, so nothing was counted: {reason[:200]}"
        ) from error


def _in_order(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """The arguments as the operator's schema lists them, defaults filled in."""
    for index, argument in enumerate(func._schema.arguments):
        yield args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)


def _shaped(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Shape(tuple(value.shape))
    return tuple(map(_shaped, value)) if isinstance(value, list | tuple) else value
