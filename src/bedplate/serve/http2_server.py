"""A server for gRPC on a listening socket that is open already, in the event loop itself: its connections, and its end.

Why not grpcio, and what was measured: ``docs/decisions/grpc.md``. A connection here costs no thread, its socket may be
inherited, and it says goodbye in two steps, so that no request that is on its way is lost when a replica ends.
"""

import asyncio
import socket
from time import perf_counter
from typing import Protocol

from bedplate.http.accepting import Accepting
from bedplate.http.streams import Room
from bedplate.http.turns import Turns
from bedplate.serve.calls import Calls
from bedplate.serve.frames import LARGEST_WINDOW
from bedplate.serve.http2 import FIRST_WINDOW, Connection
from bedplate.serve.rpc import Rpc

_SWEEP = 0.25


class Service(Protocol):
    """What answers calls."""

    def begin(self, rpc: Rpc) -> None:
        """Take a call, whose messages have not come yet: set its ``handler`` and ``who`` calls, or finish it."""

    def cut(self, rpc: Rpc, reason: str) -> None:
        """Finish a call that cannot go on: ``late`` (its message did not come in time), ``large``, ``full``
        (there is no room for its message), or ``packed``."""

    def end(self, rpc: Rpc) -> None:
        """A call is over, however it ended; told once of each that was begun."""


class Http2Server:
    """Answers on listening sockets. ``most`` bounds a message in bytes, ``receipt`` its arrival in seconds.

    ``room`` is the memory for what arrives and ``turns`` whose turn it is, which other protocols may share. With
    ``calls`` clients ask again what this process had in hand, should it be killed.
    """

    def __init__(
        self,
        service: Service,
        room: Room,
        turns: Turns,
        *,
        most: int,
        receipt: float,
        streams: int,
        calls: Calls | None = None,
    ) -> None:
        self.service, self.room, self.most, self.receipt, self.streams = service, room, most, receipt, streams
        self.calls, self.turns = calls, turns
        self.window = max(FIRST_WINDOW, most + 5)
        self.connections: set[Connection] = set()
        self.draining = False
        self._accepting: Accepting | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    def serve(self, listener: socket.socket) -> None:
        """Take connections from a socket that listens already."""
        loop = asyncio.get_running_loop()

        def connection(descriptor: int) -> Connection:
            return Connection(self, loop, None if self.calls is None else self.calls.take(descriptor))

        self._accepting = Accepting(listener, connection)
        self._sweeping = loop.call_later(_SWEEP, self._sweep, loop)

    async def stop(self, seconds: float, tick: float) -> None:
        """Take no more connections, send every client away, and close when all was answered, or time is up.

        Clients get two ticks to meet the goodbye; what they send until then is answered.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        if self._accepting is not None:
            self._accepting.close()
        self.draining = True
        for connection in self.connections:
            connection.goodbye(LARGEST_WINDOW)
        await asyncio.sleep(2 * tick)
        for connection in tuple(self.connections):
            connection.leave()
        while self.connections and loop.time() < until:
            await asyncio.sleep(0.02)
        for connection in tuple(self.connections):
            connection.close()
        if self._sweeping is not None:
            self._sweeping.cancel()

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = perf_counter()
        for connection in tuple(self.connections):
            connection.sweep(now)
        self._sweeping = loop.call_later(_SWEEP, self._sweep, loop)
