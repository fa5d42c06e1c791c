"""The training loop: AdamW on an adapter or on a model's own modules, with a learning rate for each module.

Modules with factor 0 need no gradient, and the backward pass ends at the lowest trained module. On a CPU the same
inputs give the same weights bit for bit, even if the run was interrupted and resumed from a checkpoint.
Covers: gradient accumulation and clipping, bfloat16, validation, early stopping, refusal drift during training, when a
checkpoint is saved. Not here: the factors (strategies), the passes of a batch (gradients), which weights the run ends
with (kept), objectives of safeguards (core.safeguards), saving the trained weights (core.lm), several GPUs.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW

from core.data.encoded import Encoded
from core.data.order import batches_from, micro_batches, padded_tokens
from core.lm.precision import uses_bfloat16
from core.meter import Meter
from core.schemas.results import SecurityStep, TrainedStep, ValidatedStep
from core.schemas.training import LearningPlan, TrainingSpec
from core.training import watch
from core.training.checkpoint import Checkpoints, Position, collect_tensors, restore
from core.training.gradients import Objective, Passes, next_token_loss
from core.training.idle import enable_all_adapters
from core.training.kept import LAST_WEIGHTS, EndWeights, KeptWeights
from core.training.rates import Rates, Tuned

_MAX_POINTS = 500
_SECONDS_BETWEEN_CHECKPOINTS = 600.0
_DRIFT_MEASUREMENTS = 20
"""Number of refusal drift measurements during a run."""

OnStep = Callable[[TrainedStep, int], None]
"""Called after every step with (step, total number of steps). It may raise to stop the run."""
RefusalNll = Callable[[nn.Module], float]
"""Returns the negative log-likelihood of the base model's own first answer tokens to harmful probe prompts, in nats per
token."""


@dataclass(frozen=True)
class Trained:
    """The result of a training run."""

    steps: int
    curve: tuple[TrainedStep, ...]
    trainable_parameters: int
    seconds: float
    validation: tuple[ValidatedStep, ...] = ()
    security: tuple[SecurityStep, ...] = ()
    best_step: int | None = None
    end_step: int = 0
    """Step that the weights are from."""
    stopped_early: bool = False


def is_logged(step: int, total: int) -> bool:
    """Whether the curve contains a step: the first, the last, and evenly spaced ones, at most 500."""
    stride = math.ceil(total / (_MAX_POINTS - 1))
    return step % stride == 0 or step in (1, total)


def train(
    tuned: Tuned,
    rows: Sequence[Encoded],
    plan: LearningPlan,
    spec: TrainingSpec,
    *,
    learning_rate: float,
    pad_id: int,
    on_step: OnStep,
    objective: Objective = next_token_loss,
    validation: Sequence[Encoded] = (),
    refusal_nll: RefusalNll | None = None,
    end_weights: EndWeights = LAST_WEIGHTS,
    checkpoints: Checkpoints | None = None,
    meter: Meter | None = None,
) -> Trained:
    """Train `tuned` in place.

    `validation` are the rows for `spec.validate_every`. `refusal_nll` is measured before the first step, about 20 times
    during the run, and at the end. `end_weights` decides which weights `tuned` has at the end. Without `checkpoints`,
    none is stored. `meter` counts the work.

    Raises:
        TrainingFailed: code `loss_not_finite`, the loss or a gradient became NaN or infinite; `loss_exploded`, the loss
            stays far above the first one; `nothing_to_train`; `no_safe_weights`, see `EndWeights.safe_step`.
    """
    if end_weights.max_refusal_drift is not None and (refusal_nll is None or spec.patience is not None):
        raise ValueError("a bound on the refusal drift needs refusal_nll, and cannot be combined with patience")
    rows_per_pass = spec.micro_batch_size or spec.batch_size
    run = _Run(
        tuned,
        plan,
        spec,
        len(rows),
        learning_rate,
        Passes(tuned, objective, pad_id, rows_per_pass, uses_bfloat16(tuned)),
        validation,
        refusal_nll,
        end_weights,
        checkpoints,
        meter or Meter(),
    )
    with torch.random.fork_rng(devices=[tuned.device] if tuned.device.type == "cuda" else []):
        torch.manual_seed(spec.seed)
        run.resume()
        for chosen in batches_from(run.at.step, rows, spec.batch_size, seed=spec.seed, by_length=spec.group_by_length):
            if run.over:
                break
            on_step(run.step(chosen), run.total)
    return run.end()


@dataclass
class _Run:
    """The inputs and the state of one run."""

    tuned: Tuned
    plan: LearningPlan
    spec: TrainingSpec
    rows: int
    learning_rate: float
    passes: Passes
    validation: Sequence[Encoded]
    refusal_nll: RefusalNll | None
    end_weights: EndWeights
    checkpoints: Checkpoints | None
    meter: Meter
    at: Position = field(default_factory=Position)

    def __post_init__(self) -> None:
        self.total = self.spec.total_steps(self.rows)
        self._rates = Rates(self.tuned, self.plan, self.spec, total=self.total, rate=self.learning_rate)
        self._trained = list(self._rates.parameters.values())
        # Fused: one call per group instead of several per parameter, so many learning rates cost no more than one.
        self._optimizer = AdamW(self._rates.groups, weight_decay=self.spec.weight_decay, fused=True)
        self._rates.attach(self._optimizer)
        self._kept = KeptWeights(self._rates.parameters, self.end_weights.decay)
        self._began = self._saved = time.monotonic()
        self.tuned.train()

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return (
            self.at.step >= self.total
            or self.at.patience_ended(self.spec.patience)
            or self.end_weights.patience_ended(self.at.security)
        )

    def resume(self) -> None:
        """Resume from the checkpoint, if there is one."""
        if self.checkpoints and (found := self.checkpoints.load()):
            self.at, tensors = found
            restore(tensors, self._rates.parameters, self._optimizer, self.tuned.device)
            self._kept.restore(tensors)
        self._measure_drift()

    def step(self, chosen: Sequence[Encoded]) -> TrainedStep:
        """Do one step on these rows, and the measurements that are due after it."""
        step = self.at.step + 1
        rate = self._rates.apply(self._optimizer, step)
        with self._measure_training(chosen):
            loss = self._move(chosen)
        self._kept.follow()
        watch.check_finite(loss, step=step, total=self.total, rate=self.learning_rate)
        self.at.first_loss = loss if step == 1 else self.at.first_loss
        self.at.above = watch.count_steps_far_above(
            loss, first=self.at.first_loss, before=self.at.above, step=step, total=self.total, rate=self.learning_rate
        )
        self.at.step = step
        point = TrainedStep(step=step, loss=loss, learning_rate=rate, validation_loss=self._validate())
        if is_logged(step, self.total):
            self.at.curve.append(point)
        self._measure_drift()
        self._checkpoint()
        return point

    def end(self) -> Trained:
        """Put the model into eval mode, with the weights that the run ends with."""
        best = self.at.best if self.spec.patience is not None else None
        end_step = self.end_weights.safe_step(self.at.security) or (best.step if best else self.at.step)
        self._kept.finish()
        self._optimizer.zero_grad(set_to_none=True)
        enable_all_adapters(self.tuned)
        self.tuned.eval()
        return Trained(
            steps=self.at.step,
            curve=tuple(self.at.curve),
            trainable_parameters=sum(parameter.numel() for parameter in self._trained),
            seconds=self._seconds(),
            validation=tuple(self.at.validation),
            security=tuple(self.at.security),
            best_step=self.at.best.step if self.at.best else None,
            end_step=end_step,
            stopped_early=self.at.step < self.total,
        )

    def _measure_training(self, chosen: Sequence[Encoded]) -> AbstractContextManager[None]:
        parts = micro_batches(chosen, self.spec.micro_batch_size)
        return self.meter.measure(
            "train",
            calls=len(parts),
            amount=sum(map(padded_tokens, parts)),
            precision="bfloat16" if self.passes.half else "float32",
            method=self.spec.method,
        )

    def _move(self, chosen: Sequence[Encoded]) -> float:
        """Accumulate gradients of all micro-batches and do an optimizer step. Returns the loss before the step."""
        self._optimizer.zero_grad(set_to_none=True)
        loss = self.passes.accumulate(chosen)
        norm = clip_grad_norm_(self._trained, self.spec.max_grad_norm)
        if torch.isfinite(norm):
            self._optimizer.step()
            return loss.item()
        return math.nan

    def _validate(self) -> float | None:
        """The loss on the validation rows if it is due."""
        every = self.spec.validate_every
        if every is None or not self.validation or (self.at.step % every and self.at.step != self.total):
            return None
        tokens = sum(len(row.input_ids) for row in self.validation)
        with self.meter.measure("read", calls=len(self.validation), amount=tokens), self._as_kept():
            loss = self.passes.held_out_loss(self.validation)
        watch.check_finite(loss, step=self.at.step, total=self.total, rate=self.learning_rate)
        self.at.validation.append(ValidatedStep(step=self.at.step, loss=loss))
        if self.spec.patience is not None and self.at.best is self.at.validation[-1]:
            self._kept.keep()
        return loss

    def _measure_drift(self) -> None:
        """Measure refusal drift if it is due. A resumed run repeats no measurement."""
        step, every = self.at.step, math.ceil(self.total / _DRIFT_MEASUREMENTS)
        known = bool(self.at.security) and self.at.security[-1].step == step
        if self.refusal_nll is None or known or not (step % every == 0 or step == self.total):
            return
        with self._as_kept(), self.passes.autocast():
            found = self.refusal_nll(self.tuned)
        if step == 0:
            self.at.refusal_nll = found
        if math.isfinite(found):
            self.at.security.append(SecurityStep(step=step, refusal_drift=found - self.at.refusal_nll))
            if self.end_weights.is_safe(self.at.security[-1]):
                self._kept.keep()

    @contextmanager
    def _as_kept(self) -> Iterator[None]:
        """The model in eval mode, with the weights that would be kept."""
        self.tuned.eval()
        with self._kept.measured():
            yield
        self.tuned.train()

    def _checkpoint(self) -> None:
        if not self.checkpoints or self.over:
            return
        every = self.spec.checkpoint_every
        if self.at.step % every if every else time.monotonic() - self._saved < _SECONDS_BETWEEN_CHECKPOINTS:
            return
        self.at.seconds = self._seconds()
        self._began = self._saved = time.monotonic()
        tensors = collect_tensors(self._rates.parameters, self._optimizer, self.tuned.device)
        self.checkpoints.save(self.at, tensors | self._kept.collect())

    def _seconds(self) -> float:
        return self.at.seconds + time.monotonic() - self._began
