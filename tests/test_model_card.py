"""Model cards made of runs: what stands in them is what was measured, and what nobody measured is marked."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard, metadata_load, parse_eval_result_entries
from huggingface_hub.repocard_data import model_index_to_eval_results
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from m2fbench.analysis.findings import (
    Calibration,
    CalibrationBin,
    Disaggregation,
    ErrorFindings,
    ErrorShare,
    Estimate,
    SubsetFinding,
)
from m2fbench.analysis.layers import Examination, LayerFinding
from m2fbench.analysis.runs import Run, open_runs
from m2fbench.errors import StoreError
from m2fbench.reporting.card import limits as card_limits
from m2fbench.reporting.card import results as card_results
from m2fbench.reporting.card.facts import Analyses, CardFacts, CardOptions
from m2fbench.reporting.card.metadata import card_data, emissions, long_name
from m2fbench.reporting.card.model_card import collect, eval_result_files, make_card, updated_card
from m2fbench.reporting.card.start import loadable
from m2fbench.reporting.card.text import MISSING, code, escape, table
from m2fbench.reporting.card.update import find_sections
from m2fbench.runner import run as run_suite
from m2fbench.types import Measurement

SUITE = """
suite: card_{task}
title: Shapes, {task} segmentation
task: {task}
dataset: {{name: shapes, split: test, count: {count}}}
protocol: {{min_size: 128, max_size: 192}}
metrics: [{metrics}]
workers: 0
measure: [{measure}]
checkpoints:
  - name: shapes-tiny
    checkpoint: bundled:shapes_tiny
    published: {{{published}}}
    source: a table
variants: [{variants}]
"""
VARIANTS = "{name: fp32}, {name: transformers, protocol: transformers}"
COUNT = 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Images this small take several times as long where threads wait for one another on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, bundled_loader: Any) -> Path:
    """Accuracy, speed and FLOPs of the bundled checkpoint by two variants, and accuracy on a second task."""
    folder = tmp_path_factory.mktemp("runs")
    for task, metrics, measure, published, variants in (
        ("panoptic", "panoptic_quality, coco_ap, semantic_iou", "accuracy, speed, flops", "PQ: 86.15", VARIANTS),
        ("instance", "coco_ap", "accuracy", "AP: 71.24", "{name: fp32}"),
    ):
        suite = folder / f"{task}.yaml"
        said = {"task": task, "metrics": metrics, "measure": measure, "published": published, "variants": variants}
        suite.write_text(SUITE.format(**said, count=COUNT))
        run_suite(suite, output=folder / "runs", device="cpu", loader=bundled_loader)
    return folder / "runs"


@pytest.fixture(scope="module")
def panoptic(runs: Path) -> list[Run]:
    return open_runs([runs / "card_panoptic"])


@pytest.fixture(scope="module")
def facts(panoptic: list[Run]) -> CardFacts:
    """With all analyses, and with an examination and energy that others measure."""
    found = collect(panoptic, CardOptions(resamples=100))
    suite = found.main
    layers = tuple(LayerFinding(k, {"PQ": 60.0 + 5 * k}, saved=0.3 - 0.1 * k, mask_iou=0.9) for k in range(4))
    layers = (*layers[:3], replace(layers[3], figures={"PQ": 70.4}))
    examined = Examination("card_panoptic", "shapes-tiny", "fp32", "key", 8, COUNT, layers, (), {"PQ": 70.4}, 0.0)
    with_layers = replace(suite, analyses=replace(suite.analyses, layers=examined), reference=with_energy(suite.reference))
    return replace(found, suites=(with_layers, *found.suites[1:]))


def with_energy(run: Run | None, label: str = "measured energy x grid intensity") -> Run:
    assert run is not None
    assert run.speed is not None
    used = {
        "joules_per_image": 3.2,
        "watts": 65.0,
        "label": "measured",
        "meters": [{"name": "package", "covers": "the processor"}],
        "reasons": [],
    }
    emitted = {"grams_per_image": 0.00012, "label": label, "source": "the processor; 56 g/kWh in France", "reason": None}
    details = dict(run.speed.details or {}) | {"energy": used, "emissions": emitted, "failure": None}
    return replace(run, speed=replace(run.speed, details=details))


@pytest.fixture(scope="module")
def card(facts: CardFacts) -> str:
    return make_card(facts)


def section(card: str, name: str) -> str:
    """What stands between a section's markers."""
    return next(card[start:stop] for found, start, stop in find_sections(card, {name: "", **NAMES}, "card") if found == name)


NAMES: dict[str, str] = dict.fromkeys(
    ("summary", "description", "direct-use", "limits", "start", "preprocessing", "hyperparameters", "speed", "testing-data", "factors", "metrics",
     "results", "protocol", "examination", "impact", "specifications"), ""
)  # fmt: skip
# every gap of the three seed cards: part of the sentence it stands in -> the section that fills it and what must be there, ...
FILLED = {
    "For any additional specific details or disclaimers": ("limits", r"Weakest classes|Small objects|All figures are of"),
    "- [More Information Needed]\n": ("limits", r"All figures are of"),
    "total number of parameters": ("description", r"\*\*Parameters:\*\* 1,566,283"),
    "number of layers, hidden size, and attention heads": ("specifications", r"5 layers of masked attention, width 64, 4 attention heads"),
    "post-processing is an integral part": ("start", r"```python\n.*from_pretrained"),
    "for providing a direct code snippet": ("start", r"```python\n.*from_pretrained"),
    "for a specific code snippet on fine-tuning or inference": ("start", r"```python\n.*from_pretrained"),
    "## Code Snippet": ("start", r"```python\n.*from_pretrained"),
    "for any direct code blocks": ("start", r"shortest edge to 128"),
    "Tokenization: There is no specific mention": ("preprocessing", r"PIL's bilinear filter .* shortest edge 128, longest at most 192"),
    "tokenization is not a relevant step": ("preprocessing", r"normalised by ImageNet mean"),
    "no mention of any other preprocessing steps": ("preprocessing", r"zero-padded right and below to multiples of 32"),
    "exact preprocessing steps applied to the data before": ("preprocessing", r"turned upright \(EXIF\), RGB; resized"),
    "exact learning rate schedule, inference settings": ("protocol", r"the 100 most probable pairs .*\n.* probability over 0.8"),
    "for the specific fps value": ("speed", r"images/s .*\n.*\n\| fp32 \| paper \| \d+ \| \d+\.\d\d"),
    "does not provide specific details about the throughput": ("speed", r"images/s"),
    "for the checkpoint sizes": ("speed", r"\*\*Checkpoint size:\*\* 6\.0 MiB"),
    "Checkpoint sizes: [More Information Needed]": ("speed", r"\*\*Checkpoint size:\*\* 6\.0 MiB"),
    "on the computational efficiency of Mask2Former": ("speed", r"\*\*FLOPs:\*\* 0\.\d+ G"),
    "exact hardware specifications for fps measurements": ("speed", r"measured on .*thread"),
    "any additional specific datasets": ("testing-data", r"\*\*Shapes\*\* .* 12 of 12 images scored"),
    "on disaggregated evaluation results": ("factors", r"\| occlusion \| .*\n"),
    "to uncover any performance disparities": ("factors", r"\| object size \| small"),
    "any additional metrics beyond mIoU": ("metrics", r"- PQ: .*\n[\s\S]*- mIoU_pan: "),
    "tradeoffs between different errors": ("results", r"mending one kind of error alone would add to PQ"),
    "exact mIoU performance of": ("results", r"\| mIoU_pan \| \d+\.\d\d \| \d+\.\d\d to \d+\.\d\d"),
    "exact mIoU value for the Swin-L backbone": ("results", r"\| mIoU_pan \| \d+\.\d\d"),
    "- AP: [More": ("results", r"\| AP_th_pan \| \d+\.\d\d"),
    "- PQ: [More": ("results", r"\| PQ \| \d+\.\d\d \| \d+\.\d\d to \d+\.\d\d \| 86\.15"),
    "- AP_Th_pan: [More": ("results", r"\| AP_th_pan \| \d+\.\d\d"),
    "- mIoU_pan: [More": ("results", r"\| mIoU_pan \| \d+\.\d\d"),
    "on the specific mIoU metric values": ("results", r"\| mIoU_pan \| \d+\.\d\d"),
    "exact panoptic segmentation metrics": ("results", r"\| PQ \| \d+\.\d\d"),
    "behavior and failure modes": ("examination", r"\| 3 \| 70\.40"),
    "work on explainability/interpretability": ("examination", r"Stopping after layer 2 of 3 gives 0\.40 points less, by PQ, for 10 % fewer FLOPs"),
    "The compute infrastructure for the model": ("specifications", r"\*\*Hardware of the evaluation:\*\* .*thread"),
}  # fmt: skip
# ... and those that neither a measurement nor a config can fill: the line of the card in which they stay, and who could know
KEPT = {
    "Finetuned from model": ("**Finetuned from model:**", "whoever trained it"),
    "whether this model was fine-tuned from another": ("**Finetuned from model:**", "whoever trained it"),
    "on the specific data pre-processing or additional": ("**What was done to images in training:**", "whoever trained it"),
    "2975 high-resolution images": ("### Training Data", "whoever trained it"),
    "The training data for the model facebook/mask2former-swin-small": ("### Training Data", "whoever trained it"),
    "on other training hyperparameters": ("**Optimizer, schedule, augmentation, training regime:**", "whoever trained it"),
    "deviations from the above hyperparameters": ("**Optimizer, schedule, augmentation, training regime:**", "whoever trained it"),
    "The specific training procedures and hyperparameters": ("**Optimizer, schedule, augmentation, training regime:**", "whoever trained it"),
    "on the specific training details and hyperparameters used": ("**Optimizer, schedule, augmentation, training regime:**", "whoever trained it"),
    "precise start or end times": ("**Start, end and length of training:**", "whoever trained it"),
    "Start or end time:": ("**Start, end and length of training:**", "whoever trained it"),
    "**Funded by:**": ("**Funded by:**", "whoever trained it"),
    "made available as a GitHub repo": ("**Shared by:**", "whoever published the weights"),
    "**Shared by:**": ("**Shared by:**", "whoever published the weights"),
    "**Demo:**": ("**Demo:**", "whoever published the weights"),
    "- **Demo**: [Demo Link]": ("**Demo:**", "whoever published the weights"),
    "other specific ways the model could be misused": ("### Out-of-Scope Use", "whoever deploys it"),
    "responsible use": ("### Out-of-Scope Use", "whoever deploys it"),
    "misunderstandings or sociotechnical limitations": ("**Ethical review, bias towards groups of people:**", "whoever knows the training data"),
    "across different population subgroups": ("**Ethical review, bias towards groups of people:**", "whoever knows the training data"),
    "other relevant population subgroups": ("**Ethical review, bias towards groups of people:**", "whoever knows the training data"),
    "potential ethical issues": ("**Ethical review, bias towards groups of people:**", "whoever knows the training data"),
    "long-term societal impact": ("**Ethical review, bias towards groups of people:**", "whoever knows the training data"),
    "on how to achieve this": ("### Recommendations", "whoever deploys it"),
    "References:": ("### Model Sources", "whoever published the weights"),
    "exact hardware used": ("**Hardware Type (training):**", "whoever trained it"),
    "specific training time is": ("**Hours used (training):**", "whoever trained it"),
    "**Hours used:**": ("**Hours used (training):**", "whoever trained it"),
    "**Cloud Provider:**": ("**Cloud Provider (training):**", "whoever trained it"),
    "**Carbon Emitted:**": ("**Carbon Emitted (training):**", "whoever trained it"),
    "exact compute infrastructure used for training": ("**Hardware and software of training:**", "whoever trained it"),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("gap", FILLED)
def test_a_gap_that_can_be_filled_is_filled(gap: str, card: str) -> None:
    name, expected = FILLED[gap]
    text = section(card, name)
    assert re.search(expected, text, re.DOTALL if "```" in expected else 0), text


@pytest.mark.full
@pytest.mark.parametrize("gap", KEPT)
def test_a_gap_that_cannot_be_filled_says_who_could(gap: str, card: str) -> None:
    where, who = KEPT[gap]
    after = card[card.index(where) : card.index(where) + 300]
    assert MISSING in after
    assert who in after


def test_every_gap_of_the_seed_cards_is_in_the_list(shared: Path) -> None:
    """Each line of the three cards with the mark, or of the text before it where the mark stands alone, belongs to an entry; each entry to a line."""
    known, used = [*FILLED, *KEPT], set()
    for path in sorted((shared / "seeds").glob("00[0-2]_*.txt")):
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines):
            if MISSING not in line and "need more information to provide" not in line:
                continue
            before = "\n".join(lines[max(0, number - 24) : number + 1]) + "\n"
            alone = line.strip("- :") == MISSING
            found = [gap for gap in known if (gap in before if alone else gap.rstrip("\n") in line or gap in f"{line}\n")]
            assert found, f"{path.name}:{number + 1}: {line[:200]}"
            used.update(found)
    assert used >= set(known), sorted(set(known) - used)


@pytest.mark.full
def test_what_is_marked_outside_of_our_sections_stays_a_persons(card: str) -> None:
    """What only a person can say is not between our markers, where an update would write over it."""
    for name in NAMES:
        assert MISSING not in section(card, name), name


@pytest.mark.full
def test_the_hubs_own_loader_reads_it(card: str, tmp_path: Path, facts: CardFacts) -> None:
    path = tmp_path / "README.md"
    path.write_text(card)
    loaded = ModelCard.load(path)
    assert loaded.content == card
    assert loaded.data.library_name == "transformers"
    assert loaded.data.pipeline_tag == "image-segmentation"
    assert "license" not in metadata_load(path)
    name, results = model_index_to_eval_results(metadata_load(path)["model-index"])
    assert name == "shapes_tiny"
    assert results == loaded.data.eval_results
    found = {r.metric_type: r for r in results}
    result = facts.main.result
    for figure in ("PQ", "PQ_th", "PQ_st", "SQ", "RQ", "AP_th_pan", "mIoU_pan"):
        entry = found[figure]
        assert entry.metric_value == round(result.value(figure), 2)
        assert (entry.dataset_type, entry.dataset_split, entry.dataset_config, entry.verified) == (
            "shapes",
            "test",
            "card_panoptic",
            False,
        )
        assert entry.metric_args["protocol"] == "paper"
        low, high = entry.metric_args["interval_95"]
        assert low <= entry.metric_value <= high
    assert entry.dataset_args == {"images": COUNT, "annotations_sha256": result.dataset["annotations_sha256"]}  # type: ignore[index]
    assert loaded.data.co2_eq_emissions["emissions"] == 0.00012


@pytest.mark.full
def test_an_estimate_of_emissions_is_no_measurement(facts: CardFacts) -> None:
    suite = facts.main
    guessed = replace(suite, reference=with_energy(suite.reference, label="estimated"))
    assert emissions(replace(facts, suites=(guessed,))) is None


@pytest.mark.full
def test_figures_in_the_tables_are_the_results(card: str, facts: CardFacts) -> None:
    result = facts.main.result
    rows = dict(re.findall(r"(?m)^\| (\w+) \| (-?\d+\.\d\d) \| \d+\.\d\d to", section(card, "results")))
    assert {"PQ", "AP_th_pan", "APs_th_pan", "mIoU_pan"} <= set(rows)
    for name, value in rows.items():
        measured = result.value(name)
        if math.isnan(measured):  # a class
            measured = result.value("PQ", category=name)
        assert float(value) == pytest.approx(measured, abs=0.005), name
    assert "| transformers | protocol transformers |" in section(card, "results")


@pytest.mark.full
def test_an_update_of_a_fresh_card_changes_nothing(card: str, facts: CardFacts) -> None:
    assert updated_card(facts, card.encode(), "card").decode() == card


@pytest.mark.full
def test_an_update_of_a_persons_card(card: str, facts: CardFacts) -> None:
    """Prose and metadata of a person's stay; ours come in; the second time nothing changes."""
    prose = "\n# My model\n\nBuilt with care.\n\n## Training\n\nOn my photos.\n"
    head = (
        "---\n# mine\nlicense: mit\ntags: [my-tag]\nmodel-index:\n- name: mine\n  results:\n  - task: {type: image-segmentation}\n"
        "    dataset: {type: coco, name: COCO}\n    metrics: [{type: PQ, value: 57.8}]\n---\n"
    )
    made = updated_card(facts, (head + prose).encode(), "card").decode()
    assert made.partition("---\n")[2].partition("---\n")[2].startswith(prose)
    assert "# mine\nlicense: mit\ntags: [my-tag]\n" in made
    loaded = ModelCard(made)
    by_dataset = {(r.dataset_type, r.metric_type): r.metric_value for r in loaded.data.eval_results or ()}
    assert by_dataset["coco", "PQ"] == 57.8
    assert by_dataset["shapes", "PQ"] == round(facts.main.result.value("PQ"), 2)
    for name in NAMES:
        assert section(made, name) == section(card, name)
    assert updated_card(facts, made.encode(), "card").decode() == made


@pytest.mark.full
def test_several_suites_of_one_checkpoint(runs: Path) -> None:
    found = collect(open_runs([runs]), CardOptions(quick=True, license="apache-2.0", model_id="me/mine"))
    made = make_card(found)
    loaded = ModelCard(made)
    assert loaded.data.license == "apache-2.0"
    assert "- **License:** apache-2.0" in made
    configs = {r.dataset_config for r in loaded.data.eval_results or ()}
    assert configs == {"card_instance", "card_panoptic"}
    assert "**card_instance**" in section(made, "results")
    assert "No intervals and errors: the card was made with --quick." in section(made, "results")
    assert "95 % interval" not in section(made, "results")
    assert loaded.data.eval_results[0].metric_args["suite_sha256"]  # type: ignore[index]


@pytest.mark.full
def test_partial_and_changed_runs_are_not_in_the_metadata(panoptic: list[Run], facts: CardFacts) -> None:
    suite = facts.main
    assert suite.reference is not None
    partial = replace(suite.reference, result=replace(suite.result, status="partial", reason="3 of 12 images"))
    told = replace(facts, suites=(replace(suite, reference=partial),))
    assert card_data(told).eval_results is None
    assert "**Partial: not all images were scored.**" in make_card(told)
    assert suite.suite is not None
    cut = suite.suite.model_copy()
    cut._overrides = ("dataset.count=3",)
    assert card_data(replace(facts, suites=(replace(suite, suite=cut),))).eval_results is None


def other_checkpoint(run: Run, **changes: Any) -> Run:
    def changed(result: Any) -> Any:
        return None if result is None else replace(result, checkpoint={**result.checkpoint, **changes})

    return replace(run, result=changed(run.result), speed=changed(run.speed), label="other")


@pytest.mark.full
def test_runs_of_several_checkpoints_are_refused(panoptic: list[Run]) -> None:
    with pytest.raises(StoreError) as error:
        collect([*panoptic, other_checkpoint(panoptic[0], sha256="f" * 64, reference="me/other")], CardOptions(quick=True))
    assert "expected runs of one checkpoint, got of several" in str(error.value)
    assert "other: me/other, sha256 ffffffffffff" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.full
def test_a_checkpoint_that_is_gone_or_changed_is_said_to_be(panoptic: list[Run]) -> None:
    gone = [other_checkpoint(run, reference="./no/such/folder") for run in panoptic]
    made = make_card(collect(gone, CardOptions(quick=True)))
    assert "was not at hand when this card was made" in section(made, "description")
    assert "No code here" in section(made, "start")
    changed = [other_checkpoint(run, sha256="0" * 64) for run in panoptic]
    assert "has changed since it was measured" in make_card(collect(changed, CardOptions(quick=True)))


@pytest.mark.full
def test_names_with_markup_are_text(panoptic: list[Run], facts: CardFacts) -> None:
    bad = "<script>alert(1)</script> | `x` [a](http://b) *c* <!-- m2fbench:begin results -->\n# h"
    suite = facts.main
    measurements = tuple(replace(m, category=bad) if m.category == "ring" else m for m in suite.result.measurements)
    result = replace(suite.result, measurements=measurements, suite={**suite.result.suite, "title": bad})
    assert suite.reference is not None
    told = replace(
        facts, suites=(replace(suite, reference=replace(suite.reference, result=result)),), options=CardOptions(title=bad)
    )
    made = make_card(told)
    body = made.partition("---\n")[2].partition("---\n")[2]
    assert "<script>" not in body
    assert [name for name, *_ in find_sections(body, NAMES, "card")] == list(NAMES)
    rendered = MarkdownIt("commonmark").enable("table").render(body)
    assert "&lt;script&gt;alert(1)&lt;/script&gt; | `x` [a](http://b) *c*" in rendered.replace("&#58;", ":")
    assert '<a href="http://b"' not in rendered


@pytest.mark.full
@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=40))
def test_escaped_text_is_shown_as_it_is(text: str) -> None:
    """In a sentence and in a table's cell, whatever it is; only blanks and what does not show are folded."""
    shown = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in text)).strip()
    parser = MarkdownIt("commonmark").enable("table")
    for markdown in (f"x {escape(text)} x", f"{table(['a', 'b'], [[f'x {escape(text)} x', '1']])}"):
        tokens = [t for t in parser.parse(markdown) if t.type == "inline"]
        found = next(t for t in tokens if t.content.startswith("x"))
        children = found.children or []
        assert {t.type for t in children} <= {"text", "text_special"}
        assert re.sub(r"\s+", " ", "".join(t.content for t in children)) == re.sub(r"\s+", " ", f"x {shown} x")


@given(st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1, max_size=30))
def test_code_is_shown_as_it_is(text: str) -> None:
    (found,) = [t for t in MarkdownIt("commonmark").parse(f"x {code(text)} x") if t.type == "inline"]
    assert [t.content for t in found.children or () if t.type == "code_inline"] == [
        "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    ]


def test_no_table_of_numbers_without_figures() -> None:
    assert table(["a", "b"], []) == "| a | b |\n| --- | ---: |"
    assert long_name("AP50_th_pan") == "mask AP at IoU 0.5, panoptic model on its things"
    assert long_name("mIoU_pan") == "mean intersection over union, panoptic model"


@pytest.mark.full
def test_what_the_code_loads(facts: CardFacts) -> None:
    """The id where there is one, a folder as it is; a single file only once it is converted."""
    file = replace(facts, record={**facts.record, "form": "detectron2", "reference": "model final.pkl"})
    assert loadable(file) == ("converted", "the folder that this makes: m2fbench convert 'model final.pkl' converted")
    assert loadable(replace(file, options=CardOptions(model_id="me/mine"))) == ("me/mine", None)
    hub = replace(facts, record={**facts.record, "reference": "me/mine@main", "revision": "abc"})
    assert loadable(hub) == ("me/mine", None)
    assert loadable(replace(facts, record={**facts.record, "reference": "./out@2"})) == ("./out@2", "the folder of this model")
    away = replace(facts, record={**facts.record, "reference": "/home/someone/my model"})
    assert loadable(away) == ("./my model", "the folder of this model")  # the path is of one machine
    assert "someone" not in make_card(away)
    assert card_data(file).library_name is None


@pytest.mark.full
def test_the_check_of_cards_finds_nothing_wrong(facts: CardFacts, card: str, panoptic: list[Run], tmp_path: Path) -> None:
    """Every figure of the card, in prose, tables and metadata, is held against the runs."""
    from m2fbench.reporting.claims.check import check_card

    (tmp_path / "README.md").write_text(card)
    found = check_card(tmp_path / "README.md", panoptic)
    wrong = [f.to_json() for f in found.findings if f.verdict.value == "contradicted"]
    assert not wrong
    assert sum(f.verdict.value == "confirmed" for f in found.findings) >= 20
    (tmp_path / "README.md").write_text(re.sub(r"(?m)^\| PQ \| \d+\.\d\d", "| PQ | 12.34", card))
    assert check_card(tmp_path / "README.md", panoptic).contradicted


def told_limits(facts: CardFacts, **analyses: Any) -> list[str]:
    suite = facts.main
    return card_limits.limits(replace(facts, suites=(replace(suite, analyses=replace(suite.analyses, **analyses)),)))


def subset(name: str, figure: str, value: float, low: float, high: float, **changes: Any) -> SubsetFinding:
    return replace(
        SubsetFinding("brightness", name, f"{name} ones", "image", 30, 90, {figure: Estimate(value, low, high)}), **changes
    )


@pytest.mark.full
def test_limits_are_drawn_from_the_figures(facts: CardFacts) -> None:
    """The subset that loses most, of those whose interval leaves the overall one out; sizes too."""
    sure = facts.main.analyses.intervals
    assert sure is not None
    low = sure.figures["PQ", None].low
    overall, of_things = facts.main.result.value("PQ"), facts.main.result.value("PQ_th")
    worst = subset("dark", "PQ", low - 20, low - 30, low - 5)
    unsure = subset("grey", "PQ", low - 25, low - 60, low + 1)
    told = "\n".join(told_limits(facts, disaggregation=Disaggregation((worst, unsure), {})))
    assert (
        f"Of the subsets measured, brightness “dark” (dark ones; 30 images, 90 objects) loses most: there it is {low - 20:.2f}"
        in told
    )
    assert f"{overall - low + 20:.2f} points less than over all, by PQ." in told
    assert "grey" not in told
    small = subset("small", "PQ_th", 1.0, 0.5, 1.5, attribute="object size", level="object", head="panoptic")
    told = "\n".join(told_limits(facts, disaggregation=Disaggregation((worst, small), {})))
    assert f"there it is 1.00 (0.50 to 1.50), {of_things - 1:.2f} points less than over all, by PQ_th." in told
    none = "\n".join(told_limits(facts, disaggregation=Disaggregation((unsure,), {})))
    assert "loses most" not in none


def with_warnings(run: Run, *warnings: str) -> Run:
    assert run.speed is not None
    return replace(run, speed=replace(run.speed, warnings=warnings))


@pytest.mark.full
def test_disturbed_speed_is_marked_and_its_warnings_told_once(facts: CardFacts) -> None:
    """What disturbed the session is of all its variants, a drift of the variant that it names; elsewhere no speed is told."""
    session, drift = "other processes used 59% of the machine", "transformers, scope paper: latencies drift, 85.5% faster"
    suite = facts.main
    assert suite.reference is not None
    every = replace(
        suite,
        reference=with_warnings(suite.reference, session, drift),
        others=tuple(with_warnings(run, session, drift) for run in suite.others),
    )
    made = make_card(replace(facts, suites=(every,)))
    assert section(made, "speed").count("- ‡ fp32 and transformers: other processes used 59% of the machine\n") == 1
    assert section(made, "speed").count("- ‡ transformers, scope paper: latencies drift, 85.5% faster\n") == 1
    assert section(made, "speed").count("drift") == 1
    assert len(re.findall(r"(?m)^\| (?:fp32|transformers) \| .* ‡ \|$", section(made, "results"))) == 2
    assert "‡ Disturbed: see the warnings under “Speeds, Sizes, Times”." in section(made, "results")
    for name in ("summary", "limits"):
        assert "images/s" not in section(made, name)
        assert "‡" not in section(made, name)
    one = replace(
        suite,
        reference=with_warnings(suite.reference, drift),
        others=tuple(with_warnings(run, drift) for run in suite.others),
    )
    made = make_card(replace(facts, suites=(one,)))
    assert re.findall(r"(?m)^\| (\w+) \| .* ‡ \|$", section(made, "results")) == ["transformers"]
    calm = replace(suite, reference=with_warnings(suite.reference), others=tuple(with_warnings(run) for run in suite.others))
    assert "‡" not in make_card(replace(facts, suites=(calm,)))


@pytest.mark.full
def test_the_processors_own_protocol_is_told_among_the_limits(panoptic: list[Run]) -> None:
    plain = [run for run in panoptic if run.result is not None and run.result.variant["name"] == "transformers"]
    found = collect(plain, CardOptions(quick=True))
    assert "Measured by protocol transformers alone" in "\n".join(told_limits(found))
    assert "with the processor that ships with it:" in section(make_card(found), "start")


@pytest.mark.full
def test_a_limited_run_is_run_again_with_its_limit(facts: CardFacts) -> None:
    suite = facts.main
    assert suite.reference is not None
    limited = replace(suite.reference, result=replace(suite.result, status="partial", reason="5 of 12 images", limit=5))
    assert "--limit 5" in section(make_card(replace(facts, suites=(replace(suite, reference=limited),))), "start")


@pytest.mark.full
def test_subsets_are_defined_for_each_head_that_divides_otherwise(facts: CardFacts) -> None:
    def rare(head: str, definition: str, name: str) -> SubsetFinding:
        return subset("rare", name, 50, 40, 60, attribute="class frequency", level="class", head=head, definition=definition)

    found = (
        rare("instance", "2 classes", "AP_th_pan"),
        rare("panoptic", "4 classes", "PQ"),
        rare("semantic", "4 classes", "mIoU_pan"),
    )
    suite = replace(facts.main, analyses=replace(facts.main.analyses, disaggregation=Disaggregation(found, {})))
    told = card_results.subset_tables(suite)
    assert told is not None
    assert "- class frequency (instance): rare = 2 classes\n- class frequency (panoptic and semantic): rare = 4 classes" in told
    recall = subset("more", "segment_recall", 50, 40, 60, attribute="occlusion", level="object", head="panoptic")
    said = replace(suite, analyses=replace(suite.analyses, disaggregation=Disaggregation((recall,), {})))
    assert "- segment_recall: share of the true segments that are found" in card_results.metrics_text(said)


@pytest.mark.full
def test_limits_of_calibration_and_errors(facts: CardFacts) -> None:
    bins = (CalibrationBin(0.4, 0.5, 0.45, 0.44, 10), CalibrationBin(0.9, 1.0, 0.95, 0.60, 200))
    told = "\n".join(told_limits(facts, calibrations={"instance": Calibration(bins, 0.31, 0.35, "matched at IoU 0.5")}, errors=()))
    assert "expected calibration error 0.310 (matched at IoU 0.5)" in told
    assert "where scores are 0.9 to 1, which are right in 60 % of 200 cases at a mean score of 0.95: overconfident" in told
    well = "\n".join(told_limits(facts, calibrations={"instance": Calibration(bins, 0.01, 0.35, "")}, errors=()))
    assert "calibration" not in well
    nothing = "\n".join(told_limits(facts, calibrations={"instance": Calibration((), math.nan, math.nan, "")}))
    assert "calibration" not in nothing
    shares = (
        ErrorShare("missed", "not found", 12, 9.5),
        ErrorShare("false", "nothing there", 3, 0.5),
        ErrorShare("none", "", 0, 0.0),
    )
    found = ErrorFindings("panoptic", "PQ", 80.0, "a convention", shares)
    assert "Of what PQ 80.00 lacks, mending missed alone would add most, 9.5 points (not found)." in "\n".join(
        told_limits(facts, errors=(found,))
    )


@pytest.mark.full
def test_rare_classes_are_no_weak_ones(facts: CardFacts) -> None:
    """A class with few objects is told to be rare, whatever its figure."""
    suite = facts.main
    changed = []
    for m in suite.result.measurements:
        value = {("PQ", "ring"): 1.0, ("truth_segments", "ring"): 3.0, ("PQ", "sky"): 40.0}.get((m.name, m.category or ""), m.value)
        changed.append(replace(m, value=value))
    assert suite.reference is not None
    result = replace(suite.result, measurements=tuple(changed))
    told = "\n".join(
        card_limits.limits(replace(facts, suites=(replace(suite, reference=replace(suite.reference, result=result)),)))
    )
    weakest = next(line for line in told.split("\n") if line.startswith("Weakest classes: "))
    assert "ring" not in weakest
    assert re.search(r"classes have fewer than 10 true segments in these images \(.*ring", told)


@pytest.mark.full
def test_a_run_of_one_figure_less(facts: CardFacts) -> None:
    """What was not measured is left out, never zero."""
    suite = facts.main
    kept = (*tuple(m for m in suite.result.measurements if m.name == "PQ" and m.category is None), Measurement("SQ", math.nan))
    assert suite.reference is not None
    reference = replace(suite.reference, result=replace(suite.result, measurements=kept, comparisons=()), speed=None, flops=None)
    made = make_card(replace(facts, suites=(replace(suite, reference=reference, others=(), analyses=Analyses()),)))
    text = section(made, "results")
    assert re.findall(r"(?m)^\| (\w+) \| \d", text) == ["PQ"]
    assert "SQ" not in text
    assert "not measured (`m2fbench speed SUITE` does)" in section(made, "speed")
    assert card_results.class_table(facts.main) is not None


@pytest.mark.full
def test_files_of_the_newer_format(facts: CardFacts) -> None:
    files = eval_result_files(facts, {"": "me/shapes"})
    assert list(files) == ["card_panoptic.yaml"]
    entries = parse_eval_result_entries(yaml.safe_load(files["card_panoptic.yaml"]))
    values = {e.task_id: e.value for e in entries}
    assert values["PQ"] == round(facts.main.result.value("PQ"), 2)
    assert {e.dataset_id for e in entries} == {"me/shapes"}
    with pytest.raises(StoreError, match="expected SUITE=OWNER/DATASET with a suite that was run in full, of card_panoptic"):
        eval_result_files(facts, {"other": "me/shapes"})


@pytest.mark.full
def test_the_command(runs: Path, tmp_path: Path, cli: Any) -> None:
    """New card, update, and the line that refuses, with nothing written."""
    from typer.testing import CliRunner

    from m2fbench.cli import app

    target, run = tmp_path / "README.md", str(runs / "card_instance")
    done = CliRunner().invoke(app, ["card", run, "-o", str(target), "--quick", "--eval-results", "me/shapes", "--license", "mit"])
    assert done.exit_code == 0, done.exception
    assert f"written: {target}" in done.output.replace("\n", "")
    assert ModelCard.load(target).data.license == "mit"
    assert (tmp_path / ".eval_results" / "card_instance.yaml").is_file()
    before = target.read_bytes()
    again = CliRunner().invoke(app, ["card", run, "--update", str(target), "--quick"])
    assert again.exit_code == 0, again.exception
    assert "up to date already" in again.output
    assert "no longer in the card" not in again.output
    assert target.read_bytes() == before
    target.write_bytes(before.replace(b"<!-- m2fbench:end results -->", b""))
    broken = cli("card", run, "--update", target, "--quick")
    assert broken.returncode == 2
    assert re.search(r"error: .*README\.md:\d+: 'protocol' begins before 'results' of line \d+ has ended", broken.stderr)
    assert target.read_bytes() == before.replace(b"<!-- m2fbench:end results -->", b"")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "expected either -o CARD for a new card or --update CARD"),
        (["-o", "a.md", "--update", "b.md"], "expected either -o CARD for a new card or --update CARD"),
        (["--update", "absent.md"], "absent.md: cannot be read"),
        (["-o", "."], ".: expected the card's file, got a folder; give README.md"),
        (["-o", "a.md", "--model-id", "a b"], "--model-id a b: expected a model's id on the hub, OWNER/MODEL"),
        (["-o", "a.md", "--license", "My own"], "--license My own: expected a license as the hub names it"),
        (["-o", "a.md", "--eval-results", "shapes"], "expected a dataset's id on the hub, OWNER/DATASET, or SUITE=OWNER/DATASET"),
    ],
)
def test_what_the_command_refuses(arguments: Sequence[str], said: str, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from m2fbench.cli import app

    done = CliRunner().invoke(app, ["card", str(tmp_path), *arguments])
    assert said in str(done.exception)
