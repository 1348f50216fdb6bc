"""Artifacts under their names, uploads in parts, and content that is to be removed.

Revision: f1_0004
Revises: f1_0002
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0004"
down_revision = "f1_0003"

EXACT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "artifacts",
        sa.Column("workspace", EXACT, nullable=False),
        sa.Column("folder", EXACT, nullable=False),
        sa.Column("name", EXACT, nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.name"], name=op.f("fk_artifacts_workspace")),
        sa.PrimaryKeyConstraint("workspace", "folder", "name", name=op.f("pk_artifacts")),
    )
    op.create_index(op.f("ix_artifacts_digest"), "artifacts", ["digest"], unique=False)
    op.create_table(
        "condemned",
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_condemned")),
    )
    op.create_index(op.f("ix_condemned_since"), "condemned", ["since"], unique=False)
    op.create_table(
        "uploads",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("touched", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("receipt", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.name"], name=op.f("fk_uploads_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_uploads")),
    )
    op.create_index(op.f("ix_uploads_touched"), "uploads", ["touched"], unique=False)
    op.create_table(
        "upload_parts",
        sa.Column("upload", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["upload"], ["uploads.id"], name=op.f("fk_upload_parts_upload"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("upload", "number", name=op.f("pk_upload_parts")),
    )
    op.create_index(op.f("ix_upload_parts_digest"), "upload_parts", ["digest"], unique=False)
