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
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [
    high + low for high in _CROCKFORD for low in _CROCKFORD
]  # two characters at once: ids are made per prediction


def new_id(prefix: str) -> str:
    """A new id, ``<prefix>_<26 characters>``: 48 bits of milliseconds, then 80 random bits, so ids sort by time."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(120, -1, -10)]
    return f"{prefix}_{''.join(pairs)}"


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
