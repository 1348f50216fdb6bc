import json
from typing import Any

import cedarpy
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bedplate.data import duck, predicates
from bedplate.policy.filters import Attribute, RowPolicies, schema_text
from bedplate.policy.values import Principal

SCHEMA = pa.schema([("region", pa.string()), ("amount", pa.int32()), ("flag", pa.bool_()), ("my note", pa.string())])
COLUMNS = predicates.attributes(SCHEMA, required=["region", "flag"])
PEOPLE = [
    Principal(kind="User", id='u"1\\', name="north", groups=("staff",)),
    Principal(kind="User", id="u2", name="%_x*"),
    Principal(kind="Service", id="flow", name="flow"),
]
PURPOSES = ["care", "research"]
TEXTS = ["north", "south", "", "a%b", "a_b", "axb", "x\ny", "\\", "*", "é", "%_x*", 'quo"te']
TEXT = st.sampled_from(TEXTS)
NUMBER = st.sampled_from([-(2**63), -(2**31), -5, 0, 1, 3, 2**31, 2**63 - 1])
SMALL = st.sampled_from([-(2**31), -5, -1, 0, 1, 3, 4, 2**31 - 1])


def _quoted(text: str) -> str:
    return '"' + "".join(f"\\u{{{ord(c):x}}}" for c in text) + '"'


def _pattern(text: str) -> str:
    return '"' + "".join("*" if c == "?" else "\\*" if c == "*" else f"\\u{{{ord(c):x}}}" for c in text) + '"'


_NOTE = 'resource["my note"]'
_HAS_NOTE = 'resource has "my note"'
ATOMS = st.one_of(
    st.just("resource.flag"),
    st.sampled_from(["true", "principal is User", 'principal in Group::"staff"', _HAS_NOTE, "resource is Row"]),
    st.builds("resource.region {} {}".format, st.sampled_from(["==", "!="]), TEXT.map(_quoted)),
    st.just("resource.region == principal.name"),
    st.just('context.purpose == "care"'),
    st.just(f"{_HAS_NOTE} && {_NOTE} == resource.region"),
    st.builds("resource.region like {}".format, st.sampled_from(["a?b", "?", "", "?\n?", "%", "*"]).map(_pattern)),
    st.builds(f"{_HAS_NOTE} && {_NOTE} like {{}}".format, st.sampled_from(["a?", "?x?", "\\"]).map(_pattern)),
    st.builds(
        "resource has amount && resource.amount {} {}".format,
        st.sampled_from(["==", "!=", "<", "<=", ">", ">="]),
        NUMBER,
    ),
    st.lists(TEXT, min_size=1, max_size=3).map(
        lambda texts: "[" + ", ".join(map(_quoted, texts)) + "].contains(resource.region)"
    ),
    st.lists(SMALL, min_size=1, max_size=2).map(
        lambda numbers: f"resource has amount && {numbers}.contains(resource.amount)"
    ),
)
CONDITIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("!({})".format, inner),
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("if ({}) then ({}) else ({})".format, inner, inner, inner),
    ),
    max_leaves=5,
)
POLICY = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(["principal", 'principal in Group::"staff"', f"principal == User::{_quoted(PEOPLE[0].id)}"]),
    st.sampled_from(["resource", "resource is Row"]),
    st.sampled_from(["when", "unless"]),
    CONDITIONS,
)
ROW = st.fixed_dictionaries(
    {
        "region": st.one_of(TEXT, st.none()),
        "amount": st.one_of(SMALL, st.none()),
        "flag": st.one_of(st.booleans(), st.none()),
        "my note": st.one_of(TEXT, st.none()),
    }
)


def _text(policies: list[tuple[str, ...]]) -> str:
    return "\n".join(
        f'@id("p{number}") {effect} ({who}, action == Action::"read", {what}) {word} {{ {condition} }};'
        for number, (effect, who, what, word, condition) in enumerate(policies)
    )


def _asked(text: str, principal: Principal, purpose: str, row: dict[str, Any]) -> bool:
    """What Cedar says about one row, with any error a Deny."""
    groups = [{"type": "Group", "id": group} for group in principal.groups]
    uid = {"type": principal.kind, "id": principal.id}
    found = [
        {"uid": uid, "attrs": {"name": principal.name}, "parents": groups},
        {"uid": {"type": "Row", "id": "r"}, "attrs": {k: v for k, v in row.items() if v is not None}, "parents": []},
        *({"uid": group, "attrs": {}, "parents": []} for group in groups),
    ]
    schema = cedarpy.Schema.from_str(schema_text(COLUMNS))
    try:
        entities = cedarpy.Entities.from_json_str(json.dumps(found), schema)
    except ValueError:
        return False
    request = {
        "principal": uid,
        "action": {"type": "Action", "id": "read"},
        "resource": {"type": "Row", "id": "r"},
        "context": {"purpose": purpose},
    }
    result = cedarpy.is_authorized(request, text, entities, schema)
    return result.allowed and not result.diagnostics.errors


@settings(max_examples=60, deadline=None)
@given(
    policies=st.lists(POLICY, min_size=1, max_size=4),
    principal=st.sampled_from(PEOPLE),
    purpose=st.sampled_from(PURPOSES),
    rows=st.lists(ROW, min_size=5, max_size=20),
)
@example(
    policies=[("permit", "principal", "resource", "when", "true")],
    principal=PEOPLE[0],
    purpose="care",
    rows=[{"region": None, "amount": None, "flag": None, "my note": None}],
)
def test_the_filter_lets_out_the_rows_that_cedar_allows(
    policies: list[tuple[str, ...]], principal: Principal, purpose: str, rows: list[dict[str, Any]]
) -> None:
    text = _text(policies)
    if not cedarpy.validate_policies(text, schema_text(COLUMNS)).validation_passed:
        return  # for example a condition that is never true
    condition = RowPolicies.load(text, COLUMNS).filter(principal, purpose).condition
    expected = [number for number, row in enumerate(rows) if _asked(text, principal, purpose, row)]
    table = pa.Table.from_pylist(rows, SCHEMA).append_column("n", pa.array(range(len(rows))))
    by_arrow = ds.dataset(table).to_table(filter=predicates.arrow(condition)).column("n").to_pylist()
    statement, bound = predicates.sql(condition)
    with duck.connect({"rows": table}, threads=1) as connection:
        by_sql = connection.execute(f"SELECT n FROM rows WHERE {statement} ORDER BY n", bound).fetchall()
    assert by_arrow == expected
    assert [n for (n,) in by_sql] == expected


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
