"""A running service with one finished job whose adapter can be downloaded, for the commands in the docs."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from core.config import Settings
from core.db import keys
from core.db.session import once
from securetune import SecureTune
from securetune.local.running import running
from securetune.local.up import database

TINY = {
    "training": {"steps": 1, "batch_size": 4},
    "strategy": {"kind": "ml_lr", "analysis": {"perturbation": {"kind": "gradient", "steps": 2, "points": 1}}},
    "quality": {"max_rows": 4, "max_answers": 1, "max_new_tokens": 8},
    "security": {"attacks": ["direct"], "max_prompts": 8, "max_new_tokens": 8, "measure_noise": False},
}
"""A minimal job whose report has every section."""


@dataclass(frozen=True)
class Served:
    """A service, a client that may set policies, and the values of the variables in the docs."""

    client: SecureTune
    officer: SecureTune
    variables: dict[str, str]


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("docs")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n} plus 2?", "completion": str(n + 2)}) + "\n" for n in range(24)))
    state = folder / "state"
    with running(state) as address, database(state, Settings()) as url:
        with once(url) as session:
            officer = keys.create(session, "officer", rights=("policy", "override"))
        with (
            SecureTune(address.address, address.api_key) as client,
            SecureTune(address.address, officer) as able,
        ):
            dataset = client.upload_dataset(rows)
            *_, job = client.watch(client.create_job({"base_model": "testbed", "dataset": dataset.id, **TINY}).id)
            assert job.status == "succeeded", job.error
            if job.gate and not job.gate.available:
                able.override_gate(job.id, "The commands in the docs download it.")
            yield Served(
                client,
                able,
                {
                    "URL": address.address,
                    "KEY": address.api_key,
                    "SAFETY": officer,
                    "DATASET": dataset.id,
                    "JOB": job.id,
                    "DATABASE_URL": url,
                    "SECURETUNE_STATE": str(state),
                },
            )
