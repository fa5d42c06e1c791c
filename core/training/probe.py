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
from core.schemas.analysis import ProbeSpec
from core.schemas.results import TrainedStep
from core.schemas.strategy import UniformStrategy
from core.schemas.training import TrainingSpec
from core.training import loop
from core.training.strategies import plan


class _Stopped(Exception):
    """The probe ends here."""


@contextmanager
def probe(
    base: BaseModel,
    modules: Sequence[Module],
    rows: Sequence[Encoded],
    spec: TrainingSpec,
    wanted: ProbeSpec,
    *,
    seed: int,
    learning_rate: float,
    early_stop: Callable[[nn.Module, int], bool],
    on_step: loop.OnStep,
    meter: Meter | None = None,
) -> Iterator[PeftModel]:
    """The base model with the trained probe, in eval mode. The base model is unchanged when the context ends.

    Its settings are those of `TrainingSpec.for_probe`. `early_stop` is called with (model, step) after `on_step`, and
    the probe ends when it returns True. `meter` counts the work.
    """
    short = spec.for_probe(wanted, seed=seed, rows=len(rows))
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
