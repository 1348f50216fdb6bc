"""Entity keys in a request are joined with online features: trained on what is served, defaults and stale ones told."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bedplate import online
from bedplate.compute.task import Result, Task
from bedplate.errors import InputError, IntegrityError, UnavailableError
from bedplate.features import materialise
from bedplate.ids import digest_bytes
from bedplate.records import ModelSignature, TensorSpec, ViewRecord
from bedplate.serve import joining
from bedplate.serve.joining import Joined
from bedplate.serve.predictors import NO_FEATURES
from bedplate.serve.state import View, key_of, pack_row, packed
from bedplate.serve.supervisor import Supervisor
from bedplate.train import tabular
from bedplate.train.joined import Join, config_of, join
from tests.serve.support import World, client, log_of

NOW = datetime.now(UTC).replace(microsecond=0)
HOURS = [NOW - timedelta(hours=h) for h in (30, 20, 1)]


def view() -> pa.Table:
    """What households spent and visited, at three moments; household 3 was never seen before the last of them."""
    rows = [(1, 0, 10.0, 1.0), (2, 0, 90.0, 2.0), (1, 1, 20.0, 3.0), (2, 1, 80.0, None), (3, 2, 5.0, 9.0)]
    rows += [(1, 2, 30.0, 5.0), (2, 2, 70.0, 6.0)]
    return pa.table(
        {
            "household": [r[0] for r in rows],
            "as_of": pa.array([HOURS[r[1]] for r in rows], pa.timestamp("us", "UTC")),
            "spent": pa.array([r[2] for r in rows], pa.float32()),
            "visits": pa.array([r[3] for r in rows], pa.float32()),
        }
    )


def trained(**features: Any) -> Result:
    """Whether a coupon is used depends on what the household spent and on the coupon."""
    random = np.random.default_rng(1)
    n = 200
    household = random.integers(1, 3, n)
    coupon = random.normal(size=n)
    table = pa.table(
        {
            "household": household,
            "at": pa.array([HOURS[1] + timedelta(minutes=int(m)) for m in random.integers(1, 600, n)]),
            "coupon": coupon,
            "used": np.where((household == 2) ^ (coupon > 0), "yes", "no"),
        }
    )
    chosen = {"view": "recent", "entity": "household", "defaults": {"visits": 2.5}, "max_age": "12 h", **features}
    parameters = {"target": "used", "time": "at", "holdout": "2 h", "rounds": 20, "features": chosen}
    return tabular.train(Task(tables={"coupons": table, "recent": view()}, parameters=parameters, seed=3))


@pytest.fixture(scope="module")
def release() -> Result:
    return trained()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def url(world: World, release: Result) -> Iterator[str]:
    store = online.Scoped(online.open(world.home.online), world.spec().use_case)
    materialise(
        store, {"recent": (ViewRecord(digest=digest_bytes(b""), entity=("household",), rests_on=()), view())}, HOURS[2]
    )
    store.put_many("recent", [(key_of(4), pack_row(("spent", "visits"), np.array([7, 8], np.float32), old()))])
    store.close()
    signature = msgspec.convert(release.result["signature"], ModelSignature)
    made = world.bundle(dict(release.files), signature)
    with Supervisor(world.home) as supervisor:
        yield supervisor.start(world.spec(made, name="coupons", mode="durable"))


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with client(url) as http:
        yield http


def old() -> int:
    return int((NOW - timedelta(hours=13)).timestamp() * 1e6)


def logged(world: World, answer: httpx.Response) -> dict[str, Any]:
    records = log_of(world)
    (record,) = [r for r in records if r["id"] == answer.headers["x-prediction-id"]]
    found: dict[str, Any] = record
    return found


def test_a_key_is_joined_with_its_features_and_the_log_has_them(world: World, http: httpx.Client) -> None:
    answer = http.post("/predict", json={"household": 2, "coupon": -1.0})
    record = logged(world, answer)

    assert answer.json()["score"] > 0.5 > http.post("/predict", json={"household": 1, "coupon": -1.0}).json()["score"]
    assert record["features"] == {"spent": 70.0, "visits": 6.0}
    assert (record["entity"], record["inputs"]) == ("2", {"household": [2], "coupon": [-1.0]})


def test_the_default_stands_for_the_unknown_and_the_stale_and_the_log_says_so(world: World, http: httpx.Client) -> None:
    unknown = http.post("/predict", json={"household": 99, "coupon": 1.0})
    stale = http.post("/predict", json={"household": 4, "coupon": 1.0})

    assert logged(world, unknown)["features"] == {
        "spent": -1.0, "visits": 2.5, "missing": {"recent": {"unknown": ["99"]}}
    }  # fmt: skip
    assert logged(world, stale)["features"]["missing"] == {"recent": {"stale": ["4"]}}
    assert logged(world, stale)["features"]["spent"] == -1.0
    assert unknown.json() == stale.json()


def test_tensors_ask_the_same_and_rows_keep_to_themselves(world: World, http: httpx.Client) -> None:
    alone = [http.post("/predict", json={"household": h, "coupon": 0.5}).json()["score"] for h in (1, 99, 2)]
    tensors = [
        {"name": "household", "datatype": "INT64", "shape": [3, 1], "data": [1, 99, 2]},
        {"name": "coupon", "datatype": "FP32", "shape": [3, 1], "data": [0.5] * 3},
    ]
    answer = http.post("/v2/models/coupons/infer", json={"inputs": tensors})

    assert answer.json()["outputs"][0]["data"] == alone
    record = logged(world, answer)
    assert record["features"]["spent"] == [30.0, -1.0, 70.0]
    assert record["features"]["missing"] == {"recent": {"unknown": ["99"]}}
    assert record["entity"] == ""
    metadata = http.get("/v2/models/coupons").json()
    assert [i["name"] for i in metadata["inputs"]] == ["household", "coupon"]


class Slow:
    """A store that answers after its time."""

    def get(self, namespace: str, key: bytes) -> bytes | None:
        return None

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        time.sleep(0.6)
        return [pack_row(("a",), np.array([5], np.float32), 0)] * len(keys)


class Away(Slow):
    """A store whose server goes away after the first view."""

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        if namespace == "two":
            raise UnavailableError("the server does not answer")
        return [pack_row(("a",), np.array([5], np.float32), 0)] * len(keys)


@pytest.mark.parametrize("store", [Slow(), Away()])
def test_what_cannot_be_read_in_time_counts_as_missing(store: Slow) -> None:
    config = Joined(
        entity="household",
        views=(View(namespace="one", columns=("a",)), View(namespace="two", columns=("b",))),
        features=("a", "b"),
        defaults={"b": 4.0},
        within=0.5,
    )
    graph = helper.make_graph(
        [helper.make_node("Sub", ["a", "b"], ["score"])],
        "difference",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("a", "b")],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    signature = joining.signature(config, (), (TensorSpec(name="score", datatype="FP32", shape=(-1, 1)),))

    answer = joining.JoiningPredictor(config, model, signature).predict({"household": np.array([[7]])}, store)

    assert answer.outputs["score"].tolist() == [[1.0]]
    assert answer.features == {"a": 5.0, "b": 4.0, "missing": {"two": {"late": ["7"]}}}


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 50), st.floats(0, 9, width=32)), max_size=12),
       st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), min_size=1, max_size=8))  # fmt: skip
def test_a_row_learns_from_the_newest_features_known_at_its_time(
    known: list[tuple[int, int, float]], asked: list[tuple[int, int]]
) -> None:
    """The joined value is that of a walk over all features, for every row."""
    known = list({(entity, at): (entity, at, value) for entity, at, value in known}.values())
    start = datetime(2020, 1, 1, tzinfo=UTC)

    def times(minutes: list[int]) -> pa.Array:
        return pa.array([start + timedelta(minutes=m) for m in minutes], pa.timestamp("us", "UTC"))

    features = pa.table(
        {
            "e": pa.array([k[0] for k in known], pa.int64()),
            "as_of": times([k[1] for k in known]),
            "x": pa.array([k[2] for k in known], pa.float32()),
        }
    )
    labels = pa.table({"e": pa.array([a[0] for a in asked], pa.int64()), "t": times([a[1] for a in asked])})
    config = config_of(Join(view="v", entity="e", defaults={"x": -7.0}, max_age="20 min"), {"v": features})

    joined = join(labels, "t", {"v": features}, config)["x"].to_pylist()

    for (entity, at), value in zip(asked, joined, strict=True):
        before = max(((k[1], k[2]) for k in known if k[0] == entity and k[1] <= at), default=(-100, 0.0))
        assert value == (before[1] if at - before[0] <= 20 else -7.0)


@pytest.mark.parametrize(
    ("features", "match"),
    [
        ({"view": "other"}, "2 tables"),
        ({"max_age": "soon"}, "cannot be joined"),
        ({"defaults": {"height": 1.0}}, "height"),
        ({"entity": "customer"}, "customer"),
    ],
)
def test_what_cannot_be_joined_is_said(features: dict[str, Any], match: str) -> None:
    with pytest.raises(InputError, match=match):
        trained(**features)


def test_a_release_whose_parts_do_not_fit_is_not_loaded(release: Result) -> None:
    signature = msgspec.convert(release.result["signature"], ModelSignature)
    files = dict(release.files)
    for changed, promised in (
        ({joining.MODEL: files[joining.MODEL]}, signature),
        (
            files | {joining.CONFIG: files[joining.CONFIG].replace(b'"entity":"household"', b'"entity":"who"')},
            signature,
        ),
        (files, msgspec.structs.replace(signature, inputs=signature.inputs[::-1])),
        (files | {joining.CONFIG: b"{}"}, signature),
    ):
        with pytest.raises(IntegrityError):
            joining.assemble(changed, promised)
    good = joining.assemble(files, signature)
    asked = {"household": np.array([[1]]), "coupon": np.array([[0.0]], np.float32)}
    assert good.predict(asked, NO_FEATURES).features["missing"] == {"recent": {"unknown": ["1"]}}


def test_several_views_and_features_on_demand_are_the_same_in_training_and_in_a_request() -> None:
    """An answer rests on what training saw: values of both views, and what is made of them and of the request."""
    stamps = pa.array([HOURS[0], HOURS[0]], pa.timestamp("us", "UTC"))
    base: dict[str, Any] = {"e": [1, 2], "as_of": stamps}
    tables = {
        "one": pa.table({**base, "seen": stamps, "a": pa.array([2.0, None], pa.float32())}),
        "two": pa.table({**base, "b": pa.array([5.0, 6.0], pa.float32())}),
    }
    asked = Join(view=("one", "two"), entity="e", on_demand={"c": "x / a + b", "d": "c * 2"}, defaults={"c": 0.5})
    config = config_of(asked, tables)
    labels = pa.table({"e": [1, 2, 9], "t": pa.array([HOURS[1]] * 3), "x": [4.0, 4.0, 4.0]})

    joined = join(labels, "t", tables, config)

    assert {name: joined[name].to_pylist() for name in "abcd"} == {
        "a": [2, -1, -1], "b": [5, 6, -1], "c": [7, 0.5, 0.5], "d": [14, 1, 1],
    }  # fmt: skip
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in ("a", "b", "c", "d", "x")]
    graph = helper.make_graph([helper.make_node("Sum", ["a", "b", "c", "d", "x"], ["score"])], "sum", values,
                              [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])])  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    given = (TensorSpec(name="x", datatype="FP32", shape=(-1, 1)),)
    signature = joining.signature(config, given, (TensorSpec(name="score", datatype="FP32", shape=(-1, 1)),))
    predictor = joining.JoiningPredictor(config, model, signature)
    for entity, row in zip((1, 2, 9), joined.to_pylist(), strict=True):
        answer = predictor.predict({"e": np.array([[entity]]), "x": np.array([[4.0]], np.float32)}, Tables(tables))
        assert {name: answer.features[name] for name in "abcd"} == {name: row[name] for name in "abcd"}


class Tables:
    """Feature tables as an online store."""

    def __init__(self, tables: dict[str, pa.Table]) -> None:
        self._values = {name: dict(packed(table, ("e",))) for name, table in tables.items()}

    def get(self, namespace: str, key: bytes) -> bytes | None:
        return self._values[namespace].get(key)

    def get_many(self, namespace: str, keys: list[bytes]) -> list[bytes | None]:
        return [self.get(namespace, key) for key in keys]
