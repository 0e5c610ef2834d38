"""What is installed and found on this machine, and the remedy for what is not."""

from collections.abc import Iterator
from pathlib import Path

from m2fbench.download import cache_folder
from m2fbench.environment import LIBRARIES, describe_environment, version_of
from m2fbench.errors import M2FBenchError
from m2fbench.models.checkpoint import bundled_names
from m2fbench.suite import datasets, suite_names

# package -> what it adds, and how to install it
OPTIONAL = {
    "codecarbon": ("grams of CO2e", "pip install 'm2fbench[energy]'"),
    "hf-xet": ("faster downloads of hub checkpoints", "pip install hf-xet"),
    "imagecodecs": ("label PNGs read in half the time", "pip install 'm2fbench[fast]'"),
    "panopticapi": ("PQ verified by it and not by cityscapesScripts", "from github.com/cocodataset/panopticapi"),
}

Finding = tuple[str, str, str]
"""("ok" | "missing" | "", name, what was found and what to do)."""


def findings(data: Path | None) -> Iterator[Finding]:
    """Everything worth knowing before a run; ``data``: where datasets are looked for, besides the working folder."""
    environment = describe_environment()
    commit = f" at {environment['m2fbench_commit']}" if environment["m2fbench_commit"] else ""
    yield "ok", "m2fbench", f"{environment['m2fbench']}{commit}"
    yield "ok", "python", f"{environment['python']} on {environment['platform']}"
    yield "ok", "processor", f"{environment['processor']}, {environment['cpu_count']} cores"
    yield _accelerator()
    yield from _energy_counters()
    for name in LIBRARIES:
        version = version_of(name)
        yield ("ok", name, version) if version else ("missing", name, "not installed; install m2fbench again")
    for name, (purpose, how) in OPTIONAL.items():
        version = version_of(name)
        yield ("ok", name, version) if version else ("", name, f"not installed (optional: {purpose}); {how}")
    yield "ok", "suites", ", ".join(suite_names())
    bundled = bundled_names()
    yield (
        ("ok", "bundled checkpoints", ", ".join(bundled))
        if bundled
        else ("missing", "bundled checkpoints", "none; install m2fbench again")
    )
    cache = cache_folder()
    held = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    yield "", "download cache", f"{cache}, {held / 2**20:.1f} MB"
    yield "", "data folder", f"{data}" if data else "none given; pass --data or set M2FBENCH_DATA"
    for name in datasets.names():
        yield _dataset(name, data)


def _accelerator() -> Finding:
    import torch

    if not torch.cuda.is_available():
        built = "this torch is a CPU build" if torch.version.cuda is None else "no driver or no device"
        return "", "accelerator", f"none ({built}); runs use the CPU"
    properties = torch.cuda.get_device_properties(0)
    return "ok", "accelerator", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"


def _energy_counters() -> Iterator[Finding]:
    import torch

    from m2fbench.profiling.meters import meters

    with meters("cuda" if torch.cuda.is_available() else "cpu") as (found, reasons):
        for meter in found:
            yield "ok", "energy counter", f"{meter.name}, {meter.label}: {meter.covers}"
        for reason in reasons:
            yield "", "energy counter", reason


def _dataset(name: str, data: Path | None) -> Finding:
    reader = datasets.get(name)
    if any(field.is_required() for field in reader.Options.model_fields.values()):
        return "", f"dataset {name}", f"of your own files: {reader.needs_data}"
    try:
        dataset = reader(reader.Options(), data, reader.tasks[0])
    except M2FBenchError as error:
        return "missing", f"dataset {name}", str(error)
    if reader.needs_data is None:
        return "ok", f"dataset {name}", "built in"
    facts = dataset.fingerprint()
    if facts["missing_images"]:
        return (
            "missing",
            f"dataset {name}",
            f"{facts['missing_images']} of {facts['images']} images are missing; {reader.needs_data}",
        )
    return "ok", f"dataset {name}", f"{facts['images']} images"
