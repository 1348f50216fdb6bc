"""The ``relationships`` of a contract: columns whose values must stand in another table, checked at write."""

import re
from typing import TYPE_CHECKING, Any

from bedplate.data.model import ReferenceRule, Severity
from bedplate.data.yaml_lines import Path as Place

if TYPE_CHECKING:
    from bedplate.data.contracts import Parser

_KEYS = {"type", "from", "to", "customProperties"}
_SHORT = re.compile(r"([A-Za-z_]\w*)\.([A-Za-z_]\w*)")


def rule(
    parser: "Parser", value: Any, place: Place, model: str, column: str | None, severity: Severity
) -> ReferenceRule | None:
    """The rule that one relationship is, of a ``column`` or of the whole object; None (and a problem) if it is none."""
    if not parser.mapping(value, place):
        return None
    parser.keys(value, _KEYS if column is None else _KEYS - {"from"}, place)
    if value.get("type", "foreignKey") != "foreignKey":
        parser.problem((*place, "type"), f"type is {value['type']!r}; use foreignKey")
        return None
    severity = parser.severity_of(value, place, severity)
    to = _named(parser, value.get("to"), (*place, "to"))
    own = [(model, column)] if column is not None else _named(parser, value.get("from"), (*place, "from"))
    if not to or not own:
        return None
    if len(to) != len(own) or len({table for table, _ in to}) != 1 or any(table != model for table, _ in own):
        parser.problem(place, f"from names columns of {model}, to as many columns of one table")
        return None
    table, columns = to[0][0], tuple(name for _, name in own)
    listed = ", ".join(columns)
    return ReferenceRule(
        id=f"{'+'.join(columns)}.foreignKey.{table}",
        columns=columns,
        table=table,
        to=tuple(name for _, name in to),
        severity=severity,
        dimension="consistency",
        message=f"{listed} stands in no row of {table}",
    )


def _named(parser: "Parser", value: Any, place: Place) -> list[tuple[str, str]]:
    texts = value if isinstance(value, list) else [value]
    found = [_SHORT.fullmatch(text) if isinstance(text, str) else None for text in texts]
    if not texts or None in found:
        parser.problem(place, "name columns as table.column, where the table is a data set of this use case")
        return []
    return [(match.group(1), match.group(2)) for match in found if match is not None]
