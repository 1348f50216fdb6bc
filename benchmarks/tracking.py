"""What tracking costs: Bedplate against a server written by hand and, if asked, against ``mlflow server``.

Run: ``python benchmarks/tracking.py [--rows NAME,...] [--seconds S] [--rounds N] [--peer]``; ``--help`` lists the rows.
The environment of the MLflow client must be there: ``make .venv/.mlflow``.

The server by hand is Granian, msgspec and one thread that writes to SQLite (WAL, synchronous FULL), many calls in one
commit. It validates nothing, knows no run, no key and no policy, and keeps no audit; a call is answered when its commit
is on disk. Bedplate does all of that. Each server is a process of its own, and so is each client; the servers take
turns within a round, and a ratio is taken within a round only. Processor
time suffers less from what else the machine does: where many small calls are made, it stands beside the ratio.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PREFIX = "/api/2.0/mlflow/"
HISTORY, PAGE = 10_000, 2_000


class Row(NamedTuple):
    """One line of the table. ``better``: whether more is better. ``reach`` is the bound on the ratio to the limit, or
    on the value itself where ``absolute`` says so."""

    text: str
    better: str
    reach: float
    absolute: bool = False


ROWS = {
    "log1": Row("log-metric/s, raw HTTP, 1 connection", "more", 0.75),
    "log8": Row("log-metric/s, raw HTTP, 8 connections", "more", 0.75),
    "client": Row("log_metric/s, client", "more", 0.95),
    "batch": Row("log_batch metrics/s, client", "more", 0.85),
    "create": Row("create_run/s, client", "more", 0.8),
    "history": Row("get_metric_history of 10,000, client, ms", "less", 1.15),
    "raw-search": Row("search, 2,000 runs in a page, raw HTTP, ms", "less", 105.0, absolute=True),
    "search": Row("search, 2,000 runs in a page, client, ms", "less", 1.25),
    "start": Row("start to first answer, s", "less", 1.5, absolute=True),
    "memory": Row("resident memory after all that, MB", "less", 200.0, absolute=True),
}
LIMIT_HAS = ("log1", "log8", "client", "batch", "create", "history", "search", "start", "memory")
"""The server by hand searches nothing: to the client it gives the page that Bedplate gave, as a fixed body."""

# ------------------------------------------------------------------------------------------------- the server by hand


def by_hand(port: int, folder: Path) -> None:
    """Serve until it is ended."""
    import asyncio
    import queue
    import sqlite3
    import uuid
    from urllib.parse import parse_qs

    import msgspec
    import uvloop
    from granian.constants import Interfaces
    from granian.server.embed import Server

    class Metric(msgspec.Struct):
        key: str
        value: float
        timestamp: int = 0
        step: int = 0

    class LogMetric(Metric):
        run_id: str = ""

    class LogBatch(msgspec.Struct):
        run_id: str
        metrics: list[Metric] = []

    one, batch = msgspec.json.Decoder(LogMetric).decode, msgspec.json.Decoder(LogBatch).decode
    encode = msgspec.json.Encoder().encode
    headers = [("content-type", "application/json")]
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    latest = (
        "INSERT INTO latest VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET step = excluded.step, "
        "time = excluded.time, value = excluded.value "
        "WHERE (excluded.step, excluded.time) >= (latest.step, latest.time)"
    )

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(folder / "limit.db", isolation_level=None, check_same_thread=False)
        for line in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "CREATE TABLE IF NOT EXISTS runs (id TEXT PRIMARY KEY, start INTEGER) WITHOUT ROWID",
            "CREATE TABLE IF NOT EXISTS metrics (run TEXT, key TEXT, step INTEGER, time INTEGER, value REAL)",
            "CREATE INDEX IF NOT EXISTS by_key ON metrics (run, key)",
            "CREATE TABLE IF NOT EXISTS latest (run TEXT, key TEXT, step INTEGER, time INTEGER, value REAL, "
            "PRIMARY KEY (run, key)) WITHOUT ROWID",
        ):
            connection.execute(line)
        return connection

    def write(loop: asyncio.AbstractEventLoop) -> None:
        connection = connect()
        while True:
            taken = [waiting.get()]
            while len(taken) < 1000 and not waiting.empty():
                taken.append(waiting.get())
            connection.execute("BEGIN IMMEDIATE")
            for run, points, _ in taken:
                if points is None:
                    connection.execute("INSERT INTO runs VALUES (?, ?)", run)
                    continue
                rows = [(run, point.key, point.step, point.timestamp, point.value) for point in points]
                connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?)", rows)
                connection.executemany(latest, list({row[1]: row for row in rows}.values()))
            connection.execute("COMMIT")
            loop.call_soon_threadsafe(lambda done: [future.set_result(None) for _, _, future in done], taken)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        reader, fixed = connect(), [b"{}"]

        def put(run: Any, points: list[Metric] | None) -> asyncio.Future[None]:
            future: asyncio.Future[None] = loop.create_future()
            waiting.put((run, points, future))
            return future

        async def app(scope: Any, protocol: Any) -> None:
            path, body = scope.path, await protocol()
            answer = b"{}"
            if path.endswith("/log-metric"):
                point = one(body)
                await put(point.run_id, [point])
            elif path.endswith("/log-batch"):
                points = batch(body)
                await put(points.run_id, points.metrics)
            elif path.endswith("/runs/create"):
                run, now = uuid.uuid4().hex, int(time.time() * 1000)
                await put((run, now), None)
                info = {"run_id": run, "run_uuid": run, "experiment_id": "0", "status": "RUNNING", "start_time": now}
                info |= {"artifact_uri": "", "lifecycle_stage": "active"}
                answer = encode({"run": {"info": info, "data": {}}})
            elif path.endswith("/get-history"):
                query = parse_qs(scope.query_string)
                asked = (query["run_id"][0], query["metric_key"][0])
                text = "SELECT key, value, time, step FROM metrics WHERE run = ? AND key = ? ORDER BY time, step"
                names = ("key", "value", "timestamp", "step")
                found = [dict(zip(names, row, strict=True)) for row in reader.execute(text, asked)]
                answer = encode({"metrics": found})
            elif path.endswith("/runs/search"):
                answer = fixed[0]
            elif path == "/fixed":
                fixed[0] = body
            protocol.response_bytes(200, headers, answer)

        threading.Thread(target=write, args=(loop,), daemon=True).start()
        server = Server(
            app, address="127.0.0.1", port=port, interface=Interfaces.RSGI, websockets=False, log_enabled=False
        )
        await server.serve()

    uvloop.run(serve())


# -------------------------------------------------------------------------------------------------- servers and clients


class Server(NamedTuple):
    """A running server. ``token`` opens it; ``pids`` are its processes; ``started``: seconds to its first answer."""

    name: str
    address: str
    token: str
    pids: Callable[[], list[int]]
    started: list[float]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Until the server answers."""
    while True:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(url, timeout=5).close()
            return
        assert process.poll() is None, f"{url}: the server did not start"
        time.sleep(0.005)


@contextlib.contextmanager
def started(command: list[str], health: str, environ: dict[str, str], times: list[float]) -> Iterator[int]:
    """A server for the length of the block; its process."""
    begun = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        wait_for(health, process)
        times.append(time.perf_counter() - begun)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@contextlib.contextmanager
def limit(folder: Path, starts: int) -> Iterator[Server]:
    """The server by hand."""
    times: list[float] = []
    folder.mkdir()
    for number in range(starts):
        port = free_port()
        command = [sys.executable, __file__, "--by-hand", str(port), str(folder)]
        with started(command, f"http://127.0.0.1:{port}/health", dict(os.environ), times) as pid:
            if number == starts - 1:
                yield Server("by hand", f"http://127.0.0.1:{port}", "", lambda: [pid], times)


@contextlib.contextmanager
def bedplate(folder: Path, starts: int, **settings: str) -> Iterator[Server]:
    """An owner of a home, in the foreground as an init system starts it; ``settings`` go into its environment."""
    times: list[float] = []
    for number in range(starts):
        port = free_port()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BEDPLATE_")}
        environ |= {"BEDPLATE_HOME": str(folder), "BEDPLATE_PORT": str(port), **settings}
        command = [sys.executable, "-m", "bedplate", "up"]
        with started(command, f"http://127.0.0.1:{port}/health", environ, times) as pid:
            if number == starts - 1:
                token = (folder / "keys" / "admin.key").read_text("ascii").strip()
                yield Server("Bedplate", f"http://127.0.0.1:{port}", token, lambda: [pid], times)


@contextlib.contextmanager
def mlflow_server(folder: Path) -> Iterator[Server]:
    """The stock server, one worker."""
    sys.path.insert(0, str(ROOT))
    from tests.mlflow import peer

    begun = time.perf_counter()
    with peer.running(folder=folder) as running:
        took = time.perf_counter() - begun
        yield Server("MLflow", running.address, "", lambda: group(running.group), [took])


def group(leader: int) -> list[int]:
    """The processes of a process group."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(path.name)) == leader:
                found.append(int(path.name))
    return found


def megabytes(pids: list[int]) -> float:
    """Resident memory of processes."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


def processor_seconds(pids: list[int]) -> float:
    """Processor time that processes have used up so far."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


class Raw:
    """A kept-alive connection with no client library between."""

    def __init__(self, address: str, token: str) -> None:
        self._connection = http.client.HTTPConnection(address.removeprefix("http://"))
        self._connection.connect()
        self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._headers = {"content-type": "application/json"}
        if token:
            self._headers["authorization"] = f"Bearer {token}"

    def call(self, path: str, body: Any) -> bytes:
        """POST ``body`` as JSON; the reply's body."""
        data = body if isinstance(body, bytes) else json.dumps(body)
        self._connection.request("POST", path if path.startswith("/") else PREFIX + path, data, self._headers)
        answer = self._connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text[:500]
        return text

    def run(self, experiment: str = "0") -> str:
        """A new run."""
        made = json.loads(
            self.call("runs/create", {"experiment_id": experiment, "start_time": int(time.time() * 1000)})
        )
        run: str = made["run"]["info"]["run_id"]
        return run


def log_metric(server: Server, connections: int, seconds: float) -> float:
    """Calls a second, in a closed loop on each connection."""
    counts = [0] * connections
    lines = [Raw(server.address, server.token) for _ in range(connections)]
    runs = [line.run() for line in lines]
    begun = time.perf_counter()
    end = begun + seconds

    def log(number: int) -> None:
        line, run = lines[number], runs[number]
        while time.perf_counter() < end:
            counts[number] += 1
            point = {"run_id": run, "run_uuid": run, "key": "loss", "value": 0.1, "step": counts[number]}
            line.call("runs/log-metric", {**point, "timestamp": int(time.time() * 1000)})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - begun)


def fill(server: Server) -> str:
    """An experiment of 2,000 runs, each with two metrics and two params."""
    line = Raw(server.address, server.token)
    name = f"search {time.time()}"
    experiment: str = json.loads(line.call("experiments/create", {"name": name}))["experiment_id"]
    for number in range(PAGE):
        metrics = [
            {"key": key, "value": (number * step % 997) / 997, "timestamp": 1, "step": 0}
            for key, step in (("acc", 7), ("loss", 11))
        ]
        params = [{"key": "lr", "value": str(number / 7)}, {"key": "depth", "value": str(number % 7)}]
        line.call("runs/log-batch", {"run_id": line.run(experiment), "metrics": metrics, "params": params})
    return experiment


def page(server: Server, experiment: str) -> tuple[float, bytes]:
    """Milliseconds for a page of 2,000 runs, and the page."""
    line = Raw(server.address, server.token)
    begun = time.perf_counter()
    body = line.call("runs/search", {"experiment_ids": [experiment], "max_results": PAGE})
    return 1000 * (time.perf_counter() - begun), body


class Client:
    """A process with the stock client, imported once; it does a row whenever it is told to."""

    def __init__(self, server: Server) -> None:
        settings = {
            "MLFLOW_TRACKING_URI": server.address,
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        if server.token:
            settings["MLFLOW_TRACKING_TOKEN"] = server.token
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "PYTHON"))}
        python = Path(sys.prefix) / "mlflow" / "bin" / "python"
        assert python.exists(), "the client's environment is not there: make .venv/.mlflow"
        self._process = subprocess.Popen(
            [str(python), __file__, "--client"],
            env=environ | settings,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def measure(self, row: str, seconds: float, experiment: str = "0") -> float:
        """One value of a row."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(row, seconds, experiment, file=self._process.stdin, flush=True)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


def client_loop() -> None:
    """The client's process: a row, seconds and an experiment on each line it reads, a value on each it writes."""
    from mlflow.entities import Metric

    from mlflow import MlflowClient

    client = MlflowClient()
    run = client.create_run("0").info.run_id
    step = 0

    def each_second(call: Callable[[], int], seconds: float) -> float:
        count, begun = 0, time.perf_counter()
        while time.perf_counter() - begun < seconds:
            count += call()
        return count / (time.perf_counter() - begun)

    def one() -> int:
        nonlocal step
        step += 1
        client.log_metric(run, "loss", 0.1, step=step)
        return 1

    def thousand() -> int:
        nonlocal step
        step += 1000
        now = int(time.time() * 1000)
        client.log_batch(run, metrics=[Metric(f"m{i % 10}", i / 7, now, step + i) for i in range(1000)])
        return 1000

    def create() -> int:
        client.create_run("0")
        return 1

    def milliseconds(call: Callable[[], Any], expected: int) -> float:
        begun = time.perf_counter()
        assert len(call()) == expected
        return 1000 * (time.perf_counter() - begun)

    long_run = ""
    one()
    for line in sys.stdin:
        row, seconds, experiment = line.split()
        if row == "history" and not long_run:
            long_run = client.create_run("0").info.run_id
            for start in range(0, HISTORY, 1000):
                points = [Metric("h", float(i), 1_700_000_000_000 + i, i) for i in range(start, start + 1000)]
                client.log_batch(long_run, metrics=points)
        match row:
            case "client":
                value = each_second(one, float(seconds))
            case "batch":
                value = each_second(thousand, float(seconds))
            case "create":
                value = each_second(create, float(seconds))
            case "history":
                value = milliseconds(partial(client.get_metric_history, long_run, "h"), HISTORY)
            case _:
                value = milliseconds(partial(client.search_runs, [experiment], max_results=PAGE), PAGE)
        print(value, flush=True)


# ----------------------------------------------------------------------------------------------------------- the table


def measure(servers: list[Server], rows: list[str], seconds: float, rounds: int) -> dict[tuple[str, str], list[float]]:
    """Every row of every server, the servers in turns."""
    found: dict[tuple[str, str], list[float]] = {}
    clients = {server.name: Client(server) for server in servers}
    experiments = {}
    if {"raw-search", "search"} & set(rows):
        experiments = {server.name: fill(server) for server in servers if server.name != "by hand"}
        _, body = page(servers[1], experiments["Bedplate"])
        Raw(servers[0].address, "").call("/fixed", body)
    for turn in range(rounds):
        for row in rows:
            for server in servers[:: 1 if turn % 2 else -1]:
                if row in ("start", "memory") or (server.name == "by hand" and row not in LIMIT_HAS):
                    continue
                if row in ("log1", "log8"):
                    before = processor_seconds(server.pids())
                    value = log_metric(server, int(row[3:]), seconds)
                    used = processor_seconds(server.pids()) - before
                    found.setdefault((f"{row} cost", server.name), []).append(used / (value * seconds))
                elif row == "raw-search":
                    value, _ = page(server, experiments[server.name])
                else:
                    value = clients[server.name].measure(row, seconds, experiments.get(server.name, "0"))
                found.setdefault((row, server.name), []).append(value)
    for client in clients.values():
        client.close()
    for server in servers:
        found["start", server.name] = server.started
        found["memory", server.name] = [megabytes(server.pids())]
    return found


def report(found: dict[tuple[str, str], list[float]], rows: list[str], servers: list[Server]) -> None:
    """The table: medians, the ratio to the limit as median and range over the rounds, and what is to be reached."""
    names = [server.name for server in servers]
    print(f"{'':44}" + "".join(f"{name:>11}" for name in names) + "  of by hand            to reach")
    for name in rows:
        row = ROWS[name]
        values = [found.get((name, server), []) for server in names]
        line = f"{row.text:44}" + "".join(f"{_number(statistics.median(v)) if v else '':>11}" for v in values)
        if row.absolute or not values[0]:
            reached = statistics.median(values[1])
            shown = ""
        else:
            ratios = [ours / hand for hand, ours in zip(values[0], values[1], strict=True)]
            reached = statistics.median(ratios)
            shown = f"{reached:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        costs = [
            statistics.median(found[f"{name} cost", server])
            for server in names[:2]
            if (f"{name} cost", server) in found
        ]
        cost = f", for {costs[1] / costs[0]:.1f} × its processor time" if len(costs) == 2 and costs[0] else ""
        met = reached >= row.reach if row.better == "more" else reached <= row.reach
        bound = f"{'at least' if row.better == 'more' else 'at most'} {row.reach:g}"
        print(f"{line}  {shown:20}  {bound}{'' if row.absolute else ' × by hand'}: {'met' if met else 'MISSED'}{cost}")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def main() -> None:
    """Run what was asked for, and print the table."""
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(int(sys.argv[2]), Path(sys.argv[3]))
        return
    if sys.argv[1:2] == ["--client"]:
        client_loop()
        return
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0],
        epilog="rows: " + "; ".join(f"{name} ({row.text})" for name, row in ROWS.items()),
    )
    parser.add_argument("--rows", default=",".join(ROWS), help="names, separated by commas; all unless given")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each measurement of a rate")
    parser.add_argument("--rounds", type=int, default=5, help="of every row")
    parser.add_argument("--peer", action="store_true", help="measure mlflow server too: minutes instead of one")
    chosen = parser.parse_args()
    rows = chosen.rows.split(",")
    if set(rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(set(rows) - set(ROWS)))}")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        starts = 3 if "start" in rows else 1
        servers = [
            stack.enter_context(limit(folder / "limit", starts)),
            stack.enter_context(bedplate(folder / "home", starts)),
        ]
        if chosen.peer:
            servers.append(stack.enter_context(mlflow_server(folder)))
        found = measure(servers, rows, chosen.seconds, chosen.rounds)
        print(f"{chosen.rounds} rounds, rates over {chosen.seconds:g} s; medians; SQLite, on disk when answered")
        report(found, rows, servers)


if __name__ == "__main__":
    main()
