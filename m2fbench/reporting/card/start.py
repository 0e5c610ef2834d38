"""How to get started with a checkpoint: the code that a model card gives, and the commands that give its figures again."""

import shlex
from collections.abc import Iterator

from m2fbench.errors import M2FBenchError
from m2fbench.reporting.card.facts import CardFacts, SuiteRuns, thing_classes
from m2fbench.reporting.card.metadata import TASKS
from m2fbench.reporting.card.snippet import SnippetSettings, snippet
from m2fbench.reporting.card.text import folded, listed, prose
from m2fbench.suite import HEADS, load_suite, suite_names

_GIVES = {"instance": "scored object masks", "panoptic": "a panoptic map", "semantic": "a class for every pixel"}


def start(facts: CardFacts) -> str:
    """Code that gives the protocol's predictions, and the commands that give the figures."""
    parts = []
    suite = facts.main
    settings, why = snippet_settings(facts, suite) if suite.reference is not None else (None, "no accuracy was measured")
    if settings is None:
        parts.append(f"No code here: {prose(why)}.")
    else:
        main, rest = snippet(settings)
        paper = settings.protocol["name"] == "paper"
        how = "with torch, transformers, Pillow and numpy alone" if paper else "with the processor that ships with it"
        parts.append(f"{TASKS[suite.task]} as measured here, {how}:")
        parts.append(f"```python\n{main}\n```")
        if rest:
            also = listed([_GIVES[head] for head in settings.heads[1:]])
            parts.append(folded(f"The same forward pass also gives {also}", f"```python\n{rest}\n```"))
    parts.append("The figures of this card, and the card itself:\n\n```sh\n" + "\n".join(commands(facts)) + "\n```")
    return "\n\n".join(parts)


def snippet_settings(facts: CardFacts, suite: SuiteRuns) -> tuple[SnippetSettings | None, str]:
    """What the code is written from; None with the reason where it cannot be."""
    protocol = suite.result.protocol or {}
    if facts.checkpoint is None:
        return None, f"the checkpoint was not at hand when this card was made ({facts.lost})"
    if protocol.get("name") not in ("paper", "transformers", "transformers-best"):
        return None, "the protocol of these predictions is not known"
    found = thing_classes(facts, suite)
    if found is None and suite.task != "semantic":
        return None, "which of its classes are things is not known without the dataset"
    things, others = found or ((), False)
    heads = suite.suite.needed_heads if suite.suite is not None else (suite.task,)
    ordered = (suite.task, *(head for head in HEADS if head in heads and head != suite.task))
    reference, note = loadable(facts)
    settings = SnippetSettings(
        reference, note, protocol, ordered, int(facts.record["classes"]), int(facts.record["queries"]),
        things if suite.task == "panoptic" or (suite.task == "instance" and others) else None,
    )  # fmt: skip
    return settings, ""


def loadable(facts: CardFacts) -> tuple[str, str | None]:
    """What ``from_pretrained`` takes, and a note beside it."""
    reference = facts.reference
    if facts.options.model_id:
        return reference, None
    if facts.record.get("form", "transformers") != "transformers":
        return "converted", f"the folder that this makes: m2fbench convert {shlex.quote(reference)} converted"
    if reference.startswith("bundled:"):
        return f"m2fbench/assets/{reference.removeprefix('bundled:')}", "in a clone of m2fbench"
    if facts.record.get("revision"):
        return reference.partition("@")[0], None
    return reference, "the folder of this model" if reference.startswith("./") else None


def commands(facts: CardFacts) -> Iterator[str]:
    """The commands that measured this."""
    for suite in facts.suites:
        yield run_command(facts, suite)
        if suite.reference is not None and suite.analyses.layers is not None:
            yield shlex.join(["m2fbench", "examine", "/".join(("runs", suite.name, *suite.reference.folder.parts[-2:]))])
    folders = " ".join(f"runs/{suite.name}" for suite in facts.suites)
    yield f"m2fbench card {folders} -o README.md"


def run_command(facts: CardFacts, suite: SuiteRuns) -> str:
    """How to measure a suite's figures again."""
    run = suite.runs[0]
    result = run.any_result
    parts = ["m2fbench", "run", suite.name if suite.shipped or suite.suite is None else f"{suite.name}.yaml"]
    if suite.suite is not None and not suite.shipped and suite.suite._overrides and _shipped_before(suite):
        parts[2] = suite.name
    rows = [row.name for row in suite.suite.checkpoints] if suite.suite is not None else []
    if facts.options.model_id or result.row not in rows:
        parts += ["--checkpoint", facts.reference]
    elif len(rows) > 1:
        parts += ["--only", result.row]
    for override in suite.suite._overrides if suite.suite is not None else ():
        parts += ["--set", override]
    if result.limit is not None:
        parts += ["--limit", str(result.limit)]
    if run.evidence is None or run.evidence.data is not None:
        parts += ["--data", "DATA"]
    return shlex.join(parts)


def _shipped_before(suite: SuiteRuns) -> bool:
    """Whether a suite is a shipped one but for what the command line changed."""
    if suite.suite is None or suite.name not in suite_names():
        return False
    try:
        return load_suite(suite.name, suite.suite._overrides).hash == suite.suite.hash
    except M2FBenchError:
        return False
