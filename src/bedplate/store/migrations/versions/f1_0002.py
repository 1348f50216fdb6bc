"""Experiments, runs and metrics as MLflow's clients write them; workspaces. What was tracked before is kept.

Revision: f1_0002
Revises: f1_0001
"""

import json
import math
import uuid
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "f1_0002"
down_revision = "f1_0001"

EXACT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
ALLOTTED = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
HEAD_LENGTH = 350


def upgrade() -> None:
    """Make the new tables, and move what the old ones of the same names hold."""
    old = {name: _rows(name) for name in ("experiments", "runs", "metrics")}
    for name in ("metrics", "runs", "experiments"):
        op.drop_table(name)
    _make()
    now = datetime.now(UTC)
    written = f"{now.replace(tzinfo=None).isoformat(timespec='microseconds')}Z"
    _insert("workspaces", [{"name": "default", "description": "", "created": written}])
    _insert("experiments", [_experiment(0, "Default", int(now.timestamp() * 1000))])
    _move(old)


def _rows(table: str) -> list[dict[str, Any]]:
    found = op.get_bind().execute(sa.select(sa.text("*")).select_from(sa.table(table)))
    return [dict(row) for row in found.mappings()]


def _insert(table: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        op.bulk_insert(sa.table(table, *(sa.column(name) for name in rows[0])), rows)


def _experiment(number: int, name: str, now: int) -> dict[str, Any]:
    location = f"mlflow-artifacts:/{number}"
    return {
        "id": number, "workspace": "default", "name": name, "lifecycle": "active", "artifact_location": location,
        "created": now, "updated": now,
    }  # fmt: skip


def _move(old: dict[str, list[dict[str, Any]]]) -> None:
    """One experiment for each there was; runs get ids of the form that clients expect."""
    experiments = {row["id"]: number for number, row in enumerate(old["experiments"], 1)}
    _insert(
        "experiments",
        [_experiment(experiments[row["id"]], row["name"], _ms(row["created"])) for row in old["experiments"]],
    )
    runs = {row["id"]: (number, experiments[row["experiment"]], row) for number, row in enumerate(old["runs"], 1)}
    states = {"running": "RUNNING", "finished": "FINISHED", "failed": "FAILED"}
    moved: list[dict[str, Any]] = []
    params: list[dict[str, Any]] = []
    tags: list[dict[str, Any]] = []
    for key, experiment, row in runs.values():
        identifier, of_run = uuid.uuid4().hex, {"run": key, "experiment": experiment, "started": _ms(row["started"])}
        moved.append({
            "key": key, "id": identifier, "experiment": experiment, "name": row["name"], "user_id": "",
            "status": states[row["state"]], "started": of_run["started"], "ended": row["ended"] and _ms(row["ended"]),
            "lifecycle": "active", "deleted": None,
            "artifact_uri": f"mlflow-artifacts:/{experiment}/{identifier}/artifacts",
        })  # fmt: skip
        for name, value in json.loads(row["parameters"]).items():
            params.append({**of_run, "key": name, **_text(str(value)), "position": len(params) + 1})
        for name, value in {**json.loads(row["tags"]), "mlflow.runName": row["name"]}.items():
            tags.append({**of_run, "key": name, **_text(value)})
    metrics: list[dict[str, Any]] = []
    latest: dict[tuple[int, str], dict[str, Any]] = {}
    for position, row in enumerate(old["metrics"], len(params) + 1):
        key, experiment, run = runs[row["run"]]
        is_nan = row["value"] is None or math.isnan(row["value"])
        point = {
            "run": key, "key": row["name"], "timestamp": _ms(row["time"]), "step": row["step"],
            "value": 0.0 if is_nan else row["value"], "is_nan": is_nan,
        }  # fmt: skip
        metrics.append({**point, "position": position})
        if point["step"] >= latest.get((key, row["name"]), point)["step"]:
            latest[key, row["name"]] = {**point, "experiment": experiment, "started": _ms(run["started"])}
    for table, rows in (("runs", moved), ("params", params), ("tags", tags), ("metrics", metrics)):
        _insert(table, rows)
    _insert("latest_metrics", list(latest.values()))
    if op.get_bind().dialect.name == "postgresql":
        # The numbers above were given by hand: the next ones follow them.
        for table, column, last in (("experiments", "id", len(experiments)), ("runs", "key", len(runs))):
            if last:
                op.get_bind().execute(sa.select(sa.func.setval(sa.func.pg_get_serial_sequence(table, column), last)))


def _ms(written: str) -> int:
    return int(datetime.strptime(written, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC).timestamp() * 1000)


def _text(value: str) -> dict[str, str | None]:
    return {"value": value[:HEAD_LENGTH], "rest": value[HEAD_LENGTH:] or None}


def _make() -> None:
    op.create_table(
        "latest_metrics",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("timestamp", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("is_nan", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_latest_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_latest_metrics_experiment_key_is_nan_value_started_run"),
        "latest_metrics",
        ["experiment", "key", "is_nan", "value", sa.literal_column("started DESC"), "run"],
        unique=False,
    )
    op.create_table(
        "metrics",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("timestamp", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("value", sa.Double(), autoincrement=False, nullable=False),
        sa.Column("is_nan", sa.Boolean(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run", "key", "timestamp", "step", "value", "is_nan", name=op.f("pk_metrics")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "workspaces",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("created", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workspaces")),
    )
    op.create_table(
        "experiments",
        sa.Column("id", ALLOTTED, nullable=False),
        sa.Column("workspace", sa.Text(), nullable=False),
        sa.Column("name", EXACT, nullable=False),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("artifact_location", sa.Text(), nullable=False),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("updated", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["workspace"], ["workspaces.name"], name=op.f("fk_experiments_workspace")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
        sa.UniqueConstraint("workspace", "name", name=op.f("uq_experiments_workspace_name")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "experiment_tags",
        sa.Column("experiment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("value", EXACT, nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], name=op.f("fk_experiment_tags_experiment")),
        sa.PrimaryKeyConstraint("experiment", "key", name=op.f("pk_experiment_tags")),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "runs",
        sa.Column("key", ALLOTTED, nullable=False),
        sa.Column("id", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("name", EXACT, nullable=False),
        sa.Column("user_id", EXACT, nullable=False),
        sa.Column("status", EXACT, nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        sa.Column("lifecycle", sa.Text(), nullable=False),
        sa.Column("deleted", sa.BigInteger(), nullable=True),
        sa.Column("artifact_uri", EXACT, nullable=False),
        sa.ForeignKeyConstraint(["experiment"], ["experiments.id"], name=op.f("fk_runs_experiment")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_runs")),
        sa.UniqueConstraint("id", name=op.f("uq_runs_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_runs_experiment_lifecycle_ended_started_id"),
        "runs",
        ["experiment", "lifecycle", "ended", sa.literal_column("started DESC"), "id"],
        unique=False,
        postgresql_include=["key"],
    )
    op.create_index(
        op.f("ix_runs_experiment_lifecycle_started_id"),
        "runs",
        ["experiment", "lifecycle", sa.literal_column("started DESC"), "id"],
        unique=False,
        postgresql_include=["key"],
    )
    op.create_index(
        op.f("ix_runs_experiment_lifecycle_status_started_id"),
        "runs",
        ["experiment", "lifecycle", "status", sa.literal_column("started DESC"), "id"],
        unique=False,
        postgresql_include=["key"],
    )
    op.create_table(
        "params",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("value", EXACT, nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_params_run")),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_params")),
        sa.UniqueConstraint("position", name=op.f("uq_params_position")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_params_experiment_key_value_started_run"),
        "params",
        ["experiment", "key", "value", sa.literal_column("started DESC"), "run"],
        unique=False,
    )
    op.create_table(
        "tags",
        sa.Column("run", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("key", EXACT, nullable=False),
        sa.Column("experiment", sa.BigInteger(), nullable=False),
        sa.Column("started", sa.BigInteger(), nullable=False),
        sa.Column("value", EXACT, nullable=False),
        sa.Column("rest", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["run"], ["runs.key"], name=op.f("fk_tags_run")),
        sa.PrimaryKeyConstraint("run", "key", name=op.f("pk_tags")),
        sqlite_with_rowid=False,
    )
    op.create_index(
        op.f("ix_tags_experiment_key_value_started_run"),
        "tags",
        ["experiment", "key", "value", sa.literal_column("started DESC"), "run"],
        unique=False,
    )
