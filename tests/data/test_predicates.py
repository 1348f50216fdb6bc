import json
import random
from typing import Any, NamedTuple

import cedarpy
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bedplate.data import duck, predicates
from bedplate.policy.filters import Attribute, RowPolicies, schema_text
from bedplate.policy.values import Principal
from tests.laws import examples

SCHEMA = pa.schema(
    [
        ("region", pa.string()),
        ("amount", pa.int32()),
        ("flag", pa.bool_()),
        ("my note", pa.string()),
        ("big", pa.int64()),
        ("tiny", pa.int8()),
        ("open", pa.bool_()),
    ]
)
PEOPLE = [
    Principal(kind="User", id='u"1\\', name="north", groups=("staff",)),
    Principal(kind="User", id="u2", name="%_x*"),
    Principal(kind="Service", id="flow", name="flow"),
]
PURPOSES = ["care", "research"]
TEXTS = ["north", "south", "", "a%b", "a_b", "axb", "x\ny", "\\", "*", "é", "%_x*", 'quo"te', "e\u0301", "\U0001f600"]
NUMBERS = [-(2**63), -(2**31), -129, -5, 0, 1, 3, 128, 2**31, 2**63 - 1]
POOLS: dict[str, list[Any]] = {
    "region": TEXTS,
    "my note": TEXTS,
    "amount": [-(2**31), -5, -1, 0, 1, 3, 4, 2**31 - 1],
    "big": [-(2**63), -(2**31), -5, 0, 1, 3, 2**31, 2**53 + 1, 2**63 - 1],
    "tiny": [-128, -5, 0, 1, 3, 127],
    "flag": [True, False],
    "open": [True, False],
}
OF_TYPE = {
    kind: [name for name, attribute in predicates.attributes(SCHEMA).items() if attribute.type == kind]
    for kind in ("String", "Long", "Bool")
}


class Case(NamedTuple):
    """Row policies over columns of which some are required, and who asks for what."""

    policies: list[tuple[str, ...]]
    required: frozenset[str]
    principal: Principal
    purpose: str

    @property
    def text(self) -> str:
        return "\n".join(
            f'@id("p{number}") {effect} ({who}, action == Action::"read", {what}) {word} {{ {condition} }};'
            for number, (effect, who, what, word, condition) in enumerate(self.policies)
        )

    @property
    def columns(self) -> dict[str, Attribute]:
        return predicates.attributes(SCHEMA, self.required)


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\u{{{ord(c):x}}}" for c in text) + '"'


def _pattern(text: str) -> str:
    return '"' + "".join("*" if c == "?" else "\\*" if c == "*" else f"\\u{{{ord(c):x}}}" for c in text) + '"'


def _of(name: str) -> str:
    return f'resource["{name}"]'


def _atoms(required: frozenset[str]) -> st.SearchStrategy[str]:
    """Conditions on single columns, behind ``has`` where a column is not required, and on what is no column."""

    def guarded(condition: str, *names: str) -> str:
        return " && ".join([*(f'resource has "{name}"' for name in names if name not in required), condition])

    def compared(kind: str, ops: list[str], constants: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        names, op = st.sampled_from(OF_TYPE[kind]), st.sampled_from(ops)
        return st.one_of(
            st.builds(lambda a, o, c: guarded(f"{_of(a)} {o} {c}", a), names, op, constants),
            st.builds(lambda c, o, a: guarded(f"{c} {o} {_of(a)}", a), constants, op, names),
            st.builds(lambda a, o, b: guarded(f"{_of(a)} {o} {_of(b)}", a, b), names, op, names),
            st.builds(
                lambda a, cs: guarded(f"[{', '.join(cs)}].contains({_of(a)})", a),
                names,
                st.lists(constants, min_size=1, max_size=3),
            ),
        )

    texts = st.one_of(st.sampled_from(TEXTS).map(_quoted), st.just("principal.name"), st.just("context.purpose"))
    patterns = st.sampled_from(["a?b", "?", "", "?\n?", "%", "*", "a?", "?x?", "\\", "_", "?é"]).map(_pattern)
    return st.one_of(
        st.sampled_from(["true", "principal is User", 'principal in Group::"staff"', "resource is Row"]),
        st.sampled_from(SCHEMA.names).map('resource has "{}"'.format),
        st.just('context.purpose == "care"'),
        st.sampled_from(OF_TYPE["Bool"]).map(lambda name: guarded(_of(name), name)),
        compared("Bool", ["==", "!="], st.sampled_from(["true", "false"])),
        compared("String", ["==", "!="], texts),
        compared("Long", ["==", "!=", "<", "<=", ">", ">="], st.sampled_from(NUMBERS).map(str)),
        st.builds(lambda a, p: guarded(f"{_of(a)} like {p}", a), st.sampled_from(OF_TYPE["String"]), patterns),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Policies that validate: what does not could not be saved."""
    required = draw(st.frozensets(st.sampled_from(SCHEMA.names)))
    conditions = st.recursive(
        _atoms(required),
        lambda inner: st.one_of(
            st.builds("!({})".format, inner),
            st.builds("({}) && ({})".format, inner, inner),
            st.builds("({}) || ({})".format, inner, inner),
            st.builds("if ({}) then ({}) else ({})".format, inner, inner, inner),
        ),
        max_leaves=6,
    )
    policy = st.tuples(
        st.sampled_from(["permit", "permit", "forbid"]),
        st.sampled_from(["principal", 'principal in Group::"staff"', f"principal == User::{_quoted(PEOPLE[0].id)}"]),
        st.sampled_from(["resource", "resource is Row"]),
        st.sampled_from(["when", "unless"]),
        conditions,
    )
    policies = draw(st.lists(policy, min_size=1, max_size=4))
    case = Case(policies, required, draw(st.sampled_from(PEOPLE)), draw(st.sampled_from(PURPOSES)))
    assume(cedarpy.validate_policies(case.text, schema_text(case.columns)).validation_passed)
    return case


def _rows(seed: int, count: int) -> list[dict[str, Any]]:
    """Rows of extreme and ordinary values, one in five of them null."""
    chance = random.Random(seed)
    return [
        {name: None if chance.random() < 0.2 else chance.choice(pool) for name, pool in POOLS.items()}
        for _ in range(count)
    ]


def _allowed(case: Case, rows: list[dict[str, Any]]) -> list[int]:
    """The rows that Cedar allows, asked about each by itself, with any error a Deny."""
    schema = cedarpy.Schema.from_str(schema_text(case.columns))
    groups = [{"type": "Group", "id": group} for group in case.principal.groups]
    uid = {"type": case.principal.kind, "id": case.principal.id}
    people = [
        {"uid": uid, "attrs": {"name": case.principal.name}, "parents": groups},
        *({"uid": group, "attrs": {}, "parents": []} for group in groups),
    ]

    def entity(number: int) -> dict[str, Any]:
        present = {name: value for name, value in rows[number].items() if value is not None}
        return {"uid": {"type": "Row", "id": str(number)}, "attrs": present, "parents": []}

    whole = [number for number, row in enumerate(rows) if all(row[name] is not None for name in case.required)]
    if len(whole) < len(rows):  # Cedar takes no row that lacks a required column
        lacking = next(number for number in range(len(rows)) if number not in whole)
        with pytest.raises(ValueError, match="conform"):
            cedarpy.Entities.from_json_str(json.dumps([*people, entity(lacking)]), schema)
    entities = cedarpy.Entities.from_json_str(json.dumps([*people, *map(entity, whole)]), schema)
    requests = [
        {
            "principal": uid,
            "action": {"type": "Action", "id": "read"},
            "resource": {"type": "Row", "id": str(number)},
            "context": {"purpose": case.purpose},
        }
        for number in whole
    ]
    answers = cedarpy.is_authorized_batch(requests, cedarpy.PolicySet.from_str(case.text), entities, schema)
    return [
        number
        for number, answer in zip(whole, answers, strict=True)
        if answer.allowed and not answer.diagnostics.errors
    ]


def _agree(case: Case, rows: list[dict[str, Any]]) -> None:
    """The scan, the SQL and Cedar let out the same rows."""
    condition = RowPolicies.load(case.text, case.columns).filter(case.principal, case.purpose).condition
    expected = _allowed(case, rows)
    table = pa.Table.from_pylist(rows, SCHEMA).append_column("n", pa.array(range(len(rows))))
    by_arrow = ds.dataset(table).to_table(filter=predicates.arrow(condition)).column("n").to_pylist()
    statement, bound = predicates.sql(condition)
    with duck.connect({"rows": table}, threads=1) as connection:
        by_sql = connection.execute(f"SELECT n FROM rows WHERE {statement} ORDER BY n", bound).fetchall()
    assert by_arrow == expected
    assert [n for (n,) in by_sql] == expected


@examples(16, suppress=(HealthCheck.filter_too_much,))
@given(case=cases(), seed=st.integers(0, 2**32))
def test_the_filter_lets_out_the_rows_that_cedar_allows(case: Case, seed: int) -> None:
    _agree(case, _rows(seed, 40))


def test_a_row_of_nulls_goes_out_only_where_nothing_is_required() -> None:
    nothing = [dict.fromkeys(SCHEMA.names)]
    everybody = [("permit", "principal", "resource", "when", "true")]
    for required in (frozenset(), frozenset({"region"})):
        case = Case(everybody, required, PEOPLE[0], "care")
        assert _allowed(case, nothing) == ([] if required else [0])
        _agree(case, nothing)


@pytest.mark.long
@settings(
    max_examples=500,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
@given(case=cases(), seed=st.integers(0, 2**32))
def test_a_hundred_thousand_rows_go_out_as_cedar_says(case: Case, seed: int) -> None:
    """500 sets of policies, 200 rows each."""
    _agree(case, _rows(seed, 200))


def test_values_are_bound_and_names_quoted() -> None:
    policies = RowPolicies.load(
        '@id("x") permit (principal, action, resource) when { resource["a\\"; DROP"] == principal.name };',
        {'a"; DROP': Attribute("String", True)},
    )
    hostile = Principal(kind="User", id="u", name="' OR 1=1 --")
    statement, bound = predicates.sql(policies.filter(hostile, "care").condition)
    assert "OR" not in statement
    assert '"a""; DROP"' in statement
    assert bound == ["' OR 1=1 --"]


def test_columns_of_other_types_are_unknown_to_policies() -> None:
    schema = pa.schema([("a", pa.float64()), ("b", pa.date32()), ("c", pa.int64())])
    assert predicates.attributes(schema) == {"c": Attribute("Long", False)}


@pytest.mark.parametrize("name", ["a.b", "[0]", ".x", "ü", "select"])
def test_any_column_name_is_taken_as_it_stands(name: str) -> None:
    policies = RowPolicies.load(
        f'@id("x") permit (principal, action, resource) when {{ resource["{name}"] == 2 }};',
        {name: Attribute("Long", True)},
    )
    table = pa.table({name: [1, 2, None]})
    condition = policies.filter(PEOPLE[0], "care").condition
    assert ds.dataset(table).to_table(filter=predicates.arrow(condition)).to_pylist() == [{name: 2}]
