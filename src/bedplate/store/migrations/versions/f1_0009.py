"""Indexes for runs by name, and for texts that are longer than what an index holds.

Revision: f1_0009
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0009"
down_revision = "f1_0008"

HEAD_LENGTH = 350


def upgrade() -> None:
    """Make the indexes; a text of just the length that is searched has an empty rest from now on."""
    op.create_index(
        op.f("ix_runs_experiment_lifecycle_name_started_id"),
        "runs",
        ["experiment", "lifecycle", "name", sa.literal_column("started DESC"), "id"],
        unique=False,
        postgresql_include=["key"],
    )
    for name in ("params", "tags", "logged_model_params", "logged_model_tags"):
        table = sa.table(name, sa.column("value"), sa.column("rest"))
        exact = (sa.func.length(table.c.value) == HEAD_LENGTH, table.c.rest.is_(None))
        op.get_bind().execute(sa.update(table).where(*exact).values(rest=""))
    long = sa.text("rest IS NOT NULL")
    for name in ("params", "tags"):
        op.create_index(
            f"ix_{name}_long", name, ["experiment", "key"], unique=False, sqlite_where=long, postgresql_where=long
        )
