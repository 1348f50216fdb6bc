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

from bedplate.store import datasets, learnt, matching
from bedplate.store.experiments import Lifecycle
from bedplate.store.filters import Clause, Order
from bedplate.store.lacking import Lacking
from bedplate.store.learnt import Learnt
from bedplate.store.matching import Condition, Operands
from bedplate.store.schema import runs
from bedplate.store.sql import Repository, Shapes, among, param
from bedplate.store.walks import (
    ATTRIBUTES,
    EXPERIMENT,
    LIFECYCLE,
    ONE,
    SAMPLE,
    THERE,
    VALUES,
    Ahead,
    Key,
    Part,
    Position,
    Term,
    Test,
    Walk,
    check,
    marks,
    pairs_of,
    position_values,
    shapes_of,
    sort_key,
    terms_of,
    values_of,
)

FEW, FEW_PAGES = 2_000, 4
"""So many runs, or so many pages if that is more, are gathered and sorted rather than looked for along an index."""
STRETCH, STRETCHES = 8, 64
"""A walk asks run by run for a stretch of so many pages' worth of runs, and goes on if this many should be enough."""
LOOKED_UP, BOUND = 1_000, 5
"""PostgreSQL takes as long to ask one run as to read some twenty from an index. So of this many runs it is asked first
whether they are among those that the rarest test finds, if these are no more than so many times as many."""
AT_WORST = 6
"""It is seen beforehand that they are not more, unless all runs of the database would be no more than this many times
as many."""
TIED = 2_000
"""So many runs of one value are a search of their own, as sorting them anew for each page would take too long."""
SET = 50_000
"""Of more runs than this, SQLite makes no set to look in."""

_INDEXED = frozenset({"run_id", "run_name", "status", "start_time", "end_time"})
_WALKED = frozenset({"run_name", "status", "start_time", "end_time"})
_RUN_NAME_TAG = "mlflow.runName"
_MORE_MEMORY = sa.text("SET LOCAL work_mem = '64MB'")
_LIMIT, _MOST, _END = param("limit_"), param("most_"), param("end_")
_BOUND = sa.bindparam("bound_", type_=sa.BigInteger)
_SKIPS = (0, param("stretch_"), param("tied_after_"))
_statements = Shapes(1_000)


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
        tests = [self._test(clause, number) for number, clause in enumerate(clauses)]
        parts = [Part(experiment, lifecycle) for experiment in dict.fromkeys(within) for lifecycle in lifecycles]
        found: list[tuple[Any, ...]] = []
        for part in parts:
            found += self._ordered(part, tests, terms, limit + 1, after)
        if len(parts) > 1:
            found.sort(key=lambda row: sort_key(terms, row[1:]))
        page = found[:limit]
        return [row[0] for row in page], tuple(page[-1][1:]) if len(found) > limit else None

    def _ordered(
        self,
        part: Part,
        tests: list[Test],
        terms: list[Term],
        limit: int,
        after: Position | None,
        many: int = 0,
    ) -> list[tuple[Any, ...]]:
        """The first rows of a part: the key of a run, then rank and value of every term.

        No test finds so few that they are gathered, if that is known: where it takes no more than ``many`` for that.
        """
        most = max(FEW, FEW_PAGES * limit)
        known = learnt.of(
            self._connection, (part, shapes_of(terms), values_of(terms), shapes_of(tests), values_of(tests))
        )
        known.many = max(many, known.many)
        counts = self._counts(part, [_ALIVE, *tests], most + 1) if known.many < most else {}
        fewest = min((_ALIVE, *tests), key=lambda test: counts.get(test, most + 1))
        least = counts.get(fewest, most + 1)
        if least == 0:
            return []
        if counts and least > most:
            known.many = most
        first, rest = terms[0], terms[1:]
        if least <= most or (first.kind == "attribute" and first.key not in _WALKED):
            if least > most:
                return self._gather(part, None, tests, terms, limit, after)
            return self._gather(part, fewest, [_ALIVE, *tests], terms, limit, after)
        rows: list[tuple[Any, ...]] = []
        for walk in self._walks(part, first, rest, tests, known):
            begin = after if after is not None and after[0] == walk.rank else None
            if (after is None or after[0] <= walk.rank) and (walk.rank == 0 or self._look(walk, 0) is not None):
                rows += self._follow(part, tests, walk, rest, limit - len(rows), begin)
            if len(rows) >= limit:
                return rows
        if first.ranked:
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
        others = [test for test in tests if test is not fewest]
        sets = self._sets(part, others) if fewest is None else frozenset[Test]()
        ranks = None if after is None else after[::2]

        def build() -> sa.Select[Any]:
            source: Any = runs
            for term in terms:
                source = term.joined(source)
            conditions = self._by_sets(runs.c.key, others, sets)
            if fewest is None or fewest.found is None:
                conditions.append(THERE)
            elif self._postgresql:
                # An array, as the planner takes an IN for a join and may read all runs for it.
                conditions.append(runs.c.key == sa.any_(sa.func.array(fewest.found().scalar_subquery())))
            else:
                conditions.append(runs.c.key.in_(fewest.found()))
            if ranks is not None:
                conditions.append(matching.after(pairs_of(terms, ranks)))
            statement = sa.select(runs.c.key, *(column for term in terms for column in term.columns()))
            by = [column for term in terms for column in term.by()]
            return statement.select_from(source).where(*conditions).order_by(*by).limit(_LIMIT)

        shape = "gather", fewest and fewest.shape, shapes_of(others), _told(others, sets), shapes_of(terms), ranks
        values = part.values | values_of(tests) | values_of(terms) | position_values(terms, after)
        return self._ask(shape, build, values | {_LIMIT.key: limit})

    def _walks(self, part: Part, first: Term, rest: list[Term], tests: list[Test], known: Learnt) -> Iterator[Walk]:
        """The walks that together pass in order all runs that have a value."""
        values = part.values | values_of([first, *rest])
        if first.kind == "attribute":
            yield Walk(first=first, following=tuple(rest), rank=0, tests=tuple(tests), values=values, learnt=known)
            return
        here = tuple(test for test in tests if test.of == (first.kind, first.key) and test.on is not None)
        left = (_OF_STAGE, *(test for test in tests if test not in here))
        values |= values_of(here)
        for rank in (0, 1) if first.kind == "metric" else (0,):
            yield Walk(
                first=first, following=tuple(rest), rank=rank, tests=left, here=here, values=values,
                learnt=Learnt() if rank else known,
            )  # fmt: skip

    def _lacking(self, part: Part, first: Term, tests: list[Test]) -> Test | None:
        """The test that a run has no value for a key; None if every run that passes the others has one."""
        shape = len(tests), "lacking", first.shape
        if first.kind == "attribute":
            return _of_run((*shape, "attribute"), {}, lambda: ATTRIBUTES[first.key].is_(None))
        if any(test.of == (first.kind, first.key) for test in tests):
            return None
        table = VALUES[first.kind]
        few = Lacking(self._connection).runs(part.experiment, table, first.key)
        name = f"lacking_{len(tests)}_"
        if few is None:
            asked = self._has(table, lambda: [table.c.key == param(name)], there=False)
            return Test((*shape, "asked"), {name: first.key}, asked)
        keys = matching.listed(few, postgresql=self._postgresql)
        so = partial(among, runs.c.key, param(name), postgresql=self._postgresql)
        return _of_run((*shape, "few"), {name: keys}, so) if few else None

    def _follow(
        self,
        part: Part,
        tests: list[Test],
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
                return rows + self._scan(part, walk, left, ahead)
            begin = position if position is not None and position[1] == value else None
            if whole.goes_on:
                tied = whole.at(value).after(begin)
                rows += self._scan(part, tied, left, self._look_ahead(tied, left))
            else:
                after = None if begin is None else begin[2:]
                tie = self._tie(whole.first, whole.rank, value, len(tests))
                found = self._ordered(part, [*tests, tie], rest, left, after, many=TIED)
                rows += [(row[0], whole.rank, value, *row[1:]) for row in found]
            if len(rows) >= limit:
                return rows
            walk = whole.beyond(value)

    def _scan(self, part: Part, walk: Walk, limit: int, ahead: Ahead) -> list[tuple[Any, ...]]:
        """The first rows of a walk: each run is asked while that promises enough, then tests are made sets."""
        if not ahead.tests:
            return self._along(walk, limit, ("each",), lambda: [test.asked(walk.key) for test in walk.tests])
        rows: list[tuple[Any, ...]] = []
        passed, stretch, end = 0, STRETCH * limit, ahead.end
        if end is not None and ahead.needed(limit) > stretch:
            stretch = min(ahead.needed(limit) * 3 // 2, STRETCHES * limit)
            end = self._look(walk, stretch)
        while True:
            rows += self._asking(walk, ahead, stretch, end, limit - len(rows))
            if end is None or len(rows) >= limit:
                return rows
            walk = walk.beyond(end)
            passed += stretch
            expected = passed * (limit - len(rows)) // max(len(rows), 1)
            if passed + expected >= STRETCHES * limit:
                break
            stretch = expected + expected // 2  # they come unevenly
            end = self._look(walk, stretch)
        sets = self._sets(part, walk.tests)
        shape = "sets", _told(walk.tests, sets)
        return rows + self._along(walk, limit - len(rows), shape, lambda: self._by_sets(walk.key, walk.tests, sets))

    def _asking(self, walk: Walk, ahead: Ahead, stretch: int, end: Any, limit: int) -> list[tuple[Any, ...]]:
        """The first rows of a stretch that ends with a value, or with the walk, each run asked: what lets the fewest
        through first."""
        rarest, *others = ahead.tests
        looked_up = self._postgresql and stretch >= LOOKED_UP and not (rarest.of_run and walk.along_runs)
        bound = BOUND * stretch
        sure = ahead.runs <= AT_WORST * bound

        def build() -> list[Condition]:
            lead = walk.by
            within = [] if end is None else [matching.from_(lead.value, not lead.ascending, _END)]
            if not looked_up:
                unfound = [test for test in walk.tests if test.found is None]
                return [*within, *(test.asked(walk.key) for test in [*ahead.tests, *unfound])]
            # So written, it is looked up first: PostgreSQL takes it for what costs most.
            there = _looked_up(rarest, walk.key, sure=sure)
            then = [test.asked(walk.key) for test in others if not test.of_run]
            last = [test.asked(walk.key) for test in walk.tests if test.of_run or test.found is None]
            return [*within, sa.case((there, sa.and_(sa.true(), *then)), else_=sa.false()), *last]

        shape = "asking", looked_up and (sure,), end is None, shapes_of(ahead.tests)
        return self._along(walk, limit, shape, build, {_END.key: end, _BOUND.key: bound})

    def _along(
        self,
        walk: Walk,
        limit: int,
        shape: tuple[Any, ...],
        conditions: Callable[[], list[Condition]],
        more: dict[str, Any] | None = None,
    ) -> list[tuple[Any, ...]]:
        """The first rows of a walk that meet conditions."""
        values = walk.values | values_of(walk.tests) | {_LIMIT.key: limit} | (more or {})
        shape = "along", walk.shape, shapes_of(walk.tests), *shape
        return self._ask(shape, lambda: walk.statement(conditions(), _LIMIT), values)

    def _look_ahead(self, walk: Walk, limit: int) -> Ahead:
        """What lies along the index, and on PostgreSQL how many of the first runs pass each test."""
        finding = [test for test in walk.tests if test.found is not None]
        known = walk.learnt
        sampled = finding if self._postgresql and known.passing is None else []

        def build() -> sa.Select[Any]:
            values = [walk.ahead(skip).scalar_subquery() for skip in _SKIPS]
            if not sampled:
                return sa.select(*values)
            first = walk.sample(SAMPLE, sampled).subquery()
            passing = [sa.func.count(sa.case((column, 1))) for column in first.c]
            return sa.select(*values, sa.select(sa.func.max(runs.c.key)).scalar_subquery(), *passing).select_from(first)

        values = walk.values | values_of(sampled) | {"stretch_": STRETCH * limit, "tied_after_": TIED}
        (row,) = self._ask(("ahead", walk.shape, shapes_of(sampled)), build, values)
        value, end, further, *more = row
        if sampled and value is not None:
            known.runs, *known.passing = more
        if known.passing is None:
            return Ahead(value, end, further, finding, [])
        tests = sorted(zip(known.passing, finding, strict=True), key=lambda each: each[0])
        return Ahead(value, end, further, [test for _, test in tests], [count for count, _ in tests], known.runs)

    def _look(self, walk: Walk, skip: int) -> Any:
        """The value after so many rows along the index; None if there are not so many."""
        values = walk.values | {"stretch_": skip}
        rows = self._ask(("look", walk.shape), lambda: walk.ahead(_SKIPS[1]), values)
        return rows[0][0] if rows else None

    def _sets(self, part: Part, tests: Sequence[Test]) -> frozenset[Test]:
        """Those of the tests for which what each finds in its index makes a set to look in quickly enough."""
        finding = [test for test in tests if test.found is not None]
        if self._postgresql:
            self._connection.execute(_MORE_MEMORY)
            return frozenset(finding)
        counts = self._counts(part, finding, SET + 1)
        return frozenset(test for test in finding if counts[test] <= SET)

    def _by_sets(self, key: Key, tests: Sequence[Test], sets: frozenset[Test]) -> list[Condition]:
        """The tests, some of them by what they find."""
        conditions: list[Condition] = []
        for test in tests:
            if test not in sets or test.found is None:
                conditions.append(test.asked(key))
            elif self._postgresql:  # so written, it is a set to look in, not a join to be planned
                conditions.append(key.in_(test.found()).is_(True))
            else:  # so written, it does not choose the index
                conditions.append((key + 0).in_(test.found()))
        return conditions

    def _test(self, clause: Clause, number: int) -> Test:
        kind, key, comparator, value = clause.kind, clause.key, clause.comparator, clause.value
        if kind == "attribute" and key == "run_name":
            return self._test(Clause("tag", _RUN_NAME_TAG, comparator, value), number)
        prefix = f"test_{number}_"
        if kind == "attribute":
            return self._attribute(clause, prefix)
        if kind == "dataset":
            operands = matching.text_operands(comparator, value, postgresql=self._postgresql)
            told = key, comparator, operands.named(prefix)
            read = partial(datasets.was_read, *told, postgresql=self._postgresql)
            readers = partial(datasets.readers, *told, EXPERIMENT, postgresql=self._postgresql)
            return Test((prefix, kind, key, comparator, operands.shape), operands.bound(prefix), read, readers)
        table, name = VALUES[kind], f"{prefix}key_"
        shape, values = (prefix, kind, comparator), {name: key}

        def named() -> list[Condition]:
            return [table.c.key == param(name)]

        def found(*conditions: Condition) -> sa.Select[Any]:
            return sa.select(table.c.run).where(table.c.experiment == EXPERIMENT, *named(), *conditions)

        if comparator == "IS NULL":
            return Test(shape, values, self._has(table, named, there=False))
        if comparator == "IS NOT NULL":
            return Test(shape, values, self._has(table, named), found, of=(kind, key), on=lambda _: sa.true())
        operands = (
            Operands(float(value))  # type: ignore[arg-type]
            if kind == "metric"
            else matching.long_text_operands(comparator, str(value), postgresql=self._postgresql)
        )

        def on(rows: Any) -> Condition:
            given = operands.named(prefix)
            if kind != "metric":
                return matching.long_text_with(rows, comparator, given, postgresql=self._postgresql)
            compared = matching.compare(rows.c.value, comparator, given.value)
            # NaN is stored as 0, and equals nothing.
            return sa.or_(compared, rows.c.is_nan) if comparator == "!=" else sa.and_(compared, ~rows.c.is_nan)

        def matching_runs() -> Any:
            if comparator not in ("LIKE", "ILIKE"):
                return found(on(table))
            parts = matching.patterns(table, comparator, operands.named(prefix), postgresql=self._postgresql)
            return sa.union_all(*(found(part) for part in parts))

        asked = self._has(table, lambda: [*named(), on(table)])
        values |= operands.bound(prefix)
        return Test((*shape, operands.shape), values, asked, matching_runs, of=(kind, key), on=on)

    def _attribute(self, clause: Clause, prefix: str) -> Test:
        column, comparator, value = ATTRIBUTES[clause.key], clause.comparator, clause.value
        if isinstance(value, int | float):
            whole, operands = matching.whole_operands(comparator, value)
            so = partial(matching.whole_with, column, whole, operands.named(prefix))
            shape: tuple[Any, ...] = (prefix, clause.key, whole, operands.shape)
        else:
            operands = matching.text_operands(comparator, value, postgresql=self._postgresql)
            given = operands.named(prefix)
            so = partial(matching.text_with, column, comparator, given, postgresql=self._postgresql)
            shape = prefix, clause.key, comparator, operands.shape
        return _of_run(shape, operands.bound(prefix), so, found=clause.key in _INDEXED)

    def _tie(self, term: Term, rank: int, value: Any, number: int) -> Test:
        """The test that a run has just this value for the key of a term."""
        name, key = f"tie_{number}_", f"tied_key_{number}_"
        shape = number, "tie", term.shape, rank
        if term.kind == "attribute":
            return _of_run(shape, {name: value}, lambda: ATTRIBUTES[term.key] == param(name))
        table = VALUES[term.kind]

        def same() -> list[Condition]:
            return [table.c.key == param(key), table.c.value == param(name), *marks(table, rank)]

        def found() -> sa.Select[Any]:
            return sa.select(table.c.run).where(table.c.experiment == EXPERIMENT, *same())

        return Test(shape, {name: value, key: term.key}, self._has(table, same), found)

    def _has(
        self, table: sa.Table, conditions: Callable[[], list[Condition]], there: bool = True
    ) -> Callable[[Key], Condition]:
        """Whether the run at hand has a row in this table that meets the conditions."""

        def asked(key: Key) -> Condition:
            found = sa.select(ONE).where(table.c.run == key, *conditions()).correlate_except(table)
            if not self._postgresql:
                return found.exists() if there else ~found.exists()
            # So written, what is found in no index is asked for each run or looked up in a set, where it might become
            # a join of all runs; and the rest is asked for each run, as only we know how few there are, and make sets.
            return found.offset(0).exists() if there else found.exists().is_(False)

        return asked

    def _counts(self, part: Part, tests: Sequence[Test], most: int) -> dict[Test, int]:
        """How many runs each of the tests finds that can, counted up to ``most``."""
        finding = [test for test in tests if test.found is not None]
        if not finding:
            return {}

        def build() -> sa.Select[Any]:
            counted = [sa.select(sa.func.count()).select_from(_limited(test)) for test in finding]
            return sa.select(*(each.scalar_subquery() for each in counted))

        values = part.values | values_of(finding) | {_MOST.key: most}
        (row,) = self._ask(("counts", shapes_of(finding)), build, values)
        return dict(zip(finding, row, strict=True))

    def _ask(
        self, shape: tuple[Any, ...], build: Callable[[], sa.Select[Any]], values: dict[str, Any]
    ) -> list[tuple[Any, ...]]:
        """What the statement of a shape finds. It is built for the first question of the shape."""
        return _statements.on(self._connection, shape, build).rows(self._connection, values)


def _looked_up(test: Test, key: Key, *, sure: bool) -> Condition:
    """A test by what it finds in its index, if that is no more than a bound; else it is asked, now or of the run."""
    assert test.found is not None
    if sure:
        return key.in_(test.found()).is_(True)
    # Twice through the index takes less than what is found takes to be kept, as it were if both were of one CTE.
    more = test.found().limit(1).offset(_BOUND).scalar_subquery()
    there = key.in_(test.found().limit(_BOUND)).is_(True)
    return sa.case((more.is_(None), there), else_=sa.true() if test.of_run else test.asked(key))


def _of_run(
    shape: tuple[Any, ...], values: dict[str, Any], condition: Callable[[], Condition], *, found: bool = True
) -> Test:
    """What the row of the run itself tells, whichever column its key is in."""
    there = (lambda: sa.select(runs.c.key).where(THERE, condition())) if found else None
    return Test(shape, values, lambda _: condition(), there, of_run=True)


def _limited(test: Test) -> sa.Subquery:
    assert test.found is not None
    return test.found().limit(_MOST).subquery()


def _told(tests: Sequence[Test], sets: frozenset[Test]) -> tuple[bool, ...]:
    """Which of the tests are sets."""
    return tuple(test in sets for test in tests)


_ALIVE = Test(("alive",), {}, lambda _: runs.c.lifecycle == LIFECYCLE, lambda: sa.select(runs.c.key).where(THERE))
_OF_STAGE = Test(("stage",), {}, lambda _: runs.c.lifecycle == LIFECYCLE)
