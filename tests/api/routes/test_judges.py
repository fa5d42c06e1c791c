"""Judge models as they are listed: what they are, and no address, no place and no key."""

import pytest

from tests.api.conftest import SECRETS, Service


def test_judges_are_told_without_address_and_key(listing: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURETUNE_JUDGE_HOUSE", "sesame")
    reply = listing.http.get("/judges")
    assert not [secret for secret in (*SECRETS, "sesame") if secret in reply.text]
    behaviours, guard, house = reply.json()["data"]
    assert house == {
        "name": "house",
        "description": "Our own.",
        "protocol": "chat",
        "kinds": ["rubric", "strongreject"],
        "source": "endpoint",
        "model": "big",
        "revision": None,
    }
    assert (guard["name"], guard["source"], guard["model"], guard["kinds"]) == ("guard", "folder", None, ["classifier"])
    assert (behaviours["source"], behaviours["model"], behaviours["revision"]) == ("hub", "org/classifier", "d" * 40)


def test_without_a_list_there_are_none(service: Service) -> None:
    assert service.http.get("/judges").json() == {"object": "list", "data": [], "has_more": False}


@pytest.mark.parametrize(
    ("judge", "code"),
    [
        ({"kind": "rubric", "model": "house"}, None),
        ({"kind": "classifier", "model": "guard"}, None),
        ({"kind": "rubric", "model": "none"}, "unknown_judge"),
        ({"kind": "rubric", "model": "guard"}, "judge_protocol_mismatch"),
    ],
)
def test_orders_name_judges(listing: Service, judge: dict[str, str], code: str | None) -> None:
    order = {"base_model": "testbed", "dataset": listing.dataset("judged"), "security": {"judges": [judge]}}
    reply = listing.http.post("/jobs", json=order)
    assert reply.status_code == (400 if code else 201)
    if code:
        assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == (code, "security.judges")
    assert not [secret for secret in SECRETS if secret in reply.text]
