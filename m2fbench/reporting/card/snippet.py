"""Code for a model card that gives a protocol's predictions with nothing but torch, transformers, Pillow and numpy.

It is the paper's protocol written plainly: every query upsampled at once, where :mod:`m2fbench.models.postprocess` selects first; the same
masks, scores and maps, for an image that memory is large enough for. Convention: test-time inference of the original code (``MaskFormer``).
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from m2fbench.types import Head, JsonObject


@dataclass(frozen=True)
class SnippetSettings:
    """checkpoint: hub id or folder, as the code loads it. note: beside it, None for nothing. protocol: a result's own. heads: those to give,
    the task's own first. classes, queries: of the checkpoint. things: which classes the instance head keeps and the panoptic one does not
    merge; None where all are."""

    checkpoint: str
    note: str | None
    protocol: JsonObject
    heads: tuple[Head, ...]
    classes: int
    queries: int
    things: tuple[int, ...] | None


def snippet(settings: SnippetSettings) -> tuple[str, str | None]:
    """The code, and what continues it for the heads besides the task's own; None where there are none. It leaves ``instances`` (a list of
    dictionaries with mask, label_id and score), ``panoptic`` and ``segments``, or ``semantic``."""
    if settings.protocol["name"] != "paper":
        return "\n".join(_by_processor(settings)), None
    first, *others = settings.heads
    main = [*_before(settings), *_head(settings, first), *_shown(first)]
    rest = [line for head in others for line in (*_head(settings, head), *_shown(head), "")]
    return "\n".join(main), "\n".join(rest).rstrip() if rest else None


def _before(settings: SnippetSettings) -> Iterator[str]:
    """Imports, model, and the forward pass of one photo."""
    shortest, longest = settings.protocol["min_size"], settings.protocol["max_size"]
    yield from ("import numpy as np", "import torch", "import torch.nn.functional as F", "from PIL import Image, ImageOps")
    yield from ("from transformers import AutoModelForUniversalSegmentation", "")
    yield from _names(settings)
    yield f"""model = AutoModelForUniversalSegmentation.from_pretrained(checkpoint, dtype=torch.float32).eval()
torch.backends.cudnn.allow_tf32 = False  # full float32 on a GPU too

# resize: the shortest edge to {shortest} pixels, the longest to {longest} at most
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
width, height = image.size
scale = {shortest} / min(height, width)
h, w = ({shortest}, scale * width) if height < width else (scale * height, {shortest})
if max(h, w) > {longest}:
    shrink = {longest} / max(h, w)
    h, w = h * shrink, w * shrink
h, w = int(h + 0.5), int(w + 0.5)
resized = np.asarray(image.resize((w, h), Image.Resampling.BILINEAR), dtype=np.float32)

# normalise, then pad with zeros, right and below, to multiples of 32
mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
padded = -(-h // 32) * 32, -(-w // 32) * 32
pixels = torch.zeros(1, 3, *padded)
pixels[0, :, :h, :w] = ((torch.from_numpy(resized) - mean) / std).permute(2, 0, 1)

with torch.inference_mode():
    output = model(pixel_values=pixels)


def upsample(x, size):
    return F.interpolate(x[None], size=size, mode="bilinear", align_corners=False)[0]


classes = output.class_queries_logits[0].softmax(-1)  # [queries, {settings.classes} + 1]; the last is "no object\""""
    yield "masks = upsample(output.masks_queries_logits[0], padded)[:, :h, :w]  # logits [queries, h, w]"
    if settings.protocol.get("semantic_resize") != "after" or settings.heads[0] != "semantic":
        yield "masks = upsample(masks, (height, width))"
    if settings.things is not None and set(settings.heads) & {"instance", "panoptic"}:
        yield f"things = torch.tensor({_numbers(settings.things)})  # classes of countable objects"
    yield ""


def _numbers(values: Sequence[int]) -> str:
    """[0, 1, 2] as Python, short."""
    if len(values) > 3 and list(values) == list(range(values[0], values[-1] + 1)):
        return f"range({values[0]}, {values[-1] + 1})"
    return str(list(values))


def _names(settings: SnippetSettings) -> Iterator[str]:
    yield f"checkpoint = {json.dumps(settings.checkpoint, ensure_ascii=False)}{f'  # {settings.note}' if settings.note else ''}"
    yield 'photo = "photo.jpg"  # yours'
    yield ""


def _head(settings: SnippetSettings, head: Head) -> Iterator[str]:
    yield from {"instance": _instance, "panoptic": _panoptic, "semantic": _semantic}[head](settings)


def _instance(settings: SnippetSettings) -> Iterator[str]:
    count = min(settings.protocol["detections"], settings.classes * settings.queries)
    yield f"# instances: the {count} most probable pairs of query and class; score = class probability x mean probability inside the mask"
    yield f"probability, pair = classes[:, :-1].flatten().topk({count})"
    yield f"query, label = pair // {settings.classes}, pair % {settings.classes}"
    if settings.things is not None:
        yield "kept = torch.isin(label, things)"
        yield "probability, query, label = probability[kept], query[kept], label[kept]"
    yield """inside = masks[query] > 0
quality = (masks[query].sigmoid() * inside).flatten(1).sum(1) / (inside.flatten(1).sum(1) + 1e-6)
instances = [
    {"mask": m, "label_id": int(c), "score": float(s)} for m, c, s in zip(inside, label, probability * quality)
]
instances.sort(key=lambda instance: -instance["score"])"""


def _panoptic(settings: SnippetSettings) -> Iterator[str]:
    protocol = settings.protocol
    merged = "" if settings.things is None else " if category in things else stuff.setdefault(category, len(segments) + 1)"
    yield f"""# panoptic: queries of a class with a probability over {protocol["object_threshold"]} compete for the pixels
probability, label = classes.max(-1)
kept = (label != {settings.classes}) & (probability > {protocol["object_threshold"]})
probability, label, mask = probability[kept], label[kept], masks[kept].sigmoid()
panoptic, segments, stuff = torch.zeros(height, width, dtype=torch.int32), [], {{}}
winner = (probability[:, None, None] * mask).argmax(0) if len(label) else panoptic
for k, category in enumerate(label.tolist()):
    won, own = winner == k, mask[k] >= 0.5
    if not (won & own).any() or won.sum().item() / own.sum().item() < {protocol["overlap_threshold"]}:
        continue  # hidden for the most part
    number = len(segments) + 1{merged}
    panoptic[won & own] = number
    if number > len(segments):
        segments.append({{"id": number, "label_id": category}})"""


def _semantic(settings: SnippetSettings) -> Iterator[str]:
    after = settings.protocol["semantic_resize"] == "after"
    if not after:
        yield "# semantic: every query votes for its classes where its mask is"
        yield 'semantic = torch.einsum("qc,qhw->chw", classes[:, :-1], masks.sigmoid()).argmax(0)'
        return
    yield "# semantic: every query votes for its classes where its mask is, at the size the model saw; then to the photo's size"
    source = "masks" if settings.heads[0] == "semantic" else "upsample(output.masks_queries_logits[0], padded)[:, :h, :w]"
    yield f'scores = torch.einsum("qc,qhw->chw", classes[:, :-1], {source}.sigmoid())'
    yield "semantic = upsample(scores, (height, width)).argmax(0)"


def _shown(head: Head) -> Iterator[str]:
    """What a reader sees of the result."""
    if head == "instance":
        yield "for instance in instances[:5]:"
        yield '    print(model.config.id2label[instance["label_id"]], round(instance["score"], 3), int(instance["mask"].sum()), "pixels")'
    elif head == "panoptic":
        yield "for segment in segments:"
        yield '    print(model.config.id2label[segment["label_id"]], int((panoptic == segment["id"]).sum()), "pixels")'
    else:
        yield "for label in semantic.unique().tolist():"
        yield '    print(model.config.id2label[label], int((semantic == label).sum()), "pixels")'


def _by_processor(settings: SnippetSettings) -> Iterator[str]:
    """The processor's own way, with the options that were measured."""
    head = settings.heads[0]
    given = "".join(f", {key}={_value(value)}" for key, value in settings.protocol["options"][head].items())
    name = {"instance": "instances", "panoptic": "panoptic", "semantic": "semantic"}[head]
    yield from ("import torch", "from PIL import Image, ImageOps")
    yield from ("from transformers import AutoImageProcessor, AutoModelForUniversalSegmentation", "")
    yield from _names(settings)
    yield f"""processor = AutoImageProcessor.from_pretrained(checkpoint)
model = AutoModelForUniversalSegmentation.from_pretrained(checkpoint, dtype=torch.float32).eval()
image = ImageOps.exif_transpose(Image.open(photo)).convert("RGB")
inputs = processor(images=image, return_tensors="pt")
with torch.inference_mode():
    output = model(pixel_values=inputs["pixel_values"])
({name},) = processor.post_process_{head}_segmentation(output, target_sizes=[(image.height, image.width)]{given})"""


def _value(value: object) -> str:
    """An option of a processor's as Python; what JSON keeps as a list was a set."""
    return (f"{{{', '.join(map(repr, value))}}}" if value else "set()") if isinstance(value, list) else repr(value)
