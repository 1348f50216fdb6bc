"""One outbound call, from the resolved address to the last byte of the answer.

HTTP/1.1 on connections of their own: no pool, no proxy, no cookies, no decompression, nothing read from the
environment. Answers never appear in an error's text, because the other side chose them.
"""

import http.client
import io
import logging
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import IO
from urllib.parse import urljoin

import msgspec

from bedplate import clock
from bedplate.egress import targets
from bedplate.egress.targets import Address, Origin, Target
from bedplate.errors import BedplateError, DeniedError, InputError, IntegrityError, UnavailableError

Resolve = Callable[[str, int], Sequence[str]]
"""From a host and port to the texts of its addresses; raises OSError when there are none."""

_log = logging.getLogger(__name__)
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_OURS = ("host", "content-length", "transfer-encoding", "connection", "accept-encoding", "expect", "upgrade")
_TOLD = 1 << 16
_REDIRECTS = (301, 302, 303, 307, 308)


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one call may cost: seconds to connect and in all, bytes of its answer, redirects; and calls at once."""

    connect: float = 5.0
    total: float = 30.0
    body: int = 1 << 20
    redirects: int = 3
    at_once: int = 16


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What came back, whatever its status. ``headers`` have names in lower case; ``body`` is as it was sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    url: str
    address: str

    def header(self, name: str) -> str | None:
        """The first header of this name."""
        return next((value for key, value in self.headers if key == name.lower()), None)


def system_resolver(host: str, port: int) -> list[str]:
    """The addresses that the system gives."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class Broker:
    """Calls what is on its list, and nothing else. Safe to use from several threads.

    ``tls`` replaces the context that checks certificates (a company's own authority); ``resolve`` the system's names.
    """

    def __init__(
        self,
        allowed: Iterable[Target],
        *,
        limits: Limits | None = None,
        resolve: Resolve = system_resolver,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._allowed = {target.origin: target for target in allowed}
        self._limits = limits or Limits()
        self._resolver = resolve
        if tls is None and any(origin.scheme == "https" for origin in self._allowed):
            tls = ssl.create_default_context()
        self._tls = tls
        self._calls = threading.BoundedSemaphore(self._limits.at_once)
        self._lookups = threading.BoundedSemaphore(self._limits.at_once)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        into: IO[bytes] | None = None,
    ) -> Answer:
        """Call ``url`` once. GET and HEAD follow redirects within their origin, on the address that was resolved first.

        The body of an answer of status 200 is written ``into`` a file as it comes, where one is given, and is then not
        in the :class:`Answer`.

        Raises:
            InputError: the method, URL or a header cannot be sent.
            DeniedError: the origin is not on the list, one of its addresses may not be called, it redirects to another
                origin, or its answer is larger than allowed.
            IntegrityError: its certificate is not good.
            UnavailableError: it cannot be reached, does not answer in time, or does not speak HTTP.
        """
        origin, path = targets.parse(url)
        head = _headers(method, headers or {})
        target = self._allowed.get(origin)
        if target is None:
            raise DeniedError("this address is not on the list of outbound calls", where=str(origin), fix="allow it")
        deadline = _Deadline(self._limits.total)
        try:
            if not self._calls.acquire(timeout=deadline.left()):
                raise UnavailableError("too many outbound calls are under way", where=str(origin), fix="try again")
            try:
                return self._follow(target, _Call(method, url, path, head, body), deadline, into)
            finally:
                self._calls.release()
        except BedplateError:
            raise
        except TimeoutError as error:
            raise UnavailableError(
                f"no answer within {self._limits.total:g} s", where=str(origin), fix="try again later"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise IntegrityError(f"its certificate is not good: {error.verify_message}", where=str(origin)) from error
        except (OSError, http.client.HTTPException) as error:
            raise UnavailableError(
                f"the call failed: {type(error).__name__}", where=str(origin), fix="try again later"
            ) from error

    def _follow(self, target: Target, call: "_Call", deadline: "_Deadline", into: IO[bytes] | None) -> Answer:
        resolved = self._resolve(target, deadline)
        for _ in range(self._limits.redirects + 1):
            with self._connect(target.origin, resolved, deadline) as connection:
                address = str(connection.getpeername()[0])
                answer = self._exchange(connection, target.origin, call, address, deadline, into)
            _log.info("%s %s at %s: %d, %d bytes", call.method, target.origin, address, answer.status, len(answer.body))
            location = answer.header("location")
            if answer.status not in _REDIRECTS or location is None or call.method not in ("GET", "HEAD"):
                return answer
            call = _redirected(call, target.origin, location)
        raise UnavailableError(f"more than {self._limits.redirects} redirects", where=str(target.origin))

    # ---------------------------------------------------------------------------------------------- where it goes to

    def _resolve(self, target: Target, deadline: "_Deadline") -> list[Address]:
        """The addresses of ``target``, all of which may be called: one that may not spoils the name."""
        origin = target.origin
        if not self._lookups.acquire(timeout=deadline.left()):
            raise UnavailableError("too many names are being looked up", where=str(origin), fix="try again")
        found: Future[Sequence[str]] = Future()

        def look_up() -> None:  # in a thread, because the system's resolver knows no deadline
            try:
                found.set_result(self._resolver(origin.host, origin.port))
            except BaseException as error:  # noqa: BLE001  whatever it is belongs to the caller
                found.set_exception(error)
            finally:
                self._lookups.release()

        threading.Thread(target=look_up, name="egress-resolver", daemon=True).start()
        try:
            resolved = targets.addresses(found.result(deadline.left()))
        except (socket.gaierror, ValueError) as error:
            raise UnavailableError("the name has no address", where=str(origin), fix="check the name") from error
        for address in resolved:
            if not target.admits(address):
                raise DeniedError(
                    f"the name stands for {address}, which is no public address",
                    where=str(origin),
                    fix="if a source is meant to lie there, name its network in BEDPLATE_NETWORKS",
                )
        if not resolved:
            raise UnavailableError("the name has no address", where=str(origin), fix="check the name")
        return resolved

    def _connect(self, origin: Origin, resolved: Sequence[Address], deadline: "_Deadline") -> socket.socket:
        """A connection to the first of the addresses that takes one."""
        last: OSError | None = None
        for address in resolved:
            try:
                patience = min(self._limits.connect, deadline.left())
                # An address in numbers: nothing is looked up again.
                connection = socket.create_connection((str(address), origin.port), patience)
                break
            except OSError as error:
                last = error
                deadline.left()
        else:
            raise UnavailableError("nothing there takes a connection", where=str(origin)) from last
        if origin.scheme == "http":
            return connection
        assert self._tls is not None
        try:
            connection.settimeout(deadline.left())
            return self._tls.wrap_socket(connection, server_hostname=origin.host)
        except BaseException:
            connection.close()
            raise

    # ----------------------------------------------------------------------------------------------- what goes across

    def _exchange(
        self,
        connection: socket.socket,
        origin: Origin,
        call: "_Call",
        address: str,
        deadline: "_Deadline",
        into: IO[bytes] | None,
    ) -> Answer:
        framing = http.client.HTTPConnection(origin.host, origin.port)
        framing.sock = _Wire(connection, deadline)
        lines = {**call.headers, "Host": origin.authority, "Connection": "close", "Accept-Encoding": "identity"}
        sends = call.body or call.method in ("POST", "PUT", "PATCH")
        try:
            framing.request(call.method, call.path or "/", call.body if sends else None, lines)
            response = framing.getresponse()
            most = self._limits.body
            if response.length is not None and response.length > most:
                raise _too_large(origin, most)
            if into is not None and response.status == 200:
                body = _written(response, into, most, origin)
            else:
                body = response.read(most + 1) if into is None else response.read(_TOLD)
            if len(body) > most:
                raise _too_large(origin, most)
            if into is not None and response.status != 200:
                response.length = None  # what an error says beyond that is of no use
            if response.length:  # what was promised and did not come
                raise http.client.IncompleteRead(b"", response.length)
        finally:
            framing.close()
        headers = tuple((name.lower(), value) for name, value in response.getheaders())
        return Answer(status=response.status, headers=headers, body=body, url=call.url, address=address)


class _Call(msgspec.Struct, frozen=True):
    method: str
    url: str
    path: str
    headers: dict[str, str]
    body: bytes


class _Deadline:
    """One moment at which everything ends."""

    def __init__(self, seconds: float) -> None:
        self._end = clock.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then.

        Raises:
            TimeoutError: it has passed.
        """
        left = self._end - clock.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Wire:
    """A connected socket as ``http.client`` uses one, on which all reads and writes together keep one deadline.

    A timeout of the socket itself would begin anew with every byte that a slow server sends.
    """

    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def sendall(self, data: bytes) -> None:
        self._connection.settimeout(self._deadline.left())
        self._connection.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection, self._deadline))

    def close(self) -> None:
        """The socket belongs to the broker."""


class _Reader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: _Deadline) -> None:
        self._connection, self._deadline = connection, deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._connection.settimeout(self._deadline.left())
        return self._connection.recv_into(buffer)


def _headers(method: str, headers: Mapping[str, str]) -> dict[str, str]:
    if method not in _METHODS:
        raise InputError(f"{method[:20]!r} is not a method of outbound calls", fix=f"use {', '.join(_METHODS)}")
    for name, value in headers.items():
        plain = name.isascii() and name.replace("-", "").replace("_", "").isalnum()
        if not plain or not (value.isascii() and (value.isprintable() or not value)):
            raise InputError(f"the header {name[:50]!r} cannot be sent")
        if name.lower() in _OURS:
            raise InputError(f"the header {name} is set by the broker", fix="leave it out")
    return dict(headers)


def _redirected(call: _Call, origin: Origin, location: str) -> _Call:
    try:
        url = urljoin(call.url, location)
        there, path = targets.parse(url)
    except (InputError, ValueError) as error:
        raise UnavailableError("it redirects to what is no address", where=str(origin)) from error
    if there != origin:
        raise DeniedError(
            "it redirects to another origin, which is not followed", where=str(origin), fix="call the other one itself"
        )
    return msgspec.structs.replace(call, url=url, path=path)


def _written(response: http.client.HTTPResponse, into: IO[bytes], most: int, origin: Origin) -> bytes:
    """The body, written as it comes; nothing of it is given back."""
    size = 0
    while block := response.read(1 << 20):
        size += len(block)
        if size > most:
            raise _too_large(origin, most)
        into.write(block)
    return b""


def _too_large(origin: Origin, most: int) -> DeniedError:
    return DeniedError(f"the answer is larger than {most} bytes", where=str(origin), fix="ask for less")
