"""Ranks rows by how much training on them pulls against the base model's safety, before anything is trained.

What is pulled against is the base's certainty of its first word, which on harmful prompts is that of a refusal, less
the same on benign prompts: a row that unsettles both merely teaches other words. The gradient of that by all modules'
weights is a direction, and a row's pull is how fast the loss of its answer's first words falls along it: to first
order, what a step on the row does to the certainty. So gradients of rows are never needed: two forward passes over the
rows' beginnings, one a little way along, one against, and their difference.

Sources: gradients that agree, Pruthi et al. 2020; anchors on both sides, and first tokens alone, He et al. 2024 ("What
is in your safe data?"), whose anchors are harmful answers, which nobody has for every model. Certainty is the
cross-entropy with the uniform distribution, so that it falls whatever takes a refusal's place. The likelihood of the
refusals will not do: they are certain already, and what is left of its gradient says which refusal, not whether.

The direction is kept as factors of small rank in an adapter: the weights are never touched, whatever they are kept in.
Not here: what becomes of the rows (core.schemas.screening), what training does to modules (core.robustness).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.lora.layer import ParamWrapper
from torch import Tensor, nn

from core.data.batches import collate
from core.data.template import IGNORED, Encoded
from core.errors import InvalidInput
from core.lm.adapter import attached, choose, factors, lora_layers
from core.lm.load import BaseModel
from core.lm.loss import batch_losses
from core.lm.modules import Module
from core.schemas.progress import OnProgress
from core.schemas.prompts import ProbePrompts
from core.schemas.training import LoraSpec
from core.screening.reading import batches, next_words, prompt_tokens

FIRST_TOKENS = 4
"""So many tokens of a row's answer count: what comes later hangs on the task, not on whether there is an answer."""
_RANK = LoraSpec(rank=8, alpha=8)
"""Of the direction's factors. A gradient over some hundred prompts has hardly more (a test holds it to the whole)."""
_MOVED = 1.0
"""Certainty is moved by so many nats each way: far above rounding in bfloat16, near enough for a slope."""

_Prompts = Sequence[list[int]]


def pulls(
    base: BaseModel,
    modules: Sequence[Module],
    rows: Sequence[Encoded],
    prompts: ProbePrompts,
    *,
    on_progress: OnProgress,
) -> list[float]:
    """The pull of each row, in their order: nats per token and unit of movement, positive against safety.

    Only pulls of one model and one set of prompts are comparable, and they say something only of a model that refuses.
    The base is as before afterwards, also when `tick`, which hears of rows passed over (each twice), raises to stop.

    Args:
        base: the model that would be tuned.
        modules: those that would get an update; routers and experts' weights are left out.
        rows: rows in tokens.
        prompts: harmful ones, which the base refuses, and benign ones, which it answers.
        tick: called often.

    Raises:
        InvalidInput: code `pull_unsupported`; the base has no modules that can be moved, or none that matter.
    """
    total = 2 * len(rows)
    on_progress(0, total)
    if not rows:
        return []
    probes = [prompt_tokens(base, texts) for texts in (prompts.harmful, prompts.benign)]
    with attached(base.model, choose(modules, _RANK), _RANK, seed=0) as tuned:
        tuned.eval().requires_grad_(False)
        direction = _Direction.of(base, tuned, probes, lambda: on_progress(0, total))
        step = _MOVED / direction.slope
        direction.go(step)
        ahead = _losses(base, tuned, rows, lambda done: on_progress(done, total))
        direction.go(-step)
        behind = _losses(base, tuned, rows, lambda done: on_progress(len(rows) + done, total))
    on_progress(total, total)
    return [(back - there) / (2 * step) for there, back in zip(ahead, behind, strict=True)]


@dataclass(frozen=True)
class _Direction:
    """The unit direction in which the certainty falls fastest, as factors B (orthonormal columns) and A of each map."""

    ways: tuple[tuple[nn.Parameter, Tensor], ...]
    """The adapter's A and the direction's, `rank inputs`; the adapter's B holds the direction's already."""
    slope: float
    """How fast it falls along it at first, in nats."""

    @classmethod
    def of(cls, base: BaseModel, tuned: PeftModel, asked: Sequence[_Prompts], tell: Callable[[], None]) -> "_Direction":
        """The gradient's best factors of small rank, by one random sketch of it (Halko et al. 2011, algorithm 4.1).

        With B zero, the gradient by B is the whole gradient times the random A; with A zero and B an orthonormal basis
        of that, the gradient by A is what the basis holds of it. Either way the model answers as the base does.
        """
        pairs = [
            pair
            for layer in lora_layers(tuned).values()
            if not isinstance(layer, ParamWrapper)  # experts' own factors are stacked, and make no one basis
            for pair in factors(layer)
        ]
        if not pairs:
            raise InvalidInput(
                "Rows cannot be ranked by their pull on this base model: all of its modules are experts' weights. Set "
                "screening.pull to off.",
                code="pull_unsupported",
                param="screening.pull",
            )
        sketch = _gradients(base, tuned, [b for _, b in pairs], asked, tell)
        with torch.no_grad():
            for (a, b), columns in zip(pairs, sketch, strict=True):
                basis, _ = torch.linalg.qr(columns)
                b.zero_()[:, : basis.shape[1]] = basis
                a.zero_()
        found = _gradients(base, tuned, [a for a, _ in pairs], asked, tell)
        slope = float(torch.sqrt(sum((each.square().sum() for each in found), torch.zeros((), device=base.device))))
        if not slope > 0:
            raise InvalidInput(
                "Rows cannot be ranked by their pull: nothing in the base model's modules changes how it begins its "
                "answers. Set screening.pull to off.",
                code="pull_unsupported",
                param="screening.pull",
            )
        return cls(tuple((a, each / slope) for (a, _), each in zip(pairs, found, strict=True)), slope)

    @torch.no_grad()
    def go(self, distance: float) -> None:
        """Put the model so far along, from where it began."""
        for a, way in self.ways:
            a.copy_(way * distance)


def _gradients(
    base: BaseModel,
    tuned: PeftModel,
    wanted: Sequence[nn.Parameter],
    asked: Sequence[_Prompts],
    tell: Callable[[], None],
) -> list[Tensor]:
    """Minus the gradient by `wanted` of the certainty on harmful prompts less that on benign ones, float32, in nats."""
    sums = [torch.zeros_like(each, dtype=torch.float32) for each in wanted]
    for each in wanted:
        each.requires_grad_(True)
    with torch.enable_grad():
        for sign, prompts in zip((-1.0, 1.0), asked, strict=True):
            for places in batches(base, [len(prompt) for prompt in prompts]):
                tell()
                value = sign * _certainty(base, tuned, [prompts[place] for place in places]).sum() / len(prompts)
                for whole, part in zip(sums, torch.autograd.grad(value, wanted), strict=True):
                    whole.add_(part)
    for each in wanted:
        each.requires_grad_(False)
    return sums


def _certainty(base: BaseModel, model: nn.Module, prompts: _Prompts) -> Tensor:
    """How far the first word stands out: cross-entropy of the uniform distribution with the model's, `batch`, nats."""
    return -next_words(base, model, prompts).mean(-1)


def _losses(base: BaseModel, model: nn.Module, rows: Sequence[Encoded], tell: Callable[[int], None]) -> list[float]:
    """Mean loss of each row's first trained tokens."""
    losses = [0.0] * len(rows)
    begun = [_begun(row) for row in rows]
    done = 0
    for places in batches(base, [len(row.input_ids) for row in begun]):
        tell(done)
        batch = collate([begun[place] for place in places], base.pad_id).to(base.device)
        found = batch_losses(model, batch.input_ids, batch.attention_mask, batch.labels)
        for place, loss in zip(places, found.tolist(), strict=True):
            losses[place] = loss
        done += len(places)
    return losses


def _begun(row: Encoded) -> Encoded:
    """A row up to the first words of its first answer: nothing behind them needs to be read."""
    end = 1 + max(np.flatnonzero(row.labels != IGNORED)[:FIRST_TOKENS], default=0)
    return replace(row, input_ids=row.input_ids[:end], labels=row.labels[:end])
