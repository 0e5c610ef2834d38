"""Files of weights, whatever form they have, as one state dict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from m2fbench.download import cache_folder
from m2fbench.errors import CheckpointError, shown
from m2fbench.models.pickled import ForbiddenTypeError, PickledArray, PickleError, read_pickle
from m2fbench.models.torch_files import ZIP_MAGIC, is_legacy, read_torch

StateDict = dict[str, torch.Tensor]
"""Name -> weight, on the CPU; the memory may be the file's own, so nothing is written to it."""

_INSIDE = ("model", "state_dict", "model_state_dict", "model_state")  # where checkpoints keep their weights


@dataclass(frozen=True)
class Weights:
    """What a file held. meta: the text and numbers of an mmdetection checkpoint's ``meta``."""

    state: StateDict
    meta: Mapping[str, Any] | None = None


def read_weights(path: Path) -> Weights:
    """The state dict in a .pkl of numpy arrays, a .pth or .bin of torch, or a .safetensors file, told apart by content.

    Nothing in the file is run. Raises CheckpointError with one line: what it is, where it is damaged, or which type was refused.
    """
    try:
        with path.open("rb") as file:
            head = file.read(64)
        return _read(path, head)
    except PickleError as error:
        raise CheckpointError(f"{path}: {error}{_remedy(path, error)}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}; check the path and its permissions") from error


def _remedy(path: Path, error: PickleError) -> str:
    if isinstance(error, ForbiddenTypeError):
        return "; load only files you trust, saved again as a plain state dict"
    if path.is_relative_to(cache_folder()):
        return "; delete this file, and the next run downloads it again"
    return "; copy or download it again"


def _read(path: Path, head: bytes) -> Weights:
    if head.startswith(ZIP_MAGIC):
        return _unwrap(path, read_torch(path))
    if head[8:9] == b"{" and head[:8] != b"":
        return Weights(_read_safetensors(path))
    if head.startswith(b"version https://git-lfs"):
        raise PickleError("is a Git LFS pointer, not the weights themselves; fetch them with 'git lfs pull'")
    if head.lstrip()[:1] == b"<":
        raise PickleError("is a web page, not weights; download it again from the address that gives the file itself")
    if head and is_legacy(path):
        return _unwrap(path, read_torch(path))
    if head[:1] in (b"\x80", b"(", b"}", b"c", b"]", b""):  # how pickled dicts, or nothing, begin
        return _unwrap(path, read_pickle(path))
    raise PickleError("is no file of weights, expected a .pkl, .pth, .bin or .safetensors checkpoint")


def _read_safetensors(path: Path) -> StateDict:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, KeyError, ValueError) as error:
        raise PickleError(f"is damaged ({str(error)[:100]})") from error


def _unwrap(path: Path, content: Any) -> Weights:
    """The state dict inside what a checkpoint file holds, names without the ``module.`` of parallel training."""
    if not isinstance(content, Mapping):
        raise PickleError(f"holds a {type(content).__name__}, expected a state dict, or a dict with one under 'model'")
    inside = next((key for key in _INSIDE if isinstance(content.get(key), Mapping) and content[key]), None)
    state = content[inside] if inside else content
    if not state:
        raise PickleError("holds no weights")
    if not inside and all(isinstance(value, Mapping) for value in state.values()):
        raise PickleError(
            f"holds {shown(', '.join(map(str, list(state)[:5])))}, expected a state dict, or a dict with one under 'model'"
        )
    if sum(map(_size, state.values())) > 2 * path.stat().st_size:  # twice: weights may be tied
        raise PickleError("claims more data than it has")
    tensors = {str(name): _tensor(str(name), value) for name, value in state.items()}
    if all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    meta = content.get("meta")
    return Weights(tensors, meta if isinstance(meta, Mapping) else None)


def _size(value: Any) -> int:
    """In bytes; 0 for what is no weight."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    return value.value.nbytes if isinstance(value, PickledArray) and value.value is not None else 0


def _tensor(name: str, value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value.detach()
    array = value.value if isinstance(value, PickledArray) else None
    if array is None:
        raise PickleError(f"has something other than weights under '{shown(name)}' ({type(value).__name__}), expected an array")
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(native if native.flags.writeable else native.copy())
