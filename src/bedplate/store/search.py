"""Search: filters and orders become statements whose cost follows the page, not the number of runs.

Runs of one experiment are found in one of two ways. Where some comparison of the filter finds few of them in its own
index, those are *gathered* and sorted. How many it finds is counted first, no further than where it stops mattering.
Where every comparison finds many, the index of the key that is ordered by is *walked*, and each run along it is asked
whether it matches; on PostgreSQL, where asking takes long, it is first looked for among those that the rarest
comparison finds, as a few runs tell beforehand. Should a stretch of the walk promise too few, the filter's own findings
are made into sets, and the walk looks there. Runs without a value for the key come last, and are walked in the order of
what is left to order by.

A page begins after the values of the row that the last one ended with, so the last page costs what the first one costs.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store import datasets, matching
from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import Clause, Order
from bedplate.store.lacking import Lacking
from bedplate.store.matching import Condition
from bedplate.store.schema import runs
from bedplate.store.sql import Repository, plain
from bedplate.store.walks import (
    ATTRIBUTES,
    SAMPLE,
    VALUES,
    ZERO,
    Ahead,
    Key,
    Part,
    Position,
    Term,
    Test,
    Walk,
    check,
    pairs_of,
    sort_key,
    terms_of,
)

FEW, FEW_PAGES = 2_000, 4
"""So many runs, or so many pages if that is more, are gathered and sorted rather than looked for along an index."""
STRETCH, STRETCHES = 8, 64
"""A walk asks run by run for a stretch of so many pages' worth of runs, and goes on if this many should be enough."""
LOOKED_UP, BOUND = 1_000, 8
"""PostgreSQL takes as long to ask one run as to read some twenty from an index. So of this many runs it is asked first
whether they are among those that the rarest test finds, if these are no more than so many times as many."""
TIED = 2_000
"""So many runs of one value are a search of their own, as sorting them anew for each page would take too long."""
SET = 50_000
"""Of more runs than this, SQLite makes no set to look in."""

_INDEXED = frozenset({"run_id", "run_name", "status", "start_time", "end_time"})
_WALKED = frozenset({"run_name", "status", "start_time", "end_time"})
_RUN_NAME_TAG = "mlflow.runName"
_MORE_MEMORY = sa.text("SET LOCAL work_mem = '64MB'")
_ONE: ColumnElement[int] = sa.literal_column("1")


class Search(Repository):
    """``tx.search``."""

    # ------------------------------------------------------------------------------------------------------------ runs

    def runs(
        self,
        within: Sequence[int],
        clauses: Sequence[Clause],
        orders: Sequence[Order],
        *,
        lifecycles: Sequence[Lifecycle],
        limit: int,
        after: Position | None = None,
    ) -> tuple[list[int], Position | None]:
        """Keys of the runs of these experiments that match, in order, and where the next page begins if there is one.

        Runs equal in ``orders`` come by start, newest first, then by id. Runs that lack a value come last, after those
        with NaN.

        Raises:
            InputError: ``after`` is no position in this order.
        """
        terms = terms_of(orders)
        check(terms, after)
        parts = [Part(experiment, lifecycle) for experiment in dict.fromkeys(within) for lifecycle in lifecycles]
        found: list[tuple[Any, ...]] = []
        for part in parts:
            tests = [self._test(clause, part) for clause in clauses]
            found += self._ordered(part, tests, terms, limit + 1, after)
        if len(parts) > 1:
            found.sort(key=lambda row: sort_key(terms, row[1:]))
        page = found[:limit]
        return [row[0] for row in page], tuple(page[-1][1:]) if len(found) > limit else None

    def _ordered(
        self, part: Part, tests: list[Test], terms: list[Term], limit: int, after: Position | None
    ) -> list[tuple[Any, ...]]:
        """The first rows of a part: the key of a run, then rank and value of every term."""
        alive = Test(_fact(runs.c.lifecycle == part.lifecycle), sa.select(runs.c.key).where(part.there))
        most = max(FEW, FEW_PAGES * limit)
        counts = self._counts([alive, *tests], most + 1)
        fewest = min((alive, *tests), key=lambda test: counts.get(test, most + 1))
        least = counts.get(fewest, most + 1)
        if least == 0:
            return []
        first, rest = terms[0], terms[1:]
        if least <= most or (first.kind == "attribute" and first.key not in _WALKED):
            if least > most:
                return self._gather(part, None, tests, terms, limit, after)
            return self._gather(part, fewest, [alive, *tests], terms, limit, after)
        rows: list[tuple[Any, ...]] = []
        for rank, walk in self._walks(part, first, rest, tests):
            if after is None or after[0] <= rank:
                begin = after if after is not None and after[0] == rank else None
                rows += self._follow(part, tests, rank, walk, rest, limit - len(rows), begin)
            if len(rows) >= limit:
                return rows
        if first.rank is not None:
            lacking = self._lacking(part, first, tests)
            if lacking is not None:
                begin = after[2:] if after is not None and after[0] == 2 else None
                found = self._ordered(part, [*tests, lacking], rest, limit - len(rows), begin)
                rows += [(row[0], 2, None, *row[1:]) for row in found]
        return rows

    def _gather(
        self,
        part: Part,
        fewest: Test | None,
        tests: list[Test],
        terms: list[Term],
        limit: int,
        after: Position | None,
    ) -> list[tuple[Any, ...]]:
        """Sort what one test finds, or all there is."""
        source: Any = runs
        for term in terms:
            source = term.joined(source)
        if fewest is None or fewest.found is None:
            conditions = [part.there, *self._sets(runs.c.key, tests)]
        else:
            conditions = [test.asked(runs.c.key) for test in tests if test is not fewest]
            if self._postgresql:
                # An array, as the planner takes an IN for a join and may read all runs for it.
                conditions.append(runs.c.key == sa.any_(sa.func.array(fewest.found.scalar_subquery())))
            else:
                conditions.append(runs.c.key.in_(fewest.found))
        if after is not None:
            conditions.append(matching.after(pairs_of(terms, after)))
        statement = sa.select(runs.c.key, *(column for term in terms for column in term.columns()))
        by = [column for term in terms for column in term.by()]
        return self._rows(statement.select_from(source).where(*conditions).order_by(*by).limit(limit))

    def _walks(self, part: Part, first: Term, rest: list[Term], tests: list[Test]) -> Iterator[tuple[int, Walk]]:
        """The walks that together pass in order all runs that have a value, each with the rank of the value."""
        if first.table is None:
            source: Any = runs
            for term in rest:
                source = term.joined(source)

            def same(value: Any) -> Test:
                return Test(_fact(first.value == value), sa.select(runs.c.key).where(part.there, first.value == value))

            yield (
                0,
                Walk(
                    along=runs,
                    source=source,
                    key=runs.c.key,
                    within=[part.there] if first.rank is None else [part.there, first.value.is_not(None)],
                    lead=first,
                    rest=rest,
                    columns=[ZERO, first.value, *(column for term in rest for column in term.columns())],
                    tests=tests,
                    tie=same,
                ),
            )
            return
        table = first.table.c
        rest_here = [term.starting(table.started) for term in rest]
        source = first.table.join(runs, runs.c.key == table.run)
        for term in rest_here:
            source = term.joined(source)
        here = [test for test in tests if test.of == (first.kind, first.key) and test.on is not None]
        within = [table.experiment == part.experiment, table.key == first.key]
        within += [test.on(first.table) for test in here if test.on is not None]
        left = [Test(_fact(runs.c.lifecycle == part.lifecycle)), *(test for test in tests if test not in here)]
        for rank in (0, 1) if first.kind == "metric" else (0,):
            marks = _marks(first, first.table, rank)
            yield (
                rank,
                Walk(
                    along=first.table,
                    source=source,
                    key=table.run,
                    within=[*within, *marks],
                    lead=first,
                    rest=rest_here,
                    columns=[(ZERO, _ONE)[rank], table.value, *(column for term in rest for column in term.columns())],
                    tests=left,
                    tie=partial(self._tie, part, first, rank),
                ),
            )

    def _lacking(self, part: Part, first: Term, tests: list[Test]) -> Test | None:
        """The test that a run has no value for a key; None if every run that passes the others has one."""
        if first.table is None:
            lacking = first.value.is_(None)
            return Test(_fact(lacking), sa.select(runs.c.key).where(part.there, lacking))
        if any(test.of == (first.kind, first.key) for test in tests):
            return None
        table = VALUES[first.kind]
        asked = self._has(table, table.c.key == first.key, there=False)
        few = Lacking(self._connection).runs(part.experiment, table, first.key)
        if few is None:
            return Test(asked)
        keys = matching.among(runs.c.key, few, postgresql=self._postgresql)
        return Test(_fact(keys), sa.select(runs.c.key).where(part.there, keys)) if few else None

    def _follow(
        self,
        part: Part,
        tests: list[Test],
        rank: int,
        walk: Walk,
        rest: list[Term],
        limit: int,
        position: Position | None,
    ) -> list[tuple[Any, ...]]:
        """The first rows of a walk. Where very many runs have one value, they are a search of their own."""
        rows: list[tuple[Any, ...]] = []
        whole, walk = walk, walk.after(position)
        while True:
            left = limit - len(rows)
            ahead = self._look_ahead(walk, left)
            value = ahead.value
            if value is None:
                return rows
            if ahead.further is None or ahead.further != value:
                return rows + self._scan(walk, left, ahead)
            begin = position if position is not None and position[1] == value else None
            if whole.goes_on:
                tied = whole.at(value).after(begin)
                rows += self._scan(tied, left, self._look_ahead(tied, left))
            else:
                after = None if begin is None else begin[2:]
                found = self._ordered(part, [*tests, whole.tie(value)], rest, left, after)
                rows += [(row[0], rank, value, *row[1:]) for row in found]
            if len(rows) >= limit:
                return rows
            walk = whole.beyond(value)

    def _scan(self, walk: Walk, limit: int, ahead: "Ahead") -> list[tuple[Any, ...]]:
        """The first rows of a walk: each run is asked while that promises enough, then tests are made sets."""
        if not ahead.tests:
            return self._rows(walk.statement([test.asked(walk.key) for test in walk.tests], limit))
        rows: list[tuple[Any, ...]] = []
        lead = walk.lead or walk.rest[0]
        passed, stretch, end = 0, STRETCH * limit, ahead.end
        if end is not None and ahead.needed(limit) > stretch:
            stretch = min(ahead.needed(limit) * 3 // 2, STRETCHES * limit)
            (end,) = self._look(walk, stretch)
        while True:
            asked = self._asked(walk, ahead, stretch)
            if end is None:
                return rows + self._rows(walk.statement(asked, limit - len(rows)))
            within = matching.from_(lead.value, not lead.ascending, end)
            rows += self._rows(walk.statement([within, *asked], limit - len(rows)))
            if len(rows) >= limit:
                return rows
            walk = walk.beyond(end)
            passed += stretch
            expected = passed * (limit - len(rows)) // max(len(rows), 1)
            if passed + expected >= STRETCHES * limit:
                break
            stretch = expected + expected // 2  # they come unevenly
            (end,) = self._look(walk, stretch)
        sets = self._sets(walk.key, walk.tests)
        return rows + self._rows(walk.statement(sets, limit - len(rows)))

    def _asked(self, walk: Walk, ahead: "Ahead", stretch: int) -> list[Condition]:
        """The tests as they are asked of so many runs, those that let the fewest through first."""
        rarest, *others = ahead.tests
        if not (self._postgresql and stretch >= LOOKED_UP) or (rarest.of_run and walk.along is runs):
            unfound = [test for test in walk.tests if test.found is None]
            return [test.asked(walk.key) for test in [*ahead.tests, *unfound]]
        # So written, it is looked up first: PostgreSQL takes it for what costs most.
        there = _looked_up(rarest, walk.key, BOUND * stretch)
        then = [test.asked(walk.key) for test in others if not test.of_run]
        last = [test.asked(walk.key) for test in walk.tests if test.of_run or test.found is None]
        return [sa.case((there, sa.and_(sa.true(), *then)), else_=sa.false()), *last]

    def _look_ahead(self, walk: Walk, limit: int) -> "Ahead":
        """What lies along the index, and on PostgreSQL how many of the first runs pass each test."""
        finding = [test for test in walk.tests if test.found is not None]
        values = [walk.ahead(skip).scalar_subquery() for skip in (0, STRETCH * limit, TIED)]
        if not (finding and self._postgresql):
            value, end, further = self._connection.execute(sa.select(*values)).one()
            return Ahead(value, end, further, finding, [])
        first = walk.first(SAMPLE, [test.asked(walk.key) for test in finding]).subquery()
        passing = [sa.func.count(sa.case((column, 1))) for column in first.c]
        looked = sa.select(*values, *passing).select_from(first)
        value, end, further, *counts = self._connection.execute(looked).one()
        tests = sorted(zip(counts, finding, strict=True), key=lambda each: each[0])
        return Ahead(value, end, further, [test for _, test in tests], [count for count, _ in tests])

    def _look(self, walk: Walk, *skips: int) -> tuple[Any, ...]:
        """The values after so many rows along the index."""
        ahead = sa.select(*(walk.ahead(skip).scalar_subquery() for skip in skips))
        return tuple(self._connection.execute(ahead).one())

    def _sets(self, key: Key, tests: Sequence[Test]) -> list[Condition]:
        """The tests by what each finds in its index, where that makes a set to look in quickly enough."""
        if self._postgresql:
            self._connection.execute(_MORE_MEMORY)
            # So written, it is a set to look in, not a join to be planned.
            return [test.asked(key) if test.found is None else key.in_(test.found).is_(True) for test in tests]
        counts = self._counts(tests, SET + 1)
        # So written, it does not choose the index.
        return [
            test.asked(key) if test.found is None or counts[test] > SET else (key + 0).in_(test.found) for test in tests
        ]

    def _test(self, clause: Clause, part: Part) -> Test:
        kind, key, comparator, value = clause.kind, clause.key, clause.comparator, clause.value
        if kind == "attribute" and key == "run_name":
            return self._test(Clause("tag", _RUN_NAME_TAG, comparator, value), part)
        if kind == "attribute":
            column = ATTRIBUTES[key]
            if isinstance(value, int | float):
                so = matching.whole(column, comparator, value)
            else:
                so = matching.text(column, comparator, value, postgresql=self._postgresql)
            found = sa.select(runs.c.key).where(part.there, so) if key in _INDEXED else None
            return Test(_fact(so), found, of_run=True)
        if kind == "dataset":
            read = partial(datasets.was_read, clause, postgresql=self._postgresql)
            return Test(read, datasets.readers(clause, part.experiment, postgresql=self._postgresql))
        table = VALUES[kind]
        named = table.c.key == key
        found = sa.select(table.c.run).where(table.c.experiment == part.experiment, named)
        if comparator == "IS NULL":
            return Test(self._has(table, named, there=False))
        if comparator == "IS NOT NULL":
            return Test(self._has(table, named), found, of=(kind, key), on=lambda _: sa.true())

        def on(values: Any) -> Condition:
            if kind == "param" or kind == "tag":
                return matching.long_text(values, comparator, str(value), postgresql=self._postgresql)
            assert isinstance(value, int | float)
            compared = matching.real(values.c.value, comparator, value)
            # NaN is stored as 0, and equals nothing.
            return sa.or_(compared, values.c.is_nan) if comparator == "!=" else sa.and_(compared, ~values.c.is_nan)

        asked = self._has(table, named, on(table))
        if comparator in ("LIKE", "ILIKE"):
            parts = matching.patterns(table, comparator, str(value), postgresql=self._postgresql)
            return Test(asked, sa.union_all(*(found.where(part) for part in parts)), of=(kind, key), on=on)
        return Test(asked, found.where(on(table)), of=(kind, key), on=on)

    def _tie(self, part: Part, term: Term, rank: int, value: Any) -> Test:
        """The test that a run has just this value for the key of a term."""
        table = VALUES[term.kind]
        same = [table.c.key == term.key, table.c.value == value, *_marks(term, table, rank)]
        asked = self._has(table, *same)
        return Test(asked, sa.select(table.c.run).where(table.c.experiment == part.experiment, *same))

    def _has(self, table: sa.Table, *conditions: Condition, there: bool = True) -> Callable[[Key], Condition]:
        """Whether the run at hand has a row in this table that meets the conditions."""

        def asked(key: Key) -> Condition:
            found = sa.select(_ONE).where(table.c.run == key, *conditions).correlate_except(table)
            if not self._postgresql:
                return found.exists() if there else ~found.exists()
            # So written, what is found in no index is asked for each run or looked up in a set, where it might become
            # a join of all runs; and the rest is asked for each run, as only we know how few there are, and make sets.
            return found.offset(0).exists() if there else found.exists().is_(False)

        return asked

    def _counts(self, tests: Sequence[Test], most: int) -> dict[Test, int]:
        """How many runs each of the tests finds that can, counted up to ``most``."""
        finding = [test for test in tests if test.found is not None]
        counted = [sa.select(sa.func.count()).select_from(_limited(test, most)) for test in finding]
        if not counted:
            return {}
        row = self._connection.execute(sa.select(*(each.scalar_subquery() for each in counted))).one()
        return dict(zip(finding, row, strict=True))

    def _rows(self, statement: sa.Select[Any]) -> list[tuple[Any, ...]]:
        return plain(self._connection.execute(statement))


def _looked_up(test: Test, key: Key, bound: int) -> Condition:
    """A test by what it finds in its index, if that is no more than ``bound``; else it is asked, now or of the run."""
    few = _limited(test, bound + 1)
    number = sa.select(sa.func.count()).select_from(few).scalar_subquery()
    there = key.in_(sa.select(*few.c)).is_(True)
    return sa.case((number <= bound, there), else_=sa.true() if test.of_run else test.asked(key))


def _fact(condition: Condition) -> Callable[[Key], Condition]:
    """What the row of the run itself tells, whichever column its key is in."""
    return lambda _: condition


def _marks(term: Term, table: Any, rank: int) -> list[Condition]:
    return [table.c.is_nan == (sa.true() if rank else sa.false())] if term.kind == "metric" else []


def _limited(test: Test, most: int) -> sa.FromClause:
    assert test.found is not None
    return test.found.limit(most).cte()
