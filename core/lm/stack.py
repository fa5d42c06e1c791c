"""A model taken apart at its decoder layers, so that layers run one by one from hidden states that were kept.

Covers: the layers found by structure, what each was called with in an ordinary pass, going on from any of them, the
final norm and the head. Whether a model can be taken apart is tried, not looked up: `stack_of` answers None where the
parts do not give what the whole gives (values that pass between layers, say), and whole passes have to do.
Not here: modules (core.lm.modules), what hidden states mean.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from typing import cast

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from core.lm.modules import decoder_layers

_TRIED_ROWS, _TRIED_TOKENS, _TRIED_PADDING = 2, 8, 3
_LOUDNESS = 100.0


@dataclass(frozen=True)
class Recording:
    """One ordinary pass over a batch, layer by layer. Good for the state of the model it was made in."""

    inputs: tuple[Tensor, ...]
    """What enters each layer, `batch seq width`, and at the end what leaves the last one, before the final norm. The
    same as transformers' `hidden_states`, but for the last: there it is after the final norm."""
    args: tuple[tuple[object, ...], ...]
    """What else each layer was given by position."""
    kwargs: tuple[dict[str, object], ...]
    """And by name: masks, position embeddings. Layers of one kind share these tensors."""


@dataclass(frozen=True)
class Stack:
    """A model whose parts were seen to give what the whole gives."""

    model: PreTrainedModel
    """The model itself, with LoRA layers inside where an adapter is on."""
    layers: tuple[nn.Module, ...]
    """Its decoder layers, in order."""
    tail: tuple[nn.Module, ...]
    """What hidden states go through after the last layer: the final norm."""

    def record(self, input_ids: Tensor, attention_mask: Tensor) -> Recording:
        """Run the model once, and keep what every layer was called with."""
        with _listening(self.layers) as heard:
            _whole(self.model, input_ids, attention_mask, last_only=True)
        return heard.recording()

    def run_layer(self, recording: Recording, layer: int, hidden: Tensor) -> Tensor:
        """What leaves one layer for these hidden states, of the same rows and positions as the recording's."""
        output = self.layers[layer](hidden, *recording.args[layer], **recording.kwargs[layer])
        return _hidden(output)

    def resume(self, recording: Recording, layer: int, hidden: Tensor) -> Tensor:
        """Go on from the input of a layer to the end. Returns the final hidden states, after the final norm."""
        for number in range(layer, len(self.layers)):
            hidden = self.run_layer(recording, number, hidden)
        return self.finish(hidden)

    def finish(self, hidden: Tensor) -> Tensor:
        """Final norm of what leaves the last layer, of whole rows or of chosen positions."""
        for part in self.tail:
            hidden = _hidden(part(hidden))
        return hidden

    def head(self, hidden: Tensor) -> Tensor:
        """Logits of final hidden states, of whole rows or of chosen positions: `... vocabulary`."""
        config = self.model.config.get_text_config()
        logits = _head(self.model)(hidden)
        if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite
            logits = logits / divisor
        if (scale := getattr(config, "logit_scale", None)) is not None:  # Cohere
            logits = logits * scale
        if (cap := getattr(config, "final_logit_softcapping", None)) is not None:  # Gemma
            logits = torch.tanh(logits / cap) * cap
        return logits


@torch.no_grad()
def stack_of(model: PeftModel | PreTrainedModel) -> Stack | None:
    """The model taken apart, or None where its parts do not give what the whole gives.

    It is tried on a few tokens: hidden states are changed before the first layer, and the logits of the whole pass are
    compared with those of the parts. Call it in eval mode; an adapter may be on, and be changed afterwards.
    """
    inner = cast(PreTrainedModel, model.get_base_model()) if isinstance(model, PeftModel) else model
    name, layers = decoder_layers(inner)
    if inner.get_output_embeddings() is None:
        return None
    ids, mask = _tried(inner)
    owner = inner.get_submodule(name.rpartition(".")[0])
    with _listening(tuple(layers)) as heard, _listening_behind(owner, layers) as tail:
        _whole(inner, ids, mask)
    if not heard.each_once(len(layers)):
        return None
    stack = Stack(inner, tuple(layers), tuple(tail))
    recording = heard.recording()
    start = recording.inputs[0]
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start)
    changed = start + noise * start.float().std().to(start)
    with _replaced(layers[0], changed), _loud(_head(inner)):
        try:
            found = stack.head(stack.resume(recording, 0, changed))
        except _Opaque:
            return None
        wanted = _whole(inner, ids, mask)
    return stack if _alike(found, wanted, mask) else None


class _Opaque(Exception):
    """A part hands on something else than hidden states."""


class _Heard:
    """What layers were called with and what came out last."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, object, tuple[object, ...], dict[str, object]]] = []
        self.last: object = None

    def each_once(self, layers: int) -> bool:
        """Whether every layer was called once, in order, with hidden states."""
        states = [*(hidden for _, hidden, _, _ in self.calls), self.last]
        in_order = [number for number, *_ in self.calls] == list(range(layers))
        return in_order and all(isinstance(each, Tensor) for each in states)

    def recording(self) -> Recording:
        """The same as a recording."""
        return Recording(
            inputs=(*(_hidden(hidden) for _, hidden, _, _ in self.calls), _hidden(self.last)),
            args=tuple(args for _, _, args, _ in self.calls),
            kwargs=tuple(kwargs for *_, kwargs in self.calls),
        )


@contextmanager
def _listening(layers: Sequence[nn.Module]) -> Iterator[_Heard]:
    heard = _Heard()
    places = {id(layer): number for number, layer in enumerate(layers)}

    def before(layer: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        named = dict(kwargs)
        first, *rest = args or (named.pop("hidden_states", None),)
        heard.calls.append((places[id(layer)], first, tuple(rest), named))

    def after(_layer: nn.Module, _args: object, output: object) -> None:
        heard.last = output[0] if isinstance(output, tuple) else output

    handles = [layer.register_forward_pre_hook(before, with_kwargs=True) for layer in layers]
    handles.append(layers[-1].register_forward_hook(after))
    try:
        yield heard
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _listening_behind(owner: nn.Module, layers: nn.ModuleList) -> Iterator[list[nn.Module]]:
    """Those of the owner's parts that are called after the last layer, in order."""
    called: list[nn.Module] = []

    def clear(_layer: nn.Module, _args: object, _output: object) -> None:
        called.clear()

    def note(part: nn.Module, _args: object) -> None:
        called.append(part)

    handles = [layers[-1].register_forward_hook(clear)]
    handles += [part.register_forward_pre_hook(note) for part in owner.children() if part is not layers]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _replaced(layer: nn.Module, hidden: Tensor) -> Iterator[None]:
    """The layer is given other hidden states than the model hands it."""

    def give(
        _layer: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[tuple[object, ...], dict[str, object]]:
        return ((hidden, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": hidden})

    handle = layer.register_forward_pre_hook(give, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _loud(head: nn.Module) -> Iterator[None]:
    """The head's output many times as large: what caps or scales logits afterwards then shows."""

    def amplify(_head: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output * _LOUDNESS

    handle = head.register_forward_hook(amplify)
    try:
        yield
    finally:
        handle.remove()


@torch.no_grad()
def _whole(model: PreTrainedModel, ids: Tensor, mask: Tensor, *, last_only: bool = False) -> Tensor:
    # The head of a large vocabulary costs as much as several layers: only one position of it where nobody asks.
    short = {"logits_to_keep": 1} if last_only and "logits_to_keep" in signature(model.forward).parameters else {}
    return model(input_ids=ids, attention_mask=mask, use_cache=False, **short).logits


def _head(model: PreTrainedModel) -> nn.Module:
    head = model.get_output_embeddings()
    if head is None:
        raise TypeError(f"{type(model).__name__} has no head")
    return head


def _tried(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """A batch with padding, of whatever tokens."""
    ids = torch.arange(1, 1 + _TRIED_ROWS * _TRIED_TOKENS).reshape(_TRIED_ROWS, _TRIED_TOKENS)
    mask = torch.ones_like(ids)
    mask[1, -_TRIED_PADDING:] = 0
    return ids.to(model.device), mask.to(model.device)


def _alike(found: Tensor, wanted: Tensor, mask: Tensor) -> bool:
    if found.shape != wanted.shape:
        return False
    seen = mask.bool()
    one, other = found[seen].float(), wanted[seen].float()
    # The same operations on the same numbers: a missing factor or cap is far outside, rounding far inside.
    close = 1e-4 if wanted.dtype == torch.float32 else 1e-2
    return bool(((one - other).norm() <= close * other.norm()).item())


def _hidden(value: object) -> Tensor:
    found = value[0] if isinstance(value, tuple) else value
    if not isinstance(found, Tensor):
        raise _Opaque(type(found).__name__)
    return found
