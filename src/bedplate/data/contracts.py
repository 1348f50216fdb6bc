"""Data contracts in the Open Data Contract Standard (ODCS) 3.1: read, checked, and turned into rules.

A contract is kept byte for byte under its digest. What the standard knows and nothing here acts on (teams, prices,
servers, support) is allowed and left alone; a key that the standard does not know is refused, as 3.1 asks.
"""

import difflib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.compute as pc

from bedplate.data import contract_references, contract_sla, contract_types
from bedplate.data.duck import check_select
from bedplate.data.model import (
    Column,
    Contract,
    Frequency,
    Freshness,
    KeyRule,
    LogicalType,
    Metric,
    Model,
    Operator,
    ReferenceRule,
    Retention,
    RowCheck,
    RowRule,
    SetRule,
    Severity,
    metric_checks,
)
from bedplate.data.yaml_lines import Document, parse
from bedplate.data.yaml_lines import Path as Place
from bedplate.errors import ContractError, InputError
from bedplate.ids import digest_bytes


def load(path: Path) -> Contract:
    """Read a contract from a file.

    Raises:
        ContractError: the file is missing or is no contract that can be used; lists every problem with its line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ContractError(
            f"the contract cannot be read: {error.strerror}", where=str(path), fix="correct the path in usecase.yaml"
        ) from error
    return parse_contract(data, str(path))


def parse_contract(data: bytes, where: str) -> Contract:
    """Read a contract from bytes; ``where`` names them in errors. Raises as :func:`load`."""
    return Parser(parse(data, where), data, where).contract()


# --------------------------------------------------------------------------------------- what the standard (3.1) allows

_COMMON = {"id", "tags", "customProperties", "authoritativeDefinitions"}
_ROOT = _COMMON | {
    "apiVersion", "kind", "version", "status", "name", "tenant", "domain", "dataProduct", "description", "schema",
    "quality", "support", "price", "team", "roles", "slaDefaultElement", "slaProperties", "servers",
"contractCreatedTs", }  # fmt: skip
_ELEMENT = _COMMON | {
    "name", "physicalName", "physicalType", "logicalType", "description", "businessName", "quality", "relationships",
}  # fmt: skip
_OBJECT = _ELEMENT | {"dataGranularityDescription", "properties"}
_PROPERTY = _ELEMENT | {
    "primaryKey", "primaryKeyPosition", "logicalTypeOptions", "required", "unique", "partitioned",
    "partitionKeyPosition", "classification", "encryptedName", "transformSourceObjects", "transformLogic",
    "transformDescription", "examples", "criticalDataElement", "items", "properties",
}  # fmt: skip
_QUALITY = _COMMON | {
    "name", "description", "type", "metric", "rule", "arguments", "unit", "query", "engine", "implementation", "method",
    "dimension", "severity", "businessImpact", "scheduler", "schedule", *get_args(Operator),
}  # fmt: skip
_SLA = _COMMON | {"property", "value", "valueExt", "unit", "element", "driver", "description", "scheduler", "schedule"}
_DIMENSIONS = ("accuracy", "completeness", "conformity", "consistency", "coverage", "timeliness", "uniqueness")
_VERSION = re.compile(r"v3\.(0\.[0-2]|1\.0)")


class Parser:
    """One document, and what is wrong with it."""

    def __init__(self, document: Document, data: bytes, where: str) -> None:
        self.document = document
        self.data = data
        self.where = where
        self.problems: list[tuple[int, str]] = []

    def contract(self) -> Contract:
        value = self.document.value
        self.keys(value, _ROOT, ())
        for key in ("apiVersion", "kind", "id", "version", "status"):
            self.text(value, key, (), required=True)
        if value.get("kind") not in (None, "DataContract"):
            self.problem(("kind",), "kind must be DataContract")
        api = value.get("apiVersion")
        if isinstance(api, str) and not _VERSION.fullmatch(api):
            self.problem(("apiVersion",), f"apiVersion {api} is not supported; use v3.1.0")
        models = [self.model(item, ("schema", index)) for index, item in self.items(value, "schema", ())]
        if not models:
            self.problem(("schema",), "schema names no object")
        promised = [self.sla(item, ("slaProperties", i)) for i, item in self.items(value, "slaProperties", ())]
        if self.problems:
            lines = [f"line {line}: {text}" for line, text in sorted(set(self.problems))]
            raise ContractError(
                "; ".join(lines) if len(lines) < 2 else f"{len(lines)} problems\n  " + "\n  ".join(lines),
                where=f"{self.where}:{min(line for line, _ in self.problems)}",
                fix="correct the contract (Open Data Contract Standard 3.1)",
            )
        return Contract(
            id=value["id"],
            name=str(value.get("name") or value["id"]),
            version=value["version"],
            status=value["status"],
            path=self.where,
            data=self.data,
            digest=digest_bytes(self.data),
            models=tuple(model for model in models if model is not None),
            retention=tuple(each for each in promised if isinstance(each, Retention)),
            freshness=tuple(each for each in promised if isinstance(each, Freshness)),
            frequency=tuple(each for each in promised if isinstance(each, Frequency)),
            completeness=min((each for each in promised if isinstance(each, float)), default=None),
        )

    def sla(self, value: Any, place: Place) -> contract_sla.Promised:
        if not self.mapping(value, place):
            return None
        self.keys(value, _SLA, place)
        return contract_sla.promised(self, value, place)

    def model(self, value: Any, place: Place) -> Model | None:
        if not self.mapping(value, place):
            return None
        self.keys(value, _OBJECT, place)
        name = self.text(value, "name", place, required=True)
        severity = self.severity_of(value, place, "warning")
        columns: list[Column] = []
        rows: list[RowRule] = []
        keys: list[KeyRule] = []
        sets: list[SetRule] = []
        references: list[ReferenceRule | None] = []
        primary: list[tuple[int, str]] = []
        for index, item in self.items(value, "properties", place):
            at = (*place, "properties", index)
            column = self.column(item, at, severity, rows, keys, sets)
            if column is None:
                continue
            if any(column.name.lower() == other.name.lower() for other in columns):
                self.problem(at, f"the property {column.name} stands twice")
            columns.append(column)
            for number, related in self.items(item, "relationships", at):
                where = (*at, "relationships", number)
                references.append(contract_references.rule(self, related, where, name, column.name, severity))
            if item.get("primaryKey") is True:
                primary.append((item.get("primaryKeyPosition") or len(primary) + 1, column.name))
        if not columns:
            self.problem(place, "the object has no properties")
        if primary:
            names = tuple(column for _, column in sorted(primary))
            keys.append(
                KeyRule(
                    id="primaryKey",
                    columns=names,
                    severity=severity,
                    dimension="uniqueness",
                    message=f"{', '.join(names)} identifies a row and stands twice",
                )
            )
        for index, item in self.items(value, "quality", place):
            self.quality(item, (*place, "quality", index), None, rows, keys, sets)
        for index, item in self.items(value, "relationships", place):
            where = (*place, "relationships", index)
            references.append(contract_references.rule(self, item, where, name, None, severity))
        related_to = tuple(rule for rule in references if rule is not None)
        known = {column.name for column in columns}
        named: tuple[KeyRule | SetRule | ReferenceRule, ...] = (*keys, *sets, *related_to)
        for rule in named:
            for missing in sorted(set(rule.columns) - known):
                self.problem((*place, "quality"), f"rule {rule.id} names the column {missing}, which is not a property")
        return Model(
            name=name,
            description=str(value.get("description") or ""),
            columns=tuple(columns),
            rows=tuple(rows),
            keys=tuple(keys),
            sets=tuple(sets),
            references=related_to,
            line=self.document.line(place),
            more_columns=self.more_columns(value, place),
        )

    def column(
        self,
        value: Any,
        place: Place,
        severity: Severity,
        rows: list[RowRule],
        keys: list[KeyRule],
        sets: list[SetRule],
    ) -> Column | None:
        if not self.mapping(value, place):
            return None
        self.keys(value, _PROPERTY, place)
        name = self.text(value, "name", place, required=True)
        kind = value.get("logicalType")
        if kind not in get_args(LogicalType):
            self.problem(
                (*place, "logicalType"), f"logicalType is {kind!r}; use one of {', '.join(get_args(LogicalType))}"
            )
            return None
        for flag in ("required", "unique", "primaryKey"):
            if not isinstance(value.get(flag, False), bool):
                self.problem((*place, flag), f"{flag} is true or false")
        severity = self.severity_of(value, place, severity)
        required = value.get("required") is True or value.get("primaryKey") is True
        if required:
            rows.append(
                RowRule(
                    id=f"{name}.required",
                    column=name,
                    check="required",
                    limit=None,
                    severity=severity,
                    dimension="completeness",
                    message=f"{name} is missing",
                )
            )
        if value.get("unique") is True:
            keys.append(
                KeyRule(
                    id=f"{name}.unique",
                    columns=(name,),
                    severity=severity,
                    dimension="uniqueness",
                    message=f"{name} stands twice",
                )
            )
        options, at = value.get("logicalTypeOptions") or {}, (*place, "logicalTypeOptions")
        if self.mapping(options, at):
            self.keys(options, contract_types.OPTIONS[kind], at)
        else:
            options = {}
        zone = contract_types.zone(self, options, kind, at)
        rows += contract_types.rules(self, options, at, name, kind, severity, zone)
        for index, item in self.items(value, "quality", place):
            self.quality(item, (*place, "quality", index), name, rows, keys, sets)
        tags = value.get("tags") or []
        if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
            self.problem((*place, "tags"), "tags is a list of words")  # a mask may rest on one: none is overlooked
            tags = []
        return Column(
            name=name,
            logical_type=kind,
            required=required,
            description=str(value.get("description") or ""),
            classification=str(value.get("classification") or ""),
            line=self.document.line(place),
            format=str(options.get("format") or ""),
            tags=tuple(tags),
            pattern=contract_types.pattern(self, options, kind, at),
            zone=zone,
            items=self.inner(value["items"], (*place, "items")) if kind == "array" and "items" in value else None,
            properties=self.within(value, place) if kind == "object" else (),
        )

    def within(self, value: dict[str, Any], place: Place) -> tuple[Column, ...]:
        """The properties of an object that is a value."""
        found = [self.inner(item, (*place, "properties", at)) for at, item in self.items(value, "properties", place)]
        return tuple(column for column in found if column is not None)

    def inner(self, value: Any, place: Place) -> Column | None:
        """What an item of an array, or a property of an object, is: its type alone, for rules are those of columns."""
        named = {"name": "item", **value} if isinstance(value, dict) else value
        rows: list[RowRule] = []
        keys: list[KeyRule] = []
        sets: list[SetRule] = []
        column = self.column(named, place, "warning", rows, keys, sets)
        found: list[RowRule | KeyRule | SetRule] = [rule for rule in rows if rule.check != "required"]
        for rule in (*found, *keys, *sets):
            self.problem(place, f"the rule {rule.id} is about a part of a value; put it on the whole, by a sql rule")
        return column

    def quality(
        self,
        value: Any,
        place: Place,
        column: str | None,
        rows: list[RowRule],
        keys: list[KeyRule],
        sets: list[SetRule],
    ) -> None:
        if not self.mapping(value, place):
            return
        self.keys(value, _QUALITY, place)
        kind = value.get("type", "library")
        if kind in ("text", "custom"):
            return  # for people, or for another tool
        if kind not in ("library", "sql"):
            self.problem((*place, "type"), f"type is {kind!r}; use library, sql, text or custom")
            return
        metric = "sql" if kind == "sql" else value.get("metric", value.get("rule"))
        if kind == "library" and metric not in get_args(Metric):
            self.problem((*place, "metric"), f"metric is {metric!r}; use one of {', '.join(get_args(Metric))}")
            return
        operators = [key for key in get_args(Operator) if key in value]
        if len(operators) != 1:
            self.problem(place, f"exactly one of {', '.join(get_args(Operator))} is needed")
            return
        operator: Operator = operators[0]
        limit = self.bounds(operator, value[operator], (*place, operator), text=metric == "sql")
        arguments = value.get("arguments") or {}
        if limit is None or not self.mapping(arguments, (*place, "arguments")):
            return
        severity = self.severity(value.get("severity", "error"), (*place, "severity"))
        dimension = value.get("dimension") or ("completeness" if metric in ("rowCount", "nullValues") else "conformity")
        if dimension not in _DIMENSIONS:
            self.problem((*place, "dimension"), f"dimension is {dimension!r}; use one of {', '.join(_DIMENSIONS)}")
        unit = value.get("unit", "rows")
        if unit not in ("rows", "percent"):
            self.problem((*place, "unit"), "unit is rows or percent")
        name = str(value.get("name") or value.get("id") or f"{column + '.' if column else ''}{metric}")
        message = str(value.get("description") or value.get("name") or f"{name}: {operator} {value[operator]}").strip()
        columns = self.measured(metric, column, arguments, place)
        if columns is None:
            return
        query = self.query(value, place) if metric == "sql" else ""
        if operator == "mustBe" and limit == 0 and metric not in ("rowCount", "sql") and unit == "rows":
            # "None at all" is a promise about each row: the rows that break it can be named and set aside.
            self.row_rules(metric, name, columns, arguments, severity, dimension, message, place, rows, keys)
            return
        sets.append(
            SetRule(
                id=name,
                metric=metric,  # type: ignore[arg-type]
                columns=columns,
                operator=operator,
                limit=limit,
                percent=unit == "percent",
                query=query,
                arguments=arguments,
                severity=severity,
                dimension=dimension,
                message=message,
            )
        )

    def row_rules(
        self,
        metric: str,
        name: str,
        columns: tuple[str, ...],
        arguments: dict[str, Any],
        severity: Severity,
        dimension: str,
        message: str,
        place: Place,
        rows: list[RowRule],
        keys: list[KeyRule],
    ) -> None:
        if metric == "duplicateValues":
            keys.append(KeyRule(id=name, columns=columns, severity=severity, dimension=dimension, message=message))
            return
        for check, limit in self.checks(metric, arguments, place):
            rows.append(
                RowRule(
                    id=name,
                    column=columns[0],
                    check=check,
                    limit=limit,
                    severity=severity,
                    dimension=dimension,
                    message=message,
                )
            )

    def checks(self, metric: str, arguments: dict[str, Any], place: Place) -> Iterable[tuple[RowCheck, Any]]:
        """The row checks that a library metric counts."""
        return list(metric_checks(metric, arguments))

    def measured(
        self, metric: str, column: str | None, arguments: dict[str, Any], place: Place
    ) -> tuple[str, ...] | None:
        """The columns that a metric measures, None (and a problem) where it does not say."""
        allowed = {
            "missingValues": {"missingValues"},
            "invalidValues": {"validValues", "pattern"},
            "duplicateValues": {"properties"},
        }.get(metric, set())
        self.keys(arguments, allowed, (*place, "arguments"))
        for key in ("validValues", "missingValues"):
            if key in arguments and not isinstance(arguments[key], list):
                self.problem((*place, "arguments", key), f"{key} is a list")
                return None
        if "pattern" in arguments and not self.pattern(arguments["pattern"], (*place, "arguments", "pattern")):
            return None
        if metric == "invalidValues" and not arguments.keys() & allowed:
            self.problem(place, "invalidValues needs arguments: validValues or pattern")
            return None
        if metric == "duplicateValues" and column is None:
            names = arguments.get("properties")
            if not isinstance(names, list) or not names or not all(isinstance(item, str) for item in names):
                self.problem(place, "duplicateValues on an object needs arguments: properties, a list of names")
                return None
            return tuple(names)
        if metric in ("rowCount", "sql"):
            return (column,) if column else ()
        if column is None:
            self.problem(place, f"{metric} belongs to a property, not to an object")
            return None
        return (column,)

    def query(self, value: dict[str, Any], place: Place) -> str:
        query = self.text(value, "query", place, required=True)
        plain = re.sub(r"\$?\{(object|table|property|column)\}", "x", query)
        try:
            if query:
                check_select(plain)
        except InputError as error:
            self.problem((*place, "query"), error.message.splitlines()[0])
        return query

    def bounds(self, operator: str, value: Any, place: Place, *, text: bool) -> Any:
        if text and isinstance(value, str) and operator in ("mustBe", "mustNotBe"):
            return value

        def number(item: Any) -> bool:
            return isinstance(item, int | float) and not isinstance(item, bool) and item == item

        if operator.endswith("Between"):
            if isinstance(value, list) and len(value) == 2 and all(map(number, value)) and value[0] <= value[1]:
                return tuple(value)
            self.problem(place, f"{operator} is a list of two numbers, the lower first")
            return None
        if number(value):
            return value
        self.problem(place, f"{operator} is a number")
        return None

    def more_columns(self, value: dict[str, Any], place: Place) -> bool:
        """What a column that the object does not name means: its custom property ``additionalColumns``."""
        for index, item in self.items(value, "customProperties", place):
            if isinstance(item, dict) and item.get("property") == "additionalColumns":
                if item.get("value") not in ("ignore", "refuse"):
                    self.problem((*place, "customProperties", index), "additionalColumns is ignore or refuse")
                return item.get("value") == "ignore"
        return False

    def severity_of(self, value: dict[str, Any], place: Place, default: Severity) -> Severity:
        """What breaking a constraint of this element means: its custom property ``onViolation``."""
        for index, item in self.items(value, "customProperties", place):
            if isinstance(item, dict) and item.get("property") == "onViolation":
                return self.severity(item.get("value"), (*place, "customProperties", index))
        return default

    def severity(self, value: Any, place: Place) -> Severity:
        if value in get_args(Severity):
            return value  # type: ignore[no-any-return]
        self.problem(place, f"severity is {value!r}; use error (stop), warning (go on without the rows) or info (keep)")
        return "error"

    def pattern(self, value: Any, place: Place) -> bool:
        try:
            pc.match_substring_regex(pa.array([""]), str(value))
        except pa.ArrowInvalid as error:
            self.problem(place, f"the pattern cannot be used: {error}")
            return False
        return True

    # ------------------------------------------------------------------------------------------------------- helpers

    def problem(self, place: Place, text: str) -> None:
        self.problems.append((self.document.line(place), text))

    def mapping(self, value: Any, place: Place) -> bool:
        if isinstance(value, dict):
            return True
        self.problem(place, "keys and values are needed here")
        return False

    def items(self, value: dict[str, Any], key: str, place: Place) -> list[tuple[int, Any]]:
        found = value.get(key)
        if found is None:
            return []
        if not isinstance(found, list):
            self.problem((*place, key), f"{key} is a list")
            return []
        return list(enumerate(found))

    def text(self, value: dict[str, Any], key: str, place: Place, *, required: bool) -> str:
        found = value.get(key)
        if isinstance(found, str) and found.strip():
            return found
        if required or found is not None:
            self.problem((*place, key), f"{key} is missing" if found is None else f"{key} is text; quote it")
        return ""

    def keys(self, value: dict[str, Any], allowed: set[str], place: Place) -> None:
        for key in value:
            if key in allowed:
                continue
            near = difflib.get_close_matches(key, allowed, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(sorted(allowed)) or 'none'}"
            self.problem((*place, key), f"the key {key} is unknown here{hint}")
