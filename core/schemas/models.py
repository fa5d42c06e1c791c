"""The base models that a server allows. Closed union of sources: no path and no hub id ever comes from a job.

Not here: reading the list (core.catalog), loading weights (core.lm).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from core.schemas.base import Frozen

Template = Literal["own", "plain"]
ModelName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class FolderSource(Frozen):
    """A folder on the worker's disk in the Hugging Face layout, with safetensors weights."""

    kind: Literal["folder"] = "folder"
    """A local folder."""
    path: Path
    """Where it is."""


class HubSource(Frozen):
    """A model of the Hugging Face hub, pinned to one commit."""

    kind: Literal["hub"] = "hub"
    """A hub repository."""
    id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)
    """Owner and name."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The commit: a branch would let the files change below a job."""


Source = Annotated[FolderSource | HubSource, Field(discriminator="kind")]


class BaseModelEntry(Frozen):
    """One allowed base model."""

    name: ModelName
    """What a job calls it."""
    source: Source
    """Where its files are."""
    unaligned_base: Source | None = None
    """The model that this one was aligned from, of the same shape: the safeguard `project_to_safe` needs it."""
    chat_template: Template = "own"
    """`own`: the tokenizer's own chat template. `plain`: the tokenizer has none, and is given securetune's plain one
    (core.lm.chat), which its adapters must be served with too."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Standard rate of a job that names none."""
    description: str = Field(default="", max_length=500)
    """A sentence for its users."""
