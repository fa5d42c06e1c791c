"""Which rows of a fused map are what, found by trying: no list of models, no convention that is trusted.

A fused map's output is replaced by numbers of our own while the model reads two tokens, and what its block answers says
what the rows are:
- attention: with a causal mask the first position sees itself alone, so its answer is its value, whatever query and key
  are; and the second position never sees the first one's query. What moves the first answer is v, what moves the second
  only is k, the rest is q.
- a gated MLP: its answer is linear in `up` and in `up` alone.
Where the findings do not fit together, the answer is None, and the map stays whole.
Not here: which maps are asked about (core.lm.modules).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Rows = tuple[range, ...]
Parts = dict[str, Rows]

_FAR = 4.0
_DRAWS = 4
"""Tries of each: a single one may happen to point where nothing listens."""
_CLEAR = 0.02
"""Share of the greatest effect below which an effect is rounding: bfloat16's is a fifth of it at most."""
_BENT = 0.05
"""Share of a change below which its bend is rounding."""


@dataclass(frozen=True)
class Fused:
    """A fused map in its block."""

    block: nn.Module
    """The part of the model that holds it, such as the attention; a part that is called by itself."""
    map: nn.Module
    """The map, or what wraps it."""
    width: int
    """Number of its outputs."""


def attention_parts(model: PreTrainedModel, fused: Fused) -> Parts | None:
    """Rows of q, k and v. They are told apart head by head."""
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if fused.width % head:
        return None
    chance = torch.Generator().manual_seed(0)
    start = torch.randn(2, fused.width, generator=chance)
    heads = fused.width // head
    tried = start.expand(1 + heads * _DRAWS, -1, -1).clone()
    for number, each in enumerate(tried[1:]):
        begin = number // _DRAWS * head
        each[0, begin : begin + head] = _FAR * torch.randn(head, generator=chance)
    found = _answers(model, fused, tried)
    if found is None:
        return None
    effects = (found[1:] - found[0]).norm(dim=-1).unflatten(0, (heads, _DRAWS)).amax(dim=1)
    first, second = (column > _CLEAR * column.max() for column in effects.unbind(1))
    kinds = {"q": ~first & ~second, "k": ~first & second, "v": first & second}
    count = {kind: int(chosen.sum()) for kind, chosen in kinds.items()}
    fits = sum(count.values()) == len(first) and count["k"] == count["v"] > 0 and count["q"] > 0
    if not fits or count["q"] % count["k"]:
        return None
    return {kind: _ranges(chosen, head) for kind, chosen in kinds.items()}


def gate_parts(model: PreTrainedModel, fused: Fused) -> Parts | None:
    """Rows of gate and up: two halves, or every other row."""
    half, width = fused.width // 2, fused.width
    pairs = [(range(half), range(half, width)), (range(0, width, 2), range(1, width, 2))]
    candidates = [rows for pair in pairs for rows in pair]
    chance = torch.Generator().manual_seed(0)
    tried = torch.stack(
        [
            start + times * _only(step, rows)
            for start, step in (2 * torch.randn(_DRAWS, 2, width, generator=chance))
            for rows in candidates
            for times in (0, 1, 2)
        ]
    )
    found = _answers(model, fused, tried[:, None].expand(-1, 2, -1))
    if width % 2 or found is None:
        return None
    none, once, twice = found[:, 0].unflatten(0, (_DRAWS, len(candidates), 3)).unbind(2)
    bend = (twice - 2 * once + none).norm(dim=-1)
    linear = (bend <= _BENT * (twice - none).norm(dim=-1)).all(dim=0).tolist()
    if sum(linear) != 1:
        return None
    up = linear.index(True)
    return {"gate": (candidates[up ^ 1],), "up": (candidates[up],)}


class _Enough(Exception):
    """The block has answered; the rest of the model is not needed."""


@torch.no_grad()
def _answers(model: PreTrainedModel, fused: Fused, outputs: Tensor) -> Tensor | None:
    """What the block answers where the map's outputs are these (`batch 2 width`), in float32 on the CPU."""
    replaced: list[Tensor] = []
    heard: list[Tensor] = []

    def replace(_map: nn.Module, _args: object, output: Tensor) -> Tensor:
        if output.numel() != outputs.numel():  # it is asked about something else than these two tokens
            return output
        replaced.append(outputs.to(output).reshape(output.shape))
        return replaced[-1]

    def stop(_block: nn.Module, _args: object, output: Tensor | Sequence[Tensor]) -> None:
        found = output if isinstance(output, Tensor) else output[0]
        if len(replaced) == 1 and isinstance(found, Tensor) and found.numel() % (2 * len(outputs)) == 0:
            heard.append(found.reshape(len(outputs), 2, -1).float().cpu())
        raise _Enough

    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.tensor([[vocabulary // 3, vocabulary // 2]], device=model.device).expand(len(outputs), 2)
    modes = {part: part.training for part in model.modules()}
    handles = [fused.map.register_forward_hook(replace), fused.block.register_forward_hook(stop)]
    model.eval()
    # What is being trained is float32 also where the rest is not.
    mixed = len({each.dtype for each in model.parameters() if each.is_floating_point()}) > 1
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except _Enough:
        return heard[0] if heard else None
    finally:
        for handle in handles:
            handle.remove()
        for part, mode in modes.items():
            part.training = mode
    return None


def _only(values: Tensor, rows: range) -> Tensor:
    found = torch.zeros_like(values)
    found[list(rows)] = values[list(rows)]
    return found


def _ranges(chosen: Tensor, head: int) -> Rows:
    """Runs of chosen heads as ranges of rows."""
    found: list[range] = []
    for number in chosen.nonzero().flatten().tolist():
        begin = number * head
        if found and found[-1].stop == begin:
            found[-1] = range(found[-1].start, begin + head)
        else:
            found.append(range(begin, begin + head))
    return tuple(found)
