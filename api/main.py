"""The app: routers, error handlers, limits, and the parts it is made of.

    uvicorn --factory api.main:create_app

Nothing is connected to before the first request needs it, so the app starts without database and broker and answers
503 until they are there. Not here: starting servers (local), running jobs (worker).
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from api import errors, examples, reference
from api.context import RequestContext
from api.deps import Parts, authenticate
from api.limits import BodyLimit
from api.routes import artifacts, benchmarks, datasets, gate, health, jobs, judges, models, policy, prompt_sets, signing
from core import catalog, config, queue
from core.config import Settings
from core.db import session
from core.errors import InvalidInput
from core.storage import ArtifactStore

_TAGS = [
    {"name": "datasets", "description": "Conversations to train on."},
    {"name": "jobs", "description": "One base model tuned on one dataset, attacked before and after."},
    {"name": "artifacts", "description": "What a job leaves: adapter, report, robustness map, answers."},
    {"name": "gate", "description": "What withholds an unsafe adapter, and who overrode it."},
    {"name": "policy", "description": "What a project asks of data and adapters."},
    {"name": "models", "description": "Base models that may be tuned."},
    {"name": "prompt sets", "description": "Prompts to attack with, and safe look-alikes."},
    {"name": "judges", "description": "Models that may judge answers."},
    {"name": "benchmarks", "description": "Questions that task performance may be measured on."},
    {"name": "signing keys", "description": "Public keys that reports are signed with; no key needed."},
    {"name": "health", "description": "For load balancers and supervisors; no key needed."},
]
_DESCRIPTION = (
    "Fine-tunes language models without losing their alignment: measures which modules are robust, trains those at the "
    'standard rate and the rest more gently, attacks the model before and after. Errors: `{"error": {...}}`.'
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The app for these settings, or for those in the environment.

    Raises:
        InvalidInput: code `not_configured`; no address of a database or a broker is set.
        InvalidModel: code `invalid_catalog`; the server's list cannot be read.
    """
    parts = _parts(settings or config.settings())
    app = examples.DocumentedApp(
        title="securetune",
        summary="Secure fine-tuning of language models.",
        description=_DESCRIPTION,
        version="0.1.0",
        openapi_tags=_TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.parts = parts
    errors.install(app)
    app.add_middleware(
        BodyLimit,
        upload=parts.settings.max_upload_bytes,
        upload_paths=frozenset({datasets.router.prefix, prompt_sets.router.prefix}),
        other=parts.settings.max_body_bytes,
    )
    app.add_middleware(RequestContext)
    for module in (datasets, jobs, artifacts, gate, policy, models, prompt_sets, judges, benchmarks):
        app.include_router(
            module.router, dependencies=[Depends(authenticate)], responses=examples.errors(401, 422, 503)
        )
    app.include_router(health.router)
    app.include_router(signing.router, responses=examples.errors(503))
    reference.install(app)
    return app


def _parts(settings: Settings) -> Parts:
    database, broker = settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    if not database or not broker:
        missing = "DATABASE_URL" if not database else "REDIS_URL"
        raise InvalidInput(
            f"{missing} is not set. `securetune up` starts everything and sets it.", code="not_configured"
        )
    return Parts(
        settings=settings,
        sessions=session.sessions(database),
        store=ArtifactStore(settings.artifacts),
        catalog=catalog.read(settings.models),
        celery=queue.app(broker),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    parts: Parts = app.state.parts
    parts.store.clean()
    yield
    session.dispose(parts.sessions)
    parts.celery.close()
