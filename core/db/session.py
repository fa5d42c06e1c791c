"""Connections and transactions, for both doors. What callers can mend (a database that is away, text that cannot be
kept) is an error of ours, not of the driver.

Covers: engine, transaction, and one transaction on its own. Not here: queries. Never share a factory across a fork.
"""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.exc import DataError, InterfaceError, OperationalError, ProgrammingError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import InvalidInput, Unavailable

_UNDEFINED_TABLE = "42P01"
_UNTRANSLATABLE = "22P05"
# A database behind a network that drops packets is noticed in seconds, not in the quarter of an hour that is usual.
_LIVENESS = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# Nobody waits for a row for ever, and a process that is frozen in a transaction does not keep its rows.
_BOUNDS = "set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '30s'"

Sessions = sessionmaker[Session]
"""A factory of sessions, under a name that callers outside this room may say."""


def driver_url(url: str) -> URL:
    """The same address with the psycopg 3 driver, whichever PostgreSQL spelling it has."""
    return make_url(url).set(drivername="postgresql+psycopg")


def sessions(url: str, *, pool_size: int = 5) -> Sessions:
    """A factory of sessions on a pool that notices dropped connections; nothing in it waits for longer than a few s."""
    engine = create_engine(
        driver_url(url),
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=3,
        connect_args={"connect_timeout": 3, "application_name": "securetune", **_LIVENESS},
    )
    event.listen(engine, "connect", _bound)
    return sessionmaker(engine, expire_on_commit=False)


def _bound(connection: psycopg.Connection, _record: object) -> None:
    connection.execute(_BOUNDS)
    connection.commit()


@contextmanager
def transaction(factory: Sessions) -> Generator[Session]:
    """One transaction: committed at the end, rolled back on any error.

    Raises:
        Unavailable: code `database_unavailable`, when PostgreSQL cannot be reached; `database_not_migrated`, when it
            has no tables.
        InvalidInput: code `invalid_parameter`, when a text holds a NUL character.
    """
    try:
        with factory.begin() as session:
            yield session
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise Unavailable(
            "The database cannot be reached. Nothing was changed; try again in a moment.", code="database_unavailable"
        ) from error
    except DataError as error:
        if not _holds_nul(error):
            raise
        raise InvalidInput("A text holds a NUL character: remove it.", code="invalid_parameter") from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        raise Unavailable(
            "The database has no tables yet: run `securetune migrate`.", code="database_not_migrated"
        ) from error


def _holds_nul(error: DataError) -> bool:
    """Whether it is about the one character that PostgreSQL keeps in no text: the driver refuses it in a column, the
    server inside of JSON."""
    return getattr(error.orig, "sqlstate", None) == _UNTRANSLATABLE or "NUL (0x00)" in str(error.orig)


@contextmanager
def once(url: str) -> Generator[Session]:
    """The one transaction of a program that needs no more; errors as of `transaction`."""
    factory = sessions(url)
    try:
        with transaction(factory) as session:
            yield session
    finally:
        dispose(factory)


def dispose(factory: Sessions) -> None:
    """Close the pool."""
    factory.kw["bind"].dispose()
