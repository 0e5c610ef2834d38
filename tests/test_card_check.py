"""``m2fbench card-check``: verdicts on cards of our own writing, on three real ones, against runs, and on what is hostile."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import FIXTURES
from typer.testing import CliRunner

from m2fbench.analysis.runs import Run, open_runs
from m2fbench.cli import app
from m2fbench.errors import CardError
from m2fbench.reporting.claims.check import CardCheck, check_card
from m2fbench.reporting.claims.published_figures import backbone_of_row, checkpoint_named, published_figures, same_backbone
from m2fbench.reporting.claims.verdicts import GOOD, Finding, Verdict
from m2fbench.results import RunResult
from m2fbench.types import Measurement, Published

CARDS = FIXTURES / "cards"
TITLE = "# facebook/mask2former-swin-tiny-coco-instance\n\n"
WRONG, NOT_THIS, UNKNOWN, UNMEASURED, GAP = "contradicted", "not this checkpoint's", "unverifiable", "not measured", "gap"
FAPN = "Swin-L-FaPN (IN21k), ADE20K semantic"

Row = tuple[int, str, str]


def flagged(check: CardCheck) -> list[Row]:
    """(line, claim, verdict) of what does not hold."""
    return [(f.line, f.claim, f.verdict.value) for f in check.findings if f.verdict not in GOOD]


def check_text(tmp_path: Path, text: str, runs: Sequence[Run] = (), title: str = TITLE, **options: Any) -> CardCheck:
    path = tmp_path / "README.md"
    path.write_text(title + text, encoding="utf-8")
    return check_card(path, runs, **options)


def only(check: CardCheck, line: int, claim: str) -> Finding:
    (finding,) = [f for f in check.findings if (f.line, f.claim) == (line, claim)]
    return finding


@pytest.mark.full
def test_a_card_that_is_right() -> None:
    check = check_card(CARDS / "right.md")
    assert flagged(check) == []
    assert not check.contradicted
    kinds = [(f.kind, f.verdict) for f in check.findings]
    assert kinds.count(("figure", Verdict.confirmed)) == 12
    assert kinds.count(("figure", Verdict.credited)) == 15
    assert kinds.count(("detail", Verdict.confirmed)) == 4
    assert kinds.count(("code", Verdict.confirmed)) == 7
    assert FAPN in only(check, 28, "mIoU 57.7 on ADE20K").evidence


@pytest.mark.full
def test_a_card_that_is_wrong() -> None:
    check = check_card(CARDS / "wrong.md")
    assert flagged(check) == [
        (7, "PQ 57.8 on COCO", WRONG),
        (15, "PQ 57.8 on COCO", WRONG),
        (16, "AP 50.1 on COCO", NOT_THIS),
        (17, "mIoU 51.3 on ADE20K", NOT_THIS),
        (17, "mIoU 51.3 on ADE20K", WRONG),
        (18, "PQ 54.6 on COCO", WRONG),
        (24, "PQ_st 44.0", WRONG),
        (25, "216 M parameters", WRONG),
        (30, "PQ 56.4", WRONG),
        (35, "160 epochs", WRONG),
        (35, "batch size 64", WRONG),
        (35, "200 queries", WRONG),
        (40, "transformers.Mask2FormerForPanopticSegmentation", WRONG),
        (41, "segmentation_zoo_of_nobody", WRONG),
        (42, "cv2", UNKNOWN),
        (45, "loads facebook/mask2former-swin-tiny-coco-panoptic", NOT_THIS),
        (46, "AutoTokenizer.from_pretrained(facebook/mask2former-swin-small-coco-panoptic)", WRONG),
        (48, "outputs.logits", WRONG),
        (49, "AutoImageProcessor.post_process_everything", WRONG),
        (53, "code", WRONG),
        (57, "code", GAP),
        (60, "a link", GAP),
    ]
    assert check.gaps == 2
    pq = only(check, 15, "PQ 57.8 on COCO")
    assert pq.evidence.startswith("Swin-S (COCO panoptic) has PQ 54.6 single-scale")
    assert "57.8 is Swin-L (IN21k)'s on COCO panoptic" in pq.evidence
    assert (pq.checkpoint, pq.dataset, pq.protocol) == ("Swin-S, COCO panoptic", "COCO", "single-scale")
    assert only(check, 7, "PQ 57.8 on COCO").where == "model-index.0.results.0.metrics.0.value (line 7)"
    multi = next(f for f in check.findings if f.line == 17 and f.verdict is Verdict.contradicted)
    assert "47.7" not in multi.evidence
    assert "51.3 single-scale / 52.4 multi-scale + flip" in multi.evidence


def test_the_best_of_the_paper_among_the_results_of_another() -> None:
    check = check_card(CARDS / "best_of_paper.md")
    assert flagged(check) == [(9, "mIoU 57.7 on ADE20K", NOT_THIS), (10, "0.25 s per image on ADE20K", UNKNOWN)]
    assert not check.contradicted
    finding = only(check, 9, "mIoU 57.7 on ADE20K")
    assert (finding.checkpoint, finding.protocol) == (FAPN, "multi-scale + flip")
    assert "Swin-B (ADE20K semantic) has mIoU 52.4 single-scale / 53.7 multi-scale + flip" in finding.evidence
    assert only(check, 5, "mIoU 57.7 on ADE20K").verdict is Verdict.credited


@pytest.mark.full
def test_what_is_put_otherwise() -> None:
    """Ranges, leads over others, other architectures, shares, devices, data of one's own, aliases in code: right ones pass, wrong ones do not."""
    check = check_card(CARDS / "tricky.md")
    others = ["PQ 52.7 on COCO", "PQ 51.1", "PQ 58.1", "PQ 41.0 on our own photos", "PQ 39.0 on the PanNuke dataset", "30 images/s"]
    assert flagged(check) == [
        *zip((7, 8, 8, 16, 16, 18), others, [UNKNOWN] * 6, strict=True),
        (32, "PQ 52.6 on COCO", WRONG),
        (33, "PQ 57.8 on COCO", WRONG),
        (34, "PQ 55.1 on COCO", WRONG),
        (38, "PQ 57.8 on COCO", WRONG),
        (42, "PQ 57.8", WRONG),
        (43, "AP 50.1", WRONG),
        (47, "PQ 51.9", WRONG),
        (58, "outputs.pred_masks", WRONG),
        (58, "torch.nn.functional.interpolat", WRONG),
        (58, "transformers.Mask2FormerForPanoptic", WRONG),
        (59, 'pipeline("panoptic-segmentation")', WRONG),
        (64, "PQ 53.1", UNKNOWN),
        (66, "PQ 45.1", UNKNOWN),
    ]
    right = [f.claim for f in check.findings if f.verdict in GOOD and f.kind == "figure" and f.line < 20]
    assert right == [
        "PQ 53.2 on COCO", "PQ 53.2 on COCO", "PQ 53.2 on COCO", "PQ 52.6 on COCO", "PQ 51.9 on COCO", "PQ 57.8 on COCO", "PQ 51.9 on COCO",
        "PQ 53.2", "PQ 53.2 on COCO", "PQ 53.2", "PQ 53.2 on COCO", "PQ 54.6",
    ]  # fmt: skip
    assert [f.claim for f in check.findings if f.line in (27, 28)] == ["PQ 53", "AP 43"]  # shares of one
    assert only(check, 47, "PQ 51.9").evidence.startswith("of R101 the paper prints PQ 52.6")  # of the card's own task first


def test_no_claims_where_there_are_none() -> None:
    assert check_card(CARDS / "prose_only.md").findings == ()


@pytest.mark.parametrize(
    ("model", "text", "verdict"),
    [
        ("facebook/mask2former-swin-large-ade-semantic", "The model has 57.7 mIoU on ADE20K.", WRONG),  # FaPN's
        ("facebook/mask2former-swin-large-ade-semantic", "The model has 57.3 mIoU on ADE20K.", "confirmed"),
        ("facebook/mask2former-swin-large-ade-semantic", "The model has 57.3 mIoU (single-scale) on ADE20K.", WRONG),
        ("facebook/mask2former-swin-base-coco-instance", "The model has an AP of 48.1 on COCO.", WRONG),  # the ImageNet-22k one's
        ("facebook/mask2former-swin-base-IN21k-coco-instance", "The model has an AP of 48.1 on COCO.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-panoptic", "The model has an AP of 43.3 on COCO.", "confirmed"),  # its AP_th_pan
        ("facebook/mask2former-swin-large-coco-instance", "It has 50.5 AP on COCO test-dev.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has 50.5 AP on COCO test-dev.", UNKNOWN),
        ("facebook/mask2former-swin-large-coco-instance", "It has 50.5 AP on COCO val2017.", WRONG),  # test-dev's
        ("facebook/mask2former-swin-large-ade-semantic", "57.3 mIoU (ss) on ADE20K.", WRONG),
        ("zoo:coco/panoptic/R50", "It runs at 20 fps.", WRONG),
        ("zoo:coco/panoptic/R50", "It runs at 8.6 fps on a V100.", "confirmed"),
        ("zoo:coco/panoptic/R50", "It runs at 20 fps on an A100.", UNKNOWN),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has 45.2 AP on COCO.", WRONG),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has an AP of 45 on COCO.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has over 44 AP on COCO.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has over 46 AP on COCO.", WRONG),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has an AP of 66.6 on LVIS.", UNKNOWN),
        ("facebook/mask2former-swin-tiny-coco-instance", "It has 47.4M parameters.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "It runs at 30 fps.", UNKNOWN),
        ("zoo:coco/instance/R50", "It takes 0.103 seconds per image.", "confirmed"),
        ("zoo:coco/instance/R50", "It takes 30 ms per image.", WRONG),
        ("Swin-L", "It has a PQ of 57.8 on COCO.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "Mask2Former has 60.0 PQ on COCO.", WRONG),
        ("facebook/mask2former-swin-tiny-coco-instance", "Mask2Former has a PQ of 70.0.", UNKNOWN),
        ("facebook/mask2former-swin-tiny-coco-instance", "A Mask2Former of 47M parameters.", "confirmed"),
        ("me/mine", "A Mask2Former of 1.5 million parameters.", UNMEASURED),
        ("facebook/mask2former-swin-tiny-coco-instance", "MaskFormer (52.7 PQ) is older.", UNKNOWN),
        ("facebook/mask2former-swin-tiny-coco-instance", "On small objects it has an AP of 24.5.", UNKNOWN),
        ("me/mine", "It has a PQ of 57.8 on COCO.", UNMEASURED),
        ("facebook/mask2former-swin-tiny-ade-semantic", "At inference the shorter side is 800 and the longer side 1333.", WRONG),
        ("facebook/mask2former-swin-large-coco-panoptic", "It was trained for 100 epochs.", "confirmed"),
        ("facebook/mask2former-swin-tiny-ade-semantic", "It was trained for 127 epochs.", "confirmed"),
        ("facebook/mask2former-swin-tiny-coco-instance", "It processes natural language.", WRONG),
    ],
)
def test_verdicts(model: str, text: str, verdict: str, tmp_path: Path) -> None:
    (finding,) = check_text(tmp_path, text, title="# A card\n\n", model=model).findings
    assert finding.verdict.value == verdict, finding.evidence
    assert finding.evidence


def test_every_published_figure_is_known_by_the_name_of_its_own_and_by_no_other(tmp_path: Path) -> None:
    """All that the paper prints, in sentences: each right as it stands, and contradicted where another number stands in its place."""
    figures = [f for f in published_figures() if f.metric not in ("fps", "params_M", "flops_G")]

    def sentence(f: Any, value: str) -> str:
        where = f"{f.dataset}{' test-dev' if f.split != 'val' else ''}"
        return f"{f.backbone} has {value} {f.metric} ({f.protocol.replace(' + flip', ' testing')}) on {where}."

    right = check_text(tmp_path, "\n\n".join(sentence(f, f.printed) for f in figures), title="# Figures\n\n")
    assert [f.verdict for f in right.findings] == [Verdict.credited] * len(figures)
    wrong = check_text(tmp_path, "\n\n".join(sentence(f, f"{f.value / 2:.1f}") for f in figures), title="# Figures\n\n")
    assert [f.verdict for f in wrong.findings] == [Verdict.contradicted] * len(figures)


def test_brackets_behind_one_figure_say_nothing_of_the_next(tmp_path: Path) -> None:
    text = "57.3 mIoU (ms + flip) and 56.1 mIoU (ss); again 57.3 mIoU (ms + flip) and 56.1 mIoU on ADE20K."
    check = check_text(tmp_path, text, title="# facebook/mask2former-swin-large-ade-semantic\n\n")
    assert [f.verdict for f in check.findings] == [Verdict.confirmed] * 4


def test_a_measurement_below_one_percent_is_no_share(tmp_path: Path) -> None:
    begin, end = "<!-- m2fbench:begin results -->\n", "\n<!-- m2fbench:end results -->\n"
    check = check_text(tmp_path, f"{begin}\n| metric | value |\n| --- | --- |\n| AP | 0.45 |\n{end}\n{begin}AP 0.45 on COCO.{end}")
    assert [f.claim for f in check.findings] == ["AP 0.45", "AP 0.45 on COCO"]


def test_a_measurement_of_someones_own_is_no_wrong_quotation(tmp_path: Path) -> None:
    begin, end = "<!-- m2fbench:begin results -->\n", "\n<!-- m2fbench:end results -->\n"
    text = f"An AP of 44.93 on COCO.\n\n{begin}An AP of 40.12 on COCO.{end}\nAn AP of 40.12 on COCO.\n\n{begin}An AP of 50.1 on COCO.{end}"
    found = [(f.line, f.verdict.value) for f in check_text(tmp_path, text).findings]
    assert found == [(3, UNMEASURED), (6, UNMEASURED), (9, WRONG), (12, WRONG)]
    metric = "{type: AP, value: 40.12, args: {measured_by: m2fbench 1}}"
    front = f"---\nmodel-index:\n- name: x\n  results:\n  - dataset: {{name: COCO}}\n    metrics:\n    - {metric}\n---\n"
    assert [f.verdict.value for f in check_text(tmp_path, "", title=front + TITLE).findings] == [UNMEASURED]


DETAILS_LEFT_ALONE = [
    "FPS is measured on a V100 with a batch size of 1.",
    "Swin-L models have 200 queries.",
    "One may fine-tune it for 10 epochs.",
    '"we train our models for 12 epochs"',
    "It does not process natural language.",
    "Queries: 100 or 200.",
]


@pytest.mark.parametrize("text", DETAILS_LEFT_ALONE)
def test_details_that_are_none(text: str, tmp_path: Path) -> None:
    assert check_text(tmp_path, f"## Training\n\n{text}").findings == ()


# against runs


def result(**values: Any) -> RunResult:
    given: dict[str, Any] = {
        "suite": {"name": "shapes_instance", "title": "Shapes"},
        "row": "shapes-finder",
        "variant": {"name": "default", "dtype": "float32"},
        "status": "complete",
        "checkpoint": {"reference": "me/shapes-finder", "sha256": "aa" * 32, "parameters": 1_566_283},
        "dataset": {"name": "shapes", "images": 30, "scored_images": 30},
        "protocol": {"name": "paper"},
        "measurements": (
            Measurement("AP", 69.1579),
            Measurement("AP", 33.333, category="star"),
            Measurement("APs", 55.4708, subset="small"),
        ),
        "published": (Published("AP", 71.24, "a report"),),
    }
    return RunResult(**(given | values))


def run(label: str = "default", **values: Any) -> Run:
    made = result(**values)
    return Run(Path(label), label, made if made.kind == "accuracy" else None, made if made.kind == "speed" else None, None)


def test_a_model_of_ones_own_without_and_with_its_runs() -> None:
    own = CARDS / "own.md"
    assert flagged(check_card(own)) == [
        (8, "AP 11.11 on shapes", UNMEASURED),
        (13, "AP 22.22 on Shapes", UNMEASURED),
        (17, "AP 33.33", UNKNOWN),
        (18, "AP 44.44", UNKNOWN),
    ]
    check = check_card(own, [run()])
    assert check.runs == ("default",)
    assert flagged(check) == [(8, "AP 11.11 on shapes", WRONG), (13, "AP 22.22 on Shapes", WRONG), (18, "AP 44.44", UNKNOWN)]
    finding = only(check, 8, "AP 11.11 on shapes")
    assert finding.evidence == "measured: AP 69.16 (shapes, protocol paper, variant default (float32), 30 images)"
    assert (finding.checkpoint, finding.dataset, finding.protocol) == ("me/shapes-finder", "shapes", "paper")


def test_what_was_measured_is_found_in_every_form(tmp_path: Path) -> None:
    text = (
        "It has an AP of 69.16 on Shapes, APs 55.47, and 1,566,283 parameters.\n\n| metric | value | published |\n|---|---|---|\n"
        "| AP | 69.2 | 71.24 |\n\n"
        "| variant | scope | AP | images/s |\n|---|---|---|---|\n| default | paper | 69.16 | |\n| half | paper | 68.00 | 2.05 |\n"
        "| quarter | paper | 1.0 | |\n"
    )
    half = {"variant": {"name": "half", "dtype": "bfloat16"}}
    speed = run("timed", kind="speed", measurements=(Measurement("fps_task", 2.046, "images/s"),), **half)
    runs = [run(), run("half", measurements=(Measurement("AP", 67.1),), **half), speed]
    check = check_text(tmp_path, text, runs, title="# me/shapes-finder\n\n")
    assert flagged(check) == [(12, "AP 68.00", WRONG), (13, "AP 1.0", UNKNOWN)]
    assert "variant half" in only(check, 12, "AP 68.00").evidence
    assert len(check.findings) == 9


def test_a_measurement_that_is_comparable_wins_and_one_that_is_not_is_named(tmp_path: Path) -> None:
    published = {
        "suite": {"name": "coco_instance", "title": "COCO val2017"},
        "checkpoint": {"reference": "facebook/mask2former-swin-tiny-coco-instance", "sha256": "bb"},
        "dataset": {"name": "coco_instance", "scored_images": 5000},
        "measurements": (Measurement("AP", 41.0),),
    }
    text = "The model has an AP of 45.0 on COCO."
    (finding,) = check_text(tmp_path, text, [run(**published)]).findings
    assert finding.verdict is Verdict.contradicted
    assert re.search(r"measured: AP 41\.00 .*Swin-T, COCO instance: AP 45\.0", finding.evidence)
    (finding,) = check_text(tmp_path, text, [run(**published, status="partial", reason="--limit 10")]).findings
    assert finding.verdict is Verdict.confirmed
    assert finding.evidence.endswith(
        "measured: AP 41.00 (COCO, protocol paper, variant default (float32), 5000 images; partial: --limit 10)"
    )
    (finding,) = check_text(tmp_path, "The model has an AP of 41.0 on COCO.", [run(**published)]).findings
    assert finding.verdict is Verdict.confirmed
    other = published | {"checkpoint": {"reference": "zoo:coco/instance/R50", "sha256": "cc"}}
    check = check_text(tmp_path, text, [run(**other)])
    assert (check.runs, check.contradicted) == ((), False)


def test_runs_of_several_checkpoints_are_told_apart_by_name(tmp_path: Path) -> None:
    other = run("other", checkpoint={"reference": "you/other", "sha256": "dd"}, row="other", measurements=(Measurement("AP", 1.0),))
    check = check_text(tmp_path, "An AP of 69.16.", [run(), other], title="# me/shapes-finder\n\n")
    assert (check.runs, flagged(check)) == (("default",), [])


@pytest.mark.full
def test_a_card_made_by_m2fbench_holds(tmp_path: Path, bundled_loader: Any) -> None:
    import m2fbench
    from m2fbench.reporting.card.facts import CardOptions
    from m2fbench.reporting.card.model_card import collect, make_card

    m2fbench.run("shapes_panoptic", output=tmp_path / "runs", device="cpu", loader=bundled_loader, overrides=["dataset.count=4"])
    runs = open_runs([tmp_path / "runs"])
    card = make_card(collect(runs, CardOptions(None, None, None, 100, True)))
    check = check_text(tmp_path, card, runs, title="")
    assert not check.contradicted, [f for f in check.findings if f.verdict is Verdict.contradicted]
    confirmed = {f.claim for f in check.findings if f.kind == "figure" and f.verdict is Verdict.confirmed}
    assert {re.match(r"[\w.]+", claim)[0] for claim in confirmed} >= {"PQ", "PQ_th", "AP_th_pan", "mIoU_pan", "SQ", "1.566283"}  # type: ignore[index]
    assert sum(f.kind == "code" and f.verdict is Verdict.confirmed for f in check.findings) >= 5
    value = f"{runs[0].result.value('PQ'):.2f}"  # type: ignore[union-attr]
    wrong = check_text(tmp_path, card.replace(value, "12.34"), runs, title="")
    assert wrong.count(Verdict.contradicted) >= 2


# code


def code(tmp_path: Path, text: str, language: str = "python") -> list[tuple[str, str]]:
    check = check_text(tmp_path, f"```{language}\n{text}\n```\n")
    return [(f.claim, f.verdict.value) for f in check.findings if f.verdict not in GOOD]


ID = "facebook/mask2former-swin-tiny-coco-instance"
CODE = {
    f'from transformers import AutoModelForImageSegmentation as A\nm = A.from_pretrained("{ID}")\nm(x).logits': [
        (f"AutoModelForImageSegmentation.from_pretrained({ID})", WRONG),
        ("outputs.logits", WRONG),
    ],
    "import transformers\ntransformers.NoSuchModel": [("transformers.NoSuchModel", WRONG)],
    "import transformers.nowhere": [("transformers.nowhere", WRONG)],
    "from transformers.models.mask2former import Mask2FormerConfig, Nothing": [("transformers.models.mask2former.Nothing", WRONG)],
    "from transformers.models.mask2former.modeling_mask2former import Mask2FormerLoss": [],
    "import torch.nn as nn\nnn.Linear, nn.Lineal": [("torch.nn.Lineal", WRONG)],
    'from transformers import pipeline\npipeline("image-segmentation")\npipeline("mask-finding")': [
        ('pipeline("mask-finding")', WRONG)
    ],
    f'from transformers import *\nname = "{ID}"\nname = other()': [],
    f'from transformers import AutoImageProcessor\np = AutoImageProcessor.from_pretrained("{ID}")\np = mine(p)\np.post_process_x()': [],
    'from transformers import AutoTokenizer\nt = AutoTokenizer.from_pretrained("bert-base-uncased")': [],
    ">>> from transformers import Mask2FormerModel\n>>> Mask2FormerModel\nsome output (": [],
    "!pip install x\n%matplotlib inline\nimport os, json": [],
    "import os; os.abort()\nraise SystemExit(3)": [],
    "import " + "x" * 300: [("x" * 119 + "…", WRONG)],
    "from . import mine": [("from . import mine", UNKNOWN)],
    "x = " + "(" * 5000 + ")" * 5000: [("code", WRONG)],
}


@pytest.mark.full
@pytest.mark.parametrize("text", CODE, ids=range(len(CODE)))
def test_code_is_read_and_not_run(text: str, tmp_path: Path) -> None:
    assert code(tmp_path, text) == CODE[text]


@pytest.mark.full
def test_only_python_is_read(tmp_path: Path) -> None:
    assert code(tmp_path, "from nowhere_at_all import (", "sh") == []


@pytest.mark.full
def test_a_package_that_the_card_says_how_to_install(tmp_path: Path) -> None:
    check = check_text(tmp_path, "```sh\npip install nowhere-at-all\n```\n\n```python\nimport nowhere_at_all\n```\n")
    assert flagged(check) == [(8, "nowhere_at_all", UNKNOWN)]


# the three real cards, and two pages that are right

SEEDS: dict[str, tuple[int, list[Row]]] = {
    "000_e1fa73ebe167b61f.txt": (
        17,
        [
            (75, "some_deep_learning_library", WRONG),
            (281, "PQ 57.8 on COCO", WRONG),
            (283, "AP 50.1 on COCO", WRONG),
            (285, "mIoU 57.7 on ADE20K", NOT_THIS),
        ],
    ),
    "001_1cdc85e0b92bb46f.txt": (
        37,
        [
            (166, "50 epochs", WRONG),
            (182, "0.11 s per image on Cityscapes", UNKNOWN),
            (286, "50 epochs", WRONG),
            (332, "50 epochs", WRONG),
        ],
    ),
    "002_389be84e804415e5.txt": (
        26,
        [
            (30, "processes natural language", WRONG),
            (48, "PQ 57.8 on COCO", NOT_THIS),
            (48, "AP 50.1 on COCO", NOT_THIS),
            (48, "mIoU 57.7 on ADE20K", NOT_THIS),
            (62, "AutoModelForImageSegmentation.from_pretrained(facebook/mask2former-swin-small-ade-semantic)", WRONG),
            (63, "AutoTokenizer.from_pretrained(facebook/mask2former-swin-small-ade-semantic)", WRONG),
            (70, "outputs.logits", WRONG),
            (106, "a link", GAP),
            (125, "PQ 57.8 on COCO", WRONG),
            (125, "AP 50.1 on COCO", WRONG),
            (125, "mIoU 57.7 on ADE20K", WRONG),
            (125, "batch size 1", WRONG),
            (156, "AutoTokenizer.from_pretrained(facebook/mask2former-swin-small-ade-semantic)", WRONG),
            (157, "AutoModelForImageSegmentation.from_pretrained(facebook/mask2former-swin-small-ade-semantic)", WRONG),
            (263, "50 epochs", WRONG),
            (266, "tested at 800/1333", WRONG),
            (312, "mIoU 57.7 on ADE20K", NOT_THIS),
            (323, "mIoU 57.7 on ADE20K", NOT_THIS),
            (353, "PQ 57.8 on COCO", WRONG),
            (353, "AP 50.1 on COCO", WRONG),
            (353, "mIoU 57.7 on ADE20K", WRONG),
        ],
    ),
    "003_8947373927d50a96.txt": (0, []),
    "004_74a7edeb48c9b2b7.txt": (0, []),
}


@pytest.mark.full
@pytest.mark.parametrize("name", SEEDS)
def test_real_cards(name: str, shared: Path) -> None:
    gaps, findings = SEEDS[name]
    check = check_card(shared / "seeds" / name)
    assert flagged(check) == findings
    assert check.gaps == gaps
    assert check.findings


def test_whose_the_real_cards_figures_are(shared: Path) -> None:
    check = check_card(shared / "seeds/000_e1fa73ebe167b61f.txt")
    disclaimer = [(f.claim, f.verdict, f.checkpoint) for f in check.findings if f.line == 28]
    assert disclaimer == [
        ("PQ 57.8 on COCO", Verdict.credited, "Swin-L (IN21k), COCO panoptic"),
        ("AP 50.1 on COCO", Verdict.credited, "Swin-L (IN21k), COCO instance"),
        ("mIoU 57.7 on ADE20K", Verdict.credited, FAPN),
    ]
    assert [f.verdict for f in check.findings if f.line == 353] == [Verdict.credited] * 3
    results = only(check, 285, "mIoU 57.7 on ADE20K")
    assert (results.checkpoint, results.dataset, results.protocol) == (FAPN, "ADE20K", "multi-scale + flip")
    assert "Swin-T" in results.evidence
    assert "47.7 single-scale / 49.6 multi-scale + flip" in results.evidence
    assert "50.1 is Swin-L (IN21k)'s on COCO instance" in only(check, 283, "AP 50.1 on COCO").evidence


def test_published_figures_are_the_references(shared: Path) -> None:
    reference = json.loads((shared / "reference/published_results.json").read_bytes())
    blocks = {
        "coco_val2017": ("COCO", "val"), "coco_test_dev": ("COCO", "test-dev"), "ade20k_val_semantic": ("ADE20K", "val"),
        "ade20k_val_panoptic_instance": ("ADE20K", "val"), "cityscapes_val": ("Cityscapes", "val"),
        "mapillary_vistas_val": ("Mapillary Vistas", "val"),
    }  # fmt: skip
    known = {(f.dataset, f.split, f.backbone, f.metric, f.value) for f in published_figures()}
    names = {"mIoU_ms_flip": "mIoU", "fps_instance": "fps", "fps_panoptic": "fps"}
    for block, (dataset, split) in blocks.items():
        for row in reference[block]["rows"]:
            backbone = row["backbone"].replace(" (IN21k)", "-IN21k")
            for name, value in row.items():
                if name not in ("backbone", "crop"):
                    assert (dataset, split, backbone, names.get(name, name), value) in known, (block, backbone, name)


def test_published_figures_stand_in_the_suites() -> None:
    found = {(f.checkpoint, f.metric, f.protocol): (f.printed, f.source) for f in published_figures()}
    assert found[FAPN, "mIoU", "multi-scale + flip"] == ("57.7", "arXiv 2112.01527, table V")
    assert found["Swin-T, COCO instance", "boundary_AP", "single-scale"][0] == "31.8"
    assert found["Swin-L (IN21k), COCO test-dev instance", "AP", "single-scale"][0] == "50.5"
    assert found["R50, COCO panoptic", "fps", "single-scale"][0] == "8.6"
    assert found["Swin-L (IN21k), COCO instance", "flops_G", "single-scale"][0] == "868"
    assert backbone_of_row("swin-l-fapn-in21k") == "Swin-L-FaPN-IN21k"
    assert checkpoint_named("zoo:coco/panoptic/swin-l-in21k") == ("Swin-L-IN21k", "COCO", "panoptic")
    assert checkpoint_named("facebook/mask2former-swin-tiny-coco-instance@abc") == ("Swin-T", "COCO", "instance")
    assert checkpoint_named("me/mask2former-swin-tiny-coco-instance") is None
    assert same_backbone("Swin-L", "Swin-L-FaPN-IN21k")
    assert same_backbone("Swin-L-IN21k", "Swin-L-FaPN-IN21k")
    assert not same_backbone("Swin-L-FaPN", "Swin-L-IN21k")
    assert not same_backbone("Swin-B-IN21k", "Swin-B")


# the command, and cards that are meant to harm


def test_the_command(tmp_path: Path) -> None:
    runner = CliRunner()
    good, bad = tmp_path / "good.md", tmp_path / "bad.md"
    good.write_text(TITLE + "An AP of 45.0 on COCO. [More Information Needed]")
    bad.write_text(TITLE + "An AP of 50.1 on COCO \x1b[31m[bold]now[/bold].")
    found = runner.invoke(app, ["card-check", str(good)])
    assert (found.exit_code, found.stdout.strip()) == (0, f"{good}: 1 claim: 1 confirmed; 1 marked [More Information Needed]")
    assert "45.0" in runner.invoke(app, ["card-check", str(good), "--all"]).stdout
    found = runner.invoke(app, ["card-check", str(bad)], env={"COLUMNS": "120"})
    assert found.exit_code == 1
    assert "\x1b" not in found.stdout
    assert "[bold]now[/bold]" in found.stdout
    assert "1 claim: 1 contradicted" in found.stdout
    found = runner.invoke(app, ["card-check", str(bad), "--json"])
    document = json.loads(found.stdout)
    assert found.exit_code == 1
    assert document["verdicts"]["contradicted"] == 1
    assert document["model"]["backbone"] == "Swin-T"
    assert document["findings"][0] | {"quote": "", "evidence": ""} == {
        "kind": "figure", "claim": "AP 50.1 on COCO", "line": 3, "column": 4, "where": "3:4", "quote": "", "verdict": "contradicted", "evidence": "",
        "checkpoint": "Swin-T, COCO instance", "dataset": "COCO", "protocol": "single-scale",
    }  # fmt: skip


@pytest.mark.full
def test_a_card_that_cannot_be_read_is_one_line(cli: Any, tmp_path: Path) -> None:
    found = cli("card-check", tmp_path / "none.md")
    assert found.returncode == 2
    assert re.fullmatch(r"m2fbench: error: .*none\.md: cannot be read: .*\n", found.stderr)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"---\n" + BOMB.encode() + b"---\n", "expected at most 100000 keys"),
        (b"---\nx: !!python/object/apply:os.system [true]\n---\n", "not valid YAML.*in the metadata of the card"),
        (b"---\nx: [\n---\n", ":2: not valid YAML"),
        (b"---\n" + b"x: 1\n" * 60_000 + b"---\n", "expected metadata of at most 256 KiB"),
        (b"\xff\xfe", "expected UTF-8 text"),
        (b"a\0b", "NUL characters"),
        (b"x" * (2 * 2**20 + 1), "at most 2 MiB, got 2 MiB"),
    ],
    ids=["bomb", "tag", "broken", "long", "bytes", "binary", "huge"],
)
def test_hostile_cards_are_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes(content)
    with pytest.raises(CardError, match=message) as raised:
        check_card(tmp_path / "README.md")
    assert "\n" not in str(raised.value)


def test_a_folder_is_no_card(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="got a folder"):
        check_card(tmp_path)


@pytest.mark.full
def test_the_rest_of_endless_figures_is_said_to_be_unread(tmp_path: Path) -> None:
    check = check_text(tmp_path, "PQ: 57.8\n\n" * 5200, title="# x\n\n")
    assert check.count(Verdict.not_measured) == 5000
    assert "more than 5000 figures" in check.findings[0].evidence
