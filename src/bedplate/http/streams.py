"""A request body that reaches its handler in pieces: bounded in size, each piece within its time, never held whole."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bedplate.http.messages import ProtocolError

PIECE = 256 * 1024
"""Bytes that are gathered before a piece is handed over: a client must send that many within the receipt limit."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Pieces:
    """The body of one request as an asynchronous iterator of non-empty pieces.

    ``most`` bounds the sum of all pieces; ``seconds`` is what each piece may take to arrive. ``expected`` is the
    declared length, if one was: a body that ends before it is refused, so that half a body never counts as one.
    """

    def __init__(self, receive: Receive, most: int, seconds: float, expected: int | None) -> None:
        self._receive = receive
        self._most, self._seconds = most, seconds
        self._expected = expected
        self.size = 0
        """Bytes handed over so far."""
        self.ended = False
        """Whether the whole body was received."""

    def __aiter__(self) -> "Pieces":
        return self

    async def __anext__(self) -> bytes:
        """The next piece.

        Raises:
            ProtocolError: 413, the body is too large; 408, the piece did not arrive in time; 400, the body broke off.
        """
        if self.ended:
            raise StopAsyncIteration
        try:
            async with asyncio.timeout(self._seconds):
                piece = await self._gather()
        except TimeoutError as error:
            raise ProtocolError(408, f"a piece of the body did not arrive within {self._seconds:g} s") from error
        if not piece:
            raise StopAsyncIteration
        return piece

    async def _gather(self) -> bytes:
        pieces: list[bytes] = []
        length = 0
        while length < PIECE and not self.ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ProtocolError(400, "the client left before the body was complete")
            piece = message.get("body", b"")
            length += len(piece)
            if self.size + length > self._most:
                raise ProtocolError(413, f"the body is larger than {self._most} bytes")
            pieces.append(piece)
            self.ended = not message.get("more_body", False)
        self.size += length
        if self.ended and self._expected is not None and self.size != self._expected:
            raise ProtocolError(400, f"the body has {self.size} bytes, not the {self._expected} that were declared")
        return b"".join(pieces)
