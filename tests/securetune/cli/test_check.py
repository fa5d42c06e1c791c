"""`securetune models check`: against the real app, whose worker the tests play."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner, Result
from typing_extensions import override

from core.schemas.job import CheckRequest
from core.schemas.modelcheck import ModelCheck
from core.schemas.replies import JobReply
from core.schemas.state import Status
from securetune import SecureTune
from securetune.cli import check as program
from securetune.cli.check import CheckFailed
from securetune.cli.main import app
from tests.core.checks import CHECK
from tests.securetune.conftest import Served

FILES = {"model-check.json": (CHECK.model_dump_json().encode(), "application/json")}


class Worked(SecureTune):
    """A client whose checks end as soon as they are ordered."""

    served: Served
    status: Status = "succeeded"

    @override
    def check_model(self, name: str, request: CheckRequest | dict[str, object] | None = None) -> JobReply:
        job = super().check_model(name, request)
        self.served.behind.end(job.id, self.status, FILES if self.status == "succeeded" else None)
        return job


@pytest.fixture
def worked(served: Served) -> Iterator[Worked]:
    with Worked(served.url, served.key) as client:
        client.served = served
        yield client


def run(served: Served, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", "check", *arguments, "--url", served.url, "--api-key", served.key])


def test_a_check_is_ordered_shown_and_shown_again(served: Served, worked: Worked) -> None:
    console = Console(record=True, width=140, quiet=True)
    found = program.check(worked, "testbed", CheckRequest(), console, again=False)
    assert found.check == CHECK

    shown = run(served, "testbed")
    assert shown.exit_code == 0, shown.stderr
    assert f"Checked before, by job {found.job_id}" in shown.stdout
    for part in (
        "LlamaForCausalLM, 1,672,832 parameters",
        "<|assistant|>[[Hi.<|end|>]]",
        "Harmful requests refused: 96 % (86.5 % to 98.9 %, n = 50, 1 undecided)",
        "Safe look-alikes refused: no decided answer",
        "Something to protect: yes.",
        "128 x 128",
        "not measured: it would not fit",
        "training.method = lora",
    ):
        assert part in shown.stdout, (part, shown.stdout)

    as_json = run(served, "testbed", "--json")
    assert ModelCheck.model_validate(json.loads(as_json.stdout)["check"]) == CHECK
    assert "Checked before" in as_json.stderr

    again = program.check(worked, "testbed", CheckRequest(), console, again=True)
    assert again.job_id != found.job_id


def test_a_check_that_fails_ends_with_the_reason(worked: Worked) -> None:
    console = Console(quiet=True)
    worked.status = "failed"
    with pytest.raises(CheckFailed, match="The loss exploded"):
        program.check(worked, "testbed", CheckRequest(), console, again=True)
    worked.status = "cancelled"
    with pytest.raises(CheckFailed, match="cancelled"):
        program.check(worked, "testbed", CheckRequest(), console, again=True)


def test_ctrl_c_leaves_the_job_and_says_how_to_cancel_it(
    served: Served, service: SecureTune, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SecureTune, "watch", interrupt)
    stopped = run(served, "testbed", "--again")
    assert stopped.exit_code == 130
    newest = next(service.jobs())
    assert f"To cancel it: POST /jobs/{newest.id}/cancel" in stopped.stdout
    assert newest.status == "queued"
    service.cancel(newest.id)


def test_errors_say_what_to_do(served: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = run(served, "gpt-4")
    assert unknown.exit_code == 1
    assert "Allowed base models: testbed" in unknown.stderr
    for name in ("SECURETUNE_URL", "SECURETUNE_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    nowhere = CliRunner().invoke(app, ["models", "check", "testbed", "--state", str(tmp_path)])
    assert nowhere.exit_code == 1
    assert "securetune up" in nowhere.stderr
