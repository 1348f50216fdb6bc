import pytest

from bedplate.errors import InputError, UnavailableError
from bedplate.policy import untrusted
from bedplate.policy.filters import Attribute
from bedplate.policy.policies import schema_text

DEEP = '@id("x") permit (principal, action, resource) when { ' + "(" * 5000 + "true" + ")" * 5000 + " };"
GOOD = '@id("x") forbid (principal, action, resource is Home);'


def test_five_thousand_parentheses_end_the_child_and_nothing_else() -> None:
    with pytest.raises(InputError, match="overwhelms the parser"):
        untrusted.validate(DEEP, schema_text())


def test_a_text_in_order_is_loaded() -> None:
    assert "x" in untrusted.load(GOOD).ids
    rows = untrusted.load_rows('@id("r") permit (principal, action, resource);', {"a": Attribute("Long")})
    assert rows.columns == {"a": Attribute("Long")}


def test_what_was_let_through_needs_no_child_again_and_nothing_else_is_let_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    untrusted.load(GOOD)
    monkeypatch.setattr(untrusted.sys, "executable", "/bin/false")

    assert "x" in untrusted.load(GOOD).ids
    for other in (GOOD.replace('"x"', '"y"'), "permit ("):
        with pytest.raises(UnavailableError):
            untrusted.load(other)


@pytest.mark.parametrize(
    ("text", "problem"),
    [("permit (", "cannot be used"), ("forbid (principal, action, resource) when { resource.x };", "attribute `x`")],
)
def test_what_does_not_validate_is_named(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        untrusted.load(text)
