"""Connections and transactions, for the API and the worker. Driver errors that a caller can act on become our own.

Covers: engine, transaction, a single transaction. Not here: queries. Never share a factory across a fork.
"""

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.exc import DataError, InterfaceError, InternalError, OperationalError, ProgrammingError, TimeoutError
from sqlalchemy.orm import Session, sessionmaker

from core.errors import InvalidInput, Unavailable

_IDLE_IN_TRANSACTION = "25P03"
_UNDEFINED_TABLE = "42P01"
_UNTRANSLATABLE = "22P05"
# Detects a network that drops packets within seconds instead of the usual quarter of an hour.
_LIVENESS = {
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
# No transaction waits forever for a lock, and a process frozen in a transaction does not keep its locks.
_BOUNDS = "set lock_timeout = '5s'; set idle_in_transaction_session_timeout = '30s'"

Sessions = sessionmaker[Session]
"""The type of a session factory, for callers that may not import SQLAlchemy."""


def driver_url(url: str) -> URL:
    """The address with the psycopg 3 driver; any spelling of the PostgreSQL scheme is accepted."""
    return make_url(url).set(drivername="postgresql+psycopg")


def sessions(url: str, *, pool_size: int = 5) -> Sessions:
    """A session factory with a connection pool that replaces dropped connections. Connecting waits at most 3 s."""
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
    """A transaction, committed at the end and rolled back on any error.

    Raises:
        Unavailable: code `database_unavailable` if PostgreSQL cannot be reached, `database_not_migrated` if it has no
            tables.
        InvalidInput: code `invalid_parameter`; a text contains a NUL character.
    """
    try:
        with factory.begin() as session:
            yield session
    except (OperationalError, InterfaceError, TimeoutError) as error:
        raise _unreachable() from error
    except InternalError as error:  # a machine so busy that PostgreSQL gave up on the transaction
        if getattr(error.orig, "sqlstate", None) != _IDLE_IN_TRANSACTION:
            raise
        raise _unreachable() from error
    except DataError as error:
        if not _has_nul(error):
            raise
        raise InvalidInput("A text contains a NUL character. Remove it.", code="invalid_parameter") from error
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
            raise
        raise Unavailable(
            "The database has no tables. Run `securetune migrate`.", code="database_not_migrated"
        ) from error


def _unreachable() -> Unavailable:
    return Unavailable(
        "The database cannot be reached. Nothing was changed. Try again in a moment.", code="database_unavailable"
    )


def _has_nul(error: DataError) -> bool:
    """Whether the error is about a NUL character, which PostgreSQL cannot store: the driver rejects it in a column, the
    server in JSON."""
    return getattr(error.orig, "sqlstate", None) == _UNTRANSLATABLE or "NUL (0x00)" in str(error.orig)


@contextmanager
def once(url: str) -> Generator[Session]:
    """The only transaction of a program; raises what `transaction` raises."""
    factory = sessions(url)
    try:
        with transaction(factory) as session:
            yield session
    finally:
        dispose(factory)


def dispose(factory: Sessions) -> None:
    """Close the connection pool."""
    factory.kw["bind"].dispose()
