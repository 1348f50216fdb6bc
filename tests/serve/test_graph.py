"""Several models as one release: what the graph answers is what its models say one after the other, by hand."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import onnxruntime
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from bedplate import graph as graphs
from bedplate.bundle import Manifest
from bedplate.errors import InputError, IntegrityError
from bedplate.graph import Graph, Step, Tensor
from bedplate.isolation import confine
from bedplate.serve import graph as wiring
from bedplate.serve.predictors import NO_FEATURES, load
from bedplate.serve.supervisor import Supervisor
from bedplate.serve.tensors import ModelError
from tests.serve.support import KEY, World, client, linear, log_of

pytestmark = pytest.mark.slow

WIDE = Tensor(datatype="FP32", shape=(-1, 3))


def two(operator: str) -> bytes:
    """An ONNX model of two inputs: A and B (FP32 [n, 3]) to Y."""
    shapes = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in ("A", "B", "Y")]
    made = helper.make_graph([helper.make_node(operator, ["A", "B"], ["Y"])], "two", shapes[:2], shapes[2:])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def label() -> bytes:
    """X (FP32 [n, 3]) to the position of its largest value, Y (INT64 [n])."""
    node = helper.make_node("ArgMax", ["X"], ["Y"], axis=1, keepdims=0)
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 3])]
    made = helper.make_graph([node], "label", inputs, [helper.make_tensor_value_info("Y", TensorProto.INT64, [None])])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


MODELS = {
    "double.onnx": linear(2.0),
    "third.onnx": linear(3.0, operator="Div"),
    "plus.onnx": two("Add"),
    "most.onnx": two("Max"),
    "label.onnx": label(),
}
SESSIONS = {name: onnxruntime.InferenceSession(data) for name, data in MODELS.items()}


def files(graph: Graph, **more: bytes) -> dict[str, bytes]:
    return {**MODELS, graphs.FILE: msgspec.json.encode(graph), **more}


def answer(graph: Graph, **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    return wiring.assemble(files(graph)).predict(inputs, NO_FEATURES).outputs


# --------------------------------------------------------------------------------------------------------- what it says


@st.composite
def random_graphs(draw: Any) -> tuple[Graph, list[tuple[str, Step]]]:
    """A graph of up to nine steps, whose text has them in any order; and its steps in the order they were made."""
    inputs = {f"x{i}": WIDE for i in range(draw(st.integers(1, 3)))}
    tensors = [f"request.{name}" for name in inputs]
    made: list[tuple[str, Step]] = []
    for i in range(draw(st.integers(1, 9))):
        pick = st.sampled_from(tensors)
        kind = draw(st.sampled_from(("double.onnx", "third.onnx", "plus.onnx", "most.onnx", "mean", "weighted")))
        if kind in ("mean", "weighted"):
            of = tuple(draw(st.lists(pick, min_size=2, max_size=4)))
            weights = tuple(draw(st.floats(0.1, 9)) for _ in of) if kind == "weighted" else ()
            step, output = Step(combine="mean", of=of, weights=weights), "value"
        else:
            names = ("X",) if kind in ("double.onnx", "third.onnx") else ("A", "B")
            step, output = Step(model=kind, inputs={name: draw(pick) for name in names}), "Y"
        made.append((f"s{i}", step))
        tensors.append(f"s{i}.{output}")
    used = {source for _, step in made for _, source in graphs.sources(step)}
    outputs = {f"y{i}": source for i, source in enumerate(t for t in tensors if t not in used)}
    return Graph(inputs=inputs, steps=dict(draw(st.permutations(made))), outputs=outputs), made


@given(random_graphs(), st.integers(0, 4), st.integers(0, 2**32 - 1), st.sets(st.integers(0, 9)))
def test_any_graph_says_what_its_models_say_by_hand(
    made: tuple[Graph, list[tuple[str, Step]]], rows: int, seed: int, elsewhere: set[int]
) -> None:
    """Whichever of its steps are computed beside others."""
    graph, steps = made
    random = np.random.default_rng(seed)
    inputs = {name: random.normal(size=(rows, 3)).astype(np.float32) for name in graph.inputs}
    held: dict[str, Any] = {f"request.{name}": array for name, array in inputs.items()}
    for name, step in steps:
        if step.model is not None:
            taken = {name: held[source] for name, source in step.inputs.items()}
            (held[f"{name}.Y"],) = SESSIONS[step.model].run(["Y"], taken)
        else:
            stacked = np.stack([held[source] for source in step.of]).astype(np.float64)
            held[f"{name}.value"] = np.average(stacked, 0, step.weights or [1] * len(step.of)).astype(np.float32)

    predictor = wiring.assemble(files(graph))
    predictor._elsewhere = frozenset(f"s{number}" for number in elsewhere)
    answered = predictor.predict(inputs, NO_FEATURES)
    outputs = answered.outputs

    assert list(answered.steps) == list(graphs.order(graph))
    assert {step.count for step in predictor.steps.values()} == {1}
    assert outputs.keys() == graph.outputs.keys()
    for name, source in graph.outputs.items():
        assert outputs[name].dtype == np.float32
        np.testing.assert_allclose(outputs[name], held[source], rtol=1e-6, atol=1e-5)
    order = graphs.order(graph)
    assert sorted(order) == sorted(graph.steps)
    for place, name in enumerate(order):
        assert {graphs.parted(s)[0] for _, s in graphs.sources(graph.steps[name])} <= {"request", *order[:place]}


@given(
    st.lists(st.tuples(*[st.sampled_from("abc")] * 4), min_size=1, max_size=5),
    st.lists(st.integers(1, 5), min_size=4, max_size=4),
)
def test_a_vote_is_for_the_label_with_the_most_weight_and_of_several_the_first(
    rows: list[tuple[str, ...]], weights: list[int]
) -> None:
    text = Tensor(datatype="BYTES", shape=(-1,))
    vote = Step(combine="vote", of=tuple(f"request.{n}" for n in "pqrs"), weights=tuple(map(float, weights)))
    graph = Graph(inputs=dict.fromkeys("pqrs", text), steps={"vote": vote}, outputs={"label": "vote.value"})
    expected = []
    for row in rows:
        count: Counter[str] = Counter()
        for said, weight in zip(row, weights, strict=True):
            count[said] += weight
        expected.append(next(said for said in row if count[said] == max(count.values())))

    columns = {name: np.array([row[i] for row in rows], object) for i, name in enumerate("pqrs")}
    assert answer(graph, **columns)["label"].tolist() == expected


def test_labels_of_models_are_voted_on() -> None:
    """Without weights each counts the same; whole numbers are labels as texts are."""
    steps = {f"l{i}": Step(model="label.onnx", inputs={"X": f"request.x{i}"}) for i in range(3)}
    vote = Step(combine="vote", of=("l0.Y", "l1.Y", "l2.Y"))
    graph = Graph(inputs={f"x{i}": WIDE for i in range(3)}, steps={**steps, "vote": vote}, outputs={"y": "vote.value"})
    rows = [np.eye(3, dtype=np.float32)[[i, 2]] for i in (1, 0, 1)]

    found = answer(graph, **{f"x{i}": row for i, row in enumerate(rows)})["y"]

    assert found.tolist() == [1, 2]
    assert found.dtype == np.int64


def test_what_only_the_request_can_get_wrong_is_told_by_step() -> None:
    """Free sizes are known with the request: two shapes have no mean, and the step says so."""
    free = Tensor(datatype="FP32", shape=(-1,))
    mean = Step(combine="mean", of=("request.a", "request.b"))
    graph = Graph(inputs={"a": free, "b": free}, steps={"mean": mean}, outputs={"y": "mean.value"})
    with pytest.raises(ModelError, match=r"step 'mean': .*shapes \[2\], \[3\]"):
        answer(graph, a=np.zeros(2, np.float32), b=np.zeros(3, np.float32))


# ------------------------------------------------------------------------------------------------------ what is refused

GOOD = """
inputs: {x: {datatype: FP32, shape: [-1, 3]}}
steps:
  scale: {model: double.onnx, inputs: {X: request.x}}
  third: {model: third.onnx, inputs: {X: scale.Y}}
  blend: {combine: mean, of: [scale.Y, third.Y], weights: [1, 3]}
outputs: {score: blend.value}
"""
WRONG = [
    ("X: request.x", "X: third.Y", "steps.scale", "wait for each other: scale <- third <- scale"),
    ("X: request.x", "X: scale.Y", "steps.scale", "wait for each other: scale <- scale"),
    ("X: request.x", "X: request.z", "steps.scale.inputs.X", "brings no 'z'"),
    ("X: request.x", "Z: request.x", "steps.scale.inputs.Z", "has no input 'Z'"),
    ("X: request.x", "X: request", "steps.scale.inputs.X", "names no tensor"),
    (", inputs: {X: request.x}", "", "steps.scale.inputs.X", "nothing says where"),
    ("X: scale.Y", "X: scale.Z", "steps.third.inputs.X", "no tensor 'scale.Z'"),
    ("X: scale.Y", "X: scales.Y", "steps.third.inputs.X", "no step 'scales'"),
    ("[scale.Y, third.Y]", "[scale.Y, third.Z]", "steps.blend.of.1", "no tensor 'third.Z'"),
    ("[scale.Y, third.Y]", "[scale.Y, scale.Y]", "steps.third", "nothing is made of step 'third'"),
    ("blend.value", "blend.Y", "outputs.score", "gives no 'Y'"),
    ("score: blend.value", "score: blend.value, other: third.Z", "outputs.other", "no tensor 'third.Z'"),
    ("[1, 3]", "[1]", "steps.blend.weights", "1 weights of 2"),
    ("[1, 3]", "[1, -1]", "steps.blend.weights", "no mean can have"),
    ("[1, 3]", "[0, 0]", "steps.blend.weights", "no mean can have"),
    ("combine: mean", "combine: vote", "steps.blend", "no vote on FP32"),
    ("combine: mean, ", "", "steps.blend", "a step that is nothing"),
    ("{model: double.onnx,", "{model: double.onnx, combine: mean,", "steps.scale", "model and combine"),
    ("{model: double.onnx,", "{model: double.onnx, of: [request.x],", "steps.scale.of", "combines nothing"),
    ("{model: double.onnx,", "{program: net.pt2,", "steps.scale", "nothing says what the program gives"),
    ("double.onnx", "gone.onnx", "steps.scale.model", "no file 'gone.onnx'"),
    ("double.onnx", "label.onnx", "steps.third.inputs.X", "INT64, the model takes FP32"),
    ("shape: [-1, 3]", "shape: [-1, 4]", "steps.scale.inputs.X", r"\[-1, 4\], the model takes \[-1, 3\]"),
    ("shape: [-1, 3]", "shape: [-1]", "steps.scale.inputs.X", r"\[-1\], the model takes"),
    ("shape: [-1, 3]", "shape: [-2, 3]", "inputs.x.shape", "no shape"),
    ("FP32", "FP64", "steps.scale.inputs.X", "FP64, the model takes FP32"),
    ("inputs: {x:", "inputs: {y: {datatype: BOOL, shape: [1]}, x:", "inputs.y", "no step takes the input 'y'"),
    ("  third: {", "  Third: {", "steps.Third", "cannot name a step"),
    ("outputs: {score: blend.value}", "outputs: {}", "outputs", "without outputs"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "where", "what"), WRONG)
def test_a_graph_that_cannot_answer_says_where_and_what(old: str, new: str, where: str, what: str) -> None:
    assert old in GOOD
    graph = msgspec.yaml.decode(GOOD.replace(old, new).encode(), type=Graph)
    with pytest.raises(wiring.WiringError, match=what) as caught:
        wiring.signature(graph, MODELS)
    assert ".".join(map(str, caught.value.keys)) == where
    assert caught.value.fix


def test_the_signature_follows_from_the_models() -> None:
    graph = msgspec.yaml.decode(GOOD.encode(), type=Graph)
    found = wiring.signature(graph, MODELS)
    assert (found.predictor, found.inputs[0].shape) == ("graph", (-1, 3))
    assert [(spec.name, spec.datatype, spec.shape) for spec in found.outputs] == [("score", "FP32", (-1, 3))]


def test_a_bundle_whose_graph_is_not_what_was_signed_is_not_loaded(world: World) -> None:
    """The signature holds the whole graph to what was released: other tensors, or code where none was said."""
    graph = msgspec.yaml.decode(GOOD.encode(), type=Graph)
    promised = wiring.signature(graph, MODELS)
    folder, _ = world.bundle(files(graph), promised)
    manifest = msgspec.json.decode((folder / "bedplate.json").read_bytes(), type=Manifest)
    assert isinstance(load(folder, manifest), wiring.GraphPredictor)
    for other in (
        msgspec.structs.replace(graph, outputs={"other": "blend.value"}),
        msgspec.structs.replace(graph, outputs={"score": "scale.Y"}),
    ):
        with pytest.raises(IntegrityError, match=r"not what the signature says|cannot answer"):
            wiring.assemble(files(other), promised)
    with pytest.raises(IntegrityError, match="does not say its graph"):
        wiring.assemble(MODELS, promised)
    with pytest.raises(IntegrityError, match="does not say its graph"):
        wiring.assemble({**MODELS, graphs.FILE: b'{"steps": {}}'}, promised)
    with pytest.raises(InputError, match="is of no format"):
        world.bundle(files(graph, **{"pipeline.py": b"import os"}), promised)


# ------------------------------------------------------------------------------------------------------- the whole path

CODE = b"""
import numpy as np

from bedplate import pipeline
from bedplate.errors import InputError


@pipeline.predictor
def tidy(inputs):
    if (inputs["raw"] < -100).any():
        raise InputError("a size below -100")
    return {"X": np.nan_to_num(inputs["raw"]).astype(np.float32)}


@pipeline.predictor
def words(inputs):
    return {"said": np.where(inputs["score"].sum(1) > 10, "large", "small").astype(object)}
"""
SERVED = """
inputs: {raw: {datatype: FP64, shape: [-1, 3]}}
steps:
  tidy: {function: tidy, inputs: {raw: request.raw}, outputs: {X: {datatype: FP32, shape: [-1, 3]}}}
  double: {model: double.onnx, inputs: {X: tidy.X}}
  third: {model: third.onnx, inputs: {X: tidy.X}}
  blend: {combine: mean, of: [double.Y, third.Y]}
  words: {function: words, inputs: {score: blend.value}, outputs: {said: {datatype: BYTES, shape: [-1]}}}
outputs: {score: blend.value, said: words.said}
"""
RAW = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
SCORES = (RAW * 2 + RAW / 3) / 2
isolated = pytest.mark.skipif(not confine.available().isolated, reason="this machine holds no code")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("home"), keys={KEY: ("callers", "administrators")})


@pytest.fixture(scope="module")
def served(world: World) -> Iterator[tuple[str, str]]:
    """The graph with code as a release behind both protocols: the address of each."""
    graph = msgspec.yaml.decode(SERVED.encode(), type=Graph)
    held = {name: MODELS[name] for name in ("double.onnx", "third.onnx")}
    held |= {graphs.FILE: msgspec.json.encode(graph), "pipeline.py": CODE}
    made = world.bundle(held, wiring.signature(graph, held))
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(made, grpc=0, mode="durable", batching=False))
        (status,) = supervisor.status()
        yield url, status.grpc


@pytest.fixture
def http(served: tuple[str, str]) -> Iterator[httpx.Client]:
    with client(served[0]) as http:
        yield http


@isolated
def test_stock_clients_ask_a_graph_as_any_model(served: tuple[str, str]) -> None:
    """Over HTTP and gRPC, with functions before and behind two models: numbers and words by their names."""
    web = triton_http.InferenceServerClient(served[0].removeprefix("http://"))
    with web, triton.InferenceServerClient(served[1]) as rpc:
        for library, asked in ((triton_http, web), (triton, rpc)):
            tensor = library.InferInput("raw", [2, 3], "FP64")
            tensor.set_data_from_numpy(RAW)
            said = asked.infer("linear", [tensor], headers={"authorization": f"Bearer {KEY}"})
            np.testing.assert_allclose(said.as_numpy("score"), SCORES, rtol=1e-6)
            assert [text.decode() for text in said.as_numpy("said")] == ["small", "large"]


@isolated
def test_each_step_is_in_the_trace_and_what_it_refuses_is_told(world: World, http: httpx.Client) -> None:
    """A traced prediction says how long each step took; an error of a step names it, and blames whom it should."""
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    done = http.post("/predict", json={"raw": [1, 2, 3]}, headers={"traceparent": parent})
    assert done.json()["said"] == "small"
    records = log_of(world)
    (trace,) = [r["trace"] for r in records if r["id"] == done.headers["x-prediction-id"]]
    assert list(trace["steps_ms"]) == ["tidy", "double", "third", "blend", "words"]
    assert 0 < sum(trace["steps_ms"].values()) <= trace["model_ms"] * 1.01

    refused = http.post("/predict", json={"raw": [-200, 2, 3]})
    assert (refused.status_code, refused.json()["message"]) == (400, "step 'tidy': a size below -100")

    counts = http.get("/metrics").text
    name = '{model="linear",step="%s",version="1"}'
    assert f"bedplate_step_failures_total{name % 'tidy'} 1.0" in counts
    assert f"bedplate_step_failures_total{name % 'blend'} 0.0" in counts
    assert f"bedplate_step_seconds_count{name % 'words'}" in counts


BESIDE = """
inputs: {X: {datatype: FP32, shape: [-1, 3]}}
steps:
  left: {function: left, inputs: {X: request.X}, outputs: {Y: {datatype: FP32, shape: [-1, 3]}}}
  right: {function: right, inputs: {X: request.X}, outputs: {Y: {datatype: FP32, shape: [-1, 3]}}}
  double: {model: double.onnx, inputs: {X: request.X}}
  blend: {combine: mean, of: [left.Y, right.Y, double.Y]}
outputs: {said: blend.value}
"""
SLEEPING = b"""
import time

from bedplate import pipeline


@pipeline.predictor
def left(inputs):
    if (inputs["X"] < 0).any():
        raise ValueError("left")
    time.sleep(0.8)
    return {"Y": inputs["X"]}


@pipeline.predictor
def right(inputs):
    time.sleep(0.8)
    return {"Y": inputs["X"] * 6}
"""


@isolated
def test_functions_that_do_not_wait_for_each_other_run_side_by_side() -> None:
    graph = msgspec.yaml.decode(BESIDE.encode(), type=Graph)
    predictor = wiring.assemble({**files(graph), "pipeline.py": SLEEPING})
    x = np.ones((2, 3), np.float32)
    predictor.predict({"X": x}, NO_FEATURES)  # the processes are started by then

    answered = predictor.predict({"X": x}, NO_FEATURES)

    np.testing.assert_allclose(answered.outputs["said"], x * 3)
    (left, left_took), (right, right_took), (double, _), (blend, _) = answered.steps.values()
    assert max(left, right, double) < min(left + left_took, right + right_took)
    assert blend >= max(left + left_took, right + right_took)

    with pytest.raises(ModelError, match=r"step 'left': the model failed: ValueError"):
        predictor.predict({"X": -x}, NO_FEATURES)
    np.testing.assert_allclose(predictor.predict({"X": x}, NO_FEATURES).outputs["said"], x * 3)
    assert {name: (step.count, step.failures) for name, step in predictor.steps.items()} == {
        "left": (3, 1),
        "right": (3, 0),
        "double": (4, 0),
        "blend": (3, 0),
    }
