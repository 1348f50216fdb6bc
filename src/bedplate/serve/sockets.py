"""Listening sockets that outlive the processes that answer on them.

The supervisor opens a socket once and every replica of an endpoint inherits it, so the kernel keeps connections while
replicas come and go.
"""

import errno
import resource
import socket
from pathlib import Path

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
