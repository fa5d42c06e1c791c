"""The files of an allowed base model: where they come from, downloads from the hub, their identity.

Not here: which models are allowed (core.catalog), which files are refused (core.modelfiles), reading them
(core.lm.reading, core.lm.tokenizer, core.lm.load), converting GGUF files (core.lm.gguf). This module needs no torch.
"""

from pathlib import Path
from typing import assert_never

from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from core.errors import InvalidModel, Unavailable
from core.lm.gguf import convert, find_converted
from core.schemas.models import BaseModelEntry, FolderSource, GgufSource, HubSource

_ALL_BUT_WEIGHTS = ("*.json", "*.model", "*.jinja", "*.txt")


def fetch(entry: BaseModelEntry, *, weights: bool = True) -> Path:
    """The folder of a model. Files of a model on the hub are downloaded first, and a GGUF file is converted once.

    Without `weights`, only the other files are downloaded, and a GGUF file must have been converted before.

    Raises:
        InvalidModel: code `model_missing`; this worker does not have the files, or the hub does not have the revision.
            Code `model_not_converted`, or any of `core.lm.gguf.convert`, of a GGUF file.
        Unavailable: code `hub_unavailable`, or any of `core.lm.gguf.convert`.
    """
    match entry.source:
        case FolderSource(path=path):
            if not path.is_dir():
                raise InvalidModel(
                    f"The base model {entry.name!r} should be in a folder {path.name!r}, but this worker has no such "
                    "folder. Copy it there, or correct the server's list.",
                    code="model_missing",
                    param="base_model",
                )
            return path
        case GgufSource() as source:
            return convert(entry.name, source) if weights else _converted(entry.name, source)
        case HubSource(id=repo, revision=revision):
            patterns = ["*.safetensors", *_ALL_BUT_WEIGHTS] if weights else list(_ALL_BUT_WEIGHTS)
            try:
                return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns))
            except HfHubHTTPError as error:
                raise InvalidModel(
                    f"The model hub did not return {repo} at {revision}: {error}",
                    code="model_missing",
                    param="base_model",
                ) from error
            except (LocalEntryNotFoundError, HTTPError) as error:  # never reached, or the connection was lost
                raise Unavailable(
                    f"The model hub cannot be reached and {repo} is not on this worker yet.", code="hub_unavailable"
                ) from error
        case _:
            assert_never(entry.source)


def _converted(name: str, source: GgufSource) -> Path:
    folder = find_converted(name, source)
    if folder is None:
        raise InvalidModel(
            f"The base model {name!r} is a GGUF file that has not been converted yet, so it has no tokenizer to read. "
            f"Run `securetune models convert {name}` on the worker's machine, or start a job with it, which converts "
            "it first.",
            code="model_not_converted",
            param="base_model",
        )
    return folder


def describe_source(entry: BaseModelEntry) -> str:
    """Where a model comes from, in words."""
    match entry.source:
        case FolderSource(path=path):
            return f"folder {path.name}"
        case HubSource(id=repo, revision=revision):
            return f"{repo}@{revision}"
        case GgufSource(paths=paths, dtype=dtype):
            return f"GGUF file {paths[0].name}, converted to {dtype}"
        case _:
            assert_never(entry.source)
