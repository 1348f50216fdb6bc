"""What is left of appended rows that were deleted for good.

Revision: f1_0008
Revises: f1_0007
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0008"
down_revision = "f1_0007"


def upgrade() -> None:
    """Make the table, and an index by which the values of a run about models are found."""
    op.create_table(
        "erased_positions",
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("leaf", sa.LargeBinary(), nullable=False),
        sa.Column("entry", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_erased_positions")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_erased_positions_entry_position"), "erased_positions", ["entry", "position"], unique=False)
    op.create_index(op.f("ix_logged_model_metrics_run"), "logged_model_metrics", ["run"], unique=False)
