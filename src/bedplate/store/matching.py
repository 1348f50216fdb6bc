"""Comparisons as SQL that means the same on both databases, every value bound."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store.filters import Comparator
from bedplate.store.schema import HEAD_LENGTH
from bedplate.store.sql import among, param

Condition = ColumnElement[bool]

_COMPARE: dict[str, Callable[[Any, Any], Condition]] = {
    "=": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
}
_GLOB = str.maketrans({"%": "*", "_": "?", "*": "[*]", "?": "[?]", "[": "[[]"})
_LAST = "\U0010ffff"


class Operands(NamedTuple):
    """What is compared with, apart from how: one statement serves all operands of a shape.

    ``low`` and ``high`` are the range of texts that a pattern allows, ``rest`` what a long text has that its index
    leaves out.
    """

    value: Any = None
    low: Any = None
    high: Any = None
    rest: Any = None

    @property
    def shape(self) -> tuple[bool, ...]:
        """Which of them there are."""
        return tuple(each is not None for each in self)

    def named(self, prefix: str) -> "Operands":
        """Parameters in place of the values."""
        names = (f"{prefix}{name}_" for name in self._fields)
        return Operands(*(None if each is None else param(name) for name, each in zip(names, self, strict=True)))

    def bound(self, prefix: str) -> dict[str, Any]:
        """The values of these parameters."""
        return {f"{prefix}{name}_": each for name, each in zip(self._fields, self, strict=True) if each is not None}


Whole = Comparator | Literal["always", "never"]


def text(column: ColumnElement[Any], comparator: Comparator, value: Any, *, postgresql: bool) -> Condition:
    """Compare a text column. LIKE knows % and _ and no escape; ILIKE passes over the case of A to Z alone."""
    return text_with(column, comparator, text_operands(comparator, value, postgresql=postgresql), postgresql=postgresql)


def text_operands(comparator: Comparator, value: Any, *, postgresql: bool) -> Operands:
    """What a text is compared with, as the database takes it."""
    if comparator in ("IN", "NOT IN"):
        return Operands(listed(value, postgresql=postgresql))
    if comparator not in ("LIKE", "ILIKE"):
        return Operands(value)
    low, high = _range(value) if comparator == "LIKE" else (None, None)
    return Operands(value if postgresql or comparator == "ILIKE" else value.translate(_GLOB), low, high)


def text_with(column: ColumnElement[Any], comparator: Comparator, operands: Operands, *, postgresql: bool) -> Condition:
    """As :func:`text`, with operands that are values or parameters."""
    if comparator in ("IN", "NOT IN"):
        found = among(column, operands.value, postgresql=postgresql)
        return found if comparator == "IN" else ~found
    if comparator in ("LIKE", "ILIKE"):
        return sa.and_(*_within(column, operands), _like(column, comparator, operands.value, postgresql))
    return compare(column, comparator, operands.value)


def listed(values: Sequence[str] | Sequence[int], *, postgresql: bool) -> Any:
    """Values as :func:`bedplate.store.sql.among` binds them."""
    return list(values) if postgresql else json.dumps(list(values))


def long_text(table: Any, comparator: Comparator, value: str, *, postgresql: bool) -> Condition:
    """Compare a text of which the beginning is in ``value`` and what a longer one has more is in ``rest``."""
    operands = long_text_operands(comparator, value, postgresql=postgresql)
    return long_text_with(table, comparator, operands, postgresql=postgresql)


def long_text_operands(comparator: Comparator, value: str, *, postgresql: bool) -> Operands:
    """What such a text is compared with, as the database takes it."""
    if comparator in ("LIKE", "ILIKE") or len(value) < HEAD_LENGTH:
        return text_operands(comparator, value, postgresql=postgresql)
    return Operands(value[:HEAD_LENGTH], rest=value[HEAD_LENGTH:])


def long_text_with(table: Any, comparator: Comparator, operands: Operands, *, postgresql: bool) -> Condition:
    """As :func:`long_text`, with operands that are values or parameters."""
    if comparator in ("LIKE", "ILIKE"):
        return sa.or_(*patterns(table, comparator, operands, postgresql=postgresql))
    head, rest = table.c.value, table.c.rest
    if operands.rest is None:  # then only a text without a rest can equal it
        return compare(head, comparator, operands.value)
    if comparator == "=":
        return sa.and_(head == operands.value, rest == operands.rest)
    return sa.or_(head != operands.value, rest != operands.rest)


def patterns(
    table: Any, comparator: Comparator, operands: Operands, *, postgresql: bool
) -> tuple[Condition, Condition]:
    """What a pattern means for texts without a rest, and for those with one: each has an index of its own."""
    head, rest = table.c.value, table.c.rest
    within = _within(head, operands)
    short = sa.and_(sa.func.length(head) < HEAD_LENGTH, *within, _like(head, comparator, operands.value, postgresql))
    whole = head.concat(rest)
    return short, sa.and_(rest.is_not(None), *within, _like(whole, comparator, operands.value, postgresql))


def compare(column: ColumnElement[Any], comparator: str, value: Any) -> Condition:
    """Compare a column with a value, or a parameter, of its own type."""
    return _COMPARE[comparator](column, value)


def real(column: ColumnElement[Any], comparator: Comparator, value: float) -> Condition:
    """Compare a column of floating-point numbers."""
    return compare(column, comparator, float(value))


def whole(column: ColumnElement[Any], comparator: Comparator, value: float) -> Condition:
    """Compare a column of 64-bit integers with any number, by an integer: an index serves, and nothing is rounded."""
    return whole_with(column, *whole_operands(comparator, value))


def whole_operands(comparator: Comparator, value: float) -> tuple[Whole, Operands]:
    """How such a column is compared, and with which integer."""
    if math.isinf(value) or not -(2**63) <= value < 2**63:
        always = comparator in (("<", "<=", "!=") if value > 0 else (">", ">=", "!="))
        return "always" if always else "never", Operands()
    if value == math.floor(value):
        return comparator, Operands(int(value))
    if comparator in ("=", "!="):
        return "always" if comparator == "!=" else "never", Operands()
    return ("<=", Operands(math.floor(value))) if comparator in ("<", "<=") else (">=", Operands(math.ceil(value)))


def whole_with(column: ColumnElement[Any], comparator: Whole, operands: Operands) -> Condition:
    """As :func:`whole`, with an operand that is a value or a parameter."""
    if comparator in ("always", "never"):
        return column.is_not(None) if comparator == "always" else sa.false()
    return compare(column, comparator, operands.value)


def after(pairs: Sequence[tuple[ColumnElement[Any], bool, Any]]) -> Condition:
    """Whether a row comes after one that has these values: (column, ascending, value), the first to order by first."""
    condition: Condition = sa.false()
    for column, ascending, value in reversed(pairs):
        further = column > value if ascending else column < value
        condition = sa.or_(further, sa.and_(column == value, condition))
    # The first follows from the second, but it is what an index can begin at.
    return sa.and_(from_(*pairs[0]), condition) if pairs else condition


def from_(column: ColumnElement[Any], ascending: bool, value: Any) -> Condition:
    """Whether a row is not before those that have this value."""
    condition: Condition = column >= value if ascending else column <= value
    return condition


def _range(pattern: str) -> tuple[str | None, str | None]:
    """What a pattern says about the beginning of a text, as a range that an index can find."""
    literal = pattern[: min((at for at in (pattern.find("%"), pattern.find("_")) if at >= 0), default=None)]
    literal = literal[:HEAD_LENGTH]
    beginning = literal.rstrip(_LAST)
    return literal or None, beginning[:-1] + _next(beginning[-1]) if beginning else None


def _within(column: ColumnElement[Any], operands: Operands) -> list[Condition]:
    above = [] if operands.low is None else [column >= operands.low]
    return above if operands.high is None else [*above, column < operands.high]


def _next(character: str) -> str:
    return "\ue000" if character == "\ud7ff" else chr(ord(character) + 1)  # what lies between is no text


def _like(column: ColumnElement[Any], comparator: str, pattern: Any, postgresql: bool) -> Condition:
    if postgresql:
        return column.ilike(pattern, escape="") if comparator == "ILIKE" else column.like(pattern, escape="")
    # SQLite's LIKE passes over case, and its GLOB writes patterns in another way.
    return column.op("LIKE" if comparator == "ILIKE" else "GLOB", is_comparison=True)(pattern)
