"""What every store asks of namespaces and keys."""

from collections.abc import Callable, Iterable

from bedplate.errors import InputError

MAX_KEY = 400
Get = Callable[[bytes], bytes | None]
"""Gives the value under a key of one namespace, or None."""


def check_namespace(namespace: str) -> None:
    """Refuse a namespace without a name.

    Raises:
        InputError: this is one.
    """
    if not namespace:
        raise InputError("a namespace of online features needs a name")


def check_keys(keys: Iterable[bytes]) -> None:
    """Refuse keys that not every store can hold.

    Raises:
        InputError: one is empty or longer than :data:`MAX_KEY` bytes.
    """
    for key in keys:
        if not 1 <= len(key) <= MAX_KEY:
            raise InputError(f"an online key has 1 to {MAX_KEY} bytes, not {len(key)}")
