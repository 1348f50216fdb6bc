"""The guarantees of e-values: bounded false alarms however often one looks, and the power that is published."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from bedplate.stats import evalues, intervals

ALPHA = 0.01


def test_calibrated_p_values_have_a_mean_of_one() -> None:
    # Uniform p: the mean is the integral over (0, 1), taken on the scale of y = -log p, where it is smooth. Beyond
    # y = 27 the value is cut at LARGEST; what it would add there is (1 - p) / y in closed form.
    total, _ = integrate.quad(lambda y: float(evalues.calibrate(math.exp(-y))) * math.exp(-y), 0, 27, limit=500)
    assert total + (1 - math.exp(-27)) / 27 == pytest.approx(1, abs=1e-4)
    assert evalues.calibrate(0.0) == evalues.LARGEST


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_p_value_is_more_evidence(a: float, b: float) -> None:
    low, high = sorted([a, b])
    small, large = evalues.calibrate([high, low])
    assert 0.4 <= small <= large * (1 + 1e-6)


def test_detectors_alarm_no_more_often_than_once_in_one_over_alpha() -> None:
    """400 streams of 100 null windows at alpha 0.001: at most a tenth of them."""
    rng, runs = np.random.default_rng(0), 400
    e = evalues.calibrate(rng.uniform(size=(runs, 100)))
    alarms = 0
    for stream in e:
        detector = evalues.Detector()
        highest = 0.0
        for value in stream:
            detector = detector.update(float(value))
            highest = max(highest, detector.value)
        alarms += highest >= 1000
    assert intervals.clopper_pearson(alarms, runs).high <= 0.1 * 1.5
    assert detector.steps == 100


def canary_walk(rng: np.random.Generator, share: float, stable: float, canary: float, requests: int) -> np.ndarray:
    """The e-value after each of the errors among ``requests``, with its request number: shape (errors, 2)."""
    on_canary = rng.random(requests) < share
    error = rng.random(requests) < np.where(on_canary, canary, stable)
    at = np.flatnonzero(error)
    values = evalues.canary_e_values(np.cumsum(on_canary[at]), np.arange(1, at.size + 1), share)
    return np.stack([at + 1, values], axis=1)


@pytest.mark.parametrize(("share", "rate"), [(0.1, 0.01), (0.1, 0.05), (0.5, 0.01)])
def test_a_canary_that_errs_as_often_is_left_alone(share: float, rate: float) -> None:
    """20,000 requests, looked at after each error: false alarms within the bound."""
    rng, runs = np.random.default_rng(1), 400
    alarms = sum(canary_walk(rng, share, rate, rate, 20_000)[:, 1].max() >= 1 / ALPHA for _ in range(runs))
    assert alarms <= stats.binom.ppf(0.99, runs, ALPHA)


@pytest.mark.parametrize(
    ("stable", "canary", "power", "median"),
    [(0.01, 0.05, 0.99, 1409), (0.001, 0.01, 0.97, 4276), (0.01, 0.02, 0.5, None)],
)
def test_a_canary_that_errs_more_is_stopped_as_soon_as_published(
    stable: float, canary: float, power: float, median: int | None
) -> None:
    rng, runs = np.random.default_rng(2), 200
    stops = []
    for _ in range(runs):
        walk = canary_walk(rng, 0.1, stable, canary, 20_000)
        above = walk[walk[:, 1] >= 1 / ALPHA, 0]
        stops.append(float(above[0]) if above.size else math.inf)
    assert np.isfinite(stops).mean() >= power
    if median:
        assert np.median(stops) == pytest.approx(median, rel=0.2)


def test_bursts_are_counted_once() -> None:
    """Errors of one second share their cause: taken one by one they alarm far too often, by burst they do not."""
    rng, runs = np.random.default_rng(3), 200
    raw = counted = 0
    for _ in range(runs):
        starts = np.sort(rng.uniform(0, 1e5, size=60)).round()
        times = np.repeat(starts, 20) + np.tile(np.arange(20) / 40, 60)
        on_canary = np.repeat(rng.random(60) < 0.1, 20)  # a bad node: the whole burst falls on one release
        first = evalues.first_of_burst(times)
        for kept, all_errors in ((on_canary[first], False), (on_canary, True)):
            e = evalues.canary_e_values(np.cumsum(kept), np.arange(1, kept.size + 1), 0.1).max()
            raw += all_errors and e >= 1 / ALPHA
            counted += not all_errors and e >= 1 / ALPHA
    assert counted <= stats.binom.ppf(0.99, runs, ALPHA)
    assert raw > runs // 4
    assert evalues.first_of_burst([]).size == 0


def test_the_canary_adds_up_and_refuses_a_share_that_is_none() -> None:
    canary = evalues.Canary(share=0.1).update(1, 4).update(3, 6)
    assert (canary.on_candidate, canary.errors) == (4, 10)
    assert canary.e_value == pytest.approx(float(evalues.canary_e_values(4, 10, 0.1)))
    assert evalues.Canary(share=0.1).e_value == pytest.approx(1)
    for share in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="share"):
            evalues.canary_e_values(1, 2, share)


@given(st.floats(0.01, 0.99), st.integers(0, 60))
def test_the_canary_e_process_is_a_supermartingale(share: float, errors: int) -> None:
    """Over all outcomes, weighed by their chance if both releases err alike, it averages to one, or less if cut."""
    on_candidate = np.arange(errors + 1)
    e = evalues.canary_e_values(on_candidate, np.full(errors + 1, errors), share)
    average = float((stats.binom.pmf(on_candidate, errors, share) * e).sum())
    assert average <= 1 + 1e-6
    assert average == pytest.approx(1, rel=1e-6) or e.max() == evalues.LARGEST


@pytest.mark.parametrize(("mean", "n"), [(0.02, 300), (0.3, 200), (0.5, 200)])
def test_a_betting_sequence_covers_its_mean_at_all_times(mean: float, n: int) -> None:
    rng, runs = np.random.default_rng(4), 120
    missed = 0
    for _ in range(runs):
        found = evalues.betting_sequence((rng.random(n) < mean).astype(float), grid=201)
        missed += bool(((found[:, 0] > mean) | (found[:, 1] < mean)).any())
    assert missed <= stats.binom.ppf(0.99, runs, 0.05)


def test_a_betting_interval_narrows_with_small_variance() -> None:
    rng = np.random.default_rng(5)
    tight = evalues.betting_interval(rng.uniform(0.48, 0.52, size=400))
    wide = evalues.betting_interval((rng.random(400) < 0.5).astype(float))
    assert tight.low <= 0.5 <= tight.high
    assert tight.high - tight.low < 0.5 * (wide.high - wide.low)
    scaled = evalues.betting_interval(rng.uniform(48, 52, size=400), low=0, high=100)
    assert scaled.low <= 50 <= scaled.high
    with pytest.raises(ValueError, match="at least one"):
        evalues.betting_interval([])
    with pytest.raises(ValueError, match="must lie in"):
        evalues.betting_interval([1.5])


def test_e_bh_keeps_false_discoveries_below_its_level_under_dependence() -> None:
    rng, runs, found, right = np.random.default_rng(6), 400, [], 0
    for _ in range(runs):
        z = rng.normal() * 0.7 + rng.normal(size=20) * math.sqrt(0.51)  # one common cause
        z[:5] += 5
        rejected = evalues.e_bh(evalues.calibrate(stats.norm.sf(z)), 0.1)
        found.append(rejected[5:].sum() / max(1, rejected.sum()))
        right += int(rejected[:5].sum())
    assert np.mean(found) <= 0.1
    assert right / runs / 5 > 0.5


@given(st.lists(st.floats(0, 1e6), max_size=30), st.sampled_from([0.05, 0.1, 0.5]))
def test_e_bh_is_its_definition(values: list[float], level: float) -> None:
    rejected = evalues.e_bh(values, level)
    count = max(
        (k for k in range(len(values) + 1) if sum(e * k * level >= len(values) for e in values) >= k), default=0
    )
    assert rejected.sum() == count
    assert all(values[i] * count * level >= len(values) for i in np.flatnonzero(rejected))
