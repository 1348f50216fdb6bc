"""Taking connections from a listening socket in the event loop, each told of before anything else is done with it.

A loop's own server takes all that wait, makes a transport for each, and says so a turn later. What is killed in between
has connections that nobody else knows of, and the kernel resets them. Here that takes some microseconds.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

_AT_ONCE = 8
"""Connections that are taken in one turn: those that are there already have to be answered as well."""
_PAUSE = 1.0
_log = logging.getLogger(__name__)


class Accepting:
    """Takes connections from ``listener``, which others may share, until it is closed. To be made in a running loop.

    ``make`` gets the descriptor of each as soon as it is taken, and gives the protocol that speaks on it; None ends it.
    """

    def __init__(self, listener: socket.socket, make: Callable[[int], asyncio.BaseProtocol | None]) -> None:
        self._listener, self._make = listener, make
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._beginning: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        self._go_on()

    def close(self) -> None:
        """Take no more; those that wait are for whoever shares the socket."""
        if self._resting is not None:
            self._resting.cancel()
        if self._listener.fileno() >= 0:
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _go_on(self) -> None:
        self._loop.add_reader(self._listener, self._take)

    def _take(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptor is free, say: what waits in the kernel goes on waiting
                _log.error("no connection can be taken now: %s", error)
                self._loop.remove_reader(self._listener)
                self._resting = self._loop.call_later(_PAUSE, self._go_on)
                return
            protocol = self._make(connection.fileno())
            if protocol is None:
                connection.close()
                continue
            task = self._loop.create_task(speak(connection, protocol))
            self._beginning.add(task)
            task.add_done_callback(self._beginning.discard)


async def speak(connection: socket.socket, protocol: asyncio.BaseProtocol) -> None:
    """Have a protocol speak on a connection; where the system refuses that, it has lost it."""
    connection.setblocking(False)
    try:
        await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, connection)
    except OSError as error:
        protocol.connection_lost(error)
        connection.close()
