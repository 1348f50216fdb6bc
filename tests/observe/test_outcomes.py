"""Joining predictions with what was bought later, at the edges."""

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.observe.outcomes import match

START = datetime(2017, 12, 4, tzinfo=UTC)
WEEK = 7 * 86400.0
STAMP = pa.timestamp("us", tz="UTC")


def predictions(*rows: tuple[str, float, list[int]]) -> pa.Table:
    """Rows of entity, days after START, items."""
    return pa.table(
        {
            "entity": pa.array([row[0] for row in rows], pa.string()),
            "as_of": pa.array([START + timedelta(days=row[1]) for row in rows], STAMP),
            "items": pa.array([row[2] for row in rows], pa.list_(pa.int64())),
            "window": pa.array([f"day {int(row[1])}" for row in rows], pa.string()),
        }
    )


def outcomes(*rows: tuple[str, int, float]) -> pa.Table:
    """Rows of entity, item, days after START."""
    return pa.table(
        {
            "entity": pa.array([row[0] for row in rows], pa.string()),
            "item": pa.array([row[1] for row in rows], pa.int64()),
            "time": pa.array([START + timedelta(days=row[2]) for row in rows], STAMP),
        }
    )


LATER = ("nobody", 0, 60.0)
"""An outcome long after, so that every prediction had its whole time."""


@pytest.mark.parametrize(
    ("day", "matched"), [(-0.001, 0), (0.0, 1), (6.999, 1), (7.0, 0)], ids=["before", "at once", "last moment", "late"]
)
def test_the_time_of_a_prediction_includes_its_start_and_not_its_end(day: float, matched: int) -> None:
    found = match(predictions(("a", 0, [1])), outcomes(("a", 1, day), LATER), WEEK)
    assert (found.predictions, found.matched.value, found.with_outcome) == (1, matched, matched)


def test_another_item_is_an_outcome_and_no_match_and_another_entity_is_neither() -> None:
    found = match(predictions(("a", 0, [1, 2]), ("b", 0, [1])), outcomes(("a", 9, 1), ("c", 1, 1), LATER), WEEK)
    assert (found.predictions, found.with_outcome, found.matched.value) == (2, 1, 0)


def test_buying_twice_or_both_items_is_one_match() -> None:
    found = match(predictions(("a", 0, [1, 2, 2])), outcomes(("a", 1, 1), ("a", 1, 2), ("a", 2, 1), LATER), WEEK)
    assert (found.predictions, found.matched.value, found.matched.n) == (1, 1, 1)


def test_one_outcome_may_answer_two_predictions() -> None:
    found = match(predictions(("a", 0, [1]), ("a", 3, [1])), outcomes(("a", 1, 5), LATER), WEEK)
    assert found.matched.value == 1
    assert found.matched.method.startswith("cluster bootstrap")
    assert found.matched.n == 1  # one entity, whatever it was shown
    assert {name: window.predictions for name, window in found.windows.items()} == {"day 0": 1, "day 3": 1}


def test_predictions_whose_time_is_not_over_are_left_out() -> None:
    asked = predictions(("a", 0, [1]), ("a", 5, [1]))
    assert match(asked, outcomes(("a", 1, 7)), WEEK).predictions == 1
    assert match(asked, outcomes(("a", 1, 1)), WEEK).predictions == 0
    # The last day of the outcomes counts as told: they come by the day.
    assert match(asked, outcomes(("a", 1, 6)), WEEK).predictions == 1


def test_a_prediction_that_named_nothing_matches_nothing() -> None:
    asked = predictions(("a", 0, []), ("b", 0, [1]))
    found = match(asked, outcomes(("a", 1, 1), ("b", 1, 1), LATER), WEEK)
    assert (found.predictions, found.with_outcome, found.matched.value) == (2, 2, 0.5)


def test_nothing_predicted_or_nothing_known_is_no_estimate() -> None:
    for found in (
        match(predictions(), outcomes(LATER), WEEK),
        match(predictions(("a", 0, [1])), outcomes(), WEEK),
    ):
        assert (found.predictions, found.matched.n, found.matched.low, found.matched.high) == (0, 0, 0, 1)


def test_times_of_other_precision_and_zone_agree() -> None:
    asked = predictions(("a", 0, [1]))
    bought = outcomes(("a", 1, 1), LATER)
    plain = bought.set_column(2, "time", bought["time"].cast(pa.timestamp("ms", tz="Europe/Berlin")))
    assert match(asked, plain, WEEK) == match(asked, bought, WEEK)


ROWS = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.lists(st.integers(0, 3), max_size=3)), max_size=8
)
BOUGHT = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 40)), max_size=12)


@given(ROWS, BOUGHT)
def test_matching_is_its_definition(
    asked: list[tuple[str, int, list[int]]], bought: list[tuple[str, int, int]]
) -> None:
    found = match(predictions(*asked), outcomes(*bought), WEEK)
    last = max((day for _, _, day in bought), default=-100)
    whole = [row for row in asked if row[1] + 7 <= last + 1] if bought else []
    followed = [[(e, i) for e, i, day in bought if e == entity and at <= day < at + 7] for entity, at, _ in whole]
    hits = [any(i in row[2] for _, i in after) for row, after in zip(whole, followed, strict=True)]
    assert found.predictions == len(whole)
    assert found.with_outcome == sum(map(bool, followed))
    assert found.matched.value == pytest.approx(sum(hits) / len(hits) if hits else 0)
    assert sum(window.predictions for window in found.windows.values()) == len(whole)
