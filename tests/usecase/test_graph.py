"""A graph in ``usecase.yaml``: what is wrong with it is told with its line, before anything is trained."""

from pathlib import Path

import pytest

from bedplate.errors import UseCaseError
from bedplate.usecase import Problem, load
from tests.usecase.conftest import PIPELINE, VALID

GRAPH = """\
graph:
  inputs: {age: {datatype: FP32, shape: [-1, 1]}}
  steps:
    tidy: {function: tidy, inputs: {age: request.age}, outputs: {x: {datatype: FP32, shape: [-1, 1]}}}
    one: {model: one.onnx, inputs: {x: tidy.x}}
    two: {model: two.onnx, inputs: {x: tidy.x}}
    score: {combine: mean, of: [one.score, two.score], weights: [2, 1]}
  outputs: {score: score.value}
"""
PREDICTOR = """

@predictor
def tidy(inputs):
    return inputs
"""
FIRST = VALID.count("\n") + 1


@pytest.fixture
def graph(folder: Path) -> Path:
    (folder / "pipeline.py").write_text("from bedplate.pipeline import predictor\n" + PIPELINE + PREDICTOR)
    (folder / "models").mkdir()
    for name in ("one", "two"):
        (folder / "models" / f"{name}.onnx").write_bytes(b"\0")
    train = "\ntrain: {models: [models/one.onnx, models/two.onnx], "
    (folder / "usecase.yaml").write_text(VALID.replace("\ntrain: {", train) + GRAPH)
    return folder


def test_a_graph_is_read(graph: Path) -> None:
    found = load(graph).use_case
    assert found.graph is not None
    assert (list(found.graph.steps), found.graph.steps["score"].weights) == (["tidy", "one", "two", "score"], (2, 1))
    assert found.graph.inputs["age"].shape == (-1, 1)
    assert found.graph.runs_functions
    assert found.train.models == ("models/one.onnx", "models/two.onnx")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("{x: tidy.x}}\n    two", "{x: two.y}}\n    two", 4, "there is no step 'tow'"),
        ("of: [one.score", "of: [score.value", 6, "wait for each other: score <- score"),
        ("{score: score.value}", "{score: one.score}", 5, "nothing is made of step 'two'"),
        ("weights: [2, 1]", "weights: [2]", 6, "1 weights of 2 tensors"),
        ("combine: mean", "combine: median", 6, "'median' is not allowed"),
        ("datatype: FP32, shape: [-1, 1]}}\n  steps", "datatype: F32, shape: [-1, 1]}}\n  steps", 1, "'F32'"),
        ("function: tidy", "function: tidi", 3, "defines no predictor 'tidi'"),
        ("models/two.onnx]", "models/tow.onnx]", None, "there is no file 'models/tow.onnx'"),
        ("models/two.onnx]", "models/../models/two.onnx]", None, "lies in the folder"),
        ("models/two.onnx]", "models/one.onnx]", None, "two models 'one.onnx'"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(graph: Path, old: str, new: str, line: int | None, message: str) -> None:
    path = graph / "usecase.yaml"
    text = path.read_text().replace(old, new.replace("two.y", "tow.y"))
    assert text != path.read_text()
    path.write_text(text)
    with pytest.raises(UseCaseError) as caught:
        load(graph)
    problems = [p for p in caught.value.problems if isinstance(p, Problem) and message in p.message]
    assert problems, [str(p) for p in caught.value.problems]
    expected = FIRST + line if line is not None else next(
        i for i, text in enumerate(VALID.splitlines(), 1) if text.startswith("train:")
    )  # fmt: skip
    assert problems[0].line == expected
    assert problems[0].allowed
