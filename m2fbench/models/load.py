"""Weights into a model, with nothing left at its random initialisation."""

import contextlib
import logging
import pickle
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from m2fbench.errors import CheckpointError, DeviceError, shown
from m2fbench.models.checkpoint import Checkpoint, refuse_changed
from m2fbench.models.memory import Shortage, attempt, run_forward
from m2fbench.models.pickled import ForbiddenTypeError, PickleError
from m2fbench.models.preprocess import ModelInput
from m2fbench.models.semantic import View
from m2fbench.models.shaping import lay_out, layout_of, rewrite, stop_after
from m2fbench.models.torch_files import read_torch
from m2fbench.models.variants import PLAIN, Switches, conditions, in_effect, switched, switches_of
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from m2fbench.sections import Variant

Forward = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""pixels float32 [1, 3, H, W] -> class_logits float32 [Q, C + 1], mask_logits float32 [Q, h, w]; the latter stay on the device."""


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run. parameters: their number, those of layers that the variant leaves out not among them. settings: what of the
    variant took effect.

    module: the torch module that runs, for hooks on its parts; None for one that is not torch's. switches: the process-wide switches that
    ``forward`` runs under, for whatever of the variant's work is done outside of it (``variants.switched``). outputs: all that the module
    returns for the same pixels, options of its own given, under the conditions of ``forward``, which takes the logits from it; None without
    a module.
    """

    forward: Forward
    device: torch.device
    parameters: int
    settings: JsonObject
    module: Any | None = None
    switches: Switches = PLAIN
    outputs: Callable[..., Any] | None = None


Loader = Callable[[Checkpoint, "Variant", str], LoadedModel]
"""(checkpoint, variant, device "cpu" or "cuda") -> model; tests put their own in ``load``'s place."""


@dataclass(frozen=True)
class ForwardOutput:
    """The model's logits for each look at one image; ``seconds()``: of the forward passes, waiting for the device to finish them.

    switches: those of the model, under which products of the logits are to be computed too.
    notes: that they took a second try.
    """

    views: tuple[View, ...]
    seconds: Callable[[], float]
    switches: Switches = PLAIN
    notes: tuple[str, ...] = ()

    def switched(self) -> contextlib.AbstractContextManager[None]:
        return switched(self.switches)


def timed_forward(model: LoadedModel, looks: Sequence[ModelInput], settle: Callable[[], object] = lambda: None) -> ForwardOutput:
    """The forward passes of one image, each look by itself, started but on CUDA not waited for.

    Where the device's memory is short they are tried once more, after ``settle`` has waited for other users of it. Raises ImageError
    where that fails too.
    """
    largest = max((look.geometry.padded for look in looks), key=lambda size: size[0] * size[1])
    output, notes = run_forward(lambda: _timed(model, looks), largest, settle)
    return replace(output, notes=notes)


def _timed(model: LoadedModel, looks: Sequence[ModelInput]) -> ForwardOutput:
    if model.device.type != "cuda":
        started = time.perf_counter()
        views = views_of(model, looks)
        elapsed = time.perf_counter() - started
        return ForwardOutput(views, lambda: elapsed, model.switches)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    views = views_of(model, looks)
    end.record()

    def seconds() -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000

    return ForwardOutput(views, seconds, model.switches)


def views_of(model: LoadedModel, looks: Sequence[ModelInput]) -> tuple[View, ...]:
    """The model's logits for each look at one image."""
    return tuple(View(*model.forward(look.pixels), look.geometry, look.flipped) for look in looks)


def load(checkpoint: Checkpoint, variant: "Variant", device: str) -> LoadedModel:
    """The checkpoint as transformers' Mask2FormerForUniversalSegmentation (or a sister of it), in eval mode, as the variant says.

    Switches of the whole process are set for each forward pass and put back after it, so that several models run side by side. Raises
    CheckpointError where a weight is missing, left over or of another shape, as transformers would run on with random numbers, and
    UnsupportedError where the model cannot do the variant; ``forward`` raises it where compiling it fails.
    """
    rewritten = variant.fuse or variant.lean  # which is done, and checked, in float32
    model = load_module(checkpoint, dtype="float32" if rewritten else variant.dtype, eager=variant.attention == "eager")
    if variant.decoder_layers is not None:
        stop_after(model, variant.decoder_layers)
    parameters = sum(p.numel() for p in model.parameters())
    folded = rewrite(model, variant)
    target = torch.device(device)
    if isinstance(attempt(lambda: model.to(target, getattr(torch, variant.dtype)) if rewritten else model.to(target)), Shortage):
        raise DeviceError(f"{checkpoint.reference}: too little device memory for its weights; free some, or use --device cpu")
    lay_out(model, variant)
    fixed = model.config.image_size if checkpoint.config["model_type"].startswith("eomt") else None
    dtype = next(model.parameters()).dtype
    layout = torch.channels_last if variant.channels_last else torch.contiguous_format

    @torch.inference_mode()
    def outputs(pixels: torch.Tensor, **options: Any) -> Any:
        if fixed is not None and tuple(pixels.shape[2:]) != (fixed, fixed):
            raise CheckpointError(
                f"{checkpoint.reference}: takes inputs of {fixed}x{fixed} pixels only, the protocol made {pixels.shape[3]}x{pixels.shape[2]}; "
                f"use 'protocol: transformers', with the processor it was published with"
            )
        with conditions(variant, target):
            return model(pixel_values=pixels.to(target, dtype, non_blocking=True).contiguous(memory_format=layout), **options)

    @torch.inference_mode()
    def forward(pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        output = outputs(pixels)
        return output.class_queries_logits[0].float(), output.masks_queries_logits[0].float()

    settings = {"dtype": str(dtype).removeprefix("torch."), "attention": _attention(model, variant), "fused_batch_norms": folded}
    settings |= in_effect(variant, target) | layout_of(model, variant)
    return LoadedModel(forward, target, parameters, settings, module=model, switches=switches_of(variant), outputs=outputs)


def _attention(model: Any, variant: "Variant") -> JsonObject:
    """Which attention kernels run, in the backbone (where it is a model of its own) and in the rest; of the masked cross-attention too where
    ``lean`` may choose it."""
    module = getattr(getattr(model, "model", model), "pixel_level_module", None)
    encoder = getattr(module, "encoder", model)
    kernels = {"backbone": str(encoder.config._attn_implementation), "model": str(model.config._attn_implementation)}
    return kernels | ({"masked": variant.attention} if variant.lean else {})


MODEL_CLASSES = {
    "mask2former": "Mask2FormerForUniversalSegmentation",
    "maskformer": "MaskFormerForInstanceSegmentation",
    "eomt": "EomtForUniversalSegmentation",
    "eomt_dinov3": "EomtDinov3ForUniversalSegmentation",
}


def load_module(checkpoint: Checkpoint, *, dtype: str = "float32", eager: bool = False) -> Any:
    """transformers' module with the checkpoint's weights, on the CPU: a Mask2FormerForUniversalSegmentation, or a sister of it. Raises
    CheckpointError.

    Weights are read as safetensors, or as pickled tensors with ``weights_only``; those of a single file are mapped first.
    """
    import transformers
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    options: dict[str, Any] = {"attn_implementation": "eager"} if eager else {}
    refuse_changed(checkpoint)
    source: Any = checkpoint.folder
    if checkpoint.form != "transformers":
        from m2fbench.models.single_file import read_state

        source, options["state_dict"] = None, read_state(checkpoint)
        options["config"] = transformers.Mask2FormerConfig(**checkpoint.config)
    family = getattr(transformers, MODEL_CLASSES[checkpoint.config["model_type"]])
    try:
        if checkpoint.form == "transformers":
            _look_at(checkpoint)
            _refuse_oversized(checkpoint, family)
        model, report = family.from_pretrained(
            source,
            dtype=getattr(torch, dtype),
            local_files_only=True,
            weights_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # so that they are reported, and refused below
            **options,
        )
    except _unreadable() as error:
        logging.getLogger(__name__).debug("loading failed", exc_info=True)
        raise CheckpointError(
            f"{checkpoint.reference}: the weights cannot be loaded: {_reason(error)}; copy or download them again"
        ) from error
    refuse_changed(checkpoint)
    _refuse_partial(checkpoint.reference, report)
    return model.eval()


def _unreadable() -> tuple[type[Exception], ...]:
    """What safetensors, torch and transformers raise for files that are damaged or no weights. Anything else (TypeError, AttributeError)
    is a bug, of ours or of theirs, and keeps its traceback."""
    from safetensors import SafetensorError

    return (
        OSError, ValueError, RuntimeError, LookupError, ArithmeticError, EOFError, SafetensorError, PickleError, pickle.UnpicklingError,
        struct.error, zipfile.BadZipFile, zlib.error,
    )  # fmt: skip


def unusable_config() -> tuple[type[Exception], ...]:
    """What transformers raises for a config with values that no model can be made of."""
    from huggingface_hub.errors import StrictDataclassError

    return (*_unreadable(), StrictDataclassError, TypeError, AttributeError, AssertionError, ImportError)


def _reason(error: Exception) -> str:
    """The first line of what it says."""
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _look_at(checkpoint: Checkpoint) -> None:
    """Find damaged and malicious weight files before transformers opens them, and such as hold no weights. Raises CheckpointError for the
    malicious, else what safetensors and ``read_torch`` raise."""
    from safetensors import safe_open

    for path in (checkpoint.folder / name for name in checkpoint.weight_files if not name.endswith(".json")):
        if path.suffix == ".safetensors":
            with safe_open(path, "pt"):
                pass
            continue
        try:
            state = read_torch(path)
        except ForbiddenTypeError as error:
            raise CheckpointError(f"{path}: the weights cannot be loaded: the file {error}; load only files you trust") from error
        if not isinstance(state, Mapping):
            raise PickleError(f"{path.name} holds a {type(state).__name__}, expected a state dict")
        for key, value in state.items():
            if not isinstance(key, str) or not isinstance(value, torch.Tensor):
                raise PickleError(f"{path.name} holds a {type(value).__name__} under {shown(key, 60)}, expected tensors by name")


def _refuse_oversized(checkpoint: Checkpoint, family: Any) -> None:
    """Compare the model that config.json asks for, made without memory, with what its files can hold: transformers would allocate it."""
    try:
        config = family.config_class.from_pretrained(checkpoint.folder, local_files_only=True)
        with torch.device("meta"):
            asked = sum(weight.numel() for weight in family(config).parameters())
    except unusable_config() as error:
        raise CheckpointError(
            f"{checkpoint.reference}: no model can be made of its config.json: {_reason(error)}; use the config.json that belongs to the weights"
        ) from error
    held = sum((checkpoint.folder / name).stat().st_size for name in checkpoint.weight_files)
    if asked > held:  # a weight takes a byte at the very least
        raise CheckpointError(
            f"{checkpoint.reference}: config.json asks for {asked:,} weights, more than {', '.join(checkpoint.weight_files[:2])} can hold "
            f"({held:,} bytes); use the config.json that belongs to them, or copy or download the checkpoint again"
        )


def _refuse_partial(reference: str, report: dict[str, Any]) -> None:
    """``report``: transformers' loading info, sets of key names; mismatched ones as (name, found, expected)."""
    missing = sorted(k for k in report["missing_keys"] if not k.endswith("num_batches_tracked"))
    mismatched = sorted(report["mismatched_keys"])
    unexpected = sorted(report["unexpected_keys"])
    if mismatched:
        name, found, expected = mismatched[0]
        more = f" and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        raise CheckpointError(
            f"{reference}: weights do not fit config.json: {name} is {list(found)}, expected {list(expected)}{more}; "
            f"use the config.json that belongs to them"
        )
    for kind, keys in (("missing from the checkpoint", missing), ("unknown to the model", unexpected)):
        if keys:
            more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
            raise CheckpointError(f"{reference}: a weight is {kind}: {keys[0]}{more}; is this a whole Mask2Former checkpoint?")


def choose_device(wanted: str) -> str:
    """ "cpu" or "cuda" for "auto", "cpu" or "cuda"; raises DeviceError where there is no such device."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise DeviceError(f"device: expected auto, cpu or cuda, got '{wanted}'; CUDA_VISIBLE_DEVICES picks one of several")
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise DeviceError(
            "--device cuda: torch sees no CUDA device; use --device cpu, or install a CUDA build of torch and a driver"
        )
    return "cuda" if wanted == "cuda" or (wanted == "auto" and available) else "cpu"


def describe_device(device: str) -> JsonObject:
    """What ran: its kind (part of a prediction's identity) and, for reading, threads, memory and driver."""
    if device == "cpu":
        return {"kind": "cpu", "threads": torch.get_num_threads()}
    properties = torch.cuda.get_device_properties(0)
    return {
        "kind": f"cuda {properties.name}",
        "memory_bytes": properties.total_memory,
        "capability": f"{properties.major}.{properties.minor}",
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }
