"""Intervals against SciPy and published values, and their coverage by exact enumeration or seeded simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bedplate.stats import intervals

shares = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.8, 0.9, 0.95, 0.99])


@given(share=shares, level=levels)
def test_shares_agree_with_scipy(share: tuple[int, int], level: float) -> None:
    k, n = share
    result = stats.binomtest(k, n)
    wilson, exact = intervals.wilson(k, n, level), intervals.clopper_pearson(k, n, level)
    ours = (wilson.low, wilson.high, exact.low, exact.high)
    theirs = (*result.proportion_ci(level, "wilson"), *result.proportion_ci(level, "exact"))
    assert ours == pytest.approx(theirs, abs=1e-9)
    assert wilson.low <= wilson.value <= wilson.high
    assert exact.low <= exact.value <= exact.high


def test_wilson_gives_the_values_that_newcombe_published() -> None:
    """Newcombe (1998), Statistics in Medicine 17:857, table I, method 3."""
    for (k, n), expected in {(81, 263): (0.2553, 0.3662), (15, 148): (0.0624, 0.1605), (0, 20): (0, 0.1611)}.items():
        found = intervals.wilson(k, n)
        assert (round(found.low, 4), round(found.high, 4)) == expected


@pytest.mark.parametrize(("n", "share"), [(20, 0.1), (50, 0.02), (100, 0.5), (300, 0.9)])
def test_coverage_of_shares_enumerated(n: int, share: float) -> None:
    chance = stats.binom.pmf(np.arange(n + 1), n, share)
    covered = {
        make: sum(p for k, p in enumerate(chance) if (found := make(k, n)).low - 1e-12 <= share <= found.high + 1e-12)
        for make in (intervals.wilson, intervals.clopper_pearson)
    }
    assert covered[intervals.clopper_pearson] >= 0.95
    assert covered[intervals.wilson] >= 0.91  # about its level on average, not at each share


def test_nothing_seen_is_nothing_known() -> None:
    for make in (intervals.wilson, intervals.clopper_pearson):
        found = make(0, 0)
        assert math.isnan(found.value)
        assert (found.low, found.high) == (0, 1)


@pytest.mark.parametrize(("k", "n", "level"), [(-1, 3, 0.9), (4, 3, 0.9), (1, 3, 0.0), (1, 3, 1.0)])
def test_what_is_no_share_is_refused(k: int, n: int, level: float) -> None:
    for make in (intervals.wilson, intervals.clopper_pearson):
        with pytest.raises(ValueError, match=r"share|level"):
            make(k, n, level)


@pytest.mark.parametrize(("n", "q"), [(40, 0.5), (500, 0.99), (2000, 0.99)])
def test_a_quantile_is_covered_at_least_at_its_level_whatever_the_distribution(n: int, q: float) -> None:
    rng, runs = np.random.default_rng(0), 400
    truth = stats.lognorm.ppf(q, 1)
    found = [intervals.quantile(rng.lognormal(size=n), q) for _ in range(runs)]
    assert {item.method for item in found} == {"order-statistics"}
    missed = sum(not item.low <= truth <= item.high for item in found)
    assert missed <= stats.binom.ppf(0.999, runs, 0.05)


def test_too_few_values_for_a_quantile_say_so() -> None:
    found = intervals.quantile(np.arange(100.0), 0.99)
    assert found.method == "order-statistics (open)"
    assert found.high == 99


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40), levels)
def test_a_mean_agrees_with_scipy(values: list[float], level: float) -> None:
    found = intervals.mean(values, level)
    error = float(stats.sem(values))
    expected = stats.t.interval(level, len(values) - 1, np.mean(values), error) if error else (found.value,) * 2
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9, abs=1e-6)


def test_one_value_bounds_no_mean() -> None:
    assert (intervals.mean([3.0]).low, intervals.mean([3.0]).high) == (-math.inf, math.inf)


@pytest.mark.parametrize("values", [[], [math.nan], [[1.0, 2.0]]])
def test_what_is_no_list_of_numbers_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="flat list"):
        intervals.mean(values)
    with pytest.raises(ValueError, match="flat list"):
        intervals.quantile(values, 0.5)
