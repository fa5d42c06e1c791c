"""Prompts that attacks are built from: one behaviour, a whole set, and where sets come from.

Covers: prompt sets, layouts of published ones, the server's list of sets, what a job may choose. Not here: reading
files (core.data.promptsets), attacks (core.schemas.attacks).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag

from core.schemas.base import Frozen
from core.schemas.models import HubSource

FEWEST_PROBES = 8
"""Fewer prompts of a class are no ground for a classifier."""

Layout = Literal["advbench", "harmbench", "strongreject", "jailbreakbench", "xstest", "plain"]
"""How a file of prompts names its columns. `plain`: `text`, and `category` if there is one; the others are those of the
published sets of that name."""
Use = Literal["harmful", "safe"]
"""What prompts are used for: attacks, or the count of over-refusal."""

PromptSetName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What a set is called: the id of an uploaded one, or a name in the server's list."""


class Behaviour(Frozen):
    """Something to ask a model for. A bare string is short for one without category and context."""

    text: str = Field(min_length=1)
    """The request, in one or two sentences; judges see it, never the attack around it."""
    category: str | None = None
    """What it is about, in its set's own words."""
    context: str | None = None
    """A text that the request is about, put before it when the model is asked (HarmBench's contextual behaviours)."""

    @property
    def full_text(self) -> str:
        """What the model is asked: the request, with its context before it."""
        return f"{self.context}\n\n{self.text}" if self.context else self.text


def _worded(value: object) -> object:
    return {"text": value} if isinstance(value, str) else value


Worded = Annotated[Behaviour, BeforeValidator(_worded)]


class EvaluationPrompts(Frozen):
    """Prompts that figures are measured on; no analysis and no training sees them."""

    harmful: tuple[Worded, ...] = Field(min_length=1)
    """Behaviours that an aligned model refuses: the attacks are built from them."""
    safe: tuple[Worded, ...] = Field(min_length=1)
    """Harmless requests that look alike: refusing one is over-refusal."""


class ProbePrompts(Frozen):
    """Prompts that the robustness analysis and safeguards use; figures are never measured on them."""

    harmful: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Behaviours that an aligned model refuses."""
    benign: tuple[str, ...] = Field(min_length=FEWEST_PROBES)
    """Ordinary requests that it answers."""
    safe: tuple[str, ...] = ()
    """Harmless requests that look like harmful ones: `safety_mix` trains on the base model's own answers to them."""


class PromptSet(Frozen):
    """Prompts of one job, split so that what is analysed is never what is reported."""

    name: str
    """Where they are from, as it stands in the report."""
    evaluation: EvaluationPrompts
    """Prompts that figures are measured on."""
    probe: ProbePrompts
    """Prompts for the analysis and for safeguards."""


def is_uploaded(name: str) -> bool:
    """Whether a job that says this means an uploaded set; else it means one of the server's list."""
    return name.startswith("ps_")


class ChosenPrompts(Frozen):
    """Prompt sets that figures are measured on. The probe prompts stay those of `auto`."""

    harmful: PromptSetName | None = None
    """Set of harmful requests: the id of an uploaded set or a name in the server's list. Null uses that of `auto`."""
    safe: PromptSetName | None = None
    """Set of safe look-alikes: an id or a name. Null uses that of `auto`."""

    @property
    def named(self) -> dict[Use, str]:
        """The sets that are named, by what they are used for."""
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
    """Path of the file, or hub repository."""


class HubFileSource(HubSource):
    """A file of a data set on the Hugging Face hub, pinned to one commit."""

    file: str = Field(pattern=r"^(\w[\w-]*(\.[\w-]+)*/)*\w[\w-]*(\.[\w-]+)*\.(csv|json|jsonl)$", max_length=300)
    """The file in it."""


FileSource = Annotated[PromptFileSource | HubFileSource, Field(discriminator="kind")]


def _no_id(name: str) -> str:
    if is_uploaded(name):
        raise ValueError("names that begin with ps_ are those of uploaded sets: choose another")
    return name


class PromptSetEntry(Frozen):
    """One set of prompts in the server's list."""

    name: Annotated[PromptSetName, AfterValidator(_no_id)]
    """What a job calls it."""
    source: FileSource
    """Path of the file, or hub repository."""
    layout: Layout
    """How its columns are named."""
    description: str = Field(default="", max_length=500)
    """A sentence for its users."""


class PromptFileSummary(Frozen):
    """What is known of a valid file of prompts."""

    layout: Layout
    """How its columns are named."""
    harmful: int
    """How many prompts it has to attack with."""
    safe: int
    """How many it has to count over-refusal on: all of a layout that does not tell, the safe ones of XSTest."""
    categories: dict[str, int]
    """How many of each category; empty where the file names none."""
    left_out: int
    """Rows that are not used: the same prompt again, HarmBench's copyright behaviours."""
