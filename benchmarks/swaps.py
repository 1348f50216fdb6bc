"""Twenty releases let in under load, good and bad, with processes killed meanwhile: how many requests fail.

Clients ask in an open loop, on kept connections, on a new one each, and over gRPC, and never a second time: what gRPC's
own client asks again by itself is no failure. A bad release fails its readiness, hangs, answers no number, or fails one
request in twenty; the time until it is rolled back is told.

Run: python benchmarks/swaps.py [--rate 100] [--requests 50000]   (at 100/s of each kind this takes nine minutes)
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' releases, which are bad in every way

from tests.app.rolling import INFER, NAME, Served, hangs_above, not_a_number_above
from tests.serve.support import linear

from bedplate.release.rollout import Step
from bedplate.serve.spec import ReplicaSpec

SWAPS, LIMIT, PATIENCE = 20, 30.0, 10.0
KINDS = {"kept connections": 0, "a new connection each": 1, "gRPC": 0}
"""Each kind of client, and how many of 50,000 requests of it may fail."""
CHANNELS = 4
METHOD = "/inference.GRPCInferenceService/ModelInfer"
BODY = '{{"inputs":[{{"name":"X","shape":[1,3],"datatype":"FP32","data":[{:.4f},0.1,0.2]}}]}}'


class Client(ABC):
    """One open-loop client. What takes longer than ``PATIENCE``, breaks or is refused has failed."""

    def __init__(self) -> None:
        self.asked = 0
        self.latencies: list[float] = []
        self.failed: list[str] = []

    async def run(self, rate: float, requests: int, stop: asyncio.Event) -> None:
        """Ask at ``rate`` until told to stop, at least ``requests`` times."""
        began, number, under_way = time.monotonic(), 0, set[asyncio.Task[None]]()
        while number < requests or not stop.is_set():
            number += 1
            task = asyncio.create_task(self._ask(number))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
        await asyncio.gather(*under_way)

    async def _ask(self, number: int) -> None:
        started = time.monotonic()
        self.asked += 1
        try:
            async with asyncio.timeout(PATIENCE):
                status = await self.once(number)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, grpc.RpcError) as error:
            status = type(error).__name__
            if isinstance(error, grpc.aio.AioRpcError):
                status = f"{error.code().name}: {error.details()}"
        if status != "200":
            self.failed.append(status)
        self.latencies.append(time.monotonic() - started)

    @abstractmethod
    async def once(self, number: int) -> str:
        """The status of one answer."""


class HttpClient(Client):
    """Over HTTP, on connections that are kept, or on a new one each."""

    def __init__(self, address: str, key: str, *, keep: bool) -> None:
        super().__init__()
        host, _, port = address.rpartition(":")
        self._address, self._keep = (host, int(port)), keep
        self._head = f"POST {INFER} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n"
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def once(self, number: int) -> str:
        while self._free:  # one that the server closed meanwhile is not used, as in every client that keeps some
            reader, writer = self._free.pop()
            if not reader.at_eof():
                break
            writer.close()
        else:
            reader, writer = await asyncio.open_connection(*self._address)
        body = BODY.format(value(number))
        close = "" if self._keep else "connection: close\r\n"
        writer.write(f"{self._head}{close}content-length: {len(body)}\r\n\r\n{body}".encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        await reader.readexactly(length)
        if self._keep and "connection: close" not in head:
            self._free.append((reader, writer))
        else:
            writer.close()
        return head.split(" ")[1]


class GrpcClient(Client):
    """Over gRPC, on channels that are kept."""

    def __init__(self, address: str, key: str) -> None:
        super().__init__()
        own = [("grpc.use_local_subchannel_pool", 1)]  # else all of them would share one connection
        channels = [grpc.aio.insecure_channel(address, options=own) for _ in range(CHANNELS)]
        self._calls = [channel.unary_unary(METHOD) for channel in channels]
        self._metadata = (("authorization", f"Bearer {key}"),)

    async def once(self, number: int) -> str:
        message = service_pb2.ModelInferRequest(model_name=NAME)
        message.inputs.add(name="X", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend(
            (value(number), 0.1, 0.2)
        )
        await self._calls[number % CHANNELS](message.SerializeToString(), metadata=self._metadata)
        return "200"


def value(number: int) -> float:
    """Spread over [0, 1)."""
    return (number * 0.6180339887) % 1


async def load(http: str, rpc: str, key: str, rate: float, requests: int) -> None:
    """All clients, until the line on standard input ends; prints what they saw."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    clients = [*(HttpClient(http, key, keep=keep) for keep in (True, False)), GrpcClient(rpc, key)]
    await asyncio.gather(*(client.run(rate, requests, stop) for client in clients))
    for client in clients:
        client.latencies.sort()
    told = [
        {
            "asked": client.asked,
            "failed": client.failed,
            "p50": client.latencies[len(client.latencies) // 2],
            "p99": client.latencies[int(len(client.latencies) * 0.99)],
            "worst": client.latencies[-1],
        }
        for client in clients
    ]
    print(json.dumps(told), flush=True)


def tampered(served: Served) -> ReplicaSpec:
    """A release whose file is not what was signed: it is never ready."""
    spec = served.release(linear(3.0))
    file = spec.bundle / "model.onnx"
    file.chmod(0o600)
    file.write_bytes(linear(4.0))
    return spec


BAD: dict[str, Callable[[Served], ReplicaSpec]] = {
    "fails readiness": tampered,
    "hangs": lambda served: served.release(hangs_above(0.5)),
    "answers no number": lambda served: served.release(not_a_number_above(-1.0)),
    "fails 5 % of requests": lambda served: served.release(not_a_number_above(0.95)),
}


def wait(served: Served, states: tuple[str, ...], seconds: float) -> str:
    """The state of the rollout once it is one of these, or when the time is over."""
    end = time.monotonic() + seconds
    while (state := served.state().state) not in states and time.monotonic() < end:
        time.sleep(0.1)
    return state


def kill(served: Served, name: str, *, exactly: bool = False) -> None:
    """Kill the processes of an endpoint outright, or those of all whose name begins so."""
    for status in served.system.supervisor.status():
        for pid in status.pids if status.name == name or (not exactly and status.name.startswith(name)) else ():
            os.kill(pid, signal.SIGKILL)


def swaps(served: Served, count: int, *, kill_stable: bool) -> None:
    """Let releases in, one after the other, and tell of each."""
    good = (Step("split", 0.5, 0.5),)
    bad = dict(zip(range(2, count, max(1, count // len(BAD))), BAD, strict=False))
    for number in range(count):
        began = time.monotonic()
        if number in bad:
            kind = bad[number]
            served.begin(BAD[kind](served), Step("split", 0.1, 120.0))
            state = wait(served, ("rolled_back",), LIMIT)
            verdict = "ok" if state == "rolled_back" else "MISSED"
            print(
                f"swap {number + 1:2d}: {kind}: {state} after {time.monotonic() - began:.1f} s ({verdict})", flush=True
            )
            continue
        served.begin(served.release(linear(1.0 + number)), *good, least=3)
        note = ""
        if number == count // 2:
            kill(served, f"{NAME}@")
            note = ", its candidate killed meanwhile"
        state = wait(served, ("completed", "rolled_back"), LIMIT)
        if number % 3 == 1 and kill_stable:
            kill(served, NAME, exactly=True)
            note += ", then its replica killed"
            time.sleep(2)
        print(f"swap {number + 1:2d}: a good release{note}: {state} after {time.monotonic() - began:.1f} s", flush=True)


def main() -> None:
    """Serve, let releases in, and tell what the clients saw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second of each kind of client")
    parser.add_argument("--requests", type=int, default=50_000, help="requests of each kind, at least")
    parser.add_argument("--swaps", type=int, default=SWAPS)
    parser.add_argument("--spare", action="store_true", help="do not kill the replica that holds the connections")
    parser.add_argument("--client", nargs=3, metavar=("HTTP", "GRPC", "KEY"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        asyncio.run(load(*given.client, given.rate, given.requests))
        return
    with tempfile.TemporaryDirectory() as folder, Served(Path(folder) / "home", grpc=0, patience=0.25) as served:
        (status,) = served.system.supervisor.status()
        command = [sys.executable, __file__, "--rate", str(given.rate), "--requests", str(given.requests)]
        command += ["--client", status.url.removeprefix("http://"), status.grpc, served.system.token]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            swaps(served, given.swaps, kill_stable=not given.spare)
            client.stdin.write("enough\n")
            client.stdin.flush()
            told = json.loads(client.stdout.readline())
    for (kind, allowed), seen in zip(KINDS.items(), told, strict=True):
        verdict = "ok" if len(seen["failed"]) <= allowed * max(1, seen["asked"] // 50_000) else "MISSED"
        print(
            f"{kind:22s} {seen['asked']:7,} asked, {len(seen['failed'])} failed {seen['failed'][:5]} ({verdict}); "
            f"p50 {seen['p50'] * 1e3:.1f} ms, p99 {seen['p99'] * 1e3:.1f} ms, worst {seen['worst'] * 1e3:.0f} ms"
        )


if __name__ == "__main__":
    main()
