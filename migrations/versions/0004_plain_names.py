"""Fields that were renamed before 1.0, in columns and in stored JSON; and which files the gate guards.

What version 1 calls `arm`, version 2 calls `run`, and so on: core.schemas.upgrade has the whole list. Until now the
gate guarded files by their names: files of these names are marked as gated.

Revision: 0004, after 0003.
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from core.schemas.upgrade import Json
from core.schemas.upgrade import downgrade as old_names
from core.schemas.upgrade import upgrade as new_names

revision = "0004"
down_revision = "0003"

_BATCH = 500
_STORED = (
    ("jobs", ("id",), ("spec", "policy", "gate", "progress", "error")),
    ("policies", ("project", "version"), ("policy",)),
    ("events", ("id",), ("data",)),
)
"""Tables with JSON of these schemas: their keys, and the columns."""
_GUARDED = """
update artifacts set gated = true
where name in ('adapter.tar', 'model.tar') or name like 'adapter/%' or name like 'model/%'
"""


def upgrade() -> None:
    op.alter_column("scores", "arm", new_column_name="run")
    op.add_column("artifacts", sa.Column("gated", sa.Boolean(), server_default="false", nullable=False))
    op.execute(_GUARDED)
    _rewrite(new_names)


def downgrade() -> None:
    _rewrite(old_names)
    op.drop_column("artifacts", "gated")
    op.alter_column("scores", "run", new_column_name="arm")


def _rewrite(change: Callable[[Json], Json]) -> None:
    """Change every stored document, a batch of rows at a time."""
    connection = op.get_bind()
    for name, keys, columns in _STORED:
        json = [sa.column(column, postgresql.JSONB(none_as_null=True)) for column in columns]
        table = sa.table(name, *(sa.column(key) for key in keys), *json)
        update = sa.update(table).where(*(table.c[key] == sa.bindparam(f"key_{key}") for key in keys))
        rows = connection.execute(sa.select(table), execution_options={"yield_per": _BATCH})
        for batch in rows.mappings().partitions():
            changed = [
                {f"key_{key}": row[key] for key in keys} | {each: row[each] and change(row[each]) for each in columns}
                for row in batch
            ]
            connection.execute(update, changed)
