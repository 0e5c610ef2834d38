"""Pickles as other programs write them, and as nobody should: shared by the tests of checkpoints."""

import io
import lzma
import pickle
from pathlib import Path
from types import FunctionType
from typing import Any

from conftest import FIXTURES

CHECKPOINTS = FIXTURES / "checkpoints"


class _Numpy1Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes numpy's functions under the names they had before numpy 2."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None) or ""
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)
            return
        module, name = module.replace("numpy._core", "numpy.core"), name or obj.__name__
        if self.proto >= 4:
            self.save(module)
            self.save(name)
            self.write(pickle.STACK_GLOBAL)
        else:
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        self.memoize(obj)

    dispatch = pickle._Pickler.dispatch | {FunctionType: save_global}  # type: ignore[attr-defined]


def dumps(content: Any, protocol: int, *, numpy1: bool = False) -> bytes:
    """``content`` pickled, with numpy 1's names where asked for."""
    if not numpy1:
        return pickle.dumps(content, protocol)
    buffer = io.BytesIO()
    _Numpy1Pickler(buffer, protocol).dump(content)
    assert b"numpy.core" in buffer.getvalue()
    assert b"numpy._core" not in buffer.getvalue()
    return buffer.getvalue()


def unpack(name: str, folder: Path) -> Path:
    """A committed checkpoint, unpacked into ``folder``."""
    path = folder / name
    path.write_bytes(lzma.decompress((CHECKPOINTS / f"{name}.xz").read_bytes()))
    return path
