"""Online features: 20 of one key, in process and over HTTP, beside a server by hand.

Run: ``python benchmarks/online.py [--entities N] [--seconds S] [--rounds R]``; 100,000 entities, four seconds and three
rounds take a minute. Servers run on the first core and the load on the others, where there are several.

- in process: one read of 20 features, unpacked, with time to live; beside it the same bytes out of LMDB by hand.
- over HTTP: ``POST /v1/features`` at a replica (key, policy, masks, time to live, checksum) beside a Granian server of
  thirty lines on the same file, which checks nothing. Both get requests of one key from 32 connections, in turns.
  What a request takes of the processor on the server's side says more than the rate where other programs run too.
"""

import argparse
import asyncio
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa

COLUMNS = tuple(f"f{i}" for i in range(20))
CONNECTIONS = 32
TOKEN = "bp_bench_0123456789abcdef"

BY_HAND = """
import hashlib, struct, sys, lmdb, msgspec
class Asked(msgspec.Struct):
    view: str
    keys: list[int]
decode, encode = msgspec.json.Decoder(Asked).decode, msgspec.json.Encoder().encode
layout = struct.Struct("<4sq20f")
prefix = b"\\x01" + hashlib.sha256(b"demo/recent").digest()[:8]
names = ["f%d" % i for i in range(20)]
store = lmdb.open({folder!r}, readonly=True, lock=False, readahead=False)
head = [("content-type", "application/json")]
async def app(scope, protocol):
    asked = decode(await protocol())
    values = []
    with store.begin(buffers=True) as transaction:
        for key in asked.keys:
            values.append(layout.unpack(transaction.get(prefix + key.to_bytes(8, "little", signed=True)))[2:])
    protocol.response_bytes(200, head, encode({{"features": names, "values": values}}))
"""


def main() -> None:
    """Fill a store, measure, print the table."""
    parser = argparse.ArgumentParser(description="Online features, beside the same by hand.")
    parser.add_argument("--entities", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bedplate-bench-") as scratch:
        world = _world(Path(scratch), options.entities)
        _in_process(world, options.entities)
        _over_http(world, options)


def _world(folder: Path, entities: int) -> Any:
    """A home with a store of one view of 20 features, and the rules that a replica decides by."""
    from tests.serve.support import World

    from bedplate import online
    from bedplate.features import materialise
    from bedplate.ids import digest_bytes
    from bedplate.records import Governance, ViewRecord

    world = World(folder, {TOKEN: ("engineers",)})
    world.publish(governed={"demo": Governance(purpose="care", sensitive=("income",))})
    random = np.random.default_rng(1)
    moment = np.datetime64("now", "us")
    table = pa.table({
        "customer": np.arange(entities),
        "as_of": pa.array(np.full(entities, moment), pa.timestamp("us", "UTC")),
        **{name: pa.array(random.random(entities).astype("f4")) for name in COLUMNS},
    })  # fmt: skip
    store = online.Scoped(online.open(world.home.online), "demo")
    declared = ViewRecord(digest=digest_bytes(b""), entity=("customer",), rests_on=("amount",), ttl=86400.0)
    materialise(store, {"recent": (declared, table)}, moment.astype(object))
    store.close()
    return world


def _in_process(world: Any, entities: int) -> None:
    import hashlib

    from bedplate import online
    from bedplate.serve.online_views import Lookup

    keys = np.random.default_rng(2).integers(0, entities, 50_000).tolist()
    store = online.Scoped(online.open(world.home.online, read_only=True), "demo")
    lookup = Lookup(store, "recent")
    ours = [_microseconds(lookup.get, keys) for _ in range(5)]
    environment, layout = store._store._environment, struct.Struct("<4sq20f")  # LMDB opens a file once in a process
    prefix = b"\x01" + hashlib.sha256(b"demo/recent").digest()[:8]

    def by_hand(key: int) -> Any:
        with environment.begin(buffers=True) as transaction:
            return layout.unpack(transaction.get(prefix + key.to_bytes(8, "little", signed=True)))

    bare = [_microseconds(by_hand, keys) for _ in range(5)]
    store.close()
    print(f"in process: {statistics.median(ours):.2f} µs for 20 features of one key (aim 6); "
          f"by hand {statistics.median(bare):.2f} µs")  # fmt: skip


def _microseconds(read: Any, keys: list[int]) -> float:
    started = time.perf_counter()
    for key in keys:
        read(key)
    return (time.perf_counter() - started) / len(keys) * 1e6


def _over_http(world: Any, options: argparse.Namespace) -> None:
    from bedplate.serve.supervisor import Supervisor

    server, load = _cores()
    os.sched_setaffinity(0, server)
    with Supervisor(world.home) as supervisor, _granian(world.home.online) as bare:
        ours = supervisor.start(world.spec())
        os.sched_setaffinity(0, load)
        targets = {"by hand": (bare, "/"), "ours": (ours, "/v1/features")}
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in targets}
        for _ in range(options.rounds):
            for name, (url, path) in targets.items():
                before = _processor()  # only one of the servers has something to do
                rate, *times = asyncio.run(_load(url, path, options.seconds, options.entities))
                found[name].append((rate, *times, (_processor() - before) / (rate * options.seconds) * 1e6))
    print("| server | requests/s | p50 ms | p99 ms | processor µs a request |\n|---|---|---|---|---|")
    for name, rounds in found.items():
        rate, median, slow, work = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"| {name} | {rate:,.0f} | {median:.2f} | {slow:.2f} | {work:.0f} |")
    for what, at in (("rate", 0), ("processor time", 3)):
        ratios = sorted(o[at] / b[at] for o, b in zip(found["ours"], found["by hand"], strict=True))
        aim = " (aim 0.8)" if what == "rate" else ""
        print(f"{what}, of by hand: {statistics.median(ratios):.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]{aim}")


def _processor() -> float:
    """Seconds of the processor that all servers have taken."""
    spent = 0.0
    for server in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            times = server.cpu_times()
            spent += times.user + times.system
    return spent


def _cores() -> tuple[set[int], set[int]]:
    every = sorted(os.sched_getaffinity(0))
    return (set(every[:1]), set(every[1:])) if len(every) > 1 else (set(every), set(every))


@contextmanager
def _granian(folder: Path) -> Iterator[str]:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        text = BY_HAND.format(folder=str(folder))
        (Path(scratch) / "by_hand.py").write_text(text)
        command = [sys.executable, "-m", "granian", "--interface", "rsgi", "--workers", "1", "--no-ws", "--port",
                   str(port), "--log-level", "error", "by_hand:app"]  # fmt: skip
        with subprocess.Popen(command, cwd=scratch, env={**os.environ, "PYTHONPATH": scratch}) as process:
            try:
                _wait_for(port)
                yield f"http://127.0.0.1:{port}"
            finally:
                process.terminate()


def _wait_for(port: int) -> None:
    import socket

    for _ in range(200):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on {port}")


async def _load(url: str, path: str, seconds: float, entities: int) -> tuple[float, float, float]:
    """Requests a second, and the median and 99th percentile in ms, of connections that each ask one thing at a time."""
    host, port = url.removeprefix("http://").split(":")
    random = np.random.default_rng(3)
    bodies = [json.dumps({"view": "recent", "keys": [int(key)]}).encode() for key in random.integers(0, entities, 1000)]
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    taken: list[float] = []
    end = time.perf_counter() + seconds

    async def one(turn: int) -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        while (started := time.perf_counter()) < end:
            writer.write(requests[(turn := turn + CONNECTIONS) % 1000])
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200"), answer
            length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            taken.append(time.perf_counter() - started)
        writer.close()

    await asyncio.gather(*(one(i) for i in range(CONNECTIONS)))
    return len(taken) / seconds, *(float(q * 1e3) for q in np.quantile(taken, (0.5, 0.99)))  # type: ignore[return-value]


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    main()
