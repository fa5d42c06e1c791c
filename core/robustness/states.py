"""Reads states of one moved model without running again what did not change.

A module only changes what lies above it, so hidden states that enter each layer are kept for two states (nothing moved,
everything moved), and a reading starts at the lowest layer in which it differs from one of them; the head is asked only
for positions that count. Not here: what is read (core.robustness.readings), moving (core.robustness.perturb).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from core.lm.stack import Recording, Stack, stack_of
from core.robustness.perturb import Moved
from core.robustness.readings import Chunk, Reading, Readings


class StateReader:
    """Reads states of one moved model, each from the kept state that it shares most lower layers with.

    It falls back to whole passes for architectures that cannot be run layer by layer, and where nothing may be kept.
    """

    def __init__(self, readings: Readings, changed: Moved, layers: Mapping[str, int], *, memory_mb: float) -> None:
        """Keep hidden states of the model with nothing and with everything moved.

        Args:
            readings: what is read.
            changed: the model whose modules can be moved.
            layers: the layer of each module, by name.
            memory_mb: so many MiB are kept at most, of every second, fourth ... layer where all are too many. While
                they are gathered, what one batch leaves behind comes on top.
        """
        self._readings, self._changed, self._layers = readings, changed, layers
        self._stack = stack_of(changed.model) if memory_mb > 0 else None
        self.kept: list[KeptState] = []
        """Nothing where all readings are whole passes."""
        if self._stack is not None:
            for names in (frozenset[str](), frozenset(layers)):
                with changed.moved(names):
                    found = _keep(self._stack, readings, names, memory_mb * 2**19)
                self.kept += [found] if found else []

    @torch.inference_mode()
    def read(self, names: Collection[str]) -> Reading:
        """Measure the model with exactly these modules moved."""
        names = frozenset(names)
        with self._changed.moved(names):
            if self._stack is None or not self.kept:
                return self._readings.read(self._changed.model)
            kept, start = max(((kept, self._differs(kept, names)) for kept in self.kept), key=lambda pair: pair[1])
            layer = self._readings.direction.quality.layer
            found = [_from(self._stack, batch, start, layer) for batch in kept.batches]
            return self._readings.reading(found)

    def _differs(self, kept: "KeptState", names: frozenset[str]) -> int:
        """The lowest layer whose modules are moved in one state only."""
        return min((self._layers[name] for name in names ^ kept.names), default=max(self._layers.values()) + 1)


@dataclass
class KeptBatch:
    """What is kept of one batch in one state of the model."""

    chunk: Chunk
    recording: Recording
    """What layers were called with besides hidden states."""
    inputs: dict[int, Tensor]
    """Hidden states that enter some of the layers, the first among them."""
    feature: Tensor | None
    """The chunk's security features."""

    @property
    def bytes(self) -> int:
        """Memory that it holds; tensors that layers share count once."""
        others = _tensors([*self.recording.args, *self.recording.kwargs])
        storages = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in others}
        return sum(storages.values()) + sum(each.numel() * each.element_size() for each in self.inputs.values())

    def thin_out(self, stride: int) -> None:
        """Keep the inputs of every so many layers only."""
        self.inputs = {layer: hidden for layer, hidden in self.inputs.items() if layer % stride == 0}


@dataclass(frozen=True)
class KeptState:
    """Hidden states of one state of the model, for every batch that is read."""

    names: frozenset[str]
    """The modules that were moved."""
    batches: tuple[KeptBatch, ...]


@torch.inference_mode()
def _keep(stack: Stack, readings: Readings, names: frozenset[str], most: float) -> KeptState | None:
    """As many hidden states as go into `most` bytes; None where not even those that enter the first layer do."""
    batches: list[KeptBatch] = []
    layer, stride = readings.direction.quality.layer, 1
    for chunk in readings.chunks:
        recording = stack.record(chunk.input_ids, chunk.attention_mask)
        inputs = dict(enumerate(recording.inputs))
        others = Recording(inputs=(), args=recording.args, kwargs=recording.kwargs)
        feature = _feature(stack, chunk, inputs[layer], layer) if chunk.last_prompt is not None else None
        batches.append(KeptBatch(chunk, others, inputs, feature))
        batches[-1].thin_out(stride)
        while sum(batch.bytes for batch in batches) > most:
            stride *= 2
            if stride >= 2 * len(stack.layers):
                return None
            for batch in batches:
                batch.thin_out(stride)
    return KeptState(names, tuple(batches))


def _from(stack: Stack, kept: KeptBatch, start: int, layer: int) -> tuple[Tensor | None, Tensor]:
    """Features and losses of a batch, run from the kept layer at or below `start`."""
    chunk, feature = kept.chunk, kept.feature
    at = max(place for place in kept.inputs if place <= start)
    hidden = kept.inputs[at]
    for number in range(at, len(stack.layers)):
        hidden = stack.run_layer(kept.recording, number, hidden)
        if number + 1 == layer and chunk.last_prompt is not None:
            feature = _feature(stack, chunk, hidden, layer)
    return feature, chunk.losses(stack.head(stack.finish(chunk.at_counted(hidden))))


def _feature(stack: Stack, chunk: Chunk, hidden: Tensor, layer: int) -> Tensor:
    # As transformers has it: behind the last layer comes the final norm.
    found = chunk.at_last_prompt(hidden)
    return stack.finish(found) if layer == len(stack.layers) else found


def _tensors(value: object) -> Iterator[Tensor]:
    match value:
        case Tensor():
            yield value
        case tuple() | list():
            for each in value:
                yield from _tensors(each)
        case dict():
            yield from _tensors(list(value.values()))
        case _:
            pass
