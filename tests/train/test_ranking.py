"""Ranking metrics and baselines against what they are by definition."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.train import ranking
from bedplate.train.windows import Purchases

DAY = 86_400_000_000


def purchases(*lines):
    """Lines of (household, product, basket, day), by time."""
    ordered = sorted(lines, key=lambda line: line[3])
    columns = [np.array([line[i] for line in ordered], np.int64) for i in range(4)]
    return Purchases(columns[0], columns[1], columns[2], columns[3] * DAY)


def test_recall_divides_by_everything_bought():
    """Two hits of three products bought are two thirds, also when the list is shorter."""
    lists, truth = {1: np.array([5, 6, 7]), 2: np.array([9])}, {1: np.array([5, 7, 8]), 2: np.array([1])}

    assert ranking.recall(lists, truth, 20).tolist() == pytest.approx([2 / 3, 0])
    assert ranking.recall(lists, truth, 1).tolist() == pytest.approx([1 / 3, 0])


def test_ndcg_is_the_discounted_hits_over_the_best_possible():
    """Hits at ranks 1 and 3, three products bought."""
    best = 1 + 1 / math.log2(3) + 1 / math.log2(4)

    found = ranking.ndcg({1: np.array([5, 6, 7])}, {1: np.array([5, 7, 8])}, 3)

    assert found.tolist() == pytest.approx([(1 + 1 / math.log2(4)) / best])


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=20, unique=True),
    st.sets(st.integers(0, 30), min_size=1, max_size=20),
)
def test_metrics_stay_between_none_and_all(items, bought):
    """A perfect list has NDCG 1, none goes beyond, and recall never falls as k grows."""
    truth = {1: np.array(sorted(bought))}
    found = [float(ranking.recall({1: np.array(items)}, truth, k)[0]) for k in range(1, 21)]

    assert found == sorted(found)
    assert 0 <= float(ranking.ndcg({1: np.array(items)}, truth, 20)[0]) <= 1 + 1e-12
    assert float(ranking.ndcg({1: truth[1]}, truth, 20)[0]) == pytest.approx(1)


def test_novelty_counts_bits_of_surprise():
    """What everybody bought is no surprise; what one of four bought is two bits."""
    before = purchases((1, 7, 1, 0), (2, 7, 2, 0), (3, 7, 3, 0), (4, 7, 4, 0), (4, 8, 4, 0))

    assert ranking.novelty({1: np.array([7])}, {1: np.array([1])}, 20, before).tolist() == [0]
    assert ranking.novelty({1: np.array([8])}, {1: np.array([1])}, 20, before).tolist() == [2]
    assert ranking.novelty({1: np.array([99])}, {1: np.array([1])}, 20, before).tolist() == [2]
    assert ranking.coverage({1: np.array([8])}, {1: np.array([1])}, 20, before) == 0.5


def test_baselines_are_what_their_names_say():
    """Most bought by lines with the later purchase first among equals; last basket; weighted by age; filled up."""
    before = purchases(
        (1, 10, 1, 0), (1, 10, 2, 50), (1, 11, 2, 50), (1, 12, 3, 99), (1, 13, 1, 0), (1, 13, 2, 50),
        (1, 13, 1, 0), (2, 20, 4, 10), (2, 20, 5, 20), (2, 20, 6, 30), (2, 20, 7, 40),
    )  # fmt: skip

    found = ranking.baselines(before, [1, 2], 3, 100 * DAY, half_life_days=10)

    assert found["popularity"][1].tolist() == [20, 13, 10]
    assert found["own_most_bought"][1].tolist() == [13, 10, 12]
    assert found["own_recency_weighted"][1][0] == 12
    assert found["last_basket"][1].tolist() == [12]
    assert found["own_most_bought"][2].tolist() == [20, 13, 10]
