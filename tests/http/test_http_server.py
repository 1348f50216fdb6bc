"""The server of replicas on real connections: bodies and answers in every form, and clients that misbehave."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest

from bedplate.http import turns
from bedplate.http.server import Connection, Server
from bedplate.serve.sockets import listen

HEAD = b"POST /echo HTTP/1.1\r\nhost: a\r\n"


async def app(scope: Any, protocol: Any) -> None:
    """Answers by path."""
    text = [("content-type", "text/plain")]
    if scope.path == "/echo":
        protocol.response_bytes(200, text, await protocol())
    elif scope.path == "/pieces":
        protocol.response_bytes(200, text, b"|".join([piece async for piece in protocol]))
    elif scope.path == "/stream":
        stream = protocol.response_stream(200, text)
        for piece in (b"one", b"", b"two"):
            await stream.send_bytes(piece)
    elif scope.path == "/flood":
        stream = protocol.response_stream(200, text)
        for _ in range(400):
            await stream.send_bytes(b"x" * 65536)
    elif scope.path == "/unread":
        protocol.response_bytes(403, text, b"no")
    elif scope.path == "/nothing":
        protocol.response_empty(200, [("content-length", "7")])
    elif scope.path == "/fails":
        raise ValueError("a handler that nobody foresaw")


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Server, Any]]:
    with listen("127.0.0.1", 0) as listener:
        server = Server(app, listener.fileno(), **options)
        await server.start()
        try:
            yield server, listener.getsockname()
        finally:
            await server.close(1.0)


def run(talk: Callable[[Server, Any], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        async with serving(**options) as (server, address):
            return await asyncio.wait_for(talk(server, address), 20)

    return asyncio.run(main())


def raw(*sent: bytes, eof: bool = False, **options: Any) -> bytes:
    """All that the server sends back to these bytes, sent one after the other, until it closes."""

    async def talk(server: Server, address: Any) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        for data in sent:
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0.02)
        if eof:
            writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer

    found: bytes = run(talk, **options)
    return found


def test_a_real_client_gets_answers_of_every_kind_over_one_connection() -> None:
    async def talk(server: Server, address: Any) -> None:
        async with httpx.AsyncClient(base_url=f"http://{address[0]}:{address[1]}") as http:
            body = bytes(range(256)) * 4096
            assert (await http.post("/echo", content=body)).content == body
            assert (await http.post("/echo", content=b"")).content == b""

            async def pieces() -> AsyncIterator[bytes]:
                for piece in (b"ab", b"c"):
                    yield piece

            assert (await http.post("/pieces", content=pieces())).content.replace(b"|", b"") == b"abc"
            assert (await http.get("/stream")).content == b"onetwo"
            assert len((await http.get("/flood")).content) == 400 * 65536
            assert (await http.head("/nothing")).headers["content-length"] == "7"
            refused = await http.post("/unread", content=b"small")
            assert (refused.status_code, refused.headers.get("connection")) == (403, None)
            assert (await http.post("/echo", content=b"next")).content == b"next"
            assert len(server.connections) == 1

    run(talk)


def test_requests_sent_together_are_answered_in_order() -> None:
    one = HEAD + b"content-length: 1\r\n\r\n"
    answer = raw(one + b"1" + one + b"2" + HEAD + b"connection: close\r\ncontent-length: 1\r\n\r\n3")

    assert [part.rpartition(b"\r\n\r\n")[2][:1] for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == [b"1", b"2", b"3"]


def at_once(scope: Any, protocol: Any) -> bool:
    """Answers /now with the body and fails on /broken; leaves the rest to the application."""
    if scope.path == "/broken":
        raise ValueError("a handler that nobody foresaw")
    if scope.path != "/now":
        return False
    protocol.response_bytes(200, [("content-type", "text/plain")], b"now " + protocol.here())
    return True


def test_what_needs_no_task_is_answered_in_order_with_what_does() -> None:
    """Far more of them than calls fit into each other."""
    now = b"POST /now HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\n"
    sent = b"".join([(now + b"%d" % (n % 10)) if n % 3 else HEAD + b"content-length: 1\r\n\r\nx" for n in range(3000)])
    last = b"POST /now HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nend"

    answers = raw(sent + last, at_once=at_once).split(b"HTTP/1.1 200 OK")[1:]

    bodies = [answer.rpartition(b"\r\n\r\n")[2] for answer in answers]
    assert bodies == [(b"now %d" % (n % 10)) if n % 3 else b"x" for n in range(3000)] + [b"now end"]


def test_a_body_that_is_not_here_is_left_to_the_application() -> None:
    """The application echoes it, which the other way would not."""
    answer = raw(
        b"POST /echo HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 4\r\n\r\nhe", b"re", at_once=at_once
    )

    assert answer.endswith(b"\r\n\r\nhere")


def test_what_fails_at_once_ends_its_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    answer = raw(b"POST /broken HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n", at_once=at_once)

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert "was not finished" in caplog.text


def test_answers_that_are_sent_together_are_whole_in_order_and_before_the_end_of_their_connections() -> None:
    """One connection ends with its answer, one is refused what follows in the same turn, and one goes on."""
    waiting = list[Any]()

    def later(scope: Any, protocol: Any) -> bool:
        waiting.append(protocol)
        return True

    async def talk(server: Server, address: Any) -> list[bytes]:
        ends = [await asyncio.open_connection(*address) for _ in range(3)]
        one = b"POST /now HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n%b\r\n%d"
        for number, ((_, writer), more) in enumerate(zip(ends, (b"connection: close\r\n", b"", b""), strict=True)):
            writer.write(one % (more, number) + (b"nonsense\r\n\r\n" if number == 1 else b""))
            while len(waiting) <= number:
                await asyncio.sleep(0.001)
        with server.together:
            for protocol in waiting:
                protocol.response_bytes(200, [], protocol.here())
        waiting.clear()
        ends[2][1].write(one % (b"connection: close\r\n", 7))
        while not waiting:
            await asyncio.sleep(0.001)
        with server.together:
            waiting[0].response_bytes(200, [], waiting[0].here())
        found = [await reader.read() for reader, _ in ends]
        for _, writer in ends:
            writer.close()
        return found

    first, second, third = run(talk, at_once=later)
    assert first.startswith(b"HTTP/1.1 200 ")
    assert first.endswith(b"\r\n\r\n0")
    assert second.startswith(b"HTTP/1.1 200 ")
    assert second.count(b"HTTP/1.1 ") == 2
    assert b"\r\n\r\n1HTTP/1.1 400 " in second
    assert third.count(b"HTTP/1.1 200 ") == 2
    assert third.endswith(b"\r\n\r\n7")


def test_nothing_is_sent_before_all_that_is_sent_together_was_made() -> None:
    waiting = list[Any]()

    def later(scope: Any, protocol: Any) -> bool:
        waiting.append(protocol)
        return True

    async def talk(server: Server, address: Any) -> list[bool]:
        found = []
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(socket.create_connection(address)) for _ in range(2)]
            for client in clients:
                client.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                client.setblocking(False)
            while len(waiting) < 2:
                await asyncio.sleep(0.001)
            with server.together:
                for protocol in waiting:
                    protocol.response_bytes(200, [], b"")
                found += [_has_come(client) for client in clients]
            found += [_has_come(client) for client in clients]
        return found

    assert run(talk, at_once=later) == [False, False, True, True]


def _has_come(client: socket.socket) -> bool:
    with contextlib.suppress(BlockingIOError):
        return bool(client.recv(1 << 16))
    return False


def test_a_head_and_a_body_may_come_byte_by_byte() -> None:
    async def talk(server: Server, address: Any) -> bytes:
        reader, writer = await asyncio.open_connection(*address)
        for byte in HEAD + b"connection: close\r\ncontent-length: 3\r\n\r\nabc":
            writer.write(bytes([byte]))
            await asyncio.sleep(0)
        answer = await reader.read()
        writer.close()
        return answer

    assert run(talk).endswith(b"\r\n\r\nabc")


def test_a_client_that_asks_first_is_told_to_send() -> None:
    async def talk(server: Server, address: Any) -> list[bytes]:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(HEAD + b"expect: 100-continue\r\nconnection: close\r\ncontent-length: 2\r\n\r\n")
        first = await reader.readuntil(b"\r\n\r\n")
        writer.write(b"ok")
        rest = await reader.read()
        writer.close()
        return [first, rest]

    first, rest = run(talk)
    assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert rest.endswith(b"ok")


def test_an_old_client_gets_its_answer_and_the_end() -> None:
    assert raw(b"GET /stream HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\nonetwo")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (HEAD + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", b"400"),
        (HEAD + b"transfer-encoding: gzip\r\n\r\n", b"501"),
        (HEAD + b"x: " + b"a" * 100_000, b"431"),
        (HEAD + b"x: " + b"a" * 100_000 + b"\r\n\r\n", b"431"),
        (b"GET /fails HTTP/1.1\r\nhost: a\r\n\r\n", b"500"),
        (b"GET /says-nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", b"500"),
        (b"POST /unread HTTP/1.1\r\nhost: a\r\ncontent-length: 9999999\r\n\r\n" + b"x" * 300_000, b"403"),
    ],
)
def test_what_cannot_be_answered_gets_its_status_and_the_end(
    sent: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.CRITICAL):
        answer = raw(sent)

    assert answer.split(b" ")[1] == status
    assert b"connection: close\r\n" in answer


def test_a_chunk_that_has_not_the_form_is_an_error_of_the_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL):
        assert b" 500 " in raw(HEAD.replace(b"echo", b"pieces") + b"transfer-encoding: chunked\r\n\r\nzz\r\n")


def test_a_head_that_does_not_come_is_cut() -> None:
    assert b" 408 " in raw(HEAD, header_seconds=0.1)


def test_a_connection_too_many_is_told_to_come_again() -> None:
    async def talk(server: Server, address: Any) -> bytes:
        _, first = await asyncio.open_connection(*address)
        reader, second = await asyncio.open_connection(*address)
        answer = await reader.read()
        for writer in (first, second):
            writer.close()
        return answer

    answer = run(talk, most=1)
    assert b" 503 " in answer
    assert b"retry-after: 1\r\n" in answer


def test_a_client_that_reads_nothing_does_not_fill_the_memory() -> None:
    async def talk(server: Server, address: Any) -> int:
        _, writer = await asyncio.open_connection(*address, limit=1024)
        writer.write(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n")
        await asyncio.sleep(0.3)
        (connection,) = server.connections
        waiting = connection.transport.get_write_buffer_size()
        writer.transport.abort()
        return waiting

    assert run(talk) < 1 << 20


def test_a_client_that_sends_what_nobody_reads_has_to_wait() -> None:
    async def talk(server: Server, address: Any) -> int:
        _, writer = await asyncio.open_connection(*address)
        one = b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n"
        writer.write(one + b"x" * (8 << 20))
        await asyncio.sleep(0.3)
        (connection,) = server.connections
        held = len(connection.buffer)
        writer.transport.abort()
        return held

    assert run(talk) < 2 << 20


def test_a_burst_of_one_waits_while_others_are_answered_whatever_its_clients_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who asks is what the path says. All have come before the loop looks: the order is that of the server."""
    monkeypatch.setattr(turns, "_LONGEST", 1e9)  # no clock: a turn ends by what was answered in it
    order = list[str]()

    def note(scope: Any, protocol: Any) -> bool:
        order.append(scope.path)
        protocol.response_bytes(200, [("content-type", "text/plain")], protocol.here() or b"")
        return True

    def request(who: str) -> bytes:
        return f"POST /{who} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\nok".encode()

    async def answers(connection: socket.socket, count: int) -> bytes:
        loop, found = asyncio.get_running_loop(), b""
        while found.count(b"\r\n\r\nok") < count:
            data = await loop.sock_recv(connection, 4096)
            assert data, found
            found += data
        return found

    async def talk(server: Server, address: Any) -> None:
        loop = asyncio.get_running_loop()
        asking = dict[int, socket.socket]()
        for number in range(82):
            asking[number] = connection = socket.create_connection(address)
            connection.setblocking(False)
            await loop.sock_sendall(connection, request("modest" if number == 81 else "greedy"))
            await answers(connection, 1)
        order.clear()
        for number, connection in asking.items():
            connection.send(request("modest" if number == 81 else "greedy") * (3 if number == 79 else 1))
        asking[77].shutdown(socket.SHUT_WR)  # it is answered all the same
        asking.pop(78).close()
        asking[76].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        asking.pop(76).close()  # by a reset
        for number, connection in asking.items():
            await answers(connection, 3 if number == 79 else 1)
        for number in range(50):
            asking[number].send(request("greedy"))
        while order.count("/greedy") < 90:
            await asyncio.sleep(0)
        await server.close(20.0)  # those that wait are answered before
        for number, connection in asking.items():
            await answers(connection, 1 if number < 50 else 0)
            connection.close()

    run(talk, at_once=note, who=lambda head: head.path)
    assert order.index("/modest") <= 2 * turns._MOST
    assert 130 <= order.count("/greedy") <= 133


def test_bodies_that_come_together_are_received_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of whoever was refused as well: between two turns of the loop others are answered."""
    turn, moments = 0, list[int]()
    unpause = Connection.unpause

    def noted(connection: Connection) -> None:
        moments.append(turn)
        unpause(connection)

    monkeypatch.setattr(Connection, "unpause", noted)

    async def talk(server: Server, address: Any) -> list[bytes]:
        async def count() -> None:
            nonlocal turn
            while True:
                await asyncio.sleep(0)
                turn += 1

        async def ask(number: int) -> bytes:
            reader, writer = await asyncio.open_connection(*address)
            path = b"/unread" if number % 2 else b"/echo"
            writer.write(b"POST %b HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n" % path)
            for _ in range(8):
                writer.write(b"x" * 50_000)
            answer = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(int(answer.partition(b"content-length: ")[2].partition(b"\r")[0]))
            writer.close()
            return body

        counting = asyncio.create_task(count())
        found = await asyncio.gather(*(ask(number) for number in range(20)))
        counting.cancel()
        return found

    assert run(talk) == [b"x" * 400_000, b"no"] * 10
    assert len(moments) > 10
    assert max(Counter(moments).values()) <= 4  # two turns of the loop may lie between two of who counts them


def test_closing_ends_idle_connections_and_finishes_answers() -> None:
    async def main() -> tuple[bytes, bytes]:
        async with serving() as (server, address):
            idle, _writer = await asyncio.open_connection(*address)
            busy, asking = await asyncio.open_connection(*address)
            asking.write(HEAD + b"content-length: 2\r\n\r\n")
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(server.close(5.0))
            await asyncio.sleep(0.05)
            asking.write(b"ok")
            answers = await idle.read(), await busy.read()
            await closing
            _writer.close()
            asking.close()
        return answers

    nothing, answer = asyncio.run(main())
    assert nothing == b""
    assert answer.endswith(b"ok")
    assert b"connection: close" in answer


def test_connections_that_came_before_the_server_are_answered() -> None:
    async def main() -> bytes:
        with listen("127.0.0.1", 0) as listener:
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(b"GET /stream HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            server = Server(app, listener.fileno())
            await server.start()
            answer = await asyncio.wait_for(reader.read(), 60)
            writer.close()
            await server.close(1.0)
        return answer

    assert asyncio.run(main()).endswith(b"onetwo")
