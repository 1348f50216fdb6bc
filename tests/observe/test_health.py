"""The promise on alerts: what pages, how soon, what does not, and how soon it is over."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.observe import health
from bedplate.observe.health import DAY, HOUR, MINUTE, alerts, budget_left, burn

OBJECTIVE = 0.999
STEP = 10.0
PER_STEP = 100_000
"""Requests per step of ten seconds: so many that burns come out exactly."""


def traffic(*parts: tuple[float, float], step: float = STEP, per_step: int = PER_STEP) -> np.ndarray:
    """Counts of parts (burn rate, seconds) one after the other, from time 0."""
    burns = np.concatenate([np.full(round(seconds / step), rate) for rate, seconds in parts])
    bad = np.minimum(np.round(burns * (1 - OBJECTIVE) * per_step), per_step)
    return np.stack([step * np.arange(1, burns.size + 1), per_step - bad, bad], axis=1)


def fired(counts: np.ndarray, severity: str, start: float = 0.0, step: float = STEP) -> list[float]:
    """Seconds after ``start`` at which an alert of ``severity`` stands, looked at after each step."""
    looks = np.arange(start + step, counts[-1, 0] + step / 2, step)
    return [
        now - start
        for now in looks
        if any(a.rule.severity == severity for a in alerts(counts[counts[:, 0] <= now], OBJECTIVE, now))
    ]


@pytest.mark.parametrize("rate", [14.4, 20.0, 100.0, 1000.0])
def test_a_burn_of_14_4_or_more_pages_within_five_minutes_of_a_quiet_hour(rate: float) -> None:
    pages = fired(traffic((0, HOUR), (rate, 10 * MINUTE)), "page", HOUR)
    assert pages[0] <= 5 * MINUTE
    assert pages[-1] == 10 * MINUTE  # and it stands while it burns


def test_a_burn_of_6_pages_within_half_an_hour_and_not_by_the_fast_rule() -> None:
    counts = traffic((0, HOUR), (6, 40 * MINUTE))
    pages = fired(counts, "page", HOUR)
    assert 5 * MINUTE < pages[0] <= 30 * MINUTE
    standing = alerts(counts, OBJECTIVE, counts[-1, 0])
    assert {alert.rule.burn for alert in standing if alert.rule.severity == "page"} == {6.0}


def test_a_burn_of_1_is_a_ticket_and_no_page() -> None:
    counts = traffic((0, DAY), (1, 3 * DAY), step=10 * MINUTE)
    tickets = fired(counts, "ticket", DAY, 10 * MINUTE)
    assert tickets[-1] == 3 * DAY
    assert not fired(counts, "page", DAY, HOUR)
    assert not fired(traffic((0, DAY), (0.9, 3 * DAY), step=HOUR), "ticket", DAY, HOUR)


@pytest.mark.parametrize("rate", [14.4, 50.0, 1000.0])
@pytest.mark.parametrize("offset", [0.0, 10.0, 30.0, 50.0])
def test_a_spike_of_three_minutes_pages_at_no_time(rate: float, offset: float) -> None:
    counts = traffic((0, HOUR + offset), (rate, 3 * MINUTE), (0, 40 * MINUTE))
    assert not fired(counts, "page", HOUR)


@pytest.mark.parametrize(("rate", "lasting"), [(14.4, HOUR), (100.0, 6 * MINUTE), (1000.0, 2 * HOUR), (6.0, HOUR)])
def test_a_page_is_over_ten_minutes_after_its_cause(rate: float, lasting: float) -> None:
    counts = traffic((0, HOUR), (rate, lasting), (0, HOUR))
    pages = fired(counts, "page", HOUR, 30.0)
    assert pages[0] <= lasting
    assert pages[-1] <= lasting + 10 * MINUTE


def test_little_traffic_that_meets_its_objective_pages_nobody() -> None:
    """Twelve requests a minute for 20 days, as many bad as is allowed: one error is 17x over five minutes."""
    rng = np.random.default_rng(0)
    steps = round(20 * DAY / MINUTE)
    bad = rng.binomial(12, 1 - OBJECTIVE, size=steps)
    counts = np.stack([MINUTE * np.arange(1, steps + 1), 12.0 - bad, bad], axis=1)
    assert bad.sum() > 100
    pages = 0
    for now in counts[bad > 0, 0]:  # nothing can begin in a minute without an error
        recent = counts[(counts[:, 0] > now - HOUR) & (counts[:, 0] <= now)]
        pages += any(alert.rule.severity == "page" for alert in alerts(recent, OBJECTIVE, now))
    assert pages == 0


def test_an_alert_shows_what_it_saw() -> None:
    (alert,) = [a for a in alerts(traffic((20, HOUR)), OBJECTIVE, HOUR) if a.rule.burn == 14.4]
    assert alert.long.rate == pytest.approx(20)
    assert 19 < alert.long.shown < 20
    assert (alert.long.requests, alert.short.requests) == (30 * PER_STEP, 6 * PER_STEP)
    assert alert.short.bad == pytest.approx(0.02 * 6 * PER_STEP)


def test_the_budget_of_a_month() -> None:
    assert budget_left(traffic((1, 30 * DAY), step=HOUR), OBJECTIVE, 30 * DAY) == pytest.approx(0)
    assert budget_left(traffic((0, 29 * DAY), (14.4, DAY), step=HOUR), OBJECTIVE, 30 * DAY) == pytest.approx(1 - 0.48)
    assert budget_left([], OBJECTIVE, 0.0) == 1


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=20),
    st.integers(1, 20),
    st.integers(2, 5),
)
def test_splitting_a_stretch_changes_nothing_and_idle_time_burns_nothing(
    rows: list[tuple[int, int]], at: int, parts: int
) -> None:
    counts = [(float(i), good, bad) for i, (good, bad) in enumerate(rows, 1)]
    split = [(time, part[0], part[1]) for time, good, bad in counts for part in [(good, 0), (0, bad)]]
    idle = sorted([*counts, *((i + j / parts, 0, 0) for i in range(1, 20) for j in range(1, parts))])
    expected = burn(counts, 0.9, at - 5, at)
    assert burn(split, 0.9, at - 5, at) == burn(idle, 0.9, at - 5, at) == expected
    assert 0 <= expected.shown <= expected.rate <= 10 * (1 + 1e-12)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=1, max_size=30), st.integers(2, 50))
def test_more_of_the_same_traffic_keeps_every_alert(rows: list[tuple[int, int]], times: int) -> None:
    counts = np.array([(MINUTE * i, good, bad) for i, (good, bad) in enumerate(rows, 1)], dtype=float)
    now = counts[-1, 0]
    few, many = (alerts(counts * [1, k, k], 0.99, now) for k in (1, times))
    assert {alert.rule for alert in few} <= {alert.rule for alert in many}


@pytest.mark.parametrize(
    ("counts", "objective"),
    [([(0, 1, 0)], 1.0), ([(0, 1, 0)], 0.0), ([(0, -1, 0)], 0.9), ([(2, 1, 0), (1, 1, 0)], 0.9),
     ([(0, 1)], 0.9), ([(0, math.nan, 1)], 0.9)],
)  # fmt: skip
def test_what_are_no_counts_is_refused(counts: list[tuple[float, ...]], objective: float) -> None:
    for ask in (lambda: burn(counts, objective, 0, 1), lambda: alerts(counts, objective, 1)):
        with pytest.raises(ValueError, match=r"objective|counts"):
            ask()


def test_the_rules_are_those_that_are_promised() -> None:
    assert [(rule.severity, rule.burn) for rule in health.RULES] == [("page", 14.4), ("page", 6.0), ("ticket", 1.0)]
