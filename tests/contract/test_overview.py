"""What pages ask about many runs at once, on SQLite and on PostgreSQL."""

import math
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate.errors import InputError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.store.filters import FilterError, parse
from bedplate.tracking import experiments, filters, metrics, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends
from bedplate.tracking.validation import Metric, Param, Tag

KEY = new_key("bedplate/test")
T0 = 1_700_000_000_000


@pytest.fixture
def by(store: Store, tmp_path: Path) -> Iterator[Actor]:
    """Somebody who changes things."""
    folder = tmp_path / "ledger"
    folder.mkdir()
    (folder / "ledger.pub").write_text(Signer(KEY).public)
    ledger = Ledger(store, folder, Signer(KEY))
    yield Actor(ledger=ledger, name="ana")
    if ledger._timer is not None:
        ledger._timer.cancel()


def begin(
    store: Store, by: Actor, started: int, *, experiment: str = "0", tags: dict[str, str] | None = None,
    values: tuple[Metric, ...] = (), params: dict[str, str] | None = None,
) -> str:  # fmt: skip
    """Begin a run and log to it."""
    given = [Tag(key, value) for key, value in (tags or {}).items()]
    with store.transaction() as tx:
        run = runs.create(tx, "default", experiment, by=by, started=started, tags=given).runs[0].id
        item = Appended("default", run, "ana", metrics=values, params=[Param(*pair) for pair in (params or {}).items()])
        assert Appends(store, by.ledger).write(tx, [item]) == [None]
    return run


def test_names_are_those_of_the_experiment_in_order(store: Store, by: Actor) -> None:
    """Whatever how many runs logged them; those of another experiment are not among them."""
    with store.transaction() as tx:
        other = str(experiments.create(tx, "default", "other", by=by).id)
    for number in range(3):
        begin(store, by, T0 + number, params={"b": "1", f"a{number}": "1"}, tags={"team": "x"})
    begin(store, by, T0, experiment=other, params={"elsewhere": "1"})
    with store.read() as tx:
        assert tx.overview.names(0, "param", most=10) == ["a0", "a1", "a2", "b"]
        assert tx.overview.names(0, "param", most=2) == ["a0", "a1"]
        assert tx.overview.names(0, "tag", most=10) == ["mlflow.runName", "team"]
        assert tx.overview.names(0, "metric", most=10) == []
        assert tx.overview.names(99, "param", most=10) == []


def test_counting_ends_at_its_limit(store: Store, by: Actor) -> None:
    """And tells apart what is active, deleted and going on."""
    made = [begin(store, by, T0 + number) for number in range(5)]
    with store.transaction() as tx:
        runs.update(tx, "default", made[0], by=by, status="FINISHED")
        runs.delete(tx, "default", made[1], by=by)
    with store.read() as tx:
        assert tx.overview.count(0, most=10) == (4, False, 3)
        assert tx.overview.count(0, most=4) == (4, False, 3)
        assert tx.overview.count(0, most=3) == (3, True, 3)
        assert tx.overview.count(0, "deleted", most=10) == (1, False, 1)
        newest = tx.runs.rows(tx.overview.newest(0, most=2))
        assert [row.id for row in newest] == [made[4], made[3]]
        assert [row.id for row in tx.runs.rows(tx.overview.newest(0, "deleted"))] == [made[1]]
        assert tx.overview.newest(99) == []


def test_chosen_values_of_chosen_runs(store: Store, by: Actor) -> None:
    """Long text whole, NaN as NaN; ids of another experiment find nothing."""
    values = (Metric("a", 0.5, T0, 1), Metric("b", math.nan, T0, 1), Metric("c", 1.0, T0, 1))
    run = begin(store, by, T0, values=values, params={"p": "x" * 900, "q": "1"}, tags={"t": "v", "u": "w"})
    with store.transaction() as tx:
        other = experiments.create(tx, "default", "other", by=by).id
    with store.read() as tx:
        (key,) = tx.overview.keys(0, [run, "0" * 32])
        assert tx.overview.keys(other, [run]) == []
        found = {name: value for name, value, *_ in tx.overview.metrics([key], ["a", "b", "none"])[key]}
        assert found["a"] == 0.5
        assert math.isnan(found["b"])
        assert set(found) == {"a", "b"}
        assert tx.overview.params([key], ["p"]) == {key: [("p", "x" * 900)]}
        assert tx.overview.tags([key], ["t"]) == {key: [("t", "v")]}
        assert tx.overview.metrics([key], []) == tx.overview.params([key], []) == tx.overview.tags([key], []) == {}


def test_runs_are_found_by_a_tag(store: Store, by: Actor) -> None:
    """Newest first, in their experiment alone."""
    made = [begin(store, by, T0 + number, tags={"parent": "a"}) for number in range(3)]
    begin(store, by, T0, tags={"parent": "b"})
    with store.read() as tx:
        found = tx.runs.rows(tx.overview.tagged(0, "parent", "a", most=2))
        assert [row.id for row in found] == [made[2], made[1]]
        assert tx.overview.tagged(0, "parent", "x", most=2) == []
        assert tx.overview.tagged(1, "parent", "a", most=2) == []


def test_what_came_later_begins_behind_the_token(store: Store, by: Actor) -> None:
    """In the order of time, once; a token is of one metric of one run."""
    run = begin(store, by, T0, values=(Metric("a", 1.0, T0 + 5, 5), Metric("a", 2.0, T0 + 3, 9)))
    with store.read() as tx:
        row = tx.runs.get("default", run)
        token = metrics.newest(tx, "default", row, "a")
        assert metrics.newest(tx, "default", row, "none") == ""
        assert metrics.since(tx, "default", row, "a", token, most=10) == ([], token)
        assert len(metrics.since(tx, "default", row, "a", "", most=10)[0]) == 2
    with store.transaction() as tx:
        more = [Metric("a", float(step), T0 + 10 + step, step) for step in range(4)]
        Appends(store, by.ledger).write(tx, [Appended("default", run, "ana", metrics=more)])
    with store.read() as tx:
        first, token = metrics.since(tx, "default", row, "a", token, most=3)
        rest, end = metrics.since(tx, "default", row, "a", token, most=3)
        assert [point[2] for point in first + rest] == [0.0, 1.0, 2.0, 3.0]
        assert metrics.since(tx, "default", row, "a", end, most=3) == ([], end)
        with pytest.raises(InputError):
            metrics.since(tx, "default", row, "b", end, most=3)


def test_a_filter_that_cannot_be_read_says_where() -> None:
    """In numbers, and after a way through another process."""
    with pytest.raises(FilterError) as caught:
        parse("metrics.a > 1 AND loss < 2", filters.RUNS)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):
        assert (error.at, error.text[error.at : error.at + 4]) == (18, "loss")
        assert "metrics.loss" in (error.fix or "")
        assert "at character 19" in error.message
