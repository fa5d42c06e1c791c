"""Migration 0005: forwards, stored policies pin what is measured; backwards, documents lose what 0004 does not know."""

import json

import psycopg
import pytest

from core.db import migrate
from core.schemas.gate import GateDecision
from core.schemas.measure import Measure
from core.schemas.policy import Policy, PolicyRef
from tests.migrations.steps import take_back

OLD_POLICY = {
    name: value for name, value in Policy(min_answers=99).model_dump(mode="json").items() if name != "measure"
}
OLD_GATE: dict[str, object] = {
    "run": "uniform",
    "outcome": "released",
    "reasons": [],
    "notes": [],
    "checks": [],
    "policy_version": 1,
}


@pytest.fixture
def old_database(database_url: str) -> str:
    """A database at revision 0004 with a policy, a job that was decided, and one without policy and decision."""
    take_back(database_url, "0004")
    with psycopg.connect(database_url) as connection:
        connection.execute("insert into api_keys (id, name, secret_hash) values ('k', 'k', '')")
        connection.execute(
            "insert into policies (project, version, policy, key_id) values ('default', 1, %s, 'k')",
            (json.dumps(OLD_POLICY),),
        )
        ref = {"version": 1, "changed": False, "policy": OLD_POLICY}
        for name, policy, gate in (("a", ref, OLD_GATE), ("b", None, None)):
            connection.execute(
                "insert into jobs (id, spec, policy, gate) values (%s, '{}', %s, %s)",
                (name, json.dumps(policy), json.dumps(gate)),
            )
        connection.execute("insert into jobs (id, spec) values ('c', '{}')")
    return database_url


def documents(url: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        jobs = connection.execute("select id, policy, gate from jobs order by id").fetchall()
        return jobs + connection.execute("select policy, null, null from policies").fetchall()


def test_stored_policies_pin_the_suite_standard(old_database: str) -> None:
    before = documents(old_database)
    migrate.upgrade(old_database)
    assert documents(old_database) == before
    assert PolicyRef.model_validate(before[0][1]).policy.measure == Measure()
    assert GateDecision.model_validate(before[0][2]).measured is None
    assert Policy.model_validate(before[3][0]) == Policy(min_answers=99)


def test_on_the_way_back_documents_lose_the_new_fields(old_database: str) -> None:
    before = documents(old_database)
    migrate.upgrade(old_database)
    new = Policy(min_answers=99).model_dump(mode="json")
    with psycopg.connect(old_database) as connection:
        connection.execute("update policies set policy = %s", (json.dumps(new),))
        connection.execute(
            "update jobs set policy = jsonb_set(policy, '{policy}', %s), gate = gate || '{\"measured\": null}' "
            "where id = 'a'",
            (json.dumps(new),),
        )
        connection.execute(
            "insert into trained_weights (job_id, run, project, sha256, offered, decision) "
            "values ('a', 'uniform', 'default', 'd', true, '{}')"
        )
    assert documents(old_database) != before
    take_back(old_database, "0004")
    assert documents(old_database) == before
    with psycopg.connect(old_database) as connection:
        assert connection.execute("select to_regclass('trained_weights')").fetchone() == (None,)
    migrate.upgrade(old_database)
    assert documents(old_database) == before
