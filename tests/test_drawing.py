"""Which pixel of a picture gets which colour, on small scenes made by hand; and that nothing in a name or a size breaks a picture."""

import contextlib
import io
import itertools
from typing import Any

import numpy as np
import pycocotools.mask
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from m2fbench.analysis.image_evidence import Content, ImageEvidence, at_least
from m2fbench.analysis.verdicts import Verdict, judge, judge_instances, match_instances
from m2fbench.metrics.panoptic_quality import panoptic_counts
from m2fbench.reporting.images import lettering, sheets
from m2fbench.reporting.images.colours import VERDICT_STYLES, class_colour, mixed, pattern_mask, to_oklab
from m2fbench.reporting.images.drawing import (
    FILL,
    between,
    display_size,
    draw,
    draw_difference,
    grey,
    inner_edge,
    object_colours,
    resized_labels,
    resized_mask,
)
from m2fbench.reporting.images.picture import safe_name
from m2fbench.reporting.images.sheets import Look, class_keys, compared, side_by_side, to_png
from m2fbench.reporting.images.tags import put, tag_of
from m2fbench.types import Category, Example, Head, InstanceSet, PanopticMap, Rle, Segment

N, X, F, R, M, W = (int(v) for v in Verdict)  # nothing, ignored, false, right, missed, wrong class
CATEGORIES = (Category("dog", True), Category("cat", True), Category("grass", False), Category("sky", False))
DOG, CAT, GRASS, SKY = range(4)
GREY = 128


def rle(mask: np.ndarray) -> Rle:
    found = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": found["counts"].decode()}


def box(size: tuple[int, int], top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[top:bottom, left:right] = True
    return mask


def instances(*found: tuple[np.ndarray, int, float, bool]) -> InstanceSet:
    masks, categories, scores, crowds = zip(*found, strict=True) if found else ((), (), (), ())
    return InstanceSet(tuple(map(rle, masks)), np.array(categories, np.int64), np.array(scores, np.float64), np.array(crowds, bool))


def evidence(head: Head, size: tuple[int, int], truth: Content | None, prediction: Content, categories=CATEGORIES) -> ImageEvidence:
    problem = "there is none" if truth is None else None
    return ImageEvidence(Example(7, size, "scene"), head, tuple(categories), truth, prediction, problem)


SIZE = (12, 40)


def instance_scene() -> tuple[ImageEvidence, np.ndarray]:
    """A dog found but for a row, a cat missed, a cat that is not there, a dog taken for a cat, a crowd with a detection on it."""
    truth = instances(
        (box(SIZE, 0, 10, 0, 10), DOG, 1, False), (box(SIZE, 0, 10, 12, 20), CAT, 1, False), (box(SIZE, 0, 10, 32, 40), DOG, 1, False),
        (box(SIZE, 10, 12, 0, 40), DOG, 1, True),
    )  # fmt: skip
    prediction = instances(
        (box(SIZE, 0, 9, 0, 10), DOG, 0.9, False), (box(SIZE, 0, 10, 22, 30), CAT, 0.8, False),
        (box(SIZE, 0, 10, 32, 40), CAT, 0.7, False), (box(SIZE, 10, 12, 5, 15), DOG, 0.6, False),
        (box(SIZE, 0, 9, 0, 10), CAT, 0.4, False),
    )  # fmt: skip
    expected = np.full(SIZE, N)
    expected[:9, :10], expected[9, :10] = R, M
    expected[:10, 12:20], expected[:10, 22:30], expected[:10, 32:40] = M, F, W
    expected[10:] = X
    return evidence("instance", SIZE, truth, prediction).confident(0.5), expected


def panoptic_scene() -> tuple[ImageEvidence, np.ndarray]:
    """Grass and sky; a dog found but for its right end, which is given to grass; a cat that is not there; a dog taken for a cat; a dog
    found in pieces, of which neither is half; a strip of sky taken for grass; void; a pixel of nothing."""
    true, found = np.full(SIZE, 1, np.int32), np.full(SIZE, 1, np.int32)
    true[:4], found[:3] = 2, 2  # sky above; the row 3 is taken for grass
    true[5:10, 0:10], found[5:10, 0:8] = 3, 3
    found[5:10, 12:16] = 4
    true[5:10, 18:24], found[5:10, 18:24] = 4, 5
    true[5:11, 26:36] = 5
    found[5:11, 26:30], found[5:11, 31:35] = 6, 7
    true[11, 38:], found[11, 0] = 0, 0
    truth = PanopticMap(true, (Segment(1, GRASS), Segment(2, SKY), Segment(3, DOG), Segment(4, DOG), Segment(5, DOG, area=60)))
    prediction = PanopticMap(
        found,
        (Segment(1, GRASS), Segment(2, SKY), Segment(3, DOG), Segment(4, CAT), Segment(5, CAT), Segment(6, DOG), Segment(7, DOG)),
    )
    expected = np.full(SIZE, R)
    expected[3] = W
    expected[5:10, 8:10], expected[5:10, 12:16], expected[5:10, 18:24], expected[5:11, 26:36] = M, F, W, M
    expected[11, 0], expected[11, 38:] = M, X
    return evidence("panoptic", SIZE, truth, prediction), expected


def semantic_scene() -> tuple[ImageEvidence, np.ndarray]:
    truth, prediction = np.full(SIZE, GRASS, np.uint8), np.full(SIZE, GRASS, np.uint8)
    truth[:3], prediction[:4] = SKY, SKY
    truth[8:, 30:], prediction[8:, :5] = 255, 255
    expected = np.full(SIZE, R)
    expected[3], expected[8:, 30:], expected[8:, :5] = W, X, M
    return evidence("semantic", SIZE, truth, prediction), expected


SCENES = {"instance": instance_scene, "panoptic": panoptic_scene, "semantic": semantic_scene}


@pytest.mark.parametrize("head", SCENES)
def test_verdicts_of_pixels(head: str) -> None:
    image, expected = SCENES[head]()
    np.testing.assert_array_equal(judge(image).pixels, expected)


@pytest.mark.parametrize("factor", [1, 3])
@pytest.mark.parametrize("head", SCENES)
def test_every_pixel_of_a_difference_has_the_colour_of_its_verdict(head: str, factor: int) -> None:
    """By the definition: what covers grey, with the pattern's ink, and a dark line where an error begins."""
    image, expected = SCENES[head]()
    photo = np.full((*SIZE, 3), GREY, np.uint8)
    size = display_size(SIZE, 40 * factor)
    assert size == (12 * factor, 40 * factor)
    drawn = np.asarray(draw_difference(photo, judge(image), size, []).image)
    verdicts = expected.repeat(factor, 0).repeat(factor, 1)
    ground = grey(np.full((1, 1, 3), GREY, np.uint8))[0, 0]
    for y, x in np.ndindex(size):
        colour = ground.astype(np.float64)
        verdict = int(verdicts[y, x])
        if verdict != N:
            style = VERDICT_STYLES[Verdict(verdict)]
            over = style.ink if pattern_mask(style.pattern, *size)[y, x] else style.fill
            colour = colour + style.strength * (np.array(over) - colour)
        errors = {
            place: v if (v := int(verdicts[place])) in (F, M, W) else 0 for place in ((y, x), (y - (y > 0), x), (y, x - (x > 0)))
        }
        if errors[y, x] and set(errors.values()) != {errors[y, x]}:
            colour = colour * 0.4
        assert abs(drawn[y, x] - colour).max() <= 0.51, (y, x, verdict)


def test_verdicts_of_objects() -> None:
    image, _ = instance_scene()
    judgement = judge(image)
    assert judgement.truth.tolist() == [R, M, W, X]
    assert judgement.prediction.tolist() == [R, F, W, X]
    assert judgement.partner.tolist() == [0, -1, 2, -1]
    assert judgement.counts == {Verdict.RIGHT: 1, Verdict.FALSE: 1, Verdict.WRONG_CLASS: 1, Verdict.MISSED: 1}
    judgement = judge(panoptic_scene()[0])
    assert judgement.truth.tolist() == [R, R, R, W, M]
    assert judgement.prediction.tolist() == [R, R, R, F, W, F, F]


def test_a_second_detection_is_false_and_leaves_what_is_right() -> None:
    truth = instances((box(SIZE, 0, 10, 0, 10), DOG, 1, False))
    twice = instances((box(SIZE, 0, 10, 0, 10), DOG, 0.9, False), (box(SIZE, 0, 10, 0, 12), DOG, 0.8, False))
    judgement = judge_instances(truth, twice, SIZE)
    assert judgement.prediction.tolist() == [R, F]
    assert (judgement.pixels[:10, :10] == R).all()
    assert (judgement.pixels[:10, 10:12] == F).all()


MASKS = st.tuples(st.integers(0, 8), st.integers(1, 9), st.integers(0, 8), st.integers(1, 9), st.integers(0, 1), st.booleans())


@pytest.mark.full
@settings(max_examples=60, deadline=None)
@given(st.lists(MASKS, max_size=5), st.lists(MASKS, max_size=6))
def test_right_detections_are_pycocotools_true_positives_at_half(true: list[tuple], found: list[tuple]) -> None:
    def made(masks: list[tuple], crowds: bool) -> InstanceSet:
        return instances(*(
            (box((10, 10), t, min(t + h, 10), x, min(x + w, 10)), c, 0.99 - 0.01 * k, crowds and crowd)
            for k, (t, h, x, w, c, crowd) in enumerate(masks)
        ))  # fmt: skip

    truth, prediction = made(true, True), made(found, False)
    _, verdicts, _ = match_instances(truth, prediction)
    known, results = COCO(), COCO()
    images = [{"id": 1, "height": 10, "width": 10}]
    for target, content in ((known, truth), (results, prediction)):
        target.dataset = {"images": images, "categories": [{"id": 0, "name": "a"}, {"id": 1, "name": "b"}], "annotations": [
            {"id": k, "image_id": 1, "category_id": int(c), "segmentation": r, "iscrowd": int(crowd), "score": float(s),
             "area": float(pycocotools.mask.area(r)), "bbox": [0, 0, 1, 1]}
            for k, (r, c, s, crowd) in enumerate(zip(content.rles, content.categories, content.scores, content.is_crowd, strict=True), 1)
        ]}  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        results.createIndex()
        official = COCOeval(known, results, "segm")
        official.params.iouThrs = np.array([0.5])
        official.evaluate()
    everything = [e for e in official.evalImgs if e is not None and e["aRng"] == [0, 1e10]]
    hits = sum(int(((e["dtMatches"][0] > 0) & ~e["dtIgnore"][0].astype(bool)).sum()) for e in everything)
    ignored = sum(int(e["dtIgnore"][0].sum()) for e in everything)
    assert int((verdicts == R).sum()) == hits
    assert int((verdicts == X).sum()) <= ignored  # taken for a wrong class otherwise, or the crowd covers just half


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_panoptic_counts_are_those_of_panoptic_quality(seed: int) -> None:
    """A pair of two classes is one of each: a false segment and a missed one."""
    rng = np.random.default_rng(seed)

    def made(ids: np.ndarray) -> PanopticMap:
        present = [i for i in np.unique(ids).tolist() if i]
        return PanopticMap(ids, tuple(Segment(i, int(rng.integers(4)), bool(rng.random() < 0.1)) for i in present))

    true = np.kron(rng.integers(0, 5, (3, 4)), np.ones((4, 4))).astype(np.int32)
    found = np.where(rng.random(true.shape) < 0.3, rng.integers(0, 5, true.shape), true).astype(np.int32)
    truth, prediction = made(true), made(found)
    counts = judge(evidence("panoptic", true.shape, truth, prediction)).counts
    official = panoptic_counts(truth, prediction, 4)
    assert counts[Verdict.RIGHT] == official.tp.sum()
    assert counts[Verdict.FALSE] + counts[Verdict.WRONG_CLASS] == official.fp.sum()
    assert counts[Verdict.MISSED] + counts[Verdict.WRONG_CLASS] == official.fn.sum()


def test_truth_and_prediction_of_a_class_share_a_colour() -> None:
    image, _ = instance_scene()
    true, found = object_colours(image.truth, image.prediction, judge(image).partner)
    assert true[0] == found[0] == class_colour(DOG)
    assert true[1] == class_colour(CAT)
    assert found[1] == class_colour(CAT, 1), "another cat is another object"
    assert true[2] == class_colour(DOG, 1)


def expected_colour(content: Content, place: tuple[int, int], colours: list[tuple[int, int, int]]) -> tuple[int, int, int] | None:
    """Of the one object that a pixel is in."""
    if isinstance(content, InstanceSet):
        masks = [pycocotools.mask.decode(r).astype(bool) for r in content.rles]
        return next((colours[k] for k, mask in enumerate(masks) if mask[place] and not content.is_crowd[k]), None)
    if isinstance(content, PanopticMap):
        return next((colours[k] for k, s in enumerate(content.segments) if s.id == content.ids[place]), None)
    return None if content[place] == 255 else class_colour(int(content[place]))


@pytest.mark.parametrize("head", SCENES)
def test_objects_are_in_their_colours(head: str) -> None:
    """Without names, every pixel that no outline is on has the mix of the photo's grey and its object's colour, in truth and prediction."""
    image, _ = SCENES[head]()
    photo = np.full((*SIZE, 3), GREY, np.uint8)
    plain = tuple(Category("", c.is_thing) for c in CATEGORIES)
    true, found = object_colours(image.truth, image.prediction, judge(image).partner)
    ground = grey(photo)[0, 0]
    for content, colours in ((image.truth, true), (image.prediction, found)):
        drawn = np.asarray(draw(photo, content, plain, SIZE, colours, scores=False).image).astype(int)
        checked = 0
        for place in itertools.product(range(1, 8), range(1, SIZE[1] - 1)):
            around = {expected_colour(content, (place[0] + y, place[1] + x), colours) for y in (-1, 0, 1) for x in (-1, 0, 1)}
            if len(around) == 1 and (colour := around.pop()) is not None:
                assert abs(drawn[place] - (ground + FILL * (np.array(colour) - ground))).max() <= 0.51, place
                checked += 1
        assert checked > 80


def test_classes_have_colours_of_their_own() -> None:
    labs = to_oklab(np.array([class_colour(k) for k in range(150)]))
    gaps = np.linalg.norm(labs[:, None] - labs[None], axis=2) + np.eye(150)
    assert gaps[:20, :20].min() > 0.08
    assert gaps.min() > 0.02
    assert class_colour(70) == class_colour(70)
    assert class_colour(5, 0) == class_colour(5, 7)
    assert len({class_colour(5, k) for k in range(7)}) == 7


SEEN = {  # Machado, Oliveira and Fernandes, "A physiologically-based model for simulation of color vision deficiency", 2009; severity 1
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}  # fmt: skip


@pytest.mark.parametrize("sight", SEEN)
@pytest.mark.parametrize("ground", [45, 140, 245])
def test_right_and_wrong_are_told_apart_without_some_colours(sight: str, ground: int) -> None:
    def linear(colour: np.ndarray) -> np.ndarray:
        share = colour / 255
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)

    def seen(colour: tuple[int, ...]) -> np.ndarray:
        light = np.clip(np.array(SEEN[sight]) @ linear(np.array(colour)), 0, 1)
        return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)

    styles = [VERDICT_STYLES[v] for v in (Verdict.RIGHT, Verdict.FALSE, Verdict.MISSED, Verdict.WRONG_CLASS)]
    labs = [to_oklab(seen(mixed((ground,) * 3, style.fill, style.strength))) for style in styles]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(labs, 2)) > 0.09
    assert len({style.pattern for style in VERDICT_STYLES.values()}) == len(VERDICT_STYLES)


def test_sizes() -> None:
    assert display_size((144, 192), 480) == (432, 576)  # 2.5 times: the next whole factor
    assert display_size((144, 192), 400) == (288, 384)
    assert display_size((480, 640), 480) == (360, 480)
    assert display_size((1, 5000), 480) == (1, 480)
    assert display_size((1, 1), 16) == (16, 16)
    assert display_size((3000, 4000), 640) == (480, 640)


def test_a_mask_that_is_nowhere_half_of_a_pixel_still_shows() -> None:
    mask = np.zeros((400, 400), bool)
    mask[200, 200] = True
    assert resized_mask(mask, (40, 40)).sum() == 1
    mask[:200] = True
    assert resized_mask(mask, (40, 40)).sum() == 800
    labels = np.zeros((40, 40), np.int64)
    labels[:, 20:], labels[0, 0] = 3, 9
    small = resized_labels(labels, (10, 10))
    assert (small[:, 5:] == 3).all()
    assert (small[:, :5] == 0).all()
    assert resized_labels(labels, (80, 80))[1, 1] == 9


def test_edges() -> None:
    mask = box((5, 6), 1, 4, 1, 5)
    assert inner_edge(mask, 1).sum() == 10
    assert (~inner_edge(np.ones((4, 4), bool), 2)).all(), "the picture's border is no edge"
    assert between(mask.astype(int), 1)[1, 1]
    assert not between(np.zeros((3, 3), int), 2).any()


NAMES = ("<b>bold</b>&amp;", "😀 中文 العربية", "x" * 300, "Fußgänger\nSchlange\u202e", "", "{{name}}")


def test_letters_that_no_font_has_become_boxes() -> None:
    assert lettering.drawable("<b>dog</b> & co")[0] == "<b>dog</b> & co"
    assert lettering.drawable("a\nb\t\x1b[31mc")[0] == "a b [31mc"
    assert lettering.drawable("中x")[0] in ("□x", "?x")
    assert "ب" not in lettering.drawable("ب")[0]
    assert lettering.drawable("Ж")[0] in ("Ж", "?")
    assert lettering.drawable("e\u0301")[0] == lettering.drawable("é")[0] == "é"


@given(st.text(max_size=80), st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_shortened_text_fits(text: str, width: int) -> None:
    short = lettering.shortened(text, 13, width)
    assert not short or lettering.text_width(short, 13) <= width


def test_names_stand_inside_and_apart() -> None:
    image = Image.new("RGB", (200, 100), (255, 0, 255))
    before = np.asarray(image).copy()
    tags = [tag_of(name, (0, 255, 0), box((100, 200), 10 * k, 10 * k + 12, 180, 200)) for k, name in enumerate(NAMES)]
    assert all(tags)
    left_out = put(image, filter(None, tags), 12)
    assert 0 <= left_out < len(NAMES)
    changed = np.abs(np.asarray(image).astype(int) - before).sum(2) > 0
    assert changed.any()
    assert tag_of("gone", (0, 0, 0), np.zeros((4, 4), bool)) is None
    assert put(Image.new("RGB", (3, 3)), [tag_of("dog", (0, 0, 0), np.ones((3, 3), bool))], 12) == 1


def test_plates_are_legible_on_any_ground() -> None:
    """White letters on a plate that stays dark over white: a contrast of 7 to 1, as WCAG's AAA asks."""
    for ground in ((255, 255, 255), (0, 0, 0), (255, 255, 0)):
        image = Image.new("RGB", (120, 60), ground)
        put(image, [tag_of("dog", (0, 200, 0), np.ones((60, 120), bool))], 14)  # type: ignore[list-item]
        plate = np.asarray(image).reshape(-1, 3).astype(float) / 255
        linear = np.where(plate <= 0.04045, plate / 12.92, ((plate + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
        assert linear.max() > 0.9
        dark = linear[(linear < 0.2)]
        assert len(dark) > 200
        assert (1 + 0.05) / (np.median(dark) + 0.05) > 7


@pytest.mark.parametrize("head", ["panoptic", "semantic"])
def test_what_is_left_empty_has_a_legend_and_thin_lines_a_note(head: Head, monkeypatch: pytest.MonkeyPatch) -> None:
    size = (20, 30)
    ids = np.ones(size, np.int32)
    part = np.where(np.arange(30) < 25, ids, 0).astype(np.int32)
    maps: dict[str, list[Content]] = {
        "panoptic": [PanopticMap(m, (Segment(1, GRASS),)) for m in (ids, part)],
        "semantic": [np.where(m, SKY, 255).astype(np.uint8) for m in (ids, part)],
    }
    said: list[str] = []

    def noted(panels: Any, heading: str, legends: Any, notes: list[str], **_: Any) -> Image.Image:
        said[:] = [*(key.text for keys in legends for key in keys), *notes]
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(sheets, "compose", noted)
    whole, less = maps[head]
    photo = np.full((*size, 3), GREY, np.uint8)
    for prediction, there in ((less, True), (whole, False)):
        image = evidence(head, size, whole, prediction)
        for draw_it in (
            lambda i=image: side_by_side(photo, i, Look(60)),
            lambda i=image: compared(photo, i, i, ("a", "b"), Look(60)),
        ):
            draw_it()
            assert ("in a prediction: nothing predicted" in said) is there
            assert any("Thin lines in a difference are outlines that differ by pixels." in text for text in said) is there


SIZES = [(1, 1), (1, 700), (700, 1), (30, 20)]


@pytest.mark.full
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("head", SCENES)
def test_sheets_of_odd_sizes_and_of_nothing(head: Head, size: tuple[int, int]) -> None:
    whole = np.ones(size, bool)
    one: dict[str, Content] = {
        "instance": instances((whole, DOG, 0.9, False)),
        "panoptic": PanopticMap(whole.astype(np.int32), (Segment(1, GRASS),)),
        "semantic": np.full(size, SKY, np.uint8),
    }
    none: dict[str, Content] = {
        "instance": instances(),
        "panoptic": PanopticMap(np.zeros(size, np.int32), ()),
        "semantic": np.full(size, 255, np.uint8),
    }
    photo = np.full((*size, 3), GREY, np.uint8)
    look = Look(longest=60)
    for truth, prediction in ((one, one), (one, none), (none, one), (none, none)):
        image = evidence(head, size, truth[head], prediction[head])
        sheet = side_by_side(photo, image, look, heading=NAMES[1] + NAMES[2], mark=whole)
        assert Image.open(io.BytesIO(to_png(sheet))).size == sheet.size
        compared(photo, image, image, ("<i>A</i>", NAMES[2]), look)
    alone = side_by_side(photo, evidence(head, size, None, one[head]), look)
    assert alone.size[0] > 60


@pytest.mark.full
def test_two_hundred_instances_with_names_of_all_kinds() -> None:
    size = (120, 160)
    rng = np.random.default_rng(2)
    found = []
    for k in range(200):
        top, left = int(rng.integers(0, 100)), int(rng.integers(0, 140))
        found.append((box(size, top, top + 15, left, left + 15), k % len(NAMES), float(rng.random()), False))
    categories = [Category(name, True) for name in NAMES]
    truth, prediction = instances(*found[:20]), instances(*sorted(found, key=lambda f: -f[2]))
    image = evidence("instance", size, truth, prediction, categories)
    sheet = side_by_side(np.full((*size, 3), GREY, np.uint8), image, Look(longest=160, threshold=0.0))
    assert sheet.width > 320
    assert len(at_least(prediction, 0.5)) == sum(f[2] >= 0.5 for f in found)


def test_more_classes_than_a_legend_holds() -> None:
    labels = np.tile(np.arange(150, dtype=np.uint8), (10, 1))
    categories = [Category(f"class {k}", False) for k in range(150)]
    image = evidence("semantic", labels.shape, labels, labels, categories)
    keys = class_keys(image, labels)
    assert [key.text for key in keys[:2]] == ["class 0", "class 1"]
    assert keys[0].fill == class_colour(0)
    assert keys[-1].text == "and 126 more classes"
    assert len(keys) == 25


def test_names_of_files() -> None:
    assert safe_name("Runs/../x y", "größte", 1) == "runs-x-y-grote-1"
    assert safe_name("a" * 300, "worst", 12).endswith("a-12")
    assert safe_name("layers") == "layers"
    for name in ("", "../..", "1", "中", "<script>", "a" * 300, "CON\0"):
        for parts in ((name, 1), (name,), (1, name), (name, name, name)):
            safe = safe_name(*parts)
            assert safe[0].isalpha()
            assert set(safe) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_")
            assert len(safe) <= 80
            assert not safe.endswith("-")
