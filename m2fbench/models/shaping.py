"""What a variant does to a module: fewer layers, folded batch norms, left-out work, memory layout, compilation; checked, and read back."""

from typing import TYPE_CHECKING, Any

import torch

from m2fbench.errors import UnsupportedError
from m2fbench.models.lean import make_lean
from m2fbench.types import JsonObject

if TYPE_CHECKING:
    from m2fbench.sections import Variant

Outputs = tuple[torch.Tensor, torch.Tensor]

MASK2FORMER = "Mask2FormerForUniversalSegmentation"  # transformers' module with masked-attention layers

_FOLDABLE = ("ResNetConvLayer", "ResNetShortCut")  # transformers' modules that are a convolution, then a batch norm
_CLOSE, _FEW = 1e-3, 0.01  # of the largest logit; the share that may be further off where an attention mask flips by rounding


def rewrite(module: Any, variant: "Variant") -> int:
    """Fold and leave out as the variant says, in place, on the CPU in float32; the number of batch norms folded.

    Raises UnsupportedError where the model has nothing to fold, is not known, or answers otherwise than before: what is built for the parts
    of one version of transformers may not fit the next.
    """
    if not (variant.fuse or variant.lean):
        return 0
    before, folded = _answer(module), 0
    if variant.fuse:
        folded = fold_batch_norms(module)
        if not folded:
            raise UnsupportedError("fuse: no batch norm follows a convolution in this model; it is for ResNet backbones")
    if variant.lean:
        make_lean(module, sdpa=variant.attention == "sdpa")
    _refuse_other(before, module, " and ".join(key for key in ("fuse", "lean") if getattr(variant, key)))
    return folded


def _refuse_other(before: Outputs, module: Any, what: str) -> None:
    import transformers

    try:
        after = _answer(module)
    except Exception as error:  # whatever another version's parts lead to
        raise UnsupportedError(
            f"{what}: does not fit transformers {transformers.__version__} ({type(error).__name__}: {error})"
        ) from error
    for old, new in zip(before, after, strict=True):
        off = (new - old).abs() > _CLOSE * old.abs().max()
        if off.float().mean() > _FEW or new.isnan().any():
            raise UnsupportedError(f"{what}: gives other outputs than the model with transformers {transformers.__version__}")


@torch.inference_mode()
def _answer(module: Any) -> Outputs:
    """The logits for noise, the same at every call."""
    noise = torch.rand(1, 3, 128, 160, generator=torch.Generator().manual_seed(0)) * 4 - 2
    found = module(pixel_values=noise)
    return found.class_queries_logits, found.masks_queries_logits


def masked_layers(module: Any) -> int | None:
    """How many masked-attention layers the model has, one less than its config's ``decoder_layers``; None for any other than a Mask2Former."""
    return len(module.model.transformer_module.decoder.layers) if type(module).__name__ == MASK2FORMER else None


def stop_after(module: Any, layers: int) -> None:
    """Leave out every masked-attention layer after the first ``layers``, in place. A Mask2Former predicts from its queries as each layer leaves
    them, by one and the same head, so what is left predicts what it did as the auxiliary output of that layer, to the last bit. Raises
    UnsupportedError where there are not so many, or none at all."""
    there = masked_layers(module)
    if there is None:
        raise UnsupportedError(f"decoder_layers: knows Mask2Former only, this is a {type(module).__name__}")
    if layers > there:
        raise UnsupportedError(f"decoder_layers: {layers}: this model has {there} masked-attention layers; choose 0 to {there}")
    decoder = module.model.transformer_module.decoder
    decoder.layers = decoder.layers[:layers]
    decoder.decoder_layers = layers
    module.config.decoder_layers = layers + 1  # as transformers counts them


def fold_batch_norms(module: torch.nn.Module) -> int:
    """Fold every batch norm of a ResNet backbone into its convolution, in place; how many there were."""
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    found = [part for part in module.modules() if type(part).__name__ in _FOLDABLE]
    for part in found:
        convolution: Any = part.convolution
        normalization: Any = part.normalization
        part.convolution = fuse_conv_bn_eval(convolution, normalization)
        part.normalization = torch.nn.Identity()
    return len(found)


def lay_out(module: Any, variant: "Variant") -> None:
    """Weights channels-last, and parts compiled, where the variant says so; on the device that the module is to run on.

    The parts are compiled one by one, so that hooks on them still fire, outside of what is compiled; graphs are whole or not at all.
    """
    if variant.channels_last:
        module.to(memory_format=torch.channels_last)
    if variant.compile:
        for part, dynamic in _parts(module):
            part.forward = torch.compile(part.forward, fullgraph=True, dynamic=dynamic)


def _parts(module: Any) -> list[tuple[Any, bool]]:
    """The parts to compile, and whether once for all image sizes. A ResNet and the transformer decoder allow that. The pixel decoder's
    deformable attention is fixed to its sizes, and tracing a Swin's windows at sizes left open takes minutes a block, at given ones a second."""
    model: Any = getattr(module, "model", None)
    if not hasattr(model, "transformer_module"):
        return [(module, False)]
    backbone = model.pixel_level_module.encoder
    resnet = getattr(backbone.config, "model_type", None) == "resnet"
    return [(backbone, resnet), (model.pixel_level_module.decoder, False), (model.transformer_module, True)]


def layout_of(module: Any, variant: "Variant") -> JsonObject:
    """Read back from the module: whether every convolution's weights are channels-last, which parts are compiled, and how many
    masked-attention layers there are (None: it is no Mask2Former)."""
    weights = [part.weight for part in module.modules() if isinstance(part, torch.nn.Conv2d)]
    last = bool(weights) and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    compiled = [type(part).__name__ for part in module.modules() if hasattr(part.forward, "_torchdynamo_orig_callable")]
    return {"channels_last": last, "compiled": compiled, "lean": variant.lean, "decoder_layers": masked_layers(module)}
