"""What a number was measured with: machine, operating system, library versions, and the state of m2fbench's own source."""

import importlib.metadata
import os
import platform
import re
import subprocess
from functools import cache
from pathlib import Path

from m2fbench.types import JsonObject

LIBRARIES = (
    "torch",
    "transformers",
    "numpy",
    "pillow",
    "hotcoco",
    "pycocotools",
    "cityscapesscripts",
    "faster-coco-eval",
    "huggingface_hub",
    "safetensors",
    "fvcore",
    "nvidia-ml-py",
    "codecarbon",
)
MACHINE = "M2FBENCH_MACHINE"
"""Environment variable with a name for the machine; where there is none, machines are told apart by their hardware."""
NIGHT = "M2FBENCH_NIGHT"
"""Environment variable with the name of the night that a run belongs to; a nightly sets it for its cells."""
IDENTITY_LIBRARIES = ("torch", "transformers", "pillow")  # those whose version can move a prediction


def version_of(library: str) -> str | None:
    """The installed version, None where it is not installed; nothing is imported."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


@cache
def describe_environment() -> JsonObject:
    """JSON values only; None where something cannot be read. The accelerator is described by the models layer."""
    return {
        "m2fbench": version_of("m2fbench"),
        "m2fbench_commit": _source_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cpu_count": os.cpu_count(),
        "machine_name": os.environ.get(MACHINE) or None,
        "night": os.environ.get(NIGHT) or None,
        "driver": _driver(),
        "libraries": {name: version_of(name) for name in LIBRARIES},
    }


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or None


def _driver() -> str | None:
    """The version of NVIDIA's kernel driver; None where there is none."""
    try:
        found = re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)\s", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    return found[1] if found else None


def _source_commit() -> str | None:
    """The commit of the source tree m2fbench runs from, with ``+changes`` where it has uncommitted ones; None for a wheel."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=10)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
