"""Prices and shapes of machines, shipped with the package; every cell carries date, source and quality.

Here and in ``accelerators`` alone the planner reads files, all of them its own. Load-time checks refuse what has gone
wrong in price lists before: sentinels, spot above on-demand, prices that fall with size, regions far from the others.
"""

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib import resources

import msgspec

from bedplate.errors import IntegrityError
from bedplate.ids import Digest, digest_of
from bedplate.plan import price_checks as checks
from bedplate.plan.price_checks import Key, Row, key_of, number

_FILES = ("instances", "prices", "cpus", "regions", "services")
CURRENCY = "USD"
"""What all prices are in; nothing here knows what another currency is worth."""
_SPOT_SHARES = (0.5, 0.95)
"""A spot price is one that can be had from half the share of the list price that its type has in the middle of its
regions, up to 0.95 of that price, above which a list price was copied."""


class Cpu(msgspec.Struct, frozen=True, kw_only=True):
    """A processor: its all-core clock where it is known, and how many vCPUs share a core."""

    cpu: str
    label: str
    clock_low_ghz: float | None
    clock_high_ghz: float | None
    threads_per_core: int


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """A machine type in one region, with its price."""

    provider: str
    region: str
    residency: str
    zones: int
    instance: str
    family: str
    architecture: str
    vcpus: int
    memory_gib: float
    cpu: Cpu
    accelerator: str | None = None
    """A name of :mod:`bedplate.plan.accelerators`; None: processors alone."""
    accelerators: int = 0
    machines: int | None = None
    """How many there are, of your own; None: as many as are asked for."""
    cluster_gbps: float | None = None
    """10^9 bytes a second between machines, for all accelerators of one together; None: no cluster is sold."""
    grid_g_kwh: float | None = None
    """Grams of CO2 equivalents a kilowatt-hour of the region's grid; None where nobody knows."""
    currency: str
    price_hour: float
    spot_hour: float | None
    spot_doubt: str = ""
    """Why a published spot price is not believed; it is then left out."""
    price_date: str
    price_source: str
    price_quality: str


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One number about a provider with its interval: a storage price, an availability that is promised."""

    value: float
    low: float
    high: float
    unit: str
    date: str
    source: str
    quality: str


class Catalogue(msgspec.Struct, frozen=True, kw_only=True):
    """All machine types with their prices, and what else providers charge or promise."""

    instances: tuple[Instance, ...]
    services: dict[str, dict[str, Fact]]
    digest: Digest
    today: str
    """The day that the age of a price counts to: that of the newest one, until someone who has a clock says another."""


@cache
def load() -> Catalogue:
    """The catalogue that the package ships.

    Raises:
        IntegrityError: it does not pass its own checks; the text names every row at fault.
    """
    return build(texts())


@cache
def texts() -> Mapping[str, str]:
    """The tables that ship, as CSV, by name."""
    folder = resources.files("bedplate.plan") / "facts"
    return {name: (folder / f"{name}.csv").read_text(encoding="utf-8") for name in _FILES}


def faults(files: Mapping[str, str]) -> list[checks.Fault]:
    """Everything that the checks find in the texts of a catalogue."""
    tables = {name: list(csv.DictReader(io.StringIO(files[name]))) for name in _FILES}
    return checks.faults(tables)


def build(files: Mapping[str, str]) -> Catalogue:
    """A catalogue from CSV texts: ``instances``, ``prices``, ``cpus``, ``regions`` and ``services``.

    Raises:
        IntegrityError: a check failed.
    """
    found = faults(files)
    if found:
        shown = "\n".join(f"  {checks.told(fault)}" for fault in found[:20])
        raise IntegrityError(
            f"{len(found)} faults in the price catalogue\n{shown}", where="catalogue", fix="correct or remove the rows"
        )
    tables = {name: list(csv.DictReader(io.StringIO(files[name]))) for name in _FILES}
    cpus = {row["cpu"]: _cpu(row) for row in tables["cpus"]}
    shapes = {(row["provider"], row["instance"]): row for row in tables["instances"]}
    regions = {(row["provider"], row["region"]): row for row in tables["regions"]}
    services: dict[str, dict[str, Fact]] = defaultdict(dict)
    for row in tables["services"]:
        services[row["provider"]][row["fact"]] = Fact(
            value=float(row["value"]),
            low=float(row["low"]),
            high=float(row["high"]),
            unit=row["unit"],
            date=row["price_date"],
            source=row["source"],
            quality=row["quality"],
        )
    doubts = _doubts(tables["prices"])
    instances = tuple(
        _instance(row, shapes[row["provider"], row["instance"]], regions[row["provider"], row["region"]], cpus, doubts)
        for row in tables["prices"]
    )
    return Catalogue(
        instances=instances,
        services=dict(services),
        digest=digest_of(dict(files)),
        today=max(i.price_date for i in instances),
    )


def _cpu(row: Row) -> Cpu:
    return Cpu(
        cpu=row["cpu"],
        label=row["label"],
        clock_low_ghz=float(row["clock_low_ghz"]) if row["clock_low_ghz"] else None,
        clock_high_ghz=float(row["clock_high_ghz"]) if row["clock_high_ghz"] else None,
        threads_per_core=int(row["threads_per_core"]),
    )


def _instance(price: Row, shape: Row, region: Row, cpus: Mapping[str, Cpu], doubts: Mapping[Key, str]) -> Instance:
    doubt = doubts.get(key_of(price), "")
    return Instance(
        provider=price["provider"],
        region=price["region"],
        residency=region["residency"],
        zones=int(region["zones"]),
        instance=price["instance"],
        family=shape["family"],
        architecture=shape["architecture"],
        vcpus=int(shape["vcpus"]),
        memory_gib=float(shape["memory_gib"]),
        cpu=cpus[shape["cpu"]],
        accelerator=shape["accelerator"] or None,
        accelerators=int(shape["accelerators"] or 0),
        machines=int(shape["machines"]) if shape.get("machines") else None,
        cluster_gbps=number(shape["cluster_gbps"]),
        grid_g_kwh=number(region["grid_g_kwh"]),
        currency=price["currency"],
        price_hour=float(price["price_hour"]),
        spot_hour=float(price["spot_hour"]) if price["spot_hour"] and not doubt else None,
        spot_doubt=doubt,
        price_date=price["price_date"],
        price_source=price["price_source"],
        price_quality=price["price_quality"],
    )


def _doubts(prices: list[dict[str, str]]) -> dict[Key, str]:
    """Spot prices that cannot be had, with the reason. A type is judged by its own regions, three or more of them."""
    types: dict[tuple[str, str], list[tuple[Key, float]]] = defaultdict(list)
    for row in prices:
        if row["spot_hour"]:
            share = float(row["spot_hour"]) / float(row["price_hour"])
            types[row["provider"], row["instance"]].append((key_of(row), share))
    found = {}
    for members in types.values():
        middle = statistics.median(share for _, share in members)
        for key, share in members:
            if len(members) >= 3 and share < _SPOT_SHARES[0] * middle:
                found[key] = f"a spot price of {share:.0%} of the list price; the type's regions have {middle:.0%}"
            elif share > _SPOT_SHARES[1]:
                found[key] = f"a spot price of {share:.0%} of the list price is the list price, copied"
    return found
