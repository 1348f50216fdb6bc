"""Appending to runs: metrics, params, inputs, outputs. Rows are chained by hash, a sealed segment is one ledger entry.

What a run logs is appended and never changed, so it is audited by segment, where a change of a run has an entry of its
own. Every row gets the next position of one counter and extends the chain ``head = sha256(head + sha256(row))``. A
segment is sealed after a minute, after 50,000 rows, and when the owner stops: its count and head then stand in the
ledger, and :func:`verify` finds any row that was changed, added or taken away since. What is deleted for good leaves
its leaf in the chain, and an entry that vouches for that.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeVar

import msgspec

from bedplate import clock
from bedplate.errors import BedplateError, ConflictError
from bedplate.ledger import Ledger
from bedplate.store import Store, Transaction
from bedplate.store.logged_models import ModelPoint
from bedplate.store.metrics import Point
from bedplate.store.runs import RunRow
from bedplate.store.segments import Segment
from bedplate.tracking import inputs, logged_models
from bedplate.tracking.actors import Actor
from bedplate.tracking.inputs import Links
from bedplate.tracking.logged_models import Measured
from bedplate.tracking.runs import active, new_params
from bedplate.tracking.validation import Metric, Param

T = TypeVar("T")

SEGMENT_ROWS = 50_000
SEGMENT_MS = 60_000
BEGINNING = bytes(32)
"""The head of the chain before its first row."""

ACTION = "runs.append"
ERASED = ".erase"
"""How the actions end that remove appended rows for good."""

SMALL = 32
"""Up to so many rows a call is written in the event loop that took it."""
_REMEMBERED = 20_000
_AT_ONCE = 10_000
_NEAR = 64
_pack = msgspec.msgpack.Encoder().encode
_sha256 = hashlib.sha256
_NAN = float("nan")


class Appended(NamedTuple):
    """What one call appends to a run; names and lengths were checked before."""

    workspace: str
    run: str
    actor: str
    metrics: Sequence[Metric] = ()
    params: Sequence[Param] = ()
    measured: Sequence[Measured] = ()
    """Those of the metrics that are about models."""


class Linked(NamedTuple):
    """What one call says that a run read, used and made; it was checked before."""

    workspace: str
    run: str
    actor: str
    links: Links


class _Accepted(NamedTuple):
    """What an active run is to get: params that it does not have, and values about models that are there."""

    run: RunRow
    item: Appended
    models: Sequence[ModelPoint]


class Appends:
    """The way into the run logs of one home."""

    def __init__(self, store: Store, ledger: Ledger) -> None:
        self._store, self._ledger = store, ledger
        self._newest: Segment | None = None
        """The open segment as of the last commit; appending to it says whether it still is so."""
        self._active: dict[tuple[str, str], RunRow] = {}
        """Runs that are active, as the writer's thread last saw them; whoever changes one says so."""

    async def append(self, item: Appended) -> None:
        """Append; when it returns the rows are on disk.

        Raises:
            NotFoundError: the workspace has no such run.
            InputError: the run is deleted, or a param has another value already.
        """
        await self._store.writer.appended(self.write, item, small=len(item.metrics) + len(item.params) <= SMALL)

    def write(self, tx: Transaction, items: Sequence[Appended]) -> list[BedplateError | None]:
        """Append within ``tx``, and say for each item what was wrong with it, if anything was."""
        answers: list[BedplateError | None] = []
        accepted: list[_Accepted] = []
        fresh: dict[tuple[int, str], str] = {}
        for item in items:
            try:
                run = self._run(tx, item.workspace, item.run)
                models = logged_models.points(tx, item.workspace, run, item.measured) if item.measured else ()
                params = new_params(tx, run, item.params, fresh) if item.params else ()
            except BedplateError as error:
                answers.append(error)
                continue
            answers.append(None)
            accepted.append(_Accepted(run, item._replace(params=params), models))
        if any(each.item.metrics or each.item.params for each in accepted):
            self._extend(tx, accepted)
        return answers

    def write_links(self, tx: Transaction, item: Linked) -> None:
        """Append what a run read, used and made within ``tx``; what is said of it already is left alone.

        Raises:
            NotFoundError: the workspace has no such run.
            InputError: the run is deleted.
            UnfitError: the run made one of the outputs already.
            ConflictError: another process appends to the same home.
        """
        run = self._run(tx, item.workspace, item.run)
        segment = self._open(tx)
        rows = inputs.log(tx, run, item.links, segment.next)
        if not rows:
            return
        leaves = {row[0]: row_leaf(row) for row in rows}
        extended = _Rows([], [], [], leaves, {item.actor: len(rows)}, segment.next + len(rows)).after(segment, leaves)
        if not tx.segments.extend(segment, extended):
            raise ConflictError("something else appends to this home", fix="try again")
        tx.after_commit(lambda: self._remember(extended))

    def _extend(self, tx: Transaction, accepted: Sequence[_Accepted]) -> None:
        segment = self._newest or self._open(tx)
        while True:
            if segment.rows >= SEGMENT_ROWS:
                segment = self._open(tx)
            rows = _numbered(segment.next, accepted)
            extended = rows.after(segment, rows.leaves)
            if tx.segments.extend(segment, extended):
                break
            segment = self._open(tx)  # somebody else appended or sealed since it was seen last
        for run, params in rows.params:
            tx.runs.add_params(run, params)
        known = tx.metrics.log(rows.points) if rows.points else []
        if rows.models:
            known = [*known, *tx.logged_models.log(rows.models)]
        if known:  # an equal row is there already, and keeps its own place in the chain
            leaves = {position: leaf for position, leaf in rows.leaves.items() if position not in known}
            kept = rows.after(segment, leaves)
            tx.segments.extend(extended, kept)
            extended = kept
        tx.after_commit(lambda: self._remember(extended))

    def seal(self, tx: Transaction) -> Segment | None:
        """Seal the open segment if there is anything in it, and record it; the next append begins another."""
        segment = tx.segments.newest()
        if segment is None or segment.sealed is not None or segment.rows == 0:
            return None
        entry = self._ledger.record(
            tx, actor="tracking", action=ACTION, resource=f"segment/{segment.number}", payload=_payload(segment)
        )
        tx.segments.seal(segment.number, entry=entry, at=_now())
        tx.after_commit(lambda: self._remember(None))
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

    def _remember(self, segment: Segment | None) -> None:
        self._newest = segment

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


class _Rows(NamedTuple):
    """Rows with their positions, as the store keeps them, and the leaf of each by its position."""

    points: list[Point]
    models: list[ModelPoint]
    params: list[tuple[RunRow, list[tuple[str, str, int]]]]
    leaves: dict[int, bytes]
    actors: dict[str, int]
    next: int

    def after(self, segment: Segment, leaves: dict[int, bytes]) -> Segment:
        """The segment once these leaves are in its chain."""
        head = segment.head
        for leaf in leaves.values():
            head = _sha256(head + leaf).digest()
        actors = {**segment.actors}
        for actor, rows in self.actors.items():
            actors[actor] = actors.get(actor, 0) + rows
        return segment._replace(next=self.next, rows=segment.rows + len(leaves), head=head, actors=actors)


def _numbered(position: int, accepted: Sequence[_Accepted]) -> _Rows:
    points: list[Point] = []
    models: list[ModelPoint] = []
    params: list[tuple[RunRow, list[tuple[str, str, int]]]] = []
    leaves: dict[int, bytes] = {}
    actors: dict[str, int] = {}
    for run, item, measured in accepted:
        of, name = (run.key, run.experiment, run.started), run.id
        points += [(*of, *metric, number) for number, metric in enumerate(item.metrics, position)]
        for number, (key, value, timestamp, step) in enumerate(item.metrics, position):
            leaves[number] = metric_leaf(number, name, key, value, timestamp, step)
        position += len(item.metrics)
        if item.params:
            given = [(each.key, each.value, number) for number, each in enumerate(item.params, position)]
            params.append((run, given))
            leaves |= {number: param_leaf(number, run.id, key, value) for key, value, number in given}
            position += len(given)
        for point in measured:
            models.append(point._replace(position=position))
            leaves[position] = model_metric_leaf(position, run.id, point.model_id, *point[4:10])
            position += 1
        actors[item.actor] = actors.get(item.actor, 0) + len(item.metrics) + len(item.params) + len(measured)
    return _Rows(points, models, params, leaves, actors, position)


def metric_leaf(position: int, run: str, key: str, value: float, timestamp: int, step: int) -> bytes:
    """The hash of a metric's row."""
    # NaN has many bit patterns and one meaning, and SQLite keeps no sign of zero.
    exact = _NAN if value != value else value + 0.0
    return _sha256(_pack((position, "metric", run, key, exact, timestamp, step))).digest()


def param_leaf(position: int, run: str, key: str, value: str) -> bytes:
    """The hash of a param's row."""
    return hashlib.sha256(_pack((position, "param", run, key, value))).digest()


def model_metric_leaf(
    position: int, run: str, model: str, key: str, value: float, timestamp: int, step: int, dataset: str, digest: str
) -> bytes:
    """The hash of the row of a metric about a model."""
    exact = _NAN if value != value else value
    row = (position, "model_metric", run, model, key, exact, timestamp, step, dataset, digest)
    return hashlib.sha256(_pack(row)).digest()


def row_leaf(row: tuple[Any, ...]) -> bytes:
    """The hash of any other row, which begins with its position and its kind."""
    return hashlib.sha256(_pack(row)).digest()


def verify(tx: Transaction) -> list[str]:
    """Compute the chain of every segment anew from the rows that are there, and say what does not hold."""
    problems: list[str] = []
    head, position = BEGINNING, 1
    metrics = _Metrics(tx)
    for segment in tx.segments.list():
        name = f"runs segment {segment.number}"
        if segment.first != position:
            problems.append(f"{name} begins at {segment.first}, not at {position}")
        rows = 0
        for start in range(segment.first, segment.next, _AT_ONCE):
            end = min(start + _AT_ONCE, segment.next)
            others = leaves(tx, start, end) | tx.erasure.between(start, end)
            for _, leaf in sorted([*others.items(), *metrics.before(end)]):
                head = hashlib.sha256(head + leaf).digest()
                rows += 1
        if rows != segment.rows:
            problems.append(f"{name} has {rows:,} rows, and had {segment.rows:,} when they were appended")
        elif head != segment.head:
            problems.append(f"{name}: a row was changed since it was appended")
        if segment.entry is not None:
            problems += _recorded(tx, segment, name)
        head, position = segment.head, segment.next
    problems += _vouched(tx)
    repositories = (tx.runs, tx.datasets, tx.logged_models, tx.erasure)
    last = max(metrics.last(), *(repository.last_position() for repository in repositories))
    if last >= position:
        problems.append(f"rows up to position {last} are in no runs segment, the last of which ends at {position}")
    return problems


class _Metrics:
    """The leaves of all metrics by position, taken in stretches: no index finds them by it."""

    def __init__(self, tx: Transaction) -> None:
        self._rows = tx.metrics.appended()
        self._next = next(self._rows, None)

    def before(self, end: int) -> list[tuple[int, bytes]]:
        """The position and leaf of those that were not taken yet and stand before ``end``."""
        found = []
        while self._next is not None and self._next[0] < end:
            found.append((self._next[0], metric_leaf(*self._next)))
            self._next = next(self._rows, None)
        return found

    def last(self) -> int:
        """The greatest position of those that were not taken; 0 if all were."""
        last = 0
        while self._next is not None:
            last, self._next = self._next[0], next(self._rows, None)
        return last


def leaves(tx: Transaction, start: int, end: int) -> dict[int, bytes]:
    """The leaf of every row but metrics, by its position, from ``start`` up to, not including, ``end``."""
    found = {row[0]: param_leaf(*row) for row in tx.runs.params_between(start, end)}
    found |= {row[0]: model_metric_leaf(*row) for row in tx.logged_models.metrics_between(start, end)}
    found |= {row[0]: row_leaf(row) for row in inputs.between(tx, start, end)}
    return found


def erase(
    tx: Transaction,
    positions: Sequence[int],
    by: Actor,
    action: str,
    resource: str,
    run: int | None = None,
    **payload: Any,
) -> int:
    """Record that the rows at these positions, in order, go for good, and leave their leaves in the chain.

    Metrics may be among them if they are of ``run``. The caller removes the rows in the same transaction. Returns the
    place of the entry in the ledger.
    """
    going = {} if run is None else {row[0]: metric_leaf(*row) for row in tx.metrics.appended(run)}
    for start, end in _stretches([position for position in positions if position not in going]):
        going |= leaves(tx, start, end)
    kept = {position: going[position] for position in positions}
    entry = by.record(tx, action, resource, rows=len(kept), erased=_digest(kept.items()), **payload)
    tx.erasure.bury(kept, entry)
    return entry


def _stretches(positions: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Where to look for rows that lie close together, at not many more rows than there are positions."""
    start = last = None
    for position in positions:
        if start is None or last is None or position - last > _NEAR or position - start >= _AT_ONCE:
            if start is not None and last is not None:
                yield start, last + 1
            start = position
        last = position
    if start is not None and last is not None:
        yield start, last + 1


def _digest(erased: Iterable[tuple[int, bytes]]) -> str:
    hashed = hashlib.sha256()
    for position, leaf in erased:
        hashed.update(position.to_bytes(8, "big") + leaf)
    return hashed.hexdigest()


def _vouched(tx: Transaction) -> list[str]:
    """Whether the ledger vouches for every row that is gone: what it says is verified with the ledger."""
    problems = []
    for entry, rows in groupby(tx.erasure.by_entry(), key=lambda row: row.entry):
        found = _digest((row.position, row.leaf) for row in rows)
        kept = tx.ledger.payload(entry)
        row = next(iter(tx.ledger.entries(entry, entry + 1)), None)
        said = {} if row is None else msgspec.json.decode(row.entry)
        if not str(said.get("action", "")).endswith(ERASED):
            problems.append(f"appended rows are gone, and entry {entry} of the ledger says nothing of it")
        elif kept is not None and msgspec.json.decode(kept[1]).get("erased") != found:
            problems.append(f"other appended rows are gone than entry {entry} of the ledger says")
    return problems


def _recorded(tx: Transaction, segment: Segment, name: str) -> list[str]:
    """Whether the ledger says the same about a sealed segment; what the ledger says is verified with the ledger."""
    assert segment.entry is not None
    row = next(iter(tx.ledger.entries(segment.entry, segment.entry + 1)), None)
    entry = {} if row is None else msgspec.json.decode(row.entry)
    if (entry.get("action"), entry.get("resource")) != (ACTION, f"segment/{segment.number}"):
        return [f"{name} is not in the ledger at entry {segment.entry}"]
    kept = tx.ledger.payload(segment.entry)
    if kept is not None and msgspec.json.decode(kept[1]) != _payload(segment):
        return [f"{name} is not as entry {segment.entry} of the ledger has it"]
    return []


def _payload(segment: Segment) -> dict[str, Any]:
    return {
        "first": segment.first,
        "next": segment.next,
        "rows": segment.rows,
        "head": segment.head.hex(),
        "actors": segment.actors,
    }


def _now() -> int:
    return int(clock.now().timestamp() * 1000)
