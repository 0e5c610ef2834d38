"""Which class is which: by name, by alias, by position with a warning, or not at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from m2fbench.errors import ClassesError
from m2fbench.models.classes import match_classes
from m2fbench.types import Category

NAMES = ["person", "traffic light", "dining table", "tv", "couch", "motorcycle"]
CATEGORIES = [Category(name, True) for name in NAMES]


def test_names_that_differ_in_case_blanks_and_punctuation_match() -> None:
    classes = match_classes(["Person", "traffic_light", "diningtable", "TV", "couch", "motorcycle"], CATEGORIES)
    assert classes.to_dataset == (0, 1, 2, 3, 4, 5)
    assert not classes.panoptic
    assert not classes.warnings


def test_aliases_match() -> None:
    assert match_classes(["person", "trafficlight", "diningtable", "tvmonitor", "sofa", "motorbike"], CATEGORIES).warnings == ()


def test_another_order_is_matched_by_name_and_said() -> None:
    classes = match_classes(NAMES[::-1], CATEGORIES)
    assert classes.to_dataset == (5, 4, 3, 2, 1, 0)
    assert "another order" in classes.warnings[0]


def test_a_panoptic_checkpoint_keeps_its_things() -> None:
    classes = match_classes([*NAMES, "sky", "grass-merged"], CATEGORIES)
    assert classes.panoptic
    assert classes.to_dataset == (0, 1, 2, 3, 4, 5, -1, -1)
    assert classes.kept == (0, 1, 2, 3, 4, 5)
    assert classes.warnings == (
        "scored on the dataset's classes only, as a panoptic checkpoint on its things; the others are sky, grass-merged",
    )


@pytest.mark.parametrize("names", [["猫", "犬"], ["C", "C++", "c#"], ["chien", "Émeu"], ["A", "a"]])
def test_names_of_any_script_match_themselves(names: list[str]) -> None:
    classes = match_classes(names, [Category(n, True) for n in names])
    assert classes.to_dataset == tuple(range(len(names)))
    assert not classes.warnings


def test_one_other_name_in_place_matches_by_position_with_a_warning() -> None:
    classes = match_classes(["person", "traffic light", "dining table", "screen", "couch", "motorcycle"], CATEGORIES)
    assert classes.to_dataset == (0, 1, 2, 3, 4, 5)
    assert classes.warnings == ("classes were matched by position; names that differ: 'screen' for 'tv'",)


def test_default_names_match_by_position_with_a_warning() -> None:
    classes = match_classes([f"LABEL_{k}" for k in range(6)], CATEGORIES)
    assert classes.to_dataset == (0, 1, 2, 3, 4, 5)
    assert "names no classes" in classes.warnings[0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["cat", "dog", "cow", "bear", "bird", "fish"],
            "not in the checkpoint: person, traffic light, dining table, tv, couch and 1 more",
        ),
        (["screen", "person", "traffic light", "dining table", "couch", "motorcycle"], "'person' is class 1, in the dataset 0"),
        (NAMES[:5], "not in the checkpoint: motorcycle; only in the checkpoint: none"),
        ([f"LABEL_{k}" for k in range(7)], "7 classes are not the dataset's 6"),
        (["person", "person", "dining table", "tv", "couch", "motorcycle", "traffic light"], "not in the checkpoint: none"),
    ],
)
def test_another_set_or_order_is_an_error_that_says_what_differs(labels: list[str], message: str) -> None:
    with pytest.raises(ClassesError, match="not the dataset's") as caught:
        match_classes(labels, CATEGORIES)
    assert message in str(caught.value)


@given(st.permutations(NAMES), st.integers(0, 4))
def test_any_order_of_the_names_leads_each_class_home(order: list[str], more: int) -> None:
    labels = order + [f"stuff {k}" for k in range(more)]
    classes = match_classes(labels, CATEGORIES)
    for label, index in zip(labels, classes.to_dataset, strict=True):
        assert index == (NAMES.index(label) if label in NAMES else -1)
