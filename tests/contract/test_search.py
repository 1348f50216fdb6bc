"""Search gives what a naive reading of filter and order gives, page by page, on SQLite and on PostgreSQL."""

import math
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate import store as stores
from bedplate.store import Store, lacking, search
from bedplate.store.filters import Clause, Order
from bedplate.store.schema import HEAD_LENGTH
from tests.laws import examples

pytestmark = pytest.mark.slow

RUNS = 160
LONG = "w" * (HEAD_LENGTH - 1)
TEXTS = ("", "a", "A", "ab", "a_b", "a%b", "B", "é", "[x]", "a*", "😀", LONG, LONG + "w", LONG + "wx", LONG + "wy")
NUMBERS = (0.0, -0.0, 1.0, 0.5, -3.25, 1e300, math.inf, -math.inf, math.nan, 5e-324)
STATUSES = ("RUNNING", "FINISHED", "FAILED")
PAGE = 23


class Known:
    """One run as the naive reading sees it."""

    def __init__(self, key: int, attributes: dict[str, Any], deleted: bool) -> None:
        self.key = key
        self.attributes = attributes
        self.deleted = deleted
        self.metrics: dict[str, float] = {}
        self.params: dict[str, str] = {}
        self.tags: dict[str, str] = {}

    def __repr__(self) -> str:
        return str(self.key)

    def value(self, kind: str, key: str) -> Any:
        """What the run has, or None."""
        of = {"attribute": self.attributes, "metric": self.metrics, "param": self.params, "tag": self.tags}[kind]
        return of.get(key)


def fill(store: Store, chance: random.Random) -> dict[int, list[Known]]:
    """Two experiments of runs that have few different values, so that many are equal."""
    known: dict[int, list[Known]] = {}
    with store.transaction() as tx:
        other = tx.experiments.add("default", "other", now=0).id
        position = 0
        for number in range(RUNS):
            experiment = other if number % 8 == 0 else 0
            name, started = f"run {chance.randrange(20)}", chance.choice((0, 5, 5, 5, 9, chance.randrange(100)))
            identifier = f"{chance.getrandbits(128):032x}"
            row = tx.runs.add(
                identifier, experiment, name=name, user_id="ana", started=started, artifact_uri="s3://b/" + name
            )
            status, ended = chance.choice(STATUSES), chance.choice((None, 10, 11))
            tx.runs.update(row.key, name=name, status=status, ended=ended)
            deleted = chance.random() < 0.1
            if deleted:
                tx.runs.mark(row.key, "deleted", deleted=1)
            run = Known(
                row.key,
                {
                    "run_id": identifier, "run_name": name, "user_id": "ana", "status": status, "start_time": started,
                    "end_time": ended, "artifact_uri": "s3://b/" + name,
                },
                deleted,
            )  # fmt: skip
            run.tags["mlflow.runName"] = name
            for key in ("m", "n"):
                if chance.random() < 0.8:
                    run.metrics[key] = chance.choice(NUMBERS)
            for key in ("p", "q"):
                if chance.random() < 0.8:
                    run.params[key] = chance.choice(TEXTS)
            if chance.random() < 0.8:
                run.tags["t"] = chance.choice(TEXTS)
            tx.runs.set_tags(row, run.tags.items())
            position += 10
            tx.runs.add_params(row, [(key, value, position + n) for n, (key, value) in enumerate(run.params.items())])
            tx.metrics.log(
                [
                    (row.key, experiment, started, key, value, 1, 0, position + n)
                    for n, (key, value) in enumerate(run.metrics.items())
                ]
            )
            known.setdefault(experiment, []).append(run)
    return known


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def filled(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Store, dict[int, list[Known]]]]:
    """A store with runs, and the same runs in memory."""
    location: Path | str = tmp_path_factory.mktemp("search") / "test.db"
    if request.param == "postgresql":
        location = str(request.getfixturevalue("postgresql").store())
    store = stores.open(location)
    yield store, fill(store, random.Random(11))
    store.close()


# ---------------------------------------------------------------------------------------------------- the naive reading


def like(value: str, pattern: str, *, ignoring: bool) -> bool:
    """LIKE, where % and _ are all there is, and ILIKE, where A to Z have no case."""
    if ignoring:
        value, pattern = value.translate(LOWER), pattern.translate(LOWER)
    parts = (".*" if sign == "%" else "." if sign == "_" else re.escape(sign) for sign in pattern)
    return re.fullmatch("".join(parts), value, re.DOTALL) is not None


LOWER = {ord(upper): ord(upper) + 32 for upper in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"}


def matches(run: Known, clause: Clause) -> bool:
    """Whether a run passes one comparison."""
    kind, key, comparator, wanted = clause.kind, clause.key, clause.comparator, clause.value
    value = run.value("tag", "mlflow.runName") if key == "run_name" else run.value(kind, key)
    if comparator in ("IS NULL", "IS NOT NULL"):
        return (value is None) == (comparator == "IS NULL")
    if value is None:
        return False
    match comparator:
        case "LIKE" | "ILIKE":
            return like(value, str(wanted), ignoring=comparator == "ILIKE")
        case "IN" | "NOT IN":
            return (value in wanted) == (comparator == "IN")  # type: ignore[operator]
        case "=":
            return bool(value == wanted)
        case "!=":
            return bool(value != wanted)
        case "<":
            return bool(value < wanted)
        case "<=":
            return bool(value <= wanted)
        case ">":
            return bool(value > wanted)
    return bool(value >= wanted)


def naive(runs: list[Known], clauses: list[Clause], orders: list[Order]) -> list[int]:
    """The keys of the runs that match, in order."""
    found = [run for run in runs if all(matches(run, clause) for clause in clauses)]
    found.sort(key=lambda run: run.attributes["run_id"])
    if not any(order.key == "start_time" for order in orders):
        found.sort(key=lambda run: -run.attributes["start_time"])
    for order in reversed(orders):
        values = {run.key: run.value(order.kind, order.key) for run in found}
        if order.kind in ("param", "tag"):
            values = {key: value and value[:HEAD_LENGTH] for key, value in values.items()}
        have = [run for run in found if values[run.key] is not None and values[run.key] == values[run.key]]
        nan = [run for run in found if values[run.key] is not None and values[run.key] != values[run.key]]
        lack = [run for run in found if values[run.key] is None]
        have.sort(key=lambda run: values[run.key], reverse=not order.ascending)
        if not order.ascending:  # reversing also reverses equals, which are to keep their order
            have = stable_descending([run for run in found if run in have], values)
        found = [*have, *nan, *lack]
    return [run.key for run in found]


def stable_descending(runs: list[Known], values: dict[int, Any]) -> list[Known]:
    """Sorted by value, the greatest first; equals stay as they are."""
    distinct = sorted({values[run.key] for run in runs}, reverse=True)
    return [run for value in distinct for run in runs if values[run.key] == value]


# ------------------------------------------------------------------------------------------------------------ questions

numbers = st.sampled_from([0.0, 1.0, 0.5, -3.25, 1e300, math.inf, -math.inf, 2.0])
times = st.sampled_from([0, 5, 9, 10, 5.5, -1, 2**63, 1e30, -1e30, 10.0])
patterns = st.sampled_from(
    ["%", "a%", "A%", "_", "%b", "a_b", "a%b", "%[x]%", "*", "", "é", "w%", LONG + "%", LONG + "wx", "%wy", "\\%"]
)
texts = st.sampled_from([*TEXTS, "nothing", "'; DROP TABLE runs; --"])
comparators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])


def told(kind: str, keys: list[str]) -> st.SearchStrategy[Clause]:
    """Comparisons of texts."""
    return st.one_of(
        st.builds(Clause, st.just(kind), st.sampled_from(keys), st.sampled_from(["=", "!="]), texts),
        st.builds(Clause, st.just(kind), st.sampled_from(keys), st.sampled_from(["LIKE", "ILIKE"]), patterns),
        st.builds(Clause, st.just(kind), st.sampled_from(keys), st.sampled_from(["IS NULL", "IS NOT NULL"]), st.none()),
    )


clauses = st.one_of(
    st.builds(Clause, st.just("metric"), st.sampled_from(["m", "n", "z"]), comparators, numbers),
    told("param", ["p", "q", "z"]),
    told("tag", ["t", "z"]),
    st.builds(Clause, st.just("attribute"), st.sampled_from(["start_time", "end_time"]), comparators, times),
    st.builds(
        Clause, st.just("attribute"), st.sampled_from(["status", "user_id"]), st.sampled_from(["=", "!="]),
        st.sampled_from([*STATUSES, "ana"]),
    ),
    st.builds(
        Clause, st.just("attribute"), st.sampled_from(["run_name", "artifact_uri"]), st.sampled_from(["LIKE", "ILIKE"]),
        st.sampled_from(["run 1%", "RUN%", "s3://%", "%7"]),
    ),
)  # fmt: skip
orders = st.lists(
    st.one_of(
        st.builds(Order, st.just("metric"), st.sampled_from(["m", "n", "z"]), st.booleans()),
        st.builds(Order, st.just("param"), st.sampled_from(["p", "z"]), st.booleans()),
        st.builds(Order, st.just("tag"), st.sampled_from(["t"]), st.booleans()),
        st.builds(
            Order,
            st.just("attribute"),
            st.sampled_from(["start_time", "end_time", "status", "run_name", "user_id", "run_id"]),
            st.booleans(),
        ),
    ),
    max_size=3,
    unique_by=lambda order: (order.kind, order.key),
)


WAYS: dict[str, dict[str, int]] = {
    "gathered": {"FEW": 10**6},
    "walked": {"FEW": 0, "FEW_PAGES": 0, "TIED": 10**6, "STRETCH": 10**6, "STRETCHES": 10**6, "LOOKED_UP": 10**9},
    "in sets": {"FEW": 0, "FEW_PAGES": 0, "TIED": 10**6, "STRETCH": 0, "STRETCHES": 0},
    "apart": {"FEW": 0, "FEW_PAGES": 0, "TIED": 4, "STRETCH": 1, "STRETCHES": 2, "SET": 20},
    "looked up": {
        "FEW": 0, "FEW_PAGES": 0, "TIED": 10**6, "STRETCH": 1, "STRETCHES": 999,
        "LOOKED_UP": 0, "BOUND": 1, "AT_WORST": 0,
    },
    "all ways": {"FEW": 12, "FEW_PAGES": 0, "TIED": 10, "STRETCH": 1, "STRETCHES": 6, "SET": 60, "LOOKED_UP": 0},
}  # fmt: skip


Filled = tuple[Store, dict[int, list[Known]]]
Question = tuple[list[Clause], list[Order], tuple[int, ...], str]
questions = st.tuples(
    st.lists(clauses, max_size=3),
    orders,
    st.sampled_from([(0,), (0, 1)]),
    st.sampled_from(["active", "deleted", "all"]),
)
many, few = (examples(n, suppress=(HealthCheck.function_scoped_fixture,)) for n in (10, 3))


@pytest.mark.parametrize("way", [way for way in WAYS if way != "apart"])
@given(question=questions)
@many
def test_every_way_gives_the_naive_result(way: str, filled: Filled, question: Question) -> None:
    """Pages put together are the naive result, whether few runs are gathered, an index is walked, or sets are made."""
    check(way, filled, *question)


@given(question=questions)
@few
def test_runs_of_one_value_that_are_searched_apart_give_the_naive_result(filled: Filled, question: Question) -> None:
    """A question makes up to a thousand statements here, as each value is a search of its own."""
    check("apart", filled, *question)


@pytest.mark.long
@given(question=questions)
@many
def test_many_that_are_searched_apart_give_the_naive_result(filled: Filled, question: Question) -> None:
    check("apart", filled, *question)


def check(way: str, filled: Filled, asked: list[Clause], by: list[Order], within: tuple[int, ...], stage: str) -> None:
    """One question, page by page."""
    store, known = filled
    lifecycles = {"active": ("active",), "deleted": ("deleted",), "all": ("active", "deleted")}[stage]
    runs = [run for each in within for run in known[each] if ("deleted" if run.deleted else "active") in lifecycles]
    with pytest.MonkeyPatch.context() as patched:
        for name, value in WAYS[way].items():
            patched.setattr(search, name, value)
        patched.setattr(lacking, "LISTED", min(lacking.LISTED, search.FEW))
        found: list[int] = []
        after = None
        with store.read() as tx:
            while True:
                keys, after = tx.search.runs(within, asked, by, lifecycles=lifecycles, limit=PAGE, after=after)  # type: ignore[arg-type]
                found += keys
                if after is None:
                    break
                assert len(keys) == PAGE

    assert found == naive(runs, asked, by)


def test_what_a_question_told_is_no_part_of_its_answer(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked in the way that suited it before most of its runs went."""
    for name in ("FEW", "FEW_PAGES", "LOOKED_UP"):
        monkeypatch.setattr(search, name, 0)
    known = fill(store, random.Random(5))[0]
    asked, by = [Clause("tag", "t", "!=", "a"), Clause("metric", "n", "<=", 1.0)], [Order("metric", "m", False)]
    for gone in (0, 0, 100, len(known)):
        with store.transaction() as tx:
            for run in known[:gone]:
                tx.runs.mark(run.key, "deleted", deleted=1)
        with store.read() as tx:
            found, _ = tx.search.runs([0], asked, by, lifecycles=("active",), limit=RUNS)
        assert found == naive([run for run in known[gone:] if not run.deleted], asked, by)
