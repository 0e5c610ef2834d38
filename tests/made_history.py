"""Result files and histories made up for tests, cheap and by the hundred: the bytes that a run would have written."""

import datetime
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from m2fbench.results import Kind, RunResult, Status
from m2fbench.types import Measurement

FIRST_NIGHT = datetime.datetime(2026, 1, 1, 3, 0, tzinfo=datetime.UTC)
LOWER = {
    "latency": "s",
    "time": "s",
    "peak_device_memory": "bytes",
    "peak_process_memory": "bytes",
    "weight_memory": "bytes",
    "energy": "J/image",
    "CO2e": "g/image",
    "FLOPs": "count",
    "parameters": "count",
}
HIGHER = {"fps": "images/s", "fps_low": "images/s", "fps_high": "images/s", "speed_up": "x"}
DEFAULTS: dict[Kind, dict[str, float]] = {
    "accuracy": {"AP": 43.7, "AP50": 66.0, "AP75": 46.9},
    "speed": {"fps": 9.7, "fps_low": 9.6, "fps_high": 9.8, "latency": 0.103, "peak_device_memory": 2.0e9, "AP": 43.7},
    "flops": {"FLOPs": 226e9, "parameters": 44e6},
}


def made_time(night: int | str) -> str:
    """03:00 UTC of the night of that number, 0 for the first of January 2026; a text is the time itself."""
    return night if isinstance(night, str) else (FIRST_NIGHT + datetime.timedelta(days=night)).isoformat()


def made_result(
    suite: str = "shapes_instance",
    row: str = "shapes-tiny",
    night: int | str = 0,
    values: Mapping[str, float | None] | None = None,
    *,
    kind: Kind = "accuracy",
    variant: str = "default",
    machine: str = "bench-1",
    status: Status = "complete",
    limit: int | None = None,
    commit: str = "1111111",
    environment: Mapping[str, Any] | None = None,
    per_class: Mapping[str, Mapping[str, float]] | None = None,
    document: Mapping[str, Any] | None = None,
    **changes: Any,
) -> bytes:
    """The file of one result. values: by figure, None for one that could not be measured; those of ``DEFAULTS`` where not given. per_class:
    class -> figure -> value. environment: over the made one. document: fields of the JSON over the made ones. changes: fields of
    RunResult (``protocol``, ``reason``, ``details`` ...)."""
    measured = [_measurement(name, value) for name, value in (DEFAULTS[kind] if values is None else values).items()]
    for category, figures in (per_class or {}).items():
        measured += [_measurement(name, value, category) for name, value in figures.items()]
    counted = kind == "flops"
    result = RunResult(
        suite={"name": suite, "title": f"The suite {suite}", "sha256": hashlib.sha256(suite.encode()).hexdigest()},
        row=row,
        variant={"name": variant, "dtype": "float16" if variant == "fp16" else "float32", "compile": variant == "compiled"},
        status=status,
        checkpoint=None if counted else {"reference": f"zoo:{row}", "revision": None, "sha256": "c" * 64, "parameters": 44_000_000},
        dataset=None
        if counted
        else {"name": "shapes", "images": 200, "annotations_sha256": "a" * 64, "missing_images": 0, "scored_images": limit or 200},
        protocol=None if counted else {"name": "paper", "min_size": 128, "max_size": 192, "version": 2},
        device=None if counted else {"kind": "cuda NVIDIA H200", "torch_cuda": "12.8"},
        environment={
            "m2fbench": "0.1.0",
            "m2fbench_commit": commit,
            "python": "3.11.9",
            "platform": "Linux",
            "machine": "x86_64",
            "processor": "EPYC",
            "cpu_count": 16,
            "machine_name": machine or None,
            "driver": "570.86.15",
            "libraries": {"torch": "2.11.0", "transformers": "5.17.0"},
        }
        | dict(environment or {}),
        prediction_key=hashlib.sha256(f"{suite} {row} {variant} {commit}".encode()).hexdigest(),
        limit=limit,
        started=made_time(night),
        finished=made_time(night),
        measurements=tuple(measured),
        rules={"mean_iou": "present"},
        kind=kind,
        details={"scopes": {"paper": {"heads": ["instance"]}}, "machine": {}} if kind == "speed" else None,
    )
    written = replace(result, **changes).to_json() | dict(document or {})
    return (json.dumps(written, indent=1, ensure_ascii=False) + "\n").encode()


def _measurement(name: str, value: float | None, category: str | None = None) -> Measurement:
    plain, _, subset = name.partition(" (")
    unit = LOWER.get(plain) or HIGHER.get(plain) or "percent"
    return Measurement(
        plain, math.nan if value is None else value, unit, plain not in LOWER, category=category, subset=subset.rstrip(")") or None
    )


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def made_history(folder: Path, results: Iterable[bytes]) -> list[str]:
    """Lay the files of a history down in ``folder``, as another machine would have; their SHA-256, in order. ``History(folder)`` then takes
    them into its index."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    names = []
    for content in results:
        names.append(sha256_of(content))
        place = folder / "results" / names[-1][:2] / f"{names[-1]}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(content)
    return names


def made_runs(folder: Path, results: Iterable[bytes]) -> list[Path]:
    """Run directories, FOLDER/NUMBER/result.json (or speed.json, flops.json), as runs leave them; the files, in order."""
    paths = []
    for number, content in enumerate(results):
        kind = json.loads(content)["kind"]
        paths.append(folder / f"{number:04}" / f"{'result' if kind == 'accuracy' else kind}.json")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(content)
    return paths
