"""Used by the checkpoint tests: trains the testbed with all options on, and is killed during the run.

Run as a program, it trains in a store that is named, and ends itself with SIGKILL after a step.
"""

import os
import signal
import sys
from pathlib import Path
from statistics import mean

import torch

from core.catalog import TESTBED
from core.lm.adapter import attached, save
from core.lm.load import BaseModel, load
from core.lm.modules import find_modules
from core.quality.loss import row_losses
from core.schemas.results import TrainedStep
from core.schemas.training import LearningPlan, LoraSpec, TrainingSpec
from core.storage import ArtifactStore
from core.training.checkpoint import Checkpoints
from core.training.kept import LAST_WEIGHTS, EndWeights
from core.training.loop import OnStep, Trained, train
from tests.core.helpers import encoded, ignore

KEY = "jobs/a/checkpoints/arm-0.safetensors"
SPEC = TrainingSpec(
    steps=14,
    batch_size=4,
    micro_batch_size=3,
    group_by_length=True,
    validate_every=2,
    patience=6,
    checkpoint_every=3,
    weight_decay=0.01,
    lora=LoraSpec(rank=2, alpha=4, dropout=0.2),
)


def plan(base: BaseModel) -> LearningPlan:
    """Three rates, and a warm-up of five steps with the last module frozen; another module is frozen after it."""
    names = [module.name for module in find_modules(base.model)]
    scales = {name: (1.0, 0.1, 1.0)[number % 3] for number, name in enumerate(names)}
    return LearningPlan(
        strategy="test",
        scales=scales | {names[0]: 0.0},
        warmup_scales=scales | {names[-1]: 0.0},
        warmup_ratio=0.35,
    )


def trained(
    base: BaseModel,
    folder: Path,
    on_step: OnStep,
    *,
    spec: TrainingSpec = SPEC,
    rate: float = 5e-3,
    store: Path | None = None,
    end_weights: EndWeights = LAST_WEIGHTS,
    forgetting: bool = False,
) -> Trained:
    """Train a fresh adapter and save it in `folder`. Checkpoints go to `store`, if there is one.

    The drift is that of two training rows, which falls; `forgetting` turns its sign.
    """
    sign = -1 if forgetting else 1
    rows, rates, modules = encoded(base, 18), plan(base), find_modules(base.model)
    checkpoints = Checkpoints(ArtifactStore(store), KEY) if store else None
    with attached(base.model, modules, spec.lora, seed=spec.seed) as tuned:
        done = train(
            tuned,
            rows[:13],
            rates,
            spec,
            learning_rate=rate,
            pad_id=base.pad_id,
            on_step=on_step,
            validation=rows[13:],
            refusal_nll=lambda model: sign * mean(row_losses(base, model, rows[:2], on_progress=ignore)),
            end_weights=end_weights,
            checkpoints=checkpoints,
        )
        save(tuned, base, folder)
    return done


def main(store: Path, last: int) -> None:
    """Train until a step is done, then get killed."""
    torch.set_num_threads(1)

    def reported(step: TrainedStep, _total: int) -> None:
        if step.step == last:
            os.kill(os.getpid(), signal.SIGKILL)

    trained(load(TESTBED, torch.device("cpu")), store / "never", reported, store=store)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
