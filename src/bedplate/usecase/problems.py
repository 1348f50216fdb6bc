"""One problem of a file: where it stands, what was found, what is allowed, and the nearest valid word."""

import difflib
from collections.abc import Iterable
from typing import cast

import msgspec

from bedplate.errors import UseCaseError

Keys = tuple[str | int, ...]
"""A way into the file: keys of mappings and positions in lists."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. ``line`` and ``column`` count from 1."""

    line: int
    column: int
    path: str
    found: str
    allowed: str
    nearest: str | None
    message: str

    def __str__(self) -> str:
        text = f"line {self.line}, column {self.column}: {self.message}"
        if self.allowed:
            text += f"; allowed: {self.allowed}"
        if self.nearest:
            text += f"; did you mean {self.nearest!r}?"
        return text


def problems(error: UseCaseError) -> tuple[Problem, ...]:
    """Every problem that an error carries."""
    return cast("tuple[Problem, ...]", error.problems)


def path_text(keys: Keys) -> str:
    """``("data", "sales", 0)`` as ``data.sales[0]``."""
    text = ""
    for key in keys:
        text += f"[{key}]" if isinstance(key, int) else f".{key}" if text else key
    return text


def nearest(word: str, allowed: Iterable[str]) -> str | None:
    """The allowed word most like ``word``, if any is alike enough to be a slip of the hand."""
    candidates = list(allowed)
    folded = {candidate.lower(): candidate for candidate in candidates}
    found = difflib.get_close_matches(word.lower(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def listing(words: Iterable[str], joint: str = "or") -> str:
    """``a, b or c``."""
    items = list(words)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {joint} {items[-1]}" if items else ""


def shown(text: str) -> str:
    """What was found, short enough for one line of a message."""
    flat = " ".join(text.split())
    return flat if len(flat) <= 60 else f"{flat[:57]}..."
