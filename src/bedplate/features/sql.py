"""What the SQL of a feature view may be, read from the tree that DuckDB makes of it."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from bedplate.errors import InputError
from bedplate.features.views import FeatureView

if TYPE_CHECKING:
    from bedplate.data.duck import Connection

_ROW_MAKERS = ("range", "generate_series", "unnest")


def check_inputs(connection: "Connection", view: FeatureView) -> dict[str, Any]:
    """The tree of the SQL: one SELECT over the declared inputs alone, in plain names; of table functions only those
    that make rows.

    Raises:
        InputError: it is something else.
    """
    where = f"feature view {view.name}"
    found = connection.execute("SELECT json_serialize_sql($sql)", {"sql": view.sql}).fetchall()
    tree: dict[str, Any] = json.loads(found[0][0])
    if tree.get("error") or len(tree.get("statements", [])) != 1:
        reason = tree.get("error_message") or "it holds more than one statement"
        raise InputError(f"its SQL is not one SELECT: {reason}", where=where, fix="return one SELECT statement")
    allowed = set(view.times)
    every = list(_nodes(tree))
    for node in every:
        allowed |= {entry["key"] for entry in (node.get("cte_map") or {}).get("map", [])}
    for node in every:
        kind = node.get("type")
        name = node.get("table_name") if kind == "BASE_TABLE" else ""
        if kind == "TABLE_FUNCTION":
            function = node.get("function") or {}
            name = "" if function.get("function_name") in _ROW_MAKERS else f"{function.get('function_name')}()"
        if name and (name not in allowed or node.get("schema_name") or node.get("catalog_name")):
            raise InputError(
                f"its SQL names {name!r}, which is not among its inputs",
                where=where,
                fix=f"name it in inputs, or use {', '.join(view.times)}",
            )
    statement: dict[str, Any] = tree["statements"][0]["node"]
    return statement


def check_row_by_row(connection: "Connection", view: FeatureView) -> tuple[str, ...] | None:
    """Each row comes from one row of the input, its time untouched: then no row can tell of a later one.

    Gives the columns of the input that it selects, where it does nothing else.

    Raises:
        InputError: as :func:`check_inputs`, or it does more.
    """
    where, node, time = f"feature view {view.name}", check_inputs(connection, view), view.event_time.lower()
    source = node.get("from_table") or {}
    plain = (
        node.get("type") == "SELECT_NODE"
        and source.get("type") == "BASE_TABLE"
        and not source.get("column_name_alias")
        and not (node.get("cte_map") or {}).get("map")
        and not any(node.get(part) for part in ("modifiers", "group_expressions", "having", "qualify", "sample"))
        and not any(n.get("class") in ("WINDOW", "SUBQUERY") for n in _nodes(node))
    )
    if not plain or _aggregates(connection, node):
        raise InputError(
            "the SQL of a view of rows computes row by row: one SELECT of one input, with WHERE at most",
            where=where,
            fix="aggregate with windows, or declare a view of moments",
        )
    for item in node["select_list"]:
        changed = {str(e.get("key")).lower() for part in ("replace_list", "rename_list") for e in item.get(part) or ()}
        changed |= {str(e.get("value")).lower() for e in item.get("rename_list") or ()}
        column = item.get("class") == "COLUMN_REF" and [name.lower() for name in item["column_names"]] == [time]
        named = str(item.get("alias") or (item.get("column_names") or [""])[-1]).lower()
        if time in changed or (named == time and not column):
            raise InputError(
                f"its SQL changes the time {view.event_time!r} of rows",
                where=where,
                fix=f"select {view.event_time} as it is",
            )
    if node.get("where_clause") or not all(_is_column(item) for item in node["select_list"]):
        return None
    found = tuple(item["column_names"][0] for item in node["select_list"])
    return found if len({name.lower() for name in found}) == len(found) else None


def _is_column(item: dict[str, Any]) -> bool:
    return item.get("class") == "COLUMN_REF" and len(item["column_names"]) == 1 and not item.get("alias")


def _aggregates(connection: "Connection", node: Any) -> bool:
    """Whether it calls anything that looks at more than one row."""
    return any(n["function_name"].lower() in _known(connection) for n in _nodes(node) if n.get("class") == "FUNCTION")


_aggregate_names: frozenset[str] | None = None  # the same in every connection, and a tenth of a second to list


def _known(connection: "Connection") -> frozenset[str]:
    global _aggregate_names
    if _aggregate_names is None:
        sql = "SELECT function_name FROM duckdb_functions() WHERE function_type = 'aggregate'"
        _aggregate_names = frozenset(name for (name,) in connection.execute(sql).fetchall())
    return _aggregate_names


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)
