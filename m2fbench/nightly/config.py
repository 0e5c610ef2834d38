"""The configuration of a nightly, as pydantic models: strict, frozen, and described, since editors show the descriptions."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from m2fbench.analysis.regressions import Rules
from m2fbench.sections import Finite, Kinds, Name, Strict

Positive = Annotated[Finite, Field(gt=0)]
_BASELINE = r"^(last-good|published|release:[A-Za-z0-9][A-Za-z0-9._-]*)$"


def _checked_baseline(value: str) -> str:
    if not re.fullmatch(_BASELINE, value):
        raise ValueError("'last-good', 'published' or 'release:NAME'")
    return value


Baseline = Annotated[str, AfterValidator(_checked_baseline), WithJsonSchema({"type": "string", "pattern": _BASELINE})]


class Budget(Strict):
    """What a night, and each cell of it, may take. A cell beyond its limit is ended and reported, and the others go on."""

    minutes: Positive | None = Field(
        None, description="Of the whole night; cells that it leaves no time for are reported as not measured."
    )
    cell_minutes: Positive = Field(120, description="Of one cell.")
    memory_GB: Positive | None = Field(
        None, description="10^9 bytes of host memory that one cell may take, all its processes together."
    )


class RulesSection(Strict):
    """When a change is a regression; see the README's Nightly section."""

    alpha: Annotated[Finite, Field(gt=0, lt=0.5)] = Field(
        Rules.alpha, description="Largest two-sided p of a paired difference that stands out."
    )
    points: Annotated[Finite, Field(ge=0)] = Field(Rules.points, description="Least difference of an accuracy figure, in points.")
    share: Annotated[Finite, Field(ge=0)] = Field(
        Rules.share, description="Least change of any other figure, as a share of its level."
    )
    sigmas: Positive = Field(Rules.sigmas, description="How many standard deviations of a night's noise a value lies off at least.")
    nights: int = Field(
        Rules.nights, ge=1, le=30, description="Nights in a row that make a step of values without paired evidence."
    )
    paired_nights: int = Field(
        Rules.paired_nights,
        ge=1,
        le=30,
        description="Nights in a row that make a step of paired differences which were not repeated.",
    )
    window: int = Field(Rules.window, ge=5, le=400, description="Nights that a level and its noise are taken from.")

    @property
    def rules(self) -> Rules:
        return Rules(**self.model_dump())


class NightlySuite(Strict):
    """One suite of the matrix: all its checkpoints under all its variants, where nothing else is said."""

    suite: str = Field(description="Path of a suite, or the name of a shipped one.")
    checkpoints: list[str] = Field(default_factory=list, description="References in place of the suite's checkpoints.")
    only: list[str] = Field(default_factory=list, description="Names of the rows to run.")
    variants: list[str] = Field(default_factory=list, description="Names of the variants to run.")
    data: str | None = Field(None, description="The dataset's folder.")
    limit: int | None = Field(None, ge=1, description="Only the first so many images.")
    set: list[str] = Field(default_factory=list, description="`dotted.key=value`, in place of what the suite says.")
    measure: Kinds | None = Field(None, description="In place of the suite's `measure`.")
    figures: list[str] = Field(
        default_factory=list,
        description="Figures that are judged; the task's main one, fps, peak memory and FLOPs where none are named.",
    )
    cell_minutes: Positive | None = Field(None, description="Of one cell of this suite, in place of the budget's.")


class Keep(Strict):
    """What is deleted after a night. Result files, verdicts, logs and whatever a baseline needs stay."""

    predictions: int = Field(14, ge=1, description="Nights whose predictions are kept.")


class NightlyConfig(Strict):
    """A nightly. Paths are relative to the folder of the file that they stand in."""

    nightly: Name
    title: str = ""
    history: str = Field("history", description="Folder of the history, or an address that fsspec opens.")
    output: str = Field("nights", description="Folder of the nights: run directories, logs, verdicts.")
    dashboard: str | None = Field("dashboard", description="Folder of the dashboard; null for none.")
    url: str | None = Field(None, description="Where the dashboard is published; the feed and the summary then link to it.")
    suites: list[NightlySuite] = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    budget: Budget = Field(default_factory=Budget)
    baselines: list[Baseline] = Field(
        default_factory=lambda: ["last-good"], min_length=1,
        description="What a night is compared with: `last-good`, `published` (the suite's published figures), `release:NAME`.",
    )  # fmt: skip
    rules: RulesSection = Field(default_factory=RulesSection)
    resamples: int = Field(4000, ge=100, le=1_000_000, description="Of each paired comparison.")
    seed: int = Field(0, ge=0)
    repeat: bool = Field(
        True,
        description="Run a cell whose accuracy dropped, or is back from a regression, a second time, from nothing: confirms it the same night.",
    )
    keep: Keep = Field(default_factory=Keep)

    @model_validator(mode="after")
    def _check(self) -> "NightlyConfig":
        least = 2 / (self.resamples + 1)
        if least > self.rules.alpha:
            enough = int(2 / self.rules.alpha)
            raise ValueError(
                f"'resamples' of {enough} or more with 'rules.alpha: {self.rules.alpha:g}', since {self.resamples} give no p below {least:.2g}"
            )
        if len(set(self.baselines)) < len(self.baselines):
            raise ValueError("each of 'baselines' once")
        return self
