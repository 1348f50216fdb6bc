"""Runs without the value that is ordered by are known without a look at every run, whatever changed since the last."""

import ast
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store, Transaction, lacking, schema
from bedplate.store.sql import Upsert
from bedplate.tracking import experiments, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends
from bedplate.tracking.validation import Metric, Param, Tag

SOURCE = Path(lacking.__file__).parents[1]
WORKSPACE, EXPERIMENT = "default", "0"
ORDERS = ("metrics.m DESC", "params.p", "tags.t")


class Tracked:
    """A store whose changes are in a ledger, and what the runs of an experiment have."""

    def __init__(self, store: Store, appends: Appends, by: Actor) -> None:
        self.store, self.appends, self.by = store, appends, by
        self.has: dict[str, set[str]] = {}

    def begin(self, name: str = "") -> str:
        """Begin a run."""
        with self.store.transaction() as tx:
            run = runs.create(tx, WORKSPACE, EXPERIMENT, by=self.by, name=name).runs[0].id
        self.has[run] = set()
        return run

    def give(self, run: str, what: str) -> None:
        """Log one of m, p and t."""
        with self.store.transaction() as tx:
            if what == "t":
                runs.set_tag(tx, WORKSPACE, run, Tag("t", "x"), by=self.by)
            else:
                metrics, params = ([Metric("m", 1.0, 0, 0)], []) if what == "m" else ([], [Param("p", "x")])
                assert self.appends.write(tx, [Appended(WORKSPACE, run, "ana", metrics=metrics, params=params)]) == [
                    None
                ]
        self.has[run].add(what)

    def take(self, run: str) -> None:
        """Take its tag from a run."""
        with self.store.transaction() as tx:
            runs.delete_tag(tx, WORKSPACE, run, "t", by=self.by)
        self.has[run].remove("t")

    def tail(self, what: str, tx: Transaction | None = None) -> set[str]:
        """The runs that come last, ordered by one of m, p and t, found page by page."""
        if tx is None:
            with self.store.read() as own:
                return self.tail(what, own)
        order = ORDERS["mpt".index(what)]
        found: list[str] = []
        token = None
        while True:
            page = runs.listed(tx, WORKSPACE, [EXPERIMENT], order_by=[order], max_results=7, page_token=token)
            found += [run.id for run in page.runs]
            token = page.next_page_token
            if token is None:
                break
        assert sorted(found) == sorted(self.has)
        have = sum(what in had for had in self.has.values())
        return set(found[have:])

    def lacks(self, what: str) -> set[str]:
        """What :meth:`tail` should be."""
        return {run for run, had in self.has.items() if what not in had}


@pytest.fixture
def tracked(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tracked]:
    """Walked along indexes, as with many runs."""
    with closing(Ledger(store, tmp_path / "ledger", Signer(new_key("test")))) as ledger:
        monkeypatch.setattr("bedplate.store.search.FEW", 0)
        monkeypatch.setattr("bedplate.store.search.FEW_PAGES", 0)
        yield Tracked(store, Appends(store, ledger), Actor(ledger=ledger, name="ana"))


@pytest.mark.parametrize("listed", [0, 5, 2_000])
def test_who_comes_last_is_right_after_every_change(
    tracked: Tracked, listed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lacking, "LISTED", listed)
    monkeypatch.setattr(lacking, "NAMED", 12)
    chance = random.Random(listed)
    for _ in range(25):
        run, what = chance.choice(list(tracked.has) or [tracked.begin()]), chance.choice("mpt")
        if chance.random() < 0.3:
            tracked.begin()
        elif what not in tracked.has[run]:
            tracked.give(run, what)
        elif what == "t":
            tracked.take(run)
        asked = chance.choice("mpt")
        assert tracked.tail(asked) == tracked.lacks(asked)


def test_a_reader_sees_what_was_there_when_it_began(tracked: Tracked) -> None:
    first, second = tracked.begin(), tracked.begin()
    tracked.give(first, "m")
    with tracked.store.read() as tx:
        assert tracked.tail("m", tx) == {second}
        before = dict(tracked.has)
        third = tracked.begin()
        tracked.give(second, "m")
        assert tracked.tail("m") == {third}

        now, tracked.has = tracked.has, {run: had - {"m"} if run == second else had for run, had in before.items()}
        assert tracked.tail("m", tx) == {second}, "although it was looked later since"

    tracked.has = now
    assert tracked.tail("m") == {third}


def test_what_is_undone_is_not_remembered(tracked: Tracked) -> None:
    first = tracked.begin()
    tracked.give(first, "m")
    assert tracked.tail("m") == set()

    def fail() -> None:
        with tracked.store.transaction() as tx:
            run = runs.create(tx, WORKSPACE, EXPERIMENT, by=tracked.by).runs[0].id
            tracked.has[run] = set()
            assert tracked.tail("m", tx) == {run}
            del tracked.has[run]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    second = tracked.begin()
    assert tracked.tail("m") == {second}


def test_what_is_known_is_bounded(tracked: Tracked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lacking, "KEPT", 2)
    run = tracked.begin()
    for what in "mpt":
        tracked.give(run, what)
        assert tracked.tail(what) == set()

    assert len(lacking._known[tracked.store._engine]) == 2


def test_whoever_begins_a_run_or_takes_a_tag_has_it_recorded() -> None:
    """That the ledger names every such run is what remembering rests on."""
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if not isinstance(function, ast.FunctionDef):
                continue
            calls = {ast.unparse(call.func) for call in ast.walk(function) if isinstance(call, ast.Call)}
            if calls & {"tx.runs.add", "tx.runs.delete_tag"}:
                found.append(f"{path.stem}.{function.name}")
                assert "by.record" in calls, found[-1]

    assert found == ["runs.create", "runs.delete_tag", "training.save"]


# ------------------------------------------------------------------------------------------------------------- its cost

MANY = 9_000


def fill(tx: Transaction) -> None:
    """Runs of which each has a metric and a param, past the repositories."""
    connection = tx._connection
    number = experiments.get(tx, WORKSPACE, EXPERIMENT).row.id
    rows: dict[sa.Table, list[tuple[Any, ...]]] = {schema.runs: [], schema.latest_metrics: [], schema.params: []}
    for key in range(1, MANY + 1):
        rows[schema.runs].append((key, f"{key:032x}", number, "n", "ana", "FINISHED", key, key, "active", None, "a:/"))
        rows[schema.latest_metrics].append((key, "m", number, key, 0, 0, key * 7919 % MANY / MANY, False))
        rows[schema.params].append((key, "p", number, key, "abc"[key % 3], None, key))
    for table, listed in rows.items():
        Upsert(table).many(connection, listed)


class Work:
    """What the statements of a block cost: blocks looked at on PostgreSQL, hundreds of steps on SQLite."""

    def __init__(self, tx: Transaction) -> None:
        self._connection = tx._connection
        self._asked: list[tuple[str, Any]] = []
        self._steps = 0

    def __enter__(self) -> "Work":
        self._raw: Any = self._connection.connection.dbapi_connection
        if self._connection.dialect.name == "sqlite":
            self._raw.set_progress_handler(self._step, 100)
            return self
        asked = self._asked

        class Noting(psycopg.Cursor[Any]):
            def execute(self, query: Any, params: Any = None, **ways: Any) -> "Noting":
                if query.startswith("SELECT"):
                    asked.append((query, params))
                return super().execute(query, params, **ways)

        self._raw.cursor_factory = Noting
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection.dialect.name == "sqlite":
            self._raw.set_progress_handler(None, 0)
        else:
            self._raw.cursor_factory = psycopg.Cursor

    def _step(self) -> None:
        self._steps += 1

    def done(self) -> int:
        """How much it was."""
        if self._connection.dialect.name == "sqlite":
            return self._steps
        total = 0
        cursor = psycopg.Cursor[Any](self._raw)
        for statement, values in self._asked:
            cursor.execute("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + statement, values)
            plan = cursor.fetchone()[0][0]["Plan"]
            total += int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])
        return total


@pytest.mark.parametrize("by", [("metrics.m DESC",), ("params.p", "metrics.m DESC")])
def test_the_last_page_costs_what_the_first_one_costs(store: Store, tmp_path: Path, by: tuple[str, ...]) -> None:
    """Counted in what is looked at, which is the same on a busy machine."""
    with closing(Ledger(store, tmp_path / "ledger", Signer(new_key("test")))) as ledger:
        with store.transaction() as tx:
            fill(tx)
            ledger.record(tx, actor="ana", action="run.import", resource="experiment/0")
        if store.postgresql:
            with store._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                connection.exec_driver_sql("VACUUM ANALYZE")
        with store.read() as tx:
            tokens: list[str | None] = [None]
            for size in (4_000, MANY - 4_020):
                page = runs.listed(tx, WORKSPACE, [EXPERIMENT], order_by=by, max_results=size, page_token=tokens[-1])
                tokens.append(page.next_page_token)
        costs = []
        for token in (*tokens, tokens[-1]):  # the last page twice: once is looked, then it is known
            with store.read() as tx, Work(tx) as work:
                page = runs.listed(tx, WORKSPACE, [EXPERIMENT], order_by=by, max_results=20, page_token=token)
                assert len(page.runs) == 20
                costs.append(work.done())
        first, middle, looked, last = costs

    assert looked > last
    assert last < 1.7 * max(first, middle), costs
