"""Migrating a database to the newest schema, with Alembic. Not here: the migrations (migrations/)."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from core.db.session import driver_url
from core.errors import Unavailable

SCRIPTS = Path(__file__).parents[2] / "migrations"


def upgrade(url: str, revision: str = "head") -> None:
    """Run every missing migration. If several processes call this, one migrates and the others wait.

    Raises:
        Unavailable: code `database_unavailable`, or `database_newer` if a newer securetune has migrated it.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    engine = create_engine(driver_url(url), connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except OperationalError as error:
        raise Unavailable(
            "The database cannot be reached. Check DATABASE_URL, and that PostgreSQL is running.",
            code="database_unavailable",
        ) from error
    except CommandError as error:
        raise Unavailable(
            f"A newer version of securetune has migrated this database ({error}). Run that version.",
            code="database_newer",
        ) from error
    finally:
        engine.dispose()
