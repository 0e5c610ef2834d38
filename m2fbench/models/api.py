"""Which names the installed transformers and torch have, and what Mask2Former's classes offer, for code that is looked at and never run.

Only packages of ``IMPORTED`` are imported, each by its own name and no module below it; whatever a text names beyond that is looked up in their
attributes, or in the source of their modules.
"""

import ast
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import re
import sys
import types
import typing
from pathlib import Path
from types import ModuleType
from typing import Any

IMPORTED = ("transformers", "torch", "PIL", "numpy", "huggingface_hub", "requests", "m2fbench", "safetensors", "torchvision")
MODEL_TYPE = "mask2former"
UNIVERSAL = "AutoModelForUniversalSegmentation"
MODEL = "Mask2FormerForUniversalSegmentation"


def is_installed(package: str) -> bool:
    """Whether Python finds a top-level package; nothing is imported."""
    if package in sys.stdlib_module_names:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError, AttributeError):
        return False


@functools.cache
def package(name: str) -> ModuleType | None:
    """One of ``IMPORTED``; None where it is not installed, or none of these."""
    if name not in IMPORTED or not is_installed(name):
        return None
    return importlib.import_module(name)


def version(name: str) -> str:
    from m2fbench.environment import version_of

    return f"{name} {version_of({'PIL': 'pillow'}.get(name, name)) or ''}".strip()


@functools.cache
def has(module: str, name: str) -> bool | None:
    """Whether ``from module import name`` would find it; None where that cannot be told without importing what is not to be imported."""
    top = module.partition(".")[0]
    root = package(top)
    if root is None:
        return None
    holder: Any = root
    for part in module.split(".")[1:]:
        following = _attribute(holder, part)
        if following is _NOTHING:
            return _in_source(module, name)
        holder = following
    if _attribute(holder, name) is not _NOTHING:
        return True
    return _in_source(module, name) if isinstance(holder, ModuleType) else False


def has_module(module: str) -> bool | None:
    """Whether a module below one of ``IMPORTED`` is there."""
    parts = module.split(".")
    if package(parts[0]) is None:
        return None
    return len(parts) == 1 or _file_of(module) is not None or has(".".join(parts[:-1]), parts[-1])


_NOTHING = object()


def _attribute(holder: Any, name: str) -> Any:
    """What an exported name stands for; modules that load lazily load it."""
    try:
        return getattr(holder, name, _NOTHING)
    except Exception:  # of a part whose own requirements are not installed: the name is there
        return None


def _file_of(module: str) -> Path | None:
    """The source of a module below a package, found by its place."""
    top, *rest = module.split(".")
    root = package(top)
    if root is None or not getattr(root, "__file__", None) or not all(part.isidentifier() for part in rest):
        return None
    here = Path(str(root.__file__)).parent.joinpath(*rest)
    return next((file for file in (here / "__init__.py", here.with_suffix(".py")) if file.is_file()), None)


def _in_source(module: str, name: str, depth: int = 0) -> bool | None:
    """Whether a module's source defines or imports a name; None where its names come from elsewhere too."""
    file = _file_of(module)
    if file is None:
        return False
    if _file_of(f"{module}.{name}"):
        return True
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return None
    names, stars = _names_of(tree)
    if name in names:
        return True
    if depth < 2:
        for star in stars:
            if _in_source(f"{module}.{star}", name, depth + 1):
                return True
    return None if "__getattr__" in names or (stars and depth >= 2) else False


def _names_of(tree: ast.Module) -> tuple[set[str], list[str]]:
    """Names that a module's source binds at any depth outside functions, and the modules beside it from which it takes all."""
    names: set[str] = set()
    stars: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                if alias.name == "*" and isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
                    stars.append(node.module)
                names.add((alias.asname or alias.name).partition(".")[0])
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names, stars


def loads_mask2former(auto: str) -> tuple[bool, str]:
    """Whether an ``AutoX.from_pretrained`` gives anything for a Mask2Former checkpoint, and else what it is for."""
    if auto in ("AutoConfig", "AutoImageProcessor", "AutoProcessor", "AutoModel", "AutoBackbone"):
        return auto != "AutoBackbone", "backbones"
    transformers = package("transformers")
    if auto == "AutoTokenizer":
        from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

        return MODEL_TYPE in TOKENIZER_MAPPING_NAMES, "text models"
    if auto == "AutoFeatureExtractor":
        from transformers.models.auto.feature_extraction_auto import FEATURE_EXTRACTOR_MAPPING_NAMES

        return MODEL_TYPE in FEATURE_EXTRACTOR_MAPPING_NAMES, "audio models"
    mapping = getattr(getattr(transformers, auto, None), "_model_mapping", None)
    names: dict[str, Any] = getattr(mapping, "_model_mapping", {})
    if not names:
        return True, ""
    return MODEL_TYPE in names, f"{', '.join(sorted(names)[:4])}{' and others' if len(names) > 4 else ''}"


def class_of(name: str) -> type | None:
    """The transformers class that a checkpoint of Mask2Former is loaded as by a class of this name; None for those not of interest here."""
    transformers = package("transformers")
    if name in ("AutoImageProcessor", "AutoProcessor", "Mask2FormerImageProcessor"):
        name = "Mask2FormerImageProcessorPil"  # the same methods; needs no torchvision
    if name == "AutoModel":
        name = "Mask2FormerModel"
    elif name.startswith("AutoModelFor"):
        name = MODEL
    found = getattr(transformers, name, None) if name.startswith("Mask2Former") else None
    return found if isinstance(found, type) else None


def has_member(cls: type, name: str) -> bool:
    """Whether an instance has an attribute: of its class, or set by the constructors that it inherits."""
    if hasattr(cls, name):
        return True
    return any(name in _set_by(base) for base in cls.__mro__[:-1] if base.__module__.startswith(("transformers.", "torch.")))


@functools.cache
def _set_by(cls: type) -> frozenset[str]:
    try:
        return frozenset(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? = ", inspect.getsource(cls)))
    except (OSError, TypeError):
        return frozenset()


def output_fields(cls: type) -> tuple[str, frozenset[str]] | None:
    """The class of what a model's forward pass returns, and all names that can be taken from it; None where that is not annotated."""
    forward = getattr(cls, "forward", None)
    try:
        annotation = typing.get_type_hints(forward).get("return") if forward is not None else None
    except Exception:
        return None
    choices = (
        typing.get_args(annotation) if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) else (annotation,)
    )
    for choice in choices:
        if isinstance(choice, type) and dataclasses.is_dataclass(choice):
            fields = [f.name for f in dataclasses.fields(choice)]
            return choice.__name__, frozenset((*fields, *dir(choice)))
    return None


def pipeline_tasks() -> frozenset[str]:
    """The names that ``transformers.pipeline`` takes."""
    from transformers.pipelines import SUPPORTED_TASKS, TASK_ALIASES

    return frozenset((*SUPPORTED_TASKS, *TASK_ALIASES))
