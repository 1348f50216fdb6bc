"""What a replica knows of the rollout under way, for Prometheus: its step and share, and what its guards are shown."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bedplate.serve.snapshot import Route
from bedplate.stats.canary import Tally

_NAMES = ("model", "version", "rollout")


def series(labels: tuple[str, str], route: Route | None, tally: Tally, rolled_back: int) -> Iterator[Metric]:
    """The series of one replica, whose model and version are ``labels``; counts are those of the present step.

    Without a ``route`` there is nothing but how many rollouts were rolled back here since the start.
    """
    ended = CounterMetricFamily(
        "bedplate_rollouts_rolled_back", "Rollouts that ended while this release went on.", labels=_NAMES[:2]
    )
    ended.add_metric(labels, rolled_back)
    yield ended
    if route is None:
        return
    of = (*labels, route.rollout)
    share = GaugeMetricFamily(
        "bedplate_rollout_share", "Part of the requests that the candidate is asked.", labels=(*_NAMES, "mode")
    )
    share.add_metric((*of, route.mode), route.share)
    yield share
    step = GaugeMetricFamily("bedplate_rollout_step", "The present step, from 0.", labels=_NAMES)
    step.add_metric(of, route.step)
    yield step
    for name, told in (
        ("requests", "Requests in the present step, by who was asked."),
        ("errors", "Failures in the present step; a candidate's cost its callers nothing."),
        ("slow", "Answers in the present step that were slower than the stable release's p95."),
    ):
        found = GaugeMetricFamily(f"bedplate_rollout_{name}", told, labels=(*_NAMES, "release"))
        for release, side in (("stable", tally.stable), ("candidate", tally.candidate)):
            found.add_metric((*of, release), getattr(side, name))
        yield found
    rows = GaugeMetricFamily(
        "bedplate_rollout_rows", "Rows that both answered, by outcome.", labels=(*_NAMES, "outcome")
    )
    rows.add_metric((*of, "different"), tally.rows.different)
    rows.add_metric((*of, "same"), tally.rows.compared - tally.rows.different)
    yield rows
