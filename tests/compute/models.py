"""Small ONNX models that tests measure."""

import itertools

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def perceptron(width: int, hidden: int, out: int, *, layers: int = 1, open_width: bool = False) -> bytes:
    """Matrix products with ReLU between them: (n, width) to (n, out)."""
    random = np.random.default_rng(3)
    sizes = [width, *[hidden] * layers, out]
    nodes, weights, name = [], [], "x"
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights.append(numpy_helper.from_array((random.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{i}"], [f"m{i}"], name=f"product{i}"))
        nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i}"], name=f"relu{i}"))
        name = f"r{i}"
    return _model(nodes, weights, width, name, out, open_width=open_width)


def chain(width: int, steps: int) -> bytes:
    """Many small steps one after the other, none of which does much: (n, width) to (n, width)."""
    nodes, name = [], "x"
    for i in range(steps):
        nodes.append(helper.make_node("Sin" if i % 2 else "Cos", [name], [f"s{i}"], name=f"step{i}"))
        name = f"s{i}"
    return _model(nodes, [], width, name, width)


def lookup(rows: int, width: int) -> bytes:
    """A long matrix read once for each answer: (n, width) to (n, rows)."""
    weights = np.random.default_rng(3).random((width, rows), dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="scores")
    return _model([node], [numpy_helper.from_array(weights, "w")], width, "y", rows)


def _model(nodes: list, weights: list, width: int, output: str, out: int, *, open_width: bool = False) -> bytes:  # type: ignore[type-arg]
    source = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "w" if open_width else width])
    target = helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", out])
    graph = helper.make_graph(nodes, "tested", [source], [target], weights)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(made)
    return made.SerializeToString()
