"""Bottlenecks that were planted, found by measuring; and what cannot be profiled."""

import asyncio
from pathlib import Path

import pytest

from bedplate.app import load_target, profiling
from bedplate.app.profile_page import page
from bedplate.app.read_models import LoadReport, LoadTarget
from bedplate.cli import root
from bedplate.compute import code_profile, model_profile, probe
from bedplate.compute.onnx_model import OnnxModel
from bedplate.errors import InputError, UserCodeError
from bedplate.plan import bottlenecks
from bedplate.plan.types import Probe
from tests.app.test_load import serving
from tests.compute import models

PLANTED = Path(__file__).parent / "planted"
CODE = {
    "loader": "data-loader",
    "interpreter_lock": "interpreter-lock",
    "serialization": "serialization",
    "communication": "communication",
    "capacity": "capacity",
    "mixed": "mixed",
}
MODELS = {
    "launch": (lambda: models.chain(8, 80), 1),
    "memory-bandwidth": (lambda: models.lookup(400_000, 64), 1),
    "compute": (lambda: models.perceptron(512, 512, 512, layers=3), 64),
}


@pytest.fixture(scope="module")
def machine() -> Probe:
    return probe.measure(0.5)


@pytest.mark.parametrize("name", CODE)
def test_a_bottleneck_planted_in_a_program_is_found(name: str) -> None:
    found = code_profile.profile(PLANTED / f"{name}.py", seconds=8)
    assert bottlenecks.find(found.windows).kind == CODE[name]
    assert found.samples >= 30
    assert sum(count for _, count in found.stacks) == found.samples


@pytest.mark.parametrize("kind", MODELS)
def test_a_bottleneck_planted_in_a_model_is_found(kind: str, tmp_path: Path, machine: Probe) -> None:
    made, rows = MODELS[kind]
    path = tmp_path / "model.onnx"
    path.write_bytes(made())
    for _ in range(5):  # while others keep the machine busy, the wait for them is all there is to find
        report = profiling.model(path, machine, (), rows, 1.0, lambda event: None)
        if report.finding.kind == kind:
            break
    assert report.finding.kind == kind, report
    assert sum(frame.share for frame in report.frames) == pytest.approx(1)
    assert report.verify.startswith("bedplate profile ")
    assert f"Held back by {kind}" in page(report)


def test_what_stays_in_the_caches_does_not_wait_for_memory(tmp_path: Path, machine: Probe) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.perceptron(64, 64, 8))
    for window in model_profile.profile(OnnxModel(path), machine, seconds=0.2, rows=8).windows:
        assert window.bandwidth is None
        assert window.compute is not None
        assert window.compute <= 1


def test_products_are_counted_to_the_operation(tmp_path: Path, machine: Probe) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(models.perceptron(16, 32, 4))
    report = profiling.model(path, machine, (), 8, 0.2, lambda event: None)
    points = {point.name: point for point in report.points}
    moved = 4 * (8 * 16 + 16 * 32 + 8 * 32)
    assert points["product0"].intensity == pytest.approx(2 * 8 * 16 * 32 / moved)


def test_a_program_on_the_command_line_becomes_a_page_without_scripts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "profile.html"
    arguments = ["profile", str(PLANTED / "serialization.py"), "--out", str(out), "--home", str(tmp_path / "home")]
    assert root.execute(arguments) == 0
    shown = capsys.readouterr().out
    assert "bound by  serialization" in shown
    assert "check     bedplate profile" in shown
    written = out.read_text()
    assert "<script" not in written
    assert "json" in written
    assert 'aria-label="Flame graph"' in written
    assert not (tmp_path / "home").exists()


def test_a_program_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    script = tmp_path / "broken.py"
    script.write_text("raise RuntimeError('no rows')\n")
    with pytest.raises(UserCodeError, match="no rows"):
        code_profile.profile(script, seconds=5)
    script.write_text("pass\n")
    with pytest.raises(UserCodeError, match="samples"):
        code_profile.profile(script, seconds=5)
    with pytest.raises(InputError, match="no such program"):
        code_profile.profile(tmp_path / "none.py")


def test_a_program_that_goes_on_is_ended_with_what_it_started(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    script.write_text("x = 0\nwhile True:\n    x += 1\n")
    found = code_profile.profile(script, seconds=1.5)
    assert found.seconds < 60
    assert found.samples >= 30


@pytest.mark.parametrize(("rate", "kind"), [(250, "queue"), (10, "mixed")])
def test_requests_that_wait_for_one_another_are_told_from_those_that_do_not(
    rate: float, kind: str, machine: Probe
) -> None:
    turn = asyncio.Semaphore(1)

    async def one_at_a_time(number: int) -> tuple[int, bool]:
        async with turn:
            await asyncio.sleep(0.006)
        return 200, True

    with serving(one_at_a_time) as (url, _):
        target = LoadTarget(endpoint="m", url=url, limit_p99_ms=50, peak=rate)

        def load(asked: float | None) -> LoadReport:
            return load_target.run(
                target, ({},), rate=asked or target.peak, seconds=1.5, connections=16, key="k", on_event=lambda e: None
            )

        report = profiling.endpoint("m", load, machine, None, lambda event: None)
    assert report.finding.kind == kind, report
    assert f"bedplate profile m --rate {rate:g}" == report.verify
