"""Benchmarks as they are listed, and orders that name them."""

import pytest

from tests.api.conftest import SECRETS, Service


def test_benchmarks_are_told(listing: Service) -> None:
    reply = listing.http.get("/benchmarks")
    assert not [secret for secret in SECRETS if secret in reply.text]
    law, medicine = reply.json()["data"]
    assert medicine == {
        "name": "medicine",
        "description": "Questions.",
        "domain": "medical",
        "source": "file",
        "hub_id": None,
        "revision": None,
        "file": None,
    }
    assert (law["source"], law["hub_id"], law["revision"], law["file"]) == ("hub", "org/mmlu", "d" * 40, "law.jsonl")


def test_without_a_list_there_are_none(service: Service) -> None:
    assert service.http.get("/benchmarks").json() == {"object": "list", "data": [], "has_more": False}


@pytest.mark.parametrize(("name", "status"), [("law", 201), ("none", 400)])
def test_orders_name_benchmarks(listing: Service, name: str, status: int) -> None:
    tasks = [{"kind": "multiple_choice", "benchmark": name}]
    order = {"base_model": "testbed", "dataset": listing.dataset("measured"), "quality": {"tasks": tasks}}
    reply = listing.http.post("/jobs", json=order)
    assert reply.status_code == status
    if status == 400:
        assert (reply.json()["error"]["code"], reply.json()["error"]["param"]) == ("unknown_benchmark", "quality.tasks")
