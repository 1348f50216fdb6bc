"""Counts and latencies of one replica, kept as plain numbers in the path and given to Prometheus when it asks."""

import math
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from bedplate import clock
from bedplate.http.streams import Room
from bedplate.records import ReplicaPrice
from bedplate.serve import costs, rollout_metrics
from bedplate.serve.durations import Durations
from bedplate.serve.quotas import Meters
from bedplate.serve.routing import Router


class Metrics(Collector):
    """What happened here since the start. Changed from the event loop only."""

    def __init__(
        self,
        model: str,
        version: str,
        meters: Meters | None = None,
        price: ReplicaPrice | None = None,
        limit: float | None = None,
    ) -> None:
        self._labels = (model, version)
        self._meters, self._price = meters, price
        self._started = clock.monotonic()
        self._limit = math.inf if limit is None else limit
        self.late = 0
        """Predictions that took longer than ``limit`` seconds, the budget of the endpoint."""
        self._statuses: dict[int, int] = {}
        self._answers = Durations()
        self.steps: dict[str, Durations] = {}
        """What the steps of a graph took, by their names."""
        self._dropped: dict[str, int] = {}
        self.room: Room | None = None
        self.router: Router | None = None
        self.in_flight = 0
        self.unlogged = 0
        self.settings: dict[str, int] = {}
        """What was measured at the start and is used since, by name."""
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def request(self, status: int) -> None:
        """Count one answer."""
        self._statuses[status] = self._statuses.get(status, 0) + 1

    def drop(self, reason: str) -> None:
        """Count a request that was not computed: ``queue`` and ``wait``, it would have waited; ``deadline``, it has
        waited too long; ``left``, its caller went away. Bodies that had no room beside others are counted there."""
        self._dropped[reason] = self._dropped.get(reason, 0) + 1

    def prediction(self, seconds: float) -> None:
        """Count one prediction and the time it took inside the server."""
        self._answers.add(seconds)
        if seconds > self._limit:
            self.late += 1

    @property
    def predictions(self) -> int:
        """How many were made."""
        return self._answers.count

    @property
    def seconds(self) -> float:
        """The time that all of them took inside the server."""
        return self._answers.seconds

    @property
    def failures(self) -> int:
        """How many requests were refused or failed."""
        return sum(count for status, count in self._statuses.items() if status >= 400)

    @property
    def faults(self) -> int:
        """How many requests failed through no fault of who asked."""
        return sum(count for status, count in self._statuses.items() if status >= 500)

    def collect(self) -> Iterator[Metric]:
        """What Prometheus asks for."""
        names = ("model", "version")
        requests = CounterMetricFamily("bedplate_requests", "Answers by HTTP status.", labels=(*names, "status"))
        for status, count in sorted(self._statuses.items()):
            requests.add_metric((*self._labels, str(status)), count)
        yield requests
        latency = HistogramMetricFamily(
            "bedplate_prediction_seconds", "Time from receipt to answer, in the server.", labels=names
        )
        self._answers.give(latency, self._labels)
        yield latency
        if self.steps:
            yield from self._of_steps()
        in_flight = GaugeMetricFamily("bedplate_requests_in_flight", "Requests being answered now.", labels=names)
        in_flight.add_metric(self._labels, self.in_flight)
        yield in_flight
        for name, value in self.settings.items():
            used = GaugeMetricFamily(
                f"bedplate_model_{name}", "Found best by the measurement at the start.", labels=names
            )
            used.add_metric(self._labels, value)
            yield used
        unlogged = CounterMetricFamily(
            "bedplate_predictions_unlogged", "Predictions answered but not logged (buffered mode).", labels=names
        )
        unlogged.add_metric(self._labels, self.unlogged)
        yield unlogged
        dropped = CounterMetricFamily(
            "bedplate_requests_dropped", "Requests that were not computed.", labels=(*names, "reason")
        )
        room = {"room": self.room.refused} if self.room is not None else {}
        for reason, count in sorted({**self._dropped, **room}.items()):
            dropped.add_metric((*self._labels, reason), count)
        yield dropped
        refused = CounterMetricFamily(
            "bedplate_quota_refusals",
            "Requests that were one too many for their principal.",
            labels=(*names, "principal", "window"),
        )
        for principal, window, count in self._meters.refused() if self._meters is not None else ():
            refused.add_metric((*self._labels, principal, window), count)
        yield refused
        granted = dict(self._meters.granted()) if self._meters is not None else {}
        seconds = clock.monotonic() - self._started
        yield from costs.series(self._labels, self._price, seconds, self.predictions, granted)
        if self.router is not None:
            yield from rollout_metrics.series(
                self._labels, self.router.route, self.router.tally, self.router.rolled_back
            )

    def _of_steps(self) -> Iterator[Metric]:
        names = ("model", "version", "step")
        seconds = HistogramMetricFamily("bedplate_step_seconds", "Time that a step of the graph took.", labels=names)
        failed = CounterMetricFamily("bedplate_step_failures", "Times that a step gave no answer.", labels=names)
        for name, step in self.steps.items():
            step.give(seconds, (*self._labels, name))
            failed.add_metric((*self._labels, name), step.failures)
        yield seconds
        yield failed

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        text: bytes = generate_latest(self._registry)
        return text
