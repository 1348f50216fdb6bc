"""The little language of the file's ``retrain`` section, read by patterns and never evaluated as code."""

import difflib
import re
from typing import Literal

import msgspec

from bedplate.errors import InputError

_UNITS = {"min": 60.0, "h": 3600.0, "d": 86400.0, "weeks": 604800.0, "w": 604800.0}
_LARGEST = 1e15
"""No count of rows, no age in seconds and no factor is larger: a threshold that is never reached is a slip."""
_ALLOWED = ("drift", "quality", "new_rows >= NUMBER", "every NUMBER d")


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of ``when``. ``threshold`` is rows for ``new_rows``, seconds for ``age``, unused for the others."""

    text: str
    signal: Literal["drift", "quality", "new_rows", "age"]
    operator: Literal[">=", ">"] = ">="
    threshold: float = 0.0


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """The entry ``if``: ``expected_gain > factor * cost``, or ``always`` (factor None)."""

    text: str
    factor: float | None


def parse(text: str) -> Condition:
    """Read one entry of ``when``.

    Raises:
        InputError: it is none; says what is allowed and the nearest.
    """
    plain = " ".join(text.split())
    if plain == "drift":
        return Condition(text=plain, signal="drift")
    if plain == "quality":
        return Condition(text=plain, signal="quality")
    if found := re.fullmatch(r"new_rows (>=|>) ?([0-9]+(?:[_,][0-9]{3})*)", re.sub(r"\s*(>=|>)\s*", r" \1 ", plain)):
        rows = _number(re.sub("[_,]", "", found[2]), plain)
        return Condition(text=plain, signal="new_rows", operator=">" if found[1] == ">" else ">=", threshold=rows)
    if found := re.fullmatch(r"every ([0-9]+(?:\.[0-9]+)?) ?([a-z]+)", plain):
        if found[2] in _UNITS and _number(found[1], plain) > 0:
            return Condition(text=plain, signal="age", threshold=_number(found[1], plain) * _UNITS[found[2]])
        raise InputError(f"{plain!r} is no age", fix=f"write every NUMBER and one of {', '.join(_UNITS)}")
    near = difflib.get_close_matches(plain.split(" ")[0] if plain else "", ["drift", "quality", "new_rows", "every"], 1)
    raise InputError(
        f"{text!r} is not a reason to retrain",
        where="retrain.when",
        fix=f"use {', '.join(_ALLOWED)}" + (f"; did you mean {near[0]}?" if near else ""),
    )


def parse_worth(text: str) -> Worth:
    """Read the entry ``if``.

    Raises:
        InputError: it is not ``always`` or ``expected_gain > [NUMBER *] cost``.
    """
    plain = " ".join(text.split())
    if plain == "always":
        return Worth(text=plain, factor=None)
    found = re.fullmatch(r"expected_gain ?> ?(?:([0-9]+(?:\.[0-9]+)?) ?\* ?)?cost", plain)
    if not found:
        raise InputError(
            f"{text!r} is not a condition",
            where="retrain.if",
            fix="write expected_gain > cost, a factor before cost, or always",
        )
    return Worth(text=plain, factor=_number(found[1], plain) if found[1] else 1.0)


def _number(digits: str, text: str) -> float:
    number = float(digits)
    if number > _LARGEST:
        raise InputError(f"the number in {text[:40]!r} is too large", where="retrain", fix=f"stay below {_LARGEST:g}")
    return number
