"""Quantities with units: ``20 ms``, ``500/s``, ``99.9 %``, ``4 GiB``, ``2000 USD``, ``92000 items``.

A number without its unit is refused wherever a unit could be mistaken; what is kept is always in the base unit.
"""

import math
import re
from decimal import Decimal
from typing import NamedTuple

from bedplate.usecase.problems import listing, nearest

_NUMBER = r"[+-]?(?:\d[\d_]*(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
_SPLIT = re.compile(rf"\s*({_NUMBER})\s*(.*?)\s*", re.DOTALL)


class Kind(NamedTuple):
    """One kind of quantity: what it is called, its units as factors to the base unit, and examples."""

    title: str
    units: dict[str, float]
    examples: tuple[str, ...]
    bare: bool = False
    """Whether a plain number is allowed: only where no unit could be meant."""


KINDS: dict[str, Kind] = {
    "duration": Kind(
        "a time with its unit",
        {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0},
        ("20 ms", "5 s", "14 d"),
    ),
    "rate": Kind(
        "a rate with its unit", {"/s": 1.0, "/min": 1 / 60, "/h": 1 / 3600, "/d": 1 / 86400}, ("500/s", "30/min")
    ),
    "size": Kind(
        "a size with its unit",
        {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
        | {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40},
        ("4 GiB", "200 MB"),
    ),
    "share": Kind("a share in percent", {"%": 0.01}, ("99.9 %", "20 %")),
    "count": Kind(
        "a whole number",
        dict.fromkeys(
            (
                *("items", "rows", "users", "households", "products", "requests", "predictions", "cores", "replicas"),
                *("tokens", "sequences", "images", "epochs"),
            ),
            1.0,
        ),
        ("92000 items", "2"),
        bare=True,
    ),
}

CURRENCIES = ("USD", "EUR", "GBP", "CHF", "CAD", "AUD", "JPY", "SEK", "NOK", "DKK", "PLN", "CZK", "INR", "BRL", "SGD")
"""Currencies an amount may be in (ISO 4217)."""


class QuantityError(ValueError):
    """The text is not such a quantity; ``allowed`` says what would be, ``suggestion`` what was probably meant."""

    def __init__(self, message: str, allowed: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.allowed = allowed
        self.suggestion = suggestion


def parse(text: str, kind: str) -> float:
    """The quantity in its base unit: seconds, per second, bytes, fraction of one, or a count.

    Raises:
        QuantityError: no number, no unit, a wrong unit, negative, or not finite.
    """
    spec = KINDS[kind]
    allowed = f"{spec.title} ({listing(spec.units)}), for example {spec.examples[0]}"
    number, unit = _split(text, allowed)
    if not unit:
        if not spec.bare:
            guess = next(iter(spec.units)) if kind == "share" else None
            raise QuantityError(f"{text!r} has no unit", allowed, f"{text.strip()} {guess}" if guess else None)
        factor = 1.0
    elif unit in spec.units:
        factor = spec.units[unit]
    else:
        near = _nearest_unit(unit, spec.units)
        amount = text[: text.rindex(unit)].rstrip()
        gap = "" if kind == "rate" else " "
        raise QuantityError(
            f"{unit!r} is not a unit of {spec.title.removeprefix('a ').removesuffix(' with its unit')}",
            allowed,
            f"{amount}{gap}{near}" if near else None,
        )
    value = float(Decimal(str(number)) / 100) if unit == "%" else number * factor  # 99.9 * 0.01 is not 0.999
    if not math.isfinite(value):
        raise QuantityError(f"{text!r} is too large", allowed)
    if value < 0:
        raise QuantityError(f"{text!r} is below zero", allowed)
    return value


def parse_whole(text: str, kind: str) -> int:
    """:func:`parse`, for quantities that are whole: sizes and counts."""
    value = parse(text, kind)
    if abs(value - round(value)) > 1e-9 * max(1.0, value):
        raise QuantityError(f"{text!r} is not whole", f"a whole number, for example {KINDS[kind].examples[0]}")
    return round(value)


def parse_money(text: str) -> tuple[float, str]:
    """An amount and its currency, from ``2000 USD``.

    Raises:
        QuantityError: no number, no currency, one we do not know, or below zero.
    """
    allowed = "an amount and its currency, for example 2000 USD"
    number, unit = _split(text, allowed)
    if unit not in CURRENCIES:
        near = {"$": "USD", "€": "EUR", "£": "GBP", "": None}.get(unit) if unit in "$€£" else nearest(unit, CURRENCIES)
        message = f"{unit!r} is not a currency" if unit else f"{text!r} has no currency"
        raise QuantityError(
            message, f"{allowed}; one of {', '.join(CURRENCIES)}", f"{number:g} {near}" if near else None
        )
    if number < 0:
        raise QuantityError(f"{text!r} is below zero", allowed)
    return number, unit


def _split(text: str, allowed: str) -> tuple[float, str]:
    match = _SPLIT.fullmatch(text)
    if match is None:
        comma = re.fullmatch(r"\s*\d{1,3}(,\d{3})+(\D.*)?", text)
        raise QuantityError(f"{text!r} does not start with a number", allowed, text.replace(",", "") if comma else None)
    digits, unit = match.groups()
    try:
        number = float(digits)
    except ValueError:  # 1__0
        raise QuantityError(f"{digits!r} is not a number", allowed) from None
    if not math.isfinite(number):
        raise QuantityError(f"{digits!r} is too large", allowed)
    return number, unit


_OTHER_NAMES = {
    "sec": "s", "secs": "s", "second": "s", "seconds": "s", "msec": "ms", "millisecond": "ms", "milliseconds": "ms",
    "minute": "min", "minutes": "min", "m": "min", "mins": "min", "hour": "h", "hours": "h", "hr": "h", "hrs": "h",
    "day": "d", "days": "d", "week": "w", "weeks": "w", "µs": "us", "μs": "us", "usec": "us",
    "percent": "%", "pct": "%", "rps": "/s", "qps": "/s", "/sec": "/s", "/second": "/s", "per second": "/s",
    "/m": "/min", "kb": "kB", "KB": "kB", "Gi": "GiB", "Mi": "MiB", "G": "GB", "M": "MB", "bytes": "B", "byte": "B",
}  # fmt: skip


def _nearest_unit(unit: str, units: dict[str, float]) -> str | None:
    other = _OTHER_NAMES.get(unit) or _OTHER_NAMES.get(unit.lower())
    return other if other in units else nearest(unit, units)
