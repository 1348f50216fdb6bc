"""What holds for experiments, runs and what is logged to them, on SQLite and on PostgreSQL."""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bedplate import store as stores
from bedplate.errors import ConflictError, InputError, NotFoundError, StateError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store, database, migrate, pages
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


def log(store: Store, by: Actor, run: str, values: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
    """Append to a run of the default workspace, as a client does."""
    with store.transaction() as tx:
        (answer,) = Appends(store, by.ledger).write(tx, [Appended("default", run, "eva", values, params)])
        if answer is not None:
            raise answer


def test_deleting_an_experiment_takes_its_runs_along(store: Store, by: Actor) -> None:
    """They are found among the deleted, refuse everything, and come back with it, one deleted before among them."""
    with store.transaction() as tx:
        made = str(experiments.create(tx, "default", "a", by=by).id)
        first = runs.create(tx, "default", made, by=by).runs[0].id
        second = runs.create(tx, "default", made, by=by).runs[0].id
        runs.delete(tx, "default", first, by=by)
        experiments.delete(tx, "default", made, by=by)
    with store.transaction() as tx:
        assert [row.row.name for row in experiments.search(tx, "default").experiments] == ["Default"]
        assert [row.row.name for row in experiments.search(tx, "default", view="DELETED_ONLY").experiments] == ["a"]
        assert runs.search(tx, "default", [made]).runs == []
        assert {row.id for row in runs.search(tx, "default", [made], view="DELETED_ONLY").runs} == {first, second}
        for refused in (
            lambda: runs.create(tx, "default", made, by=by),
            lambda: runs.set_tag(tx, "default", second, Tag("k", "v"), by=by),
            lambda: runs.update(tx, "default", second, status="FAILED", by=by),
            lambda: experiments.set_tag(tx, "default", made, Tag("k", "v"), by=by),
        ):
            with pytest.raises(InputError, match="is deleted"):
                refused()
        with pytest.raises(StateError):
            experiments.rename(tx, "default", made, "b", by=by)
        with pytest.raises(NotFoundError):
            experiments.delete(tx, "default", made, by=by)
        experiments.restore(tx, "default", made, by=by)
        with pytest.raises(NotFoundError):
            experiments.restore(tx, "default", made, by=by)
    with store.read() as tx:
        assert {row.id for row in runs.search(tx, "default", [made]).runs} == {first, second}


def test_experiments_are_renamed_and_tagged(store: Store, by: Actor) -> None:
    """A name in use is refused; a tag is set anew, and deleted once."""
    with store.transaction() as tx:
        made = str(experiments.create(tx, "default", "a", by=by).id)
        experiments.rename(tx, "default", made, "b", by=by)
        experiments.set_tag(tx, "default", made, Tag("k", "1"), by=by)
        experiments.set_tag(tx, "default", made, Tag("k", "2"), by=by)
        assert experiments.get_by_name(tx, "default", "b").tags == {"k": "2"}
        experiments.delete_tag(tx, "default", made, "k", by=by)
        with pytest.raises(NotFoundError):
            experiments.delete_tag(tx, "default", made, "k", by=by)
        with pytest.raises(NotFoundError):
            experiments.get_by_name(tx, "default", "a")
    with pytest.raises(ConflictError), store.transaction() as tx:
        experiments.rename(tx, "default", made, "Default", by=by)


def test_experiments_come_in_pages(store: Store, by: Actor) -> None:
    """Newest first unless ordered otherwise; filters see name, number, times and tags."""
    with store.transaction() as tx:
        for number in range(1, 8):
            tags = [Tag("team", "red" if number % 2 else "Blue")]
            experiments.create(tx, "default", f"exp_{number}", by=by, tags=tags)

    def names(**ways: Any) -> list[str]:
        found: list[str] = []
        token = None
        with store.read() as tx:
            while True:
                page = experiments.search(tx, "default", max_results=2, page_token=token, **ways)
                found += [each.row.name for each in page.experiments]
                token = page.next_page_token
                if token is None:
                    return found

    everything = [f"exp_{number}" for number in range(1, 8)]
    assert sorted(names()) == ["Default", *everything]
    assert names(order_by=["name DESC"]) == [*reversed(everything), "Default"]
    assert names(order_by=["experiment_id"]) == ["Default", *everything]
    assert names(filter="name LIKE 'exp_%' AND tags.team = 'red'", order_by=["name"]) == everything[::2]
    assert names(filter="tags.team ILIKE 'BL%'", order_by=["name"]) == everything[1::2]
    assert names(filter="tags.team IS NULL") == ["Default"]
    assert names(filter="name ILIKE 'EXP%1'") == ["exp_1"]
    assert names(filter="experiment_id IN ('2', '3')", order_by=["experiment_id"]) == ["exp_2", "exp_3"]
    assert names(filter="experiment_id NOT IN ('0', '1')", order_by=["experiment_id"]) == everything[1:]
    assert names(filter="creation_time > 99999999999999999") == []
    assert len(names(filter="last_update_time > 0")) == 8


# --------------------------------------------------------------------------------------------------------------- runs


def test_a_run_has_the_name_it_is_given(store: Store, by: Actor) -> None:
    """By name or by tag, which stay in step; else one is made up."""
    named, tagged = begin(store, by, "one"), begin(store, by, tags=(Tag("mlflow.runName", "two"),))
    unnamed = begin(store, by)
    with store.transaction() as tx:
        assert runs.get(tx, "default", named).runs[0].name == "one"
        assert runs.get(tx, "default", tagged).runs[0].name == "two"
        assert len(runs.get(tx, "default", unnamed).runs[0].name.split("-")) == 3
        with pytest.raises(InputError, match=r"its tag mlflow\.runName says"):
            runs.create(tx, "default", "0", by=by, name="one", tags=(Tag("mlflow.runName", "two"),))
        runs.update(tx, "default", named, name="renamed", by=by)
        runs.set_tag(tx, "default", tagged, Tag("mlflow.runName", "retagged"), by=by)
    with store.read() as tx:
        for run, name in ((named, "renamed"), (tagged, "retagged")):
            page = runs.get(tx, "default", run)
            assert page.runs[0].name == name
            assert dict(page.tags[page.runs[0].key]) == {"mlflow.runName": name}
        assert [row.id for row in runs.search(tx, "default", ["0"], filter="run_name LIKE 're%d'").runs]


def test_a_run_ends_and_is_deleted_and_restored(store: Store, by: Actor) -> None:
    """What is not given stays; a deleted run says so; deleting and restoring again changes nothing else."""
    run = begin(store, by)
    with store.transaction() as tx:
        runs.update(tx, "default", run, status="FINISHED", by=by)
        row = runs.update(tx, "default", run, ended=T0 + 5, by=by)
        assert (row.status, row.ended, row.lifecycle) == ("FINISHED", T0 + 5, "active")
        for _ in range(2):
            runs.delete(tx, "default", run, by=by)
        with pytest.raises(InputError, match="deleted"):
            runs.active(tx, "default", run)
        for _ in range(2):
            runs.restore(tx, "default", run, by=by)
        assert runs.active(tx, "default", run).status == "FINISHED"
        runs.set_tag(tx, "default", run, Tag("k", "v"), by=by)
        runs.delete_tag(tx, "default", run, "k", by=by)
        with pytest.raises(NotFoundError):
            runs.delete_tag(tx, "default", run, "k", by=by)


def test_a_param_never_changes(store: Store, by: Actor) -> None:
    """The same value again is fine, another is refused, and nothing of that call is logged."""
    run = begin(store, by)
    log(store, by, run, params=[Param("a", "1"), Param("b", "2")])
    log(store, by, run, params=[Param("a", "1"), Param("c", "3")])
    with pytest.raises(InputError, match="'a'"):
        log(store, by, run, [Metric("m", 1.0, T0)], [Param("d", "4"), Param("a", "other")])

    with store.read() as tx:
        page = runs.get(tx, "default", run)
    assert dict(page.params[page.runs[0].key]) == {"a": "1", "b": "2", "c": "3"}
    assert page.metrics == {}


def test_the_latest_value_is_of_the_last_step(store: Store, by: Actor) -> None:
    """Then of the last time, then the greatest; in whatever order they come. Equal values are kept once."""
    run = begin(store, by)
    points = [
        Metric("m", 1.0, T0, 3),
        Metric("m", 9.0, T0 + 9, 2),
        Metric("m", 2.0, T0 + 1, 3),
        Metric("m", 3.0, T0 + 1, 3),
        Metric("m", 2.5, T0 + 1, 3),
        Metric("m", math.nan, T0, 1),
    ]
    log(store, by, run, points[:3])
    log(store, by, run, points)
    with store.read() as tx:
        page = runs.get(tx, "default", run)
        history = metrics.history(tx, "default", run, "m").points
    assert page.metrics[page.runs[0].key] == [("m", 3.0, T0 + 1, 3)]
    assert [point[:3] for point in history] == [
        (T0, 1, 0.0), (T0, 3, 1.0), (T0 + 1, 3, 2.0), (T0 + 1, 3, 2.5), (T0 + 1, 3, 3.0), (T0 + 9, 2, 9.0)
    ]  # fmt: skip
    assert [bool(point[3]) for point in history] == [True, False, False, False, False, False]


def test_the_store_says_which_values_were_there(store: Store, by: Actor) -> None:
    """By their positions, so that whoever numbers them knows which were not kept."""
    run = begin(store, by)
    with store.transaction() as tx:
        row = runs.active(tx, "default", run)
        ours = (row.key, row.experiment, row.started)
        assert tx.metrics.log([(*ours, "m", 1.0, T0, 0, 101), (*ours, "m", math.nan, T0, 0, 102)]) == []
        again = [(*ours, "m", math.nan, T0, 0, 103), (*ours, "m", 2.0, T0, 0, 104), (*ours, "m", 1.0, T0, 0, 105)]
        assert tx.metrics.log(again) == [103, 105]
        assert [position for position, *_ in tx.metrics.appended()] == [101, 102, 104]


def test_a_history_comes_in_pages(store: Store, by: Actor) -> None:
    """Each page takes up where the last one ended, among values of one time and step as well."""
    run = begin(store, by)
    values = [Metric("m", float(number % 5), T0 + number // 20, number // 5) for number in range(100)]
    values.append(Metric("m", math.nan, T0))
    log(store, by, run, values)
    found: list[Any] = []
    token = None
    with store.read() as tx:
        while True:
            page = metrics.history(tx, "default", run, "m", max_results=7, page_token=token)
            found += page.points
            token = page.next_page_token
            if token is None:
                break
        assert found == metrics.history(tx, "default", run, "m").points
        assert metrics.history(tx, "default", run, "other").points == []
    assert len(found) == 101
    assert found == sorted(found)


def test_another_workspace_has_none_of_it(store: Store, by: Actor) -> None:
    """Whatever the id, it leads nowhere from another workspace, and its experiments are as good as none."""
    run = begin(store, by)
    with store.transaction() as tx:
        tx.workspaces.add("other")
        elsewhere = str(experiments.create(tx, "other", "e", by=by).id)
        theirs = runs.create(tx, "other", elsewhere, by=by).runs[0].id
    with store.transaction() as tx:
        assert [row.id for row in runs.search(tx, "other", ["0", elsewhere]).runs] == [theirs]
        assert [row.id for row in runs.search(tx, "default", ["0", elsewhere]).runs] == [run]
        assert metrics.history(tx, "other", run, "m").points == []
        for refused in (
            lambda: runs.get(tx, "other", run),
            lambda: runs.delete(tx, "other", run, by=by),
            lambda: runs.set_tag(tx, "other", run, Tag("k", "v"), by=by),
            lambda: runs.create(tx, "other", "0", by=by),
            lambda: experiments.get(tx, "other", "0"),
            lambda: experiments.delete(tx, "other", "0", by=by),
            lambda: experiments.set_tag(tx, "other", "0", Tag("k", "v"), by=by),
        ):
            with pytest.raises(NotFoundError):
                refused()


def test_a_token_belongs_to_its_query(store: Store, by: Actor) -> None:
    """One of another query is refused, and so is one that was made up, whatever it holds."""
    for number in range(5):
        begin(store, by, f"run {number}", T0 + number)
    query = ("runs", "default", (0,), "", ("metrics.m DESC",), "ACTIVE_ONLY")
    with store.read() as tx:
        page = runs.search(tx, "default", ["0"], order_by=["metrics.m DESC"], max_results=2)
        token = page.next_page_token
        again = runs.search(tx, "default", ["0"], order_by=["metrics.m DESC"], max_results=1, page_token=token)
        assert [row.name for row in (*page.runs, *again.runs)] == ["run 4", "run 3", "run 2"]
        back = runs.search(tx, "default", ["0"], order_by=["metrics.m DESC"], max_results=2)
        assert [row.name for row in back.runs] == ["run 4", "run 3"], "the way back is the token of the page before"
    begin(store, by, "newest", T0 + 9)
    with store.read() as tx:
        later = runs.search(tx, "default", ["0"], order_by=["metrics.m DESC"], max_results=2, page_token=token)
        assert [row.name for row in later.runs] == ["run 2", "run 1"], "a run that was begun since moves no page"
        for ways in ({}, {"order_by": ["metrics.m"]}, {"order_by": ["metrics.m DESC"], "filter": "metrics.m > 1"}):
            with pytest.raises(InputError, match="page token"):
                runs.search(tx, "default", ["0"], page_token=token, **ways)  # type: ignore[arg-type]
        for made_up in (
            (),
            (0, 1.5),
            (0, "x", 0, T0, 0, "a"),
            (0, 1.5, 0, 2**63, 0, "a"),
            (0, 1.5, 0, T0, 0, "a\0"),
            (3, 1.5, 0, T0, 0, "a"),
            (2, 1.5, 0, T0, 0, "a"),
            (0, math.nan, 0, T0, 0, "a"),
            (0, 1.5, 1, T0, 0, "a"),
            (True, 1.5, 0, T0, 0, "a"),
        ):
            forged = pages.token(query, made_up)
            with pytest.raises(InputError, match="page token"):
                runs.search(tx, "default", ["0"], order_by=["metrics.m DESC"], page_token=forged)
        for nonsense in ("x", "AAAA", "é", "a" * 5000, "gqQ="):
            with pytest.raises(InputError, match="page token"):
                runs.search(tx, "default", ["0"], page_token=nonsense)


def test_counts_and_ids_are_checked(store: Store) -> None:
    """A page has at least one row and at most fifty thousand; an experiment is named by its number."""
    with store.read() as tx:
        for count in (0, -1, 50_001):
            with pytest.raises(InputError, match="max_results"):
                runs.search(tx, "default", ["0"], max_results=count)
            with pytest.raises(InputError, match="max_results"):
                experiments.search(tx, "default", max_results=count)
        for name in ("a", "1.5", "1" * 30, "٣", " 1", "'; DROP TABLE runs; --"):
            with pytest.raises(InputError, match="experiment ID"):
                runs.search(tx, "default", [name])
            with pytest.raises(InputError, match="experiment ID"):
                experiments.get(tx, "default", name)
        assert runs.search(tx, "default", []).runs == []
        assert runs.search(tx, "default", ["99", "-1"]).runs == []


def test_a_long_list_is_one_value(store: Store, by: Actor) -> None:
    """More ids than a database takes values."""
    run = begin(store, by)
    ids = ", ".join(f"'{number:x}'" for number in range(12_000))
    with store.read() as tx:
        assert runs.search(tx, "default", ["0"], filter=f"run_id IN ({ids})").runs == []
        (found,) = runs.search(tx, "default", ["0"], filter=f"run_id IN ({ids}, '{run}')").runs
        assert found.id == run
        (found,) = runs.search(tx, "default", ["0"], filter=f"run_id NOT IN ({ids})").runs
        assert found.id == run


def test_every_change_is_in_the_ledger_once(store: Store, by: Actor) -> None:
    """Each with what it was about; looking leaves no entry."""
    with store.transaction() as tx:
        made = str(experiments.create(tx, "default", "a", by=by).id)
        run = runs.create(tx, "default", made, by=by, name="r").runs[0].id
        experiments.set_tag(tx, "default", made, Tag("k", "v"), by=by)
        experiments.delete_tag(tx, "default", made, "k", by=by)
        experiments.rename(tx, "default", made, "b", by=by)
        runs.set_tag(tx, "default", run, Tag("k", "v"), by=by)
        runs.delete_tag(tx, "default", run, "k", by=by)
        runs.update(tx, "default", run, status="FAILED", by=by)
        runs.delete(tx, "default", run, by=by)
        runs.restore(tx, "default", run, by=by)
        experiments.delete(tx, "default", made, by=by)
        experiments.restore(tx, "default", made, by=by)
        runs.search(tx, "default", [made])
        experiments.search(tx, "default")
    with store.read() as tx:
        entries = [by.ledger.entry(tx, index)[0] for index in range(tx.ledger.head()[0])]
    of_run, of_experiment = f"run/{run}", f"experiment/{made}"
    assert [(entry.action, entry.resource, entry.actor) for entry in entries] == [
        ("experiment.create", of_experiment, "ana"),
        ("run.create", of_run, "ana"),
        ("experiment.tag", of_experiment, "ana"),
        ("experiment.untag", of_experiment, "ana"),
        ("experiment.rename", of_experiment, "ana"),
        ("run.tag", of_run, "ana"),
        ("run.untag", of_run, "ana"),
        ("run.update", of_run, "ana"),
        ("run.delete", of_run, "ana"),
        ("run.restore", of_run, "ana"),
        ("experiment.delete", of_experiment, "ana"),
        ("experiment.restore", of_experiment, "ana"),
    ]


@pytest.mark.usefixtures("real_migrations")
def test_what_was_tracked_before_is_kept(location: Path | str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first tables of experiments, runs and metrics are moved into those of today."""
    with monkeypatch.context() as patched:
        for module in (database, migrate):
            patched.setattr(module, "HEAD", "f1_0001")
        with closing(stores.open(location)) as old, old.transaction() as tx:
            insert = tx._connection.exec_driver_sql
            at = "2026-11-24T10:00:00.250000Z"
            insert(f"INSERT INTO experiments (id, name, created) VALUES ('exp_1', 'retail', '{at}')")
            insert(
                "INSERT INTO runs (id, experiment, name, state, parameters, tags, started, ended) VALUES "
                f"('run_1', 'exp_1', 'first', 'finished', '{{\"trees\":100}}', '{{\"by\":\"ana\"}}', '{at}', '{at}')"
            )
            insert(f"INSERT INTO metrics (run, name, step, value, time) VALUES ('run_1', 'loss', 0, 0.5, '{at}')")
            insert(f"INSERT INTO metrics (run, name, step, value, time) VALUES ('run_1', 'loss', 1, 0.25, '{at}')")
    with closing(stores.open(location)) as store, store.transaction() as tx:
        page = runs.search(tx, "default", ["1"])
        (row,) = page.runs
        assert experiments.get(tx, "default", "1").row.name == "retail"
        assert (row.name, row.status, row.started) == ("first", "FINISHED", 1_795_514_400_250)
        assert page.params[row.key] == [("trees", "100")]
        assert dict(page.tags[row.key]) == {"by": "ana", "mlflow.runName": "first"}
        assert page.metrics[row.key] == [("loss", 0.25, 1_795_514_400_250, 1)]
        assert len(metrics.history(tx, "default", row.id, "loss").points) == 2
        assert tx.experiments.add("default", "next", now=0).id == 2
        assert tx.runs.add("f" * 32, 1, name="n", user_id="", started=0, artifact_uri="").key == 2
