"""Options, priced and judged: how many replicas each machine type needs, what a month costs, and why each lost.

The limit is checked against the pessimistic end of every interval. What cannot be predicted gets no number.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

import msgspec

from bedplate.plan import cost, queueing, workloads
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.intervals import product
from bedplate.plan.types import Constraint, Option, Plan, Probe, Requirements, StageTime
from bedplate.records import Estimate

MAX_UTILISATION = 0.8
"""Replicas are not planned busier than this at the peak: beyond it small errors make long queues."""
_MAX_PROCESSES = 256
_CS2 = (0.1, 0.5)
"""Bounds on how unsteady requests are: steadier than the lower never is, as histories differ in length; above the
upper, something disturbed the probe."""
_SYSTEM_BYTES = 1.0 * 2**30
"""Kept for the operating system and the supervisor of a machine."""
_CLOCK_HERE = (1.0, 1.25, 1.5)
"""What this machine's cores run at, against the base clock that systems report."""
_WORK_PER_CLOCK = (0.75, 1.0, 1.35)
"""Between processor generations of the last seven years, at the same clock; scalar and memory-bound work."""
_HYPERTHREAD = (0.5, 0.62, 0.8)
"""What one of two busy threads of a core does, against a whole core."""


class Site(NamedTuple):
    """A machine that could be rented or is there: the common form of a catalogue row and of this machine."""

    instance: Instance
    speed: Estimate | None
    """Against the machine the probe measured: 2 is twice as fast. None: nobody knows."""
    why: str


def plan(requirements: Requirements, catalogue: Catalogue, probe: Probe) -> Plan:
    """Compare every machine type where it is allowed, and this machine, and choose the cheapest that meets the file.

    Pure: the same arguments give the same plan.
    """
    stages = workloads.stages(requirements.size, probe)
    here = cost.this_machine(catalogue, probe)
    sites = [Site(here, _exactly_one(), "the machine that was measured"), *_rented(requirements, catalogue, probe)]
    currency = requirements.budget.currency if requirements.budget else "USD"
    options = [_option(site, requirements, catalogue, stages, _cs2(probe)) for site in sites]
    ranked = sorted(options, key=_rank)
    able = [option for option in ranked if option.meets]
    chosen = able[0] if able else None
    breach, reason = _judge(requirements, chosen)
    constraints = _constraints(requirements, catalogue, probe, chosen) if chosen else ()
    if breach == "block":
        chosen = None
    final = tuple(_with_reason(option, chosen, requirements) for option in ranked)
    return Plan(
        use_case=requirements.use_case,
        requirements=requirements,
        catalogue_digest=catalogue.digest,
        probe=probe,
        stages=stages,
        options=final,
        chosen=next((option for option in final if chosen and _same(option, chosen)), None),
        runner_up=next((option for option in final if option.meets and not (chosen and _same(option, chosen))), None),
        here=next(option for option in final if option.provider == "here"),
        binding=constraints[0] if constraints and constraints[0].saved > 0 else None,
        constraints=constraints,
        breach=breach,
        reason=reason,
        currency=currency,
    )


def _rented(requirements: Requirements, catalogue: Catalogue, probe: Probe) -> Iterable[Site]:
    """Of each machine type, the cheapest place that residency allows."""
    cheapest: dict[tuple[str, str], Instance] = {}
    for instance in catalogue.instances:
        if requirements.residency and instance.residency not in requirements.residency:
            continue
        key = instance.provider, instance.instance
        if key not in cheapest or (instance.price_hour, instance.region) < (
            cheapest[key].price_hour,
            cheapest[key].region,
        ):
            cheapest[key] = instance
    for key in sorted(cheapest):
        yield Site(cheapest[key], *_speed(cheapest[key], probe))


def _speed(instance: Instance, probe: Probe) -> tuple[Estimate | None, str]:
    """How fast one vCPU is against one core here: clocks, work per clock, shared cores; each with its spread."""
    cpu = instance.cpu
    if cpu.clock_low_ghz is None or cpu.clock_high_ghz is None:
        return None, f"no calibrated estimate: {cpu.label}"
    if probe.clock_ghz is None:
        return None, "no calibrated estimate: the clock of this machine is unknown, so nothing can be scaled from it"
    middle = math.sqrt(cpu.clock_low_ghz * cpu.clock_high_ghz)
    factors = [
        (cpu.clock_low_ghz, middle, cpu.clock_high_ghz),
        tuple(1 / (probe.clock_ghz * f) for f in reversed(_CLOCK_HERE)),
        _WORK_PER_CLOCK,
    ]
    if cpu.threads_per_core > 1:
        factors.append(_HYPERTHREAD)
    return product(factors), "scaled from the probe by clock"


def _option(
    site: Site, requirements: Requirements, catalogue: Catalogue, stages: tuple[StageTime, ...], cs2: float
) -> Option:
    """One machine type, sized for the requirements, with its cost, or with the reason why it cannot be."""
    base = _described(site)
    if site.speed is None:
        return msgspec.structs.replace(base, lost=site.why)
    service = service_time(stages, site.speed)
    memory = requirements.item("memory of a replica")
    slots = min(base.vcpus, int((base.memory_gib * 2**30 - _SYSTEM_BYTES) // (memory.high or memory.value)))
    base = msgspec.structs.replace(base, service=service)
    if slots < 1:
        need = (memory.high or memory.value) / 2**30
        return msgspec.structs.replace(
            base, lost=f"a replica may need {need:.1f} GiB; it does not fit (line {memory.line})"
        )
    limit = requirements.item("p99")
    if service.high + workloads.NETWORK_SECONDS > limit.value:
        return msgspec.structs.replace(
            base,
            lost=f"one request alone may take {service.high * 1e3:.1f} ms; the file allows {limit.value * 1e3:g} ms"
            f" (line {limit.line})",
        )
    peak = requirements.value("peak rate")
    needed = processes_for(peak, service, limit.value, cs2)
    if needed is None:
        return msgspec.structs.replace(base, lost=f"no number of replicas up to {_MAX_PROCESSES} keeps the p99")
    machines, each, problem = _machines(site.instance, catalogue, requirements, needed, slots)
    replicas = machines * each
    p99, utilisation, method = predict(peak, service, replicas, cs2)
    priced = cost.monthly(
        site.instance, catalogue, requirements, service, machines=machines, each=each, slots=slots, needed=needed
    )
    option = msgspec.structs.replace(
        base, machines=machines, replicas=replicas, p99=p99, utilisation=utilisation, method=method, cost=priced
    )
    if not problem and replicas > requirements.replicas_max:
        problem = f"needs {replicas} replicas; the file allows {requirements.replicas_max}"
    return msgspec.structs.replace(option, meets=not problem, lost=problem)


def service_time(stages: tuple[StageTime, ...], speed: Estimate) -> Estimate:
    """Mean seconds of work per request at a speed. Stage errors are independent, the error of the speed is shared."""
    mean = math.fsum(stage.time.value for stage in stages)
    low = mean - math.sqrt(math.fsum((s.time.value - s.time.low) ** 2 for s in stages))
    high = mean + math.sqrt(math.fsum((s.time.high - s.time.value) ** 2 for s in stages))
    time = product([(low, mean, high), (1 / speed.high, 1 / speed.value, 1 / speed.low)])
    return msgspec.structs.replace(time, method="stages counted, scaled by speed")


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


def processes_for(rate: float, service: Estimate, limit: float, cs2: float) -> int | None:
    """The fewest processes that keep p99 and utilisation at the slow end of ``service``. None: no number does."""
    low = max(1, math.ceil(rate * service.high / MAX_UTILISATION))
    for count in range(low, _MAX_PROCESSES + 1):
        worst = queueing.sojourn(0.99, 1, rate / count, service.high, cs2)
        if worst.value + workloads.NETWORK_SECONDS <= limit:
            return count
    return None


def _machines(
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


def _described(site: Site) -> Option:
    i = site.instance
    return Option(
        provider=i.provider,
        region=i.region,
        instance=i.instance,
        architecture=i.architecture,
        vcpus=i.vcpus,
        memory_gib=i.memory_gib,
        price_hour=i.price_hour,
        price_date=i.price_date,
        price_source=i.price_source,
        price_quality=i.price_quality,
        machines=None,
        replicas=None,
        p99=None,
        utilisation=None,
        service=None,
        method="",
        cost=None,
        meets=False,
        lost="",
    )


def _cs2(probe: Probe) -> float:
    return min(max(probe.service_cs2, _CS2[0]), _CS2[1])


def _exactly_one() -> Estimate:
    return Estimate(value=1.0, low=0.9, high=1.1, method="the same machine on another day")


def _rank(option: Option) -> tuple[bool, float, str, str]:
    return not option.meets, option.cost.total.value if option.cost else math.inf, option.provider, option.instance


def _same(a: Option, b: Option) -> bool:
    return (a.provider, a.region, a.instance) == (b.provider, b.region, b.instance)


def _judge(requirements: Requirements, chosen: Option | None) -> tuple[Literal["none", "warn", "block"], str]:
    """Whether the cheapest option that meets the file stays in the budget, in words."""
    if chosen is None or chosen.cost is None:
        return "block", "no machine type can be shown to meet the file; the table says why each lost"
    budget, total = requirements.budget, chosen.cost.total
    named = "this machine" if chosen.provider == "here" else f"{chosen.provider} {chosen.instance}"
    if budget is None:
        return "none", f"the cheapest of those that meet the file is {named}; the file sets no budget"
    if total.value > budget.amount:
        text = f"the cheapest that meets the file, {named}, costs {total.value:,.0f} {budget.currency} a month"
        return requirements.on_breach, f"{text}; the budget is {budget.amount:,.0f}"
    sure = "with the whole interval" if total.high <= budget.amount else "but the upper end of the interval does not"
    return "none", f"the cheapest of those that meet the file is {named}; it stays in the budget, {sure}"


def _with_reason(option: Option, chosen: Option | None, requirements: Requirements) -> Option:
    if not option.meets or option.cost is None or (chosen and _same(option, chosen)):
        return option
    budget, total = requirements.budget, option.cost.total.value
    if chosen is None or chosen.cost is None:
        return msgspec.structs.replace(option, lost="over the budget, which blocks")
    more = total - chosen.cost.total.value
    text = f"{more:,.0f} {option.cost.currency} a month dearer" if more >= 0.5 else "no cheaper"
    return msgspec.structs.replace(
        option, lost=text + (", and over the budget" if budget and total > budget.amount else "")
    )


def _constraints(
    requirements: Requirements, catalogue: Catalogue, probe: Probe, chosen: Option
) -> tuple[Constraint, ...]:
    """What each requirement costs: choose again without it. The largest saving binds."""
    now = chosen.cost.total.value if chosen.cost else 0.0
    found = []
    for name, line, relaxed in _relaxed(requirements):
        stages = workloads.stages(relaxed.size, probe)
        here = Site(cost.this_machine(catalogue, probe), _exactly_one(), "")
        options = (
            _option(site, relaxed, catalogue, stages, _cs2(probe))
            for site in (here, *_rented(relaxed, catalogue, probe))
        )
        totals = [option.cost.total.value for option in options if option.meets and option.cost]
        saved = max(0.0, now - min(totals, default=now))
        found.append(Constraint(name=name, line=line, saved=saved, share=saved / now if now else 0.0))
    return tuple(sorted(found, key=lambda c: (-c.saved, c.name)))


def _relaxed(requirements: Requirements) -> Iterable[tuple[str, int, Requirements]]:
    """The requirements without each of them in turn, with the line that asks for it."""

    def scaled(name: str, value: float) -> Requirements:
        items = tuple(msgspec.structs.replace(i, value=value) if i.name == name else i for i in requirements.items)
        return msgspec.structs.replace(requirements, items=items)

    p99, availability = requirements.item("p99"), requirements.item("availability")
    yield "latency: ten times the p99", p99.line, scaled("p99", p99.value * 10)
    yield "availability: 99 %", availability.line, scaled("availability", min(availability.value, 0.99))
    peak = requirements.item("peak rate")
    items = tuple(
        msgspec.structs.replace(i, value=i.value / 2) if i.unit in ("requests/s", "requests") else i
        for i in requirements.items
    )
    yield "throughput: half the peak", peak.line, msgspec.structs.replace(requirements, items=items)
    if requirements.residency:
        yield "residency: anywhere", requirements.residency_line, msgspec.structs.replace(requirements, residency=())
    yield (
        "replicas: no upper limit",
        requirements.replicas_line,
        msgspec.structs.replace(requirements, replicas_max=10**6),
    )
