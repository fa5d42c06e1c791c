"""One job from its claim to its end, with a real process and a real database."""

import json
import os
import signal
from pathlib import Path

import pytest
from sqlalchemy import select

from core.config import Settings
from core.db import gate, jobs, prompt_sets
from core.db.models import PromptSet, TrainedWeights
from core.db.rows import add_upload
from core.db.session import Sessions, dispose, transaction
from core.db.session import sessions as make_sessions
from core.schemas.job import Assignment, JobSpec, PromptFile, ScreenAssignment, ScreenSpec, UploadedFile
from core.schemas.judges import EndpointSource
from core.schemas.policy import Policy, PolicyRef
from core.schemas.prompts import PromptFileSource, PromptFileSummary
from core.schemas.screening import ScreeningPolicy
from core.signing import SIGNED_REPORT, SigningKeys, verify
from tests.worker.helpers import Desk, Service, alive, until
from tests.worker.scripted import ADAPTER, REPORT, WEIGHTS, figure
from worker.child import Exited
from worker.protocol import Order, Stopped
from worker.supervisor import describe_exit


def test_a_job_is_recorded_whole(desk: Desk, service: Service) -> None:
    job_id = service.order("finish")
    desk.supervisor.run(job_id)

    job = service.job(job_id)
    assert (job.status, job.attempt, job.failures, job.error) == ("succeeded", 1, 0, None)
    assert job.lease_owner is None
    assert job.lease_expires_at is None
    assert job.finished_at is not None
    assert job.started_at is not None
    assert job.started_at < job.finished_at
    assert job.progress is not None
    assert job.progress["message"] == "step 3 of 3"
    assert [event.type for event in service.events(job_id)] == [
        "status", "stage_started", "metrics", "metrics", "metrics", "figures", "stage_finished", "status",
    ]  # fmt: skip
    assert service.statuses(job_id) == ["running", "succeeded"]
    assert service.figures(job_id) == [figure()]
    (artifact,) = service.artifacts(job_id)
    assert artifact.name == "adapter.bin"
    assert (service.store / artifact.key).read_bytes() == ADAPTER
    assert desk.sent == []


def test_a_job_that_has_ended_is_left_alone(desk: Desk, service: Service) -> None:
    job_id = service.order("finish")
    desk.supervisor.run(job_id)
    before = service.job(job_id).updated_at
    desk.supervisor.run(job_id)
    desk.supervisor.run("job_000000000000000000000000")
    assert service.job(job_id).updated_at == before
    assert service.job(job_id).attempt == 1


def test_a_killed_process_is_begun_again(desk: Desk, service: Service) -> None:
    job_id = service.order("wait", "finish")
    with desk.running(job_id):
        os.kill(service.pid(), signal.SIGKILL)
    job = service.job(job_id)
    assert (job.status, job.attempt, job.failures) == ("queued", 1, 1)
    assert job.error is not None
    assert job.error["code"] == "process_died"
    assert "SIGKILL" in job.error["message"]
    assert service.statuses(job_id) == ["running", "interrupted"]
    assert desk.sent == [job_id]
    assert service.artifacts(job_id) == []


def test_its_message_starts_the_second_attempt(desk: Desk, service: Service) -> None:
    job_id = service.order("crash", "finish")
    desk.supervisor.run(job_id)
    desk.supervisor.run(desk.sent.pop())
    job = service.job(job_id)
    assert (job.status, job.attempt, job.failures, job.error) == ("succeeded", 2, 1, None)
    assert [artifact.key for artifact in service.artifacts(job_id)] == [f"jobs/{job_id}/2/adapter.bin"]


def test_a_job_that_always_crashes_fails(desk: Desk, service: Service) -> None:
    job_id = service.order("crash")
    for _attempt in range(3):
        desk.supervisor.run(job_id)
    job = service.job(job_id)
    assert (job.status, job.attempt, job.failures) == ("failed", 3, 3)
    assert job.error is not None
    assert job.error["code"] == "interrupted_too_often"
    assert "3 times" in job.error["message"]
    assert "SIGSEGV" in job.error["message"]
    assert "something went very wrong" in job.error["message"]
    assert service.statuses(job_id)[-2:] == ["interrupted", "failed"]
    assert desk.sent == [job_id, job_id]


def test_an_early_exit_is_no_success(desk: Desk, service: Service) -> None:
    job_id = service.order("exit")
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert "exit status 3" in error["message"]
    assert service.status(job_id) == "queued"


def test_a_failure_keeps_its_code_and_is_not_tried_again(desk: Desk, service: Service) -> None:
    job_id = service.order("fail")
    desk.supervisor.run(job_id)
    job = service.job(job_id)
    assert job.status == "failed"
    assert job.error == {"code": "loss_not_finite", "message": "The loss is not finite.", "param": None}
    assert service.statuses(job_id) == ["running", "failed"]
    assert desk.sent == []


def test_a_cancel_while_queued_is_never_begun(desk: Desk, service: Service) -> None:
    job_id = service.order("finish")
    service.cancel(job_id)
    desk.supervisor.run(job_id)
    assert service.status(job_id) == "cancelled"
    assert service.job(job_id).attempt == 0


def test_a_process_cannot_pass_on_the_files_of_others(desk: Desk, service: Service) -> None:
    job_id = service.order("steal")
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert error["code"] == "protocol_error"
    assert service.artifacts(job_id) == []


def test_a_worker_that_shall_stop_gives_its_job_back(desk: Desk, service: Service) -> None:
    job_id = service.order("wait")
    with desk.running(job_id):
        pid = service.pid()
        desk.supervisor.shut_down()
        assert until(lambda: service.status(job_id) == "queued", "given back", seconds=3) < 2
        assert not alive(pid)
    job = service.job(job_id)
    assert (job.attempt, job.failures, job.lease_owner) == (1, 0, None)
    assert service.statuses(job_id) == ["running", "interrupted"]
    assert desk.sent == [job_id]
    other = service.order("finish")
    desk.supervisor.run(other)
    assert service.status(other) == "queued"
    assert desk.sent == [job_id, other]


def test_a_late_worker_writes_nothing_and_ends_its_process(desk: Desk, service: Service, sessions: Sessions) -> None:
    job_id = service.order("wait", "finish")
    with desk.running(job_id) as late:
        pid = service.pid()
        with transaction(sessions) as session:
            jobs.get(session, job_id).lease_expires_at = service.job(job_id).started_at
            session.flush()
            claim = jobs.claim(session, job_id, owner="another", lease_seconds=60)
        assert claim is not None
        late.join(5)
        assert not late.is_alive()
    assert not alive(pid)
    job = service.job(job_id)
    assert (job.status, job.attempt, job.lease_owner) == ("running", 2, "another")
    assert service.statuses(job_id) == ["running"]
    assert desk.sent == []


def test_a_process_sees_no_secret(desk: Desk, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "PGPASSWORD", "AWS_SECRET_ACCESS_KEY", "SECURETUNE_DATABASE_URL"):
        monkeypatch.setenv(name, "open sesame")
    monkeypatch.setenv("HF_TOKEN", "for gated models")
    desk.supervisor.run(service.order("environment"))
    seen = json.loads((service.store / "environment").read_text())
    assert "open sesame" not in seen.values()
    assert seen["HF_TOKEN"] == "for gated models"
    assert "PATH" in seen


def test_a_spec_of_another_version_fails(desk: Desk, service: Service, sessions: Sessions) -> None:
    job_id = service.order("finish")
    with transaction(sessions) as session:
        job = jobs.get(session, job_id)
        job.spec = job.spec | {"training": {"steps": 0}}
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert (error["code"], error["param"]) == ("invalid_spec", "training.steps")
    assert service.statuses(job_id) == ["failed"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"base_model": "gone"}, "model_not_allowed"),
        ({"dataset": "ds_" + "0" * 24}, "not_found"),
        ({"validation_dataset": "ds_" + "0" * 24}, "not_found"),
    ],
)
def test_what_a_job_needs_and_is_not_there_fails_it(
    desk: Desk, service: Service, sessions: Sessions, change: dict[str, str], code: str
) -> None:
    job_id = service.order("finish")
    with transaction(sessions) as session:
        job = jobs.get(session, job_id)
        job.spec = JobSpec.model_validate(job.spec | change).model_dump(mode="json")
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert (error["code"], error["param"]) == (code, next(iter(change)))


LIST = """
[judges.house]
source.kind = "endpoint"
source.url = "https://judge.example.org/v1"
source.model = "big"
source.api_key_env = "SECURETUNE_JUDGE_HOUSE"

[judges.guard]
source = { kind = "folder", path = "guard" }
protocol = "safe_unsafe"

[prompt_sets.near]
source = { kind = "file", path = "near.csv" }
layout = "plain"

[benchmarks.medicine]
source = { kind = "file", path = "medicine.jsonl" }

[benchmarks.law]
source = { kind = "file", path = "law.jsonl" }
"""


def judged(service: Service, sessions: Sessions, prompts: dict[str, str]) -> str:
    """A job that is judged by a model of the list, on these prompts."""
    job_id = service.order("order")
    with transaction(sessions) as session:
        job = jobs.get(session, job_id)
        judges = [{"kind": "rules"}, {"kind": "rubric", "model": "house"}, {"kind": "strongreject", "model": "house"}]
        security = job.spec["security"] | {"judges": judges, "prompts": prompts}
        job.spec = JobSpec.model_validate(job.spec | {"security": security}).model_dump(mode="json")
    return job_id


def test_a_process_is_told_where_judges_benchmarks_and_prompts_are(
    settings: Settings, sessions: Sessions, service: Service, tmp_path: Path
) -> None:
    (tmp_path / "list.toml").write_text(LIST)
    desk = Desk(settings.model_copy(update={"models": tmp_path / "list.toml"}), sessions)
    summary = PromptFileSummary(layout="xstest", harmful=1, safe=1, categories={}, left_out=0)
    with transaction(sessions) as session:
        row, _ = add_upload(
            session,
            PromptSet,
            id=prompt_sets.identity("1" * 64, "xstest"),
            name="mine.csv",
            layout="xstest",
            sha256="1" * 64,
            bytes=9,
            key="prompts/11/11",
            summary=summary.model_dump(),
        )
    job_id = judged(service, sessions, {"harmful": "near", "safe": row.id})
    desk.supervisor.run(job_id)
    desk.pool.close()
    assert service.status(job_id) == "succeeded"
    told = Order.model_validate_json((service.store / "order").read_text()).assignment
    assert isinstance(told, Assignment)
    assert [entry.name for entry in told.judges] == ["house"]
    assert isinstance(told.judges[0].source, EndpointSource)
    assert {entry.name for entry in told.benchmarks} == {"medicine", "law"}
    near = PromptFileSource(path=tmp_path / "near.csv")
    mine = UploadedFile(key="prompts/11/11", sha256="1" * 64)
    assert told.harmful == PromptFile(name="near", layout="plain", source=near)
    assert told.safe == PromptFile(name=f"mine.csv ({row.id})", layout="xstest", source=mine)


@pytest.mark.parametrize(
    ("listed", "prompts", "code", "param"),
    [
        (LIST.replace("judges.house", "judges.other"), {}, "unknown_judge", "security.judges"),
        (LIST, {"safe": "far"}, "unknown_prompt_set", "security.prompts"),
        (LIST, {"safe": "ps_" + "0" * 24}, "not_found", "security.prompts"),
        ("[judge]", {}, "invalid_catalog", None),
    ],
)
def test_what_has_left_the_list_since_it_was_ordered_fails_the_job(
    settings: Settings,
    sessions: Sessions,
    service: Service,
    tmp_path: Path,
    *,
    listed: str,
    prompts: dict[str, str],
    code: str,
    param: str | None,
) -> None:
    (tmp_path / "list.toml").write_text(listed)
    desk = Desk(settings.model_copy(update={"models": tmp_path / "list.toml"}), sessions)
    job_id = judged(service, sessions, prompts)
    desk.supervisor.run(job_id)
    desk.pool.close()
    error = service.job(job_id).error
    assert error is not None
    assert (service.status(job_id), error["code"], error["param"]) == ("failed", code, param)


def test_a_database_that_is_away_costs_only_the_message(settings: Settings, service: Service) -> None:
    nowhere = make_sessions("postgresql://nobody@/nothing?host=/nonexistent")
    desk = Desk(settings, nowhere)
    desk.supervisor.run(service.order("finish"))
    dispose(nowhere)


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (Exited(-signal.SIGKILL), "out of memory"),
        (Exited(-signal.SIGSEGV), "killed by SIGSEGV"),
        (Exited(0), "exit status 0"),
        (Stopped(), "stopped without a request"),
    ],
)
def test_a_death_is_put_into_words(ending: Exited | Stopped, words: str) -> None:
    error = describe_exit(ending, ["Traceback", "x" * 500])
    assert words in error.message
    assert len(error.message) < 450


def test_a_report_is_signed_and_the_gates_decision_recorded(desk: Desk, service: Service, settings: Settings) -> None:
    job_id = service.order("report")
    desk.supervisor.run(job_id)
    job = service.job(job_id)
    assert job.status == "succeeded"
    assert job.gate is not None
    assert job.gate["outcome"] == "quarantined"
    said = [event.data["message"] for event in service.events(job_id) if event.type == "status"]
    assert said[-1] == "The job has succeeded, and the gate withholds its files: quarantined."
    files = {file.name: file for file in service.artifacts(job_id)}
    assert set(files) == {"report.json", SIGNED_REPORT}
    envelope = (service.store / files[SIGNED_REPORT].key).read_bytes()
    found = verify(envelope, SigningKeys(settings.signing).trusted())
    assert found.verified
    assert [(each.name, each.sha256) for each in found.files] == [("report.json", files["report.json"].sha256)]
    assert found.report == json.loads(REPORT)


def test_what_cannot_be_signed_is_tried_again_when_it_can(desk: Desk, service: Service, settings: Settings) -> None:
    job_id = service.order("report")
    with SigningKeys(settings.signing).signer():
        pass
    key = settings.signing / "signing_key.pem"
    key.chmod(0o644)
    desk.supervisor.run(job_id)
    job = service.job(job_id)
    assert (job.status, job.failures) == ("queued", 1)
    assert job.error is not None
    assert job.error["code"] == "signing_key_unsafe"
    assert service.artifacts(job_id) == []
    key.chmod(0o600)
    desk.supervisor.run(desk.sent.pop())
    assert service.status(job_id) == "succeeded"


def test_a_report_that_is_not_the_one_reported_is_not_signed(desk: Desk, service: Service) -> None:
    job_id = service.order("other report")
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert error["code"] == "protocol_error"
    assert service.artifacts(job_id) == []


def test_a_decision_without_the_digest_of_its_weights_is_not_recorded(desk: Desk, service: Service) -> None:
    """Otherwise weights could not be recognised when another job trains them again."""
    job_id = service.order("no weights")
    desk.supervisor.run(job_id)
    error = service.job(job_id).error
    assert error is not None
    assert error["code"] == "protocol_error"
    assert service.artifacts(job_id) == []


def test_weights_are_recorded_with_their_decision(desk: Desk, service: Service, sessions: Sessions) -> None:
    first, again = service.order("report"), service.order("report")
    for job_id in (first, again):
        desk.supervisor.run(job_id)
    with transaction(sessions) as session:
        decided = gate.standing(session, jobs.get(session, first)).decision
        rows = session.scalars(select(TrainedWeights).order_by(TrainedWeights.created_at)).all()
    assert decided is not None
    assert decided.reasons[0].code == "weights_quarantined", "the other job quarantined the same weights"
    assert [(row.job_id, row.run, row.sha256, row.offered) for row in rows] == [
        (first, "ml_lr", WEIGHTS, True),
        (again, "ml_lr", WEIGHTS, True),
    ]


def test_a_screening_is_ordered_without_a_model(desk: Desk, service: Service, sessions: Sessions) -> None:
    spec = ScreenSpec(dataset=service.dataset, screening=ScreeningPolicy())
    with transaction(sessions) as session:
        job_id = jobs.add(session, spec).id
        claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
        assert claim is not None
        order = desk.supervisor._order(session, claim)
    assert order.model is None
    assert isinstance(order.assignment, ScreenAssignment)
    assert order.assignment.spec == spec


def test_a_job_carries_the_policy_that_it_was_ordered_under(desk: Desk, service: Service, sessions: Sessions) -> None:
    held = PolicyRef(version=7, policy=Policy(min_answers=123))
    with transaction(sessions) as session:
        spec = JobSpec(base_model="testbed", dataset=service.dataset)
        claim = jobs.claim(session, jobs.add(session, spec, policy=held).id, owner="test", lease_seconds=60)
        assert claim is not None
        order = desk.supervisor._order(session, claim)
    assert isinstance(order.assignment, Assignment)
    assert order.assignment.policy == held
