"""What a variant asks of the process and of the device: switches that are set for each forward pass and put back, and what cannot be done.

torch's switches for TF32 and cuDNN hold for the whole process. Several variants stay apart in one process because every forward pass sets
them as its variant has them and restores them after; two threads that want them different wait for each other.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from m2fbench.errors import UnsupportedError, shown
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from m2fbench.sections import Variant


@dataclass(frozen=True)
class Switches:
    """torch's process-wide switches. tf32: of float32 matrix products and convolutions on CUDA. benchmark: cuDNN tries its algorithms."""

    tf32: bool
    benchmark: bool


PLAIN = Switches(tf32=False, benchmark=False)


def switches_of(variant: "Variant") -> Switches:
    return Switches(variant.tf32, variant.cudnn_benchmark)


class _Board:
    """Who has the switches set, so that threads with the same wish share them and others wait."""

    def __init__(self) -> None:
        self.free = threading.Condition()
        self.users = 0
        self.wanted: Switches | None = None
        self.restore: Callable[[], None] = lambda: None


_board = _Board()


@contextlib.contextmanager
def switched(wanted: Switches) -> Iterator[None]:
    """Inside, torch's switches are as ``wanted``; after, also after an exception, as they were before."""
    with _board.free:
        _board.free.wait_for(lambda: _board.users == 0 or _board.wanted == wanted)
        if _board.users == 0:
            _board.restore, _board.wanted = _restorer(), wanted
            torch.set_float32_matmul_precision("high" if wanted.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = wanted.tf32
            torch.backends.cudnn.benchmark = wanted.benchmark
        _board.users += 1
    try:
        yield
    finally:
        with _board.free:
            _board.users -= 1
            if _board.users == 0:
                _board.restore()
                _board.free.notify_all()


def _restorer() -> Callable[[], None]:
    """Puts the switches back as they are now. torch has an older and a newer interface to them, and refuses to read by the older one what
    was set by the newer; what was set by the older must be put back by it."""
    cudnn: Any = torch.backends.cudnn
    parts: tuple[Any, ...] = torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn
    benchmark = torch.backends.cudnn.benchmark
    newer = [(part, part.fp32_precision) for part in parts]
    try:
        older = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        older = None

    def restore() -> None:
        torch.backends.cudnn.benchmark = benchmark
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            torch.backends.cudnn.allow_tf32 = older[1]
            return
        for part, precision in newer:
            part.fp32_precision = precision

    return restore


@contextlib.contextmanager
def conditions(variant: "Variant", device: torch.device) -> Iterator[None]:
    """Everything around a forward pass that the variant asks for, and nothing of what the caller has set: switches and autocast."""
    autocast = torch.autocast(
        device.type, dtype=getattr(torch, variant.autocast or "bfloat16"), enabled=variant.autocast is not None
    )
    with switched(switches_of(variant)), autocast, _compilation(variant):
        yield


@contextlib.contextmanager
def _compilation(variant: "Variant") -> Iterator[None]:
    """For compiled models: one compilation for each shape, many models in one process, and never a silent way back to what is not compiled."""
    if not variant.compile:
        yield
        return
    import torch._dynamo as dynamo

    try:
        with dynamo.config.patch(recompile_limit=512, accumulated_recompile_limit=8192, fail_on_recompile_limit_hit=True):
            yield
    except (dynamo.exc.TorchDynamoException, dynamo.exc.FailOnRecompileLimitHit) as error:
        raise UnsupportedError(f"compile: {_cause(error)}") from error


def in_effect(variant: "Variant", device: torch.device) -> JsonObject:
    """What ``conditions`` brings about, read back from torch."""
    with conditions(variant, device):
        tf32 = torch.get_float32_matmul_precision() != "highest" and torch.backends.cudnn.allow_tf32
        return {
            "tf32": bool(tf32 and device.type == "cuda"),
            "cudnn_benchmark": bool(torch.backends.cudnn.benchmark and device.type == "cuda"),
            "autocast": _name(torch.get_autocast_dtype(device.type)) if torch.is_autocast_enabled(device.type) else None,
        }


def unsupported(variant: "Variant", device: str) -> str | None:
    """Why ``device`` ("cpu" or "cuda") cannot do the variant, in one line; None where it can. It asks the device and loads no model."""
    if variant.tf32 and (reason := _no_tf32(device)):
        return f"tf32: needs an NVIDIA GPU of compute capability 8.0 or newer, {reason}"
    if variant.cudnn_benchmark and not (device == "cuda" and torch.backends.cudnn.is_available()):
        return f"cudnn_benchmark: needs an NVIDIA GPU with cuDNN, this runs on {device}"
    for key, value in (("dtype", variant.dtype), ("autocast", variant.autocast)):
        if value in ("float16", "bfloat16") and (reason := _no_half(value, device, autocast=key == "autocast")):
            return f"{key}: {value}: {reason}"
    if variant.compile and (reason := _no_compiler(device)):
        return f"compile: {reason}"
    return None


def _no_tf32(device: str) -> str | None:
    if device != "cuda":
        return f"this runs on {device}"
    if torch.version.hip is not None:
        return "this is an AMD GPU"
    major, minor = torch.cuda.get_device_capability()
    return None if (major, minor) >= (8, 0) else f"this has {major}.{minor}"


def _no_half(name: str, device: str, *, autocast: bool) -> str | None:
    if device == "cuda":
        if name == "bfloat16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            return "this GPU has no bfloat16 arithmetic"
        return None
    try:
        _half_arithmetic(getattr(torch, name), device, autocast=autocast)
    except (RuntimeError, NotImplementedError) as error:
        return f"torch cannot on {device}: {_cause(error)}"
    return None


def _half_arithmetic(dtype: torch.dtype, device: str, *, autocast: bool) -> None:
    """The operators of a Mask2Former that not every device has in half precision. Raises RuntimeError, torch's own."""
    if autocast and not torch.amp.autocast_mode.is_autocast_available(device):
        raise RuntimeError("no autocast")
    kind = torch.float32 if autocast else dtype
    x, line = torch.ones(1, 8, 8, 8, dtype=kind, device=device), torch.ones(8, 8, dtype=kind, device=device)
    functional = torch.nn.functional
    with torch.inference_mode(), torch.autocast(device, dtype=dtype, enabled=autocast):
        y = functional.conv2d(x, torch.ones(8, 8, 3, 3, dtype=kind, device=device))
        if y.dtype != dtype:
            raise RuntimeError(f"a convolution gives {_name(y.dtype)}")
        y = functional.group_norm(functional.batch_norm(x, line[0], line[0]), 2)
        y = functional.interpolate(functional.grid_sample(y, x[..., :2], align_corners=False), size=(5, 5), mode="bilinear")
        y = functional.layer_norm(functional.linear(x, line), (8,))
        functional.scaled_dot_product_attention(y, y, y).softmax(-1)
        functional.max_pool2d(x, 2)


@functools.cache
def _no_compiler(device: str) -> str | None:
    """Whether torch can compile here, found out by compiling: why not, in one line."""
    try:
        _compile_something(device)
    except Exception as error:  # whatever compiler, linker and driver lead it to
        return f"torch cannot compile on {device}: {_cause(error)}"
    return None


def _compile_something(device: str) -> None:
    def something(x: torch.Tensor) -> torch.Tensor:
        return (x * 2 + 1).relu()

    torch.compile(something, fullgraph=True, dynamic=True)(torch.ones(8, device=device))


def _cause(error: BaseException) -> str:
    """The line of torch's report that says what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "error:" in line.lower() or "not found" in line.lower()]
    return shown((telling or lines or [type(error).__name__])[0], 200)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
