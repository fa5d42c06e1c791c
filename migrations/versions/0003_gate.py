"""Projects and rights of keys, policies, decisions of the gate, and overrides, which are permanent.

A trigger prevents changing, deleting and truncating overrides. A downgrade deletes them with their table.

Revision: 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"

_KEEP = """
create function keep_on_record() returns trigger language plpgsql as $$
begin
    raise exception 'overrides of the gate stay on record: % is refused', tg_op using errcode = 'restrict_violation';
end
$$
"""
_KEPT = """
create trigger keep_on_record before update or delete or truncate on gate_overrides
for each statement execute function keep_on_record()
"""
_OLD_SPECS = """
update jobs set spec = spec - array['kind', 'policy']
where jsonb_typeof(spec) = 'object'
"""


def upgrade() -> None:
    json = postgresql.JSONB(astext_type=sa.Text())
    op.add_column("api_keys", sa.Column("project", sa.String(), server_default="default", nullable=False))
    op.add_column("api_keys", sa.Column("rights", postgresql.ARRAY(sa.String()), server_default="{}", nullable=False))
    op.add_column("jobs", sa.Column("project", sa.String(), server_default="default", nullable=False))
    op.add_column("jobs", sa.Column("policy", json, nullable=True))
    op.add_column("jobs", sa.Column("gate", json, nullable=True))
    op.create_table(
        "policies",
        sa.Column("project", sa.String(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("policy", json, nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_policies_key_id_api_keys")),
        sa.PrimaryKeyConstraint("project", "version", name=op.f("pk_policies")),
    )
    op.create_table(
        "gate_overrides",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("key_name", sa.String(), nullable=False),
        sa.Column(
            "created_at", sa.DateTime(timezone=True), server_default=sa.text("clock_timestamp()"), nullable=False
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_gate_overrides_job_id_jobs")),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name=op.f("fk_gate_overrides_key_id_api_keys")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_gate_overrides")),
    )
    op.create_index("ix_gate_overrides_of_job", "gate_overrides", ["job_id", "id"])
    op.execute(_KEEP)
    op.execute(_KEPT)


def downgrade() -> None:
    op.execute("delete from jobs where spec ->> 'kind' = 'screen'")
    op.execute(_OLD_SPECS)
    op.drop_table("gate_overrides")
    op.execute("drop function keep_on_record()")
    op.drop_table("policies")
    for table, column in (
        ("jobs", "gate"),
        ("jobs", "policy"),
        ("jobs", "project"),
        ("api_keys", "rights"),
        ("api_keys", "project"),
    ):
        op.drop_column(table, column)
