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
