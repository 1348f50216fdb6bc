"""Deleting for good: what is old enough, what rests on it, and what is left in the place of rows that were chained.

A row that was appended extends a hash chain that the ledger vouches for. When it goes, its leaf stays at its position,
with the entry of the ledger that says who removed it: the chain still verifies, and nothing goes unseen.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from bedplate.store.experiments import EXPERIMENT_COLUMNS, ExperimentRow
from bedplate.store.logged_models import MODEL_COLUMNS, LoggedModelRow
from bedplate.store.model_schema import (
    dataset_input_tags,
    dataset_inputs,
    datasets,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    model_inputs,
    model_outputs,
)
from bedplate.store.registry_schema import model_versions
from bedplate.store.runs import RUN_COLUMNS, RunRow
from bedplate.store.schema import (
    erased_positions,
    experiment_tags,
    experiments,
    latest_metrics,
    metrics,
    params,
    runs,
    tags,
)
from bedplate.store.sql import Repository, Upsert, param, plain

_key, _before, _after = param("key_"), param("before_"), param("after_")
_PAGE = 500

_RUNS = (
    sa.select(experiments.c.workspace, *RUN_COLUMNS)
    .join(experiments, experiments.c.id == runs.c.experiment)
    .where(runs.c.lifecycle == "deleted", runs.c.deleted <= _before, runs.c.key > _after)
    .order_by(runs.c.key)
    .limit(_PAGE)
)
_EXPERIMENT_IS_DUE = sa.and_(experiments.c.lifecycle == "deleted", experiments.c.updated <= _before)
# A model goes with its experiment, although deleting that marks only its runs; that of a run which is still used stays.
_MODEL_IS_DUE = sa.or_(
    sa.and_(logged_models.c.lifecycle == "deleted", logged_models.c.updated <= _before),
    sa.and_(
        _EXPERIMENT_IS_DUE,
        ~sa.exists().where(runs.c.id == logged_models.c.source_run, runs.c.lifecycle == "active"),
    ),
)
_MODELS = (
    sa.select(experiments.c.workspace, *MODEL_COLUMNS)
    .join(experiments, experiments.c.id == logged_models.c.experiment)
    .where(_MODEL_IS_DUE, logged_models.c.key > _after)
    .order_by(logged_models.c.key)
    .limit(_PAGE)
)
_EXPERIMENTS = (
    sa.select(*EXPERIMENT_COLUMNS)
    .where(_EXPERIMENT_IS_DUE, experiments.c.id > _after)
    .order_by(experiments.c.id)
    .limit(_PAGE)
)
_STILL_RUN = sa.select(runs.c.key).where(runs.c.key == _key, runs.c.lifecycle == "deleted", runs.c.deleted <= _before)
_STILL_MODEL = (
    sa.select(logged_models.c.key)
    .join(experiments, experiments.c.id == logged_models.c.experiment)
    .where(logged_models.c.key == _key, _MODEL_IS_DUE)
)
_STILL_EXPERIMENT = sa.select(experiments.c.id).where(experiments.c.id == _key, _EXPERIMENT_IS_DUE)
_RUNS_OF = sa.select(runs.c.id).where(runs.c.experiment == _key)
_MODELS_OF = sa.select(logged_models.c.id).where(logged_models.c.experiment == _key)
_RESTING = (
    sa.select(model_versions.c.name, model_versions.c.number)
    .where(
        model_versions.c.workspace == param("workspace_"),
        sa.or_(
            model_versions.c.run == param("run_"),
            model_versions.c.folder == param("location_"),
            sa.and_(model_versions.c.folder >= param("start_"), model_versions.c.folder < param("end_")),
        ),
    )
    .order_by(model_versions.c.name, model_versions.c.number)
)

_OF_RUN = (metrics, params, dataset_inputs, model_inputs, model_outputs, logged_model_metrics)
_POSITIONS_OF_RUN = sa.union_all(*(sa.select(table.c.position).where(table.c.run == _key) for table in _OF_RUN))
_POSITIONS_OF_MODEL = sa.select(logged_model_metrics.c.position).where(logged_model_metrics.c.model == _key)
_POSITIONS_OF_EXPERIMENT = sa.select(datasets.c.position).where(datasets.c.experiment == _key)
_REMOVE_RUN = (
    *(
        sa.delete(table).where(table.c.run == _key)
        for table in (*_OF_RUN[:2], latest_metrics, tags, dataset_input_tags, *_OF_RUN[2:])
    ),
    sa.delete(runs).where(runs.c.key == _key),
)
_REMOVE_MODEL = (
    *(
        sa.delete(table).where(table.c.model == _key)
        for table in (logged_model_metrics, logged_model_params, logged_model_tags)
    ),
    sa.delete(logged_models).where(logged_models.c.key == _key),
)
_REMOVE_EXPERIMENT = (
    sa.delete(datasets).where(datasets.c.experiment == _key),
    sa.delete(experiment_tags).where(experiment_tags.c.experiment == _key),
    sa.delete(experiments).where(experiments.c.id == _key),
)

_BURY = Upsert(erased_positions)
_BETWEEN = sa.select(erased_positions.c.position, erased_positions.c.leaf).where(
    erased_positions.c.position >= param("start_"), erased_positions.c.position < param("end_")
)
_BY_ENTRY = sa.select(erased_positions).order_by(erased_positions.c.entry, erased_positions.c.position)
_LAST = sa.select(sa.func.max(erased_positions.c.position))


class Erased(NamedTuple):
    """A row that is gone: its position, its leaf, and the ledger's entry about its removal."""

    position: int
    leaf: bytes
    entry: int


class Erasure(Repository):
    """``tx.erasure``. A moment ``before`` is in milliseconds since 1970."""

    def runs(self, before: int) -> Iterator[tuple[str, RunRow]]:
        """Workspace and run, of every run that was deleted before."""
        after = 0
        while page := plain(self._execute(_RUNS, before_=before, after_=after)):
            for row in page:
                yield row[0], RunRow(*row[1:])
            after = page[-1][1]

    def models(self, before: int) -> Iterator[tuple[str, LoggedModelRow]]:
        """Workspace and model, of every logged model that was deleted before, by itself or with its experiment."""
        after = 0
        while page := plain(self._execute(_MODELS, before_=before, after_=after)):
            for row in page:
                yield row[0], LoggedModelRow(*row[1:])
            after = page[-1][1]

    def experiments(self, before: int) -> Iterator[ExperimentRow]:
        """Every experiment that was deleted before, but that of number 0, which is always there."""
        after = 0
        while page := plain(self._execute(_EXPERIMENTS, before_=before, after_=after)):
            for row in page:
                yield ExperimentRow(*row)
            after = page[-1][0]

    def run_is_due(self, run: int, before: int, *, lock: bool) -> bool:
        """Whether the run is still deleted since then; with ``lock`` it stays so until the commit."""
        return self._is_due(_STILL_RUN, run, before, lock=lock)

    def model_is_due(self, model: int, before: int, *, lock: bool) -> bool:
        """Whether model or experiment are still deleted since then; with ``lock`` it stays so until the commit."""
        return self._is_due(_STILL_MODEL, model, before, lock=lock)

    def experiment_is_due(self, experiment: int, before: int, *, lock: bool) -> bool:
        """Whether the experiment is still deleted since then; with ``lock`` it stays so until the commit."""
        return self._is_due(_STILL_EXPERIMENT, experiment, before, lock=lock)

    def _is_due(self, statement: sa.Select[Any], key: int, before: int, *, lock: bool) -> bool:
        asked = statement.with_for_update() if lock else statement
        return self._execute(asked, key_=key, before_=before).first() is not None

    def inhabitants(self, experiment: int) -> Iterator[tuple[Literal["run", "model"], str]]:
        """What is in an experiment, deleted or not: runs and logged models by their ids."""
        for row in self._execute(_RUNS_OF, key_=experiment):
            yield "run", row.id
        for row in self._execute(_MODELS_OF, key_=experiment):
            yield "model", row.id

    def resting(self, workspace: str, location: str, run: str | None = None) -> list[tuple[str, int]]:
        """Name and number of the registered versions whose files lie at or below a location, or that a run made."""
        # "0" follows "/" by code point, so this is all that begins with the location and a slash.
        below = {"start_": f"{location}/", "end_": f"{location}0"}
        values = {"workspace_": workspace, "run_": run, "location_": location, **below}
        return [(row.name, row.number) for row in self._execute(_RESTING, **values)]

    def positions_of_run(self, run: int) -> list[int]:
        """The positions of everything that was appended to a run, in order."""
        return sorted(self._execute(_POSITIONS_OF_RUN, key_=run).scalars())

    def positions_of_model(self, model: int) -> list[int]:
        """The positions of everything that was appended about a logged model, in order."""
        return sorted(self._execute(_POSITIONS_OF_MODEL, key_=model).scalars())

    def positions_of_experiment(self, experiment: int) -> list[int]:
        """The positions of the datasets of an experiment, in order."""
        return sorted(self._execute(_POSITIONS_OF_EXPERIMENT, key_=experiment).scalars())

    def remove_run(self, run: int) -> None:
        """Remove a run and all that was logged to it."""
        for statement in _REMOVE_RUN:
            self._execute(statement, key_=run)

    def remove_model(self, model: int) -> None:
        """Remove a logged model and all that was logged of it."""
        for statement in _REMOVE_MODEL:
            self._execute(statement, key_=model)

    def remove_experiment(self, experiment: int) -> None:
        """Remove an experiment in which there is nothing any more, and its datasets and tags."""
        for statement in _REMOVE_EXPERIMENT:
            self._execute(statement, key_=experiment)

    def bury(self, leaves: Mapping[int, bytes], entry: int) -> None:
        """Leave leaves at the positions of the rows that go, with the ledger's entry about that."""
        _BURY.many(self._connection, [(position, leaf, entry) for position, leaf in leaves.items()])

    def between(self, start: int, end: int) -> dict[int, bytes]:
        """The leaves that were left at these positions."""
        found = plain(self._execute(_BETWEEN, start_=start, end_=end))
        return {position: bytes(leaf) for position, leaf in found}

    def by_entry(self) -> Iterator[Erased]:
        """Every row that is gone, by entry and position."""
        for row in self._connection.execute(_BY_ENTRY.execution_options(yield_per=1000)):
            yield Erased(row.position, bytes(row.leaf), row.entry)

    def last_position(self) -> int:
        """The greatest position of a row that is gone; 0 if there is none."""
        return self._execute(_LAST).scalar() or 0
