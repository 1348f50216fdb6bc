"""What governance costs a prediction: our replica against a server written by hand for one model, side by side.

Run: ``python benchmarks/serving.py [--seconds 1.4] [--rounds 4] [--peer PYTHON]``; under a minute with the defaults.
All servers answer the Open Inference Protocol for the same gradient-boosted trees (30 features) on 127.0.0.1, one
process each. The one by hand is Granian, msgspec and ONNX Runtime and nothing else; ours also checks the key, decides
by Cedar policy, checks the request against the model's signature, logs every prediction to the journal, and counts.
``--peer`` is an interpreter that has MLServer and ONNX Runtime, as ``make peers`` sets one up: MLServer is measured
then as well, with its workers within the process of its server, which serves it best on one core.

Servers are held to one core and the client to another. The two are measured in turns, in pairs: only the ratio inside
a pair says something on a machine that others use too, and beside it the processor time that a request costs, which
suffers less from them.
"""

import argparse
import contextlib
import json
import math
import os
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FEATURES, TREES, DEPTH = 30, 100, 5
ROWS = (1, 10, 100)
CONNECTIONS = 32
TARGET = 0.85
PEER_TARGET = 4.5
KEY = "bp_bench_0123456789abcdef"
OTHER = "bp_other_0123456789abcdef"
"""Of another principal, with the same rights."""
MODEL = "trees"

# ------------------------------------------------------------------------------------------------------ the two servers


def by_hand(model: str, port: int) -> None:
    """The server written by hand: what one would write in an afternoon, and as fast as these libraries go."""
    import msgspec
    import numpy as np
    import onnxruntime
    import uvloop
    from granian.server.embed import Server

    class Tensor(msgspec.Struct, omit_defaults=True):
        name: str
        shape: list[int]
        datatype: str
        data: list[Any] = []
        parameters: dict[str, int] | None = None

    class Request(msgspec.Struct):
        inputs: list[Tensor]
        id: str | None = None

    class Answer(msgspec.Struct, omit_defaults=True):
        model_name: str
        outputs: list[Tensor]
        model_version: str = ""
        id: str | None = None

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    decode, encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
    headers = [("content-type", "application/json")]

    def in_bytes(body: bytes, size: int, protocol: Any) -> None:
        """Answer one tensor that comes behind ``size`` bytes of JSON, and goes back so."""
        request = decode(body[:size])
        tensor = request.inputs[0]
        (scores,) = session.run(["Y"], {"X": np.frombuffer(body, np.float32, offset=size).reshape(tensor.shape)})
        data = scores.tobytes()
        output = Tensor("Y", list(scores.shape), "FP32", parameters={"binary_data_size": len(data)})
        text = encode(Answer(MODEL, [output], "1", request.id))
        answered = [("content-type", "application/octet-stream"), ("inference-header-content-length", str(len(text)))]
        protocol.response_bytes(200, answered, text + data)

    async def app(scope: Any, protocol: Any) -> None:
        if scope.path != f"/v2/models/{MODEL}/infer":
            protocol.response_bytes(404, headers, b"{}")
            return
        size = scope.headers.get("inference-header-content-length")
        if size is not None:
            in_bytes(await protocol(), int(size), protocol)
            return
        try:
            request = decode(await protocol())
            feed = {t.name: np.array(t.data, np.float32).reshape(t.shape) for t in request.inputs}
            (scores,) = session.run(["Y"], feed)
        except Exception as error:  # noqa: BLE001
            protocol.response_bytes(400, headers, encode({"error": str(error)}))
            return
        outputs = [Tensor("Y", list(scores.shape), "FP32", scores.ravel().tolist())]
        protocol.response_bytes(200, headers, encode(Answer(MODEL, outputs, "1", request.id)))

    uvloop.run(Server(app, address="127.0.0.1", port=port, log_enabled=False).serve())


@contextlib.contextmanager
def hand_written(folder: Path) -> Iterator[tuple[int, int]]:
    """Port and process of the server by hand."""
    port = free_port()
    server = subprocess.Popen([sys.executable, __file__, "--by-hand", str(folder / "model.onnx"), str(port)])
    try:
        while True:
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            assert server.poll() is None, "the server by hand did not start"
            time.sleep(0.05)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


_PEER = """
import onnxruntime
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse

class Trees(MLModel):
    async def load(self):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession("model.onnx", options, providers=["CPUExecutionProvider"])
        return True

    async def predict(self, payload):
        rows = NumpyCodec.decode_input(payload.inputs[0])
        (scores,) = self.session.run(["Y"], {"X": rows.astype("f4", copy=False)})
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("Y", scores)])
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


@contextlib.contextmanager
def mlserver(python: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Port and process of MLServer with the same model."""
    home = folder / "mlserver"
    home.mkdir()
    port = free_port()
    ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
    settings = {"host": "127.0.0.1", "parallel_workers": 0, "metrics_endpoint": None, **ports}
    (home / "settings.json").write_text(json.dumps(settings))
    (home / "model-settings.json").write_text(json.dumps({"name": MODEL, "implementation": "trees.Trees"}))
    (home / "trees.py").write_text(_PEER)
    (home / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    command = [python.parent / "mlserver", "start", "."]
    with (home / "log").open("wb") as log:
        server = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError, AssertionError, IndexError, ValueError, KeyError):
                ask(port, 1)
                break
            running = server.poll() is None and time.monotonic() < until
            assert running, (home / "log").read_text()[-2000:]
            time.sleep(0.2)
        yield port, server.pid
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def bedplate(
    folder: Path, model: bytes | dict[str, bytes], signature: Any = None, **changes: Any
) -> Iterator[tuple[int, int]]:
    """Port and process of a replica under its supervisor: a signed bundle, a key, the built-in policies, a journal.

    ``model`` is one of this file, or the files of a bundle with their ``signature``; ``changes`` go into its spec. The
    port is that for gRPC if they say that it has one.
    """
    from bedplate import bundle
    from bedplate.bundle import Manifest
    from bedplate.ids import digest_bytes
    from bedplate.policy.values import Principal
    from bedplate.records import ModelSignature, TensorSpec
    from bedplate.serve import snapshot
    from bedplate.serve.spec import ReplicaSpec
    from bedplate.serve.supervisor import Supervisor
    from bedplate.settings import Home

    home = Home(folder / "home")
    home.keys.mkdir(parents=True)
    bundle.make_key(home.keys / "bundle.pem", home.keys / "bundle.pub.pem")
    key = snapshot.make_key(home.keys / "access.pem", home.keys / "access.pub.pem")
    callers = {KEY: "svc", OTHER: "other"}
    names = {
        snapshot.name_of_token(key): snapshot.Key(
            principal=Principal(kind="Service", id=name, name=name, groups=("callers",))
        )
        for key, name in callers.items()
    }
    snapshot.write(home.run / "access.json", snapshot.new(names), key)
    none = digest_bytes(b"")
    manifest = Manifest(
        tenant="local",
        name=MODEL,
        version=1,
        workload="tabular",
        signature=signature
        or ModelSignature(
            predictor="onnx",
            inputs=(TensorSpec(name="X", datatype="FP32", shape=(-1, FEATURES)),),
            outputs=(TensorSpec(name="Y", datatype="FP32", shape=(-1, 1)),),
        ),
        data=(),
        code_digest=none,
        environment_digest=none,
        training=none,
        gates=none,
        created="2026-01-01T00:00:00.000000Z",
    )
    files = model if isinstance(model, dict) else {"model.onnx": model}
    digest = bundle.write(home.bundles, files, manifest)
    bundle.sign(bundle.path_of(home.bundles, digest), home.keys / "bundle.pem", home.keys / "bundle.pub.pem")
    spec = ReplicaSpec(
        name=MODEL,
        use_case="benchmark",
        bundle=bundle.path_of(home.bundles, digest),
        digest=digest,
        evidence=none,
        public_key=home.keys / "bundle.pub.pem",
        snapshot=home.run / "access.json",
        snapshot_key=home.keys / "access.pub.pem",
        journal=home.journal,
        online=str(home.online),
        drain=1.0,
        **changes,
    )
    with Supervisor(home) as supervisor:
        supervisor.start(spec)
        status = supervisor.status()[0]
        yield int((status.grpc or status.url).rpartition(":")[2]), status.pids[0]


def trees() -> bytes:
    """An ONNX model of full trees with random splits: X (FP32 [n, 30]) to Y (FP32 [n, 1])."""
    import numpy as np
    from onnx import TensorProto, helper

    random = np.random.default_rng(1)
    inner, leaves = 2**DEPTH - 1, 2**DEPTH
    nodes = inner + leaves
    ids = np.tile(np.arange(nodes), TREES)
    tree = np.repeat(np.arange(TREES), nodes)
    split = ids < inner
    ensemble = helper.make_node(
        "TreeEnsembleRegressor",
        ["X"],
        ["Y"],
        domain="ai.onnx.ml",
        n_targets=1,
        nodes_treeids=tree.tolist(),
        nodes_nodeids=ids.tolist(),
        nodes_featureids=np.where(split, random.integers(0, FEATURES, ids.size), 0).tolist(),
        nodes_values=np.where(split, random.normal(size=ids.size), 0).tolist(),
        nodes_modes=[b"BRANCH_LEQ" if one else b"LEAF" for one in split],
        nodes_truenodeids=np.where(split, 2 * ids + 1, 0).tolist(),
        nodes_falsenodeids=np.where(split, 2 * ids + 2, 0).tolist(),
        target_treeids=tree[~split].tolist(),
        target_nodeids=ids[~split].tolist(),
        target_ids=[0] * (TREES * leaves),
        target_weights=random.normal(size=TREES * leaves).tolist(),
    )
    graph = helper.make_graph(
        [ensemble],
        MODEL,
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, [None, 1])],
    )
    versions = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    text: bytes = helper.make_model(graph, opset_imports=versions, ir_version=9).SerializeToString()
    return text


# ----------------------------------------------------------------------------------------------------------- the client


def requests(port: int, rows: int, binary: bool = False) -> list[bytes]:
    """Sixty-four different requests, framed; with ``binary`` the numbers go and come back as bytes."""
    import numpy as np

    random = np.random.default_rng(rows)
    framed = []
    for number in range(64):
        data = random.normal(size=rows * FEATURES).round(4)
        tensor = {"name": "X", "shape": [rows, FEATURES], "datatype": "FP32"}
        request: dict[str, Any] = {"id": str(number), "inputs": [tensor]}
        tail, form = b"", ""
        if binary:
            tail = data.astype("<f4").tobytes()
            tensor["parameters"] = {"binary_data_size": len(tail)}
            request["parameters"] = {"binary_data_output": True}
        else:
            tensor["data"] = data.tolist()
        body = json.dumps(request).encode()
        if binary:
            form = f"inference-header-content-length: {len(body)}\r\n"
        body += tail
        head = (
            f"POST /v2/models/{MODEL}/infer HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nauthorization: Bearer {KEY}\r\n"
            f"content-type: application/json\r\n{form}content-length: {len(body)}\r\n\r\n"
        )
        framed.append(head.encode() + body)
    return framed


def drive(port: int, rows: int, seconds: float, count: int = CONNECTIONS, binary: bool = False) -> dict[str, float]:
    """A closed loop on all connections from one process: epoll and sockets, some 15 µs a request.

    Each connection sends its next request when the last was answered. A tenth of the time goes by before it counts.
    """
    framed = requests(port, rows, binary)
    connections = {}
    poll = select.epoll()
    sent: dict[int, float] = {}
    for number in range(count):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connections[connection.fileno()] = connection
        poll.register(connection, select.EPOLLIN)
        sent[connection.fileno()] = time.perf_counter()
        connection.sendall(framed[number % len(framed)])
    latencies: list[float] = []
    turn, counting = count, time.perf_counter() + 0.1 * seconds
    end = counting + seconds
    now = time.perf_counter()
    while now < end:
        for descriptor, _ in poll.poll(1):
            connection = connections[descriptor]
            answer = connection.recv(1 << 20)
            head = answer.find(b"\r\n\r\n")
            start = answer.find(b"content-length: ") + 16
            size = head + 4 + int(answer[start : answer.find(b"\r\n", start)])
            while len(answer) < size:
                answer += connection.recv(1 << 20)
            assert answer[9:12] == b"200", answer[:500]
            now = time.perf_counter()
            if sent[descriptor] > counting:
                latencies.append(now - sent[descriptor])
            turn += 1
            sent[descriptor] = now
            connection.sendall(framed[turn % len(framed)])
    for connection in connections.values():
        connection.close()
    latencies.sort()
    n = len(latencies)
    return {
        "rate": n / seconds,
        "p50": 1000 * latencies[n // 2],
        "p99": 1000 * latencies[math.ceil(0.99 * n) - 1],
        "requests": n,
    }


def ask(port: int, rows: int) -> list[float]:
    """The outputs for the first request: both servers must agree before anything is timed."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(requests(port, rows)[0].replace(b"\r\nhost", b"\r\nconnection: close\r\nhost", 1))
        with connection.makefile("rb") as answer:
            outputs: list[float] = json.loads(answer.read().rpartition(b"\r\n\r\n")[2])["outputs"][0]["data"]
    return outputs


def measure(
    port: int, pid: int, rows: int, seconds: float, core: int, count: int = CONNECTIONS, binary: bool = False
) -> dict[str, float]:
    """One load run by a client process on ``core``; adds the server's processor time in µs a request."""
    before = processor_seconds(pid)
    command = [sys.executable, __file__, "--drive", str(port), str(rows), str(seconds), str(core), str(count)]
    command += ["binary"] if binary else []
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    # The client's uncounted start is a tenth of its time, so a tenth of the requests as well.
    found["cpu"] = 1e6 * (processor_seconds(pid) - before) / (1.1 * found["requests"])
    return found


def processor_seconds(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ----------------------------------------------------------------------------------------------------------- the table


def main() -> None:
    """Run all, in turns, and print the table."""
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(sys.argv[2], int(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--drive"]:
        os.sched_setaffinity(0, {int(sys.argv[5])})
        port, rows, count = int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[6])
        print(json.dumps(drive(port, rows, float(sys.argv[4]), count, "binary" in sys.argv)))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.4)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--peer", type=Path)
    chosen = parser.parse_args()
    seconds, rounds = chosen.seconds, chosen.rounds
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[0]})  # the servers inherit it
    model = trees()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        (folder / "model.onnx").write_bytes(model)
        servers = {
            "by hand": stack.enter_context(hand_written(folder)),
            "Bedplate": stack.enter_context(bedplate(folder, model)),
        }
        if chosen.peer is not None:
            servers["MLServer"] = stack.enter_context(mlserver(chosen.peer, folder))
        found: dict[tuple[str, int], list[dict[str, float]]] = {(s, rows): [] for s in servers for rows in ROWS}
        for rows in ROWS:
            answers = [ask(port, rows) for port, _ in servers.values()]
            same = (
                math.isclose(a, b, rel_tol=1e-5) for other in answers for a, b in zip(answers[0], other, strict=True)
            )
            assert all(same), "the servers disagree"
        for turn in range(rounds):
            for rows in ROWS:
                for server in list(servers)[:: 1 if turn % 2 else -1]:
                    found[server, rows].append(measure(*servers[server], rows, seconds, cores[-1]))
    report(found, seconds, rounds)


def report(found: dict[tuple[str, int], list[dict[str, float]]], seconds: float, rounds: int) -> None:
    """Print the table: medians over the rounds, ratios as median and range over the pairs."""
    print(f"{CONNECTIONS} connections, {FEATURES} features, {TREES} trees; {rounds} rounds of {seconds:g} s; medians")
    print(f"{'rows':>5} {'server':9} {'requests/s':>11} {'p50 ms':>8} {'p99 ms':>8} {'CPU µs/request':>15}  ratio")
    servers = list(dict.fromkeys(server for server, _ in found))
    for rows in ROWS:
        for server in servers:
            runs = found[server, rows]
            middle = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            line = f"{rows:>5} {server:9} {middle['rate']:>11,.0f} {middle['p50']:>8.2f} {middle['p99']:>8.2f}"
            print(f"{line} {middle['cpu']:>15.0f}", end="  ")
            print("" if server == "by hand" else _ratio(found["by hand", rows], runs))
    for server in servers:
        cost = [statistics.median(run["cpu"] for run in found[server, rows]) for rows in ROWS]
        exponent = math.log(cost[-1] / cost[0]) / math.log(ROWS[-1] / ROWS[0])
        print(f"{server}: processor time grows with rows to the power {exponent:.2f}")
    one = statistics.median(_ratios(found["by hand", 1], found["Bedplate", 1], "rate"))
    print(f"target: at least {TARGET} of the requests/s by hand at one row: {_verdict(one >= TARGET)}")
    if "MLServer" in servers:
        times = statistics.median(_ratios(found["MLServer", 1], found["Bedplate", 1], "rate"))
        print(f"target: at least {PEER_TARGET} x MLServer at one row: {times:.1f}, {_verdict(times >= PEER_TARGET)}")


def _verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def _ratios(hand: list[dict[str, float]], ours: list[dict[str, float]], what: str) -> list[float]:
    return [b[what] / a[what] for a, b in zip(hand, ours, strict=True)]


def _ratio(hand: list[dict[str, float]], ours: list[dict[str, float]]) -> str:
    rates, costs = _ratios(hand, ours, "rate"), _ratios(hand, ours, "cpu")
    return (
        f"{statistics.median(rates):.2f} [{min(rates):.2f}, {max(rates):.2f}] of the requests/s, "
        f"{statistics.median(costs):.2f} of the processor time"
    )


if __name__ == "__main__":
    main()
