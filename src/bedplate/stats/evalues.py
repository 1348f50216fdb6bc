"""Evidence that may be looked at any time: e-values, detectors and confidence sequences.

An e-value is a non-negative number whose mean is at most 1 when nothing is wrong, so that seeing 1,000 by chance has
probability at most 1/1,000 (Markov), and averages of e-values are e-values under any dependence. Sources: Vovk & Wang,
*E-values: calibration, combination and applications* (2021); Wang & Ramdas, *False discovery rate control with
e-values* (2022); Shin, Ramdas & Rinaldo, *E-detectors* (2024); Waudby-Smith & Ramdas, *Estimating means of bounded
random variables by betting* (2024).
"""

import math

import msgspec
import numpy as np
import numpy.typing as npt

from bedplate.records import Estimate

LARGEST = 1e12
"""E-values and detectors are cut here: a smaller e-value is still valid, stays in JSON, and recovers in finite time."""

Array = npt.NDArray[np.float64]


def calibrate(p: npt.ArrayLike) -> Array:
    """E-values of p-values, by mixing the calibrators ``k p^(k-1)`` over all k in (0, 1).

    The mixture is ``(1 - p + p ln p) / (p ln^2 p)``: 1/2 at p = 1, about ``1 / (p ln^2 p)`` for small p.
    """
    clipped = np.clip(np.asarray(p, dtype=np.float64), 1e-300, 1.0)
    log = np.log(clipped)
    with np.errstate(divide="ignore", invalid="ignore"):
        e = (1 - clipped + clipped * log) / (clipped * log * log)
    # Near p = 1 numerator and denominator vanish together; the series there is 1/2 - log/3 + ...
    near = log > -1e-4
    return np.minimum(np.where(near, 0.5 - log / 6, e), LARGEST)


def e_bh(e_values: npt.ArrayLike, level: float = 0.1) -> npt.NDArray[np.bool_]:
    """Which hypotheses e-BH rejects, with the share of false ones at most ``level`` under any dependence."""
    e = np.asarray(e_values, dtype=np.float64)
    if e.size == 0:
        return np.zeros(0, dtype=np.bool_)
    order = np.argsort(-e, kind="stable")
    passed = np.flatnonzero(e[order] * np.arange(1, e.size + 1) >= e.size / level)
    rejected = np.zeros(e.size, dtype=np.bool_)
    if passed.size:
        rejected[order[: passed[-1] + 1]] = True
    return rejected


class Detector(msgspec.Struct, frozen=True, kw_only=True):
    """A Shiryaev-Roberts e-detector: ``R_t = (R_(t-1) + 1) E_t``.

    Alarming when R reaches ``1 / alpha`` happens, with nothing wrong, once in ``1 / alpha`` steps or less often.
    """

    value: float = 0.0
    steps: int = 0

    def update(self, e_value: float) -> "Detector":
        """The detector after one more step."""
        return Detector(value=min((self.value + 1) * e_value, LARGEST), steps=self.steps + 1)

    @property
    def e_value(self) -> float:
        """R / t, an e-value at each step, for :func:`e_bh`; 1 before the first."""
        return self.value / self.steps if self.steps else 1.0


def betting_sequence(
    values: npt.ArrayLike, *, low: float = 0.0, high: float = 1.0, level: float = 0.95, grid: int = 1001
) -> Array:
    """Confidence sequence for the mean of values in [low, high]: shape (n, 2), right at all times together.

    The hedged capital of Waudby-Smith & Ramdas, with predictable plug-in bets, over a grid of candidate means; the
    running intersection is taken. Costs n x grid steps; memory is one block of rows.

    Raises:
        ValueError: a value outside [low, high].
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all() or (x.size and (x.min() < low or x.max() > high)):
        raise ValueError(f"values must lie in [{low}, {high}]")
    x = (x - low) / (high - low)
    alpha, n = 1 - level, x.size
    steps = np.arange(1, n + 1)
    # Predictable: the bet at step t knows the values before t only.
    centre = (0.5 + np.cumsum(x)) / (steps + 1)
    spread = (0.25 + np.cumsum((x - centre) ** 2)) / (steps + 1)
    before = np.concatenate([[0.25], spread[:-1]]) if n else spread
    bets = np.sqrt(2 * math.log(2 / alpha) / (before * steps * np.log1p(steps)))
    means = (np.arange(grid) + 0.5) / grid
    up, down = np.zeros(grid), np.zeros(grid)
    limit = math.log(2 / alpha)
    alive = np.ones(grid, dtype=np.bool_)
    result = np.empty((n, 2))
    for start in range(0, n, 256):
        block, bet = x[start : start + 256, None], bets[start : start + 256, None]
        gain = block - means
        ups = up + np.cumsum(np.log1p(np.minimum(bet, 0.5 / means) * gain), axis=0)
        downs = down + np.cumsum(np.log1p(-np.minimum(bet, 0.5 / (1 - means)) * gain), axis=0)
        kept = np.logical_and.accumulate(np.maximum(ups, downs) < limit, axis=0) & alive
        up, down, alive = ups[-1], downs[-1], kept[-1]
        first, last = kept.argmax(axis=1), grid - 1 - kept[:, ::-1].argmax(axis=1)
        # Half a grid step on both sides: a mean between two grid points is kept with either.
        result[start : start + 256, 0] = np.maximum(means[first] - 1 / grid, 0)
        result[start : start + 256, 1] = np.minimum(means[last] + 1 / grid, 1)
        dead = ~kept.any(axis=1)
        result[start : start + 256][dead] = result[start - 1] if start else (0.0, 1.0)
    return low + result * (high - low)


def betting_interval(
    values: npt.ArrayLike, *, low: float = 0.0, high: float = 1.0, level: float = 0.95, grid: int = 1001
) -> Estimate:
    """The mean of bounded values with the newest interval of :func:`betting_sequence`: may be looked at any time.

    Raises:
        ValueError: no values, or a value outside [low, high].
    """
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        raise ValueError("an interval needs at least one value")
    newest = betting_sequence(x, low=low, high=high, level=level, grid=grid)[-1]
    return Estimate(
        value=float(x.mean()), low=float(newest[0]), high=float(newest[1]), level=level, n=int(x.size), method="betting"
    )
