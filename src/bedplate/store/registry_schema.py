"""The tables of the registry: models and their versions, those of use cases and those that clients log, in one place.

Rows are changed and removed; what they were stands in ``version_history``. Times are milliseconds since 1970, as
clients of MLflow set and show them.
"""

import sqlalchemy as sa

from bedplate.store.schema import EXACT, metadata


def _exact(name: str) -> sa.Column[str]:
    return sa.Column(name, EXACT, nullable=True)


def _milliseconds(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _named(name: str) -> sa.Column[str]:
    """Part of a key that lists are ordered by: by code point, on both databases."""
    return sa.Column(name, EXACT, primary_key=True)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _of(table: str, *key: str) -> sa.ForeignKeyConstraint:
    """Follows the row that it belongs to: renamed with it, removed with it."""
    return sa.ForeignKeyConstraint(key, [f"{table}.{name}" for name in key], onupdate="CASCADE", ondelete="CASCADE")


_MODEL, _VERSION = ("workspace", "name"), ("workspace", "name", "number")

registered_models = sa.Table(
    "registered_models",
    metadata,
    _named("workspace"),
    _named("name"),
    # Stays with the model when it is renamed: what its history hangs on.
    _text("id"),
    _text("description", null=True),
    _milliseconds("created"),
    _milliseconds("updated"),
    sa.UniqueConstraint("id"),
    sa.Index(None, "workspace", "updated", "name"),
)

registered_model_tags = sa.Table(
    "registered_model_tags",
    metadata,
    _named("workspace"),
    _named("name"),
    _key("key"),
    _text("value"),
    _of("registered_models", *_MODEL),
    sa.Index(None, "workspace", "key", "name"),
)

model_versions = sa.Table(
    "model_versions",
    metadata,
    _named("workspace"),
    _named("name"),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _text("stage"),
    _text("status"),
    _text("status_message", null=True),
    _text("description", null=True),
    # Of a version that the flow made: the fact it was made from, and its bundle once it is packaged.
    _text("fact", null=True),
    _text("bundle", null=True),
    # Of a version that a client registered: where it says its files are, what it gets them from, and where they lie.
    _exact("source"),
    _text("location", null=True),
    _exact("folder"),
    _exact("run"),
    _text("run_link", null=True),
    _text("logged_model", null=True),
    _text("creator"),
    # What was found in its files (JSON), their digest, and what they were converted to.
    _text("findings", null=True),
    _text("content", null=True),
    _text("onnx", null=True),
    _text("evidence", null=True),
    _milliseconds("created"),
    _milliseconds("updated"),
    _of("registered_models", *_MODEL),
    sa.UniqueConstraint("workspace", "name", "fact"),
    sa.Index(None, "workspace", "updated", "name", "number"),
    sa.Index(None, "workspace", "created", "name", "number"),
    sa.Index(None, "workspace", "run"),
    sa.Index(None, "workspace", "source"),
    sa.Index(None, "workspace", "folder"),
    sa.Index(None, "workspace", "name", "stage", "number"),
)

model_version_tags = sa.Table(
    "model_version_tags",
    metadata,
    _named("workspace"),
    _named("name"),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _key("key"),
    _text("value"),
    _of("model_versions", *_VERSION),
    sa.Index(None, "workspace", "key", "name", "number"),
)

model_aliases = sa.Table(
    "model_aliases",
    metadata,
    _named("workspace"),
    _named("name"),
    _key("alias"),
    sa.Column("number", sa.Integer, nullable=False),
    _of("model_versions", *_VERSION),
    sa.Index(None, "workspace", "name", "number"),
)

# Only ever added to: triggers of the database refuse to change or remove a row, and a number that does not follow the
# last one (f1_0003 makes them). Each row stands in the payload of the ledger entry that it names as well.
version_history = sa.Table(
    "version_history",
    metadata,
    sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("workspace"),
    _text("name"),
    _text("model"),
    sa.Column("number", sa.Integer, nullable=True),
    _text("kind"),
    _text("value"),
    _text("before"),
    _text("after"),
    _text("by"),
    _milliseconds("time"),
    # None for what was carried over from before there was a history.
    sa.Column("entry", sa.BigInteger, nullable=True),
    sa.Index(None, "model", "seq"),
    sa.Index(None, "model", "kind", "seq"),
    sa.Index(None, "model", "number", "seq"),
    sa.Index(None, "workspace", "name", "number"),
    sa.Index(None, "entry"),
)
