"""A Hugging Face model card from runs: everything that a measurement or a config can say, with what it rests on; what they cannot say is
marked, with who can.

    runs -> CardFacts -> sections + metadata -> a new card (the template), or those of an existing one replaced (``card_update``)
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from m2fbench.analysis.bootstrap import Progress
from m2fbench.analysis.runs import Run, Tell, silent
from m2fbench.errors import CardError, StoreError
from m2fbench.reporting.card import costs as card_costs
from m2fbench.reporting.card import limits as card_limits
from m2fbench.reporting.card import results as card_results
from m2fbench.reporting.card import sections as card_sections
from m2fbench.reporting.card import start as card_start
from m2fbench.reporting.card.facts import CardFacts, CardOptions, SuiteRuns, gather
from m2fbench.reporting.card.findings import SUBSET_RESAMPLES, analyse, analysed_runs, examination
from m2fbench.reporting.card.metadata import MEASURED_BY, card_data, headline, is_complete
from m2fbench.reporting.card.text import PARTS, escape, listed, needed, prose
from m2fbench.reporting.card.update import Section, merge_model_index, update
from m2fbench.types import JsonObject

TEMPLATE = Path(__file__).parent / "model_card.md.j2"
CITATIONS = {
    "mask2former": """@inproceedings{cheng2022mask2former,
  title     = {Masked-attention Mask Transformer for Universal Image Segmentation},
  author    = {Bowen Cheng and Ishan Misra and Alexander G. Schwing and Alexander Kirillov and Rohit Girdhar},
  booktitle = {CVPR},
  year      = {2022}
}""",
}


def collect(runs: Sequence[Run], options: CardOptions, tell: Tell = silent) -> CardFacts:
    """What a card of these runs is written from: analyses of each suite's reference run, where its predictions and truth are at hand. Raises
    StoreError where the runs are not of one checkpoint."""
    return analysed(gather(runs, options), tell)


def analysed(facts: CardFacts, tell: Tell = silent, progress: Progress | None = None) -> CardFacts:
    """``facts`` with what the analyses find, telling which run of how many is worked on."""
    worked = [run for suite in facts.suites for run in analysed_runs(suite)]

    def of(run: Run) -> Tell:
        number = next(number for number, one in enumerate(worked, 1) if one is run)
        return lambda what: tell(f"run {number} of {len(worked)}: {what}")

    suites = (replace(suite, analyses=analyse(suite, facts.options, of, progress)) for suite in facts.suites)
    return replace(facts, suites=tuple(suites))


def make_card(facts: CardFacts) -> str:
    """A new card, metadata and all."""
    from huggingface_hub import ModelCard

    card = ModelCard.from_template(
        card_data(facts),
        template_path=str(TEMPLATE),
        title=escape(facts.title),
        sections={section.name: section.marked for section in sections(facts)},
        needed=needed,
        license_text=card_sections.license_of(facts),
        base_model_text=card_sections.base_model_of(facts),
        paper=card_sections.PAPER,
        training_data=_training_data(facts),
        training_impact=card_costs.training_impact(),
        citation=CITATIONS["mask2former"],
    )
    return str(card).rstrip("\n") + "\n"


def updated_card(facts: CardFacts, content: bytes, place: str) -> bytes:
    """``content`` of an existing card with our marked sections and our metadata brought up to date. Raises CardError."""

    def merge(known: JsonObject) -> Mapping[str, Any]:
        return _merged(facts, known, place)

    made = update(content, sections(facts), merge, place)
    _refuse_unreadable(made, place)
    return made


def _refuse_unreadable(content: bytes, place: str) -> None:
    """Raises CardError where huggingface_hub could not load the card."""
    from huggingface_hub import ModelCard

    try:
        ModelCard(content.decode().removeprefix("\ufeff"))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CardError(
            f"{place}: huggingface_hub cannot load its metadata ({' '.join(str(error).split())[:200]}); mend it first"
        ) from None


def _merged(facts: CardFacts, known: JsonObject, place: str) -> Mapping[str, Any]:
    """The metadata keys that are ours: results and emissions of ours; of the others only those that the card has not."""
    ours: JsonObject = card_data(facts).to_dict()  # type: ignore[no-untyped-call]
    wanted: dict[str, Any] = {
        key: ours[key] for key in ("library_name", "pipeline_tag", "tags") if key in ours and key not in known
    }
    if facts.options.license:
        wanted["license"] = facts.options.license
    emitted = known.get("co2_eq_emissions")
    if emitted is None or (isinstance(emitted, dict) and str(emitted.get("source", "")).startswith(MEASURED_BY)):
        wanted["co2_eq_emissions"] = ours.get("co2_eq_emissions")
    wanted["model-index"] = merge_model_index(known.get("model-index"), ours.get("model-index"), MEASURED_BY, place)
    return {key: value for key, value in wanted.items() if value is not None or key in known}


def sections(facts: CardFacts) -> list[Section]:
    """All that is ours of a card's text, in its order."""
    texts = [
        ("summary", "Summary", card_sections.summary(facts)),
        ("description", "Model Description", card_sections.description(facts)),
        ("direct-use", "Direct Use", card_sections.uses(facts)),
        ("limits", "Bias, Risks, and Limitations", _limits(facts)),
        ("start", "How to Get Started with the Model", card_start.start(facts)),
        ("preprocessing", "Preprocessing", card_sections.preprocessing(facts)),
        ("hyperparameters", "Training Hyperparameters", card_sections.hyperparameters(facts)),
        ("speed", "Speeds, Sizes, Times", _speed(facts)),
        ("testing-data", "Testing Data", card_sections.testing_data(facts)),
        ("factors", "Factors", _of_each(facts, partial(_factors, resamples=min(SUBSET_RESAMPLES, facts.options.resamples)))),
        ("metrics", "Metrics", _of_each(facts, card_results.metrics_text)),
        ("results", "Results", _of_each(facts, _results)),
        ("protocol", "Evaluation Protocol", card_sections.protocol(facts)),
        ("examination", "Model Examination", _of_each(facts, examination)),
        ("impact", "Environmental Impact", card_costs.energy(facts)),
        ("specifications", "Technical Specifications", card_sections.specifications(facts)),
    ]
    return [Section(name, heading, body) for name, heading, body in texts]


def _of_each(facts: CardFacts, text: Any) -> str:
    """One suite's text as it is; of several each under its name."""
    found = [(suite, text(suite)) for suite in facts.measured]
    if not found:
        return "No accuracy was measured (`m2fbench run SUITE` does)."
    if len(found) == 1:
        return str(found[0][1])
    return "\n\n".join(f"**{escape(suite.name)}**\n\n{said}" for suite, said in found)


def _limits(facts: CardFacts) -> str:
    told = "\n".join(f"- {text}" for text in card_limits.limits(facts))
    return f"Drawn from the figures below; in brackets behind a figure its 95 % interval, where there is one:\n\n{told}"


def _factors(suite: SuiteRuns, resamples: int) -> str:
    found = card_results.subset_tables(suite)
    if found is None:
        return f"No disaggregated results: {prose(suite.analyses.missing.get('subsets', 'they were not asked for'))}."
    return f"{PARTS}; 95 % intervals from {resamples:,} resamples of the images.\n\n{found}"


def _results(suite: SuiteRuns) -> str:
    """Figures, errors, classes and variants of one suite."""
    parts = [card_results.figures_table(suite)]
    told = {what: why for what, why in suite.analyses.missing.items() if what not in ("subsets", "examination")}
    reasons = {why: listed([what for what, other in told.items() if other == why]) for why in told.values()}
    parts += [f"No {escape(what)}: {prose(why)}." for why, what in reasons.items()]
    parts += card_results.errors(suite)
    parts += [text for text in (card_results.class_table(suite),) if text]
    if variants := card_results.variants_table(suite):
        parts.append(f"#### Variants\n\n{variants}")
    parts.append(
        f"#### Summary\n\n{card_results.headline_sentence(suite)} on {escape(suite.dataset)}, in percent{card_results.sure(suite)}."
    )
    return "\n\n".join(parts)


def _speed(facts: CardFacts) -> str:
    parts = ["\n".join([line for line in (card_costs.sizes(facts), *card_costs.flops(facts)) if line])]
    parts.append(card_costs.speed_table(facts) or "- **Throughput:** not measured (`m2fbench speed SUITE` does)")
    return "\n\n".join(part for part in parts if part)


def _training_data(facts: CardFacts) -> str:
    """Known only of the model zoo's own checkpoints, by their content."""
    published = facts.record.get("published")
    if published:
        dataset = escape(str(published).partition("/")[0])
        return f"By its content this is the model zoo's {escape(published)}, trained on {dataset}'s training set."
    return needed("whoever trained it")


def eval_result_files(facts: CardFacts, hub_datasets: Mapping[str, str]) -> dict[str, str]:
    """Files of the hub's newer ``.eval_results`` format -> their content, one a suite. hub_datasets: suite name, or "" for every suite -> the
    hub's id of its dataset, which only who runs this can know. Task ids are the figures' names. Raises StoreError."""
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml
    from huggingface_hub.utils import yaml_dump  # type: ignore[attr-defined]

    files = {}
    for suite in facts.measured:
        dataset = hub_datasets.get(suite.name, hub_datasets.get(""))
        if dataset is None or not is_complete(suite):
            continue
        result = suite.result
        notes = f"m2fbench suite {suite.name}, protocol {(result.protocol or {}).get('name')}, {result.variant['dtype']}"
        entries = [EvalResultEntry(dataset, figure, value, date=result.finished, notes=notes) for figure, value in headline(suite)]
        files[f"{suite.name}.yaml"] = yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)
    if not files:
        known = ", ".join(suite.name for suite in facts.measured) or "none"
        raise StoreError(
            f"--eval-results: no complete results for it; expected SUITE=OWNER/DATASET with a suite that was run in full, of {known}"
        )
    return files
