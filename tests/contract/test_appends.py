"""What holds for appending to runs, on SQLite and on PostgreSQL."""

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate.errors import InputError, NotFoundError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.store.schema import metrics, params
from bedplate.tracking import appends as module
from bedplate.tracking import runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends, verify
from bedplate.tracking.validation import Metric, Param
from tests.laws import examples


@pytest.fixture
def ledger(store: Store, tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of the store."""
    opened = Ledger(store, tmp_path / "ledger", Signer(new_key("bedplate/test")))
    yield opened
    opened.close()


@pytest.fixture
def appends(store: Store, ledger: Ledger) -> Appends:
    """The way into run logs."""
    return Appends(store, ledger)


@pytest.fixture
def begin(store: Store, ledger: Ledger) -> Callable[[], str]:
    """Begins a run and gives its id."""

    def run() -> str:
        with store.transaction() as tx:
            return runs.create(tx, "default", "0", by=Actor(ledger=ledger, name="eva")).runs[0].id

    return run


def append(store: Store, appends: Appends, *items: Appended) -> list[BaseException | None]:
    """Append each through the writer, and give the error of each."""
    futures = [store.writer.append(appends.write, item) for item in items]
    return [future.exception() for future in futures]


def problems(store: Store) -> list[str]:
    """What verifying finds."""
    with store.read() as tx:
        return verify(tx)


def metric(value: float, step: int = 0, key: str = "loss") -> Metric:
    """One value."""
    return Metric(key, value, 1_700_000_000_000, step)


def test_rows_of_many_threads_make_one_chain(store: Store, appends: Appends, begin: Callable[[], str]) -> None:
    """Sixteen writers, metrics and params: every row is there once and the chain holds."""
    names = [begin() for _ in range(16)]

    def write(number: int) -> None:
        for step in range(20):
            item = Appended(
                "default", names[number], f"actor-{number % 3}", [metric(step, step)], [Param(f"p{step}", "v")]
            )
            store.writer.append(appends.write, item).result()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(write, range(16)))

    assert problems(store) == []
    with store.read() as tx:
        segment = tx.segments.newest()
    assert segment is not None
    assert (segment.rows, sum(segment.actors.values())) == (640, 640)


def test_an_equal_row_is_kept_once_and_in_the_chain_once(
    store: Store, appends: Appends, begin: Callable[[], str]
) -> None:
    """The same value again, alone and among others, changes nothing and breaks nothing."""
    run = begin()
    twice = [metric(0.5, 1), metric(0.5, 1), metric(math.nan, 2), metric(math.nan, 2)]
    assert append(store, appends, Appended("default", run, "eva", twice)) == [None]
    assert append(store, appends, Appended("default", run, "eva", [metric(0.5, 1), metric(0.25, 3)])) == [None]

    assert problems(store) == []
    with store.read() as tx:
        key = tx.runs.get("default", run).key
        assert [(step, value) for _, step, value, is_nan in tx.metrics.history(key, "loss") if not is_nan] == [
            (1, 0.5),
            (3, 0.25),
        ]
        segment = tx.segments.newest()
    assert segment is not None
    assert segment.rows == 3


def test_what_is_wrong_with_one_is_wrong_with_it_alone(
    store: Store, appends: Appends, begin: Callable[[], str]
) -> None:
    """A run that is not there, one of another workspace, a param that would change: the rest is appended."""
    run = begin()
    found = append(
        store,
        appends,
        Appended("default", run, "eva", [metric(1.0)], [Param("p", "1")]),
        Appended("default", "0" * 32, "eva", [metric(2.0)]),
        Appended("elsewhere", run, "eva", [metric(3.0)]),
        Appended("default", run, "eva", [metric(4.0, 4)], [Param("p", "2")]),
        Appended("default", run, "eva", [metric(5.0, 5)], [Param("p", "1")]),
    )

    assert [type(error) for error in found] == [type(None), NotFoundError, NotFoundError, InputError, type(None)]
    assert problems(store) == []
    with store.read() as tx:
        key = tx.runs.get("default", run).key
        assert [value for _, _, value, _ in tx.metrics.history(key, "loss")] == [1.0, 5.0]
        assert (tx.metrics.several(key), tx.metrics.several(key + 1)) == ({"loss"}, set())
        assert dict(tx.runs.params([key])[key]) == {"p": "1"}


def test_a_deleted_run_takes_nothing_more(
    store: Store, ledger: Ledger, appends: Appends, begin: Callable[[], str]
) -> None:
    """Also when it was known as active: deleting goes the same way as appending."""
    run = begin()
    assert append(store, appends, Appended("default", run, "eva", [metric(1.0)])) == [None]

    def delete(tx):  # type: ignore[no-untyped-def]
        tx.after_commit(appends.forget)
        runs.delete(tx, "default", run, by=Actor(ledger=ledger, name="eva"))

    store.writer.submit(delete).result()
    (error,) = append(store, appends, Appended("default", run, "eva", [metric(2.0, 2)]))

    assert isinstance(error, InputError)


def test_a_sealed_segment_is_one_entry(
    store: Store, ledger: Ledger, appends: Appends, begin: Callable[[], str]
) -> None:
    """With how many rows, whose, and the head of the chain; the next rows go into the next segment."""
    run = begin()
    append(store, appends, Appended("default", run, "eva", [metric(1.0, 1), metric(2.0, 2)]))
    sealed = store.writer.submit(appends.seal).result()
    append(store, appends, Appended("default", run, "ana", [metric(3.0, 3)]))

    assert sealed is not None
    with store.read() as tx:
        segments = tx.segments.list()
        assert segments[0].entry is not None
        entry, payload = ledger.entry(tx, segments[0].entry)
    assert (entry.action, entry.resource) == ("runs.append", "segment/1")
    assert payload == {"first": 1, "next": 3, "rows": 2, "head": sealed.head.hex(), "actors": {"eva": 2}}
    assert [(s.number, s.first, s.rows, s.sealed is not None) for s in segments] == [(1, 1, 2, True), (2, 3, 1, False)]
    assert store.writer.submit(appends.seal).result() is not None
    assert store.writer.submit(appends.seal).result() is None, "nothing was appended since"
    assert problems(store) == []


def test_a_long_segment_is_sealed_by_itself(
    store: Store, appends: Appends, begin: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many rows a new one begins, in the same transaction as the row that begins it."""
    monkeypatch.setattr(module, "SEGMENT_ROWS", 10)
    run = begin()
    for step in range(25):
        append(store, appends, Appended("default", run, "eva", [metric(step, step)]))

    with store.read() as tx:
        assert [(s.rows, s.sealed is not None) for s in tx.segments.list()] == [(10, True), (10, True), (5, False)]
    assert problems(store) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (sa.update(metrics).where(metrics.c.position == 2).values(value=99.0), "changed"),
        (sa.update(metrics).where(metrics.c.position == 2).values(timestamp=5), "changed"),
        (sa.update(params).where(params.c.position == 4).values(value="9"), "changed"),
        (sa.delete(metrics).where(metrics.c.position == 1), "has 3 rows"),
        (sa.update(metrics).where(metrics.c.position == 3).values(position=70), "has 3 rows"),
    ],
)
def test_a_row_that_was_tampered_with_is_found(
    store: Store, appends: Appends, begin: Callable[[], str], change: sa.Executable, says: str
) -> None:
    """Any change of a value, a row less, a row elsewhere."""
    run = begin()
    values = [metric(1.0, 1), metric(2.0, 2), metric(3.0, 3)]
    append(store, appends, Appended("default", run, "eva", values, [Param("p", "1")]))
    assert problems(store) == []

    with store.transaction() as tx:
        tx._connection.execute(change)

    assert any(says in line for line in problems(store))


def test_a_rewritten_chain_is_found_by_the_ledger(store: Store, appends: Appends, begin: Callable[[], str]) -> None:
    """Who changes a row and computes the chain anew has the ledger against him."""
    run = begin()
    append(store, appends, Appended("default", run, "eva", [metric(1.0, 1)]))
    store.writer.submit(appends.seal).result()
    head = module.hashlib.sha256(
        module.BEGINNING + module.metric_leaf(1, run, "loss", 9.0, 1_700_000_000_000, 1)
    ).digest()
    with store.transaction() as tx:
        tx._connection.execute(sa.update(metrics).values(value=9.0))
        tx._connection.execute(sa.text("UPDATE append_segments SET head = :head"), {"head": head})

    assert problems(store) == ["runs segment 1 is not as entry 1 of the ledger has it"]


@examples(8, suppress=(HealthCheck.function_scoped_fixture,))
@given(
    st.lists(
        st.lists(st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.integers(-5, 5)), min_size=1, max_size=5),
        min_size=1,
        max_size=6,
    )
)
def test_whatever_is_appended_verifies(
    store: Store, appends: Appends, begin: Callable[[], str], batches: list[list[tuple[float, int]]]
) -> None:
    """Any values, steps and repetitions, with another process's way of appending in between."""
    run = begin()
    other = Appends(store, appends._ledger)
    for number, batch in enumerate(batches):
        item = Appended("default", run, "eva", [metric(value, step) for value, step in batch])
        assert append(store, other if number % 2 else appends, item) == [None]

    assert problems(store) == []


def test_an_append_that_fails_leaves_the_chain_as_it_was(
    store: Store, appends: Appends, begin: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction is undone, and what was remembered of the segment with it."""
    run = begin()
    append(store, appends, Appended("default", run, "eva", [metric(1.0, 1)]))
    gone = threading.Event()

    def broken(self, points):  # type: ignore[no-untyped-def]
        gone.set()
        raise sa.exc.OperationalError("insert", {}, Exception("disk I/O error"))

    with monkeypatch.context() as patch:
        patch.setattr("bedplate.store.metrics.Metrics.log", broken)
        (error,) = append(store, appends, Appended("default", run, "eva", [metric(2.0, 2)]))
    assert gone.is_set()
    assert error is not None
    assert append(store, appends, Appended("default", run, "eva", [metric(3.0, 3)])) == [None]

    assert problems(store) == []
