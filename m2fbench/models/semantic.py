"""Semantic inference: a class for every pixel, as the original code decides it, in bounded memory.

Convention: ``MaskFormer.semantic_inference`` of the original code (softmax over classes without "no object", times sigmoid masks, summed
over queries), and its ``SemanticSegmentorWithTTA`` for several looks at one image. The original upsamples all queries of a look at once
and keeps all class scores at the image's size; 200 queries on 12 megapixels are 9.6 GB. Bilinear upsampling works row by row, so here
the image is done a block of rows at a time, from the model's own small logits to the classes: on a CPU the upsampled logits are the same floats, bit
for bit, and only the products' sums may round otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F

from m2fbench.models.preprocess import Geometry
from m2fbench.types import LabelMap, Size

# float32 values at the image's size, per block: queries or classes x rows x width. On a CPU under the 32 MiB above which glibc maps every
# allocation anew, and the kernel clears it
BLOCK_BYTES = {"cpu": 16 << 20, "cuda": 256 << 20}

Resize = Literal["before", "after"]


@dataclass(frozen=True)
class View:
    """The model's logits for one look at an image; one is all there is, but for test-time augmentation.

    class_logits: float32 [Q, C + 1], "no object" last. mask_logits: float32 [Q, h, w] at the model's resolution. flipped: the look was mirrored.
    """

    class_logits: torch.Tensor
    mask_logits: torch.Tensor
    geometry: Geometry
    flipped: bool = False


def semantic_inference(views: Sequence[View], *, resize: Resize) -> LabelMap:
    """The class of every pixel [height, width] of one image, from the mean score over the views.

    resize: "before" brings the masks to the image's own size and then infers; "after" infers at the padded size, and brings the scores to
    the image's size.
    """
    return label_map(semantic_labels(views, resize=resize))


def label_map(labels: torch.Tensor) -> LabelMap:
    """What ``semantic_labels`` left on the device, copied to the host."""
    return labels.cpu().numpy().astype(np.uint8 if labels.dtype == torch.uint8 else np.uint16, copy=False)


def semantic_labels(views: Sequence[View], *, resize: Resize) -> torch.Tensor:
    """``semantic_inference`` up to its result [height, width], which stays on the device of the logits: uint8 up to 255 classes, else int32.
    Asks the device nothing."""
    height, width = views[0].geometry.original
    queries, classes = views[0].class_logits.shape[0], views[0].class_logits.shape[1] - 1
    device = views[0].mask_logits.device
    weights = [view.class_logits.softmax(-1)[:, :-1].T.contiguous() for view in views]  # [C, Q]
    longest = max(width, *(view.geometry.padded[1] for view in views))
    rows = max(1, BLOCK_BYTES[device.type] // (4 * max(queries, classes) * longest))
    labels = torch.empty((height, width), dtype=torch.uint8 if classes <= 255 else torch.int32, device=device)
    for start in range(0, height, rows):
        stop = min(start + rows, height)
        total: torch.Tensor | None = None
        for view, weight in zip(views, weights, strict=True):
            scores = _scores(view, weight, resize, start, stop)
            scores = scores.flip(-1) if view.flipped else scores
            total = scores if total is None else total.add_(scores)
        assert total is not None
        labels[start:stop] = (total / len(views) if len(views) > 1 else total).argmax(0)
    return labels


def _scores(view: View, weight: torch.Tensor, resize: Resize, start: int, stop: int) -> torch.Tensor:
    """float32 [C, stop - start, width]: class scores of these rows of the image. weight: class probabilities [C, Q]."""
    geometry = view.geometry
    resized_height, resized_width = geometry.resized
    first, last = source_rows(resized_height, geometry.original[0], start, stop)
    masks = bilinear_rows(view.mask_logits, view.mask_logits.shape[1], 0, geometry.padded, first, last)[..., :resized_width]
    if resize == "after":
        scores = _weigh(weight, masks.sigmoid_())
        return bilinear_rows(scores, resized_height, first, geometry.original, start, stop)
    return _weigh(weight, bilinear_rows(masks, resized_height, first, geometry.original, start, stop).sigmoid_())


def _weigh(weight: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """[C, Q] times [Q, rows, width]."""
    return torch.einsum("cq,qhw->chw", weight, masks)


def source_rows(height: int, new_height: int, start: int, stop: int) -> tuple[int, int]:
    """The rows [first, last) of an image of ``height`` that rows [start, stop) of it at ``new_height`` are made of."""
    low, high, _ = _neighbours(height, new_height, start, stop, torch.device("cpu"))
    return int(low[0]), int(high[-1]) + 1


def bilinear_rows(part: torch.Tensor, height: int, offset: int, size: Size, start: int, stop: int) -> torch.Tensor:
    """Rows [start, stop) of what ``F.interpolate(x, size, mode="bilinear", align_corners=False)`` gives, in a new tensor.

    part: float32 [n, rows, w], the rows of x from ``offset`` on that these need (``source_rows``). height: of all of x. On a CPU the floats are
    those of ``F.interpolate``, which does the same multiplications and additions in the same order, fused in the same places; but for
    sizes whose sides add up to 128 pixels or fewer, where torch has another kernel, that rounds otherwise.
    """
    same = height == size[0]
    first, last = (start, stop) if same else source_rows(height, size[0], start, stop)
    wide = part[:, first - offset : last - offset]
    if wide.shape[2] != size[1]:
        wide = F.interpolate(wide[None], size=(wide.shape[1], size[1]), mode="bilinear", align_corners=False)[0]
    if same:
        return wide if wide.shape[2] != part.shape[2] else wide.clone()
    low, high, share = _neighbours(height, size[0], start, stop, part.device)
    below = wide.index_select(1, high - first).mul_(share[:, None])
    return below.addcmul_(wide.index_select(1, low - first), 1 - share[:, None])


def _neighbours(
    height: int, new_height: int, start: int, stop: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For new rows [start, stop): the two rows each lies between, int64, and the share of the second, float32; made on ``device``, since a
    copy from the host would wait for it.

    torch computes the position in float32 with one rounding (fused multiply-add), which double precision and a cast give as well.
    """
    scale = float(np.float32(height) / np.float32(new_height))
    position = (scale * (torch.arange(start, stop, dtype=torch.float64, device=device) + 0.5) - 0.5).float().clamp(min=0)
    low = position.floor().long().clamp(max=height - 1)
    return low, (low + 1).clamp(max=height - 1), (position - low).clamp(0, 1)
