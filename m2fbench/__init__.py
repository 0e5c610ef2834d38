"""m2fbench: how good, how fast and how costly a Mask2Former checkpoint is, by the paper's own protocol.

from m2fbench import load_suite, run
(result,) = run("shapes_instance")
print(result.value("AP"))
"""

from typing import TYPE_CHECKING, Any

from m2fbench.errors import M2FBenchError

if TYPE_CHECKING:
    from m2fbench.results import RunResult, read_result
    from m2fbench.runner import run
    from m2fbench.scoring import score
    from m2fbench.suite import Suite, load_suite

__all__ = ["M2FBenchError", "RunResult", "Suite", "load_suite", "read_result", "run", "score"]

_HOMES = {
    "RunResult": "results", "Suite": "suite", "load_suite": "suite", "read_result": "results", "run": "runner", "score": "scoring",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: ``import m2fbench`` itself costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'm2fbench' has no attribute '{name}'")
    import importlib

    return getattr(importlib.import_module(f"m2fbench.{_HOMES[name]}"), name)
