"""The judge models that jobs may name, without addresses and keys. Not here: the list itself (core.catalog)."""

from typing import assert_never

from fastapi import APIRouter

from api.deps import PartsDep
from core.schemas.judges import EndpointSource, JudgeEntry, kinds_for
from core.schemas.models import FolderSource, GgufSource, HubSource
from core.schemas.replies import JudgeReply, Page

router = APIRouter(prefix="/judges", tags=["judges"])


@router.get("", summary="List judge models", response_description="By name")
def list_judges(parts: PartsDep) -> Page[JudgeReply]:
    """Judge models by name, for `security.judges` of a job. The judge `rules` needs no model."""
    return Page(data=tuple(_reply(entry) for _, entry in sorted(parts.catalog.judges.items())), has_more=False)


def _reply(entry: JudgeEntry) -> JudgeReply:
    model, revision = _identity(entry)
    return JudgeReply(
        name=entry.name,
        description=entry.description,
        protocol=entry.protocol,
        kinds=kinds_for(entry.protocol),
        source=entry.source.kind,
        model=model,
        revision=revision,
    )


def _identity(entry: JudgeEntry) -> tuple[str | None, str | None]:
    match entry.source:
        case FolderSource() | GgufSource():
            return None, None
        case HubSource(id=repo, revision=revision):
            return repo, revision
        case EndpointSource(model=model):
            return model, None
        case _:
            assert_never(entry.source)
