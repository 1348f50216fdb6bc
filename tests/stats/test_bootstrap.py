"""Bootstrap intervals: seeds, agreement with theory, and coverage where a naive interval fails."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bedplate.records import Estimate
from bedplate.stats import bootstrap, intervals
from tests.laws import examples

RUNS = 200


def misses(draw: Callable[[np.random.Generator], Estimate], truth: float, runs: int = RUNS) -> int:
    rng = np.random.default_rng(0)
    return sum(not (found := draw(rng)).low <= truth <= found.high for _ in range(runs))


def most(nominal: float, runs: int = RUNS) -> float:
    """What a true rate of ``nominal`` exceeds once in a thousand times."""
    return float(stats.binom.ppf(0.999, runs, nominal))


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).normal(size=100)
    groups = np.arange(100) // 5
    assert bootstrap.mean_interval(values, 200, 7) == bootstrap.mean_interval(values, 200, 7)
    assert bootstrap.mean_interval(values, 200, 7) != bootstrap.mean_interval(values, 200, 8)
    assert bootstrap.mean_interval(values, 200, 7, clusters=groups) == bootstrap.mean_interval(
        values, 200, 7, clusters=groups
    )


def test_many_rows_are_drawn_in_pieces_with_the_theoretical_width() -> None:
    values = np.random.default_rng(1).normal(size=200_000)  # ten draws fit into one piece
    found, theory = bootstrap.mean_interval(values, 100), intervals.mean(values)
    assert found.high - found.low == pytest.approx(theory.high - theory.low, rel=0.25)


@examples(10)
@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=30), st.sampled_from(["percentile", "bca"]))
def test_an_interval_lies_within_the_data(values: list[float], method: bootstrap.Method) -> None:
    found = bootstrap.mean_interval(values, 100, method=method)
    assert found.n == len(values)
    assert min(values) - 1e-9 <= found.low <= found.high <= max(values) + 1e-9


def test_coverage_of_a_mean() -> None:
    assert misses(lambda rng: bootstrap.mean_interval(rng.normal(size=60), 400), 0.0) <= most(0.05)


def test_bca_agrees_with_scipy_on_skewed_data() -> None:
    values = np.random.default_rng(2).lognormal(size=80)
    ours = bootstrap.mean_interval(values, 20_000, method="bca")
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="BCa", rng=3).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.04 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.04 * width)
    assert ours.low > bootstrap.mean_interval(values, 20_000).low  # a long right tail moves both ends to the right


def test_pairs_see_a_difference_that_is_lost_between_units() -> None:
    rng = np.random.default_rng(3)
    unit = rng.normal(scale=10, size=200)
    a, b = unit + 0.3 + rng.normal(scale=0.5, size=200), unit
    paired, unpaired = bootstrap.paired_difference(a, b), bootstrap.unpaired_difference(a, b)
    assert paired.value == pytest.approx(unpaired.value)
    assert paired.low > 0
    assert unpaired.low < 0 < unpaired.high


def test_coverage_of_differences() -> None:
    def unpaired(rng: np.random.Generator) -> Estimate:
        return bootstrap.unpaired_difference(rng.normal(1, 1, 50), rng.normal(0, 3, 80), 400)

    def paired(rng: np.random.Generator) -> Estimate:
        unit = rng.normal(scale=5, size=60)
        return bootstrap.paired_difference(unit + 1 + rng.normal(size=60), unit + rng.normal(size=60), 400)

    assert misses(unpaired, 1.0) <= most(0.06)
    assert misses(paired, 1.0) <= most(0.06)


def test_clusters_are_drawn_whole() -> None:
    """Eight values of one unit that repeat each other: rows taken as independent miss the mean, clusters do not."""
    groups = np.repeat(np.arange(60), 8)

    def draw(rng: np.random.Generator) -> np.ndarray:
        return np.repeat(rng.normal(size=60), 8) + 0.1 * rng.normal(size=480)

    assert misses(lambda rng: bootstrap.mean_interval(draw(rng), 400, clusters=groups), 0.0) <= most(0.06)
    assert misses(lambda rng: bootstrap.mean_interval(draw(rng), 400), 0.0) > RUNS // 3


def test_clusters_of_one_value_are_rows() -> None:
    values = np.random.default_rng(5).normal(size=300)
    rows, clusters = bootstrap.mean_interval(values), bootstrap.mean_interval(values, clusters=np.arange(300))
    assert (clusters.low, clusters.high) == pytest.approx((rows.low, rows.high))


def test_what_cannot_be_drawn_from_is_refused() -> None:
    for values in ([], [math.inf], [[1.0]]):
        with pytest.raises(ValueError, match="flat list"):
            bootstrap.mean_interval(values)
    with pytest.raises(ValueError, match="equal lengths"):
        bootstrap.paired_difference([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="cluster labels"):
        bootstrap.mean_interval([1.0, 2.0], clusters=["a"])
