"""Hand-made runs and findings for tests of reports, with names that try to be something else than text."""

import io
import math
from pathlib import Path
from typing import Any

from PIL import Image

from m2fbench.analysis.findings import (
    Calibration,
    CalibrationBin,
    Comparison,
    Confusion,
    Curve,
    Difference,
    Disaggregation,
    ErrorFindings,
    ErrorShare,
    Estimate,
    ImageChange,
    Intervals,
    SubsetFinding,
)
from m2fbench.analysis.layers import Examination, LayerFinding
from m2fbench.analysis.runs import Run
from m2fbench.reporting.images.gallery import Gallery
from m2fbench.reporting.images.gallery import Section as Shown
from m2fbench.reporting.images.picture import Picture
from m2fbench.reporting.page.frame import frame_of
from m2fbench.reporting.page.looking import Compared, Looked
from m2fbench.reporting.page.sections_results import Material
from m2fbench.results import RunResult, compare
from m2fbench.types import Measurement, Published

HOSTILE = "<img src=x onerror=alert(1)>"
CLASSES = (HOSTILE, "a|b & c_d", "50% $x^2$ {\\rm}", "naïve \"quoted\" 'name'", "tree")
QUOTED = "row \"with\" 'quotes' & <b>"
VALUES = (41.5, math.nan, 100.0, 9.25, 77.0)
VARIANT = {"name": "default", "dtype": "float32", "attention": "sdpa"}
SOURCE = "a paper <script>alert(2)</script>, table I"


def result(row: str = "swin", variant: str = "default", shift: float = 0.0, **changes: Any) -> RunResult:
    """A panoptic run's accuracy; ``shift`` is added to every figure."""
    measurements = [Measurement(n, v + shift) for n, v in (("PQ", 50.0), ("SQ", 80.0), ("AP_th_pan", 40.0), ("mIoU_pan", 60.0))]
    measurements += [
        Measurement("PQ_th", math.nan),
        Measurement("APs_th_pan", 20.0 + shift, subset="small"),
        Measurement("APl_th_pan", 60.0),
    ]
    measurements += [Measurement("PQ", v + shift, category=c) for c, v in zip(CLASSES, VALUES, strict=True)]
    measurements += [Measurement("SQ", v, category=c) for c, v in zip(CLASSES, VALUES, strict=True)]
    measurements += [Measurement("truth_segments", 10.0 + k, "count", category=c) for k, c in enumerate(CLASSES)]
    published = (Published("PQ", 52.0, SOURCE), Published("PQ_st", 43.0, SOURCE))
    known: dict[str, Any] = {
        "suite": {"name": "made", "title": "Made & <made>", "sha256": "0" * 64}, "row": row, "variant": VARIANT | {"name": variant},
        "status": "complete", "checkpoint": {"reference": "me/model", "sha256": "1" * 64, "backbone": "swin_t", "parameters": 47_000_000},
        "dataset": {"name": "coco", "images": 5000, "scored_images": 5000}, "protocol": {"name": "paper", "min_size": 800, "max_size": 1333},
        "device": {"kind": "cpu", "threads": 2}, "environment": {"processor": "A <CPU>", "libraries": {"torch": "2.0", "transformers": "5.0"}},
        "finished": "2030-01-02T03:04:05+00:00", "measurements": tuple(measurements), "published": published, "warnings": ("beware of <this>",),
        "comparisons": compare(measurements, published, comparable=True, tolerance={}),
    }  # fmt: skip
    return RunResult(**(known | changes))


def speed(row: str, path: Path | None, fps: float = 8.0) -> RunResult:
    """A speed result; with a path, the table of images is beside it."""
    measurements = [
        Measurement("fps", fps, "images/s"), Measurement("fps_low", fps - 1, "images/s"), Measurement("fps_high", fps + 1, "images/s"),
        Measurement("latency", 1 / fps, "s", False), Measurement("latency_p50", 0.9 / fps, "s", False), Measurement("fps_task", 2 * fps, "images/s"),
        Measurement("time", 0.1, "s", False, subset="backbone"), Measurement("peak_device_memory", math.nan, "bytes", False),
    ]  # fmt: skip
    scope = {"definition": "batch of one", "heads": ["panoptic"], "images": 3, "first_of_shape": 1, "not_counted": 0, "failed": []}
    details = {
        "scopes": {"paper": scope | {"stages": {"backbone": 0.1, "load": 0.01}}, "task": scope | {"stages": {"backbone": 0.05}}},
        "memory": {"notes": []},
    }
    if path is not None:
        lines = [f"{i},10,10,10,10,paper,{int(i > 0)},0,{0.1 + i / 50}," for i in range(4)]
        header = "image_id,height,width,input_height,input_width,scope,counted,first_of_shape,seconds,failure"
        path.with_suffix(".csv").write_text("\n".join([header, *lines]) + "\n")
    return result(row, measurements=tuple(measurements), comparisons=(), kind="speed", details=details, path=path)


def flops(row: str, count: float = 2.3e11) -> RunResult:
    measurements = [
        Measurement("FLOPs", count, "count", False), Measurement("FLOPs_std", 1e9, "count", False), Measurement("parameters", 47e6, "count", False),
        Measurement("FLOPs_by_part", count, "count", False, subset="backbone"),
    ]  # fmt: skip
    return result(
        row,
        measurements=tuple(measurements),
        comparisons=(),
        kind="flops",
        details={"inputs": "100 images"},
        device=None,
        dataset=None,
    )


def picture(name: str = "worst-1") -> Picture:
    packed = io.BytesIO()
    Image.new("RGB", (40, 30), (200, 30, 60)).save(packed, "png")
    return Picture(name, f"Image {HOSTILE}", "9 right, 1 missed", f"photo of {HOSTILE}", packed.getvalue(), 40, 30)


def looked() -> Looked:
    """One of every finding, with hostile names in all of them."""
    figures = {("PQ", None): Estimate(50.0, 48.0, 52.0), ("PQ", "tree"): Estimate(77.0, 70.0, 81.0)}
    subsets = (
        SubsetFinding("object size", "small", "under 32 x 32", "object", 40, 300, {"PQ": Estimate(30.0, 27.0, 33.0)}),
        SubsetFinding("object size", HOSTILE, "over", "object", 2, 3, {"PQ": Estimate(80.0)}, False, "3 objects"),
    )
    shares = (ErrorShare("missed", "not found", 12, 5.0), ErrorShare("mask quality", "badly outlined", None, 7.5))
    errors = ErrorFindings("panoptic", "PQ", 50.0, "panopticapi", shares, {HOSTILE: {"missed": 3.0}}, "points")
    matrix = tuple(tuple(float(9 * (i == j) + (i + 2 * j) % 3) for j in range(6)) for i in range(6))
    bins = tuple(
        CalibrationBin(k / 4, (k + 1) / 4, (k + 0.5) / 4 if k else math.nan, k / 4 if k else math.nan, 10 * k) for k in range(4)
    )
    examined = Examination(
        "made", "swin", "default", "2" * 64, 10, 5000, tuple(LayerFinding(k, {"PQ": 30.0 + k}, 1e11 + k * 1e9, 0.1 * (2 - k)) for k in range(3)),
        (), {"PQ": 32.0}, 0.0,
    )  # fmt: skip
    return Looked(
        Intervals(figures, 5000, 1000, 0, missing={"boundary_ap": "no such form"}), Disaggregation(subsets, {"crowd": "no crowds"}), (errors,),
        (Confusion("panoptic", CLASSES, matrix, "segments", "pairs of IoU above 0.5"),), (Curve(HOSTILE, (0.0, 0.5, 1.0), (1.0, 0.8, 0.1)),),
        Calibration(bins, 0.1, 0.3, "right at IoU 0.5"), (Curve("accuracy", (0.01, 0.02, math.inf), (0.7, 0.9, 0.99)),),
        Gallery("panoptic", "PQ", (Shown("worst", "Worst", "The worst.", (picture(),)),), ("one note",)), examined, (picture("layers"),), {},
    )  # fmt: skip


def comparison(a: str, b: str) -> Comparison:
    differences = (
        Difference("PQ", None, 50.0, 51.5, Estimate(1.5, 0.5, 2.5), 0.004),
        Difference("mIoU_pan", None, 60.0, 61.5, Estimate(1.5, -0.5, 2.5), 0.2),
        Difference("PQ", HOSTILE, 41.5, 43.0, Estimate(1.5, -3.0, 4.0), 0.4, 0.8),
    )
    changes = (ImageChange(HOSTILE, "PQ", 60.0, 40.0), ImageChange(17, "PQ", 60.0, 70.0))
    return Comparison(a, b, 5000, 1000, 0, differences, changes, ("a note",))


def material(folder: Path) -> tuple[Material, list[tuple[str, Compared]]]:
    """Two runs of one suite, with everything; the second under a name with quotes and markup."""
    folder.mkdir(parents=True, exist_ok=True)
    label = QUOTED
    runs = (
        Run(folder / "a", "swin", result(), speed("swin", folder / "speed.json"), flops("swin")),
        Run(folder / "b", label, result(QUOTED, shift=1.5), None, flops(QUOTED, 4e11), problem=f"{folder}/<i>: not there"),
    )
    found = {"swin": looked(), label: Looked(missing={"intervals": "no predictions of <b>"})}
    intervals = {name: one.intervals for name, one in found.items() if one.intervals is not None}
    compared = [("made", Compared(runs[1], comparison("swin", label), (("Lost", "Most lost.", (picture("lost"),)),)))]
    return Material(runs, frame_of(runs, intervals), found), compared
