"""The Python environment as a value: which distributions were installed, and one digest over them."""

import platform
from functools import cache
from importlib import metadata

from bedplate.ids import Digest, digest_of


@cache
def installed() -> dict[str, str]:
    """Name and version of every installed distribution, and of Python itself; read once in a process."""
    found = {distribution.name.lower(): distribution.version for distribution in metadata.distributions()}
    return {"python": platform.python_version(), **dict(sorted(found.items()))}


def environment_digest() -> Digest:
    """The digest of :func:`installed` and of the platform: two runs with the same one had the same libraries."""
    return digest_of({"distributions": installed(), "machine": platform.machine(), "system": platform.system()})
