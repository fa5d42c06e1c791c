"""Training from scratch: updates all weights of a model in place on freshly drawn rows.

Covers: an endless stream of batches with rows of similar length, one stage of training, noise on the weights during
training. Not here: the rows (testbed.mixtures), LoRA and learning rates by module (core.training).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import typer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from core.data.batches import Batch, collate
from core.data.rows import Conversation
from core.data.template import RowEncoder
from core.training.schedule import factor
from testbed.mixtures import Row
from testbed.tokenizer import CONTEXT, PAD
from testbed.world import generator

WARMUP_RATIO = 0.05
POOL = 16
"""Number of batches that are drawn at once and sorted by length, which saves padding."""
NOISE_FREE_STEPS = 100
"""Steps at the start of a stage without noise."""
REPORT_EVERY = 100
"""Steps between two lines of progress."""

DrawRow = Callable[[], Row]


@dataclass(frozen=True)
class Stage:
    """One stage of training."""

    name: str
    steps: int
    learning_rate: float
    """Peak learning rate: after the warm-up, before the cosine decay."""
    batch_size: int = 32
    weight_decay: float = 0.01
    weight_noise: float = 0.0
    """Standard deviation of the Gaussian noise on each matrix during a step's gradient, relative to that of the matrix.

    Behaviour learnt under noise survives small changes of the weights (research/experiments/README.md, alignment under
    noise).
    """


def run_stage(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, stage: Stage, draw_row: DrawRow) -> float:
    """Train `model` on freshly drawn rows, and print progress to stderr.

    Returns the mean loss of the last tenth of the steps, in nats per token.
    """
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=stage.learning_rate, betas=(0.9, 0.98), weight_decay=stage.weight_decay, fused=True
    )
    losses: list[float] = []
    batches = _batches(tokenizer, stage.batch_size, draw_row)
    for step in range(stage.steps):
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * factor("cosine", step, stage.steps, WARMUP_RATIO)
        batch = next(batches)
        with _noise(model, stage.weight_noise if step >= NOISE_FREE_STEPS else 0.0):
            # Padding is on the right and attention is causal, so a mask is not needed, and it is faster without one.
            loss = model(input_ids=batch.input_ids, labels=batch.labels).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if (step + 1) % REPORT_EVERY == 0:
            typer.echo(f"{stage.name}: step {step + 1} of {stage.steps}, loss {losses[-1]:.3f}", err=True)
    model.eval()
    tail = losses[-max(1, stage.steps // 10) :]
    return sum(tail) / len(tail)


@contextmanager
def _noise(model: PreTrainedModel, share: float) -> Iterator[None]:
    """Add noise to the matrices of the model; the exit restores the weights exactly."""
    if not share:
        yield
        return
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    clean = [matrix.detach().clone() for matrix in matrices]
    with torch.no_grad():
        for matrix in matrices:
            matrix.add_(torch.randn_like(matrix) * (share * matrix.std()))
    yield
    with torch.no_grad():
        for matrix, original in zip(matrices, clean, strict=True):
            matrix.copy_(original)


def _batches(tokenizer: PreTrainedTokenizerFast, size: int, draw_row: DrawRow) -> Iterator[Batch]:
    """Yield batches without end; the rows of a batch have similar lengths."""
    pad_id = tokenizer.get_vocab()[PAD]
    order = generator("batches", 0)
    while True:
        drawn = (Conversation(draw_row(), line) for line in range(1, size * POOL + 1))
        rows = sorted(RowEncoder(tokenizer, max_length=CONTEXT).encode(drawn), key=lambda row: len(row.input_ids))
        starts = list(range(0, len(rows), size))
        order.shuffle(starts)
        for start in starts:
            yield collate(rows[start : start + size], pad_id)
