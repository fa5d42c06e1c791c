"""`securetune estimate`: against the real app, with an order as a file, or a model and rows."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from core.db import speeds
from core.db.session import transaction
from core.schemas.estimate import Estimate
from core.schemas.speeds import ModelSpeeds, StageSpeed
from securetune.cli.estimate import duration
from securetune.cli.main import app
from tests.securetune.conftest import Served


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    made = [{"prompt": f"What is {number} + 1?", "completion": f"It is {number + 1}."} for number in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def estimate(served: Served, *arguments: str | Path) -> Result:
    address = ("--url", served.url, "--api-key", served.key)
    return CliRunner().invoke(app, ["estimate", *map(str, arguments), *address])


def test_a_model_and_a_file_are_enough(served: Served, rows: Path) -> None:
    train = StageSpeed(stage="training", work="train", calls=10, amount=1000, seconds=60, method="lora")
    refusals = StageSpeed(stage="training", work="answer", calls=10, amount=1000, seconds=5)
    measured = ModelSpeeds(
        model="testbed",
        sha256="0" * 64,
        parameters=1_672_832,
        device="CPU",
        memory_bytes=2**34,
        speeds=(train, refusals),
    )
    with transaction(served.behind.sessions) as session:
        speeds.add(session, measured, job_id="job_measured")
    done = estimate(served, "--model", "testbed", "--data", rows)
    assert done.exit_code == 0, done.stderr
    for part in (
        "36 rows to train on and 4 for validation",
        "Run recommended: 9 steps",
        "of 16.0 GiB: fits",
        "job_measured",
    ):
        assert part in done.stdout
    assert "not measured" in done.stdout
    assert "[speed_unknown]" in done.stdout


def test_an_order_as_a_file_with_json_out(served: Served, rows: Path, tmp_path: Path) -> None:
    order = tmp_path / "order.json"
    order.write_text(json.dumps({"base_model": "nobody", "training": {"steps": 7}, "strategy": {"kind": "uniform"}}))
    refused = estimate(served, order, "--data", rows)
    assert refused.exit_code == 1
    assert "does not allow the base model 'nobody'" in refused.stderr
    done = estimate(served, order, "--data", rows, "--model", "testbed", "--json")
    assert done.exit_code == 0, done.stderr
    found = Estimate.model_validate_json(done.stdout)
    assert [(run.run, run.steps) for run in found.runs] == [("uniform", 7)]


@pytest.mark.parametrize("content", ["[]", "base_model: testbed", ""])
def test_a_file_that_is_not_an_order(served: Served, tmp_path: Path, content: str) -> None:
    order = tmp_path / "order.json"
    order.write_text(content)
    done = estimate(served, order)
    assert done.exit_code == 1
    assert "order.json" in done.stderr
    assert "JSON" in done.stderr


def test_durations_are_readable() -> None:
    texts = [duration(seconds) for seconds in (0.04, 9.94, 59.4, 61, 3599, 7530)]
    assert texts == ["0.0 s", "9.9 s", "59 s", "1 min 1 s", "59 min 59 s", "2 h 5 min"]
