"""Page tokens: where a page ended, bound to the query that it was a page of.

A token holds values of the row it ended at, which its reader saw. Nothing is let through by it: the query that it comes
back with is decided on and run like any other.
"""

import base64
import hashlib
from typing import Any

import msgspec

from bedplate.errors import InputError
from bedplate.store.filters import is_storable


def token(query: tuple[Any, ...], position: tuple[Any, ...] | None) -> str | None:
    """The token of the page after ``position``; None if there is no such page."""
    if position is None:
        return None
    return base64.urlsafe_b64encode(msgspec.msgpack.encode((_digest(query), position))).decode()


def position(query: tuple[Any, ...], given: str | None) -> tuple[Any, ...] | None:
    """Where the page begins that a token asks for; None for the first page.

    Raises:
        InputError: it is no token, or one of another query.
    """
    if not given:
        return None
    try:
        digest, values = msgspec.msgpack.decode(
            base64.b64decode(given.encode(), altchars=b"-_", validate=True), type=tuple[bytes, tuple[Any, ...]]
        )
    except (ValueError, msgspec.DecodeError) as error:
        raise unfit() from error
    if not all(map(_is_value, values)):
        raise unfit()
    if digest != _digest(query):
        raise InputError(
            "the page token belongs to another query", fix="repeat the query of the page before, with its token"
        )
    return values


def unfit() -> InputError:
    """What a page token is answered with that we did not make, or that was changed."""
    return InputError("this is no page token", fix="take the token of the page before, unchanged")


def _is_value(value: Any) -> bool:
    """Whether a row of a database can hold it."""
    if isinstance(value, str):
        return is_storable(value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return value is None or (isinstance(value, float) and value == value)


def _digest(query: tuple[Any, ...]) -> bytes:
    return hashlib.sha256(msgspec.msgpack.encode(query)).digest()[:12]
