# syntax=docker/dockerfile:1
# Two images of one service: the API without torch, and the worker with everything.
#
#   docker build --target api --tag securetune-api .
#   docker build --target worker --tag securetune-worker .
#
# Build arguments:
#   CONSTRAINTS   versions in the worker image: constraints/cpu.txt, or constraints/gpu.txt for a CUDA build of torch
#   PIP_FLAGS     additional options for pip, such as another package index
#
# Not here: running them together (docker-compose.yml).

FROM python:3.11-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SECURETUNE_STATE=/var/lib/securetune
# New volumes take owner and mode from these folders. Both images share a volume, so they use the same ids.
RUN groupadd --gid 10001 securetune \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin securetune \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/securetune /var/cache/huggingface
WORKDIR /app

# The requirements without the sources, so that this layer is rebuilt only when a requirement changes.
FROM base AS build-api
ARG PIP_FLAGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
COPY constraints/ constraints/
COPY pyproject.toml ./
# pyproject.toml refers to README.md. An empty file will do; the real one changes more often than the requirements.
RUN touch README.md
# hadolint ignore=DL3042,SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install ${PIP_FLAGS} --constraint constraints/base.txt ".[preview]"

FROM build-api AS build-worker
ARG CONSTRAINTS=constraints/cpu.txt
ARG PIP_FLAGS=""
# hadolint ignore=DL3042,SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install ${PIP_FLAGS} --constraint "${CONSTRAINTS}" ".[worker]"

# The API, the command line and the migrations.
FROM base AS api
COPY --from=build-api /opt/venv /opt/venv
COPY testbed/__init__.py testbed/
COPY testbed/model/ testbed/model/
COPY migrations/ migrations/
COPY securetune/__init__.py securetune/
COPY securetune/client/ securetune/client/
COPY securetune/cli/ securetune/cli/
COPY core/ core/
COPY api/ api/
RUN python -m compileall -q /app
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["uvicorn", "--factory", "api.main:create_app", "--host", "0.0.0.0", "--port", "8000", "--timeout-graceful-shutdown", "5"]

# The worker and its training processes.
FROM base AS worker
ENV HF_HOME=/var/cache/huggingface
COPY --from=build-worker /opt/venv /opt/venv
COPY testbed/__init__.py testbed/
COPY testbed/model/ testbed/model/
COPY core/ core/
COPY worker/ worker/
RUN python -m compileall -q /app
USER 10001:10001
# A healthy worker always has a training process, idle or busy. With the brackets, grep does not match itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["sh", "-c", "grep -qsa '[w]orker[.]process' /proc/[0-9]*/cmdline"]
CMD ["celery", "-A", "worker.main", "worker", "--pool", "threads", "--concurrency", "1", "--loglevel", "INFO", "--without-mingle", "--without-gossip", "--without-heartbeat"]
