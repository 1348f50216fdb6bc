"""Serving beside its limits: bytes beside the model alone, durable beside buffered, latency at half load, start.

Run: ``python benchmarks/serving_limits.py [--only binary,durable,half,start] [--pairs 12] [--seconds 10]``. Servers and
the model alone are held to one core, the client to another, in pairs that change their order; a ratio is the median
over the pairs with the 95 % interval of a bootstrap. The model and the server by hand are those of ``serving.py``.
"""

import argparse
import contextlib
import json
import math
import os
import random
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import serving

ROWS = 256
PARTS = ("start", "binary", "durable", "half")


def alone(model: str, seconds: float) -> dict[str, float]:
    """Runs a second of the model in this process on the rows that the client sends, and processor µs of each."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    size = 4 * ROWS * serving.FEATURES
    bodies = [request[-size:] for request in serving.requests(1, ROWS, binary=True)]
    rows = [np.frombuffer(body, np.float32).reshape(ROWS, serving.FEATURES) for body in bodies]
    for given in rows:
        session.run(["Y"], {"X": given})
    runs, end, used = 0, time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < end:
        session.run(["Y"], {"X": rows[runs % len(rows)]})
        runs += 1
    return {"rate": runs / seconds, "cpu": 1e6 * (time.process_time() - used) / runs}


def paced(port: int, rate: float, seconds: float, count: int = 32) -> dict[str, float]:
    """Single rows at a fixed rate, whatever the answers do: a latency begins when its request was due."""
    framed = serving.requests(port, 1)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    for connection in connections:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    poll = select.epoll()
    by_descriptor = {connection.fileno(): connection for connection in connections}
    for descriptor in by_descriptor:
        poll.register(descriptor, select.EPOLLIN)
    free, due_of = list(by_descriptor), dict[int, float]()
    latencies: list[float] = []
    start = time.perf_counter() + 0.01
    sent, total = 0, int(rate * seconds)
    while len(latencies) < total:
        now = time.perf_counter()
        while sent < total and free and start + sent / rate <= now:
            descriptor = free.pop()
            due_of[descriptor] = start + sent / rate
            by_descriptor[descriptor].sendall(framed[sent % len(framed)])
            sent += 1
        for descriptor, _ in poll.poll(0):
            answer = by_descriptor[descriptor].recv(1 << 16)
            assert answer[9:12] == b"200", answer[:300]
            latencies.append(time.perf_counter() - due_of[descriptor])
            free.append(descriptor)
        assert now < start + 3 * seconds, "the server does not keep up"
    for connection in connections:
        connection.close()
    latencies = sorted(latencies[total // 10 :])
    at = {name: latencies[math.ceil(part * len(latencies)) - 1] for name, part in QUANTILES.items()}
    return {name: 1000 * value for name, value in at.items()}


QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


def interval(ratios: list[float]) -> str:
    """The median, and where it lies with 95 % confidence by a bootstrap over the pairs."""
    chance = random.Random(1)
    medians = sorted(statistics.median(chance.choices(ratios, k=len(ratios))) for _ in range(2000))
    return f"{statistics.median(ratios):.2f} [{medians[50]:.2f}, {medians[1949]:.2f}]"


def pairs(count: int, ours: Callable[[], Any], limit: Callable[[], Any]) -> list[tuple[Any, Any]]:
    """Ours and the limit, measured in turns."""
    found = []
    for turn in range(count):
        if turn % 2:
            second = limit()
            found.append((ours(), second))
        else:
            first = ours()
            found.append((first, limit()))
    return found


def child(*arguments: object, core: int) -> Any:
    """What this file prints, run by another process on ``core``."""
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    prepare = ["taskset", "-c", str(core), *command]
    return json.loads(subprocess.run(prepare, capture_output=True, text=True, check=True).stdout)


def say(what: str, ratios: list[float], aim: float, *, most: bool = False) -> None:
    """One line with its verdict."""
    middle = statistics.median(ratios)
    met = middle <= aim if most else middle >= aim
    print(f"{what}: {interval(ratios)}, aim {'at most' if most else 'at least'} {aim}: {'met' if met else 'MISSED'}")


def binary(folder: Path, model: bytes, chosen: Any, core: int, client: int) -> None:
    """Rows as bytes through the replica and the server by hand, beside the model in a process of its own."""
    with serving.bedplate(folder / "binary", model) as ours, serving.hand_written(folder) as hand:

        def asked(server: tuple[int, int]) -> dict[str, float]:
            return serving.measure(*server, ROWS, chosen.seconds, client, 8, True)

        found = pairs(
            chosen.pairs,
            lambda: (asked(ours), asked(hand)),
            lambda: child("alone", folder / "model.onnx", chosen.seconds, core=core),
        )
    runs = {
        "Bedplate": [asked[0] for asked, _ in found],
        "by hand": [asked[1] for asked, _ in found],
        "the model alone": [alone for _, alone in found],
    }
    print(f"{ROWS} rows as bytes:")
    for name, each in runs.items():
        rate, used = (statistics.median(run[what] for run in each) for what in ("rate", "cpu"))
        print(f"  {name}: {rate:,.0f} a second, {used:,.0f} µs of the processor each")
    _ratios("Bedplate", "the model alone", runs, 0.9)
    _ratios("by hand", "the model alone", runs)
    _ratios("Bedplate", "by hand", runs)


def _ratios(one: str, other: str, runs: dict[str, list[dict[str, float]]], aim: float | None = None) -> None:
    """Print how two compare, by what each does in a second, and by the processor time, which suffers less here."""
    rates = [a["rate"] / b["rate"] for a, b in zip(runs[one], runs[other], strict=True)]
    used = [b["cpu"] / a["cpu"] for a, b in zip(runs[one], runs[other], strict=True)]
    if aim is not None:
        say(f"  {one}, of {other}", rates, aim)
    else:
        print(f"  {one}, of {other}: {interval(rates)}")
    print(f"    by processor time: {interval(used)}")


def durable(folder: Path, model: bytes, chosen: Any, core: int, client: int) -> None:
    """The same load with every prediction on disk before its answer."""
    with contextlib.ExitStack() as stack:
        servers = {
            mode: stack.enter_context(serving.bedplate(folder / mode, model, mode=mode))
            for mode in ("durable", "buffered")
        }

        def rate(mode: str) -> float:
            return serving.measure(*servers[mode], 1, chosen.seconds, client)["rate"]

        found = pairs(chosen.pairs, lambda: rate("durable"), lambda: rate("buffered"))
    print(f"durable: {statistics.median(a for a, _ in found):,.0f} requests/s; buffered ", end="")
    print(f"{statistics.median(b for _, b in found):,.0f}")
    say("  of buffered", [a / b for a, b in found], 0.5)


def half(folder: Path, model: bytes, chosen: Any, core: int, client: int) -> None:
    """Both at the same rate: half of what the server by hand answers at most."""
    with contextlib.ExitStack() as stack:
        hand = stack.enter_context(serving.hand_written(folder))
        ours = stack.enter_context(serving.bedplate(folder / "half", model))
        rate = serving.measure(*hand, 1, min(chosen.seconds, 3.0), client)["rate"] / 2

        def ask(port: int) -> Any:
            return child("paced", port, rate, chosen.seconds, core=client)

        found = pairs(chosen.pairs, lambda: ask(ours[0]), lambda: ask(hand[0]))
    print(f"{rate:,.0f} requests/s, half of what the server by hand answers; ms, Bedplate and by hand:")
    for name, aim in (("p50", 1.2), ("p95", 1.3), ("p99", None)):
        middle = [statistics.median(one[name] for one in side) for side in zip(*found, strict=True)]
        ratios = [a[name] / b[name] for a, b in found]
        print(f"  {name} {middle[0]:.2f} {middle[1]:.2f}")
        if aim is None:
            print(f"  {name} ratio: {interval(ratios)}")
        else:
            say(f"  {name} ratio", ratios, aim, most=True)


def start(folder: Path, model: bytes, chosen: Any, core: int, client: int) -> None:
    """From the supervisor's order to ready, and what the replica then holds, after some thousand requests."""
    from bedplate.serve.supervisor import Supervisor

    seconds, memory = [], []
    begin = Supervisor.start

    def timed(self: Supervisor, spec: Any) -> str:
        started = time.perf_counter()
        url = begin(self, spec)
        seconds.append(time.perf_counter() - started)
        return url

    Supervisor.start = timed  # type: ignore[method-assign]
    try:
        for turn in range(min(chosen.pairs, 5)):
            with serving.bedplate(folder / f"start{turn}", model) as (port, pid):
                serving.measure(port, pid, 1, 1.0, client)
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                memory.append(next(int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")))
    finally:
        Supervisor.start = begin  # type: ignore[method-assign]
    say(f"start to ready, s ({min(seconds):.2f} to {max(seconds):.2f})", seconds, 0.8, most=True)
    say("memory of its own (PSS), MB", memory, 150, most=True)


def main() -> None:
    """Run what was chosen."""
    if sys.argv[1:2] == ["--child"]:
        what, first, *rest = sys.argv[2:]
        found = alone(first, float(rest[0])) if what == "alone" else paced(int(first), *map(float, rest))
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=10.0)
    chosen = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})
    model = serving.trees()
    print(f"{chosen.pairs} pairs of {chosen.seconds:g} s")
    parts = {"start": start, "binary": binary, "durable": durable, "half": half}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        for part in chosen.only.split(","):
            parts[part](folder, model, chosen, cores[0], cores[-1])


if __name__ == "__main__":
    main()
