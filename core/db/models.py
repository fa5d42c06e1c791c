"""The tables; a test compares them with the migrations. Covers: columns, keys, indexes. Not here: queries."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, DateTime, ForeignKey, Identity, Index, MetaData, String, false, func
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.schemas.gate import GateOutcome
from core.schemas.keys import DEFAULT_PROJECT
from core.schemas.prompts import Layout
from core.schemas.speeds import Work, WorkMethod
from core.schemas.state import Stage, Status

Json = dict[str, Any]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: DateTime(timezone=True), Json: JSONB, int: BigInteger}


class ApiKey(Base):
    """An API key. Only a hash of its secret is stored."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    secret_hash: Mapped[str]
    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    rights: Mapped[list[str]] = mapped_column(ARRAY(String), server_default="{}")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]


class Upload(Base):
    """The columns of an uploaded file. Its id is a digest that identifies the upload, so the same upload is one row."""

    __abstract__ = True

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    key: Mapped[str]
    summary: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Dataset(Upload):
    """A dataset, identified by its bytes and its column map."""

    __tablename__ = "datasets"

    columns: Mapped[Json | None]


class PromptSet(Upload):
    """An uploaded prompt set, identified by its bytes and its layout."""

    __tablename__ = "prompt_sets"

    layout: Mapped[Layout] = mapped_column(String)


class Job(Base):
    """A job. This row is the source of truth; messages only notify workers of it."""

    __tablename__ = "jobs"
    __table_args__ = (
        CheckConstraint("status in ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="status"),
        Index("ix_jobs_newest", "created_at", "id"),
        Index("ix_jobs_unfinished", "status", postgresql_where="status in ('queued', 'running')"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    status: Mapped[Status] = mapped_column(String, server_default="queued")
    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)
    spec: Mapped[Json]
    policy: Mapped[Json | None]
    gate: Mapped[Json | None]
    progress: Mapped[Json | None]
    error: Mapped[Json | None]
    attempt: Mapped[int] = mapped_column(server_default="0")
    failures: Mapped[int] = mapped_column(server_default="0")
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    cancel_requested_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class ProjectPolicy(Base):
    """One version of a project's policy. Versions are added, never changed."""

    __tablename__ = "policies"

    project: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    policy: Mapped[Json]
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GateOverride(Base):
    """An override of the gate. A trigger prevents changing and deleting these rows."""

    __tablename__ = "gate_overrides"
    __table_args__ = (Index("ix_gate_overrides_of_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    outcome: Mapped[GateOutcome] = mapped_column(String)
    reason: Mapped[str]
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    key_name: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class TrainedWeights(Base):
    """The weights of one run and what the gate decided about them. A row outlives its job, so it has no foreign key."""

    __tablename__ = "trained_weights"
    __table_args__ = (Index("ix_trained_weights_of_project", "project", "sha256"),)

    job_id: Mapped[str] = mapped_column(primary_key=True)
    run: Mapped[str] = mapped_column(primary_key=True)
    project: Mapped[str]
    sha256: Mapped[str]
    offered: Mapped[bool]
    """Whether the job offers these weights for download: those of its own run, not of its baselines."""
    decision: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Speed(Base):
    """How long one kind of work took in one stage. A row outlives its job, so it has no foreign key."""

    __tablename__ = "speeds"
    __table_args__ = (Index("ix_speeds_of_model", "model", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[str]
    """The job that measured it, which may be a check of the model."""
    model: Mapped[str]
    sha256: Mapped[str]
    parameters: Mapped[int]
    device: Mapped[str]
    memory_bytes: Mapped[int]
    stage: Mapped[Stage] = mapped_column(String)
    work: Mapped[Work] = mapped_column(String)
    calls: Mapped[int]
    amount: Mapped[float]
    seconds: Mapped[float]
    precision: Mapped[str | None]
    method: Mapped[WorkMethod | None] = mapped_column(String)
    measured_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Event(Base):
    """An event of a job."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_of_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    type: Mapped[str]
    data: Mapped[Json]
    created_at: Mapped[datetime] = mapped_column(server_default=func.clock_timestamp())


class Artifact(Base):
    """A file of a finished job; `gated` files are released by the gate or an override."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str]
    sha256: Mapped[str]
    bytes: Mapped[int]
    media_type: Mapped[str]
    gated: Mapped[bool] = mapped_column(server_default=false())


class Score(Base):
    """One figure of one run of a job, with its sample size, interval and change against the base model."""

    __tablename__ = "scores"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    run: Mapped[str] = mapped_column(primary_key=True)
    suite: Mapped[str] = mapped_column(primary_key=True)
    metric: Mapped[str] = mapped_column(primary_key=True)
    judge: Mapped[str] = mapped_column(primary_key=True)
    value: Mapped[float]
    n: Mapped[int]
    undecided: Mapped[int]
    low: Mapped[float]
    high: Mapped[float]
    change: Mapped[float | None]
    change_n: Mapped[int | None]
    change_low: Mapped[float | None]
    change_high: Mapped[float | None]
