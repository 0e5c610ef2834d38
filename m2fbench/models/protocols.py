"""The protocols: how an image becomes the model's input and the model's output a prediction.

``paper`` is the original code's. ``transformers`` and ``transformers-best`` are what a user gets from the shipped Hugging Face
processor: with every default (detections under 0.5 dropped, a flat map in which later queries overwrite earlier ones), and with
the best of its own options (threshold 0, binary maps). They are here to show what the plain path costs.
"""

import inspect
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m2fbench.errors import CheckpointError
from m2fbench.models.classes import ClassMap
from m2fbench.models.postprocess import encode_masks, instance_inference
from m2fbench.models.preprocess import Geometry, ModelInput, preprocess
from m2fbench.suite import ProtocolSection
from m2fbench.types import InstanceSet, JsonObject, Size

PROTOCOL_VERSION = 1  # part of every prediction's identity: raise it with any change that can move a number


@dataclass(frozen=True)
class Protocol:
    """prepare: uint8 [H, W, 3] -> the model's input, in worker processes. instances: logits and sizes -> prediction, under the
    checkpoint's own class indices. description: all that changes its outcome."""

    prepare: Callable[[NDArray[np.uint8]], ModelInput]
    instances: Callable[[torch.Tensor, torch.Tensor, Geometry], InstanceSet]
    description: JsonObject


def build_protocol(section: ProtocolSection, folder: Path | None, classes: ClassMap) -> Protocol:
    """``folder``: of a checkpoint in transformers' layout, whose processor the transformers protocols use; None for a single file."""
    if section.name == "paper":
        return _paper(section, classes)
    if folder is None:
        raise CheckpointError(
            f"protocol {section.name}: a checkpoint of a single file has no processor; make it a folder with 'm2fbench convert', and run that"
        )
    return _huggingface(section, folder, classes, best=section.name == "transformers-best")


def _paper(section: ProtocolSection, classes: ClassMap) -> Protocol:
    things = classes.kept if classes.panoptic else None

    def instances(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry) -> InstanceSet:
        return instance_inference(class_logits, mask_logits, geometry, things=things, detections=section.detections)

    description = section.model_dump() | {"version": PROTOCOL_VERSION}
    return Protocol(_PaperInput(section.min_size, section.max_size), instances, description)


@dataclass(frozen=True)
class _PaperInput:
    min_size: int
    max_size: int

    def __call__(self, image: NDArray[np.uint8]) -> ModelInput:
        return preprocess(image, self.min_size, self.max_size)


def _huggingface(section: ProtocolSection, folder: Path, classes: ClassMap, *, best: bool) -> Protocol:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        processor.post_process_instance_segmentation  # noqa: B018  (other models' processors have none)
        settings = json.loads(processor.to_json_string())
    except Exception as error:  # transformers raises whatever a damaged file leads it to
        raise CheckpointError(
            f"{folder}: protocol {section.name} needs the checkpoint's preprocessor_config.json, which is not there or not a Mask2Former's; "
            f"use the protocol 'paper', or add the file"
        ) from error
    options: dict[str, Any] = {"threshold": 0.0, "return_binary_maps": True} if best else {}
    if not set(options) <= set(inspect.signature(processor.post_process_instance_segmentation).parameters):
        raise CheckpointError(
            f"{folder}: its processor has no {' or '.join(options)}, which {section.name} needs; use 'transformers'"
        )
    kept = set(classes.kept)

    def instances(class_logits: torch.Tensor, mask_logits: torch.Tensor, geometry: Geometry) -> InstanceSet:
        output = _Output(class_logits[None], mask_logits[None])
        (found,) = processor.post_process_instance_segmentation(output, target_sizes=[geometry.original], **options)
        segments = [(number, s) for number, s in enumerate(found["segments_info"]) if s["label_id"] in kept]
        return _from_segments(found["segmentation"], segments, geometry.original, binary=best)

    description = {"name": section.name, "version": PROTOCOL_VERSION, "processor": type(processor).__name__, "settings": settings}
    return Protocol(_ProcessorInput(processor), instances, description)


@dataclass(frozen=True)
class _Output:
    """What the processors read of a model's output; batches of one."""

    class_queries_logits: torch.Tensor
    masks_queries_logits: torch.Tensor


@dataclass(frozen=True)
class _ProcessorInput:
    processor: Any

    def __call__(self, image: NDArray[np.uint8]) -> ModelInput:
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        shape: Size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        return ModelInput(pixels, Geometry((image.shape[0], image.shape[1]), shape, shape))


def _from_segments(
    segmentation: torch.Tensor, segments: Sequence[tuple[int, JsonObject]], size: Size, *, binary: bool
) -> InstanceSet:
    """Masks from a flat map of segment ids (float [H, W], -1 = none) or from a stack of binary maps [N, H, W]."""
    if segments:
        masks = torch.stack([segmentation[n] > 0.5 if binary else segmentation == s["id"] for n, s in segments])
        rles = encode_masks(masks)
    else:
        rles = []
    return InstanceSet(
        tuple(rles),
        np.array([s["label_id"] for _, s in segments], np.int64),
        np.array([s["score"] for _, s in segments], np.float64),
        np.zeros(len(segments), bool),
    )
