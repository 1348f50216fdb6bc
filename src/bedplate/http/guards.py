"""What protects a server on a local address from pages of other sites: host allow-list, origin check, headers."""

import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from bedplate.http.messages import ProtocolError, Request

LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_PORT = re.compile(r":\d{1,5}\Z")


class HostGuard:
    """Refuses requests for host names that this server does not answer to, which is how DNS rebinding reaches it."""

    def __init__(self, hosts: Iterable[str] = LOOPBACK) -> None:
        self.hosts = frozenset(host.lower() for host in hosts)
        self._seen: set[str] = set()

    def check(self, host: str) -> None:
        """Accept a ``Host`` header, with or without port.

        Raises:
            ProtocolError: 421, the name is missing or not on the list.
        """
        if host in self._seen:
            return
        if _PORT.sub("", host).lower() not in self.hosts:
            raise ProtocolError(421, "this server does not answer to that host name")
        if len(self._seen) < 64:
            self._seen.add(host)


class OriginGuard:
    """Refuses state changes that a page of another site asks for. Clients that are no browser send no ``Origin``."""

    def __init__(self, hosts: HostGuard) -> None:
        self._hosts = hosts

    def check(self, request: Request) -> None:
        """Accept a request.

        Raises:
            ProtocolError: 403, it changes state and comes from another origin.
        """
        if request.method in ("GET", "HEAD"):
            return
        origin = request.headers.get("origin")
        if origin is not None:
            parts = urlsplit(origin) if origin.isprintable() else None
            if parts is None or parts.netloc.lower() != request.host.lower() or parts.scheme not in ("http", "https"):
                raise ProtocolError(403, "a page of another origin may not ask for this")
        elif request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            raise ProtocolError(403, "a page of another origin may not ask for this")


def security_headers(*, page: bool = False) -> list[tuple[str, str]]:
    """Headers that every answer carries; ``page`` adds the content policy of a page that loads only from here.

    What means something for a page only is not sent with others: clients read every line, thousands of times a second.
    """
    headers = [
        ("x-content-type-options", "nosniff"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cache-control", "no-store"),
    ]
    if page:
        policy = (
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
            "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )
        headers += [
            ("content-security-policy", policy),
            ("x-frame-options", "DENY"),
            # Not "no-referrer": with it browsers send "Origin: null" with our own forms, which the guard refuses.
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
        ]
    return headers
