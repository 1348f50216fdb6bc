"""Work that runs and ends: training on accelerators, scoring in bulk, reading data. How many machines end it in time.

A run takes its work over its rate, and longer by what failures cost. The fewest machines that end it in time need not
be the cheapest: more of them lose more to each other, but hold more without computing it again, and store it shorter.
"""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from bedplate.errors import InputError
from bedplate.plan import cost, images, intervals, sites, training
from bedplate.plan.accelerators import Accelerator, accelerator
from bedplate.plan.catalogue import Catalogue
from bedplate.plan.layouts import fastest
from bedplate.plan.sites import Site, described, lost, predicted
from bedplate.plan.types import (
    Cost,
    ImageTrainingSize,
    LanguageTrainingSize,
    Layout,
    Option,
    PipelineSize,
    Predicted,
    Probe,
    Requirements,
    ScoringSize,
)
from bedplate.records import Estimate

_MACHINES = (1, 2, 4, 8, 16, 32, 64, 128)
_DEVICE_HOURS = 46_000.0
"""Of one accelerator between two interruptions: 466 in 54 days on 16,384 of them (Llama 3, 2024). As recalled."""
_RESTART = 900.0
"""Seconds until all machines work again. Assumed."""
_WRITE = 2e9
"""Bytes a second that one machine writes of a checkpoint. Assumed."""
_DECODE = (80.0, 150.0, 300.0)
"""Pictures a second that one vCPU reads, decodes, resizes and augments. Assumed."""
_READ = (0.2e9, 0.6e9, 1.5e9)
"""Bytes a second that one machine reads from object storage. Assumed."""
_ROW = 0.4e-6
"""Seconds of one core for the columns of one row, read and written. Assumed."""


class Run(NamedTuple):
    """One run on some machines: seconds without failures, how it lies on them, and what else is worth showing."""

    seconds: Estimate
    machines: int
    layout: Layout | None
    known: float | None
    figures: tuple[Predicted, ...]
    state: float = 0.0
    """Bytes of one checkpoint."""


def options(site: Site, needs: Requirements, catalogue: Catalogue, probe: Probe) -> Iterator[Option]:
    """A machine type with the machines that end the run in time at the least cost; where none do, with the fastest.

    On a cluster of one market all machines are of that market.
    """
    size = needs.size
    if bool(site.instance.accelerator) != isinstance(size, ImageTrainingSize | LanguageTrainingSize):
        return
    made: list[Option] = []
    why = "nothing fits there"
    for run in _runs(site, needs, probe):
        if isinstance(run, str):
            why = run
            continue
        option = _priced(site, needs, catalogue, run)
        if option.cost is None:
            why = option.lost
            continue
        made.append(option)
    there = site.instance.machines
    able = [option for option in made if option.meets]
    able = [option for option in able if there is None or (option.machines or 0) <= there] or able
    best = min(able, key=_total) if able else min(made, key=_slowness, default=None)
    yield best if best is not None else lost(site, why)


def _total(option: Option) -> float:
    return option.cost.total.value if option.cost else math.inf


def _slowness(option: Option) -> float:
    return option.predicted[0].estimate.value


def _runs(site: Site, needs: Requirements, probe: Probe) -> Iterator[Run | str]:
    size = needs.size
    if isinstance(size, LanguageTrainingSize):
        yield from _language(site, size)
    elif isinstance(size, ImageTrainingSize):
        yield _pictures(site, size)
    elif isinstance(size, ScoringSize | PipelineSize):
        yield from _on_processors(site, size, probe)


def _priced(site: Site, needs: Requirements, catalogue: Catalogue, run: Run) -> Option:
    limit = needs.item("time of a run")
    share = _goodput(site, catalogue, run)
    if share <= 0.2:
        return lost(site, f"{run.machines} machines would lose more to failures than they train")
    hours = intervals.scaled(run.seconds, 1 / share / 3600)
    total = intervals.scaled(hours, 3600)
    time = predicted("time of a run", total, "s", limit, run.known)
    priced = cost.of_run(site, catalogue, hours=hours, machines=run.machines, share=share, kept=_kept(needs, run.state))
    runs = next((item.value for item in needs.items if item.name == "runs a month"), None)
    if runs is not None:
        priced = _monthly(priced, runs)
    problem = ""
    if total.high > limit.value:
        problem = f"a run may take {_span(total.high)}; the file allows {_span(limit.value)} (line {limit.line})"
    return msgspec.structs.replace(
        described(site),
        machines=run.machines,
        layout=run.layout,
        predicted=(time, *run.figures),
        cost=priced,
        carbon=cost.carbon(site.instance, catalogue, hours=hours.value * run.machines * (runs or 1.0), busy=0.9),
        method="work counted, rates calibrated" if run.known is not None else "work counted, rates assumed",
        meets=not problem,
        lost=problem,
    )


def _monthly(of_run: Cost, runs: float) -> Cost:
    parts = ("compute", "idle", "storage", "logging", "egress", "retraining", "total")
    return msgspec.structs.replace(
        of_run, period="month", **{part: intervals.scaled(getattr(of_run, part), runs) for part in parts}
    )


def _kept(needs: Requirements, state: float) -> float:
    """Bytes that lie in storage while it runs: the text or the pictures, and the last three checkpoints."""
    size = needs.size
    if isinstance(size, LanguageTrainingSize):
        return 4.0 * size.tokens + 3 * state
    if isinstance(size, ImageTrainingSize):
        return 1.2e5 * size.images + 3 * state
    return float(size.size) if isinstance(size, PipelineSize) else 0.0


def _goodput(site: Site, catalogue: Catalogue, run: Run) -> float:
    """Share of the time that goes into the run: the rest writes checkpoints and repeats what failures lost."""
    devices = max(1, run.layout.devices if run.layout else run.machines)
    rate = devices / (_DEVICE_HOURS * 3600)
    if site.market == "spot":
        rate += run.machines / (catalogue.services[site.instance.provider]["spot_hours"].value * 3600)
    write = max(5.0, run.state / (run.machines * _WRITE))
    return training.goodput(checkpoint=write, restart=_RESTART, between_failures=1 / rate)[1]


def _span(seconds: float) -> str:
    return f"{seconds / 86400:.1f} days" if seconds >= 2 * 86400 else f"{seconds / 3600:.1f} hours"


# --------------------------------------------------------------------------------------------------------- accelerators


def _language(site: Site, size: LanguageTrainingSize) -> Iterator[Run | str]:
    device, count = _device(site)
    if device.generation == "tpu":
        yield _unmeasured(device)
        return
    most = _MACHINES if site.instance.cluster_gbps else (1,)
    for machines in most:
        devices = machines * count
        if devices > size.batch:
            break
        found = fastest(size, device, devices)
        if isinstance(found, str):
            yield found
            continue
        layout, step = found
        steps = size.tokens / (size.sequence * size.batch)
        seconds = intervals.scaled(step.seconds, steps)
        s = step.seconds
        tokens = float(size.sequence * size.batch)
        rate = Estimate(value=tokens / s.value, low=tokens / s.high, high=tokens / s.low, method=s.method)
        figures = (
            predicted("one step", s, "s", known=step.known), predicted("tokens a second", rate, "1/s", known=step.known)
        )  # fmt: skip
        yield Run(seconds, machines, layout, step.known, figures, 14.0 * size.model.parameters)


def _unmeasured(device: Accelerator) -> str:
    return f"no calibrated estimate: nothing that was measured on {device.name} is known; measure one step"


def _device(site: Site) -> tuple[Accelerator, int]:
    """The accelerator as this machine type joins it: how many in a node, and each one's share of its network."""
    count = site.instance.accelerators
    device = accelerator(site.instance.accelerator or "")
    network = (site.instance.cluster_gbps or 0.0) / count
    return msgspec.structs.replace(device, node=min(device.node, count), network_gbps=network), count


def _pictures(site: Site, size: ImageTrainingSize) -> Run | str:
    device, count = _device(site)
    if device.generation == "tpu":
        return _unmeasured(device)
    best: Run | str = "no precision that the file allows is known there"
    for precision in size.precisions:
        made = _picture_steps(size, device, count, precision)
        if isinstance(made, str):
            best = made
            continue
        batch, step, known = made
        total = float(size.images * size.epochs)
        rate = [batch * count / seconds for seconds in (step.high, step.value, step.low)]
        fed = [site.instance.vcpus * each for each in _DECODE]
        both = [min(one, other) for one, other in zip(rate, fed, strict=True)]
        seconds = Estimate(value=total / both[1], low=total / both[2], high=total / both[0], method=step.method)
        pace = Estimate(value=both[1], low=both[0], high=both[2], method="the slower of training and reading")
        layout = Layout(
            accelerator=device.name, devices=count, precision=precision, batch=size.batch, micro_batch=batch
        )
        figures = [predicted("pictures a second", pace, "1/s", known=known)]
        read = Estimate(value=fed[1], low=fed[0], high=fed[2], method="vCPUs x assumed rate of decoding")
        figures.append(predicted("pictures a second that processors can read", read, "1/s"))
        run = Run(seconds, 1, layout, known, tuple(figures), 16.0 * size.graph.parameters)
        if isinstance(best, str) or run.seconds.value < best.seconds.value:
            best = run
    return best


@lru_cache(maxsize=1024)
def _picture_steps(
    size: ImageTrainingSize, device: Accelerator, count: int, precision: str
) -> tuple[int, Estimate, float] | str:
    """Pictures of one device in a step, its seconds, and how near a measurement is; a large batch comes in parts."""
    graph = size.graph
    batch = max(1, size.batch // count)
    room = device.memory_gib * 2**30 - 2e9 - 16.0 * graph.parameters
    while batch > 1 and 3.0 * 2 * batch * graph.activations > room:
        batch //= 2
    if 6.0 * batch * graph.activations > room:
        return f"one picture does not fit {device.name}"
    work = images.Images(
        accelerator=device, devices=count, precision=precision, batch=batch, training=True, channels_last=True,
        parameters=graph.parameters, macs=graph.macs, activations=graph.activations,
    )  # fmt: skip
    try:
        found = images.batch(work, size.name)
    except InputError as error:
        return error.message
    return batch, found.seconds, found.known


# ----------------------------------------------------------------------------------------------------------- processors


def _on_processors(site: Site, size: ScoringSize | PipelineSize, probe: Probe) -> Iterator[Run | str]:
    fast, why = sites.speed(site, probe)
    if fast is None:
        yield why
        return
    if isinstance(size, ScoringSize):
        tree = probe.onnx_tree_ns or 60.0
        work = size.rows * (size.trees * size.depth / 6 * tree * 1e-9 + _ROW * size.features / 30)
        amount, unit, moved = float(size.rows), "rows a second", 8.0 * size.rows * size.features
        factors = [(1 / 2.0, 1.0, 2.0)]
    else:
        work = size.size / size.record * size.seconds
        amount, unit, moved = size.size / size.record, "records a second", float(size.size)
        factors = [(1 / 1.3, 1.0, 1.3)]
    cores = intervals.product([*factors, (1 / fast.high, 1 / fast.value, 1 / fast.low)])
    for machines in _MACHINES if site.market != "owned" else (1,):
        computing = intervals.scaled(cores, work / site.instance.vcpus / machines)
        reading = [moved / each / machines for each in reversed(_READ)]
        ends = [max(a, b) for a, b in zip((computing.low, computing.value, computing.high), reading, strict=True)]
        slower = "computing" if computing.value >= reading[1] else "reading"
        seconds = Estimate(value=ends[1], low=ends[0], high=ends[2], method=f"bound by {slower}")
        pace = Estimate(value=amount / ends[1], low=amount / ends[2], high=amount / ends[0], method=seconds.method)
        yield Run(seconds, machines, None, None, (predicted(unit, pace, "1/s"),))
