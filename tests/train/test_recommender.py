"""The recommender learns, is measured by what serves it, and answers online as it did offline."""

import json

import msgspec
import numpy as np
import pytest

from bedplate import online
from bedplate.errors import InputError, IntegrityError
from bedplate.features import materialise
from bedplate.records import Comparison, Metric, ModelSignature
from bedplate.serve.recommender import CONFIG, ITEMS, RANKER, Rows, assemble, pair_features
from bedplate.serve.state import key_of
from bedplate.train import recommender
from bedplate.train.windows import Purchases, reader
from tests.train import shop


@pytest.fixture(scope="module")
def trained():
    """One small run: its task, its parameters and its result."""
    task = shop.task()
    return task, msgspec.convert(task.parameters, recommender.Parameters), recommender.train(task)


def metrics(result, metric, slice_="all"):
    return {
        m.model: m.estimate
        for m in msgspec.convert(result.result["metrics"], list[Metric])
        if m.metric == metric and m.slice == slice_
    }


def test_it_learns_what_households_want(trained):
    """On a shop of stable tastes the candidate beats popularity clearly, and is compared with every baseline."""
    *_, result = trained
    comparisons = msgspec.convert(result.result["comparisons"], list[Comparison])
    found = {c.baseline: c.difference for c in comparisons if c.metric == "recall@20" and c.slice == "all"}

    assert set(found) == {"popularity", "last_basket", "own_most_bought", "own_recency_weighted"}
    assert found["popularity"].low > 0
    assert found["own_most_bought"].value > -0.02


def test_what_it_gives_is_json_and_formats_that_run_no_code(trained):
    """Three files, a signature, figures for all slices; nothing needs more than JSON."""
    *_, result = trained

    assert set(result.files) == {RANKER, ITEMS, CONFIG}
    assert json.dumps(result.result, allow_nan=False)
    assert msgspec.convert(result.result["signature"], ModelSignature).predictor == "recommender"
    assert {"all", "light_households", "heavy_households", "age=65+"} <= set(result.result["split"]["slices"])
    assert result.result["checks"]["onnx_difference"] <= 1e-5


def test_the_same_seed_gives_the_same_bytes(trained):
    """Nothing in a run depends on the clock, on threads or on memory addresses."""
    task, _, result = trained

    again = recommender.train(task)

    assert again.files == result.files
    assert again.result == result.result


def test_served_answers_equal_offline_evaluation(trained, tmp_path):
    """Zero skew: what the predictor answers from the online store gives the reported recall to the last digit."""
    task, parameters, result = trained
    predictor = assemble(result.files)
    cut = parameters.as_of[0]
    store = online.open(tmp_path / "online")
    entities = {v.name: (shop.recorded(v), task.tables[v.name]) for v in shop.views()}
    materialise(store, entities, cut)
    offline = reader(task.tables, parameters.views, parameters.columns, cut)
    later = Purchases.of(task.tables["transactions"], parameters.columns).between(cut, None)
    recalls = []
    for household in np.unique(later.household).tolist():
        bought = np.unique(later.product[later.household == household])
        served = predictor.predict({"household_id": np.array([household])}, store)
        ranked = predictor.rank(household, offline)
        assert ranked is not None
        items, scores, _ = ranked

        assert np.array_equal(served.outputs["product_id"][0], items[:20])
        assert np.array_equal(served.outputs["score"][0], scores[:20])
        recalls.append(np.isin(served.outputs["product_id"][0], bought).sum() / len(bought))
    store.close()

    assert np.mean(recalls) == pytest.approx(metrics(result, "recall@20")["candidate"].value, abs=1e-12)


def test_features_of_one_household_equal_those_of_many(trained):
    """Training computes features in batches, serving one by one: the bits are the same."""
    task, parameters, result = trained
    predictor = assemble(result.files)
    past = recommender.window(
        task.tables,
        parameters.views,
        parameters.columns,
        parameters.as_of[1],
        Purchases.of(task.tables["transactions"], parameters.columns).between(parameters.as_of[1], None),
    )
    households = sorted(past.truth)[:40]
    rows, _ = recommender._rows(predictor.config, past, predictor.factors, households)
    together = pair_features(predictor.config, rows)
    for number, household in enumerate(households):
        alone, _ = recommender._rows(predictor.config, past, predictor.factors, [household])

        assert np.array_equal(together[rows.owner == number], pair_features(predictor.config, alone))


def test_nothing_is_learned_from_the_test_weeks(trained):
    """With the test weeks' purchases replaced, the ranker and the factors stay as they are, bit by bit."""
    task, parameters, result = trained
    table = task.tables["transactions"]
    times = table["transaction_timestamp"].to_numpy()
    future = times >= np.datetime64(parameters.as_of[0].replace(tzinfo=None), "us")
    products = np.where(future, 1001, table["product_id"].to_numpy())
    changed = table.set_column(1, "product_id", [products])

    other = recommender.train(type(task)(tables={**task.tables, "transactions": changed}, parameters=task.parameters))

    assert other.files == result.files
    assert other.result["metrics"] != result.result["metrics"]


def test_an_unknown_household_gets_the_popular_products(trained, tmp_path):
    """The declared default, and the log says that it was one."""
    *_, result = trained
    predictor = assemble(result.files)
    store = online.open(tmp_path / "online")

    answer = predictor.predict({"household_id": np.array([10**9])}, store)

    assert answer.outputs["product_id"].shape == (1, 20)
    assert answer.outputs["product_id"][0].tolist() == predictor.factors.popular[:20].tolist()
    assert answer.features == {"fallback": "popular"}
    store.close()


def test_k_bounds_the_list(trained):
    """Fewer may be asked for, never more than the model was judged on."""
    task, parameters, result = trained
    predictor = assemble(result.files)
    store = reader(task.tables, parameters.views, parameters.columns, parameters.as_of[0])

    answer = predictor.predict({"household_id": np.array([1]), "k": np.array([5])}, store)

    assert answer.outputs["score"].shape == (1, 5)
    assert answer.entity == "1"
    assert np.all(np.diff(answer.outputs["score"][0]) <= 0)
    assert json.loads(json.dumps(answer.features)) == answer.features
    with pytest.raises(InputError, match="cannot be asked for"):
        predictor.predict({"household_id": np.array([1]), "k": np.array([21])}, store)


def test_features_of_another_shape_are_refused(trained):
    """Online features that were computed by other views are never read as these."""
    task, parameters, result = trained
    predictor = assemble(result.files)
    store = reader(task.tables, parameters.views, parameters.columns, parameters.as_of[0])
    store._values["household_recent"][key_of(1)] = b"\0\0\0\0" + bytes(40)

    with pytest.raises(IntegrityError, match="other columns"):
        predictor.predict({"household_id": np.array([1])}, store)


def test_validation_never_sees_the_test_weeks(trained):
    """It is a run one window earlier, with everything from the test cut on removed."""
    task, parameters, _ = trained

    result = recommender.validate(task)

    assert result.result["split"]["test_from"].startswith(f"{parameters.as_of[1]:%Y-%m-%d}")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"weight": 3}, "weight"),
        ({"as_of": ["2017-03-01T00:00:00Z"]}, "no past to learn from"),
        ({"as_of": ["2011-03-01T00:00:00Z", "2011-02-01T00:00:00Z"]}, "no features were computed"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(trained, change, found):
    """The error names what is wrong."""
    task, *_ = trained
    bad = type(task)(tables=task.tables, parameters={**task.parameters, **change})

    with pytest.raises(InputError, match=found):
        recommender.train(bad)


def test_a_household_without_candidates_in_a_group_has_no_group_features(trained):
    """A product of a type never bought before counts zero, and its last purchase is missing."""
    *_, result = trained
    config = assemble(result.files).config
    width = sum(len(v.columns) for v in config.products)
    products = np.zeros((2, width), np.float32)
    products[:, 0] = [5, 6]
    pairs = np.ones((2, len(config.pairs.columns)), np.float32)
    pairs[1] = -1
    rows = Rows(
        owner=np.zeros(2, np.intp),
        households=np.ones((1, len(config.household.columns)), np.float32),
        products=products,
        pairs=pairs,
        known=np.array([True, False]),
        affinity=np.zeros(2, np.float32),
    )

    made = dict(zip(config.features, pair_features(config, rows).T, strict=True))

    assert made["type_count"].tolist() == [1, 0]
    assert made["type_last"].tolist() == [1, -1]
    assert made["category_count"].tolist() == [1, 1]
