"""Intervals for shares, quantiles and means. Each function returns an :class:`~bedplate.records.Estimate`.

Sources: Wilson (1927) and Clopper & Pearson (1934) for shares, as compared by Brown, Cai & DasGupta (2001);
order statistics for quantiles (David & Nagaraja, *Order Statistics*, 7.1); Student (1908) for means.
"""

import math

import numpy as np
import numpy.typing as npt
from scipy import special

from bedplate.records import Estimate

Values = npt.ArrayLike
"""One-dimensional numbers."""


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """The share ``successes / n`` with Wilson's score interval: near its level already at small ``n``.

    With ``n`` = 0 nothing is known: the share is not a number and its interval is [0, 1].

    Raises:
        ValueError: not 0 <= successes <= n, or level outside (0, 1).
    """
    _check(successes, n, level)
    if n == 0:
        return Estimate(value=math.nan, low=0.0, high=1.0, level=level, n=0, method="wilson")
    z = float(special.ndtri(0.5 + level / 2))
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The score interval touches 0 and 1 exactly there; rounding must not let it miss its own value.
    low, high = min(max(0.0, centre - half), share), max(min(1.0, centre + half), share)
    return Estimate(value=share, low=low, high=high, level=level, n=n, method="wilson")


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """The share ``successes / n`` with the exact interval: never below its level, wider than Wilson's.

    Raises:
        ValueError: not 0 <= successes <= n, or level outside (0, 1).
    """
    _check(successes, n, level)
    if n == 0:
        return Estimate(value=math.nan, low=0.0, high=1.0, level=level, n=0, method="clopper-pearson")
    tail = (1 - level) / 2
    low = float(special.betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(special.betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Estimate(value=successes / n, low=low, high=high, level=level, n=n, method="clopper-pearson")


def quantile(values: Values, q: float, level: float = 0.95) -> Estimate:
    """The ``q``-quantile with the interval between two order statistics: no assumption on the distribution.

    The number of values below the quantile is binomial, so ranks of that binomial bound it. Where ``n`` is too small
    for a bound (fewer than about 370 values for p99 from above) the extreme value stands in and ``method`` says
    ``order-statistics (open)``: on that side the interval holds less than its level.

    Raises:
        ValueError: no values, a value that is not a number, or q or level outside (0, 1).
    """
    array = np.sort(np.asarray(values, dtype=np.float64))
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("a quantile needs a flat list of at least one finite number")
    if not 0 < q < 1 or not 0 < level < 1:
        raise ValueError(f"q {q} and level {level} must lie between 0 and 1")
    n = int(array.size)
    tail = (1 - level) / 2
    cumulative = special.bdtr(np.arange(n + 1, dtype=np.float64), n, q)  # P(at most k values lie below)
    # Value number r (from 1) is below the quantile unless fewer than r values are: P(B <= r - 1).
    below = int(np.searchsorted(cumulative, tail, side="right"))  # greatest r with P(B <= r - 1) <= tail
    above = int(np.searchsorted(cumulative, 1 - tail, side="left")) + 1  # least r with P(B <= r - 1) >= 1 - tail
    is_open = below < 1 or above > n
    return Estimate(
        value=float(np.quantile(array, q)),
        low=float(array[max(below, 1) - 1]),
        high=float(array[min(above, n) - 1]),
        level=level,
        n=n,
        method="order-statistics (open)" if is_open else "order-statistics",
    )


def mean(values: Values, level: float = 0.95) -> Estimate:
    """The mean with Student's t interval: right for roughly normal means, so ``n`` above 30 or tame tails.

    One value gives an unbounded interval.

    Raises:
        ValueError: no values, or a value that is not a number.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("a mean needs a flat list of at least one finite number")
    n = int(array.size)
    centre = float(array.mean())
    if n == 1:
        return Estimate(value=centre, low=-math.inf, high=math.inf, level=level, n=1, method="t")
    half = float(special.stdtrit(n - 1, 0.5 + level / 2)) * float(array.std(ddof=1)) / math.sqrt(n)
    return Estimate(value=centre, low=centre - half, high=centre + half, level=level, n=n, method="t")


def _check(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a share")
    if not 0 < level < 1:
        raise ValueError(f"level {level} must lie between 0 and 1")
