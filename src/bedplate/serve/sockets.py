"""Listening sockets that outlive the processes that answer on them.

The supervisor opens a socket once and every replica of an endpoint inherits it, so the kernel keeps connections while
replicas come and go. Granian's embedded server opens its own; handing it one is an internal of Granian, used in this
file alone and held by ``tests/serve/test_sockets.py``.
"""

import contextlib
import errno
import os
import resource
import socket
from pathlib import Path
from typing import Any

from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from bedplate import files
from bedplate.errors import InputError, UnavailableError

BACKLOG = 4096
_MOST_FILES, _OTHER_FILES = 65_536, 1024


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket; ``port`` 0 lets the system choose.

    Raises:
        InputError: ``host`` is no address of this machine.
        UnavailableError: the port is taken, or may not be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise UnavailableError(
                f"port {port} is taken by another program", where=where, fix="stop it, or choose another port"
            ) from error
        if error.errno == errno.EACCES:
            raise UnavailableError(f"port {port} may not be used", where=where, fix="choose one above 1023") from error
        raise InputError(f"{host!r} is not an address of this machine", where=where, fix="use 127.0.0.1") from error
    return listener


def address(listener: socket.socket) -> str:
    """Host and port of a TCP socket, as addresses are written."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_local(path: Path) -> socket.socket:
    """A listening socket in the file system, which only its owner can open; one that lies there is replaced.

    Raises:
        UnavailableError: the folder cannot be written.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        files.make_folder(path.parent)
        path.unlink(missing_ok=True)
        with files.brief(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise UnavailableError(f"no socket can be made: {error.strerror}", where=str(path)) from error
    return listener


def stop_accepting(descriptor: int) -> None:
    """Take no more connections from the socket ``descriptor`` in this process; others that share it are not touched.

    Closing would not do: Granian holds copies, and a connection it took but has not read yet would be cut by its stop.
    So an empty listening socket is put under every copy, and accepting finds nothing from now on.
    """
    own = os.fstat(descriptor)
    with listen("127.0.0.1", 0) as empty:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(int(name)), own):
                    os.dup2(empty.fileno(), int(name), inheritable=False)


def connections() -> int:
    """How many connections this process may have open, after asking for as many files as the system lets it have.

    The rest is for models, logs and local sockets: a process without a descriptor left could not even say so.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    most = _MOST_FILES if soft == resource.RLIM_INFINITY else min(soft, _MOST_FILES)
    return max(most // 2, most - _OTHER_FILES)


class InheritedServer(Server):
    """Granian's embedded RSGI server on a socket that is open already, for at most so many ``connections`` at once."""

    def __init__(self, app: Any, descriptor: int, *, header_seconds: float = 10.0, connections: int = 1024) -> None:
        super().__init__(
            app,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backpressure=connections,  # Granian counts connections, also those on which nothing is asked
            http1_settings=HTTP1Settings(header_read_timeout=int(header_seconds * 1000), max_buffer_size=64 * 1024),
            log_enabled=False,
        )
        self._inherited = descriptor

    def _init_shared_socket(self) -> None:
        internals: Any = self  # Granian's stub leaves these untyped or out
        holder: Any = SocketHolder
        internals._ssp = None
        internals._shd = holder(self._inherited, False, BACKLOG)
        internals._sfd = self._inherited
