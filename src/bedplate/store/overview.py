"""What pages show of many runs at once: which names they logged under, how many there are, and chosen values.

Every query costs what it returns, not what is stored: names are found by going from one to the next in an index, and
what could be many is counted no further than a limit.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from bedplate.store.metrics import Latest, latest_of
from bedplate.store.runs import Pairs, pairs
from bedplate.store.schema import latest_metrics, params, runs, tags
from bedplate.store.sql import Among, Repository, param, plain

Logged = Literal["metric", "param", "tag"]

_experiment, _lifecycle, _most = param("experiment_"), param("lifecycle_"), param("most_")
_TABLES: Mapping[Logged, sa.Table] = {"metric": latest_metrics, "param": params, "tag": tags}


def _walk(table: sa.Table) -> sa.Select[Any]:
    """The names in a table that an experiment uses, each found from the one before it."""
    of = table.c.experiment == _experiment
    first = sa.select(sa.func.min(table.c.key).label("key")).where(of)
    walk = first.cte("walk", recursive=True)
    following = sa.select(sa.func.min(table.c.key)).where(of, table.c.key > walk.c.key).scalar_subquery()
    walk = walk.union_all(sa.select(following).where(walk.c.key.is_not(None)))
    return sa.select(walk.c.key).where(walk.c.key.is_not(None)).limit(_most)


_NAMES = {kind: _walk(table) for kind, table in _TABLES.items()}
_OF_EXPERIMENT = (runs.c.experiment == _experiment, runs.c.lifecycle == _lifecycle)
_COUNT = sa.select(sa.func.count()).select_from(
    sa.select(sa.literal_column("1")).where(*_OF_EXPERIMENT).limit(_most).subquery()
)
_RUNNING = sa.select(sa.func.count()).select_from(
    sa.select(sa.literal_column("1")).where(*_OF_EXPERIMENT, runs.c.status == "RUNNING").limit(_most).subquery()
)
_NEWEST = sa.select(runs.c.key).where(*_OF_EXPERIMENT).order_by(runs.c.started.desc(), runs.c.id).limit(_most)
_OF_IDS = sa.select(runs.c.key).where(
    runs.c.experiment == _experiment, runs.c.id.in_(sa.bindparam("ids_", expanding=True))
)
_TAGGED = (
    sa.select(tags.c.run)
    .where(
        tags.c.experiment == _experiment, tags.c.key == param("key_"), tags.c.value == param("value_"),
        tags.c.rest.is_(None),
    )
    .order_by(tags.c.started.desc(), tags.c.run)
    .limit(_most)
)  # fmt: skip
_METRICS = Among(
    sa.select(
        latest_metrics.c.run,
        latest_metrics.c.key,
        latest_metrics.c.value,
        latest_metrics.c.is_nan,
        latest_metrics.c.timestamp,
        latest_metrics.c.step,
    ),
    latest_metrics.c.run,
    latest_metrics.c.key,
)
_PAIRS = {
    table.name: Among(sa.select(table.c.run, table.c.key, table.c.value, table.c.rest), table.c.run, table.c.key)
    for table in (params, tags)
}


class Count(NamedTuple):
    """How many runs there are, counted no further than a limit that ``more`` says was reached, and how many run."""

    runs: int
    more: bool
    running: int


class Overview(Repository):
    """``tx.overview``."""

    def names(self, experiment: int, kind: Logged, *, most: int) -> list[str]:
        """The names of metrics, params or tags that runs of an experiment have, in order."""
        rows = plain(self._execute(_NAMES[kind], experiment_=experiment, most_=most))
        return [row[0] for row in rows]

    def count(self, experiment: int, lifecycle: str = "active", *, most: int) -> Count:
        """How many runs an experiment has, counted up to ``most``."""
        found = {"experiment_": experiment, "lifecycle_": lifecycle, "most_": most + 1}
        number = int(self._execute(_COUNT, **found).scalar_one())
        running = int(self._execute(_RUNNING, **found).scalar_one())
        return Count(min(number, most), number > most, min(running, most))

    def newest(self, experiment: int, lifecycle: str = "active", *, most: int = 1) -> list[int]:
        """The keys of the runs that were started last, the last one first."""
        found = self._execute(_NEWEST, experiment_=experiment, lifecycle_=lifecycle, most_=most)
        return [row[0] for row in found]

    def keys(self, experiment: int, ids: Sequence[str]) -> list[int]:
        """The keys of those of the runs that the experiment has, in no order."""
        return [row[0] for row in self._execute(_OF_IDS, experiment_=experiment, ids_=list(ids))]

    def tagged(self, experiment: int, tag: str, value: str, *, most: int) -> list[int]:
        """The keys of runs of an experiment whose tag has this short value, newest first."""
        found = self._execute(_TAGGED, experiment_=experiment, key_=tag, value_=value, most_=most)
        return [row[0] for row in found]

    def metrics(self, keys: Iterable[int], names: Sequence[str]) -> Latest:
        """The latest values of these metrics of these runs."""
        return latest_of(_METRICS.rows(self._connection, keys, names)) if names else {}

    def params(self, keys: Iterable[int], names: Sequence[str]) -> Pairs:
        """The values of these params of these runs."""
        return pairs(_PAIRS["params"].rows(self._connection, keys, names)) if names else {}

    def tags(self, keys: Iterable[int], names: Sequence[str]) -> Pairs:
        """The values of these tags of these runs."""
        return pairs(_PAIRS["tags"].rows(self._connection, keys, names)) if names else {}
