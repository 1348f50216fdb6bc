"""What holds a model, a program or an endpoint back: measured, classed, with what to do about it and how to check."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bedplate.app.profile_models import Frame, ProfileReport, RoofPoint
from bedplate.app.read_models import LoadReport
from bedplate.compute import code_profile, model_profile
from bedplate.compute.onnx_model import OnnxModel, parse_shapes
from bedplate.plan import bottlenecks, catalogue, cost
from bedplate.plan.types import Probe
from bedplate.records import Event

_FRAMES = 400
"""Stacks that a report keeps; what is rarer is told as a number."""

Load = Callable[[float | None], LoadReport]
"""A load run on the endpoint, at so many requests a second, None at the peak of its use case."""


def model(
    path: Path, probe: Probe, shapes: Sequence[str], rows: int, seconds: float, emit: Callable[[Event], None]
) -> ProfileReport:
    """The bottleneck of one call of an ONNX model on one thread of this machine.

    Raises:
        InputError: the model cannot be read, opened or fed.
    """
    opened = OnnxModel(path, parse_shapes(shapes))
    emit(Event(stage="profile", state="progress", message=f"{path.name}: calls, nodes, rows, threads"))
    found = model_profile.profile(opened, probe, seconds=seconds, rows=rows)
    finding = bottlenecks.find(found.windows, found.tried)
    total = sum(step.seconds for step in found.steps) or 1.0
    frames = [Frame(stack=(path.name, step.operator, step.name), share=step.seconds / total) for step in found.steps]
    points = [
        RoofPoint(name=step.name, intensity=step.flops / step.bytes, gflops=step.flops / step.seconds / 1e9)
        for step in found.steps
        if step.flops and step.bytes and step.seconds
    ]
    warning = (
        f"the profiler made a call {found.overhead:.0%} longer: times of single nodes are upper bounds",
    ) if found.overhead > model_profile.TRUSTED else ()  # fmt: skip
    shaped = "".join(f" --shape {text}" for text in shapes)
    return ProfileReport(
        target=str(path),
        what=f"one call with {rows} rows on one thread",
        finding=finding,
        step_ms=found.seconds * 1e3,
        cost_ms=finding.share.value * found.seconds * 1e3,
        usd_per_million=_usd(probe, found.seconds * 1e6),
        grams_per_million=_grams(probe, found.seconds * 1e6),
        by_rows=tuple((count, taken * 1e3) for count, taken in found.by_rows),
        frames=tuple(frames[:_FRAMES]),
        points=tuple(points[:20]),
        roof_gflops=max(rate.gflops for rate in probe.matmul_sizes),
        roof_gbps=max(probe.copy_gbps, probe.score_gbps),
        machine=_machine(probe),
        overhead=found.overhead,
        counted=found.counted,
        warnings=(*warning, *_unstable(finding)),
        verify=f"bedplate profile {shlex.quote(str(path))} --rows {_verified_rows(finding, rows)}{shaped}",
    )


def program(path: Path, seconds: float, probe: Probe, emit: Callable[[Event], None]) -> ProfileReport:
    """The bottleneck of a Python program, run for at most ``seconds``.

    Raises:
        InputError: there is no such file.
        UserCodeError: it failed, or did too little to be seen.
    """
    emit(Event(stage="profile", state="progress", message=f"{path.name}: running under the sampler"))
    found = code_profile.profile(path, seconds=seconds)
    report = sampled(str(path), found, probe, windows=found.windows)
    return msgspec.structs.replace(report, verify=f"bedplate profile {shlex.quote(str(path))} --duration {seconds:g}")


def sampled(
    target: str, found: code_profile.CodeProfile, probe: Probe, *, windows: Sequence[bottlenecks.Signals]
) -> ProfileReport:
    """What samples of a program tell, with ``windows`` to class it by; how to check it is left open."""
    finding = bottlenecks.find(windows)
    warnings = [*_unstable(finding)]
    if found.overhead > model_profile.TRUSTED:
        warnings.append(f"the sampler took {found.overhead:.0%} of a core; the limit is 5 %")
    if finding.kind == "mixed":
        warnings.append(
            f"it kept {found.cores:.2f} cores busy; whether memory or operations hold them back shows "
            "`bedplate profile` of the model alone, or `perf stat` where the processor's counters can be read"
        )
    return ProfileReport(
        target=target,
        what=f"{found.samples:,} samples in {found.seconds:.1f} s, imports left out",
        finding=finding,
        step_ms=found.seconds * 1e3,
        cost_ms=finding.share.value * found.seconds * 1e3,
        usd_per_million=None,
        grams_per_million=None,
        frames=tuple(Frame(stack=stack, share=count / found.samples) for stack, count in found.stacks[:_FRAMES]),
        machine=_machine(probe),
        overhead=found.overhead,
        warnings=tuple(warnings),
        verify="",
    )


def endpoint(name: str, load: Load, probe: Probe, rate: float | None, emit: Callable[[Event], None]) -> ProfileReport:
    """Whether requests to an endpoint wait for one another: latency at its load against that of a tenth of it.

    Raises:
        NotFoundError: there is no such endpoint.
        UnavailableError: it is not served now, or answered nothing.
    """
    busy = load(rate)
    emit(Event(stage="profile", state="progress", message=f"{name}: alone, at a tenth of the rate"))
    alone = load(max(1.0, busy.rate / 10))
    windows = _queue_windows(busy, alone)
    finding = bottlenecks.find(windows)
    service = alone.test.p50_ms
    warnings = [*_unstable(finding), *busy.warnings]
    if busy.test.unsent or busy.test.failed:
        warnings.append(f"{busy.test.failed} requests failed and {busy.test.unsent} were never sent at {busy.rate:g}/s")
    if finding.kind == "mixed":
        warnings.append(f"almost all of it is work: `bedplate profile` of the model of {name} tells what that is")
    return ProfileReport(
        target=name,
        what=f"half within {busy.test.p50_ms:.2f} ms at {busy.rate:g}/s, {service:.2f} ms at {alone.rate:g}/s",
        finding=finding,
        step_ms=busy.test.p50_ms,
        cost_ms=max(0.0, busy.test.p50_ms - service),
        usd_per_million=_usd(probe, service * 1e3),
        grams_per_million=_grams(probe, service * 1e3),
        machine=_machine(probe),
        overhead=0.0,
        warnings=tuple(warnings),
        verify=f"bedplate profile {name} --rate {busy.rate:g}",
    )


def _queue_windows(busy: LoadReport, alone: LoadReport) -> list[bottlenecks.Signals]:
    """Thirds of the busy run, each against the work that a request takes when it is alone."""
    service = max(alone.test.p50_ms, 1e-3)
    moments = busy.test.over_time
    size = max(1, len(moments) // 3)
    thirds = [moments[i : i + size] for i in range(0, len(moments) - size + 1, size)][:3]
    medians = [sum(part.p50_ms for part in third) / len(third) for third in thirds] or [busy.test.p50_ms]
    return [
        bottlenecks.Signals(seconds=p50 / 1e3, wait=max(0.0, p50 - service) / 1e3, service=service / 1e3)
        for p50 in medians
    ]


def _unstable(finding: bottlenecks.Finding) -> tuple[str, ...]:
    if finding.stable:
        return ()
    return ("windows of this measurement disagree on the class: measure longer, or on a quieter machine",)


def _verified_rows(finding: bottlenecks.Finding, rows: int) -> int:
    """The rows of the remedy that was tried and helps most, so that checking it is one command."""
    for remedy in finding.remedies:
        first = remedy.what.split()[0]
        if remedy.what.endswith("rows a call") and first.isdecimal():
            return int(first)
    return rows


def _machine(probe: Probe) -> str:
    return f"{probe.cpu}, {probe.cores} cores"


def _usd(probe: Probe, seconds: float) -> float:
    """What ``seconds`` of one core of this machine cost, by the assumed price of owned hardware."""
    here = cost.this_machine(catalogue.load(), probe)
    return here.price_hour / here.vcpus * seconds / 3600


def _grams(probe: Probe, seconds: float) -> float | None:
    """Grams of CO2 equivalents of ``seconds`` of one busy core of this machine, by the assumed grid."""
    sold = catalogue.load()
    here = cost.this_machine(sold, probe)
    found = cost.carbon(here, sold, hours=seconds / 3600 / here.vcpus, busy=1.0)
    return found.value * 1e3 if found is not None else None
