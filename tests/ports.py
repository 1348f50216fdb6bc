"""Ports for servers that must be told one before they start."""

import random
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST, _DEFAULT = 10_000, 32_768


def free(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on now.

    A server binds its port some seconds after it is named here, and until then the kernel may hand a port of its own
    range to an outgoing connection: these are all below that range. They are drawn at random, as two suites may ask.
    """
    below = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else _DEFAULT
    among = range(_LOWEST, below) if below > 2 * _LOWEST else range(_LOWEST, 65_536)
    found: list[int] = []
    for port in random.SystemRandom().sample(among, len(among)):
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                continue
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise OSError("every port of 127.0.0.1 is taken")
