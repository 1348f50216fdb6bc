"""The tables, one schema for SQLite and PostgreSQL.

Times are RFC 3339 text as :mod:`bedplate.clock` writes it, so they sort as text; digests and ids are text; values are
canonical JSON text. Both databases therefore hold, compare and give back the same bytes.
"""

import sqlalchemy as sa

HEAD = "f1_0003"
"""The newest migration. Its first part is the record format of a home, :data:`bedplate.settings.FORMAT`."""

# Named constraints, so that a later migration can alter them on both databases.
metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=null)


def _key(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text, primary_key=True)


# -------------------------------------------------------------------------------------------------- evidence and work

facts = sa.Table(
    "facts",
    metadata,
    _key("digest"),
    _text("kind"),
    _text("use_case"),
    _text("body"),
    _text("created"),
    # Counts up per use case and kind each time the fact is put, so `latest` is the one put last, not the one made last.
    sa.Column("put", sa.BigInteger, nullable=False),
    sa.Index(None, "use_case", "kind", "put"),
)

fact_parents = sa.Table(
    "fact_parents",
    metadata,
    sa.Column("child", sa.Text, sa.ForeignKey(facts.c.digest), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent", sa.Text, sa.ForeignKey(facts.c.digest), nullable=False),
    sa.Index(None, "parent"),
)

stages = sa.Table(
    "stages",
    metadata,
    _key("use_case"),
    _key("stage"),
    _key("input_digest"),
    _text("inputs"),
    sa.Column("output", sa.Text, sa.ForeignKey(facts.c.digest), nullable=False),
    sa.Column("seconds", sa.Float, nullable=False),
    _text("finished"),
    sa.Column("put", sa.BigInteger, nullable=False),
    sa.Index(None, "use_case", "stage", "put"),
)

use_cases = sa.Table(
    "use_cases",
    metadata,
    _key("name"),
    _text("folder"),
    _text("file"),
    _text("file_digest"),
    _text("objective"),
    _text("created"),
    _text("updated"),
)

executions = sa.Table(
    "executions",
    metadata,
    _key("id"),
    _text("use_case"),
    _text("actor"),
    _text("state"),
    _text("stage"),
    _text("message"),
    _text("started"),
    _text("ended", null=True),
    sa.Index(None, "use_case", "started"),
)

# ------------------------------------------------------------------------------------------------------------ releases

# The registry: models and their versions, those of use cases and those that clients log, in one place. Rows are changed
# and removed; what they were stands in `version_history`. Times here are milliseconds since 1970, as MLflow's clients
# set and show them.


def _milliseconds(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _named(name: str) -> sa.Column[str]:
    """Part of a key that lists are ordered by: by code point, on both databases."""
    return sa.Column(name, sa.Text().with_variant(sa.Text(collation="C"), "postgresql"), primary_key=True)


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
    # Of a version that a client registered: where it says its files are, and where they lie.
    _text("source", null=True),
    _text("location", null=True),
    _text("run", null=True),
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
    sa.Index(None, "model", "kind", "seq"),
    sa.Index(None, "workspace", "name", "number"),
    sa.Index(None, "entry"),
)

approvals = sa.Table(
    "approvals",
    metadata,
    _key("id"),
    _text("use_case"),
    _text("bundle"),
    _text("environment"),
    _text("state"),
    _text("by"),
    _text("reason"),
    _text("policies"),
    _text("created"),
    sa.Index(None, "use_case", "bundle", "environment"),
)

waivers = sa.Table(
    "waivers",
    metadata,
    _key("id"),
    _text("use_case"),
    _text("gate"),
    _text("environment"),
    _text("by"),
    _text("reason"),
    _text("created"),
    _text("withdrawn", null=True),
    sa.Index(None, "use_case"),
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    _key("name"),
    _text("use_case"),
    _text("bundle"),
    sa.Column("revision", sa.Integer, nullable=False),
    _text("state"),
    _text("spec"),
    _text("updated"),
    sa.Index(None, "use_case"),
)

# ------------------------------------------------------------------------------------------------------------ identity

principals = sa.Table(
    "principals",
    metadata,
    _key("id"),
    _text("kind"),
    _text("name"),
    _text("groups"),
    _text("created"),
    _text("disabled", null=True),
    sa.UniqueConstraint("name"),
)

keys = sa.Table(
    "keys",
    metadata,
    _key("id"),
    sa.Column("principal", sa.Text, sa.ForeignKey(principals.c.id), nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    _text("label"),
    _text("created"),
    _text("expires", null=True),
    _text("revoked", null=True),
    sa.Index(None, "principal"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    _key("id"),
    sa.Column("principal", sa.Text, sa.ForeignKey(principals.c.id), nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    _text("created"),
    _text("expires"),
    _text("revoked", null=True),
    sa.Index(None, "principal"),
)

links = sa.Table(
    "links",
    metadata,
    _key("id"),
    sa.Column("principal", sa.Text, sa.ForeignKey(principals.c.id), nullable=False),
    sa.Column("secret_hash", sa.LargeBinary, nullable=False),
    _text("created"),
    _text("expires"),
    _text("used", null=True),
    sa.Index(None, "principal"),
)

# -------------------------------------------------------------------------------------------------------------- ledger

ledger_head = sa.Table(
    "ledger_head",
    metadata,
    # One row, id 0: its lock orders the writers on PostgreSQL.
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("frontier", sa.LargeBinary, nullable=False),
)

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    _text("actor"),
    _text("action"),
    _text("resource"),
    sa.Index(None, "resource", "position"),
    sa.Index(None, "actor", "position"),
)

# Apart from the entries, which hold only salted hashes: a payload can be erased and the tree still verifies.
ledger_payloads = sa.Table(
    "ledger_payloads",
    metadata,
    sa.Column(
        "position", sa.BigInteger, sa.ForeignKey(ledger_entries.c.position), primary_key=True, autoincrement=False
    ),
    sa.Column("salt", sa.LargeBinary, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
)

ledger_checkpoints = sa.Table(
    "ledger_checkpoints",
    metadata,
    sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
    _text("note"),
    _text("created"),
)

# ------------------------------------------------------------------------------------------------------------ tracking

experiments = sa.Table(
    "experiments", metadata, _key("id"), _text("name"), _text("created"), sa.UniqueConstraint("name")
)

runs = sa.Table(
    "runs",
    metadata,
    _key("id"),
    sa.Column("experiment", sa.Text, sa.ForeignKey(experiments.c.id), nullable=False),
    _text("name"),
    _text("state"),
    _text("parameters"),
    _text("tags"),
    _text("started"),
    _text("ended", null=True),
    sa.Index(None, "experiment", "started"),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run", sa.Text, sa.ForeignKey(runs.c.id), primary_key=True),
    _key("name"),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("value", sa.Float, nullable=False),
    _text("time"),
)

# The lease of the one owner process, on PostgreSQL where no file lock reaches every machine.
leases = sa.Table(
    "leases",
    metadata,
    _key("name"),
    _text("holder"),
    _text("executor"),
    sa.Column("token", sa.BigInteger, nullable=False),
    sa.Column("expires", sa.Float, nullable=False),
)
