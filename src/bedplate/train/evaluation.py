"""Figures with intervals: the candidate and each baseline, over all units and slices, and their paired differences."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bedplate.records import Comparison, Estimate, Metric
from bedplate.stats.bootstrap import mean_interval, paired_difference

Values = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
CANDIDATE = "candidate"


def summarise(
    per_unit: Mapping[str, Mapping[str, Values]],
    slices: Mapping[str, Mask],
    *,
    lower_is_better: frozenset[str] = frozenset(),
    resamples: int = 2000,
    seed: int = 0,
) -> tuple[tuple[Metric, ...], tuple[Comparison, ...]]:
    """Metrics and comparisons with 95 % bootstrap intervals over units.

    ``per_unit`` maps metric to model to one value per unit, in the same order everywhere; ``slices`` maps a slice to
    the units in it. Units are drawn in pairs for a comparison. A slice without units is left out.
    """
    metrics, comparisons = [], []
    for metric, models in per_unit.items():
        sign = -1.0 if metric in lower_is_better else 1.0
        for name, mask in slices.items():
            if not mask.any():
                continue
            for model, values in models.items():
                estimate = mean_interval(values[mask], resamples, seed)
                metrics.append(Metric(metric=metric, model=model, slice=name, estimate=estimate))
                if model == CANDIDATE or CANDIDATE not in models:
                    continue
                better = sign * models[CANDIDATE][mask]
                difference = paired_difference(better, sign * values[mask], resamples, seed)
                comparisons.append(Comparison(metric=metric, baseline=model, slice=name, difference=difference))
    return tuple(metrics), tuple(comparisons)


def exact(value: float, n: int) -> Estimate:
    """A count over a whole population: there is nothing it could have come out as."""
    return Estimate(value=value, low=value, high=value, n=n, method="exact count")


def by_size(sizes: Values, share: float = 0.2) -> tuple[Mask, Mask]:
    """The units in the lowest and in the highest ``share`` of ``sizes``; ties go by their order."""
    count = int(len(sizes) * share)
    order = np.argsort(sizes, kind="stable")
    low, high = np.zeros(len(sizes), bool), np.zeros(len(sizes), bool)
    low[order[:count]] = True
    high[order[len(sizes) - count :]] = True
    return low, high
