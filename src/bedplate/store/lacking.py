"""Which runs of an experiment lack a value that runs are ordered by: they come last, so a last page has to know.

Only a look at every run tells, so it is looked once. A run never loses a metric or a param, and whatever else changes
of a run has its entry in the ledger, in the transaction of the change. So what was found at one size of the ledger is
right at a later one, but for runs that have got a value since, and those that the entries since then name: these few
are asked anew. A reader who sees less of the ledger than was looked at then, or who also writes, looks for itself.
"""

import threading
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import sqlalchemy as sa

from bedplate.store import matching
from bedplate.store.schema import ledger_entries, ledger_head, runs
from bedplate.store.sql import WRITE, Direct, Repository, among, plain

RUN = "run/"
"""What the ledger calls a run begins so, and goes on with its id."""
LISTED = 2_000
"""More runs than this are no list: where so many lack the value, one is soon met."""
NAMED = 10_000
"""After so many entries all runs are looked at again."""
KEPT = 128
"""Of so many values per database it is known who lacks them."""

_SIZE = Direct(sa.select(ledger_head.c.size).where(ledger_head.c.id == 0))


class _Known(NamedTuple):
    """At a size of the ledger: the keys of the runs that lack a value; None if they are too many to be listed."""

    size: int
    keys: list[int] | None


_known: WeakKeyDictionary[sa.Engine, dict[tuple[int, str, str], _Known]] = WeakKeyDictionary()
_lock = threading.Lock()


class Lacking(Repository):
    """Who lacks a value."""

    def runs(self, experiment: int, table: Any, key: str) -> list[int] | None:
        """Keys of the runs of an experiment, deleted or not, without a row of this key; None if they are too many."""
        name = experiment, str(table.name), key
        size = self._size()
        known = _known.get(self._connection.engine, {}).get(name)
        if not size or known is None or not 0 <= size - known.size <= NAMED:
            keys = self._looked(experiment, table, key)
        elif known.keys is None:
            return None  # should they be few by now, they are still found, with more steps
        else:
            keys = self._asked(experiment, table, key, known.keys, self._named(known.size, size))
        if size:
            self._keep(name, _Known(size, keys))
        return keys

    def _keep(self, name: tuple[int, str, str], found: _Known) -> None:
        with _lock:
            lists = _known.setdefault(self._connection.engine, {})
            before = lists.pop(name, found)
            lists[name] = found if found.size >= before.size else before
            if len(lists) > KEPT:
                del lists[next(iter(lists))]

    def _size(self) -> int:
        """The size of the ledger that this reader sees; 0 where nothing may be remembered."""
        if self._connection.get_execution_options().get(WRITE, False):
            return 0
        row = _SIZE.first(self._connection)
        return row[0] if row else 0

    def _named(self, start: int, end: int) -> list[str]:
        """Ids of the runs that entries of the ledger name."""
        if start == end:
            return []
        of_run = sa.func.substr(ledger_entries.c.resource, 1, len(RUN)) == RUN
        within = (ledger_entries.c.position >= start, ledger_entries.c.position < end)
        found = sa.select(ledger_entries.c.resource).distinct().where(*within, of_run)
        return [row[0].removeprefix(RUN) for row in self._rows(found)]

    def _asked(self, experiment: int, table: Any, key: str, keys: list[int], ids: list[str]) -> list[int] | None:
        """Those among these runs that lack it."""
        own = sa.exists().where(table.c.run == runs.c.key, table.c.key == key)
        lacking = sa.select(runs.c.key).where(runs.c.experiment == experiment, own.is_(False))
        few: set[int] = set()
        for column, values in ((runs.c.key, keys), (runs.c.id, ids)):
            if values:
                listed = matching.listed(values, postgresql=self._postgresql)
                found = lacking.where(among(column, listed, postgresql=self._postgresql))
                few.update(row[0] for row in self._rows(found))
        return None if len(few) > LISTED else sorted(few)

    def _looked(self, experiment: int, table: Any, key: str) -> list[int] | None:
        """Those among all runs that lack it."""
        apart = ~sa.exists().where(table.c.run == runs.c.key, table.c.key == key)
        few = self._rows(sa.select(runs.c.key).where(runs.c.experiment == experiment, apart).limit(LISTED + 1))
        return None if len(few) > LISTED else [row[0] for row in few]

    def _rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        return plain(self._connection.execute(statement))
