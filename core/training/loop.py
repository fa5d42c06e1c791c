"""The one training loop: AdamW over an adapter, with a learning rate for each module.

Modules with factor 0 ask for no gradient. On a CPU the same inputs give the same adapter, bit for bit.
Not here: what the factors are (strategies), saving (core.lm.adapter), checkpoints, accumulation.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from peft import PeftModel
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from core.data.batches import Batch, collate, epoch_batches
from core.data.template import Encoded
from core.errors import TrainingFailed
from core.spec.results import TrainedStep
from core.spec.training import DEFAULT_EPOCHS, LearningPlan, TrainingSpec
from core.training.groups import by_scale_of
from core.training.schedule import factor

_MOST_POINTS = 500

OnStep = Callable[[TrainedStep, int], None]
"""Called after every step with the step and the number of steps in all; may raise to stop."""


@dataclass(frozen=True)
class Trained:
    """What one run did."""

    steps: int
    curve: tuple[TrainedStep, ...]
    trainable_parameters: int
    seconds: float


def total_steps(spec: TrainingSpec, rows: int) -> int:
    """Optimizer steps of a run over so many rows; the last batch of a pass may be smaller, and is a step too."""
    if spec.steps is not None:
        return spec.steps
    return math.ceil((spec.epochs or DEFAULT_EPOCHS) * math.ceil(rows / spec.batch_size))


def logged(step: int, total: int) -> bool:
    """Whether the curve keeps a step: the first, the last, and even ones between, 500 at most."""
    stride = math.ceil(total / (_MOST_POINTS - 1))
    return step % stride == 0 or step in (1, total)


def train(
    tuned: PeftModel,
    rows: Sequence[Encoded],
    plan: LearningPlan,
    spec: TrainingSpec,
    *,
    learning_rate: float,
    pad_id: int,
    on_step: OnStep,
) -> Trained:
    """Train the adapter in place.

    Raises:
        TrainingFailed: code `loss_not_finite`, when the loss or a gradient is no number any more.
    """
    total = total_steps(spec, len(rows))
    by_scale = by_scale_of(tuned, plan)
    trained = [parameter for group in by_scale.values() for parameter in group]
    optimizer = AdamW(
        [{"params": group, "lr": learning_rate * scale} for scale, group in by_scale.items()],
        weight_decay=spec.weight_decay,
    )
    scheduler = LambdaLR(optimizer, lambda step: factor(spec.schedule, step, total, spec.warmup_share))
    curve: list[TrainedStep] = []
    started = time.monotonic()
    tuned.train()
    with torch.random.fork_rng():
        torch.manual_seed(spec.seed)
        for step, batch in enumerate(islice(_batches(rows, spec, pad_id), total), start=1):
            rate = learning_rate * factor(spec.schedule, step - 1, total, spec.warmup_share)
            loss = _step(tuned, batch.to(tuned.device), optimizer, trained, spec.max_grad_norm)
            if not math.isfinite(loss):
                raise TrainingFailed(
                    f"The loss is no finite number any more at step {step} of {total}. A smaller learning rate than "
                    f"{learning_rate:g} or a longer warm-up usually helps.",
                    code="loss_not_finite",
                    param="training.learning_rate",
                )
            scheduler.step()
            point = TrainedStep(step=step, loss=loss, learning_rate=rate)
            if logged(step, total):
                curve.append(point)
            on_step(point, total)
    tuned.eval()
    return Trained(total, tuple(curve), sum(p.numel() for p in trained), time.monotonic() - started)


def _batches(rows: Sequence[Encoded], spec: TrainingSpec, pad_id: int) -> Iterator[Batch]:
    for epoch in count():
        for indices in epoch_batches(len(rows), spec.batch_size, seed=spec.seed, epoch=epoch):
            yield collate([rows[index] for index in indices], pad_id)


def _step(
    tuned: PeftModel, batch: Batch, optimizer: AdamW, trained: list[torch.nn.Parameter], max_grad_norm: float
) -> float:
    optimizer.zero_grad(set_to_none=True)
    loss = tuned(input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels).loss
    loss.backward()
    norm = clip_grad_norm_(trained, max_grad_norm)
    if torch.isfinite(norm):
        optimizer.step()
        return loss.item()
    return math.nan
