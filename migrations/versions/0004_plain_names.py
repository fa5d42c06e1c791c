"""Rename the stored fields whose API names changed before 1.0.

Not here: what the fields mean (core.schemas).

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rename columns, and the keys of stored JSON."""
    op.alter_column("scores", "arm", new_column_name="run")


def downgrade() -> None:
    """The old names again."""
    op.alter_column("scores", "run", new_column_name="arm")
