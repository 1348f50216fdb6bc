"""Logged models, what was logged of them, and which runs used and made them."""

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import is_storable
from bedplate.store.model_schema import (
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    model_inputs,
    model_outputs,
)
from bedplate.store.runs import Pairs, pairs, split
from bedplate.store.schema import experiments, runs
from bedplate.store.sql import Among, Repository, Row, Upsert, param, plain

UNSPECIFIED, PENDING, READY, UPLOAD_FAILED = range(4)
"""The states of a logged model, numbered as MLflow does."""

MODEL_COLUMNS = (
    logged_models.c.key,
    logged_models.c.id,
    logged_models.c.experiment,
    logged_models.c.name,
    logged_models.c.model_type,
    logged_models.c.source_run,
    logged_models.c.artifact_location,
    logged_models.c.status,
    logged_models.c.status_message,
    logged_models.c.lifecycle,
    logged_models.c.created,
    logged_models.c.updated,
)
"""The columns of a :class:`LoggedModelRow`, in its order."""

_model, _run, _now = param("model_"), param("run_"), param("now_")
_ADD = sa.insert(logged_models)
_GET = (
    sa.select(*MODEL_COLUMNS)
    .join(experiments, experiments.c.id == logged_models.c.experiment)
    .where(logged_models.c.id == param("id_"), experiments.c.workspace == param("workspace_"))
)
_ROWS = Among(sa.select(*MODEL_COLUMNS), logged_models.c.key)
_FINISH = sa.update(logged_models).where(logged_models.c.key == _model).values(status=param("status_"), updated=_now)
_MARK = (
    sa.update(logged_models).where(logged_models.c.key == _model).values(lifecycle=param("lifecycle_"), updated=_now)
)
_ADD_PARAMS = Upsert(logged_model_params)
_PARAMS = Among(
    sa.select(
        logged_model_params.c.model, logged_model_params.c.key, logged_model_params.c.value, logged_model_params.c.rest
    ).order_by(logged_model_params.c.key),
    logged_model_params.c.model,
)
_SET_TAGS = Upsert(logged_model_tags, update=("value", "rest"))
_TAGS = Among(
    sa.select(
        logged_model_tags.c.model, logged_model_tags.c.key, logged_model_tags.c.value, logged_model_tags.c.rest
    ).order_by(logged_model_tags.c.key),
    logged_model_tags.c.model,
)
_DELETE_TAG = sa.delete(logged_model_tags).where(
    logged_model_tags.c.model == _model, logged_model_tags.c.key == param("tag_")
)
_ADD_METRICS = Upsert(logged_model_metrics)
_METRICS = Among(
    sa.select(
        logged_model_metrics.c.model,
        logged_model_metrics.c.key,
        logged_model_metrics.c.value,
        logged_model_metrics.c.is_nan,
        logged_model_metrics.c.timestamp,
        logged_model_metrics.c.step,
        runs.c.id,
        logged_model_metrics.c.dataset_name,
        logged_model_metrics.c.dataset_digest,
    )
    .join(runs, runs.c.key == logged_model_metrics.c.run)
    .order_by(logged_model_metrics.c.position),
    logged_model_metrics.c.model,
)
_AT = Among(sa.select(logged_model_metrics.c.position), logged_model_metrics.c.position)
_start, _end = param("start_"), param("end_")
_METRICS_BETWEEN = (
    sa.select(
        logged_model_metrics.c.position,
        runs.c.id,
        logged_models.c.id,
        logged_model_metrics.c.key,
        logged_model_metrics.c.value,
        logged_model_metrics.c.is_nan,
        logged_model_metrics.c.timestamp,
        logged_model_metrics.c.step,
        logged_model_metrics.c.dataset_name,
        logged_model_metrics.c.dataset_digest,
    )
    .join(runs, runs.c.key == logged_model_metrics.c.run)
    .join(logged_models, logged_models.c.key == logged_model_metrics.c.model)
    .where(logged_model_metrics.c.position >= _start, logged_model_metrics.c.position < _end)
)
_ADD_INPUTS, _ADD_OUTPUTS = Upsert(model_inputs), Upsert(model_outputs)
_INPUTS = Among(sa.select(model_inputs.c.run, model_inputs.c.model).order_by(model_inputs.c.model), model_inputs.c.run)
_OUTPUTS = Among(
    sa.select(model_outputs.c.run, model_outputs.c.model, model_outputs.c.step).order_by(model_outputs.c.model),
    model_outputs.c.run,
)
_INPUTS_BETWEEN, _OUTPUTS_BETWEEN = (
    sa.select(table.c.position, runs.c.id, *columns)
    .join(runs, runs.c.key == table.c.run)
    .where(table.c.position >= _start, table.c.position < _end)
    for table, columns in (
        (model_inputs, (model_inputs.c.model,)),
        (model_outputs, (model_outputs.c.model, model_outputs.c.step)),
    )
)
_LAST = tuple(sa.select(sa.func.max(table.c.position)) for table in (logged_model_metrics, model_inputs, model_outputs))


class LoggedModelRow(msgspec.Struct, frozen=True):
    """One logged model. Times are milliseconds since 1970; ``key`` is what the tables use, ``id`` what clients know."""

    key: int
    id: str
    experiment: int
    name: str
    model_type: str
    source_run: str
    artifact_location: str
    status: int
    status_message: str | None
    lifecycle: Lifecycle
    created: int
    updated: int


class ModelPoint(NamedTuple):
    """One value to log. ``model``, ``model_id`` and ``experiment`` are the model's, ``run`` is the key of the run.

    ``position`` is the number of the value among all appends.
    """

    model: int
    model_id: str
    experiment: int
    run: int
    key: str
    value: float
    timestamp: int
    step: int
    dataset_name: str
    dataset_digest: str
    position: int


class ModelMetric(NamedTuple):
    """One logged value; ``run`` is the id of the run that logged it. Name and digest of no dataset are empty."""

    key: str
    value: float
    timestamp: int
    step: int
    run: str
    dataset_name: str
    dataset_digest: str


class LoggedModels(Repository):
    """``tx.logged_models``."""

    def add(
        self,
        model: str,
        experiment: int,
        *,
        name: str,
        model_type: str,
        source_run: str,
        artifact_location: str,
        now: int,
    ) -> LoggedModelRow:
        """Begin a model of this id in the experiment of this number."""
        row = LoggedModelRow(
            key=0,
            id=model,
            experiment=experiment,
            name=name,
            model_type=model_type,
            source_run=source_run,
            artifact_location=artifact_location,
            status=PENDING,
            status_message=None,
            lifecycle="active",
            created=now,
            updated=now,
        )
        named = {column.name: getattr(row, column.name) for column in MODEL_COLUMNS[1:]}
        key = self._execute(_ADD, **named).inserted_primary_key
        assert key is not None
        return msgspec.structs.replace(row, key=key[0])

    def find(self, workspace: str, model: str) -> LoggedModelRow | None:
        """The model of this id, deleted or not, if it is of this workspace."""
        if not is_storable(model):
            return None
        return _model_row(self._execute(_GET, id_=model, workspace_=workspace).first())

    def rows(self, keys: Sequence[int]) -> list[LoggedModelRow]:
        """The models of these keys, in their order."""
        found = {row[0]: LoggedModelRow(*row) for row in _ROWS.rows(self._connection, keys)}
        return [found[key] for key in keys if key in found]

    def finish(self, model: int, status: int, *, now: int) -> None:
        """Say how the upload of a model stands."""
        self._execute(_FINISH, model_=model, status_=status, now_=now)

    def mark(self, model: int, lifecycle: Lifecycle, *, now: int) -> None:
        """Delete or restore a model."""
        self._execute(_MARK, model_=model, lifecycle_=lifecycle, now_=now)

    def add_params(self, row: LoggedModelRow, values: Mapping[str, str]) -> int:
        """Log params; one that is there keeps its value. Returns how many were not there."""
        return _ADD_PARAMS.many(self._connection, _rows(row, values))

    def params(self, keys: Iterable[int]) -> Pairs:
        """The params of these models, by key."""
        return pairs(_PARAMS.rows(self._connection, keys))

    def set_tags(self, row: LoggedModelRow, values: Mapping[str, str]) -> None:
        """Set tags; one that is there gets the new value."""
        _SET_TAGS.many(self._connection, _rows(row, values))

    def tags(self, keys: Iterable[int]) -> Pairs:
        """The tags of these models, by key."""
        return pairs(_TAGS.rows(self._connection, keys))

    def delete_tag(self, model: int, key: str) -> bool:
        """Delete a tag; False if it is not there."""
        return self._execute(_DELETE_TAG, model_=model, tag_=key).rowcount == 1

    def log(self, points: Sequence[ModelPoint]) -> list[int]:
        """Log values. Returns the positions of those that equal one which is there already."""
        kept = _ADD_METRICS.many(self._connection, [_stored(point) for point in points])
        if kept == len(points):
            return []
        positions = [point.position for point in points]
        there = {row[0] for row in _AT.rows(self._connection, positions)}
        return [position for position in positions if position not in there]

    def metrics(self, keys: Iterable[int]) -> dict[int, list[ModelMetric]]:
        """What was logged of these models, in the order in which it was."""
        found: dict[int, list[ModelMetric]] = {}
        for model, key, value, is_nan, *rest in _METRICS.rows(self._connection, keys):
            found.setdefault(model, []).append(ModelMetric(key, math.nan if is_nan else value, *rest))
        return found

    # ------------------------------------------------------------------------------------------ which runs used them

    def add_input(self, run: int, model: str, position: int) -> None:
        """Say that a run used a model of which it is not said yet."""
        _ADD_INPUTS.many(self._connection, [(run, model, position)])

    def add_output(self, run: int, model: str, step: int, position: int) -> None:
        """Say that a run made a model of which it is not said yet."""
        _ADD_OUTPUTS.many(self._connection, [(run, model, step, position)])

    def inputs(self, runs: Iterable[int]) -> dict[int, list[str]]:
        """The ids of the models that each of the runs used, in their order; runs that used none are left out."""
        found: dict[int, list[str]] = {}
        for run, model in _INPUTS.rows(self._connection, runs):
            found.setdefault(run, []).append(model)
        return found

    def outputs(self, runs: Iterable[int]) -> dict[int, list[tuple[str, int]]]:
        """Id and step of the models that each of the runs made, by id; runs that made none are left out."""
        found: dict[int, list[tuple[str, int]]] = {}
        for run, model, step in _OUTPUTS.rows(self._connection, runs):
            found.setdefault(run, []).append((model, step))
        return found

    def metrics_between(self, start: int, end: int) -> list[tuple[int, str, str, str, float, int, int, str, str]]:
        """Values at these positions, in no order.

        Each is position, run id, model id, metric, value, timestamp, step, name and digest of the dataset.
        """
        found = plain(self._execute(_METRICS_BETWEEN, start_=start, end_=end))
        return [(*row[:4], math.nan if row[5] else row[4], *row[6:]) for row in found]

    def inputs_between(self, start: int, end: int) -> list[tuple[Any, ...]]:
        """Inputs at these positions, in no order: position, run id, model id."""
        return plain(self._execute(_INPUTS_BETWEEN, start_=start, end_=end))

    def outputs_between(self, start: int, end: int) -> list[tuple[Any, ...]]:
        """Outputs at these positions, in no order: position, run id, model id, step."""
        return plain(self._execute(_OUTPUTS_BETWEEN, start_=start, end_=end))

    def last_position(self) -> int:
        """The greatest position of a value, an input or an output; 0 if there is none."""
        return max(self._execute(statement).scalar() or 0 for statement in _LAST)


def _model_row(row: Row | None) -> LoggedModelRow | None:
    return None if row is None else LoggedModelRow(*tuple(row))


def _rows(row: LoggedModelRow, values: Mapping[str, str]) -> list[tuple[int, str, int, str, str | None]]:
    return [(row.key, key, row.experiment, *split(value)) for key, value in values.items()]


def _stored(point: ModelPoint) -> tuple[Any, ...]:
    model, _, experiment, run, key, value, timestamp, step, name, digest, position = point
    is_nan = value != value
    stored = 0.0 if is_nan else value
    mark = _mark(name, digest)
    return (model, key, timestamp, step, run, mark, stored, is_nan, experiment, name, digest, position)


def _mark(name: str, digest: str) -> str:
    """What stands for a dataset in the key of a value: as long for every dataset, and empty for none."""
    if not name:
        return ""
    return hashlib.sha256(f"{len(name)}:{name}{digest}".encode()).hexdigest()[:32]
