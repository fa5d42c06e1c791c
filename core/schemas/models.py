"""The base models that a server allows. Jobs name them; paths and hub ids come only from the server's list.

Not here: reading the list (core.catalog), loading weights (core.lm).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, model_validator

from core.schemas.base import Frozen

Template = Literal["own", "plain"]
ModelName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class FolderSource(Frozen):
    """A folder on the worker's disk in the Hugging Face layout, with safetensors weights."""

    kind: Literal["folder"] = "folder"
    """Always `folder`, for a folder on the worker's disk."""
    path: Path
    """Path of the folder on the worker's disk."""


class HubSource(Frozen):
    """A model on the Hugging Face hub, pinned to one commit."""

    kind: Literal["hub"] = "hub"
    """Always `hub`, for a repository on the hub."""
    id: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$", max_length=200)
    """Owner and name of the repository, such as `org/model`."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """Commit of the repository as 40 hex digits; a branch could change during a job."""


class GgufSource(Frozen):
    """A GGUF file on the worker's disk. Its weights are dequantised once, into a folder with safetensors weights."""

    kind: Literal["gguf"] = "gguf"
    """Always `gguf`, for a GGUF file on the worker's disk."""
    paths: tuple[Path, ...] = Field(min_length=1, max_length=1000)
    """Path of the file on the worker's disk, or of its parts, which are joined byte by byte in this order. The list may
    also have a single `path`."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the whole file in hex. If it is set, a file with another digest is rejected."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type of the dequantised weights. `bfloat16` takes half the space; `float32` rounds nothing."""
    cache: Path
    """Folder in which the dequantised copy is kept. The server's list has a default for it: `converted` in the state
    folder."""

    @model_validator(mode="before")
    @classmethod
    def _accept_one_path(cls, data: object) -> object:
        """Read `path` as the only one of `paths`."""
        if isinstance(data, dict) and "path" in data and "paths" not in data:
            fields = dict(cast("Mapping[str, object]", data))
            return {"paths": [fields.pop("path")], **fields}
        return data


ModelSource = FolderSource | HubSource | GgufSource
Source = Annotated[ModelSource, Field(discriminator="kind")]


class BaseModelEntry(Frozen):
    """An entry of the server's list: one allowed base model."""

    name: ModelName
    """Name of the model in jobs."""
    source: Source
    """Where the files of the model are."""
    unaligned_base: Source | None = None
    """The model that this one was aligned from, with the same architecture; `project_to_safe` needs it."""
    chat_template: Template = "own"
    """`own` uses the tokenizer's chat template. `plain` is for tokenizers without one: it sets securetune's plain
    template (core.lm.chat), with which adapters must be served too."""
    learning_rate: float = Field(default=2e-4, gt=0, le=1)
    """Learning rate of jobs that name none, above 0 and at most 1."""
    description: str = Field(default="", max_length=500)
    """A sentence about the model, at most 500 characters."""
