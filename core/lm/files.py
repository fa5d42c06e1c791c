"""The files of an allowed base model: where they come from, downloads from the hub, their digest.

Not here: which models are allowed (core.catalog), which files are refused (core.modelfiles), reading them
(core.lm.reading, core.lm.tokenizer, core.lm.load). This module needs no torch.
"""

from collections.abc import Sequence
from hashlib import file_digest, sha256
from pathlib import Path
from typing import assert_never

from httpx2 import HTTPError
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from core.errors import InvalidModel, Unavailable
from core.schemas.models import BaseModelEntry, FolderSource, HubSource

TOKENIZER_FILES = ("*.json", "*.model", "*.jinja", "*.txt")
"""Patterns of everything but weights."""
ALL_FILES = ("*.safetensors", *TOKENIZER_FILES)


def fetch(entry: BaseModelEntry, patterns: Sequence[str] = ALL_FILES) -> Path:
    """The folder of a model. Files that match `patterns` are downloaded first if the model comes from the hub.

    Raises:
        InvalidModel: code `model_missing`; this worker does not have the folder, or the hub does not have the revision.
        Unavailable: code `hub_unavailable`.
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
        case HubSource(id=repo, revision=revision):
            try:
                return Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
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


def describe_source(entry: BaseModelEntry) -> str:
    """Where a model comes from, in words."""
    match entry.source:
        case FolderSource(path=path):
            return f"folder {path.name}"
        case HubSource(id=repo, revision=revision):
            return f"{repo}@{revision}"
        case _:
            assert_never(entry.source)


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of a model's files, named chat templates included, in hex."""
    total = sha256()
    paths = [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]
    for path in sorted(path for path in paths if path.is_file()):
        with path.open("rb") as file:
            total.update(f"{path.relative_to(folder)} {file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()
