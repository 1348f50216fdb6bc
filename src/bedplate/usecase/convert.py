"""Nodes to the typed structs of :mod:`bedplate.usecase.types`, collecting every problem on the way."""

import math
import re
from functools import cache
from typing import Any

from msgspec import inspect

from bedplate.usecase import quantities
from bedplate.usecase.nodes import Node
from bedplate.usecase.problems import Keys, Problem, listing, nearest, path_text, shown
from bedplate.usecase.types import Money

_INTEGER = re.compile(r"[+-]?\d[\d_]*")
_DECIMAL = re.compile(r"[+-]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")

BROKEN: Any = object()
"""Stands for a value that could not be read; its problem is already noted."""


class Reading:
    """What could be read so far: values by path, and problems."""

    def __init__(self, root: Node, problems: list[Problem]) -> None:
        self.root = root
        self.values: dict[Keys, Any] = {}
        self.problems = problems

    def get(self, *keys: str | int) -> Any:
        """The value at a path, or None if the file does not have it or it could not be read."""
        return self.values.get(keys)

    def note(
        self, keys: Keys, message: str, *, allowed: str = "", found: str | None = None, suggestion: str | None = None
    ) -> None:
        """Note a problem at a path; its position is that of the value, or of the nearest parent that exists."""
        node = self.root.at(keys)
        line, column = (node.line, node.column) if node is not None else self.root.position(keys)
        if found is None:
            found = shown(node.text) if node is not None and node.kind == "scalar" else ""
        self.problems.append(
            Problem(
                line=line, column=column, path=path_text(keys), found=found, allowed=allowed, nearest=suggestion,
                message=message,
            )
        )  # fmt: skip


@cache
def _described(cls: type) -> inspect.Type:
    return inspect.type_info(cls)


def convert(reading: Reading, cls: type) -> Any:
    """The whole tree as ``cls``, or :data:`BROKEN` if anything in it could not be read."""
    return _value(reading, reading.root, (), _described(cls))


def _value(reading: Reading, node: Node, keys: Keys, kind: inspect.Type) -> Any:
    value = _dispatch(reading, node, keys, kind)
    if value is not BROKEN:
        reading.values[keys] = value
    return value


def _dispatch(reading: Reading, node: Node, keys: Keys, kind: inspect.Type) -> Any:
    if isinstance(kind, inspect.UnionType):  # only `X | None` occurs
        if _is_null(node):
            return None
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    if isinstance(kind, inspect.Metadata):
        quantity = (kind.extra_json_schema or {}).get("quantity")
        if isinstance(quantity, str):
            return _quantity(reading, node, keys, quantity, whole=isinstance(kind.type, inspect.IntType))
        return _dispatch(reading, node, keys, kind.type)
    if isinstance(kind, inspect.StructType):
        return _money(reading, node, keys) if kind.cls is Money else _struct(reading, node, keys, kind)
    if isinstance(kind, inspect.VarTupleType):
        return _tuple(reading, node, keys, kind)
    if isinstance(kind, inspect.DictType):
        return _dict(reading, node, keys, kind)
    if isinstance(kind, inspect.AnyType):
        return _any(reading, node, keys)
    return _scalar(reading, node, keys, kind)


def _struct(reading: Reading, node: Node, keys: Keys, kind: inspect.StructType) -> Any:
    fields = {field.encode_name: field for field in kind.fields}
    if node.kind != "mapping":
        reading.note(keys, f"{_name(keys)} must be a section", allowed=f"a mapping with {listing(fields)}")
        return BROKEN
    broken = False
    for key in node.entries:
        if key not in fields:
            line, column = node.key_lines[key]
            reading.problems.append(
                Problem(
                    line=line, column=column, path=path_text((*keys, key)), found=shown(key), allowed=listing(fields),
                    nearest=nearest(key, [f for f in fields if f not in node.entries]),
                    message=f"{shown(key)!r} is not known {'here' if keys else 'at the top'}",
                )
            )  # fmt: skip
            broken = True
    values: dict[str, Any] = {}
    for name, field in fields.items():
        child = node.entries.get(name)
        if child is None:
            if field.required:
                reading.note(keys, f"{path_text((*keys, name))!r} is missing", allowed=_expected(field.type), found="")
                broken = True
            continue
        if _is_null(child) and not field.required and not isinstance(field.type, inspect.UnionType):
            hint = "" if child.text else "; a text that starts with # needs quotes"
            reading.note((*keys, name), f"{name!r} has no value{hint}", allowed=_expected(field.type))
            broken = True
            continue
        value = _value(reading, child, (*keys, name), field.type)
        broken = broken or value is BROKEN
        values[field.name] = value
    return BROKEN if broken else kind.cls(**values)


def _tuple(reading: Reading, node: Node, keys: Keys, kind: inspect.VarTupleType) -> Any:
    if node.kind != "sequence":
        inside = _expected(kind.item_type)
        suggestion = f"[{node.text}]" if node.kind == "scalar" and node.text and len(node.text) < 60 else None
        reading.note(keys, f"{_name(keys)} must be a list", allowed=f"a list of {inside}", suggestion=suggestion)
        return BROKEN
    values = [_value(reading, child, (*keys, i), kind.item_type) for i, child in enumerate(node.items)]
    return BROKEN if any(v is BROKEN for v in values) else tuple(values)


def _dict(reading: Reading, node: Node, keys: Keys, kind: inspect.DictType) -> Any:
    if node.kind != "mapping":
        reading.note(keys, f"{_name(keys)} must be a mapping", allowed=f"name: {_expected(kind.value_type)}")
        return BROKEN
    values = {key: _value(reading, child, (*keys, key), kind.value_type) for key, child in node.entries.items()}
    return BROKEN if any(v is BROKEN for v in values.values()) else values


def _any(reading: Reading, node: Node, keys: Keys) -> Any:
    if node.kind == "mapping":
        values = {key: _any(reading, child, (*keys, key)) for key, child in node.entries.items()}
        return BROKEN if any(v is BROKEN for v in values.values()) else values
    if node.kind == "sequence":
        items = [_any(reading, child, (*keys, i)) for i, child in enumerate(node.items)]
        return BROKEN if any(v is BROKEN for v in items) else items
    if not node.plain:
        return node.text
    if _is_null(node):
        return None
    if node.text in _TRUE or node.text in _FALSE:
        return node.text in _TRUE
    if _INTEGER.fullmatch(node.text):
        return _integer(reading, node, keys)
    if _DECIMAL.fullmatch(node.text):
        return _number(reading, node, keys)
    return node.text


def _scalar(reading: Reading, node: Node, keys: Keys, kind: inspect.Type) -> Any:
    if node.kind != "scalar":
        what = "a list" if node.kind == "sequence" else "a mapping"
        reading.note(keys, f"{_name(keys)} must be one value, not {what}", allowed=_expected(kind))
        return BROKEN
    if isinstance(kind, inspect.LiteralType):
        return _literal(reading, node, keys, kind)
    if isinstance(kind, inspect.StrType):
        return _text(reading, node, keys)
    if isinstance(kind, inspect.BoolType):
        if node.plain and node.text in _TRUE + _FALSE:
            return node.text in _TRUE
        near = {"yes": "true", "on": "true", "no": "false", "off": "false"}.get(node.text.lower())
        reading.note(keys, f"{shown(node.text)!r} is neither true nor false", allowed="true or false", suggestion=near)
        return BROKEN
    if isinstance(kind, inspect.IntType):
        return _integer(reading, node, keys)
    assert isinstance(kind, inspect.FloatType)
    return _number(reading, node, keys)


def _literal(reading: Reading, node: Node, keys: Keys, kind: inspect.LiteralType) -> Any:
    for value in kind.values:
        if node.text == str(value):
            return value
    words = [str(value) for value in kind.values]
    suggestion = nearest(node.text, words) or (words[0] if len(words) == 1 else None)
    reading.note(
        keys, f"{shown(node.text)!r} is not allowed for {_name(keys)}", allowed=listing(words), suggestion=suggestion
    )
    return BROKEN


def _text(reading: Reading, node: Node, keys: Keys) -> Any:
    if node.plain and _is_null(node):
        hint = "" if node.text else "; a text that starts with # needs quotes"
        reading.note(keys, f"{_name(keys)} has no value{hint}", allowed="a text")
        return BROKEN
    if node.plain and node.tag == "bool":  # YAML 1.1 reads yes, no, on and off as true and false; readers differ
        reading.note(keys, f"{node.text!r} can be read as true or false", allowed="a text", suggestion=f'"{node.text}"')
        return BROKEN
    if not node.text.strip():
        reading.note(keys, f"{_name(keys)} is empty", allowed="a text")
        return BROKEN
    return node.text


def _integer(reading: Reading, node: Node, keys: Keys) -> Any:
    if node.plain and _INTEGER.fullmatch(node.text) and len(node.text) <= 18:
        return int(node.text.replace("_", ""))
    reading.note(keys, f"{shown(node.text)!r} is not a whole number", allowed="a whole number")
    return BROKEN


def _number(reading: Reading, node: Node, keys: Keys) -> Any:
    if node.plain and _DECIMAL.fullmatch(node.text):
        value = float(node.text.replace("_", ""))
        if math.isfinite(value):
            return value
    reading.note(keys, f"{shown(node.text)!r} is not a number", allowed="a number, for example 28.4")
    return BROKEN


def _quantity(reading: Reading, node: Node, keys: Keys, quantity: str, *, whole: bool) -> Any:
    spec = quantities.KINDS[quantity]
    if node.kind != "scalar":
        reading.note(keys, f"{_name(keys)} must be one value", allowed=f"{spec.title}, for example {spec.examples[0]}")
        return BROKEN
    try:
        return quantities.parse_whole(node.text, quantity) if whole else quantities.parse(node.text, quantity)
    except quantities.QuantityError as error:
        reading.note(keys, shown(str(error)), allowed=error.allowed, suggestion=error.suggestion)
        return BROKEN


def _money(reading: Reading, node: Node, keys: Keys) -> Any:
    if node.kind != "scalar":
        reading.note(keys, f"{_name(keys)} must be an amount", allowed="an amount, for example 2000 USD")
        return BROKEN
    try:
        amount, currency = quantities.parse_money(node.text)
    except quantities.QuantityError as error:
        reading.note(keys, shown(str(error)), allowed=error.allowed, suggestion=error.suggestion)
        return BROKEN
    return Money(amount=amount, currency=currency)


def _is_null(node: Node) -> bool:
    return node.kind == "scalar" and node.plain and node.text in ("", "~", "null", "Null", "NULL")


def _name(keys: Keys) -> str:
    return repr(path_text(keys)) if keys else "the file"


def _expected(kind: inspect.Type) -> str:
    """What to write for a type, in a few words."""
    if isinstance(kind, inspect.UnionType):
        return _expected(next(t for t in kind.types if not isinstance(t, inspect.NoneType)))
    if isinstance(kind, inspect.Metadata):
        spec = quantities.KINDS[str((kind.extra_json_schema or {})["quantity"])]
        return f"{spec.title}, for example {spec.examples[0]}"
    if isinstance(kind, inspect.LiteralType):
        return listing(str(value) for value in kind.values)
    if isinstance(kind, inspect.StructType):
        if kind.cls is Money:
            return "an amount, for example 2000 USD"
        return f"a section with {listing(field.encode_name for field in kind.fields)}"
    if isinstance(kind, inspect.VarTupleType):
        return f"a list of {_expected(kind.item_type)}"
    names = {inspect.DictType: "a mapping", inspect.BoolType: "true or false", inspect.IntType: "a whole number"}
    names |= {inspect.FloatType: "a number", inspect.StrType: "a text"}
    return names.get(type(kind), "a value")
