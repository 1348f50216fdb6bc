"""How much privacy has been spent.

Revision: f1_0012
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0012"
down_revision = "f1_0011"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "privacy",
        sa.Column("use_case", sa.Text(), nullable=False),
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("spent", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("use_case", "principal", "purpose", name=op.f("pk_privacy")),
    )
