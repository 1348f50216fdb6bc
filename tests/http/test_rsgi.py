"""The table behind the real server, with httpx and raw sockets as clients."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from bedplate.errors import AuthenticationError, ConflictError, IntegrityError
from bedplate.http import (
    CHANGE,
    READ,
    Limits,
    Request,
    ResourceRef,
    Response,
    Route,
    RouteTable,
    fixed,
    unaudited,
)
from bedplate.http.rsgi import Application
from bedplate.http.server import Server
from bedplate.serve.sockets import listen

closed: list[str] = []
received: list[int] = []
sent: list[int] = []
MEBIBYTES = 32


def authenticate(request: Request) -> str:
    if request.bearer != "key":
        raise AuthenticationError("no key")
    return "ana"


def authorise(principal: object, action: str, resource: ResourceRef, request: Request) -> str:
    return "allow"


def echo(request: Request) -> Response:
    return Response.json(request.json(dict))


async def ticks(request: Request) -> Response:
    async def source() -> AsyncIterator[bytes]:
        try:
            for number in range(1000):
                yield f"{number}\n".encode()
                if number >= 2:
                    await asyncio.sleep(0.02)
        finally:
            closed.append("ticks")

    return Response(headers=[("content-type", "text/event-stream")], stream=source())


async def page(request: Request) -> Response:
    return Response.html("<p>hi</p>")


async def count(request: Request) -> Response:
    sizes = [len(piece) async for piece in request.pieces]
    received.append(sum(sizes))
    return Response.json({"size": sum(sizes), "pieces": len(sizes)})


async def ignore(request: Request) -> Response:
    raise ConflictError("not now")


async def file(request: Request) -> Response:
    async def source() -> AsyncIterator[bytes]:
        try:
            for number in range(MEBIBYTES):
                if number == MEBIBYTES - 1 and request.params["path"] == "damaged":
                    raise IntegrityError("the last piece is not what it should be")
                sent.append(number)
                yield b"x" * (1 << 20)
        finally:
            closed.append("file")

    return Response(headers=[("content-length", str(MEBIBYTES << 20))], stream=source())


def application() -> Application:
    thing, none = fixed("Thing", "t"), unaudited("a page without data")
    limits = Limits(body=1000, receipt=0.3)
    streamed = Limits(body=3 << 20, receipt=0.3, stream=True)
    return Application(
        RouteTable(
            [
                Route("PUT", "/count/{path:path}", "count", thing, CHANGE, streamed, count),
                Route("PUT", "/ignore", "ignore", thing, CHANGE, streamed, ignore),
                Route("GET", "/file/{path:path}", "file", thing, READ, limits, file),
                Route("POST", "/echo", "echo", thing, CHANGE, limits, echo),
                Route("GET", "/ticks", "ticks", thing, READ, limits, ticks),
                Route("GET", "/", "page", thing, none, limits, page, public=True),
            ]
        ),
        authenticate,
        authorise,
    )


def serve(test: Callable[[int], Awaitable[None]]) -> None:
    """Run ``test`` against a server on a free port."""

    async def main() -> None:
        with listen("127.0.0.1", 0) as listener:
            server = Server(application().__rsgi__, listener.fileno())
            await server.start()
            try:
                await test(listener.getsockname()[1])
            finally:
                await server.close(1.0)

    asyncio.run(main())


@contextmanager
def client(port: int) -> Iterator[httpx.AsyncClient]:
    yield httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer key"})


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(65536), 60)
    writer.close()
    return answer


def test_requests_are_served_and_everything_else_is_refused() -> None:
    async def test(port: int) -> None:
        with client(port) as http:
            async with http:
                ok = await http.post("/echo", json={"a": 1})
                assert (ok.status_code, ok.json(), ok.headers["x-content-type-options"]) == (200, {"a": 1}, "nosniff")
                statuses = {
                    "no key": (await http.post("/echo", json={}, headers={"authorization": "x"})).status_code,
                    "missing": (await http.get("/nothing")).status_code,
                    "method": (await http.get("/echo")).status_code,
                    "large": (await http.post("/echo", content=b" " * 2000)).status_code,
                    "host": (await http.get("/", headers={"host": "evil.example"})).status_code,
                    "origin": (await http.post("/echo", headers={"origin": "http://evil.example"})).status_code,
                    "headers": (await http.get("/", headers={"x-large": "a" * 20_000})).status_code,
                    "not json": (await http.post("/echo", content=b"{")).status_code,
                }
                assert statuses == {
                    "no key": 401,
                    "missing": 404,
                    "method": 405,
                    "large": 413,
                    "host": 421,
                    "origin": 403,
                    "headers": 431,
                    "not json": 400,
                }
                html = await http.get("/")
                assert "default-src 'none'" in html.headers["content-security-policy"]
                head = await http.head("/")
                assert (head.status_code, head.content) == (200, b"")

    serve(test)


@pytest.mark.parametrize("path", ["//", "/echo/", "/%2e%2e/echo", "/echo%2f", "/%252e", "/echo%00", "/..;/echo"])
def test_odd_paths_are_nothing(path: str) -> None:
    async def test(port: int) -> None:
        request = f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        assert b" 404 " in (await raw(port, request.encode())).split(b"\r\n")[0]

    serve(test)


def test_chunked_bodies_are_limited_and_slow_ones_are_cut() -> None:
    async def test(port: int) -> None:
        start = b"POST /echo HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n"
        chunks = b"transfer-encoding: chunked\r\n\r\n" + (b"400\r\n" + b" " * 1024 + b"\r\n") * 4
        assert b"413" in (await raw(port, start + chunks)).split(b"\r\n")[0]
        slow = await raw(port, start + b"content-length: 100\r\n\r\n{")
        assert b"408" in slow.split(b"\r\n")[0]

    serve(test)


def test_streams_arrive_in_pieces_and_are_closed_when_the_client_leaves() -> None:
    async def test(port: int) -> None:
        closed.clear()
        with client(port) as http:
            async with http, http.stream("GET", "/ticks") as stream:
                first: Any = await anext(stream.aiter_lines())
                assert first == "0"
        for _ in range(100):
            if closed:
                break
            await asyncio.sleep(0.02)
        assert closed == ["ticks"]

    serve(test)


def test_errors_carry_the_one_json_form() -> None:
    async def test(port: int) -> None:
        answer = await raw(port, b"GET /nothing HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        body = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert set(body) == {"error", "message", "where", "fix"}

    serve(test)


def test_a_streamed_body_reaches_its_handler_in_pieces() -> None:
    async def test(port: int) -> None:
        with client(port) as http:
            async with http:
                whole = await http.put("/count/a/b", content=b"x" * (2 << 20))
                empty = await http.put("/count/a", content=b"")

                async def chunks() -> AsyncIterator[bytes]:
                    for _ in range(5):
                        yield b"y" * 100_000

                chunked = await http.put("/count/a", content=chunks())
        assert whole.json()["size"] == 2 << 20
        assert 1 < whole.json()["pieces"] <= 8
        assert (empty.json(), chunked.json()["size"]) == ({"size": 0, "pieces": 0}, 500_000)

    serve(test)


def test_a_streamed_body_is_limited_in_size_and_time() -> None:
    async def test(port: int) -> None:
        received.clear()
        start = b"PUT /count/a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n"
        declared = await raw(port, start + b"content-length: 4000000\r\n\r\n")
        chunks = b"transfer-encoding: chunked\r\n\r\n" + (b"100000\r\n" + b" " * (1 << 20) + b"\r\n") * 4
        undeclared = await raw(port, start + chunks)
        slow = await raw(port, start + b"content-length: 100\r\n\r\n{")
        assert [answer.split(b"\r\n")[0].split()[1] for answer in (declared, undeclared, slow)] == [
            b"413",
            b"413",
            b"408",
        ]
        assert all(b"connection: close" in answer for answer in (declared, undeclared, slow))
        assert received == []

    serve(test)


@pytest.mark.parametrize(
    "framing", [b"content-length: 100\r\n\r\nhalf", b"transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
)
def test_half_a_body_never_counts_as_one(framing: bytes) -> None:
    async def test(port: int) -> None:
        received.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT /count/a HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n" + framing)
        await writer.drain()
        writer.write_eof()
        await asyncio.sleep(0.1)
        writer.close()
        await asyncio.sleep(0.5)
        assert received == []

    serve(test)


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    async def test(port: int) -> None:
        with client(port) as http:
            async with http:
                late = await http.put("/ignore", content=b"x" * (2 << 20))
                denied = await http.put("/ignore", content=b"x" * (2 << 20), headers={"authorization": "x"})
        assert (late.status_code, late.headers["connection"]) == (409, "close")
        assert (denied.status_code, denied.headers["connection"]) == (401, "close")

    serve(test)


def test_a_connection_ends_only_where_a_body_was_left_unread() -> None:
    async def test(port: int) -> None:
        with client(port) as http:
            async with http:
                read = await http.post("/echo", json={"a": 1})
                none = await http.get("/echo")
                left = await http.post("/nothing", json={"a": 1})
                stranger = await http.post("/echo", json={}, headers={"host": "evil.example"})
        kept = ["connection" in answer.headers for answer in (read, none, left, stranger)]
        assert kept == [False, False, True, True]

    serve(test)


def test_what_fails_on_the_way_never_looks_complete() -> None:
    async def test(port: int) -> None:
        with client(port) as http:
            async with http:
                whole = await http.get("/file/whole")
                with pytest.raises(httpx.RemoteProtocolError):
                    await http.get("/file/damaged")
                head = await http.head("/file/whole")
        assert len(whole.content) == MEBIBYTES << 20
        assert (head.content, head.headers["content-length"]) == (b"", str(MEBIBYTES << 20))

    serve(test)


def test_a_slow_reader_holds_the_source_back() -> None:
    async def test(port: int) -> None:
        sent.clear()
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(b"GET /file/whole HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer key\r\n\r\n")
        await writer.drain()
        await reader.readline()
        await asyncio.sleep(0.5)
        held = list(sent)
        writer.close()
        assert len(held) < MEBIBYTES // 2

    serve(test)
