"""What holds for logged models, on SQLite and on PostgreSQL."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from bedplate import clock
from bedplate.errors import InputError, NotFoundError, StateError, UnfitError
from bedplate.ledger import Ledger, Signer, new_key
from bedplate.store import Store
from bedplate.store.logged_models import READY, UPLOAD_FAILED
from bedplate.store.model_search import DatasetFilter
from bedplate.tracking import experiments, logged_models, runs
from bedplate.tracking.actors import Actor
from bedplate.tracking.appends import Appended, Appends, verify
from bedplate.tracking.logged_models import Key, LoggedModelPage
from bedplate.tracking.validation import Metric, Param, Tag
from tests.laws import examples

T0 = 1_700_000_000_000
NO_MODEL = "m-" + "0" * 32


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


@pytest.fixture
def run(store: Store, by: Actor) -> str:
    """A run in the default experiment."""
    return begin(store, by)


def begin(store: Store, by: Actor) -> str:
    """Begin a run in the default experiment, and give its id."""
    with store.transaction() as tx:
        return runs.create(tx, "default", "0", by=by).runs[0].id


def create(store: Store, by: Actor, name: str = "", **more: Any) -> str:
    """Begin a model in the default experiment, and give its id."""
    with store.transaction() as tx:
        return logged_models.create(tx, "default", "0", by=by, name=name, **more).models[0].id


def log(store: Store, appends: Appends, run: str, *values: tuple[Any, ...], key: str = "acc") -> None:
    """Log (model, value, timestamp, step[, dataset, digest]) to a run."""
    item = Appended("default", run, "eva")
    for model, value, timestamp, step, *dataset in values:
        metric = Metric(key, value, timestamp, step)
        told = logged_models.measured(metric, model, *(dataset or ("", "")))
        assert told is not None
        item = item._replace(metrics=[*item.metrics, metric], measured=[*item.measured, told])
    store.writer.append(appends.write, item).result()


def get(store: Store, model: str) -> LoggedModelPage:
    """One model, deleted or not."""
    with store.read() as tx:
        return logged_models.get(tx, "default", model, allow_deleted=True)


def at(second: int) -> AbstractContextManager[None]:
    """The clock stands at this second."""
    return clock.frozen(datetime.fromtimestamp(second, UTC))


def found(store: Store, filter: str = "", **more: Any) -> list[str]:
    """The names of the models of the default experiment that match."""
    with store.read() as tx:
        return [row.name for row in logged_models.search(tx, "default", ["0"], filter=filter, **more).models]


def actions(store: Store, model: str) -> list[str]:
    """What the ledger holds about a model, in order."""
    with store.read() as tx:
        rows = tx.ledger.recent(resource=f"logged_model/{model}")
    return [msgspec.json.decode(row.entry)["action"] for row in reversed(rows)]


# --------------------------------------------------------------------------------------------------------------- life


def test_a_model_comes_back_as_it_was_made(store: Store, by: Actor) -> None:
    """With an id and a place that the server gave, params and tags by name, and a name if it was given none."""
    with store.transaction() as tx:
        made = logged_models.create(
            tx, "default", "0", by=by, name="m", model_type="agent", source_run="r" * 32,
            params=[Param("b", "1"), Param("a", "x" * 5000)], tags=[Tag("t", "é")],
        )  # fmt: skip
    page = get(store, made.models[0].id)

    row = page.models[0]
    assert made == page
    assert (row.name, row.model_type, row.source_run, row.status, row.status_message) == (
        "m",
        "agent",
        "r" * 32,
        1,
        None,
    )
    assert row.artifact_location == f"mlflow-artifacts:/0/models/{row.id}/artifacts"
    assert (page.params[row.key], page.tags[row.key]) == ([("a", "x" * 5000), ("b", "1")], [("t", "é")])
    assert get(store, create(store, by)).models[0].name.count("-") == 2


def test_what_does_not_fit_is_refused(store: Store, by: Actor) -> None:
    """Names that would mean something in an address, what is too long or no text, what is given twice."""
    refused: list[tuple[type[Exception], dict[str, Any]]] = [
        *((InputError, {"name": f"a{character}b"}) for character in "/:.%\"'"),
        (InputError, {"name": "x" * 501}),
        (InputError, {"name": "nul\0"}),
        (InputError, {"model_type": "x" * 501}),
        (InputError, {"source_run": "x" * 33}),
        (InputError, {"params": [Param("k" * 256, "v")]}),
        (InputError, {"tags": [Tag("k", "half \ud800")]}),
        (UnfitError, {"params": [Param("a", "1"), Param("a", "1")]}),
        (UnfitError, {"tags": [Tag("a", "1"), Tag("a", "2")]}),
    ]
    for error, given_ in refused:
        with pytest.raises(error):
            create(store, by, **given_)
    with store.transaction() as tx:
        experiments.delete(tx, "default", "0", by=by)
    with pytest.raises(InputError):
        create(store, by)

    assert found(store) == []


def test_the_upload_ends_and_each_change_is_one_entry(store: Store, by: Actor) -> None:
    """Finishing, tags, params and deletion change what they say, and leave one entry each in the ledger."""
    model = create(store, by, "m", tags=[Tag("a", "1")])
    before = get(store, model).models[0]
    with store.transaction() as tx:
        ended = logged_models.finish(tx, "default", model, READY, by=by).models[0]
        logged_models.set_tags(tx, "default", model, [Tag("a", "2"), Tag("b", "3"), Tag("b", "4")], by=by)
        logged_models.set_tags(tx, "default", model, [], by=by)
        logged_models.delete_tag(tx, "default", model, "a", by=by)
        logged_models.log_params(tx, "default", model, [Param("p", "1")], by=by)
        logged_models.delete(tx, "default", model, by=by)
    page = get(store, model)

    row = page.models[0]
    assert (before.status, ended.status, row.status, row.lifecycle) == (1, READY, READY, "deleted")
    assert row.updated >= ended.updated >= before.updated == before.created
    assert (page.tags[row.key], page.params[row.key]) == ([("b", "4")], [("p", "1")])
    assert found(store) == []
    assert actions(store, model) == [
        f"logged_model.{action}" for action in ("create", "finish", "tag", "untag", "params", "delete")
    ]
    with store.read() as tx, pytest.raises(NotFoundError):
        logged_models.get(tx, "default", model)


def test_an_id_that_is_no_text_is_nobodys(store: Store) -> None:
    """PostgreSQL cannot even be asked for it."""
    with store.read() as tx:
        for name in ("", "nul\0", "half \ud800"):
            assert tx.logged_models.find("default", name) is None
            assert tx.runs.find("default", name) is None


def test_params_never_change(store: Store, by: Actor) -> None:
    """A param that is there is refused, whatever its value, and so are those beside it."""
    model = create(store, by, params=[Param("p", "1")])
    for again in ("1", "2"):
        with store.transaction() as tx, pytest.raises(UnfitError):
            logged_models.log_params(tx, "default", model, [Param("new", "x"), Param("p", again)], by=by)

    page = get(store, model)
    assert page.params[page.models[0].key] == [("p", "1")]


def test_a_model_of_another_workspace_is_as_good_as_none(store: Store, by: Actor, appends: Appends, run: str) -> None:
    """It is neither shown nor found nor changed, and nothing can be logged about it."""
    with store.transaction() as tx:
        tx.workspaces.add("other")
        home = experiments.create(tx, "other", "there", by=by)
        model = logged_models.create(tx, "other", str(home.id), by=by, name="hidden").models[0]
    changes: list[Any] = [
        lambda tx: logged_models.get(tx, "default", model.id, allow_deleted=True),
        lambda tx: logged_models.finish(tx, "default", model.id, READY, by=by),
        lambda tx: logged_models.delete(tx, "default", model.id, by=by),
        lambda tx: logged_models.set_tags(tx, "default", model.id, [Tag("a", "b")], by=by),
        lambda tx: logged_models.delete_tag(tx, "default", model.id, "a", by=by),
        lambda tx: logged_models.log_params(tx, "default", model.id, [Param("a", "b")], by=by),
    ]
    for change in changes:
        with store.transaction() as tx, pytest.raises(NotFoundError, match=f"no logged model '{model.id}'"):
            change(tx)
    with pytest.raises(UnfitError):
        log(store, appends, run, (model.id, 0.5, T0, 0))
    with store.read() as tx:
        assert logged_models.search(tx, "default", ["0", str(home.id)]).models == []
        assert [row.id for row in logged_models.search(tx, "other", ["0", str(home.id)]).models] == [model.id]
        assert logged_models.get(tx, "other", model.id).models[0].status == 1


# ------------------------------------------------------------------------------------------------------------ metrics


def test_values_about_models_are_values_of_their_run_as_well(
    store: Store, by: Actor, appends: Appends, run: str
) -> None:
    """In the order they were logged, with run and dataset; the same one again changes nothing; the chain holds."""
    one, two = create(store, by), create(store, by)
    values = [
        (one, 0.5, T0, 1),
        (one, 0.5, T0, 1, "train", "d1"),
        (one, 0.25, T0, 1, "train", "d1"),
        (two, math.nan, T0, 1, "train", "d1"),
        (one, -math.inf, T0 - 1, 0, "test" * 125, "d" * 36),
    ]
    log(store, appends, run, *values)
    log(store, appends, run, *values)
    page = get(store, one)
    with store.read() as tx:
        history = tx.metrics.history(tx.runs.get("default", run).key, "acc")
        assert verify(tx) == []

    assert [tuple(each) for each in page.metrics[page.models[0].key]] == [
        ("acc", value, timestamp, step, run, *(dataset or ("", "")))
        for model, value, timestamp, step, *dataset in values
        if model == one
    ]
    assert math.isnan(get(store, two).metrics[get(store, two).models[0].key][0].value)
    assert sorted(history) == [
        (T0 - 1, 0, -math.inf, False),
        (T0, 1, 0.0, True),
        (T0, 1, 0.25, False),
        (T0, 1, 0.5, False),
    ]


def test_a_value_about_no_model_is_refused_alone(store: Store, by: Actor, appends: Appends, run: str) -> None:
    """Nothing of its call is logged, and calls in the same commit are not touched."""
    model = create(store, by)
    items = [
        Appended(
            "default", run, "eva", [Metric("a", 1.0, T0)], measured=[logged_models.Measured(Metric("a", 1.0, T0), each)]
        )
        for each in (model, NO_MODEL, model)
    ]
    futures = [store.writer.append(appends.write, item) for item in items]
    errors = [future.exception() for future in futures]

    assert [type(error) for error in errors] == [type(None), UnfitError, type(None)]
    page = get(store, model)
    assert len(page.metrics[page.models[0].key]) == 1
    with store.read() as tx:
        assert verify(tx) == []


def test_a_dataset_of_a_value_has_name_and_digest(store: Store) -> None:
    """Or neither; and without a model there is nothing to log about one."""
    metric = Metric("a", 1.0, T0)
    for name, digest in (("d", ""), ("", "1"), ("d" * 501, "1"), ("d", "1" * 37), ("nul\0", "1")):
        with pytest.raises(InputError):
            logged_models.measured(metric, NO_MODEL, name, digest)

    assert logged_models.measured(metric, "", "d", "1") is None


# ------------------------------------------------------------------------------------------------------------- search


@pytest.fixture
def shelf(store: Store, by: Actor, appends: Appends, run: str) -> dict[str, str]:
    """Models to search among: a, b, c, d, from the oldest on."""
    other = begin(store, by)
    told: dict[str, dict[str, Any]] = {
        "a": {"model_type": "tree", "source_run": run, "params": [Param("p", "1"), Param("two words", "x")]},
        "b": {"model_type": "Tree", "params": [Param("p", "1" * 400)], "tags": [Tag("t", "red")]},
        "c": {"source_run": other, "params": [Param("p", "1" * 399 + "2")], "tags": [Tag("t", "Red")]},
        "d": {"tags": [Tag("t", "blue_1")]},
    }
    ids = {}
    for second, (name, more) in enumerate(told.items(), 1):
        with at(second):
            ids[name] = create(store, by, name, **more)
    for second, (name, status) in enumerate(zip("dcba", (READY, READY, UPLOAD_FAILED, READY), strict=True), 5):
        with at(second), store.transaction() as tx:
            logged_models.finish(tx, "default", ids[name], status, by=by)
    log(store, appends, run, (ids["a"], 0.9, 10, 1, "train", "1"), (ids["a"], 0.5, 20, 2, "test", "1"))
    log(store, appends, other, (ids["b"], 0.7, 10, 5, "train", "2"), (ids["b"], 0.8, 10, 4, "train", "1"))
    log(store, appends, other, (ids["c"], math.nan, 10, 1))
    log(store, appends, run, (ids["b"], 3.0, 10, 1), (ids["c"], math.inf, 10, 1), key="loss")
    return ids


def test_filters_find_what_they_say(store: Store, shelf: dict[str, str]) -> None:
    """Attributes, params, tags and every value that was ever logged."""
    expected = {
        "": "dcba",
        "name = 'a'": "a",
        "attributes.name != 'a'": "dcb",
        "name IN ('a', 'c')": "ca",
        "name NOT IN ('a', 'c')": "db",
        f"model_id = '{shelf['b']}'": "b",
        "model_type LIKE 'T%'": "b",
        "model_type ILIKE 't%'": "ba",
        "model_type = ''": "dc",
        "source_run_id != ''": "ca",
        "status = 'READY'": "dca",
        "status != 'LOGGED_MODEL_READY'": "b",
        "status IN ('3', 'PENDING')": "b",
        "status = 'nothing'": "",
        "experiment_id = '0'": "dcba",
        "experiment_id NOT IN ('0', '5')": "",
        "lifecycle_stage = 'active'": "dcba",
        "status_message != 'x'": "",
        "artifact_location LIKE '%/artifacts'": "dcba",
        "creation_timestamp > 1999.5": "dcb",
        "creation_time <= 2000 AND creation_timestamp_ms != 1000": "b",
        "last_updated_timestamp >= 7000": "ba",
        "params.p = '1'": "a",
        f"params.p = '{'1' * 400}'": "b",
        "params.p != '1'": "cb",
        "params.p LIKE '1%2'": "c",
        "params.p IN ('1', '2')": "a",
        "params.p NOT IN ('1', '2')": "cb",
        "params.`two words` = 'x'": "a",
        "tags.t = 'red'": "b",
        "tags.t ILIKE 'RED'": "cb",
        "tags.t LIKE 'blue_1'": "d",
        "metrics.acc > 0.85": "a",
        "metrics.acc < 0.6 AND metrics.acc > 0.85": "a",
        "metrics.acc != 0.5": "cba",
        "metrics.acc = 0": "",
        "metrics.loss > 5": "c",
        "metrics.acc < 1 AND metrics.loss >= 3": "b",
        "name = 'a' AND params.p = '1' AND metrics.acc >= 0.5 AND source_run_id != ''": "a",
    }
    for text, names in expected.items():
        assert "".join(found(store, text)) == names, text


def test_datasets_narrow_what_values_count(store: Store, shelf: dict[str, str]) -> None:
    """Of one digest or of any; several are alternatives; without a comparison of metrics some value is enough."""
    train, train_1, test = DatasetFilter("train"), DatasetFilter("train", "1"), DatasetFilter("test", "1")

    assert found(store, datasets=[train]) == ["b", "a"]
    assert found(store, datasets=[train_1]) == ["b", "a"]
    assert found(store, datasets=[DatasetFilter("train", "2")]) == ["b"]
    assert found(store, datasets=[test]) == ["a"]
    assert found(store, "metrics.acc < 0.75", datasets=[train]) == ["b"]
    assert found(store, "metrics.acc < 0.75", datasets=[train_1]) == []
    assert found(store, "metrics.acc < 0.75", datasets=[train_1, test]) == ["a"]
    assert found(store, "name = 'c'", datasets=[train]) == []
    with pytest.raises(InputError):
        found(store, datasets=[DatasetFilter("", "1")])


def test_orders_put_what_lacks_a_value_last(store: Store, shelf: dict[str, str]) -> None:
    """By the value logged last; NaN follows the numbers; then the newest first."""
    ascending = Key("metrics.acc")
    descending = Key("metrics.acc", False)

    assert found(store, order_by=[ascending]) == ["a", "b", "c", "d"]
    assert found(store, order_by=[descending]) == ["b", "a", "c", "d"]
    assert found(store, order_by=[ascending._replace(dataset_name="train")]) == ["b", "a", "d", "c"]
    assert found(store, order_by=[ascending._replace(dataset_name="train", dataset_digest="1")]) == ["b", "a", "d", "c"]
    assert found(store, order_by=[ascending._replace(dataset_digest="2")]) == ["b", "d", "c", "a"]
    assert found(store, order_by=[Key("metrics.loss", False)]) == ["c", "b", "d", "a"]
    assert found(store, order_by=[Key("status", False), Key("name")]) == ["b", "a", "c", "d"]
    assert found(store, order_by=[Key("status_message"), Key("last_updated_timestamp")]) == ["d", "c", "b", "a"]
    assert found(store, order_by=[Key("name"), Key("name", False)]) == ["a", "b", "c", "d"]
    for field in ("nothing", "params.p", "attributes.name", "", "metrics.nul\0"):
        with pytest.raises(InputError):
            found(store, order_by=[Key(field)])


def test_a_token_belongs_to_its_query(store: Store, shelf: dict[str, str]) -> None:
    """Another filter, order, dataset or workspace refuses it, and so does what is no position."""
    with store.read() as tx:
        token = logged_models.search(tx, "default", ["0"], max_results=2).next_page_token
        assert token is not None
        assert [row.name for row in logged_models.search(tx, "default", ["0"], page_token=token).models] == ["b", "a"]
        for more in (
            {"filter": "name != ''"},
            {"order_by": [Key("name")]},
            {"datasets": [DatasetFilter("d")]},
            {"within": ["0", "1"]},
            {"page_token": "e30="},
            {"page_token": "%"},
        ):
            with pytest.raises(InputError):
                logged_models.search(tx, "default", **{"within": ["0"], "page_token": token, **more})  # type: ignore[arg-type]
        with pytest.raises(InputError):
            logged_models.search(tx, "default", ["0"], max_results=-1)
        for position in (
            (0, "x", 0, "m"),
            (0, 5),
            (2, None, 0, "m"),
            (0, 2**70, 0, "m"),
            (0, True, 0, "m"),
            (0, 5, 0, "\0"),
        ):
            with pytest.raises(InputError):
                tx.model_search.models([0], (), (), limit=5, after=position)


ORDERS: tuple[tuple[Key, ...], ...] = (
    (),
    (Key("name"),),
    (Key("name", False), Key("creation_timestamp")),
    (Key("metrics.m"),),
    (Key("metrics.m", False), Key("name")),
    (Key("metrics.m", False, "train"),),
    (Key("status"), Key("metrics.m")),
    (Key("experiment_id", False), Key("model_id", False)),
)
VALUES = (0.25, 0.5, 0.75, math.nan, math.inf)
FILTERS = ("", "metrics.m > 0.5", "metrics.m != 0.5", "tags.t = '1'", "params.p LIKE '%1%'", "name IN ('a', 'b')")


@pytest.fixture
def crowd(store: Store, by: Actor, appends: Appends, run: str) -> list[str]:
    """Sixty models in two experiments, with many equal values; the ids of the experiments."""
    with store.transaction() as tx:
        second = str(experiments.create(tx, "default", "second", by=by).id)
    models = []
    for number in range(60):
        with at(number // 4), store.transaction() as tx:
            page = logged_models.create(
                tx, "default", (second, "0")[number % 2], by=by, name="abc"[number % 3],
                params=[Param("p", str(number % 7))], tags=[Tag("t", str(number % 3))] if number % 5 else [],
            )  # fmt: skip
        models.append(page.models[0])
    values = [
        (
            row.id,
            (0.25, 0.5, 0.75, math.nan, math.inf)[number % 5],
            number % 3,
            0,
            *(("train", "1") if number % 2 else ()),
        )
        for number, row in enumerate(models)
        if number % 4
    ]
    log(store, appends, run, *values, key="m")
    return [second, "0"]


@examples(8, suppress=(HealthCheck.function_scoped_fixture,))
@given(
    order=st.sampled_from(ORDERS),
    filter=st.sampled_from(FILTERS),
    both=st.booleans(),
    sizes=st.lists(st.integers(1, 25), min_size=1, max_size=4),
)
def test_pages_of_any_size_give_every_model_once_and_in_order(
    store: Store, crowd: list[str], order: Sequence[Key], filter: str, both: bool, sizes: list[int]
) -> None:
    """Whatever the order, the filter and the sizes of the pages, over one experiment and over two."""
    within = crowd if both else crowd[:1]
    with store.read() as tx:
        whole = logged_models.search(tx, "default", within, filter=filter, order_by=order, max_results=1000)
        seen: list[str] = []
        token: str | None = ""
        for turn in range(100):
            page = logged_models.search(
                tx, "default", within, filter=filter, order_by=order,
                max_results=sizes[turn % len(sizes)], page_token=token,
            )  # fmt: skip
            seen += [row.id for row in page.models]
            token = page.next_page_token
            if token is None:
                break

    assert seen == [row.id for row in whole.models]
    assert len(set(seen)) == len(seen) > 0
    assert [row.id for row in whole.models] == [row.id for row in sorted(whole.models, key=_sorted_by(order, whole))]


def _sorted_by(order: Sequence[Key], page: LoggedModelPage) -> Any:
    """How a person would sort the models."""

    def key(row: Any) -> tuple[Any, ...]:
        parts: list[Any] = []
        for each in (*order, Key("creation_timestamp", False), Key("model_id")):
            kind, _, name = each.field_name.partition(".")
            if not name:
                column = {"creation_timestamp": "created", "model_id": "id", "experiment_id": "experiment"}
                value: Any = getattr(row, column.get(kind, kind))
            else:
                values = [v for v in page.metrics.get(row.key, ()) if each.dataset_name in ("", v.dataset_name)]
                if not values or math.isnan(values[-1].value):
                    parts.append((1 if values else 2, 0))
                    continue
                value = values[-1].value
            down = not each.ascending
            parts.append(
                (0, tuple(-ord(c) for c in value) if down and isinstance(value, str) else -value if down else value)
            )
        return tuple(parts)

    return key


# --------------------------------------------------------------------------------------------- models of former days


def test_models_of_former_days_are_listed_in_a_tag(store: Store, by: Actor, run: str) -> None:
    """With what MLflow keeps of them, in its words."""
    text = '{"artifact_path": "m", "flavors": {"f": {"a": 1, "config": {"b": 2}}, "g": 5}, "utc_time_created": "now"'
    first = logged_models.described(text + ', "run_id": "r", "other": 1}')
    second = logged_models.described(text + ', "run_id": null, "model_uuid": "u"}')
    with store.transaction() as tx:
        logged_models.add_to_history(tx, "default", run, first, by=by)
        logged_models.add_to_history(tx, "default", run, second, by=by)
    with store.read() as tx:
        tags = dict(tx.runs.tags([tx.runs.get("default", run).key]).popitem()[1])

    assert tags[logged_models.HISTORY_TAG] == (
        '[{"run_id": "r", "artifact_path": "m", "utc_time_created": "now", "model_uuid": null, '
        '"flavors": {"f": {"a": 1}, "g": 5}}, '
        '{"artifact_path": "m", "utc_time_created": "now", "model_uuid": "u", "flavors": {"f": {"a": 1}, "g": 5}}]'
    )


def test_what_is_no_description_of_a_model_is_refused(store: Store, by: Actor, run: str) -> None:
    """No JSON, no object, too deep, or without what is needed; and a tag that is no list is left alone."""
    whole = {"artifact_path": "m", "flavors": {}, "utc_time_created": "now", "run_id": run}
    bad = (
        "{",
        "[]",
        "5",
        "[" * 100_000,
        "{}",
        '{"artifact_path": 1, "flavors": 3, "utc_time_created": 1, "run_id": 1}',
        "\ud800",
    )
    for text in bad:
        with pytest.raises(InputError):
            logged_models.described(text)
    with store.transaction() as tx:
        runs.set_tag(tx, "default", run, Tag(logged_models.HISTORY_TAG, "mine"), by=by)
    with store.transaction() as tx, pytest.raises(StateError):
        logged_models.add_to_history(tx, "default", run, whole, by=by)
