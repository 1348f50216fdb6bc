"""Arithmetic of estimates: factors that err independently, so their relative errors add in squares."""

import math
from collections.abc import Iterable, Sequence

from bedplate.records import Estimate


def product(factors: Iterable[Sequence[float]]) -> Estimate:
    """The product of (low, value, high) factors above zero; relative errors combine as logarithms in squares."""
    value, below, above = 1.0, 0.0, 0.0
    for low, middle, high in factors:
        value *= middle
        below += math.log(middle / low) ** 2
        above += math.log(high / middle) ** 2
    return Estimate(
        value=value, low=value * math.exp(-math.sqrt(below)), high=value * math.exp(math.sqrt(above)), method=""
    )


def total(parts: Iterable[Estimate]) -> Estimate:
    """The sum of estimates that err independently: distances to the ends add in squares."""
    parts = list(parts)
    value = math.fsum(part.value for part in parts)
    below = math.sqrt(math.fsum((part.value - part.low) ** 2 for part in parts))
    above = math.sqrt(math.fsum((part.high - part.value) ** 2 for part in parts))
    return Estimate(value=value, low=max(0.0, value - below), high=value + above, method="sum")


def scaled(estimate: Estimate, factor: float) -> Estimate:
    """An estimate times a number that is known."""
    return Estimate(
        value=estimate.value * factor, low=estimate.low * factor, high=estimate.high * factor, method=estimate.method
    )
