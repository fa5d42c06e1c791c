"""Judges: what a job may order, and the server's list of judge models.

`JUDGES` lists the judges that requests may name. Covers: options of each judge, which judge model fits which judge,
entries of the list. Not here: prompts and verdicts (core.judges).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, HttpUrl
from typing_extensions import override

from core.schemas.base import Frozen
from core.schemas.models import ModelSource
from core.schemas.registry import Registry

JudgeName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
JudgeProtocol = Literal["chat", "yes_no", "safe_unsafe", "labels"]

TEMPLATE_SLOTS = ("{behaviour}", "{answer}")
"""Placeholders in the prompt template of a classifier."""


class EndpointSource(Frozen):
    """A server with an OpenAI-compatible API."""

    kind: Literal["endpoint"] = "endpoint"
    """Kind of source: a server."""
    url: HttpUrl
    """Base address of the API, such as `https://judge.example.org/v1`."""
    model: str = Field(min_length=1, max_length=300)
    """Name of the model on the server."""
    api_key_env: str | None = Field(default=None, pattern=r"^SECURETUNE_JUDGE_[A-Z0-9_]+$", max_length=100)
    """Environment variable of the worker that holds the API key; the key itself is never stored. Its name begins with
    `SECURETUNE_JUDGE_`: the process that queries judges gets no other secret of the worker."""
    reasoning: bool = False
    """Whether the model reasons before it answers. If so, it gets 4096 more tokens, and no temperature is sent."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """Time limit for one answer in seconds, above 0 and at most 3600."""
    retries: int = Field(default=4, ge=0, le=20)
    """How often a call is retried after a timeout, a rate limit or a server error, from 0 to 20."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Maximum number of simultaneous calls, from 1 to 256."""


class JudgeEntry(Frozen):
    """One judge model in the server's list."""

    name: JudgeName
    """Name of the judge model in requests."""
    source: Annotated[ModelSource | EndpointSource, Field(discriminator="kind")]
    """Location of the model: files that the worker loads, or a server that it queries."""
    protocol: JudgeProtocol = "chat"
    """How the model replies. `chat`: a chat model, for `rubric` and `strongreject`. The others are classifiers:
    `yes_no` (HarmBench's), `safe_unsafe` (Llama Guard) and `labels` (WildGuard)."""
    template: str | None = Field(default=None, max_length=32_000)
    """Prompt of a classifier with `{behaviour}` and `{answer}`, as its authors publish it, special tokens included.
    Without one, the behaviour and the answer are two turns in the tokenizer's chat template."""
    description: str = Field(default="", max_length=500)
    """Description for users, at most 500 characters."""


class JudgeOptions(Frozen):
    """Base of the options of a judge."""

    english_only: ClassVar[bool] = False
    """Whether it can judge only answers in English; reports list this as a limitation."""

    kind: str
    """Name of the kind of judge."""

    @property
    def label(self) -> str:
        """Name of the judge in figures."""
        return self.kind


class ModelJudgeOptions(JudgeOptions):
    """Base of the options of a judge that queries a model in the server's list."""

    protocols: ClassVar[tuple[JudgeProtocol, ...]]
    """Protocols of the judge models that it can query."""

    model: JudgeName
    """Name of a judge model in the server's list."""

    @property
    @override
    def label(self) -> str:
        """Name of the judge in figures."""
        return f"{self.kind}:{self.model}"

    def mismatch(self, entry: JudgeEntry) -> str | None:
        """Why this judge cannot query the model of `entry`, as a clause without a full stop; None if it can."""
        if entry.protocol not in self.protocols:
            return (
                f"the judge model {entry.name!r} has the protocol {entry.protocol}, and the judge {self.kind} needs "
                f"{' or '.join(self.protocols)}: name another model, or use it as "
                f"{' or '.join(kinds_for(entry.protocol))}"
            )
        if entry.template is None:
            return None
        if entry.protocol == "chat":
            return f"the judge model {entry.name!r} is a chat model and takes no template: remove it from the list"
        if missing := [slot for slot in TEMPLATE_SLOTS if slot not in entry.template]:
            return f"the template of the judge model {entry.name!r} has no {' and no '.join(missing)}: add it"
        return None


JUDGES = Registry[JudgeOptions]("kind")


def kinds_for(protocol: JudgeProtocol) -> tuple[str, ...]:
    """List the judges that can query a model with this protocol."""
    options = ((kind, JUDGES[kind]) for kind in JUDGES)
    return tuple(kind for kind, each in options if issubclass(each, ModelJudgeOptions) and protocol in each.protocols)


@JUDGES.register
class RulesJudge(JudgeOptions):
    """Rules over English text; no model and no download."""

    english_only: ClassVar[bool] = True

    kind: Literal["rules"] = "rules"
    """Kind of judge: rules."""


@JUDGES.register
class RubricJudge(ModelJudgeOptions):
    """A language model scores 1 to 5 by a usage policy (after Qi et al. 2023); 5 counts as attack success."""

    protocols: ClassVar[tuple[JudgeProtocol, ...]] = ("chat",)

    kind: Literal["rubric"] = "rubric"
    """Kind of judge: the rubric."""


@JUDGES.register
class StrongRejectJudge(ModelJudgeOptions):
    """A language model rates whether the answer refuses and how convincing and specific it is (Souly et al. 2024)."""

    protocols: ClassVar[tuple[JudgeProtocol, ...]] = ("chat",)

    kind: Literal["strongreject"] = "strongreject"
    """Kind of judge: StrongREJECT's rubric."""


@JUDGES.register
class ClassifierJudge(ModelJudgeOptions):
    """A model that was trained to judge, such as HarmBench's classifier, Llama Guard or WildGuard."""

    protocols: ClassVar[tuple[JudgeProtocol, ...]] = ("yes_no", "safe_unsafe", "labels")

    kind: Literal["classifier"] = "classifier"
    """Kind of judge: a trained classifier. The model's entry in the list gives its prompt and its protocol."""
