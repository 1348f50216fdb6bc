"""Reading the retrain section: what it means, and that nothing else gets through."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.errors import InputError
from bedplate.retrain import parse, parse_worth

WORDS = st.sampled_from(
    ["drift", "quality", "new_rows", "every", ">=", ">", "<", "=", "7", "0", "-1", "1e9", "d", "weeks", "and", "or",
     "expected_gain", "cost", "if", "*", "always", "nan", "inf", "__import__('os')", "1_000",
     "_", ",", " ", "\n", "\x00", "٣"]
)  # fmt: skip
GARBAGE = st.one_of(
    st.text(max_size=60), st.lists(WORDS, max_size=8).map(" ".join), st.lists(WORDS, max_size=8).map("".join)
)


def read(parser: Callable[[str], Any], text: str) -> Any:
    """What ``parser`` reads, or the only error that it may raise."""
    try:
        return parser(text)
    except InputError as error:
        return error


@given(GARBAGE)
def test_a_reason_is_read_or_refused_with_a_fix(text: str) -> None:
    found = read(parse, text)
    if isinstance(found, InputError):
        assert found.fix
    else:
        assert found.signal in ("drift", "quality", "new_rows", "age")
        assert 0 <= found.threshold < float("inf")
        assert found.signal != "age" or found.threshold > 0


@given(GARBAGE)
def test_a_worth_is_read_or_refused_with_a_fix(text: str) -> None:
    found = read(parse_worth, text)
    if isinstance(found, InputError):
        assert found.fix
    else:
        assert found.text == "always" or re.search("^expected_gain.*cost$", found.text)
        assert found.factor is None or 0 <= found.factor < float("inf")


@given(st.integers(0, 10**12), st.sampled_from([">=", ">"]), st.sampled_from(["", " ", "  "]), st.booleans())
def test_rows_mean_what_they_say(rows: int, operator: str, space: str, grouped: bool) -> None:
    condition = parse(f"new_rows{space}{operator}{space}{rows:{',' if grouped else ''}}")
    assert (condition.signal, condition.operator, condition.threshold) == ("new_rows", operator, rows)


@given(
    st.integers(1, 10**6), st.sampled_from([("min", 60), ("h", 3600), ("d", 86400), ("w", 604800), ("weeks", 604800)])
)
def test_ages_are_seconds(number: int, unit: tuple[str, int]) -> None:
    condition = parse(f"every {number} {unit[0]}")
    assert (condition.signal, condition.threshold) == ("age", number * unit[1])


@given(st.floats(0, 1e6).map(lambda x: round(x, 3)))
def test_a_factor_is_a_number(factor: float) -> None:
    assert parse_worth(f"expected_gain > {factor:.3f} * cost").factor == pytest.approx(factor)


@pytest.mark.parametrize("text", ["every " + "9" * 400 + " d", "new_rows >= " + "9" * 400])
def test_a_number_beyond_all_measure_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse(text)
