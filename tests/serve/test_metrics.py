"""Counts and latencies as a Prometheus client reads them."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from bedplate.ids import digest_bytes
from bedplate.policy.values import Principal
from bedplate.records import Quota, ReplicaPrice
from bedplate.serve.durations import BUCKETS
from bedplate.serve.metrics import Metrics
from bedplate.serve.quotas import FILE, Meters
from bedplate.serve.routing import Router
from bedplate.serve.snapshot import Route
from tests.serve.support import LINEAR


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


def test_a_rollout_shows_its_step_and_what_both_releases_did() -> None:
    nothing = digest_bytes(b"")
    router = Router(digest_bytes(b"stable"), "7", nothing, LINEAR)
    metrics = Metrics('a "model"', "7")
    metrics.router = router
    assert samples(metrics)["bedplate_rollouts_rolled_back_total", ""] == 0
    assert not [name for name, _ in samples(metrics) if name.startswith("bedplate_rollout_")]

    router.route = Route(
        rollout="roll_1", step=2, mode="split", share=0.25, salt="s", bundle=nothing, version="8", evidence=nothing,
        socket=Path("s"), tallies=Path("/nonexistent"), patience=1.0,
    )  # fmt: skip
    router.tally.candidate.requests, router.tally.candidate.errors = 9, 2
    router.tally.rows.compared, router.tally.rows.different = 5, 1
    found = samples(metrics)
    assert found["bedplate_rollout_share", "splitroll_1"] == 0.25
    assert found["bedplate_rollout_step", "roll_1"] == 2
    assert found["bedplate_rollout_requests", "candidateroll_1"] == 9
    assert found["bedplate_rollout_errors", "candidateroll_1"] == 2
    assert (found["bedplate_rollout_rows", "sameroll_1"], found["bedplate_rollout_rows", "differentroll_1"]) == (4, 1)

    router.follow(None)
    assert samples(metrics)["bedplate_rollouts_rolled_back_total", ""] == 1


def test_cost_is_the_time_of_the_replica_at_the_price_shared_out_by_who_asked(tmp_path: Path) -> None:
    meters = Meters(tmp_path / FILE, Quota(day=100))
    for who, count in (("ada", 3), ("bob", 1)):
        meter = meters.of(Principal(kind="User", id=who, name=who))
        assert meter is not None
        for _ in range(count):
            meter.take()
    price = ReplicaPrice(hour=36.0, currency="USD", basis="a machine")
    metrics = Metrics('a "model"', "7", meters, price)
    assert ("bedplate_prediction_cost", "USD") not in samples(metrics)  # of nothing there is no average
    for _ in range(4):
        metrics.prediction(0.001)

    found = samples(metrics)

    seconds, each = found["bedplate_replica_seconds_total", ""], found["bedplate_prediction_cost", "USD"]
    assert found["bedplate_replica_cost_total", "USD"] == pytest.approx(seconds * 0.01)
    assert each == pytest.approx(seconds * 0.01 / 4)
    shares = [found["bedplate_principal_cost", f"USD{who}"] for who in ("ada", "bob")]
    assert shares == pytest.approx([3 * each, each])
    assert found["bedplate_principal_requests_total", "ada"] == 3
    unpriced = samples(Metrics('a "model"', "7", meters))
    assert not any("cost" in name for name, _ in unpriced)
    assert unpriced["bedplate_principal_requests_total", "bob"] == 1
    meters.close()
