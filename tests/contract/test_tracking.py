"""What holds for experiments, runs and what is logged to them, on SQLite and on PostgreSQL."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from bedplate.errors import ConflictError, NotFoundError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.tracking import experiments, metrics, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends
from bedplate.tracking.validation import Metric, Param, Tag, batch

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


def begin(store: Store, by: Actor, name: str = "", started: int = T0, tags: tuple[Tag, ...] = ()) -> str:
    """Begin a run in the default experiment and return its id."""
    with store.transaction() as tx:
        return runs.create(tx, "default", "0", by=by, name=name, started=started, tags=tags).runs[0].id


# -------------------------------------------------------------------------------------------------------- experiments


def test_the_default_experiment_is_there(store: Store) -> None:
    """A new database has workspace default with experiment 0, and the next experiment is 1."""
    with store.read() as tx:
        default = experiments.get(tx, "default", "0")

    assert (default.row.name, default.row.lifecycle, default.row.artifact_location) == (
        "Default",
        "active",
        "mlflow-artifacts:/0",
    )


def test_an_experiment_has_one_name_in_its_workspace(store: Store, by: Actor) -> None:
    """The name is taken as long as the experiment exists, deleted or not; another workspace may use it."""
    with store.transaction() as tx:
        tx.workspaces.add("other")
        made = experiments.create(tx, "default", "a", by=by, tags=[Tag("k", "v")])
        elsewhere = experiments.create(tx, "other", "a", by=by)
        experiments.delete(tx, "default", str(made.id), by=by)
    with store.transaction() as tx, pytest.raises(ConflictError):
        experiments.create(tx, "default", "a", by=by)
    with store.read() as tx:
        found = experiments.get_by_name(tx, "default", "a")
        assert (found.row.id, found.row.lifecycle, found.tags) == (1, "deleted", {"k": "v"})
        assert elsewhere.artifact_location == f"mlflow-artifacts:/workspaces/other/{elsewhere.id}"
        with pytest.raises(NotFoundError):
            experiments.get(tx, "default", str(elsewhere.id))


def test_a_logged_batch_comes_back(store: Store, by: Actor) -> None:
    """Metrics, params and tags; NaN and the infinities among them."""
    run = begin(store, by, "first")
    values = [
        Metric("a", 0.5, T0, 1),
        Metric("a", math.inf, T0 + 1, 2),
        Metric("n", math.nan, T0),
        Metric("i", -math.inf, T0),
    ]
    checked = batch(values, [Param("p", "1"), Param("long", "x" * 5000)], [Tag("t", "é")])
    with store.transaction() as tx:
        item = Appended("default", run, "eva", checked.metrics, checked.params)
        assert Appends(store, by.ledger).write(tx, [item]) == [None]
        runs.set_tags(tx, "default", runs.active(tx, "default", run), checked.tags, by=by)
    with store.read() as tx:
        page = runs.get(tx, "default", run)
        key = page.runs[0].key
        history = metrics.history(tx, "default", run, "a").points

    latest = {name: value for name, value, _, _ in page.metrics[key]}
    assert latest["a"] == math.inf
    assert latest["i"] == -math.inf
    assert math.isnan(latest["n"])
    assert dict(page.params[key]) == {"p": "1", "long": "x" * 5000}
    assert dict(page.tags[key]) == {"t": "é", "mlflow.runName": "first"}
    assert history == [(T0, 1, 0.5, False), (T0 + 1, 2, math.inf, False)]
