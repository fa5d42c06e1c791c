"""Policies: versions in order, one project's own, and two people who set one at the same moment."""

from threading import Barrier, Thread

import pytest

from core.db import keys, policies
from core.db.session import Sessions, transaction
from core.errors import Conflict, InvalidInput, NotFound
from core.schemas.policy import Policy, PolicyRef, RateRule
from core.schemas.policy_change import PolicyChange


@pytest.fixture
def key_id(sessions: Sessions) -> str:
    with transaction(sessions) as session:
        return keys.check(session, keys.create(session, "officer")).key_id


def test_versions_count_up_in_each_project_by_itself(sessions: Sessions, key_id: str) -> None:
    with transaction(sessions) as session:
        assert policies.current(session, "a") == PolicyRef()
        for needed in (100, 200):
            policies.add(session, "a", Policy(min_answers=needed), key_id=key_id)
        policies.add(session, "b", Policy(), key_id=key_id)
    with transaction(sessions) as session:
        assert policies.current(session, "a") == PolicyRef(version=2, policy=Policy(min_answers=200))
        assert policies.current(session, "b").version == 1
        assert policies.get(session, "a", 1).policy["min_answers"] == 100
        with pytest.raises(NotFound):
            policies.get(session, "a", 3)


def test_a_job_gets_what_it_asks_for_within_limits(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        held = policies.for_job(session, "a", PolicyChange(attacks=RateRule(max_rate=0.01)))
        assert (held.version, held.changed) == (0, True)
        assert held.policy.attacks == RateRule(max_rate=0.01, max_increase=0.10)
        with pytest.raises(InvalidInput) as caught:
            policies.for_job(session, "a", PolicyChange(attacks=RateRule(max_rate=0.5)))
        assert (caught.value.code, caught.value.param) == ("policy_limit", "policy.attacks.max_rate")


def test_of_two_at_the_same_moment_one_is_told(sessions: Sessions, key_id: str) -> None:
    both, outcomes = Barrier(2), list[str]()

    def put(needed: int) -> None:
        try:
            with transaction(sessions) as session:
                policies.newest(session, "raced")
                both.wait(20)
                row = policies.add(session, "raced", Policy(min_answers=needed), key_id=key_id)
                outcomes.append(f"version {row.version}")
        except Conflict as error:
            outcomes.append(error.code)

    threads = [Thread(target=put, args=(needed,)) for needed in (100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    with transaction(sessions) as session:
        rows, _ = policies.page(session, "raced", limit=10)
        assert len(rows) == sum(outcome.startswith("version") for outcome in outcomes)
        assert [row.version for row in rows] == sorted((row.version for row in rows), reverse=True)
    assert sorted(outcomes) in (["policy_changed", "version 1"], ["version 1", "version 2"])
