"""How large a model is by its files, and how much memory its training and its answers need.

Covers: the shape of a model, the parts of an estimate in bytes. Not here: reading a shape (core.modelfiles.shape), the
estimate itself (core.memory).
"""

from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen

WeightFormat = Literal["float32", "bfloat16", "nf4"]
DeviceKind = Literal["cpu", "cuda"]


class MapShape(Frozen):
    """The linear maps of one type and shape in all decoder layers."""

    type: str
    """Module type, such as `q` or `down`. A fused map has its own name, such as `qkv`; `router` is the router of
    experts."""
    outputs: int = Field(ge=1)
    """Number of outputs of one map."""
    inputs: int = Field(ge=1)
    """Number of inputs of one map."""
    count: int = Field(ge=1)
    """Number of such maps in the whole model. Each expert is counted."""
    bias: bool = False
    """Whether the maps have a bias."""

    @property
    def parameters(self) -> int:
        """Number of parameters of all these maps."""
        return self.count * (self.outputs * self.inputs + (self.outputs if self.bias else 0))


class ModelShape(Frozen):
    """The sizes of a model that decide how much memory it needs."""

    parameters: int = Field(ge=1)
    """Number of parameters; tied embeddings are counted once."""
    layers: int = Field(ge=1)
    """Number of decoder layers."""
    hidden: int = Field(ge=1)
    """Width of the residual stream."""
    intermediate: int = Field(ge=1)
    """Width of the MLP. With experts, the sum over the experts that process one token."""
    heads: int = Field(ge=1)
    """Number of query heads of a layer."""
    kv_heads: int = Field(ge=1)
    """Number of key and value heads of a layer."""
    head_size: int = Field(ge=1)
    """Width of one head."""
    vocabulary: int = Field(ge=1)
    """Number of token embeddings, and of logits per token."""
    context: int | None
    """Context length in tokens; null if the configuration does not limit it."""
    tied: bool
    """Whether the output layer uses the weights of the embeddings."""
    maps: tuple[MapShape, ...]
    """The linear maps of the decoder layers, which can be trained."""


class Memory(Frozen):
    """An estimate of the largest memory use during training, in bytes, by what uses it."""

    weights: int
    """Weights of the model. For full fine-tuning on a CPU, also the copy that restores the base model afterwards."""
    adapter: int
    """Weights of the adapter; 0 for full fine-tuning."""
    gradients: int
    """Gradients of the trained parameters."""
    optimizer: int
    """Both moments of AdamW."""
    activations: int
    """What the forward pass stores for the backward pass, without the logits."""
    logits: int
    """Logits and what the loss computes from them, three numbers per token and entry of the vocabulary."""
    overhead: int
    """The process with its libraries, and memory that the allocator holds without using it. Measured on CPUs; 0 on a
    GPU, where it was not measured."""

    total: int
    """Sum of all parts, in bytes."""
