"""The protocols: how an image becomes the model's input and the model's output a prediction.

``paper`` is the original code's. ``transformers`` and ``transformers-best`` are what a user gets from the shipped Hugging Face
processor: with every default (detections under 0.5 dropped, a flat map in which later queries overwrite earlier ones, no stuff merged),
and with the best of its own options (threshold 0 and binary maps for instances, stuff of one class merged for panoptic maps). They are here to
show what the plain path costs.
"""

import inspect
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from m2fbench.errors import CheckpointError
from m2fbench.models.classes import ClassMap
from m2fbench.models.postprocess import (
    encode_instances,
    encode_masks,
    instance_inference,
    instance_masks,
    panoptic_map,
    panoptic_segments,
    select_detections,
    select_segments,
)
from m2fbench.models.preprocess import Geometry, ModelInput, augment, preprocess
from m2fbench.models.semantic import View, label_map, semantic_labels
from m2fbench.sections import ProtocolSection
from m2fbench.types import Head, InstanceSet, JsonObject, LabelMap, PanopticMap, Segment, Size

PROTOCOL_VERSION = 2  # part of every prediction's identity: raise it with any change that can move a number


@dataclass(frozen=True)
class Inference:
    """The predictions of one image under the checkpoint's own class indices; None for a head that was not asked for."""

    instances: InstanceSet | None = None
    panoptic: PanopticMap | None = None
    semantic: LabelMap | None = None


@dataclass(frozen=True)
class DeviceInference:
    """The predictions of one image still on the device, in the form that ``finish`` of the same protocol takes; None for a head that was
    not asked for.

    Of ``paper``: InstanceMasks, PanopticSegments and a label map (``semantic_labels``). Of the transformers protocols: what the processor
    returned.
    """

    instances: Any = None
    panoptic: Any = None
    semantic: Any = None


@dataclass(frozen=True)
class Protocol:
    """prepare: uint8 [H, W, 3] -> the model's input, one for each look, in worker processes. infer: the logits of the looks -> predictions,
    all heads from the same forward pass. description: all that changes its outcome.

    compute and finish: ``infer`` in two halves. compute: the logits of the looks -> the results on their device, which nobody has waited for
    yet; with the forward pass this is what a paper's fps includes. finish: copies them to the host and encodes them. ``infer`` gives what
    ``finish(compute(views))`` gives, in less memory where images are large.
    """

    prepare: Callable[[NDArray[np.uint8]], tuple[ModelInput, ...]]
    infer: Callable[[Sequence[View]], Inference]
    compute: Callable[[Sequence[View]], DeviceInference]
    finish: Callable[[DeviceInference], Inference]
    description: JsonObject


@dataclass(frozen=True)
class ModelClasses:
    """Of the checkpoint's class indices: those that are things, ascending; and whether the model has others, whose detections do not count.

    kept: the classes that the dataset has.
    """

    kept: tuple[int, ...]
    things: tuple[int, ...]
    panoptic: bool


def model_classes(classes: ClassMap, is_thing: Sequence[bool]) -> ModelClasses:
    """is_thing: of each category of the dataset."""
    things = tuple(index for index in classes.kept if is_thing[classes.to_dataset[index]])
    return ModelClasses(classes.kept, things, classes.panoptic or len(things) < len(classes.to_dataset))


def build_protocol(section: ProtocolSection, folder: Path | None, classes: ModelClasses, heads: Collection[Head]) -> Protocol:
    """``folder``: of a checkpoint in transformers' layout, whose processor the transformers protocols use; None for a single file."""
    if section.name == "paper":
        return _paper(section, classes, heads)
    if folder is None:
        raise CheckpointError(
            f"protocol {section.name}: a checkpoint of a single file has no processor; make it a folder with 'm2fbench convert', and run that"
        )
    return _huggingface(section, folder, classes, heads, best=section.name == "transformers-best")


def _paper(section: ProtocolSection, classes: ModelClasses, heads: Collection[Head]) -> Protocol:
    things = classes.things if classes.panoptic else None

    def compute(views: Sequence[View], wanted: Collection[Head] = heads) -> DeviceInference:
        view = views[0]
        masks = view.mask_logits, view.geometry
        # both selections, which wait for the device, before the work that need not be waited for
        detections = select_detections(view.class_logits, things, section.detections) if "instance" in wanted else None
        segments = select_segments(view.class_logits, classes.things, section.object_threshold) if "panoptic" in wanted else None
        return DeviceInference(
            instances=None if detections is None else instance_masks(detections, *masks),
            panoptic=None if segments is None else panoptic_segments(segments, *masks, overlap_threshold=section.overlap_threshold),
            semantic=semantic_labels(views, resize=section.semantic_resize) if "semantic" in wanted else None,
        )

    def finish(found: DeviceInference) -> Inference:
        return Inference(
            instances=None if found.instances is None else encode_instances(found.instances),
            panoptic=None if found.panoptic is None else panoptic_map(found.panoptic),
            semantic=None if found.semantic is None else label_map(found.semantic),
        )

    def infer(views: Sequence[View]) -> Inference:
        others = finish(compute(views, [head for head in heads if head != "instance"]))
        if "instance" not in heads:
            return others
        view = views[0]
        logits = view.class_logits, view.mask_logits, view.geometry
        return replace(others, instances=instance_inference(*logits, things=things, detections=section.detections))

    used = {"name", "min_size", "max_size"} | {key for head in heads for key in _KEYS[head]}
    description = section.model_dump(include=used) | {"version": PROTOCOL_VERSION}
    return Protocol(_PaperInput(section), infer, compute, finish, description)


# the keys of the protocol section that change the predictions of each head
_KEYS: dict[Head, tuple[str, ...]] = {
    "instance": ("detections",),
    "panoptic": ("object_threshold", "overlap_threshold"),
    "semantic": ("semantic_resize", "tta"),
}


@dataclass(frozen=True)
class _PaperInput:
    section: ProtocolSection

    def __call__(self, image: NDArray[np.uint8]) -> tuple[ModelInput, ...]:
        edges = self.section.min_size, self.section.max_size
        if self.section.tta is None:
            return (preprocess(image, *edges),)
        return augment(image, *edges, **dict(self.section.tta))


def _huggingface(section: ProtocolSection, folder: Path, classes: ModelClasses, heads: Collection[Head], *, best: bool) -> Protocol:
    if section.tta is not None:
        raise CheckpointError(f"protocol {section.name}: has no test-time augmentation; use the protocol 'paper' with 'tta: paper'")
    processor, settings = _processor(section, folder, heads)
    stuff = set(classes.kept) - set(classes.things)
    options: dict[Head, dict[str, Any]] = {
        "instance": {"threshold": 0.0, "return_binary_maps": True} if best else {},
        "panoptic": {"label_ids_to_fuse": stuff} if best else {"label_ids_to_fuse": set()},
        "semantic": {},
    }
    takes = inspect.signature(processor.post_process_instance_segmentation).parameters
    if "instance" in heads and not set(options["instance"]) <= set(takes):
        raise CheckpointError(
            f"{folder}: its processor has no {' or '.join(options['instance'])}, which {section.name} needs; use 'transformers'"
        )

    def compute(views: Sequence[View]) -> DeviceInference:
        (view,) = views
        output, size = _Output(view.class_logits[None], view.mask_logits[None]), view.geometry.original

        def call(head: Head) -> Any:
            if head not in heads:
                return None
            (found,) = getattr(processor, f"post_process_{head}_segmentation")(output, target_sizes=[size], **options[head])
            return found

        return DeviceInference(call("instance"), call("panoptic"), call("semantic"))

    def finish(found: DeviceInference) -> Inference:
        return Inference(
            instances=None if found.instances is None else _instances(found.instances, classes, binary=best),
            panoptic=None if found.panoptic is None else _panoptic(found.panoptic),
            semantic=None if found.semantic is None else found.semantic.cpu().numpy().astype(np.uint16),
        )

    description = {
        "name": section.name, "version": PROTOCOL_VERSION, "processor": type(processor).__name__, "settings": settings,
        "options": {head: {k: sorted(v) if isinstance(v, set) else v for k, v in options[head].items()} for head in sorted(heads)},
    }  # fmt: skip
    return Protocol(_ProcessorInput(processor), lambda views: finish(compute(views)), compute, finish, description)


def _processor(section: ProtocolSection, folder: Path, heads: Collection[Head]) -> tuple[Any, JsonObject]:
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        for head in heads:
            getattr(processor, f"post_process_{head}_segmentation")  # other models' processors have none
        return processor, json.loads(processor.to_json_string())
    except Exception as error:  # transformers raises whatever a damaged file leads it to
        raise CheckpointError(
            f"{folder}: protocol {section.name} needs the checkpoint's preprocessor_config.json, which is not there or not a Mask2Former's; "
            f"use the protocol 'paper', or add the file"
        ) from error


@dataclass(frozen=True)
class _Output:
    """What the processors read of a model's output; batches of one."""

    class_queries_logits: torch.Tensor
    masks_queries_logits: torch.Tensor


@dataclass(frozen=True)
class _ProcessorInput:
    processor: Any

    def __call__(self, image: NDArray[np.uint8]) -> tuple[ModelInput, ...]:
        pixels = self.processor(images=image, return_tensors="pt")["pixel_values"]
        shape: Size = (int(pixels.shape[-2]), int(pixels.shape[-1]))
        return (ModelInput(pixels, Geometry((image.shape[0], image.shape[1]), shape, shape)),)


def _instances(found: JsonObject, classes: ModelClasses, *, binary: bool) -> InstanceSet:
    """Masks from a flat map of segment ids (float [H, W], -1 = none) or from a stack of binary maps [N, H, W]."""
    kept = set(classes.things if classes.panoptic else classes.kept)
    segmentation: torch.Tensor = found["segmentation"]
    segments = [(number, s) for number, s in enumerate(found["segments_info"]) if s["label_id"] in kept]
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


def _panoptic(found: JsonObject) -> PanopticMap:
    """Its map has 0 or -1 where there is nothing. Ids that the processor gives twice are merged by the last, as panopticapi reads them."""
    ids: NDArray[np.int32] = found["segmentation"].cpu().numpy().astype(np.int32).clip(min=0)
    labels = {int(s["id"]): int(s["label_id"]) for s in found["segments_info"]}
    there = set(np.unique(ids).tolist()) - {0}
    return PanopticMap(ids, tuple(Segment(number, label) for number, label in labels.items() if number in there))
