"""What runs read and made, and logged models with what was logged of them.

Revision: f1_0006
Revises: f1_0005
"""

import sqlalchemy as sa
from alembic import op

revision = "f1_0006"
down_revision = "f1_0005"

EXACT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ALLOTTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "datasets",
        sa.Column("id", ALLOTTED, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("name", EXACT, nullable=False),
        sa.Column("digest", EXACT, nullable=False),
        sa.Column("source_type", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("schema", sa.Text(), nullable=True),
        sa.Column("profile", sa.Text(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], name=op.f("fk_datasets_experiment")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("experiment", "name", "digest", name=op.f("uq_datasets_experiment_name_digest")),
        sa.UniqueConstraint("position", name=op.f("uq_datasets_position")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "logged_models",
        sa.Column("key", ALLOTTED, nullable=False),
        sa.Column("id", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("name", EXACT, nullable=False),
        sa.Column("model_type", EXACT, nullable=False),
        sa.Column("source_run", EXACT, nullable=False),
        sa.Column("artifact_location", EXACT, nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("status_message", EXACT, nullable=True),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], name=op.f("fk_logged_models_experiment")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_logged_models")),
        sa.UniqueConstraint("id", name=op.f("uq_logged_models_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_created_id"),
        "logged_models",
        ["experiment", "lifecycle", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_model_type_created_id"),
        "logged_models",
        ["experiment", "lifecycle", "model_type", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_name_created_id"),
        "logged_models",
        ["experiment", "lifecycle", "name", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_source_run_created_id"),
        "logged_models",
        ["experiment", "lifecycle", "source_run", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_status_created_id"),
        "logged_models",
        ["experiment", "lifecycle", "status", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_index(
        op.f("ix_logged_models_experiment_lifecycle_updated_created_id"),
        "logged_models",
        ["experiment", "lifecycle", "updated", sa.literal_column("created DESC"), "id"],
        unique=False,
    )
    op.create_table(
        "dataset_inputs",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dataset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("context", EXACT, nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["dataset"], ["datasets.id"], name=op.f("fk_dataset_inputs_dataset")),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_dataset_inputs_run")),
        sa.PrimaryKeyConstraint("run", "dataset", name=op.f("pk_dataset_inputs")),
        sa.UniqueConstraint("position", name=op.f("uq_dataset_inputs_position")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_dataset_inputs_dataset_context_run"), "dataset_inputs", ["dataset", "context", "run"], unique=False
    )
    op.create_table(
        "logged_model_metrics",
        sa.Column("model", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dataset", EXACT, nullable=False),
        sa.Column("value", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("is_nan", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("dataset_name", EXACT, nullable=False),
        sa.Column("dataset_digest", EXACT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["model"], ["logged_models.key"], name=op.f("fk_logged_model_metrics_model")),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_logged_model_metrics_run")),
        sa.PrimaryKeyConstraint(
            "model",
            "key",
            "timestamp",
            "step",
            "run",
            "dataset",
            "value",
            "is_nan",
            name=op.f("pk_logged_model_metrics"),
        ),
        sa.UniqueConstraint("position", name=op.f("uq_logged_model_metrics_position")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_logged_model_metrics_experiment_key_is_nan_value_model"),
        "logged_model_metrics",
        ["experiment", "key", "is_nan", "value", "model"],
        unique=False,
    )
    op.create_table(
        "logged_model_params",
        sa.Column("model", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("value", EXACT, nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["logged_models.key"], name=op.f("fk_logged_model_params_model")),
        sa.PrimaryKeyConstraint("model", "key", name=op.f("pk_logged_model_params")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_logged_model_params_experiment_key_value_model"),
        "logged_model_params",
        ["experiment", "key", "value", "model"],
        unique=False,
    )
    op.create_table(
        "logged_model_tags",
        sa.Column("model", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("value", EXACT, nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["model"], ["logged_models.key"], name=op.f("fk_logged_model_tags_model")),
        sa.PrimaryKeyConstraint("model", "key", name=op.f("pk_logged_model_tags")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_logged_model_tags_experiment_key_value_model"),
        "logged_model_tags",
        ["experiment", "key", "value", "model"],
        unique=False,
    )
    op.create_table(
        "model_inputs",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", EXACT, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_model_inputs_run")),
        sa.PrimaryKeyConstraint("run", "model", name=op.f("pk_model_inputs")),
        sa.UniqueConstraint("position", name=op.f("uq_model_inputs_position")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "model_outputs",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model", EXACT, nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_model_outputs_run")),
        sa.PrimaryKeyConstraint("run", "model", name=op.f("pk_model_outputs")),
        sa.UniqueConstraint("position", name=op.f("uq_model_outputs_position")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dataset_input_tags",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("dataset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run", "dataset"], ["dataset_inputs.run", "dataset_inputs.dataset"], name=op.f("fk_dataset_input_tags_run")
        ),
        sa.PrimaryKeyConstraint("run", "dataset", "key", name=op.f("pk_dataset_input_tags")),
        sqlite_with_rowid=False,
    )
