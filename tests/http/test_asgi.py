"""The table behind a real server: Granian in this process, httpx and raw sockets as clients."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from granian.constants import Interfaces
from granian.server.embed import Server

from bedplate.errors import AuthenticationError
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
from bedplate.http.asgi import Application

closed: list[str] = []


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


def application() -> Application:
    thing, none = fixed("Thing", "t"), unaudited("a page without data")
    limits = Limits(body=1000, receipt=0.3)
    return Application(
        RouteTable(
            [
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
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Server(application(), port=port, interface=Interfaces.ASGI, websockets=False, log_enabled=False)
        task = asyncio.create_task(server.serve())
        for _ in range(200):
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
                break
            except OSError:
                await asyncio.sleep(0.02)
        try:
            await test(port)
        finally:
            server.stop()
            await task

    asyncio.run(main())


@contextmanager
def client(port: int) -> Iterator[httpx.AsyncClient]:
    yield httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers={"authorization": "Bearer key"})


async def raw(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    answer = await asyncio.wait_for(reader.read(65536), 5)
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


def test_a_failing_start_hook_stops_the_server() -> None:
    async def fail() -> None:
        raise RuntimeError("no database")

    async def main() -> list[str]:
        app = Application(RouteTable(), authenticate, authorise, on_start=fail)
        sent: list[str] = []

        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            sent.append(message["type"])

        with pytest.raises(RuntimeError):
            await app({"type": "lifespan"}, receive, send)
        return sent

    assert asyncio.run(main()) == ["lifespan.startup.failed"]
