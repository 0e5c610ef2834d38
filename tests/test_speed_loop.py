"""The measuring loop on a synthetic clock: what is inside a figure, what is outside, what warms up, and who goes first."""

import contextlib
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from m2fbench.errors import ImageError
from m2fbench.profiling.speed import WARM_UP, Candidate, interleaved
from m2fbench.profiling.stages import timed_parts

CPU = torch.device("cpu")


class World:
    """A clock that only the work moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def work(self, name: str, seconds: float) -> None:
        self.now += seconds
        self.log.append(name)

    def candidate(self, name: str, scope: Any = "paper", model: float = 4.0, fails_at: int | None = None) -> Candidate[int, str]:
        def copy(item: int) -> int:
            self.work(f"{name}:copy", 1.0)
            return item

        def forward(item: int) -> int:
            if item == fails_at:
                raise ImageError("too large")
            self.work(f"{name}:forward", model)
            return item

        def compute(item: int) -> int:
            assert not gc.isenabled()
            self.work(f"{name}:compute", 2.0)
            return item

        def finish(item: int) -> str:
            self.work(f"{name}:finish", 8.0)
            return f"{name} {item}"

        return Candidate(name, scope, CPU, copy, forward, compute, finish, shape=lambda item: item % 2)


def test_the_figure_holds_copy_model_and_postprocessing_and_nothing_else() -> None:
    world = World()

    def inputs() -> Iterator[int]:
        for number in range(WARM_UP + 2):
            world.work("decode", 16.0)
            yield number

    found = list(interleaved([world.candidate("a")], inputs(), clock=world.clock))
    assert [item for item, _ in found] == list(range(WARM_UP + 2))
    assert [t.counted for _, (t,) in found] == [False] * WARM_UP + [True] * 2
    for item, (timing,) in found:
        assert timing.seconds == 7.0
        assert timing.stages == {"copy": 1.0, "model": 4.0, "post-processing": 2.0, "encode": 8.0}
        assert timing.result == f"a {item}"
    assert gc.isenabled()


def test_scope_task_warms_every_shape_once_and_counts_all() -> None:
    world = World()
    found = list(interleaved([world.candidate("a", "task")], range(4), clock=world.clock))
    assert all(t.counted and t.seconds == 7.0 for _, (t,) in found)
    # two shapes, each once more than it is timed, up to the results and no further
    assert [world.log.count(f"a:{step}") for step in ("copy", "forward", "compute", "finish")] == [6, 6, 6, 4]


def test_variants_take_turns_in_no_fixed_order() -> None:
    """None is always first, and none always follows the same other; the order is the same in every run."""
    world, again = World(), World()
    for each in (world, again):
        candidates = [each.candidate(name, model=seconds) for name, seconds in (("a", 1.0), ("b", 2.0), ("c", 3.0))]
        found = list(interleaved(candidates, range(60), clock=each.clock))
        # in the order given, whoever was first
        assert {tuple(t.seconds for t in timings) for _, timings in found} == {(4.0, 5.0, 6.0)}
    assert world.log == again.log
    order = "".join(entry[0] for entry in world.log if entry.endswith("forward"))
    rounds = [order[k : k + 3] for k in range(0, len(order), 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert set(rounds) == {"abc", "acb", "bac", "bca", "cab", "cba"}


def test_the_first_input_of_a_shape_is_marked() -> None:
    world = World()
    found = list(interleaved([world.candidate("a")], [0, 2, 1, 3, 0], clock=world.clock))
    assert [t.first for _, (t,) in found] == [True, False, True, False, False]
    found = list(interleaved([world.candidate("a", "task")], [0, 1, 2], clock=world.clock))
    assert not any(t.first for _, (t,) in found), "warmed up before"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("no more"), MemoryError()])
def test_running_out_of_memory_anywhere_costs_one_image(error: Exception) -> None:
    world = World()
    plain = world.candidate("a")

    def copy(item: int) -> int:
        if item == 6:
            raise error
        return item

    candidate = Candidate("a", "paper", CPU, copy, plain.forward, plain.compute, plain.finish, plain.shape)
    found = list(interleaved([candidate], range(8), clock=world.clock))
    assert [t.failure is not None for _, (t,) in found] == [False] * 6 + [True, False]


def test_an_image_that_one_variant_cannot_do_costs_that_image_only() -> None:
    world = World()
    candidates = [world.candidate("a", fails_at=6), world.candidate("b")]
    found = list(interleaved(candidates, range(8), clock=world.clock, failures=(ImageError,)))
    failed, other = found[6][1]
    assert (failed.failure, failed.counted, failed.result) == ("too large", False, None)
    assert (other.failure, other.seconds) == (None, 7.0)
    assert all(t.failure is None for _, timings in (*found[:6], found[7]) for t in timings)
    with pytest.raises(ImageError):
        list(interleaved(candidates, range(8), clock=world.clock))
    assert gc.isenabled()


def test_what_watches_a_piece_of_work_is_outside_the_figure() -> None:
    world = World()

    @contextmanager
    def around(candidate: Candidate[int, str]) -> Iterator[None]:
        world.work("before", 32.0)
        yield
        world.work("after", 32.0)

    ((_, (timing,)),) = interleaved([world.candidate("a")], [0], clock=world.clock, around=around)
    assert timing.seconds == 7.0


def test_parts_of_a_model_are_told_apart_and_run_as_often_as_they_run() -> None:
    world = World()

    class Part(torch.nn.Module):
        def __init__(self, seconds: float) -> None:
            super().__init__()
            self.seconds = seconds

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            world.work("part", self.seconds)
            return x

    backbone, decoder = Part(3.0), Part(5.0)

    def forward(item: int) -> int:
        x = torch.zeros(1)
        backbone(x)
        decoder(x)
        world.work("between", 0.5)
        decoder(x)
        return item

    plain = world.candidate("a")
    candidate = Candidate(
        "a",
        "paper",
        CPU,
        plain.copy,
        forward,
        plain.compute,
        plain.finish,
        plain.shape,
        (("backbone", backbone), ("decoder", decoder)),
        "rest",
    )
    ((_, (timing,)),) = interleaved([candidate], [0], clock=world.clock)
    assert timing.seconds == 1.0 + 13.5 + 2.0
    assert timing.stages == {
        "copy": 1.0, "backbone": 3.0, "decoder": 10.0, "rest": 0.5, "post-processing": 2.0, "encode": 8.0,
    }  # fmt: skip
    assert not backbone._forward_hooks
    assert not backbone._forward_pre_hooks


def test_a_part_that_failed_and_ran_again_has_the_time_of_the_second_run() -> None:
    """As when device memory runs out in the backbone and the forward pass is tried once more."""
    world = World()
    tries = 0

    class Part(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal tries
            tries += 1
            world.work("part", 3.0)
            if tries == 1:
                raise torch.OutOfMemoryError("no more")
            return x

    part = Part()
    with timed_parts([("backbone", part)], CPU, world.clock) as marks:
        for _ in range(2):
            with contextlib.suppress(torch.OutOfMemoryError):
                part(torch.zeros(1))
    assert marks.seconds() == {"backbone": 3.0}


def test_hooks_are_removed_when_the_work_fails() -> None:
    module = torch.nn.Identity()
    with pytest.raises(RuntimeError, match="no"), timed_parts([("x", module)], CPU, lambda: 0.0):
        raise RuntimeError("no")
    assert not module._forward_hooks
