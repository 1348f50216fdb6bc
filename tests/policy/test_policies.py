import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.policy import values
from bedplate.policy.guard import check_text
from bedplate.policy.policies import Policies
from bedplate.policy.values import FLOW, Principal, Resource

ADMIN = Principal(kind="User", id="u1", name="admin", groups=("administrators",))
RISK = Principal(kind="User", id="u2", name="ana", groups=("risk",))
NOBODY = Principal(kind="User", id="u3", name="eve")
TABLE = values.table("retail.transactions", use_case="retail", purposes=("personalisation",))
BUNDLE = values.bundle("sha256:1", use_case="retail", approvers=("risk",))
POLICIES = Policies.load()


def _ok(principal: Principal, action: str, resource: Resource, **context: object) -> bool:
    return POLICIES.decide(principal, action, resource, context).allowed


def test_rows_are_bound_to_their_purpose() -> None:
    assert _ok(ADMIN, "read", TABLE, purpose="personalisation")
    assert _ok(FLOW, "read", TABLE, purpose="personalisation")
    assert not _ok(ADMIN, "read", TABLE, purpose="pricing")
    assert not _ok(ADMIN, "read", TABLE)


def test_dev_approves_by_policy_and_production_never() -> None:
    assert _ok(FLOW, "approve", BUNDLE, environment="dev", gates_passed=True)
    assert not _ok(FLOW, "approve", BUNDLE, environment="dev", gates_passed=False)
    assert not _ok(FLOW, "approve", BUNDLE, environment="production", gates_passed=True)
    assert not _ok(ADMIN, "approve", BUNDLE, environment="production", gates_passed=True)
    assert _ok(RISK, "approve", BUNDLE, environment="production", gates_passed=True)


@pytest.mark.parametrize("action", ["read", "write", "list", "administer", "audit", "run", "plan"])
def test_nobody_may_do_anything(action: str) -> None:
    assert not _ok(NOBODY, action, values.HOME)


@pytest.mark.parametrize(
    "resource",
    [
        Resource(kind="Table", id="t"),  # no attributes
        Resource(kind="Table", id="t", attributes={**TABLE.attributes, "purposes": "personalisation"}),  # wrong type
        Resource(kind="Table", id="t", attributes={**TABLE.attributes, "more": 1}),
        Resource(kind="Shed", id="t"),  # type: ignore[arg-type]
    ],
)
def test_a_resource_that_does_not_fit_the_schema_is_denied(resource: Resource) -> None:
    assert not _ok(ADMIN, "read", resource, purpose="personalisation")


@pytest.mark.parametrize("context", [{"purpose": 1}, {"purpose": None}, {"surprise": 1}, {"gates_passed": "yes"}])
def test_a_context_that_does_not_fit_is_denied(context: dict[str, object]) -> None:
    assert not POLICIES.decide(ADMIN, "administer", values.HOME, context).allowed


def test_an_unknown_action_is_denied() -> None:
    assert not _ok(ADMIN, "nonsense", values.HOME)


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource)",
        "permit (principal, action, resource);",  # no id
        '@id("administrators") permit (principal, action, resource);',  # twice
        '@id("x") forbid (principal, action, resource is Table) when { resource.classification == "phi" };',
        '@id("x") permit (principal, action == Action::"fly", resource);',
        '@id("x") permit (principal, action, resource) when { ' + "(" * 1000 + "true" + ")" * 1000 + " };",
        '@id("x") permit (principal, action, resource) when { ' + "!" * 1000 + "true };",
    ],
)
def test_a_text_that_could_fail_open_or_crash_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        Policies.load(text)


def test_brackets_in_text_and_comments_do_not_count() -> None:
    check_text('@id("' + "(" * 500 + '") // ' + "(" * 500)


def test_a_policy_that_overflows_denies() -> None:
    big = '@id("x") forbid (principal, action, resource is Home) when { 9223372036854775807 + 1 > context.purpose.x };'
    with pytest.raises(InputError):
        Policies.load(big)
    overflow = '@id("x") forbid (principal, action, resource is Home) when { 9223372036854775807 + 1 > 0 };'
    assert not Policies.load(overflow).decide(ADMIN, "administer", values.HOME).allowed


CONDITIONS = ['context.environment == "dev"', "context.gates_passed", 'context.purpose == "p"', "true", "false"]


@given(
    condition=st.sampled_from(CONDITIONS),
    principal=st.sampled_from([ADMIN, RISK, NOBODY, FLOW]),
    action=st.sampled_from(["read", "approve", "waive", "release"]),
    environment=st.sampled_from(["dev", "production"]),
    gates=st.booleans(),
)
def test_another_forbid_never_widens(
    condition: str, principal: Principal, action: str, environment: str, gates: bool
) -> None:
    context = {"environment": environment, "gates_passed": gates, "purpose": "p"}
    more = Policies.load(f'@id("more") forbid (principal, action, resource) when {{ {condition} }};')
    if more.decide(principal, action, BUNDLE, context).allowed:
        assert POLICIES.decide(principal, action, BUNDLE, context).allowed
