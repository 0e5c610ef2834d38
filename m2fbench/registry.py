"""Plug-ins by name: a module put into ``datasets/`` or ``metrics/`` registers what it defines.

A registry imports the modules of its folder the first time something is asked of it, so these modules stay light and import
torch, transformers and evaluators inside the functions that need them.
"""

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from m2fbench.errors import M2FBenchError

T = TypeVar("T")


def near(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing where no known name is like ``name``."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean '{matches[0]}'?)" if matches else ""


class Registry(Generic[T]):
    """Name -> T for one kind of plug-in. ``package``: the dotted folder whose modules register themselves."""

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._items: dict[str, T] = {}
        self._loaded = False

    def register(self, name: str) -> Callable[[T], T]:
        def add(item: T) -> T:
            if name in self._items:
                raise RuntimeError(f"two {self.kind}s are named '{name}'")
            self._items[name] = item
            return item

        return add

    def _load(self) -> None:
        if not self._loaded:
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{self._package}.{module.name}")

    def names(self) -> list[str]:
        self._load()
        return sorted(self._items)

    def get(self, name: str, error: type[M2FBenchError] = M2FBenchError) -> T:
        self._load()
        if name not in self._items:
            known = self.names()
            raise error(f"{self.kind}: expected one of {', '.join(known)}, got '{name}'{near(name, known)}")
        return self._items[name]
