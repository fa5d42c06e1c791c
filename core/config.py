"""Settings of one process, read from the environment once. Secrets stay `SecretStr`.

Covers: where things are and how large they may get. Not here: anything a job may choose (core.schemas.job).
"""

from functools import cache
from pathlib import Path
from typing import Self

from platformdirs import user_data_path
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_state() -> Path:
    """The state directory that is used when `SECURETUNE_STATE` is not set: below the user's own data directory."""
    return user_data_path("securetune")


class Settings(BaseSettings):
    """Each field is an environment variable: `SECURETUNE_` and its name, but for the two well-known ones."""

    model_config = SettingsConfigDict(
        env_prefix="SECURETUNE_",
        env_ignore_empty=True,
        frozen=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """PostgreSQL, such as `postgresql://user:password@host/db`. `securetune up` starts one when it is empty."""
    redis_url: SecretStr = Field(default=SecretStr(""), validation_alias="REDIS_URL")
    """Redis 6.2 or Valkey, `redis://` or `redis+socket://`. `securetune up` starts one when it is empty."""
    state: Path = Field(default_factory=default_state)
    """Where everything that must last is kept: artifacts, and what `securetune up` starts."""
    models: Path | None = None
    """A TOML file that names base models, judges, prompt sets and benchmarks for jobs; the testbed is always there."""
    signing_key: Path | None = None
    """A file with the private key that reports are signed with: Ed25519, PKCS #8, PEM, mode 0600. When it is not set, a
    worker makes one below the state directory."""
    max_upload_bytes: int = Field(default=512 * 2**20, gt=0)
    """Largest dataset file that is taken."""
    max_dataset_rows: int = Field(default=1_000_000, gt=0)
    """Largest number of rows in one dataset."""
    max_body_bytes: int = Field(default=2**20, gt=0)
    """Largest request body other than an upload."""
    lease_seconds: float = Field(default=20.0, gt=0)
    """How long a silent worker keeps a job before another may take it."""
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    """How often a worker renews its lease, records progress and looks for a cancel."""
    sweep_seconds: float = Field(default=5.0, gt=0)
    """How often lost messages and expired leases are looked for."""
    cancel_grace_seconds: float = Field(default=2.5, gt=0)
    """How long a cancelled training process may take to stop by itself before it is killed."""
    max_failures: int = Field(default=3, ge=1)
    """How many times a job may be interrupted by a crash before it counts as failed."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where the worker computes: `auto` takes a GPU when there is one."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a training process; 0 leaves the choice to torch."""

    @model_validator(mode="after")
    def _lease_outlives_beats(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError("lease_seconds must be at least three times heartbeat_seconds, or the living lose jobs")
        return self

    @property
    def artifacts(self) -> Path:
        """Folder of the artifact store."""
        return self.state / "artifacts"

    @property
    def signing(self) -> Path:
        """Folder of the signing key and of the list of public keys."""
        return self.state / "signing"


@cache
def settings() -> Settings:
    """The settings of this process. Tests that change the environment call `settings.cache_clear()`."""
    return Settings()
