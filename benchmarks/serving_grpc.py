"""What governance costs a prediction over gRPC: our replica against a bare grpcio server, and against MLServer.

Run: ``python benchmarks/serving_grpc.py [seconds] [rounds] [--peer PYTHON]``; a minute with the defaults. ``PYTHON``
is one that has ``mlserver`` and ``onnxruntime``, as ``make peers`` sets one up: MLServer is started with the same
model and a runtime of ten lines.

All answer ModelInfer for the model of ``benchmarks/serving.py``, one row of 30 features in raw contents. The bare
server is grpcio as fast as it goes: its asyncio server on uvloop, generic handlers that get and give bytes, the tensor
at the end of the message taken for granted, ONNX Runtime, nothing else. Ours also reads the message, checks the key,
decides by policy, checks the tensors against the signature, logs every prediction and counts.

Servers are held to one core and the client to another; the client writes HTTP/2 frames itself, in a closed loop over
four connections of eight streams, for a client made with grpcio would be slower than the servers. They are measured in
turns: only ratios inside a turn say something on a shared machine.
"""

import argparse
import contextlib
import json
import os
import select
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import serving
from serving import FEATURES, KEY, MODEL

CONNECTIONS, STREAMS = 4, 8
BARE, PEER = 0.9, 1.5
_SETTINGS, _PING, _WINDOW, _DATA, _HEADERS, _RESET, _GOAWAY = 4, 6, 8, 0, 1, 3, 7
_MOST_WINDOW = 2**31 - 1

# ------------------------------------------------------------------------------------------------------ the two peers


def bare(model: str, port: int) -> None:
    """grpcio with a model in it and nothing around it."""
    import asyncio

    import grpc.aio
    import numpy as np
    import onnxruntime
    import uvloop

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    head = field(1, MODEL.encode()) + field(2, b"1") + field(5, field(1, b"Y") + field(2, b"FP32") + field(3, b"\1\1"))

    async def infer(message: bytes, context: Any) -> bytes:
        row = np.frombuffer(message, np.float32, FEATURES, len(message) - 4 * FEATURES).reshape(1, FEATURES)
        (scores,) = session.run(["Y"], {"X": row})
        return head + field(6, scores.tobytes())

    async def serve() -> None:
        server = grpc.aio.server()
        methods = {"ModelInfer": grpc.unary_unary_rpc_method_handler(infer)}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("inference.GRPCInferenceService", methods),)
        )
        server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        await asyncio.Event().wait()

    uvloop.run(serve())


MLSERVER = """
import numpy as np, onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Onnx(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload):
        tensor = payload.inputs[0]
        row = NumpyCodec.decode_input(tensor).astype(np.float32, copy=False)
        (scores,) = self.session.run(["Y"], {"X": row})
        return InferenceResponse(
            model_name=self.name, model_version=self.version, id=payload.id,
            outputs=[NumpyCodec.encode_output("Y", scores)],
        )
"""


@contextlib.contextmanager
def started(command: list[str], port: int, seconds: float, **more: Any) -> Iterator[tuple[int, int]]:
    """Port and process of a server that was started."""
    server = subprocess.Popen(command, **more)
    try:
        end = time.monotonic() + seconds
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert server.poll() is None, f"{command[0]} ended at its start"
            assert time.monotonic() < end, f"{command[0]} did not start"
            time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


def bare_server(folder: Path) -> contextlib.AbstractContextManager[tuple[int, int]]:
    """Port and process of the bare server."""
    port = free_port()
    return started([sys.executable, __file__, "--bare", str(folder / "model.onnx"), str(port)], port, 20)


@contextlib.contextmanager
def mlserver(python: str, folder: Path) -> Iterator[tuple[int, int]]:
    """Port and process of MLServer with its inference in its own process (no pool of workers), its fastest."""
    place = folder / "mlserver"
    place.mkdir()
    (place / "runtime.py").write_text(MLSERVER)
    model = {"name": MODEL, "implementation": "runtime.Onnx", "parameters": {"uri": str(folder / "model.onnx")}}
    (place / "model-settings.json").write_text(json.dumps(model))
    port = free_port()
    settings = {"http_port": free_port(), "grpc_port": port, "metrics_port": free_port(), "parallel_workers": 0}
    (place / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "debug": False, **settings}))
    log = (place / "log").open("w")
    command = [str(Path(python).with_name("mlserver")), "start", str(place)]
    environment = {**os.environ, "PYTHONPATH": str(place)}
    with log, started(command, port, 60, cwd=place, stdout=log, stderr=log, env=environment) as found:
        time.sleep(2)  # it opens the port before the model is loaded
        yield found


def free_port() -> int:
    """A port that nobody has now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


# ----------------------------------------------------------------------------------------------------------- the client


def field(number: int, data: bytes) -> bytes:
    """A field of a protocol buffer that has a length."""
    size, length = len(data), b""
    while size > 0x7F:
        length, size = length + bytes([size & 0x7F | 0x80]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + data


def messages() -> list[bytes]:
    """Sixty-four different ModelInferRequests of one row, raw contents last."""
    import numpy as np

    random = np.random.default_rng(1)
    tensor = field(1, b"X") + field(2, b"FP32") + field(3, bytes([1, FEATURES]))
    return [
        field(1, MODEL.encode())
        + field(3, b"%d" % number)
        + field(5, tensor)
        + field(7, random.normal(size=FEATURES).astype("<f4").tobytes())
        for number in range(64)
    ]


_FIELDS = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/inference.GRPCInferenceService/ModelInfer"),
    (b":authority", b"127.0.0.1"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"authorization", f"Bearer {KEY}".encode()),
)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


class Connection:
    """One HTTP/2 connection; headers are told in full once and by their place in the table from then on."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        window = frame(_SETTINGS, 0, 0, struct.pack("!HI", 4, _MOST_WINDOW))
        more = frame(_WINDOW, 0, 0, struct.pack("!I", _MOST_WINDOW - 65_535))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window + more)
        self._requests, self._count = requests, 0
        self._window = 65_535
        self._rest = b""
        self._answer = b""
        self._waiting = 0
        self.sent: dict[int, float] = {}

    def ask(self, count: int = 1) -> None:
        """Send requests, as far as the server's window allows; the others go later."""
        self._waiting += count
        out = []
        while self._waiting and self._window > 32_768:
            message = self._requests[self._count % len(self._requests)]
            stream = 2 * self._count + 1
            if self._count:
                head = bytes(0x80 | (62 + i) for i in reversed(range(len(_FIELDS))))
            else:
                text = [b"\x40" + bytes([len(a)]) + a + bytes([len(b)]) + b for a, b in _FIELDS]
                head = b"".join(text)
            out.append(frame(_HEADERS, 4, stream, head))
            out.append(frame(_DATA, 1, stream, b"\0" + len(message).to_bytes(4, "big") + message))
            self.sent[stream] = time.perf_counter()
            self._window -= len(message) + 5
            self._count += 1
            self._waiting -= 1
        if out:
            self.socket.sendall(b"".join(out))

    def take(self) -> tuple[list[float], bytes]:
        """When the requests that are answered now were sent, and the last answer's message."""
        data = self._rest + self.socket.recv(1 << 20)
        answered, out, at = [], [], 0
        while len(data) - at >= 9:
            size = int.from_bytes(data[at : at + 3], "big")
            if len(data) - at < 9 + size:
                break
            kind, flags, stream = data[at + 3], data[at + 4], int.from_bytes(data[at + 5 : at + 9], "big")
            payload = data[at + 9 : at + 9 + size]
            at += 9 + size
            if kind == _DATA:
                self._answer = payload
            elif kind == _HEADERS and flags & 1:
                assert self._answer, f"answered without a message: {payload!r}"
                answered.append(self.sent.pop(stream))
            elif kind == _SETTINGS and not flags & 1:
                out.append(frame(_SETTINGS, 1, 0, b""))
            elif kind == _PING and not flags & 1:
                out.append(frame(_PING, 1, 0, payload))
            elif kind == _WINDOW and stream == 0:
                self._window += int.from_bytes(payload, "big")
            else:
                assert kind not in (_RESET, _GOAWAY), f"the server ended it: frame {kind}, {payload!r}"
        self._rest = data[at:]
        if out:
            self.socket.sendall(b"".join(out))
        return answered, self._answer


def drive(port: int, seconds: float) -> dict[str, float]:
    """A closed loop on all streams from one process. A tenth of the time goes by before it counts."""
    requests = messages()
    poll = select.epoll()
    connections = {}
    for _ in range(CONNECTIONS):
        one = Connection(port, requests)
        connections[one.socket.fileno()] = one
        poll.register(one.socket, select.EPOLLIN)
        one.ask(STREAMS)
    latencies: list[float] = []
    counting = time.perf_counter() + 0.1 * seconds
    end = counting + seconds
    now = time.perf_counter()
    while now < end:
        for descriptor, _ in poll.poll(1):
            one = connections[descriptor]
            sent, _ = one.take()
            now = time.perf_counter()
            latencies += [now - since for since in sent if since > counting]
            one.ask(len(sent))
    for one in connections.values():
        one.socket.close()
    latencies.sort()
    n = len(latencies)
    return {"rate": n / seconds, "p50": 1e3 * latencies[n // 2], "p99": 1e3 * latencies[n * 99 // 100], "requests": n}


def score(port: int) -> float:
    """The score of the first request: all servers must agree before anything is timed."""
    one = Connection(port, messages())
    one.ask()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        sent, answer = one.take()
        if sent:
            one.socket.close()
            # The value is the last four bytes, raw, or the last of the typed contents.
            value: float = struct.unpack("<f", answer[-4:])[0]
            return value
    raise AssertionError("no answer")


# ----------------------------------------------------------------------------------------------------------- the table


def main() -> None:
    """Run all, in turns, and print the table."""
    if sys.argv[1:2] == ["--bare"]:
        bare(sys.argv[2], int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--drive"]:
        os.sched_setaffinity(0, {int(sys.argv[4])})
        print(json.dumps(drive(int(sys.argv[2]), float(sys.argv[3]))))
        return
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("seconds", nargs="?", type=float, default=3.0)
    options.add_argument("rounds", nargs="?", type=int, default=5)
    options.add_argument("--peer", help="a Python that has mlserver and onnxruntime")
    given = options.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})  # the servers inherit it
    model = serving.trees()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        servers = {
            "bare grpcio": stack.enter_context(bare_server(folder)),
            "Bedplate": stack.enter_context(serving.bedplate(folder, model, grpc=0)),
        }
        if given.peer:
            servers["MLServer"] = stack.enter_context(mlserver(given.peer, folder))
        scores = {server: round(score(port), 3) for server, (port, _) in servers.items()}
        assert len(set(scores.values())) == 1, f"the servers disagree: {scores}"
        found: dict[str, list[dict[str, float]]] = {server: [] for server in servers}
        for turn in range(given.rounds):
            for server in list(servers)[:: 1 if turn % 2 else -1]:
                found[server].append(measure(*servers[server], given.seconds, cores[-1]))
    report(found, given.seconds, given.rounds)


def measure(port: int, pid: int, seconds: float, core: int) -> dict[str, float]:
    """One load run by a client process on ``core``; adds the server's processor time in µs a request."""
    before = serving.processor_seconds(pid)
    done = subprocess.run(
        [sys.executable, __file__, "--drive", str(port), str(seconds), str(core)],
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    found["cpu"] = 1e6 * (serving.processor_seconds(pid) - before) / (1.1 * found["requests"])
    return found


def report(found: dict[str, list[dict[str, float]]], seconds: float, rounds: int) -> None:
    """Print the table: medians over the rounds, ratios as median and range over the turns."""
    print(f"{CONNECTIONS} connections of {STREAMS} streams; {rounds} rounds of {seconds:g} s; medians")
    print(f"{'server':12} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs/request':>15}")
    for server, runs in found.items():
        middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
        line = f"{server:12} {middle['rate']:>11,.0f} {middle['p50']:>8.2f} {middle['p99']:>8.2f}"
        print(f"{line} {middle['cpu']:>15.0f}")
    for peer, target in (("bare grpcio", BARE), ("MLServer", PEER)):
        if peer in found:
            rates = [ours["rate"] / theirs["rate"] for theirs, ours in zip(found[peer], found["Bedplate"], strict=True)]
            costs = [ours["cpu"] / theirs["cpu"] for theirs, ours in zip(found[peer], found["Bedplate"], strict=True)]
            middle_rate = statistics.median(rates)
            verdict = "met" if middle_rate >= target else "MISSED"
            print(
                f"Bedplate / {peer}: {middle_rate:.2f} [{min(rates):.2f}, {max(rates):.2f}] of the requests/s, "
                f"{statistics.median(costs):.2f} of the processor time; target {target}: {verdict}"
            )


if __name__ == "__main__":
    main()
