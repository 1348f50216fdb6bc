"""A network that a test can cut: connections to a server go through it."""

import contextlib
import selectors
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import make_url

_BLOCK = 1 << 16


class Link:
    """Forwards connections on ``port`` to a server on this machine, a TCP port of it or a Unix socket."""

    def __init__(self, server: int | Path) -> None:
        self._server = server
        self._up = True
        self._guard = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection; new ones are closed as soon as they are made."""
        with self._guard:
            self._up = False
            for each in self._open:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Forward connections again."""
        with self._guard:
            self._up = True

    def close(self) -> None:
        """Cut it for good."""
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        unix = isinstance(self._server, Path)
        server = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
        with connection, server:
            with self._guard:
                if not self._up:
                    return
                self._open |= {connection, server}
            try:
                server.connect(str(self._server) if unix else ("127.0.0.1", self._server))
                _forward(connection, server)
            except OSError:
                return
            finally:
                with self._guard:
                    self._open -= {connection, server}


def _forward(one: socket.socket, other: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(one, selectors.EVENT_READ, other)
        selector.register(other, selectors.EVENT_READ, one)
        while True:
            for key, _ in selector.select():
                assert isinstance(key.fileobj, socket.socket)
                block = key.fileobj.recv(_BLOCK)
                if not block:
                    return
                key.data.sendall(block)


@contextlib.contextmanager
def link(server: int | Path) -> Iterator[Link]:
    """A link for the length of a block."""
    made = Link(server)
    try:
        yield made
    finally:
        made.close()


@contextlib.contextmanager
def to_postgresql(address: str) -> Iterator[tuple[Link, str]]:
    """A link to a server that listens on a Unix socket, and the address of the database through it."""
    url = make_url(address)
    folder = url.query["host"]
    assert isinstance(folder, str)
    with link(Path(folder, f".s.PGSQL.{url.port or 5432}")) as made:
        through = url.set(host="127.0.0.1", port=made.port, query={})
        yield made, through.render_as_string(hide_password=False)
