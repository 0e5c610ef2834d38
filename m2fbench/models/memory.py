"""When the memory does not do for one image: another try, then the CPU, then an error that names the image and not a traceback.

Convention: ``retry_if_cuda_oom`` of detectron2, which the original puts around its post-processing: on running out of device memory its cache is
emptied and the same done again, and failing that on the CPU. A forward pass has no third try, since the model stays where it is.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

import torch

from m2fbench.errors import ImageError
from m2fbench.models.semantic import View
from m2fbench.types import Size

T = TypeVar("T")

FORWARD_AGAIN = "run a second time after running out of device memory"
AGAIN = "post-processed a second time after running out of device memory"
ON_CPU = "post-processed on the CPU after running out of device memory"


class Shortage(Enum):
    """Which memory ran out."""

    DEVICE = "device memory"
    HOST = "memory"


def shortage_of(error: BaseException) -> Shortage | None:
    """Which memory ``error`` says has run out; None where it speaks of something else.

    torch has a type for its own allocator on a device only. CUDA's libraries and the CPU's allocator raise a RuntimeError that says so,
    numpy a MemoryError.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return Shortage.DEVICE
    if isinstance(error, MemoryError):
        return Shortage.HOST
    if isinstance(error, RuntimeError):
        text = str(error)
        if any(words in text for words in ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")):
            return Shortage.DEVICE
        if "DefaultCPUAllocator" in text:
            return Shortage.HOST
    return None


def attempt(call: Callable[[], T]) -> T | Shortage:
    """What ``call`` returns, or which memory it ran out of. By the time this returns, what the failed call held is let go: it hangs on the
    error, which does not outlive the ``except``."""
    try:
        return call()
    except Exception as error:
        shortage = shortage_of(error)
        if shortage is None:
            raise
        return shortage


def run_forward(call: Callable[[], T], size: Size, settle: Callable[[], object]) -> tuple[T, tuple[str, ...]]:
    """What ``call`` returns, a second time where the device's memory was short, and how it came about (empty at the first try).

    size: (height, width) of the input, for the message. settle: called before the second try, to wait for whatever else holds memory.
    Raises ImageError where the second try fails too.
    """
    found = attempt(call)
    notes: tuple[str, ...] = ()
    if found is Shortage.DEVICE:
        settle()
        torch.cuda.empty_cache()
        found, notes = attempt(call), (FORWARD_AGAIN,)
    if isinstance(found, Shortage):
        raise _too_large(found, "the model's input of", size)
    return found, notes


def post_process(call: Callable[[Sequence[View]], T], views: Sequence[View]) -> tuple[T, tuple[str, ...]]:
    """``call(views)``, or on running out of device memory a second time, or with the logits moved to the CPU; and how it came about (empty at
    the first try). Raises ImageError where the CPU's memory does not do either."""
    found = attempt(lambda: call(views))
    notes: tuple[str, ...] = ()
    if found is Shortage.DEVICE:
        torch.cuda.empty_cache()
        found, notes = attempt(lambda: call(views)), (AGAIN,)
    if found is Shortage.DEVICE:
        torch.cuda.empty_cache()
        found, notes = attempt(lambda: call([_on_cpu(view) for view in views])), (ON_CPU,)
    if isinstance(found, Shortage):
        raise _too_large(found, "post-processing at", views[0].geometry.original)
    return found, notes


def _on_cpu(view: View) -> View:
    return replace(view, class_logits=view.class_logits.cpu(), mask_logits=view.mask_logits.cpu())


def _too_large(shortage: Shortage, what: str, size: Size) -> ImageError:
    remedy = "free some, use --device cpu" if shortage is Shortage.DEVICE else "free some"
    return ImageError(
        f"too little {shortage.value} for {what} {size[1]}x{size[0]} pixels; {remedy}, or set 'on_error: skip' to leave such images out"
    )
