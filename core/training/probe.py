"""The probe run of a robustness analysis: a temporary adapter, trained for a few steps like the job.

Covers: a short run with the standard rate for every module, which may end early. Not here: what is measured on it
(core.robustness).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from peft import PeftModel
from torch import nn

from core.data.encoded import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.meter import Meter
from core.schemas.results import TrainedStep
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.training import loop
from core.training.strategies import plan

ROWS = 12
"""Maximum rows per step. Steps of 32 rows do not separate circuits better (research/experiments/README.md)."""


class _Stopped(Exception):
    """The probe ends here."""


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
    meter: Meter | None = None,
) -> Iterator[PeftModel]:
    """The base model with the trained probe, in eval mode. The base model is unchanged when the context ends.

    It has at most `steps` steps, and never more than the job. Of the schedule in the job's settings, only the warm-up
    applies; validation is left out, and a step has at most `ROWS` rows. `seed` decides the order of rows and the
    initial weights. `early_stop` is called with (model, step) after `on_step`, and the probe ends when it returns True.
    `meter` counts the work.
    """
    short = spec.model_copy(
        update={
            "steps": min(steps, spec.total_steps(len(rows))),
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
                raise _Stopped

        with suppress(_Stopped):
            loop.train(
                tuned,
                rows,
                plan(UniformStrategy(), modules, None),
                short,
                learning_rate=learning_rate,
                pad_id=base.pad_id,
                on_step=watched,
                meter=meter,
            )
        tuned.zero_grad(set_to_none=True)
        yield tuned.eval()
