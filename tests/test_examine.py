"""Examining a run: the last layer is the run, each other is the run stopped there, and what is kept of the attention is what the model did."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import stub_loader
from typer.testing import CliRunner

import m2fbench
from m2fbench import cli_examine, examining
from m2fbench.analysis import layers as analysis_layers
from m2fbench.analysis.layer_examples import ExampleMaps, pack_example, read_example
from m2fbench.analysis.layers import Examination, layers_of_runs, read_examination, runs_by_depth
from m2fbench.analysis.runs import open_runs
from m2fbench.cli import app
from m2fbench.errors import CheckpointError, DatasetError, StoreError, SuiteError, UnsupportedError
from m2fbench.models.checkpoint import resolve
from m2fbench.models.examine import Attention, Layers, examine, refuse_other
from m2fbench.models.layer_maps import best_queries, count_changes, maps_of
from m2fbench.models.load import LoadedModel, load
from m2fbench.models.preprocess import Geometry
from m2fbench.reporting.images.examination import layer_findings, layer_pictures, strip
from m2fbench.results import RunResult
from m2fbench.sections import Variant

LAYERS = 5
SUITE = """
suite: depths
title: Depths
task: panoptic
dataset: {name: shapes, split: test, count: 3}
protocol: {min_size: 128, max_size: 192}
metrics: [panoptic_quality, coco_ap, semantic_iou]
workers: 0
checkpoints: [{name: tiny, checkpoint: "bundled:shapes_tiny"}]
variants:
  - {name: all}
  - {name: one, decoder_layers: 1}
  - {name: none, decoder_layers: 0}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the bundled checkpoint: all layers, one, none."""
    folder = tmp_path_factory.mktemp("depths")
    (folder / "depths.yaml").write_text(SUITE)
    m2fbench.run(folder / "depths.yaml", output=folder / "runs", device="cpu")
    return folder / "runs" / "depths" / "tiny"


@pytest.fixture(scope="module")
def bundled() -> LoadedModel:
    return load(resolve("bundled:shapes_tiny"), Variant(name="x"), "cpu")


@pytest.fixture(scope="module")
def examined(runs: Path, bundled: LoadedModel) -> Examination:
    return examining.examine(runs / "all", device="cpu", examples=2, loader=lambda *_: bundled)


def image() -> torch.Tensor:
    return torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))


@pytest.mark.full
def test_the_last_layer_is_the_run_and_the_others_are_it_stopped_there(examined: Examination, runs: Path) -> None:
    """To the last digit: through the official files of every layer, by the suite's own metrics."""
    all_, one, none = (m2fbench.read_result(runs / name / "result.json") for name in ("all", "one", "none"))
    assert [layer.layer for layer in examined.layers] == [*range(LAYERS + 1)]
    for layer, result in ((5, all_), (1, one), (0, none)):
        expected = {m.name: m.value for m in overall(result)}
        assert examined.layers[layer].figures == pytest.approx(expected, abs=0, nan_ok=True)
    assert examined.own == examined.layers[-1].figures
    assert (examined.difference, examined.notes) == (0.0, ())
    assert (examined.images, examined.run_images) == (3, 3)
    assert examined.layers[0].figures["PQ"] < examined.layers[5].figures["PQ"]


def overall(result: RunResult) -> Any:
    return (m for m in result.measurements if m.unit == "percent" and m.category is None and m.subset is None)


@pytest.mark.full
def test_what_is_said_of_each_layer(examined: Examination) -> None:
    first, *others = examined.layers
    assert all(np.isnan([first.mask_iou, first.class_changed, first.everywhere, first.visible]))
    assert [layer.level for layer in examined.layers] == [None, 0, 1, 2, 0, 1]
    for layer in others:
        for share in (layer.mask_iou, layer.mask_iou_all, layer.class_changed, layer.class_changed_all, layer.everywhere):
            assert 0 <= share <= 1
        assert layer.everywhere <= layer.visible, "who sees everything sees all of it"
        assert layer.everywhere_all <= layer.visible_all
    assert others[0].mask_iou < others[-1].mask_iou, "the last layers change little"
    flops = [layer.flops for layer in examined.layers]
    assert flops == sorted(set(flops))
    assert [layer.saved for layer in examined.layers] == pytest.approx([1 - f / flops[-1] for f in flops])


@pytest.mark.full
def test_runs_of_the_variants_give_the_same_table(examined: Examination, runs: Path) -> None:
    opened = open_runs([runs])
    ((none, one, all_),) = runs_by_depth([*opened, opened[0]])
    assert [run.folder.name for run in (none, one, all_)] == ["none", "one", "all"]
    found = layers_of_runs([all_, one, none])
    for layer in found:
        same = examined.layers[layer.layer]
        assert layer.figures == pytest.approx(dict(same.figures), abs=0, nan_ok=True)
        assert (layer.flops, layer.saved) == (same.flops, same.saved)
    assert [layer.layer for layer in found] == [0, 1, LAYERS]
    assert all(np.isnan(layer.flops) for layer in layers_of_runs([none, one], count_flops=False))
    assert runs_by_depth([all_]) == []
    assert all_.result is not None
    other = replace(all_, result=replace(all_.result, variant=all_.result.variant | {"dtype": "bfloat16"}))
    assert runs_by_depth([other, one]) == [], "they differ in more than their depth"


@pytest.mark.full
@pytest.mark.parametrize(
    "settings", [{}, {"lean": True}, {"lean": True, "attention": "eager"}, {"autocast": "bfloat16", "lean": True}], ids=str
)
def test_attention_is_read_and_nothing_is_changed(settings: dict[str, Any]) -> None:
    model = load(resolve("bundled:shapes_tiny"), Variant(name="x", **settings), "cpu")
    before, found, after = model.forward(image()), examine(model, image(), weights=True), model.forward(image())
    for plain, again, ours in zip(before, after, (found.class_logits[-1], found.mask_logits[-1]), strict=True):
        assert torch.equal(plain, ours)
        assert torch.equal(plain, again), "no hook stays behind"
    assert (len(found.class_logits), len(found.mask_logits), len(found.attention)) == (LAYERS + 1, LAYERS + 1, LAYERS)
    assert [look.size for look in found.attention] == [(3, 4), (6, 8), (12, 16), (3, 4), (6, 8)]
    half = 0.01 if "autocast" in settings else 1e-5
    for look in found.attention:
        assert look.weights is not None
        torch.testing.assert_close(look.weights.flatten(1).sum(1), torch.ones(24), atol=half, rtol=0)
        assert not look.weights[~look.allowed].any(), "what the mask hides gets nothing"
        assert (look.weights[look.allowed] > 0).any()
        assert look.allowed[look.everywhere].all()
        assert look.allowed.flatten(1).any(1).all(), "every query sees something"


@pytest.mark.full
def test_the_attention_mask_is_the_mask_of_the_layer_before(bundled: LoadedModel) -> None:
    """The paper's masked attention, made once more from the logits that were predicted."""
    found = examine(bundled, image())
    assert {bool(look.everywhere.any()) for look in found.attention} == {True}
    for look, logits in zip(found.attention, found.mask_logits, strict=False):
        small = torch.nn.functional.interpolate(logits[None], size=look.size, mode="bilinear", align_corners=False)[0]
        inside = small.sigmoid() >= 0.5
        empty = ~inside.flatten(1).any(1)
        assert torch.equal(look.everywhere, empty)
        assert torch.equal(look.allowed, inside | empty[:, None, None])
        assert look.weights is None


def test_a_mask_over_all_of_the_map_is_not_an_empty_one() -> None:
    from m2fbench.models.examine import _attention, _Call

    masks = torch.stack([torch.full((8, 8), 4.0), torch.full((8, 8), -4.0), torch.full((8, 8), -4.0)])
    masks[2, :4] = 4.0
    blocked = torch.zeros(3, 16, dtype=torch.bool)
    blocked[2, 8:] = True
    assert _attention(_Call(blocked, None), 0, (4, 4), masks).everywhere.tolist() == [False, True, False]


def layers_of(masks: list[list[list[float]]], classes: list[list[int]]) -> Layers:
    """masks: of each prediction and query one row of four pixels, at a quarter of the size of a 4x16 image, 4x8 of it padding; classes: the
    best of each, 2 for "no object"."""
    logits = [torch.nn.functional.one_hot(torch.tensor(row), 3).float() * 5 for row in classes]
    count = len(classes[0])
    allowed = torch.zeros(count, 1, 2, dtype=torch.bool)
    allowed[:, 0, 0] = True
    look = Attention(0, (1, 2), allowed, torch.tensor([True] + [False] * (count - 1)), torch.full((count, 1, 2), 0.5) * allowed * 2)
    return Layers(tuple(logits), tuple(torch.tensor(row)[:, None] for row in masks), (look,) * (len(classes) - 1))


GEOMETRY = Geometry((4, 8), (4, 8), (4, 16))  # half of the input is padding


def test_changes_are_counted() -> None:
    masks = [[[1.0, 1, 9, 9], [-1, -1, 9, 9], [1, -1, -1, -1]], [[1, -1, -1, -1], [-1, -1, -1, -1], [-1, 1, 9, 9]]]
    counts = count_changes(layers_of(masks, [[0, 1, 2], [1, 1, 2]]), GEOMETRY)
    assert counts.queries.tolist() == [[3, 2], [3, 2]]
    assert counts.overlap[1].tolist() == [0.5, 0.5], "the padding is left out; the third shares no pixel"
    assert counts.compared[1].tolist() == [2, 1], "two empty masks are not compared"
    assert counts.changed[1].tolist() == [1, 1]
    assert counts.everywhere[1].tolist() == [1, 1]
    assert counts.visible[1].tolist() == [1.5, 1.0]
    assert not counts.overlap[0].any()
    assert (counts + counts).changed[1].tolist() == [2, 2]


def test_the_queries_kept_are_those_of_the_highest_scores() -> None:
    found = layers_of([[[9.0, 9, -9, -9], [9, 9, 9, 9], [0.1, 0.1, 0.1, 0.1], [9, 9, 9, 9]]], [[0, 1, 0, 2]])
    assert best_queries(found, [0, 1], 4) == [0, 1, 2, 3], "the surest first, no object last"
    assert best_queries(found, [1], 1) == [1]


def maps() -> tuple[dict[str, Any], dict[str, Any]]:
    found = layers_of([[[1.0, -1, 9, 9], [9, 9, 9, 9]], [[-1, -1, 9, 9], [9, 9, 9, 9]]], [[0, 2], [1, 2]])
    facts = {"image_id": "a/b", "size": [4, 8], "resized": [4, 8], "padded": [4, 16], "names": ["<b>sky</b>", "disc " * 30]}
    return facts, maps_of(found, GEOMETRY, [1, 0])


def test_an_example_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    path.write_bytes(pack_example(*maps()))
    found = read_example(path)
    assert (found.image_id, found.size, found.padded) == ("a/b", (4, 8), (4, 16))
    assert found.queries.tolist() == [1, 0]
    assert found.masks.shape == (2, 2, 1, 2), "without padding"
    assert (found.masks[1, 1] < 128).all()
    assert [found.name(0, 0), found.name(0, 1)] == ["no object", "<b>sky</b>"]
    assert found.attention[0].tolist() == [[[255, 0]]] * 2, "relative to the peak"
    assert found.visible[0].tolist() == [[[True, False]]] * 2
    assert found.peaks.tolist() == [[1.0, 1.0]]
    assert found.everywhere.tolist() == [[False, True]]
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(StoreError, match="not an example of an examination"):
        read_example(path)


def test_large_masks_are_kept_small() -> None:
    logits, classes = torch.randn(2, 300, 200), torch.randn(2, 3)
    look = Attention(
        0, (2, 2), torch.ones(2, 2, 2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool), torch.full((2, 2, 2), 0.25)
    )
    found = maps_of(Layers((classes,) * 2, (logits,) * 2, (look,)), Geometry((1200, 800), (1200, 800), (1200, 800)), [0])
    assert found["masks"].shape == (2, 1, 160, 107)
    assert found["masks"].dtype == np.uint8


@pytest.mark.full
def test_what_is_stored(examined: Examination, runs: Path) -> None:
    folder = runs / "all"
    again = read_examination(folder)
    assert again is not None
    assert json.dumps(again.to_json()) == json.dumps(examined.to_json())
    json.loads((folder / "examination.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    names = sorted(path.name for path in (folder / "examination").iterdir())
    assert names == [Path(example.file).name for example in examined.examples]
    assert len(names) == 2
    for name in names:
        assert (folder / "examination" / name).stat().st_size < 40_000
    maps_ = read_example(folder / examined.examples[0].file)
    assert maps_.masks.shape[:2] == (LAYERS + 1, examining.QUERIES)
    assert (maps_.attention[0].reshape(examining.QUERIES, -1).max(1) == 255).all()
    assert read_examination(runs / "one") is None


@pytest.fixture
def copy(runs: Path, examined: Examination, tmp_path: Path) -> Path:
    """The examined run, to be spoiled."""
    shutil.copytree(runs / "all", tmp_path / "depths" / "tiny" / "all")
    return tmp_path / "depths" / "tiny" / "all"


@pytest.mark.full
def test_repeated_with_other_images(copy: Path, bundled: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def uncountable(*_: object) -> None:
        raise CheckpointError("nothing to count")

    monkeypatch.setattr(examining, "flops_by_layer", uncountable)

    def again(**options: Any) -> Examination:
        return examining.examine(copy, device="cpu", image_ids=["3"], limit=1, loader=lambda *_: bundled, **options)

    before = (copy / "examination.json").read_bytes()
    with pytest.raises(StoreError, match="is over 3 images, and would be replaced by one over 1; give --limit 3, or --replace$"):
        again()
    assert (copy / "examination.json").read_bytes() == before
    found = again(replace_fuller=True)
    assert [example.image_id for example in found.examples] == [3]
    assert [path.name for path in (copy / "examination").iterdir()] == ["000000000003.npz"]
    assert (found.images, found.run_images, found.difference) == (1, 3, 0.0)
    assert found.notes == ("FLOPs were not counted: nothing to count",)
    assert all(np.isnan([layer.flops, layer.saved]).all() for layer in found.layers)


@pytest.mark.full
def test_killed_while_storing(copy: Path, examined: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each write in turn: what is there can be read, and is the old or the new."""
    real, done, limit = analysis_layers.write_atomically, [], [0]

    def write(path: Path, content: Any) -> None:
        if len(done) == limit[0]:
            raise KeyboardInterrupt
        real(path, content)
        done.append(path.name)

    content = pack_example(*maps())
    found = replace(examined, folder=copy, difference=7.0)
    monkeypatch.setattr(analysis_layers, "write_atomically", write)
    for limit[0] in (0, 1, 2):
        done.clear()
        with pytest.raises(KeyboardInterrupt):
            analysis_layers.write_examination(found, [(1, content), (9, content)])
        stored = read_examination(copy)
        assert stored is not None
        assert stored.difference == 0.0
        for example in stored.examples:
            read_example(copy / example.file)
    limit[0] = 3
    done.clear()
    assert analysis_layers.write_examination(found, [(1, content), (9, content)]).difference == 7.0
    assert done == ["000000000001.npz", "000000000009.npz", "examination.json"]
    assert sorted(path.name for path in (copy / "examination").iterdir()) == done[:2]


@pytest.mark.full
def test_what_cannot_be_read(copy: Path) -> None:
    path = copy / "examination.json"
    whole = path.read_text()
    document = json.loads(whole)
    for text, message in (
        (json.dumps(document | {"examination_version": 2}), "expected examination version 1, got 2; examine the run again"),
        (json.dumps(document | {"predictions": "0" * 64}), "is of other predictions than are here now"),
        (json.dumps(document | {"layers": [1]}), "not an examination"),
        (whole[:50], "not an examination"),
    ):
        path.write_text(text)
        with pytest.raises(StoreError, match=message):
            read_examination(copy)


@pytest.mark.full
def test_a_changed_checkpoint_or_protocol_is_refused(
    tiny_checkpoint: Path, shapes_suite: Callable[..., Path], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    suite = shapes_suite(2)
    suite.write_text(suite.read_text().replace(str(tiny_checkpoint), str(checkpoint)))
    m2fbench.run(suite, output=tmp_path / "runs", device="cpu")
    run = tmp_path / "runs" / "test_shapes" / "tiny" / "default"
    kept = (run / "suite.json").read_text()
    (run / "suite.json").write_text(kept.replace('"min_size": 128', '"min_size": 96'))
    with pytest.raises(StoreError, match="protocol.min_size: was 128, is 96.*put that back, or run the suite again") as refused:
        examining.examine(run, device="cpu")
    assert "\n" not in str(refused.value)
    (run / "suite.json").write_text(kept)
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)
    with pytest.raises(StoreError, match="made with another checkpoint or protocol than is there now \\(checkpoint_sha256: was"):
        examining.examine(run, device="cpu")
    assert not (run / "examination.json").exists()


@pytest.mark.full
def test_what_cannot_be_examined(runs: Path, copy: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"expected one run, found 3 \(all, one, none\); name one of them$"):
        examining.examine(runs)
    with pytest.raises(
        DatasetError, match="image '33': expected an id or a file name of one of the run's 3 images; the nearest are 3"
    ):
        examining.examine(runs / "all", image_ids=["33"])
    with pytest.raises(SuiteError, match="limit of at least 1 image"):
        examining.examine(runs / "all", limit=0)
    stub = stub_loader(lambda pixels: (np.zeros((1, 2), np.float32), np.zeros((1, 1, 1), np.float32)))
    with pytest.raises(UnsupportedError, match="examine: expected a Mask2Former"):
        examining.examine(runs / "all", device="cpu", loader=stub)
    with pytest.raises(UnsupportedError, match="stopped before its first layer"):
        examining.examine(runs / "none", device="cpu")
    kept = (copy / "suite.json").read_text()
    (copy / "suite.json").write_text(kept.replace('"compile": false', '"compile": true', 1))
    with pytest.raises(UnsupportedError, match="its model is compiled"):
        examining.examine(copy, device="cpu")
    (copy / "images.csv").unlink()
    with pytest.raises(StoreError, match="cannot be examined: .*images.csv"):
        examining.examine(copy, device="cpu")


def test_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    model = LoadedModel(lambda pixels: (pixels, pixels), torch.device("cpu"), 0, {}, module=torch.nn.Identity())
    with pytest.raises(UnsupportedError, match="masked-attention layers can be looked at, this is a Identity$"):
        refuse_other(model)


@pytest.mark.full
def test_strips(examined: Examination, runs: Path) -> None:
    (run,) = open_runs([runs / "all"])
    assert layer_findings(run) == examined
    pictures = list(layer_pictures(run, examined))
    assert [picture.name for picture in pictures] == ["layers-1-tiny-all-1", "layers-2-tiny-all-2"]
    for picture in pictures:
        assert picture.png.startswith(b"\x89PNG")
        assert picture.alt.count("ends as") == examining.QUERIES
        assert 600 < picture.width < 1800
    assert pictures[0].png == next(iter(layer_pictures(run, examined))).png, "the same again"
    assert list(layer_pictures(replace(run, evidence=None), examined)) == []


def test_a_strip_shows_where_a_query_looks(tmp_path: Path) -> None:
    """Heat is where the weights are and nowhere else; names that are markup or too long do no harm."""
    path = tmp_path / "x.npz"
    path.write_bytes(pack_example(*maps()))
    found: ExampleMaps = read_example(path)

    def bright(shown: ExampleMaps) -> int:
        pixels = np.asarray(strip(np.full((4, 8, 3), 128, np.uint8), shown, "x" * 300)).astype(int)
        return int(((pixels[..., 0] > 240) & (pixels[..., 1] > 230) & (pixels[..., 2] < 215)).sum())

    assert bright(found) > 1000, "the one place that is seen gets all of the attention"
    assert bright(replace(found, attention=tuple(np.zeros_like(a) for a in found.attention))) == 0


@pytest.mark.full
def test_the_command(examined: Examination, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def examine_run(run: Path, **options: Any) -> Examination:
        asked.update(options, run=run)
        return replace(examined, images=2, notes=("look out",))

    monkeypatch.setattr(examining, "examine", examine_run)
    said = CliRunner().invoke(
        app, ["examine", "x/y", "--images", "1", "--limit", "2", "--image", "7", "--image", "8", "--device", "cpu"]
    )
    assert said.exit_code == 0, said.output
    assert {key: asked[key] for key in ("run", "examples", "limit", "image_ids", "device")} == {
        "run": Path("x/y"), "examples": 1, "limit": 2, "image_ids": ["7", "8"], "device": "cpu",
    }  # fmt: skip
    assert "predictions after every decoder layer" in said.output
    assert "over the first 2 of the run's 3 images; the last layer's figures are those of the run over these" in said.output
    assert "warning: look out" in said.output
    for layer in examined.layers:
        assert f"{layer.figures['PQ']:.2f}" in said.output
    assert (cli_examine._EXAMPLES, cli_examine._LIMIT) == (examining.EXAMPLES, examining.LIMIT)
