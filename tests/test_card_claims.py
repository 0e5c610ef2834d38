"""What a model card claims: figures in prose, tables and metadata, whose they are, and what is no claim."""

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.errors import CardError
from m2fbench.reporting.claims.document import Document, plain, read_document, sentences
from m2fbench.reporting.claims.extraction import Claim, prose_claims
from m2fbench.reporting.claims.metadata import metadata_claims
from m2fbench.reporting.claims.subject import subject_of
from m2fbench.reporting.claims.tables import table_claims
from m2fbench.reporting.claims.words import MULTI, SINGLE, metric_of_label

TITLE = "# facebook/mask2former-swin-tiny-coco-instance\n\n## Results\n\n"


@pytest.fixture
def document(tmp_path: Path) -> "Make":
    return Make(tmp_path)


class Make:
    """A card of a text, read."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "README.md"

    def __call__(self, text: str, title: str = TITLE) -> Document:
        self.path.write_text(title + text, encoding="utf-8")
        return read_document(self.path)


def said(claims: list[Claim]) -> list[tuple[str, float, str, str | None]]:
    """(metric, value, whose, data set) of each."""
    return [(c.metric, round(c.value, 6), c.model.value or c.model.kind, c.dataset) for c in claims]


PROSE: dict[str, list[tuple[str, float, str, str | None]]] = {
    "The model reaches 45.0 AP on COCO val2017.": [("AP", 45.0, "subject", "COCO")],
    "A Panoptic Quality (PQ) of 57.8 on the COCO dataset.": [("PQ", 57.8, "subject", "COCO")],
    "On ADE20K, a mean Intersection-over-Union (mIoU) of 57.7.": [("mIoU", 57.7, "subject", "ADE20K")],
    "Its AP is 45.0, APs 24.5 and AP<sub>L</sub> 67.4.": [
        ("AP", 45.0, "subject", None), ("APs", 24.5, "subject", None), ("APl", 67.4, "subject", None),
    ],
    "AP50: 66.9, $AP_{75}$ of 47.1": [("AP50", 66.9, "subject", None), ("AP75", 47.1, "subject", None)],
    "mAP@0.5 is 66.9 and mAP@[0.5:0.95] is 45.0": [("AP50", 66.9, "subject", None), ("AP", 45.0, "subject", None)],
    "PQ, AP and mIoU of 53.2, 43.3 and 63.2, respectively.": [
        ("PQ", 53.2, "subject", None), ("AP", 43.3, "subject", None), ("mIoU", 63.2, "subject", None),
    ],
    "**PQ**: **53.2**, **PQ<sup>th</sup>**: 59.3, PQ^st 44.0": [
        ("PQ", 53.2, "subject", None), ("PQ_th", 59.3, "subject", None), ("PQ_st", 44.0, "subject", None),
    ],
    "AP<sup>Th</sup><sub>pan</sub> of 44.7, and a boundary AP of 31.8.": [
        ("AP_th_pan", 44.7, "subject", None), ("boundary_AP", 31.8, "subject", None),
    ],
    "Der mIoU beträgt 47,7 % auf ADE20K.": [("mIoU", 47.7, "subject", "ADE20K")],
    "The mean IoU is 0.477 on ADE20K.": [("mIoU", 47.7, "subject", "ADE20K")],
    "It has 47M parameters and needs 232 GFLOPs, at 9.7 fps (0.11 s per image).": [
        ("params_M", 47.0, "subject", None), ("flops_G", 232.0, "subject", None), ("fps", 9.7, "subject", None), ("latency", 0.11, "subject", None),
    ],
    "It has 47,439,633 parameters; FLOPs: 0.2T.": [("params_M", 47.439633, "subject", None), ("flops_G", 200.0, "subject", None)],
    "R50 reaches 43.7 AP and Swin-L reaches 50.1 AP.": [("AP", 43.7, "R50", None), ("AP", 50.1, "Swin-L", None)],
    "57.8 PQ with Swin-L and 53.2 PQ with Swin-T on COCO.": [("PQ", 57.8, "Swin-L", "COCO"), ("PQ", 53.2, "Swin-T", "COCO")],
    "Unlike Swin-L (57.8 PQ), this model reaches 53.2 PQ.": [("PQ", 57.8, "Swin-L", None), ("PQ", 53.2, "subject", None)],
    "The figures (57.8 PQ on COCO and 57.7 mIoU on ADE20K) are based on the Swin-L backbone and differ for Swin-T.": [
        ("PQ", 57.8, "Swin-L", "COCO"), ("mIoU", 57.7, "Swin-L", "ADE20K"),
    ],
    "Swin-L (IN21k) with FaPN gets 57.7 mIoU.": [("mIoU", 57.7, "Swin-L-FaPN-IN21k", None)],
    "Mask2Former with a Swin-L backbone has 57.8 PQ.": [("PQ", 57.8, "Swin-L", None)],
    "Mask2Former sets a new state of the art of 57.8 PQ.": [("PQ", 57.8, "Mask2Former", None)],
    "It outperforms MaskFormer with 57.8 PQ.": [("PQ", 57.8, "subject", None)],
    "MaskFormer (52.7 PQ) is behind.": [("PQ", 52.7, "MaskFormer", None)],
    "The gain over R50 is small, and the AP is 45.0.": [("AP", 45.0, "subject", None)],
    "The model is good on COCO. It has a PQ of 53.2.": [("PQ", 53.2, "subject", "COCO")],
    "Although this model is not measured, the Mask2Former architecture is known. For example, it has 57.7 mIoU.": [
        ("mIoU", 57.7, "Mask2Former", None),
    ],
    "On COCO panoptic segmentation (57.8 PQ), COCO instances (50.1 AP), and ADE20K (57.7 mIoU).": [
        ("PQ", 57.8, "subject", "COCO"), ("AP", 50.1, "subject", "COCO"), ("mIoU", 57.7, "subject", "ADE20K"),
    ],
    "The numbers of Swin-L:\n\n- PQ: 57.8\n- on ADE20K: mIoU of 56.1": [("PQ", 57.8, "Swin-L", None), ("mIoU", 56.1, "Swin-L", "ADE20K")],
}  # fmt: skip


@pytest.mark.parametrize("text", PROSE, ids=range(len(PROSE)))
def test_figures_in_prose(text: str, document: Make) -> None:
    assert said(prose_claims(document(text))) == PROSE[text]


NO_CLAIMS = [
    "AP is computed at IoU thresholds from 0.5 to 0.95 over 80 classes.",
    "PQ improves by 1.2, a gain in AP of 2.3; +1.2 AP, and mIoU is 1.4 points higher.",
    "It is 1.2 PQ better than R50 and within 0.3 AP of Swin-S.",
    "See table 2 for AP (page 7.5), and [59] for PQ.",
    "It does not reach 50.1 AP on COCO. Our goal is 60 AP, and 80 PQ is the target.",
    "A learning rate of 0.0001, a mask loss weight of 5.0, version 5.23.",
    "AP over the 80 categories and mIoU on the 133 categories of 5000 images.",
    "Weakest classes by AP: ring 55.75, star 60.1.",
    "Goals were AP of at least 60 and under 90, PQ of at least 75, mIoU of at least 85.",
    "The segmentation map has 57.8 of them.",
    "PQ 123.4 is no percentage.",
    "| PQ | is no table",
]


@pytest.mark.parametrize("text", NO_CLAIMS, ids=range(len(NO_CLAIMS)))
def test_what_is_no_claim(text: str, document: Make) -> None:
    assert said(prose_claims(document(text))) == []


@pytest.mark.parametrize(
    ("text", "relation", "protocol", "split"),
    [
        ("over 57 PQ", "at least", None, None),
        ("an mIoU of about 47.7", "about", None, None),
        ("less than 50M parameters", "at most", None, None),
        ("an mIoU of 47.7 (single-scale) against others", "is", SINGLE, None),
        ("49.6 mIoU with multi-scale testing", "is", MULTI, None),
        ("mIoU of 49.6 (ms + flip)", "is", MULTI, None),
        ("On COCO test-dev it has 50.5 AP", "is", None, "test-dev"),
    ],
)
def test_how_exactly_and_how_it_was_tested(
    text: str, relation: str, protocol: str | None, split: str | None, document: Make
) -> None:
    (claim,) = prose_claims(document(text))
    assert (claim.relation, claim.protocol, claim.split) == (relation, protocol, split)


def test_places_are_true_to_the_file(document: Make) -> None:
    card = document("Something first,\n  **then** [a link](https://x.y/z) and\n`a` PQ of **57.8** on\nCOCO.\n\n- *AP*: 45.0\n")
    lines = card.path.read_text().split("\n")
    pq, ap = prose_claims(card)
    assert lines[pq.line - 1][pq.column - 1 :].startswith("PQ of **57.8**")
    assert lines[ap.line - 1][ap.column - 1 :].startswith("AP*: 45.0")


def test_a_heading_says_whose_and_where(document: Make) -> None:
    card = document("### Swin-L on Cityscapes\n\nPQ: 66.6\n\n### More\n\nPQ: 53.2\n")
    assert said(prose_claims(card)) == [("PQ", 66.6, "Swin-L", "Cityscapes"), ("PQ", 53.2, "subject", None)]


def test_tables_lie_either_way(document: Make) -> None:
    card = document(
        "COCO:\n\n| backbone | setting | **AP** | AP (boundary) | params |\n|---|---|--:|--:|--:|\n"
        "| Swin-L (IN21k) | | [50.1](x) | 36.2 | 216M |\n| Swin-T | long schedule | 45.0 ± 0.3 | - | 47 |\n\n"
        "Then:\n\n| metric | value | 95 % interval | published |\n|---|---|---|---|\n"
        "| AP | 45.0 | 44 to 46 | 45.0 |\n| PQ<sup>th</sup> | 59,3% | | |\n"
        "| AP of Swin-S | 46.3 | | |\n\n"
        "<table>\n<tr><th>Model</th><th>PQ</th></tr>\n<tr><td>Swin-T</td><td><b>53.2</b></td></tr></table>\n"
    )  # fmt: skip
    claims = table_claims(card)
    assert [(c.metric, c.value, c.model.value, c.dataset, c.qualifier, c.printed_by_others) for c in claims] == [
        ("AP", 50.1, "Swin-L-IN21k", "COCO", "", False),
        ("boundary_AP", 36.2, "Swin-L-IN21k", "COCO", "", False),
        ("params_M", 216.0, "Swin-L-IN21k", "COCO", "", False),
        ("AP", 45.0, "Swin-T", "COCO", "long schedule", False),
        ("params_M", 47.0, "Swin-T", "COCO", "long schedule", False),
        ("AP", 45.0, "", None, "", False),
        ("AP", 45.0, "", None, "", True),
        ("PQ_th", 59.3, "", None, "", False),
        ("PQ", 53.2, "Swin-T", None, "", False),
    ]
    lines = card.path.read_text().split("\n")
    assert lines[claims[0].line - 1][claims[0].column - 1 :].startswith("[50.1]")
    assert lines[claims[5].line - 1][claims[5].column - 1 :].startswith("45.0 | 44")


def test_a_row_of_a_class_or_subset_is_not_an_overall_figure(document: Make) -> None:
    card = document("| subset | AP |\n|---|---|\n| small objects | 12.3 |\n| star | 70.6 |\n| overall | 45.0 |\n")
    assert [(c.value, c.qualifier) for c in table_claims(card)] == [(12.3, "small objects"), (70.6, "star"), (45.0, "")]


def test_the_metric_may_stand_behind_what_it_is_of(document: Make) -> None:
    card = document(
        "| task | metric | score |\n|---|---|---|\n| Panoptic | PQ | 53.2 |\n| Swin-L | PQ | 57.8 |\n\n"
        "| divided by | subset | metric | value |\n|---|---|---|---|\n| position | at the border | PQ | 44.4 |\n"
    )
    assert [(c.metric, c.value, c.model.value) for c in table_claims(card)] == [("PQ", 53.2, ""), ("PQ", 57.8, "Swin-L")]


def test_metadata(document: Make) -> None:
    front = (
        "---\nmodel-index:\n- name: x\n  results:\n  - dataset: {name: ADE 20K, type: ade20k, split: validation}\n    metrics:\n"
        "    - {type: mean_iou, value: 0.477, name: Mean IoU}\n    - {type: loss, value: 0.3}\n"
        "    - {type: mIoU, value: '47.7'}\n"
        "    - {type: AP, value: .nan}\n    - {type: PQ, value: [1]}\n    - {type: AP50_th_pan, value: 66.123}\n"
        "extra: [{metric: PQ, value: 53.2}]\n---\n"
    )
    claims = metadata_claims(document("", title=front))
    assert [(c.metric, c.value, c.digits, c.dataset, c.line) for c in claims] == [
        ("mIoU", 47.7, 1, "ADE20K", 7),
        ("mIoU", 47.7, 1, "ADE20K", 9),
        ("AP50_th_pan", 66.123, 3, "ADE20K", 12),
        ("PQ", 53.2, 1, None, 13),
    ]
    assert claims[0].where == "model-index.0.results.0.metrics.0.value (line 7)"


@pytest.mark.parametrize(
    ("label", "metric"),
    [
        ("mIoU (%)", "mIoU"), ("AP [val]", "AP"), ("PQ (things)", "PQ_th"), ("#Params (M)", "params_M"), ("GFLOPs", "flops_G"), ("images/s", "fps"),
        ("mIoU_pan", "mIoU_pan"), ("AP50_th_pan", "AP50_th_pan"), ("mIoU (s.s.)", "mIoU"), ("AP of the class", None), ("class", None), ("map", "AP"),
        ("IoU", None), ("", None), ("AP improvement", None),
    ],
)  # fmt: skip
def test_what_a_header_stands_for(label: str, metric: str | None) -> None:
    assert metric_of_label(label) == metric


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("# Model Card for facebook/mask2former-swin-base-coco-panoptic\n", ("Swin-B", "COCO", "panoptic")),
        ("# facebook/mask2former-swin-base-IN21k-coco-instance\n", ("Swin-B-IN21k", "COCO", "instance")),
        ("# facebook/mask2former-swin-large-mapillary-vistas-semantic\n", ("Swin-L-IN21k", "Mapillary Vistas", "semantic")),
        ("# facebook/mask2former-swin-base-cityscapes-panoptic\n", ("Swin-B-IN21k", "Cityscapes", "panoptic")),
        ("# zoo:coco/instance/R50\n", ("R50", "COCO", "instance")),
        ("---\nmodel-index:\n- name: mask2former-swin-tiny-ade-semantic\n---\n# A card\n", ("Swin-T", "ADE20K", "semantic")),
        ("# someone/mask2former-swin-tiny-coco-instance\n", (None, None, None)),
        ("# me/mask2former-swin-tiny-coco-instance-cells\n", (None, None, None)),
        ("---\nbase_model: facebook/mask2former-swin-tiny-coco-instance\n---\n# cells\n", (None, None, None)),
        ("# Notes\n\nSee facebook/mask2former-swin-tiny-coco-instance.\n", (None, None, None)),
        (
            '# Mask2Former\n\n```python\nmodel = X.from_pretrained("facebook/mask2former-swin-small-coco-instance")\n```\n',
            ("Swin-S", "COCO", "instance"),
        ),
    ],
)
def test_which_model_a_card_is_about(text: str, expected: tuple[str | None, ...], document: Make) -> None:
    subject = subject_of(document("", title=text))
    assert (subject.backbone, subject.dataset, subject.task) == expected


def test_the_model_may_be_told(document: Make) -> None:
    card = document("")
    assert subject_of(card, "swin-l-in21k").backbone == "Swin-L-IN21k"
    assert subject_of(card, "Swin-L").backbone == "Swin-L"
    assert subject_of(card, "me/mine").backbone is None
    with pytest.raises(CardError, match="expected a hub id .* one of R101, R50, Swin-B"):
        subject_of(card, "nonsense")


@given(st.text(alphabet="PQAmIoU57.8%,;:()[]*_`<>$^{}|\\ \n-#=ofCOSwin", max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_text_is_read(text: str) -> None:
    assert len(plain(text)) == len(text)
    assert "".join(piece for _, piece in sentences(text)).split() == text.split()


@pytest.mark.full
@pytest.mark.parametrize(
    "piece",
    [
        "PQ ", "57.8 PQ ", "Swin-L Mask2Former the model ", "e.g. A ", "[", "](", "<a", "![", "AP of ", "`", "a <!-- ", "| PQ ",
        "shorter side 800 ", "____",
        "<table><tr><td>", "the x y z ", "AP_", "1,234,", "$_{", "\n- PQ: 1.5\n", "> ", "```markdown\n", "*" * 7,
    ],
)  # fmt: skip
def test_reading_takes_time_linear_in_the_text(piece: str, document: Make) -> None:
    card = Path(document.path)
    card.write_text("# facebook/mask2former-swin-tiny-coco-instance\n\n" + piece * (60_000 // len(piece)))
    before = time.process_time()
    read = read_document(card)
    prose_claims(read), table_claims(read), metadata_claims(read)
    assert time.process_time() - before < 3  # seconds of computing for 60 kB; a quadratic step takes far longer
