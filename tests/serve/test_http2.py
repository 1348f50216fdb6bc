"""Connections of clients that break the rules, or keep them slowly: each is told, and none holds up another."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

import grpc
import pytest

from bedplate.http import turns
from bedplate.http.streams import Room
from bedplate.serve.hpack import Decoder, literal
from bedplate.serve.http2_server import Http2Server
from bedplate.serve.rpc import Rpc
from bedplate.serve.sockets import listen
from bedplate.serve.supervisor import Supervisor
from tests.serve.support import KEY, World
from tests.serve.test_grpc import CALLER, message, refused, rows, triton, unary

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING, GOAWAY, WINDOW, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    world = World(tmp_path_factory.mktemp("home"))
    with Supervisor(world.home) as supervisor:
        supervisor.start(world.spec(receipt=1.0, max_body=100_000, grpc=0))
        yield supervisor.status()[0].grpc


@pytest.fixture
def connect(address: str) -> Iterator[Callable[..., "Wire"]]:
    with contextlib.ExitStack() as open_:
        yield lambda *preface: open_.enter_context(contextlib.closing(Wire(address, *preface)))


@pytest.fixture
def wire(connect: Callable[[], "Wire"]) -> "Wire":
    return connect()


class Wire:
    """A client that sends what it is told to."""

    def __init__(self, address: str, preface: bytes = PREFACE) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=60)
        self._rest = b""
        self.headers = Decoder(8192)
        self.socket.sendall(preface)
        if preface == PREFACE:
            self.send(SETTINGS, 0, 0)

    def close(self) -> None:
        self.socket.close()

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        self.socket.sendall(frame(kind, flags, stream, payload))

    def call(self, stream: int, sent: bytes | None = None, *, path: str = "ModelInfer", **more: str) -> None:
        fields = {"content-type": "application/grpc", "te": "trailers", **CALLER, **more}
        fields = {":method": "POST", ":scheme": "http", ":path": f"/inference.GRPCInferenceService/{path}", **fields}
        block = b"".join(literal(name.encode(), value.encode()) for name, value in fields.items())
        self.send(HEADERS, 4, stream, block)
        if sent is not None:
            self.send(DATA, 1, stream, b"\0" + len(sent).to_bytes(4, "big") + sent)

    def read(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload. ConnectionError when there is none."""
        while len(self._rest) < 9 or len(self._rest) < 9 + int.from_bytes(self._rest[:3], "big"):
            data = self.socket.recv(1 << 16)
            if not data:
                raise ConnectionError
            self._rest += data
        size = 9 + int.from_bytes(self._rest[:3], "big")
        head, payload, self._rest = self._rest[:9], self._rest[9:size], self._rest[size:]
        return head[3], head[4], int.from_bytes(head[5:], "big"), payload

    def wait(self, kind: int, stream: int = 0) -> bytes:
        """The payload of the next frame of this kind on this stream."""
        while True:
            found, _, number, payload = self.read()
            if (found, number) == (kind, stream):
                return payload

    def status(self, stream: int) -> tuple[str, str]:
        """How a call ends."""
        found: dict[bytes, bytes] = {}
        while b"grpc-status" not in found:
            found = dict(self.headers.decode(self.wait(HEADERS, stream)))
        return found[b"grpc-status"].decode(), found.get(b"grpc-message", b"").decode()

    def goodbye(self) -> int:
        """The code with which the server hangs up."""
        code = struct.unpack("!II", self.wait(GOAWAY)[:8])[1]
        self.hung_up()
        return int(code)

    def hung_up(self) -> None:
        """Wait until the server has hung up."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.read()


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


HEAD = literal(b":path", b"/x")


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(HEADERS, 4, 2, HEAD), PROTOCOL),  # an even stream
        (frame(DATA, 0, 1, b"x"), PROTOCOL),  # on a stream that is not open
        (frame(DATA, 8, 1, b""), PROTOCOL),  # padding without its length
        (frame(HEADERS, 4, 1, b"\x80"), COMPRESSION),
        (frame(HEADERS, 0, 1, HEAD) + frame(PING, 0, 0, bytes(8)), PROTOCOL),  # a header block interrupted
        (frame(HEADERS, 0, 1, HEAD) + frame(CONTINUATION, 0, 1, bytes(9000)) * 2, CALM),  # one without an end
        (frame(CONTINUATION, 4, 1, HEAD), PROTOCOL),
        (frame(SETTINGS, 0, 0, b"x"), SIZE),
        (frame(SETTINGS, 0, 1, b""), PROTOCOL),
        (frame(SETTINGS, 0, 0, b"\0\4" + b"\xff" * 4), FLOW),
        (frame(PING, 0, 0, b"x"), SIZE),
        (frame(WINDOW, 0, 0, bytes(4)), PROTOCOL),
        (frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), FLOW),
        (frame(RST, 0, 1, bytes(4)), PROTOCOL),
        (frame(5, 0, 1, bytes(4)), PROTOCOL),  # a push
        (b"\xff" * 9, SIZE),
    ],
)
def test_who_breaks_a_rule_is_told_which(wire: Wire, sent: bytes, code: int) -> None:
    wire.socket.sendall(sent)
    assert wire.goodbye() == code


def test_who_speaks_something_else_is_told(connect: Callable[..., Wire]) -> None:
    assert connect(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").goodbye() == PROTOCOL


def test_who_sends_too_slowly_is_cut(connect: Callable[..., Wire]) -> None:
    silent, halting, begun = connect(PREFACE[:10]), connect(), connect()
    halting.socket.sendall(frame(HEADERS, 0, 1, HEAD))
    begun.call(1)
    begun.send(DATA, 0, 1, b"\0" + (100).to_bytes(4, "big") + b"x")
    assert begun.status(1)[0] == "4"
    for wire in (silent, halting):
        wire.hung_up()
    begun.call(3, message(1, 2, 3))  # the connection goes on
    assert begun.status(3)[0] == "0"


def test_bytes_may_come_one_by_one(wire: Wire) -> None:
    sent = message(1, 2, 3)
    wire.call(1)
    for byte in b"\0" + len(sent).to_bytes(4, "big") + sent:
        wire.send(DATA, 8, 1, b"\2" + bytes([byte]) + b"\0\0")  # each padded
    wire.send(DATA, 1, 1)
    assert wire.status(1) == ("0", "")


def test_a_message_larger_than_said_or_allowed_is_refused(wire: Wire) -> None:
    wire.call(1)
    wire.send(DATA, 0, 1, b"\0" + (100_001).to_bytes(4, "big"))
    assert wire.status(1)[0] == "8"
    wire.call(3, b"")
    assert wire.status(3)[0] == "5"  # it names no model
    wire.call(5)
    wire.send(DATA, 1, 5)
    assert wire.status(5) == ("3", "the request holds no message")


def test_who_cancels_all_the_time_is_sent_away(wire: Wire) -> None:
    for number in range(1, 500, 2):
        wire.call(number)
        wire.send(RST, 0, number, bytes(4))
    assert wire.goodbye() == CALM


def test_too_many_calls_at_a_time_are_refused_each_by_itself(wire: Wire) -> None:
    for number in range(1, 2 * 257, 2):
        wire.call(number)
    assert wire.wait(RST, 513) == REFUSED.to_bytes(4, "big")
    wire.send(DATA, 1, 1, b"\0" + len(message(1, 2, 3)).to_bytes(4, "big") + message(1, 2, 3))
    assert wire.status(1)[0] == "0"


def test_what_is_not_grpc_is_refused_as_http(wire: Wire) -> None:
    for stream, more, status in (
        (1, {"content-type": "text/html"}, b"415"),
        (3, {"grpc-timeout": "soon"}, b"400"),
    ):
        wire.call(stream, **more)
        assert wire.headers.decode(wire.wait(HEADERS, stream)) == [(b":status", status)]


def test_a_client_that_takes_little_gets_all_in_the_end(wire: Wire) -> None:
    wire.send(SETTINGS, 0, 0, b"\0\4" + (7).to_bytes(4, "big"))  # windows of seven bytes
    wire.call(1, message(*range(300)))
    got = b""
    while len(got) < 5 or len(got) < 5 + int.from_bytes(got[1:5], "big"):
        kind, _, _, payload = wire.read()
        if kind == DATA:
            assert len(payload) <= 7
            got += payload
            wire.send(WINDOW, 0, 1, len(payload).to_bytes(4, "big"))
    assert struct.pack("<300f", *range(300)) in got
    assert wire.status(1)[0] == "0"


def test_packed_messages_are_read_and_bombs_are_not(address: str) -> None:
    with triton.InferenceServerClient(address) as caller:
        for algorithm in ("gzip", "deflate"):
            answer = caller.infer("linear", [rows(1, 2, 3)], headers=CALLER, compression_algorithm=algorithm)
            assert answer.as_numpy("Y").tolist() == [[1, 2, 3]]
    with grpc.insecure_channel(address, compression=grpc.Compression.Gzip) as channel:
        code, _ = refused(lambda: unary(channel)(bytes(10_000_000), metadata=tuple(CALLER.items())))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_large_messages_go_both_ways_on_many_streams(address: str) -> None:
    with grpc.insecure_channel(address) as channel:
        calls = [
            unary(channel).future(message(*([number] * 21_000)), metadata=tuple(CALLER.items()), timeout=60)
            for number in range(40)
        ]
        for number, call in enumerate(calls):
            assert call.result().endswith(struct.pack("<f", number) * 21_000)


def test_who_takes_nothing_and_sends_on_is_reset(address: str, wire: Wire) -> None:
    """Answers that nobody takes are bounded, then requests wait, and who sends more than the window is cut."""
    wire.call(1, path="ModelStreamInfer")
    sent = message(*range(3000))
    for _ in range(300):
        wire.send(DATA, 0, 1, b"\0" + len(sent).to_bytes(4, "big") + sent)
    assert wire.wait(RST, 1) == FLOW.to_bytes(4, "big")
    wire.call(3, message(1, 2, 3))
    assert wire.wait(HEADERS, 3)


def test_the_key_is_needed_on_every_call(wire: Wire) -> None:
    wire.call(1, message(1, 2, 3), authorization="Bearer nobody")
    assert wire.status(1)[0] == "16"
    wire.call(3, message(1, 2, 3), authorization=f"Bearer {KEY}")
    assert wire.status(3)[0] == "0"


def test_calls_that_come_together_wait_for_their_turn_and_others_are_looked_at_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each is known by what it asks, and refused: all have come before the loop looks."""
    monkeypatch.setattr(turns, "_LONGEST", 1e9)  # no clock: a turn ends by what was looked at in it
    order = list[str]()

    class Refusing:
        def begin(self, rpc: Rpc) -> None:
            rpc.who = rpc.path.decode()
            order.append(rpc.who)
            rpc.finish(12)

        def cut(self, rpc: Rpc, reason: str) -> None:
            raise AssertionError(reason)

        def end(self, rpc: Rpc) -> None:
            """Nothing is counted."""

    def calls(who: str, first: int, count: int) -> bytes:
        block = literal(b":path", who.encode()) + literal(b"content-type", b"application/grpc")
        return b"".join(frame(HEADERS, 5, first + 2 * number, block) for number in range(count))

    async def run() -> None:
        loop = asyncio.get_running_loop()
        listener = listen("127.0.0.1", 0)
        server = Http2Server(Refusing(), Room(1 << 20), turns.Turns(), most=1000, receipt=60, streams=256)
        address = listener.getsockname()
        server.serve(listener)
        clients = {}
        for who in ("greedy", "modest"):
            clients[who] = client = socket.create_connection(address)
            client.setblocking(False)
            await loop.sock_sendall(client, PREFACE + frame(SETTINGS, 0, 0, b"") + calls(who, 1, 1))
            while who not in order:
                await asyncio.sleep(0)
        clients["greedy"].send(calls("greedy", 3, 120))
        clients["modest"].send(calls("modest", 3, 2))
        while len(order) < 124:
            await asyncio.sleep(0)
        for client in clients.values():
            client.close()
        await server.stop(1.0, 0.01)

    asyncio.run(run())
    assert (order.count("greedy"), order.count("modest")) == (121, 3)
    first, second = (place for place, who in enumerate(order[2:]) if who == "modest")
    assert first <= 2 * turns._MOST
    assert second - first <= 2 * turns._MOST
