"""Brings a database to the newest schema, with Alembic, from a program instead of a shell.

Not here: the migrations themselves (migrations/).
"""

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
    """Run every migration that is missing. Several processes may try at once: one migrates, the others wait.

    Raises:
        Unavailable: code `database_unavailable`, or `database_newer` when a newer securetune has migrated it.
    """
    config = Config()
    config.set_main_option("script_location", str(SCRIPTS))
    engine = create_engine(driver_url(url), connect_args={"connect_timeout": 5})
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    except OperationalError as error:
        raise Unavailable("The database cannot be reached for its migrations.", code="database_unavailable") from error
    except CommandError as error:
        raise Unavailable(
            f"The database's schema is not known to this version of securetune ({error}). Run the newer version.",
            code="database_newer",
        ) from error
    finally:
        engine.dispose()
