"""Finds files of prompts and benchmarks: on this machine's disk, in the artifact store, or downloaded from the hub.

Covers: one pinned revision of a hub data set, and the errors if a file is missing. The API must not import this file:
it has no hub client. Not here: reading prompts (core.data.promptsets), base models (core.lm.load).
"""

from pathlib import Path
from typing import assert_never

from httpx2 import HTTPError
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from core.data.promptsets import read
from core.errors import InvalidDataset, InvalidInput, TooLarge, Unavailable
from core.schemas.job import PromptFile, UploadedFile
from core.schemas.prompts import Behaviour, FileSource, HubFileSource, PromptFileSource, Use
from core.storage import ArtifactStore, check_digest

_PARAM = "security.prompts"


def prompts(file: PromptFile, store: ArtifactStore, use: Use) -> tuple[Behaviour, ...]:
    """The prompts of a chosen set.

    Raises:
        InvalidInput: code `prompt_set_missing`, `invalid_prompt_set` or `file_changed`.
        NotFound: code `artifact_missing`; an uploaded file has been removed.
        Unavailable: code `hub_unavailable`.
    """
    if isinstance(file.source, UploadedFile):
        path = store.path(file.source.key)
        check_digest(path, file.source.sha256)
    else:
        path = fetch_file(file.source, name=f"The prompt set {file.name!r}")
    try:
        return read(path, file.layout, use)
    except (InvalidDataset, TooLarge) as error:
        raise InvalidInput(
            f"The prompt set {file.name!r} cannot be used: {error.message}", code="invalid_prompt_set", param=_PARAM
        ) from error


def fetch_file(source: FileSource, *, name: str, code: str = "prompt_set_missing", param: str = _PARAM) -> Path:
    """The file of an entry in the server's list, downloaded before if it comes from the hub. `name` begins messages.

    Raises:
        InvalidInput: code `code`; there is no such file on this worker, or no such revision.
        Unavailable: code `hub_unavailable`.
    """
    match source:
        case PromptFileSource(path=path):
            if not path.is_file():
                raise InvalidInput(
                    f"{name} should be in a file {path.name!r}, but this worker has no such file. Put it where the "
                    "server's list says, or correct the list.",
                    code=code,
                    param=param,
                )
            return path
        case HubFileSource(id=repo, revision=revision, file=file):
            try:
                return Path(hf_hub_download(repo, file, repo_type="dataset", revision=revision))
            except HfHubHTTPError as error:
                raise InvalidInput(
                    f"{name}: the hub did not return {file} of the data set {repo} at {revision}: {error}",
                    code=code,
                    param=param,
                ) from error
            except (LocalEntryNotFoundError, HTTPError) as error:  # never reached, or lost on the way
                raise Unavailable(
                    f"{name}: the hub cannot be reached, and {file} of the data set {repo} is not on this worker yet.",
                    code="hub_unavailable",
                ) from error
        case _:
            assert_never(source)
