"""What an option costs in a month, by part. Money is US dollars, the currency of the catalogue."""

import math

from bedplate.plan import intervals
from bedplate.plan.catalogue import Catalogue, Cpu, Fact, Instance
from bedplate.plan.requirements import HOURS_PER_MONTH
from bedplate.plan.types import Cost, Item, Probe, Requirements
from bedplate.records import Estimate

_PRICE_SPREAD = {"exact": 0.02, "derived": 0.08, "unverified": 0.2}
"""How far a price may be from today's, each way, by the quality of its cell."""
_GB = 1e9


def this_machine(catalogue: Catalogue, probe: Probe) -> Instance:
    """The machine that was measured, as an instance; its price is a stated assumption about owned hardware."""
    core, memory = catalogue.services["here"]["core_month"], catalogue.services["here"]["memory_month"]
    gib = probe.memory / 2**30
    return Instance(
        provider="here",
        region="here",
        residency="here",
        zones=1,
        instance="this machine",
        family="here",
        architecture="",
        vcpus=probe.cores,
        memory_gib=round(gib, 2),
        cpu=Cpu(cpu="here", label=probe.cpu, clock_low_ghz=None, clock_high_ghz=None, threads_per_core=1),
        currency="USD",
        price_hour=(core.value * probe.cores + memory.value * gib) / HOURS_PER_MONTH,
        spot_hour=None,
        price_date=core.date,
        price_source=core.source,
        price_quality=core.quality,
    )


def monthly(
    instance: Instance, catalogue: Catalogue, requirements: Requirements, service: Estimate, *,
    machines: int, each: int, slots: int, needed: int,
) -> Cost:  # fmt: skip
    """A month's cost of ``machines`` with ``each`` replicas, fewer of them in quiet hours where the file lets it."""
    hours = _machine_hours(requirements, machines=machines, slots=slots, needed=needed)
    if instance.provider == "here":
        hours = machines * HOURS_PER_MONTH  # owned hardware costs the same at night
    rented = _price(instance, catalogue, hours)
    mean = requirements.value("mean rate")
    busy_hours = mean * service.value * HOURS_PER_MONTH / instance.vcpus
    share = min(1.0, busy_hours / hours) if hours else 0.0
    facts = catalogue.services[instance.provider]
    items = {item.name: item for item in requirements.items}
    parts = {
        "compute": intervals.scaled(rented, share),
        "idle": intervals.scaled(rented, 1 - share),
        "storage": _priced(items.get("tables kept"), facts["object_storage"]),
        "logging": _priced(items["prediction log kept"], facts["object_storage"]),
        "egress": _priced(items["answers a month"], facts["egress"]),
        "retraining": _retraining(instance, catalogue, items),
    }
    return Cost(currency="USD", total=intervals.total([rented, *list(parts.values())[2:]]), **parts)


def _machine_hours(requirements: Requirements, *, machines: int, slots: int, needed: int) -> float:
    """Hours paid in a month: in each hour of the day the machines its rate needs, never fewer than redundancy asks."""
    spare = machines - math.ceil(needed / slots)
    hours = 0.0
    for rate in requirements.hourly:
        processes = max(requirements.replicas_min, math.ceil(needed * rate), 1)
        hours += min(machines, math.ceil(processes / slots) + spare)
    return hours / 24 * HOURS_PER_MONTH


def _price(instance: Instance, catalogue: Catalogue, hours: float) -> Estimate:
    value = instance.price_hour * hours
    if instance.provider == "here":
        core = catalogue.services["here"]["core_month"]
        low, high = core.low / core.value, core.high / core.value
        return Estimate(value=value, low=value * low, high=value * high, method="assumed cost of owned hardware")
    spread = _PRICE_SPREAD.get(instance.price_quality, 0.2)
    return Estimate(
        value=value,
        low=value * (1 - spread),
        high=value * (1 + spread),
        method=f"{instance.price_quality} price x hours",
    )


def _priced(item: Item | None, fact: Fact) -> Estimate:
    """Bytes times a price per GB; zero where the file gives no bytes."""
    if item is None or fact.value == 0:
        high = (item.high or item.value) / _GB * fact.high if item else 0.0
        return Estimate(value=0.0, low=0.0, high=high, method="none")
    amount, price = item.value / _GB, fact.value
    low, high = (item.low or item.value) / _GB, (item.high or item.value) / _GB
    estimate = intervals.product([(low, amount, high), (fact.low or price, price, fact.high)])
    return intervals.scaled(estimate, 1.0)


def _retraining(instance: Instance, catalogue: Catalogue, items: dict[str, Item]) -> Estimate:
    """Trainings a month at the machine's own price per core; nothing where the size of the data is unknown."""
    training = items.get("one training")
    if training is None:
        return Estimate(value=0.0, low=0.0, high=0.0, method="unknown: no row counts yet")
    runs = items["retrainings a month"].value
    price = _price(instance, catalogue, 1.0)
    core_hours = training.value / 3600 * runs
    low, high = (training.low or training.value) / training.value, (training.high or training.value) / training.value
    return (
        intervals.product(
            [(low, 1.0, high), (price.low, price.value, price.high), (core_hours, core_hours, core_hours)]
        )
        if core_hours
        else Estimate(value=0.0, low=0.0, high=0.0, method="none")
    )
