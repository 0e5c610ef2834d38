"""Which checkpoint a reference means, what it is and what identifies it; no weights are loaded and torch is not imported.

References: ``bundled:NAME`` (travels with the package), a folder in transformers' layout, a hub id with an optional
``@revision``, a file of the original code or of mmdetection (or the folder it was trained in), ``zoo:coco/instance/R50`` (the original
model zoo), or the https address of such a file. A hub id is resolved to a commit and downloaded through huggingface_hub, config
first, so that a checkpoint of another kind is refused before its weights travel.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from m2fbench.errors import CheckpointError, shown
from m2fbench.models.download import Progress, fetch, is_url, redacted
from m2fbench.models.user_files import given_labels, user_path
from m2fbench.models.zoo import ZooEntry, is_zoo, zoo_entry
from m2fbench.registry import near
from m2fbench.types import JsonObject

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
# transformers' model_type -> the name its authors gave it; what these put out has the same form
FAMILIES = {"mask2former": "Mask2Former", "maskformer": "MaskFormer", "eomt": "EoMT", "eomt_dinov3": "EoMT-DINOv3"}
_FILE_SUFFIXES = (".pkl", ".pth", ".pt", ".bin", ".safetensors")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on disk.

    reference: as the user wrote it. revision: the hub commit it was resolved to, None elsewhere. sha256: of config and weights
    together. labels: class names by the checkpoint's own index, "no object" not among them. queries: object queries.
    form: "transformers" (a folder), "detectron2" or "mmdetection" (a file). config: transformers' configuration as JSON.
    detectron_config: the config.yaml that was read, if one was. task, test_size (shortest edge, cap on the longest): of its training
    and the paper's test, where the checkpoint says. published: its name in the original model zoo, where its content is proven to be
    that. warnings: what a reader of its results should know.
    """

    reference: str
    folder: Path
    revision: str | None
    sha256: str
    labels: tuple[str, ...]
    queries: int
    backbone: str
    weight_files: tuple[str, ...]
    form: str = "transformers"
    config: JsonObject = field(default_factory=dict)
    detectron_config: str | None = None
    task: str | None = None
    test_size: tuple[int, int] | None = None
    test_size_origin: str | None = None
    stamps: tuple[str, ...] = ()
    published: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def location(self) -> Path:
        """Its folder, or the file that it is."""
        return self.folder if self.form == "transformers" else self.folder / self.weight_files[0]


def bundled_folder() -> Path:
    return Path(__file__).parent.parent / "assets"


def bundled_names() -> list[str]:
    return sorted(path.parent.name for path in bundled_folder().glob("*/config.json"))


def resolve(
    reference: str, *, config: str | None = None, labels: str | None = None, progress: Progress | None = None
) -> Checkpoint:
    """Find (and where it lies elsewhere download) the checkpoint. Raises CheckpointError with one line that says what to do.

    config: a detectron2 config for a single file, in place of the config.yaml beside it. labels: the name of a label set or a file
    of class names, in place of the checkpoint's own. progress: called as the file of an address or of the zoo arrives.
    """
    if (single := _single_file(reference, progress)) is not None:
        from m2fbench.models.single_file import describe_file

        shown_as = redacted(reference) if is_url(reference) else reference
        return describe_file(single[0], shown_as, config=config, labels=labels, entry=single[1])
    if config:
        raise CheckpointError(
            f"{shown(reference)}: a config is for checkpoints of a single file; a transformers folder has its own config.json"
        )
    return _resolve_folder(reference, labels)


def problem_of(reference: str | None, config: str | None, labels: str | None) -> str | None:
    """What is wrong with a suite's row that can be seen without its checkpoint; None where nothing is."""
    try:
        if reference is not None and is_zoo(reference):
            zoo_entry(reference)
        if labels is not None:
            given_labels(labels)
        if config is not None and not user_path(config, "config").is_file():
            return f"config {shown(config)}: no such file{_seen_from(Path(config))}; check the path"
    except CheckpointError as error:
        return str(error)
    return None


def problem_here(reference: str | None, config: str | None, labels: str | None) -> str | None:
    """The same, and what is wrong with a checkpoint that lies on this machine, as far as that can be seen without its weights."""
    if (problem := problem_of(reference, config, labels)) or reference is None or is_zoo(reference) or is_url(reference):
        return problem
    try:
        if (single := _single_file(reference, None)) is not None:
            with single[0].open("rb") as file:
                head = file.read(262)
            known = (
                head[:1] in (b"\x80", b"(", b"}", b"c", b"]") or head[:2] == b"PK" or head[8:9] == b"{" or head[257:] == b"ustar"
            )
            return (
                None
                if known
                else f"{shown(reference)}: is no file of weights; expected a .pkl, .pth, .bin or .safetensors checkpoint"
            )
        if user_path(reference, "checkpoint").exists() or not _HUB_ID.fullmatch(reference) or reference.startswith("."):
            folder, _ = locate(reference)
            read_config(folder, reference)
            weight_files(folder, reference)
    except CheckpointError as error:
        return str(error)
    except OSError as error:
        return f"{shown(reference)}: cannot be read: {error.strerror}; check the path and its permissions"
    return None


def _single_file(reference: str, progress: Progress | None) -> tuple[Path, ZooEntry | None] | None:
    """The file that is the checkpoint, and the zoo's row it was got by; None for what is a folder."""
    if is_zoo(reference):
        entry = zoo_entry(reference)
        return fetch(entry.url, progress), entry
    if is_url(reference):
        return fetch(reference, progress), None
    path = user_path(reference, "checkpoint")
    if path.is_file():
        if path.name in (*WEIGHTS, "config.json"):
            raise CheckpointError(
                f"{reference}: expected the folder of a transformers checkpoint, got a file of it; pass {path.parent}"
            )
        return path, None
    if not path.exists() and (path.suffix in _FILE_SUFFIXES or path.is_symlink()):
        raise CheckpointError(f"{shown(reference)}: no such file{_seen_from(path)}; check the path")
    return (_trained(path, reference), None) if path.is_dir() and not (path / "config.json").exists() else None


def _seen_from(path: Path) -> str:
    return "" if path.is_absolute() else f" in {Path.cwd()}"


def stamp_of(path: Path) -> str:
    """What tells this state of a file from another, cheaply."""
    try:
        facts = path.stat()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; check the path and its permissions") from error
    return f"{facts.st_ino} {facts.st_size} {facts.st_mtime_ns}"


def refuse_changed(checkpoint: "Checkpoint") -> None:
    """Raise CheckpointError where a weight file is no longer the one that was hashed: a training may be writing it."""
    for name, stamp in zip(checkpoint.weight_files, checkpoint.stamps, strict=bool(checkpoint.stamps)):
        if stamp_of(checkpoint.folder / name) != stamp:
            raise CheckpointError(
                f"{checkpoint.folder / name}: has changed since it was looked at; run again once nothing writes it"
            )


def _trained(folder: Path, reference: str) -> Path:
    """The last checkpoint in a folder that detectron2 trained in."""
    files = sorted(path.name for path in folder.iterdir() if path.suffix in (".pth", ".pkl"))
    note = folder / "last_checkpoint"
    last = note.read_text(errors="replace").strip() if note.is_file() else ""
    name = next((n for n in ("model_final.pth", "model_final.pkl", last) if n in files), files[0] if len(files) == 1 else None)
    if name is None:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        what = f"{len(files)} checkpoints" if files else found
        raise CheckpointError(
            f"{reference}: expected a transformers folder with config.json, or one with a single .pth or .pkl checkpoint, got {what}"
            + ("; pass the file" if files else "")
        )
    return folder / name


def _resolve_folder(reference: str, given: str | None) -> Checkpoint:
    folder, revision = locate(reference)
    config = read_config(folder, reference)
    files = weight_files(folder, reference)
    labels, queries, backbone = config_facts(config, reference, given)
    return Checkpoint(
        reference=reference,
        folder=folder,
        revision=revision,
        sha256=_content_hash(folder, ("config.json", *files)),
        labels=labels,
        queries=queries,
        backbone=backbone,
        weight_files=files,
        stamps=tuple(stamp_of(folder / name) for name in files),
        config=config,
    )


def config_facts(config: JsonObject, reference: str, given: str | None) -> tuple[tuple[str, ...], int, str]:
    """(class names, queries, kind of backbone) of a transformers config. given: a label set or a file of names, in place of its own names.

    Raises CheckpointError where the config is not whole, or ``given`` does not name each class.
    """
    try:
        labels, queries = _labels(config), _queries(config)
        backbone = str((config.get("backbone_config") or {}).get("model_type") or _BACKBONES[config["model_type"]])
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CheckpointError(f"{reference}: config.json is not a Mask2Former's ({error}); copy or download it again") from None
    if not given:
        return labels, queries, backbone
    names = given_labels(given)
    if len(names) != len(labels):
        raise CheckpointError(f"{reference}: has {len(labels)} classes, labels {given} names {len(names)}; give one name for each")
    return names, queries, backbone


MAX_LAYERS, MAX_WIDTH = 1000, 200_000  # beyond these a config is damaged, or means to exhaust the machine


def _refuse_absurd(config: dict[str, Any], reference: str) -> None:
    """Look at every size in a config before a model is made of it. Raises CheckpointError."""
    waiting: list[tuple[str, Any]] = [("", config)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, dict):
            waiting += [(str(key), inner) for key, inner in value.items() if key not in ("id2label", "label2id")]
        elif isinstance(value, list):
            waiting += [(name, inner) for inner in value]
        limit = MAX_LAYERS if "layers" in name or name == "depths" else MAX_WIDTH
        counts = name.endswith("_layers") or name in ("depths", "hidden_sizes")
        if (isinstance(value, int) and abs(value) > limit) or (counts and not isinstance(value, int | list)):
            raise CheckpointError(
                f"{reference}: config.json is not a Mask2Former's ({shown(name)} is {shown(value, 40)}); copy or download it again"
            )
    backbone = config.get("backbone_config") or {}
    for name in ("depths", "hidden_sizes"):
        if isinstance(backbone, dict) and not isinstance(backbone.get(name, []), list):
            raise CheckpointError(f"{reference}: config.json is not a Mask2Former's ({name} is no list); copy or download it again")


_BACKBONES = {"mask2former": "swin", "maskformer": "swin", "eomt": "vit", "eomt_dinov3": "vit"}  # where the config names none


def _queries(config: dict[str, Any]) -> int:
    if config["model_type"] == "maskformer":
        return int((config.get("decoder_config") or {}).get("num_queries", 100))
    return int(config.get("num_queries", 100 if config["model_type"] == "mask2former" else 200))


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    """Class names in order; transformers leaves its default ones out. Raises ValueError where numbers are missing."""
    labels = config.get("id2label") or {str(i): f"LABEL_{i}" for i in range(int(config.get("num_labels", 2)))}
    if sorted(map(int, labels)) != list(range(len(labels))):
        raise ValueError(f"expected id2label to name classes 0 to {len(labels) - 1}, got {str(labels)[:60]}")
    return tuple(str(labels[key]) for key in sorted(labels, key=int))


def locate(reference: str, *, weights: bool = True) -> tuple[Path, str | None]:
    """(folder in transformers' layout, hub commit or None). weights: False to download config.json alone. Raises CheckpointError."""
    if reference.startswith("bundled:"):
        folder = bundled_folder() / reference.removeprefix("bundled:")
        if folder.name not in bundled_names() or folder.parent != bundled_folder():
            known = bundled_names()
            raise CheckpointError(
                f"{reference}: expected one of {', '.join(f'bundled:{n}' for n in known)}{near(folder.name, known)}"
            )
        return folder, None
    path = user_path(reference, "checkpoint")
    if path.is_dir():
        return path, None
    if not _HUB_ID.fullmatch(reference) or reference.startswith("."):
        raise CheckpointError(
            f"{shown(reference)}: no such folder{_seen_from(path)}, and not a hub id (owner/name or owner/name@revision)"
        )
    return _download(reference, weights)


def _download(reference: str, weights: bool) -> tuple[Path, str]:
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
        read_config(folder, reference)
        if not weights:
            return folder, commit
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
        raise CheckpointError(
            f"{reference}: no such folder here, not in the cache, and the hub cannot be reached; {remedy}"
        ) from error
    except OSError as error:
        raise CheckpointError(f"{reference}: the download could not be stored: {error}; free space or set HF_HOME") from error


def read_config(folder: Path, reference: str) -> JsonObject:
    """config.json of a Mask2Former or a sister of it. Raises CheckpointError, also where a size in it is out of all proportion."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_bytes())
    except FileNotFoundError:
        found = ", ".join(sorted(p.name for p in folder.iterdir())[:5]) or "nothing"
        raise CheckpointError(f"{reference}: expected a transformers folder with config.json, got {found}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{reference}: config.json cannot be read ({error}); copy or download the checkpoint again"
        ) from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind == "oneformer":
        raise CheckpointError(
            f"{reference}: a OneFormer takes a text with each image, which is not supported; expected a Mask2Former"
        )
    if not isinstance(kind, str) or kind not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise CheckpointError(
            f"{reference}: expected a Mask2Former checkpoint, or a sister of it (model_type {known}), got {kind!r}"
        )
    _refuse_absurd(config, reference)
    return dict(config)


def weight_files(folder: Path, reference: str) -> tuple[str, ...]:
    """Names of the files that hold the weights, the index of sharded ones included."""
    for name in WEIGHTS:
        path = folder / name
        if not path.is_file():
            continue
        if not name.endswith(".index.json"):
            return (name,)
        try:
            index = json.loads(path.read_bytes())
            shards = sorted(set(map(str, index["weight_map"].values())))
            index.get("metadata", {}).keys()  # transformers takes it for a mapping
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CheckpointError(
                f"{reference}: {name} is not a weight index ({error}); copy or download the checkpoint again"
            ) from error
        for shard in shards:
            suffix = name.removesuffix(".index.json")[name.index(".") :]
            if Path(shard).name != shard or not shard.endswith(suffix) or not (folder / shard).is_file():
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
