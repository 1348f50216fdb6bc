"""The route table as an OpenAPI 3.1 document, so that what is documented is what is mounted."""

import re
from typing import Any

import msgspec

from bedplate.http.routes import Route, RouteTable

_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]*)(?::([a-z]+))?\}")
_SCHEMAS: dict[str, dict[str, Any]] = {
    "str": {"type": "string", "maxLength": 200},
    "int": {"type": "integer", "minimum": 0},
    "id": {"type": "string", "pattern": "^[a-z]{1,12}_[0-9a-hjkmnp-tv-z]{26}$"},
    "digest": {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"},
    "path": {"type": "string", "minLength": 1, "maxLength": 1024},
}
_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string"},
        "message": {"type": "string"},
        "where": {"type": ["string", "null"]},
        "fix": {"type": ["string", "null"]},
    },
}


_ERROR_REFERENCE = {"$ref": "#/components/schemas/Error"}


def document(table: RouteTable, *, title: str, version: str) -> dict[str, Any]:
    """The OpenAPI 3.1 document of ``table``. Each operation carries ``x-action`` and ``x-audit``."""
    routes = [route for route in table.routes if not route.twin]
    shown = [(route.request_type, route.response_type, route.error_type) for route in routes]
    types = [kind for kinds in shown for kind in kinds if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    by_type = {id(kind): schema for kind, schema in zip(types, schemas, strict=True)}
    loosened: set[str] = set()
    for route in routes:
        if route.lenient and route.request_type is not None:
            _loosen(by_type[id(route.request_type)], components, loosened)
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        path = _PARAMETER.sub(lambda m: f"{{{m[1]}}}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR},
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


_AS_TEXT: dict[str, dict[str, Any]] = {
    "integer": {"type": "string", "pattern": "^-?[0-9]+$"},
    "number": {"type": "string"},
    "boolean": {"type": ["string", "integer"]},
}


def _loosen(schema: dict[str, Any], components: dict[str, Any], done: set[str]) -> None:
    """Let null, and numbers as text, stand for every field of an object and of the objects in it."""
    name = schema.get("$ref", "").rpartition("/")[2]
    if name in done or name not in components:
        return
    done.add(name)
    properties = components[name].get("properties", {})
    for field, given in properties.items():
        rest = {key: value for key, value in given.items() if key in ("default", "description")}
        kinds = given.get("anyOf") or [{key: value for key, value in given.items() if key not in rest}]
        for kind in kinds:
            _loosen(kind.get("items", kind), components, done)
        texts = [_AS_TEXT[kind["type"]] for kind in kinds if kind.get("type") in _AS_TEXT]
        nothing = [] if {"type": "null"} in kinds else [{"type": "null"}]
        properties[field] = {"anyOf": [*kinds, *texts, *nothing], **rest}


def _operation(route: Route, by_type: dict[int, dict[str, Any]]) -> dict[str, Any]:
    parameters = [
        {"name": m[1], "in": "path", "required": True, "schema": _SCHEMAS[m[2] or "str"]}
        for m in _PARAMETER.finditer(route.path)
    ]
    parameters += [
        {"name": given.header, "in": "header", "schema": {"type": "string", "maxLength": 200, "default": given.default}}
        for given in route.headers
    ]
    parameters += [
        {"name": given.name, "in": "query", "schema": {"type": "string", "maxLength": 200, "default": given.default}}
        for given in route.queries
    ]
    in_query = route.request_type is not None and route.method == "GET"
    if in_query:
        parameters += _query(route.request_type)
    success: dict[str, Any] = {"description": "Done"}
    if route.response_type is not None:
        success["content"] = {"application/json": {"schema": by_type[id(route.response_type)]}}
    failure = {
        "description": "Error",
        "content": {"application/json": {"schema": by_type.get(id(route.error_type), _ERROR_REFERENCE)}},
    }
    operation: dict[str, Any] = {
        "summary": route.summary or route.name or route.action,
        "operationId": route.name or f"{route.method.lower()} {route.path}",
        "parameters": parameters,
        "responses": {"200": success, "default": failure},
        "security": [] if route.public else [{"key": []}],
        "x-action": route.action,
        "x-audit": route.audit.kind,
    }
    if route.request_type is not None and not in_query:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": by_type[id(route.request_type)]}},
        }
    return operation


def _query(kind: Any) -> list[dict[str, Any]]:
    """The fields of a message as parameters of a query."""
    (schema,), components = msgspec.json.schema_components([kind], ref_template="#/components/schemas/{name}")
    properties = components[schema["$ref"].rpartition("/")[2]]
    needed = properties.get("required", ())
    return [
        {"name": name, "in": "query", "required": name in needed, "schema": given}
        for name, given in properties["properties"].items()
    ]
