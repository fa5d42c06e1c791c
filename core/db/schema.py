"""Whether a database has the schema that this version of the program needs, told without loading Alembic.

Migrations are numbered files (`0001_first_tables.py`), so the newest is the one with the highest number.
Not here: running them (core.db.migrate).
"""

from pathlib import Path

from sqlalchemy import text
from sqlalchemy.orm import Session

_VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"


def newest() -> str:
    """The revision that `core.db.migrate.upgrade` ends at."""
    return max(path.name.partition("_")[0] for path in _VERSIONS.glob("[0-9]*.py"))


def is_current(session: Session) -> bool:
    """Whether every migration has run on this database, and none that this version does not know."""
    if session.scalar(text("select to_regclass('alembic_version')")) is None:
        return False
    return session.scalars(text("select version_num from alembic_version")).all() == [newest()]
