"""The candidate stage: implicit-feedback alternating least squares (Hu, Koren & Volinsky, 2008)."""

import numpy as np

from bedplate.extensions import require
from bedplate.serve.recommender import Factors
from bedplate.serve.state import Ids
from bedplate.train.windows import Window


def fit(
    window: Window,
    weight: int,
    popular: Ids,
    *,
    size: int,
    iterations: int,
    regularization: float,
    alpha: float,
    min_buyers: int,
    threads: int,
    seed: int,
) -> Factors:
    """Item factors from the purchase weights (column ``weight`` of the pairs) known at a window's moment.

    Products with fewer than ``min_buyers`` households are left out: their vectors would be noise.
    """
    implicit_als = require("implicit.als", "train")
    from scipy import sparse  # heavy: only training needs it

    items, buyers = np.unique(window.items, return_counts=True)
    items = items[buyers >= min_buyers]
    at = np.searchsorted(items, window.items)
    kept = (at < len(items)) & (items[np.minimum(at, len(items) - 1)] == window.items)
    owner = np.repeat(np.arange(len(window.bounds)), [high - low for low, high in window.bounds.values()])
    confidence = 1 + alpha * window.pairs[:, weight]
    shape = (len(window.bounds), len(items))
    matrix = sparse.csr_matrix((confidence[kept], (owner[kept], at[kept])), shape=shape, dtype=np.float32)
    with require("threadpoolctl", "train").threadpool_limits(1, "blas"):  # its own threads and BLAS's would multiply
        model = implicit_als.AlternatingLeastSquares(
            factors=size,
            regularization=regularization,
            iterations=iterations,
            num_threads=threads,
            random_state=seed,
            use_gpu=False,
        )
        model.fit(matrix, show_progress=False)
    return Factors(items, np.asarray(model.item_factors), popular, alpha=alpha, regularization=regularization)
