"""What a checkpoint costs, as a model card says it: size, FLOPs, speed with its scope, memory, energy, and on what that was measured."""

import math
from collections.abc import Iterator

from m2fbench.analysis.runs import Run
from m2fbench.analysis.words import counted
from m2fbench.reporting.card.disturbed import marked, warnings
from m2fbench.reporting.card.facts import CardFacts, SuiteRuns
from m2fbench.reporting.card.text import code, escape, listed, needed, number, prose, table
from m2fbench.results import RunResult
from m2fbench.types import JsonObject


def timed_runs(facts: CardFacts) -> list[Run]:
    """Those with speed figures."""
    return [run for suite in facts.suites for run in timed_of(suite)]


def timed_of(suite: SuiteRuns) -> list[Run]:
    return [run for run in suite.runs if run.speed is not None and run.speed.details is not None]


def sizes(facts: CardFacts) -> str:
    """Size of the weight files."""
    if facts.checkpoint is None:
        return "- **Checkpoint size:** its files were not at hand when this card was made"
    files = facts.checkpoint.weight_files
    size = sum((facts.checkpoint.folder / name).stat().st_size for name in files)
    return f"- **Checkpoint size:** {size / 2**20:.1f} MiB ({listed([code(name) for name in files])})"


def flops(facts: CardFacts) -> Iterator[str]:
    """A line a suite whose FLOPs were counted."""
    for result in facts.costs:
        value, fvcore = result.value("FLOPs"), result.value("FLOPs_fvcore")
        if math.isnan(value):
            continue
        inputs = (result.details or {}).get("inputs")
        other = "" if math.isnan(fvcore) else f"; by fvcore's own count {fvcore / 1e9:.2f} G"
        said = f"- **FLOPs:** {value / 1e9:.2f} G (a multiply-add is one) as the paper's tools count{other}; over {escape(inputs)}"
        for entry in result.comparisons:
            if entry.metric == "FLOPs" and entry.comparable:
                said += f". Published: {entry.published / 1e9:g} G ({escape(entry.source)})"
        yield said


def speed_table(facts: CardFacts) -> str | None:
    """Images a second and latency of every timed run and scope; None where nothing was timed."""
    runs = timed_runs(facts)
    rows = []
    for suite in facts.suites:
        for run in timed_of(suite):
            assert run.speed is not None
            for scope, details in dict((run.speed.details or {})["scopes"]).items():
                rows.append(_speed_row(run, suite, scope, details))
    if not rows:
        return None
    header = ["variant", "scope", "images", "images/s", "95 % interval", "mean ms", "p95 ms", "peak device memory"]
    return f"{table(header, rows, words=2)}\n\n" + "\n".join([*warnings(facts, runs), *_conditions(runs)])


def _speed_row(run: Run, suite: SuiteRuns, scope: str, details: JsonObject) -> list[str]:
    result = run.speed
    assert result is not None
    end = "" if scope == "paper" else f"_{scope}"
    low, high = result.value(f"fps{end}_low"), result.value(f"fps{end}_high")
    interval = "-" if math.isnan(low) else f"over {low:.2f}" if math.isnan(high) else f"{low:.2f} to {high:.2f}"
    memory = result.value("peak_device_memory")
    return [
        escape(result.variant["name"]), escape(scope), str(details["images"]), marked(number(result.value(f"fps{end}")), run, suite), interval,
        marked(_milliseconds(result.value(f"latency{end}")), run, suite),
        marked(_milliseconds(result.value(f"latency{end}_p95")), run, suite),
        "-" if math.isnan(memory) else f"{memory / 2**20:.0f} MiB",
    ]  # fmt: skip


def _milliseconds(seconds: float) -> str:
    return "-" if math.isnan(seconds) else f"{1000 * seconds:.1f}"


def _conditions(runs: list[Run]) -> Iterator[str]:
    """What the figures are of: scopes, heads, machine, the published figure beside."""
    first = runs[0].speed
    assert first is not None
    for scope, details in dict((first.details or {})["scopes"]).items():
        yield f"- scope {escape(scope)}: heads {listed([escape(h) for h in details['heads']])}; {prose(details['definition'])}"
    yield f"- measured on {machine(first)}, batch size 1"
    memory = first.value("peak_process_memory")
    if not math.isnan(memory):
        yield f"- the process took {memory / 2**20:.0f} MiB of memory at most, all variants loaded"
    for entry in first.published:
        if entry.metric == "fps":
            yield f"- published: {entry.value:g} images/s ({escape(entry.source)})"


def machine(result: RunResult) -> str:
    """The hardware, in words."""
    device, environment = result.device or {}, result.environment or {}
    processor = escape(environment.get("processor") or environment.get("machine") or "an unknown processor")
    if device.get("kind", "cpu") == "cpu":
        return f"{processor}, {counted(int(device.get('threads') or environment.get('cpu_count') or 1), 'thread')}"
    memory = f", {device['memory_bytes'] / 2**30:.0f} GiB" if device.get("memory_bytes") else ""
    cuda = f", CUDA {escape(device['cuda'])}" if device.get("cuda") else ""
    return f"{escape(str(device['kind']).removeprefix('cuda ').strip())}{memory}{cuda}, beside {processor}"


def energy(facts: CardFacts) -> str:
    """Energy and emissions of inference, where measured; else that they were not."""
    lines = []
    for run in timed_runs(facts):
        assert run.speed is not None
        details = run.speed.details or {}
        used, emitted = details.get("energy") or {}, details.get("emissions") or {}
        if used.get("joules_per_image") is not None:
            covers = "; ".join(f"{m['name']}: {m['covers']}" for m in used["meters"])
            lines.append(
                f"- **Energy at inference, {escape(run.speed.variant['name'])}:** {used['joules_per_image']:.3g} J an image at "
                f"{used['watts']:.3g} W, {escape(used['label'])} ({escape(covers)}), on {machine(run.speed)}"
            )
        if emitted.get("grams_per_image") is not None:
            lines.append(
                f"- **Carbon emitted at inference, {escape(run.speed.variant['name'])}:** {emitted['grams_per_image']:.3g} g of CO2e an image, "
                f"{escape(emitted['label'])} ({prose(emitted['source'])})"
            )
    return (
        "\n".join(lines)
        or "- **Energy and carbon at inference:** not measured (`m2fbench speed SUITE --energy --country CODE` does)"
    )


def training_impact() -> str:
    """What of training's footprint nobody can measure afterwards."""
    who = "whoever trained it"
    names = ("Hardware Type", "Hours used", "Cloud Provider", "Compute Region", "Carbon Emitted")
    return "\n".join(f"- **{name} (training):** {needed(who)}" for name in names)
