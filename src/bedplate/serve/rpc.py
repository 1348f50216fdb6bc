"""One call of gRPC on a connection of HTTP/2: its messages in and out, framed, unpacked and counted."""

import asyncio
import math
import zlib
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bedplate.serve.frames import WINDOW_UPDATE, frame
from bedplate.serve.hpack import Headers, literal

if TYPE_CHECKING:
    from bedplate.serve.http2 import Connection

MOST_UNSENT = 1 << 20
"""Bytes that wait for a client to take them, from which on a stream waits and nothing more is read from a socket."""
_ENCODINGS = {b"gzip": 31, b"deflate": 15}
_ANSWER = (
    b"\x88" + literal(b"content-type", b"application/grpc") + literal(b"grpc-accept-encoding", b"identity,deflate,gzip")
)
_OK = literal(b"grpc-status", b"0")


class Rpc:
    """One call: its method and metadata, the messages that have come, and what is answered."""

    def __init__(self, connection: "Connection", number: int, path: bytes, metadata: Headers) -> None:
        self.path, self.metadata = path, metadata
        self.handler: Callable[[Rpc], Coroutine[Any, Any, None]] | None = None
        self.at_once: Callable[[Rpc], bool] | None = None
        """Answers without a task, now or later, when the message is there; what it leaves is for the handler."""
        self.streams = False
        """Whether the handler begins before a message is there, and may get several."""
        self.caller: Any = None
        """Who calls, as the service knows it."""
        self.who = ""
        """Whose turn the next call of the connection is: the same text for the same one."""
        self.started = perf_counter()
        self.seconds = math.inf
        """How long its client waits for it."""
        self.ended = False
        """Whether the client has sent everything."""
        self.closed = False
        self._connection, self._number = connection, number
        self._begun = False
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._part = bytearray()
        self._messages: deque[tuple[bytes, int]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._answering = False
        self.out_window = connection.first_window
        self.in_window = connection.server.window
        self._taken = 0
        self.unsent = bytearray()
        self.tail = b""

    def value(self, name: bytes) -> bytes | None:
        """The metadata of that name, the last if there are several."""
        found = None
        for one, value in self.metadata:
            if one == name:
                found = value
        return found

    @property
    def connection(self) -> object:
        """What asks one request after the other: the call itself, for those of one connection come together."""
        return self

    def claim(self, record: str) -> None:
        """Say that a record of this id is about this call: see :mod:`bedplate.serve.calls`."""
        self._connection.claim(self._number, record)

    # -------------------------------------------------------------------------------------------- what the handler does

    def take(self) -> bytes | None:
        """The next message that has come, if there is one."""
        if not self._messages:
            return None
        message, size = self._messages.popleft()
        self._release(size)
        return message

    async def receive(self) -> bytes | None:
        """The next message; None when there will be no more."""
        while not self._messages:
            if self.ended or self.closed:
                return None
            self._waiting = self._connection.loop.create_future()
            await self._waiting
        return self.take()

    def wake(self) -> None:
        """Have whoever waits for a message, or for room, look again."""
        for waiting in (self._waiting, self._room):
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def reply(self, message: bytes, trailing: bytes = b"") -> None:
        """Answer with one message and end the call well; ``trailing`` is encoded metadata (:func:`literal`)."""
        self._send(message, _OK + trailing)

    async def send(self, message: bytes) -> None:
        """Send one message of several; waits while the client takes no more."""
        self._send(message, b"")
        while len(self.unsent) > MOST_UNSENT and not self.closed:
            self._room = self._connection.loop.create_future()
            await self._room

    def finish(self, status: int, text: str = "", trailing: bytes = b"") -> None:
        """End the call with a gRPC status."""
        tail = literal(b"grpc-status", b"%d" % status)
        if text:
            tail += literal(b"grpc-message", _percent(text))
        self._send(None, tail + trailing)

    def _send(self, message: bytes | None, tail: bytes) -> None:
        if self.closed or self.tail:
            return
        head = b"" if self._answering else _ANSWER
        if message is None and head:  # nothing but a status: headers and trailers in one
            self._connection.end(self._number, self, head + tail)
            return
        self._answering = True
        data = b"" if message is None else b"\0" + len(message).to_bytes(4, "big") + message
        self._connection.send(self._number, self, head, data, tail)

    # ----------------------------------------------------------------------------------------- what the connection does

    def start(self) -> None:
        """Have the call answered."""
        self._begun = True
        if self.at_once is not None and self.at_once(self):
            return
        assert self.handler is not None, "a call that goes on has a handler"
        self._task = self._connection.loop.create_task(self.handler(self))

    def begun(self) -> bool:
        """Whether somebody answers it."""
        return self._begun

    def arm(self, seconds: float) -> None:
        """End the call when its client no longer waits for it."""
        self._timer = self._connection.loop.call_later(seconds, self._late)

    def _late(self) -> None:
        if not self.closed:
            self.cancel()
            self.finish(4, "the deadline of the request has passed")

    def cancel(self) -> None:
        """Stop the handler."""
        if self._task is not None:
            self._task.cancel()

    def close(self) -> None:
        """Nothing more comes or goes."""
        if self.closed:
            return
        self.closed = True
        self._connection.server.service.end(self)
        if self._timer is not None:
            self._timer.cancel()
        self._connection.hold(-len(self._part) - sum(size for _, size in self._messages))
        self._part.clear()
        self._messages.clear()
        self.wake()

    def feed(self, data: bytes) -> None:
        """Take in bytes of the call's messages."""
        size = len(data)
        if not self._part and size >= 5 and data[0] == 0 and int.from_bytes(data[1:5], "big") == size - 5:
            self._messages.append((data[5:], size))
            return
        part = self._part
        part += data
        while len(part) >= 5:
            length = int.from_bytes(part[1:5], "big")
            if length > self._connection.server.most:
                self._connection.server.service.cut(self, "large")
                return
            if len(part) < 5 + length:
                return
            message = bytes(part[5 : 5 + length])
            packed = part[0]
            del part[: 5 + length]
            if packed:
                try:
                    message = self._unpack(message)
                except (zlib.error, KeyError):
                    self._connection.server.service.cut(self, "packed")
                    return
                if len(message) > self._connection.server.most:
                    self._connection.server.service.cut(self, "large")
                    return
            self._messages.append((message, 5 + length))

    def incomplete(self) -> bool:
        """Whether a message has begun, or must come, and is not there."""
        return bool(self._part) or (not self.streams and not self._messages and not self._begun)

    def waits(self) -> bool:
        """Whether a message is there that nobody has taken."""
        return bool(self._messages)

    def _unpack(self, message: bytes) -> bytes:
        unpacker = zlib.decompressobj(_ENCODINGS[self.value(b"grpc-encoding") or b""])
        text = unpacker.decompress(message, self._connection.server.most + 1)
        if not unpacker.eof and len(text) <= self._connection.server.most:
            raise zlib.error("it breaks off")
        return text

    def _release(self, size: int) -> None:
        connection = self._connection
        connection.hold(-size)
        self._taken += size
        if not self.ended and self._taken > connection.server.window // 2:
            self.in_window += self._taken
            connection.write(frame(WINDOW_UPDATE, 0, self._number, self._taken.to_bytes(4, "big")))
            self._taken = 0
        connection.credit()


def _percent(text: str) -> bytes:
    """A text as ``grpc-message`` carries it."""
    return b"".join(
        bytes([byte]) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in text.encode()[:1024]
    )
