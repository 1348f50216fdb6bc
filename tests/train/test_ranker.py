"""The exported ranker gives the scores of the trained one, also on the thresholds themselves."""

import numpy as np
import onnxruntime
import pytest

from bedplate.errors import IntegrityError
from bedplate.train import ranker


def fitted(seed=0, n=2000):
    random = np.random.default_rng(seed)
    x = np.round(random.normal(0, 2, (n, 4)), 1).astype(np.float32)
    x[random.random(x.shape) < 0.1] = -1
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int8)
    settings = {"rounds": 40, "parameters": {"num_leaves": 15}, "threads": 1, "seed": 7}
    return ranker.fit(x, y, np.ones(n, np.float32), ("a", "b", "c", "d"), **settings), x


def test_scores_survive_the_export():
    """Within 1e-5 everywhere, on values that lie on split thresholds too."""
    booster, x = fitted()
    model = ranker.export(booster, 4)
    edges = np.array([list(np.linspace(-3, 3, 61))] * 4, np.float32).T

    assert ranker.verify(booster, model, x) <= 1e-5
    assert ranker.verify(booster, model, edges) <= 1e-5


def test_a_foreign_export_is_refused():
    """A model of other trees does not pass for this one."""
    booster, x = fitted()
    other, _ = fitted(seed=1)

    with pytest.raises(IntegrityError, match="differs"):
        ranker.verify(booster, ranker.export(other, 4), x)


def test_one_row_scores_like_many():
    """Serving scores one household at a time, evaluation may score many: same bits."""
    booster, x = fitted()
    session = onnxruntime.InferenceSession(ranker.export(booster, 4), providers=["CPUExecutionProvider"])
    many = session.run(["score"], {"features": x[:300]})[0]

    for start in range(0, 300, 100):
        some = session.run(["score"], {"features": x[start : start + 100]})[0]
        assert np.array_equal(some, many[start : start + 100])


def test_the_same_seed_gives_the_same_file():
    """Bytes, not just scores."""
    assert ranker.export(fitted()[0], 4) == ranker.export(fitted()[0], 4)
