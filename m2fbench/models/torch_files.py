"""Files of ``torch.save``, read with ``weights_only`` after a look at everything that could be wrong with them.

``weights_only`` keeps a file from running code; it does not keep it from asking for memory without end, nor from being damaged.
So the pickle inside is read as data first (:mod:`m2fbench.models.pickled`): every type by name, every tensor within its storage,
every storage within the file. In zip archives, the form since torch 1.6, the checksums must hold.
"""

import functools
import io
import logging
import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from m2fbench.models.pickled import (
    MAX_DIMENSIONS,
    Admitted,
    ForbiddenTypeError,
    Inert,
    Machine,
    Names,
    PickleError,
    expect,
    not_called,
)

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file in the form before torch 1.6
_STORAGES = {
    "Double": 8, "Float": 4, "Half": 2, "BFloat16": 2, "Long": 8, "Int": 4, "Short": 2, "Char": 1, "Byte": 1, "Bool": 1,
}  # fmt: skip
# how mmengine's training logs are pickled beside the weights
_LOGS = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", "__builtin__.getattr")


@dataclass(frozen=True)
class _Storage:
    """A storage as the pickle refers to it; elements: how many of ``itemsize`` bytes."""

    key: str
    elements: int
    itemsize: int

    @property
    def bytes(self) -> int:
        return self.elements * self.itemsize


@dataclass(frozen=True)
class _Tensor:
    storage: _Storage


def scan_torch(path: Path) -> bool:
    """Look at a ``torch.save`` file without loading it; True for a zip archive, False for the form before 1.6.

    Raises PickleError (ForbiddenTypeError for types that are not admitted) and OSError.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == ZIP_MAGIC
    if zipped:
        _scan_zip(path)
    else:
        _scan_legacy(path)
    return zipped


def read_torch(path: Path) -> Any:
    """The object of a ``torch.save`` file, tensors on the CPU; those of a zip archive are mapped from the file. Raises as ``scan_torch``."""
    zipped = scan_torch(path)
    try:
        with torch.serialization.safe_globals(_safe_globals()):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # torch raises a dozen kinds
        logging.getLogger(__name__).debug("torch.load failed", exc_info=True)
        if refused := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
            raise ForbiddenTypeError(
                f"contains {refused[1]!r}, expected tensors and plain containers; nothing of it was run"
            ) from error
        raise PickleError(f"cannot be read: {(str(error).splitlines() or [type(error).__name__])[0][:150]}") from error


def is_legacy(path: Path) -> bool:
    """Whether the file begins as torch.save's did before 1.6."""
    with path.open("rb") as file:
        head = io.BytesIO(file.read(32))
    try:
        return bool(Machine(32).run(head) == LEGACY_MAGIC)
    except PickleError:
        return False


def _scan_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len({name.casefold() for name in entries}) != len(archive.infolist()):  # torch looks entries up in any case
                raise PickleError("is a damaged archive (two entries of one name)")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
                raise PickleError("is a compressed archive, which torch.save never writes; unpack it")
            if sum(entry.file_size for entry in entries.values()) > path.stat().st_size:
                raise PickleError("claims more data than it has")
            pickles = [name for name in entries if name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise PickleError("is an archive, but not one of torch.save's (it has no data.pkl)")
            folder = pickles[0].removesuffix("data.pkl")
            if f"{folder}constants.pkl" in entries:
                raise PickleError("is a TorchScript program, expected weights; save the model's state_dict")
            sizes = {name.removeprefix(f"{folder}data/"): entry.file_size for name, entry in entries.items()}
            content = archive.read(pickles[0])
            storages: dict[str, _Storage] = {}
            Machine(len(content), _names(), functools.partial(_storage, storages)).run(io.BytesIO(content))
            for storage in storages.values():
                if sizes.get(storage.key, -1) != storage.bytes:
                    raise PickleError(f"is damaged: storage {storage.key[:40]} is not of the size it should have")
            if damaged := archive.testzip():
                raise PickleError(f"is damaged: the checksum of {damaged[:100]} does not hold")
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        raise PickleError(f"is a damaged archive ({str(error)[:100]})") from error


def _scan_legacy(path: Path) -> None:
    size = path.stat().st_size
    storages: dict[str, _Storage] = {}
    with path.open("rb") as file:
        for _ in range(3):  # magic number, protocol version, facts of the machine
            Machine(size).run(file)
        Machine(size, _names(), functools.partial(_storage, storages)).run(file)
        keys = Machine(size).run(file)
        rest = size - file.tell()
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, storages)):
        raise PickleError("is damaged (it names other storages than its weights lie in)")
    claimed = sum(8 + storage.bytes for storage in storages.values())  # each begins with the number of its elements
    if claimed != rest:
        raise PickleError(f"is damaged: it claims {claimed:,} bytes of weights and has {rest:,}")


def _storage(found: dict[str, _Storage], reference: Any) -> _Storage:
    """What torch's persistent id ("storage", type, key, device, elements, ...) refers to; noted in ``found``."""
    kind, typed, key, _, elements = expect(reference, tuple)[:5]
    if kind != "storage" or not isinstance(typed, Admitted):
        raise ValueError("a reference to something that is no storage")
    itemsize = _STORAGES[typed.name.removeprefix("torch.").removesuffix("Storage")]
    storage = _Storage(expect(key, str), expect(elements, int), itemsize)
    if storage.elements < 0 or found.setdefault(key, storage) != storage:
        raise ValueError("a storage of two sizes")
    return storage


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    """Check that a tensor lies within its storage and is not larger than it, as an expanded one would be."""
    shape = [expect(edge, int) for edge in expect(size, tuple)]
    steps = [expect(step, int) for step in expect(stride, tuple)]
    elements = expect(storage, _Storage).elements
    if len(shape) != len(steps) or len(shape) > MAX_DIMENSIONS or min([*shape, *steps, expect(offset, int)], default=0) < 0:
        raise ValueError("a tensor's shape is not one")
    last = offset + sum((edge - 1) * step for edge, step in zip(shape, steps, strict=True)) if math.prod(shape) else -1
    if last >= elements or math.prod(shape) > elements:
        raise ValueError("a tensor reaches beyond its storage")
    return _Tensor(storage)


def _first(value: Any = (), *_: Any) -> Any:
    return value


def _names() -> Names:
    """What tensors and the states of optimizers and schedulers are pickled with, as far as ``weights_only`` admits it."""
    tensors = {f"torch._utils.{name}": _tensor for name in ("_rebuild_tensor", "_rebuild_tensor_v2")}
    passed = dict.fromkeys(("torch._utils._rebuild_parameter", "collections.Counter", "torch.Size", "torch.device"), _first)
    storages = dict.fromkeys((f"torch.{name}Storage" for name in _STORAGES), not_called)
    dtypes = {str(value): not_called for value in vars(torch).values() if isinstance(value, torch.dtype)}
    return {**tensors, **passed, **storages, **dtypes, **dict.fromkeys(_LOGS, Inert)}


def _safe_globals() -> list[Any]:
    """numpy's scalars and arrays, in which schedulers keep their best metric and logs their losses: safe once the scan has seen that
    they are of numbers and no larger than the file. The logs themselves are replaced."""
    from numpy._core.multiarray import _reconstruct, scalar

    kinds = [type(np.dtype(code)) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1")]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    arrays = [(function, f"{module}.{function.__name__}") for module in modules for function in (scalar, _reconstruct)]
    return [np.ndarray, np.dtype, *kinds, *arrays, Inert, *((Inert, name) for name in _LOGS)]
