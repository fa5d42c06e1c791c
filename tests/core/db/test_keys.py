"""API keys: made once, checked, revoked."""

import pytest
from sqlalchemy import select

from core.db import keys
from core.db.models import ApiKey
from core.db.session import Sessions, transaction
from core.errors import InvalidInput, NotAuthenticated, NotFound


def test_a_key_opens_and_its_secret_is_not_kept(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        key = keys.create(session, "laptop")
    with transaction(sessions) as session:
        assert keys.check(session, key).name == "laptop"
        (row,) = session.scalars(select(ApiKey)).all()
        assert key.split("_", 2)[2] not in repr(vars(row))


def test_wrong_keys_are_all_wrong_in_the_same_way(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        key, other = keys.create(session, "a"), keys.create(session, "b")
    unknown = "st_" + "0" * 12 + key[15:]
    swapped = key[:16] + other[16:]
    messages = set()
    for wrong in ("", "st_", key[:-1], key + "x", key.upper(), unknown, swapped, f" {key}"):
        with transaction(sessions) as session, pytest.raises(NotAuthenticated) as caught:
            keys.check(session, wrong)
        messages.add(caught.value.message)
    assert len(messages) == 1


def test_a_revoked_key_is_shut_out_and_stays_listed(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        key = keys.create(session, "old")
        key_id = keys.check(session, key).key_id
    with transaction(sessions) as session:
        keys.create(session, "new")
    with transaction(sessions) as session:
        keys.revoke(session, key_id)
    with transaction(sessions) as session:
        (first, second) = keys.everyone(session)
        revoked_at = first.revoked_at
        assert (first.name, second.name, second.revoked_at) == ("old", "new", None)
        assert revoked_at is not None
        keys.revoke(session, key_id)
        with pytest.raises(NotAuthenticated):
            keys.check(session, key)
        with pytest.raises(NotFound):
            keys.revoke(session, "000000000000")
    with transaction(sessions) as session:
        assert keys.everyone(session)[0].revoked_at == revoked_at


def test_a_key_stands_for_a_project_and_has_the_rights_it_was_given(sessions: Sessions) -> None:
    with transaction(sessions) as session:
        plain = keys.check(session, keys.create(session, "plain"))
        able = keys.check(session, keys.create(session, "able", project="team-a", rights=("override", "policy")))
    assert (plain.project, plain.rights) == ("default", frozenset())
    assert (able.project, able.rights) == ("team-a", {"override", "policy"})


@pytest.mark.parametrize("project", ["", "A", "a b", "-a", "x" * 65, "a/b"])
def test_a_name_that_is_no_project_is_refused(sessions: Sessions, project: str) -> None:
    with transaction(sessions) as session, pytest.raises(InvalidInput) as caught:
        keys.create(session, "odd", project=project)
    assert caught.value.code == "invalid_project"
