"""Drift of 30 columns: Bedplate against SciPy's KS test and PSI in NumPy, in one run, at three sizes.

Run: python benchmarks/drift.py
"""

import math
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
from scipy.stats import ks_2samp

from bedplate.stats import drift, sketches

COLUMNS, SIZES = 30, (25_000, 50_000, 100_000)


def bedplate(a: np.ndarray, b: np.ndarray) -> None:
    """Reference and comparison, with effects and evidence."""
    for j in range(COLUMNS):
        sketch = sketches.QuantileSketch()
        sketch.add(a[:, j])
        edges = sketches.bin_edges(sketch, drift.BINS)
        reference = drift.describe(str(j), "numeric", edges, (sketches.count_numbers(a[:, j], edges),))
        drift.compare(reference, sketches.count_numbers(b[:, j], edges))


def scipy_ks(a: np.ndarray, b: np.ndarray) -> None:
    """A p-value per column."""
    for j in range(COLUMNS):
        ks_2samp(a[:, j], b[:, j], method="asymp")


def numpy_psi(a: np.ndarray, b: np.ndarray) -> None:
    """The population stability index over ten bins: no error rate."""
    for j in range(COLUMNS):
        edges = np.quantile(a[:, j], np.linspace(0, 1, 11)[1:-1])
        p, q = (np.bincount(np.searchsorted(edges, x[:, j]), minlength=10) / len(x) + 1e-6 for x in (a, b))
        ((p - q) * np.log(p / q)).sum()


def seconds(work: Callable[[np.ndarray, np.ndarray], None], a: np.ndarray, b: np.ndarray) -> float:
    """Median of five runs."""
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        work(a, b)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    for work in (bedplate, scipy_ks, numpy_psi):
        row = []
        for size in SIZES:
            a, b = (np.asfortranarray(rng.normal(size=(size, COLUMNS))) for _ in range(2))
            row.append(seconds(work, a, b))
        exponent = math.log(row[-1] / row[0]) / math.log(SIZES[-1] / SIZES[0])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(
            f"{work.__name__:10s}",
            *(f"{s:8,} rows {t:6.3f} s" for s, t in zip(SIZES, row, strict=True)),
            f"exponent {exponent:.2f}, peak so far {peak} MB",
        )


if __name__ == "__main__":
    main()
