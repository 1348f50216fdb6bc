"""The tables, one schema for SQLite and PostgreSQL.

Times are RFC 3339 text as :mod:`bedplate.clock` writes it, so they sort as text; digests and ids are text; values are
canonical JSON text. Both databases therefore hold, compare and give back the same bytes. In the tables of tracking,
which outside clients write, times are milliseconds since 1970, and text that is searched is compared by code point.
"""

from typing import Any

import sqlalchemy as sa

HEAD = "f1_0012"
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

rollouts = sa.Table(
    "rollouts",
    metadata,
    _key("id"),
    _text("endpoint"),
    _text("use_case"),
    _text("bundle"),
    _text("state"),
    sa.Column("step", sa.Integer, nullable=False),
    _text("stepped"),
    _text("plan"),
    _text("spec"),
    _text("before"),
    _text("evidence"),
    _text("outcomes"),
    _text("reason"),
    _text("by"),
    _text("created"),
    _text("updated"),
    sa.Index(None, "endpoint", "created"),
)

# What a principal, or each member of a group, may ask of an endpoint. `holder` is the id of the one, or the name of the
# other.
quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("holder", sa.Text, primary_key=True),
    sa.Column("rate", sa.Double, nullable=True),
    sa.Column("burst", sa.BigInteger, nullable=True),
    sa.Column("day", sa.BigInteger, nullable=True),
    sa.Column("month", sa.BigInteger, nullable=True),
    _text("by"),
    _text("created"),
)

# How much privacy each principal has spent for each purpose on the rows of a use case: the epsilon of what noise hid.
privacy = sa.Table(
    "privacy",
    metadata,
    sa.Column("use_case", sa.Text, primary_key=True),
    sa.Column("principal", sa.Text, primary_key=True),
    sa.Column("purpose", sa.Text, primary_key=True),
    sa.Column("spent", sa.Double, nullable=False),
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

# What users wrote beside the built-in policies, one Cedar policy a row, in the order in which they came.
policies = sa.Table(
    "policies",
    metadata,
    _key("id"),
    _text("text"),
    _text("digest"),
    _text("by"),
    _text("created"),
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("position"),
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

ALLOTTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""A number that SQLite takes for its own of the row, so that there is no index beside the table."""

ledger_entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("position", ALLOTTED, primary_key=True, autoincrement=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    _text("actor"),
    _text("action"),
    _text("resource"),
    sa.Index(None, "resource", "position"),
)

# Apart from the entries, which hold only salted hashes: a payload can be erased and the tree still verifies.
ledger_payloads = sa.Table(
    "ledger_payloads",
    metadata,
    sa.Column("position", ALLOTTED, sa.ForeignKey(ledger_entries.c.position), primary_key=True, autoincrement=False),
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

# Searched and ordered text: PostgreSQL compares it byte by byte too, whatever language the server is set to.
EXACT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

HEAD_LENGTH = 350
"""How many characters of a param or tag are searched through an index. One of as many or more has a rest beside them.

An index entry of PostgreSQL holds about 2,700 bytes, and a key alone may take 1,000.
"""


def _exact(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, EXACT, nullable=null)


def _count(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=null)


def _of_run() -> list[sa.Column[Any]]:
    # A value of a run that is searched holds its run's experiment and start as well: then one index finds it, and gives
    # the runs in their order, without a look at the run.
    return [
        sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key", EXACT, primary_key=True),
        _count("experiment"),
        _count("started"),
    ]


# A table with a column "workspace" holds things that belong to one: a workspace is empty when none of them does.
workspaces = sa.Table(
    "workspaces",
    metadata,
    _key("name"),
    _text("description"),
    _text("created"),
    sa.Column("shared", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("readers", sa.Text, nullable=False, server_default="[]"),
    sa.Column("writers", sa.Text, nullable=False, server_default="[]"),
)

experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("id", ALLOTTED, primary_key=True),
    sa.Column("workspace", sa.Text, sa.ForeignKey(workspaces.c.name), nullable=False),
    _exact("name"),
    _text("lifecycle"),
    _text("artifact_location"),
    _count("created"),
    _count("updated"),
    sa.UniqueConstraint("workspace", "name"),
    sqlite_autoincrement=True,  # the number of an experiment that is gone is not given to another
)

experiment_tags = sa.Table(
    "experiment_tags",
    metadata,
    sa.Column("experiment", sa.BigInteger, sa.ForeignKey(experiments.c.id), primary_key=True, autoincrement=False),
    sa.Column("key", EXACT, primary_key=True),
    _exact("value"),
    sqlite_with_rowid=False,
)

runs = sa.Table(
    "runs",
    metadata,
    # `key` is what other tables hold: a few bytes where the id that clients know takes thirty-two.
    sa.Column("key", ALLOTTED, primary_key=True),
    _exact("id"),
    sa.Column("experiment", sa.BigInteger, sa.ForeignKey(experiments.c.id), nullable=False),
    _exact("name"),
    _exact("user_id"),
    _exact("status"),
    _count("started"),
    _count("ended", null=True),
    _text("lifecycle"),
    _count("deleted", null=True),
    _exact("artifact_uri"),
    sa.UniqueConstraint("id"),
    sqlite_autoincrement=True,
)
# On PostgreSQL they hold the key as well, as on SQLite by nature; as their migration says: said here, every start would
# load its dialect.
sa.Index(None, runs.c.experiment, runs.c.lifecycle, runs.c.started.desc(), runs.c.id)
sa.Index(None, runs.c.experiment, runs.c.lifecycle, runs.c.status, runs.c.started.desc(), runs.c.id)
sa.Index(None, runs.c.experiment, runs.c.lifecycle, runs.c.name, runs.c.started.desc(), runs.c.id)
sa.Index(None, runs.c.experiment, runs.c.lifecycle, runs.c.ended, runs.c.started.desc(), runs.c.id)

params = sa.Table(
    "params",
    metadata,
    *_of_run(),
    _exact("value"),
    _text("rest", null=True),
    _count("position"),
    sa.UniqueConstraint("position"),
    sa.ForeignKeyConstraint(["run"], ["runs.key"]),
    sqlite_with_rowid=False,
)
sa.Index(None, params.c.experiment, params.c.key, params.c.value, params.c.started.desc(), params.c.run)

tags = sa.Table(
    "tags",
    metadata,
    *_of_run(),
    _exact("value"),
    _text("rest", null=True),
    sa.ForeignKeyConstraint(["run"], ["runs.key"]),
    sqlite_with_rowid=False,
)
sa.Index(None, tags.c.experiment, tags.c.key, tags.c.value, tags.c.started.desc(), tags.c.run)
for _table in (params, tags):
    # On PostgreSQL for those rows alone as well, as its migration says.
    sa.Index(f"ix_{_table.name}_long", _table.c.experiment, _table.c.key, sqlite_where=_table.c.rest.is_not(None))

# Every value that was logged. No foreign key: it is the table that is written most, always after a look at the run.
metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", EXACT, primary_key=True),
    sa.Column("timestamp", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("step", sa.BigInteger, primary_key=True, autoincrement=False),
    # SQLite takes NaN for NULL, so it is 0 with a mark; the infinities are values like others.
    sa.Column("value", sa.Double, primary_key=True, autoincrement=False),
    sa.Column("is_nan", sa.Boolean, primary_key=True, autoincrement=False),
    # Not indexed, unlike that of other rows: it would be one more page in every commit. Verifying sorts, once.
    _count("position"),
    sqlite_with_rowid=False,
)

# The value of each metric that has the greatest step, then time, then value: what a run shows and search looks at.
latest_metrics = sa.Table(
    "latest_metrics",
    metadata,
    *_of_run(),
    _count("step"),
    _count("timestamp"),
    sa.Column("value", sa.Double, nullable=False),
    sa.Column("is_nan", sa.Boolean, nullable=False),
    sqlite_with_rowid=False,
)
sa.Index(
    None,
    latest_metrics.c.experiment,
    latest_metrics.c.key,
    latest_metrics.c.is_nan,
    latest_metrics.c.value,
    latest_metrics.c.started.desc(),
    latest_metrics.c.run,
)

# What runs log is audited by segment: how many rows were appended, and the end of the hash chain over them.
append_segments = sa.Table(
    "append_segments",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    _count("first"),
    _count("next"),
    _count("rows"),
    sa.Column("head", sa.LargeBinary, nullable=False),
    _text("actors"),
    _count("opened"),
    _count("sealed", null=True),
    _count("entry", null=True),
)

# What is left of appended rows that were deleted for good: the leaf that the chain has at their position, and the entry
# of the ledger that vouches for the removal.
erased_positions = sa.Table(
    "erased_positions",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("leaf", sa.LargeBinary, nullable=False),
    _count("entry"),
    sa.Index(None, "entry", "position"),
    sqlite_with_rowid=False,
)

# ----------------------------------------------------------------------------------------------------------- artifacts

# Names of what lies in `blobs`; no name is ever a path of a file system. `folder` is empty or ends in a slash, so one
# level of a folder and all that is below it are ranges of the key. A folder is a row without a digest, so that no name
# can be a file and a folder; it is there as long as something is in it.
artifacts = sa.Table(
    "artifacts",
    metadata,
    sa.Column("workspace", EXACT, sa.ForeignKey(workspaces.c.name), primary_key=True),
    sa.Column("folder", EXACT, primary_key=True),
    sa.Column("name", EXACT, primary_key=True),
    _text("digest", null=True),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Column("created", sa.BigInteger, nullable=False),
    _text("by"),
    sa.Index(None, "digest"),
)

# An upload in parts. `digest` is what it became, `receipt` the digest of the list of parts that it was made of: the row
# stays for a while, so that completing it twice in the same way is no error.
uploads = sa.Table(
    "uploads",
    metadata,
    _key("id"),
    sa.Column("workspace", sa.Text, sa.ForeignKey(workspaces.c.name), nullable=False),
    _text("path"),
    _text("by"),
    sa.Column("created", sa.BigInteger, nullable=False),
    sa.Column("touched", sa.BigInteger, nullable=False),
    _text("digest", null=True),
    _text("receipt", null=True),
    sa.Index(None, "touched"),
)

upload_parts = sa.Table(
    "upload_parts",
    metadata,
    sa.Column("upload", sa.Text, sa.ForeignKey(uploads.c.id, ondelete="CASCADE"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    _text("digest"),
    sa.Column("size", sa.BigInteger, nullable=False),
    sa.Index(None, "digest"),
)

# Content that nothing named any more, and since when. It may be removed once that is long enough ago; naming it again
# takes the row away.
condemned = sa.Table(
    "condemned",
    metadata,
    _key("digest"),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index(None, "since"),
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
