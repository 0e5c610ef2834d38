"""Cards of other models are refused, and what an update did is said."""

from pathlib import Path
from typing import Any

import pytest

from m2fbench.cli_card import card as card_command
from m2fbench.errors import CardError, StoreError
from m2fbench.reporting.card.another import refuse_another
from m2fbench.reporting.card.changes import changes, no_longer_there
from m2fbench.reporting.card.facts import CardFacts, CardOptions
from m2fbench.reporting.card.text import INTERVAL, MENDING, PARTS
from m2fbench.reporting.card.update import BEGIN, END

OURS = "facebook/mask2former-swin-tiny-coco-instance"
INDEX = "---\nmodel-index:\n- name: {}\n  results:\n  - task: {{type: a}}\n    dataset: {{type: b}}\n    metrics: [{{type: PQ, value: {}}}]\n---\n"


def facts(reference: str = OURS, sha256: str = "a" * 64, published: str | None = None, **options: Any) -> CardFacts:
    record = {"reference": reference, "sha256": sha256, "published": published}
    return CardFacts(sha256, record, (), None, None, CardOptions(**options))


def marked(name: str, body: str) -> str:
    return f"{BEGIN.format(name)}\n{body}\n{END.format(name)}\n"


def with_hash(sha256: str) -> str:
    return marked("description", f"- **Content hash:** sha256 `{sha256}` (config and weights)")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (INDEX.format("mask2former-swin-large", 1), "mask2former-swin-large"),
        ("# facebook/mask2former-swin-large\n", "facebook/mask2former-swin-large"),
        ("# Model Card for my-model\r\n", "my-model"),
        ("# Segments\n\nModel.from_pretrained('me/other')\n", "me/other"),
        ("# my-model\n\n" + with_hash("b" * 64), "my-model"),
    ],
)
def test_a_card_of_another_model_is_refused(content: str, named: str) -> None:
    with pytest.raises(CardError, match="--same-model") as caught:
        refuse_another(facts(), content.encode(), "card.md")
    assert f"card.md: a card of {named}, the runs are of mask2former-swin-tiny-coco-instance" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "known"),
    [
        ("", facts()),
        ("# My own model\n\nWords.\n", facts()),  # a title in words names nothing
        ("# Mask2Former\n", facts()),
        (INDEX.format("Mask2Former_Swin_tiny-coco-instance", 1), facts(f"{OURS}@main")),
        (f"# my-title\n\nModel.from_pretrained('{OURS}')\n", facts()),
        (INDEX.format("other", 1), facts(model_id="me/other")),
        ("# other-one\n", facts(title="other-one")),
        ("# coco/instance/R50\n", facts("/data/model.pkl", published="coco/instance/R50")),
        ("# shapes-tiny\n", facts("bundled:shapes_tiny")),
        ("# my-model\n\n" + with_hash("a" * 64), facts()),
        ("---\nmodel-index: 5\n---\n# words only\n", facts()),
    ],
)
def test_a_card_of_ours_or_of_no_name_is_not(content: str, known: CardFacts) -> None:
    refuse_another(known, content.encode(), "card.md")


def test_names_of_the_zoo_are_told_apart_by_all_their_parts() -> None:
    with pytest.raises(CardError, match="coco/panoptic/R50"):
        refuse_another(facts("zoo:coco/instance/R50"), b"# coco/panoptic/R50\n", "card.md")


def test_what_was_done_is_said() -> None:
    before = INDEX.format("m", 1) + marked("results", "old") + marked("factors", "same")
    after = (
        INDEX.format("m", 2).replace("---\nmodel", "---\nlicense: mit\nmodel")
        + marked("results", "new")
        + marked("factors", "same")
    )
    after += marked("summary", "x")
    assert changes(before.encode(), after.encode(), "card.md") == [
        "sections rewritten: results",
        "sections added at the end: summary",
        "metadata set: license, model-index (1 changed)",
    ]
    assert changes(after.encode(), marked("summary", "x").encode(), "card.md") == ["metadata taken out: license, model-index"]
    assert changes(before.encode(), before.encode(), "card.md") == []


def test_what_is_no_longer_there_is_said() -> None:
    full = marked("results", f"| metric | {INTERVAL} |\n\n{MENDING} PQ") + marked("factors", f"{PARTS}; and so on")
    less = marked("results", "| metric |") + marked("factors", "No disaggregated results")
    assert no_longer_there(full.encode(), less.encode(), "card.md") == ["intervals", "subsets", "errors"]
    assert no_longer_there(less.encode(), full.encode(), "card.md") == []
    assert no_longer_there(full.encode(), full.encode(), "card.md") == []


def test_where_no_card_can_be_written_nothing_is_looked_at(tmp_path: Path) -> None:
    """The runs of the call are not there either: the card's place is what is told."""
    (tmp_path / "file").write_text("")
    target = tmp_path / "file" / "new" / "README.md"
    with pytest.raises(StoreError, match=r"README\.md: cannot be written"):
        card_command([tmp_path / "absent"], output=target, resamples=100)
    with pytest.raises(StoreError, match="absent"):
        card_command([tmp_path / "absent"], output=tmp_path / "new" / "README.md", resamples=100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]
