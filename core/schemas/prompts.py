"""Prompts that attacks are built from: behaviours, prompt sets, and the sources of sets.

Covers: prompt sets, layouts of published sets, the server's list of sets, the choice of a job. Not here: reading files
(core.data.promptsets), attacks (core.schemas.attacks).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from core.schemas.base import Frozen
from core.schemas.models import HubSource

FEWEST_PROBES = 8
"""Smallest number of probe prompts of each class: fewer do not determine a classifier."""

Layout = Literal["advbench", "harmbench", "strongreject", "jailbreakbench", "xstest", "plain"]
"""Column names of a file of prompts. `plain`: `text` and optionally `category`; the others are the columns of the
published set of that name."""
Use = Literal["harmful", "safe"]
"""Use of a prompt: `harmful` for attacks, `safe` for over-refusal."""

PromptSetName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Id of an uploaded set, or name of a set in the server's list."""


class Behaviour(Frozen):
    """A request to a model. A bare string is short for a request without category and context."""

    text: str = Field(min_length=1)
    """The request in one or two sentences. Judges see it without the attack around it."""
    category: str | None = None
    """Category of the request, as its prompt set names it."""
    context: str | None = None
    """A text that the request refers to; the model gets it before the request (HarmBench's contextual behaviours)."""

    @property
    def full_text(self) -> str:
        """The request with its context in front, as the model gets it."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text


def _expand_text(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


Worded = Annotated[Behaviour, BeforeValidator(_expand_text)]


class EvaluationPrompts(Frozen):
    """Prompts that figures are measured on; neither the analysis nor training uses them."""

    harmful: tuple[Worded, ...] = Field(min_length=1)
    """Requests that an aligned model refuses; attacks are built from them."""
    safe: tuple[Worded, ...] = Field(min_length=1)
    """Safe look-alikes: harmless requests that resemble harmful ones. Refusing one is over-refusal."""


class ProbePrompts(Frozen):
    """Prompts that the robustness analysis and safeguards use; figures are never measured on them."""

    harmful: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Requests that an aligned model refuses."""
    benign: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Ordinary requests that an aligned model answers."""
    safe: tuple[str, ...] = ()
    """Harmless requests that look like harmful ones: `safety_mix` trains on the base model's own answers to them."""


class PromptSet(Frozen):
    """Prompts of one job. The reported half and the probed half share no prompt."""

    name: str
    """Name of the set in the report."""
    evaluation: EvaluationPrompts
    """Prompts that figures are measured on."""
    probe: ProbePrompts
    """Prompts for the analysis and for safeguards."""

    @property
    def unreported_harmful(self) -> tuple[str, ...]:
        """Different harmful probe prompts, without any that figures are measured on."""
        reported = {behaviour.text for behaviour in self.evaluation.harmful}
        return tuple(text for text in dict.fromkeys(self.probe.harmful) if text not in reported)

    @property
    def unreported_safe(self) -> tuple[str, ...]:
        """Different safe probe prompts, without any that figures are measured on."""
        reported = {behaviour.text for behaviour in self.evaluation.safe}
        return tuple(text for text in dict.fromkeys(self.probe.safe) if text not in reported)


def is_uploaded(name: str) -> bool:
    """Whether a job that gives this name means an uploaded set, and not one in the server's list."""
    return name.startswith("ps_")


class ChosenPrompts(Frozen):
    """Prompt sets that figures are measured on. The probe prompts stay those of `auto`."""

    harmful: PromptSetName | None = None
    """Set of harmful requests: the id of an uploaded set or a name in the server's list. Null uses that of `auto`."""
    safe: PromptSetName | None = None
    """Set of safe look-alikes: an id or a name. Null uses that of `auto`."""

    @property
    def named(self) -> dict[Use, str]:
        """Names of the sets, by use."""
        both: tuple[tuple[Use, str | None], ...] = (("harmful", self.harmful), ("safe", self.safe))
        return {use: name for use, name in both if name is not None}


def _word_or_sets(value: object) -> str:
    return "word" if isinstance(value, str) else "sets"


PromptSource = Annotated[
    Annotated[Literal["auto", "builtin"], Tag("word")] | Annotated[ChosenPrompts, Tag("sets")],
    Discriminator(_word_or_sets),
]


class PromptFileSource(Frozen):
    """A file on the server's disk."""

    kind: Literal["file"] = "file"
    """Kind of source: a file on the server's disk."""
    path: Path
    """Path of the file on the server."""


class HubFileSource(HubSource):
    """A file of a data set on the Hugging Face hub, pinned to one commit."""

    file: str = Field(pattern=r"^(\w[\w-]*(\.[\w-]+)*/)*\w[\w-]*(\.[\w-]+)*\.(csv|json|jsonl)$", max_length=300)
    """Path of the file in the repository: a CSV, JSON or JSONL file."""


FileSource = Annotated[PromptFileSource | HubFileSource, Field(discriminator="kind")]


def _reject_id(name: str) -> str:
    if is_uploaded(name):
        raise ValueError("names that start with ps_ are ids of uploaded sets: choose another name")
    return name


class PromptSetEntry(Frozen):
    """One set of prompts in the server's list."""

    name: Annotated[PromptSetName, AfterValidator(_reject_id)]
    """Name of the set in jobs."""
    source: FileSource
    """Location of the file: on the server's disk, or on the hub."""
    layout: Layout
    """Layout of the file's columns."""
    description: str = Field(default="", max_length=500)
    """A sentence about the set for its users, at most 500 characters."""


class PromptFileSummary(Frozen):
    """Contents of a valid file of prompts."""

    layout: Layout
    """Layout of the file's columns."""
    harmful: int
    """Number of prompts that can be used for attacks."""
    safe: int
    """Number of prompts that can be used for over-refusal: the safe ones of XSTest, or all in other layouts."""
    categories: dict[str, int]
    """Number of prompts in each category; empty if the file has no categories."""
    left_out: int
    """Number of unused rows: repeated prompts, and HarmBench's copyright behaviours."""
