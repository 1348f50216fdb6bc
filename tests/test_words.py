"""Figures and errors in words."""

import pytest

from bedplate import words


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0 s"),
        (-3, "0 s"),
        (40.4, "40 s"),
        (5400, "1 h 30 min"),
        (2 * 86400, "2 d"),
        (334 * 86400 + 3 * 3600 + 2381, "334 d 3 h"),
        (86400 + 60, "1 d 1 min"),
    ],
)
def test_a_span_is_told_in_its_greatest_units(seconds: float, told: str) -> None:
    assert words.span(seconds) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("nothing came.", "nothing came"),
        ("1 problem\n  line 5: no feature", "1 problem: line 5: no feature"),
        ("2 problems\n  line 5: a\n  line 7: b", "2 problems: line 5: a; line 7: b"),
        ("nothing was computed\nFix: bedplate run", "nothing was computed. Fix: bedplate run"),
    ],
)
def test_an_error_of_several_lines_is_told_on_one(text: str, told: str) -> None:
    assert words.one_line(text) == told
