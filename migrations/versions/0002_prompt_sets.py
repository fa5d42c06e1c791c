"""Uploaded prompt sets, figures with their change against the base model, and orders with several judges.

Stored orders are converted to the new shape. On a downgrade, orders lose the fields that the older version does not
know; that version rejects orders that depend on them (a new attack family, prompt sets by name).

Revision: 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"

# An operand on the right wins: an order that has a suite and judges keeps them.
_NEW_ORDERS = """
update jobs set spec = jsonb_set(
    spec, '{security}', '{"suite": "quick", "judges": [{"kind": "rules"}]}'::jsonb || ((spec -> 'security') - 'judge')
)
where jsonb_typeof(spec -> 'security') = 'object'
"""
_OLD_SECURITY = """
update jobs set spec = jsonb_set(
    spec,
    '{security}',
    (
        select jsonb_object_agg(key, value) from jsonb_each(spec -> 'security')
        where key in ('prompts', 'max_prompts', 'max_new_tokens', 'system_prompt')
    ) || jsonb_build_object(
        'judge', 'rules',
        'attacks', (
            select jsonb_agg(coalesce(attack -> 'family', attack) order by place)
            from jsonb_array_elements(spec #> '{security,attacks}') with ordinality as attacks(attack, place)
        )
    )
)
where jsonb_typeof(spec #> '{security,attacks}') = 'array'
"""
_OLD_QUALITY = """
update jobs set spec = jsonb_set(
    spec, '{quality}', (spec -> 'quality') - array['domain', 'tasks', 'max_answers', 'max_new_tokens']
)
where jsonb_typeof(spec -> 'quality') = 'object'
"""


def upgrade() -> None:
    op.create_table(
        "prompt_sets",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("layout", sa.String(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("summary", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_sets")),
    )
    op.add_column("scores", sa.Column("change", sa.Double(), nullable=True))
    op.add_column("scores", sa.Column("change_n", sa.BigInteger(), nullable=True))
    op.add_column("scores", sa.Column("change_low", sa.Double(), nullable=True))
    op.add_column("scores", sa.Column("change_high", sa.Double(), nullable=True))
    op.execute(_NEW_ORDERS)


def downgrade() -> None:
    op.execute(_OLD_QUALITY)
    op.execute(_OLD_SECURITY)
    op.drop_column("scores", "change_high")
    op.drop_column("scores", "change_low")
    op.drop_column("scores", "change_n")
    op.drop_column("scores", "change")
    op.drop_table("prompt_sets")
