"""Safeguards: options that any strategy can be combined with, each taking effect before, during or after training or
when the model is served.

Covers: the options of each safeguard, and which safeguards a request may name. Not here: what safeguards do
(core.safeguards). Sources are cited at each class; sizes without a source are this project's choice.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeVar

from pydantic import BaseModel, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, create_model, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema
from typing_extensions import override

from core.schemas.base import Frozen
from core.schemas.prompts import PromptSet
from core.schemas.registry import dump_model

SAFETY_PROMPT = (
    "You help people with what they ask. Politely decline anything that could hurt somebody or break the law, whatever "
    "reason is given and however the request is worded, and say briefly why."
)
"""Default system prompt of `safe_template`."""


MAX_REFUSAL_DRIFT = 0.2
"""Default bound on the refusal drift, in nats per token."""


class SafeguardOptions(Frozen):
    """Base of every safeguard's options. What other parts of the product need to know about it is here too."""

    name: ClassVar[str]
    """Name of the safeguard in a request."""
    needs_adapter: ClassVar[bool] = False
    """Whether it works on an adapter only, and so not with the training method `full`."""
    needs_unaligned_base: ClassVar[bool] = False
    """Whether the base model's entry in the server's list must name its `unaligned_base`."""
    excludes_patience: ClassVar[bool] = False
    """Whether it decides when training ends, and so cannot be combined with `training.patience`."""

    def answers(self, prompts: PromptSet, *, rows: int, framed: bool) -> int | None:
        """Return the number of answers that the base model generates for this safeguard before training, if any.

        `rows` is the number of the job's rows, and `framed` whether they share a frame (core.data.frame).
        """

    def answer_length(self, max_new_tokens: int) -> int:
        """Return the limit on the length of each of them in tokens; `max_new_tokens` is that of `security`."""
        return max_new_tokens

    @property
    def title(self) -> str:
        """Name in tables and headings, with the option that matters most."""
        return self.name

    @property
    def needs_refusals(self) -> bool:
        """Whether it needs the refusal drift, and so a base model that answers probe prompts."""
        return False

    @property
    def serving_system_prompt(self) -> str | None:
        """The system prompt that the model is evaluated with and must be served with; None for the job's own."""
        return None

    @property
    def serving_note(self) -> str | None:
        """How to serve the model, in one or two sentences for the model card; None if there is nothing to do."""
        return None


Options = TypeVar("Options", bound=SafeguardOptions)
_CLASSES: dict[str, type[SafeguardOptions]] = {}


def register(options: type[Options]) -> type[Options]:
    """Accept a safeguard in requests. Safeguards take effect in the order of registration.

    Raises:
        ValueError: another class has this name already.
    """
    if _CLASSES.setdefault(options.name, options) is not options:
        raise ValueError(f"A safeguard named {options.name!r} is already registered: choose another name")
    return options


def unregister(options: type[SafeguardOptions]) -> None:
    """Stop accepting a safeguard. For tests, which must leave the process as they found it."""
    del _CLASSES[options.name]


@register
class SafetyMix(SafeguardOptions):
    """Adds the base model's own refusals to the training rows (Bianchi et al. 2024, "Safety-Tuned LLaMAs").

    The rows are harmful requests from the probe half of the prompt set with the base model's refusals, and safe
    look-alikes of that half, if the set has any, with its answers. The half that figures are measured on is never
    trained on. Rows repeat if `share` asks for more than there are.
    """

    name: ClassVar[str] = "safety_mix"
    min_new_tokens: ClassVar[int] = 128
    """Least limit on the length of the base model's answers in tokens, since an answer that is cut off teaches no
    end."""

    share: float = Field(default=0.05, gt=0, le=0.5)
    """Share of these rows in the rows trained on, above 0 and at most 0.5. They are added to the job's rows, so an
    epoch takes more steps."""
    framings: int = Field(default=3, ge=0, le=10)
    """In how many framings (a persona, other tasks around it, a demanded opening and so on) each harmful request is
    put to the base model, in addition to the bare request: 0 to 10. With 0, attacks that wrap a request succeed more
    often."""
    own_format: bool = True
    """Whether each request is also put into the format of the job's rows: the system prompt, and the text around the
    users' requests, that at least 80 % of them share. Without such a format nothing is added."""
    safe_share: float | None = Field(default=None, ge=0, le=0.9)
    """Share of answers to safe look-alikes in the added rows, 0 to 0.9. Null takes as many as there are in proportion
    to the refusals. A larger share counters over-refusal."""

    @property
    @override
    def title(self) -> str:
        return f"safety_mix {100 * self.share:g} %"

    @override
    def answers(self, prompts: PromptSet, *, rows: int, framed: bool) -> int:
        own = self.own_format and framed
        return count_refusals(prompts, self.framings, framed=own) + len(prompts.unreported_safe) * (1 + own)

    @override
    def answer_length(self, max_new_tokens: int) -> int:
        return max(self.min_new_tokens, max_new_tokens)


def count_refusals(prompts: PromptSet, framings: int, *, framed: bool) -> int:
    """Return the number of requests whose refusals are collected: bare, in framings, and in the rows' frame."""
    return len(prompts.unreported_harmful) * (1 + framings + framed)


def mixed_rows(rows: int, share: float) -> int:
    """Return the number of rows that make up `share` of all rows once they are added to `rows`, at least 1."""
    return max(1, round(share * rows / (1.0 - share)))


@register
class ConstrainedFirstTokens(SafeguardOptions):
    """Trains with a loss that keeps the first tokens of each answer close to the base model (Qi et al. 2024, "Safety
    Alignment Should Be Made More Than Just a Few Tokens Deep", section 4).

    The loss of a token with strength beta is -(2/beta) log sigmoid(beta (log p - log p_base)). The defaults are those
    of the paper.
    """

    name: ClassVar[str] = "constrained_first_tokens"
    needs_adapter: ClassVar[bool] = True

    first: float = Field(default=0.5, ge=0.001, le=100)
    """Strength beta at the first token of an answer, 0.001 to 100."""
    early: float = Field(default=2.0, ge=0.001, le=100)
    """Strength beta at the tokens from the second up to number `tokens`, 0.001 to 100."""
    tokens: int = Field(default=5, ge=1, le=1000)
    """How many tokens at the start of an answer are constrained, 1 to 1000."""
    rest: float = Field(default=0.1, ge=0.001, le=100)
    """Strength beta at all later tokens, 0.001 to 100; a small value is close to cross-entropy."""

    @property
    @override
    def title(self) -> str:
        return "first_tokens"


@register
class ProjectToSafe(SafeguardOptions):
    """Projects each module's update onto its alignment direction after training (after SafeLoRA, Hsu et al. 2024).

    The direction is the difference between the base model and the model that it was aligned from, which the server's
    list must name as the base model's `unaligned_base`.
    """

    name: ClassVar[str] = "project_to_safe"
    needs_adapter: ClassVar[bool] = True
    needs_unaligned_base: ClassVar[bool] = True

    threshold: float = Field(default=0.5, ge=0, le=1)
    """A module's update is projected if its cosine with its projection is at most this, 0 to 1; 1 projects all."""
    subspace: Literal["weighted", "span"] = "weighted"
    """`weighted` uses SafeLoRA's V V^T / |V|, which weights directions by how much alignment changed them and can
    shorten or lengthen an update. `span` projects onto the `rank` strongest directions, which never lengthens it."""
    rank: int = Field(default=16, ge=1, le=1024)
    """Number of directions that `span` projects onto, 1 to 1024."""


@register
class SafeTemplate(SafeguardOptions):
    """Trains without a system prompt and serves with a safety prompt (PTST, Lyu et al. 2024).

    System turns are removed from the rows that this run is trained on. The run is evaluated with this system prompt
    instead of `security.system_prompt`, and must be served with it. It helps only if the base model follows system
    prompts.
    """

    name: ClassVar[str] = "safe_template"

    system_prompt: str = Field(default=SAFETY_PROMPT, min_length=1, max_length=8000, pattern=r"^[^\x00]*$")
    """The system prompt to evaluate and serve with, 1 to 8000 characters."""

    @property
    @override
    def serving_system_prompt(self) -> str | None:
        return self.system_prompt

    @property
    @override
    def serving_note(self) -> str | None:
        return "Trained without a system prompt and evaluated with the one below (`safe_template`)."


@register
class KlToBase(SafeguardOptions):
    """Adds the KL divergence from the base model's predictions to the loss (Kaczér et al. 2025, arXiv 2508.06249; logit
    replay, arXiv 2512.10150).

    The loss becomes loss + weight * KL(base || tuned), the mean over the positions of answers, in nats per token. With
    `rows` `both`, the two means are added. Each set of rows takes a second forward pass of the base model, and a
    forward and a backward pass of the tuned one.
    """

    name: ClassVar[str] = "kl_to_base"
    needs_adapter: ClassVar[bool] = True
    framings: ClassVar[int] = SafetyMix.model_fields["framings"].default
    """In how many framings each safety prompt is refused, beside the bare one."""

    weight: float = Field(default=1.0, ge=0.001, le=100)
    """Weight of the divergence in the loss, 0.001 to 100."""
    rows: Literal["safety", "own", "both"] = "safety"
    """Where the model is kept close to the base model: on the base model's refusals of harmful probe prompts and its
    answers to safe look-alikes (`safety`), which the task does not need to change, on the job's `own` rows, or on
    `both`."""
    safety_rows: int = Field(default=4, ge=1, le=64)
    """Number of refusals and safe answers that are drawn for each batch, or for each micro-batch: 1 to 64."""

    @property
    @override
    def title(self) -> str:
        return f"kl_to_base {self.weight:g}"

    @override
    def answers(self, prompts: PromptSet, *, rows: int, framed: bool) -> int:
        if self.rows == "own":
            return 0
        return count_refusals(prompts, self.framings, framed=framed) + len(prompts.unreported_safe) * (1 + framed)

    @override
    def answer_length(self, max_new_tokens: int) -> int:
        return max(SafetyMix.min_new_tokens, max_new_tokens)


@register
class SelfDistill(SafeguardOptions):
    """Trains on the base model's own rewriting of each row's last answer (SDFT, Yang et al. 2024, arXiv 2402.13669).

    Before training, the base model gets the request with the row's answer and writes it in its own words. The original
    answer stays where the rewritten one is empty, cut off at the limit, a refusal although the original is none, or
    without the original's final answer. Rows with tools or thinking stay as they are.
    """

    name: ClassVar[str] = "self_distill"

    max_new_tokens: int = Field(default=256, ge=16, le=4096)
    """Limit on the length of a rewritten answer in tokens, 16 to 4096."""

    @override
    def answers(self, prompts: PromptSet, *, rows: int, framed: bool) -> int:
        return rows

    @override
    def answer_length(self, max_new_tokens: int) -> int:
        return self.max_new_tokens


@register
class AnswerPreview(SafeguardOptions):
    """Shows the first words of each answer in the request that is trained on (LookAhead Tuning, Liu et al. 2025, arXiv
    2503.19041), so that training changes the first tokens of answers less.

    The model is evaluated and served without it. The paper shows tokens; words need no tokenizer. At most half of an
    answer is shown.
    """

    name: ClassVar[str] = "answer_preview"

    words: int = Field(default=6, ge=1, le=100)
    """How many words of the answer are shown, 1 to 100."""
    virtual: bool = False
    """Whether a fixed opening is shown and put in front of each answer, in place of the answer's first words (the
    paper's virtual answers)."""

    @property
    @override
    def title(self) -> str:
        return "answer_preview virtual" if self.virtual else f"answer_preview {self.words}"


@register
class AverageWeights(SafeguardOptions):
    """Ends the run with a moving average of the trained weights over the steps (arXiv 2508.12531).

    The average begins at the base model. The validation loss, the refusal drift and early stopping of the run are those
    of the averaged weights. It takes as much memory on the device as the trained weights.
    """

    name: ClassVar[str] = "average_weights"

    decay: float = Field(default=0.99, ge=0, lt=1)
    """Decay per step, 0 to below 1: after each step the average is `decay` of itself and the rest of the new weights.
    The base model's share in the result is `decay` to the power of the steps: 8 % after 250 steps at 0.99. Use a
    smaller decay for short runs."""

    @property
    @override
    def title(self) -> str:
        return f"average_weights {self.decay:g}"


@register
class KeepSafeWeights(SafeguardOptions):
    """Ends the run with the weights of the last measurement at which the model still refused like the base model.

    The refusal drift is measured about 20 times during training, on probe prompts that no figure is measured on. The
    run fails with `no_safe_weights` if no measurement after step 0 is within the bound. It cannot be combined with
    `training.patience`, which chooses weights by the validation loss.
    """

    name: ClassVar[str] = "keep_safe_weights"
    excludes_patience: ClassVar[bool] = True

    max_refusal_drift: float = Field(default=MAX_REFUSAL_DRIFT, ge=0, le=100)
    """Largest refusal drift of the kept weights, in nats per token, 0 to 100."""
    patience: int | None = Field(default=None, ge=1, le=100)
    """Training ends after this many measurements in a row above the bound, 1 to 100. Null trains to the end, because
    refusals often come back."""

    @property
    @override
    def title(self) -> str:
        return f"keep_safe_weights {self.max_refusal_drift:g}"

    @property
    @override
    def needs_refusals(self) -> bool:
        return True


@register
class ScaleUpdate(SafeguardOptions):
    """Multiplies the whole update of the trained weights by a factor after training (after arXiv 2412.19512, which
    merges tuned models with their base).

    Give either a factor or the refusal drift that the largest factor of 1, 0.9, ... 0.1 must stay within, measured on
    probe prompts that no figure is measured on. If even 0.1 exceeds it, 0.1 is used and the report says so.
    """

    name: ClassVar[str] = "scale_update"
    grid: ClassVar[tuple[float, ...]] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    """Factors of a search, from the largest."""

    factor: float | None = Field(default=None, gt=0, le=1)
    """Factor on the update, above 0 and at most 1. Null searches the largest one within `max_refusal_drift`."""
    max_refusal_drift: float | None = Field(default=None, ge=0, le=100)
    """Largest refusal drift of the scaled model, in nats per token, 0 to 100; 0.2 if neither this nor `factor` is
    given."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.factor is not None and self.max_refusal_drift is not None:
            raise ValueError("give either factor or max_refusal_drift, not both")
        return self

    @property
    def tried(self) -> tuple[float, ...]:
        """The factors to try, from the largest."""
        return self.grid if self.factor is None else (self.factor,)

    @property
    def bound(self) -> float | None:
        """The refusal drift that the search stays within; None if the factor is given."""
        if self.factor is not None:
            return None
        return MAX_REFUSAL_DRIFT if self.max_refusal_drift is None else self.max_refusal_drift

    @property
    @override
    def title(self) -> str:
        return f"scale_update x{self.factor:g}" if self.factor else f"scale_update to drift {self.bound:g}"

    @property
    @override
    def needs_refusals(self) -> bool:
        return self.bound is not None


class Safeguards:
    """The safeguards of one run, in the order in which they take effect.

    In JSON an object with the options of each safeguard by name; one that is missing or null is off. Immutable.
    """

    def __init__(self, *options: SafeguardOptions) -> None:
        """Raises ValueError if a safeguard is given twice."""
        order = list(_CLASSES.values())
        if len({type(each) for each in options}) < len(options):
            raise ValueError("a safeguard is given twice: give each one once")
        self._options = tuple(sorted(options, key=lambda each: order.index(type(each))))

    def __iter__(self) -> Iterator[SafeguardOptions]:
        return iter(self._options)

    def __len__(self) -> int:
        return len(self._options)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Safeguards) and self._options == other._options

    def __hash__(self) -> int:
        return hash(self._options)

    def __repr__(self) -> str:
        return f"Safeguards({', '.join(map(repr, self._options))})"

    def get(self, options: type[Options]) -> Options | None:
        """The options of one safeguard; None if it is off."""
        return next((each for each in self._options if isinstance(each, options)), None)

    @property
    def titles(self) -> tuple[str, ...]:
        """Titles of the safeguards that are on."""
        return tuple(each.title for each in self._options)

    @property
    def serving_system_prompt(self) -> str | None:
        """The system prompt that the last safeguard with one requires; None if none requires one."""
        prompts = [each.serving_system_prompt for each in self._options]
        return next((prompt for prompt in reversed(prompts) if prompt is not None), None)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: type[Any], _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            ref=f"{cls.__module__}.{cls.__qualname__}:{id(cls)}",
            serialization=core_schema.plain_serializer_function_ser_schema(cls._dump, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(_model_of(tuple(_CLASSES.values())).__pydantic_core_schema__)

    @classmethod
    def _validate(cls, value: object) -> "Safeguards":
        if isinstance(value, Safeguards):
            return value
        if not isinstance(value, Mapping):
            raise PydanticCustomError("model_type", "Input should be an object with one field for each safeguard")
        given = _model_of(tuple(_CLASSES.values())).model_validate(value)
        return cls(*(options for _, options in given if options is not None))

    def _dump(self, info: core_schema.SerializationInfo) -> dict[str, Any]:
        return {each.name: dump_model(each, info) for each in self._options}


@cache
def _model_of(classes: tuple[type[SafeguardOptions], ...]) -> type[BaseModel]:
    """The JSON object of `Safeguards`: one optional field for each class, described by its first paragraph."""
    fields: dict[str, Any] = {}
    for each in classes:
        description = (each.__doc__ or "").partition("\n\n")[0].replace("\n    ", " ")
        fields[each.name] = (each | None, Field(default=None, description=description))
    about = "Safeguards of one run. All are off by default, and any of them can be combined."
    return create_model("Safeguards", __base__=Frozen, __doc__=about, **fields)
