"""Who judges answers: what a job may order, and the server's list of judge models.

Covers: judges of a job, entries of the list. Not here: protocols and their prompts (core.judges).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, HttpUrl

from core.schemas.base import Frozen
from core.schemas.models import FolderSource, HubSource

JudgeName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class RulesJudge(Frozen):
    """Rules over English text; no model, no download."""

    english_only: ClassVar[bool] = True
    """Whether it can judge only answers in English."""

    kind: Literal["rules"] = "rules"
    """The offline judge."""

    @property
    def label(self) -> str:
        """Name in every figure."""
        return self.kind


class RubricJudge(Frozen):
    """A language model scores 1 to 5 by a usage policy (after Qi et al. 2023); 5 counts as attack success."""

    english_only: ClassVar[bool] = False
    """Whether it can judge only answers in English."""

    kind: Literal["rubric"] = "rubric"
    """The rubric."""
    model: JudgeName
    """A chat model in the server's list of judges."""

    @property
    def label(self) -> str:
        """Name in every figure."""
        return f"{self.kind}:{self.model}"


class StrongRejectJudge(Frozen):
    """A language model says whether the answer refuses, how convincing and how specific it is (Souly et al. 2024)."""

    english_only: ClassVar[bool] = False
    """Whether it can judge only answers in English."""

    kind: Literal["strongreject"] = "strongreject"
    """StrongREJECT's rubric."""
    model: JudgeName
    """A chat model in the server's list of judges."""

    @property
    def label(self) -> str:
        """Name in every figure."""
        return f"{self.kind}:{self.model}"


class ClassifierJudge(Frozen):
    """A model that was trained to judge: HarmBench's classifier, Llama Guard, WildGuard and their like."""

    english_only: ClassVar[bool] = False
    """Whether it can judge only answers in English."""

    kind: Literal["classifier"] = "classifier"
    """A trained classifier."""
    model: JudgeName
    """A classifier in the server's list of judges; its entry says how it is asked and how it answers."""

    @property
    def label(self) -> str:
        """Name in every figure."""
        return f"{self.kind}:{self.model}"


Judge = Annotated[RulesJudge | RubricJudge | StrongRejectJudge | ClassifierJudge, Field(discriminator="kind")]


class EndpointSource(Frozen):
    """A server that speaks OpenAI's chat completions."""

    kind: Literal["endpoint"] = "endpoint"
    """A server."""
    url: HttpUrl
    """Its base address, such as `https://judge.example.org/v1`."""
    model: str = Field(min_length=1, max_length=300)
    """The model's name there."""
    api_key_env: str | None = Field(default=None, pattern=r"^SECURETUNE_JUDGE_[A-Z0-9_]+$", max_length=100)
    """Environment variable of the worker that holds the key, never the key itself. It begins with `SECURETUNE_JUDGE_`:
    no other of the worker's secrets reaches the process that asks."""
    reasoning: bool = False
    """Whether the model thinks before it answers, as OpenAI's later ones do: it then gets room for that, and no
    temperature is asked for."""
    timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    """How long one answer may take."""
    retries: int = Field(default=4, ge=0, le=20)
    """How often a call is tried again that timed out, was rate-limited or met a server's error."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Most calls at the same time."""


JudgeProtocol = Literal["chat", "yes_no", "safe_unsafe", "labels"]


class JudgeEntry(Frozen):
    """One judge model in the server's list."""

    name: JudgeName
    """What a job calls it."""
    source: Annotated[FolderSource | HubSource | EndpointSource, Field(discriminator="kind")]
    """Where it is: a model that the worker loads, or a server that is asked."""
    protocol: JudgeProtocol = "chat"
    """`chat`: a chat model, for `rubric` and `strongreject`. The others are classifiers, by what they answer: `yes_no`
    (HarmBench's), `safe_unsafe` (Llama Guard's), `labels` (WildGuard's lines)."""
    template: str | None = Field(default=None, max_length=32_000)
    """A classifier's own prompt with `{behaviour}` and `{answer}` in it, as its authors publish it, special tokens
    included. Without one, the tokenizer's chat template is given the behaviour and the answer as two turns."""
    description: str = Field(default="", max_length=500)
    """A sentence for its users."""
