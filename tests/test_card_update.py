"""Bringing a card up to date: our sections and metadata change, and nothing else, byte for byte."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard_data import eval_results_to_model_index
from hypothesis import given, settings
from hypothesis import strategies as st

from m2fbench.errors import CardError
from m2fbench.reporting.card.update import BEGIN, END, Section, find_sections, merge_model_index, update

SECTIONS = [
    Section("summary", "Summary", "It is good."),
    Section("results", "Results", "| metric | value |\n| --- | ---: |\n| PQ | 85.33 |"),
]


def keep(known: Mapping[str, Any]) -> Mapping[str, Any]:
    return {}


def done(content: str | bytes, sections: list[Section] | None = None, merge: Any = keep) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return update(raw, SECTIONS if sections is None else sections, merge, "card.md").decode()


def filled(name: str, body: str = "old") -> str:
    return f"{BEGIN.format(name)}\n{body}\n{END.format(name)}"


def test_marked_sections_are_rewritten_and_prose_stays() -> None:
    card = f"---\nlicense: mit\n---\n# Mine\n\nWords  \twith odd  spaces \n{filled('results')}\nMore.\n\n\n{filled('summary', '')}\nLast, no line end"
    made = done(card)
    assert made == card.replace(filled("results"), SECTIONS[1].marked).replace(filled("summary", ""), SECTIONS[0].marked)
    assert done(made) == made


def test_sections_that_are_not_there_are_put_at_the_end_once() -> None:
    made = done("# Mine\n\nMy words.")
    assert made.startswith("# Mine\n\nMy words.\n\n## Summary\n\n<!-- m2fbench:begin summary -->\nIt is good.\n")
    assert made.count("## Results") == 1
    assert done(made) == made
    changed = done(made, [SECTIONS[0], Section("results", "Results", "other")])
    assert changed == made.replace(SECTIONS[1].body, "other")


def test_lines_that_end_as_windows_has_it() -> None:
    card = f"---\nlicense: mit\n---\n# Mine\n\n{filled('results')}\n\nend\n".replace("\n", "\r\n")
    made = done(card, merge=lambda known: {"library_name": "transformers"})
    assert "\n" not in made.replace("\r\n", "")
    assert done(made, merge=lambda known: {"library_name": "transformers"}) == made
    assert yaml.safe_load(made.split("---")[1]) == {"license": "mit", "library_name": "transformers"}
    assert "\n" not in done("# Mine\r\rold\r")


def test_a_byte_order_mark_stays() -> None:
    made = done("\ufeff---\nlicense: mit\n---\nText\n", merge=lambda known: {"tags": ["vision"]})
    assert made.startswith("\ufeff---\nlicense: mit\ntags:\n- vision\n---\nText\n")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (f"{BEGIN.format('results')}\ntext\n", "card.md:1: 'results' begins and never ends"),
        (f"text\n{END.format('results')}\n", "card.md:2: 'results' ends and has not begun"),
        (
            f"{BEGIN.format('results')}\n{BEGIN.format('summary')}\n",
            "card.md:2: 'summary' begins before 'results' of line 1 has ended",
        ),
        (f"{BEGIN.format('results')}\n{END.format('summary')}\n", "card.md:2: 'summary' ends and has not begun"),
        (f"{filled('results')}\n{filled('results')}\n", "card.md:4: 'results' begins a second time"),
        (f"{filled('resluts')}\n", "card.md:1: expected a section among summary, results, got 'resluts'"),
        ("<!-- m2fbench:begin results ->\n", "card.md:1: expected <!-- m2fbench:begin NAME -->"),
        ("<!-- m2fbench:begin results --> text\n", "card.md:1: expected <!-- m2fbench:begin NAME -->"),
        ("---\nlicense: mit\n# Mine\n", "card.md:1: metadata that begins with --- and never ends"),
        ("---\nlicense: [mit\n---\n# Mine\n", "metadata that is no YAML"),
        ("---\n- a\n- b\n---\n", "card.md:2: expected metadata as keys with values"),
        ("---\n{license: mit}\n---\n", "card.md:2: expected metadata as keys with values"),
        ("---\nlicense: mit\nlicense: gpl\n---\n", "metadata with the key 'license' twice"),
    ],
)
def test_what_is_broken_is_refused_in_a_line(body: str, said: str) -> None:
    with pytest.raises(CardError) as error:
        done(body)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_line_is_counted_from_the_files_beginning() -> None:
    with pytest.raises(CardError, match=r"^card\.md:5: 'results' begins and never ends"):
        done(f"---\nlicense: mit\n---\n# Mine\n{BEGIN.format('results')}\n")


def test_what_is_not_utf_8_is_refused() -> None:
    with pytest.raises(CardError, match=r"expected UTF-8 text, got byte 0xe9 at 3"):
        done("cafés".encode("latin-1"))


def test_a_marker_within_a_sentence_is_prose() -> None:
    card = f"Write `{BEGIN.format('results')}` before it.\n\n{SECTIONS[0].marked}\n{SECTIONS[1].marked}\n"
    assert done(card) == card


METADATA = """---
# a comment at the top
license: apache-2.0   # and beside a key
tags: [a,   b]
# about what comes next
widget:
  - src: https://example.org/a.jpg
    example_title: A "title"
model-index:
  - name: old
    results: []
# between

extra: |
  text
  # no comment
last: {flow: [1, 2]}
# at the end
---

Text
"""


def test_other_keys_their_order_and_comments_stay() -> None:
    """What is set replaces its own lines; a new key comes last; a key that goes takes only its own lines."""
    made = done(
        METADATA, sections=[], merge=lambda known: {"model-index": [{"name": "new", "results": []}], "library_name": "transformers"}
    )
    expected = METADATA.replace("model-index:\n  - name: old\n    results: []\n", "model-index:\n- name: new\n  results: []\n")
    expected = expected.replace("# at the end\n---", "# at the end\nlibrary_name: transformers\n---")
    assert made == expected
    gone = done(METADATA, sections=[], merge=lambda known: {"model-index": None, "extra": None})
    assert gone == METADATA.replace("model-index:\n  - name: old\n    results: []\n", "").replace(
        "extra: |\n  text\n  # no comment\n", ""
    )


def test_metadata_that_says_the_same_is_not_touched() -> None:
    assert (
        done(METADATA, sections=[], merge=lambda known: {"tags": ["a", "b"], "license": "apache-2.0", "absent": None}) == METADATA
    )


def test_a_card_without_metadata_gets_some() -> None:
    made = done("# Mine\n", sections=[], merge=lambda known: {"library_name": "transformers"})
    assert made == "---\nlibrary_name: transformers\n---\n# Mine\n"
    empty = done("---\n---\n# Mine\n\n---\n", sections=[], merge=lambda known: {"library_name": "transformers"})
    assert empty == "---\nlibrary_name: transformers\n---\n# Mine\n\n---\n"
    rule = done("---\n\nA rule above.\n", sections=[], merge=lambda known: {"library_name": "transformers"})
    assert rule == "---\nlibrary_name: transformers\n---\n---\n\nA rule above.\n"
    assert ModelCard(made).data.library_name == "transformers"


def test_an_anchor_that_others_need_is_not_lost() -> None:
    card = "---\nmodel-index: &x\n- name: old\n  results: []\ncopy: *x\n---\n"
    with pytest.raises(CardError, match="cannot be set without touching other keys"):
        done(card, sections=[], merge=lambda known: {"model-index": [{"name": "new", "results": []}]})


def result(
    metric: str, value: float, *, dataset: str = "shapes", config: str | None = "shapes_panoptic", ours: bool = True
) -> EvalResult:
    return EvalResult(
        task_type="image-segmentation", dataset_type=dataset, dataset_name=dataset, dataset_config=config, metric_type=metric, metric_value=value,
        metric_args={"measured_by": "m2fbench 0.1"} if ours else None,
    )  # fmt: skip


def index(*results: EvalResult, name: str = "model") -> Any:
    return eval_results_to_model_index(name, list(results))


def values(merged: Any) -> dict[tuple[str, str], float]:
    return {(r["dataset"]["type"], m["type"]): m["value"] for model in merged for r in model["results"] for m in r["metrics"]}


def merged(known: Any, ours: Any) -> Any:
    return merge_model_index(known, ours, "m2fbench", "card.md")


def test_results_are_merged_by_task_dataset_and_metric() -> None:
    known = index(
        result("PQ", 1, ours=False),
        result("RQ", 2, ours=False),
        result("PQ", 3, dataset="coco", ours=False),
        result("AP", 4, config="gone"),
    )
    made = merged(known, index(result("PQ", 85), result("SQ", 91)))
    assert values(made) == {("shapes", "RQ"): 2, ("coco", "PQ"): 3, ("shapes", "PQ"): 85, ("shapes", "SQ"): 91}
    assert merged(made, index(result("PQ", 85), result("SQ", 91))) == made
    assert merged(made, None) == index(result("RQ", 2, ours=False), result("PQ", 3, dataset="coco", ours=False))


def test_others_names_and_unknown_keys_stay() -> None:
    known = index(result("PQ", 1, dataset="coco", ours=False), name="theirs")
    known[0]["results"][0]["note"] = "kept"
    made = merged(known, index(result("PQ", 85)))
    assert [model["name"] for model in made] == ["theirs"]
    assert made[0]["results"][0] == known[0]["results"][0]
    assert merged(None, None) is None
    assert merged(index(result("PQ", 1)), None) is None
    assert merged([], index(result("PQ", 1))) == index(result("PQ", 1))


@pytest.mark.parametrize("known", ["text", [1], [{"name": "x"}], [{"name": "x", "results": [{"task": {}}]}], {"a": 1}])
def test_a_model_index_of_another_form_is_refused(known: Any) -> None:
    with pytest.raises(CardError, match="model-index is not as the hub has it"):
        merged(known, index(result("PQ", 85)))


def test_merged_metadata_is_read_by_the_hubs_own_loader() -> None:
    data = ModelCardData(model_name="model", eval_results=[result("PQ", 85.33), result("RQ", 2, ours=False)])
    made = done("# Mine\n", merge=lambda known: {"model-index": data.to_dict()["model-index"]})
    loaded = ModelCard(made).data.eval_results
    assert loaded is not None
    assert {r.metric_type: r.metric_value for r in loaded} == {"PQ": 85.33, "RQ": 2}


# whole lines of anything, but for what is or looks like a marker, and for a first line that opens metadata
WORDS = st.text(st.characters(blacklist_categories=("Cs",)), max_size=80).filter(lambda t: "m2fbench:" not in t)
ENDS = st.sampled_from(["\n", "\r\n", "\n\n", " \n"])


@pytest.mark.full
@settings(max_examples=150, deadline=None)
@given(
    before=WORDS.filter(lambda t: not t.lstrip("\ufeff").lstrip().startswith("---")),
    between=WORDS,
    after=WORDS,
    ends=st.tuples(ENDS, ENDS, ENDS),
    order=st.permutations(SECTIONS),
    metadata=st.sampled_from(["", "---\nlicense: mit\n---\n", "---\r\ntags:\r\n- x\r\n---\r\n"]),
)
def test_prose_survives_whatever_it_is(
    before: str, between: str, after: str, ends: tuple[str, str, str], order: list[Section], metadata: str
) -> None:
    """Words around and between the sections are there afterwards, byte for byte, in their order; and twice is once."""
    first, second = order
    card = f"{metadata}{before}{ends[0]}{filled(first.name)}\n{between}{ends[1]}{filled(second.name)}{ends[2]}{after}"
    made = done(card)
    found = find_sections(made, {s.name: s for s in SECTIONS}, "card.md")
    assert [name for name, *_ in found] == [first.name, second.name]
    (_, a, b), (_, c, d) = found
    assert made[:a] == f"{metadata}{before}{ends[0]}"
    assert made[b:c] == f"\n{between}{ends[1]}"
    assert made[d:] == f"{ends[2]}{after}"
    assert re.split(r"\r\n|\r|\n", made[a:b]) == first.marked.split("\n")
    assert done(made) == made


@pytest.mark.full
@pytest.mark.full
@settings(max_examples=100, deadline=None)
@given(
    known=st.dictionaries(
        st.sampled_from(["license", "tags", "model-index", "a key", "widget", "#x", "1"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(st.characters(blacklist_categories=("Cs", "Cc")), max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text("abc #:", min_size=1, max_size=5), inner, max_size=3)
            ),
            max_leaves=8,
        ),
    ),
    wanted=st.dictionaries(
        st.sampled_from(["license", "model-index", "library_name"]),
        st.none() | st.text("ab#: \n", max_size=9) | st.lists(st.integers()),
    ),
    flow=st.sampled_from([None, False]),
)
def test_metadata_survives_whatever_it_is(known: dict[str, Any], wanted: dict[str, Any], flow: bool | None) -> None:
    known |= {"nested": [1, 2]}  # else all of it could be one flow mapping, which is refused
    text = yaml.safe_dump(known, sort_keys=False, allow_unicode=True, default_flow_style=flow)
    card = f"---\n{text}---\nText\n"
    made = done(card, sections=[], merge=lambda seen: wanted)
    expected = {k: v for k, v in known.items() if k not in wanted} | {
        k: v for k, v in wanted.items() if v is not None or known.get(k, 0) is None
    }
    loaded = yaml.safe_load(made.partition("---\n")[2].rpartition("---\nText\n")[0]) or {}
    assert loaded == expected
    assert done(made, sections=[], merge=lambda seen: wanted) == made
