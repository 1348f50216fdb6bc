"""What may be called: origins, and the addresses that they may stand for."""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bedplate.errors import InputError

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")
_PORTS = {"https": 443, "http": 80}
_LONGEST_URL = 8192


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host in lower case, and port: what an allow-list speaks about."""

    scheme: Literal["https", "http"]
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @property
    def authority(self) -> str:
        """Host and port as the ``Host`` header says them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


class Target(msgspec.Struct, frozen=True):
    """An origin that may be called. Its addresses must be public, or lie in one of ``networks`` (``10.1.0.0/16``)."""

    origin: Origin
    networks: tuple[str, ...] = ()

    def admits(self, address: Address) -> bool:
        """Whether a connection may go to ``address``.

        An IPv6 address that carries an IPv4 address (mapped, 6to4) is judged by that one as well; the translated and
        tunnelled forms (NAT64, Teredo) are reserved ranges and need a grant.
        """
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        networks = map(ip_network, self.networks)
        if any(address.version == network.version and address in network for network in networks):
            return True
        inner = address.sixtofour if isinstance(address, IPv6Address) else None
        return is_public(address) and (inner is None or is_public(inner))


def allow(origin: str, *, networks: Sequence[str] = ()) -> Target:
    """The target ``https://host[:port]``, or ``http://``.

    Raises:
        InputError: it is no origin, or one of ``networks`` is none.
    """
    parsed, path = parse(origin)
    if path not in ("", "/"):
        raise InputError("an origin has no path", where=origin, fix=f"write {parsed}")
    for network in networks:
        try:
            ip_network(network)
        except ValueError as error:
            raise InputError(f"{network!r} is not a network: {error}", where=origin, fix="write 10.1.0.0/16") from error
    return Target(parsed, tuple(networks))


def parse(url: str) -> tuple[Origin, str]:
    """The origin of ``url``, and its path with query. There is one reading of a URL, and this is it.

    Raises:
        InputError: it is no absolute http(s) URL, or is one that programs read differently: with a user, a backslash,
            white space, control or non-ASCII characters, or a host that is neither a plain name nor an address.
    """
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or len(url) > _LONGEST_URL:
        raise InputError("the URL holds characters that a URL cannot have, or is too long", where=url[:100])
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        if parts.netloc.startswith("["):
            host = str(IPv6Address(host))
    except ValueError as error:
        raise InputError(f"the URL cannot be read: {error}", where=url[:100]) from error
    if parts.scheme not in _PORTS:
        raise InputError("only http and https can be called", where=url[:100])
    if "@" in parts.netloc:
        raise InputError("a URL with a user is not called", where=str(parts.hostname)[:100], fix="send a header")
    if ":" not in host and (len(host) > 253 or not _NAME.fullmatch(host)):
        raise InputError("the URL names no host", where=url[:100], fix="write https://host/path")
    if port == 0:
        raise InputError("port 0 cannot be called", where=url[:100])
    scheme: Literal["https", "http"] = "https" if parts.scheme == "https" else "http"
    path = parts.path + (f"?{parts.query}" if parts.query else "")
    return Origin(scheme, host, port or _PORTS[scheme]), path


def is_public(address: Address) -> bool:
    """Whether ``address`` is one of the public internet: not private, shared, loopback, link-local, reserved, a group's
    or a documentation's (IANA special-purpose registries, as the standard library has them)."""
    return address.is_global and not (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )


def addresses(texts: Sequence[str]) -> list[Address]:
    """Texts of a resolver as addresses, in their order and once each.

    Raises:
        ValueError: one is none.
    """
    return list(dict.fromkeys(ip_address(text) for text in texts))
