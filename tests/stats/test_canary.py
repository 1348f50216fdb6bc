"""The guarantees of the canary tests: false alarms within their bound however traffic behaves, and the power said."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bedplate.stats import canary
from bedplate.stats.evalues import LARGEST

ALPHA = 0.01


def walk(rng: np.random.Generator, share: float, stable: float, candidate: float, requests: int) -> np.ndarray:
    """The e-value after each of the errors among ``requests``, with its request number: shape (errors, 2)."""
    on_candidate = rng.random(requests) < share
    error = rng.random(requests) < np.where(on_candidate, candidate, stable)
    at = np.flatnonzero(error)
    values = canary.e_values(np.cumsum(on_candidate[at]), np.arange(1, at.size + 1), share)
    return np.stack([at + 1, values], axis=1)


@pytest.mark.parametrize(("share", "rate"), [(0.1, 0.01), (0.1, 0.05), (0.5, 0.01)])
def test_a_candidate_that_errs_as_often_is_left_alone(share: float, rate: float) -> None:
    """20,000 requests, looked at after each error: false alarms within the bound."""
    rng, runs = np.random.default_rng(1), 400
    alarms = sum(walk(rng, share, rate, rate, 20_000)[:, 1].max() >= 1 / ALPHA for _ in range(runs))
    assert alarms <= stats.binom.ppf(0.99, runs, ALPHA)


@pytest.mark.parametrize(
    ("stable", "candidate", "power", "median"),
    [(0.01, 0.05, 0.99, 1409), (0.001, 0.01, 0.97, 4276), (0.01, 0.02, 0.5, None)],
)
def test_a_candidate_that_errs_more_is_stopped_as_soon_as_published(
    stable: float, candidate: float, power: float, median: int | None
) -> None:
    rng, runs = np.random.default_rng(2), 200
    stops = []
    for _ in range(runs):
        path = walk(rng, 0.1, stable, candidate, 20_000)
        above = path[path[:, 1] >= 1 / ALPHA, 0]
        stops.append(float(above[0]) if above.size else math.inf)
    assert np.isfinite(stops).mean() >= power
    if median:
        assert np.median(stops) == pytest.approx(median, rel=0.2)


def alarm_at(seconds: "list[tuple[int, int, int]]", share: float) -> float:
    """The second after which a look each second alarms; infinity if none does."""
    events = canary.Events()
    for i, (on_candidate, count, requests) in enumerate(seconds):
        events.second(on_candidate, count, requests)
        if count and events.e_value(share) >= 1 / ALPHA:
            return i + 1
    return math.inf


def traffic(
    rng: np.random.Generator, share: float, rates: tuple[float, float], seconds: int, bursts: str
) -> list[tuple[int, int, int]]:
    """Seconds of about 100 requests; ten ``bursts``: of a common cause, of one process, or of one of its nodes."""
    per_second = rng.poisson(100, size=seconds)
    on = rng.binomial(per_second, share)
    drift = np.exp(np.cumsum(rng.normal(0, 0.05, size=seconds))) if bursts else np.ones(seconds)
    stable, candidate = (np.clip(rate * drift, 0, 1) for rate in rates)
    on_candidate, on_stable = rng.binomial(on, candidate), rng.binomial(per_second - on, stable)
    for start in rng.integers(0, seconds, size=10) if bursts else ():
        hit_candidate = bursts == "common" or rng.random() < share
        hit_stable = bursts == "common" or not hit_candidate
        if bursts == "node":
            on_candidate[start] += 20 * hit_candidate
            on_stable[start] += 20 * hit_stable
            continue
        on_candidate[start] += hit_candidate * rng.binomial(on[start] - on_candidate[start], 0.8)
        on_stable[start] += hit_stable * rng.binomial(per_second[start] - on[start] - on_stable[start], 0.8)
    events = on_candidate + on_stable
    return list(zip(on_candidate.tolist(), events.tolist(), per_second.tolist(), strict=True))


@pytest.mark.parametrize("runs", [70, pytest.param(200, marks=pytest.mark.long)])
@pytest.mark.parametrize("bursts", ["", "common", "process", "node"])
def test_the_same_release_twice_is_not_rolled_back(bursts: str, runs: int) -> None:
    """Runs of 300 s with a look each second: at most 1.5 times the nominal share alarm."""
    rng = np.random.default_rng(3)
    alarms = sum(math.isfinite(alarm_at(traffic(rng, 0.1, (0.01, 0.01), 300, bursts), 0.1)) for _ in range(runs))
    assert alarms <= 1.5 * ALPHA * runs


def test_errors_of_one_process_taken_one_by_one_alarm_far_too_often() -> None:
    """What the counting by bursts is for: without it the same traffic alarms in more than a quarter of the runs."""
    rng, runs, alarms = np.random.default_rng(4), 60, 0
    for _ in range(runs):
        seconds = np.array(traffic(rng, 0.1, (0.01, 0.01), 300, "node"))
        alarms += canary.e_values(np.cumsum(seconds[:, 0]), np.cumsum(seconds[:, 1]), 0.1).max() >= 1 / ALPHA
    assert alarms > runs // 4


def test_five_times_the_errors_are_found_within_3400_requests() -> None:
    rng, runs = np.random.default_rng(5), 1000
    found = sum(alarm_at(traffic(rng, 0.1, (0.01, 0.05), 34, ""), 0.1) <= 34 for _ in range(runs))
    assert found >= 0.92 * runs


def alarmed(share: float, chance: float, events: int) -> np.ndarray:
    """The exact chance of an alarm within 0, 1, ... ``events`` events, each the candidate's by ``chance``."""
    going, found = np.zeros(events + 2), [0.0]
    going[0] = 1.0
    for n in range(1, events + 1):
        going[1:] = going[1:] * (1 - chance) + going[:-1] * chance
        going[0] *= 1 - chance
        alarms = canary.e_values(np.arange(n + 1), np.full(n + 1, n), share) >= 1 / ALPHA
        found.append(found[-1] + float(going[: n + 1][alarms].sum()))
        going[: n + 1][alarms] = 0.0
    return np.array(found)


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_by_the_exact_law_no_more_than_alpha_of_equal_releases_ever_alarm(share: float) -> None:
    """However the rate of errors moves: only to whom the next one falls is left to chance, and 400 errors fall."""
    assert alarmed(share, share, 400)[-1] <= ALPHA


@pytest.mark.parametrize(
    ("candidate", "stable", "requests", "power"), [(0.05, 0.01, 3400, 0.935), (0.01, 0.001, 10_000, 0.9)]
)
def test_by_the_exact_law_a_worse_release_is_found(
    candidate: float, stable: float, requests: int, power: float
) -> None:
    on_candidate, rate = 0.1 * candidate, 0.1 * candidate + 0.9 * stable
    found = alarmed(0.1, on_candidate / rate, 200)
    events = stats.poisson.pmf(np.arange(201), requests * rate)
    assert float((events * found).sum()) >= power


def test_a_release_that_answers_nothing_is_found_in_seconds() -> None:
    for share, requests in ((0.01, 100), (0.1, 100), (0.5, 20), (0.1, 1000)):
        on = max(1, round(share * requests))
        assert alarm_at([(on, on, requests)] * 60, share) <= 6


def test_a_share_that_is_none_is_refused() -> None:
    assert canary.Events().e_value(0.1) == pytest.approx(1)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="share"):
            canary.e_values(1, 2, share)
        with pytest.raises(ValueError, match="allowed"):
            canary.excess_e_value(1, 2, share)


@given(st.floats(0.01, 0.99), st.integers(0, 60))
def test_the_e_process_is_a_supermartingale(share: float, errors: int) -> None:
    """Over all outcomes, weighed by their chance if both releases err alike, it averages to one, or less if cut."""
    on_candidate = np.arange(errors + 1)
    chance = stats.binom.pmf(on_candidate, errors, share)
    e = canary.e_values(on_candidate, np.full(errors + 1, errors), share)
    assert float((chance * e).sum()) <= 1 + 1e-6
    assert float((chance * e).sum()) == pytest.approx(1, rel=1e-6) or e.max() == LARGEST
    if errors:  # as one burst: whatever its events have to do with each other
        as_burst = canary.e_values(on_candidate / errors, np.ones(errors + 1), share)
        assert float((chance * as_burst).sum()) <= 1 + 1e-6
        assert as_burst[0] * (1 - share) + as_burst[-1] * share <= 1 + 1e-6


@given(st.floats(0.01, 0.9), st.integers(0, 60))
def test_the_excess_averages_to_one_at_what_is_allowed(allowed: float, n: int) -> None:
    e = np.array([canary.excess_e_value(k, n, allowed) for k in range(n + 1)])
    average = float((stats.binom.pmf(np.arange(n + 1), n, allowed) * e).sum())
    assert average <= 1 + 1e-6
    assert average == pytest.approx(1, rel=1e-6) or e.max() == LARGEST


def test_a_share_above_what_is_allowed_is_found() -> None:
    assert canary.excess_e_value(30, 100, 0.05) > 1000
    assert canary.excess_e_value(5, 100, 0.05) < 1


@pytest.mark.parametrize(
    ("share", "candidate", "runs", "low", "high"), [(0.1, 0.3, 200, 0.0, 1.5 * ALPHA), (0.5, 0.2, 40, 0.9, 1.0)]
)
def test_the_same_earnings_are_left_alone_and_less_are_found(
    share: float, candidate: float, runs: int, low: float, high: float
) -> None:
    """3,000 outcomes, yes or no, 0.3 of them yes at the stable release, looked at after each of the candidate's."""
    rng, alarms = np.random.default_rng(6), 0
    for _ in range(runs):
        values, on = canary.Values(), rng.random(3000) < share
        earned = rng.random(3000) < np.where(on, candidate, 0.3)
        for value, on_candidate in zip(earned.tolist(), on.tolist(), strict=True):
            values.add(float(value), on_candidate=on_candidate)
            if on_candidate and values.e_value >= 1 / ALPHA:
                alarms += 1
                break
    assert low * runs <= alarms <= high * runs


def test_a_value_beyond_its_bounds_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        canary.Values().add(1.5, on_candidate=True)
