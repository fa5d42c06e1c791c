"""Migration 0004 on the database that version 0.1.0 left: forwards everything can be read, backwards nothing is lost
but what version 2 removed."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from core.db import migrate
from core.schemas.events import JOB_EVENT, JobError, Progress
from core.schemas.gate import GateDecision
from core.schemas.job import read_order
from core.schemas.policy import Policy, PolicyRef
from core.schemas.upgrade import downgrade, upgrade
from tests.migrations.steps import take_back
from tests.old_state import MANIFEST, OldState, documents, unpack

READERS: dict[str, Callable[[Any], object]] = {
    "jobs.spec": read_order,
    "jobs.policy": PolicyRef.model_validate,
    "jobs.gate": GateDecision.model_validate,
    "jobs.progress": Progress.model_validate,
    "jobs.error": JobError.model_validate,
    "policies": Policy.model_validate,
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> OldState:
    return unpack(tmp_path_factory.mktemp("old"))


@pytest.fixture
def old_database(old: OldState, make_database: Callable[[], AbstractContextManager[str]]) -> Iterator[str]:
    """A database as version 0.1.0 left it."""
    with make_database() as url, psycopg.connect(url, autocommit=True) as admin:
        name = urlsplit(url).path[1:] + "_old"
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        try:
            old_url = urlsplit(url)._replace(path=f"/{name}").geturl()
            migrate.upgrade(old_url, MANIFEST["revision"])
            old.fill(old_url)
            yield old_url
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def read(place: str, document: Any) -> object:
    where, *_, kind = place.split()
    if where == "events":
        return JOB_EVENT.validate_python({"type": kind, **document})
    return READERS[where](document)


def without_removed(document: Any) -> Any:
    """A document of version 1 after version 2 has had it: what was removed has its default again."""
    match document:
        case {"check": "pull"}:
            return None
        case dict():
            found = {name: without_removed(value) for name, value in document.items() if name not in ("pull", "lines")}
            removed = {"memory_mb": 1024} if "memory_mb" in document else {}
            removed |= {"pull": "off", "pull_share": 0.05} if "pull_share" in document else {}
            stage = {"stage": "refused"} if document.get("stage") == "pull" else {}
            lines = {"lines": without_removed(document["lines"])} if "lines" in document else {}
            return found | removed | stage | lines
        case list():
            return [without_removed(value) for value in document]
        case _:
            return document


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # pyrefly: ignore[no-matching-overload]


def test_every_stored_document_can_be_read_and_comes_back(old_database: str) -> None:
    before = dict(documents(old_database))
    scores = rows(old_database, "select * from scores order by 1, 2, 3, 4, 5")
    assert len(before) == 5 * MANIFEST["tables"]["jobs"] + MANIFEST["tables"]["policies"] + MANIFEST["tables"]["events"]

    migrate.upgrade(old_database)
    after = dict(documents(old_database))
    for place, document in after.items():
        if document is not None:
            assert read(place, document) is not None
    assert after.keys() == before.keys()
    assert rows(old_database, "select * from scores order by 1, 2, 3, 4, 5") == scores

    take_back(old_database, MANIFEST["revision"])
    for place, document in documents(old_database):
        assert document == without_removed(before[place]), place
    migrate.upgrade(old_database)
    assert dict(documents(old_database)) == after


def test_files_that_were_withheld_by_name_are_gated(old_database: str) -> None:
    migrate.upgrade(old_database)
    gated = {name for (name,) in rows(old_database, "select name from artifacts where gated")}
    free = {name for (name,) in rows(old_database, "select name from artifacts where not gated")}
    assert gated > {"adapter.tar", "adapter/adapter_model.safetensors"}
    assert all(name.startswith("adapter") for name in gated)
    assert free > {"report.json", "signed_report.json", "robustness.json"}
    assert not gated & free


def test_a_document_of_this_version_stays_as_it_is(old_database: str) -> None:
    for document in dict(documents(old_database)).values():
        if document is not None:
            new = upgrade(document)
            assert upgrade(new) == new
            assert upgrade(downgrade(new)) == new
