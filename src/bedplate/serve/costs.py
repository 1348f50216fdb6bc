"""What predictions cost, for Prometheus: the time of a replica, idle or not, at the price of the plan."""

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from bedplate.records import ReplicaPrice

_NAMES = ("model", "version")
_PRICED = (*_NAMES, "currency")


def series(
    labels: tuple[str, str], price: ReplicaPrice | None, seconds: float, predictions: int, granted: Mapping[str, int]
) -> Iterator[Metric]:
    """The series of one replica that has run for ``seconds``; without a price there is its time, and no cost.

    ``granted`` are the requests of principals with a quota. Each is taken to cost what a prediction costs on average.
    """
    ran = CounterMetricFamily("bedplate_replica_seconds", "Time that this replica has run, idle or not.", labels=_NAMES)
    ran.add_metric(labels, seconds)
    yield ran
    asked = CounterMetricFamily(
        "bedplate_principal_requests", "Requests of principals with a quota.", labels=(*_NAMES, "principal")
    )
    for principal, count in granted.items():
        asked.add_metric((*labels, principal), count)
    yield asked
    if price is None:
        return
    of = (*labels, price.currency)
    cost = CounterMetricFamily("bedplate_replica_cost", f"Its cost: {price.basis}.", labels=_PRICED)
    cost.add_metric(of, price.hour * seconds / 3600)
    yield cost
    each = price.each(seconds, predictions)
    if each is None:
        return
    one = GaugeMetricFamily("bedplate_prediction_cost", "Cost of a prediction since the start.", labels=_PRICED)
    one.add_metric(of, each)
    yield one
    shares = GaugeMetricFamily(
        "bedplate_principal_cost",
        "Requests of a principal with a quota times the cost of a prediction, since the start.",
        labels=(*_PRICED, "principal"),
    )
    for principal, count in granted.items():
        shares.add_metric((*of, principal), count * each)
    yield shares
