"""Gates judge intervals, never points, and never take silence for a pass."""

from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bedplate.records import Estimate, GateReport, GateResult
from bedplate.release.gates import MINIMUM_GROUP, Latency, Security, evaluate
from tests.release import sample

SAFE = Security(isolated=True, formats={"model.onnx": "onnx"})
FAST = Latency(p99=sample.estimate(9.0, 1.0))


class Waived(NamedTuple):
    id: str
    gate: str
    environment: str
    by: str


def judge(folder: Path, *comparisons, text: str = sample.FILE, latency=FAST, size=1 << 20, security=SAFE, **options):
    training = sample.training(*comparisons, coverage=options.pop("coverage", None))
    return evaluate(sample.loaded(folder, text), training, size=size, latency=latency, security=security, **options)


def of(report: GateReport, gate: str) -> list[GateResult]:
    return [result for result in report.results if result.gate == gate]


def test_a_good_candidate_passes_and_every_result_names_its_line(tmp_path):
    report = judge(tmp_path)

    assert report.passed
    assert report.summary == "passed: 9 passed"
    lines = sample.FILE.splitlines()
    for result in of(report, "quality"):
        assert result.name.split()[0] in lines[result.line - 1]
    assert "p99" in lines[of(report, "latency")[0].line - 1]
    assert "size" in lines[of(report, "size")[0].line - 1]


def test_each_baseline_has_its_own_result(tmp_path):
    names = [result.name for result in of(judge(tmp_path), "quality")]

    assert "recall@20 better than popular on all" in names
    assert "recall@20 better than own on all" in names


def test_a_better_point_with_an_interval_that_reaches_zero_fails(tmp_path):
    report = judge(tmp_path, sample.comparison("own", sample.estimate(0.004, 0.005)))

    failed = next(result for result in report.results if result.verdict == "fail")
    assert not report.passed
    assert failed.name == "recall@20 better than own on all"
    assert "chance could explain it" in failed.reason


def test_not_worse_than_allows_the_margin_and_not_more(tmp_path):
    within = judge(tmp_path, sample.comparison("own", sample.estimate(-0.005, 0.0149, 402), "light"))
    beyond = judge(tmp_path, sample.comparison("own", sample.estimate(-0.005, 0.0151, 402), "light"))

    assert within.passed
    assert not beyond.passed


def test_at_least_looks_at_the_lower_end(tmp_path):
    assert judge(tmp_path, coverage=sample.estimate(0.06, 0.0099)).passed
    assert not judge(tmp_path, coverage=sample.estimate(0.06, 0.011)).passed


def test_a_small_group_is_insufficient_evidence_however_good_it_looks(tmp_path):
    report = judge(tmp_path, sample.comparison("own", sample.estimate(0.5, 0.01, MINIMUM_GROUP - 1), "age=65+"))

    small = next(result for result in of(report, "fairness") if "age=65+" in result.name)
    assert small.verdict == "insufficient_evidence"
    assert not report.passed


def test_figures_of_a_handful_of_people_are_not_shown(tmp_path):
    report = judge(tmp_path, sample.comparison("own", sample.estimate(0.5, 0.01, 9), "age=65+"))

    assert next(r for r in of(report, "fairness") if "age=65+" in r.name).measured is None


def test_a_figure_that_training_did_not_report_is_no_pass(tmp_path):
    text = sample.FILE.replace("better_than: each baseline", "better_than: last_basket")
    report = judge(tmp_path, text=text)

    assert of(report, "quality")[0].verdict == "insufficient_evidence"
    assert not report.passed


def test_a_sensitive_attribute_without_groups_is_no_pass(tmp_path):
    report = judge(tmp_path, text=sample.FILE.replace("sensitive: [age]", "sensitive: [age, income]"))

    assert [r.verdict for r in of(report, "fairness")] == ["pass", "insufficient_evidence"]


def test_people_are_affected_and_nothing_sensitive_is_named(tmp_path):
    report = judge(tmp_path, text=sample.FILE.replace(", sensitive: [age]", ""))

    assert [r.verdict for r in of(report, "fairness")] == ["insufficient_evidence"]


def test_latency_is_judged_by_its_upper_bound(tmp_path):
    assert not judge(tmp_path, latency=Latency(p99=sample.estimate(19.5, 1.0))).passed
    assert of(judge(tmp_path, latency=None), "latency")[0].verdict == "insufficient_evidence"


@pytest.mark.parametrize(
    ("stalls", "verdict"),
    [(0.0, "fail"), (1.9, "fail"), (2.1, "insufficient_evidence"), (30.0, "insufficient_evidence")],
)
def test_a_machine_that_stalls_shows_nothing_about_latency_and_passes_nothing(tmp_path, stalls, verdict):
    over = Latency(p99=sample.estimate(21.0, 1.0), stalls=stalls)  # at most 22 ms, where 20 ms are allowed

    report = judge(tmp_path, latency=over)

    assert of(report, "latency")[0].verdict == verdict
    assert not report.passed
    assert of(judge(tmp_path, latency=Latency(p99=FAST.p99, stalls=stalls)), "latency")[0].verdict == "pass"


def test_a_bundle_that_is_too_large_fails(tmp_path):
    assert judge(tmp_path, size=(10 << 20)).passed
    assert not judge(tmp_path, size=(10 << 20) + 1).passed


def test_a_format_that_runs_code_fails_security(tmp_path):
    refused = Security(isolated=True, formats={}, refused={"model.pkl": "model.pkl is a pickle"})

    report = judge(tmp_path, security=refused)

    assert not report.passed
    assert "pickle" in of(report, "security")[0].reason


def test_high_risk_needs_isolation_and_limited_risk_says_so(tmp_path):
    bare = Security(isolated=False, formats={"model.onnx": "onnx"}, reason="this kernel has no Landlock")

    limited = judge(tmp_path, security=bare)
    high = judge(tmp_path, security=bare, text=sample.FILE.replace("level: limited", "level: high"))

    assert limited.passed
    assert "not isolated: this kernel has no Landlock" in of(limited, "security")[1].reason
    assert not high.passed


SMALL = sample.comparison("own", sample.estimate(0.01, 0.05, 61), "age=65+")
NAME = "recall@20 not worse than own by more than 0.02 on age=65+"


@pytest.mark.parametrize("gate", ["fairness", NAME])
def test_a_named_waiver_lets_missing_evidence_through_in_dev(tmp_path, gate):
    report = judge(tmp_path, SMALL, waivers=[Waived("wvr_1", gate, "dev", "ana.silva")])

    waived = next(result for result in report.results if result.waiver)
    assert report.passed
    assert waived.verdict == "insufficient_evidence"
    assert "waived by ana.silva" in waived.reason


def test_a_waiver_holds_only_in_dev(tmp_path):
    waivers = [Waived("wvr_1", "fairness", "production", "ana.silva")]

    assert not judge(tmp_path, SMALL, waivers=waivers, environment="production").passed
    assert not judge(tmp_path, SMALL, waivers=waivers).passed


def test_a_failed_gate_cannot_be_waived(tmp_path):
    lost = sample.comparison("own", sample.estimate(-0.1, 0.01))

    report = judge(tmp_path, lost, waivers=[Waived("wvr_1", "quality", "dev", "ana.silva")])

    assert not report.passed


_numbers = st.floats(-1, 1, allow_nan=False)


@pytest.fixture(scope="module")
def promise(tmp_path_factory):
    return sample.loaded(tmp_path_factory.mktemp("use-case"))


@given(value=_numbers, below=st.floats(0, 1), above=st.floats(0, 1), n=st.integers(0, 5000))
def test_a_pass_always_has_its_whole_interval_above_the_limit(promise, value, below, above, n):
    difference = Estimate(value=value, low=value - below, high=value + above, n=n)
    training = sample.training(sample.comparison("own", difference))

    report = evaluate(promise, training, size=1, latency=FAST, security=SAFE)

    result = next(r for r in report.results if r.name == "recall@20 better than own on all")
    assert (result.verdict == "pass") == (n >= MINIMUM_GROUP and difference.low > 0)
    assert (result.verdict == "insufficient_evidence") == (n < MINIMUM_GROUP)


def test_nan_never_passes(tmp_path):
    nothing = Estimate(value=float("nan"), low=float("nan"), high=float("nan"), n=2000)

    assert not judge(tmp_path, sample.comparison("own", nothing)).passed
