"""Deleting for good, on SQLite and on PostgreSQL: what goes, what stays, and that nothing goes unseen."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

from bedplate import blobs, clock, ids
from bedplate.errors import NotFoundError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store, Transaction
from bedplate.store.datasets import DatasetInput, DatasetRow
from bedplate.store.schema import metadata
from bedplate.tracking import appends, experiments, inputs, logged_models, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends, Linked
from bedplate.tracking.artifacts import Artifacts, folder_of
from bedplate.tracking.collect import Collection, collect
from bedplate.tracking.contents import Contents
from bedplate.tracking.uploads import Uploads
from bedplate.tracking.validation import Metric, Param, Tag

START = datetime(2026, 1, 1, tzinfo=UTC)
OLD = timedelta(days=30)
WORKSPACE = "default"


class Home:
    """What is logged, kept and deleted in a test."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.ledger = Ledger(store, folder / "ledger", Signer(new_key("test")))
        self.appends = Appends(store, self.ledger)
        self.place = blobs.open(folder / "blobs")
        self.contents = Contents(store, self.place)
        self.artifacts = Artifacts(store, self.contents)
        self.uploads = Uploads(store, self.contents, self.artifacts)
        self.ana = Actor(ledger=self.ledger, name="ana")

    def write(self, work: Any) -> Any:
        """Do ``work`` in a transaction."""
        with self.store.transaction() as tx:
            return work(tx)

    def experiment(self, name: str) -> str:
        """A new experiment."""
        return str(self.write(lambda tx: experiments.create(tx, WORKSPACE, name, by=self.ana)).id)

    def run(self, experiment: str = "0") -> str:
        """A new run with values, params, tags, inputs, outputs, a model, and two files."""
        run: str = self.write(lambda tx: runs.create(tx, WORKSPACE, experiment, by=self.ana).runs[0]).id
        metrics = [
            Metric("loss", float("nan") if step == 3 else 1 / (step + 1), 1000 + step, step) for step in range(5)
        ]
        model = self.model(experiment, run)
        measured = [logged_models.measured(metric, model, "", "") for metric in metrics[:2]]
        item = Appended(WORKSPACE, run, "ana", metrics, [Param("depth", "7")], [each for each in measured if each])
        asyncio.run(self.appends.append(item))
        dataset = DatasetInput(DatasetRow(f"d{experiment}", "1", "local", "{}"), {"mlflow.data.context": "training"})
        linked = Linked(WORKSPACE, run, "ana", inputs.links([dataset], ["m-used"], [(model, 1)]))
        self.write(lambda tx: self.appends.write_links(tx, linked))
        self.write(lambda tx: runs.set_tag(tx, WORKSPACE, run, Tag("kind", "test"), by=self.ana))
        for name in ("model/MLmodel", "log.txt"):
            self.put(f"{self.folder(run)}/{name}", f"{run} {name}".encode())
        return run

    def model(self, experiment: str, run: str = "") -> str:
        """A new logged model with a file."""
        page = self.write(
            lambda tx: logged_models.create(tx, WORKSPACE, experiment, by=self.ana, name="m", source_run=run)
        )
        row = page.models[0]
        self.put(f"{folder_of(row.artifact_location)}/weights", row.id.encode())
        return str(row.id)

    def folder(self, run: str) -> str:
        """Where the artifacts of a run lie."""
        with self.store.read() as tx:
            return folder_of(tx.runs.get(WORKSPACE, run).artifact_uri) or ""

    def put(self, path: str, data: bytes) -> None:
        """Keep an artifact."""
        with self.artifacts.receive() as incoming:
            incoming.write(data)
            self.artifacts.put(WORKSPACE, path, incoming, by=self.ana)

    def delete(self, run: str) -> None:
        """Delete a run, as clients do."""
        self.write(lambda tx: runs.delete(tx, WORKSPACE, run, by=self.ana))
        self.appends.forget()

    def collect(self, after: timedelta, **options: Any) -> Collection:
        """Collect at a moment after the start."""
        with clock.frozen(START + after):
            return collect(self.store, self.contents, self.uploads, OLD, by=self.ana, **options)

    def problems(self) -> list[str]:
        """What does not hold of the chain of appended rows."""
        with self.store.read() as tx:
            return appends.verify(tx)

    def rows(self) -> dict[str, int]:
        """How many rows each table of runs has."""
        tables = ("runs", "metrics", "latest_metrics", "params", "tags", "dataset_inputs", "dataset_input_tags",
                  "model_inputs", "model_outputs", "logged_model_metrics", "erased_positions")  # fmt: skip
        with self.store.read() as tx:
            count = sa.select(sa.func.count())
            return {
                name: tx._connection.execute(count.select_from(metadata.tables[name])).scalar_one() for name in tables
            }

    def entries(self) -> list[tuple[str, str]]:
        """Action and resource of every removal that is recorded."""
        with self.store.read() as tx:
            entries = [msgspec.json.decode(row.entry) for row in tx.ledger.entries(0, 10_000)]
        return [(entry["action"], entry["resource"]) for entry in entries if entry["action"].endswith(".erase")]


@pytest.fixture
def home(store: Store, tmp_path: Path) -> Iterator[Home]:
    """A small home."""
    made = Home(store, tmp_path)
    with closing(made.ledger):
        yield made


def test_a_run_goes_with_all_that_was_logged_to_it(home: Home) -> None:
    """Rows, files and content go; what is left is a leaf for each appended row, and one entry."""
    with clock.frozen(START):
        kept = home.run()
        before = home.rows()
        gone = home.run()
        folder = home.folder(gone)
        home.delete(gone)

    assert home.collect(timedelta(days=29)).runs == 0
    found = home.collect(timedelta(days=31))

    appended = 5 + 1 + 2 + 1 + 1 + 1  # metrics, param, metrics of the model, dataset input, model input, model output
    assert (found.runs, found.rows, found.files, found.kept) == (1, appended, 2, ())
    assert home.rows() == {**before, "erased_positions": appended}
    assert home.entries() == [("run.erase", f"run/{gone}")]
    assert home.problems() == []
    with home.store.read() as tx:
        assert runs.get(tx, WORKSPACE, kept).metrics
        with pytest.raises(NotFoundError):
            runs.get(tx, WORKSPACE, gone)
        assert tx.artifacts.find(WORKSPACE, folder.removesuffix("/artifacts")) is None
        assert tx.artifacts.find(WORKSPACE, home.folder(kept)) is not None
    content = ids.digest_bytes(f"{gone} log.txt".encode())
    assert home.place.has(content)
    assert home.collect(timedelta(days=33)).content.removed == 2
    assert not home.place.has(content)


def test_appending_goes_on_after_a_removal(home: Home) -> None:
    """The chain is continued where it was, also when its last rows are gone."""
    with clock.frozen(START):
        gone = home.run()
        home.delete(gone)
    home.collect(timedelta(days=31))
    home.run()
    home.write(home.appends.seal)
    home.run()

    assert home.problems() == []


def test_a_dry_run_changes_nothing(home: Home) -> None:
    """It says what would go, as often as it is asked."""
    with clock.frozen(START):
        experiment = home.experiment("old")
        home.delete(home.run(experiment))
        home.write(lambda tx: experiments.delete(tx, WORKSPACE, experiment, by=home.ana))
    before = home.rows()

    first, again = (home.collect(timedelta(days=31), dry_run=True) for _ in range(2))

    assert (first.runs, first.models, first.experiments, first.files, again) == (1, 1, 1, 3, first)
    assert home.rows() == before
    assert home.entries() == []


def test_what_was_restored_stays(home: Home) -> None:
    """Only what is deleted now goes."""
    with clock.frozen(START):
        run = home.run()
        home.delete(run)
        home.write(lambda tx: runs.restore(tx, WORKSPACE, run, by=home.ana))

    assert home.collect(timedelta(days=31)).runs == 0


def test_an_experiment_goes_with_all_that_is_in_it(home: Home) -> None:
    """Each run and model has its entry; the name is free again, the number is not."""
    with clock.frozen(START):
        experiment = home.experiment("old")
        run = home.run(experiment)
        (model,) = _models(home, experiment)
        home.write(lambda tx: experiments.delete(tx, WORKSPACE, experiment, by=home.ana))

    found = home.collect(timedelta(days=31))

    assert (found.runs, found.models, found.experiments, found.files, found.kept) == (1, 1, 1, 3, ())
    assert home.entries() == [
        ("run.erase", f"run/{run}"),
        ("logged_model.erase", f"logged_model/{model}"),
        ("experiment.erase", f"experiment/{experiment}"),
    ]
    assert home.problems() == []
    with home.store.read() as tx:
        assert tx.experiments.find(WORKSPACE, int(experiment)) is None
        assert tx.artifacts.find(WORKSPACE, experiment) is None
    assert home.experiment("old") != experiment


def test_a_deleted_model_goes_by_itself(home: Home) -> None:
    """Its run stays, and so do other models."""
    with clock.frozen(START):
        run = home.run()
        (model,) = _models(home, "0")
        home.write(lambda tx: logged_models.delete(tx, WORKSPACE, model, by=home.ana))
        other = home.model("0", run)

    found = home.collect(timedelta(days=31))

    assert (found.runs, found.models, found.rows, found.files) == (0, 1, 2, 1)
    assert _models(home, "0") == [other]
    assert home.problems() == []


def test_an_experiment_stays_while_something_in_it_is_used(home: Home) -> None:
    """A run that was restored keeps its experiment, and the model that it made."""
    with clock.frozen(START):
        experiment = home.experiment("old")
        used, gone = home.run(experiment), home.run(experiment)
        home.write(lambda tx: experiments.delete(tx, WORKSPACE, experiment, by=home.ana))
        home.write(lambda tx: runs.restore(tx, WORKSPACE, used, by=home.ana))

    found = home.collect(timedelta(days=31))

    assert (found.runs, found.models, found.experiments) == (1, 1, 0)
    assert found.kept == (f"experiment {experiment}: run {used} is in it",)
    assert home.entries()[0] == ("run.erase", f"run/{gone}")
    assert len(_models(home, experiment)) == 1
    assert home.problems() == []


def test_the_default_experiment_is_always_there(home: Home) -> None:
    """It can be deleted and restored, never for good: clients that name no experiment mean it."""
    with clock.frozen(START):
        home.write(lambda tx: experiments.delete(tx, WORKSPACE, "0", by=home.ana))
    assert home.collect(timedelta(days=31)).experiments == 0


def test_what_a_registered_version_rests_on_stays(home: Home) -> None:
    """A version never loses its files or its run, however long these were deleted."""
    from bedplate.store.registry_schema import model_versions, registered_models

    with clock.frozen(START):
        by_run, by_folder = home.run(), home.run()
        for run in (by_run, by_folder):
            home.delete(run)
    location = f"mlflow-artifacts:/{home.folder(by_folder)}/model"

    def register(tx: Transaction) -> None:
        names = {column.name: None for column in model_versions.c}
        model = {"workspace": WORKSPACE, "name": "shop", "id": "mdl", "description": None, "created": 1, "updated": 1}
        said = {"stage": "None", "status": "READY", "creator": "ana", "created": 1, "updated": 1}
        tx._connection.execute(sa.insert(registered_models), model)
        for number, more in enumerate(({"run": by_run}, {"folder": location}), 1):
            row = {**names, **said, "workspace": WORKSPACE, "name": "shop", "number": number, **more}
            tx._connection.execute(sa.insert(model_versions), row)

    home.write(register)

    found = home.collect(timedelta(days=31))

    assert found.runs == 0
    assert set(found.kept) == {
        f"run {by_run}: version 1 of shop rests on it",
        f"run {by_folder}: version 2 of shop rests on it",
    }


@pytest.mark.parametrize("forgery", ["a row taken away and buried", "another leaf", "no entry", "a row more"])
def test_rows_do_not_go_unseen(home: Home, forgery: str) -> None:
    """Whoever takes rows away by hand cannot make it look like a removal."""
    with clock.frozen(START):
        kept, gone = home.run(), home.run()
        home.delete(gone)
    home.collect(timedelta(days=31))
    erased, metrics = metadata.tables["erased_positions"], metadata.tables["metrics"]
    with home.store.transaction() as tx:
        key = tx.runs.get(WORKSPACE, kept).key
        position = tx._connection.execute(sa.select(metrics.c.position).where(metrics.c.run == key)).scalars().first()
        assert position is not None
        entry = tx._connection.execute(sa.select(erased.c.entry)).scalars().first()
        [leaf] = [appends.metric_leaf(*row) for row in tx.metrics.appended(key) if row[0] == position]
        if forgery == "a row taken away and buried":
            tx._connection.execute(sa.delete(metrics).where(metrics.c.position == position))
            tx.erasure.bury({position: leaf}, entry or 0)
        elif forgery == "another leaf":
            tx._connection.execute(sa.update(erased).values(leaf=leaf))
        elif forgery == "no entry":
            tx._connection.execute(sa.update(erased).values(entry=0))
        else:
            tx._connection.execute(
                sa.delete(erased).where(
                    erased.c.position == sa.select(sa.func.max(erased.c.position)).scalar_subquery()
                )
            )

    assert home.problems()


def test_rows_that_lie_far_apart_are_found(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that logged now and then, between many others, leaves the same leaves."""
    monkeypatch.setattr(appends, "_NEAR", 3)
    monkeypatch.setattr(appends, "_AT_ONCE", 7)
    with clock.frozen(START):
        mine, other = home.run(), home.run()
        for turn in range(12):
            for run, count in ((mine, 1 + turn % 2), (other, turn)):
                metrics = [Metric(f"m{turn}", 1.0, turn, step) for step in range(count)]
                asyncio.run(home.appends.append(Appended(WORKSPACE, run, "ana", metrics)))
        home.delete(mine)

    found = home.collect(timedelta(days=31))

    assert (found.runs, home.problems()) == (1, [])
    assert found.rows == home.rows()["erased_positions"] > 25


def _models(home: Home, experiment: str) -> list[str]:
    with home.store.read() as tx:
        models = metadata.tables["logged_models"]
        found = tx._connection.execute(sa.select(models.c.id).where(models.c.experiment == int(experiment)))
        return [str(name) for name in found.scalars()]
