"""The sections of a model card besides its figures: what the checkpoint is, how to use it, by which protocol it was measured, with what."""

import json
from collections.abc import Iterator

from m2fbench.analysis.words import counted
from m2fbench.environment import version_of
from m2fbench.labels import label_set
from m2fbench.reporting.card.costs import machine
from m2fbench.reporting.card.facts import CardFacts, SuiteRuns
from m2fbench.reporting.card.metadata import TASKS, own_metadata, split_of
from m2fbench.reporting.card.results import headline_sentence, sure
from m2fbench.reporting.card.start import run_command
from m2fbench.reporting.card.text import code, escape, folded, listed, needed, prose
from m2fbench.types import Head, JsonObject

PAPER = "https://arxiv.org/abs/2112.01527"
_TASK_GIVES = {
    "instance": "finds objects: a mask, a class and a score for each",
    "panoptic": "divides an image into objects and regions, so that every pixel belongs to one segment of one class, or to none; the same forward "
    "pass also gives scored object masks and a class for every pixel",
    "semantic": "gives every pixel of an image a class",
}


_DRAWN = "simple scenes that m2fbench draws from fixed seeds, no photographs"


def family(facts: CardFacts) -> str:
    from m2fbench.models.checkpoint import FAMILIES

    return FAMILIES.get(str(facts.config.get("model_type")), "Mask2Former")


def backbone(facts: CardFacts) -> str:
    """As its authors name it, with its blocks and widths where the config is at hand."""
    from m2fbench.models.architecture import backbone_title

    kind = str(facts.record["backbone"])
    return backbone_title(kind, facts.config) if facts.config else kind


def summary(facts: CardFacts) -> str:
    """A few sentences that say what it is and how good."""
    classes = counted(int(facts.record["classes"]), "class").replace("classs", "classes")
    first = f"{escape(family(facts))} with a {escape(backbone(facts).partition(',')[0])} backbone and {classes}. It {_TASK_GIVES[facts.main.task]}."
    told = [
        f"On {escape(suite.dataset)} ({counted(int((suite.result.dataset or {})['scored_images']), 'image')}"
        f"{', partial' if suite.result.status == 'partial' else ''}) it reaches {headline_sentence(suite)}, in percent{sure(suite)}."
        for suite in facts.measured
    ]
    measured = f"Measured with m2fbench {escape(version_of('m2fbench'))}; below stand protocol, data and hardware of each figure."
    return " ".join([first, *told, measured])


def description(facts: CardFacts) -> str:
    """What it is, in short; ``specifications`` has the rest."""
    lines = [
        f"- **Model type:** {escape(family(facts))} for image segmentation; measured on {listed([TASKS[t].lower() for t in _tasks(facts)])}",
        f"- **Backbone:** {escape(backbone(facts))}",
        *([f"- **Parameters:** {facts.record['parameters']:,}"] if facts.record.get("parameters") else []),
        f"- **Format:** {escape(facts.record.get('form', 'transformers'))}"
        + (f", published as {code(facts.record['published'])}" if facts.record.get("published") else ""),
        f"- **Content hash:** sha256 {code(facts.sha256)} (config and weights)"
        + (f", revision {code(facts.record['revision'])}" if facts.record.get("revision") else ""),
    ]
    if facts.lost:
        lines.append(
            f"- The checkpoint was not at hand when this card was made ({prose(facts.lost)}), so its config is not told here."
        )
    return "\n".join(lines) + ("\n\n" + class_names(facts) if facts.checkpoint is not None else "")


def _tasks(facts: CardFacts) -> list[Head]:
    return list(dict.fromkeys(suite.task for suite in facts.suites))


def license_of(facts: CardFacts) -> str:
    known = facts.options.license or own_metadata(facts).get("license")
    return escape(known) if known else needed("whoever published the weights")


def base_model_of(facts: CardFacts) -> str:
    known = own_metadata(facts).get("base_model")
    names = known if isinstance(known, list) else [known] if known else []
    return listed([code(name) for name in names]) if names else needed("whoever trained it")


def architecture(facts: CardFacts) -> Iterator[str]:
    """A line for each part, of what the config says."""
    config, parameters = facts.config, facts.record.get("parameters")
    yield f"- **Backbone:** {escape(backbone(facts))}"
    if parameters:
        yield f"- **Parameters:** {parameters:,}"
    yield f"- **Queries:** {facts.record['queries']}"
    if config.get("model_type") == "mask2former":
        heads = f", {config['num_attention_heads']} attention heads" if "num_attention_heads" in config else ""
        layers, width = int(config.get("decoder_layers", 10)) - 1, config.get("hidden_dim", 256)
        yield (
            f"- **Transformer decoder:** {layers} layers of masked attention, width {width}{heads}, feed-forward "
            f"{config.get('dim_feedforward', 2048)}"
        )
        yield (
            f"- **Pixel decoder:** {config.get('encoder_layers', 6)} layers of multi-scale deformable attention, feature size "
            f"{config.get('feature_size', 256)}, mask features {config.get('mask_feature_size', 256)}, strides "
            f"{'/'.join(map(str, config.get('feature_strides', (4, 8, 16, 32))))}"
        )


def class_names(facts: CardFacts) -> str:
    from m2fbench.models.published import published_labels

    assert facts.checkpoint is not None
    labels = facts.checkpoint.labels
    known = published_labels(labels)
    title = f", those of {label_set(known).title}" if known else ""
    return folded(f"The {len(labels)} classes{title}", ", ".join(f"{k} {escape(name)}" for k, name in enumerate(labels)))


def objective(facts: CardFacts) -> str:
    """Its loss, as far as the config says."""
    config = facts.config
    keys = ("class_weight", "mask_weight", "dice_weight", "no_object_weight", "train_num_points")
    known = [f"{code(key)} {config[key]:g}" for key in keys if isinstance(config.get(key), int | float)]
    if not known:
        return needed("whoever trained it")
    return f"set matching of queries and true segments; class, mask (binary cross-entropy) and dice loss; in the config {listed(known)}"


def hyperparameters(facts: CardFacts) -> str:
    return f"- **Loss, from the config:** {objective(facts)}"


def uses(facts: CardFacts) -> str:
    """What it can be used for as it is."""
    places = [f"{TASKS[suite.task].lower()} of images like those of {escape(suite.dataset)}" for suite in facts.suites]
    return f"As it is, without fine-tuning: {listed(places)}, with the code in “How to Get Started with the Model”."


def preprocessing(facts: CardFacts) -> str:
    """What is done to an image, of every suite's protocol."""
    lines = [f"- {escape(suite.name)}: {_input(suite.result.protocol or {})}" for suite in facts.measured]
    return "What is done to an image at test time, as measured:\n\n" + ("\n".join(lines) or "- not measured")


def _input(protocol: JsonObject) -> str:
    if protocol.get("name") != "paper":
        return f"what its own processor does (protocol {escape(protocol.get('name'))}): {code(json.dumps(protocol.get('settings', {})))}"
    tta, scales = protocol.get("tta"), ""
    if tta:
        flips = ", each mirrored too" if tta["flip"] else ""
        scales = (
            f"; of that, looks at shortest edges {listed([str(s) for s in tta['min_sizes']])}{flips}, whose scores are averaged"
        )
    return (
        f"turned upright (EXIF), RGB; resized by PIL's bilinear filter on 8-bit values, shortest edge {protocol['min_size']}, longest "
        f"at most {protocol['max_size']} pixels, rounded by int(x + 0.5){scales}; normalised by ImageNet mean (123.675, 116.28, 103.53) and "
        f"deviation (58.395, 57.12, 57.375); zero-padded right and below to multiples of 32; batch size 1"
    )


def testing_data(facts: CardFacts) -> str:
    """Which images, and what tells this state of them from any other."""
    lines = []
    for suite in facts.measured:
        fingerprint = suite.result.dataset or {}
        split = split_of(suite)
        said = [_DRAWN] if fingerprint.get("name") == "shapes" else []
        said += [f"reader {code(fingerprint.get('name', 'unknown'))}"]
        said += [f"split {escape(split)}"] if split else []
        said.append(f"{fingerprint.get('scored_images', 0):,} of {fingerprint.get('images', 0):,} images scored")
        if fingerprint.get("annotations_sha256"):
            said.append(f"annotations sha256 {code(fingerprint['annotations_sha256'])}")
        lines.append(f"- **{escape(suite.dataset)}** ({escape(suite.name)}): {', '.join(said)}")
    return "\n".join(lines) or "No accuracy was measured."


def protocol(facts: CardFacts) -> str:
    """Everything that could change a number, a suite a list."""
    parts = []
    for suite in facts.measured:
        result = suite.result
        settings = result.protocol or {}
        lines = [
            "- image: as under “Preprocessing”",
            *_heads(suite, settings),
            f"- precision {escape(result.variant['dtype'])}, {_arithmetic(result.variant, result.checkpoint or {})}",
        ]
        lines += [
            f"- suite {code(suite.name)}, sha256 {code(result.suite['sha256'])}; protocol version {settings.get('version', '-')}",
            f"- predictions {code(result.prediction_key or '-')}, figures {code(result.result_key or '-')} (keys over all that can change them)",
            f"- again: {code(run_command(facts, suite))}",
        ]
        lines += [f"- departs from the published setting: {prose(result.departure)}"] if result.departure else []
        verified = result.verified or {}
        lines += [
            f"- {escape(name)} verified by {escape(v['evaluator'])}, largest difference {v['largest_difference']:.1e}"
            for name, v in verified.items()
        ]
        lines += [f"- note: {prose(text)}" for text in result.warnings]
        parts.append(f"**{escape(suite.name)}**\n\n" + "\n".join(lines))
    return "\n\n".join(parts) or "No accuracy was measured."


def _heads(suite: SuiteRuns, settings: JsonObject) -> Iterator[str]:
    if settings.get("name") != "paper":
        yield f"- post-processing: its own processor's, options {code(json.dumps(settings.get('options', {})))}"
        return
    if "detections" in settings:
        yield (
            f"- instances: the {settings['detections']} most probable pairs of query and class, no score threshold; mask where the logit is "
            f"over 0 at the image's size; score = class probability x mean probability inside the mask"
        )
    if "object_threshold" in settings:
        yield (
            f"- panoptic: queries with a probability over {settings['object_threshold']}; a segment must win "
            f"{settings['overlap_threshold']} of its own area; segments of one stuff class are one"
        )
    if "semantic_resize" in settings:
        when = {
            "before": "masks are brought to the image's size before the classes are decided",
            "after": "class scores are computed at the padded size, then brought to the image's size",
        }
        yield f"- semantic: {when[settings['semantic_resize']]}"


def _arithmetic(variant: JsonObject, checkpoint: JsonObject) -> str:
    found = (checkpoint.get("settings") or {}).get("attention") or {}
    kernels = " and ".join(dict.fromkeys(map(str, found.values()))) or str(variant.get("attention"))
    return f"TF32 {'on' if variant.get('tf32') else 'off'}, attention {escape(kernels)}"


def infrastructure(facts: CardFacts) -> str:
    """Hardware and software of the measurements."""
    results = [run.result or run.speed for suite in facts.suites for run in suite.runs]
    hardware = dict.fromkeys(machine(result) for result in results if result is not None)
    first = next(result for result in results if result is not None)
    environment = first.environment or {}
    libraries = environment.get("libraries") or {}
    told = [
        f"{name} {escape(libraries[name])}"
        for name in ("torch", "transformers", "pillow", "numpy", "hotcoco")
        if libraries.get(name)
    ]
    commit = f" ({code(environment['m2fbench_commit'])})" if environment.get("m2fbench_commit") else ""
    return "\n".join([
        f"- **Hardware of the evaluation:** {listed(list(hardware))}",
        f"- **Software of the evaluation:** m2fbench {escape(environment.get('m2fbench'))}{commit}, {', '.join(told)}, Python "
        f"{escape(environment.get('python'))}, {escape(environment.get('platform'))}",
    ])  # fmt: skip


def specifications(facts: CardFacts) -> str:
    """The architecture in full, and what it was measured with."""
    lines = "\n".join([*architecture(facts), f"- **Objective:** {objective(facts)}"])
    return f"### Model Architecture and Objective\n\n{lines}\n\n### Compute Infrastructure\n\n{infrastructure(facts)}"
