"""FLOPs of recorded operators, by fvcore's own formulas and under two named definitions that are never mixed.

One multiply-add is one FLOP, as fvcore counts and the papers print. The formulas are those of ``fvcore.nn``, called with shapes in place of a
trace's values; even the four digits to which it rounds an einsum are kept, so that a count equals fvcore's own of the same model to the last FLOP.
"""

import functools
import types
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from m2fbench.profiling.operators import Call, Shape
from m2fbench.types import JsonObject

CONVENTION = "one multiply-add = one FLOP (MACs); twice as many arithmetic operations"

POST_PROCESSING = "post-processing"


@dataclass(frozen=True)
class Definition:
    """What a count counts. text: to stand beside its figures. without: operators of fvcore's that it leaves out. as_bmm: operators that it counts
    as batched matrix products, which fvcore passes over. post_processing: whether that is inside."""

    name: str
    text: str
    without: frozenset[str] = frozenset()
    as_bmm: frozenset[str] = frozenset()
    post_processing: bool = False


# fixed before anything was measured; a difference from a published figure is reported, not tuned away
FVCORE = Definition(
    "fvcore",
    "what fvcore's FlopCountAnalysis, as installed, counts of the model alone: convolutions, matrix products, normalisations (batch norm too), "
    "bilinear upsampling and grid sampling; not the masked cross-attention's baddbmm, not softmax, activations and other elementwise operators, "
    "and no post-processing",
)
PAPER = Definition(
    "paper",
    "the paper's tool chain, detectron2's wrapper of fvcore over the whole of the original model: convolutions, matrix products (those of the masked "
    "cross-attention too), layer and group norms, bilinear upsampling, the deformable attention's grid sampling, and of the post-processing both "
    "upsamplings of every query and the semantic einsum; not batch norm, softmax, activations and other elementwise operators",
    without=frozenset({"aten::batch_norm"}),
    as_bmm=frozenset({"aten::baddbmm"}),
    post_processing=True,
)
DEFINITIONS = (FVCORE, PAPER)


@dataclass(frozen=True)
class Uncounted:
    """An operator that a definition has no formula for. occurrences: calls. estimate: of its FLOPs, and ``rule`` says how it was made."""

    occurrences: float
    estimate: float
    rule: str


@dataclass(frozen=True)
class Count:
    """FLOPs of one forward pass under one definition. flops: part -> operator -> FLOPs. uncounted: operator -> what is known of it."""

    definition: str
    flops: Mapping[str, Mapping[str, float]]
    uncounted: Mapping[str, Uncounted]

    @property
    def total(self) -> float:
        return sum(self.by_part.values())

    @property
    def by_part(self) -> dict[str, float]:
        return {part: sum(operators.values()) for part, operators in self.flops.items()}

    @property
    def by_operator(self) -> dict[str, float]:
        """By fvcore's names, the largest first."""
        total: Counter[str] = Counter()
        for operators in self.flops.values():
            total.update(operators)
        return dict(total.most_common())


@dataclass(frozen=True)
class MeanCount:
    """A count over several images. mean, std: of the images' totals, in FLOPs; the standard deviation is the population's (divided by n), as the
    original's analyze_model.py has it. count: the mean of every part and operator."""

    mean: float
    std: float
    count: Count

    def to_json(self) -> JsonObject:
        return {
            "flops": self.mean,
            "operations": 2 * self.mean,
            "std": self.std,
            "by_part": self.count.by_part,
            "by_operator": self.count.by_operator,
            "by_part_and_operator": {part: dict(operators) for part, operators in self.count.flops.items()},
            "uncounted": {
                name: {"occurrences": u.occurrences, "estimated_flops": u.estimate, "estimate": u.rule}
                for name, u in self.count.uncounted.items()
            },
        }


def count(calls: Iterable[Call], definition: Definition, parts: Sequence[str]) -> Count:
    """``parts``: those that the calls are of, in the order of tables."""
    flops: dict[str, Counter[str]] = {part: Counter() for part in parts}
    uncounted: dict[str, tuple[int, float, str]] = {}
    for call in calls:
        found = _flops(call, definition)
        if found is not None:
            flops.setdefault(call.part, Counter()).update(found)
        elif not (call.copies or call.operator in _no_arithmetic()):
            name, (estimate, rule) = _as_traced(call)[0].removeprefix("aten::"), _estimate(call)
            occurrences, before, _ = uncounted.get(name, (0, 0.0, ""))
            uncounted[name] = occurrences + 1, before + estimate, rule
    ordered = sorted(uncounted.items(), key=lambda item: -item[1][1])
    return Count(
        definition.name,
        {part: dict(operators.most_common()) for part, operators in flops.items()},
        {name: Uncounted(*known) for name, known in ordered},
    )


def together(model: Count, post_processing: Count) -> Count:
    """The count of both."""
    uncounted = dict(model.uncounted)
    for name, more in post_processing.uncounted.items():
        known = uncounted.get(name, Uncounted(0, 0.0, more.rule))
        uncounted[name] = Uncounted(known.occurrences + more.occurrences, known.estimate + more.estimate, more.rule)
    return Count(model.definition, {**model.flops, **post_processing.flops}, uncounted)


def mean(counts: Sequence[Count], images: Sequence[int]) -> MeanCount:
    """Over images; ``images``: of how many each count is the count."""
    number = sum(images)
    totals = [c.total for c in counts]
    average = sum(n * total for n, total in zip(images, totals, strict=True)) / number
    variance = sum(n * (total - average) ** 2 for n, total in zip(images, totals, strict=True)) / number
    flops: dict[str, Counter[str]] = {}
    uncounted: dict[str, list[tuple[int, Uncounted]]] = {}
    for n, one in zip(images, counts, strict=True):
        for part, operators in one.flops.items():
            flops.setdefault(part, Counter()).update({name: n * value for name, value in operators.items()})
        for name, known in one.uncounted.items():
            uncounted.setdefault(name, []).append((n, known))
    means = {part: {name: value / number for name, value in operators.items()} for part, operators in flops.items()}
    left = {
        name: Uncounted(sum(n * u.occurrences for n, u in us) / number, sum(n * u.estimate for n, u in us) / number, us[0][1].rule)
        for name, us in uncounted.items()
    }
    return MeanCount(average, variance**0.5, Count(counts[0].definition, means, left))


def _flops(call: Call, definition: Definition) -> Mapping[str, float] | None:
    """fvcore's name of the operator -> FLOPs; None where the definition has no formula for it, or its formula has none for these shapes."""
    if call.operator in definition.without:
        return None
    name, arguments = _as_traced(call)
    handle = _handles().get("aten::bmm" if name in definition.as_bmm else name)
    if handle is None or (call.output is None):
        return None
    if name in definition.as_bmm:
        arguments = arguments[1:3]
    try:
        found = handle([_Value(value) for value in arguments], [_Value(call.output)])
    except (AssertionError, IndexError, NotImplementedError, TypeError):
        return None  # a matrix times a vector, say: fvcore's own count ends here with an error
    return found if isinstance(found, Counter) else {name.partition("::")[2]: found}


_CONVOLUTIONS = {f"aten::conv{transposed}{n}d": bool(transposed) for transposed in ("", "_transpose") for n in (1, 2, 3)}


def _as_traced(call: Call) -> tuple[str, tuple[Any, ...]]:
    """Name and arguments as a trace has them. Convolutions are all one operator there; padded by name they are another, which fvcore does
    not know."""
    arguments = call.arguments
    if call.operator in _CONVOLUTIONS:
        by_name = "_mode" if isinstance(arguments[4], str) else ""
        return f"aten::_convolution{by_name}", (*arguments[:6], _CONVOLUTIONS[call.operator], *[None] * 6)
    if call.operator == "aten::convolution":
        return "aten::_convolution", (*arguments[:9], *[None] * 4)
    if call.operator == "aten::einsum":
        return call.operator, arguments[:2]
    return call.operator, arguments


class _Value:
    """Stands for a value of a trace: what fvcore's formulas ask of one."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def isCompleteTensor(self) -> bool:
        return isinstance(self._value, Shape)

    def type(self) -> "_Value":
        return self

    def sizes(self) -> list[int]:
        return list(self._value.sizes)

    def toIValue(self) -> Any:
        return self._value

    def node(self) -> "_Value":
        return self

    def inputs(self) -> list["_Value"]:
        return [_Value(value) for value in self._value]


Handle = Callable[[list[_Value], list[_Value]], Any]


@functools.cache
def _handles() -> Mapping[str, Handle]:
    """Operator -> formula, as fvcore has them by default."""
    return dict(_fvcore()._op_handles) | {"aten::einsum": _einsum}


def _fvcore() -> Any:
    """A count of nothing, that knows fvcore's formulas and what it passes over."""
    from fvcore.nn import FlopCountAnalysis
    from torch import nn

    return FlopCountAnalysis(nn.Identity(), ())


def _einsum(inputs: list[_Value], outputs: list[_Value]) -> float:
    shapes = tuple(tuple(value.sizes()) for value in inputs[1].inputs())
    return _einsum_of(str(inputs[0].toIValue()), shapes)


@functools.cache
def _einsum_of(equation: str, shapes: tuple[tuple[int, ...], ...]) -> float:
    """fvcore's formula, run with zeros that take no memory: it makes arrays of the operands' shapes, gigabytes for the masks of a large image."""
    from fvcore.nn import jit_handles

    original = jit_handles.einsum_flop_jit
    numpy = types.SimpleNamespace(**vars(np) | {"zeros": lambda shape: np.broadcast_to(np.float64(0), shape)})
    formula = types.FunctionType(original.__code__, {**original.__globals__, "np": numpy})
    return float(formula([_Value(equation), _Value(tuple(map(Shape, shapes)))], []))


# data moved and not computed, besides what fvcore itself holds to be no arithmetic (comparisons and relu among it)
_MOVES = {
    "alias", "as_strided", "clone", "copy", "detach_", "empty_like", "empty_strided", "expand_as", "fill_", "flip", "index_select",
    "lift_fresh", "meshgrid", "movedim", "new_ones", "ones_like", "pad", "repeat", "repeat_interleave", "scalar_tensor", "swapaxes", "view_as",
    "zero_", "_to_copy", "_unsafe_view",
}  # fmt: skip


@functools.cache
def _no_arithmetic() -> frozenset[str]:
    return frozenset(_fvcore()._ignored_ops) | {f"aten::{name}" for name in _MOVES}


def _estimate(call: Call) -> tuple[float, str]:
    """FLOPs of an operator that is not counted, roughly, and by which rule."""
    shapes = [value for value in call.arguments if isinstance(value, Shape)]
    if call.operator == "aten::baddbmm":
        return float(shapes[1].elements * shapes[2].sizes[-1]), "as a batched matrix product"
    if _as_traced(call)[0] == "aten::_convolution_mode" and call.output:
        return float(call.output.elements * prod(shapes[1].sizes[1:])), "as a convolution"
    if (counted := _flops(call, FVCORE)) is not None:
        return float(sum(counted.values())), "as fvcore counts it"
    if call.operator == "aten::scaled_dot_product_attention":
        query, key, value = shapes[:3]
        return float(
            query.elements * key.sizes[-2] + prod(query.sizes[:-1]) * value.elements / prod(value.sizes[:-2])
        ), "as its two matrix products"
    return float(call.output.elements if call.output else 0), "one per element of its output"
