"""A graph is measured as a whole, with models of the use case's folder or of its training function."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnxruntime
import pyarrow as pa
import pytest

from bedplate import blobs
from bedplate.compute.task import Task
from bedplate.errors import InputError, UserCodeError
from bedplate.graph import Graph
from bedplate.train import tabular
from bedplate.usecase.types import Resources, Train, Workload
from tests.train.test_run import Rows, trained

GRAPH = """
inputs: {amount: {datatype: FP32, shape: [-1, 1]}, customer: {datatype: BYTES, shape: [-1, 1]}}
steps:
  few: {model: few.onnx}
  many: {model: many.onnx}
  score: {combine: mean, of: [few.score, many.score], weights: [1, 3]}
outputs: {score: score.value}
"""
PIPELINE = """
from bedplate import pipeline
from bedplate.train import wired


@pipeline.predictor
def surely(inputs):
    return {"score": inputs["score"] ** 2 / (inputs["score"] ** 2 + (1 - inputs["score"]) ** 2)}


@pipeline.train
def again(task):
    made = {"few.onnx": task.files["many.onnx"]}
    return wired.release(task, made, {"surely": surely})
"""


def table(n: int = 400) -> pa.Table:
    random = np.random.default_rng(0)
    amount, customer = random.normal(10, 3, n), random.choice(["a", "b"], n)
    late = amount + 2 * (customer == "b") + random.normal(0, 1, n) > 11
    return pa.table({"amount": amount, "customer": customer, "late": np.where(late, "yes", "no")})


def parameters(**more: Any) -> dict[str, Any]:
    return {"target": "late", "task": "classification", "holdout": "25 %", **more}


def models() -> dict[str, bytes]:
    return {
        f"{name}.onnx": tabular.train(
            Task(tables={"invoices": table()}, parameters=parameters(rounds=rounds), seed=7)
        ).files["model.onnx"]
        for name, rounds in (("few", 5), ("many", 20))
    }


@pytest.fixture(scope="module")
def made() -> dict[str, bytes]:
    return models()


def loaded(folder: Path, graph: str, imported: tuple[str, ...] = ()) -> Any:
    use_case = SimpleNamespace(
        workload=Workload(kind="tabular", target="late", task="classification"),
        train=Train(holdout="25 %", resources=Resources(cpu=1, memory=2 << 30), models=imported),
        risk=SimpleNamespace(level="minimal"),
        graph=msgspec.yaml.decode(graph.encode(), type=Graph),
    )
    place = SimpleNamespace(line=lambda *keys: 40 + len(keys))
    return SimpleNamespace(use_case=use_case, folder=folder, path=folder / "usecase.yaml", line=place.line)


@pytest.fixture
def folder(tmp_path: Path, made: dict[str, bytes]) -> Path:
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def test_models_that_were_trained_elsewhere_are_measured_as_one(folder: Path, made: dict[str, bytes]) -> None:
    """Accuracy is that of the graph; the bundle gets models and graph; baselines are the recipe's."""
    store = blobs.open(folder / "blobs")
    case = loaded(folder, GRAPH, ("few.onnx", "many.onnx"))

    result = trained(case, Rows(table()), store)

    assert result.signature.predictor == "graph"
    assert set(result.artifacts) == {"few.onnx", "many.onnx", "graph.json"}
    assert msgspec.json.decode(store.get(result.artifacts["graph.json"]), type=Graph) == case.use_case.graph
    held = np.zeros(400, bool)
    held[np.random.default_rng(7).permutation(400)[:100]] = True
    rows = table().filter(held)
    asked = {"amount": rows["amount"].to_numpy().astype(np.float32)[:, None], "customer": np.array(rows["customer"].to_pylist(), object)[:, None]}  # noqa: E501  # fmt: skip
    few, many = (
        onnxruntime.InferenceSession(made[name]).run(["score"], asked)[0] for name in ("few.onnx", "many.onnx")
    )
    right = ((few + 3 * many)[:, 0] / 4 > 0.5) == np.array([v == "yes" for v in rows["late"].to_pylist()])
    accuracy = next(m for m in result.metrics if (m.metric, m.model, m.slice) == ("accuracy", "candidate", "all"))
    assert accuracy.estimate.value == pytest.approx(right.mean())
    assert {c.baseline for c in result.comparisons} == {"majority", "best_single_feature", "logistic"}


def test_a_training_function_makes_the_models_and_functions_answer_with_them(folder: Path) -> None:
    """The graph's function is called in training as in serving, and ``pipeline.py`` goes into the release."""
    pipeline = folder / "pipeline.py"
    pipeline.write_text(PIPELINE)
    text = GRAPH.replace(
        "outputs: {score: score.value}",
        "  sure: {function: surely, inputs: {score: score.value}, outputs: {score: {datatype: FP32, shape: [-1, 1]}}}\n"
        "outputs: {score: sure.score}",
    )
    store = blobs.open(folder / "blobs")

    result = trained(loaded(folder, text, ("many.onnx",)), Rows(table()), store, pipeline=pipeline)

    assert result.signature.predictor == "graph-limited"
    assert set(result.artifacts) == {"few.onnx", "many.onnx", "graph.json", "pipeline.py"}
    assert store.get(result.artifacts["pipeline.py"]) == PIPELINE.encode()


@pytest.mark.parametrize(
    ("old", "new", "imported", "match"),
    [
        ("few.score", "few.score_", ("few.onnx", "many.onnx"), "no tensor 'few.score_'"),
        ("{model: few.onnx}", "{model: less.onnx}", ("few.onnx", "many.onnx"), "no file 'less.onnx'"),
        ("outputs: {score:", "outputs: {label:", ("few.onnx", "many.onnx"), "has to give 'score'"),
        ("amount: {datatype", "sum: {datatype", ("few.onnx", "many.onnx"), "where the input 'amount' comes from"),
        ("x", "x", ("few.onnx", "gone.onnx"), "cannot be read"),
        ("x", "x", ("few.onnx", "text.onnx"), "cannot be used"),
    ],
)
def test_what_cannot_be_released_is_refused(
    folder: Path, old: str, new: str, imported: tuple[str, ...], match: str
) -> None:
    (folder / "text.onnx").write_text("no model")
    case = loaded(folder, GRAPH.replace(old, new), imported)
    with pytest.raises(InputError, match=match):
        trained(case, Rows(table()), blobs.open(folder / "blobs"))


def test_without_a_graph_a_signature_is_missed(folder: Path) -> None:
    pipeline = folder / "pipeline.py"
    pipeline.write_text(
        "from bedplate import pipeline\nfrom bedplate.compute.task import Result\n"
        "@pipeline.train\ndef mine(task):\n    return Result(files={'a.onnx': b'1'}, result={'metrics': []})\n"
    )
    case = loaded(folder, GRAPH)
    case.use_case.graph = None
    with pytest.raises(UserCodeError, match="it says no signature"):
        trained(case, Rows(table()), blobs.open(folder / "blobs"), pipeline=pipeline
        )  # fmt: skip
