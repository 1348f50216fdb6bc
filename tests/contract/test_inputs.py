"""What holds for inputs and outputs of runs, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from bedplate.errors import InputError, NotFoundError, UnfitError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.store.datasets import CONTEXT, DatasetInput, DatasetRow, DatasetSummary
from bedplate.store.model_schema import dataset_input_tags, datasets, model_outputs
from bedplate.tracking import experiments, inputs, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends, Linked, verify
from bedplate.tracking.inputs import Links, RunLinks
from bedplate.tracking.validation import Metric, Tag

DATA = DatasetRow("d", "1", "local", "{}")


@pytest.fixture
def ledger(store: Store, tmp_path: Path) -> Iterator[Ledger]:
    """The ledger of the store."""
    opened = Ledger(store, tmp_path / "ledger", Signer(new_key("bedplate/test")))
    yield opened
    opened.close()


@pytest.fixture
def by(ledger: Ledger) -> Actor:
    """Somebody who changes things."""
    return Actor(ledger=ledger, name="eva")


@pytest.fixture
def appends(store: Store, ledger: Ledger) -> Appends:
    """The way into run logs."""
    return Appends(store, ledger)


def begin(store: Store, by: Actor, workspace: str = "default", experiment: str = "0") -> str:
    """Begin a run, and give its id."""
    with store.transaction() as tx:
        return runs.create(tx, workspace, experiment, by=by).runs[0].id


def link(store: Store, appends: Appends, run: str, links: Links) -> None:
    """Log what a run read, used and made."""
    with store.transaction() as tx:
        appends.write_links(tx, Linked("default", run, "eva", links))


def read(dataset: DatasetRow, context: str | None = None, **tags: str) -> Links:
    """A run read a dataset, for this."""
    told = [Tag(CONTEXT, context)] if context is not None else []
    return inputs.links([inputs.dataset(dataset, [*told, *(Tag(key, value) for key, value in tags.items())])])


def of(store: Store, *names: str, **more: bool) -> list[RunLinks | None]:
    """What is said of these runs."""
    with store.read() as tx:
        keys = [tx.runs.get("default", name).key for name in names]
        found = inputs.of_runs(tx, keys, **more)
    return [found.get(key) for key in keys]


def found(store: Store, filter: str, *names: str) -> list[str]:
    """Which of the runs a search finds, each as its number among them."""
    with store.read() as tx:
        page = runs.search(tx, "default", ["0"], filter=filter)
    return [str(names.index(row.id)) for row in page.runs]


def test_what_a_run_read_used_and_made_comes_back(store: Store, by: Actor, appends: Appends) -> None:
    """Datasets in the order they were logged, tags by key, models by id; a run of which nothing is said is left out."""
    run, other = begin(store, by), begin(store, by)
    first = inputs.dataset(DATA, [Tag("b", "2"), Tag("a", "1")])
    second = inputs.dataset(DatasetRow("a", "1", "s", "é", "schema", "profile"), [])
    link(store, appends, run, inputs.links([first, second], ["m-2", "m-1", "m-2"]))
    link(store, appends, run, inputs.links(outputs=[("m-4", -5), ("m-3", 7)]))

    (whole, nothing), (partly, _) = of(store, run, other), of(store, run, other, models_used=False)
    expected = RunLinks(
        [DatasetInput(DATA, {"a": "1", "b": "2"}), DatasetInput(second.dataset, {})],
        ["m-1", "m-2"],
        [("m-3", 7), ("m-4", -5)],
    )
    assert whole == expected
    assert list(whole.datasets[0].tags) == ["a", "b"]
    assert (partly, nothing) == (RunLinks(expected.datasets, [], expected.outputs), None)


def test_a_dataset_stays_as_it_was_said_first(store: Store, by: Actor, appends: Appends) -> None:
    """In one call, for one run, and in one experiment; another experiment has its own."""
    with store.transaction() as tx:
        experiment = str(experiments.create(tx, "default", "second", by=by).id)
    run, again, elsewhere = begin(store, by), begin(store, by), begin(store, by, experiment=experiment)
    changed = DatasetRow("d", "1", "other", "other", "s")
    both = [inputs.dataset(DATA, [Tag("a", "1")]), inputs.dataset(changed, [])]
    link(store, appends, run, inputs.links(both))
    for name in (run, again, elsewhere):
        link(store, appends, name, read(changed, "late"))

    kept = [each.datasets if each else [] for each in of(store, run, again, elsewhere)]
    assert kept == [
        [DatasetInput(DATA, {"a": "1"})],
        [DatasetInput(DATA, {CONTEXT: "late"})],
        [DatasetInput(changed, {CONTEXT: "late"})],
    ]


def test_an_output_is_said_once(store: Store, by: Actor, appends: Appends) -> None:
    """Saying it again is refused with all that comes with it; a model used is said as often as one likes."""
    run = begin(store, by)
    link(store, appends, run, inputs.links(inputs=["m"], outputs=[("m", 1)]))
    link(store, appends, run, inputs.links(inputs=["m"]))
    for outputs in ([("m", 1)], [("n", 1), ("m", 2)]):
        with pytest.raises(UnfitError):
            link(store, appends, run, inputs.links([inputs.dataset(DATA, [])], outputs=outputs))
    with pytest.raises(UnfitError):
        inputs.links(outputs=[("x", 1), ("x", 2)])

    assert of(store, run) == [RunLinks([], ["m"], [("m", 1)])]


def test_limits_are_those_of_mlflow() -> None:
    """What has the greatest length is taken, one character more is not; nor is what is no text."""
    longest = {"name": 500, "digest": 36, "source": 65_535, "schema": 1_048_575, "profile": 16_777_215}
    for part, most in longest.items():
        base: dict[str, Any] = {"name": "d", "digest": "1", "source_type": "s", "source": "x"}
        inputs.dataset(DatasetRow(**{**base, part: "x" * most}), [])
        for wrong in ("x" * (most + 1), "nul\0"):
            with pytest.raises(InputError):
                inputs.dataset(DatasetRow(**{**base, part: wrong}), [])
    inputs.dataset(DATA, [Tag("k" * 255, "v" * 500)])
    for tag in (Tag("k" * 256, ""), Tag("k", "v" * 501), Tag("k", "\ud800")):
        with pytest.raises(InputError):
            inputs.dataset(DATA, [tag])
    with pytest.raises(UnfitError):
        inputs.dataset(DATA, [Tag("k", "1"), Tag("k", "2")])
    for links in ({"inputs": ["x" * 37]}, {"outputs": [("x" * 37, 1)]}, {"outputs": [("m", 2**63)]}):
        with pytest.raises(InputError):
            inputs.links(**links)  # type: ignore[arg-type]


def test_only_active_runs_of_the_workspace_take_them(store: Store, by: Actor, appends: Appends) -> None:
    """A deleted run refuses them, one of another workspace is as good as none."""
    with store.transaction() as tx:
        tx.workspaces.add("other")
        home = experiments.create(tx, "other", "there", by=by)
    run, hidden = begin(store, by), begin(store, by, "other", str(home.id))
    with pytest.raises(NotFoundError):
        link(store, appends, hidden, read(DATA))
    with store.transaction() as tx:
        runs.delete(tx, "default", run, by=by)
    with pytest.raises(InputError):
        link(store, appends, run, read(DATA))

    assert of(store, run) == [None]


def test_summaries_say_what_was_read_for_what(store: Store, by: Actor, appends: Appends) -> None:
    """Once for each context, at most twenty experiments at a time, and none of another workspace."""
    with store.transaction() as tx:
        tx.workspaces.add("other")
        hidden = experiments.create(tx, "other", "there", by=by).id
    for context in ("train", "train", "test", None):
        link(store, appends, begin(store, by), read(DATA, context))
    link(store, appends, begin(store, by), read(DatasetRow("a", "2", "s", "s"), ""))
    run = begin(store, by, "other", str(hidden))
    with store.transaction() as tx:
        appends.write_links(tx, Linked("other", run, "eva", read(DATA)))

    with store.read() as tx:
        assert inputs.summaries(tx, "default", ["0", "77", str(hidden)]) == [
            DatasetSummary(0, "a", "2", ""),
            DatasetSummary(0, "d", "1", None),
            DatasetSummary(0, "d", "1", "test"),
            DatasetSummary(0, "d", "1", "train"),
        ]
        for wrong in ([], ["0"] * 21, ["x"]):
            with pytest.raises(InputError):
                inputs.summaries(tx, "default", wrong)


def test_runs_are_found_by_what_they_read(store: Store, by: Actor, appends: Appends) -> None:
    """By name, digest and context; each comparison may be about another dataset, as in MLflow."""
    names = [begin(store, by) for _ in range(3)]
    link(store, appends, names[0], read(DATA, "train"))
    link(store, appends, names[0], read(DatasetRow("e", "2", "s", "s"), "test"))
    link(store, appends, names[1], read(DATA, "Train_1"))
    expected = {
        "dataset.name = 'd'": {"0", "1"},
        "datasets.name != 'd'": {"0"},
        "dataset.digest IN ('2', '3')": {"0"},
        "dataset.context LIKE 'tr%'": {"0"},
        "dataset.context ILIKE 'TR%'": {"0", "1"},
        "dataset.context = 'test' AND dataset.name = 'd'": {"0"},
        "dataset.context NOT IN ('train', 'test')": {"1"},
        "dataset.name = 'nothing'": set(),
    }
    for text, numbers in expected.items():
        assert set(found(store, text, *names)) == numbers, text


def test_what_is_appended_is_one_chain_with_what_else_is(
    store: Store, ledger: Ledger, by: Actor, appends: Appends
) -> None:
    """Rows of every kind are counted and chained, segments are sealed, and a call that failed leaves no gap."""
    run = begin(store, by)
    link(store, appends, run, read(DATA, "train", more="x"))
    store.writer.append(appends.write, Appended("default", run, "eva", [Metric("a", 1.0, 1)])).result()
    made = Linked("default", run, "eva", inputs.links(inputs=["m"], outputs=[("o", 1)]))
    twice = store.writer.submit(lambda tx: [appends.write_links(tx, made), appends.write_links(tx, made)])
    assert isinstance(twice.exception(), UnfitError)
    store.writer.append(appends.write, Appended("default", run, "ana", [Metric("a", 2.0, 1)])).result()
    link(store, appends, run, inputs.links(inputs=["m"], outputs=[("o", 1)]))
    link(store, appends, run, inputs.links(inputs=["m"]))
    with store.transaction() as tx:
        segment = appends.seal(tx)
    link(store, appends, run, inputs.links(inputs=["n"]))

    assert segment is not None
    assert (segment.rows, segment.next, segment.actors) == (6, 7, {"ana": 1, "eva": 5})
    with store.read() as tx:
        assert verify(tx) == []
        assert [row[:2] for row in sorted(inputs.between(tx, 1, 100))] == [
            (1, "dataset"), (2, "dataset_input"), (5, "model_output"), (6, "model_input"), (7, "model_input"),
        ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        sa.update(datasets).values(source="another"),
        sa.update(dataset_input_tags).values(value="another"),
        sa.update(model_outputs).values(step=99),
        sa.delete(model_outputs),
    ],
    ids=["a dataset", "a tag", "a step", "an output taken away"],
)
def test_a_row_that_was_changed_is_noticed(store: Store, by: Actor, appends: Appends, change: sa.Executable) -> None:
    """Whatever of it was changed."""
    run = begin(store, by)
    link(store, appends, run, read(DATA, "train"))
    link(store, appends, run, inputs.links(outputs=[("m", 1)]))
    with store.transaction() as tx:
        tx._connection.execute(change)
    with store.read() as tx:
        assert len(verify(tx)) == 1
