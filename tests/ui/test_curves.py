import math

import pytest

from bedplate.errors import InputError
from bedplate.ui import curves, render

KEYS = ["epoch", "train/acc", "train/loss", "val/acc", "val/loss", "a/b/loss"]


def titles(how):
    return [(chart.title, len(chart.keys)) for chart in curves.grouped(KEYS, how)]


def test_metrics_are_drawn_together_by_prefix_or_by_name():
    assert titles("prefix") == [("epoch", 1), ("train", 2), ("val", 2), ("a/b", 1)]
    assert titles("name") == [("epoch", 1), ("acc", 2), ("loss", 3)]
    assert titles("none") == [(key, 1) for key in KEYS]


def test_a_chart_has_no_more_lines_than_can_be_told_apart():
    charts = curves.grouped([f"layer/{number}" for number in range(20)], "prefix")

    assert [len(chart.keys) for chart in charts] == [8, 8, 4]
    assert charts[0].title == "layer (1 of 3)"


def test_settings_that_are_none_are_the_usual_ones():
    assert curves.control("axis", "time") == "time"
    assert curves.control("axis", "<script>") == "step"


@pytest.mark.parametrize("text", ["", "1", "a:b", "1:2:3", "1:" + "9" * 30])
def test_steps_are_two_numbers(text):
    assert curves.steps("-5:70") == (-5, 70)
    with pytest.raises(InputError):
        curves.steps(text)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.158, "0.15800"), (1469307.0, "1,469,307"), (-0.5, "−0.50000"), (2.4e-7, "2.4000e−7"), (12.3456, "12.346"),
        (math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "−∞"), (0.0, "0"), (1e300, "1.0000e+300"), (99999.6, "100,000"),
    ],
)  # fmt: skip
def test_logged_numbers_have_five_digits_that_count(number, shown):
    assert render.value(number) == shown


@pytest.mark.parametrize(
    ("milliseconds", "shown"),
    [
        (0, "0.0 s"), (89_940, "89.9 s"), (192_000, "3 min 12 s"), (18_120_000, "5 h 02 min"),
        (273_600_000, "3 d 4 h"), (-1, ""),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_say_them(milliseconds, shown):
    assert render.elapsed(milliseconds) == shown


def test_times_that_no_calendar_holds_are_shown_as_they_are():
    assert render.at(1_795_510_800_000) == "24 Nov 2026, 09:00 UTC"
    assert render.at(2**62) == str(2**62)
    assert render.iso(2**62) == ""
