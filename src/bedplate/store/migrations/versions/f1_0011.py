"""Quotas of principals and groups at endpoints.

Revision: f1_0011
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0011"
down_revision = "f1_0010"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "quotas",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("rate", sa.Double(), nullable=True),
        sa.Column("burst", sa.BigInteger(), nullable=True),
        sa.Column("day", sa.BigInteger(), nullable=True),
        sa.Column("month", sa.BigInteger(), nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "kind", "holder", name=op.f("pk_quotas")),
    )
