"""Whether a database has the schema of this version, without loading Alembic.

Migrations are numbered files (`0001_first_tables.py`), so the newest is the one with the highest number.
Not here: running them (core.db.migrate).
"""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

_VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"


def newest() -> str:
    """The newest revision, to which `core.db.migrate.upgrade` migrates."""
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def is_current(session: Session) -> bool:
    """Whether the database is at the newest revision of this version."""
    if session.scalar(text("select to_regclass('alembic_version')")) is None:
        return False
    return session.scalars(text("select version_num from alembic_version")).all() == [newest()]
