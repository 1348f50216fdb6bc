"""Requests and responses, whatever server carried them, and JSON that is bounded before it is parsed."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from bedplate.errors import BedplateError, InputError

T = TypeVar("T")

_BRACES = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class ProtocolError(InputError):
    """The request breaks a rule of HTTP or a limit of its route; ``status`` is the answer."""

    code = "protocol"

    def __init__(
        self, status: int, message: str, *, fix: str | None = None, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message, fix=fix)
        self.status = status
        self.headers = headers


class Response(msgspec.Struct, kw_only=True):
    """An answer: ``body`` as bytes, or ``stream`` as pieces that are sent when they come.

    The next piece is not asked for before there is room for it on the way to the client.
    """

    status: int = 200
    headers: list[tuple[str, str]] = []
    body: bytes = b""
    stream: AsyncIterator[bytes] | None = None

    @classmethod
    def json(cls, value: object, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> "Response":
        """``value`` as JSON."""
        lines = [("content-type", "application/json"), *headers]
        return cls(status=status, headers=lines, body=msgspec.json.encode(value))

    @classmethod
    def html(cls, text: str, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> "Response":
        """``text`` as a page."""
        lines = [("content-type", "text/html; charset=utf-8"), *headers]
        return cls(status=status, headers=lines, body=text.encode())

    @classmethod
    def text(cls, text: str, status: int = 200, content_type: str = "text/plain; charset=utf-8") -> "Response":
        """``text`` as it is."""
        return cls(status=status, headers=[("content-type", content_type)], body=text.encode())

    @classmethod
    def redirect(cls, path: str, status: int = 303) -> "Response":
        """A redirect within this server; ``path`` must be absolute and may not name another host."""
        if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(c) < 33 for c in path):
            raise ValueError(f"{path!r} leaves this server")
        return cls(status=status, headers=[("location", path)])

    @classmethod
    def error(cls, error: BedplateError) -> "Response":
        """The JSON form of an error under its status."""
        if isinstance(error, ProtocolError):
            return cls.json(error.to_dict(), error.status, error.headers)
        return cls.json(error.to_dict(), error.http_status)


class Request:
    """A request. ``body`` stays empty until the caller was authenticated and authorised.

    On routes that stream it stays empty, and ``pieces`` hands it over as it arrives. ``path`` was percent-decoded once
    by the server; header names are lower case. ``params``, ``principal`` and ``decision`` are filled in by
    :func:`bedplate.http.dispatch`.
    """

    __slots__ = (
        "body",
        "decision",
        "depth",
        "headers",
        "method",
        "params",
        "path",
        "pieces",
        "principal",
        "query_string",
        "read",
        "route",
        "state",
        "stream",
        "unread",
    )

    def __init__(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        query_string: str = "",
        body: bytes = b"",
        read: Callable[[int, float], Awaitable[bytes]] | None = None,
        stream: Callable[[int, float], AsyncIterator[bytes]] | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.headers: Mapping[str, str] = headers or {}
        self.query_string = query_string
        self.body = body
        # read(most bytes, most seconds) fetches the body from the connection; None: `body` holds it already
        self.read = read
        # stream(most bytes, most seconds for each piece) hands it over in pieces instead, on routes that ask for it
        self.stream = stream
        self.pieces: AsyncIterator[bytes] | None = None
        # whether there is a body on the connection that was not received to its end
        self.unread = False
        self.depth = 64
        self.params: dict[str, Any] = {}
        self.principal: Any = None
        self.decision: Any = None
        self.route: Any = None
        self.state: dict[str, Any] = {}

    def open_stream(self, most: int, seconds: float) -> None:
        """Let ``pieces`` hand the body over as it arrives; :func:`bedplate.http.dispatch` calls it once.

        Raises:
            ProtocolError: 413, the body is declared or known to be larger than ``most`` bytes.
        """
        if self.stream is not None:
            self.pieces = self.stream(most, seconds)
        elif len(self.body) > most:
            raise ProtocolError(413, f"the body is larger than {most} bytes")
        else:
            self.pieces = _whole(self.body)

    @property
    def host(self) -> str:
        """The host the client named, as it wrote it."""
        return self.headers.get("host", "")

    @property
    def query(self) -> dict[str, str]:
        """The query parameters.

        Raises:
            ProtocolError: 400, one is given twice or there are more than 100.
        """
        try:
            pairs = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=100, errors="strict")
        except (ValueError, UnicodeDecodeError) as error:
            raise ProtocolError(400, "the query string cannot be read") from error
        values = dict(pairs)
        if len(values) != len(pairs):
            raise ProtocolError(400, "a query parameter is given twice")
        return values

    @property
    def query_lists(self) -> dict[str, list[str]]:
        """The query parameters of a protocol in which one may be given several times.

        Raises:
            ProtocolError: 400, there are more than 10,000, or the text cannot be read.
        """
        try:
            pairs = parse_qsl(self.query_string, keep_blank_values=True, max_num_fields=10_000, errors="strict")
        except (ValueError, UnicodeDecodeError) as error:
            raise ProtocolError(400, "the query string cannot be read") from error
        values: dict[str, list[str]] = {}
        for name, value in pairs:
            values.setdefault(name, []).append(value)
        return values

    def cookie(self, name: str) -> str | None:
        """The value of a cookie, taken literally."""
        for part in self.headers.get("cookie", "").split(";"):
            key, found, value = part.strip().partition("=")
            if found and key == name:
                return value
        return None

    @property
    def bearer(self) -> str | None:
        """The token of an ``Authorization: Bearer`` header."""
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() or None if kind.lower() == "bearer" else None

    @property
    def basic(self) -> tuple[str, str] | None:
        """User and password of an ``Authorization: Basic`` header; None if there is none that can be read."""
        kind, _, encoded = self.headers.get("authorization", "").partition(" ")
        if kind.lower() != "basic":
            return None
        try:
            user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode("utf-8").partition(":")
        except ValueError:
            return None
        return (user, password) if colon else None

    def json(self, of: type[T]) -> T:
        """The body as a ``of``, refused before parsing when it nests deeper than the route allows.

        Raises:
            ProtocolError: 400, with what does not fit.
        """
        return decode_json(self.body, of, self.depth)

    def form(self) -> dict[str, str]:
        """The body as ``application/x-www-form-urlencoded`` fields, each given once.

        Raises:
            ProtocolError: 400 or 415.
        """
        if self.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
            raise ProtocolError(415, "a form is expected", fix="send application/x-www-form-urlencoded")
        try:
            pairs = parse_qsl(self.body.decode("ascii"), keep_blank_values=True, max_num_fields=100, errors="strict")
        except ValueError as error:
            raise ProtocolError(400, "the form cannot be read") from error
        fields = dict(pairs)
        if len(fields) != len(pairs):
            raise ProtocolError(400, "a form field is given twice")
        return fields


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    if body:
        yield body


def too_deep(body: bytes | bytearray, limit: int) -> bool:
    """Whether JSON nests deeper than ``limit``. Never recursive; brackets inside strings do not count."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    brackets = b"".join(unescaped.split(b'"')[::2]).translate(_BRACES, _NOT_BRACKETS)
    for _ in range(limit):  # each pass takes away the innermost level
        if not brackets:
            return False
        brackets = brackets.replace(b"[]", b"")
    return bool(brackets)


def decode_json(body: bytes, of: type[T], depth: int = 64) -> T:
    """``body`` as a ``of``.

    Raises:
        ProtocolError: 400; it is not JSON, nests deeper than ``depth``, or does not fit the type.
    """
    if too_deep(body, depth):
        raise ProtocolError(400, f"the JSON nests deeper than {depth} levels")
    try:
        return msgspec.json.decode(body, type=of)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError(400, f"the body does not fit: {error}") from error
