"""The tables of what runs read and made: data sets, models as inputs and outputs, logged models and their values.

Rows of datasets, inputs, outputs and metrics are appended and never changed; ``position`` is the number of each among
all that runs log.
"""

from typing import Any

import sqlalchemy as sa

from bedplate.store.schema import ALLOTTED, EXACT, experiments, metadata, runs


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _exact(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, EXACT, nullable=null)


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


# The same dataset is kept once in an experiment, however many runs say that they read it.
datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", ALLOTTED, primary_key=True),
    sa.Column("experiment", sa.BigInteger, sa.ForeignKey(experiments.c.id), nullable=False),
    _exact("name"),
    _exact("digest"),
    _text("source_type"),
    _text("source"),
    _text("schema", null=True),
    _text("profile", null=True),
    _count("position"),
    sa.UniqueConstraint("experiment", "name", "digest"),
    sa.UniqueConstraint("position"),
    sqlite_autoincrement=True,
)

dataset_inputs = sa.Table(
    "dataset_inputs",
    metadata,
    sa.Column("run", sa.BigInteger, sa.ForeignKey(runs.c.key), primary_key=True, autoincrement=False),
    sa.Column("dataset", sa.BigInteger, sa.ForeignKey(datasets.c.id), primary_key=True, autoincrement=False),
    # The tag that says what the dataset was for, here as well: searches and summaries ask for it.
    _exact("context", null=True),
    _count("position"),
    sa.UniqueConstraint("position"),
    sa.Index(None, "dataset", "context", "run"),
    sqlite_with_rowid=False,
)

dataset_input_tags = sa.Table(
    "dataset_input_tags",
    metadata,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("dataset", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", EXACT, primary_key=True),
    _text("value"),
    sa.ForeignKeyConstraint(["run", "dataset"], ["dataset_inputs.run", "dataset_inputs.dataset"]),
    sqlite_with_rowid=False,
)

# Models as runs name them: it is not asked whether there is such a model.
model_inputs = sa.Table(
    "model_inputs",
    metadata,
    sa.Column("run", sa.BigInteger, sa.ForeignKey(runs.c.key), primary_key=True, autoincrement=False),
    sa.Column("model", EXACT, primary_key=True),
    _count("position"),
    sa.UniqueConstraint("position"),
    sqlite_with_rowid=False,
)

model_outputs = sa.Table(
    "model_outputs",
    metadata,
    sa.Column("run", sa.BigInteger, sa.ForeignKey(runs.c.key), primary_key=True, autoincrement=False),
    sa.Column("model", EXACT, primary_key=True),
    _count("step"),
    _count("position"),
    sa.UniqueConstraint("position"),
    sqlite_with_rowid=False,
)

logged_models = sa.Table(
    "logged_models",
    metadata,
    sa.Column("key", ALLOTTED, primary_key=True),
    _exact("id"),
    sa.Column("experiment", sa.BigInteger, sa.ForeignKey(experiments.c.id), nullable=False),
    _exact("name"),
    _exact("model_type"),
    # The run that a client says it came from, as it says it.
    _exact("source_run"),
    _exact("artifact_location"),
    # As MLflow numbers them, so that they sort alike.
    sa.Column("status", sa.SmallInteger, nullable=False),
    _exact("status_message", null=True),
    _text("lifecycle"),
    _count("created"),
    _count("updated"),
    sa.UniqueConstraint("id"),
    sqlite_autoincrement=True,
)
_newest = (logged_models.c.created.desc(), logged_models.c.id)
for _column in ("name", "model_type", "source_run", "status", "updated"):
    sa.Index(None, logged_models.c.experiment, logged_models.c.lifecycle, logged_models.c[_column], *_newest)
sa.Index(None, logged_models.c.experiment, logged_models.c.lifecycle, *_newest)


def _of_model() -> list[sa.Column[Any]]:
    return [
        sa.Column("model", sa.BigInteger, sa.ForeignKey(logged_models.c.key), primary_key=True, autoincrement=False),
        sa.Column("key", EXACT, primary_key=True),
        _count("experiment"),
        _exact("value"),
        _text("rest", null=True),
    ]


logged_model_params = sa.Table(
    "logged_model_params",
    metadata,
    *_of_model(),
    sa.Index(None, "experiment", "key", "value", "model"),
    sqlite_with_rowid=False,
)

logged_model_tags = sa.Table(
    "logged_model_tags",
    metadata,
    *_of_model(),
    sa.Index(None, "experiment", "key", "value", "model"),
    sqlite_with_rowid=False,
)

# Values that runs logged about models. `dataset` stands for name and digest, which can be longer than an index entry.
logged_model_metrics = sa.Table(
    "logged_model_metrics",
    metadata,
    sa.Column("model", sa.BigInteger, sa.ForeignKey(logged_models.c.key), primary_key=True, autoincrement=False),
    sa.Column("key", EXACT, primary_key=True),
    sa.Column("timestamp", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("run", sa.BigInteger, sa.ForeignKey(runs.c.key), primary_key=True, autoincrement=False),
    sa.Column("dataset", EXACT, primary_key=True),
    sa.Column("value", sa.Double, primary_key=True, autoincrement=False),
    sa.Column("is_nan", sa.Boolean, primary_key=True, autoincrement=False),
    _count("experiment"),
    _exact("dataset_name"),
    _exact("dataset_digest"),
    _count("position"),
    sa.UniqueConstraint("position"),
    sa.Index(None, "experiment", "key", "is_nan", "value", "model"),
    sa.Index(None, "run"),
    sqlite_with_rowid=False,
)
