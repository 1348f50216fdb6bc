"""What may be kept in the place of one value that identifies somebody, under HIPAA's Safe Harbor.

Tables and the prediction log go by it alike: what lands of a column is what is logged of an input of its name.
"""

import hmac
import re
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from bedplate import files

PROFILE = "safe-harbor"
Kept: TypeAlias = Literal["value", "code", "zip", "age", "nothing"]
"""What is kept of a column: the value, its keyed code, the first digits of a ZIP code, an age up to 90, or nothing."""
OLDEST = 90
"""Ages above 89 are one: 90."""
SMALL_AREAS = frozenset({
    "036", "059", "063", "102", "203", "556", "692", "790", "821", "823", "830", "831", "878", "879", "884", "890",
    "893",
})  # fmt: skip
"""First three digits of ZIP codes where 20,000 people or fewer live: census of 2000, by the guidance of HHS on
de-identification (26 November 2012)."""


class LogRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the prediction log of a use case that de-identifies may hold: by the names of the contracts' columns, and
    nothing of what has none of them. ``secret`` is the file that the keys of codes are derived from."""

    columns: dict[str, Kept]
    secret: Path


def key_of(secret: Path, use_case: str) -> bytes:
    """What keys the codes of a use case: its own, so that codes of two use cases cannot be joined.

    Raises:
        StorageError: the file cannot be made.
    """
    return hmac.digest(files.secret(secret), use_case.encode(), "sha256")


def code(key: bytes, value: str | None) -> str | None:
    """A pseudonym, 128 bits in hex: the same for the same value under one key (HMAC-SHA-256), whatever blanks stand
    around it, as an erasure looks for it without them."""
    return None if value is None else hmac.digest(key, f"{PROFILE}\0{value.strip()}".encode(), "sha256").hex()[:32]


def zip3(text: str | None) -> str | None:
    """The first three digits, ``000`` where few people live; null where it is no ZIP code."""
    if text is None or not re.fullmatch(r"[0-9]{5}(?:-?[0-9]{4})?", text.strip()):
        return None
    first = text.strip()[:3]
    return "000" if first in SMALL_AREAS else first
