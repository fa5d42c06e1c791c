# syntax=docker/dockerfile:1
# Two images of one service. The API's has no torch and no model code; the worker's has both.
#
#   docker build --target api --tag securetune-api .
#   docker build --target worker --tag securetune-worker .
#
# Build arguments:
#   CONSTRAINTS   versions in the worker: constraints/cpu.txt, or constraints/gpu.txt for a CUDA build of torch
#   PIP_FLAGS     more options for pip, such as another package index
#
# Not here: how they are run together (docker-compose.yml).

FROM python:3.11-slim AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SECURETUNE_STATE=/var/lib/securetune
# Volumes take owner and mode from these folders, and both images share one: so the ids are the same in both.
RUN groupadd --gid 10001 securetune \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin securetune \
    && install --directory --owner=10001 --group=10001 --mode=0750 /var/lib/securetune /var/cache/huggingface
WORKDIR /app

# What the project needs and its metadata, without its sources: this is made anew only when a requirement changes.
FROM base AS build-api
ARG PIP_FLAGS=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore
RUN python -m venv --without-pip /opt/venv
COPY constraints/ constraints/
COPY pyproject.toml ./
# pyproject.toml names README.md, which changes more often than any requirement.
RUN touch README.md
# hadolint ignore=DL3042,SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install ${PIP_FLAGS} --constraint constraints/base.txt .

FROM build-api AS build-worker
ARG CONSTRAINTS=constraints/cpu.txt
ARG PIP_FLAGS=""
# hadolint ignore=DL3042,SC2086
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/venv install ${PIP_FLAGS} --constraint "${CONSTRAINTS}" ".[worker]"

# API, command line and migrations.
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

# Worker and training processes.
FROM base AS worker
ENV HF_HOME=/var/cache/huggingface
COPY --from=build-worker /opt/venv /opt/venv
COPY testbed/__init__.py testbed/
COPY testbed/model/ testbed/model/
COPY core/ core/
COPY worker/ worker/
RUN python -m compileall -q /app
USER 10001:10001
# A worker that works has a training process at all times, waiting or busy. The brackets keep grep from finding itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["sh", "-c", "grep -qsa '[w]orker[.]process' /proc/[0-9]*/cmdline"]
CMD ["celery", "-A", "worker.main", "worker", "--pool", "threads", "--concurrency", "1", "--loglevel", "INFO", "--without-mingle", "--without-gossip", "--without-heartbeat"]
