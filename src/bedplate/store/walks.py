"""What a search of runs goes along: the keys of an order, the tests of a filter, and walks along an index."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import matching, pages
from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import Kind, Order, is_storable
from bedplate.store.learnt import Learnt
from bedplate.store.matching import Condition
from bedplate.store.schema import latest_metrics, params, runs, tags
from bedplate.store.sql import param

Key = ColumnElement[Any]
Keys = sa.Select[Any] | sa.CompoundSelect[Any]
Position = tuple[Any, ...]
"""Where a page ended: the values that its last row is ordered by."""

SAMPLE = 100
"""So many runs tell beforehand how many pass each test."""

VALUES: dict[Kind, sa.Table] = {"metric": latest_metrics, "param": params, "tag": tags}
ATTRIBUTES: dict[str, sa.Column[Any]] = {
    "run_id": runs.c.id,
    "run_name": runs.c.name,
    "user_id": runs.c.user_id,
    "status": runs.c.status,
    "artifact_uri": runs.c.artifact_uri,
    "start_time": runs.c.started,
    "end_time": runs.c.ended,
}
STARTED = Order("attribute", "start_time", False)
ID = Order("attribute", "run_id", True)
ZERO: ColumnElement[int] = sa.literal_column("0")
ONE: ColumnElement[int] = sa.literal_column("1")
EXPERIMENT, LIFECYCLE = param("experiment_"), param("lifecycle_")
THERE = sa.and_(runs.c.experiment == EXPERIMENT, runs.c.lifecycle == LIFECYCLE)


class Test:
    """One thing that a run has to be: asked of the run at hand, or found in an index for all runs of an experiment.

    ``asked`` makes the condition from the column that holds the key of the run at hand. Along an index that is the
    index's own column, so that a run that is not wanted is never looked up. Both are made when a statement is built;
    what they bind is in ``values``, and tests of one ``shape`` make the same of them.
    """

    def __init__(
        self,
        shape: tuple[Any, ...],
        values: dict[str, Any],
        asked: Callable[[Key], Condition],
        found: Callable[[], Keys] | None = None,
        *,
        of: tuple[Kind, str] | None = None,
        on: Callable[[Any], Condition] | None = None,
        of_run: bool = False,
    ) -> None:
        self.shape = shape
        self.values = values
        self.asked = asked
        self.found = found
        # The row of the run tells, which is looked up last along another index.
        self.of_run = of_run
        # Where a walk is along the very rows that are compared, the comparison is with the row itself: ``on``.
        self.of = of
        self.on = on


class Term:
    """One key of an order: whether a run has a value (0), has NaN (1) or has none (2), and the value.

    ``position`` is the parameter that a page begins after, ``values`` what the term binds otherwise.
    """

    def __init__(self, order: Order, number: int) -> None:
        self.order, self.number = order, number
        self.kind, self.key, self.ascending = order.kind, order.key, order.ascending
        self.ranked = order.kind != "attribute" or order.key == "end_time"
        self.position, self._named = f"position_{number}_", f"order_{number}_"
        of_run = order.kind == "attribute"
        self.values: dict[str, Any] = {} if of_run else {self._named: order.key}
        self.shape = number, order.kind, order.key if of_run else None, order.ascending

    @cached_property
    def table(self) -> Any:
        """Where the value stands, None if in the run itself."""
        return None if self.kind == "attribute" else VALUES[self.kind].alias(f"order_{self.number}")

    @cached_property
    def value(self) -> ColumnElement[Any]:
        """The column of the value."""
        column: ColumnElement[Any] = ATTRIBUTES[self.key] if self.table is None else self.table.c.value
        return column

    @cached_property
    def rank(self) -> ColumnElement[Any]:
        """Which kind of value it is."""
        if not self.ranked:
            return ZERO
        if self.table is None:
            return sa.case((self.value.is_(None), 2), else_=0)
        nan = ((self.table.c.is_nan, 1),) if self.kind == "metric" else ()
        return sa.case((self.table.c.run.is_(None), 2), *nan, else_=0)

    @property
    def named(self) -> Condition:
        """Whether a row of the table is of this key."""
        named: Condition = self.table.c.key == param(self._named)
        return named

    def columns(self) -> list[ColumnElement[Any]]:
        return [self.rank, self.value]

    def by(self) -> list[ColumnElement[Any]]:
        return [self.rank.asc(), directed(self)] if self.ranked else [directed(self)]

    def joined(self, source: Any) -> Any:
        if self.table is None:
            return source
        return source.outerjoin(self.table, sa.and_(self.table.c.run == runs.c.key, self.named))

    def starting(self, started: ColumnElement[Any]) -> "Term":
        """The same term, with the start of the run taken from another column that holds it."""
        if (self.kind, self.key) != (STARTED.kind, STARTED.key):
            return self
        term = Term(self.order, self.number)
        term.value = started
        return term

    def fits(self, rank: Any, value: Any) -> bool:
        """Whether a position can hold these."""
        if type(rank) is not int or rank not in (0, 1, 2) or (rank and not self.ranked):
            return False
        if rank == 2:
            return value is None
        kind = (ATTRIBUTES[self.key] if self.kind == "attribute" else VALUES[self.kind].c.value).type
        if isinstance(kind, sa.Double):
            return type(value) is float and value == value
        if isinstance(kind, sa.BigInteger):
            return type(value) is int and -(2**63) <= value < 2**63
        return type(value) is str and is_storable(value)


class Part(NamedTuple):
    """What is searched at a time: the runs of one experiment in one stage of life."""

    experiment: int
    lifecycle: Lifecycle

    @property
    def values(self) -> dict[str, Any]:
        """What every statement about it binds."""
        return {EXPERIMENT.key: self.experiment, LIFECYCLE.key: self.lifecycle}


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """Runs along one index, in the order of ``first``, then of ``following``.

    ``rank`` is that of the values along it, ``tests`` are left to be asked, and ``here`` are those that the rows of the
    index tell. ``tied``: among runs of one value. It begins after a position that has the ranks ``begun``, or where the
    runs with some value are ``passed``. ``values`` are what all this binds, ``learnt`` is what is known beforehand.
    """

    first: Term
    following: tuple[Term, ...]
    rank: int
    tests: tuple[Test, ...]
    here: tuple[Test, ...] = ()
    values: dict[str, Any]
    learnt: Learnt
    tied: bool = False
    begun: tuple[int, ...] | None = None
    passed: bool = False

    @property
    def shape(self) -> tuple[Any, ...]:
        """What its statements depend on, but for the tests that are left."""
        terms = shapes_of((self.first, *self.following))
        return terms, self.rank, shapes_of(self.here), self.tied, self.begun, self.passed

    @property
    def along_runs(self) -> bool:
        """Whether the index is one of the runs themselves."""
        return self.first.kind == "attribute"

    @property
    def goes_on(self) -> bool:
        """Whether the index is in the right order among runs of one value, which is by start, then by id."""
        left = [term.order for term in self.following]
        return left == ([ID] if self._by_start else [STARTED, ID])

    def at(self, value: Any) -> "Walk":
        """The walk among the runs that have just this value."""
        values = {**self.values, "tied_": value}
        return msgspec.structs.replace(self, tied=True, begun=None, passed=False, values=values, learnt=Learnt())

    def after(self, position: Position | None) -> "Walk":
        """The walk from a position among its rows."""
        if position is None:
            return self
        values = self.values | position_values((self.first, *self.following), position)
        return msgspec.structs.replace(self, begun=position[::2], passed=False, values=values)

    def beyond(self, value: Any) -> "Walk":
        """The walk after the runs that have this value for what the walk is ordered by."""
        return msgspec.structs.replace(self, begun=None, passed=True, values={**self.values, "passed_": value})

    # -------------------------------------------------------------------- what follows is for building statements alone

    @property
    def key(self) -> Key:
        """The column that holds the key of the run at hand."""
        column: Key = runs.c.key if self.first.table is None else self.first.table.c.run
        return column

    @property
    def by(self) -> Term:
        """What the index orders by first within what is walked."""
        return self._rest[0] if self.tied else self.first

    def statement(self, conditions: Iterable[Condition], limit: Any) -> sa.Select[Any]:
        """The rows that meet the conditions: the key of a run, then rank and value of every term."""
        by = [column for term in self._rest for column in term.by()]
        if not self.tied:
            by.insert(0, directed(self.first))
        columns = [column for term in self.following for column in term.columns()]
        found = sa.select(runs.c.key, (ZERO, ONE)[self.rank], self.first.value, *columns).select_from(self._source)
        return found.where(*self._within, self._begin(), *conditions).order_by(*by).limit(limit)

    def sample(self, limit: int, tests: Sequence[Test]) -> sa.Select[Any]:
        """What these tests say of the first runs along the index."""
        named: list[Any] = [test.asked(self.key).label(f"passes_{number}") for number, test in enumerate(tests)]
        table = self.first.table
        source = table if table is not None and not any(test.of_run for test in tests) else self._runs
        found = sa.select(*named).select_from(source).where(*self._within, self._begin(along=True))
        return found.order_by(directed(self.by)).limit(limit)

    def ahead(self, skip: Any) -> sa.Select[Any]:
        """The value after so many rows along the index, whatever is asked of them."""
        table = runs if self.first.table is None else self.first.table
        found = sa.select(self.by.value).select_from(table).where(*self._within, self._begin(along=True))
        return found.order_by(directed(self.by)).limit(1).offset(skip)

    @property
    def _by_start(self) -> bool:
        return (self.first.kind, self.first.key) == (STARTED.kind, STARTED.key)

    @property
    def _rest(self) -> list[Term]:
        table = self.first.table
        return [term if table is None else term.starting(table.c.started) for term in self.following]

    @property
    def _runs(self) -> Any:
        table = self.first.table
        return runs if table is None else table.join(runs, runs.c.key == table.c.run)

    @property
    def _source(self) -> Any:
        source = self._runs
        for term in self.following:
            source = term.joined(source)
        return source

    @property
    def _within(self) -> list[Condition]:
        table = self.first.table
        if table is None:
            within = [THERE, self.first.value.is_not(None)] if self.first.ranked else [THERE]
        else:
            told = [test.on(table) for test in self.here if test.on is not None]
            within = [table.c.experiment == EXPERIMENT, self.first.named, *told, *marks(table, self.rank)]
        return [*within, self.first.value == param("tied_")] if self.tied else within

    def _begin(self, *, along: bool = False) -> Condition:
        """Where it begins; ``along``: as an index is told."""
        if self.passed:
            return matching.compare(self.by.value, ">" if self.by.ascending else "<", param("passed_"))
        if self.begun is None:
            return sa.true()
        pairs = pairs_of(self._rest, self.begun[1:])
        if not self.tied:
            pairs.insert(0, (self.first.value, self.first.ascending, param(self.first.position)))
        return matching.from_(*pairs[0]) if along else matching.after(pairs)


class Ahead(NamedTuple):
    """What lies along the index of a walk: the values at its beginning, after the first stretch, and after ``TIED``
    runs; the tests that an index serves, and how many of the first ``SAMPLE`` runs pass each, the fewest first. The
    database has at most so many ``runs``. SQLite does without the last two: it asks a run in a quarter of the time."""

    value: Any
    end: Any
    further: Any
    tests: list[Test]
    passing: list[int]
    runs: int = 0

    def needed(self, limit: int) -> int:
        """How many runs to ask for so many that match, if the tests know nothing of each other."""
        return int(limit / math.prod(max(number, 0.5) / SAMPLE for number in self.passing))


def names(orders: Sequence[Order], wanted: Order) -> bool:
    """Whether one of the orders is by what another is by, in either direction."""
    return any((order.kind, order.key) == (wanted.kind, wanted.key) for order in orders)


def terms_of(orders: Sequence[Order]) -> list[Term]:
    """The keys of a whole order: what was asked for, then the start, then the id, which no two runs share."""
    whole = [*orders, *(last for last in (STARTED, ID) if not names(orders, last))]
    return [Term(order, number) for number, order in enumerate(whole)]


def directed(term: Term) -> ColumnElement[Any]:
    """The value of a key, in its direction."""
    return term.value.asc() if term.ascending else term.value.desc()


def marks(table: Any, rank: int) -> list[Condition]:
    """That a row of a table of values has a value of this rank: metrics have NaN beside others."""
    return [table.c.is_nan == (sa.true() if rank else sa.false())] if "is_nan" in table.c else []


def values_of(holders: Iterable[Test | Term]) -> dict[str, Any]:
    """What tests or terms bind."""
    return {name: value for holder in holders for name, value in holder.values.items()}


def shapes_of(holders: Iterable[Test | Term]) -> tuple[Any, ...]:
    """What statements depend on that tests or terms are in."""
    return tuple(holder.shape for holder in holders)


def position_values(terms: Sequence[Term], after: Position | None) -> dict[str, Any]:
    """What a position binds."""
    return {} if after is None else {term.position: value for term, value in zip(terms, after[1::2], strict=True)}


def pairs_of(terms: Sequence[Term], ranks: Sequence[int]) -> list[tuple[ColumnElement[Any], bool, Any]]:
    """What a position of these ranks says, column by column."""
    pairs: list[tuple[ColumnElement[Any], bool, Any]] = []
    for term, rank in zip(terms, ranks, strict=True):
        if term.ranked:
            pairs.append((term.rank, True, rank))
        if rank == 0:
            pairs.append((term.value, term.ascending, param(term.position)))
    return pairs


def check(terms: Sequence[Term], after: Position | None) -> None:
    """Hold a position that a client sent against the order that it is used with.

    Raises:
        InputError: it is none of this order.
    """
    if after is not None and not (
        len(after) == 2 * len(terms)
        and all(term.fits(*pair) for term, pair in zip(terms, zip(after[::2], after[1::2], strict=True), strict=True))
    ):
        raise pages.unfit()


def sort_key(terms: Sequence[Term], values: Sequence[Any]) -> tuple[Any, ...]:
    """What rows that were gathered are sorted by: ``values`` has a rank and a value for each key."""
    key: list[Any] = []
    for term, rank, value in zip(terms, values[::2], values[1::2], strict=True):
        key.append(rank)
        if rank == 0:
            key.append(value if term.ascending else _Reversed(value))
    return tuple(key)


class _Reversed:
    """A value that sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(self.value == other.value)

    def __lt__(self, other: "_Reversed") -> bool:
        return bool(other.value < self.value)

    __hash__ = None  # type: ignore[assignment]
