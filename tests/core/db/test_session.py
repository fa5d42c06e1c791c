"""Transactions: whole or not at all, and a database that is away is said so."""

from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import text
from sqlalchemy.exc import DataError

from core.db import jobs
from core.db.models import Job
from core.db.rows import newest_first
from core.db.session import Session, Sessions, dispose, driver_url, transaction
from core.db.session import sessions as make_sessions
from core.errors import Conflict, InvalidInput, Unavailable
from core.schemas.job import JobSpec


def test_an_error_rolls_everything_back(sessions: Sessions, spec: JobSpec) -> None:
    def fail_halfway() -> None:
        with transaction(sessions) as session:
            jobs.add(session, spec)
            raise Conflict("no")

    with pytest.raises(Conflict):
        fail_halfway()
    with transaction(sessions) as session:
        assert newest_first(session, Job, limit=1) == ([], False)


def ping(session: Session) -> None:
    session.execute(text("select 1"))


@pytest.mark.parametrize("url", ["postgres://u:p%40w@h:1/d", "postgresql://u:p%40w@h:1/d"])
def test_every_spelling_gets_the_one_driver(url: str) -> None:
    got = driver_url(url)
    assert (got.drivername, got.password, got.host, got.database) == ("postgresql+psycopg", "p@w", "h", "d")


def test_a_database_that_is_away() -> None:
    factory = make_sessions("postgresql://nobody@/nothing?host=/nonexistent")
    with pytest.raises(Unavailable) as caught, transaction(factory) as session:
        ping(session)
    assert caught.value.code == "database_unavailable"
    dispose(factory)


def test_dropped_connections_are_replaced(sessions: Sessions, database_url: str) -> None:
    drop = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'securetune'"
    with transaction(sessions) as session:
        ping(session)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(drop)
    with transaction(sessions) as session:
        ping(session)

    def dropped_halfway() -> None:
        with transaction(sessions) as session, psycopg.connect(database_url, autocommit=True) as admin:
            ping(session)
            admin.execute(drop)
            ping(session)

    with pytest.raises(Unavailable):
        dropped_halfway()
    with transaction(sessions) as session:
        ping(session)


def test_a_transaction_that_idled_too_long(sessions: Sessions, database_url: str) -> None:
    here = "select count(*) from pg_stat_activity where application_name = 'securetune'"

    def idle() -> None:
        with transaction(sessions) as session, psycopg.connect(database_url, autocommit=True) as admin:
            session.execute(text("set local idle_in_transaction_session_timeout = '20ms'"))
            while admin.execute(here).fetchone() != (0,):
                pass
            ping(session)

    with pytest.raises(Unavailable) as caught:
        idle()
    assert caught.value.code == "database_unavailable"


def test_nobody_waits_for_a_row_for_ever(sessions: Sessions, spec: JobSpec) -> None:
    with transaction(sessions) as session:
        assert session.scalar(text("show lock_timeout")) == "5s"
        assert session.scalar(text("show idle_in_transaction_session_timeout")) == "30s"
        job_id = jobs.add(session, spec).id

    def wait_for_it() -> None:
        with transaction(sessions) as session:
            session.execute(text("set local lock_timeout = '50ms'"))
            jobs.request_cancel(session, job_id)

    with transaction(sessions) as busy:
        jobs.request_cancel(busy, job_id)
        with pytest.raises(Unavailable):
            wait_for_it()


@pytest.fixture
def bare_database(database_url: str) -> Iterator[Sessions]:
    """A database without a table."""
    name = urlsplit(database_url).path[1:] + "_bare"
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        factory = make_sessions(urlsplit(database_url)._replace(path=f"/{name}").geturl())
        try:
            yield factory
        finally:
            dispose(factory)
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_database_without_tables_says_what_to_do(bare_database: Sessions) -> None:
    with pytest.raises(Unavailable, match="securetune migrate") as caught, transaction(bare_database) as session:
        jobs.claimable(session)
    assert caught.value.code == "database_not_migrated"


@pytest.mark.parametrize("statement", ["select cast(:value as text)", "select cast(:value as jsonb)"])
def test_a_text_that_cannot_be_kept_says_so(sessions: Sessions, statement: str) -> None:
    def keep() -> None:
        with transaction(sessions) as session:
            session.execute(text(statement), {"value": '"\0"' if "text" in statement else r'"\u0000"'})

    with pytest.raises(InvalidInput, match="NUL") as caught:
        keep()
    assert caught.value.code == "invalid_parameter"


def test_other_values_that_do_not_fit_are_errors_of_ours(sessions: Sessions) -> None:
    def divide() -> None:
        with transaction(sessions) as session:
            session.execute(text("select 1 / 0"))

    with pytest.raises(DataError):
        divide()
