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


WORKS: tuple[Callable[[np.ndarray, np.ndarray], None], ...] = (bedplate, scipy_ks, numpy_psi)
ROUNDS = 9


def main() -> None:
    """Print the table: processor time, which other programs disturb little; works take turns."""
    rng = np.random.default_rng(0)
    medians: dict[str, list[float]] = {work.__name__: [] for work in WORKS}
    for size in SIZES:
        a, b = (np.asfortranarray(rng.normal(size=(size, COLUMNS))) for _ in range(2))
        taken: dict[str, list[float]] = {name: [] for name in medians}
        for _ in range(ROUNDS):
            for work in WORKS:
                start = time.process_time()
                work(a, b)
                taken[work.__name__].append(time.process_time() - start)
        for name, row in taken.items():
            medians[name].append(statistics.median(row))
    for name, row in medians.items():
        exponent = math.log(row[-1] / row[0]) / math.log(SIZES[-1] / SIZES[0])
        print(
            f"{name:10s}",
            *(f"{s:8,} rows {t:6.3f} s" for s, t in zip(SIZES, row, strict=True)),
            f"exponent {exponent:.2f}",
        )
    print(f"peak of all {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024} MB")


if __name__ == "__main__":
    main()
