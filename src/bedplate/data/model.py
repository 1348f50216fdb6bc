"""What a contract says, as values: tables, columns and the rules that rows keep or break."""

from typing import Any, Literal

import msgspec

from bedplate.errors import ContractError
from bedplate.ids import Digest

Severity = Literal["error", "warning", "info"]
LogicalType = Literal["string", "date", "timestamp", "time", "number", "integer", "object", "array", "boolean"]
Operator = Literal[
    "mustBe",
    "mustNotBe",
    "mustBeGreaterThan",
    "mustBeGreaterOrEqualTo",
    "mustBeLessThan",
    "mustBeLessOrEqualTo",
    "mustBeBetween",
    "mustNotBeBetween",
]
Metric = Literal["rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues"]
RowCheck = Literal[
    "required",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "validValues",
    "missingValues",
    "minItems",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
    "requiredProperties",
]


class RowRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that each row keeps or breaks by itself. ``limit`` is a number, text, time, pattern or tuple of values."""

    id: str
    column: str
    check: RowCheck
    limit: Any
    severity: Severity
    dimension: str
    message: str


class KeyRule(msgspec.Struct, frozen=True, kw_only=True):
    """The values of ``columns`` stand together in one row only: the first keeps them. Rows with a null do not count."""

    id: str
    columns: tuple[str, ...]
    severity: Severity
    dimension: str
    message: str


class ReferenceRule(msgspec.Struct, frozen=True, kw_only=True):
    """The values of ``columns`` stand together in the columns ``to`` of ``table``. Rows with a null do not count."""

    id: str
    columns: tuple[str, ...]
    table: str
    to: tuple[str, ...]
    severity: Severity
    dimension: str
    message: str


class SetRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule about all rows together: a measured number compared with limits.

    ``metric`` is a library metric, or ``sql`` with ``query``. ``percent`` measures per hundred rows read.
    """

    id: str
    metric: Literal["rowCount", "nullValues", "missingValues", "invalidValues", "duplicateValues", "sql"]
    columns: tuple[str, ...]
    operator: Operator
    limit: Any
    percent: bool
    query: str
    arguments: dict[str, Any]
    severity: Severity
    dimension: str
    message: str

    def holds(self, value: float | str) -> bool:
        """Whether the measured ``value`` is within the limits; text only ever is the same or not."""
        if isinstance(value, str) or isinstance(self.limit, str):
            same: bool = value == self.limit
            return same == (self.operator == "mustBe")
        low, high = self.limit if isinstance(self.limit, tuple) else (self.limit, self.limit)
        verdicts: dict[str, bool] = {
            "mustBe": value == low,
            "mustNotBe": value != low,
            "mustBeGreaterThan": value > low,
            "mustBeGreaterOrEqualTo": value >= low,
            "mustBeLessThan": value < low,
            "mustBeLessOrEqualTo": value <= low,
            "mustBeBetween": low <= value <= high,
            "mustNotBeBetween": not low <= value <= high,
        }
        return verdicts[self.operator]


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """One property of a schema object."""

    name: str
    logical_type: LogicalType
    required: bool
    description: str
    classification: str
    line: int
    format: str = ""
    tags: tuple[str, ...] = ()
    pattern: str = ""
    """How dates and times are written, as ``strptime`` has it; empty: ISO 8601."""
    zone: str | None = None
    """The zone of times that name none, where moments are kept; empty: no time may name one; None: any may."""
    items: "Column | None" = None
    properties: tuple["Column", ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        """What a mask may go by: its tags, and its classification."""
        return (*self.tags, *((self.classification,) if self.classification else ()))


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One schema object: a table, its columns and its rules."""

    name: str
    description: str
    columns: tuple[Column, ...]
    rows: tuple[RowRule, ...]
    keys: tuple[KeyRule, ...]
    sets: tuple[SetRule, ...]
    line: int
    references: tuple[ReferenceRule, ...] = ()
    more_columns: bool = False
    """Whether a source may have columns that the contract does not name; they are left out."""

    @property
    def has_sql(self) -> bool:
        """Whether any rule is SQL."""
        return any(rule.metric == "sql" for rule in self.sets)

    def judged(self) -> set[str]:
        """The columns that a rule looks at."""
        named: tuple[KeyRule | SetRule | ReferenceRule, ...] = (*self.keys, *self.sets, *self.references)
        return {rule.column for rule in self.rows} | {column for rule in named for column in rule.columns}

    @property
    def may_be_empty(self) -> bool:
        """Whether the contract says that no rows at all are fine."""
        counts = [rule for rule in self.sets if rule.metric == "rowCount"]
        return bool(counts) and all(rule.holds(0) for rule in counts)


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How long rows of ``table`` are kept, in days, counted from the time in ``column``."""

    table: str
    column: str
    days: float


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """How old the newest time in ``column`` of ``table`` may be, in seconds: at any moment, or at those of
    ``schedule``."""

    table: str
    column: str
    seconds: float
    schedule: str = ""


class Frequency(msgspec.Struct, frozen=True, kw_only=True):
    """How long ago rows may have come into ``table`` for the last time, in seconds; of any table where it is empty.

    It is judged at any moment, or at those of ``schedule``: five fields of cron, in UTC.
    """

    table: str
    seconds: float
    schedule: str = ""


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """A whole contract. ``data`` is the file as it was written, ``digest`` that of its bytes."""

    id: str
    name: str
    version: str
    status: str
    path: str
    data: bytes
    digest: Digest
    models: tuple[Model, ...]
    retention: tuple[Retention, ...] = ()
    freshness: tuple[Freshness, ...] = ()
    frequency: tuple[Frequency, ...] = ()
    completeness: float | None = None
    """The least share of the rows read that must be accepted."""

    def model(self, name: str) -> Model:
        """The schema object called ``name``, or the only one.

        Raises:
            ContractError: there are several and none has that name.
        """
        for model in self.models:
            if model.name == name:
                return model
        if len(self.models) == 1:
            return self.models[0]
        names = ", ".join(model.name for model in self.models)
        raise ContractError(f"no schema object is called {name}", where=self.path, fix=f"use one of {names}")


def metric_checks(metric: str, arguments: dict[str, Any]) -> list[tuple[RowCheck, Any]]:
    """The row checks that a library metric counts the breaches of. A null is missing, and is never invalid."""
    if metric == "nullValues":
        return [("required", None)]
    if metric == "missingValues":
        return [("missingValues", tuple(arguments.get("missingValues") or ()))]
    found: list[tuple[RowCheck, Any]] = []
    if "validValues" in arguments:
        found.append(("validValues", tuple(arguments["validValues"])))
    if "pattern" in arguments:
        found.append(("pattern", arguments["pattern"]))
    return found
