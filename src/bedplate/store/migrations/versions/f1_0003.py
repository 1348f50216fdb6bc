"""The registry: models, versions, tags, aliases, and a history that only grows. Versions of use cases move into it.

Revision: f1_0003
"""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

from bedplate import ids

revision = "f1_0003"
down_revision = "f1_0002"

_NAMED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_VERSIONS = sa.table("versions", *(sa.column(name) for name in ("use_case", "number", "source", "bundle", "created")))

# `INSERT OR REPLACE` removes a row without asking a trigger about it, so a row may only follow the last one.
_SQLITE = (
    """CREATE TRIGGER version_history_follows BEFORE INSERT ON version_history
    WHEN NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM version_history)
    BEGIN SELECT RAISE(ABORT, 'the history of versions only grows at its end'); END""",
    """CREATE TRIGGER version_history_stays BEFORE DELETE ON version_history
    BEGIN SELECT RAISE(ABORT, 'the history of versions is never removed'); END""",
    """CREATE TRIGGER version_history_as_it_was BEFORE UPDATE ON version_history
    BEGIN SELECT RAISE(ABORT, 'the history of versions is never changed'); END""",
)
_POSTGRESQL = (
    """CREATE FUNCTION version_history_final() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'INSERT' THEN
            IF NEW.seq <> (SELECT coalesce(max(seq), 0) + 1 FROM version_history) THEN
                RAISE EXCEPTION 'the history of versions only grows at its end' USING ERRCODE = '23000';
            END IF;
            RETURN NEW;
        END IF;
        RAISE EXCEPTION 'the history of versions is never changed' USING ERRCODE = '23000';
    END $$""",
    """CREATE TRIGGER version_history_rows BEFORE INSERT OR UPDATE OR DELETE ON version_history
    FOR EACH ROW EXECUTE FUNCTION version_history_final()""",
    """CREATE TRIGGER version_history_whole BEFORE TRUNCATE ON version_history
    FOR EACH STATEMENT EXECUTE FUNCTION version_history_final()""",
)


def upgrade() -> None:
    """Make the tables of the registry, guard the history, and carry the versions of use cases over."""
    _make()
    for statement in _POSTGRESQL if op.get_bind().dialect.name == "postgresql" else _SQLITE:
        op.execute(sa.text(statement))
    _carry_over()
    op.drop_table("versions")


def _key(*extra: sa.Column[int] | sa.Column[str]) -> tuple[sa.Column[int] | sa.Column[str], ...]:
    return (sa.Column("workspace", _NAMED, nullable=False), sa.Column("name", _NAMED, nullable=False), *extra)


def _text(name: str, *, null: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=null)


def _big(name: str, *, null: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), nullable=null)


def _number() -> sa.Column[int]:
    return sa.Column("number", sa.Integer(), autoincrement=False, nullable=False)


def _of(child: str, parent: str, *columns: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        columns,
        [f"{parent}.{column}" for column in columns],
        name=op.f(f"fk_{child}_workspace"),
        onupdate="CASCADE",
        ondelete="CASCADE",
    )


def _index(table: str, *columns: str) -> None:
    op.create_index(op.f(f"ix_{table}_{'_'.join(columns)}"), table, list(columns), unique=False)


def _make() -> None:
    op.create_table(
        "registered_models",
        *_key(_text("id"), _text("description", null=True), _big("created"), _big("updated")),
        sa.PrimaryKeyConstraint("workspace", "name", name=op.f("pk_registered_models")),
        sa.UniqueConstraint("id", name=op.f("uq_registered_models_id")),
    )
    _index("registered_models", "workspace", "updated", "name")
    op.create_table(
        "registered_model_tags",
        *_key(_text("key"), _text("value")),
        sa.PrimaryKeyConstraint("workspace", "name", "key", name=op.f("pk_registered_model_tags")),
        _of("registered_model_tags", "registered_models", "workspace", "name"),
    )
    _index("registered_model_tags", "workspace", "key", "name")
    optional: tuple[str, ...] = ("status_message", "description", "fact", "bundle", "location", "run_link")
    optional += ("logged_model", "findings", "content", "onnx", "evidence")
    op.create_table(
        "model_versions",
        *_key(_number(), *(_text(name) for name in ("stage", "status", "creator"))),
        *(_text(name, null=True) for name in optional),
        *(sa.Column(name, _NAMED, nullable=True) for name in ("source", "folder", "run")),
        _big("created"),
        _big("updated"),
        sa.PrimaryKeyConstraint("workspace", "name", "number", name=op.f("pk_model_versions")),
        sa.UniqueConstraint("workspace", "name", "fact", name=op.f("uq_model_versions_workspace_name_fact")),
        _of("model_versions", "registered_models", "workspace", "name"),
    )
    for columns in (("updated", "name", "number"), ("created", "name", "number"), ("run",), ("source",), ("folder",)):
        _index("model_versions", "workspace", *columns)
    _index("model_versions", "workspace", "name", "stage", "number")
    op.create_table(
        "model_version_tags",
        *_key(_number(), _text("key"), _text("value")),
        sa.PrimaryKeyConstraint("workspace", "name", "number", "key", name=op.f("pk_model_version_tags")),
        _of("model_version_tags", "model_versions", "workspace", "name", "number"),
    )
    _index("model_version_tags", "workspace", "key", "name", "number")
    op.create_table(
        "model_aliases",
        *_key(_text("alias"), sa.Column("number", sa.Integer(), nullable=False)),
        sa.PrimaryKeyConstraint("workspace", "name", "alias", name=op.f("pk_model_aliases")),
        _of("model_aliases", "model_versions", "workspace", "name", "number"),
    )
    _index("model_aliases", "workspace", "name", "number")
    op.create_table(
        "version_history",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        *(_text(name) for name in ("workspace", "name", "model")),
        sa.Column("number", sa.Integer(), nullable=True),
        *(_text(name) for name in ("kind", "value", "before", "after", "by")),
        _big("time"),
        _big("entry", null=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_version_history")),
    )
    _index("version_history", "model", "seq")
    _index("version_history", "model", "kind", "seq")
    _index("version_history", "model", "number", "seq")
    _index("version_history", "workspace", "name", "number")
    _index("version_history", "entry")


def _carry_over() -> None:
    """A model for each use case that has versions. Their history begins with what the old table knew."""
    connection = op.get_bind()
    tables = sa.MetaData()
    tables.reflect(connection, only=["registered_models", "model_versions", "version_history"])
    models, versions, history = (
        tables.tables[name] for name in ("registered_models", "model_versions", "version_history")
    )
    seq = 0
    known: dict[str, str] = {}

    def remember(name: str, time: int, **row: object) -> None:
        nonlocal seq
        seq += 1
        values = {"number": None, "value": "", "before": "", "after": "", "by": "flow", "entry": None, **row}
        connection.execute(
            sa.insert(history),
            {"seq": seq, "workspace": "default", "name": name, "model": known[name], "time": time, **values},
        )

    for row in connection.execute(sa.select(_VERSIONS).order_by("use_case", "number")).all():
        time = _milliseconds(row.created)
        at = {"workspace": "default", "name": row.use_case, "created": time, "updated": time}
        if row.use_case not in known:
            known[row.use_case] = ids.new_id("mdl")
            connection.execute(sa.insert(models), {**at, "id": known[row.use_case]})
            remember(row.use_case, time, kind="model-created", after=row.use_case)
        connection.execute(
            sa.insert(versions),
            {
                **at,
                "number": row.number,
                "stage": "None",
                "status": "READY" if row.bundle else "PENDING_REGISTRATION",
                "creator": "flow",
                "fact": row.source,
                "bundle": row.bundle,
            },
        )
        remember(row.use_case, time, kind="created", number=row.number, value=row.source, after="None")
        if row.bundle:
            remember(row.use_case, time, kind="bundle", number=row.number, value=row.bundle)


def _milliseconds(written: str) -> int:
    moment = datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
