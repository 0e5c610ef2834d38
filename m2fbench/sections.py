"""The sections of a suite file, as pydantic models: strict, frozen, and described, since editors show the descriptions."""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from m2fbench.types import Head, JsonObject, MeanRule

Finite = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
ProtocolName = Literal["paper", "transformers", "transformers-best"]
Kind = Literal["accuracy", "speed", "flops", "energy"]
Scope = Literal["paper", "task"]
_ONE_KIND = {"enum": list(get_args(Kind))}
Kinds = Annotated[
    list[Kind],
    Field(min_length=1),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema({"anyOf": [_ONE_KIND, {"type": "array", "items": _ONE_KIND, "minItems": 1}]}),
]
"""What a suite measures; in a file one word or a list of them."""


class Strict(BaseModel):
    """Unknown keys are refused, values are not converted, and nothing changes afterwards."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PublishedCosts(Strict):
    """What is printed of a row's cost beside its accuracy."""

    flops_G: Annotated[Finite, Field(gt=0)] | None = Field(None, description="10^9 FLOPs, a multiply-add being one.")
    params_M: Annotated[Finite, Field(gt=0)] | None = Field(None, description="10^6 parameters.")
    fps: Annotated[Finite, Field(gt=0)] | None = Field(None, description="Images per second, batch 1, post-processing included.")
    fps_device: str | None = Field(None, description="What the fps was measured on.")


class FlopsSection(Strict):
    """At which inputs `m2fbench flops` counts."""

    inputs: Literal["first", "crop"] = Field(
        "first",
        description="`first`: images of the dataset, by ascending id, at their test sizes; `crop`: one square image of the shortest edge.",
    )
    images: int | None = Field(None, ge=1, description="How many of the first images; 100 where nothing is said.")

    @model_validator(mode="after")
    def _check(self) -> "FlopsSection":
        if self.inputs == "crop" and self.images is not None:
            raise ValueError("no 'images' with 'inputs: crop', which is one image")
        return self


class DatasetSection(BaseModel):
    """Which dataset; every other key is an option of that dataset's reader."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)
    name: str = Field(description="A dataset reader: see `m2fbench list datasets`.")

    @property
    def options(self) -> JsonObject:
        return dict(self.model_extra or {})


Pixels = Annotated[int, Field(ge=1, le=32768)]
Share = Annotated[float, Field(ge=0, le=1)]


class TestTimeAugmentation(Strict):
    """The looks at one image whose score maps are averaged: every size, as it is and mirrored. Semantic predictions only."""

    min_sizes: list[Pixels] = Field(min_length=1, description="Shortest edges, of the image already resized by the protocol.")
    max_size: Pixels = Field(description="Cap on the longest edge.")
    flip: bool = Field(True, description="Each size a second time, mirrored.")


class ProtocolSection(Strict):
    """How an image becomes the model's input, and its output a prediction."""

    name: ProtocolName = Field("paper", description="`paper`, or one of the two plain Hugging Face paths.")
    min_size: int = Field(ge=1, le=8192, description="Shortest edge after the resize, in pixels.")
    max_size: int = Field(ge=1, le=32768, description="Cap on the longest edge, in pixels.")
    detections: int = Field(100, ge=1, description="Detections kept per image.")
    object_threshold: Share = Field(0.8, description="Panoptic: the class probability that a query must exceed.")
    overlap_threshold: Share = Field(0.8, description="Panoptic: the share of its own area that a query must win.")
    semantic_resize: Literal["before", "after"] = Field(
        "before", description="Bring masks to the image's size before the semantic inference, or its scores after it."
    )
    mean_iou: MeanRule = Field("present", description="Classes that mIoU is the mean over: `present`, `union` or `all`.")
    tta: TestTimeAugmentation | None = Field(None, description="What a variant with `tta: paper` does.")


class RowProtocol(Strict):
    """What of the protocol is different for one row; every key is one of the protocol's."""

    min_size: int | None = Field(None, ge=1, le=8192)
    max_size: int | None = Field(None, ge=1, le=32768)
    detections: int | None = Field(None, ge=1)
    object_threshold: Share | None = None
    overlap_threshold: Share | None = None
    semantic_resize: Literal["before", "after"] | None = None
    tta: TestTimeAugmentation | None = None


class Row(Strict):
    """One line of the published table: a checkpoint, and the numbers printed for it."""

    name: Name = Field(description="The row's name in tables and in the run directory.")
    checkpoint: str | None = Field(
        None, description="Hub id (`@revision` to pin), folder, .pkl or .pth file, `zoo:NAME`, https address, or `bundled:NAME`."
    )
    config: str | None = Field(None, description="detectron2 config of a single file, in place of the config.yaml beside it.")
    labels: str | None = Field(None, description="Class names of a single file: a label set, or a file of names.")
    architecture: str | None = Field(
        None, description="Reference of the same architecture, by which costs are counted without the checkpoint's own files."
    )
    unavailable: str | None = Field(None, description="Why the row cannot be run (then it has no checkpoint).")
    protocol: RowProtocol | None = Field(None, description="Settings of the protocol that are this row's own.")
    published: dict[str, Finite] = Field(default_factory=dict, description="Metric name -> published value, of the first variant.")
    published_variants: dict[str, dict[str, Finite]] = Field(
        default_factory=dict, description="The same of further variants: variant -> metric name -> published value."
    )
    published_costs: PublishedCosts | None = Field(None, description="Published FLOPs, parameters and speed.")
    source: str = Field("", description="Where the published values are printed.")

    @model_validator(mode="after")
    def _check(self) -> "Row":
        if (self.checkpoint is None) == (self.unavailable is None):
            raise ValueError("either 'checkpoint' or 'unavailable', one of the two")
        if (self.published or self.published_variants or self.published_costs) and not self.source:
            raise ValueError("'source', saying where the published values are printed")
        return self


class Variant(Strict):
    """Settings under which every row runs once more."""

    name: Name
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Precision of weights and forward pass.")
    attention: Literal["eager", "sdpa"] = Field("sdpa", description="Attention kernels, in model and backbone.")
    tf32: bool = Field(False, description="Let CUDA round float32 matrix products and convolutions to TF32.")
    autocast: Literal["float16", "bfloat16"] | None = Field(
        None, description="Run under torch.autocast to this precision; the weights stay float32."
    )
    channels_last: bool = Field(False, description="Keep images and convolution weights channels-last in memory.")
    cudnn_benchmark: bool = Field(False, description="Let cuDNN try its convolutions at every new shape and keep the fastest.")
    fuse: bool = Field(False, description="Fold batch norms into the convolutions before them (ResNet backbones).")
    lean: bool = Field(False, description="Leave out work that the result does not need; outputs equal to rounding.")
    compile: bool = Field(False, description="Run backbone, pixel decoder and transformer decoder through torch.compile.")
    decoder_layers: int | None = Field(
        None,
        ge=0,
        description="Stop after so many masked-attention layers and predict from there; 0: what the learned queries predict before any. "
        "All if left out. The original's DEC_LAYERS and transformers' decoder_layers are one more: they count the prediction before.",
    )
    protocol: ProtocolName | None = Field(None, description="Another protocol than the suite's.")
    tta: Literal["paper"] | None = Field(None, description="Multi-scale and flip testing, as `protocol.tta` has it.")

    @model_validator(mode="after")
    def _check(self) -> "Variant":
        if self.autocast is not None and self.dtype != "float32":
            raise ValueError(f"'dtype: float32' with 'autocast', which casts as it goes, got 'dtype: {self.dtype}'")
        return self

    @property
    def identity(self) -> JsonObject:
        """What of it changes predictions, for a prediction's identity. Keys that came later stand in it only where they are not at their
        default, so that predictions made before there were any are still found to be the same."""
        first = {"dtype": self.dtype, "attention": self.attention, "tf32": self.tf32}
        later = self.model_dump(exclude_defaults=True, exclude={"name", "protocol", "tta", *first})
        return first | later


class SpeedSection(Strict):
    """How speed is measured, where ``measure`` asks for it."""

    scopes: list[Scope] = Field(
        ["paper"],
        min_length=1,
        description="`paper`: as the paper's fps; `task`: the task's own head, warmed up for every input shape.",
    )
    heads: list[Head] | None = Field(
        None,
        min_length=1,
        description="Heads that scope `paper` runs, those of the original configuration; those of the task if left out.",
    )

    @model_validator(mode="after")
    def _check(self) -> "SpeedSection":
        for key, values in (("scopes", self.scopes), ("heads", self.heads or [])):
            if len(set(values)) < len(values):
                raise ValueError(f"each of '{key}' once")
        return self
