"""Taking a database back to an older revision, for the tests of migrations. Forwards is `core.db.migrate.upgrade`."""

from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine

from core.db import migrate
from core.db.session import driver_url


def take_back(url: str, revision: str) -> None:
    """Downgrade a database to a revision."""
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    engine = create_engine(driver_url(url))
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, revision)
    engine.dispose()
