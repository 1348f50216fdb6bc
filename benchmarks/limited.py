"""What it costs that a model which is code answers from a limited process: the same function called there and here.

Run: ``python benchmarks/limited.py [calls]``; a few seconds. The function doubles its input. Beside it stands the limit
of the same run: the same bytes there and back between two processes over a socket pair, with nothing done to them.
Microseconds a call, median and 99th percentile, in turns of a hundred.
"""

import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bedplate.records import ModelSignature, TensorSpec
from bedplate.serve.limited import LimitedPredictor
from bedplate.serve.predictors import NO_FEATURES

CODE = b"""
from bedplate import pipeline

@pipeline.predictor
def double(inputs):
    return {"y": 2 * inputs["x"]}
"""
ROWS, COLUMNS = (1, 32, 1024), 30
TIMES = 3.0
"""A call may take so many times what the same bytes take there and back."""


def echo() -> tuple[socket.socket, int]:
    """A process that sends back what comes; its end of the line, and its number."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while block := theirs.recv(1 << 20):
            theirs.sendall(block)
        os._exit(0)
    theirs.close()
    return ours, child


def there_and_back(line: socket.socket, data: bytes) -> None:
    """Send, and wait until as much has come back."""
    line.sendall(data)
    missing = len(data)
    while missing:
        missing -= len(line.recv(missing))


def timed(call: Callable[[], Any], times: list[float]) -> None:
    """A hundred calls, in microseconds."""
    for _ in range(100):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e6)


def main() -> None:
    """All sizes, and the table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    line, child = echo()  # before any thread is started
    signature = ModelSignature(
        predictor="python",
        inputs=(TensorSpec(name="x", datatype="FP32", shape=(-1, COLUMNS)),),
        outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, COLUMNS)),),
    )
    predictor = LimitedPredictor("python", {"pipeline.py": CODE}, signature)
    print(f"{'rows':>5} {'in process':>11} {'limited':>9} {'p99':>8} {'there and back':>15} {'p99':>8}  limited / line")
    for rows in ROWS:
        x = np.random.default_rng(rows).normal(size=(rows, COLUMNS)).astype(np.float32)
        data = x.tobytes()
        asked = {"x": x}
        answer = predictor.predict(asked, NO_FEATURES).outputs["y"]
        assert np.array_equal(answer, 2 * x)
        here: list[float] = []
        there: list[float] = []
        bare: list[float] = []
        for _ in range(max(1, calls // 100)):
            timed(lambda x=x: 2 * x, here)
            timed(lambda asked=asked: predictor.predict(asked, NO_FEATURES), there)
            timed(lambda data=data: there_and_back(line, data), bare)
        middle = [statistics.median(times) for times in (here, there, bare)]
        late = [float(np.quantile(times, 0.99)) for times in (there, bare)]
        print(
            f"{rows:>5} {middle[0]:>11.1f} {middle[1]:>9.0f} {late[0]:>8.0f} {middle[2]:>15.0f} {late[1]:>8.0f}", end=""
        )
        ratio = middle[1] / middle[2]
        print(f"  {ratio:.1f}, at most {TIMES:g}: {'met' if ratio <= TIMES else 'MISSED'}")
    predictor.close()
    line.close()
    os.waitpid(child, 0)


if __name__ == "__main__":
    main()
