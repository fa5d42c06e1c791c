"""A robustness map as in a job, for experiments that have the model and the rows in memory.

Not here: the analysis (core.robustness), which models and rows there are (research.experiments.lab, research.real.lab).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

from peft import PeftModel

from core.data.encoded import Encoded
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.robustness.analyse import EarlyStop, analyse
from core.schemas.analysis import AnalysisSpec, ProbeSpec
from core.schemas.prompts import ProbePrompts
from core.schemas.robustness import RobustnessResult
from core.schemas.training import TrainingSpec
from core.training.probe import probe
from research import ignore


def compute_map(
    base: BaseModel,
    modules: Sequence[Module],
    rows: Sequence[Encoded],
    analysis: AnalysisSpec,
    *,
    prompts: ProbePrompts,
    training: TrainingSpec,
    rate: float,
) -> RobustnessResult:
    """The map, with probes of this learning rate; its seed is that of `training`."""

    def train_probe(wanted: ProbeSpec, seed: int, early_stop: EarlyStop) -> AbstractContextManager[PeftModel]:
        return probe(
            base,
            modules,
            rows,
            training,
            wanted,
            seed=seed,
            learning_rate=rate,
            early_stop=early_stop,
            on_step=ignore,
        )

    return analyse(
        base,
        modules,
        analysis.model_copy(update={"seed": training.seed}),
        prompts,
        rows[: analysis.rows],
        train_probe=train_probe,
        on_prepare=ignore,
        on_progress=ignore,
    )
