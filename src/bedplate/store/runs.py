"""Runs, their params and their tags."""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from bedplate.errors import NotFoundError
from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import is_storable
from bedplate.store.schema import HEAD_LENGTH, experiments, params, runs, tags
from bedplate.store.sql import Among, Direct, Repository, Upsert, param

RunStatus = Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"]

RUN_COLUMNS = (
    runs.c.key,
    runs.c.id,
    runs.c.experiment,
    runs.c.name,
    runs.c.user_id,
    runs.c.status,
    runs.c.started,
    runs.c.ended,
    runs.c.lifecycle,
    runs.c.artifact_uri,
)
"""The columns of a :class:`RunRow`, in its order."""

_key, _experiment = param("key_"), param("experiment_")
_ADD = Direct(
    sa.insert(runs)
    .values(
        id=param("id_"),
        experiment=_experiment,
        name=param("name_"),
        user_id=param("user_"),
        status="RUNNING",
        started=param("started_"),
        lifecycle="active",
        artifact_uri=param("artifacts_"),
    )
    .returning(runs.c.key)
)
_GET = Direct(
    sa.select(*RUN_COLUMNS)
    .join(experiments, experiments.c.id == runs.c.experiment)
    .where(runs.c.id == param("id_"), experiments.c.workspace == param("workspace_"))
)
_IDS = Among(sa.select(*RUN_COLUMNS), runs.c.key)
_UPDATE = (
    sa.update(runs)
    .where(runs.c.key == _key)
    .values(name=param("name_"), status=param("status_"), ended=param("ended_"))
)
_lifecycle = {"lifecycle": param("lifecycle_"), "deleted": param("deleted_")}
_MARK = sa.update(runs).where(runs.c.key == _key).values(**_lifecycle)
_MARK_ALL = sa.update(runs).where(runs.c.experiment == _experiment).values(**_lifecycle)
_ADD_PARAMS = Upsert(params)
_PARAMS = Among(sa.select(params.c.run, params.c.key, params.c.value, params.c.rest), params.c.run)
_SET_TAGS = Upsert(tags, update=("value", "rest"))
_TAGS = Among(sa.select(tags.c.run, tags.c.key, tags.c.value, tags.c.rest), tags.c.run)
_DELETE_TAG = sa.delete(tags).where(tags.c.run == _key, tags.c.key == param("tag_"))
_PARAMS_BETWEEN = (
    sa.select(params.c.position, runs.c.id, params.c.key, params.c.value, params.c.rest)
    .join(runs, runs.c.key == params.c.run)
    .where(params.c.position >= param("start_"), params.c.position < param("end_"))
)
_LAST_PARAM = sa.select(sa.func.max(params.c.position))

Pairs = dict[int, list[tuple[str, str]]]
"""For each run that has some, by its key: names and values."""


class RunRow(msgspec.Struct, frozen=True):
    """One run. Times are milliseconds since 1970; ``key`` is what the tables use, ``id`` what clients know."""

    key: int
    id: str
    experiment: int
    name: str
    user_id: str
    status: RunStatus
    started: int
    ended: int | None
    lifecycle: Lifecycle
    artifact_uri: str


class Runs(Repository):
    """``tx.runs``."""

    def add(self, run: str, experiment: int, *, name: str, user_id: str, started: int, artifact_uri: str) -> RunRow:
        """Begin a run of this id in the experiment of this number."""
        named = {"id_": run, "experiment_": experiment, "name_": name, "user_": user_id}
        added = _ADD.first(self._connection, **named, started_=started, artifacts_=artifact_uri)
        assert added is not None
        return RunRow(added[0], run, experiment, name, user_id, "RUNNING", started, None, "active", artifact_uri)

    def find(self, workspace: str, run: str) -> RunRow | None:
        """The run of this id, if it is of this workspace."""
        if not is_storable(run):
            return None
        row = _GET.first(self._connection, id_=run, workspace_=workspace)
        return None if row is None else RunRow(*row)

    def get(self, workspace: str, run: str) -> RunRow:
        """The run of this id.

        Raises:
            NotFoundError: the workspace has none.
        """
        row = self.find(workspace, run)
        if row is None:
            raise NotFoundError(f"there is no run {run}")
        return row

    def rows(self, keys: Sequence[int]) -> list[RunRow]:
        """The runs of these keys, in their order."""
        found = {row[0]: RunRow(*row) for row in _IDS.rows(self._connection, keys)}
        return [found[key] for key in keys if key in found]

    def update(self, run: int, *, name: str, status: RunStatus, ended: int | None) -> None:
        """Change what may change of a run."""
        self._execute(_UPDATE, key_=run, name_=name, status_=status, ended_=ended)

    def mark(self, run: int, lifecycle: Lifecycle, *, deleted: int | None) -> None:
        """Delete or restore a run."""
        self._execute(_MARK, key_=run, lifecycle_=lifecycle, deleted_=deleted)

    def mark_all(self, experiment: int, lifecycle: Lifecycle, *, deleted: int | None) -> int:
        """Delete or restore all runs of an experiment, and return how many they are."""
        found = self._execute(_MARK_ALL, experiment_=experiment, lifecycle_=lifecycle, deleted_=deleted)
        return found.rowcount

    def add_params(self, run: RunRow, values: Iterable[tuple[str, str, int]]) -> None:
        """Log (key, value, position). A key that is there keeps its value: look first where that matters."""
        rows = [(run.key, key, run.experiment, run.started, *split(value), position) for key, value, position in values]
        _ADD_PARAMS.many(self._connection, rows)

    def params(self, keys: Iterable[int]) -> Pairs:
        """The params of these runs."""
        return pairs(_PARAMS.rows(self._connection, keys))

    def params_between(self, start: int, end: int) -> list[tuple[int, str, str, str]]:
        """Params at these positions, in no order: position, run id, name, value."""
        found = self._execute(_PARAMS_BETWEEN, start_=start, end_=end)
        return [(row.position, row.id, row.key, row.value + (row.rest or "")) for row in found]

    def last_position(self) -> int:
        """The greatest position of a param; 0 if there is none."""
        return self._execute(_LAST_PARAM).scalar() or 0

    def set_tags(self, run: RunRow, values: Iterable[tuple[str, str]]) -> None:
        """Set tags; one that is there gets the new value."""
        rows = [(run.key, key, run.experiment, run.started, *split(value)) for key, value in values]
        _SET_TAGS.many(self._connection, rows)

    def tags(self, keys: Iterable[int]) -> Pairs:
        """The tags of these runs."""
        return pairs(_TAGS.rows(self._connection, keys))

    def delete_tag(self, run: int, key: str) -> bool:
        """Delete a tag; False if it is not there."""
        return self._execute(_DELETE_TAG, key_=run, tag_=key).rowcount == 1


def split(value: str) -> tuple[str, str | None]:
    """A text as tables hold it: the part that is searched, and what is left of a longer one."""
    return (value, None) if len(value) < HEAD_LENGTH else (value[:HEAD_LENGTH], value[HEAD_LENGTH:])


def pairs(rows: list[tuple[int, str, str, str | None]]) -> Pairs:
    """What such a table holds, by its first column, each text whole again."""
    found: Pairs = {}
    for run, key, head, rest in rows:
        pair = (key, head if rest is None else head + rest)
        if run in found:
            found[run].append(pair)
        else:
            found[run] = [pair]
    return found
