"""The base models that jobs may name. Not here: the list itself (core.catalog)."""

from fastapi import APIRouter

from api.deps import PartsDep
from core import catalog
from core.errors import InvalidModel
from core.schemas.models import BaseModelEntry, HubSource
from core.schemas.replies import ModelReply, Page

router = APIRouter(prefix="/models", tags=["models"])


@router.get("", summary="List base models", response_description="By name")
def list_models(parts: PartsDep) -> Page[ModelReply]:
    """Base models by name; `problem` says why a model is not usable. Only these models can be tuned."""
    return Page(data=tuple(_reply(entry) for _, entry in sorted(parts.catalog.models.items())), has_more=False)


def _reply(entry: BaseModelEntry) -> ModelReply:
    hub = entry.source if isinstance(entry.source, HubSource) else None
    problem = _problem(entry)
    return ModelReply(
        name=entry.name,
        description=entry.description,
        learning_rate=entry.learning_rate,
        source=entry.source.kind,
        hub_id=hub.id if hub else None,
        revision=hub.revision if hub else None,
        chat_template=entry.chat_template,
        unaligned_base=entry.unaligned_base is not None,
        usable=problem is None,
        problem=problem,
    )


def _problem(entry: BaseModelEntry) -> str | None:
    try:
        catalog.find({entry.name: entry}, entry.name)
    except InvalidModel as error:
        return error.message
    return None
