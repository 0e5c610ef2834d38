"""The words by which a card speaks of figures, data sets and models: where each stands in a text, and what it means.

All patterns take time linear in the text: every repetition in them is bounded or of one kind of character.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["metric", "dataset", "backbone", "checkpoint", "subject", "architecture", "pronoun", "other", "protocol", "split"]

MULTI, SINGLE = "multi-scale + flip", "single-scale"
COSTS = {"params_M": "M parameters", "flops_G": "GFLOPs", "fps": "images/s", "latency": "s per image"}
"""Figures of cost -> their unit; all others are percentages."""


@dataclass(frozen=True)
class Mention:
    """``value`` in the project's own terms; start, end: in the text it was found in."""

    kind: Kind
    value: str
    start: int
    end: int


_J = r"[ _^-]{0,8}"  # what joins "AP" and its index, markup taken out
_METRICS = re.compile(
    rf"""
      (?P<range>       \bm?AP@?_?\[?(?:IoU=)?(?:50|0?\.50?)[:-](?:95|0?\.95)(?:[:,]0?\.05)?\]? )
    | (?P<boundary_AP> \b(?i:boundary)[ _-]{{1,3}}AP\b )
    | (?P<AP_th_pan>   \bAP[ _^]{{1,16}}(?i:th|things?)[ _^]{{1,16}}(?i:pan)\b )
    | (?P<mIoU_pan>    \b(?i:m[ _-]?IoU|mean[ _]IoU)[ _^]{{1,16}}(?i:pan)\b )
    | (?P<PQ_th>       \bPQ{_J}(?i:th|things?)\b )
    | (?P<PQ_st>       \bPQ{_J}(?i:st|stuff)\b )
    | (?P<AP50>        \bm?AP(?:@|_|\^|@IoU=|@\[IoU=)?_{{0,7}}(?:50|0?\.50?)(?!\d|[.,]\d|[:-][\d.]) )
    | (?P<AP75>        \bm?AP(?:@|_|\^|@IoU=|@\[IoU=)?_{{0,7}}(?:75|0?\.75)(?!\d|[.,]\d) )
    | (?P<APs>         \bAP(?:{_J}(?:S|small|Small)|s)\b )
    | (?P<APm>         \bAP(?:{_J}(?:M|medium|Medium)|m)\b )
    | (?P<APl>         \bAP(?:{_J}(?:L|large|Large)|l)\b )
    | (?P<box_AP>      \b(?i:box|bbox|bounding[ -]box)[ _-](?:m?AP|(?i:average[ ]precision))\b | \bAP[ _^]{{1,8}}(?i:box|bb|bbox)\b )
    | (?P<AR>          \bAR(?:@?\d{{1,3}}|[sml])?\b | \b(?i:average[ ]recall)\b )
    | (?P<AP>          \b(?i:(?:mask[ _-])?(?:mean[ ])?average[ ]precision)\b(?:[ ]{{1,4}}\([ ]{{0,4}}m?AP[ ]{{0,4}}\))?
                     | \b(?i:mask[ _-])?m?AP(?:[ _^]{{1,8}}(?i:mask))?\b )
    | (?P<PQ>          \b(?i:panoptic[ ]quality)\b(?:[ ]{{1,4}}\([ ]{{0,4}}PQ[ ]{{0,4}}\))? | \bPQ\b(?:[ ]{{1,4}}\((?i:panoptic[ ]quality)\))? )
    | (?P<mIoU>        \b(?i:mean[ ]intersection[ -]over[ -]union|mean[ _]IoU|m[ _-]?IoU)\b(?:[ ]{{1,4}}\([ ]{{0,4}}(?i:m-?IoU)[ ]{{0,4}}\))? )
    | (?P<SQ>          \bSQ\b | \b(?i:segmentation[ ]quality)\b )
    | (?P<RQ>          \bRQ\b | \b(?i:recognition[ ]quality)\b )
    | (?P<pixel_accuracy> \b(?i:pixel[ _]accuracy)\b )
    """,
    re.VERBOSE,
)

_ALIASES = {"range": "AP"}

SIZES = {"tiny": "T", "small": "S", "base": "B", "large": "L"}
_BACKBONE = re.compile(
    r"\bSwin(?:[ -]?Transformer)?[ _-]?(?P<size>(?i:tiny|small|base|large)|[TSBL])\b(?P<fapn>[ +-]{1,3}FaPN\b)?"
    r"(?P<in21k>[ -]{0,2}\(?[ ]?(?:IN|(?i:ImageNet))[ -]?2[12][ ]?[kK]\b\)?)?(?P<with>(?:[ +-]{1,3}|[ ](?:with|and)[ ](?:an?[ ]|the[ ])?)FaPN\b)?"
    r"|\b(?:ResNet[ -]?|R-?)(?P<depth>50|101)\b"
)
_CHECKPOINT = re.compile(
    r"(?<![\w./-])(?P<owner>[\w.-]{1,40}/)?mask2former-swin-(?P<size>tiny|small|base-IN21k|base|large)-(?P<data>coco|ade|cityscapes|mapillary-vistas)-"
    r"(?P<task>instance|panoptic|semantic)(?![\w-])"
)
HUB_DATASETS = {"coco": "COCO", "ade": "ADE20K", "cityscapes": "Cityscapes", "mapillary-vistas": "Mapillary Vistas"}
_DATASETS = re.compile(
    r"(?P<COCO>\b(?:MS[ -]?)?COCO\b)|(?P<ADE20K>\bADE[ -]?20[kK]\b|\bADE\b)|(?P<Cityscapes>\b(?i:cityscapes)\b)|"
    r"(?P<Mapillary>\bMapillary(?:[ ]Vistas)?\b)|"
    r"(?P<other>\b(?:Pascal|PASCAL)(?:[ -]VOC)?\b|\bLVIS\b|\bKITTI\b|\bBDD(?:100K)?\b|\biSAID\b|\bSUN[ -]?RGB-?D\b|"
    r"\bNYU\w{0,6}\b|\bLoveDA\b|\bSA-1B\b|\bScanNet\b|\bYouTube-?VIS\b|\bOCHuman\b|\bShapes\b)"
)
_SPLIT = re.compile(r"\b(?i:test[ -]?dev(?:2017)?|test[ -](?:set|split|server))\b")
_VALIDATION = re.compile(r"\b(?i:val(?:2017)?|validation(?:[ -](?:set|split))?)\b(?![ -](?i:loss))")
_MULTI = re.compile(
    r"\b(?i:multi[ -]?scale(?:[ ](?:inference|testing|test|evaluation|flip|\+|and|with)|\)|$|[ ]?[,;.])|test[ -]time[ -]augmentation|TTA|"
    r"ms[ ]?\+[ ]?flip|m\.s\.)|\([ ]?(?i:ms)[ ]?\)"
)
_SINGLE = re.compile(r"\b(?i:single[ -]?scale|s\.s\.)|\([ ]?(?i:ss)[ ]?\)")
_OTHERS = re.compile(
    r"\b(?:MaskFormer|DETR|SegFormer|K-?Net|Mask[ ]R-CNN|Cascade[ ]Mask[ ]R-CNN|QueryInst|Panoptic[ -]DeepLab|Panoptic[ ]FCN|Panoptic[ ]SegFormer|"
    r"Max-?DeepLab|k-?[mM]aX-DeepLab|OneFormer|BEiT|SETR|UperNet|DeepLab\w{0,6}|EfficientPS|HTC\+{0,2}|SOLO\w{0,3}|EoMT|SAM|SegNeXt|U-?Net|YOLO\w{0,6}|"
    r"Mask[ ]?DINO|PVT|FPN|Segmenter|SegGPT|X-Decoder|k-means[ ]Mask[ ]Transformer|Axial-DeepLab|CMT-DeepLab|UPSNet|InternImage|ViT-Adapter|OpenSeeD|"
    r"CondInst|PointRend|RefineMask|DPT|SEEM|EVA(?:-?02)?)(?:-(?:[TSBLHX]|XL|R50|R101|(?i:tiny|small|base|large|huge)))?(?![\w-])"
)
_ARCHITECTURE = re.compile(
    r"\b(?i:the|its|their)[ ](?i:best|largest|strongest|biggest)(?:[ ]Mask2Former)?[ ](?i:model|variant|version|checkpoint)\b|"
    r"\b(?:Mask2Former|Masked-attention[ ]Mask[ ]Transformer)(?![\w/]|-[\w])|\b(?i:the)[ ](?i:architecture|paper|authors?)\b"
)
_SUBJECT = re.compile(
    r"\b(?i:this|the|our)[ ](?:(?!best|largest|strongest|original|published|paper|Mask2Former|other|previous|same|first)[\w-]{1,30}[ ]){0,3}?"
    r"(?i:model|checkpoint|network|version|fine-?tune)\b|\b(?i:we|ours)\b|\b(?i:this)[ ]Mask2Former(?:[ ](?i:model|checkpoint))?\b"
    r"|\b(?i:an?)[ ](?:[\w.-]{1,30}[ ]){0,2}?Mask2Former(?:[ ](?i:model|checkpoint))?\b(?!-)"
)
_PRONOUN = re.compile(r"\b(?:it|It|its|Its)\b")


def metrics_in(text: str) -> list[Mention]:
    return [
        Mention("metric", _ALIASES.get(name := found.lastgroup or "", name), *found.span()) for found in _METRICS.finditer(text)
    ]


def backbone_of(found: re.Match[str]) -> str:
    """In the project's terms, "Swin-B-IN21k"; of Swin-B and Swin-L just what is said ("Swin-L-FaPN" where FaPN is named)."""
    if found["depth"]:
        return f"R{found['depth']}"
    size = SIZES.get(found["size"].lower(), found["size"].upper())
    return f"Swin-{size}{'-FaPN' if found['fapn'] or found['with'] else ''}{'-IN21k' if found['in21k'] else ''}"


def checkpoint_of(found: re.Match[str]) -> str:
    """ "facebook/mask2former-swin-tiny-coco-instance", whichever way its owner is written; another owner's stays as it is."""
    owner = found["owner"] or "facebook/"
    return owner + found[0].removeprefix(found["owner"] or "")


def datasets_in(text: str) -> list[Mention]:
    names = {"Mapillary": "Mapillary Vistas"}
    return [
        Mention(
            "dataset",
            found[0] if found.lastgroup == "other" else names.get(found.lastgroup or "", found.lastgroup or ""),
            *found.span(),
        )
        for found in _DATASETS.finditer(text)
    ]


def models_in(text: str) -> list[Mention]:
    """Every mention of a model, in order; of two at the same place the more telling one."""
    found = [Mention("checkpoint", checkpoint_of(m), *m.span()) for m in _CHECKPOINT.finditer(text)]
    found += [Mention("backbone", backbone_of(m), *m.span()) for m in _BACKBONE.finditer(text)]
    found += [Mention("other", m[0], *m.span()) for m in _OTHERS.finditer(text)]
    found += [Mention("architecture", m[0], *m.span()) for m in _ARCHITECTURE.finditer(text)]
    found += [Mention("subject", m[0], *m.span()) for m in _SUBJECT.finditer(text)]
    found += [Mention("pronoun", m[0], *m.span()) for m in _PRONOUN.finditer(text)]
    kept: list[Mention] = []
    end = 0
    order = ("checkpoint", "backbone", "other", "architecture", "subject", "pronoun")
    for mention in sorted(found, key=lambda m: (m.start, order.index(m.kind))):
        if mention.start >= end:
            kept.append(mention)
            end = mention.end
        elif kept and kept[-1].kind == "subject" and mention.kind in ("backbone", "checkpoint", "other"):
            kept[-1] = mention  # "the Swin-L model": whose it is stands inside
    return list(_joined(kept, text))


def _joined(mentions: list[Mention], text: str) -> Iterator[Mention]:
    """ "Mask2Former with a Swin-L backbone" and "the model facebook/..." are one mention each: the more telling one."""
    for k, mention in enumerate(mentions):
        after = mentions[k + 1] if k + 1 < len(mentions) else None
        ahead = mentions[k - 1] if k else None
        if mention.kind in ("architecture", "subject", "pronoun") and ahead is not None and ahead.kind == "backbone":
            led = re.search(r"\b(?i:with|using)[ ](?:(?i:an?|the)[ ])?$", text[max(0, ahead.start - 12) : ahead.start])
            if led and re.fullmatch(r"(?:[ ](?i:backbone|encoder))?,?[ ]", text[ahead.end : mention.start]):
                continue  # "With R50, Mask2Former gets ..."
        between = text[mention.end : after.start] if after else ""
        telling = after is not None and after.kind in ("backbone", "checkpoint")
        if mention.kind in ("architecture", "subject") and telling and re.fullmatch(_WITH, between):
            continue
        yield mention


_WITH = re.compile(r"[ ,]{0,2}(?:\(|-|/|(?:with|using|based on|on|in)[ ](?:an?[ ]|the[ ]|its[ ])?|)[ `(]{0,3}(?:an?[ ]|the[ ])?")


_DEVICES = re.compile(
    r"\b(?:[AHLTB]\d{1,3}G?|P100|K80|RTX[ ]?[A-Z]?\d{3,4}|GTX[ ]?\d{3,4}|\d080(?:[ ]?Ti)?|\d090|Titan(?:[ ]\w{1,4})?|"
    r"Jetson|TPU|CPU|MPS|MI\d{3}|Apple[ ]M\d)\b"
)


def device_in(text: str) -> str:
    """A device that speed is said to be of and that is not the paper's V100; empty where none is named."""
    found = _DEVICES.search(text)
    return found[0] if found else ""


def protocol_in(text: str) -> str | None:
    """Whether multi-scale or single-scale testing is spoken of; None where neither is, or both are."""
    multi, single = _MULTI.search(text) is not None, _SINGLE.search(text) is not None
    return None if multi == single else MULTI if multi else SINGLE


def split_in(text: str) -> str | None:
    """ "test-dev" or "test" where a set without public truth is spoken of, "val" where only the validation set is."""
    found = _SPLIT.search(text)
    if found is None:
        return "val" if _VALIDATION.search(text) else None
    return "test-dev" if "dev" in found[0].casefold() else "test"


_LABELS = {
    "map": "AP", "ap": "AP", "maskap": "AP", "maskmap": "AP", "averageprecision": "AP", "meanaverageprecision": "AP", "segmap": "AP", "apmask": "AP",
    "ap50": "AP50", "map50": "AP50", "ap05": "AP50", "map05": "AP50", "ap75": "AP75", "map75": "AP75",
    "aps": "APs", "apm": "APm", "apl": "APl", "apsmall": "APs", "apmedium": "APm", "aplarge": "APl",
    "mapsmall": "APs", "mapmedium": "APm", "maplarge": "APl",
    "boundaryap": "boundary_AP", "apboundary": "boundary_AP", "apthpan": "AP_th_pan",
    "boxap": "box_AP", "apbox": "box_AP", "apbbox": "box_AP", "bboxmap": "box_AP",
    "pq": "PQ", "panopticquality": "PQ", "pqth": "PQ_th", "pqthings": "PQ_th", "pqthing": "PQ_th", "pqst": "PQ_st", "pqstuff": "PQ_st",
    "sq": "SQ", "rq": "RQ", "segmentationquality": "SQ", "recognitionquality": "RQ",
    "miou": "mIoU", "meaniou": "mIoU", "meanintersectionoverunion": "mIoU", "mioupan": "mIoU_pan", "pixelaccuracy": "pixel_accuracy",
    "flops": "flops_G", "gflops": "flops_G",
    "params": "params_M", "param": "params_M", "parameters": "params_M", "numberofparameters": "params_M", "numparams": "params_M",
    "fps": "fps", "framespersecond": "fps", "imagespersecond": "fps", "imagess": "fps", "imgs": "fps", "latency": "latency",
}  # fmt: skip
_FIGURES = (
    "SQ_th", "RQ_th", "SQ_st", "RQ_st", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl", "mIoU_present", "mIoU_union", "mIoU_all", "mean_accuracy",
    "frequency_weighted_IoU", "challenge_score", "IoU_class", "IoU_category", "iIoU_class", "iIoU_category", "boundary_AP50", "boundary_AP75",
    "boundary_APs", "boundary_APm", "boundary_APl",
)  # fmt: skip
_LABELS |= {re.sub(r"[^a-z0-9]", "", name.casefold()): name for name in _FIGURES}
_OF_PANOPTIC = (("thpan", "_th_pan"), ("pan", "_pan"))


def metric_of_label(label: str) -> str | None:
    """The figure that a column's header, a row's name or a key of metadata stands for as a whole; None where it stands for none. What stands
    in brackets after it (a unit, the full name, "(ss)") is left aside."""
    bare = re.sub(r"[(\[][^)\]]{0,80}[)\]]", " ", label)
    whole, short = (re.sub(r"[^a-z0-9]", "", text.casefold()) for text in (label, bare))
    for key in (whole, short, re.sub(r"(?:ms|ss|msflip|singlescale|multiscale)$", "", short)):
        if key in _LABELS:
            return _LABELS[key]
    for end, suffix in _OF_PANOPTIC:  # as a panoptic model's figures are called
        if short.endswith(end) and short.removesuffix(end) in _LABELS:
            return _LABELS[short.removesuffix(end)] + suffix
    found = metrics_in(label)
    if len({m.value for m in found}) == 1 and not re.search(
        r"\w", re.sub(r"[(\[][^)\]]{0,80}[)\]]", " ", label[: found[0].start] + label[found[-1].end :])
    ):
        return found[0].value
    return None
