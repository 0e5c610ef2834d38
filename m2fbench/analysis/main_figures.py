"""The figures by which a checkpoint is known: shown where no others are asked for."""

from collections.abc import Mapping

from m2fbench.results import Kind

MAIN_FIGURES: Mapping[Kind, tuple[str, ...]] = {
    "accuracy": ("PQ", "AP", "mIoU", "AP_th_pan", "mIoU_pan"),
    "speed": ("fps", "peak_device_memory", "peak_process_memory"),
    "flops": ("FLOPs",),
}
"""By kind, the first first. Accuracy that stands beside speed is of fewer images, and not among them."""


def is_main(kind: Kind, figure: str) -> bool:
    """figure: with its subset in brackets where it has one, which makes it none of the main ones."""
    return figure in MAIN_FIGURES[kind]
