"""The probe of a robustness analysis: a throw-away adapter, tuned for a few steps as the job will be.

Covers: one short run at the full standard rate for every module, that may end early. Not here: what is read from it
(core.robustness).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from peft import PeftModel
from torch import nn

from core.data.template import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.schemas.results import TrainedStep
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.training import loop
from core.training.strategies import plan

ROWS = 12
"""Rows in one of its steps at most: an experiment's own 32 tell circuits apart no better (its README)."""


class _EnoughSeen(Exception):
    """The probe may end here."""


@contextmanager
def probe(
    base: BaseModel,
    modules: Sequence[Module],
    rows: Sequence[Encoded],
    spec: TrainingSpec,
    *,
    steps: int,
    seed: int,
    learning_rate: float,
    early_stop: Callable[[nn.Module, int], bool],
    on_step: loop.OnStep,
) -> Iterator[PeftModel]:
    """The base with the tuned probe on it; the base is as before afterwards.

    Args:
        base: the model.
        modules: those that get an update.
        rows: the job's training rows.
        spec: the job's training; of its schedule only the warm-up is kept, its length and validation are left out, and
            a step has at most `ROWS` rows.
        steps: steps at most; never more than the job's own.
        seed: decides the order of rows and the first weights.
        learning_rate: the standard rate.
        enough: asked after each step; ends the probe when it says so.
        on_step: hears of each step first.
    """
    short = spec.model_copy(
        update={
            "steps": min(steps, loop.total_steps(spec, len(rows))),
            "epochs": None,
            "batch_size": min(spec.batch_size, ROWS),
            "seed": seed,
            "schedule": "constant",
            "validate_every": None,
            "patience": None,
        }
    )
    with attached(base.model, modules, spec.lora, seed=seed) as tuned:

        def watched(step: TrainedStep, total: int) -> None:
            on_step(step, total)
            if early_stop(tuned, step.step):
                raise _EnoughSeen

        with suppress(_EnoughSeen):
            loop.train(
                tuned,
                rows,
                plan(UniformStrategy(), modules, None),
                short,
                learning_rate=learning_rate,
                pad_id=base.pad_id,
                on_step=watched,
            )
        tuned.zero_grad(set_to_none=True)
        yield tuned.eval()
