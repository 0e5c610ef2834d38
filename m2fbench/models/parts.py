"""The parts of a model, as the papers draw it: backbone, pixel decoder, transformer decoder."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from m2fbench.types import JsonObject


@dataclass(frozen=True)
class Parts:
    """What the parts of a model are called. modules: name -> paths of its modules; rest: what all the others are, and what runs outside them."""

    modules: Mapping[str, tuple[str, ...]]
    rest: str

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.modules, self.rest)


_PIXEL_LEVEL = {"backbone": ("model.pixel_level_module.encoder",), "pixel decoder": ("model.pixel_level_module.decoder",)}
_PARTS = {"mask2former": Parts(_PIXEL_LEVEL, "transformer decoder"), "maskformer": Parts(_PIXEL_LEVEL, "transformer decoder")}
# one transformer is backbone and decoder in one
_EOMT = Parts({"mask and class heads": ("upscale_block", "mask_head", "class_predictor")}, "transformer")


def parts_of(config: JsonObject) -> Parts:
    """The parts of transformers' module for a config."""
    return _PARTS.get(config["model_type"], _EOMT)


def part_modules(module: Any, parts: Parts) -> list[tuple[str, Any]]:
    """(name of the part, module) of all but the rest."""
    return [(name, module.get_submodule(path)) for name, paths in parts.modules.items() for path in paths]


def parameters_by_part(module: Any, parts: Parts) -> dict[str, int]:
    """Part -> number of parameters; shared ones count once, running means of batch norms are none."""
    found = dict.fromkeys(parts.names, 0)
    for name, weight in module.named_parameters():
        inside = (part for part, paths in parts.modules.items() if any(name.startswith(f"{path}.") for path in paths))
        found[next(inside, parts.rest)] += weight.numel()
    return found
