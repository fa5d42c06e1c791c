"""The app: routers, error handlers, limits, and its parts.

    uvicorn --factory api.main:create_app

Connections are made by the first request that needs them, so the app starts without database and broker, and responds
with 503 until they are up. Not here: starting servers (securetune.local), running jobs (worker).
"""

from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import Depends, FastAPI

from api import errors, examples, reference
from api.context import RequestContext
from api.deps import Parts, authenticate
from api.limits import BodyLimit
from api.routes import artifacts, benchmarks, datasets, gate, health, jobs, judges, models, policy, prompt_sets, signing
from api.tokenizers import Tokenizers
from core import catalog, config, queue
from core.config import Settings
from core.db import session
from core.errors import InvalidInput
from core.storage import ArtifactStore

_TAGS = [
    {"name": "datasets", "description": "Conversations to train on: upload, list, screen."},
    {"name": "jobs", "description": "A job tunes a base model on a dataset, and attacks it before and after."},
    {"name": "artifacts", "description": "Files of a finished job: adapter, report, robustness map, answers."},
    {"name": "gate", "description": "The gate withholds adapters that do not meet the policy; it can be overridden."},
    {"name": "policy", "description": "What a project requires of data and adapters."},
    {"name": "models", "description": "Base models that jobs may tune."},
    {"name": "prompt sets", "description": "Harmful prompts for attacks, and safe look-alikes."},
    {"name": "judges", "description": "Judge models that jobs may use."},
    {"name": "benchmarks", "description": "Benchmarks of task performance that jobs may use."},
    {"name": "signing keys", "description": "Public keys that verify signed reports. No API key is needed."},
    {"name": "health", "description": "For load balancers and supervisors. No API key is needed."},
]
_VALIDATORS = 2
"""Uploads that are validated at once; others wait for their turn."""
_DESCRIPTION = (
    "Fine-tunes language models without losing their alignment: measures which modules are robust, trains these at the "
    "standard learning rate and the others at a lower one, and attacks the model before and after. Every error has the "
    'body `{"error": {"message", "type", "param", "code"}}`.'
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the app with these settings, or with those of the environment.

    Raises:
        InvalidInput: code `not_configured`; the address of the database or the broker is not set.
        InvalidModel: code `invalid_catalog`; the server's list is invalid.
    """
    parts = _parts(settings or config.settings())
    app = examples.DocumentedApp(
        title="securetune",
        summary="Secure fine-tuning of language models.",
        description=_DESCRIPTION,
        version=version("securetune"),
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
            f"{missing} is not set. Set it, or run `securetune up`, which starts everything.", code="not_configured"
        )
    catalog.read(settings.models_file, settings.converted)  # an invalid list ends the program before it serves anything
    return Parts(
        settings=settings,
        sessions=session.sessions(database),
        store=ArtifactStore(settings.artifacts),
        celery=queue.app(broker),
        tokenizers=Tokenizers(),
        validators=ThreadPoolExecutor(_VALIDATORS, "validator"),
    )


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    parts: Parts = app.state.parts
    parts.store.clean()
    yield
    parts.validators.shutdown(wait=False, cancel_futures=True)
    session.dispose(parts.sessions)
    parts.celery.close()
