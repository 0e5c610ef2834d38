"""Restricting a label set: the classes a suite lists, under the names it gives them."""

import pytest

from m2fbench.errors import SuiteError
from m2fbench.labels import label_set, label_sets, select


def test_without_a_list_all_classes_stay() -> None:
    assert select(label_set("ade20k"), None) == label_set("ade20k")


def test_listed_classes_keep_the_datasets_order_and_ids() -> None:
    chosen = select(label_set("cityscapes"), {"car": "automobile", "road": "road"})
    assert chosen.names == ("road", "automobile")
    assert chosen.ids == (7, 26)
    assert [c.is_thing for c in chosen.classes] == [False, True]
    assert chosen.name == "cityscapes"


def test_a_first_synonym_is_a_name_and_a_full_name_goes_before_it() -> None:
    ade = label_set("ade20k")
    assert select(ade, {"sidewalk": "pavement"}).ids == select(ade, {"sidewalk, pavement": "pavement"}).ids == (12,)
    assert select(ade, {"screen": "x"}).ids == (131,), "'screen door, screen' is another class"


@pytest.mark.parametrize("name", label_sets())
def test_every_class_is_found_by_its_name_and_by_its_first_synonym(name: str) -> None:
    labels = label_set(name)
    assert select(labels, {n: n for n in labels.names}) == labels
    for full, label in zip(labels.names, labels.ids, strict=True):
        assert select(labels, {full.partition(",")[0]: "x"}).ids == (label,)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"perso": "person"}, r"expected names of ADE20K classes, got 'perso' \(did you mean 'person'\?\)"),
        ({"pavement": "x"}, "got 'pavement'"),
        ({"sidewalk": "a", "sidewalk, pavement": "b"}, "expected every class once, got 'sidewalk, pavement' twice"),
        ({"car": "vehicle", "truck": "vehicle"}, "expected a name of its own for every class, got 'vehicle' for 'truck'"),
        ({"car": ""}, "expected a name of its own"),
        ({}, "expected at least one class, got none"),
    ],
)
def test_lists_that_are_wrong(classes: dict[str, str], message: str) -> None:
    with pytest.raises(SuiteError, match=message) as caught:
        select(label_set("ade20k"), classes)
    assert str(caught.value).startswith("dataset.classes: ")
    assert "\n" not in str(caught.value)
