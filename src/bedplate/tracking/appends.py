"""Appending to runs: metrics and params. Rows are chained by hash, and each sealed segment is one ledger entry.

What a run logs is appended and never changed, so it is audited by segment, where a change of a run has an entry of its
own. Every row gets the next position of one counter and extends the chain ``head = sha256(head + sha256(row))``. A
segment is sealed after a minute, after 50,000 rows, and when the owner stops: its count and head then stand in the
ledger, and :func:`verify` finds any row that was changed, added or taken away since.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from bedplate import clock
from bedplate.errors import BedplateError
from bedplate.ledger import Ledger
from bedplate.store import Store, Transaction
from bedplate.store.metrics import Point
from bedplate.store.runs import RunRow
from bedplate.store.segments import Segment
from bedplate.tracking.runs import active, new_params
from bedplate.tracking.runs import points as points_of
from bedplate.tracking.validation import Metric, Param

T = TypeVar("T")

SEGMENT_ROWS = 50_000
SEGMENT_MS = 60_000
BEGINNING = bytes(32)
"""The head of the chain before its first row."""

_REMEMBERED = 20_000
_pack = msgspec.msgpack.Encoder().encode
_NAN = float("nan")


class Appended(NamedTuple):
    """What one call appends to a run; names and lengths were checked before."""

    workspace: str
    run: str
    actor: str
    metrics: Sequence[Metric] = ()
    params: Sequence[Param] = ()


class Appends:
    """The way into the run logs of one home."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._active: dict[tuple[str, str], RunRow] = {}
        """Runs that are active, as the writer's thread last saw them; whoever changes one says so."""

    async def append(self, item: Appended) -> None:
        """Append; when it returns the rows are on disk.

        Raises:
            NotFoundError: the workspace has no such run.
            InputError: the run is deleted, or a param has another value already.
        """
        await self._store.writer.appended(self.write, item)

    def write(self, tx: Transaction, items: Sequence[Appended]) -> list[BedplateError | None]:
        """Append within ``tx``, and say for each item what was wrong with it, if anything was."""
        segment = self._open(tx)
        answers: list[BedplateError | None] = []
        points: list[Point] = []
        leaves: dict[int, bytes] = {}
        actors = dict(segment.actors)
        position = segment.next
        for item in items:
            try:
                run = self._run(tx, item.workspace, item.run)
                params = new_params(tx, run, item.params)
            except BedplateError as error:
                answers.append(error)
                continue
            for point in points_of(run, item.metrics, position):
                points.append(point)
                leaves[position] = metric_leaf(position, run.id, *point[3:7])
                position += 1
            numbered = [(each.key, each.value, number) for number, each in enumerate(params, position)]
            tx.runs.add_params(run, numbered)
            leaves |= {number: param_leaf(number, run.id, key, value) for key, value, number in numbered}
            position += len(numbered)
            answers.append(None)
            actors[item.actor] = actors.get(item.actor, 0) + len(item.metrics) + len(numbered)
        if points:
            for known in tx.metrics.log(points):
                del leaves[known]  # an equal row is there already, and keeps its own place in the chain
        if leaves:
            head = segment.head
            for leaf in leaves.values():
                head = hashlib.sha256(head + leaf).digest()
            rows = segment.rows + len(leaves)
            tx.segments.extend(segment._replace(next=position, rows=rows, head=head, actors=actors))
        return answers

    def seal(self, tx: Transaction) -> Segment | None:
        """Seal the open segment if there is anything in it, and record it; the next append begins another."""
        segment = tx.segments.newest()
        if segment is None or segment.sealed is not None or segment.rows == 0:
            return None
        payload = {
            "first": segment.first,
            "next": segment.next,
            "rows": segment.rows,
            "head": segment.head.hex(),
            "actors": segment.actors,
        }
        entry = self._ledger.record(
            tx, actor="tracking", action="runs.append", resource=f"segment/{segment.number}", payload=payload
        )
        tx.segments.seal(segment.number, entry=entry, at=_now())
        return segment

    def seal_if_due(self) -> None:
        """Seal the open segment when it is old or long enough."""
        with self._store.read() as tx:
            segment = tx.segments.newest()
        if segment is None or segment.sealed is not None:
            return
        if segment.rows >= SEGMENT_ROWS or _now() - segment.opened >= SEGMENT_MS:
            self._store.writer.submit(self.seal).result()

    def close(self) -> None:
        """Seal what was appended since the last segment."""
        with self._store.transaction() as tx:
            self.seal(tx)

    async def changing(self, work: Callable[[Transaction], T]) -> T:
        """Do ``work``, which may delete, restore or rename runs, in order with what is appended to them."""

        def changes(tx: Transaction) -> T:
            tx.after_commit(self.forget)
            return work(tx)

        return await self._store.writer.submitted(changes)

    def forget(self) -> None:
        """Look runs up again: something about them changed."""
        self._active.clear()

    def _open(self, tx: Transaction) -> Segment:
        segment = tx.segments.newest()
        if segment is not None and segment.sealed is None and segment.rows < SEGMENT_ROWS:
            return segment
        if segment is not None and segment.sealed is None:
            self.seal(tx)
        first, head, number = (1, BEGINNING, 1) if segment is None else (segment.next, segment.head, segment.number + 1)
        begun = Segment(number, first, first, 0, head, {}, _now(), None, None)
        tx.segments.begin(begun)
        return begun

    def _run(self, tx: Transaction, workspace: str, name: str) -> RunRow:
        run = self._active.get((workspace, name))
        if run is None:
            run = active(tx, workspace, name)
            if len(self._active) >= _REMEMBERED:
                self._active.clear()
            self._active[workspace, name] = run
        return run


def metric_leaf(position: int, run: str, key: str, value: float, timestamp: int, step: int) -> bytes:
    """The hash of a metric's row."""
    exact = _NAN if value != value else value  # NaN has many bit patterns and one meaning
    return hashlib.sha256(_pack((position, "metric", run, key, exact, timestamp, step))).digest()


def param_leaf(position: int, run: str, key: str, value: str) -> bytes:
    """The hash of a param's row."""
    return hashlib.sha256(_pack((position, "param", run, key, value))).digest()


def _now() -> int:
    return int(clock.now().timestamp() * 1000)
