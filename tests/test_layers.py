"""The layers of the architecture: imports go downward only, and heavy libraries stay where they belong."""

import ast
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGE = ROOT / "m2fbench"
COMMANDS = {
    "cli",
    "cli_card",
    "cli_card_check",
    "cli_common",
    "cli_compare",
    "cli_costs",
    "cli_dashboard",
    "cli_datasets",
    "cli_examine",
    "cli_history",
    "cli_history_common",
    "cli_history_export",
    "cli_history_show",
    "cli_nightly",
    "cli_report",
    "cli_show",
    "cli_speed",
}
LAYERS = [
    {"errors", "types", "registry"},
    {
        "yaml_lines",
        "sections",
        "suite_text",
        "labels",
        "suite",
        "store",
        "results",
        "environment",
        "formats",
        "metrics",
        "download",
        "files",
        "unpacking",
        "writing",
    },
    {"datasets", "models", "profiling"},
    {
        "peers",
        "submission",
        "scoring",
        "planning",
        "predicting",
        "runner",
        "facts",
        "speed",
        "speed_results",
        "speed_work",
        "inspection",
        "doctor",
        "acquire",
        "completeness",
        "flops",
        "flops_inputs",
        "flops_results",
        "analysis",
        "examining",
    },
    {"history"},
    {"reporting"},
    {"nightly"},
    {*COMMANDS, "__main__", "__init__"},
]
ALONE = {"datasets", "models", "metrics", "profiling"}  # siblings of a layer that do not import each other
HOMES = {
    "torch": {"models", "profiling"},
    "transformers": {"models"},
    "typer": COMMANDS,
    "rich": COMMANDS | {"reporting"},
    "pandas": {"reporting", "history"},
    "sqlite3": {"history"},
    "fsspec": {"history"},
    "mlflow": {"history"},
    "pyarrow": {"history"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
}
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def layer_of(part: str) -> int:
    return next(number for number, names in enumerate(LAYERS) if part in names)


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, whether it runs at import time) for every import of the file, type-checking ones left out."""
    tree = ast.parse((PACKAGE / path).read_text())
    skipped = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and "TYPE_CHECKING" in ast.dump(test.test)
        for node in ast.walk(test)
    }
    inside = {id(n) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for n in ast.walk(f)}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.module, id(node) not in inside))
    return found


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_downward(path: Path) -> None:
    here = path.parts[0].removesuffix(".py")
    for module, _ in imports(path):
        parts = module.split(".")
        if parts[0] == "m2fbench" and len(parts) > 1 and parts[1] != here:
            assert layer_of(parts[1]) <= layer_of(here), f"{path} imports {module}, which is above it"
            assert not ({parts[1], here} <= ALONE), f"{path} imports its sibling {module}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_heavy_libraries_stay_at_home(path: Path) -> None:
    here = path.parts[0].removesuffix(".py")
    for module, at_import in imports(path):
        home = HOMES.get(module.split(".")[0])
        if home is None or here in home:
            continue
        assert here == "doctor", f"{path} imports {module}"
        assert not at_import, f"{path} imports {module} at import time"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_can_be_held_in_the_head(path: Path) -> None:
    text = (PACKAGE / path).read_text()
    assert len(text.splitlines()) <= 400
    assert ast.get_docstring(ast.parse(text)), f"{path} has no docstring"
