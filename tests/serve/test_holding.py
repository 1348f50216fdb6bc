"""Replicas that are killed while they answer: nobody's connection breaks, and the log has each answer once."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from bedplate.serve import calls as calls_of
from bedplate.serve.calls import Calls
from bedplate.serve.holding import Holder, Orphan
from bedplate.serve.scaling import Scale
from bedplate.serve.sockets import listen
from bedplate.serve.supervisor import Supervisor
from tests.serve.held import LARGE
from tests.serve.support import KEY, World, body, eventually, log_of
from tests.serve.test_grpc import message
from tests.serve.test_http2 import DATA, GOAWAY, HEADERS, PING, Wire

pytestmark = pytest.mark.slow

INFER = "/v2/models/linear/infer"


class Client:
    """One kept connection of the plainest kind: it never connects again and never asks twice."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=60)
        self._file = self._socket.makefile("rb")

    def send(self, values: list[float], name: str, path: str = INFER) -> None:
        text = json.dumps({**body(values), "id": name}).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {KEY}\r\n"
        self._socket.sendall(f"{head}content-length: {len(text)}\r\n\r\n".encode() + text)

    def answer(self) -> tuple[int, str, Any]:
        """Status, id of the prediction, and what the body says."""
        status = int(self._file.readline().split(b" ")[1])
        headers = {}
        while line := self._file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name] = value
        text = self._file.read(int(headers["content-length"]))
        return status, headers.get("x-prediction-id", ""), json.loads(text)

    def close(self) -> None:
        self._file.close()
        self._socket.close()


class Caller:
    """The same over gRPC, with the client that many use: all in one process share a connection."""

    def __init__(self, address: str) -> None:
        self._client = triton.InferenceServerClient(address)
        self._asked: tuple[Any, str] = None, ""

    def send(self, values: list[float], name: str) -> None:
        tensor = triton.InferInput("X", [1, 3], "FP32")
        tensor.set_data_from_numpy(np.array([values], np.float32))
        self._asked = tensor, name

    def answer(self) -> tuple[int, str, Any]:
        tensor, name = self._asked
        headers = {"authorization": f"Bearer {KEY}"}
        said = self._client.infer("linear", [tensor], request_id=name, headers=headers)
        found = said.get_response()
        outputs = [{"data": said.as_numpy("Y")[0].tolist()}]
        return 200, found.parameters["prediction_id"].string_param, {"id": found.id, "outputs": outputs}

    def close(self) -> None:
        self._client.close()


class Load:
    """Clients that ask as fast as they are answered, each value once."""

    def __init__(self, url: str, clients: int, connect: type[Client | Caller] = Client) -> None:
        self._connect = connect
        self._stop = threading.Event()
        self.answers: dict[str, str] = {}
        self.failed: list[str] = []
        self._threads = [threading.Thread(target=self._ask, args=(url, number)) for number in range(clients)]

    def _ask(self, url: str, number: int) -> None:
        client, count = self._connect(url), 0
        try:
            while not self._stop.is_set():
                count += 1
                name, value = f"{number}-{count}", float(count * 8 + number)
                client.send([value, 0.0, 1.0], name)
                status, prediction, said = client.answer()
                if (status, said["id"], said["outputs"][0]["data"]) == (200, name, [value, 0.0, 1.0]):
                    self.answers[name] = prediction
                else:
                    self.failed.append(f"{name}: {status} {said}")
        except (OSError, ValueError, IndexError, KeyError, InferenceServerException) as error:
            self.failed.append(f"{number}-{count}: {error!r}")
        finally:
            client.close()

    def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        until = len(self.answers) + count
        eventually(lambda: len(self.answers) >= until or self.failed)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    return World(tmp_path)


@pytest.mark.parametrize(
    ("mode", "scale", "connect"),
    [
        pytest.param("buffered", Scale(), Client, marks=pytest.mark.long),
        ("durable", Scale(min=2, max=2), Client),
        ("buffered", Scale(min=2, max=2), Caller),
        pytest.param("durable", Scale(), Caller, marks=pytest.mark.long),
    ],
)
def test_replicas_are_killed_under_load_and_every_request_is_answered_once(
    world: World, mode: Any, scale: Scale, connect: type[Client | Caller]
) -> None:
    with Supervisor(world.home) as supervisor:
        url = supervisor.start(world.spec(mode=mode, scale=scale, batching=False, grpc=0))
        address = url if connect is Client else supervisor.status()[0].grpc
        with Load(address, 6, connect) as load:
            for _ in range(3):
                load.more(100)
                victim = supervisor.status()[0].pids[0]
                os.kill(victim, signal.SIGKILL)
                eventually(lambda gone=victim: gone not in supervisor.status()[0].pids)
                eventually(lambda: supervisor.status()[0].ready == scale.min)
            load.more(100)
            assert supervisor.status()[0].restarts == 3
    assert load.failed == []
    logged = [(record["request_id"], record["id"]) for record in log_of(world)]
    assert sorted(logged) == sorted(load.answers.items())


def test_of_a_killed_replica_all_calls_are_asked_again_but_those_answered_in_part(world: World) -> None:
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(grpc=0))
        wire = Wire(supervisor.status()[0].grpc)
        sent = message(1, 2, 3, id="stream")
        wire.call(1, path="ModelStreamInfer")
        wire.send(DATA, 0, 1, b"\0" + len(sent).to_bytes(4, "big") + sent)
        wire.wait(DATA, 1)
        wire.call(3)  # its message is still to come
        wire.call(5, message(1, 2, 3, id="whole"))
        assert wire.status(5)[0] == "0"

        os.kill(supervisor.status()[0].pids[0], signal.SIGKILL)
        eventually(lambda: supervisor.status()[0].restarts == 1)
        for _ in range(2):  # it sends before it reads what was said to it: a reset would lose that
            wire.send(PING, 0, 0, bytes(8))

        ended = []
        with contextlib.suppress(ConnectionError):
            while True:
                kind, _, number, payload = wire.read()
                if kind == HEADERS:
                    ended.append((number, dict(wire.headers.decode(payload))[b"grpc-status"]))
                elif kind == GOAWAY:
                    ended.append((number, payload))
        wire.close()
    assert ended == [(1, b"14"), (0, bytes(8))]
    assert sorted(record["request_id"] for record in log_of(world)) == ["stream", "whole"]


def test_a_client_that_a_killed_replica_had_not_greeted_comes_again_at_once() -> None:
    """It would wait for a second, had its connection failed: that state is what a server gets that is down."""
    seen = list[grpc.ChannelConnectivity]()
    accepted = list[socket.socket]()
    with listen("127.0.0.1", 0) as listener, contextlib.ExitStack() as open_:
        listener.setblocking(True)
        listener.settimeout(60)
        calls = Calls(1, lambda number, descriptor: None, lambda number: None)
        channel = open_.enter_context(grpc.insecure_channel(f"127.0.0.1:{listener.getsockname()[1]}"))
        channel.subscribe(seen.append, True)
        asked = channel.unary_unary("/x/y").future(b"", timeout=60, wait_for_ready=True)
        for _ in range(2):
            connection, _ = listener.accept()
            accepted.append(open_.enter_context(connection))
            if len(accepted) == 1:
                assert calls.take(connection.fileno()) is not None
                assert calls_of.end(calls.descriptor, 0, connection.fileno()) == []
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in seen
        asked.cancel()


class Chain:
    """Processes that answer on one socket, one after the other, each killed before the next one begins."""

    def __init__(self, folder: Path, loop: str, first: str = "hangs") -> None:
        self._folder, self._loop = folder, loop
        self._listener = listen("127.0.0.1", 0)
        self.address: tuple[str, int] = self._listener.getsockname()
        self._orphans: list[Orphan] = []
        self._start(first)

    def _start(self, first: str = "") -> None:
        self._holder = Holder()
        inherited = (self._holder.theirs.fileno(), self._listener.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.serve.held", *map(str, inherited)],
            pass_fds=inherited,
            stdout=subprocess.PIPE,
            env={**os.environ, "FIRST": first, "LOOP": self._loop},
        )
        self._holder.theirs.close()
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"ready\n"
        self._orphans = self._holder.give(self._orphans)
        assert self._orphans == []

    def next(self) -> None:
        """Kill the process, if it lives, and let another one go on."""
        self._kill()
        self._start()

    def _kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._orphans = self._holder.end(self._folder)

    def talk(self, *sent: bytes) -> tuple[socket.socket, Any]:
        """A connection on which that was sent, and what is read from it."""
        connection = socket.create_connection(self.address, timeout=60)
        for data in sent:
            connection.sendall(data)
        return connection, connection.makefile("rb")

    def close(self) -> None:
        self._kill()
        self._orphans = []
        self._listener.close()


def post(path: str, text: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text


def read(file: Any) -> tuple[int, bytes]:
    """Status and body of an answer with a length."""
    status, length = int(file.readline().split(b" ")[1]), 0
    while line := file.readline().strip():
        if line.startswith(b"content-length"):
            length = int(line.split(b": ")[1])
    return status, file.read(length)


@pytest.fixture(params=["uvloop", "asyncio"])
def chain(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Chain]:
    made = Chain(tmp_path, request.param)
    yield made
    made.close()


def test_another_process_goes_on_with_every_connection_to_the_byte(chain: Chain) -> None:
    idle, idle_file = chain.talk(post("/before"))
    assert read(idle_file) == (200, b"/before ")
    streamed, streamed_file = chain.talk(post("/stream"))
    assert streamed_file.readline().startswith(b"HTTP/1.1 200")
    while streamed_file.readline() != b"0\r\n":
        pass
    streamed_file.readline()
    half, half_file = chain.talk(post("/half", b"0123456789")[:-4])
    queued, queued_file = chain.talk(post("/hang", b"1") + post("/second", b"2") + post("/third")[:20])
    large, large_file = chain.talk(post("/large"))
    assert large_file.readline() == b"HTTP/1.1 200 OK\r\n"  # some was sent, the rest was not
    too_large, too_large_file = chain.talk(post("/too-large"))
    assert too_large_file.readline() == b"HTTP/1.1 200 OK\r\n"
    broken, broken_file = chain.talk(post("/stream?hang"))
    assert broken_file.readline() == b"HTTP/1.1 200 OK\r\n"

    chain.next()

    idle.sendall(post("/after"))
    assert read(idle_file) == (200, b"/after ")
    streamed.sendall(post("/after"))
    assert read(streamed_file) == (200, b"/after ")
    half.sendall(b"6789")
    assert read(half_file) == (200, b"/half 0123456789")
    queued.sendall(post("/third")[20:])
    assert [read(queued_file) for _ in range(3)] == [(200, b"/hang 1"), (200, b"/second 2"), (200, b"/third ")]
    while large_file.readline() != b"\r\n":
        pass
    assert large_file.read(LARGE) == bytes(range(256)) * (LARGE >> 8)
    chain.next()
    large.sendall(post("/again"))
    assert read(large_file) == (200, b"/again ")
    for connection, file in ((too_large, too_large_file), (broken, broken_file)):
        with pytest.raises(ConnectionResetError):  # what cannot be continued breaks off, and is not begun again
            file.read()
        connection.close()
    for connection in (idle, streamed, half, queued, large):
        connection.close()


def test_a_connection_that_was_just_taken_is_held_already(tmp_path: Path) -> None:
    with contextlib.closing(Chain(tmp_path, "uvloop", first="dies")) as chain:
        connection, file = chain.talk(post("/new"))
        chain.process.wait(60)
        chain.next()
        with connection, file:
            assert read(file) == (200, b"/new ")


def test_what_ends_every_process_is_refused_in_the_end(chain: Chain) -> None:
    connection, file = chain.talk(post("/kill"))
    with connection, file:
        for _ in range(3):
            chain.process.wait(20)
            chain.next()
        status, said = read(file)
        assert (status, b"3 processes ended" in said) == (500, True)
        assert file.read() == b""


def test_a_connection_that_ends_is_ended_for_its_client_and_forgotten(chain: Chain) -> None:
    connection, file = chain.talk(post("/bye").replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n"))
    with connection, file:
        assert read(file) == (200, b"/bye ")
        assert file.read() == b""
    gone, _ = chain.talk(post("/hang"))
    gone.close()
    chain.next()
    with contextlib.closing(chain.talk(post("/new"))[0]) as fresh:
        assert read(fresh.makefile("rb")) == (200, b"/new ")
