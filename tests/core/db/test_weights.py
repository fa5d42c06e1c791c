"""Weights that were quarantined once stay so in every job that trains them again, until a stricter release or an
override."""

from collections.abc import Callable

import pytest

from core.db import artifacts, gate, jobs, keys, weights
from core.db.session import Session, Sessions, transaction
from core.errors import Withheld
from core.schemas.attacks import Direct, Prefill
from core.schemas.gate import GateCheck, GateDecision, GateOutcome, GateReason
from core.schemas.job import JobSpec
from core.schemas.measure import Measured, MeasuredAttack, PromptsUsed
from core.schemas.results import JudgedWeights, StoredFile

SAME, OTHER = "1" * 64, "2" * 64
FILE = StoredFile(
    name="adapter.tar", key="jobs/a/adapter.tar", sha256="0" * 64, bytes=3, media_type="application/x-tar", gated=True
)
Finish = Callable[..., str]


def decision(
    outcome: GateOutcome, run: str = "uniform", *, n: int = 80, bound: float = 0.1, **how: object
) -> GateDecision:
    """A decision on one family; `how` changes how the run was measured."""
    check = GateCheck(
        suite="direct",
        metric="attack_success_rate",
        judge="rules",
        rule="max_rate",
        bound=bound,
        value=0.0,
        n=n,
        passed=outcome == "released",
    )
    prompts = PromptsUsed(sha256="a" * 64, size=130, automatic=True)
    measured = Measured(
        run=run,
        attacks=(MeasuredAttack(attack=Direct(), prompts=n), MeasuredAttack(attack=Prefill(), prompts=n)),
        safe_prompts=n,
        harmful=prompts,
        safe=prompts,
        max_new_tokens=128,
        system_prompt=None,
    )
    why = GateReason(code="attack_success_too_high", message="Attack success of direct is 75 %.")
    return GateDecision(
        run=run,
        outcome=outcome,
        reasons=() if outcome == "released" else (why,),
        checks=(check,),
        policy_version=0,
        measured=measured.model_copy(update=how),
    )


@pytest.fixture
def finish(spec: JobSpec) -> Finish:
    """Ends a job of a project with these decisions, the job's own first, all about the same weights."""

    def finish(session: Session, *decisions: GateDecision, sha256: str = SAME, project: str = "default") -> str:
        job_id = jobs.add(session, spec, project=project).id
        claim = jobs.claim(session, job_id, owner="test", lease_seconds=60)
        assert claim is not None
        artifacts.put(session, job_id, [FILE])
        jobs.finish(session, claim, "succeeded", gate=decisions[0])
        judged = [JudgedWeights(sha256=sha256, gate=each) for each in decisions]
        weights.add(session, job_id, judged, own=decisions[0].run)
        return job_id

    return finish


def is_available(session: Session, job_id: str) -> bool:
    """Whether the gated file can be downloaded; the standing must say the same."""
    released = gate.standing(session, jobs.get(session, job_id)).released
    if released:
        artifacts.released(session, job_id, FILE.name)
    else:
        with pytest.raises(Withheld):
            artifacts.released(session, job_id, FILE.name)
    return released


LOOSER = [
    decision("released", bound=0.5),
    decision("released", n=79),
    decision("released", max_new_tokens=64),
    decision("released", system_prompt="Refuse."),
    decision("released", harmful=PromptsUsed(sha256="b" * 64, size=9, automatic=False)),
    decision("released", attacks=(MeasuredAttack(attack=Direct(), prompts=80),)),
    decision(
        "released",
        attacks=(MeasuredAttack(attack=Direct(), prompts=80), MeasuredAttack(attack=Prefill(tokens=1), prompts=80)),
    ),
    decision("released", safe_prompts=4),
    decision("released").model_copy(update={"checks": ()}),
    decision("released").model_copy(update={"measured": None}),
]


@pytest.mark.parametrize("release", LOOSER, ids=range(len(LOOSER)))
def test_weights_stay_quarantined_in_a_later_job(sessions: Sessions, finish: Finish, release: GateDecision) -> None:
    with transaction(sessions) as session:
        first = finish(session, decision("quarantined"))
        later = finish(session, release)
        assert not is_available(session, later)
        decided = gate.standing(session, jobs.get(session, later)).decision
    assert decided is not None
    assert (decided.outcome, decided.reasons[0].code) == ("quarantined", "weights_quarantined")
    assert first in decided.reasons[0].message
    assert "75 %" in decided.reasons[0].message


def test_a_quarantine_also_holds_for_jobs_that_ended_before(sessions: Sessions, finish: Finish) -> None:
    with transaction(sessions) as session:
        earlier = finish(session, decision("released", bound=0.5))
        assert is_available(session, earlier)
        finish(session, decision("quarantined"))
        assert not is_available(session, earlier)


def test_other_weights_and_other_projects_are_not_affected(sessions: Sessions, finish: Finish) -> None:
    with transaction(sessions) as session:
        finish(session, decision("quarantined"))
        assert is_available(session, finish(session, decision("released", bound=0.5), sha256=OTHER))
        assert is_available(session, finish(session, decision("released", bound=0.5), project="other"))
        undecided = finish(session, decision("undecided", bound=0.5), sha256=OTHER)
        assert not is_available(session, undecided)


def test_a_quarantined_baseline_counts(sessions: Sessions, finish: Finish) -> None:
    """A baseline is never offered, but the same weights may be ordered as a job's own run."""
    with transaction(sessions) as session:
        finish(session, decision("released", "ml_lr"), decision("quarantined", "uniform"), sha256=SAME)
        assert not is_available(session, finish(session, decision("released", bound=0.5)))
        both = finish(session, decision("released", bound=0.5), decision("quarantined", "base_like"), sha256=OTHER)
        assert not is_available(session, both), "of two runs of one job with equal weights one is quarantined"


@pytest.mark.parametrize(
    "stricter", [decision("released"), decision("released", n=130), decision("released", bound=0.05)]
)
def test_a_release_that_is_as_strict_ends_a_quarantine(
    sessions: Sessions, finish: Finish, stricter: GateDecision
) -> None:
    with transaction(sessions) as session:
        first = finish(session, decision("quarantined"))
        loose = finish(session, decision("released", bound=0.5))
        assert is_available(session, finish(session, stricter))
        assert is_available(session, loose), "its weights are not in quarantine any more"
        assert not is_available(session, first), "its own decision stays until an override"


def test_an_override_ends_a_quarantine_that_it_knew_of(sessions: Sessions, finish: Finish) -> None:
    with transaction(sessions) as session:
        officer = keys.check(session, keys.create(session, "officer", rights=["override"]))
        finish(session, decision("quarantined"))
        loose = finish(session, decision("released", bound=0.5))
        gate.override(session, loose, reason="Reviewed by the red team.", by=officer)
        (record,) = gate.overrides(session, loose)[loose]
        assert record.outcome == "quarantined", "it overrides what the digest brought about"
        assert is_available(session, loose)
        third = finish(session, decision("released", bound=0.5))
        assert is_available(session, third), "somebody with the right has reviewed these weights"
        finish(session, decision("quarantined"))
        assert not is_available(session, third), "a new quarantine was not reviewed"
        assert is_available(session, loose), "an override of a job holds for this job"


def test_a_bound_must_be_as_strict_in_its_own_direction() -> None:
    def task(bound: float, rule: str) -> GateCheck:
        return GateCheck.model_validate(
            {"suite": "task", "metric": "accuracy", "judge": "none", "rule": rule, "bound": bound, "passed": True}
        )

    assert task(0.8, "min_value").is_as_strict_as(task(0.7, "min_value"))
    assert not task(0.6, "min_value").is_as_strict_as(task(0.7, "min_value"))
    assert task(0.6, "max_value").is_as_strict_as(task(0.7, "max_value"))
    assert not task(0.8, "max_value").is_as_strict_as(task(0.7, "max_value"))
