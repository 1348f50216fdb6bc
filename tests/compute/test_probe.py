from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from bedplate import ids, settings
from bedplate.app import planning
from bedplate.app.operations import Bedplate
from bedplate.cli import root
from bedplate.compute import accelerator, probe
from bedplate.compute.onnx_model import OnnxModel, parse_shapes
from bedplate.errors import InputError
from bedplate.plan.types import Probe
from tests.compute import models


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Probe:
    return probe.measure(seconds=0.4, folder=tmp_path_factory.mktemp("probe"))


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


def test_every_part_of_the_machine_is_measured(measured: Probe) -> None:
    assert [rate.rows for rate in measured.matmul_sizes] == [64, 256, 384, 1024]
    assert all(rate.gflops > 0 for rate in measured.matmul_sizes)
    assert measured.matmul_all_gflops is not None
    assert measured.matmul_all_gflops > 0
    assert measured.copy_all_gbps is not None
    assert measured.copy_all_gbps > 0
    assert measured.disk_write_gbps is not None
    assert measured.disk_read_gbps is not None
    assert measured.disk_read_gbps > 0


def test_what_measures_an_accelerator_measures_this_processor_as_well() -> None:
    """The same code with NumPy in the place of CuPy, and with ONNX Runtime's provider for the processor."""
    of_arrays = accelerator.arrays(np, lambda: None, 0.05, name="here", memory=1, framework="numpy", size=128)
    assert set(of_arrays.matmul_tflops) == {"float32", "float16"}
    assert of_arrays.copy_gbps is not None
    assert min(of_arrays.copy_gbps, of_arrays.upload_gbps, *of_arrays.matmul_tflops.values()) > 0
    of_runtime = accelerator.onnx_device("CPUExecutionProvider", "cpu", 0.05, size=128)
    assert of_runtime.matmul_tflops["float32"] > 0


def test_accelerators_are_those_that_a_library_finds() -> None:
    found = accelerator.measure(0.01)
    assert all(rate > 0 for device in found for rate in device.matmul_tflops.values())
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert not any(device.framework.startswith("onnxruntime") for device in found)


def test_a_model_of_the_user_becomes_an_anchor(tmp_path: Path) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(models.perceptron(16, 32, 4))
    told: list[str] = []
    found = probe.measure(0.1, tmp_path, model=OnnxModel(path), on_step=lambda what, done, total: told.append(what))
    assert [time.rows for time in found.models[0].times] == [1, 8, 64]
    assert all(time.seconds > 0 for time in found.models[0].times)
    assert found.models[0].digest == ids.digest_bytes(path.read_bytes())
    assert told[-1] == "mine.onnx"


@pytest.mark.parametrize(
    ("content", "message"), [(b"{}", "no ONNX model"), (b"\x80\x04 pickle", "pickle"), (None, "cannot read")]
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "m.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        OnnxModel(path)


def test_an_open_dimension_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "open.onnx"
    path.write_bytes(models.perceptron(16, 32, 4, open_width=True))
    closed = OnnxModel(path, parse_shapes(["x=1x16"]))
    assert closed.feed(closed.session(), 3)["x"].shape == (3, 16)
    unknown = OnnxModel(path)
    with pytest.raises(InputError, match="--shape x=1x"):
        unknown.feed(unknown.session(), 1)
    for given, problem in ((["y=1x16"], "no input"), (["x=1"], "no input")):
        with pytest.raises(InputError, match=problem):
            OnnxModel(path, parse_shapes(given)).session()
    for text in ("x", "x=", "x=1x0", "x=axb", "=1"):
        with pytest.raises(InputError, match="no shape"):
            parse_shapes([text])


def test_a_probe_is_kept_recorded_and_read_by_the_next_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.onnx"
    path.write_bytes(models.perceptron(8, 8, 2))
    home = tmp_path / "home"
    assert root.execute(["probe", "--model", str(path), "--home", str(home)]) == 0
    shown = capsys.readouterr()
    assert "mine.onnx" in shown.out
    assert "plans scale from this" in shown.out
    assert shown.err.splitlines()[-1].startswith("[     ] probe")

    bedplate = Bedplate(msgspec.structs.replace(settings.load(), home=home))
    again = bedplate.probe()

    assert [model.name for model in again.models] == ["mine.onnx"]  # what other models took stays known
    assert planning.probe(bedplate.home, keep=False) == again
    assert bedplate.audit_verify().entries >= 2


def test_a_shape_needs_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert root.execute(["probe", "--shape", "x=1x2", "--home", str(tmp_path / "home")]) == 2
    assert "--model FILE" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
