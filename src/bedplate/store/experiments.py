"""Experiments and their tags."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from bedplate.errors import ConflictError, NotFoundError
from bedplate.store.schema import experiment_tags, experiments
from bedplate.store.sql import Among, Direct, Repository, Upsert, param

Lifecycle = Literal["active", "deleted"]

_id, _workspace, _name = param("id_"), param("workspace_"), param("name_")
EXPERIMENT_COLUMNS = (
    experiments.c.id,
    experiments.c.workspace,
    experiments.c.name,
    experiments.c.lifecycle,
    experiments.c.artifact_location,
    experiments.c.created,
    experiments.c.updated,
)
"""The columns of an :class:`ExperimentRow`, in its order."""
_ADD = sa.insert(experiments)
_LOCATE = sa.update(experiments).where(experiments.c.id == _id).values(artifact_location=param("location_"))
_GET = Direct(sa.select(*EXPERIMENT_COLUMNS).where(experiments.c.id == _id, experiments.c.workspace == _workspace))
_BY_NAME = sa.select(*EXPERIMENT_COLUMNS).where(experiments.c.workspace == _workspace, experiments.c.name == _name)
_OF_WORKSPACE = sa.select(experiments.c.id).where(experiments.c.workspace == _workspace)
_IN_WORKSPACE = Among(_OF_WORKSPACE, experiments.c.id)
_RENAME = sa.update(experiments).where(experiments.c.id == _id).values(name=_name, updated=param("now_"))
_MARK = (
    sa.update(experiments).where(experiments.c.id == _id).values(lifecycle=param("lifecycle_"), updated=param("now_"))
)
_TAGS = Among(
    sa.select(experiment_tags.c.experiment, experiment_tags.c.key, experiment_tags.c.value),
    experiment_tags.c.experiment,
)
_SET_TAG = Upsert(experiment_tags, update=("value",))
_DELETE_TAG = sa.delete(experiment_tags).where(
    experiment_tags.c.experiment == _id, experiment_tags.c.key == param("key_")
)


class ExperimentRow(msgspec.Struct, frozen=True):
    """One experiment. Times are milliseconds since 1970."""

    id: int
    workspace: str
    name: str
    lifecycle: Lifecycle
    artifact_location: str
    created: int
    updated: int


class Experiments(Repository):
    """``tx.experiments``."""

    def add(self, workspace: str, name: str, *, now: int) -> ExperimentRow:
        """Make an experiment; its number is given here, and where its artifacts lie is to be said next.

        Raises:
            ConflictError: the workspace has an experiment of this name, deleted ones among them.
        """
        if self.by_name(workspace, name) is not None:
            raise ConflictError(
                f"there is an experiment named {name!r} already", fix="choose another name, or restore it"
            )
        values = {"workspace": workspace, "name": name, "lifecycle": "active", "created": now, "updated": now}
        key = self._execute(_ADD, **values, artifact_location="").inserted_primary_key
        assert key is not None
        return ExperimentRow(key[0], workspace, name, "active", "", now, now)

    def locate(self, experiment: int, location: str) -> None:
        """Say where the artifacts of an experiment lie."""
        self._execute(_LOCATE, id_=experiment, location_=location)

    def find(self, workspace: str, experiment: int) -> ExperimentRow | None:
        """The experiment of this number, if the workspace has it."""
        return _experiment(_GET.first(self._connection, id_=experiment, workspace_=workspace))

    def get(self, workspace: str, experiment: int) -> ExperimentRow:
        """The experiment of this number.

        Raises:
            NotFoundError: the workspace has none.
        """
        row = self.find(workspace, experiment)
        if row is None:
            raise NotFoundError(f"there is no experiment {experiment}")
        return row

    def by_name(self, workspace: str, name: str) -> ExperimentRow | None:
        """The experiment of this name, deleted or not, if there is one."""
        return _experiment(self._execute(_BY_NAME, workspace_=workspace, name_=name).first())

    def within(self, workspace: str, wanted: Iterable[int]) -> list[int]:
        """Those of the experiments that belong to the workspace, in the order given."""
        wanted = list(dict.fromkeys(wanted))
        rows = _IN_WORKSPACE.rows(self._connection, wanted, workspace_=workspace)
        known = {row[0] for row in rows}
        return [each for each in wanted if each in known]

    def rename(self, experiment: int, name: str, *, now: int) -> None:
        """Give an experiment another name.

        Raises:
            ConflictError: the workspace has an experiment of this name.
        """
        self._execute(_RENAME, id_=experiment, name_=name, now_=now)

    def mark(self, experiment: int, lifecycle: Lifecycle, *, now: int) -> None:
        """Delete or restore an experiment; its runs are marked apart."""
        self._execute(_MARK, id_=experiment, lifecycle_=lifecycle, now_=now)

    def tags(self, wanted: Iterable[int]) -> dict[int, dict[str, str]]:
        """The tags of each of the experiments that has some."""
        found: dict[int, dict[str, str]] = {}
        for experiment, key, value in _TAGS.rows(self._connection, wanted):
            found.setdefault(experiment, {})[key] = value
        return found

    def set_tags(self, experiment: int, tags: Mapping[str, str]) -> None:
        """Set tags; one that is there gets the new value."""
        _SET_TAG.many(self._connection, [(experiment, key, value) for key, value in tags.items()])

    def delete_tag(self, experiment: int, key: str) -> bool:
        """Delete a tag; False if it is not there."""
        return self._execute(_DELETE_TAG, id_=experiment, key_=key).rowcount == 1


def _experiment(row: Sequence[Any] | None) -> ExperimentRow | None:
    return None if row is None else ExperimentRow(*tuple(row))
