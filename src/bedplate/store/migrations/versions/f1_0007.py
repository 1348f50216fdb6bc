"""Who may read and write in a workspace; policies that users wrote.

Revision: f1_0007
Revises: f1_0005
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0007"
down_revision = "f1_0006"

_WORKSPACES = sa.table("workspaces", sa.column("name"), sa.column("shared"))


def upgrade() -> None:
    """Close every workspace but the default one, which stays open to whoever has rights in the home."""
    op.add_column("workspaces", sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("workspaces", sa.Column("readers", sa.Text(), nullable=False, server_default="[]"))
    op.add_column("workspaces", sa.Column("writers", sa.Text(), nullable=False, server_default="[]"))
    op.get_bind().execute(sa.update(_WORKSPACES).where(_WORKSPACES.c.name == "default").values(shared=sa.true()))
    op.create_table(
        "policies",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_policies")),
        sa.UniqueConstraint("position", name=op.f("uq_policies_position")),
    )
