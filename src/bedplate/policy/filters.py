"""Which rows of a table somebody may read: row policies in Cedar, turned into a condition on columns.

A row is an entity ``Row`` whose attributes are the table's columns. Cedar evaluates the policies as far as principal
and purpose go; what is left speaks of columns only and becomes a :data:`Condition`. The condition lets out exactly the
rows that Cedar, asked row by row, would allow:

- a column that may be null is an optional attribute, so validation demands ``has`` before it is touched;
- a row with a null in a required column is no valid entity, and stays in;
- a permit that is unknown for a row counts as false, a forbid that is unknown counts as true;
- a policy that fails, or whose rest cannot be a condition, denies every row. What can never be one
  is refused by ``load``.
"""

import json
import logging
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args

import cedarpy
import msgspec

from bedplate.errors import InputError
from bedplate.ids import Digest, digest_bytes
from bedplate.policy.guard import check_text
from bedplate.policy.policies import reasons_of
from bedplate.policy.values import Principal

_LOG = logging.getLogger(__name__)
_CACHE = 1024
_FIX = "in conditions on rows use columns and constants, ==, !=, <, <=, like, has, [..].contains(column), !, &&, ||, if"


Comparison = Literal["==", "!=", "<", "<=", ">", ">="]


class Attribute(msgspec.Struct, frozen=True):
    """A column as policies see it. ``required`` promises that it is never null; otherwise policies need ``has``."""

    type: Literal["Long", "String", "Bool"]
    required: bool = False


# ----------------------------------------------------------------------------------------------------------- conditions


class Column(msgspec.Struct, frozen=True):
    """The value of a column; a condition by itself where it is a Bool."""

    name: str


class Value(msgspec.Struct, frozen=True):
    """A constant, to be bound and never written into SQL."""

    value: str | int | bool


class Constant(msgspec.Struct, frozen=True):
    """Every row, or none."""

    holds: bool


class Present(msgspec.Struct, frozen=True):
    """The column is not null."""

    name: str


class Compare(msgspec.Struct, frozen=True):
    """``left op right``."""

    op: Comparison
    left: Column | Value
    right: Column | Value


class OneOf(msgspec.Struct, frozen=True):
    """The column's value is one of ``values``."""

    column: Column
    values: tuple[str | int | bool, ...]


class Like(msgspec.Struct, frozen=True):
    """The column's text matches: ``pattern`` holds literal text, and None for any number of any characters."""

    column: Column
    pattern: tuple[str | None, ...]


class Not(msgspec.Struct, frozen=True):
    """The opposite."""

    of: "Condition"


class All(msgspec.Struct, frozen=True):
    """All of them hold; true for none."""

    of: "tuple[Condition, ...]"


class Any_(msgspec.Struct, frozen=True):  # noqa: N801  "Any" is taken
    """At least one of them holds; false for none."""

    of: "tuple[Condition, ...]"


class Known(msgspec.Struct, frozen=True):
    """``of``, or ``otherwise`` for a row where it is unknown."""

    of: "Condition"
    otherwise: bool


Condition: TypeAlias = Column | Constant | Present | Compare | OneOf | Like | Not | All | Any_ | Known
NOTHING = Constant(False)


class RowFilter(msgspec.Struct, frozen=True, kw_only=True):
    """The rows that may go out, and the ids of the policies that say so.

    ``everything``: the policies keep no row in, but for those that lack a required column.
    """

    condition: Condition
    policies: tuple[str, ...] = ()
    everything: bool = False


# ------------------------------------------------------------------------------------------------------------- policies


class RowPolicies:
    """Validated policies about the rows of one table. Without a permit no row goes out."""

    def __init__(self, text: str, columns: Mapping[str, Attribute]) -> None:
        self._set = cedarpy.PolicySet.from_str(text)
        self._schema = cedarpy.Schema.from_str(schema_text(columns))
        self.text = text
        self.columns = dict(columns)
        self.version: Digest = digest_bytes(schema_text(columns).encode() + b"\0" + text.encode())
        self._cached = lru_cache(maxsize=_CACHE)(self._evaluate)

    @staticmethod
    def load(text: str, columns: Mapping[str, Attribute]) -> "RowPolicies":
        """Policies about rows with these columns. See :mod:`bedplate.policy.untrusted` for text that a user wrote.

        Raises:
            InputError: the text is too large or deep, does not parse or validate, has a policy without an id of its
                own, or a condition that could not become a row filter.
        """
        check_text(text, where="row policy")
        result = cedarpy.validate_policies(text, schema_text(columns))
        if not result.validation_passed:
            first = result.errors[0].error if result.errors else "it does not validate"
            raise InputError(f"a row policy cannot be used: {first}", where="row policy", fix=_FIX)
        reasons_of(text)
        for policy in json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values():
            _check(policy)
        return RowPolicies(text, columns)

    def filter(self, principal: Principal, purpose: str) -> RowFilter:
        """The rows that ``principal`` may read for ``purpose``; none if that cannot be said."""
        try:
            return self._cached(principal, purpose)
        except Exception as error:  # noqa: BLE001  what cannot be decided is denied, whatever went wrong
            _LOG.error("no row goes out: %s", error)
            return RowFilter(condition=NOTHING)

    def _evaluate(self, principal: Principal, purpose: str) -> RowFilter:
        request = {
            "principal": _uid(principal),
            "action": 'Action::"read"',
            "context": {"purpose": purpose},
        }
        entities = cedarpy.Entities.from_json_str(json.dumps(_people(principal)), self._schema)
        result = cedarpy.is_authorized_partial(request, self._set, entities, self._schema)
        names = {policy: rest["annotations"]["id"] for policy, rest in result.residuals.items()}
        if result.diagnostics.errors or not result.residuals:
            _LOG.error("no row goes out because a policy failed: %s", result.diagnostics.errors)
            return RowFilter(condition=NOTHING, policies=tuple(sorted(names.values())))
        permits: list[Condition] = []
        forbids: list[Condition] = []
        used = []
        for policy, rest in sorted(result.residuals.items()):
            condition = _simple(All(tuple(_Translator().clause(clause) for clause in rest["conditions"])))
            if condition == NOTHING:
                continue
            used.append(names[policy])
            if rest["effect"] == "permit":
                permits.append(Known(condition, False))
            else:
                forbids.append(Not(Known(condition, True)))
        present = [Present(name) for name, attribute in self.columns.items() if attribute.required]
        let_out = _simple(All((Any_(tuple(permits)), *forbids)))
        return RowFilter(
            condition=_simple(All((*present, let_out))),
            policies=tuple(sorted(used)),
            everything=let_out == Constant(True),
        )


def schema_text(columns: Mapping[str, Attribute]) -> str:
    """The Cedar schema that row policies over ``columns`` are validated against."""
    attributes = ", ".join(
        f'"{_escape(name)}"{"" if attribute.required else "?"}: {attribute.type}' for name, attribute in columns.items()
    )
    return (
        "entity Group;\nentity User in [Group] = { name: String };\nentity Service in [Group] = { name: String };\n"
        f"entity Row = {{ {attributes} }};\n"
        "action read appliesTo { principal: [User, Service], resource: [Row], context: { purpose: String } };\n"
    )


def _people(principal: Principal) -> list[dict[str, Any]]:
    groups = [{"type": "Group", "id": group} for group in principal.groups]
    person = {"type": principal.kind, "id": principal.id}
    return [
        {"uid": person, "attrs": {"name": principal.name}, "parents": groups},
        *({"uid": group, "attrs": {}, "parents": []} for group in groups),
    ]


def _uid(principal: Principal) -> str:
    """The principal as Cedar itself writes it; partial evaluation takes no other form."""
    scope = {"op": "==", "entity": {"type": principal.kind, "id": principal.id}}
    policy = {
        "effect": "permit",
        "principal": scope,
        "action": {"op": "All"},
        "resource": {"op": "All"},
        "conditions": [],
    }
    whole = {"templates": {}, "staticPolicies": {"p": policy}, "templateLinks": []}
    before, after = "permit(principal == ", ", action, resource);"
    text = str(cedarpy.policies_from_json_str(json.dumps(whole)))
    if not (text.startswith(before) and text.endswith(after)):
        raise ValueError("Cedar writes policies in another form than expected")
    return text[len(before) : -len(after)]


def _escape(text: str) -> str:
    """``text`` inside a Cedar string literal: anything but plain letters and digits by its code point."""
    return "".join(c if c.isascii() and c.isalnum() else f"\\u{{{ord(c):x}}}" for c in text)


# ---------------------------------------------------------------------------------------------------------- translation


def _check(policy: dict[str, Any]) -> None:
    """Refuse a policy whose rest could not become a condition, whoever asks."""
    name = policy["annotations"]["id"]
    if policy["resource"]["op"] not in ("All", "is") or "in" in policy["resource"]:
        raise InputError(f"row policy {name} names single rows by id", where="row policy", fix="use columns instead")
    for clause in policy["conditions"]:
        try:
            _Translator(closed=True).clause(clause)
        except _UntranslatableError as error:
            raise InputError(
                f"row policy {name} cannot become a row filter: {error}", where="row policy", fix=_FIX
            ) from error


class _UntranslatableError(Exception):
    """An expression that is no condition on columns."""


class _Translator:
    """Cedar's JSON form of an expression into a condition.

    ``closed``: what does not mention the row stands for a value that is not known yet. Otherwise it is a value already.
    """

    def __init__(self, *, closed: bool = False) -> None:
        self._closed = closed

    def clause(self, clause: dict[str, Any]) -> Condition:
        """A ``when`` or ``unless``."""
        found = self.condition(clause["body"])
        return found if clause["kind"] == "when" else Not(found)

    def condition(self, expression: dict[str, Any]) -> Condition:
        """A boolean expression."""
        ((op, body),) = expression.items()
        if self._closed and not _mentions_row(expression):
            return Constant(True)
        if op == "Value" and isinstance(body, bool):
            return Constant(body)
        if op == ".":
            return self.column(expression)
        if op == "!":
            return Not(self.condition(body["arg"]))
        if op in ("&&", "||"):
            both = (self.condition(body["left"]), self.condition(body["right"]))
            return All(both) if op == "&&" else Any_(both)
        if op == "if-then-else":
            test = self.condition(body["if"])
            return Any_((All((test, self.condition(body["then"]))), All((Not(test), self.condition(body["else"])))))
        if op in get_args(Comparison):
            return Compare(
                op,  # type: ignore[arg-type]
                self.operand(body["left"]),
                self.operand(body["right"]),
            )
        if op == "has" and _is_row(body["left"]):
            return Present(body["attr"])
        if op == "is" and _is_row(body["left"]) and "in" not in body:
            return Constant(body["entity_type"] == "Row")
        if op == "contains":
            return OneOf(self.column(body["right"]), self.values(body["left"]))
        if op == "like":
            return Like(self.column(body["left"]), tuple(_literals(body["pattern"])))
        raise _UntranslatableError(f"{op!r} is not known in conditions on rows")

    def operand(self, expression: dict[str, Any]) -> Column | Value:
        """One side of a comparison."""
        if self._closed and not _mentions_row(expression):
            return Value(0)
        value = expression.get("Value")
        if isinstance(value, str | int):
            return Value(value)
        return self.column(expression)

    def column(self, expression: dict[str, Any]) -> Column:
        """A column of the row."""
        access = expression.get(".")
        if access is None or not _is_row(access["left"]):
            raise _UntranslatableError(f"{next(iter(expression))!r} stands where a column is needed")
        return Column(access["attr"])

    def values(self, expression: dict[str, Any]) -> tuple[str | int | bool, ...]:
        """A set of constants."""
        if self._closed and not _mentions_row(expression):
            return ()
        items = expression.get("Set", expression.get("Value"))
        if not isinstance(items, list):
            raise _UntranslatableError("a set that depends on the row")
        plain = [item["Value"] if isinstance(item, dict) and "Value" in item else item for item in items]
        if not all(isinstance(item, str | int) for item in plain):
            raise _UntranslatableError("a set of something else than text, numbers or truth values")
        return tuple(plain)


def _is_row(expression: dict[str, Any]) -> bool:
    return expression in ({"Var": "resource"}, {"unknown": [{"Value": "resource"}]})


def _mentions_row(expression: Any) -> bool:
    if isinstance(expression, dict):
        return _is_row(expression) or any(_mentions_row(item) for item in expression.values())
    return isinstance(expression, list) and any(_mentions_row(item) for item in expression)


def _literals(pattern: Iterable[Any]) -> Iterable[str | None]:
    return (None if part == "Wildcard" else part["Literal"] for part in pattern)


def _simple(condition: Condition) -> Condition:
    """The same condition with constants folded away; exact in three-valued logic."""
    if isinstance(condition, Not):
        of = _simple(condition.of)
        return Constant(not of.holds) if isinstance(of, Constant) else Not(of)
    if isinstance(condition, Known):
        of = _simple(condition.of)
        return of if isinstance(of, Constant) else Known(of, condition.otherwise)
    if isinstance(condition, All | Any_):
        neutral = isinstance(condition, All)
        parts = [_simple(part) for part in condition.of]
        if Constant(not neutral) in parts:
            return Constant(not neutral)
        left = tuple(part for part in parts if part != Constant(neutral))
        if len(left) == 1:
            return left[0]
        return type(condition)(left) if left else Constant(neutral)
    return condition
