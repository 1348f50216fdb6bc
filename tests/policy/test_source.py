"""A text of policies is taken apart where Cedar itself would, and put together again it says the same."""

import json

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.policy.pieces import pieces
from bedplate.policy.policies import builtin_text
from bedplate.policy.source import statements

TEXT = """// one; with "a quote
@id("a") @reason("b;c \\" // d")
permit (principal, action, resource) when { context.purpose == "x;\\"y" };  // after it; too

// two
@id("b")
forbid (principal, action, resource);
// the end
"""


def test_each_policy_keeps_its_words_and_its_line() -> None:
    first, second = statements(TEXT)

    assert (first.id, first.effect, first.line) == ("a", "permit", 2)
    assert first.reason == 'b;c " // d'
    assert first.text.startswith("// one")
    assert first.text.endswith("// after it; too")
    assert (second.id, second.effect, second.reason, second.line) == ("b", "forbid", "b", 6)
    assert second.text.startswith("// two")


def test_the_built_in_policies_come_apart_and_together_again() -> None:
    parts = statements(builtin_text())

    def meaning(text: str) -> list[str]:
        found = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values()
        return sorted(json.dumps(policy, sort_keys=True) for policy in found)

    assert len(parts) == builtin_text().count("@id(")
    assert meaning("\n".join(part.text for part in parts)) == meaning(builtin_text())


@pytest.mark.parametrize(
    "text", ["", "  \n// nothing", "permit (principal, action, resource);", TEXT + TEXT, TEXT.replace('"a"', '"a b"')]
)
def test_what_cannot_be_kept_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        statements(text)


@given(st.text(alphabet='ab;"\\/\n ', max_size=60))
def test_any_text_comes_apart_without_losing_a_character(text: str) -> None:
    """Whatever stands there, nothing but white space and remarks at the end is left out, and nothing is said twice."""
    parts = [piece for _, piece in pieces(text)]

    rest = text
    for part in parts:
        assert part in rest
        rest = rest[rest.index(part) + len(part) :]
    left = [line.strip() for line in rest.split("\n") if line.strip()]
    assert all(line.startswith("//") for line in left)
