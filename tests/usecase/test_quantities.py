import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.usecase import quantities
from bedplate.usecase.approvals import Quorum, QuorumError
from bedplate.usecase.approvals import parse as parse_quorum
from bedplate.usecase.checks import parse_holdout


@given(st.data())
def test_every_unit_of_every_kind_is_read_as_its_factor(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(quantities.KINDS)))
    unit = data.draw(st.sampled_from(sorted(quantities.KINDS[kind].units)))
    number = data.draw(st.integers(0, 10**6))
    gap = data.draw(st.sampled_from(["", " ", "  "]))
    expected = number * quantities.KINDS[kind].units[unit]
    assert quantities.parse(f"{number}{gap}{unit}", kind) == pytest.approx(expected)


@given(st.text(max_size=20), st.sampled_from(sorted(quantities.KINDS)))
def test_any_other_text_is_refused_with_what_is_allowed(text: str, kind: str) -> None:
    try:
        value, allowed = quantities.parse(text, kind), ""
    except quantities.QuantityError as error:
        value, allowed = -1.0, error.allowed
    assert value >= 0 or allowed


def test_a_share_keeps_its_digits() -> None:
    assert quantities.parse("99.9 %", "share") == 0.999


@pytest.mark.parametrize(("text", "expected"), [("2000 USD", (2000, "USD")), ("0.12EUR", (0.12, "EUR"))])
def test_money(text: str, expected: tuple[float, str]) -> None:
    assert quantities.parse_money(text) == expected


@pytest.mark.parametrize("text", ["2000", "USD", "-5 USD", "1e999 USD", "5 DOLLARS", "NaN USD"])
def test_what_is_no_money_is_refused(text: str) -> None:
    with pytest.raises(quantities.QuantityError):
        quantities.parse_money(text)


@pytest.mark.parametrize(
    ("text", "quorum"),
    [
        ("2 of [a, b, c]", Quorum(2, ("a", "b", "c"))),
        ("all of [a, b]", Quorum(2, ("a", "b"))),
        ("any of [a, b]", Quorum(1, ("a", "b"))),
        ("risk", Quorum(1, ("risk",))),
    ],
)
def test_quorums(text: str, quorum: Quorum) -> None:
    assert parse_quorum(text) == quorum


@pytest.mark.parametrize("text", ["", "0 of [a]", "3 of [a, b]", "2 of [a, a]", "2 of []", "2 of a, b", "one of [a]"])
def test_quorums_that_nobody_can_read_or_reach(text: str) -> None:
    with pytest.raises(QuorumError):
        parse_quorum(text)


def test_a_holdout_is_a_share_or_a_time() -> None:
    assert parse_holdout("20 %") == ("share", 0.2)
    assert parse_holdout("28 d") == ("time", 28 * 86400)
    for text in ("0 %", "95 %", "20", "0 d", "soon"):
        with pytest.raises(quantities.QuantityError):
            parse_holdout(text)
