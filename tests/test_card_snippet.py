"""The code in a model card runs by itself and gives the protocol's predictions."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
import torch
from conftest import FIXTURES, ROOT, SHARED
from PIL import Image

from m2fbench.analysis.runs import Evidence, open_runs
from m2fbench.formats.label_png import read_labels
from m2fbench.formats.panoptic import read_map
from m2fbench.formats.panoptic_predictions import read_predictions
from m2fbench.reporting.card.facts import CardOptions
from m2fbench.reporting.card.model_card import collect, make_card
from m2fbench.reporting.card.snippet import SnippetSettings, snippet
from m2fbench.runner import run as run_suite

UNSURE = 1e-5  # another CPU may round a logit this near to zero, or two scores this near to each other, to the other side
PROTOCOL = {"name": "paper", "min_size": 800, "max_size": 1333, "detections": 100, "object_threshold": 0.8, "overlap_threshold": 0.8,
            "semantic_resize": "before"}  # fmt: skip
SIZES = "h, w = int(h + 0.5), int(w + 0.5)"


def codes(card: str) -> list[str]:
    """The Python blocks of a card."""
    return re.findall(r"```python\n(.*?)\n```", card, re.DOTALL)


def with_names(code: str, **values: Any) -> str:
    """The code with its stated variables ``checkpoint`` and ``photo`` set."""
    for name, value in values.items():
        code, count = re.subn(rf"(?m)^{name} = .*$", f"{name} = {str(value)!r}", code)
        assert count == 1, name
    return code


class Stub:
    """Stands for the model class: answers with logits that are given."""

    def __init__(self, class_logits: np.ndarray, mask_logits: np.ndarray, padded: tuple[int, int]) -> None:
        self.output = SimpleNamespace(
            class_queries_logits=torch.from_numpy(class_logits)[None],
            masks_queries_logits=torch.from_numpy(mask_logits.astype(np.float32))[None],
        )
        self.padded = padded
        self.config = SimpleNamespace(id2label={k: f"class {k}" for k in range(class_logits.shape[1])})

    def from_pretrained(self, checkpoint: str, dtype: torch.dtype) -> "Stub":
        assert dtype is torch.float32
        return self

    def eval(self) -> "Stub":
        return self

    def __call__(self, pixel_values: torch.Tensor) -> Any:
        assert tuple(pixel_values.shape) == (1, 3, *self.padded)
        return self.output


def executed(
    golden: dict[str, Any],
    settings: SnippetSettings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    resized: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """The variables that the code leaves, over golden logits. resized: the size that the image is to get, in place of the protocol's."""
    height, width = golden["output_size"].tolist()
    Image.new("RGB", (width, height), (90, 120, 30)).save(folder / "photo.png")
    stub = Stub(golden["class_logits"], golden["mask_logits"], tuple(golden["padded_size"].tolist()))
    monkeypatch.setattr("transformers.AutoModelForUniversalSegmentation", stub)
    main, rest = snippet(settings)
    code = with_names(f"{main}\n{rest or ''}", photo=folder / "photo.png")
    if resized is not None:
        assert code.count(SIZES) == 1
        code = code.replace(SIZES, f"h, w = {resized}")
    left: dict[str, Any] = {}
    exec(compile(code, "card", "exec"), left)
    return left


def same_instances(
    found: list[dict[str, Any]], scores: np.ndarray, classes: np.ndarray, masks: list[np.ndarray], logits: np.ndarray
) -> None:
    """As sets, with the tolerances of golden data. logits: the smallest |mask logit| of each pixel."""
    assert len(found) == len(scores)

    def key(label: int, score: float, mask: np.ndarray) -> tuple[int, float, int]:
        return int(label), round(float(score), 5), int(mask.sum())

    ours = sorted(found, key=lambda i: key(i["label_id"], i["score"], i["mask"].numpy()))
    theirs = sorted(zip(classes, scores, masks, strict=True), key=lambda i: key(*i))
    for a, (label, score, mask) in zip(ours, theirs, strict=True):
        assert a["label_id"] == label
        assert a["score"] == pytest.approx(float(score), abs=1e-5)
        assert (logits[a["mask"].numpy() != mask] < UNSURE).all()


def check_against_golden(golden: dict[str, Any], heads: tuple[Any, ...], left: dict[str, Any], after: bool = False) -> None:
    if "instance" in heads:
        masks = [pycocotools.mask.decode(json.loads(str(rle))).astype(bool) for rle in golden["instance_rles"]]
        unsure = left["masks"].abs().amin(0).numpy()
        same_instances(left["instances"], golden["instance_scores"], golden["instance_classes"], masks, unsure)
    if "panoptic" in heads:
        segments = json.loads(str(golden["panoptic_segments"]))
        assert [(s["id"], s["label_id"]) for s in left["segments"]] == [(s["id"], s["category_id"]) for s in segments]
        if "panoptic_map" in golden:
            np.testing.assert_array_equal(left["panoptic"].numpy(), golden["panoptic_map"])
    if "semantic" in heads:
        differing = left["semantic"].numpy() != golden["semantic_after_argmax" if after else "semantic_argmax"]
        margin = golden.get("semantic_after_top2_margin" if after else "semantic_top2_margin")
        assert not differing.any() if margin is None else (margin[differing] < UNSURE).all()


def settings_of(golden: dict[str, Any], heads: tuple[Any, ...], **protocol: Any) -> SnippetSettings:
    queries, classes = golden["class_logits"].shape[0], golden["class_logits"].shape[1] - 1
    things = golden["thing_classes"].tolist() if "thing_classes" in golden else list(range(int(golden["num_things"])))
    said = PROTOCOL | {"object_threshold": float(golden["object_mask_threshold"]), "detections": int(golden["topk"])} | protocol
    return SnippetSettings("stub", None, said, heads, classes, queries, tuple(things) if "panoptic" in heads else None)


def read(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "heads"),
    [("postprocess_coco_instance_80", ("instance",)), ("postprocess_down_q200", ("panoptic", "instance"))],
)
def test_the_original_codes_outputs(name: str, heads: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = read(FIXTURES / f"{name}.npz")
    edges = {"min_size": int(golden["shortest_edge"]), "max_size": int(golden["longest_edge"])}
    check_against_golden(golden, heads, executed(golden, settings_of(golden, heads, **edges), tmp_path, monkeypatch))


CASES = ["upsampling_before", "downsampling_before", "scattered_things", "threshold_zero", "semantic_after", "semantic_after_down"]


@pytest.mark.full
@pytest.mark.parametrize("case", CASES)
def test_the_original_codes_maps(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = read(FIXTURES / "postprocess_cases.npz")
    golden = {key.partition("/")[2]: value for key, value in every.items() if key.startswith(f"{case}/")}
    heads: tuple[Any, ...] = ("panoptic", "semantic") if "panoptic_map" in golden else ("semantic",)
    said = settings_of(golden, heads, semantic_resize="before" if golden["before"] else "after")
    check_against_golden(golden, heads, executed(golden, said, tmp_path, monkeypatch, tuple(golden["resized_size"].tolist())))


PHOTOS = sorted((SHARED / "golden").glob("postprocess_0*.npz"))[:2]  # of eight: whole photos, whose queries are all upsampled
GOLDEN = [*PHOTOS, *sorted((SHARED / "golden").glob("postprocess_[a-z]*.npz"))]


@pytest.mark.full
@pytest.mark.parametrize(
    "path",
    GOLDEN or [pytest.param(None, marks=pytest.mark.skip(reason="no golden data here"))],
    ids=lambda p: p.stem if p else "absent",
)
def test_golden_data(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    golden = read(path)
    named = set(golden["heads"].tolist()) if "heads" in golden else {"panoptic", "instance", "semantic"}
    heads = tuple(head for head in ("panoptic", "instance", "semantic") if head in named)
    edges = {"min_size": int(golden["shortest_edge"]), "max_size": int(golden["longest_edge"])}
    check_against_golden(golden, heads, executed(golden, settings_of(golden, heads, **edges), tmp_path, monkeypatch))
    if "semantic_after_argmax" in golden:
        said = settings_of(golden, ("semantic",), semantic_resize="after", **edges)
        check_against_golden(golden, ("semantic",), executed(golden, said, tmp_path, monkeypatch), after=True)


SUITE = """
suite: card_{task}
title: Shapes, {task} segmentation
task: {task}
dataset: {{name: shapes, split: test, count: 2}}
protocol: {{name: {protocol}, min_size: 128, max_size: 192, semantic_resize: {resize}}}
metrics: [{metrics}]
workers: 0
checkpoints: [{{name: shapes-tiny, checkpoint: "bundled:shapes_tiny"}}]
"""
METRICS = {"instance": "coco_ap", "panoptic": "panoptic_quality, coco_ap, semantic_iou", "semantic": "semantic_iou"}
SAVE = """
import pickle
kept = {name: globals()[name] for name in ("instances", "panoptic", "segments", "semantic", "masks", "classes") if name in globals()}
pickle.dump(kept, open(%r, "wb"))
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small take several times as long where threads wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> dict[str, tuple[str, Evidence]]:
    """A card of each task, and of the plain processor's path, with the run's evidence."""
    folder = tmp_path_factory.mktemp("cards")
    made = {}
    for name, task, protocol in (*((t, t, "paper") for t in METRICS), ("processor", "instance", "transformers")):
        suite = folder / f"{name}.yaml"
        resize = "after" if task == "semantic" else "before"
        suite.write_text(SUITE.format(task=task, metrics=METRICS[task], protocol=protocol, resize=resize))
        run_suite(suite, output=folder / name, device="cpu", loader=bundled_loader)
        runs = open_runs([folder / name])
        assert runs[0].evidence is not None
        made[name] = make_card(collect(runs, CardOptions(quick=True))), runs[0].evidence
    return made


@pytest.mark.full
def test_cards_code_in_a_fresh_process(cards: dict[str, tuple[str, Evidence]], tmp_path: Path) -> None:
    """Each card's code, as it stands there but for the photo's name, run outside of this process, gives m2fbench's own predictions."""
    evidence = cards["panoptic"][1]
    example = evidence.examples[1]
    Image.fromarray(evidence.dataset.image(example)).save(tmp_path / "scene.png")
    scripts = {}
    for name, (card, _) in cards.items():
        scripts[name] = tmp_path / f"{name}.py"
        code = with_names("\n".join(codes(card)), photo=tmp_path / "scene.png")
        scripts[name].write_text(code + SAVE % str(tmp_path / f"{name}.pkl"))
    several = "import runpy, sys; [runpy.run_path(path, run_name='__main__') for path in sys.argv[1:]]"
    done = subprocess.run(
        [sys.executable, "-c", several, *map(str, scripts.values())],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "pixels" in done.stdout
    import pickle

    for name, (_, evidence) in cards.items():
        left = pickle.loads((tmp_path / f"{name}.pkl").read_bytes())
        if name == "processor":
            same_processor_instances(evidence, example.image_id, left)
        else:
            same_as_stored(evidence, example, left)


def stored_instances(evidence: Evidence, image_id: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    assert evidence.predictions.instances is not None
    entries = [e for e in json.loads(evidence.predictions.instances.read_bytes()) if e["image_id"] == image_id]
    assert entries
    index = {c: k for k, c in enumerate(evidence.dataset.category_ids)}
    masks = [pycocotools.mask.decode(e["segmentation"]).astype(bool) for e in entries]
    return np.array([e["score"] for e in entries]), np.array([index[e["category_id"]] for e in entries]), masks


def same_as_stored(evidence: Evidence, example: Any, left: dict[str, Any]) -> None:
    heads = evidence.predictions.heads
    if "instance" in heads:
        unsure = left["masks"].abs().amin(0).numpy()
        same_instances(left["instances"], *stored_instances(evidence, example.image_id), unsure)
    if "panoptic" in heads:
        assert evidence.predictions.panoptic is not None
        sizes = {e.image_id: e.size for e in evidence.examples}
        found = read_predictions(
            evidence.predictions.panoptic, evidence.predictions.panoptic_folder, sizes, evidence.dataset.category_ids
        )
        stored = read_map(*found[example.image_id])
        assert [(s["id"], s["label_id"]) for s in left["segments"]] == [(s.id, s.category) for s in stored.segments]
        np.testing.assert_array_equal(left["panoptic"].numpy(), stored.ids)
    if "semantic" in heads:
        assert evidence.predictions.semantic is not None
        values = np.array(evidence.dataset.label_values)
        differing = values[left["semantic"].numpy()] != read_labels(evidence.predictions.semantic[example.image_id])
        scores = torch.einsum("qc,qhw->chw", left["classes"][:, :-1], left["masks"].sigmoid())
        if scores.shape[1:] == left["semantic"].shape:
            top = scores.topk(2, dim=0).values
            assert ((top[0] - top[1]).numpy()[differing] < UNSURE).all()
        else:
            assert differing.sum() == 0


def same_processor_instances(evidence: Evidence, image_id: Any, left: dict[str, Any]) -> None:
    """The flat map of the plain processor, segment by segment."""
    scores, classes, masks = stored_instances(evidence, image_id)
    things = len(evidence.dataset.categories)
    ours = [s for s in left["instances"]["segments_info"] if s["label_id"] < things]
    assert sorted((s["label_id"], round(s["score"], 5)) for s in ours) == sorted(
        zip(classes.tolist(), scores.round(5).tolist(), strict=True)
    )
    areas = sorted(int((left["instances"]["segmentation"] == s["id"]).sum()) for s in ours)
    assert areas == sorted(int(mask.sum()) for mask in masks)


@pytest.mark.full
def test_a_card_for_the_hub_names_the_id(cards: dict[str, tuple[str, Evidence]], bundled_loader: Any, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    suite.write_text(SUITE.format(task="instance", metrics="coco_ap", protocol="paper", resize="before"))
    run_suite(suite, output=tmp_path / "runs", device="cpu", loader=bundled_loader)
    card = make_card(collect(open_runs([tmp_path / "runs"]), CardOptions(model_id="me/my-model", quick=True)))
    assert 'checkpoint = "me/my-model"\n' in card
    assert "m2fbench run card_instance.yaml --checkpoint me/my-model" in card
    assert "bundled" not in card.partition("## How to Get Started")[2].partition("## Training Details")[0]


def test_the_code_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader takes it in: under 60 lines of 120 characters for a task's own head."""
    for head in ("instance", "panoptic", "semantic"):
        main, rest = snippet(SnippetSettings("owner/name", None, PROTOCOL, (head,), 80, 100, tuple(range(80))))  # type: ignore[arg-type]
        assert rest is None
        assert len(main.splitlines()) < 60
        assert max(map(len, main.splitlines())) <= 125


def test_a_name_cannot_break_out_of_the_code() -> None:
    said = SnippetSettings('x"\nimport os  # ```', "note", PROTOCOL, ("semantic",), 3, 5, None)
    main, _ = snippet(said)
    compile(main, "card", "exec")
    assert "\nimport os" not in main
    assert not [line for line in main.splitlines() if line.startswith("```")]
