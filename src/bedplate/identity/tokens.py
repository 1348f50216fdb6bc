"""The form of keys, session cookies and login links: ``<prefix>_<id>_<secret>``, the secret 256 random bits."""

import hashlib
import hmac
import secrets
from typing import NamedTuple

from bedplate import ids

_NOBODY = hashlib.sha256(b"").digest()


class Token(NamedTuple):
    """A credential as its holder presents it. Only the hash of ``secret`` is ever kept."""

    prefix: str
    id: str
    secret: str

    def __str__(self) -> str:
        return f"{self.prefix}_{self.id}_{self.secret}"

    def __repr__(self) -> str:
        return f"{self.prefix}_{self.id}_..."  # a log or a traceback must not show the secret

    @property
    def hash(self) -> bytes:
        """What is kept. The secret is random and long, so one round of SHA-256 is enough: nothing can be guessed."""
        return hashlib.sha256(self.secret.encode()).digest()


def new(prefix: str) -> Token:
    """A new credential."""
    return Token(prefix, ids.new_id("x")[2:], secrets.token_urlsafe(32))


def parse(text: str, prefix: str) -> Token | None:
    """The credential in a text, None if it has another form."""
    parts = text.split("_", 2)
    if len(parts) != 3 or parts[0] != prefix or len(text) > 200 or not text.isascii():
        return None
    return Token(*parts)


def matches(token: Token, kept: bytes | None) -> bool:
    """Whether the secret is the kept one. Takes as long for an id that does not exist."""
    return hmac.compare_digest(token.hash, _NOBODY if kept is None else kept) and kept is not None
