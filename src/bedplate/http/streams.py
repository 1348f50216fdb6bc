"""How a request body is received: whole, or in pieces that are never held together; bounded in size and in time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from bedplate.errors import UnavailableError
from bedplate.http.deadlines import Deadline
from bedplate.http.messages import ProtocolError

PIECE = 256 * 1024
"""Bytes that are gathered before a piece is handed over: a client must send that many within the receipt limit."""


class Pieces:
    """The body of one request as an asynchronous iterator of non-empty pieces.

    ``source`` is the server's own iterator over what arrives. ``most`` bounds the sum of all pieces; ``seconds`` is
    what each piece may take to arrive (None: somebody else watches). ``expected`` is the declared length, if one was:
    a body that ends before it is refused, so that half a body never counts as one.
    """

    def __init__(self, source: AsyncIterator[bytes], most: int, seconds: float | None, expected: int | None) -> None:
        self._source = source
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
        length, ending = 0, False
        while length < PIECE and not self.ended:
            try:
                piece = await anext(self._source)
            except StopAsyncIteration:
                self.ended = True
                break
            if ending:
                # The server gives one empty piece at the end of a body, and two where the connection ended before it.
                raise broken_off()
            ending = not piece
            length += len(piece)
            if self.size + length > self._most:
                raise too_large(self._most)
            pieces.append(bytes(piece))
        self.size += length
        if self.ended and self._expected is not None and self.size != self._expected:
            raise ProtocolError(400, f"the body has {self.size} bytes, not the {self._expected} that were declared")
        return b"".join(pieces)


class Room:
    """The memory of this process for bodies that are still arriving: who sends slowly must not be able to fill it."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.refused = 0


async def whole(protocol: Any, most: int, seconds: float, expected: int | None, room: Room | None = None) -> bytes:
    """The body that an RSGI protocol receives; ``expected`` is its declared length, None if it comes in chunks.

    Raises:
        NoRoomError: what is arriving beside it takes all of the ``room``.
        ProtocolError: 413, the body is too large; 408, it did not arrive in time; 400, it broke off.
    """
    if expected is not None and expected > most:
        raise too_large(most)
    arrived: bytearray | None = protocol.here()  # all of it came with the head: nothing to wait for
    if arrived is not None:
        return bytes(arrived)
    held = most if expected is None else expected
    if room is not None:
        if held > room.left:
            room.refused += 1
            raise NoRoomError("too many bodies are arriving at once", fix="try again in a second")
        room.left -= held
    try:
        with Deadline(seconds):
            if expected is None:
                return b"".join([piece async for piece in Pieces(aiter(protocol), most, None, None)])
            body: bytes = await protocol()
            return body
    except TimeoutError as error:
        raise ProtocolError(408, f"the body did not arrive within {seconds:g} s") from error
    except RuntimeError as error:  # what the server raises when the connection ended
        raise broken_off() from error
    finally:
        if room is not None:
            room.left += held


class NoRoomError(UnavailableError):
    """What is arriving takes all the memory that there is for it."""

    code = "no_room"


def too_large(most: int) -> ProtocolError:
    """A body of more bytes than its route takes."""
    return ProtocolError(413, f"the body is larger than {most} bytes")


def broken_off() -> ProtocolError:
    """A body of which only a part came."""
    return ProtocolError(400, "the client left before the body was complete")
