"""Detects which rows of a fused map are which parts, by experiment and not from a list of models or conventions.

The output of the map is replaced by chosen numbers while the model reads two tokens, and the output of its block shows
the parts:
- attention: under a causal mask, the first position attends only to itself, so its output is its value, whatever query
  and key are; and the second position never uses the query of the first. Rows that change the first output are v, rows
  that change only the second are k, the others are q.
- a gated MLP: its output is linear in `up`, and in nothing else.
If the observations are inconsistent, the result is None and the map is not split.
Not here: which maps are tested (core.lm.modules).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

Rows = tuple[range, ...]
Parts = dict[str, Rows]

_CHANGE = 4.0
_DRAWS = 4
"""Random directions per part: a single one may have no effect by chance."""
_MIN_EFFECT = 0.02
"""Smallest effect, as a share of the largest, that is not rounding; the rounding of bfloat16 is a fifth of that."""
_MAX_CURVATURE = 0.05
"""Largest second difference, as a share of the change, that counts as linear."""


def attention_parts(model: PreTrainedModel, block: nn.Module, fused: nn.Module, width: int) -> Parts | None:
    """The rows of q, k and v, which are detected head by head.

    `block` is the module that contains the fused map and is called as a whole, such as the attention. `fused` is the
    map or its wrapper, and `width` the number of its outputs.
    """
    config = model.config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if width % head:
        return None
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(2, width, generator=generator)
    heads = width // head
    variants = start.expand(1 + heads * _DRAWS, -1, -1).clone()
    for number, each in enumerate(variants[1:]):
        begin = number // _DRAWS * head
        each[0, begin : begin + head] = _CHANGE * torch.randn(head, generator=generator)
    block_outputs = _compute_block_outputs(model, block, fused, variants)
    if block_outputs is None:
        return None
    effects = (block_outputs[1:] - block_outputs[0]).norm(dim=-1).unflatten(0, (heads, _DRAWS)).amax(dim=1)
    first, second = (column > _MIN_EFFECT * column.max() for column in effects.unbind(1))
    kinds = {"q": ~first & ~second, "k": ~first & second, "v": first & second}
    count = {kind: int(chosen.sum()) for kind, chosen in kinds.items()}
    fits = sum(count.values()) == len(first) and count["k"] == count["v"] > 0 and count["q"] > 0
    if not fits or count["q"] % count["k"]:
        return None
    return {kind: _ranges(chosen, head) for kind, chosen in kinds.items()}


def gate_parts(model: PreTrainedModel, block: nn.Module, fused: nn.Module, width: int) -> Parts | None:
    """The rows of gate and up, two halves or alternating rows, from the same arguments as `attention_parts`."""
    half = width // 2
    candidates = [range(half), range(half, width), range(0, width, 2), range(1, width, 2)]
    generator = torch.Generator().manual_seed(0)
    variants = torch.stack(
        [
            start + times * _only(step, rows)
            for start, step in (2 * torch.randn(_DRAWS, 2, width, generator=generator))
            for rows in candidates
            for times in (0, 1, 2)
        ]
    )
    block_outputs = _compute_block_outputs(model, block, fused, variants[:, None].expand(-1, 2, -1))
    if width % 2 or block_outputs is None:
        return None
    none, once, twice = block_outputs[:, 0].unflatten(0, (_DRAWS, len(candidates), 3)).unbind(2)
    bend = (twice - 2 * once + none).norm(dim=-1)
    linear = (bend <= _MAX_CURVATURE * (twice - none).norm(dim=-1)).all(dim=0).tolist()
    if sum(linear) != 1:
        return None
    up = linear.index(True)
    return {"gate": (candidates[up ^ 1],), "up": (candidates[up],)}


class _BlockDone(Exception):
    """The block has returned its output; the rest of the model is not needed."""


@torch.no_grad()
def _compute_block_outputs(
    model: PreTrainedModel, block: nn.Module, fused: nn.Module, outputs: Tensor
) -> Tensor | None:
    """The output of the block if the map's outputs are `outputs` (`batch 2 width`), in float32 on the CPU."""
    replaced: list[Tensor] = []
    outputs_of_block: list[Tensor] = []

    def replace(_map: nn.Module, _args: object, output: Tensor) -> Tensor:
        if output.numel() != outputs.numel():  # the map does not process exactly these two tokens
            return output
        replaced.append(outputs.to(output).reshape(output.shape))
        return replaced[-1]

    def stop(_block: nn.Module, _args: object, output: Tensor | Sequence[Tensor]) -> None:
        found = output if isinstance(output, Tensor) else output[0]
        if len(replaced) == 1 and isinstance(found, Tensor) and found.numel() % (2 * len(outputs)) == 0:
            outputs_of_block.append(found.reshape(len(outputs), 2, -1).float().cpu())
        raise _BlockDone

    vocabulary = int(model.config.get_text_config().vocab_size)
    ids = torch.tensor([[vocabulary // 3, vocabulary // 2]], device=model.device).expand(len(outputs), 2)
    modes = {part: part.training for part in model.modules()}
    handles = [fused.register_forward_hook(replace), block.register_forward_hook(stop)]
    model.eval()
    # Trained weights are float32 even if the others are not.
    mixed = len({each.dtype for each in model.parameters() if each.is_floating_point()}) > 1
    try:
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=mixed):
            model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    except _BlockDone:
        return outputs_of_block[0] if outputs_of_block else None
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
    """The rows of the chosen heads, as few ranges."""
    heads = chosen.nonzero().flatten().numpy()
    runs = np.split(heads, np.flatnonzero(np.diff(heads) > 1) + 1)
    return tuple(range(int(run[0]) * head, (int(run[-1]) + 1) * head) for run in runs)
