"""Ids made by us, digests made by content. Neither is ever built from what a user typed."""

import hashlib
import json
import os
import time
from pathlib import Path
from typing import NewType

import msgspec

Digest = NewType("Digest", str)
"""``sha256:`` and 64 lower-case hexadecimal digits."""

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode
_CROCKFORD = b"0123456789abcdefghjkmnpqrstvwxyz"
_FIVE_BITS = _CROCKFORD * 8
"""The character for each byte: every one stands for eight bytes, so random bytes give evenly random characters."""
_AT_ONCE = 256
_random: list[str] = []
"""Random ends of ids to come; taking one off a list is safe between threads."""
_TWO = tuple(chr(high) + chr(low) for high in _CROCKFORD for low in _CROCKFORD)
"""Ten bits as two characters."""
_moment = (-1, "")
os.register_at_fork(after_in_child=_random.clear)  # or both processes would give the same ids


def new_id(prefix: str) -> str:
    """A new id, ``<prefix>_<26 characters>``: 48 bits of milliseconds, then 80 random bits, so ids sort by time."""
    global _moment
    now = time.time_ns() // 1_000_000
    moment, written = _moment
    if now >> 10 != moment:  # once in a second
        written = "".join([_TWO[now >> shift & 1023] for shift in range(40, 0, -10)])
        _moment = now >> 10, written
    try:
        end = _random.pop()
    except IndexError:
        text = os.urandom(16 * _AT_ONCE).translate(_FIVE_BITS).decode()
        _random.extend([text[at : at + 16] for at in range(16, len(text), 16)])
        end = text[:16]
    return f"{prefix}_{written}{_TWO[now & 1023]}{end}"


def canonical(value: object) -> bytes:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN. Structs become objects first."""
    plain = msgspec.to_builtins(value, str_keys=True)
    return _canonical(plain).encode()


def digest_of(value: object) -> Digest:
    """The digest of a value's canonical JSON."""
    return digest_bytes(canonical(value))


def digest_bytes(data: bytes) -> Digest:
    """The digest of bytes."""
    return Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")


def digest_file(path: Path) -> Digest:
    """The digest of a file's content, read in blocks."""
    with path.open("rb") as file:
        return Digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


def is_digest(text: str) -> bool:
    """Whether ``text`` has the form of a :data:`Digest`."""
    return len(text) == 71 and text.startswith("sha256:") and all(c in "0123456789abcdef" for c in text[7:])
