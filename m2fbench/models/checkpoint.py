"""Which checkpoint a reference means, what it is and what identifies it; no weights are loaded and torch is not imported.

References: ``bundled:NAME`` (travels with the package), a folder in transformers' layout, or a hub id with an optional
``@revision``. A hub id is resolved to a commit and downloaded through huggingface_hub, config first, so that a checkpoint of
another kind is refused before its weights travel.
"""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from m2fbench.errors import CheckpointError
from m2fbench.registry import near

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    reference: as the user wrote it. revision: the hub commit it was resolved to, None elsewhere. sha256: of config and weights
    together. labels: class names by the checkpoint's own index, "no object" not among them. queries: object queries.
    """

    reference: str
    folder: Path
    revision: str | None
    sha256: str
    labels: tuple[str, ...]
    queries: int
    backbone: str
    weight_files: tuple[str, ...]


def bundled_folder() -> Path:
    return Path(__file__).parent.parent / "assets"


def bundled_names() -> list[str]:
    return sorted(path.parent.name for path in bundled_folder().glob("*/config.json"))


def resolve(reference: str) -> Checkpoint:
    """Find (and for a hub id download) the checkpoint. Raises CheckpointError with one line that says what to do."""
    folder, revision = _locate(reference)
    config = _read_config(folder, reference)
    files = _weight_files(folder, reference)
    try:
        labels, queries = _labels(config), int(config.get("num_queries", 100))
        backbone = str((config.get("backbone_config") or {}).get("model_type", "swin"))
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{reference}: config.json is not a Mask2Former's ({error}); copy or download it again") from None
    return Checkpoint(
        reference=reference,
        folder=folder,
        revision=revision,
        sha256=_content_hash(folder, ("config.json", *files)),
        labels=labels,
        queries=queries,
        backbone=backbone,
        weight_files=files,
    )


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Class names in order; transformers leaves its default ones out. Raises ValueError where numbers are missing."""
    labels = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(config.get("num_labels", 2)))}
    if sorted(map(int, labels)) != list(range(len(labels))):
        raise ValueError(f"expected id2label to name classes 0 to {len(labels) - 1}, got {str(labels)[:60]}")
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def _locate(reference: str) -> tuple[Path, str | None]:
    if reference.startswith("bundled:"):
        folder = bundled_folder() / reference.removeprefix("bundled:")
        if not folder.is_dir() or folder.parent != bundled_folder():
            known = bundled_names()
            raise CheckpointError(
                f"{reference}: expected one of {', '.join(f'bundled:{n}' for n in known)}{near(folder.name, known)}"
            )
        return folder, None
    path = Path(reference).expanduser()
    if path.is_dir():
        return path, None
    if path.is_file():
        raise CheckpointError(
            f"{reference}: expected a folder in transformers' layout (config.json and model.safetensors), got a file; "
            f"pass the folder that holds it"
        )
    if not _HUB_ID.fullmatch(reference) or reference.startswith("."):
        raise CheckpointError(f"{reference}: no such folder, and not a hub id (owner/name or owner/name@revision)")
    return _download(reference)


def _download(reference: str) -> tuple[Path, str]:
    """The hub snapshot of ``owner/name[@revision]`` and its commit: config first, then one set of weights.

    What is in huggingface_hub's cache already is not downloaded again, and serves where the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    from huggingface_hub.errors import HTTPError as HubHTTPError  # type: ignore[attr-defined]  # httpx's own, of whichever version

    repository, _, revision = reference.partition("@")

    def snapshot(*patterns: str, commit: str | None = None) -> Path:
        return Path(snapshot_download(repository, revision=commit or revision or None, allow_patterns=list(patterns)))

    try:
        folder = snapshot("config.json", "preprocessor_config.json")
        commit = folder.name
        _read_config(folder, reference)
        snapshot("model*.safetensors", "model.safetensors.index.json", commit=commit)
        if not any((folder / name).is_file() for name in WEIGHTS[:2]):
            snapshot("pytorch_model*.bin", "pytorch_model.bin.index.json", commit=commit)
        return folder, commit
    except GatedRepoError as error:
        remedy = "ask for access on its page, then log in with 'hf auth login'"
        raise CheckpointError(f"{reference}: access to this checkpoint is restricted; {remedy}") from error
    except RepositoryNotFoundError as error:
        remedy = "check the id; for a private one log in with 'hf auth login'"
        raise CheckpointError(f"{reference}: no such folder, and the hub has no such checkpoint; {remedy}") from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{reference}: the checkpoint has no revision '{revision}'; give a branch, a tag or a commit"
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"{reference}: no such folder, and not a hub id (owner/name or owner/name@revision)") from error
    except (LocalEntryNotFoundError, HubHTTPError) as error:
        remedy = "check the connection (or HF_ENDPOINT, HF_HUB_OFFLINE), or pass a local folder"
        raise CheckpointError(f"{reference}: not in the cache, and the hub cannot be reached; {remedy}") from error
    except OSError as error:
        raise CheckpointError(f"{reference}: the download could not be stored: {error}; free space or set HF_HOME") from error


def _read_config(folder: Path, reference: str) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise CheckpointError(f"{reference}: expected a transformers folder with config.json, got {found}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{reference}: config.json cannot be read ({error}); copy or download the checkpoint again"
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "mask2former":
        raise CheckpointError(f"{reference}: expected a Mask2Former checkpoint (model_type 'mask2former'), got model_type {kind!r}")
    return dict(config)


def _weight_files(folder: Path, reference: str) -> tuple[str, ...]:
    """Names of the files that hold the weights, the index of sharded ones included."""
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (name,)
        try:
            shards = sorted(set(json.loads(path.read_bytes())["weight_map"].values()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{reference}: {name} is not a weight index ({error}); copy or download the checkpoint again"
            ) from error
        for shard in shards:
            if not (folder / shard).is_file() or Path(shard).name != shard:
                raise CheckpointError(
                    f"{reference}: {name} names {shard}, which is not there; copy or download the checkpoint again"
                )
        return (name, *shards)
    raise CheckpointError(f"{reference}: expected weights in one of {', '.join(WEIGHTS)}, got none of them")


def _content_hash(folder: Path, files: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in files:
        with (folder / name).open("rb") as file:
            digest.update(f"{name}\0{hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
