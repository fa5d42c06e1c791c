"""The result of a check of a base model: identity, modules, chat template, memory, refusals, speeds, settings.

Not here: ordering a check (core.schemas.job), measuring (core.pipeline.modelcheck), sizes and estimates of memory
(core.schemas.memory).
"""

from typing import Literal

from pydantic import Field

from core.schemas.base import Frozen
from core.schemas.events import Warned
from core.schemas.job import CheckRequest
from core.schemas.measure import Sha256
from core.schemas.memory import Memory, ModelShape, WeightFormat
from core.schemas.results import ModelIdentity
from core.schemas.speeds import ModelSpeeds
from core.schemas.training import Method

RESULT = "model-check.json"
"""Name of the result among the files of its job."""


class ModuleType(Frozen):
    """All modules of one type, as jobs name it in `training.lora.targets`."""

    type: str
    """Module type, such as `q`."""
    layers: int
    """Number of layers that have such modules."""
    shapes: tuple[str, ...]
    """Outputs times inputs of one module, such as `576 x 1536`; with experts, their number comes first."""
    parameters: int
    """Number of parameters of all modules of this type, without biases."""
    biases: int
    """Number of their biases."""


class TemplateCheck(Frozen):
    """What the chat template makes of a conversation."""

    example: str
    """A conversation as it is trained on, special tokens included, with `[[ ]]` around what is trained on. It begins
    with a system turn if the template takes one."""
    system_turns: bool
    """Whether conversations may have a system turn."""
    tools: bool
    """Whether rows may have tool definitions and tool calls."""
    thinking: bool
    """Whether the template has a place for thinking. Otherwise, thinking is trained on between tags."""
    stop_tokens: tuple[str, ...]
    """Tokens that end an answer."""


class TrainingMemory(Frozen):
    """Estimated memory of a training run."""

    method: Method
    """What is trained: an adapter (`lora`, `qlora`) or the modules' own weights (`full`)."""
    weights: WeightFormat
    """Number format of the base weights."""
    batch_size: int
    """Rows of one forward pass: `micro_batch_size` of a job, or `batch_size` if that is not given."""
    length: int
    """Length of the longest row in tokens."""
    memory: Memory
    """The estimate in bytes, by what uses the memory."""
    fits: bool
    """Whether the estimate is at most 90 % of the device's memory."""


class AnswerMemory(Frozen):
    """Memory that answering needs beside the weights."""

    length: int
    """Length of prompt and answer together, in tokens."""
    bytes_per_answer: int
    """Keys and values of one answer of this length, in bytes."""
    limit: int
    """Largest size of the keys and values of a batch, in bytes; batches are made smaller to stay within it."""


class RefusalRate(Frozen):
    """Share of prompts that the model refuses, fully or partly."""

    value: float = Field(ge=0, le=1)
    """The share of the decided answers, 0 to 1."""
    low: float
    """Lower end of the 95 % Wilson interval."""
    high: float
    """Upper end of the 95 % Wilson interval."""
    n: int
    """Number of decided answers."""
    undecided: int
    """Number of empty answers, and answers that the judge could not decide; they are not in the share."""


class RefusalCheck(Frozen):
    """How the model answers probe prompts without any attack: greedy answers, judged by the judge `rules`."""

    prompts: str
    """Name of the prompt set. Its probe prompts are used, never the prompts that reports are measured on."""
    max_new_tokens: int
    """Largest length of an answer in tokens."""
    harmful: RefusalRate
    """Share of harmful requests that it refuses."""
    safe: RefusalRate
    """Refusals of safe look-alikes, which is over-refusal. `n` is 0 if the set has none."""
    protectable: bool | None
    """Whether there is something to protect: the model complies with at most half of the harmful requests, the rule of
    the warning `nothing_to_protect`. Null if no answer was decided."""
    meaning: str
    """What that means for a job, in one or two sentences."""
    refused_example: str | None
    """The beginning of one refusal; null if there was none."""


class Setting(Frozen):
    """A recommended setting of a job."""

    name: str
    """Field of the job's order, such as `training.micro_batch_size`."""
    value: str | int | float
    """Recommended value of this field."""
    reason: str
    """Why, in one or two sentences."""


class ModelCheck(Frozen):
    """What a check found out about a base model on the worker's device."""

    version: Literal[1] = 1
    """Version of the format of this file."""
    request: CheckRequest
    """The order, with every default filled in."""
    entry_sha256: Sha256
    """SHA-256 over the model's entry in the server's list."""
    state_sha256: Sha256 | None
    """SHA-256 over names and sizes of the model's files; null for a model on the hub."""
    model: ModelIdentity
    """Name, source, architecture, parameters and digest. Its licence is not known to the service."""
    weights: WeightFormat
    """Number format in which the weights were loaded."""
    device: Literal["cpu", "cuda"]
    """Kind of device that it was measured on."""
    warnings: tuple[Warned, ...]
    """What was changed to load the model, as a job warns of it."""
    shape: ModelShape
    """Sizes of the model by its files."""
    modules: tuple[ModuleType, ...]
    """Modules that can be trained, by type."""
    template: TemplateCheck
    """The chat template, with an example of what is trained on."""
    memory: tuple[TrainingMemory, ...]
    """Estimated memory of training, by method, batch size and length."""
    answers: tuple[AnswerMemory, ...]
    """Estimated memory of answers, by length."""
    refusals: RefusalCheck
    """How the model answers harmful and harmless prompts."""
    speeds: ModelSpeeds
    """Device, its memory, and measured speeds."""
    answer_tokens_per_second: float | None
    """Generated tokens per second, over all answers of the check; null if none was generated."""
    training_tokens_per_second: float | None
    """Tokens per second of three LoRA steps with one row of the shortest length; null if they would not fit."""
    settings: tuple[Setting, ...]
    """Recommended settings of a job, each with its reason."""
