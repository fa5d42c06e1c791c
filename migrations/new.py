"""`python -m migrations.new "add a column"`: writes the next migration from the models in core/db/models.py.

It runs all existing migrations on a temporary PostgreSQL and compares the result with the models. Review the migration
before you commit it: for example, a renamed column appears as one dropped and one added.
Not here: running migrations (core.db.migrate).
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from alembic import command
from alembic.config import Config
from alembic.operations.ops import MigrationScript
from alembic.script import Script, ScriptDirectory
from sqlalchemy import create_engine

from core.db import migrate
from core.db.session import driver_url
from securetune.local.servers import PostgresServer


def main(message: Annotated[str, typer.Argument(help="Description, such as `add a column`.")]) -> None:
    """Write the next migration."""
    if not message.strip():
        raise typer.BadParameter('Describe the migration: make migration MESSAGE="add a column".')
    with (
        tempfile.TemporaryDirectory(prefix="securetune-migration-") as folder,
        PostgresServer(Path(folder, "postgres"), durable=False) as server,
    ):
        path = write(message.strip(), server.url)
    if path is None:
        typer.echo("The migrations match the models; no migration was written.")
        return
    subprocess.run([sys.executable, "-m", "ruff", "check", "--quiet", "--fix", path], check=True)
    subprocess.run([sys.executable, "-m", "ruff", "format", "--quiet", path], check=True)
    typer.echo(f"{path}\nReview it before you commit it.")


def write(message: str, url: str, scripts: Path = migrate.SCRIPTS) -> Path | None:
    """Write the next migration into `scripts` and return its path, None if the models have not changed.

    `url` names an empty database, on which the existing migrations are run.
    """
    config = Config()
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    newest = ScriptDirectory.from_config(config).get_current_head()
    engine = create_engine(driver_url(url))
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            written = command.revision(
                config,
                message,
                autogenerate=True,
                rev_id=f"{int(newest or 0) + 1:04d}",
                process_revision_directives=_none_when_empty,
            )
    finally:
        engine.dispose()
    return Path(written.path) if isinstance(written, Script) else None


def _none_when_empty(_context: object, _revision: object, directives: list[MigrationScript]) -> None:
    if all(operations.is_empty() for operations in directives[0].upgrade_ops_list):
        directives.clear()


if __name__ == "__main__":
    typer.run(main)
