"""What a search of runs goes along: the keys of an order, the tests of a filter, and walks along an index."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import matching, pages
from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import Kind, Order, is_storable
from bedplate.store.matching import Condition
from bedplate.store.schema import latest_metrics, params, runs, tags

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


class Test:
    """One thing that a run has to be: asked of the run at hand, or found in an index for all runs of an experiment.

    ``asked`` makes the condition from the column that holds the key of the run at hand. Along an index that is the
    index's own column, so that a run that is not wanted is never looked up.
    """

    def __init__(
        self,
        asked: Callable[[Key], Condition],
        found: Keys | None = None,
        *,
        of: tuple[Kind, str] | None = None,
        on: Callable[[Any], Condition] | None = None,
        of_run: bool = False,
    ) -> None:
        self.asked = asked
        self.found = found
        # The row of the run tells, which is looked up last along another index.
        self.of_run = of_run
        # Where a walk is along the very rows that are compared, the comparison is with the row itself: ``on``.
        self.of = of
        self.on = on


class Term:
    """One key of an order: whether a run has a value (0), has NaN (1) or has none (2), and the value."""

    def __init__(self, order: Order, number: int) -> None:
        self.order = order
        self.kind, self.key, self.ascending = order.kind, order.key, order.ascending
        self.rank: ColumnElement[Any] | None = None
        self.table: Any = None
        self.value: ColumnElement[Any]
        if order.kind == "attribute":
            self.value = ATTRIBUTES[order.key]
            if order.key == "end_time":
                self.rank = sa.case((self.value.is_(None), 2), else_=0)
        else:
            self.table = VALUES[order.kind].alias(f"order_{number}")
            self.value = self.table.c.value
            nan = ((self.table.c.is_nan, 1),) if order.kind == "metric" else ()
            self.rank = sa.case((self.table.c.run.is_(None), 2), *nan, else_=0)

    def columns(self) -> list[ColumnElement[Any]]:
        return [ZERO if self.rank is None else self.rank, self.value]

    def by(self) -> list[ColumnElement[Any]]:
        value = self.value.asc() if self.ascending else self.value.desc()
        return [value] if self.rank is None else [self.rank.asc(), value]

    def joined(self, source: Any) -> Any:
        if self.table is None:
            return source
        return source.outerjoin(self.table, sa.and_(self.table.c.run == runs.c.key, self.table.c.key == self.key))

    def starting(self, started: ColumnElement[Any]) -> "Term":
        """The same term, with the start of the run taken from another column that holds it."""
        if (self.kind, self.key) != (STARTED.kind, STARTED.key):
            return self
        term = Term(Order(self.kind, self.key, self.ascending), 0)
        term.value = started
        return term

    def fits(self, rank: Any, value: Any) -> bool:
        """Whether a position can hold these."""
        if type(rank) is not int or rank not in (0, 1, 2) or (rank and self.rank is None):
            return False
        if rank == 2:
            return value is None
        if isinstance(self.value.type, sa.Double):
            return type(value) is float and value == value
        if isinstance(self.value.type, sa.BigInteger):
            return type(value) is int and -(2**63) <= value < 2**63
        return type(value) is str and is_storable(value)


class Part(NamedTuple):
    """What is searched at a time: the runs of one experiment in one stage of life."""

    experiment: int
    lifecycle: Lifecycle

    @property
    def there(self) -> Condition:
        return sa.and_(runs.c.experiment == self.experiment, runs.c.lifecycle == self.lifecycle)


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """Runs along one index.

    ``along`` is the table of the index, ``source`` it and what is joined to it; ``lead`` is what the index orders by
    first within ``within``, ``rest`` what is ordered by after that. ``tests`` are left to be asked. ``tie`` makes the
    test that a run has just this value.
    """

    along: Any
    source: Any
    key: Key
    within: list[Condition]
    lead: Term | None
    rest: list[Term]
    columns: list[ColumnElement[Any]]
    tests: list[Test]
    tie: Callable[[Any], Test]
    begin: Condition = sa.true()
    begin_along: Condition = sa.true()

    @property
    def goes_on(self) -> bool:
        """Whether the index is in the right order among runs of one value, which is by start, then by id."""
        left = [term.order for term in self.rest]
        by_start = self.lead is not None and (self.lead.kind, self.lead.key) == (STARTED.kind, STARTED.key)
        return left == ([ID] if by_start else [STARTED, ID])

    def statement(self, conditions: Iterable[Condition], limit: int) -> sa.Select[Any]:
        by = [column for term in self.rest for column in term.by()]
        if self.lead is not None:
            by.insert(0, directed(self.lead))
        found = sa.select(runs.c.key, *self.columns).select_from(self.source)
        return found.where(*self.within, self.begin, *conditions).order_by(*by).limit(limit)

    def at(self, value: Any) -> "Walk":
        """The walk among the runs that have just this value."""
        assert self.lead is not None
        within = [*self.within, self.lead.value == value]
        return msgspec.structs.replace(self, within=within, lead=None, begin=sa.true(), begin_along=sa.true())

    def after(self, position: Position | None) -> "Walk":
        """The walk from a position among its rows."""
        if position is None:
            return self
        pairs = pairs_of(self.rest, position[2:])
        if self.lead is not None:
            pairs.insert(0, (self.lead.value, self.lead.ascending, position[1]))
        return msgspec.structs.replace(self, begin=matching.after(pairs), begin_along=matching.from_(*pairs[0]))

    def beyond(self, value: Any) -> "Walk":
        """The walk after the runs that have this value for what the walk is ordered by."""
        lead = self.lead or self.rest[0]
        begin = lead.value > value if lead.ascending else lead.value < value
        return msgspec.structs.replace(self, begin=begin, begin_along=begin)

    def first(self, limit: int, columns: Iterable[Condition]) -> sa.Select[Any]:
        """What these conditions say of the first runs along the index."""
        by = self.lead or self.rest[0]
        named: list[Any] = [column.label(f"passes_{number}") for number, column in enumerate(columns)]
        found = sa.select(*named).select_from(self.source).where(*self.within, self.begin_along)
        return found.order_by(directed(by)).limit(limit)

    def ahead(self, skip: int = 0) -> sa.Select[Any]:
        """The value after so many rows along the index, whatever is asked of them."""
        by = self.lead or self.rest[0]
        found = sa.select(by.value).select_from(self.along).where(*self.within, self.begin_along)
        return found.order_by(directed(by)).limit(1).offset(skip)


class Ahead(NamedTuple):
    """What lies along the index of a walk: the values at its beginning, after the first stretch, and after ``TIED``
    runs; the tests that an index serves, and how many of the first ``SAMPLE`` runs pass each, the fewest first. SQLite
    does without the last: it asks a run in a quarter of the time."""

    value: Any
    end: Any
    further: Any
    tests: list[Test]
    passing: list[int]

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


def pairs_of(terms: Sequence[Term], after: Position) -> list[tuple[ColumnElement[Any], bool, Any]]:
    """What a position says, column by column."""
    pairs: list[tuple[ColumnElement[Any], bool, Any]] = []
    for term, rank, value in zip(terms, after[::2], after[1::2], strict=True):
        if term.rank is not None:
            pairs.append((term.rank, True, rank))
        if rank == 0:
            pairs.append((term.value, term.ascending, value))
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
