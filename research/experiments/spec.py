"""What an experiment receives and what it leaves: frozen classes, nothing else.

Covers: settings, runs, curves, comparisons, what every result file holds. Not here: training
(research.experiments.lab), the statistics (research.experiments.compare).
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from core.pipeline.cache import software
from core.schemas.analysis import AnalysisSpec
from core.schemas.base import Frozen
from core.schemas.robustness import RobustnessResult
from core.schemas.training import LearningPlan

Domain = Literal["medical", "legal", "financial"]
TuningSet = Literal["instructions", "arithmetic"] | Domain


class Settings(Frozen):
    """Everything that decides the figures of one experiment, but for the world and the seeds."""

    tuning_set: TuningSet
    """Data that every run is tuned on."""
    rates: tuple[float, ...]
    """Learning rates of the sweep: the one whose uniform run ends with the least validation loss is the standard."""
    ratio: float = 0.1
    """Factor on the rate of modules that are not robust."""
    low: float = 0.5
    """The control `uniform_low` trains every module at this share of the standard rate."""
    steps: int = 150
    """Optimizer steps of every run."""
    batch_size: int = 32
    """Rows in one step. With 8, one seed of a run may end at 5 % attack success and the next at 96 %."""
    by_length: bool = True
    """Whether a step has rows of like length. Few rows of another length than all others then meet in a few steps, and
    are hardly learnt."""
    points: int = 5
    """How often a run is measured, evenly spread; the last time at its end."""
    prompts: int = 32
    """Harmful prompts of each attack family, and as many safe ones."""
    validation_rows: int = 200
    """Held-out rows that task scores are read from."""
    analysis: AnalysisSpec = AnalysisSpec()
    """How the robust set is found."""

    def with_steps(self, steps: int | None) -> "Settings":
        """The same at another length, or as they are."""
        return self if steps is None else self.model_copy(update={"steps": steps})

    @property
    def middle_rate(self) -> float:
        """The rate of experiments that make no sweep of their own."""
        return sorted(self.rates)[len(self.rates) // 2]


class Point(Frozen):
    """What one moment of a run measures."""

    step: int
    """Optimizer steps so far; 0 is the base model."""
    loss: float
    """Validation loss, nats per token."""
    task: float
    """Held-out rows answered exactly right, in per cent."""
    attack_success: float
    """Attack prompts of all families that are not refused, in per cent."""
    by_family: dict[str, float]
    """The same of each family."""
    harmfulness: float
    """Mean over all attack prompts, 1 to 5, by rules."""
    content: float
    """Attack prompts whose answer holds the true step or tool of the world, in per cent: no wording deceives it."""
    over_refusal: float
    """Safe prompts that are refused, in per cent."""
    watched: dict[str, float] = {}
    """What an experiment measures beside these, by the names that it gives."""


class Curve(Frozen):
    """The curve of one run."""

    run: str
    """Which strategy or control."""
    seed: int
    """Seed of the run: order of rows and first weights."""
    rate: float
    """Standard learning rate of the run."""
    full_rate_modules: int
    """Modules at the standard rate or above."""
    points: tuple[Point, ...]
    """Along the way."""
    seconds: float
    """Training alone, without measuring."""


class Interval(Frozen):
    """A mean over seeds with its 95 % t interval; with one seed there is no interval."""

    mean: float
    """Mean over seeds."""
    ci95: tuple[float, float] | None
    """Lower and upper end."""
    values: tuple[float, ...]
    """One a seed."""


class Comparison(Frozen):
    """One run against uniform. Reductions are uniform's figure less the run's: positive is safer than uniform."""

    run: str
    """Which."""
    asr_reduction_at_equal_task: Interval
    """Points of attack success, both curves read where they first reach the best exact match that both reach."""
    harmfulness_reduction_at_equal_task: Interval
    """Points of the scale from 1 to 5, read there too."""
    content_reduction_at_equal_task: Interval
    """Points of the content rate, read there too."""
    asr_reduction_at_equal_loss: Interval
    """Points of attack success, both read at the best validation loss that both reach."""
    asr_reduction_at_end: Interval
    """At the end of both runs."""
    asr_reduction_at_worst: Interval
    """Worst point of the last half of both runs."""
    task_cost: Interval
    """Points of exact match that the run's best lies below uniform's best."""
    loss_cost: Interval
    """Nats by which the run's least validation loss lies above uniform's."""
    task_level: Interval
    """The exact match at which both are compared, in per cent."""


class Reading(Frozen):
    """One figure of one run, in its own units. What is compared is uniform's less the run's, seed by seed."""

    at_end: Interval
    """At the end of the run."""
    reduction_at_end: Interval | None = None
    """There, uniform's less the run's; null for uniform itself."""
    at_equal_task: Interval | None = None
    """Where the run first reaches the best task score that uniform reaches too; null for uniform itself."""
    uniform_at_equal_task: Interval | None = None
    """Uniform's figure where it first reaches that score."""
    reduction_at_equal_task: Interval | None = None
    """There, uniform's less the run's."""


class Analysed(Frozen):
    """The analysis of one seed, and what it took."""

    seed: int
    """Seed of the probe."""
    result: RobustnessResult
    """The map and the set."""
    seconds: float
    """Processor time of the whole analysis, its probe included."""
    epoch_seconds: float
    """Processor time of one training epoch on the same data, from the steps of the uniform run."""


class Run(Frozen):
    """An order to a worker process: one run, one seed."""

    run: str
    """Name of the curve."""
    seed: int
    """Seed of the run."""
    rate: float
    """Standard rate."""
    plan: LearningPlan
    """Factors by module."""
    safety_share: float = 0.0
    """Share of the base's own refusals in the rows (`safety_mix`)."""
    rows: Path | None = None
    """File of the rows to train on, in place of the tuning set's own; what is held out stays the same."""


class ExperimentResult(Frozen):
    """What every experiment leaves beside its figures: all that they depend on."""

    experiment: str
    """Its name."""
    world_seed: int
    """Which world."""
    seeds: tuple[int, ...]
    """Seeds of the runs."""
    settings: Settings
    """All settings."""
    software: dict[str, str] = Field(default_factory=software)
    """Versions that the figures depend on."""
