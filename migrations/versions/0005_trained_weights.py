"""The digests of trained weights with the decision about each, and policies that pin what is measured.

Stored policies get the pin of the built-in policy, which is the default of the new field `measure`. A downgrade deletes
the digests, and removes the new fields from stored policies and decisions.

Revision: 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0005"
down_revision = "0004"

_WITHOUT_FIELDS = (
    "update policies set policy = policy - 'measure'",
    "update jobs set policy = policy #- '{policy,measure}' where jsonb_typeof(policy) = 'object'",
    "update jobs set gate = gate - 'measured' where jsonb_typeof(gate) = 'object'",
)


def upgrade() -> None:
    op.create_table(
        "trained_weights",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("offered", sa.Boolean(), nullable=False),
        sa.Column("decision", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("job_id", "run", name=op.f("pk_trained_weights")),
    )
    op.create_index("ix_trained_weights_of_project", "trained_weights", ["project", "sha256"])


def downgrade() -> None:
    op.drop_table("trained_weights")
    for statement in _WITHOUT_FIELDS:
        op.execute(statement)
