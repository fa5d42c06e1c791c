"""Settings of a process, read from the environment once.

Covers: addresses, folders, limits and intervals. Not here: options of a job (core.schemas.job).
"""

from functools import cache
from pathlib import Path
from typing import Self

from platformdirs import user_data_path
from pydantic import Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


def default_state() -> Path:
    """The default of `SECURETUNE_STATE`: a folder in the user's data directory."""
    return user_data_path("securetune")


class Settings(BaseSettings):
    """Each field is an environment variable with the prefix `SECURETUNE_`, except `DATABASE_URL` and `REDIS_URL`."""

    model_config = SettingsConfigDict(
        env_prefix="SECURETUNE_",
        env_ignore_empty=True,
        frozen=True,
        use_attribute_docstrings=True,
        populate_by_name=True,
    )

    database_url: SecretStr = Field(default=SecretStr(""), validation_alias="DATABASE_URL")
    """Address of PostgreSQL, such as `postgresql://user:password@host/db`. If empty, `securetune up` starts one."""
    redis_url: SecretStr = Field(default=SecretStr(""), validation_alias="REDIS_URL")
    """Address of Redis 6.2 or Valkey, `redis://` or `redis+socket://`. If empty, `securetune up` starts one."""
    state: Path = Field(default_factory=default_state)
    """Folder of everything that must last: artifacts, keys, logs, and the servers that `securetune up` starts."""
    models: Path | None = None
    """A TOML file with the base models, judges, prompt sets and benchmarks that jobs may name (core.catalog). If not
    set, `models.toml` in the state folder is read if there is one."""
    signing_key: Path | None = None
    """File of the private key that signs reports: Ed25519, PKCS #8, PEM, mode 0600. If not set, a worker creates one in
    the state directory."""
    max_upload_bytes: int = Field(default=512 * 2**20, gt=0)
    """Largest upload in bytes."""
    max_dataset_rows: int = Field(default=1_000_000, gt=0)
    """Largest number of rows in one dataset."""
    max_body_bytes: int = Field(default=2**20, gt=0)
    """Largest request body other than an upload, in bytes."""
    lease_seconds: float = Field(default=20.0, gt=0)
    """Seconds after the last heartbeat until another worker may claim the job."""
    heartbeat_seconds: float = Field(default=1.0, gt=0)
    """Seconds between heartbeats, which renew the lease, record progress and check for cancellation."""
    sweep_seconds: float = Field(default=5.0, gt=0)
    """Seconds between searches for lost messages and expired leases."""
    cancel_grace_seconds: float = Field(default=2.5, gt=0)
    """Seconds that a cancelled training process has to stop before it gets SIGTERM."""
    max_failures: int = Field(default=3, ge=1)
    """Number of crashes after which a job fails."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Device of training processes: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:N`."""
    threads: int = Field(default=0, ge=0)
    """CPU threads of a training process; 0 for torch's default."""
    vllm_python: Path | None = None
    """Python interpreter of an environment with vLLM, such as `/opt/vllm/bin/python`, for jobs whose `security.engine`
    is `vllm`. If not set, the worker rejects them."""

    @model_validator(mode="after")
    def _lease_outlives_beats(self) -> Self:
        if self.lease_seconds < 3 * self.heartbeat_seconds:
            raise ValueError(
                "lease_seconds must be at least three times heartbeat_seconds: otherwise healthy workers lose jobs"
            )
        return self

    @property
    def models_file(self) -> Path | None:
        """The server's list: the file that `models` names, or `models.toml` in the state folder if there is one."""
        default = self.state / "models.toml"
        return self.models or (default if default.exists() else None)

    @property
    def converted(self) -> Path:
        """Folder of the safetensors copies of GGUF models."""
        return self.state.absolute() / "converted"

    @property
    def artifacts(self) -> Path:
        """Folder of the artifact store."""
        return self.state / "artifacts"

    @property
    def signing(self) -> Path:
        """Folder of the signing key and the list of public keys."""
        return self.state / "signing"


@cache
def settings() -> Settings:
    """The settings of this process. Call `settings.cache_clear()` after changing the environment in tests."""
    return Settings()
