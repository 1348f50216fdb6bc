"""The route table as one ASGI callable: header limits, host and origin, body limits, receipt deadline, streaming."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import lru_cache
from typing import Any

from bedplate.errors import BedplateError
from bedplate.http.deadlines import Deadline
from bedplate.http.dispatch import Authenticate, Authorise, dispatch
from bedplate.http.guards import HostGuard, OriginGuard, security_headers
from bedplate.http.messages import ProtocolError, Request, Response
from bedplate.http.routes import RouteTable
from bedplate.http.streams import Pieces

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Present = Callable[[Request, Response], Response]

MAX_HEADERS = 100
MAX_HEADER_BYTES = 16 * 1024
_ONCE = ("host", "content-length", "authorization", "origin", "content-type")
_NAMES = {
    name.encode(): name
    for name in (*_ONCE, "accept", "accept-encoding", "connection", "cookie", "user-agent", "x-mlflow-workspace")
}


class Application:
    """An ASGI 3 application over a :class:`RouteTable`.

    ``present`` sees every answer last: pages show errors as pages with it.
    """

    def __init__(
        self,
        table: RouteTable,
        authenticate: Authenticate,
        authorise: Authorise,
        *,
        hosts: HostGuard | None = None,
        present: Present | None = None,
    ) -> None:
        self._table = table
        self._authenticate = authenticate
        self._authorise = authorise
        self._hosts = hosts or HostGuard()
        self._origin = OriginGuard(self._hosts)
        self._present = present

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection event, as ASGI 3 asks."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            request = _request(scope, receive)
            self._hosts.check(request.host)
            self._origin.check(request)
        except BedplateError as error:
            refused = Response.error(error)
            refused.headers.append(("connection", "close"))
            await _send(refused, scope["method"], send, receive)
            return
        response = await dispatch(self._table, request, self._authenticate, self._authorise)
        if request.unread and not (isinstance(request.pieces, Pieces) and request.pieces.ended):
            response.headers.append(("connection", "close"))  # nobody reads what is left of the body
        if self._present is not None:
            response = self._present(request, response)
        await _send(response, request.method, send, receive)


def _request(scope: Scope, receive: Receive) -> Request:
    raw = scope["headers"]
    if len(raw) > MAX_HEADERS or sum([len(name) + len(value) for name, value in raw]) > MAX_HEADER_BYTES:
        raise ProtocolError(431, f"more than {MAX_HEADERS} headers or {MAX_HEADER_BYTES} bytes of them")
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = _NAMES.get(name) or name.decode("latin-1").lower(), value.decode("latin-1")
        if key not in headers:
            headers[key] = text
        elif key in _ONCE:
            raise ProtocolError(400, f"the header {key} is given twice")
        else:
            headers[key] += ("; " if key == "cookie" else ", ") + text
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise ProtocolError(400, "content-length is not a number")
    expected = int(length)

    async def read(most: int, seconds: float) -> bytes:
        if expected > most:
            raise ProtocolError(413, f"the body is larger than {most} bytes")
        try:
            async with Deadline(seconds):
                body = await _body(receive, most)
            request.unread = False
            return body
        except TimeoutError as error:
            raise ProtocolError(408, f"the body did not arrive within {seconds:g} s") from error

    def stream(most: int, seconds: float) -> Pieces:
        if expected > most:
            raise ProtocolError(413, f"the body is larger than {most} bytes")
        return Pieces(receive, most, seconds, expected if "content-length" in headers else None)

    client = scope.get("client")
    request = Request(
        scope["method"],
        scope["path"],
        headers=headers,
        query_string=scope.get("query_string", b"").decode("latin-1"),
        client=str(client[0]) if client else "",
        scheme=scope.get("scheme", "http"),
        read=read,
        stream=stream,
    )
    request.unread = expected > 0 or "transfer-encoding" in headers
    return request


async def _body(receive: Receive, most: int) -> bytes:
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False) and len(message["body"]) <= most:
        whole: bytes = message["body"]  # as nearly every body comes
        return whole
    pieces, size = [], 0
    while True:
        if message["type"] == "http.disconnect":
            raise ProtocolError(400, "the client left before the body was complete")
        piece = message.get("body", b"")
        size += len(piece)
        if size > most:
            raise ProtocolError(413, f"the body is larger than {most} bytes")
        pieces.append(piece)
        if not message.get("more_body", False):
            return b"".join(pieces)
        message = await receive()


async def _send(response: Response, method: str, send: Send, receive: Receive) -> None:
    # One header is that of the usual answer; more may be a cookie, which has no place in a memory.
    headers = (_lines if len(response.headers) == 1 else _lines.__wrapped__)(*response.headers)
    if response.stream is None:
        headers = [*headers, (b"content-length", b"%d" % len(response.body))]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    if response.stream is None or method == "HEAD":
        body = b"" if method == "HEAD" else response.body
        await send({"type": "http.response.body", "body": body, "more_body": False})
        await _close(response)
        return
    await _stream(response, send, receive)


@lru_cache(maxsize=256)
def _lines(*headers: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer and those that every answer has. Nearly all answers have the same few."""
    page = any(name == "content-type" and value.startswith("text/html") for name, value in headers)
    given = {name for name, _ in headers}
    lines = [*headers, *(line for line in security_headers(page=page) if line[0] not in given)]
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]


async def _stream(response: Response, send: Send, receive: Receive) -> None:
    """Send pieces until the source ends or the client leaves, and close the source either way."""
    assert response.stream is not None

    async def pump() -> None:
        assert response.stream is not None
        async for piece in response.stream:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = [asyncio.ensure_future(pump()), asyncio.ensure_future(left())]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await _close(response)
    if isinstance(results[0], Exception):
        raise results[0]


async def _close(response: Response) -> None:
    closer = getattr(response.stream, "aclose", None)
    if closer is not None:
        await closer()
