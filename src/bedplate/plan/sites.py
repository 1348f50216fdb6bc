"""Where it could run: each machine type at its cheapest allowed place, by market, and this machine.

What every kind of workload shares is here: an option without its figures, and how likely a figure keeps a limit.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from bedplate.plan import cost
from bedplate.plan.catalogue import Catalogue, Instance
from bedplate.plan.intervals import product
from bedplate.plan.types import Item, Market, Option, Predicted, Probe, Requirements, named
from bedplate.records import Estimate

_CLOCK_HERE = (1.0, 1.25, 1.5)
"""What this machine's cores run at, against the base clock that systems report."""
_WORK_PER_CLOCK = (0.75, 1.0, 1.35)
"""Between processor generations of the last seven years, at the same clock; scalar and memory-bound work."""
_HYPERTHREAD = (0.5, 0.62, 0.8)
"""What one of two busy threads of a core does, against a whole core."""
_Z90 = 1.645


class Site(NamedTuple):
    """A machine that could be rented or is there: the common form of a catalogue row and of this machine."""

    instance: Instance
    market: Market
    rate: Estimate
    """Money an hour."""


Sizer = Callable[[Site, Requirements, Catalogue, Probe], Iterator[Option]]
"""The port of a kind of workload: ways to run it on machines of a site, each with its figures and its cost."""


def here(catalogue: Catalogue, probe: Probe) -> Site:
    """This machine, at the assumed cost of owned hardware."""
    instance = cost.this_machine(catalogue, probe)
    return Site(instance, "owned", cost.hourly(instance, "owned", catalogue))


def rented(
    requirements: Requirements, catalogue: Catalogue, markets: Iterable[Market], running: str = ""
) -> Iterator[Site]:
    """Of each machine type and market, the cheapest place that residency allows, and dearer ones with more zones.

    Only zones make a dearer place worth a look, as without them it may not promise what the file asks for; and that
    ``running`` is the name of the option there.
    """
    for market in markets:
        places: dict[tuple[str, str], list[tuple[float, str, Instance]]] = {}
        for instance in catalogue.instances:
            if requirements.residency and instance.residency not in requirements.residency:
                continue
            price = instance.spot_hour if market == "spot" else instance.price_hour
            if price is not None:
                places.setdefault((instance.provider, instance.instance), []).append((price, instance.region, instance))
        for key in sorted(places):
            zones = 0
            for _, region, instance in sorted(places[key], key=lambda place: place[:2]):
                if instance.zones > zones or named(key[0], region, key[1], market) == running:
                    zones = max(zones, instance.zones)
                    yield Site(instance, market, cost.hourly(instance, market, catalogue))


def speed(site: Site, probe: Probe) -> tuple[Estimate | None, str]:
    """How fast one vCPU is against one core here: clocks, work per clock, shared cores; each with its spread."""
    instance = site.instance
    if site.market == "owned":
        return Estimate(value=1.0, low=0.9, high=1.1, method="the same machine on another day"), "it was measured"
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


def described(site: Site) -> Option:
    """The option before anything is known of it."""
    i = site.instance
    return Option(
        provider=i.provider,
        region=i.region,
        instance=i.instance,
        architecture=i.architecture,
        vcpus=i.vcpus,
        memory_gib=i.memory_gib,
        price_hour=site.rate.value,
        price_date=i.price_date,
        price_source=i.price_source,
        price_quality=i.price_quality,
        market=site.market,
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


def lost(site: Site, why: str) -> Option:
    """An option without figures, and why."""
    return msgspec.structs.replace(described(site), lost=why)


def predicted(
    name: str, estimate: Estimate, unit: str, limit: Item | None = None, known: float | None = None
) -> Predicted:
    """A figure beside its limit, which it must not exceed."""
    if limit is None:
        return Predicted(name=name, estimate=estimate, unit=unit, known=known)
    return Predicted(
        name=name, estimate=estimate, unit=unit, limit=limit.value, line=limit.line,
        chance=chance(estimate, limit.value), known=known,
    )  # fmt: skip


def chance(estimate: Estimate, limit: float) -> float:
    """Probability that the figure stays at or below the limit; its logarithm is normal on each side of the middle."""
    if math.isinf(estimate.value):
        return 0.0
    end = estimate.high if limit >= estimate.value else estimate.low
    width = abs(math.log(end / estimate.value)) / _Z90 if end > 0 and not math.isinf(end) else math.inf
    off = math.log(limit / estimate.value)
    if width == 0:
        return 1.0 if off >= 0 else 0.0
    return 0.5 * (1 + math.erf(off / width / math.sqrt(2)))
