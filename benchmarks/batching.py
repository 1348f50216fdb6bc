"""What computing concurrent requests together is worth: one replica with batching beside one without.

Run: ``python benchmarks/batching.py [seconds] [rounds]``; under a minute with the defaults. Both replicas serve the
same network of real arithmetic (30 features, two hidden layers of 3,072, single rows in JSON), with everything a
governed request needs. A second pair serves gradient-boosted trees, of which a row costs next to nothing: there the
sweep at the start must leave batching off. Servers on one core, the client on another, in turns.
"""

import contextlib
import itertools
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import serving
from onnx import TensorProto, helper, numpy_helper

HIDDEN = 3072
CONNECTIONS = (1, 8, 32)
TARGET, LONE = 2.5, 0.95
BUDGET = 0.1


def network() -> bytes:
    """An ONNX multilayer perceptron: X (FP32 [n, 30]) to Y (FP32 [n, 1])."""
    random = np.random.default_rng(1)
    sizes = (serving.FEATURES, HIDDEN, HIDDEN, 1)
    nodes, weights, name = [], [], "X"
    for layer, (rows, columns) in enumerate(itertools.pairwise(sizes)):
        values = random.normal(size=(rows, columns), scale=rows**-0.5).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{layer}"))
        last = layer == len(sizes) - 2
        nodes.append(helper.make_node("MatMul", [name, f"w{layer}"], ["Y" if last else f"sum{layer}"]))
        if not last:
            name = f"hidden{layer}"
            nodes.append(helper.make_node("Relu", [f"sum{layer}"], [name]))
    graph = helper.make_graph(
        nodes,
        serving.MODEL,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, serving.FEATURES])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    text: bytes = model.SerializeToString()
    return text


def main() -> None:
    """Run all, in turns, and print the table."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})  # the servers inherit it
    print(f"single rows; {rounds} rounds of {seconds:g} s; medians, ratios as median and range over the pairs")
    print(f"{'model':8} {'connections':>11} {'batching':9} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8}  ratio")
    for kind, model in (("network", network()), ("trees", serving.trees())):
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            servers = {}
            for batching in (False, True):
                folder = Path(name) / str(batching)
                entered = stack.enter_context(serving.bedplate(folder, model, batching=batching, budget=BUDGET))
                servers[batching] = entered
            _compare(kind, servers, seconds, rounds, cores[-1])


def _compare(kind: str, servers: dict[bool, tuple[int, int]], seconds: float, rounds: int, core: int) -> None:
    for count in CONNECTIONS:
        found: dict[bool, list[dict[str, float]]] = {False: [], True: []}
        for turn in range(rounds):
            for batching in (False, True) if turn % 2 else (True, False):
                found[batching].append(serving.measure(*servers[batching], 1, seconds, core, count))
        ratios = [b["rate"] / a["rate"] for a, b in zip(found[False], found[True], strict=True)]
        for batching, runs in found.items():
            middle = {what: statistics.median(run[what] for run in runs) for what in runs[0]}
            line = f"{kind:8} {count:>11} {'on' if batching else 'off':9} {middle['rate']:>11,.0f}"
            print(f"{line} {middle['p50']:>8.2f} {middle['p99']:>8.2f}", end="  ")
            print(f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]" if batching else "")
        target = TARGET if kind == "network" and count == max(CONNECTIONS) else LONE
        met = statistics.median(ratios) >= target
        print(f"         to reach: {target}: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
