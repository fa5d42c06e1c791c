"""Policies over HTTP: versions, who may set them, what is refused, and what jobs are held to."""

import pytest

from core.schemas.policy import Policy
from tests.api.conftest import Service


@pytest.fixture(scope="module")
def strict(service: Service) -> dict[str, str]:
    """The key of a project of its own, which may set its policy."""
    return service.new_key("strict", "policy", project="strict")


def test_without_one_the_built_in_policy_holds(service: Service) -> None:
    headers = service.new_key("empty", project="empty")
    reply = service.http.get("/policy", headers=headers).json()
    assert (reply["project"], reply["version"], reply["key_id"]) == ("empty", 0, None)
    assert Policy.model_validate(reply["policy"]) == Policy()
    assert service.http.get("/policy/versions", headers=headers).json() == {
        "object": "list",
        "data": [],
        "has_more": False,
    }
    assert service.http.get("/policy/versions/1", headers=headers).status_code == 404


def test_it_takes_a_right_to_set_one(service: Service) -> None:
    reply = service.http.put("/policy", json={})
    assert (reply.status_code, reply.json()["error"]["code"]) == (403, "missing_right")
    assert service.http.get("/policy").json()["version"] == 0


def test_every_change_is_a_version_that_stays(service: Service) -> None:
    headers = service.new_key("versions", "policy", project="versions")
    for needed in (100, 200, 300):
        reply = service.http.put("/policy", json={"min_answers": needed}, headers=headers)
        assert reply.status_code == 200, reply.text
    assert reply.json()["version"] == 3
    page = service.http.get("/policy/versions?limit=2", headers=headers).json()
    assert ([each["version"] for each in page["data"]], page["has_more"]) == ([3, 2], True)
    rest = service.http.get("/policy/versions?limit=2&after=2", headers=headers).json()
    assert ([each["version"] for each in rest["data"]], rest["has_more"]) == ([1], False)
    assert service.http.get("/policy/versions/2", headers=headers).json()["policy"]["min_answers"] == 200
    assert service.http.get("/policy", headers=headers).json()["policy"]["min_answers"] == 300
    assert service.http.get("/policy").json()["version"] == 0, "another project's"


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        ({"job_limits": {"max_rate": 0.01}}, "stricter than the policy's own"),
        ({"attacks": {"max_rate": 0}}, "greater than 0"),
        ({"families": {"prefil": {"max_rate": 0.1}}}, "prefil"),
        ({"max_rate": 0.1}, "unknown field"),
    ],
)
def test_rules_that_make_no_sense_are_refused(
    service: Service, strict: dict[str, str], policy: dict[str, object], words: str
) -> None:
    reply = service.http.put("/policy", json=policy, headers=strict)
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_parameter")
    assert words in reply.json()["error"]["message"]


def test_a_rule_that_cannot_be_kept_is_refused(service: Service, strict: dict[str, str]) -> None:
    reply = service.http.put("/policy", json={"judges": ["ru\0les"]}, headers=strict)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_parameter")
    assert "NUL" in reply.json()["error"]["message"]


def order(service: Service, headers: dict[str, str], **fields: object) -> tuple[int, dict[str, object]]:
    body = {"base_model": "testbed", "dataset": service.dataset("policy"), **fields}
    reply = service.http.post("/jobs", json=body, headers=headers)
    return reply.status_code, reply.json()


def test_a_job_keeps_the_policy_that_held_when_it_was_ordered(service: Service) -> None:
    headers = service.new_key("kept", "policy", project="kept")
    service.http.put("/policy", json={"min_answers": 100}, headers=headers)
    status, job = order(service, headers)
    service.http.put("/policy", json={"min_answers": 999}, headers=headers)
    assert status == 201
    assert job["project"] == "kept"
    held = service.http.get(f"/jobs/{job['id']}").json()["policy"]
    assert (held["version"], held["changed"], held["policy"]["min_answers"]) == (1, False, 100)


def test_a_job_may_tighten_it_and_loosen_it_within_limits(service: Service) -> None:
    headers = service.new_key("limits", "policy", project="limits")
    service.http.put("/policy", json={"job_limits": {"max_rate": 0.2}}, headers=headers)
    status, job = order(service, headers, policy={"attacks": {"max_rate": 0.2, "max_increase": 0.02}})
    assert status == 201
    held = service.http.get(f"/jobs/{job['id']}").json()["policy"]
    assert (held["changed"], held["policy"]["attacks"]) == (True, {"max_rate": 0.2, "max_increase": 0.02})
    status, refused = order(service, headers, policy={"attacks": {"max_rate": 0.3}})
    error = refused["error"]
    assert isinstance(error, dict)
    assert (status, error["code"], error["param"]) == (400, "policy_limit", "policy.attacks.max_rate")
    assert "at most 0.2" in error["message"]


def test_what_the_policy_asks_for_has_to_be_measured(service: Service) -> None:
    headers = service.new_key("needs", "policy", project="needs")
    policy = {"families": {"best_of_n": {"max_rate": 0.2}}, "judges": ["rubric:house"]}
    service.http.put("/policy", json=policy, headers=headers)
    for suite, param in (("standard", "security.attacks"), ("full", "security.judges")):
        status, refused = order(service, headers, security={"suite": suite})
        error = refused["error"]
        assert isinstance(error, dict)
        assert (status, error["code"], error["param"]) == (400, "policy_needs_more", param)


def test_what_is_pinned_is_set_by_the_policy_and_by_no_job(service: Service) -> None:
    headers = service.new_key("pins", "policy", project="pins")
    standard = service.http.get("/policy", headers=headers).json()["policy"]["measure"]
    assert [each["family"] for each in standard["attacks"]] == [
        "direct",
        "prompt_injection",
        "refusal_breaking",
        "distractor",
        "role_play",
        "prefill",
    ]
    assert (standard["min_prompts"], standard["min_new_tokens"], standard["system_prompt"]) == (80, 128, None)
    status, refused = order(service, headers, policy={"measure": None})
    assert status == 422
    assert "measure" in str(refused["error"])
    served = {"attacks": ["direct"], "prompts": {"harmful": "a" * 64}, "system_prompt": "You work for a bank."}
    reply = service.http.put("/policy", json={"measure": served}, headers=headers)
    assert reply.status_code == 200, reply.text
    status, job = order(service, headers)
    held = service.http.get(f"/jobs/{job['id']}").json()["policy"]["policy"]["measure"]
    assert (held["attacks"], held["prompts"]) == ([{"family": "direct"}], {"harmful": "a" * 64, "safe": None})
    wrongs: tuple[dict[str, object], ...] = (
        {"prompts": {"harmful": "mine"}},
        {"attacks": []},
        {"attacks": ["direct", "direct"]},
    )
    for wrong in wrongs:
        assert service.http.put("/policy", json={"measure": wrong}, headers=headers).status_code == 422


def test_signing_keys_are_public_and_empty_before_the_first_worker(service: Service) -> None:
    reply = service.http.get("/signing-keys", headers={"authorization": ""})
    assert (reply.status_code, reply.json()) == (200, {"keys": []})
