"""What the app is made of: what importing it loads, what it needs to start, what its documents say."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from api.main import create_app
from core.config import Settings
from core.errors import InvalidInput, InvalidModel

HEAVY = ("torch", "transformers", "peft", "sklearn", "scipy", "numpy", "core.pipeline", "worker")


def settings(**fields: object) -> Settings:
    known = {"database_url": SecretStr("postgresql:///none"), "redis_url": SecretStr("redis://localhost:1")}
    return Settings.model_validate(known | fields)


def test_importing_loads_nothing_heavy() -> None:
    program = f"import sys, api.main; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(("field", "variable"), [("database_url", "DATABASE_URL"), ("redis_url", "REDIS_URL")])
def test_an_address_that_is_not_set_is_named(field: str, variable: str) -> None:
    with pytest.raises(InvalidInput, match=variable) as caught:
        create_app(settings(**{field: SecretStr("")}))
    assert caught.value.code == "not_configured"


def test_a_broken_model_list_is_found_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "models.toml").write_text("[models.x]\nsource = { kind = 'pickle' }\n")
    with pytest.raises(InvalidModel, match=r"models\.toml"):
        create_app(settings(models=tmp_path / "models.toml"))


def test_secrets_are_in_no_description_of_the_app(tmp_path: Path) -> None:
    app = create_app(settings(database_url=SecretStr("postgresql://u:hunter2@h/d"), state=tmp_path))
    assert "hunter2" not in repr(app.state.parts) + repr(app.openapi())
