from pathlib import Path

import msgspec
import pytest

from bedplate.compute import probe
from bedplate.plan.types import Probe


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return probe.measure(seconds=0.4, folder=tmp_path_factory.mktemp("probe"))


def test_it_measures_for_about_as_long_as_asked(measured: Probe) -> None:
    assert measured.seconds < 5


def test_figures_are_those_of_a_machine(measured: Probe) -> None:
    assert measured.cores >= 1
    assert measured.memory > 256 << 20
    assert 0.5 < measured.matmul_gflops < 5000
    assert 0.1 < measured.copy_gbps < 2000
    assert 0.1 < measured.score_gbps < 2000
    assert 0.1 < measured.select_ns < 1000
    assert 0.1 < measured.request_us < 5000
    assert measured.service_cs2 >= 0
    assert measured.fsync_ms > 0


def test_trees_run_in_onnx_runtime_without_the_onnx_package(measured: Probe) -> None:
    assert measured.onnx_call_us is not None
    assert measured.onnx_tree_ns is not None
    assert measured.onnx_tree_ns < 100_000


def test_it_is_a_value_that_survives_json(measured: Probe) -> None:
    assert msgspec.json.decode(msgspec.json.encode(measured), type=Probe) == measured


def test_it_leaves_nothing_behind(tmp_path: Path) -> None:
    probe.measure(seconds=0.1, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
