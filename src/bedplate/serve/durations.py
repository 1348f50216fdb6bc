"""How often something was done, how long it took, and how often it failed: plain numbers, for Prometheus to ask for."""

from bisect import bisect_left

from prometheus_client.core import HistogramMetricFamily

BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Durations:
    """To be changed from one thread at a time."""

    __slots__ = ("_counts", "failures", "seconds")

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self.seconds = 0.0
        self.failures = 0

    @property
    def count(self) -> int:
        """How often it was done to its end."""
        return sum(self._counts)

    def add(self, seconds: float) -> None:
        """It was done, and took so long."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self.seconds += seconds

    def give(self, family: HistogramMetricFamily, labels: tuple[str, ...]) -> None:
        """Add this to what Prometheus gets, under ``labels``."""
        total, buckets = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, total))
        family.add_metric(labels, buckets, self.seconds)
