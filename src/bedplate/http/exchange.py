"""One request on a connection and its answer: what RSGI calls the protocol."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from bedplate.http import places, wire
from bedplate.http.wire import Chunks, Head, Headers

if TYPE_CHECKING:
    from bedplate.http.server import Connection

AtOnce = Callable[[Head, "Exchange"], bool]
"""Answers a request that has arrived whole, in this turn of the loop; False leaves it to the application."""

CLOSE = ("connection", "close")
_log = logging.getLogger(__name__)


class Exchange:
    """One request and its answer: what RSGI calls the protocol.

    ``await exchange()`` is the whole body and ``async for`` its pieces, with an empty one at the end and two where the
    connection ended before it. What is sent in pieces goes at the client's speed.
    """

    __slots__ = (
        "_arrived", "_chunks", "_connection", "_head", "_left", "_stream", "answered", "came", "last", "later",
        "received",
    )  # fmt: skip

    def __init__(self, connection: "Connection", head: Head, came: float) -> None:
        self._connection = connection
        self.came = came
        """``perf_counter()`` when it came; it may have waited for its turn since."""
        self._head = head
        self._left = head.length
        self._chunks = Chunks() if head.length is None else None
        self._arrived: asyncio.Future[None] | None = None
        self.answered = self.last = False
        self.later = False
        """Whether nobody waits for the answer: the connection goes on when it is given."""
        self._stream: _Stream | None = None
        self.received = head.length == 0

    @property
    def arrived(self) -> bool:
        """Whether the whole body is here."""
        return self._left is not None and len(self._connection.buffer) >= self._left

    def try_at_once(self, answer: AtOnce) -> bool:
        """Whether ``answer`` did, or will; what it fails with is its answer."""
        try:
            return answer(self._head, self)
        except Exception:  # noqa: BLE001  as below
            self._failed()
            return True

    async def run(self) -> None:
        """Have the application answer."""
        connection = self._connection
        if connection.place is not None:
            places.answering(connection.place)
        try:
            await connection.server.app(self._head, self)
            if self._stream is not None:
                self._stream.end()
        except Exception:  # noqa: BLE001  whatever it is, the connection must end, and others go on
            self._failed()
        if not self.answered:
            self.response_bytes(500, [CLOSE], b"")
        connection.done(self)

    def _failed(self) -> None:
        _log.exception("an answer was not finished")
        self.last = True
        if not self.answered:
            self.response_bytes(500, [CLOSE], b"")

    @property
    def connection(self) -> object:
        """What tells one connection from another."""
        return self._connection

    def claim(self, record: str) -> None:
        """Say that a record of this id is about this request: see :func:`bedplate.http.places.claim`."""
        if self._connection.place is not None:
            self._connection.place.claim(record)

    def wake(self) -> None:
        """Something arrived, or nothing more will."""
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    # --------------------------------------------------------------------------------------------------- the body

    def here(self) -> bytearray | None:
        """The whole body, if all of it has arrived and its length was told; the caller's alone."""
        connection, left = self._connection, self._left
        buffer = connection.buffer
        if left is None or len(buffer) < left:
            return None
        self._left, self.received = 0, True
        if len(buffer) == left:  # most often: what arrived is handed over instead of copied
            connection.buffer = bytearray()
            return buffer
        body = buffer[:left]
        del buffer[:left]
        return body

    async def __call__(self) -> bytes:
        """The whole body.

        Raises:
            RuntimeError: the connection ended before the body did.
        """
        body = self.here()
        if body is not None:
            return bytes(body)
        pieces = []
        while not self.received:
            pieces.append(await self._piece())
        return b"".join(pieces)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while not self.received:
                piece = await self._piece()
                if piece:
                    yield piece
        except RuntimeError:
            yield b""
        yield b""

    async def _piece(self) -> bytes:
        """The next piece of the body; sets :attr:`received` with the last, which may be empty.

        Raises:
            ProtocolError: 400, the chunks have not the form.
            RuntimeError: the connection ended before the body did.
        """
        connection = self._connection
        while True:
            piece = self._taken(connection.buffer)
            if piece or self.received:
                return piece
            if connection.ended:
                raise RuntimeError("the connection ended before the body did")
            if self._head.expects and not self.answered and self._arrived is None:
                connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            connection.resume()
            self._arrived = connection.server.loop.create_future()
            await self._arrived

    def _taken(self, buffer: bytearray) -> bytes:
        if self._chunks is not None:
            piece = self._chunks.take(buffer)
            self.received = self._chunks.ended
            return piece
        assert self._left is not None
        piece = bytes(buffer[: self._left])
        del buffer[: len(piece)]
        self._left -= len(piece)
        self.received = not self._left
        return piece

    # -------------------------------------------------------------------------------------------------- the answer

    def response_bytes(self, status: int, headers: Headers, body: bytes) -> None:
        """Answer with a body."""
        self._send(status, headers, len(body), body)

    def response_empty(self, status: int, headers: Headers) -> None:
        """Answer without one; the headers may say how long it would be."""
        self._send(status, headers, None, b"")

    def response_stream(self, status: int, headers: Headers) -> "_Stream":
        """Answer with a body that comes in pieces. For an old client, which knows no chunks, the connection ends it."""
        chunked = not self._head.last and not any(name == "content-length" for name, _ in headers)
        self._send(status, [*headers, ("transfer-encoding", "chunked")] if chunked else headers, None, b"", whole=False)
        self._stream = _Stream(self._connection, chunked=chunked)
        return self._stream

    async def client_disconnect(self) -> None:
        """Return when the client has left."""
        while not self._connection.ended:
            self._arrived = self._connection.server.loop.create_future()
            await self._arrived

    def _send(self, status: int, headers: Headers, length: int | None, body: bytes, *, whole: bool = True) -> None:
        self.answered = True
        if not self.received:
            self.here()  # what has arrived and nobody asked for is dropped, so that the connection can go on
        if CLOSE in headers:
            self.last = True
        elif self._head.last or not self.received or self._connection.ending:
            self.last, headers = True, [*headers, CLOSE]
        connection = self._connection
        if not connection.lost:
            data = wire.head_of(status, headers, connection.server.date, length) + body
            if whole:
                connection.answer(data, last=self.last)
            else:
                connection.send(data)
        if self.later and whole:
            connection.done(self)


class _Stream:
    """The pieces of an answer."""

    def __init__(self, connection: "Connection", *, chunked: bool) -> None:
        self._connection, self._chunked = connection, chunked

    async def send_bytes(self, piece: bytes) -> None:
        """Send a piece, and wait while the client has too many to read.

        Raises:
            RuntimeError: the client left.
        """
        if self._connection.lost:
            raise RuntimeError("the client left")
        if piece:
            self._connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            await self._connection.written()

    def end(self) -> None:
        """There are no more."""
        if self._chunked and not self._connection.lost:
            self._connection.send(b"0\r\n\r\n")
