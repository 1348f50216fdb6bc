import pytest

from bedplate.errors import InputError
from bedplate.policy.filters import NOTHING, Attribute, Constant, Present, RowPolicies
from bedplate.policy.values import Principal

COLUMNS = {"region": Attribute("String", True), "amount": Attribute("Long"), "flag": Attribute("Bool", True)}
ANA = Principal(kind="User", id="u1", name="ana", groups=("staff",))


def _when(condition: str, effect: str = "permit") -> str:
    return f'@id("{effect}") {effect} (principal, action, resource) when {{ {condition} }};\n'


@pytest.mark.parametrize(
    "text",
    [
        _when("resource.amount == 1"),  # optional, without has
        _when("resource.nothing == 1"),
        _when("resource.region == 1"),
        _when("resource has amount && resource.amount + 1 > 3"),
        _when("resource has amount && -resource.amount < 3"),
        _when("resource.flag == (resource has amount)"),
        _when('(if principal.name == "ana" then resource.region else "x") == "y"'),
        _when("[resource.region].contains(principal.name)"),
        _when('[resource.region, "x"].containsAll(["x"])'),
        _when('resource in Row::"1"'),
        '@id("x") permit (principal, action, resource == Row::"1");',
        '@id("x") permit (principal, action, resource in Row::"1");',
        "permit (principal, action, resource);",
        _when("true") + _when("true"),
        _when("(" * 5000 + "true" + ")" * 5000),
        "permit (",
    ],
)
def test_what_cannot_become_a_filter_is_refused_when_it_is_saved(text: str) -> None:
    with pytest.raises(InputError):
        RowPolicies.load(text, COLUMNS)


def test_without_a_permit_no_row_goes_out() -> None:
    assert RowPolicies.load(_when("resource.flag", "forbid"), COLUMNS).filter(ANA, "care").condition == NOTHING
    nobody = RowPolicies.load('@id("x") permit (principal in Group::"other", action, resource);', COLUMNS)
    assert nobody.filter(ANA, "care").condition == NOTHING


def test_a_policy_that_fails_denies_every_row() -> None:
    """Cedar itself would skip the forbid, and allow."""
    overflow = _when("9223372036854775807 + 1 > 0", "forbid")
    assert RowPolicies.load(_when("true") + overflow, COLUMNS).filter(ANA, "care").condition == NOTHING
    later = _when("resource.flag && 9223372036854775807 + 1 > 0", "forbid")
    assert RowPolicies.load(_when("true") + later, COLUMNS).filter(ANA, "care").condition == NOTHING


def test_what_does_not_depend_on_the_row_is_decided_once() -> None:
    text = _when('context.purpose == "care" && principal in Group::"staff"')
    policies = RowPolicies.load(text, {"a": Attribute("Long")})
    assert policies.filter(ANA, "care").condition == Constant(True)
    assert policies.filter(ANA, "care").policies == ("permit",)
    assert policies.filter(ANA, "other").condition == NOTHING
    required = RowPolicies.load(text, {"a": Attribute("Long", True)})
    assert required.filter(ANA, "care").condition == Present("a")


def test_an_invalid_principal_gets_nothing() -> None:
    robot = Principal(kind="Robot", id="r", name="r")  # type: ignore[arg-type]
    assert RowPolicies.load(_when("true"), COLUMNS).filter(robot, "care").condition == NOTHING
