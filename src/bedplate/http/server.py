"""An HTTP/1.1 server for RSGI applications on a listening socket that is open already, in the event loop itself.

Small questions are answered in tens of microseconds. A server that receives in threads of its own hands each request to
the loop and each answer back, which costs as much again; here what arrives is answered where it arrives.
Connections are few-featured on purpose: no upgrade, no trailers, one request after the other.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from itertools import islice
from time import perf_counter
from typing import Any, cast

import msgspec

from bedplate import clock
from bedplate.http import places, wire
from bedplate.http.accepting import Accepting, speak
from bedplate.http.exchange import CLOSE, AtOnce, Exchange
from bedplate.http.messages import ProtocolError
from bedplate.http.places import PIECE, Left, Place, Places
from bedplate.http.turns import Turns
from bedplate.http.wire import Head

App = Callable[[Any, Any], Awaitable[None]]

_END = b"\r\n\r\n"
_MOST_BUFFERED = 32 * 1024
"""Bytes of a body that are kept while nobody asks for them; then the client has to wait."""
_READING = 2
"""Connections of which more of a body is received in one turn of the loop: a hundred that send as fast as they can
would keep everybody else waiting for megabytes."""
_FIRST = 16 * 1024
"""Bytes that are received at once on a connection that was answered nothing yet: many may come together."""
_MOST_HEADS = 1024
_LONGEST_KEPT = 1024
"""Heads that are remembered: clients repeat theirs, and a dictionary knows them by their bytes."""
_LINGER, _UNREAD = 1.0, 30.0
"""Seconds: to let a client read its refusal while it still sends; to read an answer at all."""
_PAUSE = 0.02


class Server:
    """Answers on the listening socket ``descriptor``, which others may share; a head has ``header_seconds`` to come.

    Connections beyond ``most`` are told at once to come again. What ``at_once`` answers costs no task. With ``places``
    connections outlive this process: what it has in hand lies there, for whoever goes on with them. A request waits for
    its turn before anything of it is looked at: for that of who asked last on its connection, as ``who`` names them.
    """

    def __init__(
        self,
        app: App,
        descriptor: int,
        *,
        at_once: AtOnce | None = None,
        header_seconds: float = 10.0,
        most: int = 10_000,
        places: Places | None = None,
        who: Callable[[Head], str] = lambda head: "",
        turns: Turns | None = None,
    ) -> None:
        self.app, self.at_once, self.most, self.places, self.who = app, at_once, most, places, who
        self.turns = turns or Turns()
        self._descriptor = descriptor
        self.header_seconds = header_seconds
        self.connections: set[Connection] = set()
        self.due: dict[Connection, float] = {}
        self._parted: list[Connection] = []
        self._sending: dict[Connection, None] = {}
        self.together = Together()
        self.tasks: set[asyncio.Task[None]] = set()
        self.date = ""
        self._heads: dict[bytes, Head] = {}
        self._accepting: Accepting | None = None
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to take connections."""
        self.loop = asyncio.get_running_loop()
        self.date = formatdate(clock.now().timestamp(), usegmt=True)
        own = socket.socket(fileno=os.dup(self._descriptor))
        self._accepting = Accepting(own, self._connection)
        self._watching = asyncio.create_task(self._watch())

    async def adopt(self, connection: socket.socket, left: Left) -> None:
        """Go on with a connection that another process left. Only with places; where all are taken it is broken off."""
        assert self.places is not None
        place = self.places.take(connection.fileno(), left)
        if place is None:
            places.reset(connection)
            connection.close()
        else:
            await speak(connection, _PlacedConnection(self, place, left))

    def _connection(self, descriptor: int) -> "Connection | None":
        if self.places is None:
            return _StreamConnection(self)
        place = self.places.take(descriptor)  # there are more than connections that are let in
        return None if place is None else _PlacedConnection(self, place)

    def stop_accepting(self) -> None:
        """Take no more connections; those that wait in the kernel are for whoever shares the socket."""
        if self._accepting is not None:
            self._accepting.close()

    async def close(self, seconds: float) -> None:
        """End: idle connections at once, others when their clients have what they were answered, or after ``seconds``.

        With places, idle ones are not closed but left to others, as a client may be sending at this very moment.
        """
        self.stop_accepting()
        for connection in list(self.connections):
            connection.end()
        until = self.loop.time() + seconds
        while any(connection.waits for connection in self.connections) and self.loop.time() < until:
            await asyncio.sleep(0)
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=until - self.loop.time())
        for connection in list(self.connections):
            connection.transport.close()
        await asyncio.sleep(0)
        while self.connections and self.loop.time() < until:  # what was written last is still on its way
            await asyncio.sleep(_PAUSE)
        for connection in list(self.connections):
            connection.transport.abort()
        if self._watching is not None:
            self._watching.cancel()

    def part(self, connection: "Connection") -> None:
        """A connection is for others from now on. It stays open here, as its descriptor may be on its way to them."""
        self.connections.discard(connection)
        self.due.pop(connection, None)
        self._sending.pop(connection, None)
        self._parted.append(connection)

    def receive(self, connection: "Connection") -> None:
        """Receive more on a connection that was paused, when those before it have had some."""
        if not self._sending:
            self.loop.call_soon(self._receive)
        self._sending[connection] = None

    def _receive(self) -> None:
        for connection in list(islice(self._sending, _READING)):
            del self._sending[connection]
            connection.unpause()
        if self._sending:
            self.loop.call_soon(self._receive)

    def head(self, data: bytes) -> Head:
        """The head that these bytes are, parsed when they were not seen before.

        Raises:
            ProtocolError: they are none.
        """
        head = self._heads.get(data)
        if head is None:
            head = wire.parse_head(data)
            if len(data) <= _LONGEST_KEPT:
                if len(self._heads) >= _MOST_HEADS:
                    self._heads.clear()
                self._heads[data] = head
        return head

    async def _watch(self) -> None:
        """Once a second: the time for answers, and an end to what takes too long."""
        while True:
            await asyncio.sleep(1.0)
            self.date = formatdate(clock.now().timestamp(), usegmt=True)
            now = self.loop.time()
            for connection, until in list(self.due.items()):
                if until <= now:
                    connection.overdue()


class Together:
    """What is to be sent within a ``with`` of this goes out at its end, one after the other.

    The kernel's way of sending fills the caches of a core: between two answers it slows down the making of the second.
    Nothing of the loop may come in between, so there must be no ``await`` inside.
    """

    def __init__(self) -> None:
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._holds = False

    def __enter__(self) -> None:
        """Hold back."""
        self._holds = True

    def __exit__(self, *error: object) -> None:
        self._holds = False
        self.send()

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send this, now or behind what is held back."""
        if self._holds:
            self._held.append((transport, data))
        else:
            transport.write(data)

    def send(self) -> None:
        """Send what is held back: nobody may end a connection before."""
        held, self._held = self._held, []
        for transport, data in held:
            transport.write(data)


class Connection(asyncio.BaseProtocol):
    """One connection: heads become exchanges, one after the other."""

    transport: asyncio.Transport
    place: Place | None = None

    def __init__(self, server: Server) -> None:
        self.server = server
        self.buffer = bytearray()
        self.exchange: Exchange | None = None
        self.ended = False  # nothing more will arrive
        self.lost = False
        self._who, self._came = "", 0.0  # who asked last, and when the request came that is next
        self.waits = False  # for the turn of that one
        self.ending = self._lingering = self._paused = False
        self._writable: asyncio.Event | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # another loop's has no common base
        connections = self.server.connections
        connections.add(self)
        if len(connections) > self.server.most:
            self._refuse(ProtocolError(503, "too many connections are open", headers=(("retry-after", "1"),)))

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = self.ended = True
        self.waits = False
        self.server.connections.discard(self)
        self.server.due.pop(self, None)
        if self._writable is not None:
            self._writable.set()
        if self.exchange is not None:
            self.exchange.wake()

    def data_received(self, data: bytes | memoryview) -> None:
        if self._lingering:  # for nobody: it is received so that the client can read its refusal
            self._pause()
            self.resume()
            return
        self.buffer += data
        if self.exchange is not None:
            self.exchange.wake()
        elif not self.waits:
            self._arrived()
            return
        if len(self.buffer) > _MOST_BUFFERED:
            self._pause()

    def eof_received(self) -> bool:
        self.ended = True
        if self.exchange is not None:
            self.exchange.wake()
        return self.exchange is not None or self.waits  # the answer is still sent

    def pause_writing(self) -> None:
        self._writable = asyncio.Event()
        self.server.due[self] = self.server.loop.time() + _UNREAD

    def resume_writing(self) -> None:
        self.server.due.pop(self, None)
        if self._writable is not None:
            self._writable.set()
            self._writable = None

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        """Let more of a body come, in its turn."""
        if self._paused:
            self.server.receive(self)

    def unpause(self) -> None:
        """Let more come now."""
        if self._paused and not self.ended:
            self._paused = False
            self.transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Send a part of an answer, or a word beside it."""
        self.server.together.write(self.transport, data)

    def answer(self, data: bytes, *, last: bool) -> None:
        """Send a whole answer, the ``last`` of the connection or not."""
        self.server.together.write(self.transport, data)

    async def written(self) -> None:
        """Return when the client has taken enough of what was sent."""
        if self._writable is not None:
            await self._writable.wait()

    def overdue(self) -> None:
        """What was waited for took too long."""
        self.server.due.pop(self, None)
        if self.exchange is None and not self._lingering:
            self._refuse(ProtocolError(408, "the head of the request did not arrive in time"))
        else:
            self.transport.abort()

    def end(self) -> None:
        """End with the answer under way, or at once where there is none."""
        self.ending = True
        if self.exchange is None and not self.waits:
            self.transport.close()

    def done(self, exchange: Exchange) -> None:
        """An answer was sent: go on with the next request, or end."""
        if self._over(exchange):
            self._arrived()

    def _over(self, exchange: Exchange) -> bool:
        """Whether there is more to begin with."""
        self.exchange = None
        if exchange.last or self.ending or self.ended:
            self._leave(exchange.received)
            return False
        self.resume()
        return bool(self.buffer)

    def _arrived(self) -> None:
        """Begin with what has arrived, if that is a request and it is its turn."""
        if self._granted():
            self._begin()

    def _granted(self) -> bool:
        """Whether the next request has come and is to be begun now; if it has to wait, that is seen to."""
        server = self.server
        end = self.buffer.find(_END)
        if end < 0 or end > wire.MAX_HEAD:
            if len(self.buffer) > wire.MAX_HEAD:
                self._refuse(ProtocolError(431, f"the head is larger than {wire.MAX_HEAD} bytes"))
            else:
                server.due.setdefault(self, server.loop.time() + server.header_seconds)
            return False
        if server.due:
            server.due.pop(self, None)
        self._came = perf_counter()
        if server.turns.granted(self._who, self._came):
            return True
        self.waits = True
        server.turns.wait(self._who, self._turn)
        return False

    def _turn(self) -> None:
        """It is the turn of the request that waits, if it still does."""
        if self.waits:
            self.waits = False
            self._begin()

    def _begin(self) -> None:
        """Begin with the next request, and go on while they are answered at once."""
        server = self.server
        while (head := self._head()) is not None:
            self._who = server.who(head)
            self.exchange = exchange = Exchange(self, head, self._came)
            if server.at_once is not None and exchange.arrived and exchange.try_at_once(server.at_once):
                if exchange.answered and self._over(exchange) and self._granted():
                    continue
                exchange.later = not exchange.answered
                return
            task = server.loop.create_task(exchange.run())
            server.tasks.add(task)
            task.add_done_callback(server.tasks.discard)
            return

    def _head(self) -> Head | None:
        """The next head, taken out of what has arrived; None if it was refused."""
        end = self.buffer.find(_END) + len(_END)
        try:
            head = self.server.head(bytes(self.buffer[:end]))
        except ProtocolError as error:
            self._refuse(error)
            return None
        del self.buffer[:end]
        return head

    def _refuse(self, error: ProtocolError) -> None:
        body = msgspec.json.encode({"error": error.message})
        headers = [("content-type", "application/json"), CLOSE, *error.headers]
        self.send(wire.head_of(error.status, headers, self.server.date, len(body)) + body)
        self._leave(received=False)

    def _leave(self, received: bool) -> None:
        """Close, and where the client still sends let it read the answer first: closing at once would take it away."""
        self.buffer.clear()
        self.waits = False
        self.server.together.send()
        if received or self.ended or self.lost:
            self.transport.close()
            return
        self._lingering = True
        self.server.due[self] = self.server.loop.time() + _LINGER
        with contextlib.suppress(OSError, RuntimeError):
            self.transport.write_eof()
        self.resume()


class _StreamConnection(Connection, asyncio.Protocol):
    """One whose bytes are this process's alone."""


class _PlacedConnection(Connection, asyncio.BufferedProtocol):
    """One that another process can go on with: it is received into its place, and answered out of it."""

    place: Place

    def __init__(self, server: Server, place: Place, left: Left | None = None) -> None:
        super().__init__(server)
        self.place, self._left = place, left
        self._parted, self._new = False, True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._left is not None and not self.transport.is_closing():
            self._go_on(self._left)

    def _go_on(self, left: Left) -> None:
        if left.rest:
            self.transport.write(left.rest)
        if left.last:
            self._leave(received=False)
        elif left.hopeless:
            self._refuse(ProtocolError(500, f"{left.tries} processes ended while they answered this"))
        elif left.unanswered:
            self.data_received(left.unanswered)

    def connection_lost(self, error: Exception | None) -> None:
        super().connection_lost(error)
        if not self._parted:
            self.place.end()

    def get_buffer(self, sizehint: int) -> memoryview:
        place = self.place
        if place.used and self.exchange is None and not (self.buffer or self.transport.get_write_buffer_size()):
            place.rewind()
        return place.room(_FIRST if self._new else PIECE)

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self.place.took(nbytes))

    def send(self, data: bytes) -> None:
        self.place.written += len(data)
        self.server.together.write(self.transport, data)

    def answer(self, data: bytes, *, last: bool) -> None:
        self.place.answer(data, len(self.buffer), last=last)
        self.server.together.write(self.transport, data)

    def end(self) -> None:
        """End with the answer under way; where there is none, leave the connection to others."""
        if self.exchange is not None or self._lingering or self.ended or self.transport.get_write_buffer_size():
            super().end()
            return
        self.transport.pause_reading()
        self._parted, self.waits = True, False
        self.place.part()
        self.server.part(self)

    def _over(self, exchange: Exchange) -> bool:
        self._new = False
        if not self.lost:
            self.place.done(len(self.buffer))
        return super()._over(exchange)
