"""What an option costs in a month, by part. Money is US dollars, the currency of the catalogue."""

import datetime
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from bedplate.plan import intervals
from bedplate.plan.accelerators import accelerator
from bedplate.plan.catalogue import CURRENCY, Catalogue, Cpu, Fact, Instance
from bedplate.plan.requirements import HOURS_PER_MONTH
from bedplate.plan.types import Cost, Item, Market, Probe, Requirements
from bedplate.records import Estimate

if TYPE_CHECKING:
    from bedplate.plan.sites import Site

_PRICE_SPREAD = {"exact": 0.02, "derived": 0.08, "corrected": 0.15, "unverified": 0.2}
"""How far a price may be from today's, each way, by the quality of its cell."""
_FALLS, _FALLS_DEVICES, _RISES = 0.1, 0.4, 0.05
"""How far a price may have moved a year: AWS cut those of accelerators by 33 and 44 % in June 2025."""
_SPOT_SPREAD = (0.6, 1.0, 1.8)
"""Spot prices follow demand."""
SERVICES: Mapping[str, tuple[str, str]] = {
    "storage": ("tables kept", "object_storage"),
    "logging": ("prediction log kept", "object_storage"),
    "egress": ("answers a month", "egress"),
}
"""Parts of a month that are bytes times a price: the item of the requirements, and the fact of the provider."""
_GB = 1e9
Ends = tuple[float, float, float]
"""The least, the middle and the most that something may be."""


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
        currency=CURRENCY,
        price_hour=(core.value * probe.cores + memory.value * gib) / HOURS_PER_MONTH,
        spot_hour=None,
        price_date=core.date,
        price_source=core.source,
        price_quality=core.quality,
    )


def hourly(instance: Instance, market: Market, catalogue: Catalogue) -> Estimate:
    """Money an hour of one machine; the interval widens with the age of the price, downwards more, as prices fall."""
    value = (instance.spot_hour or math.inf) if market == "spot" else instance.price_hour
    method = "assumed cost of owned hardware" if market == "owned" else f"{instance.price_quality} price"
    product = intervals.product(rate_errors(instance, market, catalogue).values())
    return intervals.scaled(_named(product, method), value)


def rate_errors(instance: Instance, market: Market, catalogue: Catalogue) -> dict[str, Ends]:
    """The factors between a listed price and what an hour costs, each under the name of what it errs by.

    Two machines share an error where they share its name.
    """
    if market == "owned":
        core = catalogue.services["here"]["core_month"]
        return {"cost of owned hardware": (core.low / core.value, 1.0, core.high / core.value)}
    place = f"{instance.provider}/{instance.region}/{instance.instance}"
    spread = _PRICE_SPREAD.get(instance.price_quality, 0.2)
    low, high = aged(instance, catalogue.today)
    found: dict[str, Ends] = {f"price of {place}": ((1 - spread) * low, 1.0, high + spread)}
    if market == "spot":
        found[f"spot price of {place}"] = _SPOT_SPREAD
    elif market == "reserved":
        share = catalogue.services[instance.provider]["reserved_year"]
        found[f"a year's commitment at {instance.provider}"] = (share.low, share.value, share.high)
    return found


def aged(instance: Instance, today: str) -> tuple[float, float]:
    """What the price of a machine may have become since its date, at least and at most, as factors."""
    since = datetime.date.fromisoformat(today) - datetime.date.fromisoformat(instance.price_date)
    years = max(0.0, since.days / 365.25)
    return 1 / (1 + (_FALLS_DEVICES if instance.accelerator else _FALLS) * years), 1 + _RISES * years


def _named(estimate: Estimate, method: str) -> Estimate:
    return msgspec.structs.replace(estimate, method=method)


def monthly(
    site: "Site", catalogue: Catalogue, requirements: Requirements, *,
    busy: float, machines: int, slots: int, needed: int,
) -> Cost:  # fmt: skip
    """A month's cost of ``machines`` with ``slots`` copies each, fewer in quiet hours where file and market let it.

    ``busy`` is how many machines would be at work all the time if they did nothing else.
    """
    hours = machines * HOURS_PER_MONTH  # owned and reserved machines cost the same at night
    if site.market == "on-demand":
        hours = _machine_hours(requirements, machines=machines, slots=slots, needed=needed)
    paid = intervals.scaled(site.rate, hours)
    share = min(1.0, busy * HOURS_PER_MONTH / hours) if hours else 0.0
    facts = catalogue.services[site.instance.provider]
    items = {item.name: item for item in requirements.items}
    parts = {
        "compute": intervals.scaled(paid, share),
        "idle": intervals.scaled(paid, 1 - share),
        **{part: _priced(items.get(item), facts[fact]) for part, (item, fact) in SERVICES.items()},
        "retraining": _retraining(site, items),
    }
    total = intervals.total([paid, *list(parts.values())[2:]])
    return Cost(currency=CURRENCY, period="month", total=total, **parts)


def of_run(site: "Site", catalogue: Catalogue, *, hours: Estimate, machines: int, share: float, kept: float) -> Cost:
    """What one run costs: ``share`` of its hours is work, the rest starts again what failures lost; ``kept`` bytes."""
    factors = [(hours.low, hours.value, hours.high), (site.rate.low, site.rate.value, site.rate.high)]
    paid = intervals.scaled(intervals.product(factors), float(machines))
    fact = catalogue.services[site.instance.provider]["object_storage"]
    months = hours.value / HOURS_PER_MONTH
    storage = intervals.scaled(
        Estimate(value=fact.value, low=fact.low, high=fact.high, method="price x bytes"), kept / _GB * months
    )
    nothing = Estimate(value=0.0, low=0.0, high=0.0, method="none")
    return Cost(
        currency=CURRENCY,
        period="run",
        compute=intervals.scaled(paid, share),
        idle=intervals.scaled(paid, 1 - share),
        storage=storage,
        logging=nothing,
        egress=nothing,
        retraining=nothing,
        total=intervals.total([paid, storage]),
    )


def carbon(instance: Instance, catalogue: Catalogue, *, hours: float, busy: float) -> Estimate | None:
    """Kilograms of CO2 equivalents of ``hours`` machine hours; None where the grid is not known.

    An accelerator draws a fifth of its rated power when idle and nearly all of it at work; a vCPU 2 to 8 W with its
    memory. Power of the building and carbon of the grid are facts of the catalogue. The making of the machines is not
    counted.
    """
    facts = catalogue.services[instance.provider]
    grid = facts.get("grid_g_kwh")
    middle = grid.value if grid else instance.grid_g_kwh
    if middle is None:
        return None
    load = 0.2 + 0.7 * min(1.0, busy)
    watts = instance.vcpus * (2.0 + 5.0 * min(1.0, busy))
    if instance.accelerator:
        watts += instance.accelerators * accelerator(instance.accelerator).watts * load
    over = facts["power_overhead"]
    ends = (grid.low, middle, grid.high) if grid else (middle * 0.7, middle, middle * 1.4)
    kilograms = intervals.product([(0.7, 1.0, 1.3), (over.low, over.value, over.high), ends])
    return _named(intervals.scaled(kilograms, watts * hours / 1e6), "power x grid")


def _machine_hours(requirements: Requirements, *, machines: int, slots: int, needed: int) -> float:
    """Hours paid in a month: in each hour of the day the machines its rate needs, never fewer than redundancy asks."""
    spare = machines - math.ceil(needed / slots)
    hours = 0.0
    for rate in requirements.hourly:
        processes = max(requirements.replicas_min, math.ceil(needed * rate), 1)
        hours += min(machines, math.ceil(processes / slots) + spare)
    return hours / 24 * HOURS_PER_MONTH


def _priced(item: Item | None, fact: Fact) -> Estimate:
    """Bytes times a price per GB; zero where the file gives no bytes."""
    if item is None or fact.value == 0:
        high = (item.high or item.value) / _GB * fact.high if item else 0.0
        return Estimate(value=0.0, low=0.0, high=high, method="none")
    price = fact.value
    return intervals.scaled(intervals.product([ends(item), (fact.low or price, price, fact.high)]), 1 / _GB)


def ends(item: Item) -> Ends:
    """A requirement between its ends; where it has none, it is what it is."""
    return item.low or item.value, item.value, item.high or item.value


def _retraining(site: "Site", items: dict[str, Item]) -> Estimate:
    """Trainings a month at the machine's own price per core; nothing where the size of the data is unknown."""
    training = items.get("one training")
    core_hours = training.value / 3600 * items["retrainings a month"].value if training else 0.0
    if training is None or not core_hours:
        return Estimate(value=0.0, low=0.0, high=0.0, method="none, or unknown: no row counts yet")
    low, value, high = ends(training)
    rate = site.rate
    factors = [(low / value, 1.0, high / value), (rate.low, rate.value, rate.high)]
    return intervals.scaled(intervals.product(factors), core_hours)
