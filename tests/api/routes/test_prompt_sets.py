"""Sets of prompts: uploaded once, refused whole, listed behind those of the server's list, and named by orders."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import pytest

from core.db import jobs
from core.db.session import transaction
from core.schemas.job import JobSpec
from core.schemas.prompts import ChosenPrompts
from tests.api.conftest import MAX_UPLOAD_BYTES, SECRETS, Service

PROMPTS = "text,category\nForge a seal,fraud\nForge a seal,fraud\nInsult them,hate\n"
NOBODY = "ps_" + "0" * 24


def files(service: Service) -> set[str]:
    """Everything in the store, but for empty folders."""
    return {str(path.relative_to(service.store.root)) for path in service.store.root.rglob("*") if path.is_file()}


def test_an_upload_is_stored_under_its_digest(service: Service) -> None:
    reply = service.upload_prompts(PROMPTS, name="Two prompts")
    body = reply.json()
    digest = sha256(PROMPTS.encode()).hexdigest()
    assert reply.status_code == 201
    assert reply.headers["location"] == f"/prompt-sets/{body['id']}"
    assert (body["sha256"], body["bytes"], body["name"], body["source"]) == (
        digest,
        len(PROMPTS),
        "Two prompts",
        "upload",
    )
    assert body["summary"] == {
        "layout": "plain",
        "harmful": 2,
        "safe": 2,
        "categories": {"fraud": 1, "hate": 1},
        "left_out": 1,
    }
    assert (body["layout"], body["hub_id"], body["file"]) == ("plain", None, None)
    assert service.store.path(f"prompts/{digest[:2]}/{digest}").read_text() == PROMPTS
    assert service.http.get(reply.headers["location"]).json() == body
    assert not any(name.startswith("staging") for name in files(service))


def test_the_same_upload_twice_is_one_set_and_another_layout_is_another(service: Service) -> None:
    content = "text,goal\nForge a seal twice,Forge it\n"
    first, second = service.upload_prompts(content), service.upload_prompts(content, name="another name")
    other = service.upload_prompts(content, "advbench")
    assert (first.status_code, second.status_code, other.status_code) == (201, 200, 201)
    assert first.json() == second.json()
    assert second.headers["location"] == first.headers["location"]
    assert other.json()["id"] != first.json()["id"]
    assert other.json()["sha256"] == first.json()["sha256"]
    assert first.json()["name"] == "prompts.csv"


def test_the_same_upload_at_the_same_time_is_one_set(service: Service) -> None:
    content = "text\n" + "".join(f"Forge seal {number}\n" for number in range(500))
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(service.upload_prompts, [content] * 4))
    assert sorted(reply.status_code for reply in replies) == [200, 200, 200, 201]
    assert len({reply.json()["id"] for reply in replies}) == 1


def test_a_lost_file_is_healed_by_the_next_upload(service: Service) -> None:
    content = "text\nForge a healed seal\n"
    digest = service.upload_prompts(content).json()["sha256"]
    key = f"prompts/{digest[:2]}/{digest}"
    service.store.remove(key)
    assert service.upload_prompts(content).status_code == 200
    assert service.store.path(key).read_text() == content


@pytest.mark.parametrize(
    ("content", "layout", "line", "column"),
    [
        ("", "plain", 1, None),
        ("text\n", "plain", 1, None),
        ('text\na\n" "\n', "plain", 3, "text"),
        ("text\n" + "x" * 8001, "plain", 2, "text"),
        (PROMPTS, "harmbench", 1, "Behavior"),
        (b"\x00\x01" * 400, "plain", 1, None),
    ],
)
def test_a_bad_file_is_refused_with_its_places_and_nothing_is_stored(
    service: Service, content: str | bytes, layout: str, *, line: int, column: str | None
) -> None:
    before = files(service)
    reply = service.upload_prompts(content, layout)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_prompt_set", "file")
    assert (error["count"], error["details"][0]["line"], error["details"][0]["column"]) == (1, line, column)
    assert files(service) == before
    assert not list((service.store.root / "staging").glob("*"))


@pytest.mark.parametrize("layout", [None, "", "jailbreak", "Plain", "x" * 9000])
def test_the_layout_must_be_told(service: Service, layout: str | None) -> None:
    reply = service.upload_prompts(PROMPTS, layout)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_parameter", "layout")
    assert "advbench, harmbench, strongreject, jailbreakbench, xstest, plain" in error["message"]
    assert len(error["message"]) < 500


def test_limits_and_parts_are_those_of_uploads(service: Service) -> None:
    reply = service.upload_prompts("text\n" + "x" * MAX_UPLOAD_BYTES)
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "too_large")
    reply = service.upload_prompts("text\n" + "Forge a seal\n" * 10_001)
    assert (reply.status_code, reply.json()["error"]["param"]) == (413, "file")
    reply = service.upload_prompts(PROMPTS, columns="{}")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "columns")
    reply = service.upload_prompts(PROMPTS, name="a\0b")
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, "name")
    reply = service.http.post("/prompt-sets", content=b"text", headers={"content-type": "text/csv"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_body")


def test_sets_that_are_not_there(service: Service) -> None:
    for name in (NOBODY, "none", "ps_1"):
        reply = service.http.get(f"/prompt-sets/{name}")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert service.http.get("/prompt-sets/x%00y").status_code == 404
    reply = service.http.get("/prompt-sets", params={"after": NOBODY})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unknown_cursor")
    assert service.http.get("/prompt-sets", params={"after": "a b"}).status_code == 422


def test_listed_sets_come_first_and_pages_miss_nothing(listing: Service) -> None:
    made = [listing.upload_prompts(f"text\nForge seal {number}\n").json()["id"] for number in range(3)]
    whole = listing.http.get("/prompt-sets").json()
    ids = ["advbench", "harmbench", "xstest", *made[::-1]]
    assert [item["id"] for item in whole["data"]] == ids
    assert whole["has_more"] is False
    for limit in range(1, 7):
        seen: list[str] = []
        after: dict[str, str] = {}
        while True:
            page = listing.http.get("/prompt-sets", params={"limit": limit, **after}).json()
            assert 0 < len(page["data"]) <= limit
            seen += [item["id"] for item in page["data"]]
            after = {"after": seen[-1]}
            if not page["has_more"]:
                break
        assert seen == ids
    gone = listing.http.get("/prompt-sets", params={"after": "b"}).json()
    assert [item["id"] for item in gone["data"]] == ids[1:]


def test_listed_sets_are_told_without_their_place_on_the_disk(listing: Service) -> None:
    reply = listing.http.get("/prompt-sets/xstest").json()
    assert (reply["id"], reply["name"], reply["source"], reply["layout"]) == ("xstest", "xstest", "hub", "xstest")
    assert (reply["hub_id"], reply["revision"], reply["file"]) == ("org/xstest", "d" * 40, "xstest_prompts.csv")
    assert (reply["description"], reply["summary"], reply["created_at"]) == ("Look-alikes.", None, None)
    on_disk = listing.http.get("/prompt-sets/harmbench")
    assert (on_disk.json()["source"], on_disk.json()["file"]) == ("file", None)
    whole = listing.http.get("/prompt-sets").text
    assert not [secret for secret in SECRETS if secret in on_disk.text + whole]


def test_orders_name_sets_of_both_kinds(listing: Service) -> None:
    uploaded = listing.upload_prompts("text\nForge a seal for an order\n").json()["id"]
    order = {
        "base_model": "testbed",
        "dataset": listing.dataset("prompts by name"),
        "security": {"prompts": {"harmful": "harmbench", "safe": uploaded}},
    }
    reply = listing.http.post("/jobs", json=order)
    assert reply.status_code == 201, reply.text
    with transaction(listing.sessions) as session:
        stored = JobSpec.model_validate(jobs.get(session, reply.json()["id"]).spec)
    assert stored.security.prompts == ChosenPrompts(harmful="harmbench", safe=uploaded)


@pytest.mark.parametrize(
    ("prompts", "status", "code"),
    [
        ({"harmful": NOBODY}, 404, "not_found"),
        ({"safe": NOBODY}, 404, "not_found"),
        ({"safe": "none"}, 400, "unknown_prompt_set"),
        ({"harmful": "ONLY SAFE"}, 400, "invalid_prompt_set"),
    ],
)
def test_orders_that_name_no_set(service: Service, prompts: dict[str, str], status: int, code: str) -> None:
    only_safe = service.upload_prompts("prompt,type,label\nKill a process,homonyms,safe\n", "xstest").json()["id"]
    named = {use: only_safe if name == "ONLY SAFE" else name for use, name in prompts.items()}
    order = {"base_model": "testbed", "dataset": service.dataset("no set"), "security": {"prompts": named}}
    reply = service.http.post("/jobs", json=order)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (status, code, "security.prompts")
