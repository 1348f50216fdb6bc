"""The ``logicalTypeOptions`` of a property: what each type allows, and the rules that they are."""

import re
import zoneinfo
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data.model import LogicalType, RowRule, Severity
from bedplate.data.yaml_lines import Path as Place

if TYPE_CHECKING:
    from bedplate.data.contracts import Parser

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
OPTIONS: dict[str, set[str]] = {
    "string": {"minLength", "maxLength", "pattern", "format"},
    "integer": {*_BOUNDS, "multipleOf", "format"},
    "number": {*_BOUNDS, "multipleOf", "format"},
    "date": {*_BOUNDS, "format"},
    "timestamp": {*_BOUNDS, "format", "timezone", "defaultTimezone"},
    "time": {*_BOUNDS, "format", "timezone", "defaultTimezone"},
    "array": {"minItems", "maxItems", "uniqueItems"},
    "object": {"minProperties", "maxProperties", "required"},
    "boolean": set(),
}
_WORDS = {
    "minimum": "is below",
    "maximum": "is above",
    "exclusiveMinimum": "is not above",
    "exclusiveMaximum": "is not below",
    "multipleOf": "is not a multiple of",
    "minLength": "is shorter than",
    "maxLength": "is longer than",
    "pattern": "does not match",
    "minItems": "has fewer items than",
    "maxItems": "has more items than",
    "uniqueItems": "has an item twice:",
    "minProperties": "has fewer properties than",
    "maxProperties": "has more properties than",
    "required": "lacks a property of",
}
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_BITS = {
    f"{sign}{bits}": (-(1 << bits - 1), (1 << bits - 1) - 1) if sign == "i" else (0, (1 << bits) - 1)
    for sign in "iu" for bits in (8, 16, 32, 64, 128)
}  # fmt: skip
_LETTERS = {"yyyy": "%Y", "yy": "%y", "MM": "%m", "dd": "%d", "HH": "%H", "mm": "%M", "ss": "%S", "SSS": "%g"}
_TOKEN = re.compile(r"'([^']*)'|([A-Za-z])\2*|[^A-Za-z']+")


def rules(
    parser: "Parser",
    value: dict[str, Any],
    place: Place,
    column: str,
    kind: LogicalType,
    severity: Severity,
    zone: str | None,
) -> list[RowRule]:
    """The rules that the options of a column of type ``kind`` are; ``zone`` as :attr:`.model.Column.zone`."""
    found: list[tuple[str, str, Any]] = []
    for key, limit in value.items():
        if key in _WORDS and key in OPTIONS[kind]:
            checked = _limit(parser, key, limit, kind, (*place, key), zone)
            if checked is not None:
                found.append((key, f"{column} {_WORDS[key]} {limit}", checked))
    if kind == "integer" and "format" in value:
        found += _whole(parser, column, value["format"], (*place, "format"))
    return [
        RowRule(
            id=f"{column}.{key}", column=column, severity=severity, dimension="conformity", message=message,
            check="requiredProperties" if key == "required" else key.removeprefix("format."),  # type: ignore[arg-type]
            limit=checked,
        )
        for key, message, checked in found
    ]  # fmt: skip


def _whole(parser: "Parser", column: str, name: Any, place: Place) -> list[tuple[str, str, Any]]:
    if name not in _BITS:
        parser.problem(place, f"format is {name!r}; use one of {', '.join(_BITS)}")
        return []
    low, high = _BITS[name]
    limits = (("format.minimum", low, low > -(1 << 63)), ("format.maximum", high, high < (1 << 63) - 1))
    return [(key, f"{column} is no {name}", limit) for key, limit, narrower in limits if narrower]


def _limit(parser: "Parser", key: str, limit: Any, kind: LogicalType, place: Place, zone: str | None) -> Any:
    """The limit of an option, None (and a problem) if it cannot be one."""
    problem = ""
    if key == "pattern":
        return limit if parser.pattern(limit, place) else None
    if key in _COUNTS:
        if isinstance(limit, int) and not isinstance(limit, bool) and limit >= 0:
            return limit
        problem = f"{key} is a whole number from 0"
    elif key == "uniqueItems":
        if isinstance(limit, bool):
            return limit or None
        problem = f"{key} is true or false"
    elif key == "required":
        if isinstance(limit, list) and limit and all(isinstance(name, str) for name in limit):
            return tuple(limit)
        problem = "required is a list of names"
    elif kind in ("date", "timestamp"):
        moment = _moment(str(limit))
        if moment is not None and not (zone == "" and moment.tzinfo):
            return in_utc(moment, zone)
        problem = f"{limit!r} is not a date or time like 2017-01-31 or 2017-01-31T10:00:00"
        if moment is not None:
            problem = f"{limit!r} names a zone, which times of this column do not"
    elif kind == "time":
        try:
            return time.fromisoformat(str(limit)).isoformat()
        except ValueError:
            problem = f"{limit!r} is not a time of day like 10:00:00, quoted"
    elif isinstance(limit, bool) or not isinstance(limit, int | float) or limit != limit:
        problem = f"{key} is a number"
    elif key == "multipleOf" and limit <= 0:
        problem = "multipleOf is above 0"
    else:
        return limit
    parser.problem(place, problem)
    return None


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return pc.cast(pa.array([text]), pa.timestamp("us"))[0].as_py()  # type: ignore[no-any-return]
    except pa.ArrowInvalid:
        return None


def in_utc(moment: datetime, zone: str | None) -> datetime:
    """A moment in UTC, without saying so; one that names no zone is of ``zone``, where there is one, else of UTC."""
    if not moment.tzinfo and zone:
        moment = moment.replace(tzinfo=zoneinfo.ZoneInfo(zone))
    return moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment


def pattern(parser: "Parser", value: dict[str, Any], kind: LogicalType, place: Place) -> str:
    """The ``format`` of dates and times, as Java has it, as ``strptime`` has it; empty for ISO 8601."""
    text = value.get("format")
    if kind not in ("date", "timestamp", "time") or text is None:
        return ""
    found = ""
    for match in _TOKEN.finditer(str(text)):
        quoted, letter = match.group(1), match.group(2)
        if letter and match.group() not in _LETTERS:
            if match.group() != "T":
                parser.problem((*place, "format"), f"{match.group()} is not supported; use {', '.join(_LETTERS)}")
            found += match.group()
        else:
            found += _LETTERS.get(match.group(), match.group() if quoted is None else quoted).replace("%%", "%")
    return found


def zone(parser: "Parser", value: dict[str, Any], kind: LogicalType, place: Place) -> str | None:
    """The zone of times that name none, where the column keeps moments; empty where no time may name one; else None."""
    if "timezone" not in value and "defaultTimezone" not in value:
        return None
    if kind == "time":
        if value.get("timezone") is True:
            parser.problem((*place, "timezone"), "a time of day is kept without a zone; use a timestamp")
        return None
    named = str(value.get("defaultTimezone") or "Etc/UTC")
    if named not in zoneinfo.available_timezones():
        parser.problem((*place, "defaultTimezone"), f"there is no zone {named!r}; use one like Europe/Lisbon")
        named = "Etc/UTC"
    if not isinstance(value.get("timezone", True), bool):
        parser.problem((*place, "timezone"), "timezone is true or false")
    return "" if value.get("timezone") is False else named
