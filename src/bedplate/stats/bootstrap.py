"""Bootstrap intervals for means and differences of means, seeded and in bounded memory.

Sources: Efron & Tibshirani, *An Introduction to the Bootstrap* (1993), chapters 13 (percentile) and 14 (BCa).
A metric of a model is a mean over units (households, rows), so units are what is drawn, with everything they hold.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from bedplate.records import Estimate

Method = Literal["percentile", "bca"]
_CELLS = 1 << 21
"""Values drawn at once (16 MiB of them), so that memory does not grow with ``resamples`` times ``n``."""


def mean_interval(
    values: npt.ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
    method: Method = "percentile",
    clusters: npt.ArrayLike | None = None,
) -> Estimate:
    """The mean of ``values``, one per unit, with a bootstrap interval.

    ``clusters`` (same length) says which values belong to one unit, such as the predictions of one household: whole
    clusters are drawn then, since values of one unit repeat each other.

    Raises:
        ValueError: no values, a value that is not finite, or lengths that differ.
    """
    array = _flat(values)
    if clusters is None:
        means = _resampled_means(array, resamples, np.random.default_rng(seed))
        return _estimate(array, means, level, method, "bootstrap")
    _, member = np.unique(np.asarray(clusters), return_inverse=True)
    if member.size != array.size:
        raise ValueError(f"{array.size} values but {member.size} cluster labels")
    sums = np.bincount(member, weights=array).astype(np.float64)
    sizes = np.bincount(member).astype(np.float64)
    means = _resampled_ratios(sums, sizes, resamples, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(array.mean()),
        low=float(low),
        high=float(high),
        level=level,
        n=int(sums.size),
        method="cluster bootstrap percentile",
    )


def paired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
    method: Method = "percentile",
) -> Estimate:
    """Mean of ``a`` minus mean of ``b``, measured on the same units in the same order: units are drawn as pairs.

    Raises:
        ValueError: no values, a value that is not finite, or lengths that differ.
    """
    first, second = _flat(a), _flat(b)
    if first.size != second.size:
        raise ValueError(f"pairs need equal lengths, got {first.size} and {second.size}")
    differences = first - second
    means = _resampled_means(differences, resamples, np.random.default_rng(seed))
    return _estimate(differences, means, level, method, "paired bootstrap")


def unpaired_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
    *,
    level: float = 0.95,
) -> Estimate:
    """Mean of ``a`` minus mean of ``b``, two independent groups: each is drawn by itself. Percentile interval.

    Raises:
        ValueError: no values, or a value that is not finite.
    """
    first, second = _flat(a), _flat(b)
    rng = np.random.default_rng(seed)
    differences = _resampled_means(first, resamples, rng) - _resampled_means(second, resamples, rng)
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(
        value=float(first.mean() - second.mean()),
        low=float(low),
        high=float(high),
        level=level,
        n=int(first.size + second.size),
        method="bootstrap percentile",
    )


def _flat(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0 or not np.isfinite(array).all():
        raise ValueError("a bootstrap needs a flat list of at least one finite number")
    return array


def _resampled_means(
    values: npt.NDArray[np.float64], resamples: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Means of ``resamples`` draws with replacement, shape (resamples,)."""
    return _resampled_ratios(values, None, resamples, rng)


def _resampled_ratios(
    sums: npt.NDArray[np.float64],
    sizes: npt.NDArray[np.float64] | None,
    resamples: int,
    rng: np.random.Generator,
) -> npt.NDArray[np.float64]:
    """Sum of ``sums`` over sum of ``sizes`` (ones if None) in each draw, shape (resamples,)."""
    n = sums.size
    result = np.empty(resamples)
    rows = max(1, _CELLS // n)
    for start in range(0, resamples, rows):
        block = result[start : start + rows]
        drawn = rng.integers(0, n, size=(block.size, n), dtype=np.int32)
        block[:] = sums[drawn].sum(axis=1)
        block /= n if sizes is None else sizes[drawn].sum(axis=1)
    return result


def _estimate(
    values: npt.NDArray[np.float64], means: npt.NDArray[np.float64], level: float, method: Method, name: str
) -> Estimate:
    centre = float(values.mean())
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if method == "bca":
        tails = _bca_tails(values, means, centre, tails)
    low, high = np.quantile(means, tails)
    return Estimate(
        value=centre, low=float(low), high=float(high), level=level, n=int(values.size), method=f"{name} {method}"
    )


def _bca_tails(
    values: npt.NDArray[np.float64], means: npt.NDArray[np.float64], centre: float, tails: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Efron's correction of ``tails`` for bias and skewness; for a mean the acceleration is skewness / (6 sqrt n)."""
    spread = float(values.std())
    if spread == 0:
        return tails
    acceleration = float(np.mean((values - centre) ** 3)) / spread**3 / (6 * np.sqrt(values.size))
    below = (np.count_nonzero(means < centre) + 0.5 * np.count_nonzero(means == centre)) / means.size
    bias = float(special.ndtri(np.clip(below, 1 / means.size, 1 - 1 / means.size)))
    z = bias + special.ndtri(tails)
    return np.asarray(special.ndtr(bias + z / (1 - acceleration * z)), dtype=np.float64)
