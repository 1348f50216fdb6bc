"""Requests that processors answer: how many replicas a machine type needs, and what a month of them costs.

The limit is checked against the pessimistic end of every interval. What cannot be predicted gets no number.
"""

import bisect
import math
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from bedplate.plan import cost, queueing, sites, workloads
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.experience import corrected
from bedplate.plan.intervals import product
from bedplate.plan.requirements import HOURS_PER_MONTH, SERVICE
from bedplate.plan.sites import Site, described, predicted
from bedplate.plan.types import Job, Option, Probe, Requirements, StageTime
from bedplate.records import Estimate

MAX_UTILISATION = 0.8
"""Replicas are not planned busier than this at the peak: beyond it small errors make long queues."""
_MAX_PROCESSES = 256
_CS2 = (0.1, 0.5)
"""Bounds on how unsteady requests are: steadier than the lower never is, as histories differ in length; above the
upper, something disturbed the probe."""
_SYSTEM_BYTES = 1.0 * 2**30
"""Kept for the operating system and the supervisor of a machine."""


def options(site: Site, requirements: Requirements, catalogue: Catalogue, probe: Probe) -> Iterator[Option]:
    """One machine type, sized for the requirements, with its cost, or with the reason why it cannot be.

    None where nothing says what a request takes on processors.
    """
    if site.instance.accelerator is None and not isinstance(requirements.size, Job):
        stages = workloads.stages(requirements.size, probe)
        if stages:
            yield _option(site, requirements, catalogue, stages, probe)


def _option(
    site: Site, requirements: Requirements, catalogue: Catalogue, stages: tuple[StageTime, ...], probe: Probe
) -> Option:
    base, (speed, why), cs2 = described(site), sites.speed(site, probe), _cs2(probe)
    if speed is None:
        return msgspec.structs.replace(base, lost=why)
    service = _uncrowded(corrected(service_time(stages, speed), requirements.correction(SERVICE)), probe)
    held = _held(service, probe)
    memory = requirements.item("memory of a replica")
    slots = min(base.vcpus, int((base.memory_gib * 2**30 - _SYSTEM_BYTES) // (memory.high or memory.value)))
    base = msgspec.structs.replace(base, service=service)
    if slots < 1:
        need = (memory.high or memory.value) / 2**30
        return msgspec.structs.replace(
            base, lost=f"a replica may need {need:.1f} GiB; it does not fit (line {memory.line})"
        )
    limit = requirements.item("p99")
    if held + workloads.NETWORK_SECONDS > limit.value:
        return msgspec.structs.replace(
            base,
            lost=f"one request alone may take {held * 1e3:.1f} ms; the file allows {limit.value * 1e3:g} ms"
            f" (line {limit.line})",
        )
    peak = requirements.value("peak rate")
    needed = processes_for(peak, service, limit.value, cs2, held)
    if needed is None:
        return msgspec.structs.replace(base, lost=f"no number of replicas up to {_MAX_PROCESSES} keeps the p99")
    machines, each, problem = machines_for(site.instance, catalogue, requirements, needed, slots)
    replicas = machines * each
    p99, utilisation, method = predict(peak, service, replicas, cs2)
    priced = cost.monthly(
        site, catalogue, requirements, busy=requirements.value("mean rate") * service.value / base.vcpus,
        machines=machines, slots=slots, needed=needed,
    )  # fmt: skip
    assert not isinstance(requirements.size, Job)
    itself = site.market == "owned" and workloads.anchor(requirements.size, probe) is not None
    known = 1.0 if itself else None  # nothing is between the measurement and what it is taken for
    figures = [predicted("requests a second", _capacity(replicas, service), "1/s", known=known)]
    if p99 is not None:
        figures.append(predicted("p99", p99, "s", limit, known))
    option = msgspec.structs.replace(
        base, machines=machines, replicas=replicas, p99=p99, utilisation=utilisation, method=method, cost=priced,
        predicted=tuple(figures),
        carbon=cost.carbon(site.instance, catalogue, hours=machines * HOURS_PER_MONTH, busy=utilisation.value),
    )  # fmt: skip
    if not problem and replicas > requirements.replicas_max:
        problem = f"needs {replicas} replicas; the file allows {requirements.replicas_max}"
    return msgspec.structs.replace(option, meets=not problem, lost=problem)


def _uncrowded(service: Estimate, probe: Probe) -> Estimate:
    """A crowded machine was measured slower than it is, by what others took of it at most."""
    return msgspec.structs.replace(service, low=service.low * (1 - probe.crowded)) if probe.crowded else service


def _held(service: Estimate, probe: Probe) -> float:
    """Seconds that a promise is held to: the slow end, less what others took of the machine that was measured."""
    return max(service.value, service.high * (1 - probe.crowded))


def service_time(stages: tuple[StageTime, ...], speed: Estimate) -> Estimate:
    """Mean seconds of work per request at a speed. Stage errors are independent, the error of the speed is shared."""
    mean = math.fsum(stage.time.value for stage in stages)
    low = mean - math.sqrt(math.fsum((s.time.value - s.time.low) ** 2 for s in stages))
    high = mean + math.sqrt(math.fsum((s.time.high - s.time.value) ** 2 for s in stages))
    time = product([(low, mean, high), (1 / speed.high, 1 / speed.value, 1 / speed.low)])
    return msgspec.structs.replace(time, method="stages counted, scaled by speed")


@lru_cache(maxsize=4096)
def predict(rate: float, service: Estimate, replicas: int, cs2: float) -> tuple[Estimate | None, Estimate, str]:
    """The p99 with ``replicas`` processes, how busy they are, and the method; no p99 where a queue could grow for ever.

    The low end shares one queue; the high end gives each process its own, as kept-alive connections do.
    """
    shared = queueing.sojourn(0.99, replicas, rate, service.value, cs2)
    own = queueing.sojourn(0.99, 1, rate / replicas, service.value, cs2)
    best = queueing.sojourn(0.99, replicas, rate, service.low, cs2)
    worst = queueing.sojourn(0.99, 1, rate / replicas, service.high, cs2)
    network = workloads.NETWORK_SECONDS
    middle = math.sqrt(shared.value * own.value)
    p99 = (
        None
        if math.isinf(worst.value)
        else Estimate(value=middle + network, low=best.value + network, high=worst.value + network, method="queueing")
    )
    busy = [rate * s / replicas for s in (service.low, service.value, service.high)]
    return p99, Estimate(value=busy[1], low=busy[0], high=busy[2], method="rate x service / replicas"), worst.method


@lru_cache(maxsize=4096)
def processes_for(rate: float, service: Estimate, limit: float, cs2: float, held: float) -> int | None:
    """The fewest processes that keep utilisation at the slow end of ``service``, and p99 where it is ``held``.

    None: no number does.
    """
    counts = range(max(1, math.ceil(rate * service.high / MAX_UTILISATION)), _MAX_PROCESSES + 1)

    def keeps(count: int) -> bool:
        worst = queueing.sojourn(0.99, 1, rate / count, held, cs2)
        return worst.value + workloads.NETWORK_SECONDS <= limit

    found = bisect.bisect_left(counts, True, key=keeps)  # the more there are, the less each waits
    return counts[found] if found < len(counts) else None


def machines_for(
    instance: Instance, catalogue: Catalogue, requirements: Requirements, needed: int, slots: int
) -> tuple[int, int, str]:
    """Machines, replicas on each, and why the promise cannot be kept, if so. A lost zone leaves enough replicas."""
    promised = requirements.item("availability")
    facts = catalogue.services[instance.provider]
    one, many = facts["availability_one_zone"], facts.get("availability_many_zones")
    machines = math.ceil(needed / slots)
    if instance.provider == "here" and machines > 1:
        return 1, slots, f"there is one, with room for {slots} replicas; the load needs {needed}"
    if promised.value <= one.value:
        return machines, math.ceil(needed / machines), ""
    if many is None or instance.zones < 2 or promised.value > many.value:
        best = many.value if many is not None and instance.zones > 1 else one.value
        text = f"promises {best:.2%} of the time; the file asks for {promised.value:.4g} (line {promised.line})"
        return machines, math.ceil(needed / machines), text
    left = machines  # as many as the load needs must stay when one zone is gone
    zones = min(instance.zones, 3 if left > 1 else 2)
    while machines - math.ceil(machines / zones) < left:
        machines += 1
    return machines, math.ceil(needed / (machines - math.ceil(machines / zones))), ""


def _capacity(replicas: int, service: Estimate) -> Estimate:
    return Estimate(
        value=replicas / service.value, low=replicas / service.high, high=replicas / service.low, method="1 / service"
    )


def _cs2(probe: Probe) -> float:
    return min(max(probe.service_cs2, _CS2[0]), _CS2[1])
