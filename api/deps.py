"""Dependencies of routes: the parts of the service, and authentication.

Not here: receiving uploads (api.uploads), queries (core.db).
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.tokenizers import Tokenizers
from core import catalog, queue
from core.catalog import Catalog
from core.config import Settings
from core.db import keys
from core.db.session import Sessions, transaction
from core.errors import InvalidModel, NotAuthenticated, Unavailable
from core.schemas.job import DatasetId, JobId
from core.schemas.keys import Caller
from core.schemas.prompts import PromptSetName
from core.storage import ArtifactStore


@dataclass(frozen=True)
class Parts:
    """The parts that an app works with."""

    settings: Settings
    sessions: Sessions
    store: ArtifactStore
    celery: Celery
    tokenizers: Tokenizers
    validators: ThreadPoolExecutor
    """Threads in which uploads are validated."""

    @property
    def catalog(self) -> Catalog:
        """The server's list as it is now.

        Raises:
            Unavailable: code `invalid_catalog`; the list was changed and is invalid now.
        """
        try:
            return catalog.read(self.settings.models_file, self.settings.converted)
        except InvalidModel as error:
            raise Unavailable(error.message, code=error.code) from error

    def send(self, job_id: str) -> None:
        """Notify a worker of a job.

        Raises:
            Unavailable: code `broker_unavailable`.
        """
        queue.send(self.celery, job_id)


async def _parts(request: Request) -> Parts:
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(_parts)]

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="api_key", description="An API key of this server: `Authorization: Bearer st_...`."
)


def authenticate(
    parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Caller:
    """The caller, by the API key in the `Authorization` header. Keys anywhere else are ignored.

    Raises:
        NotAuthenticated: the key is missing or not valid.
    """
    if credentials is None:
        raise NotAuthenticated("There is no API key. Send `Authorization: Bearer <key>`.", code="missing_api_key")
    with transaction(parts.sessions) as session:
        return keys.check(session, credentials.credentials)


CallerDep = Annotated[Caller, Depends(authenticate)]
JobIdPath = Annotated[JobId, Path(description="Id of the job.")]
DatasetIdPath = Annotated[DatasetId, Path(description="Id of the dataset.")]
PromptSetPath = Annotated[PromptSetName, Path(description="Id of an uploaded set, or name of a listed one.")]
LimitQuery = Annotated[int, Query(ge=1, le=100, description="Largest number of items to return, 1 to 100.")]
