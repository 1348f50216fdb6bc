"""What it costs that several models are wired as a graph: the graph, and the same sessions called by hand.

Run: ``python benchmarks/graph.py [calls]``; a few seconds. Two small networks side by side behind a third, and their
weighted mean. By hand is the limit of the same run: ONNX Runtime's sessions one after the other, and the mean in NumPy.
Microseconds a call, median and 99th percentile, in turns of a hundred; and the ratio of the medians.
"""

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from bedplate import graph as graphs
from bedplate.graph import Graph, Step, Tensor
from bedplate.serve import graph as wiring
from bedplate.serve.predictors import NO_FEATURES

ROWS, COLUMNS = (1, 32, 1024), 30
MORE, TIMES = 200.0, 1.2
"""The wiring may cost a call of a row so many microseconds, and a call of many rows so many times what it takes."""


def dense(seed: int) -> bytes:
    """X (FP32 [n, 30]) through one layer to Y of the same shape."""
    weights = np.random.default_rng(seed).normal(0, 0.2, (COLUMNS, COLUMNS)).astype(np.float32)
    made = helper.make_graph(
        [helper.make_node("MatMul", ["X", "w"], ["h"]), helper.make_node("Tanh", ["h"], ["Y"])],
        "dense",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, COLUMNS])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, COLUMNS])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    data: bytes = model.SerializeToString()
    return data


def timed(call: Callable[[], Any], times: list[float]) -> None:
    """A hundred calls, in microseconds."""
    for _ in range(100):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e6)


def main() -> None:
    """Both in turns, by rows."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    models = {f"{name}.onnx": dense(seed) for seed, name in enumerate(("first", "left", "right"))}
    graph = Graph(
        inputs={"X": Tensor(datatype="FP32", shape=(-1, COLUMNS))},
        steps={
            "first": Step(model="first.onnx"),
            "left": Step(model="left.onnx", inputs={"X": "first.Y"}),
            "right": Step(model="right.onnx", inputs={"X": "first.Y"}),
            "mean": Step(combine="mean", of=("left.Y", "right.Y"), weights=(1, 3)),
        },
        outputs={"Y": "mean.value"},
    )
    predictor = wiring.assemble({**models, graphs.FILE: msgspec.json.encode(graph)})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    first, left, right = (onnxruntime.InferenceSession(data, options) for data in models.values())

    def by_hand(rows: Any) -> Any:
        (held,) = first.run(["Y"], {"X": rows})
        sides = [side.run(["Y"], {"X": held})[0].astype(np.float64) for side in (left, right)]
        return ((sides[0] + 3 * sides[1]) / 4).astype(np.float32)

    print(f"{'rows':>5} {'graph p50':>10} {'p99':>8} {'by hand p50':>12} {'p99':>8} {'ratio':>6}   µs")
    for count in ROWS:
        rows = np.random.default_rng(1).normal(size=(count, COLUMNS)).astype(np.float32)
        assert np.allclose(predictor.predict({"X": rows}, NO_FEATURES).outputs["Y"], by_hand(rows), atol=1e-6)
        wired: list[float] = []
        hand: list[float] = []
        while len(wired) < calls:
            timed(lambda rows=rows: predictor.predict({"X": rows}, NO_FEATURES), wired)  # type: ignore[misc]
            timed(lambda rows=rows: by_hand(rows), hand)  # type: ignore[misc]
        figures = [(statistics.median(times), float(np.quantile(times, 0.99))) for times in (wired, hand)]
        (one, late), (other, slow) = figures
        print(f"{count:>5} {one:>10.1f} {late:>8.1f} {other:>12.1f} {slow:>8.1f} {one / other:>6.2f}", end="")
        if count == ROWS[0]:
            print(f"   {one - other:+.0f} µs, at most {MORE:g}: {'met' if one - other <= MORE else 'MISSED'}")
        elif count == ROWS[-1]:
            print(f"   at most {TIMES:g}: {'met' if one / other <= TIMES else 'MISSED'}")
        else:
            print()


if __name__ == "__main__":
    main()
