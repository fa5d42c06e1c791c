"""What benchmarks of models share: random models, training steps and probes with nothing but time to report.

Not here: what is compared (research.bench.training, research.bench.analysis, research.bench.large).
"""

import time
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from core.data.encoded import Encoded
from core.lm.adapter import attached
from core.lm.load import BaseModel
from core.lm.modules import Module
from core.schemas.analysis import SwapPerturbation
from core.schemas.results import TrainedStep
from core.schemas.training import LearningPlan, TrainingSpec
from core.training.loop import Objective, next_token_loss, train
from core.training.probe import probe
from research.bench.figures import ignore


def random_llama(base: BaseModel, device: torch.device, **shape: float) -> PreTrainedModel:
    """A Llama of this shape with random weights and the special tokens of `base`, in bfloat16 on a GPU."""
    config = AutoConfig.for_model(
        "llama", **shape, pad_token_id=base.pad_id, bos_token_id=None, eos_token_id=base.stop_ids[0]
    )
    with torch.random.fork_rng(), device:
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16 if device.type == "cuda" else torch.float32
        )
    if not isinstance(model, PreTrainedModel):
        raise TypeError(type(model).__name__)
    return model.requires_grad_(False).eval()


def learning_plan(modules: Sequence[Module], full_rate: Collection[str], ratio: float) -> LearningPlan:
    """The full rate for these modules, `ratio` of it for all others."""
    scales = {module.name: 1.0 if module.name in full_rate else ratio for module in modules}
    return LearningPlan(strategy="bench", scales=scales)


def step_seconds(
    base: BaseModel,
    modules: tuple[Module, ...],
    rows: Sequence[Encoded],
    plan: LearningPlan,
    spec: TrainingSpec,
    *,
    learning_rate: float,
    settling: int,
    objective: Objective = next_token_loss,
) -> tuple[float, float]:
    """Wall and processor seconds of a training step, without the first `settling` steps."""
    moments: list[tuple[float, float]] = []

    def record(_step: TrainedStep, _total: int) -> None:
        moments.append((synchronised_now(base.device), time.process_time()))

    with attached(base.model, modules, spec.lora, seed=0) as tuned:
        train(
            tuned,
            rows,
            plan,
            spec,
            learning_rate=learning_rate,
            pad_id=base.pad_id,
            on_step=record,
            objective=objective,
        )
    first, last = moments[settling - 1], moments[-1]
    measured = len(moments) - settling
    return (last[0] - first[0]) / measured, (last[1] - first[1]) / measured


def whole_probe(
    base: BaseModel,
    modules: Sequence[Module],
    rows: Sequence[Encoded],
    spec: TrainingSpec,
    *,
    steps: int,
    learning_rate: float,
) -> AbstractContextManager[PeftModel]:
    """A probe that runs to its end."""
    return probe(
        base,
        modules,
        rows,
        spec,
        SwapPerturbation(steps=steps),
        seed=0,
        learning_rate=learning_rate,
        early_stop=lambda *_: False,
        on_step=ignore,
    )


def synchronised_now(device: torch.device) -> float:
    """Wall seconds, once the device has done everything that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
