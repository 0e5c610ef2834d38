"""YAML read safely and strictly, with the line of every key kept so that an error can point at it."""

from pathlib import Path
from typing import Any

import yaml

from m2fbench.errors import SuiteError

KeyPath = tuple[str | int, ...]
Lines = dict[KeyPath, int]
MAX_KEYS = 100_000


class BoundedLoader(yaml.SafeLoader):
    """yaml.SafeLoader whose merge keys (``<<: *anchor``) cannot unfold without end."""

    _merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self._merged += len(node.value)
        if self._merged > MAX_KEYS:
            raise yaml.YAMLError(f"more than {MAX_KEYS} keys")


def read_yaml(path: Path) -> tuple[Any, Lines]:
    """The document in ``path`` as plain containers, and the 1-based line of every key path in it.

    Only YAML's own scalar types, lists and mappings are made (safe loading); a key given twice is refused.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: expected UTF-8 text, got other bytes at position {error.start}") from error
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> tuple[Any, Lines]:
    """The same of text that is at hand; path: of the file it comes from, for messages."""
    lines: Lines = {}
    try:
        loader = BoundedLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _walk(node, (), lines, path, loader)
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SuiteError(f"{path}:{line}: not valid YAML: {error.problem}") from error
    except SuiteError:
        raise
    except Exception as error:  # a tag on a value that is none of its kind makes yaml raise whatever it runs into
        raise SuiteError(f"{path}: not valid YAML: {(str(error).splitlines() or [type(error).__name__])[0]}") from error


def _walk(node: yaml.Node, here: KeyPath, lines: Lines, path: Path, loader: yaml.SafeLoader) -> None:
    lines.setdefault(here, node.start_mark.line + 1)
    if len(lines) > MAX_KEYS:  # aliases of aliases can unfold without end
        raise SuiteError(f"{path}: expected at most {MAX_KEYS} keys, got more; is this the right file?")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise SuiteError(f"{path}:{line}: expected a plain key, got a {key.id}")
            if key.tag == "tag:yaml.org,2002:merge":  # "<<: *anchor": its keys come from elsewhere
                continue
            name = loader.construct_object(key)
            inner = (*here, name)
            if inner in lines:
                raise SuiteError(f"{path}:{line}: {dotted(inner)}: given twice, first on line {lines[inner]}; keep one of them")
            lines[inner] = line
            _walk(value, inner, lines, path, loader)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*here, index), lines, path, loader)


def dotted(path: KeyPath) -> str:
    """``('checkpoints', 0, 'name')`` as a user writes it: ``checkpoints.0.name``."""
    return ".".join(str(part) for part in path)
