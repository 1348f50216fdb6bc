"""Bottlenecks that were planted, found by measuring; and what cannot be profiled."""

import asyncio
import math
import sys
import threading
from html import unescape
from pathlib import Path

import msgspec
import pytest

from bedplate.app import load_target, profiling
from bedplate.app.profile_page import page
from bedplate.app.read_models import LoadReport, LoadTarget
from bedplate.cli import root
from bedplate.compute import code_profile, counters, model_profile, probe, sandbox, torch_trace, watched
from bedplate.compute.onnx_model import OnnxModel
from bedplate.compute.sampler import Sampler
from bedplate.errors import InputError, UserCodeError
from bedplate.plan import bottlenecks
from bedplate.plan.types import Probe
from tests.app.test_load import serving
from tests.compute import models
from tests.serve.support import eventually

pytestmark = pytest.mark.slow

PLANTED = Path(__file__).parent / "planted"
CODE = {
    "loader": "data-loader",
    "interpreter_lock": "interpreter-lock",
    "serialization": "serialization",
    "communication": "communication",
    "capacity": "capacity",
    "mixed": "mixed",
}
TRAININGS = {
    "loads": ("data-loader", 1.5),
    "writes": ("serialization", 60.0),
    "computes": ("mixed", 1.5),
    "takes_no_signal": (None, 5.0),
}
"""What holds them back, and for how long they are watched."""
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
    """Each program ends after so much processor time, or so many steps: a busy machine takes longer, and shows more."""
    for _ in range(5):  # while others keep the machine busy, the wait for them is what there is to find
        found = code_profile.profile(PLANTED / f"{name}.py", seconds=60)
        if bottlenecks.find(found.windows).kind == CODE[name]:
            break
    assert bottlenecks.find(found.windows).kind == CODE[name]
    assert found.samples >= 10
    assert sum(count for _, count in found.stacks) == found.samples


def test_one_lock_is_found_where_others_have_the_cores() -> None:
    """Three threads have a twelfth of a core each, and wait for one a quarter of the time; the rest they sleep."""
    moments = [number / 50 for number in range(100)]
    times = [(at, thread, int(at * 1e9 / 12), int(at * 1e9 / 4)) for at in moments for thread in (1, 2, 3)]
    seen = {
        "seconds": 2.0, "stacks": [["count (program.py)"]], "samples": [(at, thread, 0) for at, thread, *_ in times],
        "times": times, "sampler": 0.01, "processor": 0.5, "limit": None, "taken": None,
    }  # fmt: skip
    assert bottlenecks.find(code_profile.read(msgspec.json.encode(seen), "program").windows).kind == "interpreter-lock"


@pytest.mark.parametrize("name", TRAININGS)
def test_a_bottleneck_planted_in_a_training_is_found_in_its_limited_process(name: str) -> None:
    """Whether it ends by itself, goes on, or sits in compiled code when its time is over."""
    kind, seconds = TRAININGS[name]
    reply = sandbox.call(f"pipeline:{name}", pipeline=PLANTED / "trainings.py", limit=sandbox.Limit(120), watch=seconds)
    assert set(reply.files) == {watched.SAMPLES}
    found = code_profile.read(reply.files[watched.SAMPLES], name)
    assert found.samples >= 30
    assert kind is None or bottlenecks.find(found.windows).kind == kind


@pytest.mark.torch
def test_what_torch_does_in_a_training_is_traced() -> None:
    pytest.importorskip("torch")
    found = {}
    for name in ("loads", "computes"):
        reply = sandbox.call(f"pipeline:{name}", pipeline=PLANTED / "networks.py", limit=sandbox.Limit(120), watch=2.0)
        found[name] = torch_trace.read(reply.files[watched.TRACE], 3, 1e12)
        assert code_profile.read(reply.files[watched.SAMPLES], name).samples >= 30
    loads, computes = found["loads"], found["computes"]
    assert loads is not None
    assert bottlenecks.find(loads.windows).kind == "data-loader"
    assert computes is not None
    assert {window.loader for window in computes.windows} == {0.0}
    first = next(product for product in computes.products if product.name == "addmm 512 256x1024 1024x512")
    assert first.flops == 2 * 256 * 1024 * 512


def test_a_training_that_fails_is_told_by_its_line() -> None:
    with pytest.raises(UserCodeError, match="no rows"):
        sandbox.call("pipeline:fails", pipeline=PLANTED / "trainings.py", limit=sandbox.Limit(60), watch=1.0)


def test_work_that_holds_the_interpreter_lets_the_sampler_in_soon_and_is_left_as_it_was() -> None:
    """A look waits for the interpreter several times; at Python's own interval so much that few were left."""
    before = sys.getswitchinterval()
    sampler = Sampler(math.inf, lambda: None)
    sampler.start()
    eventually(lambda: len(sampler.found()["samples"]) > 3)
    assert sys.getswitchinterval() < before / 3
    sampler.stop()
    sampler.join()
    assert sys.getswitchinterval() == pytest.approx(before)


def test_what_was_found_names_no_stack_that_was_seen_later() -> None:
    sampler = Sampler(math.inf, lambda: None)
    halt, there = threading.Event(), threading.Event()

    def work() -> None:
        there.set()
        halt.wait()

    other = threading.Thread(target=work)
    sampler._look(0)
    found = sampler.found()
    other.start()
    there.wait()
    sampler._look(1)
    halt.set()
    other.join()
    assert all(number < len(found["stacks"]) for _, _, number in found["samples"])
    assert len(sampler.found()["stacks"]) > len(found["stacks"])


def traced(*events: tuple[str, str, float, float], **args: object) -> bytes:
    """A trace as torch's profiler writes it: category, name, beginning and duration in microseconds of each event."""
    found = [{"ph": "X", "cat": cat, "name": name, "ts": at, "dur": dur, "args": args} for cat, name, at, dur in events]
    return msgspec.json.encode({"schemaVersion": 1, "traceEvents": [{"ph": "M", "name": "process_name"}, *found]})


@pytest.mark.parametrize(
    ("kind", "events"),
    [
        ("transfer", [("kernel", "gemm", 0, 40), ("gpu_memcpy", "Memcpy HtoD (Pinned -> Device)", 30, 60)]),
        ("communication", [("kernel", "gemm", 0, 60), ("kernel", "ncclDevKernel_AllReduce_Sum", 50, 40)]),
        (
            "data-loader",
            [("user_annotation", "enumerate(DataLoader)#_Iter.__next__", 0, 30), ("kernel", "gemm", 30, 60)],
        ),
        ("launch", [("kernel", "add", at, 4) for at in range(0, 90, 15)]),
        ("mixed", [("kernel", "gemm", 0, 90), ("gpu_memcpy", "Memcpy HtoD", 20, 60)]),  # hidden behind the kernel
    ],
)
def test_what_a_device_waits_for_is_read_from_a_trace(kind: str, events: list[tuple[str, str, float, float]]) -> None:
    found = torch_trace.read(traced(*events, ("cpu_op", "aten::add", 0, 90)), 1, 1e12)
    assert found is not None
    assert bottlenecks.find(found.windows).kind == kind
    assert torch_trace.read(traced(), 1, 1e12) is None


@pytest.mark.parametrize(
    ("name", "dims", "flops", "moved"),
    [
        ("aten::mm", [[8, 16], [16, 32]], 2 * 8 * 16 * 32, 4 * (8 * 16 + 16 * 32 + 8 * 32)),
        ("aten::addmm", [[32], [8, 16], [16, 32], [], []], 2 * 8 * 16 * 32, 4 * (32 + 8 * 16 + 16 * 32 + 8 * 32)),
        ("aten::bmm", [[4, 8, 16], [4, 16, 32]], 2 * 4 * 8 * 16 * 32, 4 * 4 * (8 * 16 + 16 * 32 + 8 * 32)),
    ],
)
def test_products_of_a_trace_are_counted_to_the_operation(name: str, dims: object, flops: int, moved: int) -> None:
    trace = traced(("cpu_op", name, 0, 10), ("cpu_op", name, 10, 30), **{"Input Dims": dims, "Input type": ["float"]})
    found = torch_trace.read(trace, 1, 1e12)
    assert found is not None
    (product,) = found.products
    assert (product.calls, product.seconds) == (2, pytest.approx(40e-6))
    assert (product.flops, product.bytes) == (flops, moved)
    assert found.windows[0].compute == pytest.approx(2 * flops / 40e-6 / 1e12)


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
    assert report.counted in unescape(page(report))


def test_the_processor_counts_or_it_is_said_why_not() -> None:
    found = counters.count(lambda: sum(range(200_000)))
    if isinstance(found, counters.Counted):
        assert found.instructions > 200_000
        assert min(found.cycles, found.seconds) > 0 <= found.misses
    else:
        assert "counters" in found
    said = str(counters.Counted(seconds=1, cycles=2e9, instructions=3e9, misses=1e7))
    assert said.startswith("1.50 instructions a cycle at 2.00 GHz; 0.64 GB/s")


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
    assert found.samples >= 10


@pytest.mark.parametrize(("rate", "kind"), [(50, "queue"), (5, "mixed")])
def test_requests_that_wait_for_one_another_are_told_from_those_that_do_not(
    rate: float, kind: str, machine: Probe
) -> None:
    turn = asyncio.Semaphore(1)

    async def one_at_a_time(number: int) -> tuple[int, bool]:
        async with turn:
            await asyncio.sleep(0.03)  # long beside what a busy machine adds
        return 200, True

    with serving(one_at_a_time) as (url, _):
        target = LoadTarget(endpoint="m", url=url, limit_p99_ms=50, peak=rate)

        def load(asked: float | None) -> LoadReport:
            return load_target.run(
                target, ({},), rate=asked or target.peak, seconds=1.5, connections=16, key="k", on_event=lambda e: None
            )

        for _ in range(5):
            report = profiling.endpoint("m", load, machine, None, lambda event: None)
            if report.finding.kind == kind:
                break
    assert report.finding.kind == kind, report
    assert f"bedplate profile m --rate {rate:g}" == report.verify
