"""Comparisons as SQL that means the same on both databases, every value bound."""

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql.elements import ColumnElement

from bedplate.store.filters import Comparator
from bedplate.store.schema import HEAD_LENGTH

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


def text(column: ColumnElement[Any], comparator: Comparator, value: Any, *, postgresql: bool) -> Condition:
    """Compare a text column. LIKE knows % and _ and no escape; ILIKE passes over the case of A to Z alone."""
    if comparator in ("IN", "NOT IN"):
        found = among(column, value, postgresql=postgresql)
        return found if comparator == "IN" else ~found
    if comparator in ("LIKE", "ILIKE"):
        return sa.and_(*_prefix(column, comparator, value), _like(column, comparator, value, postgresql))
    return _COMPARE[comparator](column, value)


def among(column: ColumnElement[Any], values: Sequence[str] | Sequence[int], *, postgresql: bool) -> Condition:
    """Whether a column has one of these values. They are bound as one: a database takes so many values, and no more."""
    if postgresql:
        return column == sa.any_(sa.literal(list(values), sa.ARRAY(column.type)))
    listed = sa.func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(sa.select(listed.c.value))


def long_text(table: Any, comparator: Comparator, value: str, *, postgresql: bool) -> Condition:
    """Compare a text of which the beginning is in ``value`` and what a longer one has more is in ``rest``."""
    if comparator in ("LIKE", "ILIKE"):
        return sa.or_(*patterns(table, comparator, value, postgresql=postgresql))
    head, rest = table.c.value, table.c.rest
    if len(value) < HEAD_LENGTH:  # then only a text without a rest can equal it
        return _COMPARE[comparator](head, value)
    if comparator == "=":
        return sa.and_(head == value[:HEAD_LENGTH], rest == value[HEAD_LENGTH:])
    return sa.or_(head != value[:HEAD_LENGTH], rest != value[HEAD_LENGTH:])


def patterns(table: Any, comparator: Comparator, pattern: str, *, postgresql: bool) -> tuple[Condition, Condition]:
    """What a pattern means for texts without a rest, and for those with one: each has an index of its own."""
    head, rest = table.c.value, table.c.rest
    prefix = _prefix(head, comparator, pattern)
    short = sa.and_(sa.func.length(head) < HEAD_LENGTH, *prefix, _like(head, comparator, pattern, postgresql))
    whole = head.concat(rest)
    return short, sa.and_(rest.is_not(None), *prefix, _like(whole, comparator, pattern, postgresql))


def real(column: ColumnElement[Any], comparator: Comparator, value: float) -> Condition:
    """Compare a column of floating-point numbers."""
    return _COMPARE[comparator](column, float(value))


def whole(column: ColumnElement[Any], comparator: Comparator, value: float) -> Condition:
    """Compare a column of 64-bit integers with any number, by an integer: an index serves, and nothing is rounded."""
    if math.isinf(value) or not -(2**63) <= value < 2**63:
        always = comparator in (("<", "<=", "!=") if value > 0 else (">", ">=", "!="))
        return column.is_not(None) if always else sa.false()
    if value == math.floor(value):
        return _COMPARE[comparator](column, int(value))
    if comparator in ("=", "!="):
        return column.is_not(None) if comparator == "!=" else sa.false()
    return column <= math.floor(value) if comparator in ("<", "<=") else column >= math.ceil(value)


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


def _prefix(column: ColumnElement[Any], comparator: str, pattern: str) -> list[Condition]:
    """What a pattern says about the beginning of a text, as a range that an index can find."""
    if comparator != "LIKE":
        return []
    literal = pattern[: min((at for at in (pattern.find("%"), pattern.find("_")) if at >= 0), default=None)]
    literal = literal[:HEAD_LENGTH]
    if not literal:
        return []
    bounds: list[Condition] = [column >= literal]
    beginning = literal.rstrip(_LAST)
    if beginning:
        bounds.append(column < beginning[:-1] + _next(beginning[-1]))
    return bounds


def _next(character: str) -> str:
    return "\ue000" if character == "\ud7ff" else chr(ord(character) + 1)  # what lies between is no text


def _like(column: ColumnElement[Any], comparator: str, pattern: str, postgresql: bool) -> Condition:
    if postgresql:
        return column.ilike(pattern, escape="") if comparator == "ILIKE" else column.like(pattern, escape="")
    if comparator == "ILIKE":
        return column.op("LIKE", is_comparison=True)(pattern)  # SQLite's own passes over case
    return column.op("GLOB", is_comparison=True)(pattern.translate(_GLOB))
