"""The base models that a server allows. Closed union of sources: no path and no hub id ever comes from a job.

Not here: reading the list (core.catalog), loading weights (core.lm).
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from core.spec.base import Frozen

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
    """The commit: a branch would let the weights change below a job."""


class BaseModelEntry(Frozen):
    """One allowed base model."""

    name: ModelName
    """What a job calls it."""
    source: Annotated[FolderSource | HubSource, Field(discriminator="kind")]
    """Where its files are."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Standard rate of a job that names none."""
    description: str = Field(default="", max_length=500)
    """A sentence for its users."""
