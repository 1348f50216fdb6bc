"""Conditions on columns as Arrow expressions and as SQL: the same rows either way. Values are bound, names quoted."""

import functools
import operator
import re
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import duck
from bedplate.policy.filters import (
    All,
    Any_,
    Attribute,
    Column,
    Compare,
    Condition,
    Constant,
    Known,
    Like,
    Not,
    OneOf,
    Present,
    Value,
)

_ARROW: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NAME_OR_PLACE = re.compile(r'"(?:[^"]|"")*"|\?')
_SQL = {"==": "=", "!=": "<>", "<": "<", "<=": "<=", ">": ">", ">=": ">="}


def attributes(schema: pa.Schema, required: Iterable[str] = ()) -> dict[str, Attribute]:
    """The columns that row policies can speak of: whole numbers, text and truth values. Others stay unknown to them.

    So do unsigned numbers of 64 bits: policies have none beyond 63.
    """
    needed = set(required)
    found: dict[str, Attribute] = {}
    for field in schema:
        if pa.types.is_integer(field.type) and not pa.types.is_uint64(field.type):
            found[field.name] = Attribute("Long", field.name in needed)
        elif pa.types.is_string(field.type):
            found[field.name] = Attribute("String", field.name in needed)
        elif pa.types.is_boolean(field.type):
            found[field.name] = Attribute("Bool", field.name in needed)
    return found


def arrow(condition: Condition) -> pc.Expression:
    """The condition as an Arrow expression, to be given to a scan."""
    match condition:
        case Constant(holds):
            return pc.scalar(holds)
        case Column(name):
            return pc.field((name,))
        case Present(name):
            return ~pc.field((name,)).is_null()
        case Compare(op, left, right):
            return _ARROW[op](_operand(left), _operand(right))
        case OneOf(Column(name), values):
            return functools.reduce(operator.or_, (pc.field((name,)) == v for v in values), _no(pc.field((name,))))
        case Like(Column(name), pattern):
            text = "".join(".*" if part is None else _literal(part) for part in pattern)
            return pc.match_substring_regex(pc.field((name,)), rf"(?s)\A{text}\z")
        case Not(of):
            return ~arrow(of)
        case All(parts):
            return functools.reduce(operator.and_, map(arrow, parts), pc.scalar(True))
        case Any_(parts):
            return functools.reduce(operator.or_, map(arrow, parts), pc.scalar(False))
        case Known(of, otherwise):
            return pc.coalesce(arrow(of), pc.scalar(otherwise))
    raise AssertionError(condition)


def words(condition: Condition) -> str:
    """The condition as SQL with its values in place, to be read by people and never run."""
    text, values = sql(condition)
    left = iter(values)
    return _NAME_OR_PLACE.sub(lambda found: repr(next(left)) if found[0] == "?" else found[0], text)


def sql(condition: Condition) -> tuple[str, list[Any]]:
    """The condition as DuckDB SQL, and the values of its parameters in order."""
    match condition:
        case Constant(holds):
            return ("TRUE" if holds else "FALSE"), []
        case Column(name):
            return duck.quote(name), []
        case Present(name):
            return f"({duck.quote(name)} IS NOT NULL)", []
        case Compare(op, left, right):
            sides = [_side(left), _side(right)]
            return f"({sides[0][0]} {_SQL[op]} {sides[1][0]})", [*sides[0][1], *sides[1][1]]
        case OneOf(Column(name), values):
            if not values:
                return f"({duck.quote(name)} <> {duck.quote(name)})", []
            return f"({duck.quote(name)} IN ({', '.join('?' * len(values))}))", list(values)
        case Like(Column(name), pattern):
            text = "".join("%" if part is None else _escaped(part) for part in pattern)
            return f"({duck.quote(name)} LIKE ? ESCAPE '\\')", [text]
        case Not(of):
            inner, bound = sql(of)
            return f"(NOT {inner})", bound
        case All(parts):
            return _joined(" AND ", "TRUE", parts)
        case Any_(parts):
            return _joined(" OR ", "FALSE", parts)
        case Known(of, otherwise):
            inner, bound = sql(of)
            return f"coalesce({inner}, {'TRUE' if otherwise else 'FALSE'})", bound
    raise AssertionError(condition)


def _joined(word: str, neutral: str, parts: Iterable[Condition]) -> tuple[str, list[Any]]:
    found = [sql(part) for part in parts]
    bound = [value for _, values in found for value in values]
    return f"({word.join(text for text, _ in found)})" if found else neutral, bound


def _operand(side: Column | Value) -> Any:
    return pc.field((side.name,)) if isinstance(side, Column) else pc.scalar(side.value)


def _side(side: Column | Value) -> tuple[str, list[Any]]:
    return (duck.quote(side.name), []) if isinstance(side, Column) else ("?", [side.value])


def _no(field: pc.Expression) -> pc.Expression:
    """False, and unknown where the column is null."""
    return field != field


def _literal(text: str) -> str:
    """``text`` in a regular expression: everything but letters and digits by its code point."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):x}}}" for c in text)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
