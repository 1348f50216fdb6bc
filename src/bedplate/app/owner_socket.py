"""How commands reach the owner of a home: one JSON line in, JSON lines of events out, one result or error at the end.

The socket lies in the home folder with mode 0600, and the peer must be the same user; the request carries a key all the
same, so that the ledger names who asked.
"""

import contextlib
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from bedplate import errors, files
from bedplate.errors import BedplateError, HomeError, UnavailableError
from bedplate.records import Event

LIMIT = 16 << 20
"""Longest line either side accepts, in bytes."""

_ANSWER_WITHIN = 5.0
"""Seconds in which the owner must accept; after that an operation may take as long as it takes."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a command asks the owner to do."""

    operation: str
    arguments: dict[str, Any]
    token: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An error on its way back, rebuilt on the other side with its own type."""

    kind: str
    message: str
    where: str | None
    fix: str | None
    details: dict[str, Any] = {}


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line from the owner: an event, or the end as a result or a failure."""

    event: Event | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    failure: Failure | None = None


Handler = Callable[[Request, Callable[[Event], None]], Any]


class Listener:
    """Serves requests on the home's socket, each in a thread of its own, until closed."""

    def __init__(self, path: Path, handler: Handler) -> None:
        self._path = path
        self._handler = handler
        self._busy = 0
        self._idle = threading.Condition()
        # A socket path may be at most 107 bytes long; relative to its folder it always fits.
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()  # only the owner gets here, so a socket file is one that a killed owner left
        with files.brief(path) as name:
            self._listener.bind(name)
        path.chmod(0o600)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._accept, name="owner-socket", daemon=True)
        self._thread.start()

    def close(self, *, drain: float = 3600.0) -> None:
        """Take no new request, let those under way end (at most ``drain`` seconds), remove the socket."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._idle:
            self._idle.wait_for(lambda: self._busy == 0, timeout=drain)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._idle:
                self._busy += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, connection.makefile("rwb") as stream:
                _answer(connection, stream, self._handler)
        except OSError:
            pass  # the command that asked is gone; what it asked for was carried out and recorded all the same
        finally:
            with self._idle:
                self._busy -= 1
                self._idle.notify_all()


def _answer(connection: socket.socket, stream: Any, handler: Handler) -> None:
    lock = threading.Lock()
    gone = False

    def send(line: Line) -> None:
        nonlocal gone
        if gone:
            return
        with lock:
            try:
                stream.write(msgspec.json.encode(line) + b"\n")
                stream.flush()
            except OSError:
                gone = True

    try:
        if _peer(connection) != os.getuid():
            raise errors.DeniedError("only the user who owns the home may command it", fix="run as that user")
        text = stream.readline(LIMIT + 1)
        if not text.endswith(b"\n"):
            raise errors.InputError("the request is cut off or too long", where="owner socket")
        request = msgspec.json.decode(text, type=Request)
        result = handler(request, lambda event: send(Line(event=event)))
        send(Line(result=msgspec.Raw(msgspec.json.encode(result))))
    except BedplateError as error:
        send(Line(failure=_failure(error)))
    except msgspec.MsgspecError as error:
        send(Line(failure=Failure(kind="InputError", message=str(error), where="owner socket", fix=None)))


def _peer(connection: socket.socket) -> int:
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])


def _failure(error: BedplateError) -> Failure:
    details = {k: v for k, v in vars(error).items() if k not in ("message", "where", "fix")}
    return Failure(
        kind=type(error).__name__,
        message=error.message,
        where=error.where,
        fix=error.fix,
        details=msgspec.to_builtins(details, str_keys=True),
    )


def _rebuilt(failure: Failure) -> BedplateError:
    kind = getattr(errors, failure.kind, BedplateError)
    error: BedplateError = kind(failure.message, where=failure.where, fix=failure.fix)
    for name, value in failure.details.items():
        setattr(error, name, tuple(value) if isinstance(value, list) else value)
    return error


def ask(path: Path, request: Request, on_event: Callable[[Event], None]) -> bytes:
    """Have the owner carry out a request; returns the JSON of its result.

    Raises:
        HomeError: nobody listens.
        UnavailableError: the owner ended before it answered.
        BedplateError: whatever the operation raised there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_WITHIN)
    try:
        with files.brief(path) as name:
            connection.connect(name)
    except OSError as error:
        connection.close()
        raise HomeError("the owner of this home does not answer", where=str(path), fix="try again") from error
    connection.settimeout(None)
    with connection, connection.makefile("rwb") as stream:
        stream.write(msgspec.json.encode(request) + b"\n")
        stream.flush()
        for text in stream:
            line = msgspec.json.decode(text, type=Line)
            if line.event is not None:
                on_event(line.event)
            elif line.failure is not None:
                raise _rebuilt(line.failure)
            elif line.result is not msgspec.UNSET:
                return bytes(line.result)
    raise UnavailableError(
        "the owner of this home ended before it answered", where=str(path), fix="run the command again: it carries on"
    )
