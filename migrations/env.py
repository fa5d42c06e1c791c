"""How Alembic runs: online only, on the connection that core.db.migrate passes, one process at a time.

`securetune migrate` or `securetune up` runs the migrations. A new one: `make migration MESSAGE="..."`.
"""

from alembic import context
from sqlalchemy import text

from core.db.models import Base

_MIGRATION_LOCK = 0x5EC0_0001

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=Base.metadata, compare_type=True, compare_server_default=True)
with context.begin_transaction():
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
    context.run_migrations()
connection.commit()
