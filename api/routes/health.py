"""Whether the process is up, and whether it is ready. No API key is needed, and no secret is shown."""

from celery import Celery
from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response

from api import examples
from api.deps import PartsDep
from api.errors import error_response, error_type
from core import queue
from core.db import schema
from core.db.session import Sessions, transaction
from core.errors import Unavailable
from core.schemas.problems import ErrorBody, Health, PartState, Readiness

router = APIRouter(tags=["health"])


@router.get("/healthz", summary="Check that the process is up", response_description="The process is up")
async def healthz() -> Health:
    """Responds as long as the process runs, whatever else is down."""
    return Health()


@router.get(
    "/readyz",
    summary="Check that the service is ready",
    response_model=Readiness,
    response_description="Every part is up",
    responses=examples.errors(503),
)
def readyz(parts: PartsDep) -> Response | Readiness:
    """Checks the database, its schema and the broker. Without the broker, jobs can be created but start late."""
    # Not async: a thread may wait for the database.
    found = Readiness(database=_database(parts.sessions), broker=_broker(parts.celery))
    if found.ready:
        return JSONResponse(found.model_dump(mode="json"))
    states = found.model_dump()
    down = ", ".join(f"{name} {state.replace('_', ' ')}" for name, state in states.items() if state != "up")
    body = ErrorBody(message=f"Not ready: {down}.", type=error_type(503), param=None, code="not_ready", readiness=found)
    return error_response(503, body)


def _database(sessions: Sessions) -> PartState:
    try:
        with transaction(sessions) as session:
            return "up" if schema.is_current(session) else "not_migrated"
    except Unavailable:
        return "down"


def _broker(celery: Celery) -> PartState:
    try:
        queue.depth(celery)
    except Unavailable:
        return "down"
    return "up"
