"""Experiments, runs, and metrics: what tracking keeps."""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from bedplate import clock, ids
from bedplate.errors import NotFoundError
from bedplate.store.schema import experiments, metrics, runs
from bedplate.store.sql import Repository, Row, Upsert, dump, fields, param, parse

_id = param("id_")
_EXPERIMENT = sa.select(experiments).where(experiments.c.name == param("name_"))
_ADD_EXPERIMENT = sa.insert(experiments)
_START = sa.insert(runs)
_END = sa.update(runs).where(runs.c.id == _id).values(state=param("state_"), ended=param("ended_"))
_GET = sa.select(runs).where(runs.c.id == _id)
_LIST = (
    sa.select(runs)
    .where(runs.c.experiment == param("experiment_"))
    .order_by(runs.c.started.desc(), runs.c.id.desc())
    .limit(param("limit_"))
)
_LOG = Upsert(metrics, update=("value", "time"))
_METRICS = sa.select(metrics).where(metrics.c.run == _id).order_by(metrics.c.name, metrics.c.step)


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    """One tracked run."""

    id: str
    experiment: str
    name: str
    state: Literal["running", "finished", "failed"]
    parameters: dict[str, Any]
    tags: dict[str, str]
    started: str
    ended: str | None


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """One logged value."""

    name: str
    step: int
    value: float
    time: str


class Runs(Repository):
    """``tx.runs``."""

    def experiment(self, name: str) -> str:
        """The id of the experiment of this name, which is made if there is none."""
        row = self._execute(_EXPERIMENT, name_=name).first()
        if row is not None:
            return str(row.id)
        identifier = ids.new_id("exp")
        self._execute(_ADD_EXPERIMENT, id=identifier, name=name, created=clock.timestamp())
        return identifier

    def start(
        self, experiment: str, name: str, parameters: Mapping[str, Any], tags: Mapping[str, str] | None = None
    ) -> RunRow:
        """Begin a run in the experiment of this id; the run's id is made here."""
        row = RunRow(
            id=ids.new_id("run"),
            experiment=experiment,
            name=name,
            state="running",
            parameters=dict(parameters),
            tags=dict(tags or {}),
            started=clock.timestamp(),
            ended=None,
        )
        self._execute(
            _START, **{**msgspec.structs.asdict(row), "parameters": dump(row.parameters), "tags": dump(row.tags)}
        )
        return row

    def log(self, run: str, values: Iterable[tuple[str, int, float]]) -> None:
        """Log (name, step, value); the same name and step again replaces the value."""
        now = clock.timestamp()
        rows = [{"run": run, "name": name, "step": step, "value": value, "time": now} for name, step, value in values]
        if rows:
            self._connection.execute(_LOG.on(self._connection), rows)

    def end(self, run: str, state: Literal["finished", "failed"]) -> None:
        """Note how the run ended."""
        self._execute(_END, id_=run, state_=state, ended_=clock.timestamp())

    def get(self, run: str) -> RunRow:
        """The run of this id.

        Raises:
            NotFoundError: there is none.
        """
        row = self._execute(_GET, id_=run).first()
        if row is None:
            raise NotFoundError(f"no run {run}")
        return _run(row)

    def metrics(self, run: str) -> list[MetricRow]:
        """All logged values, by name and step."""
        return [
            MetricRow(name=row.name, step=row.step, value=row.value, time=row.time)
            for row in self._execute(_METRICS, id_=run)
        ]

    def list(self, experiment: str, limit: int = 100) -> list[RunRow]:
        """Runs of the experiment of this id, newest first."""
        return [_run(row) for row in self._execute(_LIST, experiment_=experiment, limit_=limit)]


def _run(row: Row) -> RunRow:
    return msgspec.convert({**fields(row), "parameters": parse(row.parameters), "tags": parse(row.tags)}, RunRow)
