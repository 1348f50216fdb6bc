"""Counts and latencies as a Prometheus client reads them."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bedplate.serve.metrics import BUCKETS, Metrics


def samples(metrics: Metrics) -> dict[tuple[str, str], float]:
    """Every sample by name and its own label (status or bound), parsed by Prometheus' own parser."""
    found = {}
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            labels = dict(sample.labels)
            assert (labels.pop("model"), labels.pop("version")) == ('a "model"', "7")
            found[sample.name, "".join(labels.values())] = sample.value
    return found


def test_a_new_replica_shows_zeros() -> None:
    found = samples(Metrics('a "model"', "7"))

    assert found["bedplate_prediction_seconds_count", ""] == 0
    assert found["bedplate_requests_in_flight", ""] == 0
    assert found["bedplate_predictions_unlogged_total", ""] == 0


@given(st.lists(st.sampled_from([200, 400, 401, 500, 503])), st.integers(0, 9), st.integers(0, 9))
def test_requests_are_counted_by_status(statuses: list[int], in_flight: int, unlogged: int) -> None:
    metrics = Metrics('a "model"', "7")
    for status in statuses:
        metrics.request(status)
    metrics.in_flight, metrics.unlogged = in_flight, unlogged

    found = samples(metrics)

    counted = {label: value for (name, label), value in found.items() if name == "bedplate_requests_total"}
    assert counted == {str(status): count for status, count in Counter(statuses).items()}
    assert found["bedplate_requests_in_flight", ""] == in_flight
    assert found["bedplate_predictions_unlogged_total", ""] == unlogged


@given(st.lists(st.floats(0, 10) | st.sampled_from(BUCKETS)))
def test_a_bucket_counts_what_is_at_or_below_its_bound(seconds: list[float]) -> None:
    metrics = Metrics('a "model"', "7")
    for value in seconds:
        metrics.prediction(value)

    found = samples(metrics)

    for bound in BUCKETS:
        assert found["bedplate_prediction_seconds_bucket", str(bound)] == sum(value <= bound for value in seconds)
    assert found["bedplate_prediction_seconds_bucket", "+Inf"] == len(seconds)
    assert found["bedplate_prediction_seconds_count", ""] == len(seconds)
    assert abs(found["bedplate_prediction_seconds_sum", ""] - sum(seconds)) < 1e-6
