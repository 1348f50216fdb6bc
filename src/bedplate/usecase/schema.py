"""JSON Schema (2020-12) of ``usecase.yaml``, so that editors complete, describe and check it.

What JSON Schema cannot say (files that must exist, sections that must agree) is left to ``bedplate check``.
"""

import re
from typing import Any

from msgspec import inspect

from bedplate.records import REGIONS
from bedplate.usecase import quantities
from bedplate.usecase.types import Money, UseCase

Schema = dict[str, Any]

_NUMBER = r"[+]?(\d[\d_]*(\.\d*)?|\.\d+)([eE][+-]?\d+)?"
_REFINED: dict[str, Schema] = {
    "name": {"pattern": "^[a-z][a-z0-9-]{0,62}$"},
    "requirements.residency": {"items": {"enum": list(REGIONS)}},
    "data.*.source.region": {"enum": list(REGIONS)},
    "train.holdout": {"examples": ["20 %", "28 d"]},
    "release.approvals": {"examples": [{"production": "2 of [growth-leads, risk]"}]},
}
"""What is said of single fields beyond their type."""


def schema() -> Schema:
    """The schema as a JSON-able dictionary; sections stand under ``$defs``."""
    definitions: dict[str, Schema] = {}
    root = _struct(inspect.type_info(UseCase), "", definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://bedplate.dev/schema/usecase-1.json",
        "title": "Bedplate use case",
        **root,
        "$defs": definitions,
    }


def _struct(kind: inspect.Type, path: str, definitions: dict[str, Schema]) -> Schema:
    assert isinstance(kind, inspect.StructType)
    properties = {}
    for field in kind.fields:
        where = f"{path}.{field.encode_name}" if path else field.encode_name
        made = _type(field.type, where, definitions)
        refined = _REFINED.get(where)
        properties[field.encode_name] = {**made, **refined} if refined else made
    return {
        "type": "object",
        "description": " ".join((kind.cls.__doc__ or "").split()),
        "properties": properties,
        "required": [field.encode_name for field in kind.fields if field.required],
        "additionalProperties": False,
    }


def _type(kind: inspect.Type, path: str, definitions: dict[str, Schema]) -> Schema:
    if isinstance(kind, inspect.UnionType):
        inner = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
        return {"anyOf": [_type(inner, path, definitions), {"type": "null"}]}
    if isinstance(kind, inspect.Metadata):
        quantity = (kind.extra_json_schema or {}).get("quantity")
        return _quantity(str(quantity)) if quantity else _type(kind.type, path, definitions)
    if isinstance(kind, inspect.StructType):
        if kind.cls is Money:
            return _money()
        name = kind.cls.__name__
        if name not in definitions:
            definitions[name] = {}  # holds the place, so that a section inside itself would end
            definitions[name] = _struct(kind, path, definitions)
        return {"$ref": f"#/$defs/{name}"}
    if isinstance(kind, inspect.VarTupleType):
        return {"type": "array", "items": _type(kind.item_type, f"{path}[]", definitions)}
    if isinstance(kind, inspect.DictType):
        return {"type": "object", "additionalProperties": _type(kind.value_type, f"{path}.*", definitions)}
    if isinstance(kind, inspect.LiteralType):
        return {"enum": list(kind.values)}
    if isinstance(kind, inspect.StrType):
        return {"type": "string", "minLength": 1}
    simple = {inspect.BoolType: "boolean", inspect.IntType: "integer", inspect.FloatType: "number"}
    return {"type": simple[type(kind)]} if type(kind) in simple else {}


def _quantity(name: str) -> Schema:
    kind = quantities.KINDS[name]
    units = "|".join(re.escape(unit) for unit in kind.units)
    text = {
        "type": "string",
        "pattern": rf"^\s*{_NUMBER}\s*({units}){'?' if kind.bare else ''}\s*$",
        "description": f"{kind.title}: {', '.join(kind.units)}",
        "examples": list(kind.examples),
    }
    return (
        {"anyOf": [text, {"type": "integer", "minimum": 0}], "description": text["description"]} if kind.bare else text
    )


def _money() -> Schema:
    currencies = "|".join(quantities.CURRENCIES)
    return {
        "type": "string",
        "pattern": rf"^\s*{_NUMBER}\s*({currencies})\s*$",
        "description": "an amount and its currency",
        "examples": ["2000 USD"],
    }
