"""Which images are shown of a run, in which words, and that the pictures of all three heads come out whole."""

import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_drawing as scenes
import yaml
from PIL import Image
from test_drawing import CAT, DOG, GRASS, SIZE, SKY, box, evidence, instances

import m2fbench
from m2fbench.analysis.findings import ImageChange
from m2fbench.analysis.image_evidence import Content, ImageEvidence, image_reader, main_head
from m2fbench.analysis.ranking import id_key, image_values, in_words, mistake_in, rank
from m2fbench.analysis.runs import MetricStatistics, Run, open_runs, statistics_of
from m2fbench.datasets.coco_panoptic import CocoPanoptic, CocoPanopticOptions
from m2fbench.errors import M2FBenchError
from m2fbench.formats.panoptic import segment_rles
from m2fbench.reporting.images.gallery import compared_pictures, gallery, head_of
from m2fbench.reporting.images.picture import Picture
from m2fbench.reporting.images.sheets import Look, side_by_side
from m2fbench.suite import suite_folder
from m2fbench.types import Category, Head, InstanceSet, PanopticMap, Segment

COUNT = 8

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> Run:
    """A panoptic run of a few scenes, with all three heads."""
    folder = tmp_path_factory.mktemp("gallery")
    suite = yaml.safe_load((suite_folder() / "shapes_panoptic.yaml").read_text())
    del suite["tolerance"], suite["checkpoints"][0]["published"]
    dataset = {"name": "shapes", "count": COUNT}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite | {"dataset": dataset, "workers": 0}))
    (result,) = m2fbench.run(folder / "suite.yaml", output=folder / "runs", device="cpu", loader=bundled_loader)
    assert result.path is not None
    (opened,) = open_runs([result.path.parent])
    return opened


@pytest.fixture(scope="module")
def statistics(run: Run) -> list[MetricStatistics]:
    assert run.evidence is not None
    return statistics_of(run.evidence)


def test_what_is_read_is_what_was_scored(run: Run) -> None:
    """The panoptic truth has the semantic one's classes, and the instances are its things."""
    assert run.evidence is not None
    example = run.evidence.examples[2]
    by_head = {head: image_reader(run.evidence, head)(example) for head in run.evidence.predictions.heads}
    panoptic, semantic, instance = by_head["panoptic"], by_head["semantic"], by_head["instance"]
    of_segment = {s.id: s.category for s in panoptic.truth.segments}
    np.testing.assert_array_equal(np.vectorize(of_segment.get)(panoptic.truth.ids), semantic.truth)
    things = sorted(c for c in of_segment.values() if run.evidence.dataset.categories[c].is_thing)
    assert sorted(instance.truth.categories.tolist()) == things
    scores = instance.prediction.scores
    assert (np.diff(scores) <= 0).all()
    assert (instance.confident(0.5).prediction.scores >= 0.5).all()
    assert len(instance.confident(0.5).prediction) == int((scores >= 0.5).sum()) < len(scores)
    assert panoptic.confident(0.9) is panoptic
    assert main_head(run.evidence) == "panoptic"


@pytest.mark.parametrize("head", ["instance", "panoptic", "semantic"])
def test_ranking_goes_by_each_images_own_figure(run: Run, statistics: list[MetricStatistics], head: Any) -> None:
    assert run.evidence is not None
    ranking = rank(run.evidence, statistics, head, 3)
    name, values, notes = image_values(run.evidence, statistics, head)
    assert (name, notes) == ({"instance": "AP_th_pan", "panoptic": "PQ", "semantic": "mIoU_pan"}[head], [])
    ordered = sorted(values, key=lambda i: (-values[i], i))
    assert [i.image_id for i in ranking.best] == ordered[:3]
    assert [i.value for i in ranking.worst] == sorted(values.values())[:3]
    assert not {i.image_id for i in ranking.best} & {i.image_id for i in ranking.worst}
    read = image_reader(run.evidence, head)
    mistakes = {e.image_id: mistake_in(read(e)) for e in run.evidence.examples}
    gravest = sorted((i for i, m in mistakes.items() if m), key=lambda i: (mistakes[i].weight, -i), reverse=True)[:3]
    assert [i.image_id for i in ranking.confidently_wrong] == gravest
    for image in ranking.confidently_wrong:
        assert image.why.startswith('predicted "')
        assert image.pixels.any()
        assert image.value == values[image.image_id]


def test_images_without_truth_are_not_ranked(run: Run, statistics: list[MetricStatistics]) -> None:
    assert run.evidence is not None
    one = next(s for s in statistics if s.head == "panoptic")

    class Halved:
        figures, image_ids = one.statistics.figures, one.statistics.image_ids
        truth_count = one.statistics.truth_count * (np.arange(COUNT) % 2)[:, None]

        def per_image(self) -> np.ndarray:
            return np.nan_to_num(one.statistics.per_image())

    ranking = rank(run.evidence, [replace(one, statistics=Halved())], "panoptic", 10)
    assert {i.image_id for i in (*ranking.best, *ranking.worst)} == {2, 4, 6, 8}
    assert ranking.notes == ("not ranked, having no PQ of their own (no truth in them): 4 of 8 images",)
    assert all(math.isnan(i.value) for i in ranking.confidently_wrong if int(i.image_id) % 2)
    nothing = rank(run.evidence, [], "panoptic", 2)
    assert nothing.best == nothing.worst == ()
    assert "gives PQ image by image" in nothing.notes[0]
    assert nothing.confidently_wrong


def test_ties_go_by_image_id(run: Run, statistics: list[MetricStatistics]) -> None:
    assert run.evidence is not None
    one = next(s for s in statistics if s.head == "panoptic")

    class Level:
        figures, image_ids, truth_count = one.statistics.figures, one.statistics.image_ids, one.statistics.truth_count

        def per_image(self) -> np.ndarray:
            return np.full((COUNT, len(self.figures)), 50.0)

    ranking = rank(run.evidence, [replace(one, statistics=Level())], "panoptic", 2)
    assert [i.image_id for i in ranking.best] == [1, 2]
    assert [i.image_id for i in ranking.worst] == [7, 8]
    assert sorted(["b", 10, 9, "a"], key=id_key) == [9, 10, "a", "b"]


def test_mistakes_in_words() -> None:
    """The most confident mistake of an image, and what is there instead."""
    dog, cat = box(SIZE, 0, 10, 0, 10), box(SIZE, 0, 10, 12, 20)

    def of(truth: Any, prediction: Any) -> str | None:
        mistake = mistake_in(evidence("instance", SIZE, truth, prediction))
        return None if mistake is None else mistake.why

    assert of(instances((cat, CAT, 1, False)), instances((cat, DOG, 0.98, False))) == (
        'predicted "dog" with 0.98 where the truth has "cat"'
    )
    assert of(instances((cat, CAT, 1, False)), instances((dog, DOG, 0.9, False), (cat, CAT, 0.95, False))) == (
        'predicted "dog" with 0.90 where the truth has nothing'
    )
    assert of(instances((cat, CAT, 1, False)), instances((cat, CAT, 0.95, False), (cat, CAT, 0.9, False))) == (
        'predicted "cat" with 0.90 on a "cat" that another detection has found'
    )
    assert of(instances((dog, DOG, 1, False)), instances((box(SIZE, 0, 10, 7, 17), DOG, 0.7, False))) == (
        'predicted "dog" with 0.70 where the truth has at best a "dog" of IoU 0.18'
    )
    assert of(instances((dog, DOG, 1, False)), instances((dog, DOG, 0.7, False), (cat, CAT, 0.4, False))) is None, "below 0.5"
    assert of(instances((dog, DOG, 1, True)), instances((dog, DOG, 0.7, False))) is None, "on a crowd"
    assert of(None, instances((dog, DOG, 0.7, False))) is None
    assert of(instances(), instances()) is None
    equal = instances((box(SIZE, 0, 2, 0, 2), DOG, 0.904, False), (cat, CAT, 0.901, False))
    assert of(instances(), equal) == 'predicted "cat" with 0.90 where the truth has nothing', "the larger of equal scores"


def test_mistakes_of_maps_in_words() -> None:
    image, _ = scenes.panoptic_scene()
    mistake = mistake_in(image)
    assert mistake is not None
    assert mistake.why == 'predicted "cat" over 6.2 % of the image where the truth has "dog" (100 % of the segment)'
    assert mistake.pixels.sum() == 30
    image, _ = scenes.semantic_scene()
    mistake = mistake_in(image)
    assert mistake is not None
    assert mistake.why == 'predicted "sky" over 8.3 % of the image where the truth has "grass"'
    assert mistake.pixels[3].all()
    true, found = np.ones(SIZE, np.int32), np.ones(SIZE, np.int32)
    true[:, 10:], found[:, 30:] = 2, 2
    truth, prediction = (PanopticMap(ids, (Segment(1, GRASS), Segment(2, SKY))) for ids in (true, found))
    mistake = mistake_in(evidence("panoptic", SIZE, truth, prediction))
    assert mistake is not None
    assert mistake.why == 'predicted "grass" over 75 % of the image where the truth has "sky" (67 % of the segment)'
    nothing = PanopticMap(np.zeros(SIZE, np.int32), ())
    assert mistake_in(evidence("panoptic", SIZE, truth, nothing)) is None
    assert mistake_in(evidence("panoptic", SIZE, nothing, prediction)) is None, "all of it on void"


def test_images_in_words() -> None:
    assert in_words(scenes.instance_scene()[0]) == "1 right, 1 missed, 1 false, 1 of a wrong class"
    assert in_words(scenes.semantic_scene()[0]).startswith(
        "86.4 % of the pixels right, 9.1 % of a wrong class, 4.5 % without a class"
    )
    ignored = np.full(SIZE, 255, np.uint8)
    assert in_words(evidence("semantic", SIZE, ignored, ignored)) == "no pixel has a class in the truth"
    assert in_words(evidence("semantic", SIZE, None, ignored)) == "no truth to compare with"


@pytest.mark.parametrize("head", ["instance", "panoptic", "semantic"])
def test_a_gallery_of_every_head(run: Run, statistics: list[MetricStatistics], head: Any) -> None:
    found = gallery(run, 2, head=head, statistics=statistics, look=Look(longest=64))
    assert [s.kind for s in found.sections] == ["best", "worst", "confidently-wrong"]
    pictures = [p for s in found.sections for p in s.pictures]
    assert len({p.name for p in pictures}) == len(pictures) >= 5
    for picture in pictures:
        with Image.open(io.BytesIO(picture.png)) as image:
            assert image.size == (picture.width, picture.height)
            assert image.format == "PNG"
        assert picture.title in picture.alt
        assert picture.caption in picture.alt


def broken(run: Run, error: Exception) -> Run:
    """The run, whose first image cannot be read."""
    assert run.evidence is not None
    dataset = run.evidence.dataset

    class Gone(type(dataset)):  # type: ignore[misc]
        def image(self, example: Any) -> Any:
            if example.image_id == 1:
                raise error
            return super().image(example)

    gone = object.__new__(Gone)
    gone.__dict__.update(dataset.__dict__)
    return replace(run, evidence=replace(run.evidence, dataset=gone))


def test_what_cannot_be_shown_is_said(run: Run, statistics: list[MetricStatistics]) -> None:
    empty = gallery(replace(run, evidence=None, problem="the photos are gone"))
    assert empty.sections == ()
    assert empty.notes == ("no pictures: the photos are gone",)
    without_one = broken(run, m2fbench.errors.ImageError("x.jpg: no such image"))
    found = gallery(without_one, COUNT, statistics=statistics, look=Look(longest=16))
    assert "image 1 cannot be shown: x.jpg: no such image" in found.notes
    assert len(found.sections[0].pictures) + len(found.sections[1].pictures) == COUNT - 1


def test_pictures_of_what_changed_most(run: Run) -> None:
    assert run.evidence is not None
    other = replace(run, label="<other>")
    changes = [ImageChange(i, "PQ", 50.0, 50.0 + d) for i, d in ((3, -20.0), (2, -1.0), (1, 0.0), (4, 2.0), (5, 30.0))]
    lost, gained = compared_pictures(run, other, changes, 2, look=Look(longest=64))
    assert [p.title for p in lost.pictures] == ["Image 3", "Image 2"]
    assert [p.title for p in gained.pictures] == ["Image 5", "Image 4"]
    assert "<other> 30.0" in lost.pictures[0].caption
    assert lost.pictures[0].caption.endswith("; -20.0.")
    names = [p.name for p in (*lost.pictures, *gained.pictures)]
    assert len(set(names)) == 4
    assert isinstance(lost.pictures[0], Picture)
    assert compared_pictures(run, other, changes[2:3]) == ()
    assert compared_pictures(run, other, []) == ()
    assert compared_pictures(replace(run, evidence=None), other, changes) == ()
    assert head_of("mIoU_pan", run.evidence) == "semantic"
    with pytest.raises(M2FBenchError, match="expected the main figure"):
        head_of("SQ", run.evidence)


def test_predictions_of_none(run: Run, tmp_path: Path) -> None:
    """A run that finds nothing at all has pictures all the same."""
    assert run.evidence is not None
    empty = tmp_path / "predictions.json"
    empty.write_text("[]")
    evidence_of_none = replace(run.evidence, predictions=replace(run.evidence.predictions, instances=empty))
    found = gallery(replace(run, evidence=evidence_of_none), 2, head="instance", look=Look(longest=64))
    assert [s.kind for s in found.sections] == ["best", "worst"]
    assert "0 right" in found.sections[0].pictures[0].caption


def test_class_names_with_markup_stay_text(run: Run, statistics: list[MetricStatistics]) -> None:
    assert run.evidence is not None
    dataset = run.evidence.dataset
    renamed = object.__new__(type(dataset))
    renamed.__dict__.update(dataset.__dict__)
    renamed.categories = tuple(Category(f"<b>{c.name}</b>😀" + "x" * 300, c.is_thing) for c in dataset.categories)
    changed = replace(run, label="<i>a/b</i>", evidence=replace(run.evidence, dataset=renamed))
    found = gallery(changed, 1, head="instance", statistics=statistics, look=Look(longest=64))
    picture = found.sections[-1].pictures[0]
    assert "<b>" in picture.caption
    assert picture.name == "i-a-b-i-instance-confidently-wrong-1"


def test_a_real_photo(shared: Path) -> None:
    """The original code's outputs of a photo with two persons, beside its truth: who is found, missed and found twice."""
    annotations = "annotations/panoptic_val2017.json"
    dataset = CocoPanoptic(
        CocoPanopticOptions(annotations=annotations, images="val2017", instances=None), shared / "data/coco_real"
    )
    example = next(e for e in dataset.examples() if e.image_id == 872)
    path = next(p for p in (shared / "golden").glob("postprocess_0*.npz") if "872" in p.name)
    with np.load(path) as golden:
        order = np.argsort(-golden["instance_scores"], kind="stable")
        rles = tuple(json.loads(str(golden["instance_rles"][k])) for k in order)
        found: dict[Head, Content] = {
            "instance": InstanceSet(
                rles,
                golden["instance_classes"][order],
                golden["instance_scores"][order].astype(np.float64),
                np.zeros(len(order), bool),
            ),
            "panoptic": PanopticMap(
                golden["panoptic_map"],
                tuple(Segment(s["id"], s["category_id"]) for s in json.loads(str(golden["panoptic_segments"]))),
            ),
            "semantic": golden["semantic_argmax"],
        }
    panoptic = dataset.panoptic_truth(example)
    things = PanopticMap(panoptic.ids, tuple(s for s in panoptic.segments if dataset.categories[s.category].is_thing))
    truth: dict[Head, Content] = {
        "instance": InstanceSet(
            tuple(segment_rles(things)),
            np.array([s.category for s in things.segments], np.int64),
            np.ones(len(things.segments)),
            np.array([s.is_crowd for s in things.segments], bool),
        ),
        "panoptic": panoptic,
        "semantic": dataset.semantic_truth(example),
    }
    words = {
        "instance": "3 right, 1 missed, 1 false, 0 of a wrong class",
        "panoptic": "3 right, 4 missed, 2 false, 0 of a wrong class",
        "semantic": "95.5 % of the pixels right, 4.5 % of a wrong class",
    }
    photo = dataset.image(example)
    for head in truth:
        image = ImageEvidence(example, head, dataset.categories, truth[head], found[head])
        assert in_words(image.confident(0.5)) == words[head]
        sheet = side_by_side(photo, image, Look(longest=320))
        assert sheet.width == 2 * 310 + 36
        shown = np.asarray(sheet)
        assert len(np.unique(shown[40:300, 20:300].reshape(-1, 3), axis=0)) > 5000, "the photo, in colour"


def test_annotation_files_name_no_output(run: Run, tmp_path: Path) -> None:
    """Names of pictures come of labels and numbers, whatever paths a panoptic JSON gives."""
    assert run.evidence is not None
    folder = Path(shutil.copytree(run.folder, tmp_path / "run"))
    document = json.loads((folder / "panoptic.json").read_bytes())
    document["annotations"][0]["file_name"] = "../../evil.png"
    (folder / "panoptic.json").write_text(json.dumps(document))
    predictions = replace(run.evidence.predictions, panoptic=folder / "panoptic.json", panoptic_folder=folder / "panoptic")
    with pytest.raises(M2FBenchError, match="expected a path inside the PNG folder"):
        image_reader(replace(run.evidence, predictions=predictions), "panoptic")
