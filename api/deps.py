"""What routes ask for: the parts of the service, and a valid key. Authentication lives here.

Not here: what an upload is (api.uploads), any query (core.db).
"""

from dataclasses import dataclass
from typing import Annotated

from celery import Celery
from fastapi import Depends, Path, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from core.catalog import Catalog
from core.config import Settings
from core.db import keys
from core.db.session import Sessions, transaction
from core.errors import Forbidden, NotAuthenticated
from core.schemas.job import DatasetId, JobId
from core.schemas.keys import Caller, Right
from core.schemas.prompts import PromptSetName
from core.storage import ArtifactStore


@dataclass(frozen=True)
class Parts:
    """All that the front door is made of; one for each app."""

    settings: Settings
    sessions: Sessions
    store: ArtifactStore
    catalog: Catalog
    celery: Celery


async def parts(request: Request) -> Parts:
    """The parts of the app that this request reached."""
    return request.app.state.parts


PartsDep = Annotated[Parts, Depends(parts)]


async def _settings(parts: PartsDep) -> Settings:
    return parts.settings


async def _sessions(parts: PartsDep) -> Sessions:
    return parts.sessions


async def _store(parts: PartsDep) -> ArtifactStore:
    return parts.store


async def _catalog(parts: PartsDep) -> Catalog:
    return parts.catalog


async def _celery(parts: PartsDep) -> Celery:
    return parts.celery


SettingsDep = Annotated[Settings, Depends(_settings)]
SessionsDep = Annotated[Sessions, Depends(_sessions)]
StoreDep = Annotated[ArtifactStore, Depends(_store)]
CatalogDep = Annotated[Catalog, Depends(_catalog)]
CeleryDep = Annotated[Celery, Depends(_celery)]

_BEARER = HTTPBearer(
    auto_error=False, scheme_name="api_key", description="An API key of this server: `Authorization: Bearer st_...`."
)


def authenticate(
    sessions: SessionsDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_BEARER)]
) -> Caller:
    """Who calls, by the key in the `Authorization` header; a key anywhere else is not looked at.

    Raises:
        NotAuthenticated: there is no key, or not a valid one.
    """
    if given is None:
        raise NotAuthenticated("There is no API key. Send `Authorization: Bearer <key>`.", code="missing_api_key")
    with transaction(sessions) as session:
        return keys.check(session, given.credentials)


CallerDep = Annotated[Caller, Depends(authenticate)]


def check_right(caller: Caller, right: Right) -> None:
    """Nothing, where the key has this right.

    Raises:
        Forbidden: code `missing_right`.
    """
    if right not in caller.rights:
        raise Forbidden(
            f"The API key {caller.name!r} does not have the right {right!r}. Whoever runs the server makes one that "
            f"has: securetune key create NAME --project {caller.project} --right {right}",
            code="missing_right",
        )


JobIdPath = Annotated[JobId, Path(description="Id of the job.")]
DatasetIdPath = Annotated[DatasetId, Path(description="Id of the dataset.")]
PromptSetPath = Annotated[PromptSetName, Path(description="Id of an uploaded set, or name of a listed one.")]
LimitQuery = Annotated[int, Query(ge=1, le=100, description="At most so many items.")]
